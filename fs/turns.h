/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which half may ring when (ring.h): at most once a second, and once more when the second is over if something came in
 * it. Decisions only: the caller tells the time and does the ringing.
 *
 * Flow: turns_ask() when something happened; turns_next(), the ring, turns_done().
 * Shapes: at most TURNS_MAX halves ring or are quiet at a time. The quiet second starts when a ring is over.
 * Ownership: a turn belongs to the turns, and holds a reference on its node, which knows it (node_dir.turn).
 * Threads: the caller's lock. It comes before the nodes' lock.
 * Errors: -ENOSPC, -ENOMEM: not taken.
 */
#ifndef MAILDEX_FS_TURNS_H
#define MAILDEX_FS_TURNS_H

#include "fs/node.h"

#define TURNS_QUIET_NS 1000000000LL
#define TURNS_MAX 8192

/* A half that is to ring, rings, or rang less than a second ago. */
struct turn {
	struct turn *next;
	struct node *node;
	int64_t quiet_until_ns; /* CLOCK_MONOTONIC */
	bool again;             /* something came since its ring began */
};

struct turns_list {
	struct turn *first, *last;
};

struct turns {
	struct node_table *nodes;
	struct turns_list due, quiet; /* quiet: by time */
	size_t count;
};

void turns_init(struct turns *t, struct node_table *nodes);
/* No turn may be out between turns_next() and turns_done(). */
void turns_release(struct turns *t);
/* Returns 1: new, wake whoever rings; 0: its turn comes anyway; or negative errno. */
int turns_ask(struct turns *t, struct node *half);
/* The next that is to ring, out of the lists until turns_done(); or NULL and when to ask again (INT64_MAX: never). */
struct turn *turns_next(struct turns *t, int64_t now_ns, int64_t *until_ns);
void turns_done(struct turns *t, struct turn *turn, int64_t now_ns);

#endif
