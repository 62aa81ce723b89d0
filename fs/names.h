/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finding a message in a snapshot: base name -> cookies. Built when a live folder is first patched or asked for a
 * name.
 *
 * Shapes: 8 bytes a slot, at most 7/8 full: a tag of 16 hash bits and a cookie of 48.
 * Ownership: the caller's memory, tables inside.
 * Threads: the live folder's lock.
 * Errors: -ENOMEM leaves the index empty (it is built again at the next use).
 */
#ifndef MAILDEX_FS_NAMES_H
#define MAILDEX_FS_NAMES_H

#include "fs/snapshot.h"

struct names {
	uint64_t *slots; /* NULL: not built */
	size_t mask;
	size_t filled; /* in use or deleted */
};

void names_init(struct names *n);
void names_release(struct names *n);
/* Builds it from a snapshot unless it is built. Returns 0 or -ENOMEM. */
int names_build(struct names *n, const struct snapshot *s);
/* The entries of the same base name, at most max. Returns how many there are (may exceed max). */
size_t names_find(const struct names *n, const struct snapshot *s, const char *name, size_t len,
		  struct snapshot_entry *out, size_t max);
/* Follows a patch; released (to be built anew) when memory or room runs out. */
void names_added(struct names *n, const char *name, size_t len, uint64_t cookie);
void names_removed(struct names *n, const char *name, size_t len, uint64_t cookie);

#endif
