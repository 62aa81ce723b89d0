/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scanning: one half's directory read from the disk, with as many passes and lookups as rule 3 asks for. The I/O
 * around fresh_scan().
 *
 * Flow: scan_half() with the directory open and credentials set; its result and the names touched meanwhile are then
 * brought together by the owner of the row under its own lock.
 * Ownership: the result's listing is the caller's until scan_release(). What `from` leads to must not change during the
 * call.
 * Threads: any; blocks on the lower filesystem.
 * Errors: negative errno.
 */
#ifndef MAILDEX_MAIL_SCAN_H
#define MAILDEX_MAIL_SCAN_H

#include "lib/mail/event.h"
#include "lib/mail/fresh.h"
#include "lib/mail/listing.h"

struct scan {
	struct listing listing;
	struct fresh_pass last;
	bool unclear;      /* a message was found under no name, and kept: need */
	unsigned listings; /* lower listings made */
	unsigned lookups;  /* lower lookups made */
};

/* What is known of the half; all may be left out. */
struct scan_from {
	const struct listing *before; /* what is listed now */
	bool drop_cache;              /* fresh_scan_drops_cache() of the row */
	const struct stamp *stamp;    /* one that was read just before: it saves a call */
	const struct stamp *known;    /* what the directory showed at known_mono_ns (CLOCK_MONOTONIC), or later */
	int64_t known_mono_ns;
};

/* dirfd: open O_RDONLY | O_DIRECTORY. Returns 0 or negative errno (then nothing is held). */
int scan_half(int dirfd, const struct scan_from *from, struct scan *s);
void scan_release(struct scan *s);

/* A change while a directory was read. */
struct scan_change {
	struct change change;
	bool sure; /* it happened, and nothing newer is known; else somebody says so */
};

/*
 * Messages that were changed while the directory was read, oldest change first: each is looked up under every name that
 * it has or had, and s lists what is there. One that is found under no name is being renamed just now, unless its last
 * sure change took it away: it stays as that change left it, or, where none is sure, as it was read, and s->unclear is
 * set. Returns 0 or negative errno (then s is still to be released).
 */
int scan_touched(int dirfd, const struct listing *before, const struct scan_change *changes, size_t n, struct scan *s);

/*
 * Looks one name up in the directory: *entry gets inode and type (len 0 if it is not there), *nlink the link count.
 * Returns 0 or negative errno (ENOENT is no error here).
 */
int scan_lookup(int dirfd, const char *name, size_t len, struct listing_entry *entry, uint32_t *nlink);

/*
 * For tests of races only, NULL otherwise: called between the system calls of a scan, so that a change can be made
 * exactly there.
 */
enum scan_stage {
	SCAN_STAMPED, /* S0 was read, the listing was not */
	SCAN_LISTED,  /* the listing was read, S1 was not */
	SCAN_LOOKING, /* all passes are done, lookups begin; again before those of touched messages */
	SCAN_LOOKED   /* a name was looked up; `pass` counts them */
};
extern void (*scan_test_hook)(enum scan_stage stage, unsigned pass);

#endif
