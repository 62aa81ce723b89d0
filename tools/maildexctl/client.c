/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/sock.h"

/* How soon a full queue of connections is tried again: the kernel tells nobody when it has room. */
#define CONNECT_AGAIN_MS 5

static int client_await(struct client *c, short events, int timeout_ms, struct err *e)
{
	struct pollfd p = {.fd = c->fd, .events = events};
	int n;

	do
		n = poll(&p, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(e, "cannot wait for %s", c->socket);
	if (n == 0)
		return err_set(e, -ETIMEDOUT, "no answer at %s within %d ms", c->socket, timeout_ms);
	return 0;
}

int client_open(struct client *c, const struct conf *conf, const char *suffix, struct err *e)
{
	int64_t give_up = clock_mono_ns() + CLIENT_PATIENCE_MS * NS_PER_MS;

	*c = (struct client){.fd = -1};
	buf_init(&c->out);
	c->in = malloc(SOCK_MSG_MAX);
	if (!c->in || asprintf(&c->socket, "%s%s", conf->socket, suffix) < 0) {
		c->socket = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	while ((c->fd = sock_connect(c->socket, true, e)) == -EAGAIN && clock_mono_ns() < give_up)
		poll(NULL, 0, CONNECT_AGAIN_MS);
	if (c->fd < 0)
		return c->fd;
	wire_begin(&c->out, WIRE_HELLO);
	buf_put_u8(&c->out, WIRE_ROLE_CTL);
	buf_put_str(&c->out, "maildexctl", strlen("maildexctl"));
	return client_send(c, e);
}

int client_send(struct client *c, struct err *e)
{
	int rc;

	if (!buf_ok(&c->out))
		return err_set(e, -ENOMEM, "out of memory");
	while ((rc = sock_send(c->fd, c->out.data, c->out.len, -1)) == -EAGAIN) {
		rc = client_await(c, POLLOUT, CLIENT_PATIENCE_MS, e);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? err_set(e, rc, "cannot send to %s: %s", c->socket, strerror(-rc)) : 0;
}

int client_recv(struct client *c, int timeout_ms, enum wire_type *type, struct cursor *cur, struct err *e)
{
	ssize_t n;
	int passed;

	while ((n = sock_recv(c->fd, c->in, &passed)) == -EAGAIN) {
		int rc = client_await(c, POLLIN, timeout_ms, e);

		if (rc < 0)
			return rc;
	}
	if (passed >= 0)
		close(passed);
	if (n == 0)
		return err_set(e, -ECONNRESET, "the connection to %s was ended by the other side", c->socket);
	if (n < 0)
		return err_set(e, (int)n, "cannot read from %s: %s", c->socket, strerror((int)-n));
	return wire_open(cur, c->in, (size_t)n, type, e);
}

int client_ask(struct client *c, struct buf *text, struct err *e)
{
	enum wire_type type = WIRE_ERROR;
	struct cursor cur;
	const char *s;
	size_t len;
	int rc = client_send(c, e);

	if (rc == 0)
		rc = client_recv(c, CLIENT_PATIENCE_MS, &type, &cur, e);
	if (rc < 0)
		return rc;
	s = cursor_str(&cur, SOCK_MSG_MAX, &len);
	if ((type != WIRE_STATUS && type != WIRE_ERROR) || !cursor_done(&cur))
		return err_set(e, -EPROTO, "%s sent what is no answer (type %d)", c->socket, (int)type);
	if (type == WIRE_ERROR)
		return err_set(e, -EPERM, "%.*s", (int)len, s);
	buf_put(text, s, len);
	return buf_ok(text) ? 0 : err_set(e, -ENOMEM, "out of memory");
}

void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	free(c->in);
	free(c->socket);
	c->in = c->socket = NULL;
	buf_release(&c->out);
}
