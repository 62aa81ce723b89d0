/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One transaction of the applier, and what is to happen once it is committed: counts, feed, work for others. After a
 * rollback nothing of it happens, and the batch starts anew.
 *
 * Flow: batch_init(); edits add to it; batch_done() after the commit or batch_drop() after a rollback.
 * Ownership: what was added is the batch's. Threads: the applier's. Errors: without memory an effect is left out: all
 * of them are hints.
 */
#ifndef MAILDEX_INDEXER_BATCH_H
#define MAILDEX_INDEXER_BATCH_H

#include "indexer/tally.h"
#include "indexer/lower.h"
#include "indexer/outbox.h"
#include "lib/base/conf.h"
#include "lib/store/writer.h"

/* Others who want to know what was applied. */
struct apply_hooks {
	void *arg;
	/*
	 * Events were applied to this half, and are committed; nothing else is before this returns. A scan under way
	 * that loaded the row before will so learn of it before it is taken over.
	 */
	void (*touched)(void *arg, const char *folder, enum half half);
	/* The half is on trust now, since then (CLOCK_REALTIME). */
	void (*trusted)(void *arg, const char *folder, enum half half, int64_t since_ns);
	/* Rows at and below this folder came by a rename. */
	void (*renamed)(void *arg, const char *to);
	/* The half should be listed again when there is time. */
	void (*rescan)(void *arg, const char *folder, enum half half);
};

/* What the applier works with. */
struct batch_tools {
	const struct conf *conf;
	struct lower *lower;
	struct outbox *outbox;
	struct tally *tally;
	struct apply_hooks hooks;
};

struct batch_note;
struct batch {
	const struct batch_tools *tools;
	struct store_writer *writer;
	uint64_t counts[TALLY_KEYS];
	struct outbox_message *feed, **feed_tail;
	struct batch_note *notes;
};

void batch_init(struct batch *b, const struct batch_tools *tools, struct store_writer *writer);
void batch_count(struct batch *b, enum tally_key which, uint64_t n);
/* Tells every FS peer but `except`. */
void batch_feed(struct batch *b, const struct event *ev, uint64_t except);
/* Tells every FS peer but `except` that the half's listing may not be what they think. */
void batch_feed_need(struct batch *b, const char *folder, enum half half, uint64_t except);
void batch_trusted(struct batch *b, const struct store_row *row);
void batch_renamed(struct batch *b, const char *to);
void batch_rescan(struct batch *b, const char *folder, enum half half);
void batch_done(struct batch *b);
void batch_drop(struct batch *b);

#endif
