/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/rescan.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "indexer/relist.h"
#include "lib/base/cred.h"
#include "lib/base/log.h"

#define BUCKETS 4096

struct job {
	struct job *next;  /* of its priority, while it waits */
	struct job *chain; /* of its bucket */
	enum half half;
	enum rescan_why priority;
	bool running;
	unsigned whys; /* bits */
	uint64_t cookie;
	_Atomic bool disturbed;
	char folder[];
};

struct rescan {
	struct relist_tools tools;
	struct rescan_listener listeners[RESCAN_WHYS];
	unsigned nthreads, started;
	pthread_t *threads;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t wake;
	bool stop;
	unsigned running;
	size_t late;
	struct job *first[RESCAN_WHYS];
	struct job **last[RESCAN_WHYS];
	struct job *buckets[BUCKETS];
};

struct rescan *rescan_new(unsigned threads, struct apply *apply, struct store_readers *readers,
			  const struct batch_tools *tools)
{
	struct rescan *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->threads = calloc(threads, sizeof(*p->threads));
	if (!p->threads) {
		free(p);
		return NULL;
	}
	p->nthreads = threads;
	p->tools = (struct relist_tools){.apply = apply, .readers = readers, .batch = tools};
	for (int i = 0; i < RESCAN_WHYS; i++)
		p->last[i] = &p->first[i];
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	return p;
}

void rescan_free(struct rescan *p)
{
	if (!p)
		return;
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	free(p->threads);
	free(p);
}

void rescan_listen(struct rescan *p, enum rescan_why why, struct rescan_listener listener)
{
	p->listeners[why] = listener;
}

static struct job **bucket(struct rescan *p, const char *folder, enum half half)
{
	return &p->buckets[XXH3_64bits_withSeed(folder, strlen(folder), half) % BUCKETS];
}

static struct job *job_find(struct rescan *p, const char *folder, enum half half)
{
	struct job *j = *bucket(p, folder, half);

	while (j && (j->half != half || strcmp(j->folder, folder) != 0))
		j = j->chain;
	return j;
}

static void enqueue(struct rescan *p, struct job *j)
{
	j->next = NULL;
	*p->last[j->priority] = j;
	p->last[j->priority] = &j->next;
	p->late += j->priority == RESCAN_LATE;
}

/* Takes a job out of its priority's list. */
static void dequeue(struct rescan *p, struct job *j)
{
	struct job **at = &p->first[j->priority];

	while (*at != j)
		at = &(*at)->next;
	*at = j->next;
	if (p->last[j->priority] == &j->next)
		p->last[j->priority] = at;
	p->late -= j->priority == RESCAN_LATE;
}

static void unchain(struct rescan *p, struct job *j)
{
	struct job **at = bucket(p, j->folder, j->half);

	while (*at != j)
		at = &(*at)->chain;
	*at = j->chain;
}

static struct job *job_new(struct rescan *p, const char *folder, enum half half, enum rescan_why why)
{
	size_t len = strlen(folder);
	struct job *j = calloc(1, sizeof(*j) + len + 1);
	struct job **at;

	if (!j)
		return NULL;
	j->half = half;
	j->priority = why;
	memcpy(j->folder, folder, len + 1);
	at = bucket(p, folder, half);
	j->chain = *at;
	*at = j;
	return j;
}

int rescan_add(struct rescan *p, const char *folder, enum half half, enum rescan_why why, uint64_t cookie)
{
	struct job *j;
	int r = -ESHUTDOWN;

	pthread_mutex_lock(&p->lock);
	if (p->stop)
		goto out;
	j = job_find(p, folder, half);
	r = -ENOSPC;
	if (!j && why == RESCAN_LATE && p->late >= RESCAN_LATE_MAX)
		goto out;
	r = -ENOMEM;
	if (!j) {
		j = job_new(p, folder, half, why);
		if (!j)
			goto out;
		enqueue(p, j);
	} else if (!j->running && why < j->priority) {
		dequeue(p, j);
		j->priority = why;
		enqueue(p, j);
	}
	j->whys |= 1u << why;
	if (why == RESCAN_REBUILD)
		j->cookie = cookie;
	pthread_cond_signal(&p->wake);
	r = 0;
out:
	pthread_mutex_unlock(&p->lock);
	return r;
}

