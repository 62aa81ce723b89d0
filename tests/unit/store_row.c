/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/store_help.h"

static void begin(struct help *h, struct store_writer *w)
{
	OK(h, store_writer_begin(w, &h->err));
}

static void commit(struct help *h, struct store_writer *w)
{
	OK(h, store_writer_commit(w, &h->err));
}

static struct stamp stamp(uint64_t seed, bool sized)
{
	return (struct stamp){.dev = seed * 0x9e3779b97f4a7c15U,
			      .ino = UINT64_MAX - seed,
			      .ctime_ns = -(int64_t)seed * 1000000007,
			      .mtime_ns = STAMP_NS_MAX - (int64_t)seed,
			      .size = seed << 40,
			      .sized = sized};
}

static void assert_stamp(const struct stamp *a, const struct stamp *b)
{
	assert_int_equal(a->dev, b->dev);
	assert_int_equal(a->ino, b->ino);
	assert_int_equal(a->ctime_ns, b->ctime_ns);
	assert_int_equal(a->mtime_ns, b->mtime_ns);
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->sized, b->sized);
}

static void assert_row(const struct store_row *a, const struct store_row *b)
{
	assert_int_equal(a->id, b->id);
	assert_string_equal(a->folder, b->folder);
	assert_int_equal(a->half, b->half);
	assert_stamp(&a->fresh.known, &b->fresh.known);
	assert_int_equal(a->fresh.seen_ns, b->fresh.seen_ns);
	assert_int_equal(a->fresh.need, b->fresh.need);
	assert_int_equal(a->fresh.unsettled, b->fresh.unsettled);
	assert_int_equal(a->fresh.trust, b->fresh.trust);
	assert_int_equal(a->fresh.trust_since_ns, b->fresh.trust_since_ns);
	assert_int_equal(a->fresh.gen, b->fresh.gen);
	assert_int_equal(a->fresh.nparked, b->fresh.nparked);
	for (unsigned i = 0; i < a->fresh.nparked; i++) {
		assert_stamp(&a->fresh.parked[i].pre, &b->fresh.parked[i].pre);
		assert_stamp(&a->fresh.parked[i].post, &b->fresh.parked[i].post);
	}
	assert_int_equal(a->count, b->count);
	assert_int_equal(a->sum, b->sum);
	assert_int_equal(a->scanned_ns, b->scanned_ns);
}

/* Each flag alone, and 0 to 4 parked windows. */
static void test_fields_round_trip(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_reader *r;

	for (unsigned i = 0; i < 16; i++) {
		struct store_row row, found;

		begin(h, w);
		assert_int_equal(OK(h, store_writer_row(w, "user/.Sent", HALF_NEW, true, &row, &h->err)), 1);
		row.fresh.known = stamp(i, i & 1);
		row.fresh.seen_ns = INT64_MIN + i;
		row.fresh.need = i % 4 == 0;
		row.fresh.unsettled = i % 4 == 1;
		row.fresh.trust = i % 4 == 2;
		row.fresh.trust_since_ns = 1700000000000000000 + i;
		row.fresh.gen = UINT64_MAX - i;
		row.fresh.nparked = i % (FRESH_PARKED_MAX + 1);
		for (unsigned k = 0; k < row.fresh.nparked; k++)
			row.fresh.parked[k] = (struct window){stamp(100 * i + k, k & 1), stamp(200 * i + k, !(k & 1))};
		row.count = UINT64_MAX / 3 + i;
		row.sum = UINT64_MAX - i;
		row.scanned_ns = 1800000000000000000 + i;
		OK(h, store_writer_save(w, &row, &h->err));
		commit(h, w);
		assert_int_equal(OK(h, store_writer_row(w, "user/.Sent", HALF_NEW, false, &found, &h->err)), 1);
		assert_row(&found, &row);
		r = help_reader(h);
		memset(&found, 0xa5, sizeof(found));
		assert_int_equal(OK(h, store_reader_half(r, "user/.Sent", HALF_NEW, &found, NULL, &h->err)), 1);
		assert_row(&found, &row);
		store_reader_close(r);
	}
	store_writer_close(w);
}

