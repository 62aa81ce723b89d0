/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The filesystem's operations, as libfuse's low-level API wants them (fuse_lowlevel.h tells what each must answer).
 *
 * Flow: op_attr.c (names and attributes), op_change.c (what changes a directory), op_file.c (open files), op_dir.c
 * (listings), op_xattr.c, op_lock.c; ops.c has the table and the words that they share.
 * Threads: libfuse's workers.
 * Errors: positive errno in the replies.
 */
#ifndef MAILDEX_FS_OPS_H
#define MAILDEX_FS_OPS_H

#include "fs/caller.h"
#include "fs/fs.h"
#include "fs/fuse.h"

extern const struct fuse_lowlevel_ops ops_table;

static inline struct fs *ops_fs(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct node *ops_node(fuse_req_t req, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? ops_fs(req)->nodes.root : (struct node *)(uintptr_t)ino;
}

/* statx(2) of a name, or of the descriptor itself where name is "". Returns 0 or negative errno. */
int ops_statx(fuse_req_t req, int dirfd, const char *name, struct statx *stx);
/* The same as the NFS client knows it. */
int ops_statx_known(fuse_req_t req, int dirfd, const char *name, struct statx *stx);
/* The same by a call to the server. */
int ops_statx_forced(fuse_req_t req, int dirfd, const char *name, struct statx *stx);
/* The same of a known directory: its times and its size may be from before, see dir_attr.h. */
int ops_statx_dir(fuse_req_t req, struct node *dir, int dirfd, const char *name, struct statx *stx);
/* What answers listings of this half. */
enum serve_mode ops_serve_mode(struct fs *fs, struct node *half);
/* Answers an error of a call about this node: 0 or negative errno. */
void ops_reply_err(fuse_req_t req, struct node *n, int r);
/*
 * Is the kernel's look at a directory (new/, cur/, tmp/ and the like in a Maildir) only a check on the way of the caller's
 * system call, which asks the server itself: a half's stamp, the lower openat(2), mode_is_so()? Then what the client knows
 * will do, if the caller may by that: what it may not is the server's to say. Returns true with the attributes. fd: the
 * directory's parent, or with name "" its own.
 */
bool ops_dir_checked(fuse_req_t req, struct node *dir, int fd, const char *name, struct statx *stx);
/* Attributes as they are shown: a half's mtime by rule 6. *timeout_s: how long the kernel may keep them. Returns 0 or
 * negative errno. */
int ops_attr(fuse_req_t req, struct node *n, const struct statx *stx, struct stat *st, double *timeout_s);
/* Answers with an entry; without the kernel's reference where the request was interrupted. */
void ops_reply_entry(fuse_req_t req, const struct fuse_entry_param *e);
/* Looks a name up and counts the kernel's reference. dirfd: the parent's. Returns 0 or negative errno. */
int ops_entry(fuse_req_t req, struct node *parent, int dirfd, const char *name, struct fuse_entry_param *e);
/*
 * An O_PATH descriptor of the node for the time of one call, as the caller; -ESTALE where the name is another file now.
 * Close it.
 */
int ops_open_path(fuse_req_t req, struct node *n);
/*
 * When the node can't be reached by its name (r): a duplicate of a descriptor that somebody has open, or negative errno.
 * fstat(2), fchmod(2) and the like come without a handle, and who has a file open may have unlinked it, or have become
 * another user, who can't walk there. Who can't walk there otherwise is stopped by the kernel (default_permissions).
 */
int ops_open_instead(struct fs *fs, struct node *n, int r);
/* Is it still the file that the node stands for? Returns 0 or -ESTALE. */
int ops_same(int fd, const struct node *n);

/* op_attr.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_access(fuse_req_t req, fuse_ino_t ino, int mask);
void op_statfs(fuse_req_t req, fuse_ino_t ino);
/* op_change.c */
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
	       unsigned int flags);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
/* op_file.c */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *bufv, off_t off, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);
/* Makes the handle of a descriptor that was just opened; takes fd over. Returns 0 or -ENOMEM. */
int op_file_opened(fuse_req_t req, struct node *n, int fd, bool message, struct fuse_file_info *fi);
/* See message.h. */
void ops_message_forget(struct fs *fs, struct node *n);
/* A handle's lower descriptor (late.h), or negative errno. */
int ops_fd(fuse_req_t req, const struct fuse_file_info *fi);
/* Closes and forgets a handle. */
void op_file_closed(struct fs *fs, struct handle *h);
/* op_dir.c */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
/* At the end: closes what the kernel left open. */
void op_dir_end(struct fs *fs);
/* op_xattr.c */
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
/* op_lock.c */
void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock);
void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep);
void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);

static inline struct handle *ops_handle(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

#endif
