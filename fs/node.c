/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The race that this file guards against: a lower inode number is used again for another file while the kernel still
 * knows the old one: the birth time (where there is one) and the type tell them apart, else what cannot be: a message
 * under the name of another, a directory below itself. The old node is not found any more and lives on until the kernel
 * forgets it.
 */
#include "fs/node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "fs/node_private.h"
#include "lib/base/clock.h"
#include "lib/mail/listing.h"
#include "lib/mail/name.h"
#include "lib/mail/stamp.h"

#define NODE_SLOTS_MIN 1024

static size_t hash_inode(dev_t dev, ino_t ino)
{
	return (size_t)((ino + dev * 0x9e3779b97f4a7c15ULL) * 0xff51afd7ed558ccdULL >> 17);
}

static size_t hash_name(const struct node *parent, const char *name)
{
	return (size_t)(listing_hash(name, strlen(name), (uint64_t)(uintptr_t)parent));
}

/* ---- the two tables ---- */

static void table_grow(struct node_table *t)
{
	size_t mask = (t->mask + 1) * 2 - 1;
	struct node **nodes;
	struct node_name **names;

	if (t->count <= t->mask)
		return;
	nodes = calloc(mask + 1, sizeof(struct node *));
	names = calloc(mask + 1, sizeof(struct node_name *));
	if (!nodes || !names) { /* longer chains work too */
		free(nodes);
		free(names);
		return;
	}
	for (size_t i = 0; i <= t->mask; i++) {
		while (t->nodes[i]) {
			struct node *n = t->nodes[i];
			size_t h = hash_inode(n->dev, n->ino) & mask;

			t->nodes[i] = n->hash_next;
			n->hash_next = nodes[h];
			nodes[h] = n;
		}
		while (t->names[i]) {
			struct node_name *nn = t->names[i];
			size_t h = hash_name(nn->parent, nn->name) & mask;

			t->names[i] = nn->hash_next;
			nn->hash_next = names[h];
			names[h] = nn;
		}
	}
	free(t->nodes);
	free(t->names);
	t->nodes = nodes;
	t->names = names;
	t->mask = mask;
}

static void unhash(struct node_table *t, struct node *n)
{
	struct node **p = &t->nodes[hash_inode(n->dev, n->ino) & t->mask];

	if (!n->hashed)
		return;
	while (*p != n)
		p = &(*p)->hash_next;
	*p = n->hash_next;
	n->hashed = false;
	t->count--;
}

static struct node *node_new(dev_t dev, const struct statx *stx)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->dev = dev;
	n->ino = stx->stx_ino;
	n->type = stx->stx_mode & S_IFMT;
	if (stx->stx_mask & STATX_BTIME)
		n->btime_ns = stamp_time_ns(&stx->stx_btime);
	if (S_ISDIR(n->type)) {
		n->dir = calloc(1, sizeof(*n->dir));
		if (!n->dir) {
			free(n);
			return NULL;
		}
		n->dir->fd = -1;
	}
	return n;
}

static void name_free(struct node_table *t, struct node_name *nn)
{
	struct node_name **p = &t->names[hash_name(nn->parent, nn->name) & t->mask];

	while (*p != nn)
		p = &(*p)->hash_next;
	*p = nn->hash_next;
	for (p = &nn->node->names; *p != nn;)
		p = &(*p)->next;
	*p = nn->next;
	for (int h = 0; h < HALVES; h++)
		if (nn->parent->dir->halves[h] == nn->node)
			nn->parent->dir->halves[h] = NULL;
	nn->parent->refs--;
	node_put(t, nn->parent);
	free(nn);
}

void node_put(struct node_table *t, struct node *n)
{
	if (n->lookups || n->refs || n == t->root)
		return;
	if (n->dir && n->dir->fd >= 0)
		node_dirfd_drop(t, n);
	n->refs++; /* not again from below */
	for (struct node_name *nn = n->names, *next; nn; nn = next) {
		next = nn->next;
		name_free(t, nn);
	}
	unhash(t, n);
	node_early_drop(t, n);
	free(n->dir);
	free(n);
}

