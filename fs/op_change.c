/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What changes a directory. Each goes: wait for closes under way, own_begin(), the lower call as the caller, own_end()
 * (patch), names, reply. See own.c for the races.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/late.h"
#include "fs/ops.h"
#include "fs/own.h"
#include "lib/base/clock.h"

/* A change in one directory, under way. */
struct op_in {
	fuse_req_t req;
	struct fs *fs;
	struct node *dir;
	int dirfd;
	struct own own;
};

/* Answers the error itself. Returns false then. */
static bool in_begin(struct op_in *in, fuse_req_t req, fuse_ino_t parent)
{
	*in = (struct op_in){.req = req, .fs = ops_fs(req), .dir = ops_node(req, parent)};
	in->dirfd = node_dir_get(&in->fs->nodes, in->dir);
	if (in->dirfd < 0) {
		ops_reply_err(req, in->dir, in->dirfd);
		return false;
	}
	own_begin(in->fs, in->dir, in->dirfd, &in->own);
	return true;
}

static void in_end(struct op_in *in)
{
	node_dir_put(&in->fs->nodes, in->dir);
}

/* What was made must not be made again, which is what the kernel does after ESTALE (and is told EEXIST). */
static int once(int error)
{
	return error == -ESTALE ? -EIO : error;
}

/* A new name: patch and answer with its entry. r: the lower call's result. */
static void added(struct op_in *in, const char *name, int r)
{
	struct fuse_entry_param e = {0};
	struct change c;
	int error = r < 0 ? -errno : 0;

	if (error == 0)
		error = ops_entry(in->req, in->dir, in->dirfd, name, &e);
	if (r == 0 && error < 0) { /* made, but gone or replaced since: who knows */
		change_make(&c, CHANGE_NEED, NULL, "", 0, 0);
		own_end(in->fs, &in->own, 0, &c, 1);
	} else {
		change_make(&c, CHANGE_ADD, NULL, name, error ? 0 : e.attr.st_ino, error ? 0 : IFTODT(e.attr.st_mode));
		own_end(in->fs, &in->own, error, &c, 1);
	}
	if (error < 0)
		ops_reply_err(in->req, in->dir, r == 0 ? once(error) : error);
	else
		ops_reply_entry(in->req, &e);
	in_end(in);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct op_in in;
	int r;

	if (ring_mknod(req, name) || !in_begin(&in, req, parent))
		return;
	CALLER_RUN(req, r, mknodat(in.dirfd, name, mode, rdev));
	added(&in, name, r);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct op_in in;
	int r;

	if (!in_begin(&in, req, parent))
		return;
	CALLER_RUN(req, r, mkdirat(in.dirfd, name, mode));
	added(&in, name, r);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct op_in in;
	int r;

	if (!in_begin(&in, req, parent))
		return;
	CALLER_RUN(req, r, symlinkat(target, in.dirfd, name));
	added(&in, name, r);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e = {0};
	struct node *n = NULL;
	struct op_in in;
	struct change c;
	bool made;
	int fd, r;

	growth_seen(fuse_req_ctx(req)->pid);
	if (!in_begin(&in, req, parent))
		return;
	CALLER_RUN(req, fd, openat(in.dirfd, name, (fi->flags & ~O_DIRECT) | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode));
	r = fd < 0 ? -errno : ops_entry(req, in.dir, in.dirfd, name, &e);
	if (r == 0)
		n = ops_node(req, e.ino);
	if (n && ops_same(fd, n) < 0) { /* replaced at once by somebody else */
		node_forget(&in.fs->nodes, n, 1);
		r = -ESTALE;
	}
	made = fd >= 0;
	change_make(&c, made && r < 0 ? CHANGE_NEED : CHANGE_ADD, NULL, made && r < 0 ? "" : name,
		    r ? 0 : e.attr.st_ino, DT_REG);
	own_end(in.fs, &in.own, made ? 0 : r, &c, 1);
	if (r == 0) {
		r = op_file_opened(req, n, fd, in.own.is_half, fi);
		if (r < 0)
			node_forget(&in.fs->nodes, n, 1);
	} else if (made) {
		close(fd);
	}
	if (r < 0) {
		ops_reply_err(req, in.dir, made ? once(r) : r);
	} else if (fuse_reply_create(req, &e, fi) == -ENOENT) { /* interrupted: the kernel has neither */
		op_file_closed(in.fs, ops_handle(fi));
		node_forget(&in.fs->nodes, n, 1);
	}
	in_end(&in);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct node *n = ops_node(req, ino);
	struct fuse_entry_param e = {0};
	struct node_at at;
	struct op_in in;
	struct change c;
	bool twin, located;
	struct statx stx;
	int r, made = -1;

	if (!in_begin(&in, req, newparent))
		return;
	r = node_at(&in.fs->nodes, n, &at);
	located = r == 0;
	if (located) {
		CALLER_RUN(req, made, linkat(at.dirfd, at.name, in.dirfd, newname, 0));
		r = made < 0 ? -errno : 0;
		ops_message_forget(in.fs, n); /* one link more */
		if (r == -ENOENT && ops_statx(req, at.dirfd, at.name, &stx) == -ENOENT)
			r = -ESTALE; /* another of its names may still be there: the kernel looks it up again */
	}
	if (r == 0)
		r = ops_entry(req, in.dir, in.dirfd, newname, &e);
	if (r == 0 && ops_node(req, e.ino) != n) { /* the old name was another file */
		node_forget(&in.fs->nodes, ops_node(req, e.ino), 1);
		CALLER_RUN(req, r, unlinkat(in.dirfd, newname, 0));
		r = -ESTALE;
	}
	/* Two names of one message in one half: the patch takes a new name for a change of the old one, so list
	 * instead. */
	twin = made == 0 &&
	       (r < 0 || (at.parent == in.dir && name_same_base(at.name, strlen(at.name), newname, strlen(newname))));
	if (twin)
		change_make(&c, CHANGE_NEED, NULL, "", 0, 0);
	else
		change_make(&c, CHANGE_ADD, NULL, newname, r ? 0 : e.attr.st_ino, r ? 0 : IFTODT(e.attr.st_mode));
	own_end(in.fs, &in.own, twin ? 0 : r, &c, 1);
	if (r < 0)
		ops_reply_err(req, in.dir, r);
	else
		ops_reply_entry(req, &e);
	if (located)
		node_at_end(&in.fs->nodes, &at);
	in_end(&in);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct node *leaving;
	struct op_in in;
	struct change c;
	int r;

	growth_seen(fuse_req_ctx(req)->pid);
	if (ring_unlink(req, name))
		return;
	node_await_close(&ops_fs(req)->nodes, ops_node(req, parent), name);
	leaving = late_hold(ops_fs(req), ops_node(req, parent), name);
	if (!in_begin(&in, req, parent)) {
		late_let(ops_fs(req), leaving);
		return;
	}
	node_renaming(&in.fs->nodes, in.dir, true);
	CALLER_RUN(req, r, unlinkat(in.dirfd, name, 0));
	r = r < 0 ? -errno : 0;
	late_let(in.fs, leaving);
	change_make(&c, CHANGE_REMOVE, NULL, name, 0, 0);
	own_end(in.fs, &in.own, r, &c, 1);
	if (r == 0)
		node_name_removed(&in.fs->nodes, in.dir, name);
	node_renaming(&in.fs->nodes, in.dir, false);
	ops_reply_err(req, in.dir, r);
	in_end(&in);
}

