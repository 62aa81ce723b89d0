/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Scans taken over, in the applier over a real index and a real tree. */
#include "tests/unit/apply_help.h"

/* A scan as maildexfs hands it over: of what is on disk now, with that many names more. */
static struct wire_scan *handed(struct help *h, const struct stamp *s0, const char *name)
{
	struct wire_scan *s = calloc(1, sizeof(*s));
	struct listing_entry entry = {.ino = 99, .type = 8, .len = (uint8_t)strlen(name), .name = name};

	assert_non_null(s);
	strcpy(s->folder, "alice");
	s->half = HALF_CUR;
	s->pass = (struct fresh_pass){.number = 1, .s0 = *s0, .s1 = *s0, .server_now_ns = s0->ctime_ns + NS_PER_S * 10};
	listing_init(&s->listing);
	assert_int_equal(listing_add(&s->listing, &entry), 0);
	(void)h;
	return s;
}

static void handed_over(void **state)
{
	struct help *h = *state;
	struct stamp s = help_stamp(h, "alice", HALF_CUR);

	OK(h, queue_scan(h->queue, handed(h, &s, "1.1.1:2,"), 3));
	help_drain(h);
	assert_true(help_has(h, "alice", HALF_CUR, "1.1.1:2,", 99));
	assert_int_equal(row_of(h, HALF_CUR).count, 1);
	assert_false(row_of(h, HALF_CUR).fresh.need);
	assert_int_equal(tally_get(&h->tally, TALLY_SCANS_HANDED_OVER), 1);
	/* Older than the row: dropped, and listed again when there is time. */
	s.ctime_ns--;
	OK(h, queue_scan(h->queue, handed(h, &s, "2.2.2:2,"), 3));
	help_drain(h);
	assert_true(help_has(h, "alice", HALF_CUR, "1.1.1:2,", 99));
	assert_int_equal(tally_get(&h->tally, TALLY_SCANS_TOO_OLD), 1);
	assert_int_equal(told.rescans, 1);
}

static void handed_over_makes_the_row(void **state)
{
	struct help *h = *state;
	struct stamp s = help_stamp(h, "alice", HALF_CUR);
	struct store_row row;

	OK(h, apply_forget(&h->apply, "alice", true, &h->err));
	assert_false(help_row(h, "alice", HALF_CUR, &row, NULL));
	OK(h, queue_scan(h->queue, handed(h, &s, "1.1.1:2,"), 3));
	help_drain(h);
	assert_true(help_has(h, "alice", HALF_CUR, "1.1.1:2,", 99));
}

/* Own scans. */
struct own {
	struct takeover t;
	struct scan scan;
	_Atomic bool disturbed;
};

static void own_scan(struct help *h, struct own *o)
{
	struct cred owner;
	struct store_row row = row_of(h, HALF_CUR);
	int fd = OK(h, lower_open_half(&h->lower, "alice", HALF_CUR, &owner));

	*o = (struct own){.t = {.folder = "alice",
				.half = HALF_CUR,
				.scan = &o->scan,
				.id = row.id,
				.gen = row.fresh.gen,
				.need = row.fresh.need,
				.disturbed = &o->disturbed}};
	assert_int_equal(scan_half(fd, &(struct scan_from){.before = NULL}, &o->scan), 0);
	o->scan.last.server_now_ns = o->scan.last.s0.ctime_ns + 10 * NS_PER_S;
	close(fd);
}

static void own_end(struct help *h, struct own *o, enum takeover_verdict verdict)
{
	OK(h, apply_takeover(&h->apply, &o->t, &h->err));
	assert_int_equal(o->t.verdict, verdict);
	scan_release(&o->scan);
}

static void own_of_a_changed_half(void **state)
{
	struct help *h = *state;
	struct own o;

	help_make(h, "alice/cur/1700000000.M1P1.host:2,");
	own_scan(h, &o);
	own_end(h, &o, TAKEOVER_DONE);
	assert_int_equal(o.t.changed, 1);
	assert_int_equal(row_of(h, HALF_CUR).count, 2);
	assert_int_equal(fed(h).kind, CHANGE_NEED);
	/* The stamp had moved: the row didn't claim to be right. */
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_OTHER), 0);
	own_scan(h, &o);
	own_end(h, &o, TAKEOVER_DONE);
	assert_int_equal(o.t.changed, 0);
	assert_int_equal(fed(h).kind, 0); /* nothing to tell */
}

