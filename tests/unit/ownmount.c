/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way into a mount: here into a folder of the filesystem that the test runs on, which can be cloned as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/ownmount.h"
#include "lib/base/clock.h"

static char top[64];
static struct ownmount mount;

static int setup(void **state)
{
	struct err e;

	(void)state;
	strcpy(top, "/tmp/maildex-own.XXXXXX");
	assert_non_null(mkdtemp(top));
	return ownmount_start(&mount, top, &e);
}

static int teardown(void **state)
{
	(void)state;
	ownmount_stop(&mount);
	return rmdir(top);
}

static void await_closed(void)
{
	const struct timespec pause = {.tv_nsec = 5 * NS_PER_MS};
	int64_t end = clock_mono_ns() + 60 * NS_PER_S;
	bool closed = false;

	while (!closed && clock_mono_ns() < end) {
		pthread_mutex_lock(&mount.lock);
		closed = mount.fd < 0 && mount.old < 0;
		pthread_mutex_unlock(&mount.lock);
		nanosleep(&pause, NULL);
	}
	assert_true(closed);
}

static void leads_to_the_mount(void **state)
{
	struct stat st, own;
	int fd;

	(void)state;
	assert_int_equal(ownmount_get(&mount), -EXDEV); /* not mounted yet */
	assert_true(ownmount_mounted(&mount));
	fd = ownmount_get(&mount);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(stat(top, &own), 0);
	assert_int_equal(st.st_ino, own.st_ino);
	assert_int_equal(st.st_dev, own.st_dev);
	ownmount_put(&mount, fd);
}

/* Users share one, and it stays as long as one has it; who comes when its time is over doesn't wait for that. */
static void is_held_for_a_moment(void **state)
{
	struct stat st;
	int a, b;

	(void)state;
	assert_true(ownmount_mounted(&mount));
	a = ownmount_get(&mount);
	b = ownmount_get(&mount);
	assert_true(a >= 0);
	assert_int_equal(a, b);
	ownmount_put(&mount, a);
	pthread_mutex_lock(&mount.lock);
	while (mount.old < 0)
		pthread_cond_wait(&mount.moved, &mount.lock);
	pthread_mutex_unlock(&mount.lock);
	a = ownmount_get(&mount);
	assert_true(a >= 0);
	assert_int_not_equal(a, b);
	ownmount_put(&mount, a);
	assert_int_equal(fstat(b, &st), 0);
	ownmount_put(&mount, b);
	await_closed();
	a = ownmount_get(&mount);
	assert_true(a >= 0);
	ownmount_put(&mount, a);
	await_closed();
}

static void another_filesystem_is_refused(void **state)
{
	(void)state;
	assert_true(ownmount_mounted(&mount));
	mount.path = "/proc";
	assert_int_equal(ownmount_get(&mount), -EXDEV);
	mount.path = "/nonexistent/maildex";
	assert_int_equal(ownmount_get(&mount), -ENOENT);
	assert_false(ownmount_mounted(&mount));
	mount.path = top;
	assert_int_equal(ownmount_get(&mount), -EXDEV);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(leads_to_the_mount, setup, teardown),
		cmocka_unit_test_setup_teardown(is_held_for_a_moment, setup, teardown),
		cmocka_unit_test_setup_teardown(another_filesystem_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
