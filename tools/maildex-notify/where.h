/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a path given by a delivery agent lies: below the root, or below the mount.
 *
 * Shapes: absolute paths as they are; relative ones from the current directory. No symbolic link is followed: what a
 * mail user can plant must not lead into another's mailbox.
 * Threads: one. Errors: -EINVAL with a text that names the path.
 */
#ifndef MAILDEX_NOTIFY_WHERE_H
#define MAILDEX_NOTIFY_WHERE_H

#include <stddef.h>

#include "lib/base/conf.h"
#include "lib/mail/folder.h"

#define WHERE_MAX (FOLDER_PATH_MAX + 1 + NAME_LEN_MAX)

/*
 * Makes the path (len bytes, followed by a NUL) relative to the root and checks that it can be a message, a half or a
 * Maildir. Returns 0 or -EINVAL.
 */
int where_is(const struct conf *conf, const char *path, size_t len, char out[WHERE_MAX + 1], struct err *e);

#endif
