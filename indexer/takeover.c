/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/takeover.h"

#include <inttypes.h>
#include <stdatomic.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

static bool never_scanned(const struct store_row *row)
{
	return row->scanned_ns == 0 && row->fresh.known.ino == 0;
}

static void count_damage(struct batch *b, const char *folder, enum half half)
{
	batch_count(b, TALLY_REPAIRED_DAMAGED, 1);
	log_warn("%s/%s: its names in the index were damaged; they are stored anew", folder[0] ? folder : ".",
		 half_word(half));
}

static int replace(struct batch *b, struct store_row *row, const struct listing *l, const struct fresh_pass *pass,
		   bool unclear, bool need_meanwhile, uint64_t *changed, struct err *e)
{
	int r = store_writer_replace(b->writer, row, l, changed, e);

	if (r < 0)
		return r;
	if (store_writer_healed(b->writer))
		count_damage(b, row->folder, row->half);
	fresh_scanned(&row->fresh, pass, unclear, need_meanwhile);
	if (*changed)
		row->fresh.gen++;
	row->scanned_ns = clock_real_ns();
	return 0;
}

int takeover_handed(struct batch *b, struct store_row *row, const struct wire_scan *scan, struct err *e)
{
	uint64_t changed;

	if (!never_scanned(row) && !fresh_accepts_scan(&row->fresh, &scan->pass.s0)) {
		batch_count(b, TALLY_SCANS_TOO_OLD, 1);
		batch_rescan(b, row->folder, row->half);
		return 0;
	}
	batch_count(b, TALLY_SCANS_HANDED_OVER, 1);
	return replace(b, row, &scan->listing, &scan->pass, scan->unclear, false, &changed, e);
}

/* Did the row claim to be exactly what is on disk at that stamp? */
static bool claimed_right(const struct store_row *row, const struct takeover *t)
{
	const struct fresh *f = &row->fresh;
	const struct fresh_pass *p = &t->scan->last;

	return t->id != 0 && !f->need && !f->unsettled && f->nparked == 0 && stamp_eq(&f->known, &p->s0) &&
	       stamp_eq(&p->s0, &p->s1);
}

static void count_repair(struct batch *b, const struct takeover *t, bool trust)
{
	const char *folder = t->folder[0] ? t->folder : ".";

	if (trust) {
		batch_count(b, TALLY_REPAIRED_TRUST, 1);
		log_info("%s/%s: %" PRIu64 " names repaired that stood on trust", folder, half_word(t->half),
			 t->changed);
		return;
	}
	batch_count(b, TALLY_REPAIRED_OTHER, 1);
	log_error("%s/%s: the index differed from the disk at the same stamp, %" PRIu64
		  " names repaired; this must not happen: please report it",
		  folder, half_word(t->half), t->changed);
}

int takeover_own(struct batch *b, struct takeover *t, struct err *e)
{
	const struct fresh_pass *pass = &t->scan->last;
	struct store_row row;
	bool same, claimed, trust, meanwhile;
	int r;

	t->verdict = TAKEOVER_GONE;
	r = store_writer_row(b->writer, t->folder, t->half, t->create, &row, e);
	if (r <= 0)
		return r;
	same = row.id == t->id && row.fresh.gen == t->gen;
	meanwhile = row.fresh.need && t->id == row.id && (!t->need || atomic_load(t->disturbed));
	t->verdict = TAKEOVER_AGAIN;
	if (!same && !t->damaged && !never_scanned(&row) && !fresh_accepts_scan(&row.fresh, &pass->s0))
		return 0;
	if (meanwhile && !t->last)
		return 0;
	claimed = same && claimed_right(&row, t);
	trust = row.fresh.trust;
	r = replace(b, &row, &t->scan->listing, pass, t->scan->unclear, meanwhile, &t->changed, e);
	if (r == 0)
		r = store_writer_save(b->writer, &row, e);
	if (r < 0)
		return r;
	t->verdict = TAKEOVER_DONE;
	if (claimed && t->changed && !t->damaged && !store_writer_healed(b->writer))
		count_repair(b, t, trust);
	if (t->changed)
		batch_feed_need(b, t->folder, t->half, 0);
	return 0;
}
