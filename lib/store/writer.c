/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guarded against: names and `known` that are not of one moment (everything goes through one transaction per batch, and
 * after an error the batch is rolled back); a file that was deleted or replaced while it is open (begin tells); left
 * -wal and -shm files of a deleted index, whose pages must never be taken for those of the new one.
 */
#include "lib/store/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/store/names.h"
#include "lib/store/row.h"
#include "lib/store/schema.h"

/* Readers never block a writer in WAL mode: this is for another process's checkpoint, recovery, or a second writer. */
#define WRITER_BUSY_MS 10000
#define INDEX_MODE 0640

struct store_writer {
	struct db db;
	bool healed;
};

/* SQLite's companions of a file. "-journal" stands there only while a new file turns to WAL mode. */
static int remove_companions(const char *path, struct err *e)
{
	static const char *const suffixes[] = {"-wal", "-shm", "-journal"};
	char name[PATH_MAX];

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		if (unlink(name) < 0 && errno != ENOENT)
			return err_sys(e, "cannot remove %s, left by an index that was deleted", name);
	}
	return 0;
}

/*
 * Makes an empty file, for SQLite would make it with another mode. What a deleted index left beside it goes: nobody can
 * be using it for the new file, which is no database yet.
 */
static int make_file(const char *path, struct err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, INDEX_MODE);
	int rc;

	if (fd < 0)
		return errno == EEXIST ? 0
				       : err_sys(e,
						 "index %s cannot be made (is its folder there, and writable for "
						 "the user of maildexd?)",
						 path);
	/* The umask is not meant for it: maildexfs and maildexctl may run in maildexd's group. */
	rc = fchmod(fd, INDEX_MODE) < 0 ? err_sys(e, "index %s", path) : 0;
	close(fd);
	return rc ? rc : remove_companions(path, e);
}

/* SQLite falls back to reading where it may not write. */
static int check_writable(const struct db *db, struct err *e)
{
	if (!sqlite3_db_readonly(db->sql, "main"))
		return 0;
	if (faccessat(AT_FDCWD, db->path, W_OK, AT_EACCESS) == 0)
		errno = EACCES;
	return err_sys(e, "index %s cannot be written; the file and its folder must belong to the user of maildexd",
		       db->path);
}

static int open_alone(struct store_writer **w, const char *path, const char *tree, struct err *e)
{
	struct store_writer *opened;
	int rc = make_file(path, e);

	if (rc)
		return rc;
	opened = calloc(1, sizeof(*opened));
	if (!opened)
		return err_set(e, -ENOMEM, "index %s: out of memory", path);
	rc = db_open(&opened->db, path, SQLITE_OPEN_READWRITE, WRITER_BUSY_MS, e);
	if (rc) {
		free(opened);
		return rc;
	}
	rc = check_writable(&opened->db, e);
	if (!rc)
		rc = schema_upgrade(&opened->db, &schema_current, e);
	if (!rc)
		rc = schema_tree(&opened->db, tree, true, e);
	if (rc) {
		store_writer_close(opened);
		return rc;
	}
	db_assume_log(&opened->db);
	if (!db_log_known(&opened->db) || !db_agrees(&opened->db)) {
		store_writer_close(opened);
		return err_set(e, -EAGAIN, "the log of index %s was replaced while it was being opened; try again",
			       path);
	}
	*w = opened;
	return 0;
}

int store_writer_open(struct store_writer **w, const char *path, const char *tree, struct err *e)
{
	int rc;

	if (!db_opening_begins(WRITER_BUSY_MS))
		return err_set(e, -EAGAIN, "index %s is being opened by others; try again", path);
	rc = open_alone(w, path, tree, e);
	db_opening_ends();
	return rc;
}

void store_writer_close(struct store_writer *w)
{
	if (!w)
		return;
	db_close(&w->db);
	free(w);
}

int store_forget_log(const char *path, struct err *e)
{
	return remove_companions(path, e);
}

