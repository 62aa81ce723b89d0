/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/base/clock.h"

#define N(a) (sizeof(a) / sizeof(*(a)))
/* No real filesystem's: tree_device() gives hashes. */
#define DEV 0x1000

static void eq(void **state)
{
	static const struct stamp base = {.dev = 1, .ino = 2, .ctime_ns = 3, .mtime_ns = 4, .size = 5, .sized = true};
	static const struct {
		struct stamp other;
		bool eq;
	} cases[] = {
		{{1, 2, 3, 4, 5, true}, true},  {{1, 2, 3, 4, 5, false}, true}, {{1, 2, 3, 4, 6, true}, false},
		{{1, 2, 3, 4, 6, false}, true}, /* its size didn't count when it was read */
		{{1, 2, 3, 5, 5, true}, false}, /* C6: utimes, forwards */
		{{1, 2, 3, 2, 5, true}, false}, /* C6: and backwards */
		{{1, 2, 4, 4, 5, true}, false}, /* C6: utimes that lands on the old mtime */
		{{1, 2, 2, 4, 5, true}, false}, /* C7: the server's clock went back */
		{{1, 9, 3, 4, 5, true}, false}, /* the folder was replaced */
		{{9, 2, 3, 4, 5, true}, false}, /* another filesystem is mounted here */
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		assert_int_equal(stamp_eq(&base, &cases[i].other), cases[i].eq);
		assert_int_equal(stamp_eq(&cases[i].other, &base), cases[i].eq);
	}
}

static void settle(void **state)
{
	static const struct {
		int64_t ctime_ns, mtime_ns, settle_ns;
	} cases[] = {
		{1700000000LL * NS_PER_S, 1700000000LL * NS_PER_S, 2 * NS_PER_S},
		{1700000000LL * NS_PER_S, 1700000000LL * NS_PER_S + 5, 2 * NS_PER_S},
		{1700000000LL * NS_PER_S + 4000000, 1700000000LL * NS_PER_S, 100 * NS_PER_MS},
		{1700000000LL * NS_PER_S + 1, 1, 100 * NS_PER_MS},
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct stamp s = {.ctime_ns = cases[i].ctime_ns, .mtime_ns = cases[i].mtime_ns};

		assert_int_equal(stamp_settle_ns(&s), cases[i].settle_ns);
	}
}

static void read_stamps(void **state)
{
	char dir[] = "/tmp/maildex-stamp-XXXXXX";
	struct stamp a, b;
	struct stamp_more more;
	struct stat st;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(stamp_read(fd, &a, &more), 0);
	assert_int_equal(stamp_read(fd, &b, NULL), 0);
	assert_true(stamp_eq(&a, &b));
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(a.ino, st.st_ino);
	assert_true(a.ctime_ns == st.st_ctim.tv_sec * NS_PER_S + st.st_ctim.tv_nsec);
	assert_true(a.mtime_ns == st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec);
	assert_int_equal(a.size, st.st_size);
	assert_int_equal(more.uid, st.st_uid);
	assert_int_equal(more.gid, st.st_gid);
	assert_int_equal(more.mode, st.st_mode);
	assert_true(serverclock_now_ns(a.dev) >= a.ctime_ns);

	/* utimes moves the ctime even where the mtime lands where it was (C6). A coarse clock may need a moment. */
	do {
		assert_int_equal(futimens(fd, (struct timespec[2]){st.st_atim, st.st_mtim}), 0);
		assert_int_equal(stamp_read(fd, &b, NULL), 0);
	} while (b.ctime_ns == a.ctime_ns);
	assert_true(a.mtime_ns == b.mtime_ns);
	assert_false(stamp_eq(&a, &b));

	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(stamp_read(fd, &a, NULL), -ESTALE);
	close(fd);
	assert_int_equal(stamp_read(fd, &a, NULL), -EBADF);
}

static void read_extremes(void **state)
{
	static const int64_t seconds[] = {-1, 0, 1, INT64_MAX / 2, INT64_MIN / 2};
	char dir[] = "/dev/shm/maildex-stamp-XXXXXX"; /* tmpfs stores any time */
	struct stamp s;
	int fd;

	(void)state;
	if (!mkdtemp(dir))
		skip();
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < N(seconds); i++) {
		struct timespec t[2] = {{.tv_sec = seconds[i]}, {.tv_sec = seconds[i]}};

		assert_int_equal(futimens(fd, t), 0);
		assert_int_equal(stamp_read(fd, &s, NULL), 0);
		assert_true(s.mtime_ns <= STAMP_NS_MAX && s.mtime_ns >= -STAMP_NS_MAX);
		if (i < 3)
			assert_true(s.mtime_ns == seconds[i] * NS_PER_S);
	}
	close(fd);
	rmdir(dir);
}

