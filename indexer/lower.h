/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lower tree as maildexd uses it: opened at start, watched once a second, its folders opened as their owners.
 *
 * A tree that went away (NFS unmounted, another tree in its place) must never be read as "all mail is gone" (law 7):
 * while lower_ok() is false nothing is looked up, scanned or dropped. The check may hang with a dead server, so it has
 * a thread of its own: the socket goes on answering.
 *
 * Flow: lower_open(), lower_start(); lower_stop(), lower_close().
 * Ownership: returned descriptors are the caller's. Threads: any after lower_start().
 * Errors: negative errno with a text that names the path and what to do.
 */
#ifndef MAILDEX_INDEXER_LOWER_H
#define MAILDEX_INDEXER_LOWER_H

#include <pthread.h>
#include <stdbool.h>

#include "lib/base/conf.h"
#include "lib/base/cred.h"
#include "lib/mail/tree.h"

struct lower {
	const struct conf *conf;
	struct tree tree;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t wake;
	bool stop;
	bool ok;
	int64_t asked_ns; /* a check has been under way since then; 0: none is */
	char text[ERR_TEXT_MAX];
};

/*
 * Finds and opens the tree. -ENOENT: not there; -ENOTDIR: no directory; -ELOOP: itself a maildex mount. Returns 0 or
 * negative errno.
 */
int lower_open(struct lower *l, const struct conf *conf, struct err *e);
void lower_close(struct lower *l);
/* Starts and ends the watch. lower_start() returns 0 or negative errno. */
int lower_start(struct lower *l, struct err *e);
void lower_stop(struct lower *l);
/* What the last check said. */
bool lower_ok(struct lower *l);
/* Checks now (blocks on the lower filesystem). Returns 0 or -ESTALE. */
int lower_check(struct lower *l);
/* "" if all is well, else what is wrong. */
void lower_state(struct lower *l, char out[ERR_TEXT_MAX]);
/*
 * Opens a half's directory; *owner gets the credentials under which names in it are to be looked up. Returns the
 * descriptor or negative errno.
 */
int lower_open_half(struct lower *l, const char *folder, enum half half, struct cred *owner);
/* Is the folder (or with a half its directory) really not there? The tree is checked before and after. */
bool lower_gone(struct lower *l, const char *folder);
bool lower_half_gone(struct lower *l, const char *folder, enum half half);

#endif