int store_discard(const char *path, struct err *e)
{
	char aside[PATH_MAX];

	if ((size_t)snprintf(aside, sizeof(aside), "%s.damaged", path) >= sizeof(aside))
		return err_set(e, -ENAMETOOLONG, "index %s: its path is too long", path);
	if (rename(path, aside) < 0)
		return err_sys(e, "damaged index %s cannot be moved aside to %s", path, aside);
	return remove_companions(path, e);
}

static int run(struct store_writer *w, enum sql text, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(&w->db, text, &s, e);

	return rc ? rc : db_run(&w->db, s, e);
}

bool store_writer_current(const struct store_writer *w)
{
	return db_current(&w->db);
}

void store_writer_forget_pages(struct store_writer *w)
{
	db_forget_pages(&w->db);
}

int store_writer_begin(struct store_writer *w, struct err *e)
{
	if (!db_current(&w->db))
		return err_set(e, -ESTALE, "index %s was deleted or replaced while it was open", w->db.path);
	return run(w, SQL_BEGIN, e);
}

int store_writer_commit(struct store_writer *w, struct err *e)
{
	return run(w, SQL_COMMIT, e);
}

void store_writer_rollback(struct store_writer *w)
{
	/* A full disk may have ended the transaction already. */
	if (!sqlite3_get_autocommit(w->db.sql))
		run(w, SQL_ROLLBACK, NULL);
}

static int insert_row(struct store_writer *w, struct store_row *row, struct err *e)
{
	struct row_parked parked;
	sqlite3_stmt *s;
	int rc = db_stmt(&w->db, SQL_ROW_INSERT, &s, e);

	if (rc)
		return rc;
	row_bind(s, row, &parked);
	rc = db_run(&w->db, s, e);
	if (!rc)
		row->id = sqlite3_last_insert_rowid(w->db.sql);
	return rc;
}

int store_writer_row(struct store_writer *w, const char *folder, enum half half, bool create, struct store_row *row,
		     struct err *e)
{
	size_t len = strlen(folder);
	sqlite3_stmt *s;
	int rc;

	if (len > FOLDER_PATH_MAX)
		return err_set(e, -EINVAL, "a folder path of %zu bytes, at most %d are possible", len, FOLDER_PATH_MAX);
	rc = db_stmt(&w->db, SQL_ROW_FIND, &s, e);
	if (rc)
		return rc;
	db_bind_bytes(s, 1, folder, len);
	sqlite3_bind_int(s, 2, half);
	rc = db_step(&w->db, s, e);
	if (rc > 0) {
		rc = row_read_of(&w->db, s, folder, half, row, e);
		sqlite3_reset(s);
		return rc ? rc : 1;
	}
	if (rc < 0)
		return rc;
	*row = (struct store_row){.half = half};
	memcpy(row->folder, folder, len + 1);
	fresh_init(&row->fresh);
	if (!create)
		return 0;
	rc = insert_row(w, row, e);
	return rc ? rc : 1;
}

int store_writer_names(struct store_writer *w, const struct store_row *row, const char *name, size_t len,
		       struct listing *l, struct err *e)
{
	return names_of_message(&w->db, row->id, name, len, STORE_NAMES_MAX, l, e);
}

int store_writer_put(struct store_writer *w, struct store_row *row, const struct listing_entry *entry, struct err *e)
{
	if (!name_ok(entry->name, entry->len))
		return err_set(e, -EINVAL, "no file's name for the index");
	return names_put(&w->db, row, entry, e);
}

int store_writer_remove(struct store_writer *w, struct store_row *row, const char *name, size_t len, struct err *e)
{
	return names_remove(&w->db, row, name, len, e);
}

int store_writer_replace(struct store_writer *w, struct store_row *row, const struct listing *l, uint64_t *changed,
			 struct err *e)
{
	w->healed = false;
	return names_replace(&w->db, row, l, changed, &w->healed, e);
}

bool store_writer_healed(const struct store_writer *w)
{
	return w->healed;
}

