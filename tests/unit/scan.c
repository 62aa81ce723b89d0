/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/scan_help.h"

static void quiet(void **state)
{
	struct scan s;
	struct stat st;
	struct listing_entry entry;
	size_t at = 0;

	(void)state;
	make("1.a:2,S");
	settle();
	check(NULL, "1.a:2,S ", 1, 0, false);
	/* One listing is enough for what is gone, too. */
	check("2.b", "1.a:2,S ", 1, 0, false);
	check("1.a:2,", "1.a:2,S ", 1, 0, false);
	assert_int_equal(scan_half(box.dir, &(struct scan_from){.drop_cache = true}, &s), 0);
	assert_int_equal(listing_next(&s.listing, &at, &entry), 1);
	assert_int_equal(fstatat(box.dir, "1.a:2,S", &st, 0), 0);
	assert_int_equal(entry.ino, st.st_ino);
	assert_int_equal(fresh_scan(&s.last), FRESH_DONE);
	assert_true(stamp_eq(&s.last.s0, &s.last.s1));
	scan_release(&s);
	/* Two links of one file are two names. */
	twin("1.a:2,S", "1.a:2,");
	settle();
	check(NULL, "1.a:2, 1.a:2,S ", 1, 0, false);
	expunge("1.a:2,");
	expunge("1.a:2,S");
	settle();
	check("1.a:2,", "", 1, 0, false);
}

static enum scan_stage at_stage;

static void flag_once(enum scan_stage stage, unsigned pass)
{
	if (stage == at_stage && pass == 1)
		change("1.a:2,", "1.a:2,S");
}

/* C3: renamed before or after the listing was read: the second pass tells. */
static void rename_during_pass(void **state)
{
	static const enum scan_stage stages[] = {SCAN_STAMPED, SCAN_LISTED};

	(void)state;
	make("1.a:2,");
	make("2.b:2,");
	for (size_t i = 0; i < N(stages); i++) {
		settle();
		at_stage = stages[i];
		scan_test_hook = flag_once;
		check("1.a:2,", "1.a:2,S 2.b:2, ", 2, 0, false);
		scan_test_hook = NULL;
		change("1.a:2,S", "1.a:2,");
	}
}

static void expunge_once(enum scan_stage stage, unsigned pass)
{
	if (stage == SCAN_LISTED && pass == 1)
		expunge("1.a:2,");
}

static void expunge_during_pass(void **state)
{
	(void)state;
	make("1.a:2,");
	make("2.b:2,");
	settle();
	scan_test_hook = expunge_once;
	check("1.a:2,", "2.b:2, ", 2, 0, false);
}

/* Away while each listing is read, as a message is that moves ahead of the reader. */
static void dodge(enum scan_stage stage, unsigned pass)
{
	(void)pass;
	if (stage == SCAN_STAMPED) {
		tick();
		hide("1.a:2,");
	} else if (stage == SCAN_LISTED) {
		show("1.a:2,");
	}
}

static void never_read(void **state)
{
	(void)state;
	make("1.a:2,");
	make("2.b:2,");
	settle();
	scan_test_hook = dodge;
	/* Known from before: found by lookup, the others are not asked for. */
	check("1.a:2,", "1.a:2, 2.b:2, ", 3, 1, false);
	/* Never heard of: not found now, but the moved stamp says need. */
	settle();
	check(NULL, "2.b:2, ", 3, 0, false);
}

static void dodge_and_flag(enum scan_stage stage, unsigned pass)
{
	dodge(stage, pass);
	if (stage == SCAN_LOOKING)
		change("1.a:2,", "1.a:2,S");
}

/* C3: all names that are known are gone; the message is not. */
static void renamed_to_unknown(void **state)
{
	(void)state;
	make("1.a:2,");
	make("2.b:2,");
	settle();
	scan_test_hook = dodge_and_flag;
	check("1.a:2,", "1.a:2, 2.b:2, ", 3, 1, true);
}

static void expunge_late(enum scan_stage stage, unsigned pass)
{
	static const char *const flags[] = {"1.a:2,", "1.a:2,F", "1.a:2,FS", "1.a:2,FRS"};

	if (stage == SCAN_LISTED) {
		tick();
		change(flags[pass - 1], flags[pass]);
	} else if (stage == SCAN_LOOKING) {
		expunge("1.a:2,FRS");
	}
}

/* Nobody can tell a message that was removed from one that was renamed on: the newest name stays until the next scan.
 */
static void newest_name_kept(void **state)
{
	(void)state;
	make("1.a:2,");
	settle();
	scan_test_hook = expunge_late;
	check("1.a:2,S", "1.a:2,FS ", 3, 4, true);
}

