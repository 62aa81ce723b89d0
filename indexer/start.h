/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What must be in order before maildexd starts: each refusal is one sentence that names the path and what to do, and
 * changes nothing.
 *
 * Flow: start_prepare() with everything as it was started; it ends as `user`. start_release() at the end.
 * Ownership: the struct owns its descriptors. Threads: before any are started.
 * Errors: PROG_USE or PROG_REACH with a text.
 */
#ifndef MAILDEX_INDEXER_START_H
#define MAILDEX_INDEXER_START_H

#include "indexer/privilege.h"
#include "lib/base/conf.h"

struct start {
	const struct conf *conf;
	struct privilege privilege;
	int lock_fd;   /* INDEX.lock, locked */
	int listen_fd; /* the socket */
	dev_t socket_dev;
	ino_t socket_ino;
};

/* Returns -1 to go on, else the code to exit with. */
int start_prepare(struct start *s, const struct conf *conf, struct err *e);
/* Removes the socket, if it is still ours, and closes all. */
void start_release(struct start *s);

#endif
