/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/store_help.h"

static void test_no_index_makes_none(void **state)
{
	struct help *h = *state;
	struct store_readers *pool;
	struct store_reader *r;

	REFUSED(h, -ENOENT, "maildexd", store_reader_open(&r, h->path, TREE, &h->err));
	assert_int_equal(store_readers_new(&pool, h->path, TREE), 0);
	REFUSED(h, -ENOENT, "maildexd", store_readers_get(pool, &r, &h->err));
	store_readers_free(pool);
	/* Nothing was made: the folder is still empty. */
	assert_int_equal(rmdir(h->dir), 0);
	REFUSED(h, -ENOENT, "maildexd", store_reader_open(&r, h->path, TREE, &h->err));
	assert_int_equal(mkdir(h->dir, 0700), 0);
}

/* Names of every length and every possible byte come back as they went in, in the packed form. */
static void test_names_come_back(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_reader *r;
	struct store_row row;
	struct listing in, out, parsed;
	struct listing_entry entry;
	size_t at = 0;

	listing_init(&in);
	listing_init(&out);
	listing_init(&parsed);
	for (unsigned len = 1; len <= NAME_LEN_MAX; len++) {
		char name[NAME_LEN_MAX];

		for (unsigned i = 0; i < len; i++) {
			unsigned char byte = (unsigned char)(len * 31 + i * 7);

			name[i] = (char)(byte && byte != '/' && byte != '.' ? byte : 0xff);
		}
		entry = (struct listing_entry){.ino = (uint64_t)len << (len % 57),
					       .type = (uint8_t)(len % 13),
					       .len = (uint8_t)len,
					       .name = name};
		assert_int_equal(listing_add(&in, &entry), 0);
	}
	help_store(h, w, "a", &in);
	store_writer_close(w);
	r = help_reader(h);
	assert_int_equal(OK(h, store_reader_half(r, "a", HALF_CUR, &row, &out, &h->err)), 1);
	assert_int_equal(row.count, NAME_LEN_MAX);
	assert_int_equal(row.sum, in.sum);
	assert_int_equal(out.bytes.len, in.bytes.len);
	assert_int_equal(listing_parse(&parsed, out.bytes.data, out.bytes.len, in.count, in.sum), 0);
	while (listing_next(&in, &at, &entry))
		assert_true(help_has(&out, entry.name, entry.len, entry.ino));
	for (at = 0; listing_next(&out, &at, &entry);)
		assert_int_equal(entry.type, entry.len % 13);
	/* Not there: the other half, another folder. A listing given again is filled anew. */
	assert_int_equal(OK(h, store_reader_half(r, "a", HALF_NEW, &row, &out, &h->err)), 0);
	assert_int_equal(OK(h, store_reader_half(r, "a/b", HALF_CUR, &row, &out, &h->err)), 0);
	assert_int_equal(OK(h, store_reader_half(r, "a", HALF_CUR, &row, &out, &h->err)), 1);
	assert_int_equal(out.count, NAME_LEN_MAX);
	store_reader_close(r);
	listing_release(&in);
	listing_release(&out);
	listing_release(&parsed);
}

/* A writer that changes row and names all the time; a reader must never see a row with other names. */
struct churn {
	struct help *h;
	atomic_bool stop;
	atomic_uint batches;
};

static void *churn(void *arg)
{
	struct churn *c = arg;
	struct store_writer *w = help_writer(c->h);
	struct listing few, many;

	listing_init(&few);
	listing_init(&many);
	help_fill(&few, "few", 10);
	help_fill(&many, "many", 300);
	while (!c->stop)
		help_store(c->h, w, "a", c->batches++ % 2 ? &few : &many);
	listing_release(&few);
	listing_release(&many);
	store_writer_close(w);
	return NULL;
}

static void test_row_and_names_are_of_one_moment(void **state)
{
	struct help *h = *state;
	struct churn c = {.h = h};
	struct store_reader *r;
	struct store_row row;
	struct listing l;
	pthread_t thread;
	unsigned seen_few = 0, seen_many = 0;

	help_store_one(h, "a", "few", 10);
	r = help_reader(h);
	listing_init(&l);
	assert_int_equal(pthread_create(&thread, NULL, churn, &c), 0);
	while (c.batches < 1500 || !seen_few || !seen_many) {
		assert_int_equal(OK(h, store_reader_half(r, "a", HALF_CUR, &row, &l, &h->err)), 1);
		seen_few += l.count == 10;
		seen_many += l.count == 300;
	}
	c.stop = true;
	pthread_join(thread, NULL);
	listing_release(&l);
	store_reader_close(r);
}

