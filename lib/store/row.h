/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A half's row between struct store_row and SQL, and the bounds of "this folder and below". Private to lib/store.
 *
 * Ownership: what is bound borrows from the row and from the struct row_parked.
 * Threads: the connection's.
 * Errors: -EUCLEAN for a row that can't be.
 */
#ifndef MAILDEX_STORE_ROW_H
#define MAILDEX_STORE_ROW_H

#include "lib/store/db.h"
#include "lib/store/store.h"

/* Parked windows are one BLOB: per window two stamps, per stamp the 64-bit little-endian words dev, ino, ctime, mtime,
 * size, sized. */
#define ROW_STAMP_WORDS 6

struct row_parked {
	uint64_t words[FRESH_PARKED_MAX][2][ROW_STAMP_WORDS];
};

/* Binds a row to SQL_ROW_INSERT or SQL_ROW_SAVE. */
void row_bind(sqlite3_stmt *s, const struct store_row *row, struct row_parked *parked);
/* Reads the row that a statement stands on. Returns 0 or -EUCLEAN. */
int row_read(const struct db *db, sqlite3_stmt *s, struct store_row *row, struct err *e);
/* The same where one half was searched for: in a damaged file another's row may be found. */
int row_read_of(const struct db *db, sqlite3_stmt *s, const char *folder, enum half half, struct store_row *row,
		struct err *e);

/* What lies below a folder: lower <= path < upper. The folder itself is not in it, unless it is "" (all). */
struct row_below {
	size_t lower_len, upper_len;
	char lower[FOLDER_PATH_MAX + 1];
	char upper[FOLDER_PATH_MAX + 1];
};
void row_below(struct row_below *b, const char *folder, size_t len);

#endif
