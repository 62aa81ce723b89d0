/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/support/faultfs/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/dirops.h"
#include "lib/base/cred.h"
#include "tests/support/faultfs/shown.h"

#define NOBODY 65534
#define GROUPS_MAX 256

struct calls_options calls_options;

struct node *calls_node(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? node_root() : (struct node *)(uintptr_t)ino;
}

int calls_handle(const struct fuse_file_info *fi)
{
	return fi ? (int)fi->fh : -1;
}

/* -- in the caller's name */

static int become(fuse_req_t req, int ngroups, const gid_t *groups)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct cred c = {.uid = ctx->uid, .gid = ctx->gid, .ngroups = ngroups, .groups = groups};
	int ret;

	if (calls_options.squash && c.uid == 0)
		c = (struct cred){.uid = NOBODY, .gid = NOBODY};
	ret = cred_become(&c);
	if (ret == 0)
		return 0;
	errno = -ret;
	return -1;
}

int calls_become(fuse_req_t req)
{
	return become(req, 0, NULL);
}

bool calls_become_with_groups(fuse_req_t req)
{
	int error = errno, n;
	gid_t groups[GROUPS_MAX];

	if (error != EACCES && error != EPERM)
		return false;
	n = fuse_req_getgroups(req, GROUPS_MAX, groups); /* a look into /proc: not on every call */
	if (n > 0 && become(req, n < GROUPS_MAX ? n : GROUPS_MAX, groups) == 0)
		return true;
	errno = error;
	return false;
}

void calls_restore(void)
{
	int error = errno;

	cred_restore();
	errno = error;
}

/* -- beginnings and ends */

bool calls_refused2(fuse_req_t req, enum rules_call call, struct node *n, const char *name, struct node *to,
		    const char *to_name)
{
	char path[PATH_MAX], other[PATH_MAX];
	struct stat st;
	int error = rules_before(call, node_path(n, name, path), to ? node_path(to, to_name, other) : NULL);

	if (!error && (node_stat(n, -1, &st) < 0 || (to && node_stat(to, -1, &st) < 0)))
		error = errno;
	if (error)
		fuse_reply_err(req, error);
	return error != 0;
}

bool calls_refused(fuse_req_t req, enum rules_call call, fuse_ino_t ino, const char *name)
{
	return calls_refused2(req, call, calls_node(ino), name, NULL, NULL);
}

void calls_reply(fuse_req_t req, int ret)
{
	fuse_reply_err(req, ret < 0 ? errno : rules_lost());
}

static void show(const struct node *n, struct stat *st)
{
	shown_attr(n->fd, st);
	st->st_ino = n->shown_ino;
}

static void reply_attr(fuse_req_t req, struct node *n, int fh)
{
	struct stat st;

	if (node_stat(n, fh, &st) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	show(n, &st);
	fuse_reply_attr(req, &st, calls_options.attr_ms / 1000.0);
}

int calls_enter(fuse_req_t req, fuse_ino_t parent, const char *name, struct fuse_entry_param *e)
{
	struct node *n = NULL;
	int ret;

	*e = (struct fuse_entry_param){
		.attr_timeout = calls_options.attr_ms / 1000.0,
		.entry_timeout = calls_options.entry_ms / 1000.0,
	};
	AS_CALLER(req, ret, node_enter(calls_node(parent), name, &n, &e->attr));
	if (ret < 0)
		return ret;
	show(n, &e->attr);
	e->ino = n == node_root() ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
	return 0;
}

static void reply_entry(fuse_req_t req, int made, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;

	if (made >= 0 && rules_lost())
		fuse_reply_err(req, rules_lost());
	else if (made < 0 || calls_enter(req, parent, name, &e) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_entry(req, &e);
}

static void do_init(void *arg, struct fuse_conn_info *conn)
{
	(void)arg;
	/* Else a lookup that is held would hinder all others in that directory. */
	dirops_want(conn);
}

/* -- names */

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	if (!calls_refused(req, RULES_GETATTR, parent, name))
		reply_entry(req, 0, parent, name);
}

static void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	node_forget(calls_node(ino), lookups);
	fuse_reply_none(req);
}

static void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		node_forget(calls_node(forgets[i].ino), forgets[i].nlookup);
	fuse_reply_none(req);
}

static void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t dev)
{
	int ret;

	if (calls_refused(req, RULES_MKNOD, parent, name))
		return;
	AS_CALLER(req, ret, mknodat(calls_node(parent)->fd, name, mode, dev));
	reply_entry(req, ret, parent, name);
}

static void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	int ret;

	if (calls_refused(req, RULES_MKDIR, parent, name))
		return;
	AS_CALLER(req, ret, mkdirat(calls_node(parent)->fd, name, mode));
	reply_entry(req, ret, parent, name);
}

static void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	int ret;

	if (calls_refused(req, RULES_SYMLINK, parent, name))
		return;
	AS_CALLER(req, ret, symlinkat(target, calls_node(parent)->fd, name));
	reply_entry(req, ret, parent, name);
}

static void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct node *n = calls_node(ino), *to = calls_node(parent);
	char proc[NODE_PROC_MAX];
	int ret;

	if (calls_refused2(req, RULES_LINK, n, NULL, to, name))
		return;
	AS_CALLER(req, ret, linkat(AT_FDCWD, node_proc(n, proc), to->fd, name, AT_SYMLINK_FOLLOW));
	reply_entry(req, ret, parent, name);
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	int ret;

	if (calls_refused(req, RULES_UNLINK, parent, name))
		return;
	AS_CALLER(req, ret, node_unlink(calls_node(parent), name));
	calls_reply(req, ret);
}

