/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/request.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"

#define PATHS_MAX 4096

static enum request_verdict answer(struct peer *p, struct buf *b)
{
	int r = peer_send(p, b);

	buf_release(b);
	return r < 0 ? REQUEST_END : REQUEST_GO_ON;
}

int request_error(struct peer *p, const char *text)
{
	struct buf b;
	int r;

	buf_init(&b);
	wire_begin(&b, WIRE_ERROR);
	buf_put_str(&b, text, strlen(text));
	r = peer_send(p, &b);
	buf_release(&b);
	return r;
}

/* Says why not. Malformed messages and those that are not for this peer to send end the connection. */
static enum request_verdict refuse(const struct request_tools *t, struct peer *p, bool end, const char *text)
{
	tally_add(t->tally, TALLY_EVENTS_REFUSED, 1);
	log_debug("refused from pid %d, uid %u: %s", (int)p->cred.pid, (unsigned)p->cred.uid, text);
	return request_error(p, text) < 0 || end ? REQUEST_END : REQUEST_GO_ON;
}

static enum request_verdict answer_ok(struct peer *p)
{
	struct buf b;

	buf_init(&b);
	wire_begin(&b, WIRE_OK);
	return answer(p, &b);
}

static bool printable(const char *name)
{
	for (; *name; name++) {
		if (iscntrl((unsigned char)*name))
			return false;
	}
	return true;
}

static enum request_verdict on_hello(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	uint8_t role = cursor_u8(c);

	(void)memfd;
	cursor_str_copy(c, p->name, sizeof(p->name) - 1);
	if (!cursor_done(c) || role < WIRE_ROLE_NOTIFY || role > WIRE_ROLE_CTL || !printable(p->name))
		return refuse(t, p, true, "HELLO: malformed");
	if (role == WIRE_ROLE_FS && !*p->name) /* could not be told from others' after a restart */
		return refuse(t, p, true, "HELLO: the role FS needs a name");
	if (p->hello)
		return refuse(t, p, true, "HELLO: said twice");
	if (role == WIRE_ROLE_FS && !p->trusted)
		return refuse(t, p, true, "HELLO: the role FS is for root and for maildexd's own user");
	p->hello = true;
	p->role = (enum wire_role)role;
	return REQUEST_GO_ON;
}

/* Numbered events of an FS peer: is one missing? */
static void check_sequence(const struct request_tools *t, const struct peer *p, struct event *ev)
{
	char why[512];

	if (p->role != WIRE_ROLE_FS || ev->sequence == 0)
		return;
	switch (origins_saw(t->origins, p->name, ev->epoch, ev->sequence)) {
	case ORIGINS_NEXT:
		return;
	case ORIGINS_DOUBLED:
		ev->windowed = false;
		return;
	case ORIGINS_HOLE:
		snprintf(why, sizeof(why), "events of %s before number %llu are missing", p->name,
			 (unsigned long long)ev->sequence);
		t->sink.gap(t->sink.arg, why);
	}
}

static enum request_verdict on_event(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	struct event ev;
	struct err e = {""};

	(void)memfd;
	if (event_decode(&ev, c, &e) < 0)
		return refuse(t, p, true, e.text);
	if (!cursor_done(c)) {
		event_release(&ev);
		return refuse(t, p, true, "EVENT: malformed");
	}
	tally_add(t->tally, TALLY_EVENTS_RECEIVED, 1);
	if (!p->trusted)
		ev.windowed = false;
	check_sequence(t, p, &ev);
	t->sink.event(t->sink.arg, &ev, p->id);
	return REQUEST_GO_ON;
}

/* A path as a delivery agent knows it, made an event. It is looked up, so nothing but the name is claimed. */
static int notify_event(const char *path, size_t len, struct event *ev, struct err *e)
{
	struct folder_ref *ref = malloc(sizeof(*ref));
	struct change change;
	int r;

	if (!ref)
		return err_set(e, -ENOMEM, "out of memory");
	r = folder_ref_parse(path, len, ref, e);
	if (r < 0)
		goto out;
	event_init(ev, ref->folder, ref->has_half ? ref->half : HALF_NEW);
	if (ref->name[0])
		change_make(&change, CHANGE_ADD, NULL, ref->name, 0, 0);
	else
		change_make(&change, CHANGE_LOOK, NULL, NULL, 0, 0);
	r = event_add(ev, &change);
	if (r < 0)
		err_set(e, r, "out of memory");
out:
	free(ref);
	return r;
}

static enum request_verdict on_notify(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	struct event ev;
	struct err e = {""};
	const char *path;
	size_t len;

	(void)memfd;
	path = cursor_str(c, FOLDER_PATH_MAX + NAME_LEN_MAX + 8, &len);
	if (!cursor_done(c))
		return refuse(t, p, true, "NOTIFY: malformed, or the path is too long");
	if (memchr(path, '\0', len))
		return refuse(t, p, true, "NOTIFY: the path holds a NUL byte");
	if (notify_event(path, len, &ev, &e) < 0)
		return refuse(t, p, false, e.text);
	tally_add(t->tally, TALLY_EVENTS_RECEIVED, 1);
	t->sink.event(t->sink.arg, &ev, 0);
	return answer_ok(p);
}

