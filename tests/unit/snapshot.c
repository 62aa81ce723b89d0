/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packed listings: cookies that stay valid over patches and merges, pieces that fit, snapshots that nobody changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/names.h"
#include "fs/snapshot.h"

#define MANY 3000

static struct listing_entry entry(const char *name, uint64_t ino)
{
	return (struct listing_entry){.ino = ino, .type = DT_REG, .len = (uint8_t)strlen(name), .name = name};
}

static const char *name_of(unsigned i)
{
	static char name[64];

	snprintf(name, sizeof(name), "17%08u.M%uP1.host,S=1:2,S", i, i);
	return name;
}

/* MANY messages with the cookies 3, 4, ... and inodes 100, 101, ... */
static struct snapshot *many(void)
{
	struct snapshot *s = snapshot_new(1, 2);

	assert_non_null(s);
	for (unsigned i = 0; i < MANY; i++) {
		struct listing_entry e = entry(name_of(i), 100 + i);

		assert_int_equal(snapshot_append(s, SNAPSHOT_FIRST_COOKIE + i, &e), 0);
	}
	return s;
}

/* Reads from a cookie on in pieces of `size`; returns how many entries came, checks order and whole entries. */
static uint64_t read_all(const struct snapshot *s, uint64_t cookie, size_t size)
{
	uint64_t total = 0, entries, last = cookie;

	for (;;) {
		struct iovec iov[8];
		int n = snapshot_gather(s, last, size, iov, 8, &entries);
		size_t bytes = 0;
		uint64_t seen = 0;

		for (int i = 0; i < n; i++) {
			for (size_t at = 0; at < iov[i].iov_len;) {
				const struct fuse_dirent *d = (const void *)((char *)iov[i].iov_base + at);

				assert_true(d->off > last);
				last = d->off;
				at += FUSE_DIRENT_SIZE(d);
				assert_true(at <= iov[i].iov_len);
				seen++;
			}
			bytes += iov[i].iov_len;
		}
		assert_true(bytes <= size);
		assert_int_equal(seen, entries);
		total += entries;
		if (!entries)
			return total;
	}
}

static void every_entry_comes_once_in_any_size(void **state)
{
	static const size_t sizes[] = {128, 512, 4096, 4100, 16384, 32768, 1 << 20};
	struct snapshot *s = many();

	(void)state;
	assert_int_equal(snapshot_count(s), MANY);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(read_all(s, 0, sizes[i]), MANY + 2); /* and "." and ".." */
		assert_int_equal(read_all(s, 2, sizes[i]), MANY);
		assert_int_equal(read_all(s, MANY / 2 + 2, sizes[i]), MANY - MANY / 2);
		assert_int_equal(read_all(s, MANY + 2, sizes[i]), 0);
	}
	snapshot_unref(s);
}

static void removed_entries_leave_the_others_where_they_are(void **state)
{
	struct snapshot *s = many();
	struct snapshot_entry e;

	(void)state;
	for (unsigned i = 0; i < MANY; i += 2)
		assert_int_equal(snapshot_remove(s, SNAPSHOT_FIRST_COOKIE + i), 0);
	assert_int_equal(snapshot_remove(s, SNAPSHOT_FIRST_COOKIE), -ENOENT);
	assert_int_equal(snapshot_count(s), MANY / 2);
	assert_int_equal(read_all(s, 0, 4096), MANY / 2 + 2);
	/* A cookie whose entry is gone still means "behind it". */
	assert_int_equal(read_all(s, SNAPSHOT_FIRST_COOKIE, 4096), MANY / 2);
	assert_false(snapshot_find(s, SNAPSHOT_FIRST_COOKIE, &e));
	assert_true(snapshot_find(s, SNAPSHOT_FIRST_COOKIE + 1, &e));
	assert_int_equal(e.entry.ino, 101);
	for (unsigned i = 1; i < MANY; i += 2)
		assert_int_equal(snapshot_remove(s, SNAPSHOT_FIRST_COOKIE + i), 0);
	assert_int_equal(read_all(s, 0, 4096), 2);
	snapshot_unref(s);
}

static void a_referenced_snapshot_never_changes(void **state)
{
	struct snapshot *s = many(), *held = snapshot_ref(s);
	struct listing_entry e = entry("new", 7);

	(void)state;
	assert_int_equal(snapshot_writable(&s), 0);
	assert_ptr_not_equal(s, held);
	assert_int_equal(snapshot_append(s, MANY + 10, &e), 0);
	assert_int_equal(snapshot_remove(s, SNAPSHOT_FIRST_COOKIE + 5), 0);
	assert_int_equal(read_all(held, 0, 4096), MANY + 2);
	assert_int_equal(read_all(s, 0, 4096), MANY + 2);
	assert_int_equal(read_all(s, MANY + 9, 4096), 1);
	assert_int_equal(read_all(held, MANY + 9, 4096), 0);
	snapshot_unref(held);
	snapshot_unref(s);
}

