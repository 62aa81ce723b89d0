/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The freshness rules as tables of cases. C1 to C16 are the schedules that break simpler rules, found by exhaustive
 * search; each is replayed here on the pure functions, step by step, and must end in a listing (SCAN), a lookup, or a
 * tagged mtime, whichever protects from it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <limits.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/mail/fresh.h"

#define T0 (1700000000LL * NS_PER_S + 1)
#define MS NS_PER_MS

static struct stamp at(int64_t t)
{
	return (struct stamp){.dev = 1, .ino = 2, .ctime_ns = T0 + t, .mtime_ns = T0 + t};
}

/* A row that was scanned quietly at time t and is proven. */
static struct fresh proven_at(int64_t t)
{
	struct fresh f;

	fresh_init(&f);
	f.known = at(t);
	f.seen_ns = T0 + t;
	f.need = false;
	return f;
}

static struct fresh_event window(int64_t pre, int64_t post, int64_t delta)
{
	return (struct fresh_event){.windowed = true, .window = {at(pre), at(post)}, .entries_delta = delta};
}

static const struct fresh_event hint = {.windowed = false};
static const struct fresh_context big = {.names = 5000, .window_min = 2000, .bus_healthy = true, .real_now_ns = 7};

static enum fresh_verdict check_at(const struct fresh *f, int64_t stamp, int64_t now)
{
	struct stamp s = at(stamp);

	return fresh_check(f, f->gen, false, &s, T0 + now, 0);
}

/* ---- rule 1 ---- */

static void check_table(void **state)
{
	static const struct {
		const char *what;
		bool need, unsettled, trust;
		unsigned nparked;
		int64_t known, stamp, now;
		int gen_moved; /* 0 no, 1 yes, 2 yes and asked again already */
		enum fresh_verdict want;
	} cases[] = {
		{"equal and proven", 0, 0, 0, 0, 5, 5, 5, 0, FRESH_SERVE},
		{"equal on trust", 0, 0, 1, 0, 5, 5, 5, 0, FRESH_SERVE},
		{"equal but in need", 1, 0, 0, 0, 5, 5, 5, 0, FRESH_SCAN},
		{"equal but a window is parked", 0, 0, 0, 1, 5, 5, 5, 0, FRESH_SCAN},
		{"newer", 0, 0, 0, 0, 5, 6, 6, 0, FRESH_SCAN},
		{"C6 C7: older is changed too", 0, 0, 0, 0, 5, 4, 6, 0, FRESH_SCAN},
		{"C9: unsettled, not yet settled", 0, 1, 0, 0, 5, 5, 5 + 99 * MS, 0, FRESH_SERVE},
		{"C9: unsettled, settled now: list, don't compare", 0, 1, 0, 0, 5, 5, 5 + 100 * MS, 0, FRESH_SCAN},
		{"an event overtook the call", 0, 0, 0, 0, 6, 5, 6, 1, FRESH_AGAIN},
		{"an event overtook the call twice", 0, 0, 0, 0, 6, 5, 6, 2, FRESH_SCAN},
		{"an event overtook the call, equal", 0, 0, 0, 0, 6, 6, 6, 1, FRESH_SERVE},
		{"C12 C13: changed a moment after a check is still changed", 0, 0, 0, 0, 5, 5 + 1, 5 + 2, 0,
		 FRESH_SCAN},
		{"the clock was set back to before the stamp", 0, 0, 0, 0, 5, 5, -1000 * MS, 0, FRESH_SERVE},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fresh f = proven_at(cases[i].known);
		struct stamp s = at(cases[i].stamp);

		f.need = cases[i].need;
		f.unsettled = cases[i].unsettled;
		f.trust = cases[i].trust;
		f.nparked = cases[i].nparked;
		f.gen = 9;
		if (fresh_check(&f, cases[i].gen_moved ? 8 : 9, cases[i].gen_moved == 2, &s, T0 + cases[i].now, 0) !=
		    cases[i].want)
			fail_msg("%s", cases[i].what);
	}
}

/* The server's clock was set back, so that the stamp is not settled by it for long: our own clock tells as well. */
static void unsettled_by_a_clock_that_is_back(void **state)
{
	struct fresh f = proven_at(5);
	struct stamp s = at(5);

	(void)state;
	f.unsettled = true;
	assert_int_equal(fresh_check(&f, 0, false, &s, T0 - 1000 * MS, 100 * MS), FRESH_SERVE);
	assert_int_equal(fresh_check(&f, 0, false, &s, T0 - 1000 * MS, 101 * MS), FRESH_SCAN);
	f.unsettled = false;
	assert_int_equal(fresh_check(&f, 0, false, &s, T0 + 5, 5000 * MS), FRESH_SERVE);
}

