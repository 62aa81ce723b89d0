/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * REBUILD: every folder at and below the given ones is listed and taken into the index.
 *
 * A walk collects the folders, a second thread gives them to the pool; so the total is known early. A rebuild of all
 * keeps the time of its start in the index until it has ended: the next one goes on from there, and passes over halves
 * that were listed since. Whoever asked for it may go away (^C): then it stops, and can be gone on with. At its end
 * folders that the walk did not meet, and that are really gone, are forgotten.
 *
 * Flow: rebuild_request() from the thread that owns the peers; answers go through the outbox. One at a time.
 * Ownership: borrows; takes the paths. Threads: two of its own while it runs; rebuild_scanned() from the pool.
 * Errors: -EBUSY while one runs; what goes wrong later is told by FAILED and END.
 */
#ifndef MAILDEX_INDEXER_REBUILD_H
#define MAILDEX_INDEXER_REBUILD_H

#include "indexer/rescan.h"

struct rebuild;
struct rebuild *rebuild_new(struct apply *apply, struct store_readers *readers, struct rescan *pool,
			    const struct batch_tools *tools);
/* Stops one that runs. */
void rebuild_free(struct rebuild *b);
/* paths: malloc'ed strings in a malloc'ed array, taken over in any case; all: none are needed. Returns 0 or -EBUSY. */
int rebuild_request(struct rebuild *b, uint64_t peer, bool all, char **paths, size_t n, struct err *e);
/* The peer is gone: a rebuild of its own stops. */
void rebuild_peer_gone(struct rebuild *b, uint64_t peer);
/* Asks a running one to stop, without waiting. */
void rebuild_stop(struct rebuild *b);
/* The pool's listener (arg: the rebuild). */
void rebuild_scanned(void *arg, const struct rescan_result *result);
/* "idle" or "running DONE/KNOWN". */
void rebuild_state(struct rebuild *b, char *out, size_t size);

#endif
