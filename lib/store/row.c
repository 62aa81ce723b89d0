/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/store/row.h"

#include <endian.h>
#include <string.h>

#include "lib/base/clock.h"

/* A listing that took longer is no harm: the server's clock may then be doubted without need, for that long. */
#define SCAN_NS_MAX (2 * NS_PER_S)
/* Whatever a damaged row says: sums with times of stamps don't overflow. */
#define LONG_AGO_NS (STAMP_NS_MAX / 2)

/* Columns of ROW_COLUMNS in sql.c; parameters are numbered one higher. */
enum {
	COL_ID,
	COL_FOLDER,
	COL_HALF,
	COL_KNOWN_DEV,
	COL_KNOWN_INO,
	COL_KNOWN_CTIME,
	COL_KNOWN_MTIME,
	COL_KNOWN_SIZE,
	COL_KNOWN_SIZED,
	COL_SEEN,
	COL_NEED,
	COL_UNSETTLED,
	COL_TRUST,
	COL_TRUST_SINCE,
	COL_GEN,
	COL_COUNT,
	COL_SUM,
	COL_SCANNED,
	COL_PARKED,
};

static void stamp_to_words(const struct stamp *s, uint64_t *words)
{
	const uint64_t host[ROW_STAMP_WORDS] = {s->dev,  s->ino,  (uint64_t)s->ctime_ns, (uint64_t)s->mtime_ns,
						s->size, s->sized};

	for (size_t i = 0; i < ROW_STAMP_WORDS; i++)
		words[i] = htole64(host[i]);
}

static void stamp_from_words(struct stamp *s, const uint64_t *words)
{
	s->dev = le64toh(words[0]);
	s->ino = le64toh(words[1]);
	s->ctime_ns = (int64_t)le64toh(words[2]);
	s->mtime_ns = (int64_t)le64toh(words[3]);
	s->size = le64toh(words[4]);
	s->sized = words[5] != 0;
}

static void bind_u64(sqlite3_stmt *s, int column, uint64_t v)
{
	sqlite3_bind_int64(s, column + 1, (int64_t)v);
}

static void bind_i64(sqlite3_stmt *s, int column, int64_t v)
{
	sqlite3_bind_int64(s, column + 1, v);
}

static void bind_parked(sqlite3_stmt *s, const struct fresh *f, struct row_parked *parked)
{
	if (!f->nparked) {
		sqlite3_bind_null(s, COL_PARKED + 1);
		return;
	}
	for (unsigned i = 0; i < f->nparked; i++) {
		stamp_to_words(&f->parked[i].pre, parked->words[i][0]);
		stamp_to_words(&f->parked[i].post, parked->words[i][1]);
	}
	db_bind_bytes(s, COL_PARKED + 1, (const char *)parked->words, f->nparked * sizeof(parked->words[0]));
}

void row_bind(sqlite3_stmt *s, const struct store_row *row, struct row_parked *parked)
{
	const struct fresh *f = &row->fresh;

	if (row->id)
		bind_i64(s, COL_ID, row->id);
	else
		sqlite3_bind_null(s, COL_ID + 1);
	db_bind_bytes(s, COL_FOLDER + 1, row->folder, strlen(row->folder));
	bind_i64(s, COL_HALF, row->half);
	bind_u64(s, COL_KNOWN_DEV, f->known.dev);
	bind_u64(s, COL_KNOWN_INO, f->known.ino);
	bind_i64(s, COL_KNOWN_CTIME, f->known.ctime_ns);
	bind_i64(s, COL_KNOWN_MTIME, f->known.mtime_ns);
	bind_u64(s, COL_KNOWN_SIZE, f->known.size);
	bind_i64(s, COL_KNOWN_SIZED, f->known.sized);
	bind_i64(s, COL_SEEN, f->seen_ns);
	bind_i64(s, COL_NEED, f->need);
	bind_i64(s, COL_UNSETTLED, f->unsettled);
	bind_i64(s, COL_TRUST, f->trust);
	bind_i64(s, COL_TRUST_SINCE, f->trust_since_ns);
	bind_u64(s, COL_GEN, f->gen);
	bind_u64(s, COL_COUNT, row->count);
	bind_u64(s, COL_SUM, row->sum);
	bind_i64(s, COL_SCANNED, row->scanned_ns);
	bind_parked(s, f, parked);
}

/* Only what a stamp can be: with anything else in a damaged row, later arithmetic could not bear it. */
static bool time_ok(int64_t ns)
{
	return ns >= -STAMP_NS_MAX && ns <= STAMP_NS_MAX;
}

static bool stamp_ok(const struct stamp *s)
{
	return time_ok(s->ctime_ns) && time_ok(s->mtime_ns);
}

