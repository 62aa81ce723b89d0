/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/apply.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "indexer/edit.h"
#include "lib/base/clock.h"
#include "lib/base/cred.h"
#include "lib/base/log.h"

#define CHECK_EVERY_NS NS_PER_S
#define LOCKED_PAUSE_NS (100 * NS_PER_MS)

/* Waits, but not past a stop. Returns true if a stop is asked for. */
static bool apply_pause(struct apply *a, int64_t ns)
{
	int64_t until = clock_mono_ns() + ns;
	struct timespec ts = clock_timespec(until);
	bool stop;

	pthread_mutex_lock(&a->lock);
	while (!a->stop && pthread_cond_timedwait(&a->wake, &a->lock, &ts) == 0)
		;
	stop = a->stop;
	pthread_mutex_unlock(&a->lock);
	return stop;
}

static bool has_scans(const struct queue_batch *qb)
{
	for (const struct queue_half *h = qb->halves; h; h = h->next)
		for (const struct queue_item *it = h->items; it; it = it->next)
			if (it->scan)
				return true;
	return false;
}

/* The whole batch in one transaction. */
static int apply_once(struct apply *a, struct queue_batch *qb, struct err *e)
{
	struct batch b;
	bool gap = qb->gap || a->file->gap;
	int r;

	if (!a->file->writer)
		return err_set(e, -ENOENT, "%s: there is no index now", a->file->path);
	/* A listing is compared with what the disk holds: damage that it heals must not hide in memory. */
	if (qb->calls || has_scans(qb))
		store_writer_forget_pages(a->file->writer);
	batch_init(&b, &a->tools, a->file->writer);
	r = store_writer_begin(a->file->writer, e);
	if (r < 0)
		goto out;
	if (gap) {
		r = store_writer_gap(a->file->writer, e);
		batch_count(&b, TALLY_GAPS, 1);
	}
	for (struct queue_call *c = qb->calls; c && r >= 0; c = c->next)
		r = c->run(c, &b, e);
	for (struct queue_half *h = qb->halves; h && r >= 0; h = h->next)
		r = edit_half(&b, h, e);
	if (r >= 0)
		r = store_writer_commit(a->file->writer, e);
	if (r < 0)
		store_writer_rollback(a->file->writer);
out:
	if (r < 0) {
		batch_drop(&b);
		return r;
	}
	a->file->gap = false;
	batch_done(&b);
	return 0;
}

static void calls_done(struct queue_batch *qb, int result, const struct err *e)
{
	while (qb->calls) {
		struct queue_call *c = qb->calls;

		qb->calls = c->next;
		c->done(c, result, e);
	}
}

static void tell_touched(struct apply *a, const struct queue_batch *qb)
{
	const struct apply_hooks *hooks = &a->tools.hooks;

	for (const struct queue_half *h = qb->halves; h && hooks->touched; h = h->next)
		hooks->touched(hooks->arg, h->folder, h->half);
}

static void apply_batch(struct apply *a, struct queue_batch *qb)
{
	struct err e = {""};
	bool again = false;
	int r;

	for (;;) {
		r = apply_once(a, qb, &e);
		if (r == 0) {
			indexfile_worked(a->file);
			tell_touched(a, qb);
			break;
		}
		if (r == -EAGAIN) {
			indexfile_failed(a->file, r, &e);
			if (!apply_pause(a, LOCKED_PAUSE_NS))
				continue;
		} else if (indexfile_failed(a->file, r, &e) && !again) {
			again = true;
			continue;
		}
		tally_add(a->tools.tally, TALLY_BATCHES_DROPPED, 1);
		a->file->gap = true;
		a->failing = true;
		break;
	}
	calls_done(qb, r, &e);
	queue_batch_release(qb);
}

static int write_fact(struct apply *a, const char *key, const char *value, struct err *e)
{
	int r;

	if (!a->file->writer)
		return err_set(e, -ENOENT, "%s: there is no index now", a->file->path);
	r = store_writer_begin(a->file->writer, e);
	if (r < 0)
		return r;
	r = store_writer_set_fact(a->file->writer, key, value, e);
	if (r == 0)
		r = store_writer_commit(a->file->writer, e);
	if (r < 0)
		store_writer_rollback(a->file->writer);
	return r;
}

/* After a failure: can the index be written again? The fact makes sure that something is written. */
static bool apply_revive(struct apply *a)
{
	struct queue_batch none = {0};
	struct err e = {""};
	int r;

	r = write_fact(a, "written", "", &e);
	if (r == 0)
		r = apply_once(a, &none, &e);
	if (r < 0) {
		indexfile_failed(a->file, r, &e);
		return false;
	}
	indexfile_worked(a->file);
	return true;
}

static bool stop_asked(struct apply *a)
{
	bool stop;

	pthread_mutex_lock(&a->lock);
	stop = a->stop;
	pthread_mutex_unlock(&a->lock);
	return stop;
}

static void *apply_main(void *arg)
{
	struct apply *a = arg;
	int64_t check_ns = clock_mono_ns() + CHECK_EVERY_NS;
	struct queue_batch qb;

	cred_thread_start();
	for (;;) {
		if (clock_mono_ns() >= check_ns) {
			if (indexfile_check(a->file) == 0 && a->failing)
				a->failing = !apply_revive(a);
			check_ns = clock_mono_ns() + CHECK_EVERY_NS;
		}
		if (stop_asked(a))
			return NULL;
		if (a->failing || !a->file->writer) {
			apply_pause(a, check_ns - clock_mono_ns());
			continue;
		}
		if (queue_take(a->queue, APPLY_BATCH, check_ns - clock_mono_ns(), &qb))
			apply_batch(a, &qb);
	}
}

int apply_start(struct apply *a, struct err *e)
{
	pthread_condattr_t attr;
	int r;

	a->stop = false;
	a->failing = false;
	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &attr);
	pthread_condattr_destroy(&attr);
	r = pthread_create(&a->thread, NULL, apply_main, a);
	if (r != 0)
		return err_set(e, -r, "cannot start a thread: %s", strerror(r));
	a->started = true;
	return 0;
}

bool apply_stop(struct apply *a, int64_t grace_ns, const char *key, const char *value)
{
	int64_t until = clock_mono_ns() + grace_ns;
	struct err e = {"maildexd ends"}, why;
	struct queue_batch qb;
	bool clean;

	if (!a->started)
		return false;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_broadcast(&a->wake);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->thread, NULL);
	a->started = false;
	/* The thread is gone, and this one the applier. */
	cred_thread_start();
	while (!a->failing && a->file->writer && clock_mono_ns() < until && queue_take(a->queue, APPLY_BATCH, 0, &qb))
		apply_batch(a, &qb);
	clean = !a->failing && !queue_waiting(a->queue) && write_fact(a, key, value, &why) == 0;
	while (queue_take(a->queue, SIZE_MAX, 0, &qb)) {
		calls_done(&qb, -ESHUTDOWN, &e);
		queue_batch_release(&qb);
	}
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->lock);
	return clean;
}