static struct node_name *name_find(struct node_table *t, const struct node *parent, const char *name)
{
	struct node_name *nn = t->names[hash_name(parent, name) & t->mask];

	while (nn && (nn->parent != parent || strcmp(nn->name, name) != 0))
		nn = nn->hash_next;
	return nn;
}

/* What was said last comes first: it is the likeliest to be true (another host may have renamed the file, and back). */
static void name_first(struct node_name *nn)
{
	struct node_name **p = &nn->node->names;

	while (*p != nn)
		p = &(*p)->next;
	*p = nn->next;
	nn->next = nn->node->names;
	nn->node->names = nn;
}

/* The name now means this node; what else it meant is over. */
static int name_set(struct node_table *t, struct node *n, struct node *parent, const char *name)
{
	struct node_name *nn = name_find(t, parent, name);
	size_t h;

	if (nn && nn->node == n) {
		name_first(nn);
		return 0;
	}
	if (nn) {
		struct node *other = nn->node;

		other->refs++;
		name_free(t, nn);
		other->refs--;
		node_put(t, other);
	}
	nn = malloc(sizeof(*nn) + strlen(name) + 1);
	if (!nn)
		return -ENOMEM;
	nn->node = n;
	nn->parent = parent;
	memcpy(nn->name, name, strlen(name) + 1);
	parent->refs++;
	nn->next = n->names;
	n->names = nn;
	h = hash_name(parent, name) & t->mask;
	nn->hash_next = t->names[h];
	t->names[h] = nn;
	return 0;
}

int node_table_init(struct node_table *t, const struct tree *tree, unsigned dirfds_max, struct err *e)
{
	struct statx stx;
	int fd;

	*t = (struct node_table){.tree = tree, .mask = NODE_SLOTS_MIN - 1, .dirfds_max = dirfds_max};
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->released, NULL);
	if (statx(tree->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &stx) < 0)
		return err_sys(e, "cannot read %s", tree->path);
	fd = fcntl(tree->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, "cannot hold %s", tree->path);
	t->nodes = calloc(NODE_SLOTS_MIN, sizeof(struct node *));
	t->names = calloc(NODE_SLOTS_MIN, sizeof(struct node_name *));
	t->root = node_new(makedev(stx.stx_dev_major, stx.stx_dev_minor), &stx);
	if (!t->nodes || !t->names || !t->root) {
		close(fd);
		return err_set(e, -ENOMEM, "out of memory");
	}
	t->root->refs = 1;
	node_dirfd_keep(t, t->root, fd);
	return 0;
}

void node_table_release(struct node_table *t)
{
	for (size_t i = 0; t->nodes && i <= t->mask; i++)
		for (struct node *n = t->nodes[i], *next; n; n = next) {
			next = n->hash_next;
			while (n->names) {
				struct node_name *nn = n->names;

				n->names = nn->next;
				free(nn);
			}
			while (n->handles_first) { /* the kernel went without RELEASE */
				struct handle *h = n->handles_first;

				n->handles_first = h->next;
				if (h->fd >= 0)
					close(h->fd);
				free(h);
			}
			if (n->dir && n->dir->fd >= 0)
				close(n->dir->fd);
			free(n->dir);
			free(n);
		}
	if (t->root) {
		if (t->root->dir->fd >= 0)
			close(t->root->dir->fd);
		free(t->root->dir);
		free(t->root);
	}
	node_early_drop(t, NULL);
	free(t->nodes);
	free(t->names);
	pthread_cond_destroy(&t->released);
	pthread_mutex_destroy(&t->lock);
}

/* Is n, by the names that are known, on the path to this directory? */
static bool is_above(const struct node_table *t, const struct node *n, const struct node *dir)
{
	while (dir != n && dir != t->root && dir->names)
		dir = dir->names->parent;
	return dir == n;
}

/*
 * Without birth times: can what has this number and is called `name` in parent be n? Not a directory that is above itself
 * (it was removed, and its number used below); not a message, with one name, that has another one's (a rename changes what
 * is behind the colon).
 */