/* Are .nfsXXXX names all that is left? Then closes are under way, and a moment later the directory is empty. Returns 1,
 * 0 or -1. */
static int only_nfs_names(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	int only = d ? 1 : -1;

	if (!d && fd >= 0)
		close(fd);
	while (only > 0 && (de = readdir(d)))
		only = strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
		       name_is_nfs(de->d_name, strlen(de->d_name));
	if (d)
		closedir(d);
	return only;
}

static int remove_dir(fuse_req_t req, int dirfd, const char *name)
{
	const struct timespec pause = {.tv_nsec = 20 * NS_PER_MS};
	int again, r;

	CALLER_RUN(req, r, unlinkat(dirfd, name, AT_REMOVEDIR));
	if (r < 0 && (errno == ENOTEMPTY || errno == EEXIST)) {
		r = -errno;
		CALLER_RUN(req, again, only_nfs_names(dirfd, name));
		if (again <= 0)
			return r;
		nanosleep(&pause, NULL);
		CALLER_RUN(req, r, unlinkat(dirfd, name, AT_REMOVEDIR));
	}
	return r < 0 ? -errno : 0;
}

#define DIR_PATH_SIZE (FOLDER_PATH_MAX + NAME_LEN_MAX + 2)

/* The path of a directory that was moved or removed; of a half: that of its Maildir. Returns false if there is none. */
static bool folders_path(struct fs *fs, struct node *dir, const char *name, char path[DIR_PATH_SIZE], bool *is_half)
{
	enum half half;
	size_t len;

	if (node_path(&fs->nodes, dir, path, DIR_PATH_SIZE) < 0)
		return false;
	len = strlen(path);
	*is_half = half_parse(name, strlen(name), &half) == 0;
	if (!*is_half)
		snprintf(path + len, DIR_PATH_SIZE - len, "%s%s", len ? "/" : "", name);
	return true;
}

/* Live folders at or below such a directory are no longer what they were. */
static void detach_below(struct fs *fs, struct node *dir, const char *name)
{
	char path[DIR_PATH_SIZE];
	bool is_half;

	if (folders_path(fs, dir, name, path, &is_half))
		live_detach_below(fs, path);
}

