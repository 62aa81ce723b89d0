/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct peer_packet {
	struct peer_packet *next;
	size_t len;
	char data[];
};

struct peer *peer_new(int fd, uint64_t id)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (!p || sock_peer(fd, &p->cred) < 0) {
		free(p);
		close(fd);
		return NULL;
	}
	p->id = id;
	p->fd = fd;
	p->trusted = p->cred.uid == 0 || p->cred.uid == geteuid();
	p->last = &p->first;
	return p;
}

void peer_free(struct peer *p)
{
	while (p->first) {
		struct peer_packet *next = p->first->next;

		free(p->first);
		p->first = next;
	}
	sd_event_source_disable_unref(p->io);
	close(p->fd);
	free(p);
}

bool peer_waiting(const struct peer *p)
{
	return p->first != NULL;
}

static int keep(struct peer *p, const struct buf *b)
{
	struct peer_packet *k;

	if (p->bytes + b->len > PEER_BYTES)
		return -ENOBUFS;
	k = malloc(sizeof(*k) + b->len);
	if (!k)
		return -ENOMEM;
	k->next = NULL;
	k->len = b->len;
	memcpy(k->data, b->data, b->len);
	*p->last = k;
	p->last = &k->next;
	p->bytes += k->len;
	return 0;
}

int peer_send(struct peer *p, const struct buf *b)
{
	int r = -EAGAIN;

	if (!buf_ok(b))
		return -ENOMEM;
	if (!p->first)
		r = sock_send(p->fd, b->data, b->len, -1);
	return r == -EAGAIN ? keep(p, b) : r;
}

int peer_flush(struct peer *p)
{
	while (p->first) {
		struct peer_packet *k = p->first;
		int r = sock_send(p->fd, k->data, k->len, -1);

		if (r < 0)
			return r == -EAGAIN ? 0 : r;
		p->first = k->next;
		if (!p->first)
			p->last = &p->first;
		p->bytes -= k->len;
		free(k);
	}
	return 0;
}
