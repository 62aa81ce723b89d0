/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The races guarded against: the file may be deleted or replaced at any moment by anybody (it is a cache). SQLite would
 * go on with the file that it holds, which nobody else reads any more: db_current() tells, by device, inode and
 * SQLite's own comparison with what it has open. The same goes for the log and its index beside it: they go with their
 * last user only, so as long as we have them open nobody else should have removed them. SQLite shares the log's index
 * (-shm) among all connections of a process to a file, also after it was deleted: who opens the file then reads for
 * ever what nobody writes, unless the connections from before are closed first: db_agrees(). Nothing here opens the
 * file a second time: closing any descriptor of it would drop the process's fcntl locks on it, and with them SQLite's.
 */
#include "lib/store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/clock.h"

#define DELETE_IT "the index is only a cache: delete it, and maildexd builds a new one"

/* Extended codes before their primary one. code 0: the system's errno, or EIO. */
static const struct {
	int sqlite;
	int code;
	const char *advice;
} meanings[] = {
	{SQLITE_IOERR_SHORT_READ, -EUCLEAN, DELETE_IT},
	{SQLITE_IOERR_NOMEM, -ENOMEM, "give the program more memory"},
	{SQLITE_CORRUPT, -EUCLEAN, DELETE_IT},
	{SQLITE_NOTADB, -EUCLEAN, DELETE_IT},
	{SQLITE_CONSTRAINT, -EUCLEAN, DELETE_IT},
	/* SQL that does not compile: the tables are not those of the schema version that the file claims. */
	{SQLITE_ERROR, -EUCLEAN, DELETE_IT},
	/* Nothing of ours is that long: a length in the file is wrong. */
	{SQLITE_TOOBIG, -EUCLEAN, DELETE_IT},
	{SQLITE_FULL, -ENOSPC, "make room on its disk"},
	{SQLITE_BUSY, -EAGAIN, "another process holds its lock; try again"},
	{SQLITE_LOCKED, -EAGAIN, "another process holds its lock; try again"},
	{SQLITE_READONLY, -EACCES,
	 "its folder too must be writable for this program's user: SQLite's log is made there"},
	{SQLITE_PERM, -EACCES, "the file and its folder must be open to this program's user"},
	{SQLITE_CANTOPEN, 0, "the file and its folder must be there and open to this program's user"},
	{SQLITE_IOERR, 0, "look after its disk"},
	{SQLITE_NOMEM, -ENOMEM, "give the program more memory"},
};

int db_error(const struct db *db, struct err *e)
{
	int rc = sqlite3_extended_errcode(db->sql);
	int code = 0, system = sqlite3_system_errno(db->sql);
	const char *advice = "unexpected here";

	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
		if (meanings[i].sqlite != rc && meanings[i].sqlite != (rc & 0xff))
			continue;
		code = meanings[i].code;
		advice = meanings[i].advice;
		break;
	}
	if (code)
		return err_set(e, code, "index %s: %s: %s", db->path, sqlite3_errmsg(db->sql), advice);
	/* A quota is for the reader of the text what a full disk is. */
	code = system == EDQUOT ? ENOSPC : system ? system : EIO;
	return err_set(e, -code, "index %s: %s: %s: %s", db->path, sqlite3_errmsg(db->sql), strerrordesc_np(code),
		       code == ENOSPC ? "make room on its disk" : advice);
}

int db_damaged(const struct db *db, struct err *e, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(e, -EUCLEAN, "index %s is damaged: %s", db->path, what);
}

static struct {
	pthread_mutex_t lock;
	LIST_HEAD(, db) open;
} dbs = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Recursive: a VFS may open another file meanwhile. */
static pthread_mutex_t opening = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static void dbs_add(struct db *db)
{
	pthread_mutex_lock(&dbs.lock);
	LIST_INSERT_HEAD(&dbs.open, db, open);
	db->listed = true;
	pthread_mutex_unlock(&dbs.lock);
}

