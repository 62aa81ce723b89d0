/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which open files are read straight from the lower file: the decision, and the count behind it. Users are 1 and 2.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>

#include "fs/backing.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static void decisions(void **state)
{
	static const struct backing nobody = {0}, plain = {.plain = 1},
				    straight = {.id = 7, .uid = 1, .gid = 1, .straight = 1};
	static const struct {
		const struct backing *now;
		struct backing_ask ask;
		enum backing_way want;
	} cases[] = {
		/* the first open decides */
		{&nobody, {true, O_RDONLY, 1, 1}, BACKING_STRAIGHT},
		{&nobody, {true, O_RDONLY | O_APPEND | O_NOATIME, 1, 1}, BACKING_STRAIGHT},
		{&nobody, {false, O_RDONLY, 1, 1}, BACKING_NONE},
		{&nobody, {true, O_WRONLY, 1, 1}, BACKING_NONE},
		{&nobody, {true, O_RDWR, 1, 1}, BACKING_NONE},
		{&nobody, {true, O_RDONLY | O_TRUNC, 1, 1}, BACKING_NONE},
		{&nobody, {true, O_RDONLY | O_DIRECT, 1, 1}, BACKING_NONE},
		/* the kernel's pages are in use: no way out of that */
		{&plain, {true, O_RDONLY, 1, 1}, BACKING_NONE},
		{&plain, {true, O_RDWR, 1, 1}, BACKING_NONE},
		/* they may not be used: no way out of that either, however small the message is by now */
		{&straight, {true, O_RDONLY, 1, 1}, BACKING_STRAIGHT},
		{&straight, {false, O_RDONLY, 1, 1}, BACKING_STRAIGHT},
		{&straight, {false, O_RDWR, 1, 1}, BACKING_BESIDE},
		{&straight, {false, O_WRONLY | O_APPEND, 1, 1}, BACKING_BESIDE},
		{&straight, {true, O_RDONLY | O_TRUNC, 1, 1}, BACKING_BESIDE},
		{&straight, {true, O_RDONLY | O_DIRECT, 1, 1}, BACKING_BESIDE},
		/* nobody is served in another one's name */
		{&straight, {true, O_RDONLY, 2, 1}, BACKING_BESIDE},
		{&straight, {true, O_RDONLY, 1, 2}, BACKING_BESIDE},
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++)
		if (backing_way(cases[i].now, &cases[i].ask) != cases[i].want)
			fail_msg("case %zu", i);
}

/* From the first open to the last close, with the ids that the kernel is told to forget. */
static void an_id_lives_as_long_as_somebody_needs_it(void **state)
{
	static const struct backing_ask first = {true, O_RDONLY, 1, 1}, second = {true, O_RDONLY, 2, 2};
	struct backing b = {0};

	(void)state;
	assert_int_equal(backing_take(&b, BACKING_STRAIGHT, 7, &first), 0);
	/* two opened at the same time, both registered the file: the second one's is too many */
	assert_int_equal(backing_take(&b, BACKING_STRAIGHT, 8, &first), 8);
	assert_int_equal(backing_take(&b, BACKING_BESIDE, 0, &second), 0);
	assert_int_equal(b.id, 7);
	assert_int_equal(b.uid, 1);
	assert_int_equal(backing_leave(&b, BACKING_STRAIGHT), 0);
	assert_int_equal(backing_leave(&b, BACKING_STRAIGHT), 0);
	assert_int_equal(backing_way(&b, &first), BACKING_STRAIGHT);
	assert_int_equal(backing_leave(&b, BACKING_BESIDE), 7);
	assert_int_equal(b.id, 0);
	/* somebody opened it plainly while the kernel was asked: what was registered is not needed */
	assert_int_equal(backing_take(&b, BACKING_NONE, 0, &second), 0);
	assert_int_equal(backing_way(&b, &first), BACKING_NONE);
	assert_int_equal(backing_take(&b, BACKING_NONE, 9, &first), 9);
	assert_int_equal(backing_leave(&b, BACKING_NONE), 0);
	assert_int_equal(backing_leave(&b, BACKING_NONE), 0);
	assert_int_equal(backing_take(&b, BACKING_STRAIGHT, 10, &second), 0);
	assert_int_equal(b.uid, 2);
	assert_int_equal(backing_leave(&b, BACKING_STRAIGHT), 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decisions),
		cmocka_unit_test(an_id_lives_as_long_as_somebody_needs_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
