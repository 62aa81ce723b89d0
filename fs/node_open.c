/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Open files among the nodes.
 *
 * The race that this file guards against: close() has returned, RELEASE has not come: the lower descriptor is open, and
 * an unlink over NFS now would leave a .nfsXXXX name.
 */
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "fs/node_private.h"
#include "lib/base/clock.h"

/* Called with the lock. */
static void opened(struct node *n, struct handle *h)
{
	h->node = n;
	h->next = n->handles_first;
	h->prev = &n->handles_first;
	if (h->next)
		h->next->prev = &h->next;
	n->handles_first = h;
	n->handles++;
}

void node_opened(struct node_table *t, struct node *n, struct handle *h)
{
	pthread_mutex_lock(&t->lock);
	opened(n, h);
	pthread_mutex_unlock(&t->lock);
}

void node_flushed(struct node_table *t, struct handle *h)
{
	pthread_mutex_lock(&t->lock);
	if (!h->flushed)
		h->node->closing++;
	h->flushed = true;
	pthread_mutex_unlock(&t->lock);
}

bool node_opened_late(struct node_table *t, struct node *n, struct handle *h, int flags)
{
	const struct backing_ask ask = {.flags = flags};
	bool may;

	pthread_mutex_lock(&t->lock);
	may = !n->leaving && !n->backing.straight && message_held(&n->message, h->uid, flags, clock_mono_ns());
	if (may) {
		backing_take(&n->backing, BACKING_NONE, 0, &ask);
		h->half->refs++;
		h->fills = true;
		opened(n, h);
	}
	pthread_mutex_unlock(&t->lock);
	return may;
}

int node_late_fd(struct node_table *t, struct node *n, const struct handle *h, int fd)
{
	struct handle *found;
	int spare = fd;

	pthread_mutex_lock(&t->lock);
	for (found = n->handles_first; found && found != h; found = found->next)
		;
	if (found && found->late && !found->released && found->fd < 0 && fd >= 0) {
		found->fd = fd;
		spare = -1;
	}
	fd = found ? found->fd : -1;
	pthread_mutex_unlock(&t->lock);
	if (spare >= 0)
		close(spare);
	return fd;
}

struct handle *node_late(struct node_table *t, struct node *n, struct handle *copy)
{
	struct handle *h;

	pthread_mutex_lock(&t->lock);
	for (h = n->handles_first; h && (!h->late || h->fd >= 0 || h->flushed || h->released); h = h->next)
		;
	if (h) {
		*copy = (struct handle){.uid = h->uid, .gid = h->gid, .half = h->half};
		h->half->refs++;
	}
	pthread_mutex_unlock(&t->lock);
	return h;
}

void node_leaves(struct node_table *t, struct node *n, bool begins)
{
	pthread_mutex_lock(&t->lock);
	n->leaving += begins ? 1 : -1;
	pthread_mutex_unlock(&t->lock);
}

void node_released(struct node_table *t, struct handle *h)
{
	int fd;

	pthread_mutex_lock(&t->lock);
	fd = h->fd;
	h->released = true;
	h->fd = -1; /* node_any_fd() must not find it: its number may be another file's in a moment */
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
	pthread_mutex_lock(&t->lock);
	*h->prev = h->next;
	if (h->next)
		h->next->prev = h->prev;
	h->node->handles--;
	if (h->flushed)
		h->node->closing--;
	if (h->late) {
		h->half->refs--;
		node_put(t, h->half);
	}
	pthread_cond_broadcast(&t->released);
	pthread_mutex_unlock(&t->lock);
}

bool node_closing(struct node_table *t, struct node *n)
{
	bool yes;

	pthread_mutex_lock(&t->lock);
	yes = n->closing > 0;
	pthread_mutex_unlock(&t->lock);
	return yes;
}

int node_any_fd(struct node_table *t, struct node *n)
{
	int fd = -ESTALE;

	pthread_mutex_lock(&t->lock);
	for (struct handle *h = n->handles_first; h && fd == -ESTALE; h = h->next)
		if (h->fd >= 0) {
			fd = fcntl(h->fd, F_DUPFD_CLOEXEC, 0);
			fd = fd < 0 ? -errno : fd;
		}
	pthread_mutex_unlock(&t->lock);
	return fd;
}

/* They stay open: what was closed were duplicates, as a child has them that was forked. Called with the lock. */
static void none_closes(struct node *n)
{
	for (struct handle *h = n->handles_first; h; h = h->next)
		h->flushed = false;
	n->closing = 0;
}

void node_await_close(struct node_table *t, struct node *parent, const char *name)
{
	struct node *n = node_child(t, parent, name);
	struct timespec until;

	if (!n)
		return;
	until = clock_timespec(clock_real_ns() + NODE_CLOSE_WAIT_NS);
	pthread_mutex_lock(&t->lock);
	while (n->closing > 0 && n->closing == n->handles)
		if (pthread_cond_timedwait(&t->released, &t->lock, &until) == ETIMEDOUT)
			none_closes(n);
	n->refs--;
	node_put(t, n);
	pthread_mutex_unlock(&t->lock);
}

/* ---- opened below before they are opened here ---- */

void node_early_drop(struct node_table *t, const struct node *n)
{
	for (struct node_early *e = t->early; e < t->early + NODE_EARLY_MAX; e++)
		if (e->node && (!n || e->node == n)) {
			close(e->fd);
			e->node = NULL;
		}
}

void node_early_keep(struct node_table *t, struct node *n, pid_t thread, uid_t uid, int fd)
{
	struct node_early *e, old;

	pthread_mutex_lock(&t->lock);
	e = &t->early[t->early_next++ % NODE_EARLY_MAX];
	old = *e;
	*e = (struct node_early){.node = n, .thread = thread, .uid = uid, .fd = fd, .kept_ns = clock_mono_ns()};
	pthread_mutex_unlock(&t->lock);
	if (old.node)
		close(old.fd);
}

int node_early_take(struct node_table *t, struct node *n, pid_t thread, uid_t uid, int64_t since_ns)
{
	bool old = false;
	int fd = -1;

	pthread_mutex_lock(&t->lock);
	for (struct node_early *e = t->early; fd < 0 && e < t->early + NODE_EARLY_MAX; e++)
		if (e->node == n && e->thread == thread && e->uid == uid) {
			fd = e->fd;
			old = e->kept_ns < since_ns;
			e->node = NULL;
		}
	pthread_mutex_unlock(&t->lock);
	if (!old)
		return fd;
	close(fd);
	return -1;
}

void node_early_end(struct node_table *t, struct node *n)
{
	pthread_mutex_lock(&t->lock);
	node_early_drop(t, n);
	pthread_mutex_unlock(&t->lock);
}