static int load_code(struct help *h)
{
	struct store_reader *r = help_reader(h);
	struct store_row row;
	struct listing l;
	int rc;

	listing_init(&l);
	h->err.text[0] = '\0';
	rc = store_reader_half(r, "user/a", HALF_CUR, &row, &l, &h->err);
	if (rc < 0)
		assert_int_equal(l.count, 0);
	listing_release(&l);
	store_reader_close(r);
	return rc;
}

/* Flips one bit of the file, at `offset` in the only place where `name` is stored. */
static void flip(const struct help *h, const char *name, size_t offset, unsigned bit)
{
	static char bytes[1 << 20];
	int fd = open(h->path, O_RDWR);
	ssize_t len = read(fd, bytes, sizeof(bytes));
	char *found;

	assert_true(len > 0);
	found = memmem(bytes, (size_t)len, name, strlen(name));
	assert_non_null(found);
	found += offset;
	*found = (char)(*found ^ (1 << bit));
	assert_int_equal(pwrite(fd, found, 1, found - bytes), 1);
	close(fd);
}

/*
 * One bit of one name, in the file itself: SQLite doesn't notice, the checksum does. A scan then heals the row, also
 * where the name is out of order now and can't be found by searching.
 */
static void test_flipped_bit(void **state)
{
	static const char name[] = "needle.1700000100x.M7P1.host:2,S";
	static const size_t offsets[] = {0, 3, 16, 17, sizeof(name) - 2};
	struct help *h = *state;
	struct listing l;

	listing_init(&l);
	help_fill(&l, "needle.", 200);
	help_add(&l, name, 4711);
	for (unsigned i = 0; i < 8 * LEN(offsets); i++) {
		struct store_writer *w = help_writer(h);

		help_store(h, w, "user/a", &l);
		store_writer_close(w);
		assert_int_equal(load_code(h), 1);
		flip(h, name, offsets[i / 8], i % 8);
		assert_int_equal(load_code(h), -EUCLEAN);
		assert_non_null(strstr(h->err.text, "user/a/cur"));
		w = help_writer(h);
		assert_true(help_store(h, w, "user/a", &l) > 0);
		store_writer_close(w);
		assert_int_equal(load_code(h), 1);
	}
	listing_release(&l);
}

/* Whatever of a half's names is not as it was stored. */
static void test_checksum_sees(void **state)
{
	static const char *const damages[] = {
		"UPDATE message SET ino = ino + 1 WHERE name = (SELECT max(name) FROM message)",
		"UPDATE message SET type = type + 1 WHERE name = (SELECT max(name) FROM message)",
		"UPDATE message SET name = CAST('x' || name AS BLOB) WHERE name = (SELECT max(name) FROM message)",
		"DELETE FROM message WHERE name = (SELECT min(name) FROM message)",
		"INSERT INTO message SELECT half, CAST('phantom' AS BLOB), 1, 0 FROM message LIMIT 1",
		"UPDATE half SET count = count + 1",
		"UPDATE half SET sum = sum + 1",
		"UPDATE message SET name = x'' WHERE name = (SELECT max(name) FROM message)",
		"UPDATE message SET name = zeroblob(256) WHERE name = (SELECT max(name) FROM message)",
		"UPDATE half SET count = 9223372036854775807",
		"UPDATE half SET parked = x'00'",
		"UPDATE half SET parked = zeroblob(480)",
	};
	struct help *h = *state;

	for (size_t i = 0; i < LEN(damages); i++) {
		unlink(h->path);
		help_store_one(h, "user/a", "", 50);
		assert_int_equal(load_code(h), 1);
		help_sql(h, damages[i]);
		assert_int_equal(load_code(h), -EUCLEAN);
		assert_non_null(strstr(h->err.text, h->path));
	}
}