static void dbs_remove(struct db *db)
{
	pthread_mutex_lock(&dbs.lock);
	if (db->listed)
		LIST_REMOVE(db, open);
	db->listed = false;
	pthread_mutex_unlock(&dbs.lock);
}

/* Returns 0 or negative errno, -ENOENT if there is none. A link to the file is none to its log: SQLite knows the names. */
static int companion(const struct db *db, const char *suffix, struct db_companion *c)
{
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + sizeof(struct db_companion)];
	} at = {.handle.handle_bytes = sizeof(struct db_companion)};
	char name[PATH_MAX];
	struct stat st;
	int mount;

	*c = (struct db_companion){0};
	snprintf(name, sizeof(name), "%s%s", sqlite3_db_filename(db->sql, "main"), suffix);
	if (name_to_handle_at(AT_FDCWD, name, &at.handle, &mount, 0) == 0) {
		memcpy(c->id, at.handle.f_handle, at.handle.handle_bytes);
		return 0;
	}
	if (errno != EOPNOTSUPP && errno != EOVERFLOW && errno != ENOSYS && errno != EPERM)
		return -errno;
	if (stat(name, &st) < 0)
		return -errno;
	c->id[0] = st.st_ino;
	return 0;
}

static bool is_known(const struct db_companion *c)
{
	return c->id[0] || c->id[1];
}

