/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index: whatever is in the file, reader and writer refuse it with a text or work; what is served has the row's
 * count and sum; a walk ends; and an index that is damaged is soon a sound one, by what maildexd does: it is moved
 * aside, and the folder stored anew.
 *
 * Input: u8 how (0: the rest is the file itself, at most a little more than the header; else bit 0: with the log of a
 * transaction; bits 1-3: what the writer does; bit 4: any tree's), then the recipe of index_image.h.
 */
#include "lib/store/reader.h"
#include "lib/store/writer.h"
#include "tests/fuzz/index_image.h"

#define ROWS_MAX (IMAGE_BYTES_MAX / 20)

static struct image image;

static void forget(void)
{
	image_clear(&image);
	rmdir(image.dir);
	free(image.made);
	free(image.bytes);
}

/* An error has its text, which says what file it is about; `codes` ends with 0. */
static void check_refused(int rc, const struct err *e, const int *codes)
{
	CHECK(strstr(e->text, image.path));
	while (*codes && *codes != rc)
		codes++;
	if (*codes != rc)
		fprintf(stderr, "%d: %s\n", rc, e->text);
	CHECK(*codes == rc);
}

static const int read_codes[] = {-EUCLEAN, -EPROTO, -EXDEV, -ENOENT, 0};
static const int write_codes[] = {-EUCLEAN, -EPROTO, -EXDEV, 0};

/* ---- the reader ---- */

static void check_stamp(const struct stamp *s)
{
	CHECK(s->ctime_ns >= -STAMP_NS_MAX && s->ctime_ns <= STAMP_NS_MAX);
	CHECK(s->mtime_ns >= -STAMP_NS_MAX && s->mtime_ns <= STAMP_NS_MAX);
}

/* What fs and indexer do with a row, whatever is in it: UBSan watches. */
static void check_fresh(const struct fresh *row)
{
	static const struct fresh_context ctx = {.names = 5, .window_min = 1, .bus_healthy = true, .real_now_ns = 9};
	static const int64_t nows[] = {INT64_MIN, 0, 1700000000000000000};
	struct fresh_event ev = {.windowed = true, .window = {row->known, row->known}};
	struct fresh f = *row;

	for (size_t i = 0; i < LEN(nows); i++) {
		enum fresh_verdict v = fresh_check(&f, f.gen, false, &f.known, nows[i], 0);

		CHECK(v == FRESH_SCAN || (v == FRESH_SERVE && !f.need && f.nparked == 0));
	}
	fresh_mtime_ns(&f, &f.known, 77);
	fresh_event(&f, &ev);
	if (ev.window.post.ctime_ns < STAMP_NS_MAX)
		ev.window.post.ctime_ns++;
	fresh_applied(&f, &ev, &ctx, true);
	CHECK(f.nparked <= FRESH_PARKED_MAX);
}

static void check_row(const struct store_row *row)
{
	CHECK(row->id > 0 && (row->half == HALF_NEW || row->half == HALF_CUR));
	CHECK(folder_path_check(row->folder, strlen(row->folder), NULL) == 0);
	CHECK(row->fresh.nparked <= FRESH_PARKED_MAX);
	check_stamp(&row->fresh.known);
	CHECK(row->fresh.trust_since_ns >= -STAMP_NS_MAX && row->fresh.trust_since_ns <= STAMP_NS_MAX);
	for (unsigned i = 0; i < row->fresh.nparked; i++) {
		check_stamp(&row->fresh.parked[i].pre);
		check_stamp(&row->fresh.parked[i].post);
	}
	check_fresh(&row->fresh);
}

/* What is served is what the row says, counted and summed once more. */
static void check_listing(const struct store_row *row, const struct listing *l)
{
	struct listing_entry entry;
	uint64_t count = 0, sum = 0;
	size_t at = 0;

	while (listing_next(l, &at, &entry)) {
		CHECK(entry.len > 0);
		count++;
		sum += listing_entry_hash(&entry);
	}
	CHECK(at == l->bytes.len);
	CHECK(count == row->count && sum == row->sum);
	CHECK(count == l->count && sum == l->sum);
}

/* Returns what the reader does. */
static int check_half(struct store_reader *r, const char *folder, enum half half, struct listing *l)
{
	struct err e = {""};
	struct store_row row;
	int rc;

	listing_reset(l);
	rc = store_reader_half(r, folder, half, &row, l, &e);
	if (rc > 0) {
		CHECK(strcmp(row.folder, folder) == 0 && row.half == half);
		check_row(&row);
		check_listing(&row, l);
	} else {
		CHECK(l->count == 0 && l->bytes.len == 0);
		if (rc < 0)
			check_refused(rc, &e, read_codes);
	}
	return rc;
}

/* Does b come behind a in a walk that begins at `below`? */
static bool is_behind(const struct store_row *a, const struct store_row *b, const char *below)
{
	int order = strcmp(a->folder, b->folder);

	if (*below && strcmp(a->folder, below) == 0 && order != 0)
		return true;
	return order < 0 || (order == 0 && a->half < b->half);
}

static void check_walk(struct store_reader *r, const char *below)
{
	struct err e = {""};
	struct store_row row = {.id = 0}, last;
	size_t rows = 0, len = strlen(below);
	int rc;

	while ((rc = store_reader_next(r, below, &row, &e)) > 0) {
		CHECK(rows == 0 || is_behind(&last, &row, below));
		CHECK(strncmp(row.folder, below, len) == 0 && (!len || !row.folder[len] || row.folder[len] == '/'));
		CHECK(++rows <= ROWS_MAX);
		check_row(&row);
		last = row;
	}
	if (rc < 0)
		check_refused(rc, &e, read_codes);
}

static void check_reader(const char *tree)
{
	struct err e = {""};
	struct store_totals totals;
	struct store_reader *r;
	struct listing l;
	int rc = store_reader_open(&r, image.path, tree, &e);

	if (rc < 0) {
		check_refused(rc, &e, read_codes);
		return;
	}
	listing_init(&l);
	for (size_t i = 0; i < IMAGE_HALVES; i++)
		check_half(r, image_halves[i].folder, image_halves[i].half, &l);
	check_half(r, "nobody", HALF_CUR, &l);
	listing_release(&l);
	check_walk(r, "");
	check_walk(r, "user");
	check_walk(r, "user/a");
	rc = store_reader_totals(r, &totals, &e);
	if (rc < 0)
		check_refused(rc, &e, read_codes);
	CHECK(store_reader_current(r));
	store_reader_close(r);
}

/* ---- the writer ---- */

/* One batch in user/a/cur. Returns 0 or the first error. */
static int batch(struct store_writer *w, unsigned what, const struct listing *stored, struct err *e)
{
	struct listing_entry entry = {5, 8, 3, "1.a"};
	struct store_row row;
	struct listing l;
	uint64_t changed;
	char fact[64];
	int rc = store_writer_begin(w, e);

	listing_init(&l);
	if (rc == 0 && (what & 1))
		rc = store_writer_gap(w, e);
	if (rc == 0 && (what & 2))
		rc = store_writer_rename(w, "user/b", "user/c", e);
	if (rc == 0 && (what & 4))
		rc = store_writer_drop(w, "user/a/.Sent", true, e);
	if (rc == 0 && store_writer_fact(w, "rebuild", fact, sizeof(fact), e) < 0)
		rc = -EMSGSIZE;
	if (rc == 0 || rc == -EMSGSIZE)
		rc = store_writer_row(w, "user/a", HALF_CUR, true, &row, e);
	if (rc > 0)
		rc = store_writer_names(w, &row, "1700000000.M0P1V2I0.mail.example.org", 37, &l, e);
	CHECK(l.count <= STORE_NAMES_MAX);
	if (rc == 0)
		rc = store_writer_put(w, &row, &entry, e);
	if (rc == 0)
		rc = store_writer_remove(w, &row, "1700000000.M0P1V2I0.mail.example.org:2,S", 40, e);
	if (rc == 0)
		rc = store_writer_replace(w, &row, stored, &changed, e);
	CHECK(rc < 0 || (row.count == stored->count && row.sum == stored->sum));
	if (rc == 0)
		rc = store_writer_save(w, &row, e);
	if (rc == 0)
		rc = store_writer_commit(w, e);
	if (rc < 0)
		store_writer_rollback(w);
	listing_release(&l);
	return rc;
}

/* In an index that was made anew: exactly what was stored is served. */
static void check_served(const struct listing *stored)
{
	struct store_reader *r;
	struct listing l;

	listing_init(&l);
	CHECK(store_reader_open(&r, image.path, TREE, NULL) == 0);
	CHECK(check_half(r, "user/a", HALF_CUR, &l) == 1);
	CHECK(l.count == stored->count && l.sum == stored->sum);
	store_reader_close(r);
	listing_release(&l);
}

static struct store_writer *open_anew(void)
{
	struct store_writer *w;

	CHECK(store_discard(image.path, NULL) == 0);
	CHECK(store_writer_open(&w, image.path, TREE, NULL) == 0);
	return w;
}

static void check_writer(unsigned what)
{
	struct err e = {""};
	struct store_writer *w = NULL;
	struct listing stored;
	bool anew = false;
	int rc = store_writer_open(&w, image.path, TREE, &e);

	if (rc < 0)
		check_refused(rc, &e, write_codes);
	if (rc < 0 && rc != -EUCLEAN)
		return;
	listing_init(&stored);
	image_fill(&stored, 50, 42);
	if (rc == 0) {
		rc = batch(w, what, &stored, &e);
		if (rc < 0)
			check_refused(rc, &e, write_codes);
		if (rc < 0)
			store_writer_close(w);
	}
	if (rc < 0) {
		anew = true;
		w = open_anew();
		CHECK(batch(w, what, &stored, NULL) == 0);
	}
	store_writer_close(w);
	if (anew)
		check_served(&stored);
	check_reader(TREE);
	listing_release(&stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in;
	uint8_t how;

	if (!image.made) {
		image_make(&image);
		atexit(forget);
	}
	fuzz_in_init(&in, data, size);
	how = fuzz_u8(&in);
	image_reset(&image, how & 1);
	if (how == 0) {
		image.file = in.left < image.made_file ? in.left : image.made_file;
		memcpy(image.bytes, in.at, image.file);
		in.left = 0;
	}
	for (int i = 0; i < 64 && in.left > 0; i++)
		image_apply(&image, &in);
	image_write(&image);
	check_reader(how & 16 ? NULL : TREE);
	check_writer(how >> 1 & 7);
	image_clear(&image);
	return 0;
}
