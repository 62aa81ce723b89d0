/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two listings of one half, by the index and by the disk, compared by name and inode.
 *
 * Shapes: either may be in any order. Ownership: entries borrow from the listings.
 * Threads: any. Errors: -ENOMEM.
 */
#ifndef MAILDEXCTL_DIFF_H
#define MAILDEXCTL_DIFF_H

#include "lib/mail/listing.h"

enum diff_kind { DIFF_MISSING, DIFF_EXTRA, DIFF_INODE };

struct difference {
	enum diff_kind kind;
	struct listing_entry entry; /* the disk's; the index's where it is only there */
};

/*
 * Fills *out (an array of *count, to be freed), ordered by name. Returns 0 or -ENOMEM.
 */
int diff_listings(const struct listing *index, const struct listing *disk, struct difference **out, size_t *count);

#endif
