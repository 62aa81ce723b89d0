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

static void assert_names(struct help *h, struct store_writer *w, const struct store_row *row,
			 const struct listing *expected)
{
	struct store_row stored;
	struct listing l;
	struct listing_entry entry;
	size_t at = 0;

	OK(h, store_writer_save(w, row, &h->err));
	listing_init(&l);
	help_load(h, row->folder, &stored, &l);
	assert_int_equal(l.count, expected->count);
	assert_int_equal(l.sum, expected->sum);
	while (listing_next(expected, &at, &entry))
		assert_true(help_has(&l, entry.name, entry.len, entry.ino));
	listing_release(&l);
}

static void add_typed(struct listing *l, const char *name, uint64_t ino, uint8_t type)
{
	struct listing_entry entry = help_entry(name, ino);

	entry.type = type;
	assert_int_equal(listing_add(l, &entry), 0);
}

static void test_put_and_remove(void **state)
{
	static const struct {
		const char *name;
		uint64_t ino;
		uint8_t type;
		uint64_t count;
	} steps[] = {
		{"1.M1.a:2,S", 7, DT_REG, 1},          {"1.M1.a:2,S", 7, DT_REG, 1},
		{"1.M1.a:2,S", UINT64_MAX, DT_REG, 1}, {"1.M1.a:2,S", UINT64_MAX, DT_DIR, 1},
		{"\xff\n\x01:", 8, DT_UNKNOWN, 2},     {":2,S", 9, DT_REG, 3},
	};
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_row row;
	struct listing expected;

	listing_init(&expected);
	OK(h, store_writer_row(w, "a", HALF_CUR, true, &row, &h->err));
	for (size_t i = 0; i < LEN(steps); i++) {
		struct listing_entry entry = help_entry(steps[i].name, steps[i].ino), found;
		struct listing l;
		size_t at = 0;

		entry.type = steps[i].type;
		OK(h, store_writer_put(w, &row, &entry, &h->err));
		assert_int_equal(row.count, steps[i].count);
		listing_init(&l);
		OK(h, store_writer_names(w, &row, entry.name, entry.len, &l, &h->err));
		assert_int_equal(listing_next(&l, &at, &found), 1);
		assert_int_equal(found.type, entry.type);
		assert_int_equal(found.ino, entry.ino);
		listing_release(&l);
	}
	add_typed(&expected, "1.M1.a:2,S", UINT64_MAX, DT_DIR);
	add_typed(&expected, "\xff\n\x01:", 8, DT_UNKNOWN);
	help_add(&expected, ":2,S", 9);
	assert_names(h, w, &row, &expected);
	OK(h, store_writer_remove(w, &row, "1.M1.a", 6, &h->err));
	assert_names(h, w, &row, &expected);
	OK(h, store_writer_remove(w, &row, "1.M1.a:2,S", 10, &h->err));
	OK(h, store_writer_remove(w, &row, ":2,S", 4, &h->err));
	OK(h, store_writer_remove(w, &row, ":2,S", 4, &h->err));
	listing_reset(&expected);
	add_typed(&expected, "\xff\n\x01:", 8, DT_UNKNOWN);
	assert_names(h, w, &row, &expected);
	assert_int_equal(store_writer_put(w, &row, &(struct listing_entry){.name = "a/b", .len = 3}, NULL), -EINVAL);
	listing_release(&expected);
	store_writer_close(w);
}

