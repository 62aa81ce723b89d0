/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which listings are served: from the index, from the lower tree (the emergency brake), or the lower tree's with the
 * index compared (design 6). The whole mount has a mode, and single mailboxes may have another; both can change at run
 * time.
 *
 * Shapes: a mailbox is a path below the root; everything at or below it follows; the longest match wins.
 * Ownership: paths are copied.
 * Threads: any.
 * Errors: -ENOMEM, -ENOSPC beyond SERVE_MAILBOXES_MAX.
 */
#ifndef MAILDEX_FS_SERVE_H
#define MAILDEX_FS_SERVE_H

#include <pthread.h>

#include "lib/base/buf.h"
#include "lib/base/conf.h"

#define SERVE_MAILBOXES_MAX 100000

struct serve_mailbox {
	char *path;
	enum serve_mode mode;
};

struct serve {
	pthread_rwlock_t lock;
	enum serve_mode mode;
	struct serve_mailbox *mailboxes; /* by path */
	size_t count, room;
};

void serve_init(struct serve *s, enum serve_mode mode);
void serve_release(struct serve *s);
/* The mode of a folder. */
enum serve_mode serve_of(struct serve *s, const char *folder);
/* Sets the whole mount's mode (and forgets the mailboxes' own), or one mailbox's. Returns 0 or negative errno. */
void serve_set_all(struct serve *s, enum serve_mode mode);
int serve_set(struct serve *s, const char *mailbox, enum serve_mode mode);
/* Appends "* MODE\n" and "PATH MODE\n" lines. */
void serve_print(struct serve *s, struct buf *b);

#endif
