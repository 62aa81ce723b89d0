/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "fs/serve.h"

static void the_longest_match_wins(void **state)
{
	static const struct {
		const char *folder;
		enum serve_mode want;
	} cases[] = {
		{"a", SERVE_LOWER},
		{"a/Maildir", SERVE_LOWER},
		{"a/Maildir/.Sent", SERVE_COMPARE},
		{"a/Maildir/.Sent/x", SERVE_COMPARE},
		{"a/Maildir/.Sen", SERVE_LOWER},
		{"ab", SERVE_INDEX},
		{"ab/Maildir", SERVE_INDEX},
		{"", SERVE_INDEX},
		{"b", SERVE_INDEX},
	};
	struct serve s;

	(void)state;
	serve_init(&s, SERVE_INDEX);
	assert_int_equal(serve_set(&s, "a", SERVE_COMPARE), 0);
	assert_int_equal(serve_set(&s, "a/Maildir/.Sent", SERVE_COMPARE), 0);
	assert_int_equal(serve_set(&s, "a", SERVE_LOWER), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (serve_of(&s, cases[i].folder) != cases[i].want)
			fail_msg("%s", cases[i].folder);
	serve_release(&s);
}

static void the_whole_mounts_mode_forgets_the_mailboxes(void **state)
{
	struct serve s;
	struct buf b;

	(void)state;
	serve_init(&s, SERVE_INDEX);
	for (char c = 'z'; c >= 'a'; c--)
		assert_int_equal(serve_set(&s, (char[]){c, '\0'}, SERVE_LOWER), 0);
	assert_int_equal(serve_of(&s, "m/Maildir"), SERVE_LOWER);
	buf_init(&b);
	serve_print(&s, &b);
	assert_int_equal(strncmp(b.data, "* index\na lower\nb lower\n", 24), 0);
	serve_set_all(&s, SERVE_COMPARE);
	assert_int_equal(serve_of(&s, "m/Maildir"), SERVE_COMPARE);
	buf_reset(&b);
	serve_print(&s, &b);
	assert_string_equal(b.data, "* compare\n");
	buf_release(&b);
	serve_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_longest_match_wins),
		cmocka_unit_test(the_whole_mounts_mode_forgets_the_mailboxes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
