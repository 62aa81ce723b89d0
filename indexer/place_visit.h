/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One look at one directory: what it is, which of its watches are missing or wrong, what is in it.
 *
 * A Maildir (new/, cur/ and tmp/ in it) has its new/ watched. Any directory is watched for subdirectories, but for a
 * Maildir++ subfolder (a Maildir in a Maildir, its name with a dot in front), in which none are made: with 400,000
 * folders in 40,000 mailboxes that is 440,000 watches, not 800,000.
 *
 * The races guarded against:
 * - A message arrives in a new folder before its new/ is watched: new/ is listed after the watch is set, and what is
 *   in it is told.
 * - A subdirectory is made while its parent is looked at: the parent is watched before it is listed.
 * - Somebody swaps a directory for a link or another directory meanwhile: descriptors are watched, opened step by step,
 *   and the inode that a watch is of is compared at every visit.
 * - A directory was moved, and the one that it was watched as isn't visited yet: IN_MASK_CREATE refuses a second watch
 *   (-EEXIST); it comes again.
 *
 * Flow: visit_place() for a place of the to-do list. Ownership: borrows. Threads: one, after cred_thread_start().
 * Errors: none: what could not be watched is in the list of unwatched places; `why` keeps the last reason.
 */
#ifndef MAILDEX_INDEXER_PLACE_VISIT_H
#define MAILDEX_INDEXER_PLACE_VISIT_H

#include "indexer/lower.h"
#include "indexer/places.h"

struct visit {
	struct places *places;
	struct lower *lower;
	/* Watches what fd refers to. Returns 0 with *wd, or negative errno. */
	int (*add)(void *arg, int fd, enum place_what what, int *wd);
	/* A name in new/; NULL: something may have happened there. */
	void (*tell)(void *arg, struct place *place, const char *name, size_t len);
	void *arg;
	bool first; /* nobody has looked before: what is in new/ is not news */
	bool look;  /* arrivals may have been missed: folders that were watched are told of, too */
	bool full;  /* -ENOSPC was met */
	int why;    /* negative errno */
	uint64_t count;
};

/* The place may be dropped by it. */
void visit_place(struct visit *v, struct place *place);

#endif
