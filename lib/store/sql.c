/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/store/sql.h"

/* In the order that row.c binds and reads them. `id`, `folder` and `half` come first; the rest are the row's fields. */
#define ROW_FIELDS                                                                                                     \
	"known_dev, known_ino, known_ctime_ns, known_mtime_ns, known_size, known_sized, seen_ns, need, unsettled, "    \
	"trust, trust_since_ns, gen, count, sum, scanned_ns, parked"
#define ROW_COLUMNS "id, folder, half, " ROW_FIELDS
#define ROW_VALUES "?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19"

/* A folder and what is below it, by bytes: 'a' and 'a/b', but not 'ab'. The bounds come from row_below(). */
#define AT_OR_BELOW "(folder = ?1 OR (folder >= ?2 AND folder < ?3))"

const char *const sql_texts[SQL_TEXTS] = {
	/* IMMEDIATE: a lock that is not to be had is met here, not in the middle of a batch. */
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_ROW_FIND] = "SELECT " ROW_COLUMNS " FROM half WHERE folder = ?1 AND half = ?2",
	[SQL_ROW_INSERT] = "INSERT INTO half(" ROW_COLUMNS ") VALUES(?1, ?2, ?3, " ROW_VALUES ")",
	[SQL_ROW_SAVE] = "UPDATE half SET (" ROW_FIELDS ") = (" ROW_VALUES ") WHERE id = ?1",
	[SQL_ROW_HERE] = "SELECT " ROW_COLUMNS " FROM half WHERE folder = ?1 AND half > ?2 ORDER BY half LIMIT 1",
	[SQL_ROW_BELOW] = "SELECT " ROW_COLUMNS " FROM half WHERE (folder, half) > (?1, ?2) AND folder < ?3 "
			  "ORDER BY folder, half LIMIT 1",
	[SQL_ROWS_DROP] = "DELETE FROM half WHERE " AT_OR_BELOW " AND length(folder) >= ?4",
	/* || makes a text of the same bytes, whatever they are; the CAST makes it a BLOB again. */
	[SQL_ROWS_RENAME] = "UPDATE half SET folder = CAST(?4 || substr(folder, ?5) AS BLOB) WHERE " AT_OR_BELOW,
	[SQL_ROWS_GAP] = "UPDATE half SET need = 1 WHERE trust AND NOT need",
	[SQL_ROWS_TOTALS] = "SELECT count(*), total(count), total(need), total(trust), total(unsettled) FROM half",
	[SQL_NAME_FIND] = "SELECT ino, type FROM message WHERE half = ?1 AND name = ?2",
	[SQL_NAME_PUT] = "REPLACE INTO message(half, name, ino, type) VALUES(?1, ?2, ?3, ?4)",
	[SQL_NAME_REMOVE] = "DELETE FROM message WHERE half = ?1 AND name = ?2 RETURNING ino, type",
	/* Two searches, not one range from base to base ';': '1' would walk over every name that begins with a '1'. */
	[SQL_NAMES_MESSAGE] = "SELECT name, ino, type FROM message WHERE half = ?1 AND name = ?2 "
			      "UNION ALL SELECT name, ino, type FROM message WHERE half = ?1 AND name >= ?3 AND name "
			      "< ?4 LIMIT ?5",
	[SQL_NAMES_ALL] = "SELECT name, ino, type FROM message WHERE half = ?1 ORDER BY name",
	[SQL_NAMES_WIPE] = "DELETE FROM message WHERE half = ?1",
	[SQL_NAMES_DROP] = "DELETE FROM message WHERE half IN "
			   "(SELECT id FROM half WHERE " AT_OR_BELOW " AND length(folder) >= ?4)",
	[SQL_FACT_FIND] = "SELECT value FROM fact WHERE key = ?1",
	[SQL_FACT_SET] = "REPLACE INTO fact(key, value) VALUES(?1, ?2)",
	[SQL_FACT_REMOVE] = "DELETE FROM fact WHERE key = ?1",
};
