/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who sends numbered events, and whether any are missing (rule 7). Sequences prove that what was sent arrived; they
 * never raise anything.
 *
 * Flow: origins_saw() per numbered event, in the order of arrival. At a clean end origins_print() is stored, and
 * origins_parse() takes it at the next start: without it, whatever was sent meanwhile is a gap.
 * Shapes: an origin numbers its events 1, 2, 3, ... within an epoch, which is new at each of its starts, or whenever it
 * may have dropped some. A new epoch is a hole unless the one before ended with a goodbye: what was dropped in between
 * never had a number here. So is the first epoch of an origin that is not known.
 * Ownership: the struct owns its names until origins_release(). Threads: one. Errors: -ENOMEM, -EBADMSG.
 */
#ifndef MAILDEX_INDEXER_ORIGINS_H
#define MAILDEX_INDEXER_ORIGINS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

struct origin;
struct origins {
	struct origin *first;
};

enum origins_verdict {
	ORIGINS_NEXT,    /* the one that was due */
	ORIGINS_DOUBLED, /* seen before: safe, but its window proves nothing any more */
	ORIGINS_HOLE     /* something before it never arrived */
};

void origins_init(struct origins *o);
void origins_release(struct origins *o);
enum origins_verdict origins_saw(struct origins *o, const char *name, uint64_t epoch, uint64_t sequence);
/* It said that nothing follows in this epoch. */
void origins_goodbye(struct origins *o, const char *name);
/* Appends one line an origin. */
void origins_print(const struct origins *o, struct buf *out);
/* Takes what origins_print() wrote. Returns 0 or negative errno (then nothing is kept). */
int origins_parse(struct origins *o, const char *text);

#endif
