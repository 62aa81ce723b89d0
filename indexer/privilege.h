/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whom maildexd becomes. Started as root it ends up as `user` with CAP_SETUID and CAP_SETGID and nothing else: enough
 * to read each folder as its owner, which neither root nor `user` can under root_squash. Otherwise it runs as it is.
 *
 * Flow: privilege_find(); privilege_lend() ... privilege_return() around what is to be done as `user` before;
 * privilege_drop() once. Threads: before any are started. Errors: negative errno with a text.
 */
#ifndef MAILDEX_INDEXER_PRIVILEGE_H
#define MAILDEX_INDEXER_PRIVILEGE_H

#include <stdbool.h>
#include <sys/types.h>

#include "lib/base/err.h"

struct privilege {
	const char *user;
	uid_t uid;
	gid_t gid;
	bool switches; /* we are root, and `user` is not */
};

/* -ENOENT: there is no such user. Returns 0 or negative errno. */
int privilege_find(struct privilege *p, const char *user, struct err *e);
/* The effective ids become the user's, for a while. Returns 0 or negative errno. */
int privilege_lend(const struct privilege *p, struct err *e);
int privilege_return(const struct privilege *p, struct err *e);
/* For good. Returns 0 or negative errno. */
int privilege_drop(const struct privilege *p, struct err *e);

#endif
