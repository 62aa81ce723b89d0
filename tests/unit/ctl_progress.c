/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/clock.h"

static void lines(void **state)
{
	static const struct {
		struct progress p;
		int64_t elapsed_s;
		const char *line;
	} cases[] = {
		{{0}, 0, "0 messages, 0 of 0 or more folders, 0 messages/s"},
		{{.done = 10, .known = 40, .messages = 5000},
		 5,
		 "5,000 messages, 10 of 40 or more folders, 1,000 messages/s"},
		{{.done = 10, .known = 40, .complete = true, .messages = 5000},
		 5,
		 "5,000 messages, 10 of 40 folders, 1,000 messages/s, 0:15 left"},
		/* what an earlier run did says nothing about this one's speed */
		{{.done = 30, .known = 40, .complete = true, .messages = 5000, .skipped = 25},
		 5,
		 "5,000 messages, 30 of 40 folders, 1,000 messages/s, 0:10 left"},
		{{.done = 25, .known = 40, .complete = true, .skipped = 25},
		 5,
		 "0 messages, 25 of 40 folders, 0 messages/s"},
		{{.done = 1, .known = 7201, .complete = true, .messages = 1, .failed = 1},
		 1,
		 "1 messages, 1 of 7,201 folders, 1 failed, 1 messages/s, 2:00:00 left"},
	};
	struct buf b;

	(void)state;
	buf_init(&b);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		buf_reset(&b);
		progress_line(&cases[i].p, cases[i].elapsed_s * NS_PER_S, &b);
		assert_string_equal(b.data, cases[i].line);
	}
	buf_release(&b);
}

static void bars(void **state)
{
	static const struct progress half = {.done = 20, .known = 40, .complete = true, .messages = 5000};
	static const struct progress unknown = {.done = 20, .known = 40, .messages = 5000};
	struct buf b;

	(void)state;
	buf_init(&b);
	progress_bar(&half, 5 * NS_PER_S, 200, &b);
	assert_string_equal(b.data, "[###############...............]  50% 5,000 messages, 20 of 40 folders, "
				    "1,000 messages/s, 0:05 left");
	buf_reset(&b);
	progress_bar(&unknown, 5 * NS_PER_S, 200, &b);
	assert_string_equal(b.data, "[..............................]   0% 5,000 messages, 20 of 40 or more folders, "
				    "1,000 messages/s");
	for (unsigned columns = 1; columns < 200; columns++) {
		buf_reset(&b);
		progress_bar(&half, 5 * NS_PER_S, columns, &b);
		assert_true(b.len > 0 && b.len <= columns);
	}
	buf_reset(&b);
	progress_bar(&half, 5 * NS_PER_S, 20, &b);
	assert_string_equal(b.data, "5,000 messages, 20 o");
	buf_release(&b);
}

static void summaries(void **state)
{
	static const struct progress p = {
		.done = 40, .known = 40, .complete = true, .messages = 5000, .failed = 2, .skipped = 7};
	static const struct progress plain = {.done = 1, .known = 1, .complete = true, .messages = 3};
	struct buf b;

	(void)state;
	buf_init(&b);
	progress_summary(&p, 2500 * NS_PER_MS, &b);
	assert_string_equal(b.data,
			    "40 folders, 5,000 messages, in 2.5 s (7 of them by an earlier run), 2 could not be "
			    "read");
	buf_reset(&b);
	progress_summary(&plain, 0, &b);
	assert_string_equal(b.data, "1 folders, 3 messages, in 0.0 s");
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines),
		cmocka_unit_test(bars),
		cmocka_unit_test(summaries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
