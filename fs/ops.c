/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/dirops.h"
#include "fs/late.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* Directories above a Maildir hardly ever change; NFS clients keep such for as long (acdirmax). */
#define TIMEOUT_ABOVE_S 30.0
/* A message's attributes: fresh with each lookup of its name, which is never older than `revalidate`; on a network
 * filesystem as long as message.h keeps them. */
#define TIMEOUT_MESSAGE_S 60.0
#define TIMEOUT_MESSAGE_SPARED_S ((double)MESSAGE_KEEP_NS / NS_PER_S)
#define ENTRY_TRIES 8
#define BACKGROUND_MAX 16384
#define STATX_WANTED (STATX_BASIC_STATS | STATX_BTIME)

static int statx_for(fuse_req_t req, int dirfd, const char *name, int flags, unsigned wanted, struct statx *stx)
{
	int r;

	flags |= AT_SYMLINK_NOFOLLOW | (name[0] ? 0 : AT_EMPTY_PATH);

	*stx = (struct statx){0};
	CALLER_RUN(req, r, statx(dirfd, name, flags, wanted, stx));
	return r < 0 ? -errno : 0;
}

int ops_statx(fuse_req_t req, int dirfd, const char *name, struct statx *stx)
{
	return statx_for(req, dirfd, name, 0, STATX_WANTED, stx);
}

int ops_statx_known(fuse_req_t req, int dirfd, const char *name, struct statx *stx)
{
	return statx_for(req, dirfd, name, AT_STATX_DONT_SYNC, STATX_WANTED, stx);
}

int ops_statx_forced(fuse_req_t req, int dirfd, const char *name, struct statx *stx)
{
	return statx_for(req, dirfd, name, AT_STATX_FORCE_SYNC, STATX_WANTED, stx);
}

int ops_statx_dir(fuse_req_t req, struct node *dir, int dirfd, const char *name, struct statx *stx)
{
	struct dir_attr *kept = &dir->dir->attr;
	uint64_t begun;
	int r;

	if (!ops_fs(req)->spares)
		return ops_statx(req, dirfd, name, stx);
	begun = dir_attr_begin(kept);
	r = statx_for(req, dirfd, name, 0, DIR_ATTR_LIGHT, stx);
	if (r < 0 || dir_attr_merge(kept, stx, clock_mono_ns()))
		return r;
	r = ops_statx(req, dirfd, name, stx);
	if (r == 0 && stx->stx_ino == dir->ino)
		dir_attr_keep(kept, stx, clock_mono_ns(), begun);
	return r;
}

static struct timespec timespec_of(struct statx_timestamp t)
{
	return (struct timespec){.tv_sec = t.tv_sec, .tv_nsec = t.tv_nsec};
}

static void stat_of(const struct statx *stx, struct stat *st)
{
	*st = (struct stat){
		.st_dev = makedev(stx->stx_dev_major, stx->stx_dev_minor),
		.st_ino = stx->stx_ino,
		.st_mode = stx->stx_mode,
		.st_nlink = stx->stx_nlink,
		.st_uid = stx->stx_uid,
		.st_gid = stx->stx_gid,
		.st_rdev = makedev(stx->stx_rdev_major, stx->stx_rdev_minor),
		.st_size = (off_t)stx->stx_size,
		.st_blksize = stx->stx_blksize,
		.st_blocks = (blkcnt_t)stx->stx_blocks,
		.st_atim = timespec_of(stx->stx_atime),
		.st_mtim = timespec_of(stx->stx_mtime),
		.st_ctim = timespec_of(stx->stx_ctime),
	};
}

enum serve_mode ops_serve_mode(struct fs *fs, struct node *half)
{
	char path[FOLDER_PATH_MAX + NAME_LEN_MAX + 2];

	return node_path(&fs->nodes, half, path, sizeof(path)) < 0 ? SERVE_LOWER : serve_of(&fs->serve, path);
}

static void show_times(struct stat *st, const struct stamp *s, int64_t mtime_ns)
{
	st->st_mtim = clock_timespec(mtime_ns);
	st->st_ctim = clock_timespec(s->ctime_ns);
}

