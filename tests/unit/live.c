/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Live folders over a real Maildir, without a mount: the races of live_open.c, own.c and feed_apply.c, with changes
 * made exactly where they hurt (scan_test_hook, or between the calls of this test).
 */
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

#define MESSAGES 40

static char top[64];
static struct fs *fs;
static struct conf conf;
static struct node *u, *maildir, *cur, *new;
static const struct cred self = {0};

static void run(const char *command)
{
	char line[1024];

	snprintf(line, sizeof(line), "cd %s/u/Maildir && %s", top, command);
	assert_int_equal(system(line), 0);
}

static struct node *look(struct node *parent, const char *name)
{
	int fd = node_dir_get(&fs->nodes, parent);
	struct statx stx;
	struct node *n;

	assert_true(fd >= 0);
	assert_int_equal(statx(fd, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &stx), 0);
	n = node_lookup(&fs->nodes, parent, name, &stx, openat(fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC));
	node_dir_put(&fs->nodes, parent);
	return n;
}

static int setup(void **state)
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

static int teardown(void **state)
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
static struct snapshot *list(struct node *half)
{
	int fd = node_dir_get(&fs->nodes, half), error;
	struct live *l = live_get(fs, half, &error);
	struct snapshot *s;

	assert_non_null(l);
	assert_int_equal(live_open(fs, l, fd, &self), 0);
	s = live_snapshot(l);
	assert_non_null(s);
	live_put(fs, l);
	node_dir_put(&fs->nodes, half);
	return s;
}

/* How often a name is in it. */
static unsigned times(const struct snapshot *s, const char *name)
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
static void assert_listed_right(struct node *half)
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

static uint64_t listings(void)
{
	return counter_get(COUNT_LOWER_LISTINGS);
}

/* Lists until the folder is proven: settled, and served without a listing. */
static void settle(struct node *half)
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
static void own_rename(const char *old, const char *to, const char *between, const char *before_patch)
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

static void served_without_listing_once_settled(void **state)
{
	uint64_t before;

	(void)state;
	settle(cur);
	before = listings();
	for (int i = 0; i < 20; i++)
		assert_listed_right(cur);
	assert_int_equal(listings(), before);
	run("mv cur/171.M1P1.h:2,S cur/171.M1P1.h:2,FS");
	assert_listed_right(cur);
	assert_true(listings() > before);
}

/* Read your writes, in a half big enough for windows: no listing at all. */
static void own_changes_cost_no_listing(void **state)
{
	char from[64] = "171.M1P1.h:2,S", to[64];
	uint64_t before;

	(void)state;
	settle(cur);
	before = listings();
	for (int i = 0; i < 200; i++) {
		struct snapshot *s;

		snprintf(to, sizeof(to), "171.M1P1.h:2,%c", 'a' + i % 26);
		own_rename(from, to, NULL, NULL);
		s = list(cur);
		assert_int_equal(times(s, to), 1);
		assert_int_equal(times(s, from), 0);
		assert_int_equal(snapshot_count(s), MESSAGES);
		snapshot_unref(s);
		strcpy(from, to);
	}
	assert_int_equal(listings(), before);
	assert_listed_right(cur);
}

/* C1: a silent change before an own change is in the stamp that `pre` reads. */
static void c1_silent_change_before_an_own_one(void **state)
{
	(void)state;
	settle(cur);
	run(": > cur/silent:2,");
	own_rename("171.M1P1.h:2,S", "171.M1P1.h:2,FS", NULL, NULL);
	assert_listed_right(cur);
}

/* C2: a silent change inside the window cannot be seen; the listing is on trust, and its confirmation repairs it. */
static void c2_slip_is_confirmed(void **state)
{
	int fd = node_dir_get(&fs->nodes, cur);
	bool repaired;
	struct live *l;

	(void)state;
	settle(cur);
	own_rename("171.M1P1.h:2,S", "171.M1P1.h:2,FS", ": > cur/silent:2,", NULL);
	snapshot_unref(list(cur));
	l = live_peek(fs, cur);
	assert_true(l->fresh.trust);
	assert_int_equal(live_rescan(fs, l, fd, &self, &repaired), 0);
	assert_true(repaired);
	assert_false(l->fresh.trust);
	live_put(fs, l);
	node_dir_put(&fs->nodes, cur);
	assert_listed_right(cur);
}

