/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/edit.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "indexer/takeover.h"
#include "lib/base/clock.h"
#include "lib/mail/scan.h"

#define NAMES_MAX (2 * PLAN_MAX)

enum { DIR_UNTRIED = -1, DIR_FAILED = -2 };

struct edit {
	struct batch *batch;
	struct store_row row;
	bool held;  /* the row is in the index */
	bool dirty; /* ... and no longer as it stands there */
	int dirfd;  /* or DIR_* */
	struct cred owner;
	struct stamp stamp;
};

/* What one event did. */
struct outcome {
	bool changed;
	bool need;
	bool looked_up;
};

/* Opens the directory, once a batch, and asks the server for its state. Returns false if that can't be done now. */
static bool edit_dir(struct edit *ed)
{
	struct lower *lower = ed->batch->tools->lower;
	int fd;

	if (ed->dirfd != DIR_UNTRIED)
		return ed->dirfd >= 0;
	ed->dirfd = DIR_FAILED;
	if (!lower_ok(lower))
		return false;
	fd = lower_open_half(lower, ed->row.folder, ed->row.half, &ed->owner);
	if (fd == -ENOENT) /* the folder went: whoever lists it makes sure, and drops it */
		batch_rescan(ed->batch, ed->row.folder, ed->row.half);
	if (fd < 0)
		return false;
	batch_count(ed->batch, TALLY_LOWER_GETATTRS, 1);
	if (stamp_read(fd, &ed->stamp, NULL) < 0) {
		close(fd);
		return false;
	}
	ed->dirfd = fd;
	return true;
}

/* What is on disk of the names in doubt. Returns false if it can't be told. */
static bool look_up(struct edit *ed, const struct plan *plan, struct listing_entry *found, uint32_t *nlinks)
{
	int r = 0;

	if (!edit_dir(ed))
		return false;
	/* Without the right to switch, the attempt is made as we are. */
	cred_become(&ed->owner);
	for (size_t i = 0; i < plan->nlook && r == 0; i++)
		r = scan_lookup(ed->dirfd, plan->look[i].name, plan->look[i].len, &found[i], &nlinks[i]);
	cred_restore();
	batch_count(ed->batch, TALLY_LOWER_LOOKUPS, plan->nlook);
	return r == 0;
}

/* An event from somebody who doesn't know the inode is sent on with what was found. */
static void complete(struct change *c, const struct plan *plan, const struct listing_entry *found)
{
	for (size_t i = 0; i < plan->nlook; i++) {
		if (found[i].len == c->len && memcmp(plan->look[i].name, c->name, c->len) == 0) {
			c->ino = found[i].ino;
			c->type = found[i].type;
		}
	}
}

static int gather(struct edit *ed, const char *name, size_t len, struct listing *l, struct listing_entry *now,
		  size_t *n, struct err *e)
{
	struct listing_entry entry;
	size_t at = 0;
	int r = store_writer_names(ed->batch->writer, &ed->row, name, len, l, e);

	if (r < 0)
		return r;
	while (listing_next(l, &at, &entry)) {
		if (*n < NAMES_MAX)
			now[*n] = entry;
		(*n)++;
	}
	return 0;
}

static int carry_out(struct edit *ed, const struct plan *plan, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < plan->nremove && r == 0; i++)
		r = store_writer_remove(ed->batch->writer, &ed->row, plan->remove[i].name, plan->remove[i].len, e);
	for (size_t i = 0; i < plan->nput && r == 0; i++)
		r = store_writer_put(ed->batch->writer, &ed->row, &plan->put[i], e);
	return r;
}

