/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listings of the disk taken over into the index (rules 3 and 8): those that maildexfs hands over, and our own.
 *
 * A listing replaces the row and its names together, or not at all. A handed-over one does if it began no earlier than
 * all that the row holds. Our own does so too, or if nothing was applied to the row while it was made (then the stamps
 * may also have gone back, as after a restore); else it is made once more.
 *
 * Threads: the applier's, inside a transaction. Errors: the store's negative errno.
 */
#ifndef MAILDEX_INDEXER_TAKEOVER_H
#define MAILDEX_INDEXER_TAKEOVER_H

#include "indexer/batch.h"
#include "lib/mail/scan.h"
#include "lib/mail/wire.h"

enum takeover_verdict {
	TAKEOVER_DONE,
	TAKEOVER_AGAIN, /* the row changed meanwhile: list once more */
	TAKEOVER_GONE   /* the row was dropped meanwhile, and isn't asked for */
};

struct takeover {
	const char *folder;
	enum half half;
	const struct scan *scan;
	/* The row when the scan began (id 0: none; damaged: its checksum was wrong). */
	int64_t id;
	uint64_t gen;
	bool need;
	bool damaged;
	bool create;                   /* also if there is no row */
	bool last;                     /* no further attempt: take it if the rules allow it at all */
	const _Atomic bool *disturbed; /* events were applied to the half since */
	/* Out. */
	enum takeover_verdict verdict;
	uint64_t changed; /* names put or removed */
};

/* A scan by maildexfs; `row` is in the index and is to be saved afterwards. Returns 0 or negative errno. */
int takeover_handed(struct batch *b, struct store_row *row, const struct wire_scan *scan, struct err *e);
/* A scan of our own. Returns 0 with t->verdict, or negative errno. */
int takeover_own(struct batch *b, struct takeover *t, struct err *e);

#endif
