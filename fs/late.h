/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages that are open here and not below: the kernel holds all their bytes (message.h), and most such opens end
 * without a read that reaches us. The lower file is opened when one does, in the name of who opened it here.
 *
 * Races that this guards against:
 * - The message is removed or replaced through the mount: whoever has it open goes on reading, so the lower file is
 * opened before (late_hold()), and no open goes late meanwhile.
 * - It was renamed through the mount: the node has its new name. By another host: it is looked for by its inode in both
 * halves, as they are now. Removed by another host: ESTALE, as on NFS 3.
 * - Two reads at once: both open, one descriptor is kept.
 *
 * Flow: late_open() at open(2); late_fd() wherever a handle's descriptor is needed; late_hold() ... late_let() around
 * what takes a name away.
 * Ownership: a late handle holds a reference on its half until op_file_closed().
 * Threads: any.
 * Errors: negative errno.
 */
#ifndef MAILDEX_FS_LATE_H
#define MAILDEX_FS_LATE_H

#include <stdbool.h>

#include "fs/fs.h"
#include "fs/fuse.h"

/* Opens n, which is there by its name, without a lower open, if that will do; the handle is in fi then. */
bool late_open(fuse_req_t req, struct node *n, const struct node_at *at, struct fuse_file_info *fi);
/* The handle's lower descriptor, opened now if it is not yet. Returns it or negative errno. */
int late_fd(struct fs *fs, struct handle *h);
/* A name is about to be taken from its file. Returns the file's node, or NULL; for late_let(). */
struct node *late_hold(struct fs *fs, struct node *parent, const char *name);
void late_let(struct fs *fs, struct node *n);

#endif
