/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is known of a message's file, which nobody changes: its attributes, and how much of it the kernel holds. On a
 * network filesystem (fs->spares) both spare calls that a plain mount makes again and again.
 *
 * - LOOKUP of a name that the listing vouches for (live_vouches()) is answered with attributes that were read before.
 * - An open for reading of a file that the kernel was given whole makes no lower open: reads are answered from the
 * kernel's pages. If one comes all the same, the lower file is opened then (late.h).
 * Only its owner is answered so: nobody else's rights can be told without the server.
 *
 * Flow: message_learn() with each reading; message_forget() when attributes were set, a link was made or removed, or
 * the file is opened for writing; message_opened() at each lower open, message_given() for each piece that is read.
 * Shapes: attributes are kept for MESSAGE_KEEP_NS, here and by the kernel: size and times of a message don't change, and who
 * sets its mode or owner on another host is seen then, or with its next name.
 * Ownership: part of struct node; zero at first.
 * Threads: the node table's lock.
 * Errors: none.
 */
#ifndef MAILDEX_FS_MESSAGE_H
#define MAILDEX_FS_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "lib/base/clock.h"

#define MESSAGE_KEEP_NS (600 * NS_PER_S)

struct message {
	struct stat st;
	int64_t read_ns;                    /* CLOCK_MONOTONIC; 0: nothing is known */
	_Atomic uint64_t changes;           /* of its attributes, through this mount */
	int64_t shown_size, shown_mtime_ns; /* at the last lower open */
	int64_t given;                      /* so many bytes from its beginning since the kernel's pages were dropped */
};

/* Read since message->changes was `begun`; dropped if it grew. */
void message_learn(struct message *m, const struct stat *st, int64_t now_ns, uint64_t begun);
void message_forget(struct message *m);
/* Returns how long they may be kept on; 0: nothing is known. */
int64_t message_recall(const struct message *m, uid_t asker, int64_t now_ns, struct stat *st);
/* The lower file is open and looks like this. Returns true if the kernel's pages may stay. */
bool message_opened(struct message *m, int64_t size, int64_t mtime_ns, bool keep);
void message_given(struct message *m, int64_t off, int64_t len);
/* May an open(2) with these flags go without a lower open? */
bool message_held(const struct message *m, uid_t asker, int flags, int64_t now_ns);

#endif
