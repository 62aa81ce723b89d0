/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * C16: mount options under which the NFS client answers a forced GETATTR from old attributes (softreval), or weakens
 * what else the law
 * takes for granted. Options as mountinfo shows them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/mount.h"

static void c16_options(void **state)
{
	static const struct {
		const char *fstype, *options;
		int want;
		unsigned warnings;
	} cases[] = {
		{"nfs4", "rw,vers=4.2,rsize=1048576,hard,proto=tcp,local_lock=none,addr=10.9.0.1", 0, 0},
		{"nfs4", "rw,vers=4.2,softreval,local_lock=none", -EINVAL, 0},
		{"nfs", "rw,vers=3,softreval", -EINVAL, 0},
		{"nfs", "rw,vers=3,nosoftreval,softerr", 0, 0},
		{"nfs", "rw,vers=3,nocto,hard", 0, 1},
		{"nfs", "rw,vers=3,hard,nolock,local_lock=all", 0, 2},
		{"nfs4", "rw,local_lock=posix", 0, 1},
		{"nfs4", "nocto", 0, 1},
		{"ext4", "rw,softreval,nocto", 0, 0},
		{"nfs4", "", 0, 0},
	};
	struct err e;
	unsigned warnings;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		e.text[0] = '\0';
		if (mount_judge_options("/srv/mail", cases[i].fstype, cases[i].options, &warnings, &e) !=
			    cases[i].want ||
		    warnings != cases[i].warnings)
			fail_msg("%s %s", cases[i].fstype, cases[i].options);
		if (cases[i].want < 0) {
			assert_non_null(strstr(e.text, "/srv/mail"));
			assert_non_null(strstr(e.text, "softreval"));
		}
	}
}

static void opened_by_name(void **state)
{
	(void)state;
	assert_true(mount_opens_by_name("nfs4", "rw,vers=4.0,rsize=1048576"));
	assert_false(mount_opens_by_name("nfs4", "rw,vers=4.1,rsize=1048576"));
	assert_false(mount_opens_by_name("nfs4", "rw,vers=4.2"));
	assert_false(mount_opens_by_name("nfs", "rw,vers=3"));
	assert_false(mount_opens_by_name("ext4", "vers=4.0"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(c16_options),
		cmocka_unit_test(opened_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