static void there_and_back(enum scan_stage stage, unsigned pass)
{
	if (stage == SCAN_LISTED) {
		tick();
		change(pass % 2 ? "1.a:2," : "1.a:2,F", pass % 2 ? "1.a:2,F" : "1.a:2,");
	} else if (stage == SCAN_LOOKING) {
		expunge("1.a:2,F");
	}
}

/* The newest is the one read last, not the one first met last. */
static void newest_name_met_before(void **state)
{
	(void)state;
	make("1.a:2,");
	settle();
	scan_test_hook = there_and_back;
	check(NULL, "1.a:2, ", 3, 2, true);
}

/* Each pass reads the message under two names. */
static void read_twice(enum scan_stage stage, unsigned pass)
{
	if (stage == SCAN_STAMPED) {
		tick();
		twin("1.a:2,", "1.a:2,S");
	} else if (stage == SCAN_LISTED) {
		expunge(pass < 3 ? "1.a:2,S" : "1.a:2,");
	}
}

static void twin_names(void **state)
{
	(void)state;
	make("1.a:2,");
	make("2.b:2,");
	settle();
	scan_test_hook = read_twice;
	check(NULL, "1.a:2,S 2.b:2, ", 3, 2, false);
}

static unsigned flips;

/*
 * The first pass reads one name, the others the next; the newer is looked up first. After each lookup the message goes
 * to its other name, so that it is found again: `flips` times.
 */
static void flip(enum scan_stage stage, unsigned count)
{
	if (stage == SCAN_LISTED) {
		tick();
		if (count == 1)
			change("1.a:2,", "1.a:2,S");
		make("9.touch");
		expunge("9.touch");
	} else if (stage == SCAN_LOOKED && flips > 0) {
		flips--;
		change(count % 2 ? "1.a:2,S" : "1.a:2,", count % 2 ? "1.a:2," : "1.a:2,S");
	}
}

/* Found under both names, one after the other: one file with one link has one name. */
static void found_twice(void **state)
{
	(void)state;
	make("1.a:2,");
	settle();
	flips = 1;
	scan_test_hook = flip;
	check(NULL, "1.a:2, ", 3, 4, false);
}

/* And so again: one name is listed, and need is set. */
static void found_twice_again(void **state)
{
	(void)state;
	make("1.a:2,");
	settle();
	flips = 4;
	scan_test_hook = flip;
	check(NULL, "1.a:2,S ", 3, 4, true);
	assert_int_equal(flips, 0);
}

/* Notes passes that can no longer be unsettled. */
static void watch_unsettled(enum scan_stage stage, unsigned pass)
{
	(void)pass;
	if (stage == SCAN_STAMPED)
		box.late |= unsettled_left_ns() <= 0;
}

/* Repeats a check right after a change, until the machine was fast enough for all passes to be unsettled. */
static void check_unsettled(const char *before, const char *expect, unsigned listings, unsigned lookups)
{
	scan_test_hook = watch_unsettled;
	do {
		make("9.touch");
		expunge("9.touch");
		box.late = false;
		check(before, expect, listings, lookups, false);
	} while (box.late);
}

static void unsettled(void **state)
{
	(void)state;
	make("1.a:2,");
	/* Nothing odd: one pass, to be repeated when settled. */
	check_unsettled(NULL, "1.a:2, ", 1, 0);
	check_unsettled("1.a:2,S", "1.a:2, ", 1, 0);
	/* Absent: twice absent is gone. */
	check_unsettled("2.b:2,", "1.a:2, ", 2, 0);
	/* True twins, each time. */
	twin("1.a:2,", "1.a:2,S");
	check_unsettled(NULL, "1.a:2, 1.a:2,S ", 2, 2);
	/* Beside them, one that is gone for good. */
	check_unsettled("2.b:2,", "1.a:2, 1.a:2,S ", 2, 3);
}

/* Other messages are never in doubt because of one that moves. */
static void others_untouched(void **state)
{
	char name[32], expect[1024] = "1.a:2, ";

	(void)state;
	for (int i = 10; i < 50; i++) {
		snprintf(name, sizeof(name), "%d.x:2,", i);
		make(name);
		strcat(expect, name);
		strcat(expect, " ");
	}
	make("1.a:2,");
	settle();
	scan_test_hook = dodge;
	check("1.a:2,", expect, 3, 1, false);
}

/* More names of one base than a message can have are plain files. */
static void many_names(void **state)
{
	char name[32];
	struct scan s;

	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "x:%d", i);
		make(name);
	}
	make("1.a:2,");
	settle();
	scan_test_hook = dodge;
	assert_int_equal(scan_half(box.dir, &(struct scan_from){.before = NULL}, &s), 0);
	assert_int_equal(s.listing.count, 100);
	scan_release(&s);
}

enum { BUSY = 20 };
static atomic_bool stop;

