/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/folder.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define S(s) (s), sizeof(s) - 1
#define N(a) (sizeof(a) / sizeof(*(a)))

static void halves(void **state)
{
	enum half h;

	(void)state;
	assert_string_equal(half_word(HALF_NEW), "new");
	assert_string_equal(half_word(HALF_CUR), "cur");
	assert_int_equal(half_parse(S("cur"), &h), 0);
	assert_int_equal(h, HALF_CUR);
	assert_int_equal(half_parse(S("new"), &h), 0);
	assert_int_equal(h, HALF_NEW);
	assert_int_equal(half_parse(S("tmp"), &h), -ENOENT);
	assert_int_equal(half_parse("curx", 4, &h), -ENOENT);
	assert_int_equal(half_parse("cu", 2, &h), -ENOENT);
}

static void paths(void **state)
{
	static const struct {
		const char *path;
		size_t len;
		int rc;
	} cases[] = {
		{S(""), 0},
		{S("a"), 0},
		{S("example.org/a/Maildir/.Sent"), 0},
		{S("a/b\nc/\xff"), 0},
		{S("/a"), -EINVAL},
		{S("a/"), -EINVAL},
		{S("a//b"), -EINVAL},
		{S("./a"), -EINVAL},
		{S("a/."), -EINVAL},
		{S("a/../b"), -EINVAL},
		{S(".."), -EINVAL},
		{S("a\0b"), -EINVAL},
		{S("a/...b"), 0},
	};
	char path[FOLDER_PATH_MAX + 1];
	struct err e = {""};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		e.text[0] = '\0';
		assert_int_equal(folder_path_check(cases[i].path, cases[i].len, &e), cases[i].rc);
		assert_int_equal(e.text[0] != '\0', cases[i].rc != 0);
	}
	for (size_t i = 0; i < sizeof(path); i++)
		path[i] = i % 200 == 199 ? '/' : 'x';
	assert_int_equal(folder_path_check(path, FOLDER_PATH_MAX, NULL), 0);
	assert_int_equal(folder_path_check(path, FOLDER_PATH_MAX + 1, &e), -EINVAL);
	memset(path, 'x', sizeof(path));
	assert_int_equal(folder_path_check(path, NAME_LEN_MAX, NULL), 0);
	assert_int_equal(folder_path_check(path, NAME_LEN_MAX + 1, NULL), -EINVAL);
}

static void refs(void **state)
{
	static const struct {
		const char *path;
		size_t len;
		int rc;
		const char *folder;
		int half; /* -1: none */
		const char *name;
	} cases[] = {
		{S("a/Maildir/new/1.x"), 0, "a/Maildir", HALF_NEW, "1.x"},
		{S("a/Maildir/cur/1.x:2,S"), 0, "a/Maildir", HALF_CUR, "1.x:2,S"},
		{S("a/Maildir/new"), 0, "a/Maildir", HALF_NEW, ""},
		{S("a/Maildir/cur/"), 0, "a/Maildir", HALF_CUR, ""},
		{S("a/Maildir"), 0, "a/Maildir", -1, ""},
		{S("a/Maildir/"), 0, "a/Maildir", -1, ""},
		{S(""), 0, "", -1, ""},
		{S("new"), 0, "", HALF_NEW, ""},
		{S("new/1.x"), 0, "", HALF_NEW, "1.x"},
		{S("cur/new"), 0, "cur", HALF_NEW, ""},
		{S("cur/new/cur/new/1.x"), 0, "cur/new/cur", HALF_NEW, "1.x"},
		{S("a/tmp/1.x"), 0, "a/tmp/1.x", -1, ""},
		{S("a/../new/1.x"), -EINVAL, NULL, -1, NULL},
		{S("a/new/.."), -EINVAL, NULL, -1, NULL},
		{S("a/new/1\0x"), -EINVAL, NULL, -1, NULL},
		{S("/a/new/1.x"), -EINVAL, NULL, -1, NULL},
		{S("/new/1.x"), -EINVAL, NULL, -1, NULL},
		{S("/new"), -EINVAL, NULL, -1, NULL},
		{S("a//new/1.x"), -EINVAL, NULL, -1, NULL},
	};
	struct folder_ref ref;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		assert_int_equal(folder_ref_parse(cases[i].path, cases[i].len, &ref, NULL), cases[i].rc);
		if (cases[i].rc < 0)
			continue;
		assert_string_equal(ref.folder, cases[i].folder);
		assert_int_equal(ref.has_half, cases[i].half >= 0);
		if (ref.has_half)
			assert_int_equal(ref.half, cases[i].half);
		assert_string_equal(ref.name, cases[i].name);
	}
}

