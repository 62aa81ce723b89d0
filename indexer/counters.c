/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/counters.h"

#include <inttypes.h>

static const char *const names[COUNTERS] = {
	[COUNT_EVENTS_RECEIVED] = "events.received",
	[COUNT_EVENTS_APPLIED] = "events.applied",
	[COUNT_EVENTS_LOOKED_UP] = "events.looked_up",
	[COUNT_EVENTS_IGNORED] = "events.ignored",
	[COUNT_EVENTS_REFUSED] = "events.refused",
	[COUNT_GAPS] = "gaps",
	[COUNT_SCANS_DONE] = "scans.done",
	[COUNT_SCANS_FAILED] = "scans.failed",
	[COUNT_SCANS_HANDED_OVER] = "scans.handed_over",
	[COUNT_SCANS_TOO_OLD] = "scans.too_old",
	[COUNT_CONFIRM_DONE] = "confirm.done",
	[COUNT_SCRUB_DONE] = "scrub.done",
	[COUNT_REPAIRED_TRUST] = "scrub.repaired_trust",
	[COUNT_REPAIRED_OTHER] = "scrub.repaired_other",
	[COUNT_INDEX_DAMAGED] = "index.damaged",
	[COUNT_INDEX_REOPENED] = "index.reopened",
	[COUNT_BATCHES_DROPPED] = "index.batches_dropped",
	[COUNT_LOWER_LISTINGS] = "lower.listings",
	[COUNT_LOWER_GETATTRS] = "lower.getattrs",
	[COUNT_LOWER_LOOKUPS] = "lower.lookups",
};

void counter_add(struct counters *c, enum counter which, uint64_t n)
{
	atomic_fetch_add_explicit(&c->value[which], n, memory_order_relaxed);
}

uint64_t counter_get(const struct counters *c, enum counter which)
{
	return atomic_load_explicit(&c->value[which], memory_order_relaxed);
}

void counters_print(const struct counters *c, struct buf *out)
{
	for (int i = 0; i < COUNTERS; i++)
		buf_printf(out, "%s %" PRIu64 "\n", names[i], counter_get(c, i));
}
