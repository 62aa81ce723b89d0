/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <sys/file.h>

#include "fs/caller.h"
#include "fs/lock_wait.h"
#include "fs/ops.h"

/*
 * The first lock of an owner opens the lower file once more: in the caller's name, since root may not under root_squash;
 * in our own where the caller got its descriptor from somebody who may open what it may not.
 */
#define IN_SOME_NAME(req, result, expression)                                                                          \
	do {                                                                                                           \
		CALLER_RUN(req, result, expression);                                                                   \
		if ((result) < 0 && (errno == EACCES || errno == EPERM))                                               \
			(result) = (expression);                                                                       \
		(result) = (result) < 0 ? -errno : 0;                                                                  \
	} while (0)

/* Who is in the way? As system calls put it: -1 with errno. */
static int get(fuse_req_t req, const struct node *n, int fd, uint64_t owner, struct flock *lock)
{
	errno = -locks_get(&ops_fs(req)->locks, fd, n->dev, n->ino, owner, lock);
	return errno ? -1 : 0;
}

/* Answers now, or when the lock is had. */
static void request_lock(const struct lock_request *r, bool wait)
{
	int result;

	IN_SOME_NAME(r->req, result, lock_attempt(r));
	if (result == -EAGAIN && (wait || node_closing(&r->fs->nodes, r->node)))
		lock_wait(r, !wait);
	else if (fuse_reply_err(r->req, -result) == -ENOENT && result == 0)
		lock_undo(r);
}

/* All but which lock. */
static struct lock_request request_of(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct lock_request){.fs = ops_fs(req),
				     .req = req,
				     .thread = ctx->pid,
				     .uid = ctx->uid,
				     .gid = ctx->gid,
				     .node = ops_node(req, ino),
				     .handle = ops_handle(fi),
				     .owner = fi->lock_owner};
}

void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	int fd = ops_fd(req, fi), result = fd;

	if (fd >= 0)
		IN_SOME_NAME(req, result, get(req, ops_node(req, ino), fd, fi->lock_owner, lock));
	if (result < 0)
		fuse_reply_err(req, -result);
	else
		fuse_reply_lock(req, lock);
}

/* Answers the error itself. */
static bool has_file(fuse_req_t req, const struct fuse_file_info *fi)
{
	int fd = ops_fd(req, fi);

	if (fd < 0)
		fuse_reply_err(req, -fd);
	return fd >= 0;
}

void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	struct lock_request r = request_of(req, ino, fi);

	r.lock = *lock;
	if (!has_file(req, fi))
		return;
	atomic_store(&r.handle->locked, true);
	growth_seen(fuse_req_ctx(req)->pid);
	request_lock(&r, sleep);
}

void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct lock_request r = request_of(req, ino, fi);

	r.flock_op = op & ~LOCK_NB;
	if (!has_file(req, fi))
		return;
	growth_seen(fuse_req_ctx(req)->pid);
	request_lock(&r, !(op & LOCK_NB));
}
