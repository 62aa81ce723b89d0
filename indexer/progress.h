/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How far a rebuild is, and what the peer that asked for it is told: PROGRESS at most ten times a second, FAILED, END.
 *
 * Ownership: plain memory; the outbox is borrowed. Threads: the caller's lock. Errors: none; a peer that is gone is
 * told nothing.
 */
#ifndef MAILDEX_INDEXER_PROGRESS_H
#define MAILDEX_INDEXER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "indexer/outbox.h"

#define PROGRESS_EVERY_NS 100000000

struct progress {
	struct outbox *outbox;
	uint64_t peer;
	/* Folders, but for the messages. */
	uint64_t done, known, messages, failed, skipped;
	bool walked;     /* known is all there is */
	int64_t told_ns; /* CLOCK_MONOTONIC */
};

void progress_init(struct progress *p, struct outbox *outbox, uint64_t peer);
/* Tells, if it is time or `now`. */
void progress_tell(struct progress *p, bool now);
/* Counts a folder that failed, and tells of it. */
void progress_failed(struct progress *p, const char *folder, const char *text);
void progress_end(struct progress *p, uint8_t code, const char *text);

#endif
