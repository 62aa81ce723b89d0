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

void node_opened(struct node_table *t, struct node *n, struct handle *h)
{
	pthread_mutex_lock(&t->lock);
	h->node = n;
	h->next = n->handles_first;
	h->prev = &n->handles_first;
	if (h->next)
		h->next->prev = &h->next;
	n->handles_first = h;
	n->handles++;
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

void node_released(struct node_table *t, struct handle *h)
{
	int fd;

	pthread_mutex_lock(&t->lock);
	fd = h->fd;
	h->fd = -1; /* node_any_fd() must not find it: its number may be another file's in a moment */
	pthread_mutex_unlock(&t->lock);
	close(fd);
	pthread_mutex_lock(&t->lock);
	*h->prev = h->next;
	if (h->next)
		h->next->prev = h->prev;
	h->node->handles--;
	if (h->flushed)
		h->node->closing--;
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
	int64_t end;

	if (!n)
		return;
	end = clock_real_ns() + NODE_CLOSE_WAIT_NS;
	until = (struct timespec){.tv_sec = end / NS_PER_S, .tv_nsec = end % NS_PER_S};
	pthread_mutex_lock(&t->lock);
	while (n->closing > 0 && n->closing == n->handles)
		if (pthread_cond_timedwait(&t->released, &t->lock, &until) == ETIMEDOUT)
			none_closes(n);
	n->refs--;
	node_put(t, n);
	pthread_mutex_unlock(&t->lock);
}
