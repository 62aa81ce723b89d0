/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

#define FACT "scrub.after"
#define KEEP_EVERY_NS (60 * NS_PER_S)
/* A half that could not be confirmed is tried again after this. */
#define RETRY_NS (60 * NS_PER_S)
#define IDLE_NS NS_PER_S

/* A half on trust. They come in the order of their time but for retries, so a list sorted from its end will do. */
struct trusted {
	struct trusted *next;
	int64_t due_ns; /* CLOCK_REALTIME, as the row's trust_since */
	enum half half;
	char folder[];
};

struct schedule {
	const struct conf *conf;
	struct apply *apply;
	struct store_readers *readers;
	struct rescan *pool;
	struct tally *tally;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t wake;
	bool stop;
	bool scrubbing; /* one is in the pool */
	struct trusted *due, *last;
	/* The thread's own. */
	struct store_row at; /* the half scrubbed last */
	int64_t scrub_ns;    /* CLOCK_MONOTONIC: the next one */
	int64_t scrubbed_ns; /* CLOCK_MONOTONIC: when the last one was due */
	int64_t keep_ns;     /* CLOCK_MONOTONIC: the next time that `at` is kept */
};

int64_t schedule_confirm_ns(const struct conf *conf)
{
	return conf->confirm_ns + conf->confirm_ns / 10;
}

int64_t schedule_scrub_pause_ns(const struct conf *conf, uint64_t halves)
{
	int64_t pause = halves ? conf->scrub_interval_ns / (int64_t)halves : conf->scrub_interval_ns;

	return pause < NS_PER_S / SCRUB_PER_S ? NS_PER_S / SCRUB_PER_S : pause;
}

struct schedule *schedule_new(const struct conf *conf, struct apply *apply, struct store_readers *readers,
			      struct rescan *pool, struct tally *tally)
{
	struct schedule *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return NULL;
	s->conf = conf;
	s->apply = apply;
	s->readers = readers;
	s->pool = pool;
	s->tally = tally;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	return s;
}

