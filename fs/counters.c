/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/counters.h"

#include <inttypes.h>
#include <stdatomic.h>

static _Atomic uint64_t counts[COUNTERS];

static const char *const names[COUNTERS] = {
	[COUNT_OPENDIRS] = "opendirs",
	[COUNT_SERVED] = "opendirs_without_listing",
	[COUNT_ENTRIES] = "entries_listed",
	[COUNT_LOADS] = "loads",
	[COUNT_SCANS] = "scans",
	[COUNT_LOWER_LISTINGS] = "lower.listings",
	[COUNT_LOWER_GETATTRS] = "lower.getattrs",
	[COUNT_LOWER_LOOKUPS] = "lower.lookups",
	[COUNT_OWN_CHANGES] = "own.changes",
	[COUNT_OWN_WINDOWS] = "own.windows",
	[COUNT_EVENTS_SENT] = "events.sent",
	[COUNT_EVENTS_DROPPED] = "events.dropped",
	[COUNT_FEED] = "events.received",
	[COUNT_RINGS] = "rings.done",
	[COUNT_RINGS_FAILED] = "rings.failed",
	[COUNT_CONFIRMS] = "confirm.done",
	[COUNT_CONFIRM_REPAIRS] = "confirm.repaired",
	[COUNT_COMPARED] = "compare.done",
	[COUNT_COMPARE_DIFFERENCES] = "compare.differences",
	[COUNT_EVICTIONS] = "live.evicted",
	[COUNT_STRAIGHT] = "passthrough.opens",
	[COUNT_BESIDE] = "passthrough.beside",
	[COUNT_RECALLED] = "lookups.recalled",
	[COUNT_EARLY] = "opens.early",
	[COUNT_LATE] = "opens.late",
	[COUNT_LATE_OPENED] = "opens.late.lower",
	[COUNT_WAITED] = "requests.waited",
	[COUNT_KILLED] = "requests.killed",
	[COUNT_INDEX_ERRORS] = "index.errors",
};

void counter_add(enum counter c, uint64_t n)
{
	atomic_fetch_add_explicit(&counts[c], n, memory_order_relaxed);
}

uint64_t counter_get(enum counter c)
{
	return atomic_load_explicit(&counts[c], memory_order_relaxed);
}

void counters_print(struct buf *b)
{
	for (int i = 0; i < COUNTERS; i++)
		buf_printf(b, "maildexfs.%s %" PRIu64 "\n", names[i], counter_get(i));
}
