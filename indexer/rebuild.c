/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/rebuild.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "indexer/progress.h"
#include "indexer/sweep.h"
#include "lib/base/clock.h"
#include "lib/base/cred.h"
#include "lib/base/log.h"
#include "lib/base/prog.h"

#define FACT "rebuild.since"
/* Halves given to the pool ahead of its threads. */
#define AHEAD 4

struct folder {
	char *path;
	uint8_t pending; /* halves */
	bool failed;
};

struct rebuild {
	struct apply *apply;
	struct store_readers *readers;
	struct rescan *pool;
	const struct batch_tools *tools;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t wake;
	bool running;  /* the thread works */
	bool joinable; /* the thread is to be joined */
	_Atomic bool stop;
	pthread_t thread;
	/* Of the one that runs. */
	bool all;
	char **starts;
	size_t nstarts;
	int64_t since_ns; /* resumed: halves listed since are passed over; 0: not resumed */
	struct folder *folders;
	size_t nfolders;
	size_t outstanding; /* halves in the pool */
	struct progress progress;
	bool broken; /* cannot go on */
	char why[ERR_TEXT_MAX];
};

struct rebuild *rebuild_new(struct apply *apply, struct store_readers *readers, struct rescan *pool,
			    const struct batch_tools *tools)
{
	struct rebuild *b = calloc(1, sizeof(*b));
	pthread_condattr_t attr;

	if (!b)
		return NULL;
	b->apply = apply;
	b->readers = readers;
	b->pool = pool;
	b->tools = tools;
	pthread_mutex_init(&b->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&b->wake, &attr);
	pthread_condattr_destroy(&attr);
	return b;
}

static void forget_run(struct rebuild *b)
{
	for (size_t i = 0; i < b->nstarts; i++)
		free(b->starts[i]);
	free(b->starts);
	for (size_t i = 0; i < b->nfolders; i++)
		free(b->folders[i].path);
	free(b->folders);
	b->starts = NULL;
	b->nstarts = 0;
	b->folders = NULL;
	b->nfolders = 0;
}

