/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/source_socket.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "indexer/peer.h"
#include "indexer/request.h"
#include "lib/base/log.h"

/* Connections of users that nobody vouches for: so that they can't use up all descriptors. */
#define STRANGERS_MAX 256
/* Messages read from one peer before others have their turn. */
#define TURN 64

struct source_socket {
	struct source source; /* first */
	sd_event *loop;
	int listen_fd;
	struct outbox *outbox;
	struct request_tools tools;
	sd_event_source *accept_io, *outbox_io;
	struct peer *peers;
	uint64_t last_id;
	unsigned strangers;
	char message[SOCK_MSG_MAX];
};

static void peer_end(struct source_socket *s, struct peer *p)
{
	const struct request_tools *t = &s->tools;
	struct peer **at = &s->peers;
	char why[512];

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	s->strangers -= !p->trusted;
	if (p->hello && p->role == WIRE_ROLE_FS) {
		if (!p->goodbye) {
			snprintf(why, sizeof(why), "%s (pid %d) went away without goodbye", p->name, (int)p->cred.pid);
			t->sink.gap(t->sink.arg, why);
		} else {
			log_info("%s (pid %d) disconnected", p->name, (int)p->cred.pid);
		}
	}
	t->control.peer_gone(t->control.arg, p->id);
	peer_free(p);
}

static void peer_events(struct peer *p)
{
	sd_event_source_set_io_events(p->io, EPOLLIN | (peer_waiting(p) ? EPOLLOUT : 0));
}

/* Returns false when the connection is to end. */
static bool peer_read(struct source_socket *s, struct peer *p)
{
	for (int i = 0; i < TURN; i++) {
		enum request_verdict verdict;
		bool hello = p->hello;
		int passed;
		ssize_t n = sock_recv(p->fd, s->message, &passed);

		if (n == -EAGAIN)
			return true;
		/* It closed before it read all that we sent; what it sent before that still stands in the queue. */
		if (n == -ECONNRESET)
			continue;
		if (n == -EMSGSIZE)
			request_error(p, "a message was too long");
		if (n <= 0)
			return false;
		verdict = request_handle(&s->tools, p, s->message, (size_t)n, passed);
		if (passed >= 0)
			close(passed);
		if (verdict == REQUEST_END)
			return false;
		if (!hello && p->role == WIRE_ROLE_FS)
			log_info("%s (pid %d) connected", p->name, (int)p->cred.pid);
	}
	return true;
}

static int on_peer(sd_event_source *io, int fd, uint32_t revents, void *arg)
{
	struct source_socket *s = arg;
	struct peer *p = s->peers;
	bool go_on = true;

	(void)io;
	while (p && p->fd != fd)
		p = p->next;
	if (!p)
		return 0;
	if (revents & EPOLLOUT)
		go_on = peer_flush(p) == 0;
	/* What came before a hang-up is read, too. */
	if (go_on && (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		go_on = peer_read(s, p);
	if (!go_on)
		peer_end(s, p);
	else
		peer_events(p);
	return 0;
}

static int on_accept(sd_event_source *io, int fd, uint32_t revents, void *arg)
{
	struct source_socket *s = arg;
	struct peer *p;
	int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)io;
	(void)revents;
	if (conn < 0) {
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			log_warn("cannot accept a connection: %s", strerror(errno));
		return 0;
	}
	p = peer_new(conn, ++s->last_id);
	if (!p)
		return 0;
	if (!p->trusted && s->strangers >= STRANGERS_MAX) {
		request_error(p, "too many connections");
		peer_free(p);
		return 0;
	}
	if (sd_event_add_io(s->loop, &p->io, conn, EPOLLIN, on_peer, s) < 0) {
		peer_free(p);
		return 0;
	}
	s->strangers += !p->trusted;
	p->next = s->peers;
	s->peers = p;
	return 0;
}

static void deliver(struct source_socket *s, const struct outbox_message *m)
{
	struct peer *next;

	for (struct peer *p = s->peers; p; p = next) {
		bool fs = p->hello && p->role == WIRE_ROLE_FS;

		next = p->next;
		if (m->to ? p->id != m->to : !fs || p->id == m->except)
			continue;
		if (peer_send(p, &m->bytes) < 0) {
			log_warn("pid %d does not read what it is sent, or went away: disconnected", (int)p->cred.pid);
			peer_end(s, p);
		} else {
			peer_events(p);
		}
	}
}

static int on_outbox(sd_event_source *io, int fd, uint32_t revents, void *arg)
{
	struct source_socket *s = arg;
	struct outbox_message *list;
	struct peer *next;
	bool dropped;

	(void)io;
	(void)fd;
	(void)revents;
	list = outbox_take(s->outbox, &dropped);
	for (const struct outbox_message *m = list; m; m = m->next)
		deliver(s, m);
	outbox_list_free(list);
	for (struct peer *p = dropped ? s->peers : NULL; p; p = next) {
		next = p->next;
		if (p->hello && p->role == WIRE_ROLE_FS)
			peer_end(s, p);
	}
	return 0;
}

static int socket_start(struct source *source, const struct source_sink *sink, struct err *e)
{
	struct source_socket *s = (struct source_socket *)source;
	int r;

	s->tools.sink = *sink;
	r = sd_event_add_io(s->loop, &s->accept_io, s->listen_fd, EPOLLIN, on_accept, s);
	if (r >= 0)
		r = sd_event_add_io(s->loop, &s->outbox_io, outbox_fd(s->outbox), EPOLLIN, on_outbox, s);
	return r < 0 ? err_set(e, r, "cannot watch the socket: %s", strerror(-r)) : 0;
}

static void socket_stop(struct source *source)
{
	struct source_socket *s = (struct source_socket *)source;

	s->accept_io = sd_event_source_disable_unref(s->accept_io);
	/* What they have sent is taken before they are told by the end of the connection. */
	while (s->peers) {
		struct peer *p = s->peers;

		shutdown(p->fd, SHUT_RD);
		while (peer_read(s, p)) {
			/* until there is nothing more */
		}
		/* We end it ourselves. What it has sent is taken; what it drops until the next start is told by its numbers. */
		p->goodbye = true;
		peer_end(s, p);
	}
	s->outbox_io = sd_event_source_disable_unref(s->outbox_io);
}

static void socket_status(struct source *source, struct buf *out)
{
	struct source_socket *s = (struct source_socket *)source;
	unsigned fs = 0, other = 0;

	for (const struct peer *p = s->peers; p; p = p->next) {
		if (p->hello && p->role == WIRE_ROLE_FS)
			fs++;
		else
			other++;
	}
	buf_printf(out, "peers.fs %u\npeers.other %u\n", fs, other);
}

struct source *source_socket_new(sd_event *loop, int listen_fd, struct outbox *outbox, struct origins *origins,
				 struct tally *tally, const struct source_socket_control *control)
{
	struct source_socket *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->source =
		(struct source){.name = "socket", .start = socket_start, .stop = socket_stop, .status = socket_status};
	s->loop = loop;
	s->listen_fd = listen_fd;
	s->outbox = outbox;
	s->tools.control = *control;
	s->tools.origins = origins;
	s->tools.tally = tally;
	return &s->source;
}

void source_socket_free(struct source *s)
{
	free(s);
}
