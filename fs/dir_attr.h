/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attributes of directories on NFS: what a stat of one says, without a call where the NFS client itself would make
 * none. (The times of new/ and cur/ that are shown come on top: fresh_mtime_ns().)
 *
 * The kernel checks each step of a path with our GETATTR (default_permissions), again after each change in the
 * directory. A plain NFS mount answers such checks from its ACCESS cache; it asks for times only when somebody wants
 * them, which we cannot tell. NFS 4 drops the times with each own change: a login of Courier, which makes and removes
 * three files in tmp/, made nine GETATTRs for nothing.
 *
 * Flow: dir_attr_begin(), a statx(2) for DIR_ATTR_LIGHT only (mode, owner, links: as fresh as the NFS client has
 * them), dir_attr_merge() adds the rest from here; where it has none, a full statx(2) and dir_attr_keep(). Own changes:
 * dir_attr_changed().
 * Shapes: times and sizes are kept for DIR_ATTR_KEEP_NS, as the NFS client keeps them (acdirmin). After an own change
 * the times are the server's clock as far as we know it: changed for sure, and off by milliseconds.
 * Ownership: part of struct node_dir; zero at first.
 * Threads: any.
 */
#ifndef MAILDEX_FS_DIR_ATTR_H
#define MAILDEX_FS_DIR_ATTR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "lib/base/clock.h"

#define DIR_ATTR_LIGHT (STATX_TYPE | STATX_MODE | STATX_UID | STATX_GID | STATX_INO | STATX_NLINK)
#define DIR_ATTR_KEEP_NS (30 * NS_PER_S)

struct dir_attr {
	struct statx stx;
	int64_t read_ns;  /* CLOCK_MONOTONIC; 0: nothing is known */
	uint64_t changes; /* own ones */
};

/* Before the reading that dir_attr_keep() is given. */
uint64_t dir_attr_begin(struct dir_attr *a);
/* Fills what stx (a light reading) lacks. Returns false if it is not known; stx is then as it was. */
bool dir_attr_merge(struct dir_attr *a, struct statx *stx, int64_t now_ns);
/* A full reading, unless something was changed since dir_attr_begin() returned `begun`. */
void dir_attr_keep(struct dir_attr *a, const struct statx *stx, int64_t now_ns, uint64_t begun);
/* An own change of an entry, done at server_now_ns or later. */
void dir_attr_changed(struct dir_attr *a, int64_t server_now_ns);
/* The next reading is a full one: its attributes were set. */
void dir_attr_forget(struct dir_attr *a);

#endif
