/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What maildexd counts, for status. One table says the names.
 *
 * Flow: counter_add() from anywhere; counters_print() for status.
 * Ownership: plain memory, zeroed by its owner. Threads: any. Errors: none.
 */
#ifndef MAILDEX_INDEXER_COUNTERS_H
#define MAILDEX_INDEXER_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#include "lib/base/buf.h"

enum counter {
	COUNT_EVENTS_RECEIVED,
	COUNT_EVENTS_APPLIED,
	COUNT_EVENTS_LOOKED_UP, /* events that needed a lookup in the lower tree */
	COUNT_EVENTS_IGNORED,   /* of halves that the index does not hold */
	COUNT_EVENTS_REFUSED,   /* malformed, or not for this peer to say */
	COUNT_GAPS,
	COUNT_SCANS_DONE,
	COUNT_SCANS_FAILED,
	COUNT_SCANS_HANDED_OVER,
	COUNT_SCANS_TOO_OLD, /* handed over, but the row was newer */
	COUNT_CONFIRM_DONE,
	COUNT_SCRUB_DONE,
	COUNT_REPAIRED_TRUST,
	COUNT_REPAIRED_OTHER,
	COUNT_INDEX_DAMAGED,
	COUNT_INDEX_REOPENED,
	COUNT_BATCHES_DROPPED,
	COUNT_LOWER_LISTINGS,
	COUNT_LOWER_GETATTRS,
	COUNT_LOWER_LOOKUPS,
	COUNTERS
};

struct counters {
	_Atomic uint64_t value[COUNTERS];
};

void counter_add(struct counters *c, enum counter which, uint64_t n);
uint64_t counter_get(const struct counters *c, enum counter which);
/* Appends "name value\n" of each. */
void counters_print(const struct counters *c, struct buf *out);

#endif
