/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "fs/late.h"
#include "fs/lock_wait.h"
#include "fs/ops.h"
#include "fs/own.h"
#include "lib/base/clock.h"

/* An open with these is another one than that of its lookup (node_early). */
#define EARLY_NOT (O_WRONLY | O_RDWR | O_TRUNC | O_DIRECT | O_NOATIME)
/* What open(2) may pass down: unaligned buffers forbid O_DIRECT, names are not followed or made here. */
#define OPEN_DROPS (O_DIRECT | O_CREAT | O_EXCL | O_NOCTTY)
#define OPEN_TRIES 8

int op_file_opened(fuse_req_t req, struct node *n, int fd, bool message, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct handle *h = calloc(1, sizeof(*h));
	uint64_t begun = n->message.changes;
	struct stat st;
	int r = !h ? -ENOMEM : fstat(fd, &st) < 0 ? -errno : 0;

	if (r < 0) {
		close(fd);
		free(h);
		return r;
	}
	h->fd = fd;
	growth_told(&n->growth, st.st_size);
	backing_opened(req, n, h, &st, message, fi);
	/*
	 * A message never changes, so the pages of an earlier open are good; all other files keep close-to-open. The
	 * same inode with other contents (its number was used again) is not the same message.
	 */
	pthread_mutex_lock(&fs->nodes.lock);
	fi->keep_cache =
		message_opened(&n->message, st.st_size, clock_ns(st.st_mtim), message && h->way == BACKING_NONE);
	h->fills = fs->spares && message && h->way == BACKING_NONE && !(fi->flags & O_DIRECT);
	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		message_forget(&n->message);
	else if (h->fills)
		message_learn(&n->message, &st, clock_mono_ns(), begun);
	pthread_mutex_unlock(&fs->nodes.lock);
	node_opened(&fs->nodes, n, h);
	fi->fh = (uint64_t)(uintptr_t)h;
	return 0;
}

void op_file_closed(struct fs *fs, struct handle *h)
{
	lock_wait_released(h);
	if (atomic_load(&h->locked))
		locks_released(&fs->locks, h);
	/* First: the lower file is closed when node_released() says so. */
	backing_closed(fs, h);
	node_released(&fs->nodes, h);
	free(h);
}

/* A file without a name is opened again through a descriptor that is still there. */
static int open_nameless(fuse_req_t req, struct node *n, int flags)
{
	int other = node_any_fd(&ops_fs(req)->nodes, n), fd;
	char path[64];

	if (other < 0)
		return other;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", other);
	CALLER_RUN(req, fd, open(path, (flags & ~OPEN_DROPS) | O_CLOEXEC));
	fd = fd < 0 ? -errno : fd;
	close(other);
	return fd;
}

static void reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req); /* req ends with the answer */

	if (fuse_reply_open(req, fi) == -ENOENT)
		op_file_closed(fs, ops_handle(fi));
}