static void test_rows_are_made(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_row row, again;

	assert_int_equal(OK(h, store_writer_row(w, "", HALF_CUR, false, &row, &h->err)), 0);
	assert_int_equal(row.id, 0);
	REFUSED(h, -EUCLEAN, "gone", store_writer_save(w, &row, &h->err));
	assert_int_equal(OK(h, store_writer_row(w, "", HALF_CUR, true, &row, &h->err)), 1);
	assert_true(row.id > 0 && row.fresh.need);
	assert_int_equal(OK(h, store_writer_row(w, "", HALF_CUR, true, &again, &h->err)), 1);
	assert_row(&again, &row);
	assert_int_equal(OK(h, store_writer_row(w, "", HALF_NEW, true, &again, &h->err)), 1);
	assert_int_not_equal(again.id, row.id);
	/* A dropped row's number is not given to another: its old holder must not write to that. */
	OK(h, store_writer_drop(w, "", false, &h->err));
	REFUSED(h, -EUCLEAN, "gone", store_writer_save(w, &again, &h->err));
	assert_int_equal(OK(h, store_writer_row(w, "x", HALF_NEW, true, &row, &h->err)), 1);
	assert_true(row.id > again.id);
	store_writer_close(w);
}

/* Folders that sort between a folder and what is below it, and bytes at both ends. */
static const char *const folders[] = {
	"a",  "a/b", "a/b/c", "a/\xff\xff", "a/\x01\n", "a.b",           "a0",
	"ab", "a!",  "\xff",  "\xff/x",     "\xff\xff", "\xc3\xa4/\xc3", "",
};

static void make_folders(struct help *h, struct store_writer *w)
{
	struct listing l;

	listing_init(&l);
	help_fill(&l, "", 3);
	OK(h, store_writer_drop(w, "", true, &h->err));
	for (size_t i = 0; i < LEN(folders); i++)
		help_store(h, w, folders[i], &l);
	listing_release(&l);
}

static bool has_folder(struct help *h, struct store_writer *w, const char *folder)
{
	struct store_row row;

	return OK(h, store_writer_row(w, folder, HALF_CUR, false, &row, &h->err)) == 1;
}

static void test_drop(void **state)
{
	static const struct {
		const char *folder;
		bool below;
		size_t gone;
	} cases[] = {
		{"a", false, 1},          {"a", true, 5},        {"a/b", true, 2},  {"", false, 1},
		{"", true, LEN(folders)}, {"\xff", true, 2},     {"ab", true, 1},   {"b", true, 0},
		{"a/", true, 0},          {"\xc3\xa4", true, 1}, {"\xc3", true, 0},
	};
	struct help *h = *state;
	struct store_writer *w = help_writer(h);

	for (size_t i = 0; i < LEN(cases); i++) {
		size_t len = strlen(cases[i].folder), gone = 0;

		make_folders(h, w);
		OK(h, store_writer_drop(w, cases[i].folder, cases[i].below, &h->err));
		for (size_t k = 0; k < LEN(folders); k++) {
			bool there = has_folder(h, w, folders[k]);
			bool meant =
				strcmp(folders[k], cases[i].folder) == 0 ||
				(cases[i].below &&
				 (!len || (strncmp(folders[k], cases[i].folder, len) == 0 && folders[k][len] == '/')));

			assert_int_equal(there, !meant);
			gone += !there;
		}
		assert_int_equal(gone, cases[i].gone);
		assert_int_equal(help_number(h, "SELECT count(*) FROM message"), 3 * (LEN(folders) - gone));
	}
	store_writer_close(w);
}

