/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * maildex-notify: a delivery agent's hook, "this message was delivered".
 *
 * The message is in the Maildir already when this runs, and an agent that sees its hook fail may deliver it again or
 * send it back. So by default (--soft) nothing that can go wrong on a host fails the delivery: maildexd away or slow, a
 * configuration that can't be read, a path that is not ours. Only a wrong command line does, which no delivery but the
 * first meets. What is lost is speed: the next opendir sees the folder's stamp.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/prog.h"
#include "tools/maildex-notify/talk.h"
#include "tools/maildex-notify/where.h"

#define SOFT_PATIENCE_MS 500
#define STRICT_PATIENCE_MS 2000

static const char usage[] =
	"Usage: maildex-notify [-c FILE] [-o KEY=VALUE]... [--soft|--strict] PATH...\n"
	"       maildex-notify [-c FILE] [-o KEY=VALUE]... [--soft|--strict] [-0] -\n"
	"Tells maildexd what was delivered. PATH is a message, a new/ or cur/, or a Maildir (\"something arrived\n"
	"here\"), below root or below mount; relative paths start from the current directory.\n"
	"  -             read paths from standard input, one a line\n"
	"  -0, --null    paths on standard input end with NUL bytes instead\n"
	"  --soft        never fail a delivery: exit 0 whatever happens, and wait for maildexd at most half a second\n"
	"                (the default)\n"
	"  --strict      exit 1 if maildexd refuses a path, 2 for a path outside of root and mount, 3 if maildexd or "
	"the\n"
	"                configuration can't be reached\n"
	"  -c FILE       configuration (default " CONF_FILE_DEFAULT ")\n"
	"  -o KEY=VALUE  set one key of it\n"
	"  --help, --version\n";

static bool soft, strict, nul;

/* What was found on the way, worst last. */
static int worst = PROG_OK;

static void found(int code)
{
	if (code > worst)
		worst = code;
}

/* Opens the conversation at its first use: without paths there is nothing to say. Returns false when it is over. */
static bool tell(struct talk *t, const struct prog *p, const char *path, size_t len)
{
	char relative[WHERE_MAX + 1];
	struct err e;
	int rc = 0;

	if (where_is(&p->conf, path, len, relative, &e) < 0) {
		log_error("%s", e.text);
		found(PROG_USE);
		return true;
	}
	if (t->fd < 0)
		rc = talk_open(t, p->conf.socket, strict ? STRICT_PATIENCE_MS : SOFT_PATIENCE_MS, strict, &e);
	if (rc == 0)
		rc = talk_notify(t, relative, &e);
	if (rc == 0)
		return true;
	if (strict)
		log_error("%s", e.text);
	else
		log_debug("%s", e.text);
	found(PROG_REACH);
	return false;
}

static bool tell_stdin(struct talk *t, const struct prog *p)
{
	char *line = NULL;
	size_t room = 0;
	bool going = true;
	ssize_t len;

	while (going && (len = getdelim(&line, &room, nul ? '\0' : '\n', stdin)) > 0) {
		if (line[len - 1] == (nul ? '\0' : '\n'))
			line[--len] = '\0';
		if (len > 0)
			going = tell(t, p, line, (size_t)len);
	}
	if (going && ferror(stdin)) {
		log_error("cannot read standard input: %s", strerror(errno));
		found(PROG_REACH);
	}
	free(line);
	return going;
}

static void tell_all(const struct prog *p)
{
	struct talk t = {.fd = -1};
	bool going = true;
	struct err e;

	for (int i = 0; going && i < p->argc; i++) {
		if (strcmp(p->argv[i], "-") == 0)
			going = tell_stdin(&t, p);
		else
			going = tell(&t, p, p->argv[i], strlen(p->argv[i]));
	}
	if (going && t.fd >= 0 && talk_finish(&t, &e) < 0) {
		if (strict)
			log_error("%s", e.text);
		else
			log_debug("%s", e.text);
		found(PROG_REACH);
	}
	if (t.refused > 0)
		found(PROG_NO);
	talk_close(&t);
}

/* getopt's long options have no short names here; -0 is what xargs, find and sort have taught everybody. */
static void spell_out_nul(int argc, char **argv)
{
	static char null_option[] = "--null";

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "-c") == 0 || strcmp(argv[i], "-o") == 0)
			i++;
		else if (strcmp(argv[i], "-0") == 0)
			argv[i] = null_option;
	}
}

int main(int argc, char **argv)
{
	static const struct prog_option options[] = {{"soft", &soft}, {"strict", &strict}, {"null", &nul}, {0}};
	struct prog p = {.name = "maildex-notify", .usage = usage, .options = options};
	int code;

	spell_out_nul(argc, argv);
	code = prog_parse(&p, argc, argv);
	/* With p.argv set the command line was understood, so it is the configuration: already told. */
	if (code == PROG_USE && p.argv)
		return strict ? PROG_USE : PROG_OK;
	if (code >= 0)
		return code;
	if (p.argc == 0 || (soft && strict)) {
		fputs(p.argc == 0 ? "maildex-notify: no path given\n"
				  : "maildex-notify: --soft or --strict, not both\n",
		      stderr);
		fputs("Try 'maildex-notify --help'.\n", stderr);
		prog_release(&p);
		return PROG_USE;
	}
	tell_all(&p);
	prog_release(&p);
	return strict ? worst : PROG_OK;
}