static void a_new_row_is_in_need(void **state)
{
	struct fresh f;
	struct stamp zero = {0};

	(void)state;
	fresh_init(&f);
	assert_int_equal(fresh_check(&f, f.gen, false, &zero, INT64_MIN, 0), FRESH_SCAN);
	assert_false(fresh_proven(&f));
}

/* Every field that makes a stamp, alone, makes it another. */
static void stamps_compare_for_equality(void **state)
{
	struct stamp a = at(5), b;

	(void)state;
	b = a, b.dev++;
	assert_false(stamp_eq(&a, &b));
	b = a, b.ino++;
	assert_false(stamp_eq(&a, &b));
	b = a, b.ctime_ns--;
	assert_false(stamp_eq(&a, &b)); /* C6: utimes after a change: mtime equal, ctime not */
	b = a, b.mtime_ns--;
	assert_false(stamp_eq(&a, &b));
	b = a, b.size++;
	assert_true(stamp_eq(&a, &b)); /* ext4's size says nothing */
	a.sized = b.sized = true;
	assert_false(stamp_eq(&a, &b));
}

static void whole_seconds_settle_later(void **state)
{
	struct stamp s = {.ctime_ns = 1700000000LL * NS_PER_S, .mtime_ns = 1700000000LL * NS_PER_S};
	struct fresh f = proven_at(0);

	(void)state;
	f.known = s;
	f.unsettled = true;
	assert_int_equal(fresh_check(&f, 0, false, &s, s.ctime_ns + 1999 * MS, 0), FRESH_SERVE);
	assert_int_equal(fresh_check(&f, 0, false, &s, s.ctime_ns + 2000 * MS, 0), FRESH_SCAN);
}

/* ---- rule 3 ---- */

static void scan_table(void **state)
{
	static const struct {
		const char *what;
		unsigned number;
		int64_t s0, s1, now;
		bool absent, twins;
		enum fresh_pass_verdict want;
	} cases[] = {
		{"quiet", 1, 0, 0, 200 * MS, 0, 0, FRESH_DONE},
		{"quiet: real twins and real absence", 1, 0, 0, 200 * MS, 1, 1, FRESH_DONE},
		{"C3: the stamp moved", 1, 0, 1, 200 * MS, 0, 0, FRESH_PASS},
		{"C3: moved twice", 2, 0, 1, 200 * MS, 0, 0, FRESH_PASS},
		{"C3: moved in three passes", 3, 0, 1, 200 * MS, 0, 0, FRESH_LOOKUP},
		{"C3: the stamp moved backwards", 1, 1, 0, 200 * MS, 0, 0, FRESH_PASS},
		{"quiet after two that moved", 3, 0, 0, 200 * MS, 1, 1, FRESH_DONE},
		{"unsettled, nothing odd", 1, 0, 0, 50 * MS, 0, 0, FRESH_DONE},
		{"unsettled, a message is absent", 1, 0, 0, 50 * MS, 1, 0, FRESH_PASS},
		{"unsettled, a message has two names", 1, 0, 0, 50 * MS, 0, 1, FRESH_PASS},
		{"unsettled, still absent: gone", 2, 0, 0, 50 * MS, 1, 0, FRESH_DONE},
		{"unsettled, still two names: look", 2, 0, 0, 50 * MS, 0, 1, FRESH_LOOKUP},
		{"the clock is behind the stamp", 1, 0, 0, -500 * MS, 1, 0, FRESH_PASS},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fresh_pass p = {.number = cases[i].number,
				       .s0 = at(cases[i].s0),
				       .s1 = at(cases[i].s1),
				       .server_now_ns = T0 + cases[i].now,
				       .absent = cases[i].absent,
				       .twins = cases[i].twins};

		if (fresh_scan(&p) != cases[i].want)
			fail_msg("%s", cases[i].what);
	}
}