static void test_rename(void **state)
{
	static const struct {
		const char *from, *to, *moved, *moved_to, *replaced, *stays;
	} cases[] = {
		{"a", "z", "a/b/c", "z/b/c", NULL, "ab"},
		{"a", "\xfe\n", "a/\xff\xff", "\xfe\n/\xff\xff", NULL, "a.b"},
		{"a/b", "a/d", "a/b/c", "a/d/c", NULL, "a/\x01\n"},
		{"a", "\xff", "a/b", "\xff/b", "\xff/x", "\xff\xff"},
		{"\xc3\xa4", "ab", "\xc3\xa4/\xc3", "ab/\xc3", "ab", "a0"},
		{"ab", "longer/than/it", "ab", "longer/than/it", NULL, "a"},
	};
	struct help *h = *state;
	struct store_writer *w = help_writer(h);

	for (size_t i = 0; i < LEN(cases); i++) {
		struct store_row row, before;
		struct listing l;

		make_folders(h, w);
		listing_init(&l);
		OK(h, store_writer_row(w, cases[i].moved, HALF_CUR, false, &before, &h->err));
		OK(h, store_writer_rename(w, cases[i].from, cases[i].to, &h->err));
		assert_false(has_folder(h, w, cases[i].from));
		assert_false(has_folder(h, w, cases[i].moved));
		assert_true(!cases[i].replaced || !has_folder(h, w, cases[i].replaced));
		help_load(h, cases[i].moved_to, &row, &l);
		assert_int_equal(row.id, before.id);
		assert_int_equal(l.count, 3);
		assert_false(row.fresh.need);
		assert_true(stamp_eq(&row.fresh.known, &before.fresh.known));
		OK(h, store_writer_row(w, cases[i].stays, HALF_CUR, false, &row, &h->err));
		assert_true(row.id > 0 && !row.fresh.need);
		assert_int_equal(help_number(h, "SELECT count(*) FROM half WHERE typeof(folder) <> 'blob'"), 0);
		assert_int_equal(help_number(h, "SELECT count(*) FROM message WHERE half NOT IN (SELECT id FROM half)"),
				 0);
		listing_release(&l);
	}
	assert_int_equal(store_writer_rename(w, "", "x", NULL), -EINVAL);
	assert_int_equal(store_writer_rename(w, "x", "", NULL), -EINVAL);
	OK(h, store_writer_rename(w, "a", "a", &h->err));
	assert_true(has_folder(h, w, "a/b"));
	store_writer_close(w);
}

/* `len` bytes that begin with `top`; below it parts of 199. */
static void long_path(char *path, size_t len, const char *top)
{
	size_t top_len = strlen(top);

	memcpy(path, top, top_len);
	for (size_t i = top_len; i < len; i++)
		path[i] = (i - top_len) % 200 == 199 ? '/' : 'd';
}

/* A path that becomes longer than any that is served is forgotten; the longest possible stays. */
static void test_rename_grows_too_long(void **state)
{
	static char deep[FOLDER_PATH_MAX + 1], deeper[FOLDER_PATH_MAX + 1], fits[FOLDER_PATH_MAX + 1];
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct listing l;

	long_path(deep, FOLDER_PATH_MAX - 1, "a/");
	long_path(deeper, FOLDER_PATH_MAX, "a/");
	listing_init(&l);
	help_fill(&l, "", 2);
	help_store(h, w, deep, &l);
	help_store(h, w, deeper, &l);
	OK(h, store_writer_rename(w, "a", "aa", &h->err));
	long_path(fits, FOLDER_PATH_MAX, "aa/");
	assert_true(has_folder(h, w, fits));
	assert_int_equal(help_number(h, "SELECT count(*) FROM half"), 1);
	assert_int_equal(help_number(h, "SELECT count(*) FROM message"), 2);
	listing_release(&l);
	store_writer_close(w);
}

static void test_gap(void **state)
{
	static const struct {
		bool trust, need, after;
	} cases[] = {{false, false, false}, {true, false, true}, {true, true, true}, {false, true, true}};
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_row row;

	for (size_t i = 0; i < LEN(cases); i++) {
		OK(h, store_writer_row(w, folders[i], HALF_NEW, true, &row, &h->err));
		row.fresh.trust = cases[i].trust;
		row.fresh.need = cases[i].need;
		OK(h, store_writer_save(w, &row, &h->err));
	}
	OK(h, store_writer_gap(w, &h->err));
	for (size_t i = 0; i < LEN(cases); i++) {
		OK(h, store_writer_row(w, folders[i], HALF_NEW, false, &row, &h->err));
		assert_int_equal(row.fresh.need, cases[i].after);
		assert_int_equal(row.fresh.trust, cases[i].trust);
	}
	store_writer_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_fields_round_trip),     TEST(test_rows_are_made), TEST(test_drop), TEST(test_rename),
		TEST(test_rename_grows_too_long), TEST(test_gap),
	};

	return cmocka_run_group_tests_name("store_row", tests, NULL, NULL);
}
