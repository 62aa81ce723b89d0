/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/schedule.h"

#include <semaphore.h>

#include "tests/unit/indexer_help.h"

static struct rescan *pool;
static struct schedule *schedule;

/* The schedule's own listeners, and then the test. */
static sem_t confirmed, scrubbed;
static _Atomic int last_code;
static _Atomic char last_folder;

static void on_confirmed(void *arg, const struct rescan_result *r)
{
	schedule_confirmed(arg, r);
	last_code = r->code;
	last_folder = r->folder[0];
	sem_post(&confirmed);
}

static void on_scrubbed(void *arg, const struct rescan_result *r)
{
	schedule_scrubbed(arg, r);
	sem_post(&scrubbed);
}

static void trusted(void *arg, const char *folder, enum half half, int64_t since_ns)
{
	(void)arg;
	schedule_trusted(schedule, folder, half, since_ns);
}

static int setup(void **state)
{
	struct help *h;
	int r = help_setup(state);

	h = *state;
	sem_init(&confirmed, 0, 0);
	sem_init(&scrubbed, 0, 0);
	h->conf.window_min = 1;
	h->conf.confirm_ns = 100 * NS_PER_MS;
	h->conf.scrub_interval_ns = 3600 * NS_PER_S;
	h->apply.tools.hooks.trusted = trusted;
	pool = rescan_new(2, &h->apply, h->readers, &h->apply.tools);
	schedule = schedule_new(&h->conf, &h->apply, h->readers, pool, &h->tally);
	assert_true(pool && schedule);
	rescan_listen(pool, RESCAN_CONFIRM, (struct rescan_listener){schedule, on_confirmed});
	rescan_listen(pool, RESCAN_SCRUB, (struct rescan_listener){schedule, on_scrubbed});
	for (int i = 0; i < 3; i++) {
		static const char *const folders[] = {"a", "b", "c"};

		help_maildir(h, folders[i]);
	}
	help_make(h, "a/cur/1.1.h:2,");
	help_make(h, "b/cur/1.1.h:2,");
	help_apply_start(h);
	OK(h, rescan_start(pool, &h->err));
	return r;
}

static int teardown(void **state)
{
	struct help *h = *state;

	queue_close(h->queue);
	apply_stop(&h->apply, 10 * NS_PER_S, "clean", "");
	schedule_stop(schedule);
	rescan_stop(pool);
	schedule_free(schedule);
	rescan_free(pool);
	sem_destroy(&confirmed);
	sem_destroy(&scrubbed);
	return help_teardown(state);
}

static void await(sem_t *s)
{
	while (sem_wait(s) < 0)
		assert_int_equal(errno, EINTR);
}

/* A windowed change in a half that is held, with the window right: on trust. */
static void put_on_trust(struct help *h, const char *folder)
{
	struct window w = {.pre = help_stamp(h, folder, HALF_CUR)};
	struct store_row row;
	char path[64];
	uint64_t ino;

	snprintf(path, sizeof(path), "%s/cur/2.2.h:2,", folder);
	ino = help_make(h, path);
	w.post = help_stamp(h, folder, HALF_CUR);
	help_event(h, folder, HALF_CUR, CHANGE_ADD, NULL, "2.2.h:2,", ino, &w);
	help_drain(h);
	assert_true(help_row(h, folder, HALF_CUR, &row, NULL));
	assert_true(row.fresh.trust);
}

static void pauses(void **state)
{
	struct conf c = {.scrub_interval_ns = 24 * 3600 * NS_PER_S, .confirm_ns = 1800 * NS_PER_S};
	static const struct {
		uint64_t halves;
		int64_t pause_ns;
	} cases[] = {
		{0, 24 * 3600 * NS_PER_S},    {1, 24 * 3600 * NS_PER_S},  {24, 3600 * NS_PER_S}, {86400, NS_PER_S},
		{86400 * 20, 50 * NS_PER_MS}, {86400000, 50 * NS_PER_MS}, /* never more than 20 a second */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(schedule_scrub_pause_ns(&c, cases[i].halves), cases[i].pause_ns);
	assert_int_equal(schedule_confirm_ns(&c), 1980 * NS_PER_S);
}

static void confirms_what_comes_on_trust(void **state)
{
	struct help *h = *state;
	struct store_row row;

	help_hold(h, "a", HALF_CUR);
	OK(h, schedule_start(schedule, &h->err));
	put_on_trust(h, "a");
	assert_true(help_row(h, "a", HALF_CUR, &row, NULL));
	await(&confirmed);
	assert_true(clock_real_ns() >= row.fresh.trust_since_ns + schedule_confirm_ns(&h->conf));
	assert_int_equal(last_code, 0);
	assert_true(help_row(h, "a", HALF_CUR, &row, NULL));
	assert_false(row.fresh.trust);
	assert_int_equal(tally_get(&h->tally, TALLY_CONFIRM_DONE), 1);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_TRUST), 0);
}

