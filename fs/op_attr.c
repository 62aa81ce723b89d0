/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/late.h"
#include "fs/ops.h"
#include "fs/own.h"
#include "lib/base/clock.h"

#define STATFS_KEEP_NS NS_PER_S

/*
 * A message that the listing vouches for: without a call. Only for its owner: who else may look is the server's to say.
 * (A rename through the mount meanwhile: the answer is from before it. The kernel makes no new entry then.)
 */
static bool recalled(fuse_req_t req, struct node *dir, const char *name, struct fuse_entry_param *e)
{
	struct fs *fs = ops_fs(req);
	int64_t listed_ns, kept_ns;
	struct node *n;

	*e = (struct fuse_entry_param){0};
	if (!fs->spares || !dir->dir->is_half || ops_serve_mode(fs, dir) != SERVE_INDEX)
		return false;
	n = node_recall(&fs->nodes, dir, name, fuse_req_ctx(req)->uid, &e->attr, &kept_ns);
	if (!n)
		return false;
	listed_ns = live_vouches(fs, dir, name, n->ino);
	if (listed_ns <= 0) {
		node_forget(&fs->nodes, n, 1);
		return false;
	}
	node_vouched(&fs->nodes, n, dir, name); /* another host may have removed one of its other names */
	e->ino = (fuse_ino_t)(uintptr_t)n;
	e->entry_timeout = (double)listed_ns / NS_PER_S;
	e->attr_timeout = (double)kept_ns / NS_PER_S;
	counter_add(COUNT_RECALLED, 1);
	return true;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = ops_fs(req);
	struct node *dir = ops_node(req, parent);
	struct fuse_entry_param e;
	int dirfd, r;

	growth_seen(fuse_req_ctx(req)->pid);
	if (ring_lookup(req, name))
		return;
	if (recalled(req, dir, name, &e)) {
		ops_reply_entry(req, &e);
		return;
	}
	dirfd = node_dir_get(&fs->nodes, dir);
	if (dirfd < 0) {
		ops_reply_err(req, dir, dirfd);
		return;
	}
	r = ops_entry(req, dir, dirfd, name, &e);
	if (r == -ENOENT)
		own_missing(fs, dir, name);
	node_dir_put(&fs->nodes, dir);
	if (r < 0)
		ops_reply_err(req, dir, r);
	else
		ops_reply_entry(req, &e);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	if (ino != FUSE_ROOT_ID)
		node_forget(&ops_fs(req)->nodes, ops_node(req, ino), nlookup);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		if (forgets[i].ino != FUSE_ROOT_ID)
			node_forget(&ops_fs(req)->nodes, ops_node(req, forgets[i].ino), forgets[i].nlookup);
	fuse_reply_none(req);
}

/* A directory as the client knows it, if the kernel only wants to see whether the caller may. */
static bool checked_now(fuse_req_t req, struct node *n, struct statx *stx)
{
	struct fs *fs = ops_fs(req);
	int fd = n->dir ? node_dir_get(&fs->nodes, n) : -1;
	bool checked;

	if (fd < 0)
		return false;
	checked = ops_dir_checked(req, n, fd, "", stx);
	node_dir_put(&fs->nodes, n);
	return checked;
}

/*
 * Before the kernel refuses somebody by these attributes. The NFS client may remember them from before another host set
 * the owner; on a plain mount it asks the server (ACCESS) whether this user may, whatever it remembers.
 */
static int before_refusal(fuse_req_t req, struct node *n, int dirfd, const char *name, struct statx *stx)
{
	if (!ops_fs(req)->spares || caller_may_use(req, stx->stx_mode, stx->stx_uid, stx->stx_gid))
		return 0;
	if (n->dir)
		dir_attr_forget(&n->dir->attr);
	return ops_statx_forced(req, dirfd, name, stx);
}

static int dir_now(fuse_req_t req, struct node *n, struct statx *stx)
{
	struct fs *fs = ops_fs(req);
	int fd = node_dir_get(&fs->nodes, n), r;

	if (fd < 0)
		return fd;
	r = ops_statx_dir(req, n, fd, "", stx);
	if (r == 0)
		r = before_refusal(req, n, fd, "", stx);
	node_dir_put(&fs->nodes, n);
	return r;
}

