/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories among the nodes: their descriptors, how a name is reached through them, and which of them are halves of a
 * Maildir.
 *
 * The race that this file guards against: a directory was renamed or replaced from outside. Its descriptor still is the
 * old one; opened again by path it must be the same inode, else -ESTALE, and the kernel walks the path again.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/node_private.h"
#include "lib/base/cred.h"

static void lru_remove(struct node_table *t, struct node *n)
{
	struct node_dir *d = n->dir;

	*(d->lru_prev ? &d->lru_prev->dir->lru_next : &t->lru_first) = d->lru_next;
	*(d->lru_next ? &d->lru_next->dir->lru_prev : &t->lru_last) = d->lru_prev;
	d->lru_prev = d->lru_next = NULL;
}

static void lru_append(struct node_table *t, struct node *n)
{
	n->dir->lru_prev = t->lru_last;
	n->dir->lru_next = NULL;
	*(t->lru_last ? &t->lru_last->dir->lru_next : &t->lru_first) = n;
	t->lru_last = n;
}

void node_dirfd_drop(struct node_table *t, struct node *n)
{
	lru_remove(t, n);
	close(n->dir->fd);
	n->dir->fd = -1;
	t->dirfds--;
}

void node_dirfd_keep(struct node_table *t, struct node *n, int fd)
{
	struct node *next;

	/* A directory that was made anew may have the number of the old one. Whoever is using the descriptor now goes on
	 * with what the name leads to. */
	if (n->dir->fd >= 0)
		dup3(fd, n->dir->fd, O_CLOEXEC);
	n->dir->stale = false;
	if (n->dir->fd >= 0) {
		close(fd);
		return;
	}
	n->dir->fd = fd;
	t->dirfds++;
	lru_append(t, n);
	for (struct node *old = t->lru_first; old && t->dirfds > t->dirfds_max; old = next) {
		next = old->dir->lru_next;
		if (old->dir->users == 0 && old != n && old != t->root)
			node_dirfd_drop(t, old);
	}
}

/* Opens a directory again whose descriptor had to go. Called with users counted, without the lock. */
static int dir_reopen(struct node_table *t, struct node *dir)
{
	char path[FOLDER_PATH_MAX + NAME_LEN_MAX + 2];
	uid_t owner;
	gid_t group;
	struct stat st;
	int fd, r = node_path(t, dir, path, sizeof(path));

	if (r < 0)
		return r;
	fd = tree_open_dir(t->tree, path, O_PATH, &owner, &group);
	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
	if (fstat(fd, &st) < 0 || st.st_dev != dir->dev || st.st_ino != dir->ino) {
		close(fd);
		return -ESTALE;
	}
	pthread_mutex_lock(&t->lock);
	node_dirfd_keep(t, dir, fd);
	pthread_mutex_unlock(&t->lock);
	return 0;
}

int node_dir_get(struct node_table *t, struct node *dir)
{
	int fd;

	if (!dir->dir)
		return -ENOTDIR;
	pthread_mutex_lock(&t->lock);
	dir->dir->users++;
	dir->refs++;
	fd = dir->dir->fd;
	if (fd >= 0) {
		lru_remove(t, dir);
		lru_append(t, dir);
	}
	pthread_mutex_unlock(&t->lock);
	if (fd < 0) {
		fd = dir_reopen(t, dir);
		if (fd < 0) {
			node_dir_put(t, dir);
			return fd;
		}
		pthread_mutex_lock(&t->lock);
		fd = dir->dir->fd;
		pthread_mutex_unlock(&t->lock);
	}
	return fd;
}

void node_dir_put(struct node_table *t, struct node *dir)
{
	pthread_mutex_lock(&t->lock);
	dir->dir->users--;
	dir->refs--;
	node_put(t, dir);
	pthread_mutex_unlock(&t->lock);
}

