/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of the applier's parts share: one folder whose halves are held, and what the hooks and the feed were
 * told. Flow: setup/help_teardown per test.
 * Errors: the running test fails.
 */
#ifndef MAILDEX_TESTS_APPLY_HELP_H
#define MAILDEX_TESTS_APPLY_HELP_H

#include "tests/unit/indexer_help.h"

#define MSG "1600000000.M1P1.host"
#define SEEN MSG ":2,S"
#define FLAGGED MSG ":2,FS"

/* What the hooks were told, in the applier's thread: looked at once that is drained, which orders the two. */
static struct {
	unsigned touched, trusted, rescans;
	enum half half;
	int64_t since_ns;
} told;

static inline void touched(void *arg, const char *folder, enum half half)
{
	(void)arg;
	(void)folder;
	(void)half;
	told.touched++;
}

static inline void trusted(void *arg, const char *folder, enum half half, int64_t since_ns)
{
	(void)arg;
	(void)folder;
	told.trusted++;
	told.half = half;
	told.since_ns = since_ns;
}

static inline void rescan(void *arg, const char *folder, enum half half)
{
	(void)arg;
	(void)folder;
	(void)half;
	told.rescans++;
}

/* alice/cur with one message, held; alice/new held too. */
static inline int setup(void **state)
{
	struct help *h;
	int r = help_setup(state);

	h = *state;
	memset(&told, 0, sizeof(told));
	h->apply.tools.hooks = (struct apply_hooks){.touched = touched, .trusted = trusted, .rescan = rescan};
	h->conf.window_min = 1;
	help_maildir(h, "alice");
	help_make(h, "alice/cur/" SEEN);
	help_apply_start(h);
	help_hold(h, "alice", HALF_CUR);
	help_hold(h, "alice", HALF_NEW);
	return r;
}

static inline struct store_row row_of(struct help *h, enum half half)
{
	struct store_row row;

	assert_true(help_row(h, "alice", half, &row, NULL));
	return row;
}

/* What the feed said last, after all that was queued; kind 0: nothing. */
static inline struct change fed(struct help *h)
{
	struct outbox_message *list;
	struct change c = {0};
	bool dropped;

	help_drain(h);
	list = outbox_take(h->outbox, &dropped);
	for (struct outbox_message *m = list; m; m = m->next) {
		struct cursor cursor;
		enum wire_type type;
		struct event ev;

		assert_int_equal(wire_open(&cursor, m->bytes.data, m->bytes.len, &type, NULL), 0);
		assert_int_equal(type, WIRE_FEED);
		assert_int_equal(event_decode(&ev, &cursor, NULL), 0);
		c = ev.changes[0];
		event_release(&ev);
	}
	outbox_list_free(list);
	return c;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, help_teardown)

#endif
