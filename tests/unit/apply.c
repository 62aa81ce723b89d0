/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The applier over a real index and a real tree: edit.c, takeover.c, batch.c, apply.c. */
#include <semaphore.h>

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

static void touched(void *arg, const char *folder, enum half half)
{
	(void)arg;
	(void)folder;
	(void)half;
	told.touched++;
}

static void trusted(void *arg, const char *folder, enum half half, int64_t since_ns)
{
	(void)arg;
	(void)folder;
	told.trusted++;
	told.half = half;
	told.since_ns = since_ns;
}

static void rescan(void *arg, const char *folder, enum half half)
{
	(void)arg;
	(void)folder;
	(void)half;
	told.rescans++;
}

/* alice/cur with one message, held; alice/new held too. */
static int setup(void **state)
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

static struct store_row row_of(struct help *h, enum half half)
{
	struct store_row row;

	assert_true(help_row(h, "alice", half, &row, NULL));
	return row;
}

/* What the feed said last, after all that was queued; kind 0: nothing. */
static struct change fed(struct help *h)
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
	assert_int_equal(scan_half(fd, NULL, false, &o->scan), 0);
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

#define T(f) cmocka_unit_test_setup_teardown(f, setup, help_teardown)

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
		T(handed_over),
		T(handed_over_makes_the_row),
		T(own_of_a_changed_half),
		T(own_and_events_meanwhile),
		T(own_overtaken),
		T(own_of_a_dropped_row),
		T(repairs_are_counted_apart),
		T(gap_needs_what_is_on_trust),
		T(batch_that_cannot_be_written),
		T(damage_found_inside_a_batch),
		T(index_deleted),
		T(stop_applies_what_waits),
		T(facts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
