/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events: any bytes are refused with a text, or are an event that encodes to the same bytes; and what an event does to a
 * listing and its row stays within what it was given. Input: odd first byte: a plan made of numbers (check_plan()); even:
 * an encoded event.
 */
#include "lib/mail/event.h"

#include <errno.h>

#include "lib/mail/wire.h"
#include "tests/fuzz/fuzz.h"

#define NAMES 16 /* of a message and of another; more than a plan can hold */

/* ---- the form ---- */

static void check_change(const struct change *c)
{
	bool named = c->kind == CHANGE_ADD || c->kind == CHANGE_REMOVE || c->kind == CHANGE_RENAME;

	CHECK(c->kind >= CHANGE_ADD && c->kind <= CHANGE_NEED);
	CHECK(named ? name_ok(c->name, c->len) : c->len == 0);
	CHECK(c->kind == CHANGE_RENAME ? name_ok(c->old, c->old_len) : c->old_len == 0);
	CHECK(c->name[c->len] == '\0' && c->old[c->old_len] == '\0');
}

static void check_event(const struct event *ev)
{
	int64_t delta = event_entries_delta(ev);

	CHECK(folder_path_check(ev->folder, strlen(ev->folder), NULL) == 0);
	CHECK(ev->half == HALF_NEW || ev->half == HALF_CUR);
	CHECK(ev->nchanges <= EVENT_CHANGES_MAX && (ev->nchanges == 0 || ev->changes));
	CHECK(delta <= (int64_t)ev->nchanges && -delta <= (int64_t)ev->nchanges);
	for (size_t i = 0; i < ev->nchanges; i++)
		check_change(&ev->changes[i]);
}

/* A row after the event; which of its values is which is all the same: what counts is that they go on from each other. */
static void check_fresh(const struct event *ev, struct fuzz_in *in)
{
	struct fresh_event fe = {ev->windowed, ev->window, event_entries_delta(ev)};
	struct fresh_context ctx = {.names = fuzz_u8(in), .window_min = 10, .bus_healthy = true, .real_now_ns = 1};
	struct fresh f, before;

	fresh_init(&f);
	f.need = fuzz_u8(in) & 1;
	if (ev->windowed)
		f.known = ev->window.pre;
	for (int i = 0; i < 3; i++) {
		bool changed = fuzz_u8(in) & 1;
		enum fresh_apply how = fresh_event(&f, &fe);

		CHECK(how == FRESH_LOOK || (ev->windowed && fe.window.pre.ctime_ns >= f.seen_ns));
		before = f;
		fresh_applied(&f, &fe, &ctx, changed);
		CHECK(f.nparked <= FRESH_PARKED_MAX);
		CHECK(f.gen == before.gen + changed);
		CHECK(f.need >= before.need);
		/* A listing that changed without a window that vouches for it is read again, or says that it is not proven. */
		CHECK(!changed || !fresh_proven(&f));
		fresh_gap(&f);
		CHECK(fresh_check(&f, f.gen, true, &f.known, INT64_MAX, 0) == FRESH_SCAN || !(f.need || f.trust));
		f.need = before.need;
	}
}

static void check_form(const uint8_t *data, size_t size)
{
	char *bytes = fuzz_copy(data, size);
	struct fuzz_in rest;
	struct event ev, moved;
	struct err e = {""};
	struct cursor c;
	struct buf b;
	size_t used;

	cursor_init(&c, bytes, size);
	if (event_decode(&ev, &c, &e) < 0) {
		CHECK(strncmp(e.text, "event: ", 7) == 0);
		CHECK(ev.nchanges == 0 && !ev.changes);
		goto out;
	}
	used = size - c.left;
	check_event(&ev);
	buf_init(&b);
	event_encode(&ev, &b);
	CHECK(buf_ok(&b) && b.len <= SOCK_MSG_MAX);
	if (bytes[0] == EVENT_VERSION)
		CHECK(b.len == used && memcmp(b.data, bytes, used) == 0);
	else
		CHECK(ev.nchanges == 1 && ev.changes[0].kind == CHANGE_LOOK && !ev.windowed);
	buf_release(&b);
	fuzz_in_init(&rest, data + used, size - used);
	event_move(&moved, &ev);
	CHECK(ev.nchanges == 0 && !ev.changes);
	check_fresh(&moved, &rest);
	event_release(&moved);
out:
	free(bytes);
}

/* ---- the plan ---- */

/* Two messages and their possible names. */
static const char *const names[NAMES] = {"1.a",     "1.a:2,",   "1.a:2,S", "1.a:2,F", "1.a:2,FS", "1.a:2,R",
					 "1.a:2,T", "1.a:2,ST", "1.a:1,",  "2.b",     "2.b:2,",   "2.b:2,S",
					 "2.b:2,F", "2.b:2,FS", "2.b:",    ":2,S"};

static struct listing_entry entry_of(const char *name, uint64_t ino, uint8_t type)
{
	return (struct listing_entry){.ino = ino, .type = type, .len = (uint8_t)strlen(name), .name = name};
}

static bool same_name(const struct listing_entry *a, const struct listing_entry *b)
{
	return a->len == b->len && memcmp(a->name, b->name, a->len) == 0;
}

static bool same_entry(const struct listing_entry *a, const struct listing_entry *b)
{
	return same_name(a, b) && a->ino == b->ino && a->type == b->type;
}

static const struct listing_entry *find(const struct listing_entry *list, size_t n, const struct listing_entry *wanted)
{
	for (size_t i = 0; i < n; i++)
		if (same_name(&list[i], wanted))
			return &list[i];
	return NULL;
}