/* What is below now, wherever the node can be reached. */
static int lower_now(fuse_req_t req, struct node *n, const struct fuse_file_info *fi, struct statx *stx)
{
	struct fs *fs = ops_fs(req);
	struct node_at at;
	int fd, r;

	if (fi && !n->dir && !ops_handle(fi)->late)
		return ops_statx(req, ops_handle(fi)->fd, "", stx);
	if (n->dir)
		return dir_now(req, n, stx);
	r = node_at(&fs->nodes, n, &at);
	if (r == 0) {
		r = ops_statx(req, at.dirfd, at.name, stx);
		if (r == 0)
			r = before_refusal(req, n, at.dirfd, at.name, stx);
		node_at_end(&fs->nodes, &at);
		if (r == 0 && stx->stx_ino == n->ino)
			return 0;
	}
	fd = r < 0 ? ops_open_instead(fs, n, r) : node_any_fd(&fs->nodes, n);
	if (fd == -ESTALE && fi) { /* renamed by another host */
		fd = ops_fd(req, fi);
		fd = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	}
	if (fd < 0)
		return fd;
	r = ops_statx(req, fd, "", stx);
	close(fd);
	return r;
}

/* The node's attributes now; its size is one that the kernel knows. check: the kernel may only want to see if the caller may. */
static int attr_now(fuse_req_t req, struct node *n, const struct fuse_file_info *fi, bool check, struct stat *st,
		    double *timeout_s)
{
	struct growth_asked asked;
	struct statx stx;
	int r;

	*st = (struct stat){0};
	*timeout_s = 0;
	if (S_ISREG(n->type))
		asked = growth_await(&n->growth, fuse_req_ctx(req)->pid);
	check = check && checked_now(req, n, &stx);
	r = check ? 0 : lower_now(req, n, fi, &stx);
	if (r == 0 && S_ISREG(n->type))
		stx.stx_size = (uint64_t)growth_size(&n->growth, &asked, (int64_t)stx.stx_size);
	if (r == 0)
		r = ops_attr(req, n, &stx, st, timeout_s);
	if (check)
		*timeout_s = 0;
	return r;
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	double timeout_s;
	int r;

	growth_seen(fuse_req_ctx(req)->pid);
	r = attr_now(req, ops_node(req, ino), fi, !fi, &st, &timeout_s);

	if (r < 0)
		ops_reply_err(req, ops_node(req, ino), r);
	else
		fuse_reply_attr(req, &st, timeout_s);
}

static struct timespec time_to_set(const struct timespec *given, int to_set, int set, int now)
{
	if (to_set & now)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	if (to_set & set)
		return *given;
	return (struct timespec){.tv_nsec = UTIME_OMIT};
}

/* One step of setattr: by /proc, because O_PATH descriptors refuse fchmod(2) and the like. Returns -1 and errno. */
static int set_mode(int fd, bool is_path, mode_t mode)
{
	char path[64];

	if (!is_path)
		return fchmod(fd, mode);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return chmod(path, mode);
}

