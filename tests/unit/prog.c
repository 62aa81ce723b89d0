/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each case runs in a child with its own standard streams, as a program would.
 */
#include "lib/base/prog.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define N(a) (sizeof(a) / sizeof(*(a)))
#define ARGS_MAX 12
#define GO_ON 100 /* exit code of a child whose prog_parse() said to go on */

static bool json, all;
static const struct prog_option options[] = {{"json", &json}, {"all", &all}, {NULL, NULL}};
static char out[4096], errors[4096];

static struct prog a_prog(void)
{
	return (struct prog){.name = "prog", .usage = "usage: prog\n", .options = options, .daemon = true};
}

static void read_all(int fd, char *text, size_t size)
{
	ssize_t n = pread(fd, text, size - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	close(fd);
}

/* Runs fn in a child; its output goes to out and errors. Returns its exit code, or -1 if a signal ended it. */
static int run(int (*fn)(void *arg), void *arg)
{
	int fd_out = memfd_create("out", MFD_CLOEXEC), fd_err = memfd_create("err", MFD_CLOEXEC);
	pid_t child = fork();
	int status, code;

	assert_true(child >= 0);
	if (!child) {
		dup2(fd_out, STDOUT_FILENO);
		dup2(fd_err, STDERR_FILENO);
		code = fn(arg);
		fflush(NULL);
		_exit(code);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	read_all(fd_out, out, sizeof(out));
	read_all(fd_err, errors, sizeof(errors));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct parse_case {
	const char *args[ARGS_MAX];
	bool no_daemon;
	int code;
	const char *out, *errors;
};

/* What came of it, in one line. */
static int parse(void *arg)
{
	const struct parse_case *c = arg;
	struct prog p = a_prog();
	char *argv[ARGS_MAX + 2] = {(char *)"prog"};
	int argc = 1, ret;

	for (; c->args[argc - 1]; argc++)
		argv[argc] = (char *)c->args[argc - 1];
	p.daemon = !c->no_daemon;
	ret = prog_parse(&p, argc, argv);
	if (ret >= 0)
		return ret;
	printf("root=%s scans=%u%s%s%s", p.conf.root, p.conf.scans, p.foreground ? " -f" : "", json ? " json" : "",
	       all ? " all" : "");
	for (int i = 0; i < p.argc; i++)
		printf(" <%s>", p.argv[i]);
	log_info("opened");
	prog_release(&p);
	prog_release(&p);
	return GO_ON;
}

static void check_cases(struct parse_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(run(parse, &cases[i]), cases[i].code);
		assert_string_equal(out, cases[i].out);
		assert_string_equal(errors, cases[i].errors);
	}
}

#define HINT "Try 'prog --help'.\n"
#define OPENED "prog: info: opened\n"

static void command_lines(void **state)
{
	static struct parse_case cases[] = {
		{{"--help"}, false, PROG_OK, "usage: prog\n", ""},
		{{"x", "--help", "--wrong"}, false, PROG_OK, "usage: prog\n", ""},
		{{"--version"}, false, PROG_OK, "prog " MAILDEX_VERSION "\n", ""},
		{{"--wrong"}, false, PROG_USE, "", "prog: unrecognized option '--wrong'\n" HINT},
		{{"-x"}, false, PROG_USE, "", "prog: invalid option -- 'x'\n" HINT},
		{{"-c"}, false, PROG_USE, "", "prog: option requires an argument -- 'c'\n" HINT},
		{{"--json=1"}, false, PROG_USE, "", "prog: option '--json' doesn't allow an argument\n" HINT},
		{{"-f"}, true, PROG_USE, "", "prog: invalid option -- 'f'\n" HINT},
		{{"-c", "/dev/null", "-o", "root=/r"}, false, GO_ON, "root=/r scans=8", OPENED},
		{{"-c/dev/null", "-oroot=/r", "-f"}, false, GO_ON, "root=/r scans=8 -f", OPENED},
		/* Mixed, a lone "-", and the end of options. */
		{{"status", "-c", "/dev/null", "--json", "a", "-o", "root=/r", "-", "--", "-o", "--all"},
		 false,
		 GO_ON,
		 "root=/r scans=8 json <status> <a> <-> <-o> <--all>",
		 OPENED},
		{{"-c", "/dev/null", "-o", "root=/r", "-o", "scans=1", "-o", "scans=2"},
		 false,
		 GO_ON,
		 "root=/r scans=2",
		 OPENED},
		{{"-c", "/dev/null", "-o", "root=/r", "-o", "log=warning"}, false, GO_ON, "root=/r scans=8", ""},
		{{"-c", "/dev/null", "-o", "scans=x"},
		 false,
		 PROG_USE,
		 "",
		 "prog: -o scans=x: scans: 'x' is not a whole number from 1 to 1024\n"},
		{{"-c", "/dev/null"},
		 false,
		 PROG_USE,
		 "",
		 "prog: root is not set: name the lower tree in the configuration or with -o root=PATH\n"},
		{{"-c", "/nowhere/m.conf", "-o", "root=/r"},
		 false,
		 PROG_USE,
		 "",
		 "prog: cannot open the configuration /nowhere/m.conf: No such file or directory\n"},
	};

	(void)state;
	check_cases(cases, N(cases));
}

/* Without -c the default file is not missed if -o gives what is needed. */
static void no_default_file(void **state)
{
	static struct parse_case cases[] = {
		{{"-o", "root=/r"}, false, GO_ON, "root=/r scans=8", OPENED},
		{{NULL},
		 false,
		 PROG_USE,
		 "",
		 "prog: root is not set: name the lower tree in the configuration or with -o root=PATH\n"},
	};

	(void)state;
	if (access(CONF_FILE_DEFAULT, F_OK) == 0)
		skip();
	check_cases(cases, N(cases));
}

/* -o is over the file, wherever it stands. */
static void order(void **state)
{
	static const char text[] = "[maildex]\nroot = /file\nscans = 3\n";
	char path[] = "/tmp/maildex-prog-XXXXXX";
	struct parse_case cases[] = {
		{{"-c", path}, false, GO_ON, "root=/file scans=3", OPENED},
		{{"-o", "scans=4", "-c", path}, false, GO_ON, "root=/file scans=4", OPENED},
		{{"-c", "/nowhere", "-c", path}, false, GO_ON, "root=/file scans=3", OPENED},
	};
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	check_cases(cases, N(cases));
	unlink(path);
}

/* The daemon's side of a start; the parent's never comes back from prog_daemonize(). */
struct start {
	bool foreground;
	int (*daemon)(struct prog *p, const struct start *s);
	int report; /* pipe to the test */
	int until;  /* the daemon lives until this pipe is closed */
};

static int start(void *arg)
{
	const struct start *s = arg;
	struct prog p = a_prog();
	struct err e;
	int code;

	p.conf = (struct conf){0};
	p.foreground = s->foreground;
	p.ready_fd = -1;
	printf("once\n"); /* buffered: it must not come twice */
	if (prog_daemonize(&p, &e) < 0)
		return 50;
	code = s->daemon(&p, s);
	prog_release(&p);
	return code;
}

static int fails(struct prog *p, const struct start *s)
{
	(void)p;
	(void)s;
	fprintf(stderr, "root is not there\n");
	return PROG_REACH;
}

static int is_killed(struct prog *p, const struct start *s)
{
	(void)p;
	(void)s;
	setrlimit(RLIMIT_CORE, &(struct rlimit){0});
	raise(SIGKILL);
	return 0;
}

/* Says where it stands after it became ready, and lives on. */
static int serves(struct prog *p, const struct start *s)
{
	char cwd[256] = "", in[64] = "", to[64] = "", c;

	fprintf(stderr, "nearly\n");
	prog_ready(p);
	prog_ready(p); /* once more does no harm */
	if (!getcwd(cwd, sizeof(cwd)) || readlink("/proc/self/fd/0", in, sizeof(in) - 1) < 0 ||
	    readlink("/proc/self/fd/1", to, sizeof(to) - 1) < 0)
		return 51;
	dprintf(s->report, "%s %s %s %s", getsid(0) == getpid() ? "own" : "same", cwd, in, to);
	close(s->report);
	return read(s->until, &c, 1) == 0 ? 0 : 52;
}

static void start_fails(void **state)
{
	struct start s = {.daemon = fails};

	(void)state;
	assert_int_equal(run(start, &s), PROG_REACH);
	assert_string_equal(errors, "root is not there\n");
	assert_string_equal(out, "once\n");
}

static void start_is_killed(void **state)
{
	struct start s = {.daemon = is_killed};

	(void)state;
	assert_int_equal(run(start, &s), PROG_REACH);
	assert_string_equal(errors, "prog: ended by signal 9 (Killed) before it was ready\n");
}

/* systemd's side of sd_notify(3). */
static int notify_socket(void)
{
	static int count; /* the daemon of the test before may hold its socket a moment longer */
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char name[64];
	int len = snprintf(name, sizeof(name), "@maildex-test-prog-%d-%d", getpid(), count++);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path + 1, name + 1, (size_t)len - 1);
	assert_int_equal(bind(fd, (const struct sockaddr *)&addr,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len)),
			 0);
	setenv("NOTIFY_SOCKET", name, 1);
	return fd;
}

