/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every SQL text of the index but its schema, by number; private to lib/store. See schema.c for the tables.
 *
 * Shapes: a folder and a name are BLOBs, so that they compare as bytes whatever their encoding; a u64 is stored as the
 * i64 of the same bits; a type is stored as type ^ DT_REG, so that a message's costs no byte (see names.c).
 * Ownership: constants.
 * Threads: any.
 * Errors: none.
 */
#ifndef MAILDEX_STORE_SQL_H
#define MAILDEX_STORE_SQL_H

enum sql {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_ROW_FIND,      /* ?1 folder, ?2 half: a row */
	SQL_ROW_INSERT,    /* a row (row_bind) */
	SQL_ROW_SAVE,      /* a row (row_bind): its fields, by id */
	SQL_ROW_HERE,      /* ?1 folder, ?2 half: the next row of that very folder */
	SQL_ROW_BELOW,     /* ?1 folder, ?2 half, ?3 end: the next row before folder `end` */
	SQL_ROWS_DROP,     /* ?1 folder, ?2 lower, ?3 upper (row_below), ?4 only paths of so many bytes and more */
	SQL_ROWS_RENAME,   /* ?1..?3 as above, ?4 the new beginning, ?5 where the old path goes on, from 1 */
	SQL_ROWS_GAP,      /* nothing */
	SQL_ROWS_TOTALS,   /* nothing: halves, messages, need, trust, unsettled */
	SQL_NAME_FIND,     /* ?1 half id, ?2 name: ino, type */
	SQL_NAME_PUT,      /* ?1 half id, ?2 name, ?3 ino, ?4 type */
	SQL_NAME_REMOVE,   /* ?1 half id, ?2 name: the removed ino, type */
	SQL_NAMES_MESSAGE, /* ?1 half id, ?2 base, ?3 base ':', ?4 base ';', ?5 limit: name, ino, type */
	SQL_NAMES_ALL,     /* ?1 half id: name, ino, type, by name */
	SQL_NAMES_WIPE,    /* ?1 half id */
	SQL_NAMES_DROP,    /* ?1..?4 as SQL_ROWS_DROP */
	SQL_FACT_FIND,     /* ?1 key: value */
	SQL_FACT_SET,      /* ?1 key, ?2 value */
	SQL_FACT_REMOVE,   /* ?1 key */
	SQL_TEXTS
};

extern const char *const sql_texts[SQL_TEXTS];

#endif