/* A half's mtime tells which listing goes with it, unless the lower listings are what is served. */
static int half_mtime(fuse_req_t req, struct node *n, struct stat *st, double *timeout_s)
{
	struct fs *fs = ops_fs(req);
	const struct live_times plain = {.ctime_ns = clock_ns(st->st_ctim), .mtime_ns = clock_ns(st->st_mtim)};
	struct stamp s;
	int64_t mtime, keep;
	int fd, r;

	if (ops_serve_mode(fs, n) != SERVE_INDEX)
		return 0;
	/* Its opendir, which follows, asks the server; nobody looks at the times in between. */
	if (fs->spares && live_mtime_unseen(fs, n, &plain, &s, &mtime) && caller_act_opens(caller_act(req))) {
		show_times(st, &s, mtime);
		return 0;
	}
	fd = node_dir_get(&fs->nodes, n);
	if (fd < 0)
		return fd;
	r = live_mtime(fs, n, fd, &plain, &s, &mtime, &keep);
	if (r == -ESTALE) /* removed, but somebody stands in it: its own times are as good as any */
		r = 0;
	else if (r == 0) {
		show_times(st, &s, mtime);
		*timeout_s = keep > 0 ? (double)keep / NS_PER_S : 0;
	}
	node_dir_put(&fs->nodes, n);
	return r;
}

static bool parent_is_half(struct fs *fs, struct node *n)
{
	bool yes;

	pthread_mutex_lock(&fs->nodes.lock);
	yes = n->names && n->names->parent->dir->is_half;
	pthread_mutex_unlock(&fs->nodes.lock);
	return yes;
}

int ops_attr(fuse_req_t req, struct node *n, const struct statx *stx, struct stat *st, double *timeout_s)
{
	struct fs *fs = ops_fs(req);

	stat_of(stx, st);
	*timeout_s = 0;
	if (n->dir && node_is_half(&fs->nodes, n))
		return half_mtime(req, n, st, timeout_s);
	if (n->dir && n->dir->above_maildir)
		*timeout_s = TIMEOUT_ABOVE_S;
	else if (n->dir && n->dir->is_maildir) /* each walk to a message passes it, several times */
		*timeout_s = (double)fs->conf->revalidate_ns / NS_PER_S;
	else if (S_ISREG(n->type) && parent_is_half(fs, n))
		*timeout_s = fs->spares ? TIMEOUT_MESSAGE_SPARED_S : TIMEOUT_MESSAGE_S;
	return 0;
}

static double entry_timeout(struct fs *fs, struct node *n, bool message)
{
	if (n->dir && n->dir->above_maildir)
		return TIMEOUT_ABOVE_S;
	/* uidlists and the like are replaced by rename on other hosts: each open must see the newest. */
	return n->dir || message ? (double)fs->conf->revalidate_ns / NS_PER_S : 0;
}

/* What a look at a name found. */
struct look {
	struct statx stx;
	bool old;       /* not asked for now: only mode and owner are to be believed */
	int fd;         /* the file, open for reading; or -1 */
	uint64_t begun; /* message.changes before it */
};

