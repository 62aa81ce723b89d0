/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/store/names.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

/* A record of a listing: u64 inode, u8 type, u8 length, the name. */
#define RECORD_HEAD 10
/* What a name is likely to take in a listing: room for a whole half at once, so that it is not copied as it grows. */
#define RECORD_LIKELY (RECORD_HEAD + 60)
#define LIKELY_MAX 1000000 /* a damaged count must not ask for all memory */

int names_entry(const struct db *db, sqlite3_stmt *s, struct listing_entry *entry, struct err *e)
{
	const char *name = sqlite3_column_blob(s, 0);
	int len = sqlite3_column_bytes(s, 0);

	if (!name || len < 1 || len > NAME_LEN_MAX) {
		db_damaged(db, e, "a name of %d bytes", len);
		return -EUCLEAN;
	}
	entry->name = name;
	entry->len = (uint8_t)len;
	entry->ino = (uint64_t)sqlite3_column_int64(s, 1);
	entry->type = (uint8_t)(sqlite3_column_int(s, 2) ^ DT_REG);
	return 0;
}

/* What listing_add() does, in one piece: a load of 100,000 names is mostly this. */
static int append(struct listing *l, const struct listing_entry *entry)
{
	char *to = buf_reserve(&l->bytes, RECORD_HEAD + (size_t)entry->len);
	uint64_t ino = htole64(entry->ino);

	if (!to)
		return -ENOMEM;
	memcpy(to, &ino, sizeof(ino));
	to[8] = (char)entry->type;
	to[9] = (char)entry->len;
	memcpy(to + RECORD_HEAD, entry->name, entry->len);
	l->bytes.len += RECORD_HEAD + (size_t)entry->len;
	l->count++;
	l->sum += listing_entry_hash(entry);
	return 0;
}

/* Appends every row that the statement gives. */
static int collect(struct db *db, sqlite3_stmt *s, struct listing *l, struct err *e)
{
	struct listing_entry entry;
	int rc;

	while ((rc = db_step(db, s, e)) > 0) {
		rc = names_entry(db, s, &entry, e);
		if (!rc && append(l, &entry) < 0)
			rc = err_set(e, -ENOMEM, "index %s: out of memory for a listing of %llu names", db->path,
				     (unsigned long long)l->count);
		if (rc) {
			sqlite3_reset(s);
			return rc;
		}
	}
	return rc;
}

int names_load(struct db *db, int64_t id, uint64_t likely, struct listing *l, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(db, SQL_NAMES_ALL, &s, e);

	listing_reset(l);
	if (rc)
		return rc;
	sqlite3_bind_int64(s, 1, id);
	buf_reserve(&l->bytes, (likely < LIKELY_MAX ? likely : LIKELY_MAX) * RECORD_LIKELY);
	return collect(db, s, l, e);
}

int names_of_message(struct db *db, int64_t id, const char *name, size_t len, size_t max, struct listing *l,
		     struct err *e)
{
	size_t base = name_base_len(name, len);
	char from[NAME_LEN_MAX + 1], to[NAME_LEN_MAX + 1];
	sqlite3_stmt *s;
	int rc;

	listing_reset(l);
	if (!base || base > NAME_LEN_MAX)
		return err_set(e, -EINVAL, "index %s: a name of %zu bytes", db->path, len);
	rc = db_stmt(db, SQL_NAMES_MESSAGE, &s, e);
	if (rc)
		return rc;
	memcpy(from, name, base);
	memcpy(to, name, base);
	from[base] = ':';
	to[base] = ':' + 1;
	sqlite3_bind_int64(s, 1, id);
	db_bind_bytes(s, 2, name, base);
	db_bind_bytes(s, 3, from, base + 1);
	db_bind_bytes(s, 4, to, base + 1);
	sqlite3_bind_int64(s, 5, (int64_t)max);
	return collect(db, s, l, e);
}

/* Returns 1 with inode and type of the name, 0 if it is not there, or negative errno. */
static int find(struct db *db, int64_t id, const char *name, size_t len, struct listing_entry *found, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(db, SQL_NAME_FIND, &s, e);

	if (rc)
		return rc;
	sqlite3_bind_int64(s, 1, id);
	db_bind_bytes(s, 2, name, len);
	rc = db_step(db, s, e);
	if (rc > 0) {
		found->ino = (uint64_t)sqlite3_column_int64(s, 0);
		found->type = (uint8_t)(sqlite3_column_int(s, 1) ^ DT_REG);
		sqlite3_reset(s);
	}
	return rc;
}

int names_put(struct db *db, struct store_row *row, const struct listing_entry *entry, struct err *e)
{
	struct listing_entry found = {.name = entry->name, .len = entry->len};
	sqlite3_stmt *s;
	int rc = find(db, row->id, entry->name, entry->len, &found, e);
	bool there = rc > 0;

	if (rc < 0)
		return rc;
	if (there && found.ino == entry->ino && found.type == entry->type)
		return 0;
	rc = db_stmt(db, SQL_NAME_PUT, &s, e);
	if (rc)
		return rc;
	sqlite3_bind_int64(s, 1, row->id);
	db_bind_bytes(s, 2, entry->name, entry->len);
	sqlite3_bind_int64(s, 3, (int64_t)entry->ino);
	sqlite3_bind_int(s, 4, entry->type ^ DT_REG);
	rc = db_run(db, s, e);
	if (rc)
		return rc;
	if (there)
		row->sum -= listing_entry_hash(&found);
	else
		row->count++;
	row->sum += listing_entry_hash(entry);
	return 0;
}

int names_remove(struct db *db, struct store_row *row, const char *name, size_t len, struct err *e)
{
	struct listing_entry gone = {.name = name, .len = (uint8_t)len};
	sqlite3_stmt *s;
	int rc = db_stmt(db, SQL_NAME_REMOVE, &s, e);

	if (rc)
		return rc;
	sqlite3_bind_int64(s, 1, row->id);
	db_bind_bytes(s, 2, name, len);
	rc = db_step(db, s, e);
	if (rc <= 0)
		return rc;
	gone.ino = (uint64_t)sqlite3_column_int64(s, 0);
	gone.type = (uint8_t)(sqlite3_column_int(s, 1) ^ DT_REG);
	rc = db_run(db, s, e);
	if (rc)
		return rc;
	row->count--;
	row->sum -= listing_entry_hash(&gone);
	return 0;
}