static void tell(struct rescan *p, const struct job *j, struct rescan_result *result)
{
	result->folder = j->folder;
	result->half = j->half;
	result->cookie = j->cookie;
	for (int why = 0; why < RESCAN_WHYS; why++) {
		if ((j->whys & 1u << why) && p->listeners[why].done)
			p->listeners[why].done(p->listeners[why].arg, result);
	}
}

/* Frees jobs that were taken out and never ran. */
static void tell_cancelled(struct rescan *p, struct job *list)
{
	while (list) {
		struct job *next = list->next;
		struct rescan_result result = {.code = -ECANCELED, .text = "cancelled"};

		tell(p, list, &result);
		free(list);
		list = next;
	}
}

/* Moves jobs that wait at that priority to *list. */
static void purge(struct rescan *p, enum rescan_why priority, struct job **list)
{
	while (p->first[priority]) {
		struct job *j = p->first[priority];

		dequeue(p, j);
		unchain(p, j);
		j->next = *list;
		*list = j;
	}
}

void rescan_cancel(struct rescan *p, enum rescan_why why)
{
	struct job *list = NULL;

	pthread_mutex_lock(&p->lock);
	purge(p, why, &list);
	pthread_mutex_unlock(&p->lock);
	tell_cancelled(p, list);
}

void rescan_touched(struct rescan *p, const char *folder, enum half half)
{
	struct job *j;

	pthread_mutex_lock(&p->lock);
	j = job_find(p, folder, half);
	if (j)
		atomic_store(&j->disturbed, true);
	pthread_mutex_unlock(&p->lock);
}

unsigned rescan_running(struct rescan *p)
{
	unsigned n;

	pthread_mutex_lock(&p->lock);
	n = p->running;
	pthread_mutex_unlock(&p->lock);
	return n;
}

static struct job *job_next(struct rescan *p)
{
	struct job *j = NULL;

	pthread_mutex_lock(&p->lock);
	while (!p->stop && !j) {
		for (int why = 0; why < RESCAN_WHYS && !j; why++)
			j = p->first[why];
		if (!j)
			pthread_cond_wait(&p->wake, &p->lock);
	}
	if (p->stop)
		j = NULL;
	if (j) {
		dequeue(p, j);
		j->running = true;
		p->running++;
	}
	pthread_mutex_unlock(&p->lock);
	return j;
}

static void job_run(struct rescan *p, struct job *j)
{
	struct tally *tally = p->tools.batch->tally;
	/* A late scan stands for one that was handed over: of a folder that is wanted here. */
	struct relist job = {.folder = j->folder,
			     .half = j->half,
			     .create = j->priority == RESCAN_REBUILD || j->priority == RESCAN_LATE,
			     .disturbed = &j->disturbed};
	struct err e = {""};
	struct rescan_result result = {.code = relist_half(&p->tools, &job, &e)};

	result.text = e.text;
	result.busy = job.busy;
	result.gone = job.gone;
	result.messages = job.messages;
	tally_add(tally, result.code < 0 ? TALLY_SCANS_FAILED : TALLY_SCANS_DONE, 1);
	if (result.code < 0 && result.code != -ESTALE && result.code != -ESHUTDOWN)
		log_warn("%s", e.text);
	pthread_mutex_lock(&p->lock);
	unchain(p, j);
	p->running--;
	pthread_mutex_unlock(&p->lock);
	tell(p, j, &result);
	free(j);
}

static void *rescan_main(void *arg)
{
	struct rescan *p = arg;
	struct job *j;

	cred_thread_start();
	while ((j = job_next(p)))
		job_run(p, j);
	return NULL;
}

int rescan_start(struct rescan *p, struct err *e)
{
	for (; p->started < p->nthreads; p->started++) {
		int r = pthread_create(&p->threads[p->started], NULL, rescan_main, p);

		if (r != 0)
			return err_set(e, -r, "cannot start a thread: %s", strerror(r));
	}
	return 0;
}

void rescan_stop(struct rescan *p)
{
	struct job *list = NULL;

	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	while (p->started > 0)
		pthread_join(p->threads[--p->started], NULL);
	pthread_mutex_lock(&p->lock);
	for (int why = 0; why < RESCAN_WHYS; why++)
		purge(p, why, &list);
	pthread_mutex_unlock(&p->lock);
	tell_cancelled(p, list);
}
