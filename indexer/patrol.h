/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When which place is visited: rounds through all of the tree (the first at the start, then now and then for what nobody
 * told of, and whenever something was missed), places that events tell of in between, and what could not be watched,
 * tried again.
 *
 * A walk of 400,000 folders in one go would load the server, so visits are counted out: PATROL_PER_S a second, with what
 * was not used of the last second.
 *
 * Flow: patrol_step() again and again; patrol_again() when something was missed.
 * Ownership: borrows. Threads: one; `state` is read by any. Errors: none.
 */
#ifndef MAILDEX_INDEXER_PATROL_H
#define MAILDEX_INDEXER_PATROL_H

#include "indexer/place_visit.h"

/*
 * A visit is some 5 to 10 calls to a server that has not been asked lately: 5,000 calls a second, a tenth of what a
 * small server does. 400,000 folders take a quarter of an hour.
 */
#define PATROL_PER_S 500
/* So many at once, before events are read again. */
#define PATROL_STEP 32
/* How often to try again what could not be watched, and how many places at first. */
#define PATROL_RETRY_NS (5 * 1000000000LL)
#define PATROL_RETRY_MIN 32

enum patrol_state { PATROL_WALKING, PATROL_WATCHING, PATROL_LIMITED };

struct patrol {
	struct visit visit;
	int64_t every_ns;           /* from round to round */
	bool walking;               /* a round is under way */
	bool again;                 /* something was missed: another round, telling of all */
	bool told_limit;            /* it was said that there are no more watches */
	size_t retry;               /* how many were tried again last */
	int64_t retry_ns, round_ns; /* CLOCK_MONOTONIC: the next */
	int64_t paid_ns;            /* CLOCK_MONOTONIC: visits are paid for up to here */
	_Atomic int state;
};

/* All else of the visit is the caller's to set. */
void patrol_init(struct patrol *p, int64_t every_ns, const struct visit *visit);
/* Arrivals and changes of directories were missed, anywhere. */
void patrol_again(struct patrol *p);
/* Visits at most PATROL_STEP places. now_ns: CLOCK_MONOTONIC. */
void patrol_step(struct patrol *p, int64_t now_ns);
/* Is something to be done before events come? */
bool patrol_busy(const struct patrol *p);

#endif