/* A silent change between the lower call and the patch of a small half. */
static void silent_change_before_the_patch(void **state)
{
	(void)state;
	conf.window_min = 1000;
	settle(cur);
	own_rename("171.M1P1.h:2,S", "171.M1P1.h:2,FS", NULL, "rm cur/172.*; mv cur/173.M3P1.h:2,S cur/173.M3P1.h:2,T");
	assert_listed_right(cur);
}

/* The own change's message was renamed from outside, unseen: one name, the new one. */
static void own_change_of_a_message_that_moved_unseen(void **state)
{
	struct snapshot *s;

	(void)state;
	settle(cur);
	run("mv cur/171.M1P1.h:2,S cur/171.M1P1.h:2,R");
	own_rename("171.M1P1.h:2,R", "171.M1P1.h:2,RS", NULL, NULL);
	s = list(cur);
	assert_int_equal(times(s, "171.M1P1.h:2,RS"), 1);
	assert_int_equal(times(s, "171.M1P1.h:2,S"), 0);
	snapshot_unref(s);
	assert_listed_right(cur);
}

/* ---- changes while the directory is read ---- */

static enum scan_stage hook_stage;
static const char *hook_command;

static void change_at_stage(enum scan_stage stage, unsigned pass)
{
	if (stage != hook_stage || pass > 1 || !hook_command)
		return;
	scan_test_hook = NULL;
	run(hook_command);
}

static void own_rename_at_stage(enum scan_stage stage, unsigned pass)
{
	if (stage != hook_stage || pass > 1)
		return;
	scan_test_hook = NULL;
	own_rename("175.M5P1.h:2,S", "175.M5P1.h:2,FS", NULL, NULL);
}

/* C3: whatever happens around the listing, no message is lost or listed twice. */
static void c3_silent_changes_during_a_scan(void **state)
{
	static const char *const commands[] = {
		"mv cur/174.M4P1.h:2,S cur/174.M4P1.h:2,FS",
		"rm cur/176.*",
		": > cur/18.new:2,",
		"for i in cur/17[0-9].*; do mv $i ${i}T; done",
	};

	(void)state;
	for (size_t i = 0; i < 4; i++)
		for (hook_stage = SCAN_STAMPED; hook_stage <= SCAN_LISTED; hook_stage++) {
			run("rm -rf cur/*; for i in $(seq 1 40); do : > cur/17$i.M${i}P1.h:2,S; done");
			hook_command = commands[i];
			scan_test_hook = change_at_stage;
			snapshot_unref(list(cur));
			assert_null(scan_test_hook);
			assert_listed_right(cur);
		}
}

static void own_change_during_a_scan_wins(void **state)
{
	(void)state;
	for (hook_stage = SCAN_STAMPED; hook_stage <= SCAN_LISTED; hook_stage++) {
		struct snapshot *s;

		settle(cur);
		run("rm -f cur/175.* && : > cur/175.M5P1.h:2,S");
		scan_test_hook = own_rename_at_stage;
		s = list(cur);
		assert_null(scan_test_hook);
		assert_int_equal(times(s, "175.M5P1.h:2,FS"), 1);
		assert_int_equal(times(s, "175.M5P1.h:2,S"), 0);
		snapshot_unref(s);
		assert_listed_right(cur);
	}
}

/* ---- opendir while an own change is under way ---- */

static void *list_in_thread(void *arg)
{
	cred_thread_start();
	*(struct snapshot **)arg = list(cur);
	return NULL;
}

static void opendir_waits_for_the_patch(void **state)
{
	int fd = node_dir_get(&fs->nodes, cur);
	const struct timespec pause = {.tv_nsec = NS_PER_MS};
	struct snapshot *s = NULL;
	pthread_t thread;
	struct own own;
	struct change c;
	struct stat st;
	uint64_t opened;

	(void)state;
	settle(cur);
	own_begin(fs, cur, fd, &own);
	assert_int_equal(renameat(fd, "171.M1P1.h:2,S", fd, "171.M1P1.h:2,FS"), 0);
	opened = counter_get(COUNT_OPENDIRS);
	assert_int_equal(pthread_create(&thread, NULL, list_in_thread, &s), 0);
	while (counter_get(COUNT_OPENDIRS) == opened)
		nanosleep(&pause, NULL);
	assert_int_equal(fstatat(fd, "171.M1P1.h:2,FS", &st, 0), 0);
	change_make(&c, CHANGE_RENAME, "171.M1P1.h:2,S", "171.M1P1.h:2,FS", st.st_ino, DT_REG);
	own_end(fs, &own, 0, &c, 1);
	pthread_join(thread, NULL);
	assert_int_equal(times(s, "171.M1P1.h:2,FS"), 1);
	assert_int_equal(times(s, "171.M1P1.h:2,S"), 0);
	snapshot_unref(s);
	node_dir_put(&fs->nodes, cur);
}

