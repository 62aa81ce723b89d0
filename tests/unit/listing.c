/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define N(a) (sizeof(a) / sizeof(*(a)))

static void add(struct listing *l, const char *name, uint64_t ino)
{
	struct listing_entry entry = {.ino = ino, .type = DT_REG, .len = (uint8_t)strlen(name), .name = name};

	assert_int_equal(listing_add(l, &entry), 0);
}

/* Returns 1 and the entry if name is listed. */
static int find(const struct listing *l, const char *name, struct listing_entry *entry)
{
	size_t at = 0;

	while (listing_next(l, &at, entry))
		if (entry->len == strlen(name) && memcmp(entry->name, name, entry->len) == 0)
			return 1;
	return 0;
}

static void add_and_next(void **state)
{
	struct listing a, b;
	struct listing_entry entry;
	char longest[NAME_LEN_MAX + 1];
	size_t at = 0;

	(void)state;
	memset(longest, 'n', NAME_LEN_MAX);
	longest[NAME_LEN_MAX] = '\0';
	listing_init(&a);
	listing_init(&b);
	assert_int_equal(listing_next(&a, &at, &entry), 0);
	add(&a, "1.a:2,", 7);
	add(&a, longest, UINT64_MAX);
	assert_int_equal(a.count, 2);
	assert_int_equal(listing_next(&a, &at, &entry), 1);
	assert_int_equal(entry.ino, 7);
	assert_int_equal(entry.type, DT_REG);
	assert_memory_equal(entry.name, "1.a:2,", entry.len);
	assert_int_equal(listing_next(&a, &at, &entry), 1);
	assert_true(entry.ino == UINT64_MAX);
	assert_int_equal(entry.len, NAME_LEN_MAX);
	assert_int_equal(listing_next(&a, &at, &entry), 0);
	assert_int_equal(at, a.bytes.len);

	/* The sum doesn't know the order, but every name and inode. */
	add(&b, longest, UINT64_MAX);
	assert_true(a.sum != b.sum);
	add(&b, "1.a:2,", 7);
	assert_true(a.sum == b.sum);
	assert_true(listing_hash("x", 1, 1) != listing_hash("x", 1, 2));
	/* ... and type. Of a regular file it is that of name and inode, as in every index and handover before. */
	for (unsigned type = 0; type < 256; type++) {
		entry = (struct listing_entry){.ino = 7, .type = (uint8_t)type, .len = 1, .name = "x"};
		assert_true((listing_entry_hash(&entry) == listing_hash("x", 1, 7)) == (type == DT_REG));
	}
	listing_reset(&b);
	assert_int_equal(b.count, 0);
	assert_true(b.sum == 0);
	listing_release(&a);
	listing_release(&b);
}

static void parse_good(void **state)
{
	struct listing a, b;

	(void)state;
	listing_init(&a);
	listing_init(&b);
	assert_int_equal(listing_parse(&b, NULL, 0, 0, 0), 0);
	add(&a, "1.a", 7);
	add(&a, "2.b", 8);
	assert_int_equal(listing_parse(&b, a.bytes.data, a.bytes.len, a.count, a.sum), 0);
	assert_int_equal(b.count, 2);
	assert_true(b.sum == a.sum);
	assert_memory_equal(b.bytes.data, a.bytes.data, a.bytes.len);
	listing_release(&a);
	listing_release(&b);
}

static void parse_bad(void **state)
{
	static const char *const names[] = {"", ".", "..", "a/b", ".nfs0001"};
	struct listing a, b;

	(void)state;
	listing_init(&a);
	listing_init(&b);
	add(&a, "1.a", 7);
	assert_int_equal(listing_parse(&b, a.bytes.data, a.bytes.len, a.count + 1, a.sum), -EBADMSG);
	assert_int_equal(listing_parse(&b, a.bytes.data, a.bytes.len, a.count, a.sum ^ 1), -EBADMSG);
	for (size_t len = 0; len < a.bytes.len; len++)
		assert_int_equal(listing_parse(&b, a.bytes.data, len, a.count, a.sum), -EBADMSG);
	/* One flipped bit in name or inode would be a phantom message. */
	for (size_t bit = 0; bit < a.bytes.len * 8; bit++) {
		if (bit / 8 == 8)
			continue; /* the type is not in the sum */
		a.bytes.data[bit / 8] ^= (char)(1 << bit % 8);
		assert_int_equal(listing_parse(&b, a.bytes.data, a.bytes.len, a.count, a.sum), -EBADMSG);
		a.bytes.data[bit / 8] ^= (char)(1 << bit % 8);
	}
	assert_int_equal(b.count, 0);
	for (size_t i = 0; i < N(names); i++) {
		listing_reset(&a);
		add(&a, names[i], 7);
		assert_int_equal(listing_parse(&b, a.bytes.data, a.bytes.len, a.count, a.sum), -EBADMSG);
	}
	listing_release(&a);
	listing_release(&b);
}

