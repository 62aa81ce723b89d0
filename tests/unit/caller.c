/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What /proc/PID/syscall and /proc/PID/status tell of the caller. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "fs/caller.h"

static const struct flags_case {
	unsigned flags;
	enum caller_act act;
} flags_cases[] = {
	{O_RDONLY, CALLER_OPENS},
	{O_RDONLY | O_NOFOLLOW | O_CLOEXEC, CALLER_OPENS},
	{O_RDONLY | O_DIRECTORY, CALLER_LISTS},
	{O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC, CALLER_LISTS},
	{O_RDWR, CALLER_OTHER},
	{O_WRONLY, CALLER_OTHER},
	{O_RDONLY | O_CREAT, CALLER_OTHER},
	{O_RDWR | O_CREAT | O_EXCL, CALLER_OTHER},
	{O_WRONLY | O_CREAT | O_TRUNC, CALLER_OTHER},
	{O_RDONLY | O_TRUNC, CALLER_OTHER},
	{O_RDONLY | O_DIRECT, CALLER_OTHER},
	{O_PATH, CALLER_OTHER}, /* fstat(2) of that shows the times */
	{O_PATH | O_DIRECTORY, CALLER_OTHER},
};

static void flags_of_open(void **state)
{
	char line[256];

	(void)state;
	for (size_t i = 0; i < sizeof(flags_cases) / sizeof(*flags_cases); i++) {
		const struct flags_case *c = &flags_cases[i];

		snprintf(line, sizeof(line), "%d 0xffffff9c 0x7ffd1000 0x%x 0x0 0x0 0x0 0x7ffd0f00 0x7f1200\n",
			 SYS_openat, c->flags);
		if (caller_act_by(line) != c->act)
			fail_msg("%s", line);
#ifdef SYS_open
		snprintf(line, sizeof(line), "%d 0x7ffd1000 0x%x 0x0 0x0 0x0 0x0 0x7ffd0f00 0x7f1200\n", SYS_open,
			 c->flags);
		if (caller_act_by(line) != c->act)
			fail_msg("%s", line);
#endif
	}
}

static const struct call_case {
	long number;
	enum caller_act act;
} call_cases[] = {
	{SYS_unlinkat, CALLER_UNLINKS}, {SYS_renameat2, CALLER_OTHER}, {SYS_linkat, CALLER_OTHER},
	{SYS_fchmodat, CALLER_CHMODS},
#ifdef SYS_open
	{SYS_unlink, CALLER_UNLINKS},   {SYS_rename, CALLER_OTHER},    {SYS_link, CALLER_OTHER},
	{SYS_chmod, CALLER_CHMODS},     {SYS_stat, CALLER_OTHER},      {SYS_rmdir, CALLER_OTHER},
#endif
	{SYS_statx, CALLER_OTHER},      {SYS_mkdirat, CALLER_OTHER},
};

static void other_calls(void **state)
{
	char line[256];

	(void)state;
	for (size_t i = 0; i < sizeof(call_cases) / sizeof(*call_cases); i++) {
		const struct call_case *c = &call_cases[i];

		snprintf(line, sizeof(line), "%ld 0x1000 0x2000 0x3000 0x4000 0x0 0x0 0x7ffd0f00 0x7f1200\n",
			 c->number);
		if (caller_act_by(line) != c->act)
			fail_msg("%s", line);
	}
}

static void lines_that_tell_nothing(void **state)
{
	char line[256];

	(void)state;
	assert_int_equal(caller_act_by(""), CALLER_OTHER);
	assert_int_equal(caller_act_by("running\n"), CALLER_OTHER);
	assert_int_equal(caller_act_by("-1 0x7ffd0f00 0x7f1200\n"), CALLER_OTHER);
	snprintf(line, sizeof(line), "%d", SYS_openat); /* cut off */
	assert_int_equal(caller_act_by(line), CALLER_OTHER);
	snprintf(line, sizeof(line), "%d 0xffffff9c 0x7ffd1000 0x10000", SYS_openat);
	assert_int_equal(caller_act_by(line), CALLER_OTHER);
}

static void lines_of_writers(void **state)
{
	char line[256];

	(void)state;
	assert_true(caller_may_write_by("running\n"));
	assert_true(caller_may_write_by("-1 0x7ffd0f00 0x7f1200\n"));
	snprintf(line, sizeof(line), "%d 0x3 0x7ffd1000 0x10000 0x0 0x0 0x0 0x7ffd0f00 0x7f1200\n", SYS_pwrite64);
	assert_true(caller_may_write_by(line));
	snprintf(line, sizeof(line), "%d 0x3 0x7ffd1000 0x10000 0x0 0x0 0x0 0x7ffd0f00 0x7f1200\n", SYS_futex);
	assert_false(caller_may_write_by(line));
	assert_true(caller_may_write(0));
}

static void killed_callers(void **state)
{
	(void)state;
	assert_true(
		caller_killed_by("Name:\timapd\nThreads:\t1\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
	/* Another signal as well; and one that the kernel made SIGKILL of, as it does with each that ends a process. */
	assert_true(caller_killed_by("Name:\timapd\nSigPnd:\t0000000000004100\nShdPnd:\t0000000000004000\n"));
	assert_false(caller_killed_by("Name:\timapd\nSigPnd:\t0000000000002000\nShdPnd:\t0000000000000100\n"));
	assert_false(caller_killed_by("Name:\timapd\nSigPnd:\t0000000000000000\n"));
	assert_false(caller_killed_by("Name:\tSigPnd:\t0000000000000100\n"));
	assert_false(caller_killed_by(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flags_of_open),           cmocka_unit_test(other_calls),
		cmocka_unit_test(lines_that_tell_nothing), cmocka_unit_test(lines_of_writers),
		cmocka_unit_test(killed_callers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
