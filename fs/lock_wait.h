/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks that somebody else holds: asked for again and again, with growing pauses, by one thread for each storage, so that
 * a waiting lock takes no worker, and storage that hangs keeps nobody on another one from a lock.
 *
 * Flow: lock_attempt() in the worker; if that says -EAGAIN, lock_wait(), which answers the request now or later;
 * lock_wait_released() when a handle goes; lock_wait_end() when all workers are gone and the
 * session is still there.
 * Ownership: a request that waits is copied.
 * Threads: any.
 * Errors: negative errno of fcntl(2) and flock(2); who waits and is interrupted is answered EINTR at once; while it is
 * asked for, only if it is killed (storage may hang): a lock that it gets after that is given back.
 */
#ifndef MAILDEX_FS_LOCK_WAIT_H
#define MAILDEX_FS_LOCK_WAIT_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/fs.h"
#include "fs/fuse.h"

/* A lock asked for; fcntl's where flock_op is 0. */
struct lock_request {
	struct fs *fs;
	fuse_req_t req; /* until it is answered */
	pid_t thread;   /* the caller */
	uid_t uid;
	gid_t gid;
	struct node *node;
	struct handle *handle;
	uint64_t owner;
	struct flock lock;
	int flock_op;
};

/* One lower call, with the thread's credentials. Returns 0, or -1 with errno; EAGAIN: held by somebody else. */
int lock_attempt(const struct lock_request *r);
/* Takes back what was had for a caller who does not wait any more. */
void lock_undo(const struct lock_request *r);

/* until_closed: refused as soon as no close of the file is under way; else waited for. */
void lock_wait(const struct lock_request *r, bool until_closed);
/* Answers those who were killed while they are asked for, once libfuse has noted that they are interrupted. Returns true if
 * others were interrupted, and may be killed yet. */
bool lock_wait_killed(void);
void lock_wait_released(struct handle *h);
void lock_wait_end(void);

#endif
