/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What /proc/PID/status tells of a caller: is it to be killed? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/loop.h"

static void killed(void **state)
{
	(void)state;
	assert_true(
		loop_killed_by("Name:\timapd\nThreads:\t1\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
	/* Another signal as well; and one that the kernel made SIGKILL of, as it does with each that ends a process. */
	assert_true(loop_killed_by("Name:\timapd\nSigPnd:\t0000000000004100\nShdPnd:\t0000000000004000\n"));
	assert_false(loop_killed_by("Name:\timapd\nSigPnd:\t0000000000002000\nShdPnd:\t0000000000000100\n"));
	assert_false(loop_killed_by("Name:\timapd\nSigPnd:\t0000000000000000\n"));
	assert_false(loop_killed_by("Name:\tSigPnd:\t0000000000000100\n"));
	assert_false(loop_killed_by(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(killed)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
