/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * No silent emptiness (law 7): is the lower tree still the one that was mounted over? Looked at most once a second;
 * while it is not, directories answer EIO instead of an empty Maildir.
 * Threads: any.
 * Errors: -EIO, logged at each change of state.
 */
#ifndef MAILDEX_FS_GUARD_H
#define MAILDEX_FS_GUARD_H

struct fs;

/* Returns 0 or -EIO. */
int guard_check(struct fs *fs);

#endif