static bool may_be(const struct node_table *t, const struct node *n, const struct node *parent, const char *name,
		   const struct statx *stx)
{
	const struct node_name *nn = n->names;

	if (n->dir)
		return !is_above(t, n, parent);
	if (!nn || stx->stx_nlink != 1 || n->type != S_IFREG)
		return true;
	while (nn && !name_same_base(nn->name, strlen(nn->name), name, strlen(name)))
		nn = nn->next;
	return nn;
}

/* The node in the table that this is, or NULL. One that has the number but is another file is not found again. */
static struct node *table_find(struct node_table *t, dev_t dev, const struct node *parent, const char *name,
			       const struct statx *stx)
{
	int64_t btime = stx->stx_mask & STATX_BTIME ? stamp_time_ns(&stx->stx_btime) : 0;
	struct node *n = t->nodes[hash_inode(dev, stx->stx_ino) & t->mask];

	if (dev == t->root->dev && stx->stx_ino == t->root->ino)
		return t->root;
	while (n && (n->dev != dev || n->ino != stx->stx_ino || n->replaced))
		n = n->hash_next;
	if (n && (n->type != (stx->stx_mode & S_IFMT) || n->btime_ns != btime ||
		  (!btime && !may_be(t, n, parent, name, stx)))) {
		n->replaced = true;
		return NULL;
	}
	return n;
}

struct node *node_lookup(struct node_table *t, struct node *parent, const char *name, const struct statx *stx,
			 int dirfd)
{
	dev_t dev = makedev(stx->stx_dev_major, stx->stx_dev_minor);
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = table_find(t, dev, parent, name, stx);
	if (!n) {
		size_t h = hash_inode(dev, stx->stx_ino) & t->mask;

		n = node_new(dev, stx);
		if (!n)
			goto out;
		n->hash_next = t->nodes[h];
		t->nodes[h] = n;
		n->hashed = true;
		t->count++;
		table_grow(t);
	}
	n->lookups++;
	if (n != t->root && name_set(t, n, parent, name) < 0) {
		n->lookups--;
		node_put(t, n);
		n = NULL;
		goto out;
	}
	if (dirfd >= 0 && n->dir) {
		node_dirfd_keep(t, n, dirfd);
		dirfd = -1;
	}
out:
	pthread_mutex_unlock(&t->lock);
	if (dirfd >= 0)
		close(dirfd);
	return n;
}

void node_forget(struct node_table *t, struct node *n, uint64_t lookups)
{
	pthread_mutex_lock(&t->lock);
	n->lookups -= lookups;
	node_put(t, n);
	pthread_mutex_unlock(&t->lock);
}

void node_ref(struct node_table *t, struct node *n)
{
	pthread_mutex_lock(&t->lock);
	n->refs++;
	pthread_mutex_unlock(&t->lock);
}

void node_unref(struct node_table *t, struct node *n)
{
	pthread_mutex_lock(&t->lock);
	n->refs--;
	node_put(t, n);
	pthread_mutex_unlock(&t->lock);
}

/* ---- where a node is ---- */

/* Writes the path from its end. Called with the lock. */
static int path_locked(struct node_table *t, const struct node *n, char *out, size_t size)
{
	size_t at = size - 1;

	out[at] = '\0';
	while (n != t->root) {
		const struct node_name *nn = n->names;
		size_t len;

		if (!nn)
			return -ESTALE;
		len = strlen(nn->name);
		if (len + 1 > at)
			return -ENAMETOOLONG;
		if (out[at] != '\0')
			out[--at] = '/';
		at -= len;
		memcpy(out + at, nn->name, len);
		n = nn->parent;
	}
	memmove(out, out + at, size - at);
	return 0;
}

int node_path(struct node_table *t, struct node *n, char *out, size_t size)
{
	int r;

	pthread_mutex_lock(&t->lock);
	r = path_locked(t, n, out, size);
	pthread_mutex_unlock(&t->lock);
	return r;
}

