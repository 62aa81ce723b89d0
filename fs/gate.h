/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may hold how many workers: requests of one storage (a filesystem below the root) take at most a part of them, so
 * that storage that hangs leaves workers for the others. What is too much waits here, without a worker. Decisions only.
 *
 * Flow: gate_enter() for each request that was received: to be run now, or kept; gate_leave() when one is done gives the
 * next to be run by the same worker. gate_remove() takes one out that waits.
 * Shapes: `limit` of one storage and `all` of the gate at a time; each storage's requests are run in their order. Where all
 * are taken, those who wait take turns by storage.
 * Ownership: items belong to the gate while they wait, else to the caller.
 * Threads: the caller's lock.
 * Errors: none: where there is no memory for another storage, its requests go uncounted.
 */
#ifndef MAILDEX_FS_GATE_H
#define MAILDEX_FS_GATE_H

#include <stdbool.h>
#include <sys/types.h>

/* Part of what the caller makes of a request. */
struct gate_item {
	struct gate_item *next;
	dev_t dev;
};

#define GATE_SLOTS 256
/* The place of a storage in tables of so many. */
static inline unsigned gate_slot(dev_t dev)
{
	return (unsigned)((dev ^ dev >> 8 ^ dev >> 20) % GATE_SLOTS);
}

struct gate_storage {
	struct gate_storage *next;      /* in its slot */
	struct gate_storage *turn_next; /* among those who wait for a worker; in_turn */
	bool in_turn;
	dev_t dev;
	unsigned busy;
	struct gate_item *first, **last; /* waiting */
};

struct gate {
	unsigned limit, all, busy;
	struct gate_storage *slots[GATE_SLOTS];
	struct gate_storage *turn_first, **turn_last; /* may run as soon as a worker is free */
};

void gate_init(struct gate *g, unsigned limit, unsigned all);
/* Nothing may be under way or wait any more. */
void gate_release(struct gate *g);
/* Returns true if it is to be run now; else it waits. */
bool gate_enter(struct gate *g, struct gate_item *item);
/* One of this storage is done. Returns the next to be run, or NULL. */
struct gate_item *gate_leave(struct gate *g, dev_t dev);
/* Takes a waiting one out for which is() is true; NULL if there is none. */
struct gate_item *gate_remove(struct gate *g, bool (*is)(const struct gate_item *item, const void *arg),
			      const void *arg);

#endif
