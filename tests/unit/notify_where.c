/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildex-notify/where.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define S(s) (s), sizeof(s) - 1

static void absolute(void **state)
{
	static char root[] = "/srv/mail", mount[] = "/mnt/mail";
	static const struct conf conf = {.root = root, .mount = mount};
	static const struct {
		const char *path;
		size_t len;
		const char *relative; /* NULL: refused */
	} cases[] = {
		{S("/srv/mail/u/Maildir/new/1.2.3"), "u/Maildir/new/1.2.3"},
		{S("/mnt/mail/u/Maildir/cur/1.2.3:2,S"), "u/Maildir/cur/1.2.3:2,S"},
		{S("/srv/mail//u/./Maildir/"), "u/Maildir"},
		{S("/srv/mail"), ""},
		{S("/srv/mailbox/u"), NULL},
		{S("/srv/mail/../u"), NULL},
		{S("/srv/mail/u\0/x"), NULL},
		{S(""), NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char out[WHERE_MAX + 1];
		struct err e = {""};
		int rc = where_is(&conf, cases[i].path, cases[i].len, out, &e);

		assert_int_equal(rc, cases[i].relative ? 0 : -EINVAL);
		if (cases[i].relative)
			assert_string_equal(out, cases[i].relative);
		else
			assert_true(e.text[0] != '\0');
	}
}

/* root is configured by a path that leads over a symbolic link: the shell's $PWD begins with it, getcwd() does not. */
static void relative(void **state)
{
	char base[] = "/tmp/maildex-where-XXXXXX", real[PATH_MAX], link[PATH_MAX], inside[PATH_MAX], pwd[PATH_MAX + 2],
	     out[WHERE_MAX + 1];
	struct conf by_link = {.root = link, .mount = link}, by_real = {.root = real, .mount = real};
	struct err e;

	(void)state;
	assert_non_null(mkdtemp(base));
	snprintf(real, sizeof(real), "%s/real", base);
	snprintf(link, sizeof(link), "%s/link", base);
	snprintf(inside, sizeof(inside), "%s/real/u", base);
	assert_int_equal(mkdir(real, 0700), 0);
	assert_int_equal(symlink("real", link), 0);
	assert_int_equal(mkdir(inside, 0700), 0);
	assert_int_equal(chdir(inside), 0);

	unsetenv("PWD");
	assert_int_equal(where_is(&by_real, S("new/1.2.3"), out, &e), 0);
	assert_string_equal(out, "u/new/1.2.3");
	assert_int_equal(where_is(&by_real, S("./"), out, &e), 0);
	assert_string_equal(out, "u");
	assert_int_equal(where_is(&by_real, S("../other/new"), out, &e), -EINVAL);
	assert_int_equal(where_is(&by_link, S("new/1.2.3"), out, &e), -EINVAL);
	snprintf(pwd, sizeof(pwd), "%s/u", link);
	setenv("PWD", pwd, 1);
	assert_int_equal(where_is(&by_link, S("new/1.2.3"), out, &e), 0);
	assert_string_equal(out, "u/new/1.2.3");
	assert_int_equal(where_is(&by_real, S("new/1.2.3"), out, &e), 0);
	assert_string_equal(out, "u/new/1.2.3");
	/* a $PWD that lies is not believed */
	setenv("PWD", link, 1);
	assert_int_equal(where_is(&by_link, S("new/1.2.3"), out, &e), -EINVAL);

	assert_int_equal(chdir("/"), 0);
	rmdir(inside);
	unlink(link);
	rmdir(real);
	rmdir(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absolute),
		cmocka_unit_test(relative),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