static int set_size(int fd, bool is_path, off_t size)
{
	char path[64];

	if (!is_path)
		return ftruncate(fd, size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return truncate(path, size);
}

static int set_times(int fd, bool is_path, const struct timespec times[2])
{
	return is_path ? utimensat(fd, "", times, AT_EMPTY_PATH) : futimens(fd, times);
}

/*
 * A directory's owner gives it the mode that it has, as Courier does at each look at its keywords. On an NFS client that
 * call would cost four more: the directory looks changed by somebody, so its listing, names and permissions are asked for
 * again. So the server is asked for the mode, and if it is this one, nothing is sent; the ctime stays then. Returns true
 * if there is nothing to do, with the attributes.
 */
static bool mode_is_so(fuse_req_t req, struct node *n, int fd, mode_t mode, struct statx *stx)
{
	return ops_fs(req)->spares && n->dir && !node_is_half(&ops_fs(req)->nodes, n) &&
	       ops_statx_forced(req, fd, "", stx) == 0 && (stx->stx_mode & 07777) == (mode & 07777) &&
	       stx->stx_uid == fuse_req_ctx(req)->uid;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct node *n = ops_node(req, ino);
	bool is_path = !fi;
	int fd = fi ? ops_fd(req, fi) : ops_open_path(req, n), r = 0;
	struct statx stx;
	struct stat st;
	double timeout_s = 0;

	if (fd < 0) {
		ops_reply_err(req, n, fd);
		return;
	}
	if (to_set == FUSE_SET_ATTR_MODE && is_path && mode_is_so(req, n, fd, attr->st_mode, &stx)) {
		r = ops_attr(req, n, &stx, &st, &timeout_s);
		close(fd);
		if (r < 0)
			ops_reply_err(req, n, r);
		else
			fuse_reply_attr(req, &st, timeout_s);
		return;
	}
	if (to_set & FUSE_SET_ATTR_MODE)
		CALLER_RUN(req, r, set_mode(fd, is_path, attr->st_mode & 07777));
	if (r == 0 && to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		uid_t uid = to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
		gid_t gid = to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

		CALLER_RUN(req, r, fchownat(fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
	}
	if (r == 0 && to_set & FUSE_SET_ATTR_SIZE)
		CALLER_RUN(req, r, set_size(fd, is_path, attr->st_size));
	if (r == 0 && to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) {
		struct timespec times[2] = {
			time_to_set(&attr->st_atim, to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW),
			time_to_set(&attr->st_mtim, to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW)};

		CALLER_RUN(req, r, set_times(fd, is_path, times));
	}
	r = r < 0 ? -errno : 0;
	if (n->dir) {
		live_stat_forget(ops_fs(req), n);
		dir_attr_forget(&n->dir->attr);
	} else {
		ops_message_forget(ops_fs(req), n);
	}
	if (r == 0)
		r = attr_now(req, n, fi, false, &st, &timeout_s);
	if (is_path)
		close(fd);
	if (r < 0)
		ops_reply_err(req, n, r);
	else
		fuse_reply_attr(req, &st, timeout_s);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX + 1];
	int fd = ops_open_path(req, ops_node(req, ino));
	ssize_t r;

	if (fd < 0) {
		ops_reply_err(req, ops_node(req, ino), fd);
		return;
	}
	CALLER_RUN(req, r, readlinkat(fd, "", target, sizeof(target) - 1));
	if (r < 0)
		fuse_reply_err(req, errno);
	else {
		target[r] = '\0';
		fuse_reply_readlink(req, target);
	}
	close(fd);
}

void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	int fd = ops_open_path(req, ops_node(req, ino)), r;

	if (fd < 0) {
		ops_reply_err(req, ops_node(req, ino), fd);
		return;
	}
	CALLER_RUN(req, r, (int)syscall(SYS_faccessat2, fd, "", mask, AT_EACCESS | AT_EMPTY_PATH));
	fuse_reply_err(req, r < 0 ? errno : 0);
	close(fd);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct statvfs kept;
	static dev_t kept_dev;
	static int64_t kept_at_ns;
	struct node *n = ops_node(req, ino);
	struct statvfs sv;
	bool have;
	int fd, r = 0;

	pthread_mutex_lock(&lock);
	have = kept_at_ns && kept_dev == n->dev && clock_mono_ns() - kept_at_ns < STATFS_KEEP_NS;
	sv = kept;
	pthread_mutex_unlock(&lock);
	if (!have) {
		fd = ops_open_path(req, n);
		r = fd < 0 ? fd : fstatvfs(fd, &sv) < 0 ? -errno : 0;
		if (fd >= 0)
			close(fd);
	}
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	if (!have) {
		pthread_mutex_lock(&lock);
		kept = sv;
		kept_dev = n->dev;
		kept_at_ns = clock_mono_ns();
		pthread_mutex_unlock(&lock);
	}
	fuse_reply_statfs(req, &sv);
}
