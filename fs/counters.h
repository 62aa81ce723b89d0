/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a mount did, for `maildexctl status`: lower calls made, listings served, events sent.
 * Threads: any (atomics).
 * Errors: none.
 */
#ifndef MAILDEX_FS_COUNTERS_H
#define MAILDEX_FS_COUNTERS_H

#include "lib/base/buf.h"

enum counter {
	COUNT_OPENDIRS,       /* opendir of a new/ or cur/ */
	COUNT_SERVED,         /* of these, answered without a lower listing */
	COUNT_ENTRIES,        /* directory entries of new/ and cur/ given to callers */
	COUNT_LOADS,          /* live folders loaded from the index */
	COUNT_SCANS,          /* scans of a half (each one or more lower listings) */
	COUNT_LOWER_LISTINGS, /* lower listings of new/ and cur/ */
	COUNT_LOWER_GETATTRS, /* forced GETATTRs of new/ and cur/ */
	COUNT_LOWER_LOOKUPS,
	COUNT_OWN_CHANGES,
	COUNT_OWN_WINDOWS,
	COUNT_EVENTS_SENT,
	COUNT_EVENTS_DROPPED, /* maildexd away or too slow: the next opendir lists */
	COUNT_FEED,
	COUNT_RINGS,
	COUNT_RINGS_FAILED,
	COUNT_CONFIRMS,
	COUNT_CONFIRM_REPAIRS,
	COUNT_COMPARED,
	COUNT_COMPARE_DIFFERENCES,
	COUNT_EVICTIONS,
	COUNT_STRAIGHT,    /* opens of files that the kernel reads straight from the lower file */
	COUNT_BESIDE,      /* opens of such files by who writes, or is somebody else */
	COUNT_RECALLED,    /* lookups of messages that were answered without a call */
	COUNT_EARLY,       /* opens of messages that the lookup before had opened below */
	COUNT_LATE,        /* opens of messages that the kernel holds, without a lower open */
	COUNT_LATE_OPENED, /* of these, opened below later */
	COUNT_WAITED,      /* requests that waited because their storage, or all, had as many workers as they may */
	COUNT_KILLED,      /* requests of killed callers that were answered while the call below went on */
	COUNT_INDEX_ERRORS,
	COUNTERS
};

void counter_add(enum counter c, uint64_t n);
uint64_t counter_get(enum counter c);
/* Appends "maildexfs.NAME value\n" for each. */
void counters_print(struct buf *b);

#endif
