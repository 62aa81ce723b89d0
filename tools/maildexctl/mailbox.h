/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mailboxes as named on the command line: an absolute path below root or mount, or one relative to the root.
 *
 * Threads: any. Errors: -EINVAL with a text that names the path.
 */
#ifndef MAILDEXCTL_MAILBOX_H
#define MAILDEXCTL_MAILBOX_H

#include "lib/base/buf.h"
#include "lib/base/conf.h"
#include "lib/mail/folder.h"

/* Makes it a path relative to the root ("" is the root itself). Returns 0 or -EINVAL. */
int mailbox_path(const struct conf *conf, const char *arg, char out[FOLDER_PATH_MAX + 1], struct err *e);
/*
 * Appends "u32 n, n strings" with as many of the paths from *next on as fit a message; *next goes on behind them.
 * Returns 0 or -EINVAL.
 */
int mailbox_put(const struct conf *conf, char **argv, int argc, int *next, struct buf *b, struct err *e);

#endif
