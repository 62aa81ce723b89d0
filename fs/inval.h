/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Taking back what the kernel keeps. The kernel may keep a half's attributes for as long as stats may share one reading
 * (`revalidate`): each walk through the directory asks for them several times. Our own changes make it forget them;
 * whatever else changes a listing, or a stat that finds the other half changed, says so here before anything is
 * answered.
 *
 * Flow: inval_init(); inval_allow(true) once the session is mounted, inval_allow(false) before its descriptor is
 * closed: threads that hear of changes elsewhere live longer, and its number could be another file's by then.
 * Threads: any, with locks held too: attributes alone are invalidated without the inode's lock (pages would need it,
 * and a thread that holds no lock).
 * Errors: none; a kernel that doesn't know the inode keeps nothing of it.
 */
#ifndef MAILDEX_FS_INVAL_H
#define MAILDEX_FS_INVAL_H

#include <pthread.h>
#include <stdbool.h>

struct fs;
struct node;

struct inval {
	pthread_rwlock_t lock;
	bool open; /* the session can be told */
};

void inval_init(struct inval *v);
void inval_release(struct inval *v);
void inval_allow(struct inval *v, bool open);
/* The kernel asks for the directory's attributes anew at its next use. */
void inval_attr(struct fs *fs, struct node *dir);

#endif
