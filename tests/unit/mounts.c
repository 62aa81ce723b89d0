/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/mounts.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>

static const char text[] = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
			   "27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n"
			   "this is no line\n"
			   "28 27 0:30 / /srv/my\\040mail rw - nfs4 server:/ex\\134port rw,vers=4.2\n"
			   "29 27 0:30 /sub /srv/bind rw - nfs4 server:/ex rw\n"
			   "x 27 0:30 / /y rw - nfs4 server:/ex rw\n"
			   "30 27 030 / /y rw - nfs4 server:/ex rw\n"
			   "31 28 0:31 / /srv/my\\040mail rw - fuse.maildex maildex rw\n"
			   "32 27 0:32 / /none rw -  \n"
			   "33 27 0:33 / /cut rw -";

static void parse(void **state)
{
	struct mounts m;
	const struct mount *at;

	(void)state;
	assert_int_equal(mounts_parse(&m, text, strlen(text)), 0);
	assert_int_equal(m.count, 6);
	at = mounts_by_id(&m, 27);
	assert_non_null(at);
	assert_string_equal(at->fstype, "ext4");
	assert_string_equal(at->source, "/dev/vda");
	assert_true(at->dev == makedev(254, 0));
	at = mounts_by_id(&m, 28);
	assert_string_equal(at->point, "/srv/my mail");
	assert_string_equal(at->source, "server:/ex\\port");
	assert_string_equal(mounts_by_id(&m, 29)->root, "/sub");
	assert_string_equal(mounts_by_id(&m, 32)->source, "");
	assert_null(mounts_by_id(&m, 33));
	assert_null(mounts_by_id(&m, 30));
	/* The one mounted over another is the one that is met. */
	assert_int_equal(mounts_by_point(&m, "/srv/my mail")->id, 31);
	assert_null(mounts_by_point(&m, "/srv"));
	mounts_release(&m);
	assert_int_equal(mounts_parse(&m, NULL, 0), 0);
	assert_int_equal(m.count, 0);
	mounts_release(&m);
}

static void parse_random(void **state)
{
	unsigned short seed[3] = {1, 2, 3};
	size_t len = strlen(text);
	char *bytes = malloc(len);

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct mounts m;

		memcpy(bytes, text, len);
		for (int i = 0; i < 8; i++)
			bytes[(size_t)nrand48(seed) % len] = (char)nrand48(seed);
		assert_int_equal(mounts_parse(&m, bytes, len), 0);
		for (size_t i = 0; i < m.count; i++)
			assert_true(strlen(m.list[i].point) < len && strlen(m.list[i].root) < len);
		mounts_release(&m);
	}
	free(bytes);
}

static void own(void **state)
{
	struct mounts m;
	const struct mount *at;
	struct stat st;
	unsigned id;
	int fd = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(mounts_read(&m), 0);
	assert_int_equal(mounts_fd_id(fd, &id), 0);
	at = mounts_by_id(&m, id);
	assert_non_null(at);
	assert_string_equal(at->fstype, "proc");
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_dev == at->dev);
	assert_non_null(mounts_by_point(&m, "/"));
	mounts_release(&m);
	assert_int_equal(mounts_of_fd(&m, fd, &at), 0);
	assert_int_equal(at->id, id);
	mounts_release(&m);
	close(fd);
	assert_true(mounts_fd_id(fd, &id) < 0);
	assert_true(mounts_changed());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse),
		cmocka_unit_test(parse_random),
		cmocka_unit_test(own),
	};

	return cmocka_run_group_tests_name("mounts", tests, NULL, NULL);
}
