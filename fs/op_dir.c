/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listings. A half of a Maildir is answered from its live folder, any other directory from the lower tree, entry by
 * entry with the lower tree's own cookies.
 *
 * Races that this file guards against:
 * - fstat of a directory carries no handle: a stat between opendir and READDIR may show a newer mtime than the listing
 * at opendir. So a handle fixes its listing at its first READDIR, and pins the live folder from opendir on (C14).
 * - The kernel resumes with a cookie on a handle that never read before: cookies are the live folder's, not the
 * handle's.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/compare.h"
#include "fs/guard.h"
#include "fs/ops.h"

#define GATHER_MAX 64
/* Who lists a folder that is changed without a pause gets the last of so many. */
#define DOUBTS_MAX 8

struct dir_handle {
	LIST_ENTRY(dir_handle) open;
	struct live *live;         /* NULL: listed from the lower tree */
	struct snapshot *snapshot; /* from the first READDIR on */
	int fd;                    /* the lower directory, open for reading; -1 with a live folder */
	off_t at;                  /* where fd stands; -1: not known */
	pthread_mutex_t lock;
};

/* All that are open: the kernel may go without RELEASEDIR. */
static struct {
	pthread_mutex_t lock;
	LIST_HEAD(, dir_handle) open;
} dir_handles = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct dir_handle *dir_handle_new(void)
{
	struct dir_handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->fd = -1;
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_lock(&dir_handles.lock);
	LIST_INSERT_HEAD(&dir_handles.open, h, open);
	pthread_mutex_unlock(&dir_handles.lock);
	return h;
}

static struct dir_handle *dir_handle_of(const struct fuse_file_info *fi)
{
	return (struct dir_handle *)(uintptr_t)fi->fh;
}

static void dir_handle_free(struct fs *fs, struct dir_handle *h)
{
	pthread_mutex_lock(&dir_handles.lock);
	LIST_REMOVE(h, open);
	pthread_mutex_unlock(&dir_handles.lock);
	snapshot_unref(h->snapshot);
	if (h->live)
		live_put(fs, h->live);
	if (h->fd >= 0)
		close(h->fd);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

void op_dir_end(struct fs *fs)
{
	while (!LIST_EMPTY(&dir_handles.open))
		dir_handle_free(fs, LIST_FIRST(&dir_handles.open));
}

/* Brings the live folder up to date as the caller; with the caller's groups where that is refused without. */
static int open_live(fuse_req_t req, struct live *l, int dirfd)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct cred who = {.uid = ctx->uid, .gid = ctx->gid};
	gid_t groups[64];
	int r = live_open(ops_fs(req), l, dirfd, &who);

	if (r != -EACCES && r != -EPERM)
		return r;
	who.ngroups = caller_groups(req, groups, 64);
	if (who.ngroups == 0)
		return r;
	who.groups = groups;
	return live_open(ops_fs(req), l, dirfd, &who);
}

static int open_half(fuse_req_t req, struct node *n, int dirfd, struct dir_handle *h)
{
	int r;

	h->live = live_get(ops_fs(req), n, &r);
	if (!h->live)
		return r;
	r = open_live(req, h->live, dirfd);
	if (r < 0)
		return r;
	/* The lower tree decides who may list: under root_squash that is not root. Last: with what the check has asked for, the
	 * NFS client mostly knows. */
	CALLER_RUN(req, r, (int)syscall(SYS_faccessat2, dirfd, "", R_OK, AT_EACCESS | AT_EMPTY_PATH));
	return r < 0 ? -errno : 0;
}

