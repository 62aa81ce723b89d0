/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The applier: the one thread that writes the index. It takes batches from the queue, each one transaction, and does
 * what other threads ask for between them.
 *
 * A batch that can't be written for want of disk space is dropped whole: the rows stay as they were, which is right by
 * rule 8, and a gap is written before anything else is (the events may have stood inside a window). Meanwhile the queue
 * fills and collapses. A locked index (somebody's sqlite3) only makes the batch wait.
 *
 * Flow: apply_start(); apply_takeover() and so on from other threads; queue_close(), apply_stop().
 * Ownership: borrows all that it is given. Threads: apply_start/stop by one thread; the rest by any but the applier
 * itself, waiting until it is done.
 * Errors: negative errno with a text; -ESHUTDOWN at the end.
 */
#ifndef MAILDEX_INDEXER_APPLY_H
#define MAILDEX_INDEXER_APPLY_H

#include <pthread.h>
#include <stdbool.h>

#include "indexer/batch.h"
#include "indexer/indexfile.h"
#include "indexer/queue.h"
#include "indexer/takeover.h"

#define APPLY_BATCH 512
#define APPLY_FACT_MAX 65536
/* So many renames wait at most, as anybody who may rename directories can make them faster than they are written. */
#define APPLY_RENAMES_MAX 4096

struct apply {
	struct batch_tools tools;
	struct queue *queue;
	struct indexfile *file;
	pthread_t thread;
	bool started;
	bool failing; /* the last transaction could not be written */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stop;
	_Atomic size_t renames; /* that wait */
};

/* Fields tools, queue and file are set by the caller. Returns 0 or negative errno. */
int apply_start(struct apply *a, struct err *e);
/*
 * The queue was closed: applies what waits in it, but for no longer than grace_ns, and ends; whoever still waits is
 * told -ESHUTDOWN. If all was applied, writes the fact `key` = value and returns true.
 */
bool apply_stop(struct apply *a, int64_t grace_ns, const char *key, const char *value);

/* Takes over a scan. Returns 0 with t->verdict, or negative errno. */
int apply_takeover(struct apply *a, struct takeover *t, struct err *e);
/* Forgets a folder, or all at and below it. Returns 0 or negative errno. */
int apply_forget(struct apply *a, const char *folder, bool below, struct err *e);
/* A directory was renamed: its rows follow. Does not wait; what is too much is dropped. */
void apply_rename(struct apply *a, const char *from, const char *to);
/* Reads a fact into out[APPLY_FACT_MAX]. Returns 1, 0 (there is none) or negative errno. */
int apply_fact(struct apply *a, const char *key, char *out, struct err *e);
/* Writes a fact; NULL removes it. Returns 0 or negative errno. */
int apply_set_fact(struct apply *a, const char *key, const char *value, struct err *e);

#endif
