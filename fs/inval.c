/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/inval.h"

#include "fs/fs.h"
#include "fs/fuse.h"

void inval_attr(struct fs *fs, struct node *dir)
{
	/* A negative offset: attributes only (fuse_lowlevel.h). */
	if (fs->session)
		fuse_lowlevel_notify_inval_inode(fs->session, (fuse_ino_t)(uintptr_t)dir, -1, 0);
}
