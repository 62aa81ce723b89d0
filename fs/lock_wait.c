/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Races that this file guards against:
 * - flock(2) and open-file-description locks end with the last close(), but that returns before the kernel's RELEASE
 * comes. So a lock that is not to be waited for is refused only when no close of the file is under way.
 * - A caller is interrupted before its request is in the queue, in it, or while it is tried: libfuse marks the request
 * first and calls interrupted() then, which looks for it with the queue's lock held.
 * - A caller was killed and answered by the loop while its worker put the request here: the kernel closes the file, and
 * RELEASE takes the request out of the queue, waiting for the call in which it may be.
 */
#include "fs/lock_wait.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>

#include "fs/caller.h"
#include "fs/locks.h"
#include "lib/base/clock.h"
#include "lib/base/cred.h"

#define WAIT_MIN_NS (1 * NS_PER_MS)
#define WAIT_MAX_NS (50 * NS_PER_MS)

struct waiting {
	struct waiting *next;
	struct lock_request r;
	int64_t pause_ns, at_ns;
	int64_t refuse_ns; /* when to give up; 0: never */
	bool answered;     /* while it was tried */
};

/* Of one storage. */
struct queue {
	struct queue *next;
	dev_t dev;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	struct waiting *first, *tried;
	pthread_t thread;
	bool stop;
};

/* They live until the end. */
static struct {
	pthread_mutex_t lock;
	struct queue *first;
} queues = {.lock = PTHREAD_MUTEX_INITIALIZER};

int lock_attempt(const struct lock_request *r)
{
	int result;

	if (r->flock_op) {
		result = flock(r->handle->fd, r->flock_op | LOCK_NB);
		if (result < 0 && errno == EWOULDBLOCK)
			errno = EAGAIN;
		return result;
	}
	result = locks_set(&r->fs->locks, r->handle->fd, r->handle, r->node->dev, r->node->ino, r->owner, &r->lock);
	if (result < 0)
		errno = -result;
	return result < 0 ? -1 : 0;
}

void lock_undo(const struct lock_request *r)
{
	struct lock_request undo = *r;

	undo.lock.l_type = F_UNLCK;
	undo.flock_op = r->flock_op ? LOCK_UN : 0;
	lock_attempt(&undo);
}

/* The same in the caller's name: the owner's descriptor may have to be opened anew. Returns 0 or negative errno. */
static int attempt_again(const struct lock_request *r)
{
	const struct cred caller = {.uid = r->uid, .gid = r->gid};
	int result = cred_become(&caller) < 0 ? -EPERM : lock_attempt(r) < 0 ? -errno : 0;

	cred_restore();
	if (result == -EPERM || result == -EACCES)
		result = lock_attempt(r) < 0 ? -errno : 0;
	return result;
}

static void let_go(struct waiting *w)
{
	atomic_fetch_sub(&w->r.handle->lock_waits, 1);
	free(w);
}

/* Answers. Returns false if nobody waits for it any more. */
static bool heard(const struct waiting *w, int result)
{
	return !w->answered && fuse_reply_err(w->r.req, -result) != -ENOENT;
}

/* It was interrupted, or nobody waits for it. w has left the queue. */
static void dismiss(struct waiting *w)
{
	heard(w, -EINTR);
	let_go(w);
}

/* The last to be asked for next. Called with the lock. */
static void append(struct queue *q, struct waiting *w)
{
	struct waiting **p = &q->first;

	while (*p)
		p = &(*p)->next;
	w->next = NULL;
	*p = w;
}

static bool is_refused(const struct waiting *w, int64_t now)
{
	return w->refuse_ns && (now >= w->refuse_ns || !node_closing(&w->r.fs->nodes, w->r.node));
}

/*
 * Tries one, which has left the queue, without the lock: storage may hang, and interrupted() must not. Called with the
 * lock.
 */
static void try(struct queue *q, struct waiting *w)
{
	bool refuse = is_refused(w, clock_mono_ns());
	int result;

	q->tried = w; /* until it is let go: RELEASE waits for that */
	pthread_mutex_unlock(&q->lock);
	result = attempt_again(&w->r);
	pthread_mutex_lock(&q->lock);
	if (result == -EAGAIN && !refuse && !w->answered && !fuse_req_interrupted(w->r.req)) {
		w->pause_ns = w->pause_ns * 2 > WAIT_MAX_NS ? WAIT_MAX_NS : w->pause_ns * 2;
		w->at_ns = clock_mono_ns() + w->pause_ns;
		append(q, w);
	} else {
		bool had = heard(w, result == -EAGAIN && !refuse ? -EINTR : result);

		w->answered = true;
		if (!had && result == 0) {
			pthread_mutex_unlock(&q->lock);
			lock_undo(&w->r);
			pthread_mutex_lock(&q->lock);
		}
		let_go(w);
	}
	q->tried = NULL;
	pthread_cond_broadcast(&q->moved);
}

/* Takes out the first whose time has come. Returns NULL, and when to look again, if there is none. */
static struct waiting *next_due(struct queue *q, int64_t *again_ns)
{
	int64_t now = clock_mono_ns();