static void name_removed(struct node_table *t, struct node *parent, const char *name)
{
	struct node_name *nn = name_find(t, parent, name);
	struct node *n;

	if (!nn)
		return;
	n = nn->node;
	message_forget(&n->message); /* one link less */
	parent->dir->renames++;
	n->refs++;
	name_free(t, nn);
	n->refs--;
	node_put(t, n);
}

void node_dir_leaves(struct node_table *t, struct node *parent, const char *name, bool leaves)
{
	struct node_name *nn;

	pthread_mutex_lock(&t->lock);
	nn = name_find(t, parent, name);
	if (nn && nn->node->dir)
		nn->node->replaced = leaves;
	pthread_mutex_unlock(&t->lock);
}

void node_name_removed(struct node_table *t, struct node *parent, const char *name)
{
	pthread_mutex_lock(&t->lock);
	name_removed(t, parent, name);
	pthread_mutex_unlock(&t->lock);
}

void node_name_missing(struct node_table *t, struct node *parent, const char *name, uint64_t renames)
{
	pthread_mutex_lock(&t->lock);
	if (parent->dir->renames == renames && !parent->dir->renaming)
		name_removed(t, parent, name);
	pthread_mutex_unlock(&t->lock);
}

void node_renamed(struct node_table *t, struct node *from, const char *old, struct node *to, const char *new,
		  bool exchange)
{
	struct node_name *a, *b;
	struct node *moved = NULL, *other = NULL;

	pthread_mutex_lock(&t->lock);
	from->dir->renames++;
	to->dir->renames++;
	a = name_find(t, from, old);
	b = name_find(t, to, new);
	if (a) {
		moved = a->node;
		moved->refs++;
	}
	if (b) {
		other = b->node;
		message_forget(&other->message);
		other->refs++;
	}
	/* Two names of one inode: rename(2) does nothing then. */
	if (moved != other || !moved) {
		if (a)
			name_free(t, a);
		if (other && other->dir && !exchange)
			other->replaced = true; /* see node_dir_leaves() */
		if (moved)
			name_set(t, moved, to, new);
		if (exchange && other)
			name_set(t, other, from, old);
		/* It may be a half of another Maildir now, or of none: find out again. */
		if (moved && moved->dir)
			moved->dir->is_half = false;
		if (exchange && other && other->dir)
			other->dir->is_half = false;
	}
	if (moved) {
		moved->refs--;
		node_put(t, moved);
	}
	if (other) {
		other->refs--;
		node_put(t, other);
	}
	pthread_mutex_unlock(&t->lock);
}

struct node *node_child(struct node_table *t, struct node *parent, const char *name)
{
	struct node_name *nn;
	struct node *n = NULL;

	pthread_mutex_lock(&t->lock);
	nn = name_find(t, parent, name);
	if (nn) {
		n = nn->node;
		n->refs++;
	}
	pthread_mutex_unlock(&t->lock);
	return n;
}

struct node *node_recall(struct node_table *t, struct node *half, const char *name, uid_t asker, struct stat *st,
			 int64_t *left_ns)
{
	struct node_name *nn;
	struct node *n = NULL;

	pthread_mutex_lock(&t->lock);
	nn = name_find(t, half, name);
	*left_ns = nn ? message_recall(&nn->node->message, asker, clock_mono_ns(), st) : 0;
	if (*left_ns > 0) {
		n = nn->node;
		n->lookups++;
	}
	pthread_mutex_unlock(&t->lock);
	return n;
}

void node_vouched(struct node_table *t, struct node *n, const struct node *parent, const char *name)
{
	struct node_name *nn;

	pthread_mutex_lock(&t->lock);
	nn = name_find(t, parent, name);
	if (nn && nn->node == n)
		name_first(nn);
	pthread_mutex_unlock(&t->lock);
}

void node_stale(struct node_table *t, struct node *n)
{
	pthread_mutex_lock(&t->lock);
	for (; n != t->root; n = n->names->parent) {
		if (n->dir)
			n->dir->stale = true;
		if (!n->names)
			break;
	}
	pthread_mutex_unlock(&t->lock);
}
