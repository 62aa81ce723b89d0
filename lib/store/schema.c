/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables. One row of `half` for each new/ and cur/ that is known, one of `message` for each name in it.
 *
 * `message` is nearly all of the file, so it is kept small: the primary key is the table (WITHOUT ROWID), a half is its
 * row's number (1 to 3 bytes), and a regular file's type is stored as 0, which takes no byte. A name of 50 bytes costs
 * some 66 with its record's head, 74 with the space that ordered inserts leave in pages.
 * Half ids are never used again (AUTOINCREMENT): a caller who still holds a dropped row must not write to a new one.
 */
#include "lib/store/schema.h"

#include <errno.h>
#include <string.h>

static const char *const upgrades[] = {
	"CREATE TABLE fact("
	"	key TEXT PRIMARY KEY NOT NULL,"
	"	value TEXT NOT NULL"
	") WITHOUT ROWID;"
	"CREATE TABLE half("
	"	id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"	folder BLOB NOT NULL,"
	"	half INTEGER NOT NULL,"
	"	known_dev INTEGER NOT NULL,"
	"	known_ino INTEGER NOT NULL,"
	"	known_ctime_ns INTEGER NOT NULL,"
	"	known_mtime_ns INTEGER NOT NULL,"
	"	known_size INTEGER NOT NULL,"
	"	known_sized INTEGER NOT NULL,"
	"	seen_ns INTEGER NOT NULL,"
	"	need INTEGER NOT NULL,"
	"	unsettled INTEGER NOT NULL,"
	"	trust INTEGER NOT NULL,"
	"	trust_since_ns INTEGER NOT NULL,"
	"	gen INTEGER NOT NULL,"
	"	count INTEGER NOT NULL,"
	"	sum INTEGER NOT NULL,"
	"	scanned_ns INTEGER NOT NULL,"
	"	parked BLOB,"
	"	UNIQUE(folder, half)"
	");"
	"CREATE TABLE message("
	"	half INTEGER NOT NULL,"
	"	name BLOB NOT NULL,"
	"	ino INTEGER NOT NULL,"
	"	type INTEGER NOT NULL,"
	"	PRIMARY KEY(half, name)"
	") WITHOUT ROWID;",
};

const struct schema schema_current = {upgrades, sizeof(upgrades) / sizeof(upgrades[0])};

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/*
 * Whose file is it, and of which version? An empty file is ours at version 0, also one that was given its page size and
 * WAL mode before a crash. Nothing is written before this has answered.
 */
static int read_version(struct db *db, const struct schema *schema, int64_t *version, struct err *e)
{
	int64_t id, tables;
	int rc = db_number(db, "PRAGMA application_id", &id, e);

	if (!rc)
		rc = db_number(db, "PRAGMA user_version", version, e);
	if (!rc)
		rc = db_number(db, "SELECT count(*) FROM sqlite_master", &tables, e);
	if (rc)
		return rc;
	if (id != SCHEMA_APPLICATION_ID && (id || *version || tables))
		return err_set(e, -EPROTO,
			       "%s is another program's SQLite file (application_id 0x%08x), not a maildex index: name "
			       "another file as `index`",
			       db->path, (unsigned)id);
	if (*version > schema->version)
		return err_set(
			e, -EPROTO,
			"index %s has schema version %lld, this maildex knows up to %d: install the newer maildex, "
			"or delete the index (maildexd builds it again)",
			db->path, (long long)*version, schema->version);
	if (*version < 0)
		return db_damaged(db, e, "schema version %lld", (long long)*version);
	return 0;
}

static int upgrade_once(struct db *db, const struct schema *schema, int64_t version, struct err *e)
{
	char *mark = sqlite3_mprintf(
		"PRAGMA application_id = " STRING(SCHEMA_APPLICATION_ID) "; "
									 "PRAGMA user_version = %lld; COMMIT",
		(long long)version + 1);
	int rc;

	if (!mark)
		return err_set(e, -ENOMEM, "index %s: out of memory", db->path);
	rc = db_exec(db, "BEGIN IMMEDIATE", e);
	if (!rc)
		rc = db_exec(db, schema->upgrades[version], e);
	if (!rc)
		rc = db_exec(db, mark, e);
	if (rc && !sqlite3_get_autocommit(db->sql))
		db_exec(db, "ROLLBACK", NULL);
	sqlite3_free(mark);
	return rc;
}

