/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Own changes of live folders: the races of own.c. */
#include "tests/unit/live_help.h"

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

/* An own change with a foreign one in its window, and spoil() before anybody asks for the window's end. The half's live
 * folder, pinned. */
static struct live *spoilt_window(void (*spoil)(struct live *l))
{
	static const char *const names[] = {"171.M1P1.h:2,S", "171.M1P1.h:2,FS"};
	char command[64];
	struct live *l;
	bool open;

	for (int i = 0;; i++) {
		settle(cur);
		snprintf(command, sizeof(command), ": > cur/silent%d:2,", i);
		own_rename(names[i % 2], names[(i + 1) % 2], command, NULL);
		l = live_peek(fs, cur);
		pthread_mutex_lock(&l->lock);
		open = l->burst; /* else its end was in time */
		if (open)
			spoil(l);
		pthread_mutex_unlock(&l->lock);
		if (open)
			return l;
		live_put(fs, l);
	}
}

static void ends_late(struct live *l)
{
	l->burst_last_ns -= 2 * LIVE_BURST_LATE_NS;
}

/* A burst whose end nobody asked for in time, as on a machine under load: what hides in it is looked for at once. */
static void c2_slip_in_a_window_that_ends_late(void **state)
{
	(void)state;
	live_put(fs, spoilt_window(ends_late));
	assert_listed_right(cur);
}

static void event_waits(struct live *l)
{
	l->looks++;
}

/* Its event came, and has not been looked at when the burst ends: the window must not vouch for a listing without it. */
static void foreign_change_that_waits_within_a_burst(void **state)
{
	struct live *l = spoilt_window(event_waits);

	(void)state;
	assert_listed_right(cur);
	pthread_mutex_lock(&l->lock);
	l->looks--;
	pthread_mutex_unlock(&l->lock);
	live_put(fs, l);
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

static enum scan_stage hook_stage;

static void own_rename_at_stage(enum scan_stage stage, unsigned pass)
{
	if (stage != hook_stage || pass > 1)
		return;
	scan_test_hook = NULL;
	own_rename("175.M5P1.h:2,S", "175.M5P1.h:2,FS", NULL, NULL);
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

/* One more rename of that message: the lower call is made while its names are looked up, the patch comes later. */
static const char *again_to;
static enum scan_stage again_stage;

static void rename_again_while_looked_up(enum scan_stage stage, unsigned pass)
{
	int fd;

	if (stage == SCAN_LISTED && pass == 1)
		own_rename("175.M5P1.h:2,S", "175.M5P1.h:2,FS", NULL, NULL);
	if (stage != again_stage || (stage == SCAN_LOOKED && pass != 1))
		return;
	scan_test_hook = NULL;
	fd = node_dir_get(&fs->nodes, cur);
	assert_int_equal(renameat(fd, "175.M5P1.h:2,FS", fd, again_to), 0);
	node_dir_put(&fs->nodes, cur);
}

/* Found under no name, or under two: it is listed under one. */
static void renamed_again_while_looked_up(void **state)
{
	static const char *const to[] = {"175.M5P1.h:2,RS", "175.M5P1.h:2,S", "175.M5P1.h:2,"};
	int fd = node_dir_get(&fs->nodes, cur);

	(void)state;
	for (size_t i = 0; i < 3; i++)
		for (again_stage = SCAN_LOOKING; again_stage <= SCAN_LOOKED; again_stage++) {
			struct snapshot *s;
			struct change c;
			struct stat st;
			struct own own;

			settle(cur);
			run("rm -f cur/175.* && : > cur/175.M5P1.h:2,S");
			again_to = to[i];
			scan_test_hook = rename_again_while_looked_up;
			s = list(cur);
			assert_null(scan_test_hook);
			assert_int_equal(times(s, "175.M5P1.h:2,FS") + times(s, "175.M5P1.h:2,S") +
						 times(s, again_to) * !!strcmp(again_to, "175.M5P1.h:2,S"),
					 1);
			snapshot_unref(s);
			own_begin(fs, cur, fd, &own);
			assert_int_equal(fstatat(fd, again_to, &st, 0), 0);
			change_make(&c, CHANGE_RENAME, "175.M5P1.h:2,FS", again_to, st.st_ino, DT_REG);
			own_end(fs, &own, 0, &c, 1);
			assert_listed_right(cur);
		}
	node_dir_put(&fs->nodes, cur);
}

/* An own change that does not fit what is listed, between opendir and the first READDIR: not to be served. */
static void a_patch_in_doubt_is_not_served(void **state)
{
	struct snapshot *s;
	struct live *l;

	(void)state;
	settle(cur);
	l = live_peek(fs, cur);
	run("mv cur/171.M1P1.h:2,S cur/171.M1P1.h:2,R");
	own_rename("171.M1P1.h:2,R", "171.M1P1.h:2,RS", NULL, NULL);
	assert_null(live_snapshot(l, false));
	s = live_snapshot(l, true);
	assert_non_null(s);
	snapshot_unref(s);
	live_put(fs, l);
	assert_listed_right(cur);
}

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(own_changes_cost_no_listing),    T(c1_silent_change_before_an_own_one),
		T(c2_slip_is_confirmed),           T(c2_slip_in_a_window_that_ends_late),
		T(silent_change_before_the_patch), T(own_change_of_a_message_that_moved_unseen),
		T(own_change_during_a_scan_wins),  T(renamed_again_while_looked_up),
		T(a_patch_in_doubt_is_not_served), T(opendir_waits_for_the_patch),
		T(a_refusal_that_was_none),        T(foreign_change_that_waits_within_a_burst),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
