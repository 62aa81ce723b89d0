/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The applier over a real index and a real tree: batches, what stops them, calls. */
#include <semaphore.h>

#include "tests/unit/apply_help.h"

static void gap_needs_what_is_on_trust(void **state)
{
	struct help *h = *state;
	struct window w = {.pre = help_stamp(h, "alice", HALF_CUR)};

	help_make(h, "alice/cur/1700000001.M1P1.host:2,");
	w.post = help_stamp(h, "alice", HALF_CUR);
	help_event(h, "alice", HALF_CUR, CHANGE_ADD, NULL, "1700000001.M1P1.host:2,", 1, &w);
	help_drain(h);
	queue_gap(h->queue);
	help_drain(h);
	assert_true(row_of(h, HALF_CUR).fresh.need);
	assert_false(row_of(h, HALF_NEW).fresh.need);
	assert_int_equal(tally_get(&h->tally, TALLY_GAPS), 1);
}

/* A call that spoils its batch the first time it runs. */
struct spoiler {
	struct queue_call call;
	int code;
	unsigned runs;
	int result;
	sem_t done;
};

static int spoil(struct queue_call *call, void *ctx, struct err *e)
{
	struct spoiler *s = (struct spoiler *)call;

	(void)ctx;
	return s->runs++ == 0 ? err_set(e, s->code, "spoiled by the test") : 0;
}

static void spoiled(struct queue_call *call, int result, const struct err *e)
{
	struct spoiler *s = (struct spoiler *)call;

	s->result = result < 0 && strcmp(e->text, "spoiled by the test") != 0 ? -EINVAL : result;
	sem_post(&s->done);
}

/* Spoils a batch; returns what the call was told. */
static int spoil_one(struct help *h, int code)
{
	struct spoiler s = {.call = {.run = spoil, .done = spoiled}, .code = code};

	assert_int_equal(sem_init(&s.done, 0, 0), 0);
	OK(h, queue_call(h->queue, &s.call));
	while (sem_wait(&s.done) < 0)
		assert_int_equal(errno, EINTR);
	sem_destroy(&s.done);
	return s.result;
}

/* The batch is dropped whole; then a gap is written before anything else is. */
static void batch_that_cannot_be_written(void **state)
{
	struct help *h = *state;
	struct window w = {.pre = help_stamp(h, "alice", HALF_CUR)};
	char text[ERR_TEXT_MAX];

	help_make(h, "alice/cur/1700000001.M1P1.host:2,");
	w.post = help_stamp(h, "alice", HALF_CUR);
	help_event(h, "alice", HALF_CUR, CHANGE_ADD, NULL, "1700000001.M1P1.host:2,", 1, &w);
	help_drain(h);
	assert_true(row_of(h, HALF_CUR).fresh.trust);
	assert_int_equal(spoil_one(h, -ENOSPC), -ENOSPC);
	help_drain(h); /* waits for the next second's attempt */
	assert_int_equal(tally_get(&h->tally, TALLY_BATCHES_DROPPED), 1);
	indexfile_state(&h->file, text);
	assert_string_equal(text, "");
	assert_true(row_of(h, HALF_CUR).fresh.need);
	assert_false(row_of(h, HALF_NEW).fresh.need);
}

/* A damaged index is made anew, and the batch applied to that one. */
static void damage_found_inside_a_batch(void **state)
{
	struct help *h = *state;
	struct store_row row;
	char aside[128];

	assert_int_equal(spoil_one(h, -EUCLEAN), 0);
	assert_int_equal(tally_get(&h->tally, TALLY_INDEX_DAMAGED), 1);
	snprintf(aside, sizeof(aside), "%s.damaged", h->index);
	assert_int_equal(access(aside, F_OK), 0);
	assert_false(help_row(h, "alice", HALF_CUR, &row, NULL));
	help_hold(h, "alice", HALF_CUR);
	assert_int_equal(row_of(h, HALF_CUR).count, 1);
}

static void index_deleted(void **state)
{
	struct help *h = *state;
	struct store_row row;

	assert_int_equal(unlink(h->index), 0);
	help_drain(h);
	assert_int_equal(tally_get(&h->tally, TALLY_INDEX_REOPENED), 1);
	assert_false(help_row(h, "alice", HALF_CUR, &row, NULL));
	help_hold(h, "alice", HALF_CUR);
	assert_int_equal(row_of(h, HALF_CUR).count, 1);
}