static enum request_verdict on_scan(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	struct wire_scan *scan;
	struct err e = {""};

	if (!p->trusted)
		return refuse(t, p, true, "SCAN: only root and maildexd's own user hand listings over");
	scan = malloc(sizeof(*scan));
	if (!scan)
		return refuse(t, p, false, "SCAN: out of memory");
	if (wire_get_scan(c, memfd, scan, &e) < 0) {
		free(scan);
		return refuse(t, p, true, e.text);
	}
	t->sink.scan(t->sink.arg, scan, p->id);
	return REQUEST_GO_ON;
}

/* Copies a path that may be renamed: any below the root. Returns false if it is none. */
static bool get_path(struct cursor *c, char out[FOLDER_PATH_MAX + 1])
{
	size_t len = cursor_str_copy(c, out, FOLDER_PATH_MAX);

	return !c->bad && len > 0 && folder_path_check(out, len, NULL) == 0;
}

static enum request_verdict on_rename(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	char from[FOLDER_PATH_MAX + 1], to[FOLDER_PATH_MAX + 1];

	(void)memfd;
	if (!p->trusted)
		return refuse(t, p, true, "RENAME: only root and maildexd's own user tell of directories");
	if (!get_path(c, from) || !get_path(c, to) || !cursor_done(c))
		return refuse(t, p, true, "RENAME: malformed");
	t->sink.rename(t->sink.arg, from, to);
	return REQUEST_GO_ON;
}

static enum request_verdict on_status(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	struct buf text, b;

	(void)memfd;
	if (!cursor_done(c))
		return refuse(t, p, true, "STATUS: malformed");
	buf_init(&text);
	t->control.status(t->control.arg, &text);
	buf_init(&b);
	wire_begin(&b, WIRE_STATUS);
	buf_put_str(&b, text.data ? text.data : "", text.len);
	b.failed |= text.failed;
	buf_release(&text);
	return answer(p, &b);
}

/* Reads the paths of a REBUILD. Returns false if there is something wrong with them. */
static bool get_paths(struct cursor *c, uint32_t n, char **paths, size_t *got, struct err *e)
{
	for (*got = 0; *got < n;) {
		size_t len;
		const char *path = cursor_str(c, FOLDER_PATH_MAX, &len);

		if (c->bad) {
			err_set(e, -EBADMSG, "REBUILD: malformed");
			return false;
		}
		if (folder_path_check(path, len, e) < 0)
			return false;
		paths[*got] = strndup(path, len);
		if (!paths[*got]) {
			err_set(e, -ENOMEM, "out of memory");
			return false;
		}
		(*got)++;
	}
	if (cursor_done(c))
		return true;
	err_set(e, -EBADMSG, "REBUILD: malformed");
	return false;
}

static enum request_verdict on_rebuild(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	uint8_t all = cursor_u8(c);
	uint32_t n = cursor_u32(c);
	struct err e = {""};
	char **paths;
	size_t got = 0;

	(void)memfd;
	if (!p->trusted)
		return refuse(t, p, true, "REBUILD: only root and maildexd's own user may ask for it");
	if (c->bad || all > 1 || n > PATHS_MAX || (!all && n == 0))
		return refuse(t, p, true, "REBUILD: malformed, or too many paths");
	paths = calloc(n ? n : 1, sizeof(*paths));
	if (!paths)
		return refuse(t, p, false, "REBUILD: out of memory");
	if (!get_paths(c, n, paths, &got, &e)) {
		for (size_t i = 0; i < got; i++)
			free(paths[i]);
		free(paths);
		return refuse(t, p, c->bad, e.text);
	}
	if (t->control.rebuild(t->control.arg, p->id, all, paths, got, &e) < 0)
		return request_error(p, e.text) < 0 ? REQUEST_END : REQUEST_GO_ON;
	return REQUEST_GO_ON;
}

static enum request_verdict on_serve(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	(void)t;
	(void)c;
	(void)memfd;
	return request_error(p, "SERVE: maildexfs answers this, on the socket of its own") < 0 ? REQUEST_END
											       : REQUEST_GO_ON;
}

static enum request_verdict on_end(const struct request_tools *t, struct peer *p, struct cursor *c, int memfd)
{
	(void)c;
	(void)memfd;
	p->goodbye = true;
	if (p->role == WIRE_ROLE_FS)
		origins_goodbye(t->origins, p->name);
	return REQUEST_GO_ON;
}

typedef enum request_verdict (*handler)(const struct request_tools *, struct peer *, struct cursor *, int);

static const handler handlers[] = {
	[WIRE_HELLO] = on_hello, [WIRE_EVENT] = on_event,   [WIRE_NOTIFY] = on_notify,
	[WIRE_SCAN] = on_scan,   [WIRE_STATUS] = on_status, [WIRE_REBUILD] = on_rebuild,
	[WIRE_SERVE] = on_serve, [WIRE_END] = on_end,       [WIRE_RENAME] = on_rename,
};

enum request_verdict request_handle(const struct request_tools *tools, struct peer *p, const void *data, size_t len,
				    int memfd)
{
	enum wire_type type = 0;
	struct err e = {""};
	struct cursor c;
	int r = wire_open(&c, data, len, &type, &e);

	/* A newer version, or a type that we don't know, may be followed by messages that we do. */
	if (r < 0)
		return refuse(tools, p, r != -EPROTO, e.text);
	if ((size_t)type >= sizeof(handlers) / sizeof(handlers[0]) || !handlers[type]) {
		err_set(&e, -EPROTO, "message of type %u: not known here", (unsigned)type);
		return refuse(tools, p, false, e.text);
	}
	if (!p->hello && type != WIRE_HELLO)
		return refuse(tools, p, true, "the first message must be HELLO");
	return handlers[type](tools, p, &c, memfd);
}
