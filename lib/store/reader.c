/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guarded against: a row and names of two moments (one read transaction for both); names that a failing disk or memory
 * changed (count and sum); a file that was deleted or replaced (store_reader_current(), and the pool asks it each
 * time).
 *
 * Readers never make the file, but SQLite makes its -shm and -wal beside it when a reader comes first. A reader that
 * runs as root gives them to the owner of the file, so that maildexd can write to them afterwards.
 */
#include "lib/store/reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/store/names.h"
#include "lib/store/row.h"
#include "lib/store/schema.h"

/* Readers meet a lock only while the log is recovered after a crash. Whoever waits here has the real folder to list. */
#define READER_BUSY_MS 1000

#define OPEN_MAX 3

struct store_reader {
	struct db db;
};

static int check_there(const char *path, struct err *e)
{
	struct stat st;

	if (stat(path, &st) < 0) {
		if (errno == ENOENT)
			return err_set(e, -ENOENT, "there is no index %s yet: start maildexd", path);
		return err_sys(e, "index %s", path);
	}
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "index %s is no file: name another one as `index`", path);
	return 0;
}

/* Returns 1 if what it opened may already be another one's log, 0 or negative errno. */
static int open_once(struct store_reader **r, const char *path, const char *tree, struct err *e)
{
	struct store_reader *opened;
	int rc = check_there(path, e);

	if (rc)
		return rc;
	opened = calloc(1, sizeof(*opened));
	if (!opened)
		return err_set(e, -ENOMEM, "index %s: out of memory", path);
	rc = db_open(&opened->db, path, SQLITE_OPEN_READONLY, READER_BUSY_MS, e);
	if (rc) {
		free(opened);
		return rc;
	}
	rc = schema_check(&opened->db, &schema_current, e);
	if (!rc)
		rc = schema_tree(&opened->db, tree, false, e);
	if (rc) {
		store_reader_close(opened);
		return rc;
	}
	*r = opened;
	return db_log_stayed(&opened->db) && db_agrees(&opened->db) ? 0 : 1;
}

/* Once more where SQLite had to make the log: it stays, and the next one finds it. */
int store_reader_open(struct store_reader **r, const char *path, const char *tree, struct err *e)
{
	int rc;

	if (!db_opening_begins(READER_BUSY_MS))
		return err_set(e, -EAGAIN, "index %s is being opened by others; try again", path);
	rc = open_once(r, path, tree, e);
	for (int i = 1; i < OPEN_MAX && rc > 0; i++) {
		store_reader_close(*r);
		*r = NULL;
		rc = open_once(r, path, tree, e);
	}
	if (rc > 0) {
		store_reader_close(*r);
		rc = err_set(e, -EAGAIN, "the log of index %s was replaced while it was being opened; try again", path);
	}
	db_opening_ends();
	return rc;
}

void store_reader_close(struct store_reader *r)
{
	if (!r)
		return;
	db_close(&r->db);
	free(r);
}

bool store_reader_current(const struct store_reader *r)
{
	return db_current(&r->db);
}

void store_reader_forget_pages(struct store_reader *r)
{
	db_forget_pages(&r->db);
}

static int load_checked(struct store_reader *r, const struct store_row *row, struct listing *l, struct err *e)
{
	int rc = names_load(&r->db, row->id, row->count, l, e);

	if (!rc && (l->count != row->count || l->sum != row->sum))
		rc = db_damaged(&r->db, e, "the names of %s/%s are not those that were stored", row->folder,
				half_word(row->half));
	if (rc)
		listing_reset(l);
	return rc;
}

int store_reader_half(struct store_reader *r, const char *folder, enum half half, struct store_row *row,
		      struct listing *l, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(&r->db, SQL_ROW_FIND, &s, e);

	if (rc)
		return rc;
	db_bind_bytes(s, 1, folder, strlen(folder));
	sqlite3_bind_int(s, 2, half);
	rc = db_step(&r->db, s, e);
	if (rc <= 0)
		return rc;
	rc = row_read_of(&r->db, s, folder, half, row, e);
	/* A read transaction lasts until the last running statement was reset: the names are of the row's moment. */
	if (!rc && l)
		rc = load_checked(r, row, l, e);
	sqlite3_reset(s);
	return rc ? rc : 1;
}

/* In the order of a walk: by the folder's bytes, then by half. */
static bool is_behind(const struct store_row *row, const char *folder, size_t len, int half)
{
	size_t row_len = strlen(row->folder);
	int order = memcmp(row->folder, folder, row_len < len ? row_len : len);

	if (!order)
		order = (row_len > len) - (row_len < len);
	return order > 0 || (!order && (int)row->half > half);
}

/*
 * One row behind (folder, half), of that folder or below. Returns 1, 0 or negative errno. In a damaged file searches may
 * find what they did not look for, and a walk would go round for ever.
 */
static int next_row(struct store_reader *r, enum sql text, const char *folder, size_t len, int half,
		    const struct row_below *below, struct store_row *row, struct err *e)
{
	char from[FOLDER_PATH_MAX + 1]; /* `folder` may be the row's */
	sqlite3_stmt *s;
	int rc = db_stmt(&r->db, text, &s, e);

	if (rc)
		return rc;
	memcpy(from, folder, len);
	db_bind_bytes(s, 1, from, len);
	sqlite3_bind_int(s, 2, half);
	if (below)
		db_bind_bytes(s, 3, below->upper, below->upper_len);
	rc = db_step(&r->db, s, e);
	if (rc > 0) {
		rc = row_read(&r->db, s, row, e);
		sqlite3_reset(s);
		if (!rc && !is_behind(row, from, len, half))
			rc = db_damaged(&r->db, e, "the rows are out of order behind %.*s", (int)len, from);
		rc = rc ? rc : 1;
	}
	return rc;
}

int store_reader_next(struct store_reader *r, const char *below, struct store_row *after, struct err *e)
{
	struct row_below range;
	size_t len = strlen(below);
	int rc;

	if (len > FOLDER_PATH_MAX)
		return 0;
	row_below(&range, below, len);
	/* The folder itself first: between it and what is below it, other folders sort ('a', 'a.b', 'a/c'). */
	if (len && (!after->id || strcmp(after->folder, below) == 0)) {
		rc = next_row(r, SQL_ROW_HERE, below, len, after->id ? (int)after->half : -1, NULL, after, e);
		if (rc)
			return rc;
		after->id = 0;
	}
	if (!after->id)
		return next_row(r, SQL_ROW_BELOW, range.lower, range.lower_len, -1, &range, after, e);
	return next_row(r, SQL_ROW_BELOW, after->folder, strlen(after->folder), (int)after->half, &range, after, e);
}

static uint64_t file_bytes(const char *path, const char *suffix)
{
	char name[4096];
	struct stat st;

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	return stat(name, &st) == 0 ? (uint64_t)st.st_size : 0;
}

int store_reader_totals(struct store_reader *r, struct store_totals *t, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(&r->db, SQL_ROWS_TOTALS, &s, e);

	if (!rc)
		rc = db_step(&r->db, s, e);
	if (rc < 0)
		return rc;
	t->halves = (uint64_t)sqlite3_column_int64(s, 0);
	t->messages = (uint64_t)sqlite3_column_int64(s, 1);
	t->need = (uint64_t)sqlite3_column_int64(s, 2);
	t->trust = (uint64_t)sqlite3_column_int64(s, 3);
	t->unsettled = (uint64_t)sqlite3_column_int64(s, 4);
	t->file_bytes = file_bytes(r->db.path, "") + file_bytes(r->db.path, "-wal");
	sqlite3_reset(s);
	return 0;
}
