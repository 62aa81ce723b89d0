/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A half's names are made those of a listing: both sides in the order of names, walked side by side, and only the
 * differences written. In that order new names also go to the pages they belong to one after the other: 100,000 inserts
 * of unordered names would touch each page many times and leave them half empty.
 *
 * Guarded against: a bit that flipped in a stored name. Then the table is out of order at that place, and searches and
 * deletes by name miss it. A walk that meets names out of order or other ones than the row's count and sum stand for,
 * or a delete that finds nothing, throws the half's names away, writes them all and reads them again: a scan must heal
 * the row, whatever is in it, or say that the index cannot be healed.
 */
#include "lib/store/names.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct difference {
	struct listing_entry *put; /* sorted; first all that are wanted, after the walk those to put */
	size_t nput;
	struct listing gone; /* names to remove */
	bool damaged;
};

static int compare(const char *a, size_t alen, const char *b, size_t blen)
{
	int order = memcmp(a, b, alen < blen ? alen : blen);

	return order ? order : (alen > blen) - (alen < blen);
}

static int compare_entries(const void *a, const void *b)
{
	const struct listing_entry *x = a, *y = b;

	return compare(x->name, x->len, y->name, y->len);
}

/* The wanted entries in order, each name once, with their count and sum. */
static void want(struct difference *d, const struct listing *l, uint64_t *count, uint64_t *sum)
{
	size_t at = 0, n = 0;

	while (n < l->count && listing_next(l, &at, &d->put[n]))
		n++;
	qsort(d->put, n, sizeof(*d->put), compare_entries);
	d->nput = 0;
	*sum = 0;
	for (size_t i = 0; i < n; i++) {
		/* Some servers hand a name out twice when a listing races with changes. */
		if (d->nput && !compare_entries(&d->put[d->nput - 1], &d->put[i]))
			continue;
		*sum += listing_entry_hash(&d->put[i]);
		d->put[d->nput++] = d->put[i];
	}
	*count = d->nput;
}

/* Walks what is stored, which should be what the row says. Compacts d->put in place: what is kept never overtakes what is read. */
static int walk(struct db *db, const struct store_row *row, struct difference *d, struct err *e)
{
	struct listing_entry stored;
	uint64_t count = 0, sum = 0;
	size_t at = 0, n = d->nput;
	char last[NAME_LEN_MAX];
	size_t last_len = 0;
	sqlite3_stmt *s;
	int rc = db_stmt(db, SQL_NAMES_ALL, &s, e);

	if (rc)
		return rc;
	d->nput = 0;
	sqlite3_bind_int64(s, 1, row->id);
	while ((rc = db_step(db, s, e)) > 0) {
		int order = -1;

		if (names_entry(db, s, &stored, NULL) < 0 || compare(last, last_len, stored.name, stored.len) >= 0) {
			d->damaged = true;
			break;
		}
		count++;
		sum += listing_entry_hash(&stored);
		last_len = stored.len;
		memcpy(last, stored.name, last_len);
		for (; at < n; d->put[d->nput++] = d->put[at++]) {
			order = compare(stored.name, stored.len, d->put[at].name, d->put[at].len);
			if (order <= 0)
				break;
		}
		if (at == n || order < 0) {
			if (listing_add(&d->gone, &stored) < 0)
				break;
		} else if (stored.ino == d->put[at].ino && stored.type == d->put[at].type) {
			at++;
		} else {
			d->put[d->nput++] = d->put[at++];
		}
	}
	if (rc > 0) {
		sqlite3_reset(s);
		return d->damaged ? 0 : err_set(e, -ENOMEM, "index %s: out of memory", db->path);
	}
	while (at < n)
		d->put[d->nput++] = d->put[at++];
	d->damaged = !rc && (count != row->count || sum != row->sum);
	return rc;
}

static int remove_gone(struct db *db, int64_t id, struct difference *d, struct err *e)
{
	struct store_row counted = {.id = id};
	struct listing_entry entry;
	size_t at = 0;
	int rc = 0;

	while (!rc && listing_next(&d->gone, &at, &entry))
		rc = names_remove(db, &counted, entry.name, entry.len, e);
	/* Counted downwards from 0: each of them must have been found. */
	if (!rc && counted.count + d->gone.count != 0)
		d->damaged = true;
	return rc;
}

static int put_all(struct db *db, int64_t id, const struct difference *d, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(db, SQL_NAME_PUT, &s, e);

	if (rc)
		return rc;
	sqlite3_bind_int64(s, 1, id);
	for (size_t i = 0; !rc && i < d->nput; i++) {
		db_bind_bytes(s, 2, d->put[i].name, d->put[i].len);
		sqlite3_bind_int64(s, 3, (int64_t)d->put[i].ino);
		sqlite3_bind_int(s, 4, d->put[i].type ^ DT_REG);
		rc = db_run(db, s, e);
	}
	return rc;
}

static int wipe(struct db *db, int64_t id, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(db, SQL_NAMES_WIPE, &s, e);

	if (rc)
		return rc;
	sqlite3_bind_int64(s, 1, id);
	return db_run(db, s, e);
}

/* Where a search goes astray, what was written may not be found, or what was to go still be. */
static int check_healed(struct db *db, const struct store_row *row, uint64_t count, uint64_t sum, struct err *e)
{
	struct listing l;
	int rc;

	listing_init(&l);
	rc = names_load(db, row->id, count, &l, e);
	if (!rc && (l.count != count || l.sum != sum))
		rc = db_damaged(db, e, "the names of %s/%s cannot be stored again", row->folder, half_word(row->half));
	listing_release(&l);
	return rc;
}

int names_replace(struct db *db, struct store_row *row, const struct listing *l, uint64_t *changed, bool *damaged,
		  struct err *e)
{
	struct difference d = {.put = calloc(l->count + 1, sizeof(*d.put))};
	uint64_t count, sum;
	int rc;

	listing_init(&d.gone);
	if (!d.put) {
		rc = err_set(e, -ENOMEM, "index %s: out of memory", db->path);
		goto out;
	}
	want(&d, l, &count, &sum);
	rc = walk(db, row, &d, e);
	if (!rc && !d.damaged)
		rc = remove_gone(db, row->id, &d, e);
	if (!rc && d.damaged) {
		listing_reset(&d.gone);
		want(&d, l, &count, &sum);
		rc = wipe(db, row->id, e);
	}
	if (!rc)
		rc = put_all(db, row->id, &d, e);
	if (!rc && d.damaged)
		rc = check_healed(db, row, count, sum, e);
	if (rc)
		goto out;
	*damaged = d.damaged;
	*changed = d.gone.count + d.nput;
	row->count = count;
	row->sum = sum;
out:
	listing_release(&d.gone);
	free(d.put);
	return rc;
}
