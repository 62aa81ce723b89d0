/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A listing: the names of one directory half in one packed piece of memory; what scans produce, the index stores and
 * loads, and maildexfs hands to maildexd.
 *
 * Shapes: records one behind the other: u64 inode, u8 type (DT_* of readdir(3)), u8 name length, the name's bytes; no
 * padding. `sum` is the order-free checksum: the sum mod 2^64 of listing_entry_hash() over all entries. "." and ".." are
 * never in it, nor .nfsXXXX names.
 * Ownership: a struct listing owns its bytes until listing_release().
 * Threads: one at a time.
 * Errors: -ENOMEM; -EBADMSG for bytes that are no listing.
 */
#ifndef MAILDEX_MAIL_LISTING_H
#define MAILDEX_MAIL_LISTING_H

#include <dirent.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/mail/name.h"

struct listing {
	struct buf bytes;
	uint64_t count;
	uint64_t sum;
};

struct listing_entry {
	uint64_t ino;
	uint8_t type;
	uint8_t len;
	const char *name; /* borrowed, not NUL-terminated */
};

void listing_init(struct listing *l);
void listing_release(struct listing *l);
void listing_reset(struct listing *l);
/* Adds an entry at the end. Returns 0 or -ENOMEM. */
int listing_add(struct listing *l, const struct listing_entry *entry);
/* The hash of a name with a seed. */
uint64_t listing_hash(const char *name, size_t len, uint64_t seed);
/* The checksum's part of one entry. A regular file's type leaves the seed as it is. */
static inline uint64_t listing_entry_hash(const struct listing_entry *entry)
{
	return listing_hash(entry->name, entry->len, entry->ino ^ (uint64_t)(entry->type ^ DT_REG) << 56);
}
/* Iterates: *at starts at 0. Returns 1 with an entry, 0 at the end. The bytes must have been checked or made here. */
int listing_next(const struct listing *l, size_t *at, struct listing_entry *entry);
/* Takes foreign bytes (copied) and checks every record, count and sum. Returns 0 or -EBADMSG/-ENOMEM. */
int listing_parse(struct listing *l, const void *data, size_t len, uint64_t count, uint64_t sum);

/*
 * Reads a directory (from its start) with getdents64 into l. A message's name of type DT_UNKNOWN becomes DT_REG. *all
 * counts every name but "." and "..", .nfs names too (for sizecount_learn). EREMOTEIO is retried once. Returns 0 or
 * negative errno.
 */
int listing_read(int dirfd, struct listing *l, uint64_t *all);

#endif
