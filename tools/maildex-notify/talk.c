/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildex-notify/talk.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/sock.h"
#include "lib/mail/wire.h"

/* How soon a full queue of connections is tried again: the kernel tells nobody when it has room. */
#define CONNECT_AGAIN_MS 5

static int out_of_patience(const struct talk *t, struct err *e)
{
	return err_set(e, -ETIMEDOUT, "maildexd at %s does not answer within %d ms", t->socket, t->patience_ms);
}

/* Waits for events on the socket (or only for `at_most_ms` to pass, if fd is -1). Returns revents or negative errno. */
static int await(struct talk *t, int fd, short events, int at_most_ms, struct err *e)
{
	struct pollfd p = {.fd = fd, .events = events};
	int64_t began = clock_mono_ns();
	int wait_ms = (int)((t->left_ns + NS_PER_MS - 1) / NS_PER_MS);
	int n;

	if (t->left_ns <= 0)
		return out_of_patience(t, e);
	if (at_most_ms >= 0 && at_most_ms < wait_ms)
		wait_ms = at_most_ms;
	do
		n = poll(&p, 1, wait_ms);
	while (n < 0 && errno == EINTR);
	t->left_ns -= clock_mono_ns() - began;
	if (n < 0)
		return err_sys(e, "cannot wait for %s", t->socket);
	if (n == 0 && at_most_ms < 0)
		return out_of_patience(t, e);
	return p.revents;
}

static void got_through(struct talk *t)
{
	if (t->renew)
		t->left_ns = t->patience_ms * NS_PER_MS;
}

static int understand(struct talk *t, size_t len, struct err *e)
{
	enum wire_type type;
	struct cursor c;
	size_t text_len;
	const char *text;
	int rc = wire_open(&c, t->in, len, &type, e);

	if (rc < 0)
		return rc;
	if (type == WIRE_ERROR) {
		text = cursor_str(&c, SOCK_MSG_MAX, &text_len);
		if (!cursor_done(&c))
			return err_set(e, -EBADMSG, "maildexd at %s sent a malformed refusal", t->socket);
		log_error("maildexd refused: %.*s", (int)text_len, text);
		t->refused++;
	} else if (type != WIRE_OK || !cursor_done(&c)) {
		return err_set(e, -EPROTO, "maildexd at %s sent what is no answer (type %d)", t->socket, (int)type);
	}
	t->unanswered--;
	return 0;
}

/* Reads the answers that are there and due. */
static int read_answers(struct talk *t, struct err *e)
{
	while (t->unanswered > 0) {
		int passed, rc;
		ssize_t n = sock_recv(t->fd, t->in, &passed);

		if (passed >= 0)
			close(passed);
		if (n == -EAGAIN)
			return 0;
		if (n == 0)
			return err_set(e, -ECONNRESET, "maildexd at %s ended the connection", t->socket);
		if (n < 0)
			return err_set(e, (int)n, "cannot read from %s: %s", t->socket, strerror((int)-n));
		got_through(t);
		rc = understand(t, (size_t)n, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int send_out(struct talk *t, struct err *e)
{
	int rc;

	if (!buf_ok(&t->out))
		return err_set(e, -ENOMEM, "out of memory");
	while ((rc = sock_send(t->fd, t->out.data, t->out.len, -1)) == -EAGAIN) {
		rc = await(t, t->fd, POLLIN | POLLOUT, -1, e);
		if (rc >= 0 && (rc & ~POLLOUT))
			rc = read_answers(t, e);
		if (rc < 0)
			return rc;
	}
	if (rc < 0)
		return err_set(e, rc, "cannot send to maildexd at %s: %s", t->socket, strerror(-rc));
	got_through(t);
	return 0;
}

int talk_open(struct talk *t, const char *socket, int patience_ms, bool renew, struct err *e)
{
	*t = (struct talk){.socket = socket, .fd = -1, .patience_ms = patience_ms, .renew = renew};
	t->left_ns = patience_ms * NS_PER_MS;
	buf_init(&t->out);
	t->in = malloc(SOCK_MSG_MAX);
	if (!t->in)
		return err_set(e, -ENOMEM, "out of memory");
	while ((t->fd = sock_connect(socket, true, e)) == -EAGAIN) {
		int rc = await(t, -1, 0, CONNECT_AGAIN_MS, e);

		if (rc < 0)
			return rc;
	}
	if (t->fd < 0)
		return t->fd;
	wire_begin(&t->out, WIRE_HELLO);
	buf_put_u8(&t->out, WIRE_ROLE_NOTIFY);
	buf_put_str(&t->out, "maildex-notify", strlen("maildex-notify"));
	return send_out(t, e);
}

int talk_notify(struct talk *t, const char *path, struct err *e)
{
	int rc;

	wire_begin(&t->out, WIRE_NOTIFY);
	buf_put_str(&t->out, path, strlen(path));
	rc = send_out(t, e);
	if (rc < 0)
		return rc;
	t->unanswered++;
	return read_answers(t, e);
}

int talk_finish(struct talk *t, struct err *e)
{
	while (t->unanswered > 0) {
		int rc = await(t, t->fd, POLLIN, -1, e);

		if (rc >= 0)
			rc = read_answers(t, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void talk_close(struct talk *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	free(t->in);
	t->in = NULL;
	buf_release(&t->out);
}
