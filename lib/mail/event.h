/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events: the one vocabulary for what happened to a half, whatever told of it (design 5), and what an event does to
 * the names of a listing. Events are hints: the law holds if any are lost, doubled, late or out of order.
 *
 * Flow: a source makes a struct event (event_init, event_add); event_encode/event_decode carry it over sockets and the
 * bus; whoever holds a listing asks event_plan() per change, given the names that the message has in that listing now.
 * Shapes: at most EVENT_CHANGES_MAX changes, all of one half; ADD (name, ino, type), REMOVE (name), RENAME (old, name,
 * ino, type; within the half; a move between halves is a REMOVE in one and an ADD in the other), LOOK (no name:
 * something happened here), NEED (no name: the sender found the listing wrong).
 * Ownership: an event owns its bytes until event_release().
 * Threads: one at a time.
 * Errors: event_decode() gives -EBADMSG and a text that names what was malformed; nothing is kept.
 */
#ifndef MAILDEX_MAIL_EVENT_H
#define MAILDEX_MAIL_EVENT_H

#include "lib/mail/folder.h"
#include "lib/mail/fresh.h"
#include "lib/mail/listing.h"

#define EVENT_CHANGES_MAX 128
#define EVENT_VERSION 1

enum change_kind { CHANGE_ADD = 1, CHANGE_REMOVE, CHANGE_RENAME, CHANGE_LOOK, CHANGE_NEED };

struct change {
	enum change_kind kind;
	uint8_t type; /* DT_* */
	uint8_t len;
	uint8_t old_len;
	uint64_t ino;
	char name[NAME_LEN_MAX + 1];
	char old[NAME_LEN_MAX + 1];
};

struct event {
	char folder[FOLDER_PATH_MAX + 1];
	enum half half;
	bool windowed;
	struct window window;
	char origin[256];  /* the sending host; "" until it is sent on */
	uint64_t epoch;    /* new at each start of the origin */
	uint64_t sequence; /* per origin; 0: none */
	size_t nchanges;
	struct change *changes;
};

void event_init(struct event *ev, const char *folder, enum half half);
void event_release(struct event *ev);
/* The same on the heap. event_new() returns NULL when out of memory; event_free() takes NULL. */
struct event *event_new(const char *folder, enum half half);
void event_free(struct event *ev);
/* Moves src's content to dst (which is overwritten) and leaves src empty. */
void event_move(struct event *dst, struct event *src);
/* Copies a change in. Returns 0, -ENOSPC when full, -ENOMEM. */
int event_add(struct event *ev, const struct change *c);
/* Makes a change; old may be NULL. Names must be name_ok(). */
void change_make(struct change *c, enum change_kind kind, const char *old, const char *name, uint64_t ino,
		 uint8_t type);
/* Appends the event to b. */
void event_encode(const struct event *ev, struct buf *b);
/* Reads what event_encode() wrote, checking everything. Returns 0 or -EBADMSG. */
int event_decode(struct event *ev, struct cursor *c, struct err *e);
/* The event's own part in rule 5: names added minus removed. */
int64_t event_entries_delta(const struct event *ev);

/*
 * What one change does to a listing. now[]: the entries whose base name is that of change->name or change->old. The
 * plan: at most PLAN_MAX names to remove and PLAN_MAX entries to put.
 */
#define PLAN_MAX 8
enum plan_verdict {
	PLAN_SAME,   /* the listing already says so */
	PLAN_CHANGE, /* remove, then put */
	PLAN_LOOKUP, /* not clear from here: look up look[] and call event_plan_looked() */
	PLAN_UNCLEAR /* too many names: set need */
};
struct plan {
	size_t nremove, nput, nlook;
	struct listing_entry remove[PLAN_MAX];
	struct listing_entry put[PLAN_MAX];
	struct listing_entry look[PLAN_MAX]; /* only name and len count */
};
/* blind: fresh_event() said FRESH_APPLY. Entries borrow from c and now[]. */
enum plan_verdict event_plan(const struct change *c, bool blind, const struct listing_entry *now, size_t nnow,
			     struct plan *plan);
/*
 * The same after the lookups: found[i] tells what plan->look[i] is on disk (len 0: not there). Fills remove and put.
 * Two names found with one inode and a link count of 1 cannot both be there: PLAN_UNCLEAR. nlinks[i] is found[i]'s link
 * count.
 */
enum plan_verdict event_plan_looked(struct plan *plan, const struct listing_entry *now, size_t nnow,
				    const struct listing_entry *found, const uint32_t *nlinks);

#endif
