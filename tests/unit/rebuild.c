/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A rebuild over a real index and a real tree: rebuild.c, sweep.c, progress.c. */
#include <poll.h>

#include "indexer/rebuild.h"
#include "lib/base/prog.h"
#include "tests/unit/indexer_help.h"

#define PEER 5

static struct rescan *pool;
static struct rebuild *rebuild;

static int setup(void **state)
{
	struct help *h;
	int r = help_setup(state);

	h = *state;
	pool = rescan_new(2, &h->apply, h->readers, &h->apply.tools);
	rebuild = rebuild_new(&h->apply, h->readers, pool, &h->apply.tools);
	assert_true(pool && rebuild);
	rescan_listen(pool, RESCAN_REBUILD, (struct rescan_listener){rebuild, rebuild_scanned});
	help_mkdir(h, "org");
	help_maildir(h, "org/alice");
	help_maildir(h, "org/alice/.Sent");
	help_maildir(h, "org/bob");
	help_make(h, "org/alice/cur/1.1.h:2,");
	help_make(h, "org/alice/new/2.1.h");
	help_make(h, "org/bob/cur/3.1.h:2,");
	help_apply_start(h);
	OK(h, rescan_start(pool, &h->err));
	return r;
}

static int teardown(void **state)
{
	struct help *h = *state;

	rebuild_stop(rebuild);
	queue_close(h->queue);
	apply_stop(&h->apply, 10 * NS_PER_S, "clean", "");
	rescan_stop(pool);
	rebuild_free(rebuild);
	rescan_free(pool);
	return help_teardown(state);
}

struct told {
	unsigned code;
	char text[256];
	uint64_t done, known, messages, failed, skipped;
	bool walked;
	char failed_folder[64];
	unsigned nfailed;
};

static int request(struct help *h, bool all, size_t n, const char *const *paths)
{
	char **copy = calloc(n ? n : 1, sizeof(*copy));

	assert_non_null(copy);
	for (size_t i = 0; i < n; i++) {
		copy[i] = strdup(paths[i]);
		assert_non_null(copy[i]);
	}
	return rebuild_request(rebuild, PEER, all, copy, n, &h->err);
}

/* Takes one message to the peer; returns true at the end. */
static bool take(const struct outbox_message *m, struct told *t)
{
	enum wire_type type;
	struct cursor c;

	assert_int_equal(wire_open(&c, m->bytes.data, m->bytes.len, &type, NULL), 0);
	if (type == WIRE_FEED)
		return false;
	assert_int_equal(m->to, PEER);
	if (type == WIRE_PROGRESS) {
		t->done = cursor_u64(&c);
		t->known = cursor_u64(&c);
		t->walked = cursor_u8(&c);
		t->messages = cursor_u64(&c);
		t->failed = cursor_u64(&c);
		t->skipped = cursor_u64(&c);
	} else if (type == WIRE_FAILED) {
		cursor_str_copy(&c, t->failed_folder, sizeof(t->failed_folder) - 1);
		t->nfailed++;
		return false;
	} else {
		assert_int_equal(type, WIRE_END);
		t->code = cursor_u8(&c);
		cursor_str_copy(&c, t->text, sizeof(t->text) - 1);
	}
	assert_true(cursor_done(&c));
	return type == WIRE_END;
}

static struct told finish(struct help *h)
{
	struct told t = {.code = 99};
	bool end = false, dropped;

	while (!end) {
		struct pollfd p = {.fd = outbox_fd(h->outbox), .events = POLLIN};
		struct outbox_message *list;

		assert_int_equal(poll(&p, 1, 60000), 1);
		list = outbox_take(h->outbox, &dropped);
		for (struct outbox_message *m = list; m; m = m->next)
			end |= take(m, &t);
		outbox_list_free(list);
	}
	return t;
}

static bool holds(struct help *h, const char *folder, uint64_t count)
{
	struct store_row row;

	return help_row(h, folder, HALF_CUR, &row, NULL) && row.count == count;
}

static void all(void **state)
{
	struct help *h = *state;
	struct told t;
	char out[64];

	OK(h, request(h, true, 0, NULL));
	t = finish(h);
	assert_int_equal(t.code, PROG_OK);
	assert_int_equal(t.done, 3);
	assert_int_equal(t.known, 3);
	assert_true(t.walked);
	assert_int_equal(t.messages, 3);
	assert_int_equal(t.failed + t.skipped, 0);
	assert_true(holds(h, "org/alice", 1) && holds(h, "org/alice/.Sent", 0) && holds(h, "org/bob", 1));
	rebuild_state(rebuild, out, sizeof(out));
	assert_string_equal(out, "idle");
}

