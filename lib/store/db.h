/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection to the index file: prepared statements, SQLite's codes made errno-like, and whether the file is still
 * the one at its path. Private to lib/store.
 *
 * Flow: db_open(), then db_stmt() (bind it) and db_step() or db_run(); db_close().
 * Ownership: statements are the connection's. What is bound must live until the statement was reset; db_step() resets
 * it at the end and on an error, the caller after a row that it takes as the last one.
 * Threads: one at a time.
 * Errors: as store.h; each text names the path and what to do.
 */
#ifndef MAILDEX_STORE_DB_H
#define MAILDEX_STORE_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "lib/base/err.h"
#include "lib/store/sql.h"

/*
 * Which file it is, by its handle (name_to_handle_at(2)): inode numbers are used again at once. Where the filesystem has no
 * handles: by its number.
 */
struct db_companion {
	uint64_t id[4];
};

struct db {
	sqlite3 *sql;
	char *path;
	dev_t dev;
	ino_t ino;
	struct db_companion log, shm; /* -wal and -shm; all zero: there is none that we know */
	LIST_ENTRY(db) open;          /* all that are open in this process */
	bool listed;                  /* in there */
	sqlite3_stmt *stmts[SQL_TEXTS];
};

/*
 * One at a time in this process opens a file and makes its first read: who makes the log opens it twice, and none may be in
 * between. Returns false if others took so long.
 */
bool db_opening_begins(int wait_ms);
void db_opening_ends(void);
/*
 * Opens an existing file; flags: SQLITE_OPEN_READONLY or _READWRITE. Returns 0 or negative errno (nothing is held); -EAGAIN
 * if others of this process hold a log of it that was deleted.
 */
int db_open(struct db *db, const char *path, int flags, int busy_ms, struct err *e);
void db_close(struct db *db);
/*
 * After a first read, when SQLite has opened its log: is that the one that was there before db_open()? If not, which one
 * SQLite has open can't be told.
 */
bool db_log_stayed(struct db *db);
/* Is there one? */
bool db_log_known(const struct db *db);
/* Who has just made the log: the one that is there now is taken for it. */
void db_assume_log(struct db *db);
/* Have all connections of this process to this file the same log? If not, this one works with another's: close it. */
bool db_agrees(const struct db *db);
/* Lets go of all cached pages. */
void db_forget_pages(struct db *db);
/* Is the file at the path still the opened one, with the log that belongs to it? */
bool db_current(const struct db *db);
/* The errno-like code and the text of what SQLite answered last. Returns negative errno. */
int db_error(const struct db *db, struct err *e);
/* Says that what was read makes no sense. Returns -EUCLEAN. */
int db_damaged(const struct db *db, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Runs SQL that gives no rows, or whose rows don't matter. Returns 0 or negative errno. */
int db_exec(struct db *db, const char *texts, struct err *e);
/* One number: PRAGMA or SELECT. Returns 0 or negative errno. */
int db_number(struct db *db, const char *text, int64_t *number, struct err *e);
/* A statement of sql_texts, prepared at its first use, ready to bind. Returns 0 or negative errno. */
int db_stmt(struct db *db, enum sql text, sqlite3_stmt **s, struct err *e);
/* Returns 1 with a row, 0 at the end, or negative errno. */
int db_step(struct db *db, sqlite3_stmt *s, struct err *e);
/* Steps to the end. Returns 0 or negative errno. */
int db_run(struct db *db, sqlite3_stmt *s, struct err *e);
/* Binds bytes, also none. The bytes are borrowed. */
void db_bind_bytes(sqlite3_stmt *s, int at, const char *bytes, size_t len);

#endif