static void *flag_all_the_time(void *arg)
{
	char from[32], to[32];

	(void)arg;
	for (int round = 0; !atomic_load(&stop); round++) {
		int i = round % BUSY;

		snprintf(from, sizeof(from), "%d.x:2,%s", i, round / BUSY % 2 ? "S" : "");
		snprintf(to, sizeof(to), "%d.x:2,%s", i, round / BUSY % 2 ? "" : "S");
		if (renameat(box.dir, from, box.dir, to) < 0)
			return "rename failed";
	}
	return NULL;
}

/* Laws 1 and 2: whatever the renames do, each message is listed, once. */
static void laws_under_renames(void **state)
{
	struct listing before;
	pthread_t thread;
	void *failed;
	char name[32];

	(void)state;
	for (int i = 0; i < BUSY; i++) {
		snprintf(name, sizeof(name), "%d.x:2,", i);
		make(name);
	}
	listing_init(&before);
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, flag_all_the_time, NULL), 0);
	for (int round = 0; round < 300; round++) {
		unsigned seen[BUSY] = {0};
		struct listing_entry entry;
		struct scan s;
		size_t at = 0;

		assert_int_equal(scan_half(box.dir, &(struct scan_from){.before = &before}, &s), 0);
		assert_int_equal(s.listing.count, BUSY);
		while (listing_next(&s.listing, &at, &entry))
			seen[atoi(entry.name)]++;
		for (int i = 0; i < BUSY; i++)
			assert_int_equal(seen[i], 1);
		listing_release(&before);
		before = s.listing;
	}
	atomic_store(&stop, true);
	pthread_join(thread, &failed);
	assert_null(failed);
	listing_release(&before);
}

static void failures(void **state)
{
	struct scan s;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(scan_half(fd, &(struct scan_from){.before = NULL}, &s), -ENOTDIR);
	assert_null(s.listing.bytes.data);
	close(fd);
	assert_int_equal(mkdirat(box.top, "gone", 0700), 0);
	fd = openat(box.top, "gone", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(unlinkat(box.top, "gone", AT_REMOVEDIR), 0);
	assert_int_equal(scan_half(fd, &(struct scan_from){.before = NULL}, &s), -ESTALE);
	close(fd);
}

static void lookup(void **state)
{
	struct listing_entry entry;
	struct stat st;
	uint32_t nlink;
	char longest[NAME_LEN_MAX + 1];

	(void)state;
	memset(longest, 'x', sizeof(longest));
	make("1.a:2,");
	twin("1.a:2,", "1.a:2,S");
	assert_int_equal(mkdirat(box.dir, "sub", 0700), 0);
	assert_int_equal(symlinkat("nowhere", box.dir, "link"), 0);
	assert_int_equal(fstatat(box.dir, "1.a:2,", &st, 0), 0);
	assert_int_equal(scan_lookup(box.dir, "1.a:2,STUFF", 6, &entry, &nlink), 0);
	assert_int_equal(entry.len, 6);
	assert_int_equal(entry.ino, st.st_ino);
	assert_int_equal(entry.type, DT_REG);
	assert_int_equal(nlink, 2);
	assert_int_equal(scan_lookup(box.dir, "sub", 3, &entry, &nlink), 0);
	assert_int_equal(entry.type, DT_DIR);
	assert_int_equal(scan_lookup(box.dir, "link", 4, &entry, &nlink), 0);
	assert_int_equal(entry.type, DT_LNK);
	assert_int_equal(scan_lookup(box.dir, "1.b", 3, &entry, &nlink), 0);
	assert_int_equal(entry.len, 0);
	assert_int_equal(nlink, 0);
	assert_int_equal(scan_lookup(box.dir, longest, NAME_LEN_MAX, &entry, &nlink), 0);
	assert_int_equal(entry.len, 0);
	assert_int_equal(scan_lookup(box.dir, longest, NAME_LEN_MAX + 1, &entry, &nlink), -EINVAL);
	assert_int_equal(scan_lookup(box.dir, "..", 2, &entry, &nlink), -EINVAL);
	assert_int_equal(scan_lookup(box.dir, "a/b", 3, &entry, &nlink), -EINVAL);
	assert_int_equal(scan_lookup(-1, "1.a", 3, &entry, &nlink), -EBADF);
	unlinkat(box.dir, "sub", AT_REMOVEDIR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOXED(quiet),
		BOXED(rename_during_pass),
		BOXED(expunge_during_pass),
		BOXED(never_read),
		BOXED(renamed_to_unknown),
		BOXED(newest_name_kept),
		BOXED(newest_name_met_before),
		BOXED(twin_names),
		BOXED(found_twice),
		BOXED(found_twice_again),
		BOXED(unsettled),
		BOXED(others_untouched),
		BOXED(many_names),
		BOXED(laws_under_renames),
		BOXED(failures),
		BOXED(lookup),
	};

	return cmocka_run_group_tests_name("scan", tests, NULL, NULL);
}