/* A message that nobody touched keeps its cookie over a merge: a scan in progress on another handle loses nothing. */
static void merge_keeps_cookies(void **state)
{
	struct snapshot *s = many(), *merged;
	struct listing l;
	struct snapshot_entry e;
	uint64_t next = SNAPSHOT_FIRST_COOKIE + MANY;
	bool changed;

	(void)state;
	listing_init(&l);
	for (unsigned i = MANY; i-- > 0;) { /* in another order, every tenth gone, two new */
		struct listing_entry x = entry(name_of(i), 100 + i);

		if (i % 10)
			assert_int_equal(listing_add(&l, &x), 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		struct listing_entry x = entry(i ? "b:2,S" : "a:2,S", 5 + i);

		assert_int_equal(listing_add(&l, &x), 0);
	}
	merged = snapshot_merge(s, &l, 1, 2, &next, &changed);
	assert_non_null(merged);
	assert_true(changed);
	assert_int_equal(next, SNAPSHOT_FIRST_COOKIE + MANY + 2);
	assert_int_equal(snapshot_count(merged), l.count);
	assert_true(snapshot_find(merged, SNAPSHOT_FIRST_COOKIE + 11, &e));
	assert_int_equal(e.entry.ino, 111);
	assert_false(snapshot_find(merged, SNAPSHOT_FIRST_COOKIE + 10, &e));
	assert_int_equal(read_all(merged, SNAPSHOT_FIRST_COOKIE + MANY - 1, 4096), 2);
	snapshot_unref(s);
	s = snapshot_merge(merged, &l, 1, 2, &next, &changed);
	assert_false(changed);
	snapshot_unref(s);
	snapshot_unref(merged);
	listing_release(&l);
}

static void names_follow_patches(void **state)
{
	struct snapshot *s = many();
	struct snapshot_entry found[4];
	struct names n;
	struct listing_entry twin = entry("1700000007.M7P1.host,S=1:2,", 9999);
	const char *base = "1700000007.M7P1.host,S=1";

	(void)state;
	names_init(&n);
	assert_int_equal(names_build(&n, s), 0);
	assert_int_equal(names_find(&n, s, base, strlen(base), found, 4), 1);
	assert_int_equal(found[0].entry.ino, 107);
	assert_int_equal(snapshot_append(s, MANY + 10, &twin), 0);
	names_added(&n, twin.name, twin.len, MANY + 10);
	assert_int_equal(names_find(&n, s, base, strlen(base), found, 4), 2);
	assert_int_equal(names_find(&n, s, base, strlen(base), found, 1), 2); /* counts beyond max */
	names_removed(&n, found[0].entry.name, found[0].entry.len, found[0].cookie);
	assert_int_equal(snapshot_remove(s, found[0].cookie), 0);
	assert_int_equal(names_find(&n, s, base, strlen(base), found, 4), 1);
	/* Thousands of renames of one message: deleted slots are used again, or the index is built anew. */
	for (unsigned i = 0; i < 5 * MANY; i++) {
		assert_int_equal(names_build(&n, s), 0);
		names_removed(&n, twin.name, twin.len, MANY + 10 + i);
		assert_int_equal(snapshot_remove(s, found[0].cookie), i ? -ENOENT : 0);
		assert_int_equal(snapshot_append(s, 2 * MANY + i, &twin), 0);
		names_added(&n, twin.name, twin.len, 2 * MANY + i);
		assert_int_equal(snapshot_remove(s, 2 * MANY + i), 0);
		names_removed(&n, twin.name, twin.len, 2 * MANY + i);
	}
	assert_int_equal(names_build(&n, s), 0);
	assert_int_equal(names_find(&n, s, base, strlen(base), found, 4), 0);
	names_release(&n);
	snapshot_unref(s);
}

static void a_name_of_255_bytes_fits(void **state)
{
	char name[NAME_LEN_MAX + 1];
	struct snapshot *s = snapshot_new(1, 2);
	struct listing_entry e;

	(void)state;
	memset(name, 'n', NAME_LEN_MAX);
	name[NAME_LEN_MAX] = '\0';
	e = entry(name, 5);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(snapshot_append(s, 3 + i, &e), 0);
	assert_int_equal(read_all(s, 0, 4096), 202);
	snapshot_unref(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_entry_comes_once_in_any_size),
		cmocka_unit_test(removed_entries_leave_the_others_where_they_are),
		cmocka_unit_test(a_referenced_snapshot_never_changes),
		cmocka_unit_test(merge_keeps_cookies),
		cmocka_unit_test(names_follow_patches),
		cmocka_unit_test(a_name_of_255_bytes_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
