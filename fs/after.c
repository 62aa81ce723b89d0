/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/after.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/fs.h"
#include "fs/own.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define SWEEP_MAX_NS (10 * NS_PER_S)
#define SWEEP_MIN_NS (100 * NS_PER_MS)

int after_add(struct fs *fs, enum after_kind kind, struct live *live, int64_t delay_ns, void *data)
{
	struct after *a = &fs->after;
	struct after_job *job = malloc(sizeof(*job)), **at;
	int r = 0;

	if (!job)
		return -ENOMEM;
	*job = (struct after_job){.kind = kind, .live = live, .data = data, .at_ns = clock_mono_ns() + delay_ns};
	if (live) {
		pthread_mutex_lock(&fs->lives.lock);
		live->pins++; /* the caller has it pinned: it is not in the LRU list */
		pthread_mutex_unlock(&fs->lives.lock);
	}
	pthread_mutex_lock(&a->lock);
	if (a->waiting >= AFTER_JOBS_MAX || a->stop) {
		r = -EAGAIN;
	} else {
		for (at = &a->first; *at && (*at)->at_ns <= job->at_ns; at = &(*at)->next)
			;
		job->next = *at;
		*at = job;
		a->waiting++;
		pthread_cond_signal(&a->wake);
	}
	pthread_mutex_unlock(&a->lock);
	if (r < 0) {
		if (live) {
			pthread_mutex_lock(&fs->lives.lock);
			live->pins--;
			pthread_mutex_unlock(&fs->lives.lock);
		}
		free(job);
	}
	return r;
}

/* ---- confirm: listings on trust are listed again, in the background ---- */

static void confirm_one(struct fs *fs, struct live *l, void *arg)
{
	struct stat st;
	struct cred owner;
	bool due, repaired = false;
	int fd, r;

	(void)arg;
	pthread_mutex_lock(&l->lock);
	due = l->fresh.trust && !l->scanning && clock_real_ns() - l->fresh.trust_since_ns >= fs->conf->confirm_ns;
	pthread_mutex_unlock(&l->lock);
	if (!due)
		return;
	fd = node_dir_get(&fs->nodes, l->node);
	if (fd < 0)
		return;
	r = fstat(fd, &st) < 0 ? -errno : 0;
	if (r == 0) {
		owner = (struct cred){.uid = st.st_uid, .gid = st.st_gid};
		r = live_rescan(fs, l, fd, &owner, &repaired);
	}
	node_dir_put(&fs->nodes, l->node);
	if (r < 0) {
		log_warn("confirm: cannot list %s/%s: error %d", l->folder, half_word(l->half), -r);
		return;
	}
	counter_add(COUNT_CONFIRMS, 1);
	if (repaired) {
		counter_add(COUNT_CONFIRM_REPAIRS, 1);
		log_info("confirm: %s/%s was changed by a silent writer inside a window; its listing is right again",
			 l->folder, half_word(l->half));
	}
}

static void sweep(struct fs *fs)
{
	int64_t pause = fs->conf->confirm_ns / 20;

	live_each(fs, confirm_one, NULL);
	pause = pause > SWEEP_MAX_NS ? SWEEP_MAX_NS : pause < SWEEP_MIN_NS ? SWEEP_MIN_NS : pause;
	after_add(fs, AFTER_CONFIRM, NULL, pause, NULL);
}

static void run(struct fs *fs, struct after_job *job)
{
	switch (job->kind) {
	case AFTER_BURST:
		own_burst_ends(fs, job->live);
		break;
	case AFTER_HINTS:
		own_hints_due(fs, job->live);
		break;
	case AFTER_LOOK:
		feed_look(fs, job->live, job->data);
		break;
	case AFTER_CONFIRM:
		sweep(fs);
		break;
	}
	if (job->live)
		live_put(fs, job->live);
	free(job);
}

static dev_t storage_of(const struct after_job *job)
{
	return job->live ? job->live->node->dev : 0;
}

/* Has its storage as many threads as it may? Called with the lock. */
static bool must_wait(const struct after *a, const struct after_job *job)
{
	dev_t dev = storage_of(job);
	unsigned n = 0;

	for (unsigned i = 0; i < AFTER_THREADS; i++)
		n += dev && a->busy[i] == dev;
	return n >= AFTER_STORAGE_MAX;
}

/* The first that may be run, in its place in the list; NULL: none. Called with the lock. */
static struct after_job **next_job(struct after *a)
{
	struct after_job **at = &a->first;

	while (*at && must_wait(a, *at))
		at = &(*at)->next;
	return *at ? at : NULL;
}

static void *after_main(void *arg)
{
	struct fs *fs = arg;
	struct after *a = &fs->after;
	struct timespec until;
	dev_t *busy;

	cred_thread_start();
	pthread_mutex_lock(&a->lock);
	busy = &a->busy[a->nbusy++];
	while (!a->stop) {
		struct after_job **at = next_job(a), *job = at ? *at : NULL;

		if (!job) {
			pthread_cond_wait(&a->wake, &a->lock);
			continue;
		}
		if (job->at_ns > clock_mono_ns()) {
			until = clock_timespec(job->at_ns);
			pthread_cond_timedwait(&a->wake, &a->lock, &until);
			continue;
		}
		*at = job->next;
		a->waiting--;
		*busy = storage_of(job);
		pthread_mutex_unlock(&a->lock);
		run(fs, job);
		pthread_mutex_lock(&a->lock);
		*busy = 0;
		pthread_cond_signal(&a->wake); /* one that had to wait may be run */
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

int after_start(struct fs *fs, struct err *e)
{
	struct after *a = &fs->after;
	pthread_condattr_t attr;
	int r;

	*a = (struct after){0};
	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &attr);
	pthread_condattr_destroy(&attr);
	for (; a->nthreads < AFTER_THREADS; a->nthreads++) {
		r = pthread_create(&a->threads[a->nthreads], NULL, after_main, fs);
		if (r)
			return err_set(e, -r, "cannot start a thread");
	}
	return after_add(fs, AFTER_CONFIRM, NULL, SWEEP_MIN_NS, NULL);
}

/* What waits is run now: bursts get their windows, so that the index is as right as can be. */
void after_stop(struct fs *fs)
{
	struct after *a = &fs->after;
	struct after_job *job;

	if (!a->nthreads)
		return;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_broadcast(&a->wake);
	pthread_mutex_unlock(&a->lock);
	for (unsigned i = 0; i < a->nthreads; i++)
		pthread_join(a->threads[i], NULL);
	while ((job = a->first)) {
		a->first = job->next;
		if (job->kind == AFTER_CONFIRM)
			free(job);
		else
			run(fs, job);
	}
	a->nthreads = 0;
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->lock);
}
