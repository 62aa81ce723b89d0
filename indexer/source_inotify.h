/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Arrivals in new/ below root, as inotify tells of them: deliveries by local agents that tell nobody. Changes of other
 * hosts on NFS are not seen: inotify knows this kernel's own.
 *
 * What is seen is told without a window and looked up by whoever applies it; so are maildexfs's own deliveries, which
 * the index has by then. cur/ is not watched.
 *
 * Flow: a struct source. Until all is watched, and where no more watches are to be had, mail is seen when a folder is
 * opened, as without it.
 * Ownership: borrows. Threads: its own does everything, as libinotifytools has one global state; status from the main
 * thread. One at a time in a process. Errors: start() only for want of a thread; what is wrong otherwise is logged, told
 * by status, and tried again. stop() waits a second at most; what goes on longer ends before _free() returns.
 */
#ifndef MAILDEX_INDEXER_SOURCE_INOTIFY_H
#define MAILDEX_INDEXER_SOURCE_INOTIFY_H

#include "indexer/lower.h"
#include "indexer/source.h"
#include "indexer/tally.h"

/* every_ns: how often all of the tree is gone through for what nobody told of. Returns NULL without memory. */
struct source *source_inotify_new(struct lower *lower, struct tally *tally, int64_t every_ns);
void source_inotify_free(struct source *s);

#endif
