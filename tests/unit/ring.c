/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which events ask for a ring, over the nodes of a real directory, without a mount and without the threads that ring.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/fs.h"
#include "tests/unit/node_help.h"

static char top[64];
static struct fs *fs;
static struct node *new;

static struct node *look(struct node *parent, const char *name)
{
	return help_look(&fs->nodes, parent, name);
}

static int setup(void **state)
{
	char command[256];
	struct err e;

	(void)state;
	strcpy(top, "/tmp/maildex-ring.XXXXXX");
	assert_non_null(mkdtemp(top));
	snprintf(command, sizeof(command), "mkdir -p %s/u/M/new %s/u/M/cur", top, top);
	assert_int_equal(system(command), 0);
	fs = calloc(1, sizeof(*fs));
	assert_int_equal(tree_open(&fs->tree, top, &e), 0);
	assert_int_equal(node_table_init(&fs->nodes, &fs->tree, 64, &e), 0);
	turns_init(&fs->ring.turns, &fs->nodes);
	pthread_mutex_init(&fs->ring.lock, NULL);
	pthread_cond_init(&fs->ring.wake, NULL);
	new = look(look(look(fs->nodes.root, "u"), "M"), "new");
	fs->ring.mounted = true;
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	turns_release(&fs->ring.turns);
	node_table_release(&fs->nodes);
	tree_close(&fs->tree);
	free(fs);
	snprintf(command, sizeof(command), "rm -r %s", top);
	return system(command);
}

/* Is a ring asked for? Turns from before are over. */
static bool asks(const char *folder, enum half half, enum change_kind kind, const char *old, const char *name)
{
	struct change c;
	struct event ev;

	turns_release(&fs->ring.turns);
	event_init(&ev, folder, half);
	change_make(&c, kind, old, name, 0, 0);
	assert_int_equal(event_add(&ev, &c), 0);
	ring_event(fs, &ev);
	event_release(&ev);
	return fs->ring.turns.count > 0;
}

static void own(enum change_kind kind, const char *old, const char *name)
{
	struct change c;

	change_make(&c, kind, old, name, 0, 0);
	ring_own(fs, new, &c, 1);
}

/* cur was never looked up; other folders, and what is not there, neither. */
static void only_what_the_kernel_knows(void **state)
{
	(void)state;
	assert_true(asks("u/M", HALF_NEW, CHANGE_ADD, NULL, "1.x"));
	assert_ptr_equal(fs->ring.turns.due.first->node, new);
	assert_true(asks("u/M", HALF_NEW, CHANGE_LOOK, NULL, NULL));
	assert_true(asks("u/M", HALF_NEW, CHANGE_NEED, NULL, NULL));
	assert_false(asks("u/M", HALF_CUR, CHANGE_ADD, NULL, "1.x"));
	assert_false(asks("u", HALF_NEW, CHANGE_ADD, NULL, "1.x"));
	assert_false(asks("", HALF_NEW, CHANGE_ADD, NULL, "1.x"));
	assert_false(asks("v/M", HALF_NEW, CHANGE_ADD, NULL, "1.x"));
	node_ref(&fs->nodes, new);
	node_forget(&fs->nodes, new, 1);
	assert_false(asks("u/M", HALF_NEW, CHANGE_ADD, NULL, "1.x"));
	assert_ptr_equal(look(look(look(fs->nodes.root, "u"), "M"), "new"), new);
	node_unref(&fs->nodes, new);
	fs->ring.mounted = false;
	assert_false(asks("u/M", HALF_NEW, CHANGE_ADD, NULL, "1.x"));
	fs->ring.mounted = true;
}

static void echoes_of_own_changes_do_not_ring(void **state)
{
	(void)state;
	own(CHANGE_ADD, NULL, "1.x");
	assert_false(asks("u/M", HALF_NEW, CHANGE_ADD, NULL, "1.x"));
	assert_true(asks("u/M", HALF_NEW, CHANGE_ADD, NULL, "1.x")); /* one echo a change */
	own(CHANGE_ADD, NULL, "1.x");
	assert_true(asks("u/M", HALF_NEW, CHANGE_REMOVE, NULL, "1.x"));
	assert_true(asks("u/M", HALF_NEW, CHANGE_ADD, NULL, "2.x"));
	assert_true(asks("u/M", HALF_NEW, CHANGE_LOOK, NULL, NULL));
	own(CHANGE_RENAME, "1.x", "1.x:2,S");
	assert_false(asks("u/M", HALF_NEW, CHANGE_RENAME, "1.x", "1.x:2,S"));
	own(CHANGE_RENAME, "1.x", "1.x:2,S"); /* told of in two pieces */
	assert_false(asks("u/M", HALF_NEW, CHANGE_REMOVE, NULL, "1.x"));
	assert_false(asks("u/M", HALF_NEW, CHANGE_ADD, NULL, "1.x:2,S"));
}

/* A foreign change among own ones. */
static void a_mixed_event_rings(void **state)
{
	struct change c;
	struct event ev;

	(void)state;
	own(CHANGE_ADD, NULL, "1.x");
	turns_release(&fs->ring.turns);
	event_init(&ev, "u/M", HALF_NEW);
	for (int i = 1; i <= 2; i++) {
		change_make(&c, CHANGE_ADD, NULL, i == 1 ? "1.x" : "2.x", 0, 0);
		assert_int_equal(event_add(&ev, &c), 0);
	}
	ring_event(fs, &ev);
	assert_int_equal(fs->ring.turns.count, 1);
	event_release(&ev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(only_what_the_kernel_knows),
					   cmocka_unit_test(echoes_of_own_changes_do_not_ring),
					   cmocka_unit_test(a_mixed_event_rings)};

	return cmocka_run_group_tests(tests, setup, teardown);
}