/* Which names are one message: by bytes, whatever sorts between them. */
static void test_names_of_a_message(void **state)
{
	static char long_name[NAME_LEN_MAX + 1], long_base[NAME_LEN_MAX + 1];
	static const char *const stored[] = {
		"1",    "1:",   "1:2,",    "1:2,S",   "1:2,FS:x", "1!:2,S", "10",     "10:2,S",        "1;",
		":",    "::2,", ":2,S",    ":2,S:2,", ":2",       "\xff",   "\xff:2", "\xff\xff:\n2,", "a\nb:2,S",
		"a\nb", "a\n",  long_name, long_base,
	};
	static const struct {
		const char *asked;
		size_t found;
	} cases[] = {
		{"1", 5},   {"1:2,F", 5},   {"10:2,", 2}, {"1!", 1},     {"1;:2,", 1},    {":2,S", 2},
		{":2", 1},  {":", 2},       {"::2,X", 2}, {"\xff:", 2},  {"\xff\xff", 1}, {"a\nb:2,F", 2},
		{"a\n", 1}, {long_name, 2}, {"2", 0},     {"\xfe:2", 0},
	};
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_row row;
	struct listing l;

	memset(long_base, 'L', NAME_LEN_MAX - 4);
	memset(long_name, 'L', NAME_LEN_MAX - 4);
	strcpy(long_name + NAME_LEN_MAX - 4, ":2,S");
	assert_int_equal(strlen(long_name), NAME_LEN_MAX);
	OK(h, store_writer_row(w, "a", HALF_CUR, true, &row, &h->err));
	for (size_t i = 0; i < LEN(stored); i++)
		OK(h, store_writer_put(
			      w, &row,
			      &(struct listing_entry){
				      .ino = i, .type = DT_REG, .len = (uint8_t)strlen(stored[i]), .name = stored[i]},
			      &h->err));
	listing_init(&l);
	for (size_t i = 0; i < LEN(cases); i++) {
		struct listing_entry entry;
		size_t at = 0;

		OK(h, store_writer_names(w, &row, cases[i].asked, strlen(cases[i].asked), &l, &h->err));
		assert_int_equal(l.count, cases[i].found);
		while (listing_next(&l, &at, &entry))
			assert_true(name_same_base(entry.name, entry.len, cases[i].asked, strlen(cases[i].asked)));
	}
	/* More than a plan can hold is seen as such, and no more than that is looked for. */
	for (unsigned i = 0; i < 2 * STORE_NAMES_MAX; i++) {
		char name[32];

		snprintf(name, sizeof(name), "many:2,%u", i);
		OK(h, store_writer_put(w, &row, &(struct listing_entry){.name = name, .len = (uint8_t)strlen(name)},
				       &h->err));
	}
	OK(h, store_writer_names(w, &row, "many", 4, &l, &h->err));
	assert_int_equal(l.count, STORE_NAMES_MAX);
	listing_release(&l);
	store_writer_close(w);
}

/* A word is "name=inode"; one letter is a whole name. */
static void words_to_listing(const char *words, struct listing *l)
{
	char copy[128], *next = copy, *word;

	snprintf(copy, sizeof(copy), "%s", words);
	listing_reset(l);
	while ((word = strsep(&next, " ")))
		if (*word) {
			char *equals = strchr(word, '=');

			*equals = '\0';
			help_add(l, word, strtoull(equals + 1, NULL, 10));
		}
}

static void test_replace_writes_differences(void **state)
{
	static const struct {
		const char *from, *to;
		uint64_t changed;
	} cases[] = {
		{"", "", 0},
		{"", "a=1", 1},
		{"a=1", "", 1},
		{"a=1 b=2 c=3", "c=3 b=2 a=1", 0},
		{"a=1 b=2 c=3", "b=2", 2},
		{"b=2", "a=1 b=2 c=3", 2},
		{"a=1 b=2 c=3", "a=1 b=9 c=3", 1},
		{"a=1 c=3 e=5", "b=2 d=4 f=6", 6},
		{"b=2 d=4 f=6", "a=1 c=3 e=5", 6},
		{"a=1 ab=2 abc=3", "abc=3 a=1", 1},
		{"a=1 b=2 c=3 d=4", "d=5 c=3 a=1 e=6", 3},
		{"x:2,S=1 y:2,=2", "x:2,FS=1 y:2,=2", 2},
	};
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct listing from, to;

	listing_init(&from);
	listing_init(&to);
	for (size_t i = 0; i < LEN(cases); i++) {
		struct store_row row;

		words_to_listing(cases[i].from, &from);
		words_to_listing(cases[i].to, &to);
		help_store(h, w, "a", &from);
		assert_int_equal(help_store(h, w, "a", &to), cases[i].changed);
		OK(h, store_writer_row(w, "a", HALF_CUR, false, &row, &h->err));
		assert_int_equal(row.count, to.count);
		assert_int_equal(row.sum, to.sum);
		assert_names(h, w, &row, &to);
	}
	listing_release(&from);
	listing_release(&to);
	store_writer_close(w);
}

/* A type that is better known now is written; a name that a listing has twice is stored once. */
static void test_replace_types_and_twins(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct listing_entry entry = help_entry("a", 1);
	struct listing l;
	struct store_row row;

	listing_init(&l);
	entry.type = DT_UNKNOWN;
	assert_int_equal(listing_add(&l, &entry), 0);
	assert_int_equal(help_store(h, w, "a", &l), 1);
	listing_reset(&l);
	help_add(&l, "a", 1);
	assert_int_equal(help_store(h, w, "a", &l), 1);
	help_add(&l, "b", 2);
	help_add(&l, "a", 1);
	assert_int_equal(help_store(h, w, "a", &l), 1);
	OK(h, store_writer_row(w, "a", HALF_CUR, false, &row, &h->err));
	assert_int_equal(row.count, 2);
	listing_reset(&l);
	help_load(h, "a", &row, &l);
	assert_int_equal(l.count, 2);
	listing_release(&l);
	store_writer_close(w);
}

