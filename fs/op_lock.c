/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks. A lock that is free is answered at once. One that somebody else holds is asked for again and again by one
 * thread of its own, with growing pauses, so that a waiting lock takes no worker and blocks nobody, and can be
 * interrupted.
 *
 * The race that this file guards against: flock(2) and open-file-description locks end with the last close(), but that
 * returns before the kernel's RELEASE comes. So a lock that is not to be waited for is refused only when no close of the
 * file is under way.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>

#include "fs/caller.h"
#include "fs/ops.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define WAIT_MIN_NS (1 * NS_PER_MS)
#define WAIT_MAX_NS (50 * NS_PER_MS)

/* A lock asked for; fcntl's where flock_op is 0. */
struct lock_request {
	struct lock_request *next;
	fuse_req_t req;
	struct node *node;
	struct handle *handle;
	uint64_t owner;
	struct flock lock;
	int flock_op;
	int64_t pause_ns, at_ns;
	int64_t refuse_ns; /* when to give up; 0: never */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct lock_request *first;
	pthread_t thread;
	bool running, stop;
} waiters = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

/* As system calls put it: -1 with errno. */
static int by_errno(int r)
{
	if (r == 0)
		return 0;
	errno = -r;
	return -1;
}

static int set(const struct lock_request *r)
{
	return by_errno(locks_set(&ops_fs(r->req)->locks, r->handle->fd, r->handle, r->node->dev, r->node->ino,
				  r->owner, &r->lock));
}

static int get(const struct lock_request *r, struct flock *lock)
{
	return by_errno(locks_get(&ops_fs(r->req)->locks, r->handle->fd, r->node->dev, r->node->ino, r->owner, lock));
}

/*
 * The first lock of an owner opens the lower file once more: in the caller's name, since root may not under root_squash;
 * in our own where the caller got its descriptor from somebody who may open what it may not.
 */
#define IN_SOME_NAME(req, result, expression)                                                                          \
	do {                                                                                                           \
		CALLER_RUN(req, result, expression);                                                                   \
		if ((result) < 0 && (errno == EACCES || errno == EPERM))                                               \
			(result) = (expression);                                                                       \
		(result) = (result) < 0 ? -errno : 0;                                                                  \
	} while (0)

/* Returns 0 or negative errno; -EAGAIN: held by somebody else. */
static int attempt(const struct lock_request *r)
{
	int result;

	if (!r->flock_op) {
		IN_SOME_NAME(r->req, result, set(r));
		return result;
	}
	return flock(r->handle->fd, r->flock_op | LOCK_NB) < 0 ? (errno == EWOULDBLOCK ? -EAGAIN : -errno) : 0;
}

/* One round over those whose time has come. Returns when to come again. Called with the lock. */
static int64_t round_of_attempts(void)
{
	int64_t now = clock_mono_ns(), next = now + WAIT_MAX_NS;

	for (struct lock_request **p = &waiters.first, *r; (r = *p);) {
		bool refuse = r->refuse_ns && (now >= r->refuse_ns || !node_closing(&ops_fs(r->req)->nodes, r->node));
		int result = -EAGAIN;

		if (fuse_req_interrupted(r->req))
			result = -EINTR;
		else if (r->at_ns <= now || refuse)
			result = attempt(r);
		if (result != -EAGAIN || refuse) {
			*p = r->next;
			fuse_reply_err(r->req, -result);
			free(r);
			continue;
		}
		if (r->at_ns <= now) {
			r->pause_ns = r->pause_ns * 2 > WAIT_MAX_NS ? WAIT_MAX_NS : r->pause_ns * 2;
			r->at_ns = now + r->pause_ns;
		}
		if (r->at_ns < next)
			next = r->at_ns;
		p = &r->next;
	}
	return next;
}

static void *waiters_main(void *arg)
{
	struct timespec until;

	(void)arg;
	pthread_mutex_lock(&waiters.lock);
	while (!waiters.stop) {
		int64_t next;

		if (!waiters.first) {
			pthread_cond_wait(&waiters.wake, &waiters.lock);
			continue;
		}
		next = round_of_attempts() - clock_mono_ns() + clock_real_ns();
		until = clock_timespec(next);
		pthread_cond_timedwait(&waiters.wake, &waiters.lock, &until);
	}
	pthread_mutex_unlock(&waiters.lock);
	return NULL;
}

void op_lock_end(void)
{
	struct lock_request *r;

	pthread_mutex_lock(&waiters.lock);
	waiters.stop = true;
	pthread_cond_signal(&waiters.wake);
	pthread_mutex_unlock(&waiters.lock);
	if (waiters.running)
		pthread_join(waiters.thread, NULL);
	while ((r = waiters.first)) {
		waiters.first = r->next;
		fuse_reply_err(r->req, EINTR);
		free(r);
	}
}

/* Answers now, or when the lock is had. */
static void request_lock(const struct lock_request *wanted, bool wait)
{
	struct lock_request *r;
	int result = attempt(wanted);

	if (result != -EAGAIN || (!wait && !node_closing(&ops_fs(wanted->req)->nodes, wanted->node))) {
		fuse_reply_err(wanted->req, -result);
		return;
	}
	r = malloc(sizeof(*r));
	if (!r) {
		fuse_reply_err(wanted->req, ENOLCK);
		return;
	}
	*r = *wanted;
	r->pause_ns = WAIT_MIN_NS;
	r->at_ns = clock_mono_ns() + r->pause_ns;
	r->refuse_ns = wait ? 0 : clock_mono_ns() + NODE_CLOSE_WAIT_NS;
	pthread_mutex_lock(&waiters.lock);
	if (!waiters.running)
		waiters.running = pthread_create(&waiters.thread, NULL, waiters_main, NULL) == 0;
	if (waiters.running) {
		r->next = waiters.first;
		waiters.first = r;
		pthread_cond_signal(&waiters.wake);
		r = NULL;
	}
	pthread_mutex_unlock(&waiters.lock);
	if (r) {
		fuse_reply_err(r->req, ENOLCK);
		free(r);
	}
}

void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	struct lock_request r = {
		.req = req, .node = ops_node(req, ino), .handle = ops_handle(fi), .owner = fi->lock_owner};
	int result = ops_fd(req, fi);

	if (result >= 0)
		IN_SOME_NAME(req, result, get(&r, lock));
	if (result < 0)
		fuse_reply_err(req, -result);
	else
		fuse_reply_lock(req, lock);
}

/* Answers the error itself. */
static bool has_file(fuse_req_t req, const struct fuse_file_info *fi)
{
	int fd = ops_fd(req, fi);

	if (fd < 0)
		fuse_reply_err(req, -fd);
	return fd >= 0;
}

void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	struct lock_request r = {.req = req,
				 .node = ops_node(req, ino),
				 .handle = ops_handle(fi),
				 .owner = fi->lock_owner,
				 .lock = *lock};

	if (!has_file(req, fi))
		return;
	atomic_store(&r.handle->locked, true);
	growth_seen(fuse_req_ctx(req)->pid);
	request_lock(&r, sleep);
}

void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct lock_request r = {
		.req = req, .node = ops_node(req, ino), .handle = ops_handle(fi), .flock_op = op & ~LOCK_NB};

	if (!has_file(req, fi))
		return;
	growth_seen(fuse_req_ctx(req)->pid);
	request_lock(&r, !(op & LOCK_NB));
}
