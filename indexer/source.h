/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where events come from. Each source (the local socket, inotify; the bus later) is one struct source made by its own
 * file; nothing else knows how they work.
 *
 * Flow: start() once the daemon can take events, stop() at the end, status() now and then.
 * Shapes: what a source tells, it tells through the sink; events were checked (event_decode or made by event_init and
 * change_make), claims of peers that nobody vouches for come without a window.
 * Ownership: sink functions take the event's or scan's content. Threads: start, stop, status in the main thread; the
 * sink from any. Errors: start() negative errno with a text.
 */
#ifndef MAILDEX_INDEXER_SOURCE_H
#define MAILDEX_INDEXER_SOURCE_H

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/mail/event.h"
#include "lib/mail/wire.h"

struct source_sink {
	void *arg;
	/* Something happened. from: whom the feed must not send it back to; 0: nobody. Never waits. */
	void (*event)(void *arg, struct event *ev, uint64_t from);
	/* A listing made elsewhere; takes the malloc'ed scan. Never waits. */
	void (*scan)(void *arg, struct wire_scan *scan, uint64_t from);
	/* A directory was renamed. Never waits. */
	void (*rename)(void *arg, const char *from, const char *to);
	/* Events were lost; why is for the log. */
	void (*gap)(void *arg, const char *why);
};

struct source {
	const char *name;
	int (*start)(struct source *s, const struct source_sink *sink, struct err *e);
	void (*stop)(struct source *s);
	/* Appends lines "key value\n". */
	void (*status)(struct source *s, struct buf *out);
};

#endif
