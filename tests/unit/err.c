/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void set(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(err_set(&e, -EINVAL, "%s:%d: bad", "file", 3), -EINVAL);
	assert_string_equal(e.text, "file:3: bad");
	assert_int_equal(err_set(NULL, -ENOSPC, "unused"), -ENOSPC);
}

static void sys(void **state)
{
	struct err e;

	(void)state;
	errno = ENOENT;
	assert_int_equal(err_sys(&e, "cannot open %s", "/x"), -ENOENT);
	assert_string_equal(e.text, "cannot open /x: No such file or directory");
	assert_int_equal(errno, ENOENT);
	errno = EACCES;
	assert_int_equal(err_sys(NULL, "unused"), -EACCES);
}

/* The text is cut, the reason is not. */
static void too_long(void **state)
{
	static const char reason[] = ": No space left on device";
	char path[2 * ERR_TEXT_MAX];
	struct err e;

	(void)state;
	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	err_set(&e, -EINVAL, "%s", path);
	assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
	errno = ENOSPC;
	err_sys(&e, "%s", path);
	assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
	assert_string_equal(e.text + ERR_TEXT_MAX - sizeof(reason), reason);
	assert_int_equal(e.text[ERR_TEXT_MAX - sizeof(reason) - 1], 'a');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set),
		cmocka_unit_test(sys),
		cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
