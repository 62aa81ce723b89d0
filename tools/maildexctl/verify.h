/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One half of one folder, index against disk.
 *
 * Flow: verify_half() per row of the index; verify_found_release().
 * Ownership: what was found owns both listings, from which the differences borrow.
 * Threads: one. Errors: negative errno with a text.
 */
#ifndef MAILDEXCTL_VERIFY_H
#define MAILDEXCTL_VERIFY_H

#include "lib/mail/scan.h"
#include "lib/mail/tree.h"
#include "lib/store/reader.h"
#include "tools/maildexctl/diff.h"

enum verify_state {
	VERIFY_COMPARED,
	VERIFY_VANISHED, /* the row went meanwhile: nothing to say */
	VERIFY_GONE,     /* in the index, not on disk */
	VERIFY_UNREADABLE,
	VERIFY_DAMAGED /* the row's checksum is wrong */
};

struct verify_found {
	enum verify_state state;
	bool claimed; /* the index holds this listing for right: it would be served */
	uint64_t messages;
	struct listing index;
	struct scan disk;
	struct difference *differences;
	size_t count;
	struct err why; /* VERIFY_UNREADABLE */
};

/* Returns 0 or negative errno (nothing can be compared any more: the index or the tree is out of reach). */
int verify_half(struct store_reader *r, const struct tree *t, const char *folder, enum half half,
		struct verify_found *f, struct err *e);
void verify_found_release(struct verify_found *f);

#endif
