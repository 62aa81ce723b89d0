/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * At the end of a rebuild: folders in the index that the walk did not meet, and that are really gone, are forgotten.
 *
 * Flow: sweep_init(), sweep_seen() for each folder met, sweep_run() per subtree, sweep_release().
 * Ownership: paths are borrowed. Threads: one. Errors: what can't be told is kept.
 */
#ifndef MAILDEX_INDEXER_SWEEP_H
#define MAILDEX_INDEXER_SWEEP_H

#include "indexer/apply.h"
#include "lib/store/reader.h"

struct sweep {
	const char **seen;
	size_t n, cap;
	bool sorted;
};

/* Room for `cap` folders. Returns 0 or -ENOMEM. */
int sweep_init(struct sweep *s, size_t cap);
void sweep_release(struct sweep *s);
void sweep_seen(struct sweep *s, const char *folder);
/* Returns how many were forgotten. *stop ends it early. */
unsigned sweep_run(struct sweep *s, struct apply *apply, struct store_readers *readers, struct lower *lower,
		   const char *below, const _Atomic bool *stop);

#endif
