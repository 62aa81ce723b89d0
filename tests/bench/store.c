/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the index costs: bytes a message, inserts a second, milliseconds to load a half. Prints "key value" lines.
 * Usage: store [MESSAGES [DIRECTORY]]
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/store/reader.h"
#include "lib/store/writer.h"

#define LOADS 9

static void need(int rc, const struct err *e)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "bench/store: %s\n", e->text);
	exit(3);
}

/* Names of 50 bytes as mail servers make them, in the order of a hashed directory: none. */
static void make_listing(struct listing *l, uint64_t n)
{
	char name[NAME_LEN_MAX + 1];

	for (uint64_t i = 0; i < n; i++) {
		uint64_t k = (i * 7919) % n;
		int len = snprintf(name, sizeof(name), "%llu.M%06lluP%05llu.mailin%02llu,S=%05llu,W=%05llu:2,S",
				   (unsigned long long)(1700000000 + k * 31), (unsigned long long)(k * 7477 % 1000000),
				   (unsigned long long)(k % 32768), (unsigned long long)(k % 12),
				   (unsigned long long)(k % 90000), (unsigned long long)(k % 90000));
		struct listing_entry entry = {.ino = 50000000 + k, .type = DT_REG, .len = (uint8_t)len, .name = name};

		need(listing_add(l, &entry), &(struct err){"out of memory"});
	}
}

static double ms(int64_t since_ns)
{
	return (double)(clock_mono_ns() - since_ns) / NS_PER_MS;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void load(const char *path, const char *folder)
{
	struct store_row row;
	struct listing l;
	struct err e;
	double took[LOADS];

	listing_init(&l);
	for (int i = 0; i < LOADS; i++) {
		struct store_reader *r;
		int64_t start;

		need(store_reader_open(&r, path, NULL, &e), &e);
		start = clock_mono_ns();
		need(store_reader_half(r, folder, HALF_CUR, &row, &l, &e), &e);
		took[i] = ms(start);
		store_reader_close(r);
	}
	listing_release(&l);
	qsort(took, LOADS, sizeof(took[0]), by_value);
	printf("load_ms %.1f\n", took[LOADS / 2]);
}

static void replace(struct store_writer *w, const char *folder, const struct listing *l, const char *key)
{
	struct store_row row;
	uint64_t changed;
	struct err e;
	int64_t start = clock_mono_ns();
	double took;

	need(store_writer_begin(w, &e), &e);
	need(store_writer_row(w, folder, HALF_CUR, true, &row, &e), &e);
	need(store_writer_replace(w, &row, l, &changed, &e), &e);
	need(store_writer_save(w, &row, &e), &e);
	need(store_writer_commit(w, &e), &e);
	took = ms(start);
	printf("%s_ms %.1f\n", key, took);
	if (changed > 1)
		printf("%s_per_s %.0f\n", key, (double)changed / took * 1000);
}

/* One put and save a transaction: what a single event costs. */
static void events(struct store_writer *w, const char *folder, int n)
{
	struct store_row row;
	struct err e;
	int64_t start = clock_mono_ns();

	for (int i = 0; i < n; i++) {
		char name[64];
		int len = snprintf(name, sizeof(name), "%d.M%06dP1.mailin01,S=04211,W=04288:2,", 1800000000 + i, i);
		struct listing_entry entry = {
			.ino = 90000000U + (unsigned)i, .type = DT_REG, .len = (uint8_t)len, .name = name};

		need(store_writer_begin(w, &e), &e);
		need(store_writer_row(w, folder, HALF_CUR, true, &row, &e), &e);
		need(store_writer_put(w, &row, &entry, &e), &e);
		need(store_writer_save(w, &row, &e), &e);
		need(store_writer_commit(w, &e), &e);
	}
	printf("events_per_s %.0f\n", n / ms(start) * 1000);
}

int main(int argc, char **argv)
{
	uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
	char dir[256], path[300];
	struct store_writer *w;
	struct listing l;
	struct stat st;
	struct err e;

	snprintf(dir, sizeof(dir), "%s/maildex-bench-XXXXXX", argc > 2 ? argv[2] : "/tmp");
	if (!n || !mkdtemp(dir))
		return 2;
	snprintf(path, sizeof(path), "%s/index", dir);
	listing_init(&l);
	make_listing(&l, n);
	need(store_writer_open(&w, path, "bench", &e), &e);
	replace(w, "user/one", &l, "insert");
	replace(w, "user/one", &l, "insert_same");
	load(path, "user/one");
	events(w, "user/one", 2000);
	replace(w, "user/two", &l, "insert_second");
	store_writer_close(w);
	if (stat(path, &st) == 0)
		printf("bytes_per_message %.1f\n", (double)st.st_size / (double)(2 * n + 2000));
	listing_release(&l);
	unlink(path);
	rmdir(dir);
	return 0;
}