/* Some of the names of the change's messages, with inodes of which some are the same. */
static size_t make_now(const struct change *c, struct fuzz_in *in, struct listing_entry now[NAMES])
{
	uint16_t which = (uint16_t)fuzz_number(in, 2);
	size_t n = 0;

	for (size_t i = 0; i < NAMES; i++) {
		size_t len = strlen(names[i]);

		if (!(which >> i & 1))
			continue;
		if (name_same_base(names[i], len, c->name, c->len) || name_same_base(names[i], len, c->old, c->old_len))
			now[n++] = entry_of(names[i], fuzz_u8(in) % 4, 8);
	}
	return n;
}

/* What is left after the plan has each name once. */
static size_t apply(const struct listing_entry *now, size_t nnow, const struct plan *p, struct listing_entry *after)
{
	size_t n = 0;

	for (size_t i = 0; i < nnow; i++)
		if (!find(p->remove, p->nremove, &now[i]))
			after[n++] = now[i];
	for (size_t i = 0; i < p->nput; i++) {
		CHECK(!find(after, n, &p->put[i]));
		after[n++] = p->put[i];
	}
	return n;
}

static void check_removes(const struct plan *p, const struct listing_entry *now, size_t nnow)
{
	CHECK(p->nremove <= PLAN_MAX && p->nput <= PLAN_MAX && p->nlook <= PLAN_MAX);
	for (size_t i = 0; i < p->nremove; i++) {
		const struct listing_entry *was = find(now, nnow, &p->remove[i]);

		CHECK(was && same_entry(was, &p->remove[i]));
		CHECK(!find(p->remove, i, &p->remove[i]));
	}
}

/* Applied blindly: only the change's own name comes, and it is all that stays of the message. */
static void check_blind(const struct change *c, const struct plan *p, const struct listing_entry *now, size_t nnow)
{
	struct listing_entry after[2 * NAMES], added = {c->ino, c->type, c->len, c->name};
	size_t n;

	check_removes(p, now, nnow);
	n = apply(now, nnow, p, after);
	if (c->kind == CHANGE_REMOVE)
		CHECK(n == 0 && nnow == 1 && same_name(&now[0], &added));
	else
		CHECK(n == 1 && same_entry(&after[0], &added) && c->ino != 0);
}

/* After the lookups: exactly what was found is listed. */
static void check_looked(struct plan *p, struct listing_entry *now, size_t nnow, struct fuzz_in *in)
{
	struct listing_entry found[PLAN_MAX] = {0}, after[2 * NAMES];
	uint32_t nlinks[PLAN_MAX];
	enum plan_verdict v;
	size_t n, there = 0;

	for (size_t i = 0; i < p->nlook; i++) {
		uint8_t is = fuzz_u8(in);

		nlinks[i] = 1 + (is >> 4 & 1);
		if (is & 1)
			found[i] = (struct listing_entry){is >> 1 & 3, 8, p->look[i].len, p->look[i].name};
		there += is & 1;
	}
	if (nnow && fuzz_u8(in) == 1) /* renamed meanwhile: now[] is another */
		now[0] = entry_of("1.a:2,late", 1, 8);
	v = event_plan_looked(p, now, nnow, found, nlinks);
	check_removes(p, now, nnow);
	CHECK(v == PLAN_SAME || v == PLAN_CHANGE || v == PLAN_UNCLEAR);
	if (v == PLAN_UNCLEAR)
		return;
	CHECK(v == (p->nremove || p->nput ? PLAN_CHANGE : PLAN_SAME));
	n = apply(now, nnow, p, after);
	CHECK(n == there);
	for (size_t i = 0; i < p->nlook; i++)
		CHECK(found[i].len == 0
			      ? !find(after, n, &p->look[i])
			      : find(after, n, &found[i]) && same_entry(find(after, n, &found[i]), &found[i]));
}

static void check_plan(struct fuzz_in *in)
{
	struct listing_entry now[NAMES];
	enum change_kind kind = CHANGE_ADD + fuzz_u8(in) % CHANGE_NEED;
	bool named = kind <= CHANGE_RENAME, blind = fuzz_u8(in) & 1;
	const char *name = names[fuzz_u8(in) % NAMES], *old = names[fuzz_u8(in) % NAMES];
	struct change c;
	struct plan p;
	enum plan_verdict v;
	size_t nnow;

	change_make(&c, kind, kind == CHANGE_RENAME ? old : NULL, named ? name : NULL, fuzz_u8(in) % 4,
		    fuzz_u8(in) & 1 ? 8 : 0);
	if (kind == CHANGE_RENAME && strcmp(old, name) == 0)
		return;
	nnow = make_now(&c, in, now);
	memset(&p, 0xaa, sizeof(p));
	v = event_plan(&c, blind, now, nnow, &p);
	CHECK(named || v == PLAN_UNCLEAR);
	CHECK(v != PLAN_CHANGE || blind);
	CHECK(v != PLAN_SAME || kind != CHANGE_REMOVE || nnow == 0);
	CHECK(nnow <= PLAN_MAX || v == PLAN_UNCLEAR);
	if (v == PLAN_CHANGE)
		check_blind(&c, &p, now, nnow);
	if (v != PLAN_LOOKUP)
		return;
	CHECK(p.nremove == 0 && p.nput == 0);
	for (size_t i = 0; i < nnow; i++)
		CHECK(find(p.look, p.nlook, &now[i]));
	for (size_t i = 0; i < p.nlook; i++)
		CHECK(!find(p.look, i, &p.look[i]));
	check_looked(&p, now, nnow, in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in;

	fuzz_in_init(&in, data, size);
	if (fuzz_u8(&in) & 1)
		check_plan(&in);
	else
		check_form(in.at, in.left);
	return 0;
}
