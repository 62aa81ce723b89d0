/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/locks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static size_t slot_of(ino_t ino, uint64_t owner)
{
	return (size_t)((ino * 31 + owner) * 0x9e3779b97f4a7c15ULL >> 54) % LOCKS_SLOTS;
}

void locks_init(struct locks *l)
{
	*l = (struct locks){0};
	pthread_mutex_init(&l->lock, NULL);
}

void locks_release(struct locks *l)
{
	for (size_t i = 0; i < LOCKS_SLOTS; i++)
		while (l->slots[i]) {
			struct lock_holder *h = l->slots[i];

			l->slots[i] = h->next;
			close(h->fd);
			free(h);
		}
	pthread_mutex_destroy(&l->lock);
}

static struct lock_holder *find(struct locks *l, dev_t dev, ino_t ino, uint64_t owner)
{
	struct lock_holder *h = l->slots[slot_of(ino, owner)];

	while (h && (h->dev != dev || h->ino != ino || h->owner != owner))
		h = h->next;
	return h;
}

/* A lower descriptor of its own: opened anew through /proc, so that it is another open file description of the same
 * file. */
static int reopen(int handle_fd)
{
	int flags = fcntl(handle_fd, F_GETFL), mode = flags & O_ACCMODE, fd;
	char path[64];

	if (flags < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", handle_fd);
	/* Reading and writing if it may be, so that one descriptor can hold both kinds of locks. */
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = open(path, mode | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

/* Finds or makes the holder, counted in use. */
static struct lock_holder *holder_get(struct locks *l, int handle_fd, dev_t dev, ino_t ino, uint64_t owner, int *error)
{
	struct lock_holder *h, *other;

	pthread_mutex_lock(&l->lock);
	h = find(l, dev, ino, owner);
	if (h)
		h->users++;
	pthread_mutex_unlock(&l->lock);
	if (h)
		return h;
	h = calloc(1, sizeof(*h));
	if (!h) {
		*error = -ENOMEM;
		return NULL;
	}
	h->dev = dev;
	h->ino = ino;
	h->owner = owner;
	h->users = 1;
	h->fd = reopen(handle_fd);
	if (h->fd < 0) {
		*error = h->fd;
		free(h);
		return NULL;
	}
	pthread_mutex_lock(&l->lock);
	other = find(l, dev, ino, owner);
	if (other) {
		other->users++;
	} else {
		h->next = l->slots[slot_of(ino, owner)];
		l->slots[slot_of(ino, owner)] = h;
	}
	pthread_mutex_unlock(&l->lock);
	if (other) {
		close(h->fd);
		free(h);
		return other;
	}
	return h;
}

static void holder_put(struct locks *l, struct lock_holder *h)
{
	bool gone;

	pthread_mutex_lock(&l->lock);
	gone = --h->users == 0 && h->dropped;
	pthread_mutex_unlock(&l->lock);
	if (gone) {
		close(h->fd);
		free(h);
	}
}

int locks_get(struct locks *l, int handle_fd, dev_t dev, ino_t ino, uint64_t owner, struct flock *fl)
{
	struct lock_holder *h;
	int r = 0;

	h = holder_get(l, handle_fd, dev, ino, owner, &r);
	if (!h)
		return r;
	fl->l_pid = 0; /* fcntl(2): must be 0 for open file description locks */
	if (fcntl(h->fd, F_OFD_GETLK, fl) < 0)
		r = -errno;
	holder_put(l, h);
	return r;
}

int locks_set(struct locks *l, int handle_fd, const void *handle, dev_t dev, ino_t ino, uint64_t owner,
	      const struct flock *fl)
{
	struct flock lower = *fl;
	struct lock_holder *h;
	bool none;
	int r = 0;

	pthread_mutex_lock(&l->lock);
	none = fl->l_type == F_UNLCK && !find(l, dev, ino, owner);
	pthread_mutex_unlock(&l->lock);
	if (none)
		return 0;
	h = holder_get(l, handle_fd, dev, ino, owner, &r);
	if (!h)
		return r;
	pthread_mutex_lock(&l->lock);
	h->handle = handle;
	pthread_mutex_unlock(&l->lock);
	lower.l_pid = 0;
	if (fcntl(h->fd, F_OFD_SETLK, &lower) < 0)
		r = errno == EACCES ? -EAGAIN : -errno;
	holder_put(l, h);
	return r;
}

/* Takes the holder out of the table. Called with the lock. Returns it if nobody uses it: to be closed. */
static struct lock_holder *take_out(struct lock_holder **p)
{
	struct lock_holder *h = *p;

	*p = h->next;
	h->dropped = true;
	h->next = NULL;
	return h->users == 0 ? h : NULL;
}

/* Closes them, which drops their locks. */
static void close_all(struct lock_holder *h)
{
	while (h) {
		struct lock_holder *next = h->next;

		close(h->fd);
		free(h);
		h = next;
	}
}

void locks_flush(struct locks *l, dev_t dev, ino_t ino, uint64_t owner)
{
	struct lock_holder **p, *idle = NULL;

	pthread_mutex_lock(&l->lock);
	for (p = &l->slots[slot_of(ino, owner)]; *p; p = &(*p)->next)
		if ((*p)->dev == dev && (*p)->ino == ino && (*p)->owner == owner) {
			idle = take_out(p);
			break;
		}
	pthread_mutex_unlock(&l->lock);
	close_all(idle);
}

void locks_released(struct locks *l, const void *handle)
{
	struct lock_holder *idle = NULL, *h;

	pthread_mutex_lock(&l->lock);
	for (size_t i = 0; i < LOCKS_SLOTS; i++)
		for (struct lock_holder **p = &l->slots[i]; *p;) {
			if ((*p)->handle != handle) {
				p = &(*p)->next;
				continue;
			}
			h = take_out(p);
			if (h) {
				h->next = idle;
				idle = h;
			}
		}
	pthread_mutex_unlock(&l->lock);
	close_all(idle);
}
