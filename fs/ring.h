/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Push (design 4): mail servers wait for mail with inotify on new/ and cur/, and nothing that FUSE can tell the kernel
 * makes an event of inotify. So where something from elsewhere changed a half, a thread of ours makes and removes a
 * name in it through the mount, and maildexfs answers for that name itself: the watchers get IN_CREATE and IN_DELETE,
 * and nothing else gets anything.
 *
 * Flow: ring_start(); ring_mounted() once the mount is there; ring_half() or ring_event() when something from
 * elsewhere happened; ring_stop() after the unmount. op_lookup(), op_mknod() and op_unlink() ask ring_lookup() and so
 * on first. ring_own() remembers own changes that come back as events of inotify below.
 * Shapes: only halves that the kernel knows (a watch pins the inode, so no FORGET comes), each at most once a second
 * (turns.h). What does not fit is dropped: the server polls.
 * Ownership: nodes are borrowed for the call. Threads: any.
 * Errors: none for who asks; what hinders is logged once.
 */
#ifndef MAILDEX_FS_RING_H
#define MAILDEX_FS_RING_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "fs/striker.h"
#include "fs/turns.h"
#include "lib/base/err.h"
#include "lib/mail/event.h"

#define RING_OWN_SLOTS 1024

struct fs;
struct fuse_req;

struct ring_thread {
	struct fs *fs;
	pthread_t id;
	_Atomic bool made;  /* the name is there, for this thread */
	struct node pseudo; /* what the name is: has no names, no handles, and is in no table */
};

struct ring {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct turns turns;
	bool stop;
	int said; /* the error that was logged */
	struct ring_thread threads[STRIKERS];
	unsigned nthreads;
	char name[40];
	struct strikers strikers;
	_Atomic bool mounted;
	_Atomic uint64_t own[RING_OWN_SLOTS];
};

int ring_start(struct fs *fs, struct err *e);
void ring_stop(struct fs *fs);
/* The mount is there (it need not answer yet). */
void ring_mounted(struct fs *fs);

/* Something from elsewhere happened in the half, and whatever shows it was brought up to date before. */
void ring_half(struct fs *fs, struct node *half);
/* The same for a half that is not in memory; not if it is the echo of an own change. */
void ring_event(struct fs *fs, const struct event *ev);
/* Own changes in a half that is not in memory. */
void ring_own(struct fs *fs, const struct node *half, const struct change *changes, size_t n);

/* Answer the request and return true if it is part of a ring. */
bool ring_lookup(struct fuse_req *req, const char *name);
bool ring_mknod(struct fuse_req *req, const char *name);
bool ring_unlink(struct fuse_req *req, const char *name);

#endif
