/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Live folders: the races of live_open.c, live_scan.c and feed_apply.c. */
#include "tests/unit/live_help.h"

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

/* The half moves in each pass, so that a message that is found under no name is taken for one that is being renamed. */
static void move_in_each_pass(enum scan_stage stage, unsigned pass)
{
	char command[64];

	if (stage != SCAN_LISTED)
		return;
	snprintf(command, sizeof(command), ": > cur/19.pass%u:2,", pass);
	run(command);
}

/* After a restart: what the index's row says may be long gone. */
static void c3_names_of_an_old_row(void **state)
{
	struct snapshot *s;
	struct live *l;

	(void)state;
	run("rm -f cur/*; for i in 1 2 3; do : > cur/17$i.M${i}P1.h:2,S; done");
	settle(cur);
	l = live_peek(fs, cur);
	l->served = false; /* as it was loaded */
	live_put(fs, l);
	run("rm cur/171.*");
	scan_test_hook = move_in_each_pass;
	s = list(cur);
	scan_test_hook = NULL;
	assert_int_equal(times(s, "171.M1P1.h:2,S"), 0);
	assert_int_equal(times(s, "172.M2P1.h:2,S"), 1);
	snapshot_unref(s);
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

/* An event that came late, while the half is being listed: the listing has read what is newer. */
static struct window late_add;

static void late_event_at_stage(enum scan_stage stage, unsigned pass)
{
	if (stage != hook_stage || pass > 1)
		return;
	scan_test_hook = NULL;
	feed(CHANGE_ADD, "190.x:2,", &late_add);
}

static void late_event_during_a_scan(void **state)
{
	(void)state;
	for (hook_stage = SCAN_STAMPED; hook_stage <= SCAN_LISTED; hook_stage++) {
		settle(cur);
		stamp_now(&late_add.pre);
		run(": > cur/190.x:2,");
		stamp_now(&late_add.post);
		run("rm cur/190.x:2,");
		scan_test_hook = late_event_at_stage;
		assert_listed_right(cur);
		assert_null(scan_test_hook);
	}
}

/* The server's clock was set back, the half listed since: an event from before the step looks newer than all that. */
static void late_event_while_the_clock_is_back(void **state)
{
	int fd = node_dir_get(&fs->nodes, cur);
	struct window add;
	struct snapshot *s;
	struct live *l;

	(void)state;
	settle(cur);
	stamp_now(&add.pre);
	run(": > cur/190.x:2,");
	stamp_now(&add.post);
	run("rm cur/190.x:2,");
	settle(cur);
	/* As if all since `pre` had been a minute earlier. */
	add.pre.ctime_ns += 60 * NS_PER_S;
	add.post.ctime_ns += 60 * NS_PER_S;
	serverclock_saw(add.post.dev, add.post.ctime_ns);
	l = live_peek(fs, cur);
	serverclock_changed(&l->fresh.known, &add.pre, clock_mono_ns());
	assert_true(serverclock_doubted(add.post.dev));
	/* Between opendir and the first READDIR, which shows what the half has become by then. */
	assert_int_equal(live_open(fs, l, fd, &self), 0);
	feed(CHANGE_ADD, "190.x:2,", &add);
	s = live_snapshot(l, true);
	assert_int_equal(times(s, "190.x:2,"), 0);
	snapshot_unref(s);
	live_put(fs, l);
	node_dir_put(&fs->nodes, cur);
	assert_listed_right(cur);
}

/* The clock was set back over the half's time: a change that is made when it comes there again can't be told by its stamp.
 * So what was listed before is listed once more, and no time of the server's is shown with it. */
static void listed_before_the_clock_was_set_back(void **state)
{
	int fd = node_dir_get(&fs->nodes, cur);
	int64_t mtime_ns, keep_ns;
	struct live_times plain = {0};
	struct stamp before, reading;
	uint64_t done;

	(void)state;
	settle(cur);
	assert_int_equal(live_mtime(fs, cur, fd, &plain, &reading, &mtime_ns, &keep_ns), 0);
	assert_true(mtime_ns == reading.mtime_ns);
	before = reading;
	before.ctime_ns += 60 * NS_PER_S;
	serverclock_changed(&reading, &before, clock_mono_ns());
	done = listings();
	assert_listed_right(cur);
	assert_int_equal(listings(), done + 1);
	assert_listed_right(cur);
	assert_int_equal(listings(), done + 1);
	assert_int_equal(live_mtime(fs, cur, fd, &plain, &reading, &mtime_ns, &keep_ns), 0);
	assert_true(mtime_ns < reading.mtime_ns);
	/* What is changed when the clock is behind it all counts as ever: here that is a minute from now. */
	reading.ctime_ns += 60 * NS_PER_S + 1;
	assert_int_equal(serverclock_twice_ns(&reading), 0);
	node_dir_put(&fs->nodes, cur);
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
	const struct CMUnitTest tests[] = {
		T(served_without_listing_once_settled),
		T(c3_silent_changes_during_a_scan),
		T(c3_names_of_an_old_row),
		T(windows_from_elsewhere_are_followed),
		T(hints),
		T(mtime_is_the_servers_only_when_proven),
		T(own_changes_show_at_once),
		T(c12_a_changed_half_drops_the_others_reading),
		T(folders_used_once_go_first),
		T(late_event_during_a_scan),
		/* The process knows one clock of this filesystem: no test may come behind these. */
		T(listed_before_the_clock_was_set_back),
		T(late_event_while_the_clock_is_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
