/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define S(s) (s), sizeof(s) - 1

static void base_len(void **state)
{
	static const struct {
		const char *name;
		size_t len, base;
	} cases[] = {
		{S("1700000000.M1P2.host"), 20},
		{S("1700000000.M1P2.host:2,FS"), 20},
		{S("1700000000.M1P2.host:"), 20},
		{S("1700000000.M1P2.host:1,:2,S"), 20},
		{S("a\nb\xff:2,S"), 4},
		{S(":2,S"), 4},
		{S("::2,S"), 1},
		{S(":"), 1},
		{S("x"), 1},
		{S("x:"), 1},
		{S(""), 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(name_base_len(cases[i].name, cases[i].len), cases[i].base);
}

static void same_base(void **state)
{
	static const struct {
		const char *a;
		size_t alen;
		const char *b;
		size_t blen;
		bool same;
	} cases[] = {
		{S("1.a:2,"), S("1.a:2,S"), true},    {S("1.a"), S("1.a:2,S"), true},
		{S("1.a:2,S"), S("1.ab:2,S"), false}, {S("1.a:2,S"), S("1.b:2,S"), false},
		{S(":2,S"), S(":2,F"), false},        {S("1\0x:2,"), S("1\0y:2,"), false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		bool same = name_same_base(cases[i].a, cases[i].alen, cases[i].b, cases[i].blen);

		assert_int_equal(same, cases[i].same);
		assert_int_equal(name_base_hash(cases[i].a, cases[i].alen) == name_base_hash(cases[i].b, cases[i].blen),
				 cases[i].same);
	}
}

static void kinds(void **state)
{
	static const struct {
		const char *name;
		size_t len;
		bool message, nfs, ok;
	} cases[] = {
		{S("1700000000.M1P2.host:2,S"), true, false, true},
		{S("1.x"), true, false, true},
		{S("1."), false, false, true},
		{S("1"), false, false, true},
		{S(".1.x"), false, false, true},
		{S("1x.y"), false, false, true},
		{S(""), false, false, false},
		{S("."), false, false, false},
		{S(".."), false, false, false},
		{S("..."), false, false, true},
		{S("a/b"), false, false, false},
		{S("a\0b"), false, false, false},
		{S("a\nb"), false, false, true},
		{S("\xff\xfe"), false, false, true},
		{S(".nfs"), false, false, true},
		{S(".nfs00000000012abCDE00000001"), false, true, true},
		{S(".nfs_notes"), false, false, true},
		{S(".nfsg"), false, false, true},
		{S("nfs01"), false, false, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(name_is_message(cases[i].name, cases[i].len), cases[i].message);
		assert_int_equal(name_is_nfs(cases[i].name, cases[i].len), cases[i].nfs);
		assert_int_equal(name_ok(cases[i].name, cases[i].len), cases[i].ok);
	}
}

static void longest(void **state)
{
	char name[NAME_LEN_MAX + 1];

	(void)state;
	memset(name, '1', sizeof(name));
	assert_true(name_ok(name, NAME_LEN_MAX));
	assert_false(name_ok(name, NAME_LEN_MAX + 1));
	assert_int_equal(name_base_len(name, NAME_LEN_MAX), NAME_LEN_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base_len),
		cmocka_unit_test(same_base),
		cmocka_unit_test(kinds),
		cmocka_unit_test(longest),
	};

	return cmocka_run_group_tests_name("name", tests, NULL, NULL);
}