/* Pages of rubbish: an answer or -EUCLEAN at opening or loading, never anything else, and never a wrong listing. */
static void test_rubbish_pages(void **state)
{
	struct help *h = *state;
	struct store_reader *r;
	struct store_row row;
	struct listing l;
	struct stat st;
	unsigned refused = 0;

	help_store_one(h, "user/a", "", 2000);
	listing_init(&l);
	assert_int_equal(stat(h->path, &st), 0);
	for (off_t page = 0; page < st.st_size / 4096; page++) {
		char kept[4096], rubbish[4096];
		int fd = open(h->path, O_RDWR), rc;

		memset(rubbish, 0xa7, sizeof(rubbish));
		assert_int_equal(pread(fd, kept, sizeof(kept), page * 4096), 4096);
		assert_int_equal(pwrite(fd, rubbish, sizeof(rubbish), page * 4096), 4096);
		rc = store_reader_open(&r, h->path, TREE, &h->err);
		if (!rc) {
			rc = store_reader_half(r, "user/a", HALF_CUR, &row, &l, &h->err);
			store_reader_close(r);
		}
		if (rc == 1)
			assert_int_equal(l.count, 2000);
		else
			assert_int_equal(rc, -EUCLEAN);
		refused += rc < 0;
		assert_int_equal(pwrite(fd, kept, sizeof(kept), page * 4096), 4096);
		close(fd);
	}
	/* Only sqlite_sequence is nothing to a reader. */
	assert_int_equal(refused, st.st_size / 4096 - 1);
	listing_release(&l);
}

static void test_deleted_and_replaced(void **state)
{
	struct help *h = *state;
	struct store_readers *pool;
	struct store_reader *r;
	struct store_row row;
	char other[128];

	help_store_one(h, "first", "", 3);
	assert_int_equal(store_readers_new(&pool, h->path, TREE), 0);
	OK(h, store_readers_get(pool, &r, &h->err));
	assert_true(store_reader_current(r));
	assert_int_equal(unlink(h->path), 0);
	assert_false(store_reader_current(r));
	store_readers_put(pool, r, false);
	REFUSED(h, -ENOENT, "maildexd", store_readers_get(pool, &r, &h->err));
	/* Another file takes its place: nothing of the old one is served from then on. */
	help_store_one(h, "second", "", 3);
	OK(h, store_readers_get(pool, &r, &h->err));
	assert_int_equal(OK(h, store_reader_half(r, "first", HALF_CUR, &row, NULL, &h->err)), 0);
	assert_int_equal(OK(h, store_reader_half(r, "second", HALF_CUR, &row, NULL, &h->err)), 1);
	store_readers_put(pool, r, false);
	snprintf(other, sizeof(other), "%s/other", h->dir);
	assert_int_equal(rename(h->path, other), 0);
	help_store_one(h, "third", "", 3);
	OK(h, store_readers_get(pool, &r, &h->err));
	assert_int_equal(OK(h, store_reader_half(r, "third", HALF_CUR, &row, NULL, &h->err)), 1);
	assert_true(store_reader_current(r));
	store_readers_put(pool, r, true);
	store_readers_free(pool);
}

