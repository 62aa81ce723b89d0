/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/sock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/maildex-sock-XXXXXX";
static char path[64];
static char big[SOCK_MSG_MAX + 1], got[SOCK_MSG_MAX];

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/sock", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	return rmdir(folder);
}

static int remove_socket(void **state)
{
	(void)state;
	return unlink(path) < 0 && errno != ENOENT;
}

static void make_pair(int fd[2])
{
	struct err e;
	int listener = sock_listen(path, 0600, &e);

	assert_true(listener >= 0);
	fd[0] = sock_connect(path, false, &e);
	assert_true(fd[0] >= 0);
	fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(fd[1] >= 0);
	close(listener);
}

static void messages(void **state)
{
	int fd[2], passed;

	(void)state;
	make_pair(fd);
	memset(big, 'b', sizeof(big));
	assert_int_equal(sock_send(fd[0], "one", 3, -1), 0);
	assert_int_equal(sock_send(fd[0], big, SOCK_MSG_MAX, -1), 0);
	assert_int_equal(sock_recv(fd[1], got, &passed), 3);
	assert_memory_equal(got, "one", 3);
	assert_int_equal(passed, -1);
	assert_int_equal(sock_recv(fd[1], got, &passed), SOCK_MSG_MAX);
	assert_memory_equal(got, big, SOCK_MSG_MAX);
	assert_int_equal(sock_recv(fd[1], got, &passed), -EAGAIN);
	assert_int_equal(sock_send(fd[0], big, SOCK_MSG_MAX + 1, -1), -EMSGSIZE);
	assert_int_equal(sock_send(fd[0], big, 0, -1), -EINVAL);
	/* A peer that keeps no rule. */
	assert_int_equal(send(fd[0], big, SOCK_MSG_MAX + 1, 0), SOCK_MSG_MAX + 1);
	assert_int_equal(sock_recv(fd[1], got, &passed), -EMSGSIZE);
	close(fd[0]);
	assert_int_equal(sock_recv(fd[1], got, &passed), 0);
	/* No SIGPIPE: it would end this test. */
	assert_int_equal(sock_send(fd[1], "x", 1, -1), -EPIPE);
	close(fd[1]);
}

static void full_queue(void **state)
{
	int fd[2], passed, sent = 0, ret;

	(void)state;
	make_pair(fd);
	while ((ret = sock_send(fd[1], big, SOCK_MSG_MAX, -1)) == 0)
		sent++;
	assert_int_equal(ret, -EAGAIN);
	assert_true(sent > 0);
	for (; sent > 0; sent--)
		assert_int_equal(sock_recv(fd[0], got, &passed), SOCK_MSG_MAX);
	close(fd[0]);
	close(fd[1]);
}

static int open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void descriptors(void **state)
{
	int fd[2], ends[2], passed;
	char c;

	(void)state;
	make_pair(fd);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(sock_send(fd[0], "with", 4, ends[1]), 0);
	close(ends[1]);
	assert_int_equal(sock_recv(fd[1], got, &passed), 4);
	assert_true(passed >= 0);
	assert_int_equal(fcntl(passed, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(write(passed, "p", 1), 1);
	assert_int_equal(read(ends[0], &c, 1), 1);
	close(passed);
	assert_int_equal(sock_send(fd[0], "bad", 3, passed), -EBADF);
	close(ends[0]);
	close(fd[0]);
	close(fd[1]);
}

/* Two descriptors, or one with a message that is too long: refused, and none is left open here. */
static void descriptors_do_not_leak(void **state)
{
	static const struct {
		size_t len;
		int fds;
	} cases[] = {{4, 2}, {SOCK_MSG_MAX + 1, 1}};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	int fd[2], both[2] = {0, 1}, passed, before;

	(void)state;
	make_pair(fd);
	before = open_descriptors();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t size = (size_t)cases[i].fds * sizeof(int);
		struct iovec iov = {big, cases[i].len};
		struct msghdr msg = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(size)};

		memset(&control, 0, sizeof(control));
		*CMSG_FIRSTHDR(&msg) =
			(struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(size)};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), both, size);
		assert_int_equal(sendmsg(fd[0], &msg, 0), cases[i].len);
		assert_int_equal(sock_recv(fd[1], got, &passed), -EMSGSIZE);
		assert_int_equal(passed, -1);
		assert_int_equal(open_descriptors(), before);
	}
	close(fd[0]);
	close(fd[1]);
}