/* The caller is about to read this message: opens it, which tells what it is and asks the server once. */
static int look_open(fuse_req_t req, int dirfd, const char *name, struct look *look)
{
	int r;

	CALLER_RUN(req, look->fd, openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
	if (look->fd < 0)
		return -errno;
	r = ops_statx_known(req, look->fd, "", &look->stx);
	if (r == 0 && !S_ISREG(look->stx.stx_mode))
		r = -EINVAL;
	if (r < 0) {
		close(look->fd);
		look->fd = -1;
	}
	return r;
}

/* Its open will go late (late.h), as a rule. */
static bool is_held(fuse_req_t req, struct node *n)
{
	struct fs *fs = ops_fs(req);
	bool held;

	pthread_mutex_lock(&fs->nodes.lock);
	held = message_held(&n->message, fuse_req_ctx(req)->uid, O_RDONLY, clock_mono_ns());
	pthread_mutex_unlock(&fs->nodes.lock);
	return held;
}

/*
 * The root of another storage (a mount below ours): as its client knows it, without asking. Its server may hang, and looks
 * that wait for it would hold the workers of the parent's storage, whose requests they are (gate.h). Whoever goes on from
 * there asks, and so keeps what the client knows fresh.
 */
static bool look_at_storage(fuse_req_t req, struct node *parent, const struct node *known, int dirfd, const char *name,
			    struct look *look)
{
	if (parent->dir->is_half || parent->dir->is_maildir || (known && (!known->dir || known->dev == parent->dev)))
		return false;
	return statx_for(req, dirfd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_WANTED, &look->stx) == 0 &&
	       S_ISDIR(look->stx.stx_mode) && makedev(look->stx.stx_dev_major, look->stx.stx_dev_minor) != parent->dev;
}

bool ops_dir_checked(fuse_req_t req, struct node *dir, int fd, const char *name, struct statx *stx)
{
	struct fs *fs = ops_fs(req);
	enum caller_act act;
	bool inside;

	if (!fs->spares || dir->dir->is_maildir || dir->dir->above_maildir)
		return false;
	pthread_mutex_lock(&fs->nodes.lock);
	inside = dir->names && dir->names->parent->dir->is_maildir;
	pthread_mutex_unlock(&fs->nodes.lock);
	act = inside ? caller_act(req) : CALLER_OTHER;
	return (act == CALLER_LISTS || act == CALLER_CHMODS) && ops_statx_known(req, fd, name, stx) == 0 &&
	       stx->stx_ino == dir->ino && stx->stx_uid == fuse_req_ctx(req)->uid && (stx->stx_mode & 0700) == 0700;
}

/* What is no directory, as far as we know. Returns 0, negative errno, or 1 if it has to be asked for. */
static int look_at_file(fuse_req_t req, struct node *parent, struct node *known, int dirfd, const char *name,
			struct look *look)
{
	enum caller_act act = caller_act(req);
	bool opens = caller_act_opens(act);
	int r = -EINVAL;

	if (!opens && (act != CALLER_UNLINKS || parent->dir->is_half))
		return 1;
	if (opens && parent->dir->is_half && name_is_message(name, strlen(name)) && !(known && is_held(req, known)))
		r = look_open(req, dirfd, name, look);
	if (r < 0 && r != -ENOENT)
		r = ops_statx_known(req, dirfd, name, &look->stx);
	/* A file is told by its birth time too, where there is one. */
	look->old = r == 0 && !S_ISDIR(look->stx.stx_mode) && (look->stx.stx_mask & STATX_BTIME || !parent->btime_ns);
	return r < 0 || look->old ? r : 1;
}

static int look_at(fuse_req_t req, struct node *parent, struct node *known, int dirfd, const char *name,
		   struct look *look)
{
	int r = 1;

	if (!(known && known->dir && known->dir->stale) && look_at_storage(req, parent, known, dirfd, name, look))
		return 0;
	if (known && known->dir && known->dir->stale) {
		dir_attr_forget(&known->dir->attr);
		/* The client is told ESTALE then, and looks the name up anew. */
		return statx_for(req, dirfd, name, AT_STATX_FORCE_SYNC, STATX_WANTED, &look->stx);
	}
	if (known && known->dir) {
		look->old = ops_dir_checked(req, known, dirfd, name, &look->stx);
		return look->old ? 0 : ops_statx_dir(req, known, dirfd, name, &look->stx);
	}
	if (ops_fs(req)->spares)
		r = look_at_file(req, parent, known, dirfd, name, look);
	return r <= 0 ? r : ops_statx(req, dirfd, name, &look->stx);
}

/* The node that the name is now; or NULL and *error. */
static struct node *entry_node(fuse_req_t req, struct node *parent, int dirfd, const char *name, struct look *look,
			       int *error)
{
	struct fs *fs = ops_fs(req);
	struct node *n = fs->spares ? node_child(&fs->nodes, parent, name) : NULL;
	struct node *before = n;
	int fd = -1;

	*look = (struct look){.fd = -1, .begun = n ? n->message.changes : 0};
	*error = look_at(req, parent, n, dirfd, name, look);
	if (n)
		node_unref(&fs->nodes, n);
	if (*error < 0)
		return NULL;
	if (S_ISDIR(look->stx.stx_mode)) {
		struct statx same;

		CALLER_RUN(req, fd, openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
		if (fd >= 0 && (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &same) < 0 ||
				same.stx_ino != look->stx.stx_ino)) {
			close(fd);
			*error = -ESTALE;
			return NULL;
		}
	}
	n = node_lookup(&fs->nodes, parent, name, &look->stx, fd);
	if (n != before)
		look->begun = 0;
	if (n && look->fd >= 0)
		node_early_keep(&fs->nodes, n, fuse_req_ctx(req)->pid, fuse_req_ctx(req)->uid, look->fd);
	else if (look->fd >= 0)
		close(look->fd);
	*error = n ? 0 : -ENOMEM;
	return n;
}

static void learn(struct fs *fs, struct node *n, const struct stat *st, uint64_t begun)
{
	if (!fs->spares)
		return;
	pthread_mutex_lock(&fs->nodes.lock);
	message_learn(&n->message, st, clock_mono_ns(), begun);
	pthread_mutex_unlock(&fs->nodes.lock);
}

/*
 * The kernel holds no lock when it looks a known name up again: a rename through the mount may run between our look and
 * our note, and the note would give the file its old name back. So it is looked at again if names in the directory were
 * changed meanwhile.
 */
int ops_entry(fuse_req_t req, struct node *parent, int dirfd, const char *name, struct fuse_entry_param *e)
{
	struct fs *fs = ops_fs(req);
	struct look look;
	struct node *n;
	uint64_t before;
	bool message;
	int r;

	*e = (struct fuse_entry_param){0};
	for (int i = 0;; i++) {
		before = parent->dir->renames;
		n = entry_node(req, parent, dirfd, name, &look, &r);
		if (parent->dir->renames == before || i == ENTRY_TRIES)
			break;
		if (n)
			node_forget(&fs->nodes, n, 1);
	}
	if (r == -ENOENT)
		node_name_missing(&fs->nodes, parent, name, before);
	if (!n)
		return r;
	e->ino = n == fs->nodes.root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)n;
	r = ops_attr(req, n, &look.stx, &e->attr, &e->attr_timeout);
	if (r < 0) {
		node_forget(&fs->nodes, n, 1);
		return r;
	}
	message = e->attr_timeout >= TIMEOUT_MESSAGE_S;
	e->entry_timeout = entry_timeout(fs, n, message);
	if (look.old)
		e->attr_timeout = 0;
	else if (message)
		learn(fs, n, &e->attr, look.begun);
	return 0;
}

