/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "lib/base/clock.h"

#define BUCKETS 16384

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	size_t limit;
	size_t changes; /* of all halves, a collapsed half counted as one */
	size_t scan_bytes;
	uint64_t overflows;
	bool gap;
	bool closed;
	struct queue_half *first, **last;
	struct queue_call *calls, **last_call;
	struct queue_half *buckets[BUCKETS];
};

struct queue *queue_new(size_t limit)
{
	struct queue *q = calloc(1, sizeof(*q));
	pthread_condattr_t attr;

	if (!q)
		return NULL;
	q->limit = limit;
	q->last = &q->first;
	q->last_call = &q->calls;
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->wake, &attr);
	pthread_condattr_destroy(&attr);
	return q;
}

static void item_free(struct queue_item *it)
{
	event_release(&it->event);
	if (it->scan) {
		wire_scan_release(it->scan);
		free(it->scan);
	}
	free(it);
}

static void half_free(struct queue_half *h)
{
	while (h->items) {
		struct queue_item *next = h->items->next;

		item_free(h->items);
		h->items = next;
	}
	free(h);
}

void queue_batch_release(struct queue_batch *batch)
{
	while (batch->halves) {
		struct queue_half *next = batch->halves->next;

		half_free(batch->halves);
		batch->halves = next;
	}
}

