/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/relist.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* A half in which something happens all the time is listed this often before its row is left to the events. */
#define ATTEMPTS 3

struct before {
	struct store_row row; /* id 0: none */
	struct listing names;
	bool damaged;
};

/* What the index holds now. No index, or a row that can't be read, is as if there were none: it is made anew. */
static int load_before(const struct relist_tools *tools, const struct relist *job, struct before *b, struct err *e)
{
	struct store_reader *reader;
	int r;

	b->row = (struct store_row){0};
	b->damaged = false;
	listing_reset(&b->names);
	r = store_readers_get(tools->readers, &reader, e);
	indexfile_seen(tools->apply->file, r);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	store_reader_forget_pages(reader);
	r = store_reader_half(reader, job->folder, job->half, &b->row, &b->names, e);
	store_readers_put(tools->readers, reader, r < 0);
	if (r == -EUCLEAN) {
		b->damaged = true;
		listing_reset(&b->names);
		r = 0;
	}
	if (r == 0)
		b->row.id = 0;
	return r < 0 ? r : 0;
}

/* The directory could not be opened: because it is gone, or just now. */
static int not_opened(const struct relist_tools *tools, struct relist *job, int code, struct err *e)
{
	struct lower *lower = tools->batch->lower;
	const char *folder = job->folder[0] ? job->folder : ".";

	if (code != -ENOENT && code != -ENOTDIR)
		return err_set(e, code, "%s/%s: %s", folder, half_word(job->half), strerror(-code));
	if (lower_gone(lower, job->folder)) {
		job->gone = true;
		return apply_forget(tools->apply, job->folder, true, e);
	}
	if (lower_half_gone(lower, job->folder, job->half)) {
		job->gone = true;
		return apply_forget(tools->apply, job->folder, false, e);
	}
	return err_set(e, code, "%s/%s could not be opened a moment ago: %s", folder, half_word(job->half),
		       strerror(-code));
}

static int scan_once(const struct relist_tools *tools, struct relist *job, const struct before *b, struct scan *scan,
		     struct err *e)
{
	struct tally *tally = tools->batch->tally;
	bool have = b->row.id != 0 && !b->damaged;
	struct scan_from from = {.before = have ? &b->names : NULL,
				 .drop_cache = have && fresh_scan_drops_cache(&b->row.fresh),
				 .known = have ? &b->row.fresh.known : NULL,
				 .known_mono_ns = store_row_known_ns(&b->row)};
	struct cred owner;
	int fd, r;

	fd = lower_open_half(tools->batch->lower, job->folder, job->half, &owner);
	if (fd < 0) {
		r = not_opened(tools, job, fd, e);
		return r < 0 ? r : 1;
	}
	/* Without the right to switch, the attempt is made as we are. */
	cred_become(&owner);
	r = scan_half(fd, &from, scan);
	cred_restore();
	close(fd);
	if (r < 0)
		return err_set(e, r, "%s/%s: %s", job->folder[0] ? job->folder : ".", half_word(job->half),
			       strerror(-r));
	tally_add(tally, TALLY_LOWER_LISTINGS, scan->listings);
	tally_add(tally, TALLY_LOWER_LOOKUPS, scan->lookups);
	tally_add(tally, TALLY_LOWER_GETATTRS, 2 * scan->listings);
	return 0;
}

/* Returns 0 when done, 1 to list once more, or negative errno. */
static int attempt(const struct relist_tools *tools, struct relist *job, bool last, struct before *b, struct err *e)
{
	struct takeover t = {.folder = job->folder, .half = job->half, .disturbed = job->disturbed, .last = last};
	struct scan scan;
	int r;

	atomic_store(job->disturbed, false);
	r = load_before(tools, job, b, e);
	if (r < 0)
		return r;
	r = scan_once(tools, job, b, &scan, e);
	if (r != 0)
		return r < 0 ? r : 0; /* 1: gone */
	t.scan = &scan;
	t.id = b->row.id;
	t.gen = b->row.fresh.gen;
	t.need = b->row.fresh.need;
	t.damaged = b->damaged;
	t.create = job->create || b->damaged;
	r = apply_takeover(tools->apply, &t, e);
	job->messages = scan.listing.count;
	scan_release(&scan);
	if (r < 0)
		return r;
	job->busy = t.verdict == TAKEOVER_AGAIN;
	return job->busy && !last;
}

int relist_half(const struct relist_tools *tools, struct relist *job, struct err *e)
{
	struct before b;
	int r = 1;

	if (!lower_ok(tools->batch->lower)) {
		char why[ERR_TEXT_MAX];

		lower_state(tools->batch->lower, why);
		return err_set(e, -ESTALE, "%s", why);
	}
	job->gone = job->busy = false;
	job->messages = 0;
	listing_init(&b.names);
	for (int i = 1; i <= ATTEMPTS && r > 0; i++)
		r = attempt(tools, job, i == ATTEMPTS, &b, e);
	listing_release(&b.names);
	return r;
}
