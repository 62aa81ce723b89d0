/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The readers that no thread holds at the moment. Guarded against: a pool that goes on with a file that was deleted or
 * replaced: each reader is asked before it is handed out, which costs a few stat calls on a local disk.
 */
#include "lib/store/reader.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Each may hold SQLite's page cache of 2 MB: a crowd of threads at login time leaves no more than these behind. */
#define IDLE_MAX 16

struct store_readers {
	pthread_mutex_t lock;
	char *path;
	char *tree; /* NULL: any */
	size_t nidle;
	struct store_reader *idle[IDLE_MAX];
};

int store_readers_new(struct store_readers **p, const char *path, const char *tree)
{
	struct store_readers *made = calloc(1, sizeof(*made));

	if (!made)
		return -ENOMEM;
	pthread_mutex_init(&made->lock, NULL);
	made->path = strdup(path);
	made->tree = tree ? strdup(tree) : NULL;
	if (!made->path || (tree && !made->tree)) {
		store_readers_free(made);
		return -ENOMEM;
	}
	*p = made;
	return 0;
}

void store_readers_free(struct store_readers *p)
{
	if (!p)
		return;
	while (p->nidle)
		store_reader_close(p->idle[--p->nidle]);
	pthread_mutex_destroy(&p->lock);
	free(p->path);
	free(p->tree);
	free(p);
}

/* Opening, closing and asking are system calls: never under the pool's lock. */
static struct store_reader *take_idle(struct store_readers *p)
{
	struct store_reader *r;

	pthread_mutex_lock(&p->lock);
	r = p->nidle ? p->idle[--p->nidle] : NULL;
	pthread_mutex_unlock(&p->lock);
	return r;
}

int store_readers_get(struct store_readers *p, struct store_reader **r, struct err *e)
{
	while ((*r = take_idle(p))) {
		if (store_reader_current(*r))
			return 0;
		store_reader_close(*r);
	}
	return store_reader_open(r, p->path, p->tree, e);
}

void store_readers_retire(struct store_readers *p)
{
	struct store_reader *kept[IDLE_MAX], *r;
	size_t nkept = 0;

	while (nkept < IDLE_MAX && (r = take_idle(p))) {
		if (store_reader_current(r))
			kept[nkept++] = r;
		else
			store_reader_close(r);
	}
	while (nkept)
		store_readers_put(p, kept[--nkept], false);
}

void store_readers_put(struct store_readers *p, struct store_reader *r, bool broken)
{
	if (!broken) {
		pthread_mutex_lock(&p->lock);
		if (p->nidle < IDLE_MAX) {
			p->idle[p->nidle++] = r;
			r = NULL;
		}
		pthread_mutex_unlock(&p->lock);
	}
	store_reader_close(r);
}
