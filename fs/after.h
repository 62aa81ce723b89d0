/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * After the reply: what a change or an event still has to do, off the caller's path (the kernel holds one mount-wide
 * lock over every rename between directories, so whatever is slow before that reply slows every user).
 *
 * Flow: after_start(); after_add() from anywhere; the jobs run on threads of their own, each no earlier than its time.
 * Shapes: a job pins its live folder. At most AFTER_JOBS_MAX wait; beyond that after_add() refuses and the caller sets
 * need instead.
 * Threads: any.
 * Errors: -EAGAIN when full.
 */
#ifndef MAILDEX_FS_AFTER_H
#define MAILDEX_FS_AFTER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"

#define AFTER_JOBS_MAX 16384
#define AFTER_THREADS 4
/* Of these for one storage: one that hangs leaves some for the others. */
#define AFTER_STORAGE_MAX 2

struct fs;
struct live;

enum after_kind {
	AFTER_BURST,   /* a burst of own changes ended: take its post stamp, send its event */
	AFTER_HINTS,   /* own changes without a window: tell maildexd */
	AFTER_LOOK,    /* an event from elsewhere: look its names up */
	AFTER_CONFIRM, /* look for listings on trust whose time has come */
};

struct after_job {
	struct after_job *next;
	enum after_kind kind;
	int64_t at_ns;     /* CLOCK_MONOTONIC */
	struct live *live; /* NULL: of no storage */
	void *data;        /* what the kind needs; freed by it */
};

struct after {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct after_job *first; /* by time */
	size_t waiting;
	bool stop;
	dev_t busy[AFTER_THREADS]; /* storages of the jobs under way; 0: none */
	unsigned nbusy;
	pthread_t threads[AFTER_THREADS];
	unsigned nthreads;
};

int after_start(struct fs *fs, struct err *e);
void after_stop(struct fs *fs);
/* Pins live. Takes data over when it returns 0. Returns 0, -EAGAIN or -ENOMEM. */
int after_add(struct fs *fs, enum after_kind kind, struct live *live, int64_t delay_ns, void *data);

#endif
