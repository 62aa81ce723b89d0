/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of live folders share: a real Maildir, without a mount; listings of it; own changes as op_rename()
 * makes them, and foreign ones made exactly where they hurt (scan_test_hook, or between the calls of a test).
 * Flow: setup/teardown per test. Errors: the running test fails.
 */
#ifndef MAILDEX_TESTS_LIVE_HELP_H
#define MAILDEX_TESTS_LIVE_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs.h"
#include "fs/own.h"
#include "lib/base/clock.h"
#include "tests/unit/node_help.h"

#define MESSAGES 40

static char top[64];
static struct fs *fs;
static struct conf conf;
static struct node *u, *maildir, *cur, *new;
static const struct cred self = {0};

static inline void run(const char *command)
{
	char line[1024];

	snprintf(line, sizeof(line), "cd %s/u/Maildir && %s", top, command);
	assert_int_equal(system(line), 0);
}

static inline struct node *look(struct node *parent, const char *name)
{
	return help_look(&fs->nodes, parent, name);
}

static inline int setup(void **state)
{
	struct err e;
	char index[128];

	(void)state;
	strcpy(top, "/tmp/maildex-live.XXXXXX");
	assert_non_null(mkdtemp(top));
	assert_int_equal(chmod(top, 0755), 0);
	fs = calloc(1, sizeof(*fs));
	conf_init(&conf);
	conf.window_min = 10;
	fs->conf = &conf;
	snprintf(index, sizeof(index), "%s/none.sqlite", top);
	snprintf(fs->mountpoint, sizeof(fs->mountpoint), "%s/mnt", top);
	assert_int_equal(mkdir(strcat(strcpy(index, top), "/u"), 0755), 0);
	assert_int_equal(mkdir(strcat(index, "/Maildir"), 0755), 0);
	run("mkdir new cur tmp && for i in $(seq 1 40); do : > cur/17$i.M${i}P1.h:2,S; done");
	strcat(strcpy(index, top), "/none.sqlite");
	assert_int_equal(tree_open(&fs->tree, top, &e), 0);
	serve_init(&fs->serve, SERVE_INDEX);
	assert_int_equal(node_table_init(&fs->nodes, &fs->tree, 64, &e), 0);
	assert_int_equal(live_cache_init(&fs->lives, 1 << 20, 2), 0);
	assert_int_equal(store_readers_new(&fs->index, index, fs->tree.identity), 0);
	assert_int_equal(conf_set(&conf, "socket=/nonexistent/maildex.sock", &e), 0);
	assert_int_equal(feed_start(fs, &e), 0);
	assert_int_equal(after_start(fs, &e), 0);
	u = look(fs->nodes.root, "u");
	maildir = look(u, "Maildir");
	cur = look(maildir, "cur");
	new = look(maildir, "new");
	assert_true(node_is_half(&fs->nodes, cur) && node_is_half(&fs->nodes, new));
	return 0;
}

static inline int teardown(void **state)
{
	char line[128];

	(void)state;
	scan_test_hook = NULL;
	after_stop(fs);
	feed_stop(fs);
	live_cache_release(fs);
	store_readers_free(fs->index);
	node_table_release(&fs->nodes);
	serve_release(&fs->serve);
	tree_close(&fs->tree);
	conf_release(&conf);
	free(fs);
	snprintf(line, sizeof(line), "rm -rf %s", top);
	return system(line);
}

/* opendir, and the listing of a first READDIR. */
static inline struct snapshot *list(struct node *half)
{
	int fd = node_dir_get(&fs->nodes, half), error;
	struct live *l = live_get(fs, half, &error);
	struct snapshot *s;

	assert_non_null(l);
	assert_int_equal(live_open(fs, l, fd, &self), 0);
	s = live_snapshot(l, false);
	assert_non_null(s);
	live_put(fs, l);
	node_dir_put(&fs->nodes, half);
	return s;
}

/* How often a name is in it. */
static inline unsigned times(const struct snapshot *s, const char *name)
{
	struct snapshot_entry e;
	struct snapshot_walk w;
	unsigned n = 0;

	snapshot_walk_init(&w, s);
	while (snapshot_walk_next(&w, &e))
		n += e.entry.len == strlen(name) && memcmp(e.entry.name, name, e.entry.len) == 0;
	return n;
}

/* Exactly what is on disk? */
static inline void assert_listed_right(struct node *half)
{
	struct snapshot *s = list(half);
	char path[256];
	struct dirent *de;
	uint64_t n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/u/Maildir/%s", top, half_word(half->dir->half));
	d = opendir(path);
	assert_non_null(d);
	while ((de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		n++;
		if (times(s, de->d_name) != 1)
			fail_msg("%s is listed %u times", de->d_name, times(s, de->d_name));
	}
	closedir(d);
	assert_int_equal(snapshot_count(s), n);
	snapshot_unref(s);
}

static inline uint64_t listings(void)
{
	return counter_get(COUNT_LOWER_LISTINGS);
}

/* Lists until the folder is proven: settled, and served without a listing. */
static inline void settle(struct node *half)
{
	const struct timespec pause = {.tv_nsec = 5 * NS_PER_MS};
	struct live *l;
	bool proven;

	do {
		snapshot_unref(list(half));
		l = live_peek(fs, half);
		pthread_mutex_lock(&l->lock);
		proven = fresh_proven(&l->fresh);
		pthread_mutex_unlock(&l->lock);
		live_put(fs, l);
		nanosleep(&pause, NULL);
	} while (!proven);
}

/* A rename as op_rename() does it; `between` runs after `pre` and before the lower call, `before_patch` behind it. */
static inline void own_rename(const char *old, const char *to, const char *between, const char *before_patch)
{
	int fd = node_dir_get(&fs->nodes, cur);
	struct own own;
	struct change c;
	struct stat st;

	own_begin(fs, cur, fd, &own);
	if (between)
		run(between);
	assert_int_equal(renameat(fd, old, fd, to), 0);
	if (before_patch)
		run(before_patch);
	assert_int_equal(fstatat(fd, to, &st, 0), 0);
	change_make(&c, CHANGE_RENAME, old, to, st.st_ino, DT_REG);
	own_end(fs, &own, 0, &c, 1);
	node_dir_put(&fs->nodes, cur);
}

static inline void stamp_now(struct stamp *s)
{
	int fd = node_dir_get(&fs->nodes, cur);

	assert_int_equal(stamp_read(fd, s, NULL), 0);
	node_dir_put(&fs->nodes, cur);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
