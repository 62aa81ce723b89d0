/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pool over a real index and a real tree: rescan.c, relist.c. */
#include <semaphore.h>
#include <stdatomic.h>

#include "tests/unit/indexer_help.h"

#define RESULTS 64

/* What the listeners were told, in order. */
static struct {
	pthread_mutex_t lock;
	sem_t told;
	size_t n;
	struct {
		char folder[64];
		enum half half;
		int code;
		bool gone, busy;
		uint64_t messages, cookie;
		enum rescan_why why;
	} got[RESULTS];
} results = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const enum rescan_why whys[] = {RESCAN_REBUILD, RESCAN_CONFIRM, RESCAN_LATE, RESCAN_SCRUB};

static void done(void *arg, const struct rescan_result *r)
{
	pthread_mutex_lock(&results.lock);
	if (results.n < RESULTS) {
		snprintf(results.got[results.n].folder, sizeof(results.got[0].folder), "%s", r->folder);
		results.got[results.n].half = r->half;
		results.got[results.n].code = r->code;
		results.got[results.n].gone = r->gone;
		results.got[results.n].busy = r->busy;
		results.got[results.n].messages = r->messages;
		results.got[results.n].cookie = r->cookie;
		results.got[results.n].why = *(const enum rescan_why *)arg;
		results.n++;
	}
	pthread_mutex_unlock(&results.lock);
	sem_post(&results.told);
}

static struct rescan *pool;

static void pool_make(struct help *h, unsigned threads)
{
	pool = rescan_new(threads, &h->apply, h->readers, &h->apply.tools);
	assert_non_null(pool);
	for (size_t i = 0; i < RESCAN_WHYS; i++)
		rescan_listen(pool, whys[i], (struct rescan_listener){(void *)&whys[i], done});
}

static void touched(void *arg, const char *folder, enum half half)
{
	(void)arg;
	rescan_touched(pool, folder, half);
}

static int setup(void **state)
{
	struct help *h;
	int r = help_setup(state);

	h = *state;
	results.n = 0;
	sem_init(&results.told, 0, 0);
	pool_make(h, 1);
	h->apply.tools.hooks.touched = touched;
	for (int i = 0; i < 5; i++) {
		static const char *const folders[] = {"a", "b", "c", "d", "e"};
		char path[64];

		help_maildir(h, folders[i]);
		snprintf(path, sizeof(path), "%s/cur/1600000000.M1P1.host:2,S", folders[i]);
		help_make(h, path);
	}
	help_apply_start(h);
	return r;
}

static void (*between)(struct help *h);
static struct help *between_help;
static atomic_uint between_runs;

static int teardown(void **state)
{
	struct help *h = *state;

	scan_test_hook = NULL;
	queue_close(h->queue);
	apply_stop(&h->apply, 10 * NS_PER_S, "clean", "");
	rescan_stop(pool);
	rescan_free(pool);
	pool = NULL;
	sem_destroy(&results.told);
	return help_teardown(state);
}

static void await(size_t n)
{
	for (size_t i = 0; i < n; i++) {
		while (sem_wait(&results.told) < 0)
			assert_int_equal(errno, EINTR);
	}
}

static void add(const char *folder, enum rescan_why why, uint64_t cookie)
{
	assert_int_equal(rescan_add(pool, folder, HALF_CUR, why, cookie), 0);
}

static void lists_and_creates(void **state)
{
	struct help *h = *state;
	struct store_row row;

	OK(h, rescan_start(pool, &h->err));
	add("a", RESCAN_REBUILD, 42);
	await(1);
	assert_int_equal(results.got[0].code, 0);
	assert_int_equal(results.got[0].messages, 1);
	assert_int_equal(results.got[0].cookie, 42);
	assert_true(help_row(h, "a", HALF_CUR, &row, NULL));
	assert_false(row.fresh.need);
	assert_int_equal(row.count, 1);
	assert_true(row.scanned_ns > 0);
	/* Confirm and scrub are for what is held. */
	add("b", RESCAN_SCRUB, 0);
	await(1);
	assert_int_equal(results.got[1].code, 0);
	assert_false(help_row(h, "b", HALF_CUR, &row, NULL));
	assert_int_equal(tally_get(&h->tally, TALLY_SCANS_DONE), 2);
	assert_int_equal(tally_get(&h->tally, TALLY_LOWER_LISTINGS), 2);
}

static void priorities_and_merging(void **state)
{
	struct help *h = *state;
	static const char *const order[] = {"c", "e", "b", "d", "a"};

	add("a", RESCAN_SCRUB, 0);
	add("e", RESCAN_SCRUB, 0);
	add("d", RESCAN_LATE, 0);
	add("b", RESCAN_CONFIRM, 0);
	add("c", RESCAN_REBUILD, 1);
	add("e", RESCAN_REBUILD, 2); /* waits already: goes forward, and is listed once */
	add("b", RESCAN_SCRUB, 0);   /* waits already: stays where it is */
	OK(h, rescan_start(pool, &h->err));
	await(7); /* one per reason */
	for (size_t i = 0, at = 0; i < 5; i++) {
		assert_string_equal(results.got[at].folder, order[i]);
		while (at < results.n && strcmp(results.got[at].folder, order[i]) == 0)
			at++;
	}
	assert_int_equal(tally_get(&h->tally, TALLY_SCANS_DONE), 5);
	assert_int_equal(rescan_running(pool), 0);
}