static void confirms_what_was_on_trust_at_the_start(void **state)
{
	struct help *h = *state;

	h->apply.tools.hooks.trusted = NULL;
	help_hold(h, "a", HALF_CUR);
	help_hold(h, "b", HALF_CUR);
	put_on_trust(h, "b");
	OK(h, schedule_start(schedule, &h->err));
	await(&confirmed);
	assert_int_equal(tally_get(&h->tally, TALLY_CONFIRM_DONE), 1);
}

/* maildexfs confirmed it meanwhile, and handed its listing over. */
static void not_what_is_proven_by_now(void **state)
{
	struct help *h = *state;

	h->apply.tools.hooks.trusted = NULL;
	help_hold(h, "a", HALF_CUR);
	help_hold(h, "b", HALF_CUR);
	schedule_trusted(schedule, "a", HALF_CUR, 1); /* due long since, but it is not on trust any more */
	put_on_trust(h, "b");
	OK(h, schedule_start(schedule, &h->err));
	await(&confirmed);
	/* b is due after a; a was passed over. */
	assert_int_equal(last_folder, 'b');
}

static void scrubs_all_in_turn(void **state)
{
	struct help *h = *state;
	int64_t first[3], again;
	struct store_row row;
	static const char *const folders[] = {"a", "b", "c"};

	h->conf.scrub_interval_ns = NS_PER_MS;
	for (int i = 0; i < 3; i++) {
		help_hold(h, folders[i], HALF_CUR);
		assert_true(help_row(h, folders[i], HALF_CUR, &row, NULL));
		first[i] = row.scanned_ns;
	}
	OK(h, schedule_start(schedule, &h->err));
	for (int i = 0; i < 3; i++)
		await(&scrubbed);
	for (int i = 0; i < 3; i++) {
		assert_true(help_row(h, folders[i], HALF_CUR, &row, NULL));
		assert_true(row.scanned_ns > first[i]);
	}
	again = row.scanned_ns;
	for (int i = 0; i < 3; i++)
		await(&scrubbed); /* round and round */
	assert_true(help_row(h, "c", HALF_CUR, &row, NULL));
	assert_true(row.scanned_ns > again);
	assert_true(tally_get(&h->tally, TALLY_SCRUB_DONE) >= 6);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_OTHER), 0);
}

/* Where the scrub stood at the last start. */
static void scrub_goes_on(void **state)
{
	struct help *h = *state;
	int64_t before[3];
	struct store_row row;
	static const char *const folders[] = {"a", "b", "c"};

	h->conf.scrub_interval_ns = 3600 * NS_PER_S;
	for (int i = 0; i < 3; i++) {
		help_hold(h, folders[i], HALF_CUR);
		assert_true(help_row(h, folders[i], HALF_CUR, &row, NULL));
		before[i] = row.scanned_ns;
	}
	OK(h, apply_set_fact(&h->apply, "scrub.after", "1 a", &h->err));
	OK(h, schedule_start(schedule, &h->err));
	await(&scrubbed);
	for (int i = 0; i < 3; i++) {
		assert_true(help_row(h, folders[i], HALF_CUR, &row, NULL));
		assert_int_equal(row.scanned_ns > before[i], i == 1);
	}
}

static void empty_index(void **state)
{
	struct help *h = *state;

	h->conf.scrub_interval_ns = NS_PER_MS;
	OK(h, schedule_start(schedule, &h->err));
	help_hold(h, "a", HALF_CUR);
	await(&scrubbed);
	assert_int_equal(tally_get(&h->tally, TALLY_SCRUB_DONE), 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pauses),
		T(confirms_what_comes_on_trust),
		T(confirms_what_was_on_trust_at_the_start),
		T(not_what_is_proven_by_now),
		T(scrubs_all_in_turn),
		T(scrub_goes_on),
		T(empty_index),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