/* The same after a rename; what the index holds of them follows. */
static void folders_renamed(struct op_in *from, const char *old, struct op_in *to, const char *new, bool exchange)
{
	char from_path[DIR_PATH_SIZE], to_path[DIR_PATH_SIZE];
	bool from_half, to_half;

	if (!folders_path(from->fs, from->dir, old, from_path, &from_half) ||
	    !folders_path(from->fs, to->dir, new, to_path, &to_half))
		return;
	live_detach_below(from->fs, from_path);
	live_detach_below(from->fs, to_path);
	if (!exchange && !from_half && !to_half && strlen(from_path) <= FOLDER_PATH_MAX &&
	    strlen(to_path) <= FOLDER_PATH_MAX)
		feed_send_rename(from->fs, from_path, to_path);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct op_in in;
	struct change c;
	int r;

	if (!in_begin(&in, req, parent))
		return;
	node_dir_leaves(&in.fs->nodes, in.dir, name, true);
	r = remove_dir(req, in.dirfd, name);
	if (r < 0)
		node_dir_leaves(&in.fs->nodes, in.dir, name, false);
	change_make(&c, CHANGE_REMOVE, NULL, name, 0, 0);
	own_end(in.fs, &in.own, r, &c, 1);
	if (r == 0) {
		detach_below(in.fs, in.dir, name);
		node_name_removed(&in.fs->nodes, in.dir, name);
	}
	ops_reply_err(req, in.dir, r);
	in_end(&in);
}

/* What a rename does to each of the two directories. */
struct rename_effect {
	struct change from[2], to[2];
	size_t nfrom, nto;
	bool is_dir;
};

static void rename_effect(struct op_in *from, const char *old, struct op_in *to, const char *new, bool exchange,
			  struct rename_effect *fx)
{
	struct node *moved = node_child(&from->fs->nodes, from->dir, old);
	struct node *other = node_child(&from->fs->nodes, to->dir, new);
	uint64_t ino = moved ? moved->ino : 0, other_ino = other ? other->ino : 0;
	uint8_t type = moved ? IFTODT(moved->type) : 0, other_type = other ? IFTODT(other->type) : 0;

	*fx = (struct rename_effect){.is_dir = (moved && moved->dir) || (exchange && other && other->dir)};
	if (moved && moved == other) {
		/* Two names of one file: rename(2) does nothing. */
	} else if (!moved || (exchange && !other)) {
		/* The kernel always looks both up before; if not, the patch cannot know the inode. */
		change_make(&fx->from[fx->nfrom++], CHANGE_NEED, NULL, "", 0, 0);
		change_make(&fx->to[fx->nto++], CHANGE_NEED, NULL, "", 0, 0);
	} else if (exchange) {
		change_make(&fx->from[fx->nfrom++], CHANGE_ADD, NULL, old, other_ino, other_type);
		change_make(&fx->to[fx->nto++], CHANGE_ADD, NULL, new, ino, type);
	} else if (from->dir == to->dir) {
		change_make(&fx->from[fx->nfrom++], CHANGE_RENAME, old, new, ino, type);
	} else {
		change_make(&fx->from[fx->nfrom++], CHANGE_REMOVE, NULL, old, 0, 0);
		change_make(&fx->to[fx->nto++], CHANGE_ADD, NULL, new, ino, type);
	}
	if (moved)
		node_unref(&from->fs->nodes, moved);
	if (other)
		node_unref(&from->fs->nodes, other);
}

static void rename_now(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
		       unsigned flags)
{
	bool exchange = flags & RENAME_EXCHANGE, same = parent == newparent;
	struct rename_effect fx;
	struct op_in from, to;
	int r;

	if (!in_begin(&from, req, parent))
		return;
	to = from;
	if (!same && !in_begin(&to, req, newparent)) {
		own_end(from.fs, &from.own, -ENOENT, NULL, 0);
		in_end(&from);
		return;
	}
	rename_effect(&from, name, &to, newname, exchange, &fx);
	node_renaming(&from.fs->nodes, from.dir, true);
	node_renaming(&from.fs->nodes, to.dir, true);
	CALLER_RUN(req, r, renameat2(from.dirfd, name, to.dirfd, newname, flags));
	r = r < 0 ? -errno : 0;
	own_end(from.fs, &from.own, r, fx.from, fx.nfrom);
	if (!same)
		own_end(from.fs, &to.own, r, fx.to, fx.nto);
	if (r == 0)
		node_renamed(&from.fs->nodes, from.dir, name, to.dir, newname, exchange);
	node_renaming(&from.fs->nodes, from.dir, false);
	node_renaming(&from.fs->nodes, to.dir, false);
	if (r == 0 && fx.is_dir) /* last: until now somebody who stands in it opened it under its old path */
		folders_renamed(&from, name, &to, newname, exchange);
	if (r == -ESTALE)
		node_stale(&to.fs->nodes, to.dir);
	ops_reply_err(req, from.dir, r);
	if (!same)
		in_end(&to);
	in_end(&from);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
	       unsigned int flags)
{
	struct fs *fs = ops_fs(req);
	struct node *leaving = NULL;

	growth_seen(fuse_req_ctx(req)->pid);
	if (!(flags & RENAME_EXCHANGE)) {
		node_await_close(&fs->nodes, ops_node(req, newparent), newname);
		leaving = late_hold(fs, ops_node(req, newparent), newname);
	}
	rename_now(req, parent, name, newparent, newname, flags);
	late_let(fs, leaving);
}
