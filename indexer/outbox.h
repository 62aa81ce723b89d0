/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages that other threads have for peers of the socket: handed to the thread that owns the peers.
 *
 * Flow: outbox_feed() and outbox_send() from any thread; the owner watches outbox_fd() and calls outbox_take().
 * Shapes: at most OUTBOX_BYTES wait; what does not fit any more is dropped and told by outbox_take() (the owner then
 * ends its FS peers, who treat that as a gap).
 * Ownership: a message's bytes move in. Threads: any senders, one taker. Errors: none.
 */
#ifndef MAILDEX_INDEXER_OUTBOX_H
#define MAILDEX_INDEXER_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/mail/event.h"

#define OUTBOX_BYTES (64u << 20)

struct outbox;

struct outbox_message {
	struct outbox_message *next;
	uint64_t to;     /* a peer, or 0: every FS peer */
	uint64_t except; /* ... but this one */
	struct buf bytes;
};

struct outbox *outbox_new(void);
void outbox_free(struct outbox *o);
/* Readable while something waits. */
int outbox_fd(const struct outbox *o);
/* Makes a FEED message. Returns it, or NULL without memory. */
struct outbox_message *outbox_feed(const struct event *ev, uint64_t except);
/* Makes a message to one peer of what b holds (b is left empty). */
struct outbox_message *outbox_to(uint64_t peer, struct buf *b);
/* Sends a list of them (NULL: none). */
void outbox_send(struct outbox *o, struct outbox_message *list);
/* Takes all that wait; *dropped: some were lost. */
struct outbox_message *outbox_take(struct outbox *o, bool *dropped);
void outbox_list_free(struct outbox_message *list);

#endif