/* SQLite would share the deleted one among all readers of the process, for as long as one of them is open. */
static void test_log_replaced_under_a_reader(void **state)
{
	struct help *h = *state;
	struct store_readers *pool;
	struct store_reader *r, *other;
	char name[128];

	help_store_one(h, "first", "", 3);
	assert_int_equal(store_readers_new(&pool, h->path, TREE), 0);
	OK(h, store_readers_get(pool, &r, &h->err));
	OK(h, store_readers_get(pool, &other, &h->err));
	store_readers_put(pool, other, false);
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%s%s", h->path, i ? "-shm" : "-wal");
		assert_int_equal(unlink(name), 0);
		close(open(name, O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	}
	assert_false(store_reader_current(r));
	REFUSED(h, -EAGAIN, "replaced", store_readers_get(pool, &other, &h->err));
	store_readers_put(pool, r, false);
	OK(h, store_readers_get(pool, &r, &h->err));
	OK(h, store_readers_get(pool, &other, &h->err));
	assert_true(store_reader_current(r) && store_reader_current(other));
	store_readers_put(pool, other, false);
	store_readers_put(pool, r, false);
	store_readers_free(pool);
}

static void *use_pool(void *arg)
{
	struct store_readers *pool = arg;
	struct store_reader *mine[3];
	struct store_row row;
	struct listing l;
	uintptr_t failed = 0;
	int rc;

	listing_init(&l);
	for (int i = 0; i < 50; i++) {
		for (size_t k = 0; k < LEN(mine); k++) {
			do
				rc = store_readers_get(pool, &mine[k], NULL);
			while (rc == -EAGAIN); /* one opens at a time, and a crowd may take long */
			if (rc < 0)
				return (void *)1;
		}
		for (size_t k = 0; k < LEN(mine); k++) {
			failed += store_reader_half(mine[k], "a", HALF_CUR, &row, &l, NULL) != 1 || l.count != 50;
			store_readers_put(pool, mine[k], i % 10 == 0);
		}
	}
	listing_release(&l);
	return (void *)failed;
}

/* More readers at once than the pool keeps. */
static void test_pool_of_threads(void **state)
{
	struct help *h = *state;
	struct store_readers *pool;
	pthread_t threads[8];

	help_store_one(h, "a", "", 50);
	assert_int_equal(store_readers_new(&pool, h->path, NULL), 0);
	for (size_t i = 0; i < LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_pool, pool), 0);
	for (size_t i = 0; i < LEN(threads); i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	store_readers_free(pool);
}

/* Expected: folders with both halves, a space behind each. */
static void test_walk(void **state)
{
	static const char *const folders[] = {"ab", "a/\xff", "a", "\xff\xff", "a.b", "", "a/b", "a/b/c", "a0", "\xff"};
	static const struct {
		const char *below, *expected;
	} cases[] = {
		{"", " a a.b a/b a/b/c a/\xff a0 ab \xff \xff\xff "},
		{"a", "a a/b a/b/c a/\xff "},
		{"a/b", "a/b a/b/c "},
		{"ab", "ab "},
		{"b", ""},
		{"\xff", "\xff "},
		{"a/", ""},
	};
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_reader *r;
	struct store_row row;

	for (size_t i = 0; i < LEN(folders); i++)
		for (enum half half = HALF_NEW; half <= HALF_CUR; half++)
			OK(h, store_writer_row(w, folders[i], half, true, &row, &h->err));
	r = help_reader(h);
	for (size_t i = 0; i < LEN(cases); i++) {
		char seen[256] = "";
		int rc, half = 0;

		memset(&row, 0, sizeof(row));
		while ((rc = OK(h, store_reader_next(r, cases[i].below, &row, &h->err))) > 0) {
			assert_int_equal(row.half, half);
			half = !half;
			if (row.half == HALF_NEW)
				continue;
			strcat(seen, row.folder);
			strcat(seen, " ");
		}
		assert_string_equal(seen, cases[i].expected);
		assert_int_equal(half, 0);
	}
	store_reader_close(r);
	store_writer_close(w);
}

static void test_totals(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);
	struct store_totals t;
	struct store_reader *r = help_reader(h);
	struct store_row row;

	OK(h, store_reader_totals(r, &t, &h->err));
	assert_int_equal(t.halves + t.messages + t.need + t.trust + t.unsettled, 0);
	for (unsigned i = 0; i < 10; i++) {
		char folder[8];

		snprintf(folder, sizeof(folder), "%u", i);
		OK(h, store_writer_row(w, folder, HALF_CUR, true, &row, &h->err));
		row.count = i;
		row.fresh.need = i < 1;
		row.fresh.trust = i < 2;
		row.fresh.unsettled = i < 3;
		OK(h, store_writer_save(w, &row, &h->err));
	}
	OK(h, store_reader_totals(r, &t, &h->err));
	assert_int_equal(t.halves, 10);
	assert_int_equal(t.messages, 45);
	assert_int_equal(t.need, 1);
	assert_int_equal(t.trust, 2);
	assert_int_equal(t.unsettled, 3);
	assert_true(t.file_bytes >= 4096);
	store_reader_close(r);
	store_writer_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_no_index_makes_none),
		TEST(test_names_come_back),
		TEST(test_row_and_names_are_of_one_moment),
		TEST(test_flipped_bit),
		TEST(test_checksum_sees),
		TEST(test_rubbish_pages),
		TEST(test_deleted_and_replaced),
		TEST(test_log_replaced_under_a_reader),
		TEST(test_pool_of_threads),
		TEST(test_walk),
		TEST(test_totals),
	};

	return cmocka_run_group_tests_name("store_reader", tests, NULL, NULL);
}