static void some(void **state)
{
	static const char *const paths[] = {"org/alice/.Sent", "org/alice", "org/alice", "nobody"};
	struct help *h = *state;
	struct told t;

	OK(h, request(h, false, 4, paths));
	t = finish(h);
	/* Each folder once, though asked for three times. */
	assert_int_equal(t.done, 2);
	assert_int_equal(t.code, PROG_NO);
	assert_int_equal(t.nfailed, 1);
	assert_string_equal(t.failed_folder, "nobody");
	assert_true(holds(h, "org/alice", 1));
	assert_false(holds(h, "org/bob", 1));
	assert_int_equal(tally_get(&h->tally, TALLY_SCANS_DONE), 4);
}

static void set_since(struct help *h, int64_t ns)
{
	char value[32];

	snprintf(value, sizeof(value), "%lld", (long long)ns);
	OK(h, apply_set_fact(&h->apply, "rebuild.since", value, &h->err));
}

static void resumed(void **state)
{
	static const char *const paths[] = {"org/alice"};
	struct help *h = *state;
	char out[APPLY_FACT_MAX];
	struct told t;

	set_since(h, clock_real_ns());
	OK(h, request(h, false, 1, paths));
	assert_int_equal(finish(h).code, PROG_OK);
	help_event(h, "org/alice/.Sent", HALF_CUR, CHANGE_NEED, NULL, NULL, 0, NULL);
	help_drain(h);
	OK(h, request(h, true, 0, NULL));
	t = finish(h);
	assert_int_equal(t.done, 3);
	assert_int_equal(t.skipped, 1);  /* .Sent needs a listing again */
	assert_int_equal(t.messages, 3); /* those passed over count */
	/* It has ended: the next one is a new one. */
	assert_int_equal(OK(h, apply_fact(&h->apply, "rebuild.since", out, &h->err)), 0);
	OK(h, request(h, true, 0, NULL));
	assert_int_equal(finish(h).skipped, 0);
}

static void forgets_what_is_gone(void **state)
{
	static const char *const paths[] = {"org/alice"};
	struct help *h = *state;
	struct store_row row;

	OK(h, request(h, true, 0, NULL));
	finish(h);
	help_remove_tree(h, "org/bob");
	help_remove_tree(h, "org/alice/.Sent");
	OK(h, request(h, false, 1, paths));
	assert_int_equal(finish(h).code, PROG_OK);
	assert_false(help_row(h, "org/alice/.Sent", HALF_CUR, &row, NULL));
	assert_true(holds(h, "org/bob", 1)); /* not asked for */
	OK(h, request(h, true, 0, NULL));
	assert_int_equal(finish(h).code, PROG_OK);
	assert_false(help_row(h, "org/bob", HALF_CUR, &row, NULL));
	assert_true(holds(h, "org/alice", 1));
}

/* Holds the rebuild inside its first scan. */
static pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;

static void wait_here(enum scan_stage stage, unsigned pass)
{
	(void)stage;
	(void)pass;
	pthread_mutex_lock(&hold);
	pthread_mutex_unlock(&hold);
}

static void stops_with_its_peer(void **state)
{
	struct help *h = *state;
	char out[APPLY_FACT_MAX];
	struct told t;

	pthread_mutex_lock(&hold);
	scan_test_hook = wait_here;
	OK(h, request(h, true, 0, NULL));
	assert_int_equal(request(h, true, 0, NULL), -EBUSY);
	assert_non_null(strstr(h->err.text, "under way"));
	rebuild_peer_gone(rebuild, PEER + 1); /* somebody else */
	rebuild_state(rebuild, out, sizeof(out));
	assert_true(strncmp(out, "running ", 8) == 0);
	rebuild_peer_gone(rebuild, PEER);
	pthread_mutex_unlock(&hold);
	t = finish(h);
	scan_test_hook = NULL;
	assert_int_equal(t.code, PROG_REACH);
	/* To be gone on with. */
	assert_int_equal(OK(h, apply_fact(&h->apply, "rebuild.since", out, &h->err)), 1);
	OK(h, request(h, true, 0, NULL));
	assert_int_equal(finish(h).code, PROG_OK);
}

static void tree_away(void **state)
{
	struct help *h = *state;
	char root[128], away[128], out[APPLY_FACT_MAX];
	struct told t;

	OK(h, request(h, true, 0, NULL));
	finish(h);
	snprintf(root, sizeof(root), "%s/mail", h->dir);
	snprintf(away, sizeof(away), "%s/away", h->dir);
	help_remove_tree(h, "org/bob");
	assert_int_equal(rename(root, away), 0);
	assert_int_equal(lower_check(&h->lower), -ESTALE);
	OK(h, request(h, true, 0, NULL));
	t = finish(h);
	assert_int_equal(t.code, PROG_REACH);
	assert_non_null(strstr(t.text, root));
	assert_true(holds(h, "org/bob", 1));
	assert_int_equal(OK(h, apply_fact(&h->apply, "rebuild.since", out, &h->err)), 1);
	assert_int_equal(rename(away, root), 0);
	assert_int_equal(lower_check(&h->lower), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(all), T(some), T(resumed), T(forgets_what_is_gone), T(stops_with_its_peer), T(tree_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