static void cancelled(void **state)
{
	struct help *h = *state;

	add("a", RESCAN_REBUILD, 0);
	add("b", RESCAN_CONFIRM, 0);
	add("b", RESCAN_REBUILD, 0);
	add("c", RESCAN_SCRUB, 0);
	rescan_cancel(pool, RESCAN_REBUILD);
	assert_int_equal(results.n, 3);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(results.got[i].code, -ECANCELED);
	OK(h, rescan_start(pool, &h->err));
	await(4); /* three told already */
	assert_string_equal(results.got[3].folder, "c");
	assert_int_equal(results.got[3].code, 0);
}

static void late_ones_are_bounded(void **state)
{
	char folder[32];

	(void)state;
	for (int i = 0; i < RESCAN_LATE_MAX; i++) {
		snprintf(folder, sizeof(folder), "f%d", i);
		add(folder, RESCAN_LATE, 0);
	}
	assert_int_equal(rescan_add(pool, "one more", HALF_CUR, RESCAN_LATE, 0), -ENOSPC);
	assert_int_equal(rescan_add(pool, "f5", HALF_CUR, RESCAN_LATE, 0), 0); /* waits already */
	add("a", RESCAN_SCRUB, 0);
	rescan_stop(pool);
	assert_int_equal(rescan_add(pool, "a", HALF_CUR, RESCAN_SCRUB, 0), -ESHUTDOWN);
}

static void gone_folders_are_dropped(void **state)
{
	struct help *h = *state;
	struct store_row row;

	help_maildir(h, "a/.Sub");
	help_hold(h, "a", HALF_CUR);
	help_hold(h, "a/.Sub", HALF_CUR);
	help_hold(h, "b", HALF_CUR);
	help_hold(h, "b", HALF_NEW);
	help_remove_tree(h, "a");
	help_remove_tree(h, "b/cur");
	OK(h, rescan_start(pool, &h->err));
	add("a", RESCAN_SCRUB, 0);
	add("b", RESCAN_SCRUB, 0);
	await(2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(results.got[i].code, 0);
		assert_true(results.got[i].gone);
	}
	assert_false(help_row(h, "a", HALF_CUR, &row, NULL));
	assert_false(help_row(h, "a/.Sub", HALF_CUR, &row, NULL)); /* was below it */
	assert_false(help_row(h, "b", HALF_NEW, &row, NULL));      /* no Maildir any more */
}

/* Law 7. */
static void nothing_is_dropped_while_the_tree_is_away(void **state)
{
	struct help *h = *state;
	struct store_row row;
	char root[128], away[128];

	help_hold(h, "a", HALF_CUR);
	snprintf(root, sizeof(root), "%s/mail", h->dir);
	snprintf(away, sizeof(away), "%s/away", h->dir);
	/* It went, and nobody has noticed yet: the held descriptor still reaches it, but "a" is not there. */
	help_remove_tree(h, "a");
	assert_int_equal(rename(root, away), 0);
	OK(h, rescan_start(pool, &h->err));
	add("a", RESCAN_SCRUB, 0);
	await(1);
	assert_true(results.got[0].code < 0);
	assert_true(help_row(h, "a", HALF_CUR, &row, NULL));
	add("a", RESCAN_SCRUB, 0);
	await(1);
	assert_int_equal(results.got[1].code, -ESTALE); /* noticed by now */
	assert_true(help_row(h, "a", HALF_CUR, &row, NULL));
	assert_int_equal(rename(away, root), 0);
	assert_int_equal(lower_check(&h->lower), 0);
	add("a", RESCAN_SCRUB, 0);
	await(1);
	assert_true(results.got[2].gone);
}

/* Something happens between the passes of a scan, in the scan's thread. */
static void run_between(enum scan_stage stage, unsigned pass)
{
	(void)pass;
	if (stage == SCAN_LISTED && between_runs++ == 0)
		between(between_help);
}

static void meanwhile(struct help *h, void (*what)(struct help *h))
{
	between = what;
	between_help = h;
	between_runs = 0;
	scan_test_hook = run_between;
}

static void report_need(struct help *h)
{
	help_event(h, "a", HALF_CUR, CHANGE_NEED, NULL, NULL, 0, NULL);
	help_drain(h);
}

