/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What STATUS answers: lines "key value\n" about all of maildexd.
 *
 * Ownership: borrows. Threads: the main thread. Errors: what can't be read now is told as zero, and in maildexd.state.
 */
#ifndef MAILDEX_INDEXER_STATUS_H
#define MAILDEX_INDEXER_STATUS_H

#include "indexer/apply.h"
#include "indexer/rebuild.h"
#include "indexer/rescan.h"
#include "indexer/source.h"

struct status_tools {
	const struct conf *conf;
	struct lower *lower;
	struct queue *queue;
	struct indexfile *file;
	struct store_readers *readers;
	struct rescan *pool;
	struct rebuild *rebuild;
	struct tally *tally;
	struct source *const *sources;
	size_t nsources;
	int64_t started_ns; /* CLOCK_MONOTONIC */
};

void status_print(const struct status_tools *t, struct buf *out);

#endif