/* ADD, REMOVE, RENAME. */
static int edit_names(struct edit *ed, struct change *c, bool blind, struct outcome *out, struct err *e)
{
	struct listing names, old_names;
	struct listing_entry now[NAMES_MAX], found[PLAN_MAX] = {{0}};
	uint32_t nlinks[PLAN_MAX] = {0};
	struct plan plan = {0};
	enum plan_verdict verdict;
	size_t n = 0;
	int r;

	listing_init(&names);
	listing_init(&old_names);
	r = gather(ed, c->name, c->len, &names, now, &n, e);
	if (r == 0 && c->old_len > 0 && !name_same_base(c->name, c->len, c->old, c->old_len))
		r = gather(ed, c->old, c->old_len, &old_names, now, &n, e);
	if (r < 0)
		goto out;
	verdict = n > NAMES_MAX ? PLAN_UNCLEAR : event_plan(c, blind, now, n, &plan);
	if (verdict == PLAN_LOOKUP) {
		out->looked_up = true;
		verdict = PLAN_UNCLEAR;
		if (look_up(ed, &plan, found, nlinks)) {
			complete(c, &plan, found);
			verdict = event_plan_looked(&plan, now, n, found, nlinks);
		}
	}
	if (verdict == PLAN_CHANGE) {
		r = carry_out(ed, &plan, e);
		out->changed = true;
	}
	out->need |= verdict == PLAN_UNCLEAR;
out:
	listing_release(&names);
	listing_release(&old_names);
	return r;
}

/* LOOK: something happened here, perhaps. */
static void edit_look(struct edit *ed, struct outcome *out)
{
	if (ed->row.fresh.need)
		return;
	out->looked_up = true;
	out->need |= !edit_dir(ed) || !stamp_eq(&ed->stamp, &ed->row.fresh.known);
}

static int edit_event(struct edit *ed, struct event *ev, struct err *e)
{
	const struct conf *conf = ed->batch->tools->conf;
	struct fresh_event fe = {
		.windowed = ev->windowed, .window = ev->window, .entries_delta = event_entries_delta(ev)};
	struct fresh_context ctx = {.names = ed->row.count,
				    .window_min = conf->window_min,
				    .bus_healthy = true, /* there is none */
				    .real_now_ns = clock_real_ns()};
	bool blind = fresh_event(&ed->row.fresh, &fe) == FRESH_APPLY;
	struct outcome out = {false};
	int r = 0;

	for (size_t i = 0; i < ev->nchanges && r == 0; i++) {
		struct change *c = &ev->changes[i];

		if (c->kind == CHANGE_NEED)
			out.need = true;
		else if (c->kind == CHANGE_LOOK)
			edit_look(ed, &out);
		else
			r = edit_names(ed, c, blind, &out, e);
	}
	if (r < 0)
		return r;
	fresh_applied(&ed->row.fresh, &fe, &ctx, out.changed);
	if (out.need)
		fresh_need(&ed->row.fresh);
	ed->dirty = true;
	batch_count(ed->batch, TALLY_EVENTS_APPLIED, 1);
	batch_count(ed->batch, TALLY_EVENTS_LOOKED_UP, out.looked_up);
	return 0;
}

static bool has_scan(const struct queue_half *h)
{
	for (const struct queue_item *it = h->items; it; it = it->next) {
		if (it->scan)
			return true;
	}
	return false;
}

static int edit_items(struct edit *ed, struct queue_half *h, struct err *e)
{
	int r = 0;

	for (struct queue_item *it = h->items; it && r == 0; it = it->next) {
		if (it->scan) {
			r = takeover_handed(ed->batch, &ed->row, it->scan, e);
			ed->dirty = true;
			continue;
		}
		if (ed->held)
			r = edit_event(ed, &it->event, e);
		else
			batch_count(ed->batch, TALLY_EVENTS_IGNORED, 1);
		/* Also where the index holds nothing: maildexfs may. */
		batch_feed(ed->batch, &it->event, it->peer);
	}
	return r;
}

int edit_half(struct batch *b, struct queue_half *h, struct err *e)
{
	struct edit ed = {.batch = b, .dirfd = DIR_UNTRIED};
	bool was_trust;
	int r;

	r = store_writer_row(b->writer, h->folder, h->half, has_scan(h), &ed.row, e);
	if (r < 0)
		return r;
	ed.held = r > 0;
	was_trust = ed.held && ed.row.fresh.trust;
	r = edit_items(&ed, h, e);
	if (r < 0)
		goto out;
	if (h->need) {
		if (ed.held)
			fresh_need(&ed.row.fresh);
		ed.dirty = true;
		batch_feed_need(b, h->folder, h->half, 0);
	}
	if (ed.held && ed.dirty)
		r = store_writer_save(b->writer, &ed.row, e);
	if (r == 0 && ed.held && ed.row.fresh.trust && !was_trust)
		batch_trusted(b, &ed.row);
out:
	if (ed.dirfd >= 0)
		close(ed.dirfd);
	return r;
}