static void own_and_events_meanwhile(void **state)
{
	struct help *h = *state;
	struct own o;

	own_scan(h, &o);
	/* Reported by maildexfs while we list: may be true after all. */
	help_event(h, "alice", HALF_CUR, CHANGE_NEED, NULL, NULL, 0, NULL);
	help_drain(h);
	own_end(h, &o, TAKEOVER_AGAIN);
	assert_true(row_of(h, HALF_CUR).fresh.need);
	/* Had it been set before, the scan would have been its answer. */
	own_scan(h, &o);
	own_end(h, &o, TAKEOVER_DONE);
	assert_false(row_of(h, HALF_CUR).fresh.need);
	/* Set before, and again meanwhile: it stays. */
	help_event(h, "alice", HALF_CUR, CHANGE_NEED, NULL, NULL, 0, NULL);
	help_drain(h);
	own_scan(h, &o);
	o.disturbed = true;
	o.t.last = true;
	own_end(h, &o, TAKEOVER_DONE);
	assert_true(row_of(h, HALF_CUR).fresh.need);
}

static void own_overtaken(void **state)
{
	struct help *h = *state;
	struct window w;
	struct own o;
	uint64_t ino;

	own_scan(h, &o);
	w.pre = help_stamp(h, "alice", HALF_CUR);
	ino = help_make(h, "alice/cur/1700000000.M1P1.host:2,");
	w.post = help_stamp(h, "alice", HALF_CUR);
	if (w.post.ctime_ns == w.pre.ctime_ns)
		w.post.ctime_ns++; /* one tick of the clock */
	help_event(h, "alice", HALF_CUR, CHANGE_ADD, NULL, "1700000000.M1P1.host:2,", ino, &w);
	help_drain(h);
	o.t.last = true; /* even then: an older listing never replaces a newer row */
	own_end(h, &o, TAKEOVER_AGAIN);
	assert_true(help_has(h, "alice", HALF_CUR, "1700000000.M1P1.host:2,", ino));
}

static void own_of_a_dropped_row(void **state)
{
	struct help *h = *state;
	struct store_row row;
	struct own o;

	own_scan(h, &o);
	OK(h, apply_forget(&h->apply, "alice", false, &h->err));
	own_end(h, &o, TAKEOVER_GONE);
	assert_false(help_row(h, "alice", HALF_CUR, &row, NULL));
}

/* Changes a name in the index behind everybody's back, such that the row's sum is right. */
static void falsify(struct help *h)
{
	struct store_writer *w;
	struct store_row row;

	OK(h, store_writer_open(&w, h->index, NULL, &h->err));
	OK(h, store_writer_begin(w, &h->err));
	OK(h, store_writer_row(w, "alice", HALF_CUR, false, &row, &h->err));
	OK(h, store_writer_remove(w, &row, SEEN, strlen(SEEN), &h->err));
	OK(h, store_writer_save(w, &row, &h->err));
	OK(h, store_writer_commit(w, &h->err));
	store_writer_close(w);
}

static void repairs_are_counted_apart(void **state)
{
	struct help *h = *state;
	struct window w = {.pre = help_stamp(h, "alice", HALF_CUR)};
	struct own o;

	help_make(h, "alice/cur/1700000000.M1P1.host:2,"); /* nobody tells of this one (C2) */
	help_make(h, "alice/cur/1700000001.M1P1.host:2,");
	w.post = help_stamp(h, "alice", HALF_CUR);
	help_event(h, "alice", HALF_CUR, CHANGE_ADD, NULL, "1700000001.M1P1.host:2,", 1, &w);
	help_drain(h);
	assert_true(row_of(h, HALF_CUR).fresh.trust);
	own_scan(h, &o);
	own_end(h, &o, TAKEOVER_DONE);
	assert_false(row_of(h, HALF_CUR).fresh.trust);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_TRUST), 1);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_OTHER), 0);
	falsify(h);
	own_scan(h, &o);
	own_end(h, &o, TAKEOVER_DONE);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_TRUST), 1);
	assert_int_equal(tally_get(&h->tally, TALLY_REPAIRED_OTHER), 1);
	assert_int_equal(row_of(h, HALF_CUR).count, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(handed_over),
		T(handed_over_makes_the_row),
		T(own_of_a_changed_half),
		T(own_and_events_meanwhile),
		T(own_overtaken),
		T(own_of_a_dropped_row),
		T(repairs_are_counted_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
