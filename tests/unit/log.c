/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static int saved_stderr = -1;

static int keep_stderr(void **state)
{
	(void)state;
	unsetenv("JOURNAL_STREAM");
	saved_stderr = dup(STDERR_FILENO);
	return saved_stderr < 0;
}

static int put_back_stderr(void **state)
{
	(void)state;
	unsetenv("JOURNAL_STREAM");
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	return 0;
}

/* Puts the write end of a pipe in the place of standard error. Returns the read end. */
static int stderr_to_pipe(void)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
	close(fds[1]);
	return fds[0];
}

static void expect(int fd, const char *want)
{
	char got[32768];
	ssize_t n = read(fd, got, sizeof(got) - 1);

	got[n > 0 ? n : 0] = '\0';
	assert_string_equal(got, want);
}

static void lines_and_levels(void **state)
{
	static const struct {
		enum log_level level;
		const char *want;
	} cases[] = {
		{LOG_LEVEL_ERROR, "t: error: 1\n"},
		{LOG_LEVEL_WARNING, "t: error: 1\nt: warning: 2\n"},
		{LOG_LEVEL_INFO, "t: error: 1\nt: warning: 2\nt: info: 3\n"},
		{LOG_LEVEL_DEBUG, "t: error: 1\nt: warning: 2\nt: info: 3\nt: debug: 4\n"},
	};
	int fd = stderr_to_pipe();

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		log_open("t", cases[i].level);
		log_error("%d", 1);
		log_warn("%d", 2);
		log_info("%d", 3);
		log_debug("%d", 4);
		expect(fd, cases[i].want);
	}
	close(fd);
}

static void no_forged_lines(void **state)
{
	int fd = stderr_to_pipe();

	(void)state;
	log_open("t", LOG_LEVEL_INFO);
	log_info("%s", "a\nt: error: b\r\x1b[31m\x7f\t\xc3\xa9\xff");
	expect(fd, "t: info: a\\x0at: error: b\\x0d\\x1b[31m\\x7f\\x09\xc3\xa9\xff\n");
	close(fd);
}

static void too_long(void **state)
{
	int fd = stderr_to_pipe();
	char text[3 * 4096], want[4 * 4096 + 32];
	char *end;

	(void)state;
	memset(text, '\n', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	end = stpcpy(want, "t: info: ");
	for (int i = 0; i < 4095; i++)
		end = stpcpy(end, "\\x0a");
	strcpy(end, "\n");
	log_open("t", LOG_LEVEL_INFO);
	log_info("%s", text);
	expect(fd, want);
	close(fd);
}

static void errno_is_kept(void **state)
{
	int fd = stderr_to_pipe();

	(void)state;
	log_open("t", LOG_LEVEL_INFO);
	close(fd);
	/* No reader any more: the write fails, and nobody hears of it. */
	assert_ptr_not_equal(signal(SIGPIPE, SIG_IGN), SIG_ERR);
	errno = ENOENT;
	log_info("lost");
	assert_int_equal(errno, ENOENT);
	fd = stderr_to_pipe();
	errno = ENOENT;
	log_info("%m");
	expect(fd, "t: info: No such file or directory\n");
	close(fd);
}

static void journal(void **state)
{
	int fd = stderr_to_pipe();
	char stream[64];
	struct stat st;

	(void)state;
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_open("t", LOG_LEVEL_DEBUG);
	log_error("1");
	log_warn("2");
	log_info("3");
	log_debug("4");
	expect(fd, "<3>t: 1\n<4>t: 2\n<6>t: 3\n<7>t: 4\n");
	log_detach();
	log_info("still here");
	expect(fd, "<6>t: still here\n");
	/* Inherited, but standard error is another stream now. */
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	log_open("t", LOG_LEVEL_DEBUG);
	log_info("3");
	expect(fd, "t: info: 3\n");
	unsetenv("JOURNAL_STREAM");
	close(fd);
}

static void detach_keeps_a_file(void **state)
{
	int fd = memfd_create("log", MFD_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	dup2(fd, STDERR_FILENO);
	log_open("t", LOG_LEVEL_INFO);
	log_detach();
	log_info("kept");
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	expect(fd, "t: info: kept\n");
	close(fd);
}

/* A /dev of our own, so that /dev/log is ours. Returns the socket, or -1 where this may not be done. */
static int own_syslog(void)
{
	const struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", "/dev", "tmpfs", 0, NULL) < 0)
		return -1;
	if (mknod("/dev/null", S_IFCHR | 0666, (1 << 8) | 3) < 0)
		return -1;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ? -1 : fd;
}

/* In a child: exit code 0 as it should be, 77 where it cannot be tried, else what went wrong. */
static int detached_child(void)
{
	char got[256], rest[256] = "";
	int from = stderr_to_pipe();
	int fd = own_syslog();
	ssize_t n;
	int pri;

	if (fd < 0)
		return 77;
	log_open("t", LOG_LEVEL_INFO);
	log_detach();
	if (read(from, got, sizeof(got)) != 0)
		return 2; /* the pipe has a writer still */
	log_warn("a\nb");
	n = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT);
	if (n < 0)
		return 3;
	got[n] = '\0';
	if (sscanf(got, "<%d>", &pri) != 1 || pri != (2 << 3 | 4)) /* mail, warning */
		return 4;
	snprintf(rest, sizeof(rest), " t[%d]: a\\x0ab", getpid());
	return strstr(got, rest) ? 0 : 5;
}

static void detach_from_a_pipe(void **state)
{
	pid_t child = fork();
	int status;

	(void)state;
	assert_true(child >= 0);
	if (!child)
		_exit(detached_child());
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, keep_stderr, put_back_stderr)
	const struct CMUnitTest tests[] = {
		TEST(lines_and_levels), TEST(no_forged_lines),     TEST(too_long),           TEST(errno_is_kept),
		TEST(journal),          TEST(detach_keeps_a_file), TEST(detach_from_a_pipe),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