static void parse_random(void **state)
{
	unsigned short seed[3] = {1, 2, 3};
	struct listing l;
	unsigned char bytes[64];

	(void)state;
	listing_init(&l);
	for (int round = 0; round < 100000; round++) {
		size_t len = (size_t)nrand48(seed) % sizeof(bytes);
		unsigned char *exact = malloc(len + 1);

		for (size_t i = 0; i < len; i++)
			bytes[i] = (unsigned char)nrand48(seed);
		/* Small lengths where they are looked for, so that some records fit. */
		if (len > 10)
			bytes[9] &= 31;
		memcpy(exact, bytes, len);
		/* No random sum fits: nothing may come out, nor be read beyond the end. */
		assert_int_equal(listing_parse(&l, exact, len, 1, 0x1234), -EBADMSG);
		assert_int_equal(l.count, 0);
		free(exact);
	}
	listing_release(&l);
}

static char *make_dir(int *fd)
{
	char *dir = strdup("/tmp/maildex-listing-XXXXXX");

	assert_non_null(mkdtemp(dir));
	*fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(*fd >= 0);
	return dir;
}

static void make_file(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static void read_dir(void **state)
{
	static const char *const names[] = {"1.a:2,S", "2.b", "odd\n\xff", ".nfs00000000000000010000002a", ".keep"};
	struct listing l;
	struct listing_entry entry;
	struct stat st;
	uint64_t all;
	int fd;
	char *dir = make_dir(&fd);

	(void)state;
	listing_init(&l);
	assert_int_equal(listing_read(fd, &l, &all), 0);
	assert_int_equal(l.count, 0);
	assert_int_equal(all, 0);
	for (size_t i = 0; i < N(names); i++)
		make_file(fd, names[i]);
	assert_int_equal(mkdirat(fd, "sub", 0700), 0);
	/* Twice: each time from the start. */
	for (int round = 0; round < 2; round++) {
		assert_int_equal(listing_read(fd, &l, &all), 0);
		assert_int_equal(l.count, 5);
		assert_int_equal(all, 6);
		for (size_t i = 0; i < N(names); i++) {
			int nfs = name_is_nfs(names[i], strlen(names[i]));

			assert_int_equal(find(&l, names[i], &entry), !nfs);
			if (nfs)
				continue;
			assert_int_equal(fstatat(fd, names[i], &st, 0), 0);
			assert_int_equal(entry.ino, st.st_ino);
			assert_int_equal(entry.type, DT_REG);
		}
		assert_int_equal(find(&l, "sub", &entry), 1);
		assert_int_equal(entry.type, DT_DIR);
	}
	for (size_t i = 0; i < N(names); i++)
		unlinkat(fd, names[i], 0);
	unlinkat(fd, "sub", AT_REMOVEDIR);
	close(fd);
	rmdir(dir);
	free(dir);
	listing_release(&l);
}

/* Writes i into the name's first digits. */
static void number(char *name, int i)
{
	for (int at = 9; at >= 0; at--, i /= 10)
		name[at] = (char)('0' + i % 10);
	name[10] = '.';
}

/* More than one getdents64 buffer. */
static void read_large(void **state)
{
	enum { FILES = 6000 };
	struct listing l, copy;
	uint64_t all;
	char name[NAME_LEN_MAX + 1];
	int fd;
	char *dir = make_dir(&fd);

	(void)state;
	memset(name, 'x', NAME_LEN_MAX);
	name[NAME_LEN_MAX] = '\0';
	for (int i = 0; i < FILES; i++) {
		number(name, i);
		make_file(fd, name);
	}
	listing_init(&l);
	listing_init(&copy);
	assert_int_equal(listing_read(fd, &l, &all), 0);
	assert_int_equal(all, FILES);
	assert_int_equal(l.count, FILES);
	assert_int_equal(l.bytes.len, FILES * (10 + NAME_LEN_MAX));
	assert_int_equal(listing_parse(&copy, l.bytes.data, l.bytes.len, l.count, l.sum), 0);
	for (int i = 0; i < FILES; i++) {
		number(name, i);
		assert_int_equal(unlinkat(fd, name, 0), 0);
	}
	close(fd);
	rmdir(dir);
	free(dir);
	listing_release(&l);
	listing_release(&copy);
}

static void read_fails(void **state)
{
	struct listing l;
	uint64_t all;
	int fd;

	(void)state;
	listing_init(&l);
	add(&l, "1.a", 1);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(listing_read(fd, &l, &all), -ENOTDIR);
	assert_int_equal(l.count, 0);
	close(fd);
	listing_release(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(add_and_next), cmocka_unit_test(parse_good), cmocka_unit_test(parse_bad),
		cmocka_unit_test(parse_random), cmocka_unit_test(read_dir),   cmocka_unit_test(read_large),
		cmocka_unit_test(read_fails),
	};

	return cmocka_run_group_tests_name("listing", tests, NULL, NULL);
}
