/* SPDX-License-Identifier: GPL-2.0-or-later */
/* maildexctl: the administrator's tool. */
#include <stdio.h>
#include <string.h>

#include "tools/maildexctl/verbs.h"

static const char usage[] =
	"Usage: maildexctl [-c FILE] [-o KEY=VALUE]... VERB [--json]\n"
	"  status                              health, counts, lower calls made and saved\n"
	"  rebuild --all | MAILBOX...          list folders again into the index; --all goes on where it was stopped\n"
	"  verify --all | MAILBOX... | -       compare index and disk (-: mailboxes from standard input, one a line)\n"
	"  serve [MODE [MAILBOX...]]           show or set where listings come from: index, lower (the real "
	"directory)\n"
	"                                      or compare (the real directory; differences are counted and logged)\n"
	"MAILBOX is a path below root or mount, or relative to root; all folders below it are meant too.\n"
	"  --json        print one JSON object\n"
	"  -c FILE       configuration (default " CONF_FILE_DEFAULT ")\n"
	"  -o KEY=VALUE  set one key of it\n"
	"  --help, --version\n"
	"Exit: 0 fine, 1 the answer is no (not healthy, differences), 2 wrong use, 3 cannot reach what it needs.\n";

struct verb {
	const char *name;
	int (*run)(const struct order *o);
	bool takes_all;
};

static const struct verb verbs[] = {
	{"status", verb_status, false},
	{"rebuild", verb_rebuild, true},
	{"verify", verb_verify, true},
	{"serve", verb_serve, false},
};

int verb_wrong_use(const char *text)
{
	fprintf(stderr, "maildexctl: %s\nTry 'maildexctl --help'.\n", text);
	return PROG_USE;
}

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static int run(const struct prog *p, bool all, bool json)
{
	struct order o = {.conf = &p->conf, .all = all, .json = json};
	const struct verb *v;
	int code;

	if (p->argc == 0)
		return verb_wrong_use("no verb given: status, rebuild, verify or serve");
	v = find_verb(p->argv[0]);
	if (!v)
		return verb_wrong_use("that is no verb: status, rebuild, verify or serve");
	if (all && !v->takes_all)
		return verb_wrong_use("--all is for rebuild and verify");
	o.argc = p->argc - 1;
	o.argv = p->argv + 1;
	code = v->run(&o);
	/* A full disk or a closed pipe behind the list must not read as "no differences". */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fputs("maildexctl: cannot write to standard output\n", stderr);
		return code == PROG_OK ? PROG_REACH : code;
	}
	return code;
}

int main(int argc, char **argv)
{
	bool all = false, json = false;
	const struct prog_option options[] = {{"all", &all}, {"json", &json}, {0}};
	struct prog p = {.name = "maildexctl", .usage = usage, .options = options};
	int code = prog_parse(&p, argc, argv);

	if (code >= 0)
		return code;
	code = run(&p, all, json);
	prog_release(&p);
	return code;
}