void queue_free(struct queue *q)
{
	struct queue_batch rest;

	if (!q)
		return;
	rest = (struct queue_batch){.halves = q->first};
	queue_batch_release(&rest);
	pthread_cond_destroy(&q->wake);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static struct queue_half **bucket(struct queue *q, const char *folder, enum half half)
{
	return &q->buckets[XXH3_64bits_withSeed(folder, strlen(folder), half) % BUCKETS];
}

static struct queue_half *half_find(struct queue *q, const char *folder, enum half half)
{
	struct queue_half *h = *bucket(q, folder, half);

	while (h && (h->half != half || strcmp(h->folder, folder) != 0))
		h = h->chain;
	return h;
}

/* Returns the half's place in the queue, made if need be; NULL without memory. */
static struct queue_half *half_get(struct queue *q, const char *folder, enum half half)
{
	struct queue_half *h = half_find(q, folder, half);
	struct queue_half **at;
	size_t len = strlen(folder);

	if (h)
		return h;
	h = calloc(1, sizeof(*h) + len + 1);
	if (!h)
		return NULL;
	memcpy(h->folder, folder, len + 1);
	h->half = half;
	h->since_ns = clock_mono_ns();
	h->tail = &h->items;
	at = bucket(q, folder, half);
	h->chain = *at;
	*at = h;
	*q->last = h;
	q->last = &h->next;
	return h;
}

static void half_unchain(struct queue *q, struct queue_half *h)
{
	struct queue_half **at = bucket(q, h->folder, h->half);

	while (*at != h)
		at = &(*at)->chain;
	*at = h->chain;
}

static size_t scan_size(const struct queue_item *it)
{
	return it->scan ? it->scan->listing.bytes.len : 0;
}

/* Takes out a half's events (scans: false) or its waiting scan (true). */
static void half_purge(struct queue *q, struct queue_half *h, bool scans)
{
	struct queue_item **at = &h->items;

	while (*at) {
		struct queue_item *it = *at;

		if (!it->scan == scans) {
			at = &it->next;
			continue;
		}
		*at = it->next;
		q->scan_bytes -= scan_size(it);
		item_free(it);
	}
	h->tail = at;
}

static struct queue_item *item_new(uint64_t peer)
{
	struct queue_item *it = calloc(1, sizeof(*it));

	if (it)
		it->peer = peer;
	return it;
}

static void half_append(struct queue *q, struct queue_half *h, struct queue_item *it)
{
	*h->tail = it;
	h->tail = &it->next;
	pthread_cond_signal(&q->wake);
}

/* Too much waits: this half's events become NEED, or, where not even that fits, all that is lost one gap. */
static void overflow(struct queue *q, const struct event *ev)
{
	struct queue_half *h = half_find(q, ev->folder, ev->half);

	q->overflows++;
	if (!h && q->changes < q->limit)
		h = half_get(q, ev->folder, ev->half);
	if (!h || (h->changes == 0 && q->changes >= q->limit)) {
		q->gap = true;
	} else {
		half_purge(q, h, false);
		q->changes = q->changes - h->changes + 1;
		h->changes = 1;
		h->need = true;
	}
	pthread_cond_signal(&q->wake);
}

void queue_event(struct queue *q, struct event *ev, uint64_t peer)
{
	struct queue_item *it = item_new(peer);
	struct queue_half *h = NULL;

	pthread_mutex_lock(&q->lock);
	if (q->closed)
		goto out;
	if (it && q->changes + ev->nchanges <= q->limit)
		h = half_get(q, ev->folder, ev->half);
	if (h && h->need) {
		/* What follows NEED changes nothing any more until it is listed. */
		goto out;
	}
	if (!h) {
		overflow(q, ev);
		goto out;
	}
	q->changes += ev->nchanges;
	h->changes += ev->nchanges;
	event_move(&it->event, ev);
	half_append(q, h, it);
	it = NULL;
out:
	pthread_mutex_unlock(&q->lock);
	event_release(ev);
	free(it);
}

int queue_scan(struct queue *q, struct wire_scan *scan, uint64_t peer)
{
	struct queue_item *it = item_new(peer);
	struct queue_half *h;
	int r = -ENOMEM;

	if (!it)
		return r;
	pthread_mutex_lock(&q->lock);
	r = -ESHUTDOWN;
	if (q->closed)
		goto out;
	r = -ENOSPC;
	if (scan->listing.bytes.len > QUEUE_SCAN_BYTES - q->scan_bytes)
		goto out;
	r = -ENOMEM;
	h = half_get(q, scan->folder, scan->half);
	if (!h)
		goto out;
	half_purge(q, h, true);
	event_init(&it->event, scan->folder, scan->half);
	it->scan = scan;
	q->scan_bytes += scan_size(it);
	half_append(q, h, it);
	it = NULL;
	r = 0;
out:
	pthread_mutex_unlock(&q->lock);
	free(it);
	return r;
}

void queue_gap(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->gap = true;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

int queue_call(struct queue *q, struct queue_call *call)
{
	int r = -ESHUTDOWN;

	pthread_mutex_lock(&q->lock);
	if (!q->closed) {
		call->next = NULL;
		*q->last_call = call;
		q->last_call = &call->next;
		pthread_cond_signal(&q->wake);
		r = 0;
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}

static bool waiting(const struct queue *q)
{
	return q->first || q->calls || q->gap;
}

/* Moves the oldest half to the batch. */
static void take_half(struct queue *q, struct queue_batch *batch, struct queue_half ***tail)
{
	struct queue_half *h = q->first;

	q->first = h->next;
	if (!q->first)
		q->last = &q->first;
	half_unchain(q, h);
	q->changes -= h->changes;
	h->next = NULL;
	**tail = h;
	*tail = &h->next;
	batch->items += h->need;
	for (struct queue_item *it = h->items; it; it = it->next) {
		q->scan_bytes -= scan_size(it);
		batch->items++;
	}
}

int queue_take(struct queue *q, size_t max, int64_t timeout_ns, struct queue_batch *batch)
{
	int64_t until = clock_mono_ns() + timeout_ns;
	struct timespec ts = clock_timespec(until);
	struct queue_half **tail = &batch->halves;
	int r;

	*batch = (struct queue_batch){0};
	pthread_mutex_lock(&q->lock);
	while (!waiting(q) && !q->closed) {
		if (pthread_cond_timedwait(&q->wake, &q->lock, &ts) == ETIMEDOUT)
			break;
	}
	r = waiting(q);
	batch->gap = q->gap;
	q->gap = false;
	batch->calls = q->calls;
	q->calls = NULL;
	q->last_call = &q->calls;
	while (q->first && batch->items < max)
		take_half(q, batch, &tail);
	pthread_mutex_unlock(&q->lock);
	return r;
}

void queue_close(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->closed = true;
	pthread_cond_broadcast(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

bool queue_waiting(struct queue *q)
{
	bool yes;

	pthread_mutex_lock(&q->lock);
	yes = waiting(q);
	pthread_mutex_unlock(&q->lock);
	return yes;
}

void queue_stats(struct queue *q, struct queue_stats *stats)
{
	pthread_mutex_lock(&q->lock);
	*stats = (struct queue_stats){.changes = q->changes, .limit = q->limit, .overflows = q->overflows};
	if (q->first)
		stats->lag_ns = clock_mono_ns() - q->first->since_ns;
	pthread_mutex_unlock(&q->lock);
}
