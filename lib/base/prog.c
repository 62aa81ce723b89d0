/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parent that waits holds one end of a socket pair, and only the child holds the other: whatever way the child ends
 * before it is ready, the parent reads the end of the stream and takes over the exit code.
 */
#include "lib/base/prog.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define OPTIONS_MAX 16

#define ARENAS 4
#define LARGE (128 * 1024) /* bytes, glibc's own first value */

enum { OPT_HELP = 256, OPT_VERSION, OPT_OWN };

/* What the command line said about the configuration. */
struct choice {
	const char *file;
	const char **sets;
	size_t nsets;
};

static int wrong_use(const struct prog *p)
{
	fprintf(stderr, "Try '%s --help'.\n", p->name);
	return PROG_USE;
}

static void long_options(const struct prog *p, struct option *out)
{
	size_t n = 0;

	out[n++] = (struct option){"help", no_argument, NULL, OPT_HELP};
	out[n++] = (struct option){"version", no_argument, NULL, OPT_VERSION};
	for (size_t i = 0; p->options && p->options[i].name && n < OPTIONS_MAX; i++)
		out[n++] = (struct option){p->options[i].name, no_argument, NULL, OPT_OWN + (int)i};
	out[n] = (struct option){0};
}

static int read_options(struct prog *p, int argc, char **argv, struct choice *choice)
{
	struct option longs[OPTIONS_MAX + 1];
	int opt;

	long_options(p, longs);
	optind = 0; /* glibc: begin anew, and forget what an earlier call left */
	while ((opt = getopt_long(argc, argv, p->daemon ? "c:o:f" : "c:o:", longs, NULL)) != -1) {
		if (opt == 'c') {
			choice->file = optarg;
		} else if (opt == 'o') {
			choice->sets[choice->nsets++] = optarg;
		} else if (opt == 'f') {
			p->foreground = true;
		} else if (opt == OPT_HELP) {
			fputs(p->usage, stdout);
			return PROG_OK;
		} else if (opt == OPT_VERSION) {
			printf("%s %s\n", p->name, MAILDEX_VERSION);
			return PROG_OK;
		} else if (opt >= OPT_OWN) {
			*p->options[opt - OPT_OWN].seen = true;
		} else {
			return wrong_use(p);
		}
	}
	p->argc = argc - optind;
	p->argv = argv + optind;
	return -1;
}

static int configure(struct conf *c, const struct choice *choice, struct err *e)
{
	int ret = conf_load(c, choice->file ? choice->file : CONF_FILE_DEFAULT, e);

	/* All that is needed may have come with -o; what is missing then is told by conf_check(). */
	if (ret == -ENOENT && !choice->file)
		ret = 0;
	for (size_t i = 0; ret == 0 && i < choice->nsets; i++)
		ret = conf_set(c, choice->sets[i], e);
	return ret < 0 ? ret : conf_check(c, e);
}

int prog_parse(struct prog *p, int argc, char **argv)
{
	struct choice choice = {.sets = calloc((size_t)argc + 1, sizeof(*choice.sets))};
	struct err e;
	int ret;

	conf_init(&p->conf);
	p->foreground = false;
	p->ready_fd = -1;
	p->argc = 0;
	p->argv = NULL;
	if (!choice.sets) {
		fprintf(stderr, "%s: out of memory\n", p->name);
		ret = PROG_REACH;
		goto out;
	}
	ret = read_options(p, argc, argv, &choice);
	if (ret >= 0)
		goto out;
	if (configure(&p->conf, &choice, &e) < 0) {
		fprintf(stderr, "%s: %s\n", p->name, e.text);
		ret = PROG_USE;
		goto out;
	}
	log_open(p->name, p->conf.log);
out:
	free(choice.sets);
	if (ret >= 0)
		prog_release(p);
	return ret;
}

void prog_release(struct prog *p)
{
	conf_release(&p->conf);
	if (p->ready_fd >= 0)
		close(p->ready_fd);
	p->ready_fd = -1;
}

/* Never returns: the parent ends as the child says. */
static void wait_for_child(const struct prog *p, pid_t child, int fd)
{
	char ready;
	ssize_t n;
	int status;

	do
		n = read(fd, &ready, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(PROG_OK);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			_exit(PROG_REACH);
	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	fprintf(stderr, "%s: ended by signal %d (%s) before it was ready\n", p->name, WTERMSIG(status),
		strsignal(WTERMSIG(status)));
	_exit(PROG_REACH);
}

/*
 * What was freed goes back. By default each thread soon has an arena to itself, and freeing one large block lets the
 * next one as large come from an arena, where what is small and lives long keeps it from going back (mallopt(3)): an hour's
 * work then held four times the memory that was in use, and grew. tests/soak/ sees it.
 */
static void memory_stays_flat(void)
{
	mallopt(M_ARENA_MAX, ARENAS);
	mallopt(M_MMAP_THRESHOLD, LARGE);
}

int prog_daemonize(struct prog *p, struct err *e)
{
	int pair[2];
	pid_t child;
	int ret;

	memory_stays_flat();
	if (p->foreground)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, "cannot make a socket pair");
	fflush(NULL); /* else both would write what is buffered */
	child = fork();
	if (child < 0) {
		ret = err_sys(e, "cannot fork");
		close(pair[0]);
		close(pair[1]);
		return ret;
	}
	if (child > 0) {
		close(pair[1]);
		wait_for_child(p, child, pair[0]);
	}
	close(pair[0]);
	p->ready_fd = pair[1];
	return 0;
}

/*
 * Not earlier than ready: until then an interrupt from the terminal ends parent and child together, and the child's
 * errors are seen by whoever started it.
 */
static void detach(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/") < 0)
		log_warn("cannot go to /: %m");
	if (fd >= 0) {
		dup2(fd, STDIN_FILENO);
		dup2(fd, STDOUT_FILENO);
		if (fd > STDERR_FILENO)
			close(fd);
	}
	log_detach();
}

void prog_ready(struct prog *p)
{
	if (p->ready_fd >= 0) {
		detach();
		/* A parent that was killed meanwhile is no reason to end. */
		if (send(p->ready_fd, "", 1, MSG_NOSIGNAL) < 0)
			log_debug("nobody waited for the start: %m");
		close(p->ready_fd);
		p->ready_fd = -1;
	}
	sd_notify(0, "READY=1");
}