static void scanned_table(void **state)
{
	static const struct {
		const char *what;
		int64_t s0, s1, now;
		bool unclear, meanwhile, settled_before;
		bool want_need, want_unsettled;
	} cases[] = {
		{"quiet", 10, 10, 500 * MS, 0, 0, 0, 0, 0},
		{"unsettled", 10, 10, 20 * MS, 0, 0, 0, 0, 1},
		{"moved: list before serving", 10, 11, 500 * MS, 0, 0, 0, 1, 0},
		{"a message was kept unclear", 10, 10, 500 * MS, 1, 0, 0, 1, 0},
		{"need set during the scan stays", 10, 10, 500 * MS, 0, 1, 0, 1, 0},
		{"found settled before, by who knew more of the clock", 10, 10, 20 * MS, 0, 0, 1, 0, 0},
		{"the same, but the clock was set back since", 10, 10, -500 * MS, 0, 0, 1, 0, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fresh_pass p = {
			.number = 1, .s0 = at(cases[i].s0), .s1 = at(cases[i].s1), .server_now_ns = T0 + cases[i].now};
		struct fresh f = proven_at(cases[i].settled_before ? cases[i].s0 : 1);

		f.trust = !cases[i].settled_before;
		f.nparked = 2;
		f.gen = 4;
		fresh_scanned(&f, &p, cases[i].unclear, cases[i].meanwhile);
		if (f.need != cases[i].want_need || f.unsettled != cases[i].want_unsettled || f.trust || f.nparked ||
		    !stamp_eq(&f.known, &p.s0) || f.seen_ns != p.s1.ctime_ns || f.gen != 4)
			fail_msg("%s", cases[i].what);
	}
}

/* ---- rules 4 and 5 ---- */

static void event_table(void **state)
{
	static const struct {
		const char *what;
		int64_t seen;
		bool windowed;
		int64_t pre, post;
		enum fresh_apply want;
	} cases[] = {
		{"starts where everything ends", 5, 1, 5, 6, FRESH_APPLY},
		{"starts later", 5, 1, 7, 8, FRESH_APPLY},
		{"C4 C5: starts before something that was applied", 5, 1, 4, 6, FRESH_LOOK},
		{"C5: late and over before", 5, 1, 1, 2, FRESH_LOOK},
		{"no window", 5, 0, 0, 0, FRESH_LOOK},
		{"C7: the clock went back inside", 5, 1, 9, 8, FRESH_LOOK},
		{"all in one tick: nobody knows what came first", 5, 1, 5, 5, FRESH_LOOK},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fresh f = proven_at(cases[i].seen);
		struct fresh_event ev = window(cases[i].pre, cases[i].post, 0);

		ev.windowed = cases[i].windowed;
		if (fresh_event(&f, &ev) != cases[i].want)
			fail_msg("%s", cases[i].what);
	}
}

static void raise_table(void **state)
{
	static const struct {
		const char *what;
		int64_t pre, post, delta;
		uint64_t names;
		bool healthy, need, sized, changed;
		uint64_t pre_size, post_size;
		int64_t want_known;
		bool want_need;
		unsigned want_parked;
	} cases[] = {
		{"touches: raised on trust", 5, 6, 1, 5000, 1, 0, 0, 1, 0, 0, 6, 0, 0},
		{"no change, touches: raised", 5, 6, 0, 5000, 1, 0, 0, 0, 0, 0, 6, 0, 0},
		{"small half", 5, 6, 1, 1999, 1, 0, 0, 1, 0, 0, 5, 1, 0},
		{"bus not healthy", 5, 6, 1, 5000, 0, 0, 0, 1, 0, 0, 5, 1, 0},
		{"in need already", 5, 6, 1, 5000, 1, 1, 0, 1, 0, 0, 5, 1, 0},
		{"C2 where size counts: somebody else added too", 5, 7, 1, 5000, 1, 0, 1, 1, 9, 11, 5, 1, 0},
		{"size counts and agrees", 5, 7, 1, 5000, 1, 0, 1, 1, 9, 10, 7, 0, 0},
		{"size counts and agrees: one less", 5, 7, -1, 5000, 1, 0, 1, 1, 9, 8, 7, 0, 0},
		{"C1: pre is not known: a silent change before", 6, 7, 1, 5000, 1, 0, 0, 1, 0, 0, 5, 0, 1},
		{"starts below known", 4, 7, 1, 5000, 1, 0, 0, 1, 0, 0, 5, 1, 0},
		{"starts below known, told nothing new", 4, 7, 1, 5000, 1, 0, 0, 0, 0, 0, 5, 0, 0},
		{"C7: post < pre", 5, 4, 1, 5000, 1, 0, 0, 1, 0, 0, 5, 1, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fresh f = proven_at(5);
		struct fresh_event ev = window(cases[i].pre, cases[i].post, cases[i].delta);
		struct fresh_context ctx = {cases[i].names, 2000, cases[i].healthy, 77};

		f.need = cases[i].need;
		ev.window.pre.sized = ev.window.post.sized = cases[i].sized;
		ev.window.pre.size = cases[i].pre_size;
		ev.window.post.size = cases[i].post_size;
		f.known.sized = cases[i].sized;
		f.known.size = cases[i].pre_size;
		fresh_applied(&f, &ev, &ctx, cases[i].changed);
		if (f.known.ctime_ns != T0 + cases[i].want_known || f.need != cases[i].want_need ||
		    f.nparked != cases[i].want_parked || f.trust != (cases[i].want_known != 5) ||
		    f.gen != (cases[i].changed ? 1u : 0u))
			fail_msg("%s", cases[i].what);
	}
}

static void plain_events_never_raise(void **state)
{
	struct fresh f = proven_at(5);

	(void)state;
	fresh_applied(&f, &hint, &big, false);
	assert_false(f.need); /* a doubled hint costs no listing */
	fresh_applied(&f, &hint, &big, true);
	assert_true(f.need);
	assert_int_equal(f.known.ctime_ns, T0 + 5);
}

static void parked_windows_are_used_in_order(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_event second = window(6, 7, 1), third = window(7, 8, 1), first = window(5, 6, 1);

	(void)state;
	fresh_applied(&f, &third, &big, true);
	fresh_applied(&f, &second, &big, true);
	fresh_applied(&f, &second, &big, false); /* doubled */
	assert_int_equal(f.nparked, 2);
	assert_int_equal(check_at(&f, 8, 8), FRESH_SCAN);
	fresh_applied(&f, &first, &big, true);
	assert_int_equal(f.nparked, 0);
	assert_false(f.need);
	assert_int_equal(check_at(&f, 8, 8), FRESH_SERVE);
	assert_int_equal(f.trust_since_ns, 7);
}

static void too_many_parked_is_need(void **state)
{
	struct fresh f = proven_at(5);

	(void)state;
	for (int i = 0; i < FRESH_PARKED_MAX + 1; i++) {
		struct fresh_event ev = window(10 + 2 * i, 11 + 2 * i, 1);

		assert_false(f.need);
		fresh_applied(&f, &ev, &big, true);
	}
	assert_true(f.need);
	assert_int_equal(f.nparked, 0);
}

static void an_overlapped_parked_window_is_need(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_event parked = window(6, 8, 1), raise = window(5, 7, 1);

	(void)state;
	fresh_applied(&f, &parked, &big, true);
	fresh_applied(&f, &raise, &big, true);
	assert_true(f.need);
}

static void windows_are_wanted_in_big_healthy_halves(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_context small = big, sick = big;

	(void)state;
	small.names = 1999;
	sick.bus_healthy = false;
	assert_true(fresh_wants_window(&f, &big));
	assert_false(fresh_wants_window(&f, &small));
	assert_false(fresh_wants_window(&f, &sick));
	fresh_need(&f);
	assert_false(fresh_wants_window(&f, &big));
}

/* ---- the report's schedules, replayed ---- */

/* C1: a silent add (stamp 6) before an own change (6..7). A forced `pre` shows 6, which is not known: not raised over
 * it. */
static void c1_forced_pre_shows_the_silent_change(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_event own = window(6, 7, 1);

	(void)state;
	fresh_applied(&f, &own, &big, true);
	assert_int_equal(check_at(&f, 7, 7), FRESH_SCAN);
}

/* C2: the foreign change lies inside the own window. Unprovable: served, but on trust, tagged, and a gap or confirm
 * lists it. */
static void c2_slip_is_on_trust(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_event own = window(5, 7, 1);
	struct stamp s = at(7);

	(void)state;
	fresh_applied(&f, &own, &big, true);
	assert_true(f.trust);
	assert_true(f.trust_since_ns != 0);
	assert_int_not_equal(fresh_mtime_ns(&f, &s, 1), s.mtime_ns);
	fresh_gap(&f);
	assert_int_equal(check_at(&f, 7, 7), FRESH_SCAN);
}

/* C2 from another overlay: its event starts below known and tells of a change: list. */
static void c2_heals_by_the_other_overlays_event(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_event own = window(5, 7, 1), other = window(5, 6, 1);

	(void)state;
	fresh_applied(&f, &own, &big, true);
	assert_int_equal(fresh_event(&f, &other), FRESH_LOOK);
	fresh_applied(&f, &other, &big, true);
	assert_int_equal(check_at(&f, 7, 7), FRESH_SCAN);
}

/* C4: own remove 5..6, then h1's re-add 6..7 is applied before the own patch: the own patch must look. */
static void c4_own_patch_after_a_newer_event_looks(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_event readd = window(6, 7, 1), own = window(5, 6, -1);

	(void)state;
	fresh_applied(&f, &readd, &big, true);
	assert_int_equal(fresh_event(&f, &own), FRESH_LOOK);
}

/* C5: add (5..6), remove (6..7) are both applied; the add comes again. */
static void c5_doubled_add_looks(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_event add = window(5, 6, 1), del = window(6, 7, -1);

	(void)state;
	fresh_applied(&f, &add, &big, true);
	fresh_applied(&f, &del, &big, true);
	assert_int_equal(fresh_event(&f, &add), FRESH_LOOK);
	fresh_applied(&f, &add, &big, false); /* the lookup said: not there, as listed */
	assert_int_equal(check_at(&f, 7, 7), FRESH_SERVE);
}

/* C7: the server's clock steps back; the change's stamp is lower than known, and so is what the row has seen. */
static void c7_clock_step_back(void **state)
{
	struct fresh f = proven_at(50);
	struct fresh_pass p = {.number = 1, .s0 = at(20), .s1 = at(20), .server_now_ns = T0 + 500 * MS};
	struct fresh_event later = window(20, 21, 1);

	(void)state;
	assert_int_equal(check_at(&f, 20, 50), FRESH_SCAN);
	fresh_scanned(&f, &p, false, false);
	assert_int_equal(f.seen_ns, T0 + 20);
	assert_int_equal(fresh_event(&f, &later), FRESH_APPLY);
}

/* C8: an event beyond known is applied without raising it (small half); the tree rolls back to exactly known. */
static void c8_rollback_to_known(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_context small = big;
	struct fresh_event ev = window(5, 6, 1);

	(void)state;
	small.names = 10;
	fresh_applied(&f, &ev, &small, true);
	assert_int_equal(check_at(&f, 5, 9), FRESH_SCAN);
}

/* C9, C10, C15: listed inside the tick, then again after it settled, from the server; tagged until then. */
static void c9_c10_c15_unsettled_listing(void **state)
{
	struct fresh f = proven_at(1);
	struct fresh_pass early = {.number = 1, .s0 = at(5), .s1 = at(5), .server_now_ns = T0 + 5};
	struct fresh_pass late = {.number = 1, .s0 = at(5), .s1 = at(5), .server_now_ns = T0 + 5 + 100 * MS};
	struct stamp s = at(5);

	(void)state;
	fresh_scanned(&f, &early, false, false);
	assert_true(f.unsettled);
	assert_true(fresh_scan_drops_cache(&f));
	assert_int_not_equal(fresh_mtime_ns(&f, &s, 1), s.mtime_ns);
	assert_int_equal(check_at(&f, 5, 5 + 100 * MS), FRESH_SCAN);
	fresh_scanned(&f, &late, false, false);
	assert_int_equal(check_at(&f, 5, 5 + 200 * MS), FRESH_SERVE);
	assert_int_equal(fresh_mtime_ns(&f, &s, 1), s.mtime_ns);
	assert_false(fresh_scan_drops_cache(&f));
}

/* A process that is new to the server's clock scans what an earlier one found settled: it stays settled, unless a
 * window raised it. */
static void a_settled_stamp_stays_settled(void **state)
{
	struct fresh f = proven_at(5), raised = proven_at(5);
	struct fresh_pass early = {.number = 1, .s0 = at(5), .s1 = at(5), .server_now_ns = T0 + 5};

	(void)state;
	fresh_scanned(&f, &early, false, false);
	assert_true(fresh_proven(&f));
	raised.trust = true;
	fresh_scanned(&raised, &early, false, false);
	assert_true(raised.unsettled);
}

/* Raising known does not settle a listing that was read too early. */
static void raising_keeps_unsettled(void **state)
{
	struct fresh f = proven_at(5);
	struct fresh_event own = window(5, 6, 1);

	(void)state;
	f.unsettled = true;
	fresh_applied(&f, &own, &big, true);
	assert_true(f.unsettled);
	assert_int_equal(check_at(&f, 6, 6 + 100 * MS), FRESH_SCAN);
}

/* C11: a gap touches rows on trust only. */
static void c11_gap(void **state)
{
	struct fresh trusted = proven_at(5), proven = proven_at(5);

	(void)state;
	trusted.trust = true;
	fresh_gap(&trusted);
	fresh_gap(&proven);
	assert_int_equal(check_at(&trusted, 5, 5), FRESH_SCAN);
	assert_int_equal(check_at(&proven, 5, 5), FRESH_SERVE);
}

/* C14: the stat sees the new stamp, the handle's listing is the old one: what is shown is never shown with another
 * listing. */
static void c14_stat_between_opendir_and_readdir(void **state)
{
	struct fresh f = proven_at(5);
	struct stamp s = at(6);
	int64_t shown = fresh_mtime_ns(&f, &s, 1), again;
	struct fresh_pass p = {.number = 1, .s0 = at(6), .s1 = at(6), .server_now_ns = T0 + 500 * MS};

	(void)state;
	assert_int_not_equal(shown, s.mtime_ns);
	f.gen++; /* a getattr that finds S != known */
	again = fresh_mtime_ns(&f, &s, 1);
	assert_int_not_equal(shown, again);
	f.gen++;
	fresh_scanned(&f, &p, false, false);
	assert_int_not_equal(fresh_mtime_ns(&f, &s, 1), shown);
	assert_int_not_equal(fresh_mtime_ns(&f, &s, 1), again);
}

/* Rule 6: two hosts behind the same stamp show different times; the whole second stays where it can. */
static void tags_differ_by_host_and_stay_near(void **state)
{
	struct fresh f = proven_at(5);
	struct stamp s = at(6);

	(void)state;
	assert_int_not_equal(fresh_mtime_ns(&f, &s, 1), fresh_mtime_ns(&f, &s, 2));
	for (uint64_t g = 0; g < 5000; g++) {
		f.gen = g;
		assert_in_range(s.mtime_ns - fresh_mtime_ns(&f, &s, 1), 1, 999983);
	}
}

/* Rule 8: a scan that began before what the row holds does not replace it. */
static void older_scans_do_not_replace(void **state)
{
	struct fresh f = proven_at(5);
	struct stamp older = at(4), same = at(5), newer = at(6);

	(void)state;
	assert_false(fresh_accepts_scan(&f, &older));
	assert_true(fresh_accepts_scan(&f, &same));
	f.seen_ns = T0 + 7;
	assert_false(fresh_accepts_scan(&f, &newer));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(check_table),
		cmocka_unit_test(unsettled_by_a_clock_that_is_back),
		cmocka_unit_test(a_new_row_is_in_need),
		cmocka_unit_test(stamps_compare_for_equality),
		cmocka_unit_test(whole_seconds_settle_later),
		cmocka_unit_test(scan_table),
		cmocka_unit_test(scanned_table),
		cmocka_unit_test(event_table),
		cmocka_unit_test(raise_table),
		cmocka_unit_test(plain_events_never_raise),
		cmocka_unit_test(parked_windows_are_used_in_order),
		cmocka_unit_test(too_many_parked_is_need),
		cmocka_unit_test(an_overlapped_parked_window_is_need),
		cmocka_unit_test(windows_are_wanted_in_big_healthy_halves),
		cmocka_unit_test(c1_forced_pre_shows_the_silent_change),
		cmocka_unit_test(c2_slip_is_on_trust),
		cmocka_unit_test(c2_heals_by_the_other_overlays_event),
		cmocka_unit_test(c4_own_patch_after_a_newer_event_looks),
		cmocka_unit_test(c5_doubled_add_looks),
		cmocka_unit_test(c7_clock_step_back),
		cmocka_unit_test(c8_rollback_to_known),
		cmocka_unit_test(c9_c10_c15_unsettled_listing),
		cmocka_unit_test(a_settled_stamp_stays_settled),
		cmocka_unit_test(raising_keeps_unsettled),
		cmocka_unit_test(c11_gap),
		cmocka_unit_test(c14_stat_between_opendir_and_readdir),
		cmocka_unit_test(tags_differ_by_host_and_stay_near),
		cmocka_unit_test(older_scans_do_not_replace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