/* Names that are not those of the row's sum are all written, whatever they look like beside the listing. */
static void test_replace_heals(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_row row;
	struct listing l;

	listing_init(&l);
	help_fill(&l, "", 100);
	help_store(h, w, "a", &l);
	assert_false(store_writer_healed(w));
	help_sql(h, "UPDATE half SET sum = sum + 1");
	assert_int_equal(help_store(h, w, "a", &l), 100);
	assert_true(store_writer_healed(w));
	OK(h, store_writer_row(w, "a", HALF_CUR, false, &row, &h->err));
	assert_names(h, w, &row, &l);
	assert_int_equal(help_store(h, w, "a", &l), 0);
	assert_false(store_writer_healed(w));
	listing_release(&l);
	store_writer_close(w);
}

/* The log belongs to the file: without it, or with another one, the file is not what was opened. */
static void test_log_goes(void **state)
{
	static const char *const suffixes[] = {"-wal", "-shm"};
	struct help *h = *state;
	char name[200];

	for (size_t i = 0; i < LEN(suffixes); i++) {
		struct store_writer *w = help_writer(h);

		begin(h, w);
		store_writer_rollback(w);
		assert_true(store_writer_current(w));
		snprintf(name, sizeof(name), "%s%s", h->path, suffixes[i]);
		assert_int_equal(unlink(name), 0);
		assert_false(store_writer_current(w));
		REFUSED(h, -ESTALE, "replaced", store_writer_begin(w, &h->err));
		assert_int_equal(close(open(name, O_CREAT | O_WRONLY, 0600)), 0);
		assert_false(store_writer_current(w));
		store_writer_close(w);
	}
}

static void test_rollback_keeps_nothing(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_row row, stored;
	struct listing l, more;
	char fact[32];
	uint64_t changed;

	listing_init(&l);
	listing_init(&more);
	help_fill(&l, "", 100);
	help_fill(&more, "more", 100);
	help_store(h, w, "a", &l);
	begin(h, w);
	OK(h, store_writer_row(w, "a", HALF_CUR, false, &row, &h->err));
	OK(h, store_writer_replace(w, &row, &more, &changed, &h->err));
	row.fresh.gen = 77;
	OK(h, store_writer_save(w, &row, &h->err));
	OK(h, store_writer_row(w, "b", HALF_NEW, true, &row, &h->err));
	OK(h, store_writer_set_fact(w, "bus", "1-1", &h->err));
	OK(h, store_writer_rename(w, "a", "c", &h->err));
	store_writer_rollback(w);
	store_writer_rollback(w);
	listing_reset(&more);
	help_load(h, "a", &stored, &more);
	assert_int_equal(more.sum, l.sum);
	assert_int_equal(stored.fresh.gen, 0);
	assert_int_equal(OK(h, store_writer_row(w, "b", HALF_NEW, false, &row, &h->err)), 0);
	assert_int_equal(OK(h, store_writer_fact(w, "bus", fact, sizeof(fact), &h->err)), 0);
	begin(h, w);
	commit(h, w);
	listing_release(&l);
	listing_release(&more);
	store_writer_close(w);
}

static void test_facts(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	char value[8];

	assert_int_equal(OK(h, store_writer_fact(w, "k", value, sizeof(value), &h->err)), 0);
	OK(h, store_writer_set_fact(w, "k", "one", &h->err));
	OK(h, store_writer_set_fact(w, "k", "seven77", &h->err));
	store_writer_close(w);
	w = help_writer(h);
	assert_int_equal(OK(h, store_writer_fact(w, "k", value, sizeof(value), &h->err)), 1);
	assert_string_equal(value, "seven77");
	OK(h, store_writer_set_fact(w, "k", "eight888", &h->err));
	REFUSED(h, -EMSGSIZE, "k", store_writer_fact(w, "k", value, sizeof(value), &h->err));
	OK(h, store_writer_set_fact(w, "k", NULL, &h->err));
	assert_int_equal(OK(h, store_writer_fact(w, "k", value, sizeof(value), &h->err)), 0);
	store_writer_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_put_and_remove),
		TEST(test_names_of_a_message),
		TEST(test_replace_writes_differences),
		TEST(test_replace_types_and_twins),
		TEST(test_replace_heals),
		TEST(test_log_goes),
		TEST(test_rollback_keeps_nothing),
		TEST(test_facts),
	};

	return cmocka_run_group_tests_name("store_writer", tests, NULL, NULL);
}
