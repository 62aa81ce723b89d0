/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/outbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/mail/wire.h"

struct outbox {
	pthread_mutex_t lock;
	int fd;
	size_t bytes;
	bool dropped;
	struct outbox_message *first, **last;
};

struct outbox *outbox_new(void)
{
	struct outbox *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (o->fd < 0) {
		free(o);
		return NULL;
	}
	o->last = &o->first;
	pthread_mutex_init(&o->lock, NULL);
	return o;
}

void outbox_list_free(struct outbox_message *list)
{
	while (list) {
		struct outbox_message *next = list->next;

		buf_release(&list->bytes);
		free(list);
		list = next;
	}
}

void outbox_free(struct outbox *o)
{
	if (!o)
		return;
	outbox_list_free(o->first);
	close(o->fd);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

int outbox_fd(const struct outbox *o)
{
	return o->fd;
}

struct outbox_message *outbox_feed(const struct event *ev, uint64_t except)
{
	struct outbox_message *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->except = except;
	wire_begin(&m->bytes, WIRE_FEED);
	event_encode(ev, &m->bytes);
	return m;
}

struct outbox_message *outbox_to(uint64_t peer, struct buf *b)
{
	struct outbox_message *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->to = peer;
	m->bytes = *b;
	buf_init(b);
	return m;
}

void outbox_send(struct outbox *o, struct outbox_message *list)
{
	uint64_t one = 1;

	if (!list)
		return;
	pthread_mutex_lock(&o->lock);
	while (list) {
		struct outbox_message *m = list;

		list = m->next;
		m->next = NULL;
		if (!buf_ok(&m->bytes) || o->bytes + m->bytes.len > OUTBOX_BYTES) {
			o->dropped = true;
			outbox_list_free(m);
			continue;
		}
		o->bytes += m->bytes.len;
		*o->last = m;
		o->last = &m->next;
	}
	/* The counter can't overflow: the taker reads it empty, and a full one is readable anyway. */
	if (write(o->fd, &one, sizeof(one)) < 0)
		o->dropped = true;
	pthread_mutex_unlock(&o->lock);
}

struct outbox_message *outbox_take(struct outbox *o, bool *dropped)
{
	struct outbox_message *list;
	uint64_t count;

	pthread_mutex_lock(&o->lock);
	if (read(o->fd, &count, sizeof(count)) < 0)
		count = 0;
	list = o->first;
	o->first = NULL;
	o->last = &o->first;
	o->bytes = 0;
	*dropped = o->dropped;
	o->dropped = false;
	pthread_mutex_unlock(&o->lock);
	return list;
}
