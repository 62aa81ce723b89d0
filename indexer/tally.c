/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/tally.h"

#include <inttypes.h>

static const char *const names[TALLY_KEYS] = {
	[TALLY_EVENTS_RECEIVED] = "events.received",
	[TALLY_EVENTS_APPLIED] = "events.applied",
	[TALLY_EVENTS_LOOKED_UP] = "events.looked_up",
	[TALLY_EVENTS_IGNORED] = "events.ignored",
	[TALLY_EVENTS_REFUSED] = "events.refused",
	[TALLY_GAPS] = "gaps",
	[TALLY_RENAMES] = "renames",
	[TALLY_SCANS_DONE] = "scans.done",
	[TALLY_SCANS_FAILED] = "scans.failed",
	[TALLY_SCANS_HANDED_OVER] = "scans.handed_over",
	[TALLY_SCANS_TOO_OLD] = "scans.too_old",
	[TALLY_CONFIRM_DONE] = "confirm.done",
	[TALLY_SCRUB_DONE] = "scrub.done",
	[TALLY_REPAIRED_TRUST] = "scrub.repaired_trust",
	[TALLY_REPAIRED_OTHER] = "scrub.repaired_other",
	[TALLY_REPAIRED_DAMAGED] = "scrub.repaired_damaged",
	[TALLY_INDEX_DAMAGED] = "index.damaged",
	[TALLY_INDEX_REOPENED] = "index.reopened",
	[TALLY_BATCHES_DROPPED] = "index.batches_dropped",
	[TALLY_LOWER_LISTINGS] = "lower.listings",
	[TALLY_LOWER_GETATTRS] = "lower.getattrs",
	[TALLY_LOWER_LOOKUPS] = "lower.lookups",
};

void tally_add(struct tally *c, enum tally_key which, uint64_t n)
{
	atomic_fetch_add_explicit(&c->value[which], n, memory_order_relaxed);
}

uint64_t tally_get(const struct tally *c, enum tally_key which)
{
	return atomic_load_explicit(&c->value[which], memory_order_relaxed);
}

void tally_print(const struct tally *c, struct buf *out)
{
	for (int i = 0; i < TALLY_KEYS; i++)
		buf_printf(out, "%s %" PRIu64 "\n", names[i], tally_get(c, i));
}