/* Rule 2: a need set during the scan stays, unless the half was listed once more. */
static void need_meanwhile(void **state)
{
	struct help *h = *state;
	struct store_row row;

	help_hold(h, "a", HALF_CUR);
	meanwhile(h, report_need);
	OK(h, rescan_start(pool, &h->err));
	add("a", RESCAN_SCRUB, 0);
	await(1);
	assert_true(help_row(h, "a", HALF_CUR, &row, NULL));
	assert_false(row.fresh.need);
	assert_int_equal(tally_get(&h->tally, TALLY_LOWER_LISTINGS), 2);
	assert_int_equal(tally_get(&h->tally, TALLY_SCANS_DONE), 1);
}

static void add_message(struct help *h)
{
	uint64_t ino = help_make(h, "a/cur/1700000000.M1P1.host:2,");

	help_event(h, "a", HALF_CUR, CHANGE_ADD, NULL, "1700000000.M1P1.host:2,", ino, NULL);
	help_drain(h);
}

static void change_meanwhile(void **state)
{
	struct help *h = *state;
	struct store_row row;

	help_hold(h, "a", HALF_CUR);
	meanwhile(h, add_message);
	OK(h, rescan_start(pool, &h->err));
	add("a", RESCAN_SCRUB, 0);
	await(1);
	assert_true(help_row(h, "a", HALF_CUR, &row, NULL));
	assert_int_equal(row.count, 2);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_OTHER), 0);
}

/* Another overlay's change, that our listing is too old for. */
static void overtake(enum scan_stage stage, unsigned pass)
{
	struct window w = {.pre = help_stamp(between_help, "a", HALF_CUR)};
	char name[32];

	(void)pass;
	if (stage != SCAN_LISTED)
		return;
	between_runs++;
	w.pre.ctime_ns += between_runs * NS_PER_S;
	w.post = w.pre;
	w.post.ctime_ns++;
	snprintf(name, sizeof(name), "%u.1.h:2,", 1700000000 + between_runs);
	help_event(between_help, "a", HALF_CUR, CHANGE_ADD, NULL, name, between_runs, &w);
	help_drain(between_help);
}

static void overtaken_each_time(void **state)
{
	struct help *h = *state;
	struct store_row row;

	help_hold(h, "a", HALF_CUR);
	between_help = h;
	between_runs = 0;
	scan_test_hook = overtake;
	OK(h, rescan_start(pool, &h->err));
	add("a", RESCAN_CONFIRM, 0);
	await(1);
	assert_int_equal(results.got[0].code, 0);
	assert_true(results.got[0].busy);
	assert_true(between_runs >= 3);
	assert_true(help_row(h, "a", HALF_CUR, &row, NULL));
	assert_int_equal(row.count, 1 + between_runs); /* as the events say */
	assert_true(row.fresh.need);
}

/* A row whose checksum is wrong is made anew, and counted. */
static void damaged_row(void **state)
{
	struct help *h = *state;
	struct store_writer *w;
	struct store_row row;
	struct listing l;

	help_hold(h, "a", HALF_CUR);
	OK(h, store_writer_open(&w, h->index, NULL, &h->err));
	OK(h, store_writer_begin(w, &h->err));
	OK(h, store_writer_row(w, "a", HALF_CUR, false, &row, &h->err));
	row.sum++;
	OK(h, store_writer_save(w, &row, &h->err));
	OK(h, store_writer_commit(w, &h->err));
	store_writer_close(w);
	OK(h, rescan_start(pool, &h->err));
	add("a", RESCAN_SCRUB, 0);
	await(1);
	assert_int_equal(results.got[0].code, 0);
	listing_init(&l);
	assert_true(help_row(h, "a", HALF_CUR, &row, &l));
	assert_int_equal(l.count, 1);
	listing_release(&l);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_DAMAGED), 1);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_OTHER), 0);
}

static void many_at_once(void **state)
{
	struct help *h = *state;
	struct store_row row;
	char folder[64];

	rescan_free(pool);
	pool_make(h, 4);
	for (int i = 0; i < 20; i++) {
		snprintf(folder, sizeof(folder), "f%d", i);
		help_maildir(h, folder);
		snprintf(folder, sizeof(folder), "f%d/cur/%d.1.h:2,", i, i);
		help_make(h, folder);
	}
	OK(h, rescan_start(pool, &h->err));
	for (int i = 0; i < 20; i++) {
		snprintf(folder, sizeof(folder), "f%d", i);
		add(folder, RESCAN_REBUILD, 0);
		help_event(h, folder, HALF_CUR, CHANGE_NEED, NULL, NULL, 0, NULL);
	}
	await(20);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(results.got[i].code, 0);
		assert_true(help_row(h, results.got[i].folder, HALF_CUR, &row, NULL));
		assert_int_equal(row.count, 1);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(lists_and_creates),
		T(priorities_and_merging),
		T(cancelled),
		T(late_ones_are_bounded),
		T(gone_folders_are_dropped),
		T(nothing_is_dropped_while_the_tree_is_away),
		T(need_meanwhile),
		T(change_meanwhile),
		T(overtaken_each_time),
		T(damaged_row),
		T(many_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