static bool read_folder(sqlite3_stmt *s, struct store_row *row)
{
	const char *folder = sqlite3_column_blob(s, COL_FOLDER);
	size_t len = (size_t)sqlite3_column_bytes(s, COL_FOLDER);

	if (len > FOLDER_PATH_MAX || (len && memchr(folder, '\0', len)))
		return false;
	if (len)
		memcpy(row->folder, folder, len);
	row->folder[len] = '\0';
	return folder_path_check(row->folder, len, NULL) == 0;
}

static bool read_parked(sqlite3_stmt *s, struct fresh *f)
{
	struct row_parked parked;
	const void *bytes = sqlite3_column_blob(s, COL_PARKED);
	size_t len = (size_t)sqlite3_column_bytes(s, COL_PARKED);

	if (len > sizeof(parked.words) || len % sizeof(parked.words[0]))
		return false;
	if (len)
		memcpy(parked.words, bytes, len);
	f->nparked = (unsigned)(len / sizeof(parked.words[0]));
	memset(f->parked, 0, sizeof(f->parked));
	for (unsigned i = 0; i < f->nparked; i++) {
		stamp_from_words(&f->parked[i].pre, parked.words[i][0]);
		stamp_from_words(&f->parked[i].post, parked.words[i][1]);
		if (!stamp_ok(&f->parked[i].pre) || !stamp_ok(&f->parked[i].post))
			return false;
	}
	return true;
}

int row_read(const struct db *db, sqlite3_stmt *s, struct store_row *row, struct err *e)
{
	struct fresh *f = &row->fresh;
	int64_t half = sqlite3_column_int64(s, COL_HALF);

	row->id = sqlite3_column_int64(s, COL_ID);
	f->known.dev = (uint64_t)sqlite3_column_int64(s, COL_KNOWN_DEV);
	f->known.ino = (uint64_t)sqlite3_column_int64(s, COL_KNOWN_INO);
	f->known.ctime_ns = sqlite3_column_int64(s, COL_KNOWN_CTIME);
	f->known.mtime_ns = sqlite3_column_int64(s, COL_KNOWN_MTIME);
	f->known.size = (uint64_t)sqlite3_column_int64(s, COL_KNOWN_SIZE);
	f->known.sized = sqlite3_column_int64(s, COL_KNOWN_SIZED) != 0;
	f->seen_ns = sqlite3_column_int64(s, COL_SEEN);
	f->need = sqlite3_column_int64(s, COL_NEED) != 0;
	f->unsettled = sqlite3_column_int64(s, COL_UNSETTLED) != 0;
	f->trust = sqlite3_column_int64(s, COL_TRUST) != 0;
	f->trust_since_ns = sqlite3_column_int64(s, COL_TRUST_SINCE);
	f->gen = (uint64_t)sqlite3_column_int64(s, COL_GEN);
	row->count = (uint64_t)sqlite3_column_int64(s, COL_COUNT);
	row->sum = (uint64_t)sqlite3_column_int64(s, COL_SUM);
	row->scanned_ns = sqlite3_column_int64(s, COL_SCANNED);
	if (row->id <= 0 || half < 0 || half >= HALVES || !read_folder(s, row) || !read_parked(s, f) ||
	    !stamp_ok(&f->known) || !time_ok(f->trust_since_ns) || !time_ok(row->scanned_ns))
		return db_damaged(db, e, "the row of half %lld makes no sense", (long long)row->id);
	row->half = (enum half)half;
	return 0;
}

int64_t store_row_known_ns(const struct store_row *row)
{
	int64_t known_ns = clock_mono_of_real(row->scanned_ns) - SCAN_NS_MAX;

	return known_ns < -LONG_AGO_NS ? -LONG_AGO_NS : known_ns;
}

int row_read_of(const struct db *db, sqlite3_stmt *s, const char *folder, enum half half, struct store_row *row,
		struct err *e)
{
	int rc = row_read(db, s, row, e);

	if (!rc && (row->half != half || strcmp(row->folder, folder) != 0))
		rc = db_damaged(db, e, "%s/%s was searched for, and the row of %s/%s was found", folder,
				half_word(half), row->folder, half_word(row->half));
	return rc;
}

void row_below(struct row_below *b, const char *folder, size_t len)
{
	if (!len) {
		/* Longer than any path, and of the greatest bytes: nothing sorts behind it. */
		b->lower_len = 0;
		b->upper_len = sizeof(b->upper);
		memset(b->upper, 0xff, sizeof(b->upper));
		return;
	}
	memcpy(b->lower, folder, len);
	memcpy(b->upper, folder, len);
	b->lower[len] = '/';
	b->upper[len] = '/' + 1;
	b->lower_len = b->upper_len = len + 1;
}
