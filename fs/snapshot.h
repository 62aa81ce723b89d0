/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A packed listing: directory entries in the kernel's own format, ready to be sent; reference-counted, patched by
 * copying only the chunks that change.
 *
 * Flow: snapshot_new(), snapshot_append() in rising order of cookies; snapshot_ref() for each handle that reads it; a
 * patch goes through snapshot_writable() first. Sending: snapshot_gather() fills an iovec, nothing is copied.
 * Shapes: an entry's cookie is its `off`: a number that rises with each entry ever added to the live folder and is
 * never used again in its life, so that a cookie is valid on any handle and in any later snapshot: "after c" is the
 * first entry with a greater one. Entries are struct fuse_dirent of linux/fuse.h. A chunk holds up to SNAPSHOT_CHUNK
 * bytes. "." and ".." have the cookies 1 and 2.
 * Ownership: counted references; a snapshot with more than one is never changed.
 * Threads: references from any; changes under the live folder's lock.
 * Errors: -ENOMEM leaves the snapshot as it was.
 */
#ifndef MAILDEX_FS_SNAPSHOT_H
#define MAILDEX_FS_SNAPSHOT_H

#include <sys/uio.h>

#include "lib/mail/listing.h"

#define SNAPSHOT_CHUNK 16384
#define SNAPSHOT_FIRST_COOKIE 3

struct snapshot;

struct snapshot_entry {
	uint64_t cookie;
	struct listing_entry entry; /* borrows from the snapshot */
};

/* With "." and "..". Returns NULL when out of memory. */
struct snapshot *snapshot_new(uint64_t dir_ino, uint64_t parent_ino);
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s);
/* Entries without "." and "..". */
uint64_t snapshot_count(const struct snapshot *s);
size_t snapshot_bytes(const struct snapshot *s);

/* Makes *s one that nobody else reads. Returns 0 or -ENOMEM. */
int snapshot_writable(struct snapshot **s);
/* Adds behind all; cookie must be greater than any in it. Returns 0 or -ENOMEM. */
int snapshot_append(struct snapshot *s, uint64_t cookie, const struct listing_entry *e);
/* Takes out the entry with this cookie. Returns 0, -ENOENT or -ENOMEM. */
int snapshot_remove(struct snapshot *s, uint64_t cookie);
/* Finds an entry by its cookie. Returns true if it is there. */
bool snapshot_find(const struct snapshot *s, uint64_t cookie, struct snapshot_entry *e);
/* Walks: the first entry behind `cookie` ("." and ".." are passed over). Returns true if there is one. */
struct snapshot_walk {
	const struct snapshot *s;
	size_t chunk, at;
};
void snapshot_walk_init(struct snapshot_walk *w, const struct snapshot *s);
bool snapshot_walk_next(struct snapshot_walk *w, struct snapshot_entry *e);

/*
 * The entries behind `cookie` that fit into `size` bytes, as pieces of memory. Returns the number of pieces (at most
 * max); *entries counts them, *last is the last one's cookie.
 */
int snapshot_gather(const struct snapshot *s, uint64_t cookie, size_t size, struct iovec *iov, int max,
		    uint64_t *entries);

/*
 * A new snapshot with the names of l: entries that stay keep their cookies and order, new ones get cookies from *next
 * on. old may be NULL. *changed: an entry came or went. Returns NULL when out of memory.
 */
struct snapshot *snapshot_merge(const struct snapshot *old, const struct listing *l, uint64_t dir_ino,
				uint64_t parent_ino, uint64_t *next, bool *changed);
/* Copies the entries into l (emptied first). Returns 0 or -ENOMEM. */
int snapshot_to_listing(const struct snapshot *s, struct listing *l);

#endif