int store_writer_save(struct store_writer *w, const struct store_row *row, struct err *e)
{
	struct row_parked parked;
	sqlite3_stmt *s;
	int rc = db_stmt(&w->db, SQL_ROW_SAVE, &s, e);

	if (rc)
		return rc;
	row_bind(s, row, &parked);
	rc = db_run(&w->db, s, e);
	if (!rc && sqlite3_changes(w->db.sql) != 1)
		rc = db_damaged(&w->db, e, "the row of %s/%s is gone", row->folder, half_word(row->half));
	return rc;
}

/* Drops a folder's rows and names, and with `below` those below it, where the path has `from_len` bytes or more. */
static int drop(struct store_writer *w, const char *folder, bool below, size_t from_len, struct err *e)
{
	/* Names first: they are found through their rows. */
	static const enum sql texts[] = {SQL_NAMES_DROP, SQL_ROWS_DROP};
	struct row_below range = {0};
	size_t len = strlen(folder);
	int rc = 0;

	if (len > FOLDER_PATH_MAX)
		return 0;
	if (below)
		row_below(&range, folder, len);
	for (size_t i = 0; !rc && i < sizeof(texts) / sizeof(texts[0]); i++) {
		sqlite3_stmt *s;

		rc = db_stmt(&w->db, texts[i], &s, e);
		if (rc)
			break;
		db_bind_bytes(s, 1, folder, len);
		db_bind_bytes(s, 2, range.lower, range.lower_len);
		db_bind_bytes(s, 3, range.upper, range.upper_len);
		sqlite3_bind_int64(s, 4, (int64_t)from_len);
		rc = db_run(&w->db, s, e);
	}
	return rc;
}

int store_writer_drop(struct store_writer *w, const char *folder, bool below, struct err *e)
{
	return drop(w, folder, below, 0, e);
}

int store_writer_rename(struct store_writer *w, const char *from, const char *to, struct err *e)
{
	struct row_below range;
	size_t from_len = strlen(from), to_len = strlen(to);
	sqlite3_stmt *s;
	int rc;

	if (!from_len || !to_len || from_len > FOLDER_PATH_MAX || to_len > FOLDER_PATH_MAX)
		return err_set(e, -EINVAL, "a folder can't be renamed from a path of %zu bytes to one of %zu", from_len,
			       to_len);
	if (strcmp(from, to) == 0)
		return 0;
	rc = drop(w, to, true, 0, e);
	/* Paths that became too long to be served are forgotten. */
	if (!rc && to_len > from_len)
		rc = drop(w, from, true, FOLDER_PATH_MAX - (to_len - from_len) + 1, e);
	if (!rc)
		rc = db_stmt(&w->db, SQL_ROWS_RENAME, &s, e);
	if (rc)
		return rc;
	row_below(&range, from, from_len);
	db_bind_bytes(s, 1, from, from_len);
	db_bind_bytes(s, 2, range.lower, range.lower_len);
	db_bind_bytes(s, 3, range.upper, range.upper_len);
	db_bind_bytes(s, 4, to, to_len);
	sqlite3_bind_int64(s, 5, (int64_t)from_len + 1);
	return db_run(&w->db, s, e);
}

int store_writer_gap(struct store_writer *w, struct err *e)
{
	return run(w, SQL_ROWS_GAP, e);
}

int store_writer_fact(struct store_writer *w, const char *key, char *out, size_t size, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(&w->db, SQL_FACT_FIND, &s, e);

	if (rc)
		return rc;
	sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
	rc = db_step(&w->db, s, e);
	if (rc > 0) {
		const char *value = (const char *)sqlite3_column_text(s, 0);

		if (!value || (size_t)snprintf(out, size, "%s", value) >= size)
			rc = err_set(e, -EMSGSIZE, "index %s: the fact %s is longer than %zu bytes", w->db.path, key,
				     size);
		sqlite3_reset(s);
	}
	return rc;
}

int store_writer_set_fact(struct store_writer *w, const char *key, const char *value, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(&w->db, value ? SQL_FACT_SET : SQL_FACT_REMOVE, &s, e);

	if (rc)
		return rc;
	sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
	if (value)
		sqlite3_bind_text(s, 2, value, -1, SQLITE_STATIC);
	return db_run(&w->db, s, e);
}
