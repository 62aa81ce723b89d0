/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The index file under its writer: what a check finds, and that it discards only what it found itself. */
#include <sqlite3.h>

#include "tests/unit/indexer_help.h"

/* A row for each of the folders "0", "1"... */
static void hold(struct help *h, int rows)
{
	struct store_writer *w = h->file.writer;
	struct store_row row;
	char folder[16];

	OK(h, store_writer_begin(w, &h->err));
	for (int i = 0; i < rows; i++) {
		snprintf(folder, sizeof(folder), "%d", i);
		OK(h, store_writer_row(w, folder, HALF_CUR, true, &row, &h->err));
	}
	OK(h, store_writer_commit(w, &h->err));
}

static uint64_t rows(struct help *h)
{
	struct store_reader *reader;
	struct store_totals totals;

	OK(h, store_reader_open(&reader, h->index, NULL, &h->err));
	OK(h, store_reader_totals(reader, &totals, &h->err));
	store_reader_close(reader);
	return totals.halves;
}

static void spoil(struct help *h, const char *text)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(h->index, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

/* After a check so many were found damaged so far, and the index has so many rows. */
static void check(struct help *h, uint64_t damaged, uint64_t left)
{
	OK(h, indexfile_check(&h->file));
	assert_int_equal(tally_get(&h->tally, TALLY_INDEX_DAMAGED), damaged);
	assert_int_equal(rows(h), left);
}

/* The file is the same, but what it holds stood in the log. */
static void log_deleted(void **state)
{
	static const char *const suffixes[] = {"-wal", "-shm"};
	struct help *h = *state;
	char name[128];

	for (unsigned i = 0; i < 2; i++) {
		hold(h, 3);
		check(h, i, 3);
		snprintf(name, sizeof(name), "%s%s", h->index, suffixes[i]);
		assert_int_equal(unlink(name), 0);
		check(h, i + 1, 0);
	}
	hold(h, 2);
	check(h, 2, 2);
}

static void emptied(void **state)
{
	struct help *h = *state;

	hold(h, 3);
	assert_int_equal(truncate(h->index, 0), 0);
	check(h, 1, 0);
	hold(h, 2);
	check(h, 1, 2);
}

/* Somebody's word is checked; rows are read only upon it, what makes it an index each time. */
static void readers_meet_damage(void **state)
{
	struct help *h = *state;

	hold(h, 3);
	indexfile_seen(&h->file, -EUCLEAN);
	check(h, 0, 3);
	spoil(h, "UPDATE half SET parked = x'00' WHERE folder = x'31'");
	check(h, 0, 3);
	indexfile_seen(&h->file, -ENOENT);
	check(h, 0, 3);
	indexfile_seen(&h->file, -EUCLEAN);
	check(h, 1, 0);
	hold(h, 2);
	indexfile_seen(&h->file, -EUCLEAN);
	check(h, 1, 2);
	spoil(h, "PRAGMA user_version = -1");
	check(h, 2, 0);
}

/* Another file comes by rename: with the old one's log beside it, it would be neither of both. */
static void replaced(void **state)
{
	struct help *h = *state;
	char other[128], text[160];

	hold(h, 3);
	snprintf(other, sizeof(other), "%s.other", h->index);
	snprintf(text, sizeof(text), "VACUUM INTO '%s'", other);
	spoil(h, text);
	hold(h, 200); /* in the log */
	assert_int_equal(rename(other, h->index), 0);
	check(h, 0, 3);
	assert_int_equal(tally_get(&h->tally, TALLY_INDEX_REOPENED), 1);
	hold(h, 4);
	check(h, 0, 4);
}

#define T(f) cmocka_unit_test_setup_teardown(f, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {T(log_deleted), T(emptied), T(readers_meet_damage), T(replaced)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
