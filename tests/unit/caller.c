/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a line of /proc/PID/syscall tells of the caller. */
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
	bool opens;
} flags_cases[] = {
	{O_RDONLY, true},
	{O_RDONLY | O_NOFOLLOW | O_CLOEXEC, true},
	{O_RDONLY | O_DIRECTORY, true},
	{O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC, true},
	{O_RDWR, false},
	{O_WRONLY, false},
	{O_RDONLY | O_CREAT, false},
	{O_RDONLY | O_TRUNC, false},
	{O_RDONLY | O_DIRECT, false},
	{O_PATH, false}, /* fstat(2) of that shows the times */
	{O_PATH | O_DIRECTORY, false},
};

static void flags_of_open(void **state)
{
	char line[256];

	(void)state;
	for (size_t i = 0; i < sizeof(flags_cases) / sizeof(*flags_cases); i++) {
		const struct flags_case *c = &flags_cases[i];

		snprintf(line, sizeof(line), "%d 0xffffff9c 0x7ffd1000 0x%x 0x0 0x0 0x0 0x7ffd0f00 0x7f1200\n",
			 SYS_openat, c->flags);
		if (caller_opens_by(line) != c->opens)
			fail_msg("%s", line);
#ifdef SYS_open
		snprintf(line, sizeof(line), "%d 0x7ffd1000 0x%x 0x0 0x0 0x0 0x0 0x7ffd0f00 0x7f1200\n", SYS_open,
			 c->flags);
		if (caller_opens_by(line) != c->opens)
			fail_msg("%s", line);
#endif
	}
}

static void lines_that_tell_nothing(void **state)
{
	char line[256];

	(void)state;
	assert_false(caller_opens_by(""));
	assert_false(caller_opens_by("running\n"));
	assert_false(caller_opens_by("-1 0x7ffd0f00 0x7f1200\n"));
	snprintf(line, sizeof(line), "%d 0xffffff9c 0x7ffd1000 0x10000 0x7ff 0x0 0x0 0x7ffd0f00 0x7f1200\n", SYS_statx);
	assert_false(caller_opens_by(line));
	snprintf(line, sizeof(line), "%d", SYS_openat); /* cut off */
	assert_false(caller_opens_by(line));
	snprintf(line, sizeof(line), "%d 0xffffff9c 0x7ffd1000 0x10000", SYS_openat);
	assert_false(caller_opens_by(line));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flags_of_open),
		cmocka_unit_test(lines_that_tell_nothing),
		cmocka_unit_test(lines_of_writers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
