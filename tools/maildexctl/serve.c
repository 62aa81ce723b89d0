/* SPDX-License-Identifier: GPL-2.0-or-later */
/* maildexctl serve: where listings come from, at run time. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/maildexctl/client.h"
#include "tools/maildexctl/mailbox.h"
#include "tools/maildexctl/text.h"
#include "tools/maildexctl/verbs.h"

/* Lines "PATH MODE"; a path may hold blanks, a mode can't. */
static void print_json(struct buf *text)
{
	const char *comma = "";
	char *at = text->data, *end;
	struct buf out;

	buf_init(&out);
	buf_put(&out, "{", 1);
	for (; at && (end = strchr(at, '\n')); at = end + 1) {
		char *mode;

		*end = '\0';
		mode = strrchr(at, ' ');
		if (!mode)
			continue;
		buf_printf(&out, "%s", comma);
		text_put_json(&out, at, (size_t)(mode - at), false);
		buf_printf(&out, ": ");
		text_put_json(&out, mode + 1, (size_t)(end - mode - 1), true);
		comma = ", ";
	}
	if (buf_ok(&out))
		printf("%s}\n", out.data);
	buf_release(&out);
}

/* One order after another until all mailboxes are told; the last answer is the one that counts. */
static int converse(const struct order *o, bool set, enum serve_mode mode, struct buf *text, struct err *e)
{
	struct client c;
	int next = set ? 1 : 0;
	int rc = client_open(&c, o->conf, WIRE_FS_SUFFIX, e);

	do {
		if (rc < 0)
			break;
		buf_reset(text);
		wire_begin(&c.out, WIRE_SERVE);
		buf_put_u8(&c.out, set);
		buf_put_u8(&c.out, (uint8_t)mode);
		rc = mailbox_put(o->conf, o->argv, o->argc, &next, &c.out, e);
		if (rc == 0)
			rc = client_ask(&c, text, e);
	} while (next < o->argc);
	client_close(&c);
	return rc;
}

int verb_serve(const struct order *o)
{
	enum serve_mode mode = SERVE_INDEX;
	char path[FOLDER_PATH_MAX + 1];
	struct buf text;
	struct err e;
	int rc;

	if (o->argc > 0 && serve_mode_parse(o->argv[0], &mode) < 0)
		return verb_wrong_use("serve: the mode is index, lower or compare");
	for (int i = 1; i < o->argc; i++)
		if (mailbox_path(o->conf, o->argv[i], path, &e) < 0) {
			fprintf(stderr, "maildexctl: %s\n", e.text);
			return PROG_USE;
		}
	buf_init(&text);
	rc = converse(o, o->argc > 0, mode, &text, &e);
	if (rc < 0)
		fprintf(stderr, "maildexctl: %s\n", e.text);
	else if (o->json)
		print_json(&text);
	else if (text.len > 0)
		fputs(text.data, stdout);
	buf_release(&text);
	if (rc == -EPERM)
		return PROG_NO;
	return rc < 0 ? PROG_REACH : PROG_OK;
}