/* What this thread's lookup opened a moment ago; else -1. */
static int take_early(fuse_req_t req, struct node *n)
{
	struct fs *fs = ops_fs(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return node_early_take(&fs->nodes, n, ctx->pid, ctx->uid, clock_mono_ns() - fs->conf->revalidate_ns);
}

/* Opens the lower file, which must be n by that name. Returns a descriptor or negative errno. */
static int open_at(fuse_req_t req, struct node *n, const struct node_at *at, int flags)
{
	int fd = flags & EARLY_NOT ? -1 : take_early(req, n), r;

	if (fd >= 0)
		counter_add(COUNT_EARLY, 1);
	else
		CALLER_RUN(req, fd, openat(at->dirfd, at->name, (flags & ~OPEN_DROPS) | O_NOFOLLOW | O_CLOEXEC));
	r = fd < 0 ? -errno : ops_same(fd, n);
	if (r == -ENOENT)
		own_missing(ops_fs(req), at->parent, at->name);
	if (r < 0 && fd >= 0)
		close(fd);
	return r < 0 ? r : fd;
}

/* *late: it is open without a lower file, and the handle is in fi. Returns a descriptor or negative errno. */
static int open_named(fuse_req_t req, struct node *n, struct fuse_file_info *fi, bool *message, bool *late)
{
	struct fs *fs = ops_fs(req);
	struct node_at at;
	uint64_t renames;
	bool again;
	int fd;

	for (int i = 1;; i++) {
		fd = node_at(&fs->nodes, n, &at);
		if (fd < 0)
			return fd;
		*message = at.parent->dir->is_half;
		renames = at.parent->dir->renames;
		*late = *message && late_open(req, n, &at, fi);
		fd = *late ? take_early(req, n) : open_at(req, n, &at, fi->flags);
		again = !*late && (fd == -ENOENT || fd == -ESTALE) && i < OPEN_TRIES &&
			node_renamed_meanwhile(&fs->nodes, at.parent, renames);
		node_at_end(&fs->nodes, &at);
		if (!again)
			break;
	}
	if (*late && fd >= 0)
		close(fd);
	return fd;
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = ops_node(req, ino);
	bool message = false, late = false;
	int fd = open_named(req, n, fi, &message, &late), r;

	if (late) {
		reply_open(req, fi);
		return;
	}
	r = fd < 0 ? fd : 0;
	if (r == -ESTALE || r == -ENOENT) {
		fd = open_nameless(req, n, fi->flags);
		/* -ESTALE makes the kernel walk the path again, once. */
		r = fd < 0 ? -ESTALE : 0;
	}
	if (r == 0)
		r = op_file_opened(req, n, fd, message, fi);
	if (r < 0)
		ops_reply_err(req, n, r);
	else
		reply_open(req, fi);
}

/* The kernel keeps it. */
static void given(fuse_req_t req, fuse_ino_t ino, off_t off, ssize_t len)
{
	struct fs *fs = ops_fs(req);

	pthread_mutex_lock(&fs->nodes.lock);
	message_given(&ops_node(req, ino)->message, off, len);
	pthread_mutex_unlock(&fs->nodes.lock);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	int fd = ops_fd(req, fi);
	char *data = malloc(size);
	ssize_t n;

	growth_seen(fuse_req_ctx(req)->pid);
	if (!data || fd < 0) {
		fuse_reply_err(req, data ? -fd : ENOMEM);
		free(data);
		return;
	}
	do {
		n = pread(fd, data, size, off);
	} while (n < 0 && errno == EINTR);
	if (n > 0 && ops_handle(fi)->fills)
		given(req, ino, off, n);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, data, (size_t)n);
	free(data);
}

void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *bufv, off_t off, struct fuse_file_info *fi)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(fuse_buf_size(bufv));
	struct growth *growth = &ops_node(req, ino)->growth;
	pid_t writer = fuse_req_ctx(req)->pid;
	int64_t end = off + (int64_t)fuse_buf_size(bufv);
	bool grows;
	ssize_t n;

	growth_seen(writer);
	grows = growth_began(growth, end);
	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	out.buf[0].fd = ops_handle(fi)->fd;
	out.buf[0].pos = off;
	n = fuse_buf_copy(&out, bufv, FUSE_BUF_NO_SPLICE);
	if (grows)
		growth_ended(growth, writer, n < 0 ? -1 : off + n);
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else
		fuse_reply_write(req, (size_t)n);
}

void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct node *n = ops_node(req, ino);
	struct handle *h = ops_handle(fi);
	int fd, r = 0;

	growth_seen(fuse_req_ctx(req)->pid);
	locks_flush(&fs->locks, n->dev, n->ino, fi->lock_owner);
	/* close(2) of a duplicate reports what the filesystem could not write (NFS, quotas). */
	fd = (fi->flags & O_ACCMODE) == O_RDONLY ? -1 : fcntl(h->fd, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0 && close(fd) < 0)
		r = errno;
	node_flushed(&fs->nodes, h);
	fuse_reply_err(req, r);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	op_file_closed(ops_fs(req), ops_handle(fi));
	fuse_reply_err(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	int fd = ops_fd(req, fi);

	(void)ino;
	growth_seen(fuse_req_ctx(req)->pid);
	fuse_reply_err(req, fd < 0 ? -fd : (datasync ? fdatasync(fd) : fsync(fd)) < 0 ? errno : 0);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct growth *growth = &ops_node(req, ino)->growth;
	pid_t writer = fuse_req_ctx(req)->pid;
	bool grows;
	int r;

	growth_seen(writer);
	grows = growth_began(growth, off + len);
	r = fallocate(ops_handle(fi)->fd, mode, off, len) < 0 ? errno : 0;
	if (grows)
		growth_ended(growth, writer, r ? -1 : off + len);
	fuse_reply_err(req, r);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	int fd = ops_fd(req, fi);
	off_t r = fd < 0 ? fd : lseek(fd, off, whence);

	(void)ino;
	if (r < 0)
		fuse_reply_err(req, fd < 0 ? -fd : errno);
	else
		fuse_reply_lseek(req, r);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
			fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	int in = ops_fd(req, fi_in);
	ssize_t n = in < 0 ? in : copy_file_range(in, &off_in, ops_handle(fi_out)->fd, &off_out, len, (unsigned)flags);

	(void)ino_in;
	(void)ino_out;
	if (n < 0)
		fuse_reply_err(req, in < 0 ? -in : errno);
	else
		fuse_reply_write(req, (size_t)n);
}
