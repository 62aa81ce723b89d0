/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/inval.h"

#include "fs/fs.h"
#include "fs/fuse.h"

void inval_init(struct inval *v)
{
	pthread_rwlock_init(&v->lock, NULL);
	v->open = false;
}

void inval_release(struct inval *v)
{
	pthread_rwlock_destroy(&v->lock);
}

void inval_allow(struct inval *v, bool open)
{
	pthread_rwlock_wrlock(&v->lock);
	v->open = open;
	pthread_rwlock_unlock(&v->lock);
}

void inval_attr(struct fs *fs, struct node *dir)
{
	pthread_rwlock_rdlock(&fs->inval.lock);
	/* A negative offset: attributes only (fuse_lowlevel.h). */
	if (fs->inval.open)
		fuse_lowlevel_notify_inval_inode(fs->session, (fuse_ino_t)(uintptr_t)dir, -1, 0);
	pthread_rwlock_unlock(&fs->inval.lock);
}