static void clock_pure(void **state)
{
	struct serverclock c = {.ctime_ns = 1000 * NS_PER_S, .mono_ns = 50 * NS_PER_S};

	(void)state;
	assert_true(serverclock_at(&c, 50 * NS_PER_S) == 1000 * NS_PER_S);
	/* A lower bound, though both clocks may run a little apart; but not much lower. */
	assert_true(serverclock_at(&c, 150 * NS_PER_S) < 1100 * NS_PER_S);
	assert_true(serverclock_at(&c, 150 * NS_PER_S) >= 1099 * NS_PER_S);
	/* Older stamps say nothing, */
	serverclock_update(&c, 900 * NS_PER_S, 60 * NS_PER_S);
	assert_true(c.ctime_ns == 1000 * NS_PER_S && c.mono_ns == 50 * NS_PER_S);
	serverclock_update(&c, 1005 * NS_PER_S, 60 * NS_PER_S);
	assert_true(c.ctime_ns == 1000 * NS_PER_S && c.mono_ns == 50 * NS_PER_S);
	/* newer ones more. */
	serverclock_update(&c, 1020 * NS_PER_S, 60 * NS_PER_S);
	assert_true(c.ctime_ns == 1020 * NS_PER_S && c.mono_ns == 60 * NS_PER_S);
	/* Two readings that overtook each other. */
	assert_true(serverclock_at(&c, 59 * NS_PER_S) <= 1020 * NS_PER_S);
	c.ctime_ns = INT64_MAX;
	assert_true(serverclock_at(&c, 61 * NS_PER_S) == INT64_MAX);
}

static void moved(struct serverclock *c, int64_t ctime_s, int64_t before_s, int64_t mono_s)
{
	const struct stamp s = {.ctime_ns = ctime_s * NS_PER_S + 5};

	serverclock_moved(c, &s, &(struct stamp){.ctime_ns = -2000 * NS_PER_S}, before_s * NS_PER_S, mono_s * NS_PER_S);
}

static void clock_set_back(void **state)
{
	struct serverclock c = {.ctime_ns = 1000 * NS_PER_S, .mono_ns = 50 * NS_PER_S};

	(void)state;
	/* A folder that was changed since it was asked at 60, as it should be. */
	moved(&c, 1010, 60, 70);
	assert_true(c.ctime_ns == 1000 * NS_PER_S && c.mono_ns == 50 * NS_PER_S && c.back_ns == 0);
	/* Asked at 70, changed since, and older than the clock was at 70: set back by a minute. */
	moved(&c, 965, 70, 75);
	assert_true(serverclock_at(&c, 75 * NS_PER_S) == 965 * NS_PER_S + 5);
	/* What is from before the step says nothing, whoever tells it, */
	serverclock_update(&c, 1020 * NS_PER_S, 80 * NS_PER_S);
	moved(&c, 1019, 74, 80);
	assert_true(serverclock_at(&c, 80 * NS_PER_S) <= 970 * NS_PER_S + 5);
	/* what was changed after it does. */
	moved(&c, 975, 76, 83);
	assert_true(serverclock_at(&c, 83 * NS_PER_S) == 975 * NS_PER_S + 5);
	/* A directory was rolled back to what it was before the step. */
	moved(&c, 1015, 83, 84);
	assert_true(serverclock_at(&c, 84 * NS_PER_S) <= 976 * NS_PER_S + 5);
	/* Back a second time. */
	moved(&c, 900, 84, 85);
	assert_true(serverclock_at(&c, 85 * NS_PER_S) == 900 * NS_PER_S + 5);
	/* The clock is where it was before the step: all stamps count again. */
	serverclock_update(&c, 1040 * NS_PER_S, 200 * NS_PER_S);
	assert_true(serverclock_at(&c, 200 * NS_PER_S) == 1040 * NS_PER_S);
	/* As far back as there is no end of the doubt. */
	c.ctime_ns = INT64_MAX;
	moved(&c, -1000, 200, 201);
	assert_true(c.doubt_ns == INT64_MAX && serverclock_at(&c, 201 * NS_PER_S) < 0);
}

