/* SPDX-License-Identifier: GPL-2.0-or-later */
/* maildexctl rebuild: maildexd lists folders again; we show how far it is. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tools/maildexctl/client.h"
#include "tools/maildexctl/mailbox.h"
#include "tools/maildexctl/progress.h"
#include "tools/maildexctl/text.h"
#include "tools/maildexctl/verbs.h"

#define PAINT_BAR_NS (100 * NS_PER_MS)
#define PAINT_LINE_NS NS_PER_S

struct show {
	bool quiet; /* --json */
	bool terminal;
	bool painted; /* a bar stands on the current line */
	int64_t start_ns;
	int64_t shown_ns;
	struct progress base; /* of earlier orders, where the mailboxes did not fit one message */
	struct progress now;
};

static const char *goodbye;

/* Closing the connection is what stops maildexd; the process's end does that. */
static void on_interrupt(int sig)
{
	ssize_t n = write(STDERR_FILENO, goodbye, strlen(goodbye));

	(void)n;
	raise(sig); /* SA_RESETHAND: the second time it ends us, and the shell learns why */
}

static void catch_interrupt(bool all)
{
	struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND | SA_NODEFER};

	goodbye = all ? "\nmaildexctl: stopped; 'maildexctl rebuild --all' will resume\n"
		      : "\nmaildexctl: stopped; what is done stays done ('maildexctl rebuild --all' would resume)\n";
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

static struct progress total(const struct show *s)
{
	struct progress t = s->now;

	t.done += s->base.done;
	t.known += s->base.known;
	t.messages += s->base.messages;
	t.failed += s->base.failed;
	t.skipped += s->base.skipped;
	return t;
}

static unsigned columns(void)
{
	struct winsize w;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col - 1 : 79;
}

static void wipe(struct show *s)
{
	if (s->painted)
		fputs("\r\033[K", stdout);
	s->painted = false;
}

static void paint(struct show *s)
{
	struct progress t = total(s);
	int64_t now = clock_mono_ns();
	struct buf b;

	if (s->quiet || now - s->shown_ns < (s->terminal ? PAINT_BAR_NS : PAINT_LINE_NS))
		return;
	s->shown_ns = now;
	wipe(s);
	buf_init(&b);
	if (s->terminal)
		progress_bar(&t, now - s->start_ns, columns(), &b);
	else
		progress_line(&t, now - s->start_ns, &b);
	if (buf_ok(&b))
		printf("%s%s", b.data, s->terminal ? "" : "\n");
	s->painted = s->terminal;
	fflush(stdout);
	buf_release(&b);
}

static void print_failed(struct show *s, struct cursor *cur)
{
	const char *folder, *text;
	size_t folder_len, text_len;
	struct buf b;

	folder = cursor_str(cur, FOLDER_PATH_MAX, &folder_len);
	text = cursor_str(cur, SOCK_MSG_MAX, &text_len);
	buf_init(&b);
	text_put_shown(&b, folder, folder_len);
	buf_printf(&b, ": ");
	text_put_shown(&b, text, text_len);
	wipe(s);
	fflush(stdout);
	if (buf_ok(&b))
		fprintf(stderr, "maildexctl: %s\n", b.data);
	buf_release(&b);
}

static void read_progress(struct cursor *cur, struct progress *p)
{
	p->done = cursor_u64(cur);
	p->known = cursor_u64(cur);
	p->complete = cursor_u8(cur);
	p->messages = cursor_u64(cur);
	p->failed = cursor_u64(cur);
	p->skipped = cursor_u64(cur);
}

/* Follows one order to its END. Returns the code that came with it, or negative errno. */
static int follow(struct client *c, struct show *s, struct err *e)
{
	enum wire_type type;
	struct cursor cur;
	const char *text;
	size_t len;
	int rc, code = 0;

	while ((rc = client_recv(c, -1, &type, &cur, e)) == 0) {
		if (type == WIRE_PROGRESS) {
			read_progress(&cur, &s->now);
			paint(s);
		} else if (type == WIRE_FAILED) {
			print_failed(s, &cur);
		} else if (type == WIRE_END || type == WIRE_ERROR) {
			break;
		} else {
			return err_set(e, -EPROTO, "%s sent what is no answer (type %d)", c->socket, (int)type);
		}
		if (!cursor_done(&cur))
			return err_set(e, -EBADMSG, "%s sent a malformed message (type %d)", c->socket, (int)type);
	}
	if (rc < 0)
		return rc;
	code = type == WIRE_END ? cursor_u8(&cur) : PROG_NO;
	text = cursor_str(&cur, SOCK_MSG_MAX, &len);
	if (!cursor_done(&cur))
		return err_set(e, -EBADMSG, "%s sent a malformed end", c->socket);
	wipe(s);
	fflush(stdout);
	if (len > 0 && code != PROG_OK)
		fprintf(stderr, "maildexctl: %.*s\n", (int)len, text);
	return code;
}

/* Returns the worst code of all orders, or negative errno. */
static int rebuild(const struct order *o, struct show *s, struct err *e)
{
	struct client c;
	int next = 0, code = PROG_OK;
	int rc = client_open(&c, o->conf, "", e);

	do {
		if (rc < 0)
			break;
		wire_begin(&c.out, WIRE_REBUILD);
		buf_put_u8(&c.out, o->all);
		rc = mailbox_put(o->conf, o->argv, o->argc, &next, &c.out, e);
		if (rc == 0)
			rc = client_send(&c, e);
		if (rc == 0)
			rc = follow(&c, s, e);
		if (rc > code)
			code = rc;
		s->base = total(s);
		s->now = (struct progress){.complete = s->now.complete};
	} while (next < o->argc);
	client_close(&c);
	wipe(s);
	return rc < 0 ? rc : code;
}

static void print_end(const struct order *o, const struct show *s, int code)
{
	struct progress t = total(s);
	int64_t elapsed = clock_mono_ns() - s->start_ns;
	struct buf b;

	if (o->json) {
		printf("{\"ok\": %s, \"folders\": %" PRIu64 ", \"messages\": %" PRIu64 ", \"failed\": %" PRIu64
		       ", \"skipped\": %" PRIu64 ", \"seconds\": %.3f}\n",
		       code == PROG_OK ? "true" : "false", t.done, t.messages, t.failed, t.skipped,
		       (double)elapsed / NS_PER_S);
		return;
	}
	buf_init(&b);
	progress_summary(&t, elapsed, &b);
	if (buf_ok(&b))
		printf("%s\n", b.data);
	buf_release(&b);
}

int verb_rebuild(const struct order *o)
{
	struct show s = {.quiet = o->json, .terminal = isatty(STDOUT_FILENO), .start_ns = clock_mono_ns()};
	char path[FOLDER_PATH_MAX + 1];
	struct err e;
	int code;

	s.shown_ns = s.terminal ? 0 : s.start_ns;
	if (o->all == (o->argc > 0))
		return verb_wrong_use("rebuild: name mailboxes, or give --all");
	for (int i = 0; i < o->argc; i++)
		if (mailbox_path(o->conf, o->argv[i], path, &e) < 0) {
			fprintf(stderr, "maildexctl: %s\n", e.text);
			return PROG_USE;
		}
	catch_interrupt(o->all);
	code = rebuild(o, &s, &e);
	if (code < 0) {
		fflush(stdout);
		fprintf(stderr, "maildexctl: %s\n", e.text);
		return PROG_REACH;
	}
	print_end(o, &s, code);
	return code;
}