static bool is_same(const struct db_companion *a, const struct db_companion *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static bool stayed(const struct db *db, const struct db_companion *before, const char *suffix)
{
	struct db_companion now;
	int r;

	if (!is_known(before))
		return true;
	r = companion(db, suffix, &now);
	return r == 0 ? is_same(before, &now) : r != -ENOENT;
}

static bool log_current(const struct db *db)
{
	return stayed(db, &db->log, "-wal") && stayed(db, &db->shm, "-shm");
}

static void set_log(struct db *db, struct db_companion log, struct db_companion shm)
{
	pthread_mutex_lock(&dbs.lock);
	db->log = log;
	db->shm = shm;
	pthread_mutex_unlock(&dbs.lock);
}

void db_assume_log(struct db *db)
{
	struct db_companion log, shm;

	(void)companion(db, "-wal", &log);
	(void)companion(db, "-shm", &shm);
	set_log(db, log, shm);
}

bool db_log_known(const struct db *db)
{
	return is_known(&db->log) && is_known(&db->shm);
}

bool db_log_stayed(struct db *db)
{
	/* None: what SQLite has just opened was deleted already. */
	bool same = db_log_known(db) && log_current(db);

	if (!same)
		set_log(db, (struct db_companion){0}, (struct db_companion){0});
	return same;
}

bool db_agrees(const struct db *db)
{
	bool agrees = true;

	pthread_mutex_lock(&dbs.lock);
	for (const struct db *o = LIST_FIRST(&dbs.open); o; o = LIST_NEXT(o, open))
		agrees &= o->dev != db->dev || o->ino != db->ino ||
			  (is_same(&o->log, &db->log) && is_same(&o->shm, &db->shm));
	pthread_mutex_unlock(&dbs.lock);
	return agrees;
}

static int remember_file(struct db *db, struct err *e)
{
	struct stat st;

	if (stat(db->path, &st) < 0)
		return err_sys(e, "index %s", db->path);
	db->dev = st.st_dev;
	db->ino = st.st_ino;
	if (!db_current(db))
		return err_set(e, -EAGAIN, "index %s was replaced while it was being opened; try again", db->path);
	return 0;
}

bool db_opening_begins(int wait_ms)
{
	struct timespec until = clock_timespec(clock_real_ns() + wait_ms * NS_PER_MS);

	return pthread_mutex_timedlock(&opening, &until) == 0;
}

void db_opening_ends(void)
{
	pthread_mutex_unlock(&opening);
}

/* Before the first read, when SQLite takes the log: whoever has another one, or is just closing it, is still in the list. */
static int join(struct db *db, struct err *e)
{
	db_assume_log(db);
	dbs_add(db);
	if (db_agrees(db))
		return 0;
	return err_set(e, -EAGAIN,
		       "the log of index %s was replaced, and others of this program have the one before; try again",
		       db->path);
}

int db_open(struct db *db, const char *path, int flags, int busy_ms, struct err *e)
{
	int rc;

	*db = (struct db){.path = strdup(path)};
	if (!db->path)
		return err_set(e, -ENOMEM, "index %s: out of memory", path);
	/* A connection belongs to one thread at a time: SQLite's own mutex per column read would be for nothing. */
	rc = sqlite3_open_v2(path, &db->sql, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (!db->sql)
		rc = err_set(e, -ENOMEM, "index %s: out of memory", path);
	else if (rc != SQLITE_OK)
		rc = db_error(db, e);
	else
		rc = remember_file(db, e);
	if (!rc)
		rc = join(db, e);
	if (!rc) {
		sqlite3_busy_timeout(db->sql, busy_ms);
		/* Statement journals go to memory: a daemon in a sandbox may have no /tmp. cell_size_check finds torn
		 * pages before they are walked. */
		rc = db_exec(db, "PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF",
			     e);
	}
	if (rc)
		db_close(db);
	return rc;
}

void db_forget_pages(struct db *db)
{
	sqlite3_db_release_memory(db->sql);
}

void db_close(struct db *db)
{
	for (size_t i = 0; i < SQL_TEXTS; i++)
		sqlite3_finalize(db->stmts[i]);
	/* The last one to close removes the log and its index, by name: they may be those of the file that is there now. */
	if (db->sql && !db_current(db))
		sqlite3_db_config(db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_close(db->sql);
	dbs_remove(db);
	free(db->path);
	*db = (struct db){0};
}

bool db_current(const struct db *db)
{
	struct stat st;
	int moved = 1;

	if (stat(db->path, &st) < 0 || st.st_dev != db->dev || st.st_ino != db->ino)
		return false;
	if (!log_current(db))
		return false;
	/* The pair may have been read just after a replacement: SQLite compares with the descriptor that it holds. */
	return sqlite3_file_control(db->sql, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && !moved;
}

int db_exec(struct db *db, const char *texts, struct err *e)
{
	return sqlite3_exec(db->sql, texts, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_error(db, e);
}

int db_number(struct db *db, const char *text, int64_t *number, struct err *e)
{
	sqlite3_stmt *s;
	int rc;

	if (sqlite3_prepare_v2(db->sql, text, -1, &s, NULL) != SQLITE_OK)
		return db_error(db, e);
	rc = sqlite3_step(s);
	*number = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
	if (rc == SQLITE_ROW)
		rc = 0;
	else if (rc == SQLITE_DONE)
		rc = db_damaged(db, e, "no answer to %s", text);
	else
		rc = db_error(db, e);
	sqlite3_finalize(s);
	return rc;
}

int db_stmt(struct db *db, enum sql text, sqlite3_stmt **s, struct err *e)
{
	if (!db->stmts[text] && sqlite3_prepare_v3(db->sql, sql_texts[text], -1, SQLITE_PREPARE_PERSISTENT,
						   &db->stmts[text], NULL) != SQLITE_OK)
		return db_error(db, e);
	*s = db->stmts[text];
	return 0;
}

int db_step(struct db *db, sqlite3_stmt *s, struct err *e)
{
	int rc = sqlite3_step(s);

	if (rc == SQLITE_ROW)
		return 1;
	rc = rc == SQLITE_DONE ? 0 : db_error(db, e);
	sqlite3_reset(s);
	return rc;
}

int db_run(struct db *db, sqlite3_stmt *s, struct err *e)
{
	int rc;

	do
		rc = db_step(db, s, e);
	while (rc > 0);
	return rc;
}

/* Borrowed bytes and integers can't fail to be bound: nothing is allocated, and the numbers are those of sql.c. */
void db_bind_bytes(sqlite3_stmt *s, int at, const char *bytes, size_t len)
{
	/* A NULL pointer would bind NULL, which equals nothing. */
	sqlite3_bind_blob64(s, at, len ? bytes : "", len, SQLITE_STATIC);
}