static void peer(void **state)
{
	struct sock_peer p;
	int fd[2];

	(void)state;
	make_pair(fd);
	assert_int_equal(sock_peer(fd[1], &p), 0);
	assert_int_equal(p.pid, getpid());
	assert_int_equal(p.uid, geteuid());
	assert_int_equal(p.gid, getegid());
	close(fd[0]);
	close(fd[1]);
	assert_int_equal(sock_peer(fd[1], &p), -EBADF);
}

static void mode_and_flags(void **state)
{
	static const mode_t modes[] = {0600, 0660, 0666};
	mode_t old = umask(077);
	struct stat st;
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		int fd = sock_listen(path, modes[i], &e);

		assert_true(fd >= 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 07777, modes[i]);
		assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
		assert_int_equal(accept4(fd, NULL, NULL, SOCK_CLOEXEC), -1);
		assert_int_equal(errno, EAGAIN);
		close(fd); /* the socket stays behind: the next round replaces it */
	}
	umask(old);
}

static void in_use(void **state)
{
	char want[256];
	struct err e;
	int fd = sock_listen(path, 0600, &e), client;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(sock_listen(path, 0600, &e), -EADDRINUSE);
	snprintf(want, sizeof(want), "%s is in use: another process answers there", path);
	assert_string_equal(e.text, want);
	client = sock_connect(path, true, &e);
	assert_true(client >= 0);
	assert_int_equal(fcntl(client, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	close(client);
	close(fd);
	assert_int_equal(sock_connect(path, false, &e), -ECONNREFUSED);
	snprintf(want, sizeof(want), "cannot connect to %s: Connection refused", path);
	assert_string_equal(e.text, want);
}

static void what_is_no_socket_stays(void **state)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;
	char want[256];
	struct err e;

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(sock_listen(path, 0600, &e), -EEXIST);
	snprintf(want, sizeof(want), "%s is there and is no socket: move it away", path);
	assert_string_equal(e.text, want);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
}

static void bad_paths(void **state)
{
	char long_path[200];
	struct err e;

	(void)state;
	memset(long_path, '/', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_int_equal(sock_listen(long_path, 0600, &e), -ENAMETOOLONG);
	assert_non_null(strstr(e.text, "must have 1 to 107 bytes"));
	assert_int_equal(sock_connect(long_path, false, &e), -ENAMETOOLONG);
	assert_int_equal(sock_connect("", false, &e), -ENAMETOOLONG);
	assert_int_equal(sock_listen("/nowhere/at/all", 0600, &e), -ENOENT);
	assert_int_equal(sock_connect("/nowhere/at/all", false, &e), -ENOENT);
	assert_string_equal(e.text, "cannot connect to /nowhere/at/all: No such file or directory");
}

#define RACERS 4

static pthread_barrier_t start;

static void *racer(void *arg)
{
	int *result = arg;

	pthread_barrier_wait(&start);
	*result = sock_listen(path, 0600, NULL);
	return NULL;
}

/* Many start over one left-over socket: exactly one gets it, and that one is reached under the name. */
static void starters_race(void **state)
{
	pthread_t threads[RACERS];
	int results[RACERS];
	struct err e;

	(void)state;
	assert_int_equal(pthread_barrier_init(&start, NULL, RACERS), 0);
	for (int round = 0; round < 200; round++) {
		int winner = -1, winners = 0, client, accepted;

		for (int i = 0; i < RACERS; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, racer, &results[i]), 0);
		for (int i = 0; i < RACERS; i++)
			pthread_join(threads[i], NULL);
		for (int i = 0; i < RACERS; i++)
			if (results[i] >= 0) {
				winner = results[i];
				winners++;
			} else {
				assert_int_equal(results[i], -EADDRINUSE);
			}
		assert_int_equal(winners, 1);
		/* The losers' questions wait in the queue before the client. */
		client = sock_connect(path, false, &e);
		assert_true(client >= 0);
		assert_int_equal(sock_send(client, "!", 1, -1), 0);
		do {
			int passed;

			accepted = accept4(winner, NULL, NULL, SOCK_CLOEXEC);
			assert_true(accepted >= 0);
			if (sock_recv(accepted, got, &passed) == 1)
				winners = 0;
			close(accepted);
		} while (winners);
		close(client);
		close(winner);
	}
	pthread_barrier_destroy(&start);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, remove_socket)
	const struct CMUnitTest tests[] = {
		TEST(messages),  TEST(full_queue),     TEST(descriptors), TEST(descriptors_do_not_leak),
		TEST(peer),      TEST(mode_and_flags), TEST(in_use),      TEST(what_is_no_socket_stays),
		TEST(bad_paths), TEST(starters_race),
	};

	return cmocka_run_group_tests_name("sock", tests, make_folder, remove_folder);
}
