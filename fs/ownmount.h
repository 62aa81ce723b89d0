/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way into our own mount, for rings (ring.h).
 *
 * umount would say "busy" while a descriptor of ours stands in the mount; so what is held is a detached clone of it,
 * which umount doesn't count, but which keeps the filesystem alive: for OWNMOUNT_KEEP_NS at most. To close it can take
 * long (the kernel waits for all processors, which on a busy machine was seen to take a minute), so a thread does
 * nothing but that, and nobody waits for it; nor for a ring that the lower server holds up: who comes after it gets
 * another clone.
 *
 * Flow: ownmount_start(), ownmount_mounted() once the mount is there; ownmount_get(), calls relative to the descriptor,
 * ownmount_put(); ownmount_stop() when nobody has got it any more.
 * Ownership: borrows the mount point's path. Threads: any.
 * Errors: negative errno; -EXDEV: what is there is not our mount, or it is not there yet.
 */
#ifndef MAILDEX_FS_OWNMOUNT_H
#define MAILDEX_FS_OWNMOUNT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

#define OWNMOUNT_KEEP_NS 100000000LL

struct ownmount {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	pthread_t closer;
	const char *path;
	uint64_t superblock; /* 0: not mounted yet */
	int fd;              /* or -1 */
	unsigned users;
	int64_t since_ns; /* CLOCK_MONOTONIC */
	int old;          /* its time is over; closed when nobody uses it. Or -1 */
	unsigned old_users;
	bool stop, started;
};

int ownmount_start(struct ownmount *m, const char *path, struct err *e);
void ownmount_stop(struct ownmount *m);
/* The mount is there; it need not answer yet. Returns false if it can't be told from others. */
bool ownmount_mounted(struct ownmount *m);
/* Returns a descriptor of the mount's root, until ownmount_put(), or negative errno. */
int ownmount_get(struct ownmount *m);
void ownmount_put(struct ownmount *m, int fd);

#endif
