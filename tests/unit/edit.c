/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What events do to a row and its names: edit.c, in the applier over a real index and a real tree. */
#include "tests/unit/apply_help.h"

static void not_held_is_ignored_but_fed(void **state)
{
	struct help *h = *state;

	help_event(h, "alice/.Sent", HALF_CUR, CHANGE_ADD, NULL, "1.2.3", 5, NULL);
	assert_int_equal(fed(h).kind, CHANGE_ADD);
	assert_int_equal(tally_get(&h->tally, TALLY_EVENTS_IGNORED), 1);
	assert_int_equal(tally_get(&h->tally, TALLY_EVENTS_APPLIED), 0);
}

/* Rules 4 and 5: a window that starts at known is applied without a lookup, and raises. */
static void window_raises(void **state)
{
	struct help *h = *state;
	struct window w = {.pre = help_stamp(h, "alice", HALF_CUR)};
	struct store_row row;
	uint64_t ino;

	help_rename(h, "alice/cur/" SEEN, "alice/cur/" FLAGGED);
	w.post = help_stamp(h, "alice", HALF_CUR);
	help_unlink(h, "alice/cur/" FLAGGED);
	ino = help_make(h, "alice/cur/" FLAGGED); /* what a lookup would say */
	assert_false(help_has(h, "alice", HALF_CUR, FLAGGED, ino));
	help_event(h, "alice", HALF_CUR, CHANGE_ADD, NULL, "1700000000.M1P1.host:2,", 4711, &w);
	help_drain(h);
	row = row_of(h, HALF_CUR);
	assert_true(stamp_eq(&row.fresh.known, &w.post));
	assert_false(row.fresh.need);
	assert_true(row.fresh.trust);
	assert_int_equal(row.count, 2);
	assert_true(help_has(h, "alice", HALF_CUR, "1700000000.M1P1.host:2,", 4711));
	assert_int_equal(told.trusted, 1);
	assert_int_equal(told.half, HALF_CUR);
	assert_int_equal(told.since_ns, row.fresh.trust_since_ns);
	assert_int_equal(told.touched, 1);
	assert_int_equal(tally_get(&h->tally, TALLY_EVENTS_LOOKED_UP), 0);
	assert_int_equal(tally_get(&h->tally, TALLY_LOWER_LOOKUPS), 0);
}

/* C4, C5: whatever comes late, doubled or without a window is what the disk says, not what the event says. */
static void others_are_looked_up(void **state)
{
	static const struct {
		enum change_kind kind;
		const char *old, *name;
		uint64_t ino;
	} lies[] = {
		{CHANGE_REMOVE, NULL, SEEN, 0},     {CHANGE_ADD, NULL, "1500000000.M1P1.host:2,", 77},
		{CHANGE_RENAME, SEEN, FLAGGED, 77}, {CHANGE_RENAME, FLAGGED, MSG ":2,", 0},
		{CHANGE_ADD, NULL, FLAGGED, 0},
	};
	struct help *h = *state;
	struct store_row row;
	struct event ev;
	struct change c;

	event_init(&ev, "alice", HALF_CUR);
	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		change_make(&c, lies[i].kind, lies[i].old, lies[i].name, lies[i].ino, 0);
		assert_int_equal(event_add(&ev, &c), 0);
	}
	queue_event(h->queue, &ev, 7);
	help_drain(h);
	row = row_of(h, HALF_CUR);
	assert_int_equal(row.count, 1);
	assert_false(row.fresh.need); /* nothing changed */
	assert_true(tally_get(&h->tally, TALLY_LOWER_LOOKUPS) >= 5);
	assert_int_equal(tally_get(&h->tally, TALLY_LOWER_GETATTRS), 1);
}