void ops_message_forget(struct fs *fs, struct node *n)
{
	pthread_mutex_lock(&fs->nodes.lock);
	message_forget(&n->message);
	pthread_mutex_unlock(&fs->nodes.lock);
}

int ops_fd(fuse_req_t req, const struct fuse_file_info *fi)
{
	return late_fd(ops_fs(req), ops_handle(fi));
}

void ops_reply_err(fuse_req_t req, struct node *n, int r)
{
	if (r == -ESTALE)
		node_stale(&ops_fs(req)->nodes, n);
	fuse_reply_err(req, -r);
}

void ops_reply_entry(fuse_req_t req, const struct fuse_entry_param *e)
{
	struct fs *fs = ops_fs(req);
	struct node *n = ops_node(req, e->ino);

	if (fuse_reply_entry(req, e) == -ENOENT) /* interrupted: the kernel holds no reference */
		node_forget(&fs->nodes, n, 1);
}

int ops_same(int fd, const struct node *n)
{
	struct statx stx;

	/* No more than that: to tell size or times an NFS client sends what was written, each time the kernel asks for
	 * "security.capability" before a write. */
	if (statx(fd, "", AT_EMPTY_PATH, STATX_INO, &stx) < 0)
		return -errno;
	return makedev(stx.stx_dev_major, stx.stx_dev_minor) == n->dev && stx.stx_ino == n->ino ? 0 : -ESTALE;
}

int ops_open_instead(struct fs *fs, struct node *n, int r)
{
	bool denied = r == -EACCES || r == -EPERM;
	int fd;

	if (!denied && r != -ENOENT && r != -ESTALE)
		return r;
	fd = node_any_fd(&fs->nodes, n);
	return fd < 0 && denied ? r : fd;
}

int ops_open_path(fuse_req_t req, struct node *n)
{
	struct fs *fs = ops_fs(req);
	struct node_at at;
	int fd, r = node_at(&fs->nodes, n, &at);

	if (r < 0)
		return node_any_fd(&fs->nodes, n);
	if (at.name[0])
		CALLER_RUN(req, fd, openat(at.dirfd, at.name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	else
		fd = fcntl(at.dirfd, F_DUPFD_CLOEXEC, 0);
	r = fd < 0 ? -errno : ops_same(fd, n);
	node_at_end(&fs->nodes, &at);
	if (r < 0 && fd >= 0)
		close(fd);
	return r < 0 ? ops_open_instead(fs, n, r) : fd;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	conn->want &=
		~(unsigned)(FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO); /* dearer, and nobody stats in a scan */
	conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV; /* the kernel asks for it by setattr, as the caller */
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	/* What is read ahead on storage that hangs must not keep the kernel from sending us what others want: it waits here
	 * (gate.h). */
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	dirops_want(conn);
	backing_start(fs, conn);
	if (fs->ready)
		fs->ready(fs);
}

const struct fuse_lowlevel_ops ops_table = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.access = op_access,
	.statfs = op_statfs,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.link = op_link,
	.create = op_create,
	.open = op_open,
	.read = op_read,
	.write_buf = op_write_buf,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.lseek = op_lseek,
	.copy_file_range = op_copy_file_range,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.getlk = op_getlk,
	.setlk = op_setlk,
	.flock = op_flock,
};
