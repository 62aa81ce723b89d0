/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes over a real directory: names that follow our renames and unlinks, inodes with two names, numbers used again,
 * descriptors that come and go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/node.h"
#include "lib/base/clock.h"

static char top[64];
static struct tree tree;
static struct node_table table;

static void run(const char *command)
{
	char line[512];

	snprintf(line, sizeof(line), "cd %s && %s", top, command);
	assert_int_equal(system(line), 0);
}

static int setup(void **state)
{
	struct err e;

	(void)state;
	strcpy(top, "/tmp/maildex-node.XXXXXX");
	assert_non_null(mkdtemp(top));
	run("mkdir -p u/Maildir/new u/Maildir/cur u/Maildir/tmp u/cur v && touch u/f u/g");
	assert_int_equal(tree_open(&tree, top, &e), 0);
	assert_int_equal(node_table_init(&table, &tree, 2, &e), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	node_table_release(&table);
	tree_close(&tree);
	run("cd / && rm -rf \"$OLDPWD\"");
	return 0;
}

static struct node *look(struct node *parent, const char *name)
{
	int fd = node_dir_get(&table, parent), dirfd = -1;
	struct statx stx;
	struct node *n;

	assert_true(fd >= 0);
	assert_int_equal(statx(fd, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &stx), 0);
	if (S_ISDIR(stx.stx_mode))
		dirfd = openat(fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	n = node_lookup(&table, parent, name, &stx, dirfd);
	node_dir_put(&table, parent);
	assert_non_null(n);
	return n;
}

static const char *path_of(struct node *n)
{
	static char path[FOLDER_PATH_MAX];

	assert_int_equal(node_path(&table, n, path, sizeof(path)), 0);
	return path;
}

static void names_follow(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f"), *v = look(table.root, "v");
	char path[64];

	(void)state;
	assert_string_equal(path_of(f), "u/f");
	node_renamed(&table, u, "f", v, "x", false);
	assert_string_equal(path_of(f), "v/x");
	node_renamed(&table, table.root, "v", u, "w", false);
	assert_string_equal(path_of(f), "u/w/x");
	node_name_removed(&table, v, "x");
	assert_int_equal(node_path(&table, f, path, sizeof(path)), -ESTALE);
	node_forget(&table, f, 1);
	node_forget(&table, v, 1);
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
}

static void two_names_are_one_node(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f"), *other;

	(void)state;
	run("ln u/f u/h");
	other = look(u, "h");
	assert_ptr_equal(f, other);
	node_name_removed(&table, u, "f");
	assert_string_equal(path_of(f), "u/h");
	node_renamed(&table, u, "h", u, "h2", false);
	assert_string_equal(path_of(f), "u/h2");
	node_forget(&table, f, 2);
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
}

/* Another host renames, and back: the name that was looked up last is tried first. */
static void the_last_name_seen_is_the_first(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f");

	(void)state;
	run("mv u/f u/h");
	assert_ptr_equal(look(u, "h"), f);
	assert_string_equal(path_of(f), "u/h");
	run("mv u/h u/f");
	assert_ptr_equal(look(u, "f"), f);
	assert_string_equal(path_of(f), "u/f");
	node_forget(&table, f, 3);
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
}

static void changes_of_names_are_counted(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f"), *v = look(table.root, "v");

	(void)state;
	assert_int_equal(u->dir->renames, 0);
	node_renamed(&table, u, "f", v, "x", false);
	assert_int_equal(u->dir->renames, 1);
	assert_int_equal(v->dir->renames, 1);
	node_name_removed(&table, v, "not there");
	assert_int_equal(v->dir->renames, 1);
	node_name_removed(&table, v, "x");
	assert_int_equal(v->dir->renames, 2);
	node_forget(&table, f, 1);
	node_forget(&table, v, 1);
	node_forget(&table, u, 1);
}

/* Exchanged names, and a rename over an open file: the one that was there has no name left. */
static void rename_over_and_exchange(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f"), *g = look(u, "g");
	char path[64];

	(void)state;
	node_renamed(&table, u, "f", u, "g", true);
	assert_string_equal(path_of(f), "u/g");
	assert_string_equal(path_of(g), "u/f");
	node_renamed(&table, u, "g", u, "f", false);
	assert_string_equal(path_of(f), "u/f");
	assert_int_equal(node_path(&table, g, path, sizeof(path)), -ESTALE);
	node_forget(&table, f, 1);
	node_forget(&table, g, 1);
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
}

/* The same number, another birth or type: another node, and the old one stays what it was. */
static void a_number_used_again_is_another_node(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f"), *other;
	struct statx stx;
	int fd = node_dir_get(&table, u);

	(void)state;
	assert_int_equal(statx(fd, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &stx), 0);
	stx.stx_btime.tv_sec++;
	stx.stx_mask |= STATX_BTIME;
	other = node_lookup(&table, u, "f", &stx, -1);
	node_dir_put(&table, u);
	assert_ptr_not_equal(f, other);
	assert_true(f->replaced);
	node_forget(&table, f, 1);
	node_forget(&table, other, 1);
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
}

/* As a filesystem without birth times tells it. */
static struct node *told(struct node *parent, const char *name, uint64_t ino, mode_t type, uint32_t nlink)
{
	struct statx stx = {.stx_mode = type | 0700, .stx_mask = STATX_BASIC_STATS, .stx_ino = ino, .stx_nlink = nlink};
	struct node *n = node_lookup(&table, parent, name, &stx, -1);

	assert_non_null(n);
	return n;
}

/* Another host removed a directory, and the next one that it made, below where that was, got its number. */
static void a_directory_is_not_below_itself(void **state)
{
	struct node *a = told(table.root, "a", 7000, S_IFDIR, 2), *b = told(a, "b", 7001, S_IFDIR, 2), *next;

	(void)state;
	next = told(b, "a", 7000, S_IFDIR, 2);
	assert_ptr_not_equal(next, a);
	assert_ptr_equal(told(b, "a", 7000, S_IFDIR, 2), next);
	assert_string_equal(path_of(next), "a/b/a");
	/* Renamed from outside, it is still the same one. */
	assert_ptr_equal(told(table.root, "c", 7001, S_IFDIR, 2), b);
	assert_string_equal(path_of(next), "c/a");
	node_forget(&table, next, 2);
	node_forget(&table, b, 2);
	node_forget(&table, a, 1);
	assert_int_equal(table.count, 0);
}

/* The number of a message that is gone is that of another one now. Its flags and its folder may change, links be made. */
static void a_message_keeps_its_base_name(void **state)
{
	struct node *u = look(table.root, "u"), *v = look(table.root, "v"), *m = told(u, "17.M1:2,", 7002, S_IFREG, 1),
		    *other;

	(void)state;
	assert_ptr_equal(told(u, "17.M1:2,S", 7002, S_IFREG, 1), m);
	assert_ptr_equal(told(v, "17.M1", 7002, S_IFREG, 1), m);
	assert_ptr_equal(told(v, "18.M2", 7002, S_IFREG, 2), m);
	assert_ptr_equal(told(v, "18.M2:2,S", 7002, S_IFREG, 1), m);
	node_forget(&table, m, 5);
	m = told(u, "17.M1:2,", 7002, S_IFREG, 1);
	other = told(u, "19.M3:2,", 7002, S_IFREG, 1);
	assert_ptr_not_equal(other, m);
	assert_string_equal(path_of(m), "u/17.M1:2,");
	node_forget(&table, other, 1);
	node_forget(&table, m, 1);
	node_forget(&table, v, 1);
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
}

/* Also where the number is all that is told of them: the same directory stands for the next one here. */
static void a_removed_directory_is_not_found_again(void **state)
{
	struct node *first = look(table.root, "v"), *next;

	(void)state;
	assert_ptr_equal(look(table.root, "v"), first);
	node_forget(&table, first, 1);
	node_dir_leaves(&table, table.root, "v", true);
	node_dir_leaves(&table, table.root, "v", false);
	assert_ptr_equal(look(table.root, "v"), first);
	node_forget(&table, first, 1);
	node_dir_leaves(&table, table.root, "v", true);
	next = look(table.root, "v");
	assert_ptr_not_equal(next, first);
	assert_ptr_equal(look(table.root, "v"), next);
	node_forget(&table, first, 1);
	node_forget(&table, next, 2);
}

/* At most two directories keep a descriptor; others are opened again, if they still are what they were. */
static void descriptors_come_and_go(void **state)
{
	struct node *u = look(table.root, "u"), *md = look(u, "Maildir"), *cur = look(md, "cur"),
		    *tmp = look(md, "tmp");
	int fd;

	(void)state;
	assert_in_range(table.dirfds, 1, 3);
	fd = node_dir_get(&table, cur);
	assert_true(fd >= 0);
	node_dir_put(&table, cur);
	fd = node_dir_get(&table, u);
	assert_true(fd >= 0);
	node_dir_put(&table, u);
	assert_true(node_dir_get(&table, tmp) >= 0);
	node_dir_put(&table, tmp);
	/* The old one stays, so that its number is taken. */
	run("mv u/Maildir/cur u/Maildir/x && mkdir u/Maildir/cur");
	assert_true(node_dir_get(&table, u) >= 0);
	node_dir_put(&table, u);
	if (cur->dir->fd < 0)
		assert_int_equal(node_dir_get(&table, cur), -ESTALE);
	node_forget(&table, tmp, 1);
	node_forget(&table, cur, 1);
	node_forget(&table, md, 1);
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
	assert_int_equal(table.dirfds, 1); /* the root's */
}

static void halves_are_new_and_cur_of_a_maildir(void **state)
{
	struct node *u = look(table.root, "u"), *md = look(u, "Maildir"), *cur = look(md, "cur"),
		    *tmp = look(md, "tmp"), *stray = look(u, "cur");

	(void)state;
	assert_true(node_is_half(&table, cur));
	assert_int_equal(cur->dir->half, HALF_CUR);
	assert_false(node_is_half(&table, tmp));
	assert_false(node_is_half(&table, stray));
	assert_true(md->dir->is_maildir);
	assert_true(u->dir->above_maildir);
	assert_false(md->dir->above_maildir);
	/* Renamed away it is none; forgotten, its Maildir does not point to it. */
	node_renamed(&table, md, "cur", u, "elsewhere", false);
	assert_false(node_is_half(&table, cur));
	assert_null(md->dir->halves[HALF_CUR]);
	node_forget(&table, stray, 1);
	node_forget(&table, tmp, 1);
	node_forget(&table, cur, 1);
	node_forget(&table, md, 1);
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
}

static void thousands_of_nodes(void **state)
{
	struct node *u = look(table.root, "u"), *all[5000];
	struct statx stx = {.stx_mode = S_IFREG | 0600, .stx_mask = STATX_BASIC_STATS};
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		stx.stx_ino = 1000000 + i;
		all[i] = node_lookup(&table, u, name, &stx, -1);
	}
	for (unsigned i = 0; i < 5000; i++) {
		struct node *n;

		snprintf(name, sizeof(name), "m%u", i);
		n = node_child(&table, u, name);
		assert_ptr_equal(n, all[i]);
		node_unref(&table, n);
		node_forget(&table, n, 1);
	}
	node_forget(&table, u, 1);
	assert_int_equal(table.count, 0);
}

/* What a lookup opened is for the open that follows it at once, by the same thread and user. */
static void an_early_descriptor_is_for_one_open(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f");
	int64_t start = clock_mono_ns();
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	node_early_keep(&table, f, 5, 6, fd);
	assert_int_equal(node_early_take(&table, f, 4, 6, start), -1);
	assert_int_equal(node_early_take(&table, f, 5, 7, start), -1);
	assert_int_equal(node_early_take(&table, f, 5, 6, start), fd);
	assert_int_equal(node_early_take(&table, f, 5, 6, start), -1);
	/* Much later it may be another file that has the name. */
	node_early_keep(&table, f, 5, 6, fd);
	assert_int_equal(node_early_take(&table, f, 5, 6, clock_mono_ns() + 1), -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	node_early_keep(&table, f, 5, 6, fd);
	node_early_end(&table, f);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	node_forget(&table, f, 1);
	node_forget(&table, u, 1);
}

static void *ends_renaming(void *arg)
{
	node_renamed(&table, arg, "f", arg, "x", false);
	node_renaming(&table, arg, false);
	return NULL;
}

/* A name that is not found while it is being changed here says nothing, and whoever missed it learns of the change. */
static void a_name_on_its_way_is_not_missing(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f");
	pthread_t thread;

	(void)state;
	assert_false(node_renamed_meanwhile(&table, u, u->dir->renames));
	node_renaming(&table, u, true);
	node_name_missing(&table, u, "f", u->dir->renames);
	assert_string_equal(path_of(f), "u/f");
	assert_int_equal(pthread_create(&thread, NULL, ends_renaming, u), 0);
	while (!node_renamed_meanwhile(&table, u, 0)) /* waits, 20 ms each */
		;
	pthread_join(thread, NULL);
	assert_string_equal(path_of(f), "u/x");
	node_name_missing(&table, u, "x", u->dir->renames);
	assert_null(f->names);
	node_forget(&table, f, 1);
	node_forget(&table, u, 1);
}

/* A child closed its copy of a descriptor: that is waited for once, not at each unlink for as long as it is open. */
static void a_close_that_does_not_come(void **state)
{
	struct node *u = look(table.root, "u"), *f = look(u, "f");
	struct handle a = {.fd = -1}, b = {.fd = -1};
	int64_t start;

	(void)state;
	node_opened(&table, f, &a);
	node_opened(&table, f, &b);
	node_flushed(&table, &a);
	node_flushed(&table, &b);
	assert_true(node_closing(&table, f));
	start = clock_mono_ns();
	node_await_close(&table, u, "f");
	assert_true(clock_mono_ns() - start >= NODE_CLOSE_WAIT_NS);
	assert_false(node_closing(&table, f));
	/* Waited for each time, these would take a minute. */
	for (int i = 0; i < 3000; i++)
		node_await_close(&table, u, "f");
	assert_true(clock_mono_ns() - start < 30 * NS_PER_S);
	node_flushed(&table, &a);
	assert_true(node_closing(&table, f));
	node_released(&table, &a);
	assert_false(node_closing(&table, f));
	node_released(&table, &b);
	assert_int_equal(f->handles, 0);
	node_forget(&table, f, 1);
	node_forget(&table, u, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_follow, setup, teardown),
		cmocka_unit_test_setup_teardown(two_names_are_one_node, setup, teardown),
		cmocka_unit_test_setup_teardown(the_last_name_seen_is_the_first, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_of_names_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(rename_over_and_exchange, setup, teardown),
		cmocka_unit_test_setup_teardown(a_number_used_again_is_another_node, setup, teardown),
		cmocka_unit_test_setup_teardown(a_removed_directory_is_not_found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_directory_is_not_below_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(a_message_keeps_its_base_name, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_come_and_go, setup, teardown),
		cmocka_unit_test_setup_teardown(halves_are_new_and_cur_of_a_maildir, setup, teardown),
		cmocka_unit_test_setup_teardown(a_close_that_does_not_come, setup, teardown),
		cmocka_unit_test_setup_teardown(an_early_descriptor_is_for_one_open, setup, teardown),
		cmocka_unit_test_setup_teardown(a_name_on_its_way_is_not_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(thousands_of_nodes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
