/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What maildexd counts, for status. One table says the names.
 *
 * Flow: tally_add() from anywhere; tally_print() for status.
 * Ownership: plain memory, zeroed by its owner. Threads: any. Errors: none.
 */
#ifndef MAILDEX_INDEXER_TALLY_H
#define MAILDEX_INDEXER_TALLY_H

#include <stdatomic.h>
#include <stdint.h>

#include "lib/base/buf.h"

enum tally_key {
	TALLY_EVENTS_RECEIVED,
	TALLY_EVENTS_APPLIED,
	TALLY_EVENTS_LOOKED_UP, /* events that needed a lookup in the lower tree */
	TALLY_EVENTS_IGNORED,   /* of halves that the index does not hold */
	TALLY_EVENTS_REFUSED,   /* malformed, or not for this peer to say */
	TALLY_GAPS,
	TALLY_RENAMES, /* of directories */
	TALLY_SCANS_DONE,
	TALLY_SCANS_FAILED,
	TALLY_SCANS_HANDED_OVER,
	TALLY_SCANS_TOO_OLD, /* handed over, but the row was newer */
	TALLY_CONFIRM_DONE,
	TALLY_SCRUB_DONE,
	TALLY_REPAIRED_TRUST,
	TALLY_REPAIRED_OTHER,
	TALLY_REPAIRED_DAMAGED, /* halves whose names in the index were damaged: healed */
	TALLY_INDEX_DAMAGED,
	TALLY_INDEX_REOPENED,
	TALLY_BATCHES_DROPPED,
	TALLY_LOWER_LISTINGS,
	TALLY_LOWER_GETATTRS,
	TALLY_LOWER_LOOKUPS,
	TALLY_KEYS
};

struct tally {
	_Atomic uint64_t value[TALLY_KEYS];
};

void tally_add(struct tally *c, enum tally_key which, uint64_t n);
uint64_t tally_get(const struct tally *c, enum tally_key which);
/* Appends "name value\n" of each. */
void tally_print(const struct tally *c, struct buf *out);

#endif
