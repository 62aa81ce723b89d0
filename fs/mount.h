/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the overlay is mounted, and what is refused (each refusal names the path and what to do, and changes nothing).
 *
 * Flow: mount_prepare() opens the lower tree (bound privately first where mount = root), mount_check_options() looks
 * at how it is mounted; mount_undo() takes the private bind away again.
 * Errors: negative errno with a text; *code is what the program exits with (PROG_USE or PROG_REACH).
 */
#ifndef MAILDEX_FS_MOUNT_H
#define MAILDEX_FS_MOUNT_H

#include "lib/base/conf.h"
#include "lib/mail/tree.h"

/* The mount point is conf->mount. Returns 0 or negative errno. */
int mount_prepare(const struct conf *conf, struct tree *tree, bool *bound, int *code, struct err *e);
/* NFS options that break the law are refused (softreval), others warned of. Returns 0 or negative errno. */
int mount_check_options(const struct tree *tree, int *code, struct err *e);
/*
 * The decision behind it, by filesystem type and options as in mountinfo; *warnings: how many were logged. Returns 0
 * or -EINVAL.
 */
int mount_judge_options(const char *path, const char *fstype, const char *options, unsigned *warnings, struct err *e);
/* Does the client open a file that it knows by its name? Only NFS 4.0 does; 4.1 has a way to open what it knows. */
bool mount_opens_by_name(const char *fstype, const char *options);
void mount_undo(const struct tree *tree);

#endif
