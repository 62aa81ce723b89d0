/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The race that this file guards against: the process is killed while a thread waits for a directory in our own mount
 * (the kernel's wait for a directory's lock can't be killed), whose lock is held by a caller whom we have not answered.
 * The kernel ends that caller's wait when the last descriptor of /dev/fuse is closed; with one table for all threads the
 * waiting thread itself would keep it open, and neither would ever end. So these threads have a table without it.
 *
 * Thread sanitizer takes all threads for users of one table, and descriptors of the same number for the same: what is
 * opened and closed here goes by calls that it doesn't know.
 */
#include "fs/striker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESOLVE_WITHIN (RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)

static int walk(int mnt, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_WITHIN};
	int fd = (int)syscall(SYS_openat2, mnt, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* As the owner: under root_squash root may not look into Maildirs, and a refusal makes the kernel drop its entries. */
static int walk_as_owner(int mnt, const struct strike *strike)
{
	int r = cred_become(strike->owner);

	if (r == 0)
		r = walk(mnt, strike->path);
	cred_restore();
	return r == -EACCES || r == -EPERM ? walk(mnt, strike->path) : r;
}

static int do_strike(struct ownmount *mount, const struct strike *strike)
{
	int mnt = ownmount_get(mount), dir, r;

	if (mnt < 0)
		return mnt;
	dir = walk_as_owner(mnt, strike);
	r = dir < 0 ? dir : mknodat(dir, strike->name, S_IFREG | 0600, 0) < 0 ? -errno : 0;
	if (r == 0)
		r = unlinkat(dir, strike->name, 0) < 0 ? -errno : 0;
	if (dir >= 0)
		close_range((unsigned)dir, (unsigned)dir, 0);
	ownmount_put(mount, mnt);
	return r;
}

static void *striker_main(void *arg)
{
	struct striker *t = arg;
	struct strikers *s = t->all;
	const struct strike *strike;
	int r;

	cred_thread_start();
	pthread_mutex_lock(&s->lock);
	t->tid = gettid();
	pthread_cond_broadcast(&s->moved);
	while (!s->stop) {
		strike = t->strike;
		if (!strike) {
			pthread_cond_wait(&s->moved, &s->lock);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		r = do_strike(&s->mount, strike);
		pthread_mutex_lock(&s->lock);
		t->result = r;
		t->strike = NULL;
		pthread_cond_broadcast(&s->moved);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

struct starting {
	struct strikers *s;
	const char *mountpoint;
	struct err *e;
	int result;
};

/* Leaves the process' table for an empty one, in which whoever started us has no end of a pipe, either. */
static int leave_table(struct err *e)
{
	if (close_range(0, ~0U, CLOSE_RANGE_UNSHARE) < 0)
		return err_sys(e, "close_range");
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC) != fd)
			return err_sys(e, "/dev/null");
	return 0;
}

/* Starts who shall share the new table. */
static void *starter_main(void *arg)
{
	struct starting *c = arg;
	struct strikers *s = c->s;
	int r;

	c->result = leave_table(c->e);
	if (c->result == 0)
		c->result = ownmount_start(&s->mount, c->mountpoint, c->e);
	for (unsigned i = 0; i < STRIKERS && c->result == 0; i++) {
		s->each[i].all = s;
		r = pthread_create(&s->each[i].id, NULL, striker_main, &s->each[i]);
		if (r)
			c->result = err_set(c->e, -r, "cannot start a thread");
		else
			s->n++;
	}
	return NULL;
}

int strikers_start(struct strikers *s, const char *mountpoint, struct err *e)
{
	struct starting c = {.s = s, .mountpoint = mountpoint, .e = e};
	pthread_t starter;
	int r;

	*s = (struct strikers){.started = true};
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->moved, NULL);
	r = pthread_create(&starter, NULL, starter_main, &c);
	if (r)
		return err_set(e, -r, "cannot start a thread");
	pthread_join(starter, NULL);
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->n; i++)
		while (!s->each[i].tid)
			pthread_cond_wait(&s->moved, &s->lock);
	pthread_mutex_unlock(&s->lock);
	return c.result;
}

void strikers_stop(struct strikers *s)
{
	if (!s->started)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->moved);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->n; i++)
		pthread_join(s->each[i].id, NULL);
	ownmount_stop(&s->mount);
	pthread_cond_destroy(&s->moved);
	pthread_mutex_destroy(&s->lock);
	s->started = false;
}

int strikers_strike(struct strikers *s, unsigned i, const struct strike *strike)
{
	struct striker *t = &s->each[i];
	int r;

	pthread_mutex_lock(&s->lock);
	t->strike = strike;
	pthread_cond_broadcast(&s->moved);
	while (t->strike)
		pthread_cond_wait(&s->moved, &s->lock);
	r = t->result;
	pthread_mutex_unlock(&s->lock);
	return r;
}
