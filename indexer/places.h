/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The places that inotify is asked about: directories of the lower tree, each with up to two watches, one for what is
 * made in it and one for arrivals in its new/. No system calls: what is here is only what was seen and asked for.
 *
 * Flow: places_init() makes the root; place_child(), place_watch() as directories are met; place_drop() as they go;
 * places_by_wd() for an event. places_push() and places_pop(): which are to be looked at next.
 * Shapes: a place is known by its parent and its name. A watch descriptor belongs to one watch of one place.
 * Ownership: places belong to the struct until they are dropped. Threads: one, but for the counts in it.
 * Errors: NULL without memory.
 */
#ifndef MAILDEX_INDEXER_PLACES_H
#define MAILDEX_INDEXER_PLACES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/mail/event.h"

enum place_what { PLACE_DIR, PLACE_NEW, PLACE_WHATS };

/* To be visited; lacking a watch; with something in `pending`. */
enum places_list { PLACES_TODO, PLACES_UNWATCHED, PLACES_PENDING, PLACES_LISTS };

struct place_watch {
	int wd; /* -1: none */
	dev_t dev;
	ino_t ino;
	struct place *chain; /* others of this hash */
};

struct place_link {
	struct place *prev, *next;
	bool in;
};

struct place {
	struct place *parent;
	struct place *child;       /* the first of its own */
	struct place *next, *prev; /* of the same parent */
	struct place *chain;
	struct place_link link[PLACES_LISTS];
	struct place_watch watch[PLACE_WHATS];
	struct event *pending; /* what arrived and was not told yet */
	uint64_t met;          /* when it was listed last, by any count that grows */
	bool maildir;
	bool round; /* to be looked at with all below it */
	bool tell;  /* what is in new/ when it gets its watch is to be told */
	uint8_t len;
	char name[];
};

struct places_index;
struct places {
	struct place *root;
	struct places_index *index;
	struct place *first[PLACES_LISTS], *last[PLACES_LISTS];
	/* A watch ended. gone: by itself; else it is to be given back. */
	void (*unwatch)(void *arg, int wd, bool gone);
	void *arg;
	_Atomic size_t watches, folders, unwatched; /* read by any thread */
};

/* Returns 0 or -ENOMEM. */
int places_init(struct places *p, void (*unwatch)(void *arg, int wd, bool gone), void *arg);
/* All watches are gone. */
void places_release(struct places *p);

struct place *place_find(struct places *p, const struct place *parent, const char *name, size_t len);
/* Finds or makes; *made tells which. Returns NULL without memory. */
struct place *place_child(struct places *p, struct place *parent, const char *name, size_t len, bool *made);
/* Its path below the root into out[FOLDER_PATH_MAX + 1]. Returns 0 or -ENAMETOOLONG. */
int place_path(const struct place *place, char *out);
/*
 * Forgets it and all below it. gone: it is no longer on disk, and the kernel drops the watches itself; else they are
 * given back. The root stays, without watches and children.
 */
void place_drop(struct places *p, struct place *place, bool gone);
/* Forgets those of its children that were met at another time than `met`; they may be elsewhere by now. */
void place_sweep(struct places *p, struct place *place, uint64_t met);

/* Takes a watch over; one that it had is given back. */
void place_watch(struct places *p, struct place *place, enum place_what what, int wd, dev_t dev, ino_t ino);
/* Its watch ends; gone: as above. */
void place_unwatch(struct places *p, struct place *place, enum place_what what, bool gone);
/* All watches are gone. */
void places_unwatch_all(struct places *p);
/* Returns the place of a watch descriptor, or NULL. */
struct place *places_by_wd(struct places *p, int wd, enum place_what *what);

/* Puts it into a list, at its end or its front, if it isn't in it; takes it out; takes the first (or NULL). */
void places_push(struct places *p, enum places_list list, struct place *place, bool front);
void places_take(struct places *p, enum places_list list, struct place *place);
struct place *places_pop(struct places *p, enum places_list list);

#endif
