/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What other threads ask the applier for: each call is put into the queue, runs inside a batch's transaction and is
 * waited for until that is committed.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "indexer/apply.h"

struct ask {
	struct queue_call call; /* first */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool finished;
	int result;
	int answer; /* what run() said the last time */
	struct err *e;
	/* Arguments. */
	struct takeover *takeover;
	const char *key;
	const char *value;
	char *out;
	bool below;
};

static void ask_done(struct queue_call *call, int result, const struct err *e)
{
	struct ask *k = (struct ask *)call;

	pthread_mutex_lock(&k->lock);
	k->result = result;
	if (result < 0 && k->e)
		*k->e = *e;
	k->finished = true;
	pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->lock);
}

static int ask(struct apply *a, struct ask *k, int (*run)(struct queue_call *, void *, struct err *), struct err *e)
{
	int r;

	k->call = (struct queue_call){.run = run, .done = ask_done};
	k->e = e;
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->wake, NULL);
	r = queue_call(a->queue, &k->call);
	if (r < 0) {
		r = err_set(e, r, "maildexd ends");
		goto out;
	}
	pthread_mutex_lock(&k->lock);
	while (!k->finished)
		pthread_cond_wait(&k->wake, &k->lock);
	pthread_mutex_unlock(&k->lock);
	r = k->result < 0 ? k->result : k->answer;
out:
	pthread_cond_destroy(&k->wake);
	pthread_mutex_destroy(&k->lock);
	return r;
}

static int run_takeover(struct queue_call *call, void *batch, struct err *e)
{
	struct ask *k = (struct ask *)call;

	return takeover_own(batch, k->takeover, e);
}

int apply_takeover(struct apply *a, struct takeover *t, struct err *e)
{
	struct ask k = {.takeover = t};

	return ask(a, &k, run_takeover, e);
}

static int run_forget(struct queue_call *call, void *batch, struct err *e)
{
	struct ask *k = (struct ask *)call;
	struct batch *b = batch;
	int r = store_writer_drop(b->writer, k->key, k->below, e);

	if (r < 0)
		return r;
	for (int half = 0; half < HALVES; half++)
		batch_feed_need(b, k->key, half, 0);
	return 0;
}

int apply_forget(struct apply *a, const char *folder, bool below, struct err *e)
{
	struct ask k = {.key = folder, .below = below};

	return ask(a, &k, run_forget, e);
}

/*
 * A rename waits for nobody. It runs before the events of its batch: those of the new path find their rows. Events of the
 * old path that still waited find none, and the folder is listed once; so does what is lost here without memory or because too much waits.
 */
struct rename {
	struct queue_call call; /* first */
	struct apply *apply;
	const char *to;
	char from[]; /* both */
};

static int run_rename(struct queue_call *call, void *batch, struct err *e)
{
	struct rename *rn = (struct rename *)call;
	struct batch *b = batch;
	int r = store_writer_rename(b->writer, rn->from, rn->to, e);

	if (r < 0)
		return r;
	batch_count(b, TALLY_RENAMES, 1);
	batch_renamed(b, rn->to);
	return 0;
}

static void rename_done(struct queue_call *call, int result, const struct err *e)
{
	struct rename *rn = (struct rename *)call;

	(void)result;
	(void)e; /* logged with the batch */
	rn->apply->renames--;
	free(rn);
}

void apply_rename(struct apply *a, const char *from, const char *to)
{
	size_t from_size = strlen(from) + 1, to_size = strlen(to) + 1;
	struct rename *rn;

	if (a->renames >= APPLY_RENAMES_MAX)
		return;
	rn = malloc(sizeof(*rn) + from_size + to_size);
	if (!rn)
		return;
	rn->apply = a;
	rn->call = (struct queue_call){.run = run_rename, .done = rename_done};
	rn->to = memcpy(rn->from + from_size, to, to_size);
	memcpy(rn->from, from, from_size);
	a->renames++;
	if (queue_call(a->queue, &rn->call) < 0)
		rename_done(&rn->call, 0, NULL);
}

static int run_fact(struct queue_call *call, void *batch, struct err *e)
{
	struct ask *k = (struct ask *)call;
	struct batch *b = batch;

	k->answer = store_writer_fact(b->writer, k->key, k->out, APPLY_FACT_MAX, e);
	return k->answer < 0 ? k->answer : 0;
}

int apply_fact(struct apply *a, const char *key, char *out, struct err *e)
{
	struct ask k = {.key = key, .out = out};

	return ask(a, &k, run_fact, e);
}

static int run_set_fact(struct queue_call *call, void *batch, struct err *e)
{
	struct ask *k = (struct ask *)call;
	struct batch *b = batch;

	return store_writer_set_fact(b->writer, k->key, k->value, e);
}

int apply_set_fact(struct apply *a, const char *key, const char *value, struct err *e)
{
	struct ask k = {.key = key, .value = value};

	return ask(a, &k, run_set_fact, e);
}