static void ref_lengths(void **state)
{
	char path[FOLDER_PATH_MAX + 400];
	struct folder_ref ref;
	size_t len;

	(void)state;
	memset(path, 'x', sizeof(path));
	memcpy(path, "a/new/", 6);
	assert_int_equal(folder_ref_parse(path, 6 + NAME_LEN_MAX, &ref, NULL), 0);
	assert_int_equal(strlen(ref.name), NAME_LEN_MAX);
	assert_int_equal(folder_ref_parse(path, 6 + NAME_LEN_MAX + 1, &ref, NULL), -EINVAL);

	for (len = 0; len < FOLDER_PATH_MAX; len++)
		path[len] = len % 200 == 199 ? '/' : 'x';
	memcpy(path + len, "/cur/1.x", 8);
	assert_int_equal(folder_ref_parse(path, len + 8, &ref, NULL), 0);
	assert_int_equal(strlen(ref.folder), FOLDER_PATH_MAX);
	memcpy(path + len, "y/cur/1.x", 9);
	assert_int_equal(folder_ref_parse(path, len + 9, &ref, NULL), -EINVAL);
}

/* Whatever bytes come in, what goes out is a checked folder and a possible name. */
static void ref_random(void **state)
{
	static const char alphabet[] = "/./newcurnew/cur/.x\0:";
	unsigned short seed[3] = {1, 2, 3};
	struct folder_ref ref;
	char path[40];

	(void)state;
	for (int round = 0; round < 200000; round++) {
		size_t len = (size_t)nrand48(seed) % sizeof(path);

		for (size_t i = 0; i < len; i++)
			path[i] = alphabet[(size_t)nrand48(seed) % sizeof(alphabet)];
		if (folder_ref_parse(path, len, &ref, NULL) < 0)
			continue;
		assert_int_equal(folder_path_check(ref.folder, strlen(ref.folder), NULL), 0);
		assert_true(ref.name[0] == '\0' || name_ok(ref.name, strlen(ref.name)));
	}
}

static void relative(void **state)
{
	static const char *const prefixes[] = {"/srv/mail", "", "/home/mail/"};
	static const struct {
		const char *path;
		int rc;
		const char *out;
	} cases[] = {
		{"/srv/mail/a/new/1.x", 0, "a/new/1.x"},
		{"/srv/mail", 0, ""},
		{"/srv/mail/", 0, ""},
		{"//srv/./mail///a/.", 0, "a"},
		{"/home/mail/b", 0, "b"},
		{"/srv/mailx/a", -EINVAL, NULL},
		{"/srv", -EINVAL, NULL},
		{"/", -EINVAL, NULL},
		{"srv/mail/a", -EINVAL, NULL},
		{"", -EINVAL, NULL},
		{"/srv/mail/../mail/a", -EINVAL, NULL},
		{"/srv/mail/a/..", -EINVAL, NULL},
		{"/srv/mail/..a/b", 0, "..a/b"},
	};
	char out[FOLDER_PATH_MAX + 1 + NAME_LEN_MAX + 1], path[PATH_MAX + 10];
	struct err e;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		assert_int_equal(folder_relative(cases[i].path, prefixes, N(prefixes), out, &e), cases[i].rc);
		if (cases[i].rc == 0)
			assert_string_equal(out, cases[i].out);
	}
	assert_int_equal(folder_relative("/a/b", (const char *const[]){"/"}, 1, out, &e), 0);
	assert_string_equal(out, "a/b");

	memset(path, 'x', sizeof(path));
	memcpy(path, "/srv/mail/", 10);
	path[10 + FOLDER_PATH_MAX + 1 + NAME_LEN_MAX] = '\0';
	assert_int_equal(folder_relative(path, prefixes, N(prefixes), out, &e), 0);
	assert_int_equal(strlen(out), FOLDER_PATH_MAX + 1 + NAME_LEN_MAX);
	path[10 + FOLDER_PATH_MAX + 1 + NAME_LEN_MAX] = 'x';
	path[10 + FOLDER_PATH_MAX + 1 + NAME_LEN_MAX + 1] = '\0';
	assert_int_equal(folder_relative(path, prefixes, N(prefixes), out, &e), -EINVAL);
	path[10 + FOLDER_PATH_MAX + 1 + NAME_LEN_MAX + 1] = 'x';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(folder_relative(path, prefixes, N(prefixes), out, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(halves),      cmocka_unit_test(paths),      cmocka_unit_test(refs),
		cmocka_unit_test(ref_lengths), cmocka_unit_test(ref_random), cmocka_unit_test(relative),
	};

	return cmocka_run_group_tests_name("folder", tests, NULL, NULL);
}