static void stop_applies_what_waits(void **state)
{
	struct help *h = *state;
	char out[APPLY_FACT_MAX];

	for (int i = 0; i < 500; i++)
		help_event(h, "alice", HALF_CUR, CHANGE_NEED, NULL, NULL, 0, NULL);
	queue_close(h->queue);
	assert_true(apply_stop(&h->apply, 60 * NS_PER_S, "clean", "so"));
	assert_int_equal(tally_get(&h->tally, TALLY_EVENTS_APPLIED), 500);
	assert_int_equal(apply_set_fact(&h->apply, "x", "y", &h->err), -ESHUTDOWN);
	OK(h, store_writer_begin(h->file.writer, &h->err));
	assert_int_equal(store_writer_fact(h->file.writer, "clean", out, sizeof(out), &h->err), 1);
	assert_string_equal(out, "so");
	store_writer_rollback(h->file.writer);
}

static char renamed_to[64];

static void renamed(void *arg, const char *to)
{
	(void)arg;
	snprintf(renamed_to, sizeof(renamed_to), "%s", to);
}

/* Rows follow as they are, before the events of the batch; on disk nothing is looked at. */
static void renamed_rows_follow(void **state)
{
	struct help *h = *state;
	struct store_row before = row_of(h, HALF_CUR), row;

	h->apply.tools.hooks.renamed = renamed;
	apply_rename(&h->apply, "alice", "bob");
	help_drain(h);
	assert_string_equal(renamed_to, "bob");
	assert_false(help_row(h, "alice", HALF_CUR, &row, NULL));
	assert_true(help_row(h, "bob", HALF_CUR, &row, NULL));
	assert_int_equal(row.id, before.id);
	assert_false(row.fresh.need);
	assert_true(stamp_eq(&row.fresh.known, &before.fresh.known));
	assert_int_equal(tally_get(&h->tally, TALLY_RENAMES), 1);
	assert_int_equal(tally_get(&h->tally, TALLY_LOWER_GETATTRS), 0);
	/* An event of the old path, late: nothing is held there, and nothing comes of it. */
	help_event(h, "alice", HALF_CUR, CHANGE_REMOVE, NULL, SEEN, 0, NULL);
	help_drain(h);
	assert_int_equal(tally_get(&h->tally, TALLY_EVENTS_IGNORED), 1);
	/* Where nothing is held, nothing is made. */
	apply_rename(&h->apply, "carol", "alice");
	help_drain(h);
	assert_false(help_row(h, "alice", HALF_CUR, &row, NULL));
	assert_true(help_row(h, "bob", HALF_CUR, &row, NULL));
}

/* While the applier can't write, they do not pile up. */
static void renames_are_bounded(void **state)
{
	struct apply idle = {.queue = queue_new(QUEUE_LIMIT)};
	struct queue_batch batch;
	size_t n = 0;

	(void)state;
	for (int i = 0; i < APPLY_RENAMES_MAX + 10; i++)
		apply_rename(&idle, "alice", "bob");
	assert_int_equal(idle.renames, APPLY_RENAMES_MAX);
	assert_int_equal(queue_take(idle.queue, 1, 0, &batch), 1);
	while (batch.calls) {
		struct queue_call *c = batch.calls;

		batch.calls = c->next;
		c->done(c, 0, NULL);
		n++;
	}
	assert_int_equal(n, APPLY_RENAMES_MAX);
	assert_int_equal(idle.renames, 0);
	queue_close(idle.queue);
	apply_rename(&idle, "alice", "bob");
	assert_int_equal(idle.renames, 0);
	queue_free(idle.queue);
}

static void facts(void **state)
{
	struct help *h = *state;
	char out[APPLY_FACT_MAX];

	assert_int_equal(OK(h, apply_fact(&h->apply, "k", out, &h->err)), 0);
	OK(h, apply_set_fact(&h->apply, "k", "v", &h->err));
	assert_int_equal(OK(h, apply_fact(&h->apply, "k", out, &h->err)), 1);
	assert_string_equal(out, "v");
	OK(h, apply_set_fact(&h->apply, "k", NULL, &h->err));
	assert_int_equal(OK(h, apply_fact(&h->apply, "k", out, &h->err)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(gap_needs_what_is_on_trust),  T(batch_that_cannot_be_written),
		T(damage_found_inside_a_batch), T(index_deleted),
		T(stop_applies_what_waits),     T(renamed_rows_follow),
		T(renames_are_bounded),         T(facts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
