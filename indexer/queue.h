/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What waits to be applied to the index: events and handed-over scans, kept together per half, and calls (work that
 * another thread wants done by the index's one writer).
 *
 * It never makes a sender wait and never drops silently. Where more changes wait than `limit`, the events of the half
 * that got one more collapse to NEED; where not even that fits, to one gap.
 *
 * Flow: queue_event(), queue_scan(), queue_gap(), queue_call() from any thread; the applier takes batches with
 * queue_take(), queue_batch_release() after it is done with one.
 * Shapes: the limit counts changes; a collapsed half counts as one. Items of one half keep their order. A handed-over
 * scan replaces one of the same half that still waits; together they take at most QUEUE_SCAN_BYTES.
 * Ownership: events and scans are moved in and belong to the batch afterwards; a call's memory is its sender's until
 * its done() ran.
 * Threads: any number of senders, one taker.
 * Errors: -ESHUTDOWN after queue_close(); -ENOSPC where a scan does not fit.
 */
#ifndef MAILDEX_INDEXER_QUEUE_H
#define MAILDEX_INDEXER_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/mail/event.h"
#include "lib/mail/wire.h"

#define QUEUE_LIMIT 65536
#define QUEUE_SCAN_BYTES (256u << 20)

struct queue;

/* One event, or one handed-over scan. */
struct queue_item {
	struct queue_item *next;
	uint64_t peer; /* whom it came from: is not sent it back */
	struct event event;
	struct wire_scan *scan; /* NULL: an event */
};

struct queue_half {
	struct queue_half *next; /* in the order of arrival */
	struct queue_half *chain;
	enum half half;
	bool need; /* events collapsed */
	size_t changes;
	int64_t since_ns; /* CLOCK_MONOTONIC of the oldest item */
	struct queue_item *items, **tail;
	char folder[];
};

struct queue_call {
	struct queue_call *next;
	/* Runs in the applier, inside the batch's transaction (ctx); may run again after a rollback. */
	int (*run)(struct queue_call *call, void *ctx, struct err *e);
	/* Runs after the commit, or with what went wrong; the call may be freed by it. */
	void (*done)(struct queue_call *call, int result, const struct err *e);
};

struct queue_batch {
	struct queue_half *halves;
	struct queue_call *calls;
	size_t items;
	bool gap;
};

struct queue_stats {
	uint64_t changes, limit, overflows;
	int64_t lag_ns; /* age of the oldest that waits */
};

struct queue *queue_new(size_t limit);
void queue_free(struct queue *q);
/* Takes the event's content (ev is left empty). */
void queue_event(struct queue *q, struct event *ev, uint64_t peer);
/* Takes the scan, which was malloc'ed, unless it fails. Returns 0, -ENOSPC, -ENOMEM or -ESHUTDOWN. */
int queue_scan(struct queue *q, struct wire_scan *scan, uint64_t peer);
/* Events were lost. */
void queue_gap(struct queue *q);
/* Returns 0 (done() will be called) or -ESHUTDOWN (it won't). */
int queue_call(struct queue *q, struct queue_call *call);
/*
 * Waits at most timeout_ns for something; takes whole halves until there are at least max items. Returns 1 with a
 * batch, 0 without.
 */
int queue_take(struct queue *q, size_t max, int64_t timeout_ns, struct queue_batch *batch);
/* Frees the batch's halves; its calls must have been done. */
void queue_batch_release(struct queue_batch *batch);
/* Nothing is taken in any more and queue_take() no longer waits. */
void queue_close(struct queue *q);
/* Does something wait? */
bool queue_waiting(struct queue *q);
void queue_stats(struct queue *q, struct queue_stats *stats);

#endif
