/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/late.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/ops.h"

#define OPEN_TRIES 8
#define OPEN_FLAGS (O_RDONLY | O_NOFOLLOW | O_CLOEXEC)

bool late_open(fuse_req_t req, struct node *n, const struct node_at *at, struct fuse_file_info *fi)
{
	struct fs *fs = ops_fs(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct handle *h;

	if (!fs->spares || ops_serve_mode(fs, at->parent) != SERVE_INDEX ||
	    !live_knows(fs, at->parent, at->name, n->ino))
		return false;
	h = calloc(1, sizeof(*h));
	if (!h)
		return false;
	*h = (struct handle){.fd = -1, .late = true, .uid = ctx->uid, .gid = ctx->gid, .half = at->parent};
	if (!node_opened_late(&fs->nodes, n, h, fi->flags)) {
		free(h);
		return false;
	}
	counter_add(COUNT_LATE, 1);
	fi->keep_cache = 1;
	fi->fh = (uint64_t)(uintptr_t)h;
	return true;
}

/* Opens what must be this file. */
static int open_same(int dirfd, const char *name, const struct node *n, const struct cred *who)
{
	int fd, r = cred_become(who);

	if (r < 0)
		return r;
	fd = openat(dirfd, name, OPEN_FLAGS);
	r = fd < 0 ? -errno : ops_same(fd, n);
	cred_restore();
	if (r < 0 && fd >= 0)
		close(fd);
	return r < 0 ? r : fd;
}

static int open_named(struct fs *fs, struct node *n, const struct cred *who)
{
	struct node_at at;
	int fd = node_at(&fs->nodes, n, &at);

	if (fd < 0)
		return fd;
	fd = open_same(at.dirfd, at.name, n, who);
	node_at_end(&fs->nodes, &at);
	return fd;
}

/* By the name that its inode has in a half now. */
static int open_in(struct fs *fs, struct node *n, struct node *half, const struct cred *who)
{
	struct snapshot_entry e = {.cookie = 0};
	struct snapshot_walk walk;
	struct snapshot *s = NULL;
	char name[NAME_LEN_MAX + 1];
	bool found = false;
	int dirfd = node_dir_get(&fs->nodes, half), r = dirfd;
	struct live *l = dirfd < 0 ? NULL : live_get(fs, half, &r);

	if (l) {
		r = live_open(fs, l, dirfd, who);
		s = r < 0 ? NULL : live_snapshot(l, true);
		live_put(fs, l);
	}
	if (s) {
		snapshot_walk_init(&walk, s);
		while (!found && snapshot_walk_next(&walk, &e))
			found = e.entry.ino == n->ino;
		if (found)
			snprintf(name, sizeof(name), "%.*s", (int)e.entry.len, e.entry.name);
		snapshot_unref(s);
		r = found ? open_same(dirfd, name, n, who) : -ESTALE;
	}
	if (dirfd >= 0)
		node_dir_put(&fs->nodes, half);
	return r;
}

static int open_lower(struct fs *fs, struct node *n, struct node *half, const struct cred *who)
{
	struct node *other;
	uint64_t renames;
	int fd;

	for (int i = 0;; i++) {
		renames = half->dir->renames;
		fd = open_named(fs, n, who);
		if (fd >= 0 || half->dir->renames == renames || i == OPEN_TRIES)
			break;
	}
	if (fd != -ENOENT && fd != -ESTALE)
		return fd;
	fd = open_in(fs, n, half, who);
	other = fd < 0 ? node_sibling(&fs->nodes, half) : NULL;
	if (other) {
		fd = open_in(fs, n, other, who);
		node_unref(&fs->nodes, other);
	}
	return fd == -ENOENT ? -ESTALE : fd;
}

int late_fd(struct fs *fs, struct handle *h)
{
	const struct cred who = {.uid = h->uid, .gid = h->gid};
	int fd;

	if (!h->late)
		return h->fd;
	fd = node_late_fd(&fs->nodes, h->node, h, -1);
	if (fd >= 0)
		return fd;
	fd = open_lower(fs, h->node, h->half, &who);
	if (fd < 0)
		return fd;
	counter_add(COUNT_LATE_OPENED, 1);
	return node_late_fd(&fs->nodes, h->node, h, fd);
}

struct node *late_hold(struct fs *fs, struct node *parent, const char *name)
{
	struct node *n = fs->spares ? node_child(&fs->nodes, parent, name) : NULL;
	struct handle h;
	struct handle *of;
	int fd;

	if (!n)
		return NULL;
	node_leaves(&fs->nodes, n, true);
	node_early_end(&fs->nodes, n);
	while ((of = node_late(&fs->nodes, n, &h))) {
		const struct cred who = {.uid = h.uid, .gid = h.gid};

		fd = open_lower(fs, n, h.half, &who);
		node_unref(&fs->nodes, h.half);
		if (fd < 0)
			break; /* removed below already: nothing is left to be kept */
		counter_add(COUNT_LATE_OPENED, 1);
		node_late_fd(&fs->nodes, n, of, fd);
	}
	return n;
}

void late_let(struct fs *fs, struct node *n)
{
	if (!n)
		return;
	node_leaves(&fs->nodes, n, false);
	node_unref(&fs->nodes, n);
}
