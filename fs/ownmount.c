/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The race that this file guards against: the mount goes, or another one comes over it. Each clone is of what is there
 * now, and used only if that is our superblock. A name made relative to it is never made in another tree.
 */
#include "fs/ownmount.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"

/* From what the kernel has: nobody is asked. 0: it can't be told. */
static uint64_t superblock(int fd)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) < 0)
		return 0;
	return makedev(stx.stx_dev_major, stx.stx_dev_minor);
}

static int open_clone(const struct ownmount *m)
{
	int fd = open_tree(AT_FDCWD, m->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_NO_AUTOMOUNT);

	if (fd < 0) /* an unbindable mount, or a sandbox: umount may be told to be busy */
		fd = (int)syscall(SYS_openat, AT_FDCWD, m->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!m->superblock || superblock(fd) != m->superblock) {
		close_range((unsigned)fd, (unsigned)fd, 0);
		return -EXDEV;
	}
	return fd;
}

static void wait_keep(struct ownmount *m)
{
	int64_t end = m->since_ns + OWNMOUNT_KEEP_NS;
	struct timespec until = clock_timespec(end);

	while (!m->stop && pthread_cond_timedwait(&m->moved, &m->lock, &until) != ETIMEDOUT)
		;
}

static void *closer_main(void *arg)
{
	struct ownmount *m = arg;
	int fd;

	pthread_mutex_lock(&m->lock);
	while (!m->stop || m->fd >= 0) {
		if (m->fd < 0) {
			pthread_cond_wait(&m->moved, &m->lock);
			continue;
		}
		wait_keep(m);
		m->old = m->fd;
		m->old_users = m->users;
		m->fd = -1;
		m->users = 0;
		pthread_cond_broadcast(&m->moved);
		while (m->old_users)
			pthread_cond_wait(&m->moved, &m->lock);
		fd = m->old;
		m->old = -1;
		pthread_mutex_unlock(&m->lock);
		close_range((unsigned)fd, (unsigned)fd, 0); /* see striker.c */
		pthread_mutex_lock(&m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

int ownmount_start(struct ownmount *m, const char *path, struct err *e)
{
	pthread_condattr_t attr;
	int r;

	*m = (struct ownmount){.path = path, .fd = -1, .old = -1};
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->moved, &attr);
	pthread_condattr_destroy(&attr);
	r = pthread_create(&m->closer, NULL, closer_main, m);
	if (r)
		return err_set(e, -r, "cannot start a thread");
	m->started = true;
	return 0;
}

void ownmount_stop(struct ownmount *m)
{
	if (!m->started)
		return;
	pthread_mutex_lock(&m->lock);
	m->stop = true;
	pthread_cond_broadcast(&m->moved);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->closer, NULL);
	m->started = false;
	pthread_cond_destroy(&m->moved);
	pthread_mutex_destroy(&m->lock);
}

bool ownmount_mounted(struct ownmount *m)
{
	int fd = open(m->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	bool told;

	pthread_mutex_lock(&m->lock);
	m->superblock = fd < 0 ? 0 : superblock(fd);
	told = m->superblock != 0;
	pthread_mutex_unlock(&m->lock);
	if (fd >= 0)
		close(fd);
	return told;
}

int ownmount_get(struct ownmount *m)
{
	int r;

	pthread_mutex_lock(&m->lock);
	r = m->fd >= 0 ? m->fd : open_clone(m);
	if (r >= 0) {
		if (m->fd < 0) {
			m->fd = r;
			m->since_ns = clock_mono_ns();
			pthread_cond_broadcast(&m->moved);
		}
		m->users++;
	}
	pthread_mutex_unlock(&m->lock);
	return r;
}

void ownmount_put(struct ownmount *m, int fd)
{
	pthread_mutex_lock(&m->lock);
	if (--*(fd == m->old ? &m->old_users : &m->users) == 0)
		pthread_cond_broadcast(&m->moved);
	pthread_mutex_unlock(&m->lock);
}