static void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	int ret;

	if (calls_refused(req, RULES_RMDIR, parent, name))
		return;
	AS_CALLER(req, ret, unlinkat(calls_node(parent)->fd, name, AT_REMOVEDIR));
	calls_reply(req, ret);
}

static void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *to_name,
		      unsigned flags)
{
	int ret;

	if (calls_refused2(req, RULES_RENAME, calls_node(parent), name, calls_node(to), to_name))
		return;
	AS_CALLER(req, ret, node_rename(calls_node(parent), name, calls_node(to), to_name, flags));
	calls_reply(req, ret);
}

static void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX];
	ssize_t len;

	if (calls_refused(req, RULES_READLINK, ino, NULL))
		return;
	len = readlinkat(calls_node(ino)->fd, "", target, sizeof(target) - 1);
	if (len < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	target[len] = '\0';
	fuse_reply_readlink(req, target);
}

/* -- attributes */

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!calls_refused(req, RULES_GETATTR, ino, NULL))
		reply_attr(req, calls_node(ino), calls_handle(fi));
}

static struct timespec time_to_set(int to_set, int set, int now, struct timespec t)
{
	if (to_set & now)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return to_set & set ? t : (struct timespec){.tv_nsec = UTIME_OMIT};
}

static int set_size(const char *path, const struct fuse_file_info *fi, off_t size)
{
	return fi ? ftruncate((int)fi->fh, size) : truncate(path, size);
}

static int set_owner(const struct node *n, const struct stat *st, int to_set)
{
	uid_t uid = to_set & FUSE_SET_ATTR_UID ? st->st_uid : (uid_t)-1;
	gid_t gid = to_set & FUSE_SET_ATTR_GID ? st->st_gid : (gid_t)-1;

	return fchownat(n->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW;
	struct node *n = calls_node(ino);
	char proc[NODE_PROC_MAX];
	const char *path = node_proc(n, proc);
	struct timespec ts[2] = {
		time_to_set(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, st->st_atim),
		time_to_set(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, st->st_mtim),
	};
	int ret = 0;

	if ((to_set & FUSE_SET_ATTR_MODE && calls_refused(req, RULES_CHMOD, ino, NULL)) ||
	    (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) && calls_refused(req, RULES_CHOWN, ino, NULL)) ||
	    (to_set & FUSE_SET_ATTR_SIZE && calls_refused(req, RULES_TRUNCATE, ino, NULL)) ||
	    (to_set & times && calls_refused(req, RULES_UTIMENS, ino, NULL)))
		return;
	if (to_set & FUSE_SET_ATTR_MODE)
		AS_CALLER(req, ret, chmod(path, st->st_mode & 07777));
	if (ret == 0 && to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		AS_CALLER(req, ret, set_owner(n, st, to_set));
	if (ret == 0 && to_set & FUSE_SET_ATTR_SIZE)
		AS_CALLER(req, ret, set_size(path, fi, st->st_size));
	if (ret == 0 && to_set & times)
		AS_CALLER(req, ret, utimensat(AT_FDCWD, path, ts, 0));
	if (ret < 0)
		fuse_reply_err(req, errno);
	else
		reply_attr(req, n, calls_handle(fi));
}

static void do_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	char proc[NODE_PROC_MAX];
	int ret;

	if (calls_refused(req, RULES_ACCESS, ino, NULL))
		return;
	AS_CALLER(req, ret, faccessat(AT_FDCWD, node_proc(calls_node(ino), proc), mask, AT_EACCESS));
	calls_reply(req, ret);
}

static void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;

	if (calls_refused(req, RULES_STATFS, ino, NULL))
		return;
	if (fstatvfs(calls_node(ino)->fd, &st) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}

static void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	char proc[NODE_PROC_MAX];
	int ret;

	if (calls_refused(req, RULES_SETXATTR, ino, NULL))
		return;
	AS_CALLER(req, ret, setxattr(node_proc(calls_node(ino), proc), name, value, size, flags));
	calls_reply(req, ret);
}

static void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	char proc[NODE_PROC_MAX];
	int ret;

	if (calls_refused(req, RULES_REMOVEXATTR, ino, NULL))
		return;
	AS_CALLER(req, ret, removexattr(node_proc(calls_node(ino), proc), name));
	calls_reply(req, ret);
}

/* name: NULL for the list of all. */
static void reply_xattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char proc[NODE_PROC_MAX], *value = size ? malloc(size) : NULL;
	ssize_t n;

	node_proc(calls_node(ino), proc);
	if (size && !value) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	if (name)
		AS_CALLER(req, n, getxattr(proc, name, value, size));
	else
		AS_CALLER(req, n, listxattr(proc, value, size));
	if (n < 0)
		fuse_reply_err(req, errno);
	else if (size)
		fuse_reply_buf(req, value, (size_t)n);
	else
		fuse_reply_xattr(req, (size_t)n);
	free(value);
}

static void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	if (!calls_refused(req, RULES_GETXATTR, ino, NULL))
		reply_xattr(req, ino, name, size);
}

static void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	if (!calls_refused(req, RULES_LISTXATTR, ino, NULL))
		reply_xattr(req, ino, NULL, size);
}

struct fuse_lowlevel_ops calls_ops = {
	.init = do_init,
	.lookup = do_lookup,
	.forget = do_forget,
	.forget_multi = do_forget_multi,
	.getattr = do_getattr,
	.setattr = do_setattr,
	.readlink = do_readlink,
	.mknod = do_mknod,
	.mkdir = do_mkdir,
	.unlink = do_unlink,
	.rmdir = do_rmdir,
	.symlink = do_symlink,
	.rename = do_rename,
	.link = do_link,
	.statfs = do_statfs,
	.setxattr = do_setxattr,
	.getxattr = do_getxattr,
	.listxattr = do_listxattr,
	.removexattr = do_removexattr,
	.access = do_access,
};
