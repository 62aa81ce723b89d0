/* SPDX-License-Identifier: GPL-2.0-or-later */
/* maildexctl status: is all well, and if not, what to do. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/maildexctl/client.h"
#include "tools/maildexctl/facts.h"
#include "tools/maildexctl/text.h"
#include "tools/maildexctl/verbs.h"

struct program {
	const char *name;
	const char *suffix;
	const char *without; /* what its absence means */
};

static const struct program programs[] = {
	{"maildexd", "", "listings come from the lower tree wherever something changed"},
	{"maildexfs", WIRE_FS_SUFFIX, "no overlay is mounted, or it hangs"},
};
#define PROGRAMS (sizeof(programs) / sizeof(programs[0]))

static int ask(const struct order *o, const struct program *p, struct facts *f)
{
	struct client c;
	struct buf text;
	struct err e;
	int rc = client_open(&c, o->conf, p->suffix, &e);

	buf_init(&text);
	if (rc == 0) {
		wire_begin(&c.out, WIRE_STATUS);
		rc = client_ask(&c, &text, &e);
	}
	if (rc == 0)
		rc = facts_add(f, p->name, text.data ? text.data : "");
	buf_release(&text);
	client_close(&c);
	return rc;
}

static void print_human(const struct order *o, const struct facts *f, const bool *there, const struct buf *reason)
{
	struct buf out;

	buf_init(&out);
	buf_printf(&out, "%s\n", reason->len > 0 ? reason->data : "healthy");
	for (size_t i = 0; i < PROGRAMS; i++) {
		buf_printf(&out, "\n%s at %s%s%s\n", programs[i].name, o->conf->socket, programs[i].suffix,
			   there[i] ? "" : ": no answer");
		facts_print(f, programs[i].name, &out);
	}
	if (buf_ok(&out))
		fputs(out.data, stdout);
	buf_release(&out);
}

static void print_json(const struct facts *f, const bool *there, const struct buf *reason)
{
	struct buf out;

	buf_init(&out);
	buf_printf(&out, "{\"healthy\": %s, \"reason\": ", reason->len > 0 ? "false" : "true");
	text_put_json(&out, reason->data ? reason->data : "", reason->len, true);
	for (size_t i = 0; i < PROGRAMS; i++)
		buf_printf(&out, ", \"%s.answers\": %s", programs[i].name, there[i] ? "true" : "false");
	facts_json(f, &out);
	if (buf_ok(&out))
		printf("%s}\n", out.data);
	buf_release(&out);
}

int verb_status(const struct order *o)
{
	bool there[PROGRAMS] = {false};
	struct facts f;
	struct buf reason;
	size_t answers = 0;
	int code;

	if (o->argc > 0)
		return verb_wrong_use("status takes no arguments");
	facts_init(&f);
	buf_init(&reason);
	for (size_t i = 0; i < PROGRAMS; i++) {
		int rc = ask(o, &programs[i], &f);

		there[i] = rc == 0;
		answers += there[i];
		if (rc < 0)
			buf_printf(&reason, "%s%s does not answer at %s%s (%s): %s", reason.len ? "; " : "",
				   programs[i].name, o->conf->socket, programs[i].suffix, strerror(-rc),
				   programs[i].without);
	}
	facts_healthy(&f, &reason);
	if (o->json)
		print_json(&f, there, &reason);
	else
		print_human(o, &f, there, &reason);
	code = reason.len > 0 ? PROG_NO : PROG_OK;
	if (answers == 0)
		code = PROG_REACH;
	facts_release(&f);
	buf_release(&reason);
	return code;
}