/*
 * A cheap look only: the header, the schema and a first row of each table can be read. PRAGMA quick_check reads the
 * whole file, minutes for gigabytes; the rows' checksums catch the rest when they are loaded.
 */
static int probe(struct db *db, struct err *e)
{
	static const char *const texts[] = {
		"SELECT count(*) FROM (SELECT value FROM fact LIMIT 1)",
		"SELECT count(*) FROM (SELECT folder FROM half LIMIT 1)",
		"SELECT count(*) FROM (SELECT ino FROM message LIMIT 1)",
	};
	int64_t number;
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(texts) / sizeof(texts[0]); i++)
		rc = db_number(db, texts[i], &number, e);
	return rc;
}

/*
 * synchronous = NORMAL: in WAL mode the disk is synced at checkpoints, not at each commit. A commit lost with the power
 * gives back an older row, names and `known` of one transaction: the check at the next opendir finds it stale by the
 * directory's stamp, as it would any old row. The index is a cache: FULL would buy nothing, and OFF could leave a torn
 * file.
 * page_size 4096: a delivery dirties a few pages, and each is written whole, twice. Larger ones saved no space.
 * The WAL is copied back each 16 MB, and cut to 64 MB after a rebuild's large transactions.
 */
static int tune(struct db *db, struct err *e)
{
	sqlite3_stmt *s;
	bool wal;
	int rc = db_exec(db, "PRAGMA page_size = 4096; PRAGMA auto_vacuum = NONE", e);

	if (rc)
		return rc;
	if (sqlite3_prepare_v2(db->sql, "PRAGMA journal_mode = WAL", -1, &s, NULL) != SQLITE_OK)
		return db_error(db, e);
	rc = sqlite3_step(s) == SQLITE_ROW ? 0 : db_error(db, e);
	wal = !rc && strcmp((const char *)sqlite3_column_text(s, 0), "wal") == 0;
	sqlite3_finalize(s);
	if (rc)
		return rc;
	if (!wal)
		return err_set(e, -ENOTSUP,
			       "index %s: a write-ahead log is not possible there: put it on a local disk's filesystem",
			       db->path);
	return db_exec(db,
		       "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4096; "
		       "PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -32768",
		       e);
}

int schema_upgrade(struct db *db, const struct schema *schema, struct err *e)
{
	int64_t version;
	int rc = read_version(db, schema, &version, e);

	if (!rc)
		rc = tune(db, e);
	for (; !rc && version < schema->version; version++)
		rc = upgrade_once(db, schema, version, e);
	if (!rc)
		rc = probe(db, e);
	return rc;
}

int schema_check(struct db *db, const struct schema *schema, struct err *e)
{
	int64_t version;
	int rc = read_version(db, schema, &version, e);

	if (rc)
		return rc;
	if (version < schema->version)
		return err_set(e, -ENOENT, "index %s is not made yet or waits for its upgrade: start maildexd",
			       db->path);
	return probe(db, e);
}

static int take_tree(struct db *db, const char *tree, struct err *e)
{
	sqlite3_stmt *s;
	int rc = db_stmt(db, SQL_FACT_SET, &s, e);

	if (rc)
		return rc;
	sqlite3_bind_text(s, 1, "tree", -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 2, tree, -1, SQLITE_STATIC);
	return db_run(db, s, e);
}

int schema_tree(struct db *db, const char *tree, bool take, struct err *e)
{
	const char *built_for;
	sqlite3_stmt *s;
	int rc;

	if (!tree)
		return 0;
	rc = db_stmt(db, SQL_FACT_FIND, &s, e);
	if (rc)
		return rc;
	sqlite3_bind_text(s, 1, "tree", -1, SQLITE_STATIC);
	rc = db_step(db, s, e);
	if (rc < 0)
		return rc;
	if (rc == 0 && take)
		return take_tree(db, tree, e);
	if (rc == 0)
		return err_set(e, -ENOENT, "index %s has no tree yet: start maildexd", db->path);
	built_for = (const char *)sqlite3_column_text(s, 0);
	rc = 0;
	if (!built_for || strcmp(built_for, tree) != 0)
		rc = err_set(e, -EXDEV,
			     "index %s was built for the tree \"%s\", but root is now \"%s\": mount the right tree, or "
			     "delete the index (maildexd builds it again)",
			     db->path, built_for ? built_for : "", tree);
	sqlite3_reset(s);
	return rc;
}