/* An answer that was lost: the server did it, and said ENOENT to the second try. */
static void a_refusal_that_was_none(void **state)
{
	int fd = node_dir_get(&fs->nodes, cur);
	struct own own;
	struct change c;

	(void)state;
	settle(cur);
	own_begin(fs, cur, fd, &own);
	run("rm cur/171.*");
	change_make(&c, CHANGE_REMOVE, NULL, "171.M1P1.h:2,S", 0, 0);
	own_end(fs, &own, -ENOENT, &c, 1);
	node_dir_put(&fs->nodes, cur);
	assert_listed_right(cur);
}

/* ---- events from elsewhere ---- */

static void feed(enum change_kind kind, const char *name, const struct window *w)
{
	struct event ev;
	struct change c;
	struct stat st = {0};
	char path[512];

	snprintf(path, sizeof(path), "%s/u/Maildir/cur/%s", top, name);
	if (kind == CHANGE_ADD)
		stat(path, &st);
	event_init(&ev, "u/Maildir", HALF_CUR);
	if (w) {
		ev.windowed = true;
		ev.window = *w;
	}
	change_make(&c, kind, NULL, name, kind == CHANGE_ADD ? (st.st_ino ? st.st_ino : 12345) : 0, DT_REG);
	assert_int_equal(event_add(&ev, &c), 0);
	feed_apply(fs, &ev);
	event_release(&ev);
}

static void stamp_now(struct stamp *s)
{
	int fd = node_dir_get(&fs->nodes, cur);

	assert_int_equal(stamp_read(fd, s, NULL), 0);
	node_dir_put(&fs->nodes, cur);
}

/* Another host's change with its window: followed without a listing. C5: the same once more, late: nothing happens. */
static void windows_from_elsewhere_are_followed(void **state)
{
	struct window add, del;
	uint64_t before;

	(void)state;
	settle(cur);
	before = listings();
	stamp_now(&add.pre);
	run(": > cur/190.x:2,");
	stamp_now(&add.post);
	feed(CHANGE_ADD, "190.x:2,", &add);
	assert_listed_right(cur);
	del.pre = add.post;
	run("rm cur/190.x:2,");
	stamp_now(&del.post);
	feed(CHANGE_REMOVE, "190.x:2,", &del);
	assert_listed_right(cur);
	feed(CHANGE_ADD, "190.x:2,", &add); /* late and doubled */
	assert_listed_right(cur);
	assert_int_equal(listings(), before);
}

/* A hint without a window that tells nothing new costs no listing; one that lies costs no wrong listing. */
static void hints(void **state)
{
	uint64_t before;

	(void)state;
	settle(cur);
	before = listings();
	feed(CHANGE_ADD, "171.M1P1.h:2,S", NULL);
	feed(CHANGE_LOOK, "", NULL);
	assert_listed_right(cur);
	assert_int_equal(listings(), before);
	feed(CHANGE_ADD, "199.lie:2,", NULL);
	feed(CHANGE_REMOVE, "172.M2P1.h:2,S", NULL);
	assert_listed_right(cur);
	feed(CHANGE_NEED, "", NULL);
	assert_listed_right(cur);
	assert_true(listings() > before);
}

/* ---- the shown mtime ---- */

static int64_t shown_of(struct node *half)
{
	int fd = node_dir_get(&fs->nodes, half);
	struct live_times plain;
	struct stamp s;
	struct stat st;
	int64_t mtime, keep;

	assert_return_code(fstat(fd, &st), errno);
	plain.ctime_ns = st.st_ctim.tv_sec * NS_PER_S + st.st_ctim.tv_nsec;
	plain.mtime_ns = st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec;
	assert_int_equal(live_mtime(fs, half, fd, &plain, &s, &mtime, &keep), 0);
	assert_true(s.ctime_ns == plain.ctime_ns);
	node_dir_put(&fs->nodes, half);
	return mtime;
}