	*again_ns = now + WAIT_MAX_NS;
	for (struct waiting **p = &q->first, *w; (w = *p); p = &w->next) {
		if (w->at_ns <= now || is_refused(w, now)) {
			*p = w->next;
			return w;
		}
		if (w->at_ns < *again_ns)
			*again_ns = w->at_ns;
	}
	return NULL;
}

static void *queue_main(void *arg)
{
	struct queue *q = arg;
	struct timespec until;
	struct waiting *w;
	int64_t again_ns;

	cred_thread_start();
	pthread_mutex_lock(&q->lock);
	while (!q->stop) {
		w = next_due(q, &again_ns);
		if (w) {
			try(q, w);
		} else if (q->first) {
			until = clock_timespec(again_ns - clock_mono_ns() + clock_real_ns());
			pthread_cond_timedwait(&q->moved, &q->lock, &until);
		} else {
			pthread_cond_wait(&q->moved, &q->lock);
		}
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* That of the storage; made if there is none yet. NULL: it cannot be. */
static struct queue *queue_of(dev_t dev)
{
	struct queue *q;

	pthread_mutex_lock(&queues.lock);
	for (q = queues.first; q && q->dev != dev; q = q->next)
		;
	if (!q && (q = calloc(1, sizeof(*q)))) {
		q->dev = dev;
		pthread_mutex_init(&q->lock, NULL);
		pthread_cond_init(&q->moved, NULL);
		if (pthread_create(&q->thread, NULL, queue_main, q) == 0) {
			q->next = queues.first;
			queues.first = q;
		} else {
			free(q);
			q = NULL;
		}
	}
	pthread_mutex_unlock(&queues.lock);
	return q;
}

/* libfuse calls it, once the request is marked. */
static void interrupted(fuse_req_t req, void *data)
{
	struct queue *q = data;
	struct waiting *w;

	pthread_mutex_lock(&q->lock);
	for (struct waiting **p = &q->first; (w = *p); p = &w->next)
		if (w->r.req == req) {
			*p = w->next;
			dismiss(w);
			break;
		}
	pthread_mutex_unlock(&q->lock);
}

bool lock_wait_killed(void)
{
	bool again = false;

	pthread_mutex_lock(&queues.lock);
	for (struct queue *q = queues.first; q; q = q->next) {
		pthread_mutex_lock(&q->lock);
		if (q->tried && !q->tried->answered && fuse_req_interrupted(q->tried->r.req)) {
			/* What it gets now would be taken back from it: only if it will never know. */
			if (caller_is_killed(q->tried->r.thread)) {
				fuse_reply_err(q->tried->r.req, EINTR);
				q->tried->answered = true;
			} else {
				again = true;
			}
		}
		pthread_mutex_unlock(&q->lock);
	}
	pthread_mutex_unlock(&queues.lock);
	return again;
}

void lock_wait(const struct lock_request *r, bool until_closed)
{
	struct queue *q = queue_of(r->node->dev);
	struct waiting *w = q ? malloc(sizeof(*w)) : NULL;
	int64_t now = clock_mono_ns();

	if (!w) {
		fuse_reply_err(r->req, ENOLCK);
		return;
	}
	*w = (struct waiting){.r = *r,
			      .pause_ns = WAIT_MIN_NS,
			      .at_ns = now + WAIT_MIN_NS,
			      .refuse_ns = until_closed ? now + NODE_CLOSE_WAIT_NS : 0};
	atomic_fetch_add(&r->handle->lock_waits, 1);
	fuse_req_interrupt_func(r->req, interrupted, q);
	pthread_mutex_lock(&q->lock);
	if (fuse_req_interrupted(r->req)) { /* before it could be found */
		dismiss(w);
	} else {
		append(q, w);
		pthread_cond_broadcast(&q->moved);
	}
	pthread_mutex_unlock(&q->lock);
}

void lock_wait_released(struct handle *h)
{
	struct queue *q = atomic_load(&h->lock_waits) ? queue_of(h->node->dev) : NULL;

	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	for (struct waiting **p = &q->first, *w; (w = *p);)
		if (w->r.handle == h) {
			*p = w->next;
			dismiss(w);
		} else {
			p = &w->next;
		}
	while (q->tried && q->tried->r.handle == h)
		pthread_cond_wait(&q->moved, &q->lock);
	pthread_mutex_unlock(&q->lock);
}

void lock_wait_end(void)
{
	struct queue *q;
	struct waiting *w;

	while ((q = queues.first)) {
		queues.first = q->next;
		pthread_mutex_lock(&q->lock);
		q->stop = true;
		pthread_cond_broadcast(&q->moved);
		pthread_mutex_unlock(&q->lock);
		pthread_join(q->thread, NULL);
		while ((w = q->first)) {
			q->first = w->next;
			dismiss(w);
		}
		pthread_cond_destroy(&q->moved);
		pthread_mutex_destroy(&q->lock);
		free(q);
	}
}
