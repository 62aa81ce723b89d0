/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One half listed by maildexd itself, from the row before to the row after. See rescan.h for the races.
 *
 * Threads: a worker's (cred_thread_start() was called). Errors: negative errno with a text.
 */
#ifndef MAILDEX_INDEXER_RELIST_H
#define MAILDEX_INDEXER_RELIST_H

#include "indexer/apply.h"
#include "lib/store/reader.h"

struct relist_tools {
	struct apply *apply;
	struct store_readers *readers;
	const struct batch_tools *batch;
};

struct relist {
	const char *folder;
	enum half half;
	bool create;             /* make the row if there is none */
	_Atomic bool *disturbed; /* set by others when events are applied to the half */
	/* Out. */
	bool gone; /* and forgotten */
	bool busy; /* events were faster each time: the row is left to them */
	uint64_t messages;
};

/* Returns 0 or negative errno. */
int relist_half(const struct relist_tools *tools, struct relist *job, struct err *e);

#endif
