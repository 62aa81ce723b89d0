/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * maildexd: keeps this host's index of the Maildirs below `root`.
 */
#include <errno.h>

#include "indexer/daemon.h"
#include "indexer/start.h"
#include "lib/base/log.h"

static const char usage[] =
	"Usage: maildexd [-c FILE] [-o KEY=VALUE]... [-f]\n"
	"Keeps the index that maildexfs answers listings of Maildirs from.\n"
	"\n"
	"  -c FILE       configuration (default: " CONF_FILE_DEFAULT ")\n"
	"  -o KEY=VALUE  sets a key over the file\n"
	"  -f            stay in the foreground\n"
	"  --help, --version\n"
	"\n"
	"Exit codes: 0 ended as asked, 2 wrong use or configuration, 3 cannot reach what it needs.\n";

static int run(struct prog *p, struct err *e)
{
	struct lower lower;
	struct start start;
	int r;

	if (prog_daemonize(p, e) < 0)
		return PROG_REACH;
	r = lower_open(&lower, &p->conf, e);
	if (r < 0)
		return r == -ENOTDIR ? PROG_USE : PROG_REACH;
	r = start_prepare(&start, &p->conf, e);
	if (r < 0) {
		r = daemon_run(p, &lower, start.listen_fd, e);
		start_release(&start);
	}
	lower_close(&lower);
	return r;
}

int main(int argc, char **argv)
{
	struct prog p = {.name = "maildexd", .usage = usage, .daemon = true};
	struct err e = {""};
	int r = prog_parse(&p, argc, argv);

	if (r >= 0)
		return r;
	if (p.argc > 0) {
		log_error("%s: maildexd takes no arguments; see --help", p.argv[0]);
		prog_release(&p);
		return PROG_USE;
	}
	r = run(&p, &e);
	if (r != PROG_OK)
		log_error("%s", e.text);
	prog_release(&p);
	return r;
}
