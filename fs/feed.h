/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The connection to maildexd: own events and scans out, what was applied from elsewhere in. maildexfs works without
 * it: listings then come from the lower tree whenever something changed.
 *
 * Flow: feed_start() makes one thread that connects, again and again with pauses, reads FEED messages and writes what
 * feed_send() queued.
 * Shapes: at most FEED_QUEUE_MAX events wait; beyond that they are dropped and counted (the next opendir sees the
 * stamp; rows on trust learn of the loss by the sequence). Sequences rise by one per event sent on a connection; the
 * epoch is new per connection.
 * Threads: any.
 * Errors: none for the sender; `connected` tells.
 */
#ifndef MAILDEX_FS_FEED_H
#define MAILDEX_FS_FEED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/mail/event.h"
#include "lib/mail/scan.h"

#define FEED_QUEUE_MAX 8192

struct fs;
struct live;

struct feed_item {
	struct feed_item *next;
	struct event event; /* or, where scan or to is set, its folder and half */
	struct scan *scan;
	char *to; /* the folder (a directory, really) was renamed to this */
};

struct feed {
	pthread_mutex_t lock;
	struct feed_item *first, **last;
	size_t waiting;
	bool stop;
	uint64_t sequence, epoch;
	int wake[2]; /* pipe: something was queued */
	_Atomic bool connected;
	pthread_t thread;
	bool running;
};

int feed_start(struct fs *fs, struct err *e);
void feed_stop(struct fs *fs);
/* Takes the event over (made by event_new()); NULL is nothing. */
void feed_send(struct fs *fs, struct event *ev);
/* Takes the scan over. */
void feed_send_scan(struct fs *fs, const char *folder, enum half half, struct scan *scan);
/* A directory was renamed; paths below the root. */
void feed_send_rename(struct fs *fs, const char *from, const char *to);
/* Changes without a window. */
void feed_send_changes(struct fs *fs, const char *folder, enum half half, const struct change *changes, size_t n);

/* Takes an event in (feed.c's thread). */
void feed_apply(struct fs *fs, struct event *ev);
/* The connection is gone, and with it events: listings on trust are to be listed (rule 7). */
void feed_gap(struct fs *fs);
/* The after-job of an event that is not to be believed blindly: looks its names up; frees the event. */
void feed_look(struct fs *fs, struct live *l, struct event *ev);

#endif