void node_renaming(struct node_table *t, struct node *dir, bool begins)
{
	pthread_mutex_lock(&t->lock);
	dir->dir->renaming += begins ? 1 : -1;
	if (!begins)
		pthread_cond_broadcast(&t->released);
	pthread_mutex_unlock(&t->lock);
}

bool node_renamed_meanwhile(struct node_table *t, struct node *dir, uint64_t renames)
{
	struct timespec until = clock_timespec(clock_real_ns() + NODE_CLOSE_WAIT_NS);
	bool yes;

	pthread_mutex_lock(&t->lock);
	while (dir->dir->renaming && pthread_cond_timedwait(&t->released, &t->lock, &until) == 0)
		;
	yes = dir->dir->renames != renames;
	pthread_mutex_unlock(&t->lock);
	return yes;
}

int node_at(struct node_table *t, struct node *n, struct node_at *at)
{
	at->parent = NULL;
	pthread_mutex_lock(&t->lock);
	if (n == t->root) {
		at->parent = n;
		at->name[0] = '\0';
	} else if (n->names) {
		at->parent = n->names->parent;
		strcpy(at->name, n->names->name);
	}
	if (at->parent)
		at->parent->refs++;
	pthread_mutex_unlock(&t->lock);
	if (!at->parent)
		return -ESTALE;
	at->dirfd = node_dir_get(t, at->parent);
	if (at->dirfd < 0) {
		node_unref(t, at->parent);
		return at->dirfd;
	}
	return 0;
}

void node_at_end(struct node_table *t, struct node_at *at)
{
	node_dir_put(t, at->parent);
	node_unref(t, at->parent);
}

/* ---- halves ---- */

static void half_established(struct node_table *t, struct node *dir, struct node *maildir, enum half half)
{
	pthread_mutex_lock(&t->lock);
	dir->dir->half = half;
	dir->dir->is_half = true;
	maildir->dir->halves[half] = dir;
	maildir->dir->is_maildir = true;
	maildir->dir->above_maildir = false;
	for (struct node *n = maildir; n != t->root && n->names; n = n->names->parent)
		n->names->parent->dir->above_maildir = !n->names->parent->dir->is_maildir;
	pthread_mutex_unlock(&t->lock);
}

/* Has the Maildir all three? Asked as its owner: under root_squash nobody else may look. */
static bool has_siblings(int maildir)
{
	static const char *const siblings[] = {"new", "cur", "tmp"};
	struct stat st;
	struct cred owner;
	bool yes;

	if (fstat(maildir, &st) < 0)
		return false;
	owner = (struct cred){.uid = st.st_uid, .gid = st.st_gid};
	yes = cred_become(&owner) == 0;
	for (int i = 0; i < 3 && yes; i++)
		yes = fstatat(maildir, siblings[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
	cred_restore();
	return yes;
}

bool node_is_half(struct node_table *t, struct node *dir)
{
	struct node_at at;
	enum half half;
	bool yes;

	if (!dir->dir || dir == t->root)
		return false;
	if (dir->dir->is_half)
		return true;
	pthread_mutex_lock(&t->lock);
	yes = dir->names && half_parse(dir->names->name, strlen(dir->names->name), &half) == 0;
	pthread_mutex_unlock(&t->lock);
	if (!yes || node_at(t, dir, &at) < 0)
		return false;
	yes = half_parse(at.name, strlen(at.name), &half) == 0 && has_siblings(at.dirfd);
	if (yes)
		half_established(t, dir, at.parent, half);
	node_at_end(t, &at);
	return yes;
}

struct node *node_sibling(struct node_table *t, struct node *half)
{
	struct node *other = NULL;

	pthread_mutex_lock(&t->lock);
	if (half->names && half->dir->is_half)
		other = half->names->parent->dir->halves[half->dir->half == HALF_NEW ? HALF_CUR : HALF_NEW];
	if (other)
		other->refs++;
	pthread_mutex_unlock(&t->lock);
	return other;
}