/* What the directory showed before is older than all that is known of the clock: after a restart. */
static void clock_set_back_while_nobody_looked(void **state)
{
	struct serverclock c = {.ctime_ns = 905 * NS_PER_S, .mono_ns = 50 * NS_PER_S};
	const struct stamp before = {.ctime_ns = 1000 * NS_PER_S + 5}, now = {.ctime_ns = 910 * NS_PER_S + 5};

	(void)state;
	serverclock_moved(&c, &now, &before, -100 * NS_PER_S, 60 * NS_PER_S);
	assert_true(serverclock_at(&c, 60 * NS_PER_S) == now.ctime_ns);
	/* What has not changed since says nothing, until the clock is there again. */
	serverclock_update(&c, before.ctime_ns, 61 * NS_PER_S);
	assert_true(serverclock_at(&c, 61 * NS_PER_S) <= 911 * NS_PER_S + 5);
	assert_true(c.doubt_ns == 150 * NS_PER_S);
	/* What may come, or came, a second time. */
	assert_true(serverclock_twice_at(&c, before.ctime_ns) == 60 * NS_PER_S);
	assert_true(serverclock_twice_at(&c, now.ctime_ns) == 60 * NS_PER_S);
	assert_true(serverclock_twice_at(&c, before.ctime_ns + 1) == 0);
	assert_true(serverclock_twice_at(&c, 700 * NS_PER_S) == 0);
	/* By less than ticks could explain; but no directory's own time goes back by itself. */
	c = (struct serverclock){.ctime_ns = 910 * NS_PER_S, .mono_ns = 60 * NS_PER_S};
	serverclock_moved(&c, &(struct stamp){.ctime_ns = before.ctime_ns - 1}, &before, 60 * NS_PER_S, 60 * NS_PER_S);
	assert_true(serverclock_twice_at(&c, before.ctime_ns) == 60 * NS_PER_S);
}

/* A directory that was last seen before the step is rolled back, after it, to what it was still before. */
static void rolled_back_in_doubt(void **state)
{
	struct serverclock c = {.ctime_ns = 4600 * NS_PER_S, .mono_ns = 50 * NS_PER_S};
	const struct stamp before = {.ctime_ns = 4599 * NS_PER_S + 5};

	(void)state;
	/* An hour back. */
	moved(&c, 1010, 60, 61);
	assert_true(serverclock_at(&c, 61 * NS_PER_S) == 1010 * NS_PER_S + 5);
	serverclock_moved(&c, &(struct stamp){.ctime_ns = 4590 * NS_PER_S}, &before, 50 * NS_PER_S, 62 * NS_PER_S);
	assert_true(serverclock_at(&c, 62 * NS_PER_S) <= 1011 * NS_PER_S + 5);
	/* Nor does what still shows a time from before the step, then or later. */
	serverclock_update(&c, 4599 * NS_PER_S, 63 * NS_PER_S);
	serverclock_update(&c, 4599 * NS_PER_S, 100 * NS_PER_S);
	moved(&c, 4600, 63, 101);
	assert_true(serverclock_at(&c, 101 * NS_PER_S) <= 1051 * NS_PER_S);
	/* A change does, as before. */
	moved(&c, 1050, 90, 101);
	assert_true(serverclock_at(&c, 101 * NS_PER_S) == 1050 * NS_PER_S + 5);
	assert_true(serverclock_twice_at(&c, 4599 * NS_PER_S) != 0);
}

/* By less than ticks could explain, again and again. */
static void small_steps_back_do_not_add_up(void **state)
{
	struct serverclock c = {.ctime_ns = 1000 * NS_PER_S, .mono_ns = 50 * NS_PER_S};
	struct stamp s = {.ctime_ns = c.ctime_ns};
	int64_t mono_ns = c.mono_ns;

	(void)state;
	for (int i = 0; i < 10; i++) {
		s.ctime_ns += 10 * NS_PER_MS + 1;
		serverclock_moved(&c, &s, &(struct stamp){0}, mono_ns + 90 * NS_PER_MS, mono_ns + 100 * NS_PER_MS);
		mono_ns += 100 * NS_PER_MS;
		assert_true(serverclock_at(&c, mono_ns) == s.ctime_ns);
		assert_int_equal(c.doubt_ns, 0);
	}
}

