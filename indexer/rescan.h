/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pool that lists halves of the lower tree: at most `scans` threads, what is asked for by an administrator before
 * confirm, before late listings, before scrub; each half at most once.
 *
 * The races guarded against:
 * - Events are applied to the row while it is listed: rescan_touched() marks the scan, and takeover.h says what follows
 *   (once more, or need stays).
 * - A folder is renamed or removed meanwhile: a row is dropped only if the tree is there before and after, and the
 * whole chain of parents says ENOENT.
 * - The tree goes away: the scan fails, the row stays.
 *
 * Flow: rescan_start(); rescan_add() ... ; rescan_stop() after apply_stop() (a worker may be waiting for the applier).
 * Ownership: borrows. Threads: any; done() runs in a worker. Errors: negative errno.
 */
#ifndef MAILDEX_INDEXER_RESCAN_H
#define MAILDEX_INDEXER_RESCAN_H

#include "indexer/apply.h"
#include "lib/store/reader.h"

/* In order of priority. */
enum rescan_why { RESCAN_REBUILD, RESCAN_CONFIRM, RESCAN_LATE, RESCAN_SCRUB, RESCAN_WHYS };

#define RESCAN_LATE_MAX 10000

struct rescan_result {
	const char *folder;
	enum half half;
	uint64_t cookie;
	int code; /* 0, or negative errno with a text; -ECANCELED at the end */
	const char *text;
	bool busy; /* events were faster each time: the row is left to them */
	bool gone; /* it isn't there any more; its rows were dropped */
	uint64_t messages;
};
struct rescan_listener {
	void *arg;
	void (*done)(void *arg, const struct rescan_result *result);
};

struct rescan;
struct rescan *rescan_new(unsigned threads, struct apply *apply, struct store_readers *readers,
			  const struct batch_tools *tools);
void rescan_free(struct rescan *p);
/* Before rescan_start(): who is told of the ends of scans asked for by `why`. */
void rescan_listen(struct rescan *p, enum rescan_why why, struct rescan_listener listener);
int rescan_start(struct rescan *p, struct err *e);
/* Ends the scans under way (waits for them) and forgets the others (their listeners are told -ECANCELED). */
void rescan_stop(struct rescan *p);
/*
 * Asks for a scan. One that waits or runs already serves (its listener is told too; the cookie is the latest). Returns
 * 0, -ENOSPC for a late one too many, -ENOMEM or -ESHUTDOWN.
 */
int rescan_add(struct rescan *p, const char *folder, enum half half, enum rescan_why why, uint64_t cookie);
/* Forgets those of that priority that have not begun (who asked for them is told -ECANCELED). */
void rescan_cancel(struct rescan *p, enum rescan_why why);
/* Events were applied to the half. */
void rescan_touched(struct rescan *p, const char *folder, enum half half);
unsigned rescan_running(struct rescan *p);

#endif
