/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index file as its one writer sees it: opened, found damaged, deleted under us, or full, and how it comes back.
 * The index is a cache: whatever happens to it, it is made anew and filled again.
 *
 * Guarded against: damage that only readers meet, as the writer has the pages in memory. Each check opens the index
 * anew, and reads all rows if a reader told of damage with indexfile_seen(). One half's names are none of its business:
 * a listing replaces them (relist.h).
 *
 * Flow: indexfile_open(); indexfile_check() once a second; after a failed transaction indexfile_failed().
 * Ownership: the writer is this struct's. Threads: opened by one thread and then used by the applier only, but for
 * indexfile_state() and indexfile_seen().
 * Errors: as store.h.
 */
#ifndef MAILDEX_INDEXER_INDEXFILE_H
#define MAILDEX_INDEXER_INDEXFILE_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "indexer/tally.h"
#include "lib/store/writer.h"

struct indexfile {
	const char *path;
	const char *tree;
	struct tally *tally;
	struct store_writer *writer; /* NULL while there is none */
	struct store_readers
		*readers; /* maildexd's, or NULL: what they hold must go before a writer opens another file */
	dev_t dev;
	ino_t ino;
	_Atomic bool suspect; /* a reader met damage */
	bool gap;             /* events were dropped: to be written as soon as writing works */
	pthread_mutex_t lock;
	char text[ERR_TEXT_MAX]; /* what is wrong, "" for nothing */
};

/* Returns 0 or negative errno (a damaged file is moved aside and made anew, which is no error). */
int indexfile_open(struct indexfile *f, const char *path, const char *tree, struct tally *tally, struct err *e);
void indexfile_close(struct indexfile *f);
/* Is the file at the path still ours, and sound as far as anybody knows? If not, makes it anew. Returns 0, or negative
 * errno where that failed. */
int indexfile_check(struct indexfile *f);
/*
 * A transaction failed with r and was rolled back. Returns true if it is worth trying it again at once (the index was
 * damaged and is new now); else the state is told and the caller waits before it tries anything.
 */
bool indexfile_failed(struct indexfile *f, int r, const struct err *e);
/* A reader of maildexd got this answer: -EUCLEAN makes the next check look. From any thread. */
void indexfile_seen(struct indexfile *f, int r);
/* A transaction worked. */
void indexfile_worked(struct indexfile *f);
void indexfile_state(struct indexfile *f, char out[ERR_TEXT_MAX]);

#endif
