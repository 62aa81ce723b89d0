/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of scans share: a half in a directory of its own, short words for what happens in it, and a check of
 * all that a scan says. Flow: box_open/box_close per test. Errors: the running test fails.
 */
#ifndef MAILDEX_TESTS_SCAN_HELP_H
#define MAILDEX_TESTS_SCAN_HELP_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/mail/scan.h"

#define N(a) (sizeof(a) / sizeof(*(a)))

/* One half in a directory of its own, and a place beside it to hide a message in. */
static struct {
	char path[64];
	int top, dir;
	bool late; /* a pass that was to be unsettled was not: the machine was too slow, once more */
} box;

static inline int box_open(void **state)
{
	(void)state;
	strcpy(box.path, "/tmp/maildex-scan-XXXXXX");
	if (!mkdtemp(box.path))
		return -1;
	box.top = open(box.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mkdirat(box.top, "cur", 0700) < 0)
		return -1;
	box.dir = openat(box.top, "cur", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	box.late = false;
	return box.dir < 0 ? -1 : 0;
}

static inline void empty_dir(int at)
{
	int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fdopendir(fd);
	struct dirent *e;

	while ((e = readdir(d)))
		unlinkat(at, e->d_name, 0);
	closedir(d);
}

static inline int box_close(void **state)
{
	(void)state;
	scan_test_hook = NULL;
	empty_dir(box.dir);
	empty_dir(box.top);
	unlinkat(box.top, "cur", AT_REMOVEDIR);
	close(box.dir);
	close(box.top);
	return rmdir(box.path);
}

static inline void make(const char *name)
{
	int fd = openat(box.dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static inline void change(const char *from, const char *to)
{
	assert_int_equal(renameat(box.dir, from, box.dir, to), 0);
}

static inline void hide(const char *name)
{
	assert_int_equal(renameat(box.dir, name, box.top, name), 0);
}

static inline void show(const char *name)
{
	assert_int_equal(renameat(box.top, name, box.dir, name), 0);
}

static inline void twin(const char *name, const char *other)
{
	assert_int_equal(linkat(box.dir, name, box.dir, other, 0), 0);
}

static inline void expunge(const char *name)
{
	assert_int_equal(unlinkat(box.dir, name, 0), 0);
}

static inline int64_t unsettled_left_ns(void)
{
	struct stamp s;

	assert_int_equal(stamp_read(box.dir, &s, NULL), 0);
	return s.ctime_ns + stamp_settle_ns(&s) - serverclock_now_ns(s.dev);
}

/* Waits until no later change can share the directory's stamp. */
static inline void settle(void)
{
	int64_t left;

	while ((left = unsettled_left_ns()) > 0) {
		struct timespec t = {.tv_sec = left / NS_PER_S, .tv_nsec = left % NS_PER_S};

		nanosleep(&t, NULL);
	}
}

/* Waits for the filesystem's clock to move on, so that the next change gives the directory a new stamp. */
static inline void tick(void)
{
	struct timespec now;
	struct stat st;

	assert_int_equal(fstat(box.dir, &st), 0);
	do
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	while (now.tv_sec < st.st_ctim.tv_sec ||
	       (now.tv_sec == st.st_ctim.tv_sec && now.tv_nsec <= st.st_ctim.tv_nsec));
}

/* The listing as "name name ", sorted. */
static inline char *names(const struct listing *l)
{
	static char out[4096];
	char list[64][64];
	struct listing_entry entry;
	size_t n = 0, at = 0;

	out[0] = '\0';
	while (listing_next(l, &at, &entry)) {
		assert_true(n < N(list) && entry.len < sizeof(list[0]));
		memcpy(list[n], entry.name, entry.len);
		list[n++][entry.len] = '\0';
	}
	assert_int_equal(n, l->count);
	qsort(list, n, sizeof(list[0]), (int (*)(const void *, const void *))strcmp);
	for (size_t i = 0; i < n; i++) {
		strcat(out, list[i]);
		strcat(out, " ");
	}
	return out;
}

/* A listing of the given names, as if listed earlier. */
static inline void listed(struct listing *l, const char *const *list, size_t n)
{
	listing_init(l);
	for (size_t i = 0; i < n; i++) {
		struct listing_entry entry = {
			.ino = 1000 + i, .type = DT_REG, .len = (uint8_t)strlen(list[i]), .name = list[i]};

		assert_int_equal(listing_add(l, &entry), 0);
	}
}

/* Scans and checks everything that the result says. before: one name or NULL. */
static inline void check(const char *before, const char *expect, unsigned listings, unsigned lookups, bool unclear)
{
	struct listing old;
	struct scan s;

	listed(&old, &before, before ? 1 : 0);
	assert_int_equal(scan_half(box.dir, &(struct scan_from){.before = &old}, &s), 0);
	if (!box.late) {
		assert_string_equal(names(&s.listing), expect);
		assert_int_equal(s.listings, listings);
		assert_int_equal(s.lookups, lookups);
		assert_int_equal(s.unclear, unclear);
		assert_int_equal(s.last.number, listings);
	}
	scan_release(&s);
	listing_release(&old);
}

#define BOXED(test) cmocka_unit_test_setup_teardown(test, box_open, box_close)

#endif