struct daemon {
	int notify, report[2], until[2];
	struct start start;
};

static void daemon_prepare(struct daemon *d, bool foreground)
{
	d->notify = notify_socket();
	assert_int_equal(pipe2(d->report, O_CLOEXEC), 0);
	assert_int_equal(pipe2(d->until, O_CLOEXEC), 0);
	d->start = (struct start){
		.foreground = foreground, .daemon = serves, .report = d->report[1], .until = d->until[0]};
}

static void daemon_release(struct daemon *d)
{
	unsetenv("NOTIFY_SOCKET");
	close(d->notify);
	close(d->report[0]);
	close(d->until[0]);
}

static int start_without_test_ends(void *arg)
{
	struct daemon *d = arg;

	close(d->until[1]);
	close(d->report[0]);
	return start(&d->start);
}

static void start_is_ready(void **state)
{
	struct daemon d;
	char got[512];
	ssize_t n;

	(void)state;
	daemon_prepare(&d, false);
	/* The parent comes back while the daemon lives: it lives until `until` is closed below. */
	assert_int_equal(run(start_without_test_ends, &d), PROG_OK);
	assert_string_equal(out, "once\n");
	assert_string_equal(errors, "nearly\n");
	close(d.report[1]);
	n = read(d.report[0], got, sizeof(got) - 1);
	assert_true(n > 0);
	got[n] = '\0';
	assert_string_equal(got, "own / /dev/null /dev/null");
	n = recv(d.notify, got, sizeof(got), 0);
	assert_int_equal(n, 7);
	assert_memory_equal(got, "READY=1", 7);
	close(d.until[1]);
	daemon_release(&d);
}