void rebuild_free(struct rebuild *b)
{
	if (!b)
		return;
	rebuild_stop(b);
	if (b->joinable)
		pthread_join(b->thread, NULL);
	forget_run(b);
	pthread_cond_destroy(&b->wake);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

void rebuild_stop(struct rebuild *b)
{
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_broadcast(&b->wake);
	pthread_mutex_unlock(&b->lock);
}

void rebuild_peer_gone(struct rebuild *b, uint64_t peer)
{
	bool ours;

	pthread_mutex_lock(&b->lock);
	ours = b->running && b->progress.peer == peer;
	pthread_mutex_unlock(&b->lock);
	if (ours)
		rebuild_stop(b);
}

void rebuild_state(struct rebuild *b, char *out, size_t size)
{
	pthread_mutex_lock(&b->lock);
	if (b->running)
		snprintf(out, size, "running %" PRIu64 "/%zu", b->progress.done, b->nfolders);
	else
		snprintf(out, size, "idle");
	pthread_mutex_unlock(&b->lock);
}

static bool ended(const struct rebuild *b)
{
	return b->stop || b->broken;
}

/* Waits, with the lock held, until something moves or progress is due. */
static void wait_a_little(struct rebuild *b)
{
	int64_t until = clock_mono_ns() + PROGRESS_EVERY_NS;
	struct timespec ts = clock_timespec(until);

	pthread_cond_timedwait(&b->wake, &b->lock, &ts);
	progress_tell(&b->progress, false);
}

static void half_done(struct rebuild *b, struct folder *f)
{
	if (--f->pending == 0)
		b->progress.done++;
}

void rebuild_scanned(void *arg, const struct rescan_result *result)
{
	struct rebuild *b = arg;
	struct folder *f;
	bool tell = false;

	pthread_mutex_lock(&b->lock);
	f = &b->folders[result->cookie];
	b->outstanding--;
	if (result->code == -ESTALE || result->code == -ESHUTDOWN) {
		b->broken = true;
		snprintf(b->why, sizeof(b->why), "%s", result->text);
	} else if (result->code != -ECANCELED) {
		tell = result->code < 0 && !f->failed;
		f->failed |= tell;
		b->progress.messages += result->messages;
		half_done(b, f);
	}
	/* Before whoever waits may end it. */
	if (tell)
		progress_failed(&b->progress, result->folder, result->text);
	pthread_cond_broadcast(&b->wake);
	pthread_mutex_unlock(&b->lock);
}

static int walk_folder(void *arg, const char *path)
{
	struct rebuild *b = arg;
	char *copy = strdup(path);
	int r = 1;

	pthread_mutex_lock(&b->lock);
	/* The room is a power of two: it is full when the count is one. */
	if (copy && (b->nfolders & (b->nfolders - 1)) == 0) {
		struct folder *more = realloc(b->folders, (b->nfolders ? 2 * b->nfolders : 1) * sizeof(*more));

		if (more) {
			b->folders = more;
		} else {
			free(copy);
			copy = NULL;
		}
	}
	if (!copy) {
		b->broken = true;
		snprintf(b->why, sizeof(b->why), "out of memory for the names of folders");
	} else {
		b->folders[b->nfolders++] = (struct folder){.path = copy, .pending = HALVES};
		b->progress.known = b->nfolders;
		r = ended(b);
	}
	pthread_cond_broadcast(&b->wake);
	pthread_mutex_unlock(&b->lock);
	return r;
}

static void walk_failed(void *arg, const char *path, int error)
{
	struct rebuild *b = arg;
	char text[ERR_TEXT_MAX];

	snprintf(text, sizeof(text), "%s", strerror(error < 0 ? -error : error));
	log_warn("%s: cannot be read: %s", path[0] ? path : ".", text);
	pthread_mutex_lock(&b->lock);
	progress_failed(&b->progress, path, text);
	pthread_mutex_unlock(&b->lock);
}

static size_t folders_known(struct rebuild *b)
{
	size_t n;

	pthread_mutex_lock(&b->lock);
	n = b->nfolders;
	pthread_mutex_unlock(&b->lock);
	return n;
}

static void *walk_main(void *arg)
{
	struct rebuild *b = arg;
	struct tree_walker w = {.folder = walk_folder, .failed = walk_failed, .arg = b};

	cred_thread_start();
	for (size_t i = 0; i < b->nstarts; i++) {
		size_t before = folders_known(b);
		int r = tree_walk(&b->tools->lower->tree, b->starts[i], &w);

		if (r > 0)
			break;
		if (r < 0)
			walk_failed(b, b->starts[i], r);
		else if (!b->all && folders_known(b) == before)
			walk_failed(b, b->starts[i], -ENOENT);
	}
	pthread_mutex_lock(&b->lock);
	b->progress.walked = true;
	pthread_cond_broadcast(&b->wake);
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* Was the half listed since the rebuild that we go on with began? */
static bool listed_since(struct rebuild *b, const char *path, enum half half, uint64_t *messages)
{
	struct store_reader *reader;
	struct store_row row;
	struct err e;
	int r;

	if (b->since_ns == 0 || store_readers_get(b->readers, &reader, &e) < 0)
		return false;
	r = store_reader_half(reader, path, half, &row, NULL, &e);
	store_readers_put(b->readers, reader, r < 0);
	indexfile_seen(b->apply->file, r);
	if (r <= 0 || row.fresh.need || row.scanned_ns < b->since_ns)
		return false;
	*messages += row.count;
	return true;
}

/* Gives one folder to the pool. */
static void feed_folder(struct rebuild *b, size_t i, const char *path, size_t ahead)
{
	unsigned skipped = 0;
	uint64_t messages = 0;

	for (int half = 0; half < HALVES; half++) {
		bool skip = listed_since(b, path, half, &messages);

		pthread_mutex_lock(&b->lock);
		while (!skip && b->outstanding >= ahead && !ended(b))
			wait_a_little(b);
		if (ended(b)) {
			pthread_mutex_unlock(&b->lock);
			return;
		}
		if (skip) {
			half_done(b, &b->folders[i]);
			skipped++;
		} else {
			b->outstanding++;
		}
		pthread_mutex_unlock(&b->lock);
		if (!skip && rescan_add(b->pool, path, half, RESCAN_REBUILD, i) < 0)
			rebuild_scanned(
				b, &(struct rescan_result){
					   .folder = path, .cookie = i, .code = -ESHUTDOWN, .text = "maildexd ends"});
	}
	pthread_mutex_lock(&b->lock);
	b->progress.messages += messages;
	b->progress.skipped += skipped == HALVES;
	progress_tell(&b->progress, false);
	pthread_mutex_unlock(&b->lock);
}

static void feed_all(struct rebuild *b)
{
	size_t ahead = (size_t)b->tools->conf->scans * AHEAD;

	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; !ended(b); i++) {
		const char *path;

		while (i >= b->nfolders && !b->progress.walked && !ended(b))
			wait_a_little(b);
		if (i >= b->nfolders)
			break;
		path = b->folders[i].path;
		pthread_mutex_unlock(&b->lock);
		feed_folder(b, i, path, ahead);
		pthread_mutex_lock(&b->lock);
	}
	pthread_mutex_unlock(&b->lock);
}

/* Waits for the walk and the pool. */
static void drain(struct rebuild *b)
{
	bool cancelled = false;

	pthread_mutex_lock(&b->lock);
	while (!b->progress.walked || b->outstanding > 0) {
		if (ended(b) && !cancelled) {
			cancelled = true;
			pthread_mutex_unlock(&b->lock);
			rescan_cancel(b->pool, RESCAN_REBUILD);
			pthread_mutex_lock(&b->lock);
			continue;
		}
		wait_a_little(b);
	}
	pthread_mutex_unlock(&b->lock);
}

static void resume(struct rebuild *b)
{
	char *value = malloc(APPLY_FACT_MAX), now[32];
	struct err e;

	b->since_ns = 0;
	if (value && apply_fact(b->apply, FACT, value, &e) > 0) {
		b->since_ns = strtoll(value, NULL, 10);
	} else {
		snprintf(now, sizeof(now), "%" PRId64, clock_real_ns());
		apply_set_fact(b->apply, FACT, now, &e);
	}
	free(value);
}

/* What is in the index, was not met by the walk, and is gone. */
static void sweep(struct rebuild *b)
{
	struct sweep s;

	if (sweep_init(&s, b->nfolders) < 0)
		return;
	for (size_t i = 0; i < b->nfolders; i++)
		sweep_seen(&s, b->folders[i].path);
	for (size_t i = 0; i < b->nstarts; i++)
		sweep_run(&s, b->apply, b->readers, b->tools->lower, b->starts[i], &b->stop);
	sweep_release(&s);
}

static void finish(struct rebuild *b)
{
	struct err e;
	int code = PROG_REACH;
	char text[ERR_TEXT_MAX];

	pthread_mutex_lock(&b->lock);
	if (b->stop)
		snprintf(text, sizeof(text), "stopped; a rebuild of all goes on from here");
	else if (b->broken)
		snprintf(text, sizeof(text), "%s", b->why);
	else {
		code = b->progress.failed ? PROG_NO : PROG_OK;
		snprintf(text, sizeof(text), "%" PRIu64 " folders, %" PRIu64 " messages, %" PRIu64 " failed",
			 b->progress.done, b->progress.messages, b->progress.failed);
	}
	progress_tell(&b->progress, true);
	pthread_mutex_unlock(&b->lock);
	if (b->all && code != PROG_REACH)
		apply_set_fact(b->apply, FACT, NULL, &e);
	pthread_mutex_lock(&b->lock);
	b->running = false;
	progress_end(&b->progress, (uint8_t)code, text);
	pthread_mutex_unlock(&b->lock);
}

static void *rebuild_main(void *arg)
{
	struct rebuild *b = arg;
	pthread_t walker;
	int r;

	cred_thread_start();
	if (b->all)
		resume(b);
	r = pthread_create(&walker, NULL, walk_main, b);
	if (r == 0) {
		feed_all(b);
		drain(b);
		pthread_join(walker, NULL);
	} else {
		b->broken = true;
		snprintf(b->why, sizeof(b->why), "cannot start a thread: %s", strerror(r));
	}
	if (!ended(b))
		sweep(b);
	finish(b);
	return NULL;
}

/* Is `path` at or below another of the paths? Then that one's walk does it; a folder is never given out twice. */
static bool covered(char **paths, size_t n, size_t i)
{
	for (size_t k = 0; k < n; k++) {
		size_t len = strlen(paths[k]);
		bool same = strcmp(paths[k], paths[i]) == 0;

		if (k != i &&
		    (same ? k < i : len == 0 || (strncmp(paths[k], paths[i], len) == 0 && paths[i][len] == '/')))
			return true;
	}
	return false;
}

static void paths_free(char **paths, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(paths[i]);
	free(paths);
}

/* Keeps the paths that count. */
static int take_starts(struct rebuild *b, bool all, char **paths, size_t n)
{
	char *root = "";
	char **from = all ? &root : paths;

	if (all)
		n = 1;
	b->starts = calloc(n ? n : 1, sizeof(*b->starts));
	if (!b->starts)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (covered(from, n, i))
			continue;
		b->starts[b->nstarts] = strdup(from[i]);
		if (!b->starts[b->nstarts])
			return -ENOMEM;
		b->nstarts++;
	}
	return 0;
}

int rebuild_request(struct rebuild *b, uint64_t peer, bool all, char **paths, size_t n, struct err *e)
{
	bool busy;
	int r;

	pthread_mutex_lock(&b->lock);
	busy = b->running;
	pthread_mutex_unlock(&b->lock);
	if (busy) {
		r = err_set(e, -EBUSY, "a rebuild is under way already; see its progress in `status`");
		goto out;
	}
	if (b->joinable)
		pthread_join(b->thread, NULL);
	b->joinable = false;
	forget_run(b);
	r = take_starts(b, all, paths, n);
	if (r < 0) {
		err_set(e, r, "out of memory");
		goto out;
	}
	progress_init(&b->progress, b->tools->outbox, peer);
	b->all = all;
	b->broken = false;
	b->stop = false;
	b->since_ns = 0;
	b->outstanding = 0;
	b->running = true;
	r = -pthread_create(&b->thread, NULL, rebuild_main, b);
	b->joinable = r == 0;
	/* From here on, whether it runs is the thread's to say. */
	if (r < 0) {
		b->running = false;
		err_set(e, r, "cannot start a thread: %s", strerror(-r));
	}
out:
	paths_free(paths, n);
	return r;
}
