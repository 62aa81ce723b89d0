/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/store/schema.h"
#include "tests/unit/store_help.h"

/* Whose file it is must not depend on what was written: the bytes before and after a refusal. */
static size_t read_all(const struct help *h, char *out, size_t size)
{
	int fd = open(h->path, O_RDONLY);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, out, size);
	close(fd);
	assert_true(n >= 0 && (size_t)n < size);
	return (size_t)n;
}

static void write_all(const struct help *h, const char *text)
{
	FILE *f = fopen(h->path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* Both refuse the file with the code and the word, and leave every byte of it. */
static void both_refuse(struct help *h, int code, const char *word)
{
	static char before[1 << 20], after[1 << 20];
	struct store_writer *w;
	struct store_reader *r;
	size_t len = read_all(h, before, sizeof(before));

	REFUSED(h, code, word, store_writer_open(&w, h->path, TREE, &h->err));
	REFUSED(h, code, word, store_reader_open(&r, h->path, TREE, &h->err));
	assert_int_equal(read_all(h, after, sizeof(after)), len);
	assert_memory_equal(before, after, len);
}

static void test_new_file(void **state)
{
	struct help *h = *state;
	struct stat st;
	mode_t mask = umask(0077);

	store_writer_close(help_writer(h));
	umask(mask);
	assert_int_equal(help_number(h, "PRAGMA user_version"), schema_current.version);
	assert_int_equal(help_number(h, "PRAGMA application_id"), SCHEMA_APPLICATION_ID);
	assert_int_equal(help_number(h, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
	assert_int_equal(stat(h->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	/* Opening it again changes nothing. */
	store_writer_close(help_writer(h));
	store_reader_close(help_reader(h));
}

/* A crash after the file got its WAL mode and before the first upgrade. */
static void test_file_half_made(void **state)
{
	struct help *h = *state;
	struct store_reader *r;

	help_sql(h, "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL");
	REFUSED(h, -ENOENT, "maildexd", store_reader_open(&r, h->path, TREE, &h->err));
	store_writer_close(help_writer(h));
	store_reader_close(help_reader(h));
}

static void test_empty_file(void **state)
{
	struct help *h = *state;
	struct store_reader *r;
	struct stat st;

	write_all(h, "");
	REFUSED(h, -ENOENT, "maildexd", store_reader_open(&r, h->path, TREE, &h->err));
	assert_int_equal(stat(h->path, &st), 0);
	assert_int_equal(st.st_size, 0);
	store_writer_close(help_writer(h));
	store_reader_close(help_reader(h));
}

static void open_db(struct help *h, struct db *db)
{
	OK(h, db_open(db, h->path, SQLITE_OPEN_READWRITE, 1000, &h->err));
}

static void test_upgrades(void **state)
{
	struct help *h = *state;
	const char *texts[] = {
		schema_current.upgrades[0],
		"ALTER TABLE fact ADD COLUMN extra; UPDATE fact SET extra = 'two'",
		"CREATE TABLE third(x); INSERT INTO third VALUES(3)",
	};
	struct db db;

	store_writer_close(help_writer(h));
	for (int version = 1; version <= 3; version++) {
		struct schema s = {texts, version};

		open_db(h, &db);
		OK(h, schema_upgrade(&db, &s, &h->err));
		OK(h, schema_check(&db, &s, &h->err));
		db_close(&db);
		assert_int_equal(help_number(h, "PRAGMA user_version"), version);
	}
	/* What the first version held went through them all. */
	assert_int_equal(help_number(h, "SELECT count(*) FROM fact, third WHERE key = 'tree' AND value = '" TREE
					"' AND extra = 'two' AND x = 3"),
			 1);
	both_refuse(h, -EPROTO, "has schema version 3, this maildex knows up to 1");
}

/* From an empty file, all upgrades in one go. */
static void test_upgrades_at_once(void **state)
{
	struct help *h = *state;
	const char *texts[] = {schema_current.upgrades[0], "CREATE TABLE second(x)"};
	struct schema s = {texts, 2};
	struct db db;

	write_all(h, "");
	open_db(h, &db);
	OK(h, schema_upgrade(&db, &s, &h->err));
	db_close(&db);
	assert_int_equal(help_number(h, "PRAGMA user_version"), 2);
	assert_int_equal(help_number(h, "SELECT count(*) FROM second"), 0);
}

static void test_upgrade_fails_whole(void **state)
{
	struct help *h = *state;
	const char *texts[] = {schema_current.upgrades[0], "CREATE TABLE second(x); INSERT INTO nowhere VALUES(1)"};
	struct schema s = {texts, 2};
	struct db db;

	store_writer_close(help_writer(h));
	open_db(h, &db);
	REFUSED(h, -EUCLEAN, "nowhere", schema_upgrade(&db, &s, &h->err));
	db_close(&db);
	assert_int_equal(help_number(h, "PRAGMA user_version"), 1);
	assert_int_equal(help_number(h, "SELECT count(*) FROM sqlite_master WHERE name = 'second'"), 0);
	store_writer_close(help_writer(h));
}

/* A new maildexfs beside a maildexd that was not restarted yet. */
static void test_reader_waits_for_upgrade(void **state)
{
	struct help *h = *state;
	const char *texts[] = {schema_current.upgrades[0], "CREATE TABLE second(x)"};
	struct schema s = {texts, 2};
	struct db db;

	store_writer_close(help_writer(h));
	open_db(h, &db);
	REFUSED(h, -ENOENT, "upgrade", schema_check(&db, &s, &h->err));
	db_close(&db);
}

static void test_future_version(void **state)
{
	struct help *h = *state;

	store_writer_close(help_writer(h));
	help_sql(h, "PRAGMA user_version = 9; PRAGMA wal_checkpoint");
	both_refuse(h, -EPROTO, "has schema version 9, this maildex knows up to 1");
}

static void test_another_programs_file(void **state)
{
	static const char *const files[] = {
		"PRAGMA application_id = 1196444487; CREATE TABLE layer(x)",
		"PRAGMA application_id = 1196444487",
		"CREATE TABLE cookies(x); INSERT INTO cookies VALUES('mine')",
		"PRAGMA user_version = 1",
	};
	struct help *h = *state;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		unlink(h->path);
		help_sql(h, files[i]);
		both_refuse(h, -EPROTO, "another program's");
	}
}

static void test_no_database(void **state)
{
	struct help *h = *state;
	char aside[128];
	struct stat st;

	write_all(h, "This was never an index. It is a letter, longer than the hundred bytes that SQLite takes for its "
		     "header, so that nobody can mistake it for an empty one.\n");
	both_refuse(h, -EUCLEAN, "delete it");
	OK(h, store_discard(h->path, &h->err));
	snprintf(aside, sizeof(aside), "%s.damaged", h->path);
	assert_int_equal(stat(aside, &st), 0);
	assert_int_equal(stat(h->path, &st), -1);
	store_writer_close(help_writer(h));
	store_reader_close(help_reader(h));
}

static void test_tables_are_missing(void **state)
{
	struct help *h = *state;

	store_writer_close(help_writer(h));
	help_sql(h, "DROP TABLE message; PRAGMA wal_checkpoint");
	both_refuse(h, -EUCLEAN, "message");
}

static void test_other_tree(void **state)
{
	struct help *h = *state;
	struct store_writer *w;
	struct store_reader *r;

	store_writer_close(help_writer(h));
	REFUSED(h, -EXDEV, TREE, store_writer_open(&w, h->path, "nfs4 filer:/mail 2", &h->err));
	assert_non_null(strstr(h->err.text, "nfs4 filer:/mail 2"));
	REFUSED(h, -EXDEV, TREE, store_reader_open(&r, h->path, "nfs4 filer:/mail 2", &h->err));
	OK(h, store_reader_open(&r, h->path, NULL, &h->err));
	store_reader_close(r);
	store_writer_close(help_writer(h));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_new_file),
		TEST(test_file_half_made),
		TEST(test_empty_file),
		TEST(test_upgrades),
		TEST(test_upgrades_at_once),
		TEST(test_upgrade_fails_whole),
		TEST(test_reader_waits_for_upgrade),
		TEST(test_future_version),
		TEST(test_another_programs_file),
		TEST(test_no_database),
		TEST(test_tables_are_missing),
		TEST(test_other_tree),
	};

	return cmocka_run_group_tests_name("store_schema", tests, NULL, NULL);
}
