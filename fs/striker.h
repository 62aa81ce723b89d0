/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads that make and remove a name through our own mount, for rings (ring.h). They have a table of file descriptors
 * of their own, with the way into the mount (ownmount.h) in it and nothing else.
 *
 * Flow: strikers_start(), ownmount_mounted(&s->mount) once the mount is there, strikers_strike(), and strikers_stop()
 * after the unmount, when nobody strikes any more.
 * Ownership: borrows the mount point's path. What a striker opens is closed by it: the process' other threads can't
 * use it, nor a striker theirs.
 * Threads: strikers_strike() by one thread at a time for each striker.
 * Errors: negative errno.
 */
#ifndef MAILDEX_FS_STRIKER_H
#define MAILDEX_FS_STRIKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "fs/ownmount.h"
#include "lib/base/cred.h"
#include "lib/base/err.h"

#define STRIKERS 2

/* In the directory at `path` below the root, walked as `owner`. Borrowed for the call. */
struct strike {
	const char *path, *name;
	const struct cred *owner;
};

struct striker {
	struct strikers *all;
	pthread_t id;
	_Atomic pid_t tid;           /* as FUSE names the caller */
	const struct strike *strike; /* to be done; NULL: none. Guarded by the strikers' lock, as all below */
	int result;
};

struct strikers {
	pthread_mutex_t lock;
	pthread_cond_t moved; /* a strike came, or is done */
	struct ownmount mount;
	struct striker each[STRIKERS];
	unsigned n;
	bool stop, started;
};

int strikers_start(struct strikers *s, const char *mountpoint, struct err *e);
void strikers_stop(struct strikers *s);
/* Returns when the name was there and is gone again. -EXDEV: what is at the mount point is not our mount. */
int strikers_strike(struct strikers *s, unsigned i, const struct strike *strike);

#endif
