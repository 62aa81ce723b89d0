/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define S(s) (s), sizeof(s) - 1

static void shown(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *shown, *json, *plain;
	} cases[] = {
		{S(""), "", "\"\"", "\"\""},
		{S("1700000000.M1P2.host:2,FS"), "1700000000.M1P2.host:2,FS", "\"1700000000.M1P2.host:2,FS\"",
		 "\"1700000000.M1P2.host:2,FS\""},
		{S("a\nb"), "a\\x0ab", "\"a\\\\x0ab\"", "\"a\\\\x0ab\""},
		{S("a\x1b[2J\x7f"), "a\\x1b[2J\\x7f", "\"a\\\\x1b[2J\\\\x7f\"", "\"a\\\\x1b[2J\\\\x7f\""},
		{S("a\\b"), "a\\x5cb", "\"a\\\\x5cb\"", "\"a\\\\b\""},
		{S("say \"x\""), "say \"x\"", "\"say \\\"x\\\"\"", "\"say \\\"x\\\"\""},
		{S("Entw\xc3\xbcrfe \xf0\x9f\x93\xa7"), "Entw\xc3\xbcrfe \xf0\x9f\x93\xa7",
		 "\"Entw\xc3\xbcrfe \xf0\x9f\x93\xa7\"", "\"Entw\xc3\xbcrfe \xf0\x9f\x93\xa7\""},
		/* not UTF-8: a stray byte, a cut character, a long form of '/', half a surrogate pair, too great */
		{S("\xff"), "\\xff", "\"\\\\xff\"", "\"\\\\xff\""},
		{S("a\xe2\x82"), "a\\xe2\\x82", "\"a\\\\xe2\\\\x82\"", "\"a\\\\xe2\\\\x82\""},
		{S("\xc0\xaf"), "\\xc0\\xaf", "\"\\\\xc0\\\\xaf\"", "\"\\\\xc0\\\\xaf\""},
		{S("\xed\xa0\x80"), "\\xed\\xa0\\x80", "\"\\\\xed\\\\xa0\\\\x80\"", "\"\\\\xed\\\\xa0\\\\x80\""},
		{S("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80", "\"\\\\xf4\\\\x90\\\\x80\\\\x80\"",
		 "\"\\\\xf4\\\\x90\\\\x80\\\\x80\""},
		/* a control character beyond ASCII */
		{S("\xc2\x9b"), "\\xc2\\x9b", "\"\\\\xc2\\\\x9b\"", "\"\\\\xc2\\\\x9b\""},
	};
	struct buf b;

	(void)state;
	buf_init(&b);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		buf_reset(&b);
		text_put_shown(&b, cases[i].bytes, cases[i].len);
		assert_string_equal(b.data ? b.data : "", cases[i].shown);
		buf_reset(&b);
		text_put_json(&b, cases[i].bytes, cases[i].len, false);
		assert_string_equal(b.data, cases[i].json);
		buf_reset(&b);
		text_put_json(&b, cases[i].bytes, cases[i].len, true);
		assert_string_equal(b.data, cases[i].plain);
	}
	buf_release(&b);
}

static void number(void **state)
{
	static const char *const yes[] = {"0", "7", "-1", "12345678901234567890", "0.5", "10.25"};
	static const char *const no[] = {"", "-", "007", "1.", ".5", "1e", "0x10", "1 ", " 1", "1.2.3", "ok", "+1"};

	(void)state;
	for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++)
		assert_true(text_is_number(yes[i]));
	for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++)
		assert_false(text_is_number(no[i]));
}

static void grouped(void **state)
{
	static const struct {
		uint64_t n;
		const char *text;
	} cases[] = {{0, "0"},          {999, "999"},        {1000, "1,000"},
		     {12345, "12,345"}, {100000, "100,000"}, {UINT64_MAX, "18,446,744,073,709,551,615"}};
	struct buf b;

	(void)state;
	buf_init(&b);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		buf_reset(&b);
		text_put_grouped(&b, cases[i].n);
		assert_string_equal(b.data, cases[i].text);
	}
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shown),
		cmocka_unit_test(number),
		cmocka_unit_test(grouped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
