/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Own changes: what was done to a half through this mount. The live folder is patched before the reply, so that the
 * very next opendir shows it (law 3); the event to maildexd goes out after it.
 *
 * Flow: own_begin() before the lower call, own_end() after it, for each half that the call touches (a rename between
 * halves: two).
 * Shapes: in a half of window_min names or more, a burst of changes (50 ms) shares one window: `pre` once before the
 * first, `post` by the next check or 50 ms later.
 * Ownership: struct own is the caller's; it pins the live folder between the two calls.
 * Threads: any.
 * Errors: none: what cannot be patched becomes need.
 */
#ifndef MAILDEX_FS_OWN_H
#define MAILDEX_FS_OWN_H

#include "lib/mail/event.h"

struct fs;
struct live;
struct node;

struct own {
	bool is_half;
	struct node *dir;
	struct live *live; /* NULL: not in memory; maildexd is told all the same */
};

/* dir: the directory that is about to change; dirfd its descriptor. */
void own_begin(struct fs *fs, struct node *dir, int dirfd, struct own *own);
/* result: 0 or negative errno of the lower call. changes: what it did if it succeeded. */
void own_end(struct fs *fs, struct own *own, int result, const struct change *changes, size_t nchanges);
/* The after-job of changes without a window, 50 ms after the first. */
void own_hints_due(struct fs *fs, struct live *l);
/* A name was looked up and is not there: if it is listed, the listing is wrong. */
void own_missing(struct fs *fs, struct node *dir, const char *name);
/* The after-job at a burst's end. A burst that is younger has a job of its own. */
void own_burst_ends(struct fs *fs, struct live *l);

#endif