static int64_t shown(void)
{
	return shown_of(cur);
}

static void mtime_is_the_servers_only_when_proven(void **state)
{
	struct stamp s;
	int64_t first, second;

	(void)state;
	conf.revalidate_ns = 0;
	settle(cur);
	stamp_now(&s);
	assert_true(shown() == s.mtime_ns);
	run(": > cur/191.y:2,");
	stamp_now(&s);
	first = shown();
	second = shown();
	assert_true(first != s.mtime_ns && second != s.mtime_ns && first != second);
	settle(cur);
	assert_true(shown() == s.mtime_ns);
	/* On trust it is not. */
	own_rename("171.M1P1.h:2,S", "171.M1P1.h:2,FS", NULL, NULL);
	snapshot_unref(list(cur));
	stamp_now(&s);
	assert_true(shown() != s.mtime_ns);
}

/* C12: a stat that finds new/ changed drops the reading that cur/ would share. */
static void c12_a_changed_half_drops_the_others_reading(void **state)
{
	struct stamp s;
	struct live *l;

	(void)state;
	conf.revalidate_ns = 3600 * NS_PER_S;
	settle(new);
	settle(cur);
	shown();
	l = live_peek(fs, new);
	pthread_mutex_lock(&l->lock);
	l->stat_valid = false;
	pthread_mutex_unlock(&l->lock);
	live_put(fs, l);
	run(": > new/1.z && mv new/1.z cur/1.z:2,");
	shown_of(new);
	stamp_now(&s);
	assert_true(shown() != s.mtime_ns); /* read anew, and tagged: not what cur/ showed before */
	l = live_peek(fs, cur);
	assert_true(stamp_eq(&l->stat, &s));
	live_put(fs, l);
}

/* Without asking the server, and though the time was set long back before. */
static void own_changes_show_at_once(void **state)
{
	const struct timespec past[2] = {{.tv_sec = 1600000000}, {.tv_sec = 1600000000}};
	int fd = node_dir_get(&fs->nodes, cur);
	struct stamp s;

	(void)state;
	conf.revalidate_ns = 3600 * NS_PER_S;
	settle(cur);
	assert_return_code(utimensat(fd, "", past, AT_EMPTY_PATH), errno);
	live_stat_forget(fs, cur);
	assert_true(shown() < 1600000000 * NS_PER_S && shown() > 1599999999 * NS_PER_S);
	own_rename("171.M1P1.h:2,S", "171.M1P1.h:2,FS", NULL, NULL);
	stamp_now(&s);
	assert_true(shown() < s.mtime_ns && shown() > s.mtime_ns - NS_PER_MS);
	node_dir_put(&fs->nodes, cur);
}

/* ---- the cache ---- */

static void folders_used_once_go_first(void **state)
{
	struct node *other, *half;
	struct live *l;
	char name[32];

	(void)state;
	fs->lives.limit = 8 * (SNAPSHOT_CHUNK + 8192);
	settle(cur);
	settle(cur);
	run("for i in 1 2 3 4 5 6 7 8 9; do mkdir -p ../m$i/new ../m$i/cur ../m$i/tmp; : > ../m$i/cur/a; done");
	for (int i = 1; i <= 9; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		other = look(u, name);
		half = look(other, "cur");
		assert_true(node_is_half(&fs->nodes, half));
		snapshot_unref(list(half));
	}
	assert_true(fs->lives.bytes[0] <= fs->lives.limit / 8);
	l = live_peek(fs, cur);
	assert_non_null(l);
	live_put(fs, l);
	assert_listed_right(cur);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(served_without_listing_once_settled),
		T(own_changes_cost_no_listing),
		T(c1_silent_change_before_an_own_one),
		T(c2_slip_is_confirmed),
		T(silent_change_before_the_patch),
		T(own_change_of_a_message_that_moved_unseen),
		T(c3_silent_changes_during_a_scan),
		T(own_change_during_a_scan_wins),
		T(opendir_waits_for_the_patch),
		T(a_refusal_that_was_none),
		T(windows_from_elsewhere_are_followed),
		T(hints),
		T(mtime_is_the_servers_only_when_proven),
		T(own_changes_show_at_once),
		T(c12_a_changed_half_drops_the_others_reading),
		T(folders_used_once_go_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