static void old_window_is_looked_up(void **state)
{
	struct help *h = *state;
	struct window w = {.pre = help_stamp(h, "alice", HALF_CUR), .post = help_stamp(h, "alice", HALF_CUR)};

	w.pre.ctime_ns -= NS_PER_S;
	w.post.ctime_ns -= NS_PER_S - 1;
	help_event(h, "alice", HALF_CUR, CHANGE_REMOVE, NULL, SEEN, 0, &w);
	help_drain(h);
	assert_int_equal(row_of(h, HALF_CUR).count, 1);
	assert_int_equal(tally_get(&h->tally, TALLY_EVENTS_LOOKED_UP), 1);
}

static void found_change_sets_need_and_is_fed(void **state)
{
	struct help *h = *state;
	uint64_t ino = help_make(h, "alice/new/1700000000.M1P1.host");
	struct change c;

	help_event(h, "alice", HALF_NEW, CHANGE_ADD, NULL, "1700000000.M1P1.host", 0, NULL);
	c = fed(h);
	assert_int_equal(c.kind, CHANGE_ADD);
	assert_int_equal(c.ino, ino); /* which the sender didn't know */
	assert_true(row_of(h, HALF_NEW).fresh.need);
	assert_true(help_has(h, "alice", HALF_NEW, "1700000000.M1P1.host", ino));
}

static void look(void **state)
{
	struct help *h = *state;

	help_event(h, "alice", HALF_CUR, CHANGE_LOOK, NULL, NULL, 0, NULL);
	help_drain(h);
	assert_false(row_of(h, HALF_CUR).fresh.need);
	help_make(h, "alice/cur/1700000000.M1P1.host:2,");
	help_event(h, "alice", HALF_CUR, CHANGE_LOOK, NULL, NULL, 0, NULL);
	help_drain(h);
	assert_true(row_of(h, HALF_CUR).fresh.need);
	assert_false(row_of(h, HALF_NEW).fresh.need);
	help_event(h, "alice", HALF_NEW, CHANGE_NEED, NULL, NULL, 0, NULL);
	help_drain(h);
	assert_true(row_of(h, HALF_NEW).fresh.need);
}

/* Law 7: a tree that isn't there is never asked what is gone. */
static void tree_away(void **state)
{
	struct help *h = *state;
	char root[128], away[128];

	snprintf(root, sizeof(root), "%s/mail", h->dir);
	snprintf(away, sizeof(away), "%s/away", h->dir);
	assert_int_equal(rename(root, away), 0);
	assert_int_equal(mkdir(root, 0700), 0);
	assert_int_equal(lower_check(&h->lower), -ESTALE);
	help_event(h, "alice", HALF_CUR, CHANGE_REMOVE, NULL, SEEN, 0, NULL);
	help_event(h, "alice", HALF_NEW, CHANGE_LOOK, NULL, NULL, 0, NULL);
	help_drain(h);
	assert_int_equal(row_of(h, HALF_CUR).count, 1);
	assert_true(row_of(h, HALF_CUR).fresh.need);
	assert_true(row_of(h, HALF_NEW).fresh.need);
	assert_int_equal(tally_get(&h->tally, TALLY_LOWER_LOOKUPS), 0);
	assert_false(lower_gone(&h->lower, "alice"));
	assert_int_equal(rmdir(root), 0);
	assert_int_equal(rename(away, root), 0);
	assert_int_equal(lower_check(&h->lower), 0);
}

static void folder_gone_is_listed_again(void **state)
{
	struct help *h = *state;

	help_remove_tree(h, "alice/cur");
	help_event(h, "alice", HALF_CUR, CHANGE_REMOVE, NULL, SEEN, 0, NULL);
	help_drain(h);
	assert_int_equal(told.rescans, 1);
	assert_true(row_of(h, HALF_CUR).fresh.need);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(not_held_is_ignored_but_fed),
		T(window_raises),
		T(others_are_looked_up),
		T(old_window_is_looked_up),
		T(found_change_sets_need_and_is_fed),
		T(look),
		T(tree_away),
		T(folder_gone_is_listed_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
