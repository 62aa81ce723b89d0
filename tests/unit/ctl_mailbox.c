/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/mailbox.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/sock.h"

static char root[] = "/srv/mail", mount[] = "/mnt/mail";
static const struct conf conf = {.root = root, .mount = mount};

static void paths(void **state)
{
	static const struct {
		const char *arg, *path; /* NULL: refused */
	} cases[] = {
		{"anna/Maildir", "anna/Maildir"},
		{"./anna/Maildir/", "anna/Maildir"},
		{".", ""},
		{"/srv/mail/anna", "anna"},
		{"/srv/mail/", ""},
		{"/mnt/mail//anna/./Maildir/.Sent/", "anna/Maildir/.Sent"},
		{"domain/new", "domain/new"},
		{"", NULL},
		{"/etc", NULL},
		{"../etc", NULL},
		{"/srv/mail/../etc", NULL},
		{"a//b", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char out[FOLDER_PATH_MAX + 1];
		struct err e = {""};
		int rc = mailbox_path(&conf, cases[i].arg, out, &e);

		assert_int_equal(rc, cases[i].path ? 0 : -EINVAL);
		if (cases[i].path)
			assert_string_equal(out, cases[i].path);
		else
			assert_true(e.text[0] != '\0');
	}
}

/* However many are named, no message is too long, and each is in exactly one. */
static void batches(void **state)
{
	enum { N = 9000 };
	char **argv = calloc(N, sizeof(*argv)), want[64];
	int next = 0, seen = 0, messages = 0;
	struct err e;

	(void)state;
	for (int i = 0; i < N; i++)
		assert_true(asprintf(&argv[i], "user%05d/Maildir%s", i, i % 7 ? "" : "/.A-folder-with-a-longer-name") >
			    0);
	while (next < N) {
		struct cursor c;
		struct buf b;
		uint32_t n;

		buf_init(&b);
		buf_put_u8(&b, 1);
		assert_int_equal(mailbox_put(&conf, argv, N, &next, &b, &e), 0);
		assert_true(b.len <= SOCK_MSG_MAX);
		cursor_init(&c, b.data, b.len);
		cursor_u8(&c);
		n = cursor_u32(&c);
		assert_true(n > 0 && n <= 4096);
		for (; n > 0; n--) {
			cursor_str_copy(&c, want, sizeof(want) - 1);
			assert_string_equal(want, argv[seen++]);
		}
		assert_true(cursor_done(&c));
		buf_release(&b);
		messages++;
	}
	assert_int_equal(seen, N);
	assert_true(messages > 1);
	for (int i = 0; i < N; i++)
		free(argv[i]);
	free(argv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths),
		cmocka_unit_test(batches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