static void foreground_stays(void **state)
{
	struct daemon d;
	char cwd[256], got[512];
	ssize_t n;

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	daemon_prepare(&d, true);
	close(d.until[1]);
	d.until[1] = open("/dev/null", O_RDONLY | O_CLOEXEC); /* nothing to wait for */
	assert_int_equal(run(start_without_test_ends, &d), 0);
	close(d.report[1]);
	n = read(d.report[0], got, sizeof(got) - 1);
	assert_true(n > 0);
	got[n] = '\0';
	assert_memory_equal(got, "same ", 5);
	assert_memory_equal(got + 5, cwd, strlen(cwd));
	n = recv(d.notify, got, sizeof(got), MSG_DONTWAIT);
	assert_int_equal(n, 7);
	assert_memory_equal(got, "READY=1", 7);
	close(d.until[1]);
	daemon_release(&d);
}

/* A parent that was killed while it waited does not take the daemon with it. */
static int serves_after_its_parent(struct prog *p, const struct start *s)
{
	struct pollfd hung_up = {.fd = p->ready_fd, .events = POLLIN};

	kill(getppid(), SIGKILL);
	poll(&hung_up, 1, -1);
	return serves(p, s);
}

static void parent_is_killed(void **state)
{
	struct daemon d;
	char got[512];

	(void)state;
	daemon_prepare(&d, false);
	d.start.daemon = serves_after_its_parent;
	assert_int_equal(run(start_without_test_ends, &d), -1);
	close(d.report[1]);
	assert_true(read(d.report[0], got, sizeof(got)) > 0);
	assert_memory_equal(got, "own ", 4);
	close(d.until[1]);
	daemon_release(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(command_lines),
		cmocka_unit_test(no_default_file),
		cmocka_unit_test(order),
		cmocka_unit_test(start_fails),
		cmocka_unit_test(start_is_killed),
		cmocka_unit_test(start_is_ready),
		cmocka_unit_test(foreground_stays),
		cmocka_unit_test(parent_is_killed),
	};

	unsetenv("JOURNAL_STREAM");
	setenv("LC_ALL", "C", 1);
	return cmocka_run_group_tests_name("prog", tests, NULL, NULL);
}
