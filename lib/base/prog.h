/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all four programs share: the command line of the contract, and for the daemons start, readiness and end.
 *
 * Flow: prog_parse() first; daemons call prog_daemonize() before they start threads and prog_ready() once they answer.
 * Shapes: exit codes as in the contract: PROG_OK, PROG_NO, PROG_USE, PROG_REACH.
 * Threads: before any are started, except prog_ready().
 * Errors: prog_parse() prints what is wrong to standard error itself and says which code to exit with.
 */
#ifndef MAILDEX_BASE_PROG_H
#define MAILDEX_BASE_PROG_H

#include <stdbool.h>

#include "lib/base/conf.h"

enum { PROG_OK = 0, PROG_NO = 1, PROG_USE = 2, PROG_REACH = 3 };

struct prog_option {
	const char *name; /* long option without dashes */
	bool *seen;
};

struct prog {
	const char *name;
	const char *usage;                 /* the whole text of --help */
	const struct prog_option *options; /* further long options (flags), ended by a NULL name; or NULL */
	bool daemon;                       /* takes -f */
	/* filled by prog_parse() */
	struct conf conf;
	bool foreground;
	int argc; /* what is left after the options */
	char **argv;
	int ready_fd; /* the waiting parent's pipe, or -1 */
};

/*
 * Parses -c FILE (the last one counts), -o key=value (repeatable, over the file), -f, --help, --version and the
 * program's own flags; options and arguments may be mixed, "--" ends options, "-" is an argument. Loads and checks the
 * configuration, opens the log. The default file need not exist; one that -c names must. Returns -1 to go on, else the
 * code to exit with now.
 */
int prog_parse(struct prog *p, int argc, char **argv);
void prog_release(struct prog *p);

/*
 * Unless foreground: forks; the parent waits and exits with the code that the child reports by prog_ready() or by
 * ending (its error text goes to the shared standard error). Returns 0 in the child or negative errno.
 */
int prog_daemonize(struct prog *p, struct err *e);
/*
 * Says that the daemon answers: to the waiting parent, and to systemd (sd_notify READY=1). Unless foreground, detaches
 * first: session, working directory (relative paths end here), standard streams (log_detach()).
 */
void prog_ready(struct prog *p);

#endif