static void clock_table(void **state)
{
	int64_t now;

	(void)state;
	assert_true(serverclock_now_ns(DEV) == INT64_MIN);
	serverclock_saw(DEV, 1000 * NS_PER_S);
	serverclock_saw(DEV + 1, 5 * NS_PER_S);
	now = serverclock_now_ns(DEV);
	assert_true(now >= 1000 * NS_PER_S);
	assert_false(serverclock_doubted(DEV));
	assert_true(serverclock_now_ns(DEV) >= now);
	serverclock_saw(DEV, 10 * NS_PER_S);
	assert_true(serverclock_now_ns(DEV) >= now);
	assert_true(serverclock_now_ns(DEV + 1) < 1000 * NS_PER_S);
	/* More filesystems than there is room for: some are forgotten, none gets another's clock, the newest is known.
	 */
	for (uint64_t i = 0; i < 20000; i++) {
		serverclock_saw(DEV + 2 + i, (int64_t)i * NS_PER_S);
		assert_true(serverclock_now_ns(DEV + 2 + i) >= (int64_t)i * NS_PER_S);
	}
	for (uint64_t i = 0; i < 20000; i++) {
		now = serverclock_now_ns(DEV + 2 + i);
		assert_true(now == INT64_MIN || now >= (int64_t)i * NS_PER_S);
	}
	assert_true(serverclock_now_ns(DEV) == INT64_MIN);
}

static void sizecount(void **state)
{
	static const struct {
		const char *what;
		struct {
			uint64_t size, entries;
		} seen[6];
		bool counts;
	} cases[] = {
		{"ZFS", {{5, 3}, {102, 100}, {3, 1}}, true},
		{"offset 0", {{5, 5}, {7, 7}, {9, 9}, {9, 9}}, true},
		{"twice is not enough", {{5, 3}, {6, 4}}, false},
		{"the same count proves nothing new", {{5, 3}, {6, 4}, {5, 3}, {6, 4}}, false},
		{"ext4", {{4096, 3}, {4096, 100}, {4096, 4094}}, false},
		{"one disagreement, for ever", {{4096, 3}, {5, 3}, {6, 4}, {7, 5}, {8, 6}}, false},
		{"a late disagreement", {{5, 3}, {6, 4}, {7, 5}, {9, 5}, {8, 6}, {9, 7}}, false},
		{"mixed offsets", {{5, 3}, {4, 4}, {7, 5}, {8, 6}}, false},
		{"empty ones don't prove", {{2, 0}, {2, 0}, {5, 3}, {6, 4}}, false},
		{"empty ones can refute", {{5, 3}, {6, 4}, {7, 5}, {4096, 0}}, false},
		{"empty tmpfs", {{0, 0}, {40, 2}, {60, 3}}, false},
		{"smaller than its entries", {{5, 3}, {6, 4}, {1, 3}, {7, 5}}, false},
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sizecount c = {0};

		for (size_t j = 0; j < N(cases[i].seen); j++) {
			if (cases[i].seen[j].size == 0 && cases[i].seen[j].entries == 0 && j > 0)
				break;
			sizecount_update(&c, cases[i].seen[j].size, cases[i].seen[j].entries);
			sizecount_learn(DEV + i, cases[i].seen[j].size, cases[i].seen[j].entries);
		}
		if (sizecount_counts(&c) != cases[i].counts)
			fail_msg("%s", cases[i].what);
		assert_int_equal(sizecount_known(DEV + i), cases[i].counts);
	}
	assert_false(sizecount_known(DEV + 999));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(eq),
		cmocka_unit_test(settle),
		cmocka_unit_test(read_stamps),
		cmocka_unit_test(read_extremes),
		cmocka_unit_test(clock_pure),
		cmocka_unit_test(clock_set_back),
		cmocka_unit_test(clock_table),
		cmocka_unit_test(sizecount),
		cmocka_unit_test(clock_set_back_while_nobody_looked),
		cmocka_unit_test(rolled_back_in_doubt),
		cmocka_unit_test(small_steps_back_do_not_add_up),
	};

	return cmocka_run_group_tests_name("stamp", tests, NULL, NULL);
}