static int open_lower(fuse_req_t req, int dirfd, struct dir_handle *h)
{
	CALLER_RUN(req, h->fd, openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	return h->fd < 0 ? -errno : 0;
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct node *n = ops_node(req, ino);
	struct dir_handle *h = dir_handle_new();
	enum serve_mode mode = SERVE_LOWER;
	int dirfd, r;

	if (!h) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	dirfd = node_dir_get(&fs->nodes, n);
	r = dirfd;
	if (dirfd >= 0) {
		r = guard_check(fs);
		if (r == 0 && node_is_half(&fs->nodes, n))
			mode = ops_serve_mode(fs, n);
		if (r == 0 && mode == SERVE_INDEX)
			r = open_half(req, n, dirfd, h);
		else if (r == 0)
			r = open_lower(req, dirfd, h);
		if (r == 0 && mode == SERVE_COMPARE)
			compare_half(fs, n, dirfd, h->fd, fuse_req_ctx(req)->uid, fuse_req_ctx(req)->gid);
		node_dir_put(&fs->nodes, n);
	}
	if (r < 0) {
		dir_handle_free(fs, h);
		ops_reply_err(req, n, r);
		return;
	}
	fi->fh = (uint64_t)(uintptr_t)h;
	fi->keep_cache = 0;
	fi->cache_readdir = 0;
	if (fuse_reply_open(req, fi) == -ENOENT)
		dir_handle_free(fs, h);
}

/* READDIR at cookie 0 on a handle that already read is rewinddir(3): a new listing, checked like a new opendir. */
static int rewind_live(fuse_req_t req, struct dir_handle *h)
{
	struct fs *fs = ops_fs(req);
	int dirfd = node_dir_get(&fs->nodes, h->live->node), r;

	if (dirfd < 0)
		return dirfd;
	r = open_live(req, h->live, dirfd);
	node_dir_put(&fs->nodes, h->live->node);
	return r;
}

/*
 * The handle's listing, referenced: fixed at the first READDIR. What was checked at opendir may have been patched since,
 * by changes of one message that came in the wrong order: then it is checked again.
 */
static int listing_of(fuse_req_t req, off_t off, struct dir_handle *h, struct snapshot **listing)
{
	int r = 0;

	pthread_mutex_lock(&h->lock);
	if (h->snapshot && off == 0) {
		r = rewind_live(req, h);
		snapshot_unref(h->snapshot);
		h->snapshot = NULL;
	}
	for (int i = 0; r == 0 && !h->snapshot; i++) {
		h->snapshot = live_snapshot(h->live, i == DOUBTS_MAX);
		if (!h->snapshot)
			r = i == DOUBTS_MAX ? -EIO : rewind_live(req, h);
	}
	*listing = r == 0 ? snapshot_ref(h->snapshot) : NULL;
	pthread_mutex_unlock(&h->lock);
	return r < 0 ? r : *listing ? 0 : -EIO;
}

static void readdir_live(fuse_req_t req, size_t size, off_t off, struct dir_handle *h)
{
	struct iovec iov[GATHER_MAX];
	struct snapshot *listing;
	uint64_t entries;
	int n, r = listing_of(req, off, h, &listing);

	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	n = snapshot_gather(listing, (uint64_t)off, size, iov, GATHER_MAX, &entries);
	counter_add(COUNT_ENTRIES, entries);
	fuse_reply_iov(req, iov, n); /* the handle may be gone from here on */
	snapshot_unref(listing);
}

/* A lower entry (getdents64(2)). */
struct lower_entry {
	uint64_t ino;
	int64_t off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

/*
 * Turns lower entries into the kernel's. *next: the lower cookie behind the last one that fitted; *all: that was the
 * last. Returns bytes written.
 */
static size_t convert(const char *in, size_t len, char *out, size_t size, off_t *next, bool *all)
{
	size_t used = 0, at = 0;

	while (at < len) {
		const struct lower_entry *e = (const void *)(in + at);
		size_t namelen = strlen(e->name), need = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + namelen);
		struct fuse_dirent *d = (void *)(out + used);

		if (!name_is_nfs(e->name, namelen)) {
			if (used + need > size)
				break;
			d->ino = e->ino;
			d->off = (uint64_t)e->off;
			d->namelen = (uint32_t)namelen;
			d->type = e->type == DT_UNKNOWN && name_is_message(e->name, namelen) ? DT_REG : e->type;
			memcpy(d->name, e->name, namelen);
			memset(d->name + namelen, 0, need - FUSE_NAME_OFFSET - namelen);
			used += need;
		}
		*next = (off_t)e->off;
		at += e->reclen;
	}
	*all = at >= len;
	return used;
}

static void readdir_lower(fuse_req_t req, size_t size, off_t off, struct dir_handle *h)
{
	char *in = malloc(size), *out = malloc(size);
	size_t used = 0;
	ssize_t n = 0;
	off_t next;
	bool all = true;

	pthread_mutex_lock(&h->lock);
	if (!in || !out) {
		errno = ENOMEM;
		n = -1;
	} else if (h->at != off && lseek(h->fd, off, SEEK_SET) < 0) {
		n = -1;
	} else {
		next = off;
		do { /* a piece that holds nothing but .nfs names is not the end */
			n = syscall(SYS_getdents64, h->fd, in, size);
			if (n < 0 &&
			    errno == EREMOTEIO) /* the NFS server's cookies went stale: the client knows better now */
				n = syscall(SYS_getdents64, h->fd, in, size);
			if (n > 0)
				used = convert(in, (size_t)n, out, size, &next, &all);
		} while (n > 0 && used == 0 && next != off);
		h->at = all ? next : -1; /* the descriptor may have read more than fitted */
	}
	pthread_mutex_unlock(&h->lock);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, out, used);
	free(in);
	free(out);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct dir_handle *h = dir_handle_of(fi);

	(void)ino;
	if (h->live)
		readdir_live(req, size, off, h);
	else
		readdir_lower(req, size, off, h);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_handle_free(ops_fs(req), dir_handle_of(fi));
	fuse_reply_err(req, 0);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	struct node *n = ops_node(req, ino);
	int dirfd = node_dir_get(&fs->nodes, n), fd = -1, r = dirfd;

	(void)fi;
	if (dirfd >= 0) {
		CALLER_RUN(req, fd, openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
		r = fd < 0 || (datasync ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
		if (fd >= 0)
			close(fd);
		node_dir_put(&fs->nodes, n);
	}
	fuse_reply_err(req, -r);
}
