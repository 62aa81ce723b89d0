/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What live_open.c and live_scan.c share, all called with the live folder's lock.
 */
#ifndef MAILDEX_FS_LIVE_PRIVATE_H
#define MAILDEX_FS_LIVE_PRIVATE_H

#include "fs/live.h"

/* Lists the directory as `who` and takes the result over; drops the lock meanwhile. stamp: read just before, or NULL.
 * Returns 0 or negative errno. */
int live_scan(struct fs *fs, struct live *l, int dirfd, const struct cred *who, const struct stamp *stamp,
	      bool *repaired);
/* Waits until neither a scan nor an own change is under way. */
void live_await_quiet(struct live *l);
/* A scan or a load is over: whoever waits for it goes on. */
void live_scanning_ends(struct live *l);
/* A reading that was asked for at asked_ns: with the one before it, it tells if the server's clock was set back. */
void live_watch_clock(struct live *l, const struct stamp *s, int64_t asked_ns);
/* The inode that ".." shows. */
uint64_t live_parent_ino(struct fs *fs, struct node *n);

#endif
