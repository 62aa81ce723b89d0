/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void round_trip(void **state)
{
	struct cursor c;
	struct buf b;
	char copy[8];
	size_t len;

	(void)state;
	buf_init(&b);
	assert_null(b.data);
	buf_put_u8(&b, 0xfe);
	buf_put_u32(&b, 0x01020304);
	buf_put_u64(&b, 0x1122334455667788);
	buf_put_str(&b, "a\0b", 3);
	buf_put_str(&b, "", 0);
	buf_put_str(&b, "copied", 6);
	buf_put(&b, "!", 1);
	assert_true(buf_ok(&b));
	assert_memory_equal(b.data, "\xfe\x04\x03\x02\x01\x88\x77\x66\x55\x44\x33\x22\x11\x03\0\0\0a\0b", 20);

	cursor_init(&c, b.data, b.len);
	assert_int_equal(cursor_u8(&c), 0xfe);
	assert_int_equal(cursor_u32(&c), 0x01020304);
	assert_true(cursor_u64(&c) == 0x1122334455667788);
	assert_memory_equal(cursor_str(&c, 3, &len), "a\0b", 3);
	assert_int_equal(len, 3);
	cursor_str(&c, 0, &len);
	assert_int_equal(len, 0);
	assert_int_equal(cursor_str_copy(&c, copy, sizeof(copy) - 1), 6);
	assert_string_equal(copy, "copied");
	assert_false(cursor_done(&c));
	assert_int_equal(cursor_u8(&c), '!');
	assert_true(cursor_done(&c));
	buf_release(&b);
	assert_null(b.data);
}

/* Every prefix of a message is told to be short, and nothing after the short field is given. */
static void every_prefix(void **state)
{
	struct cursor c;
	struct buf b;
	char copy[16];
	size_t len;

	(void)state;
	buf_init(&b);
	buf_put_u32(&b, 7);
	buf_put_str(&b, "name", 4);
	buf_put_u64(&b, 9);
	for (size_t cut = 0; cut < b.len; cut++) {
		cursor_init(&c, b.data, cut);
		cursor_u32(&c);
		cursor_str_copy(&c, copy, sizeof(copy) - 1);
		assert_int_equal(cursor_u64(&c), 0);
		assert_true(c.bad);
		assert_int_equal(cursor_u8(&c), 0);
		assert_string_equal(cursor_str(&c, 9, &len), "");
		assert_int_equal(len, 0);
		assert_false(cursor_done(&c));
	}
	buf_release(&b);
}

static void bad_strings(void **state)
{
	static const struct {
		const char *data;
		size_t len, max;
		bool bad;
	} cases[] = {
		{"\3\0\0\0abc", 7, 3, false},
		{"\3\0\0\0abc", 7, 2, true},  /* longer than allowed */
		{"\3\0\0\0ab", 6, 3, true},   /* longer than what is there */
		{"\3\0\0\0a\0c", 7, 3, true}, /* NUL */
		{"\xff\xff\xff\xff"
		 "abc",
		 7, 3, true}, /* a length that would wrap */
	};
	struct cursor c;
	char out[4];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(out, 'x', sizeof(out));
		cursor_init(&c, cases[i].data, cases[i].len);
		assert_int_equal(cursor_str_copy(&c, out, cases[i].max), cases[i].bad ? 0 : 3);
		assert_string_equal(out, cases[i].bad ? "" : "abc");
		assert_int_equal(c.bad, cases[i].bad);
	}
}

static void growth(void **state)
{
	struct buf b;
	char *to;

	(void)state;
	buf_init(&b);
	buf_printf(&b, "%s", "");
	assert_int_equal(b.len, 0);
	assert_string_equal(b.data, "");
	for (int i = 0; i < 10000; i++)
		buf_printf(&b, "%05d", i);
	assert_int_equal(b.len, 50000);
	assert_int_equal(strlen(b.data), 50000);
	assert_string_equal(b.data + 49995, "09999");
	to = buf_reserve(&b, 3);
	assert_non_null(to);
	assert_int_equal(b.len, 50000);
	memcpy(to, "abc", 3);
	b.len += 3;
	assert_string_equal(b.data + 49999, "9abc");
	buf_reset(&b);
	assert_int_equal(b.len, 0);
	assert_string_equal(b.data, "");
	buf_release(&b);
}

/* What cannot be had is remembered, and no later part is added behind the hole. */
static void failure(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b);
	buf_put(&b, "abc", 3);
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_false(buf_ok(&b));
	buf_put(&b, "d", 1);
	buf_printf(&b, "e");
	buf_put_str(&b, "f", 1);
	assert_int_equal(b.len, 3);
	assert_string_equal(b.data, "abc");
	buf_reset(&b);
	assert_true(buf_ok(&b));
	buf_put_str(&b, "x", (size_t)UINT32_MAX + 1);
	assert_false(buf_ok(&b));
	assert_int_equal(b.len, 0);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip), cmocka_unit_test(every_prefix), cmocka_unit_test(bad_strings),
		cmocka_unit_test(growth),     cmocka_unit_test(failure),
	};

	return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