void schedule_free(struct schedule *s)
{
	if (!s)
		return;
	while (s->due) {
		struct trusted *next = s->due->next;

		free(s->due);
		s->due = next;
	}
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static void add_due(struct schedule *s, const char *folder, enum half half, int64_t due_ns)
{
	size_t len = strlen(folder);
	struct trusted *t = malloc(sizeof(*t) + len + 1);
	struct trusted **at = &s->due;

	if (!t)
		return; /* the scrub comes by, too */
	*t = (struct trusted){.due_ns = due_ns, .half = half};
	memcpy(t->folder, folder, len + 1);
	pthread_mutex_lock(&s->lock);
	if (s->last && s->last->due_ns <= due_ns)
		at = &s->last->next;
	while (*at && (*at)->due_ns <= due_ns)
		at = &(*at)->next;
	t->next = *at;
	*at = t;
	if (!t->next)
		s->last = t;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

void schedule_trusted(struct schedule *s, const char *folder, enum half half, int64_t since_ns)
{
	add_due(s, folder, half, since_ns + schedule_confirm_ns(s->conf));
}

void schedule_trusted_below(struct schedule *s, const char *below)
{
	struct store_reader *reader;
	struct store_row row = {0};
	struct err e;
	int r;

	if (store_readers_get(s->readers, &reader, &e) < 0)
		return;
	while ((r = store_reader_next(reader, below, &row, &e)) > 0) {
		if (row.fresh.trust)
			schedule_trusted(s, row.folder, row.half, row.fresh.trust_since_ns);
	}
	store_readers_put(s->readers, reader, r < 0);
	indexfile_seen(s->apply->file, r);
}

void schedule_confirmed(void *arg, const struct rescan_result *result)
{
	struct schedule *s = arg;

	if (result->code == 0 && !result->busy)
		tally_add(s->tally, TALLY_CONFIRM_DONE, 1);
	else if (result->code != -ESHUTDOWN)
		add_due(s, result->folder, result->half, clock_real_ns() + RETRY_NS);
}

void schedule_scrubbed(void *arg, const struct rescan_result *result)
{
	struct schedule *s = arg;

	if (result->code == 0 && !result->busy)
		tally_add(s->tally, TALLY_SCRUB_DONE, 1);
	pthread_mutex_lock(&s->lock);
	s->scrubbing = false;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

static struct trusted *take_due(struct schedule *s)
{
	struct trusted *t;

	pthread_mutex_lock(&s->lock);
	t = s->due;
	if (t && (s->stop || t->due_ns > clock_real_ns()))
		t = NULL;
	if (t) {
		s->due = t->next;
		if (!s->due)
			s->last = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	return t;
}

/* Is the half still on trust, and for long enough? If for less long, it comes again. */
static void confirm(struct schedule *s, const struct trusted *t)
{
	struct store_reader *reader;
	struct store_row row = {0};
	struct err e;
	int64_t due;
	int r = store_readers_get(s->readers, &reader, &e);

	if (r == 0) {
		r = store_reader_half(reader, t->folder, t->half, &row, NULL, &e);
		store_readers_put(s->readers, reader, r < 0);
	}
	indexfile_seen(s->apply->file, r);
	if (r < 0) {
		add_due(s, t->folder, t->half, clock_real_ns() + RETRY_NS);
		return;
	}
	if (r == 0 || !row.fresh.trust)
		return;
	due = row.fresh.trust_since_ns + schedule_confirm_ns(s->conf);
	if (due > clock_real_ns())
		add_due(s, t->folder, t->half, due);
	else
		rescan_add(s->pool, t->folder, t->half, RESCAN_CONFIRM, 0);
}

/* Finds the next half of the round. Returns 1, 0 (the index is empty) or negative errno. */
static int scrub_next(struct schedule *s, uint64_t *halves)
{
	struct store_reader *reader;
	struct store_totals totals;
	struct err e;
	int r = store_readers_get(s->readers, &reader, &e);

	indexfile_seen(s->apply->file, r);
	if (r < 0)
		return r;
	store_reader_forget_pages(reader);
	r = store_reader_totals(reader, &totals, &e);
	*halves = totals.halves;
	if (r == 0)
		r = store_reader_next(reader, "", &s->at, &e);
	if (r == 0 && s->at.id != 0) { /* the round begins anew */
		s->at = (struct store_row){0};
		r = store_reader_next(reader, "", &s->at, &e);
	}
	store_readers_put(s->readers, reader, r < 0);
	indexfile_seen(s->apply->file, r);
	return r;
}

static void scrub(struct schedule *s)
{
	uint64_t halves = 0;
	int r = scrub_next(s, &halves);

	s->scrubbed_ns = clock_mono_ns();
	s->scrub_ns = s->scrubbed_ns + (r < 0 ? IDLE_NS : schedule_scrub_pause_ns(s->conf, halves));
	if (r <= 0)
		return;
	pthread_mutex_lock(&s->lock);
	s->scrubbing = true;
	pthread_mutex_unlock(&s->lock);
	if (rescan_add(s->pool, s->at.folder, s->at.half, RESCAN_SCRUB, 0) < 0)
		schedule_scrubbed(s, &(struct rescan_result){.code = -ESHUTDOWN});
}

/* The pause was right for what the index held then; with more in it since, the next one is due earlier. */
static void scrub_replan(struct schedule *s)
{
	struct store_reader *reader;
	struct store_totals totals;
	struct err e;
	int64_t due;
	int r = store_readers_get(s->readers, &reader, &e);

	if (r < 0)
		return;
	r = store_reader_totals(reader, &totals, &e);
	store_readers_put(s->readers, reader, r < 0);
	indexfile_seen(s->apply->file, r);
	if (r < 0 || !s->scrubbed_ns)
		return;
	due = s->scrubbed_ns + schedule_scrub_pause_ns(s->conf, totals.halves);
	if (due < s->scrub_ns)
		s->scrub_ns = due;
}

static void keep(struct schedule *s)
{
	char value[FOLDER_PATH_MAX + 8];
	struct err e;

	s->keep_ns = clock_mono_ns() + KEEP_EVERY_NS;
	if (s->at.id == 0)
		return;
	snprintf(value, sizeof(value), "%d %s", (int)s->at.half, s->at.folder);
	apply_set_fact(s->apply, FACT, value, &e);
}

/* Where the last round was, and what was on trust then. */
static void schedule_resume(struct schedule *s)
{
	struct err e;
	char *value = malloc(APPLY_FACT_MAX);

	if (value && apply_fact(s->apply, FACT, value, &e) > 0 && (value[0] == '0' || value[0] == '1') &&
	    value[1] == ' ' && folder_path_check(value + 2, strlen(value + 2), NULL) == 0) {
		s->at.id = 1; /* only path and half count */
		s->at.half = (enum half)(value[0] - '0');
		snprintf(s->at.folder, sizeof(s->at.folder), "%s", value + 2);
	}
	free(value);
	schedule_trusted_below(s, "");
}

/* Waits until something may be due. Returns false at the end. */
static bool schedule_wait(struct schedule *s)
{
	int64_t until = clock_mono_ns() + IDLE_NS;
	struct timespec ts;
	bool go;

	pthread_mutex_lock(&s->lock);
	if (!s->scrubbing && s->scrub_ns < until)
		until = s->scrub_ns;
	ts = clock_timespec(until);
	if (!s->stop)
		pthread_cond_timedwait(&s->wake, &s->lock, &ts);
	go = !s->stop;
	pthread_mutex_unlock(&s->lock);
	return go;
}

static bool scrub_is_due(struct schedule *s)
{
	bool due;

	pthread_mutex_lock(&s->lock);
	due = !s->scrubbing && clock_mono_ns() >= s->scrub_ns;
	pthread_mutex_unlock(&s->lock);
	return due;
}

static void *schedule_main(void *arg)
{
	struct schedule *s = arg;
	struct trusted *t;

	schedule_resume(s);
	s->keep_ns = clock_mono_ns() + KEEP_EVERY_NS;
	s->scrub_ns = clock_mono_ns() + IDLE_NS;
	while (schedule_wait(s)) {
		while ((t = take_due(s))) {
			confirm(s, t);
			free(t);
		}
		if (scrub_is_due(s))
			scrub(s);
		if (clock_mono_ns() >= s->keep_ns) {
			scrub_replan(s);
			keep(s);
		}
	}
	return NULL;
}

int schedule_start(struct schedule *s, struct err *e)
{
	int r = pthread_create(&s->thread, NULL, schedule_main, s);

	if (r != 0)
		return err_set(e, -r, "cannot start a thread: %s", strerror(r));
	s->started = true;
	return 0;
}

void schedule_stop(struct schedule *s)
{
	if (!s->started)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	s->started = false;
}
