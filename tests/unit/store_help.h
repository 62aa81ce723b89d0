/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of the store share: a folder of their own with an index path in it, short words for names and rows,
 * and children with another uid or another mount namespace. Flow: group fixtures help_setup/help_teardown per test.
 * Errors: the running test fails.
 */
#ifndef MAILDEX_TESTS_STORE_HELP_H
#define MAILDEX_TESTS_STORE_HELP_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "lib/store/reader.h"
#include "lib/store/writer.h"

#define TREE "ext4 /dev/mail 2"
#define NOBODY 65534
#define LEN(array) (sizeof(array) / sizeof((array)[0]))

struct help {
	char dir[64];
	char path[96];
	struct err err;
};

/* Fails with the error's text; returns rc for further checks. */
#define OK(h, call)                                                                                                    \
	__extension__({                                                                                                \
		int ok_rc_ = (call);                                                                                   \
		if (ok_rc_ < 0)                                                                                        \
			fail_msg("%s: %s", #call, (h)->err.text);                                                      \
		ok_rc_;                                                                                                \
	})

/* A refusal has its code, and a text that names the path and has the word. */
#define REFUSED(h, code, word, call)                                                                                   \
	do {                                                                                                           \
		(h)->err.text[0] = '\0';                                                                               \
		assert_int_equal(call, code);                                                                          \
		if (!strstr((h)->err.text, (h)->path) || !strstr((h)->err.text, word))                                 \
			fail_msg("%s: no %s or no \"%s\" in: %s", #call, (h)->path, word, (h)->err.text);              \
	} while (0)

static inline int help_setup(void **state)
{
	struct help *h = calloc(1, sizeof(*h));

	if (!h)
		return -1;
	strcpy(h->dir, "/tmp/maildex-store-XXXXXX");
	if (!mkdtemp(h->dir))
		return -1;
	snprintf(h->path, sizeof(h->path), "%s/index.sqlite", h->dir);
	*state = h;
	return 0;
}

static inline int help_teardown(void **state)
{
	struct help *h = *state;
	struct dirent *entry;
	DIR *d;

	/* Some tests take the right to write away. */
	chmod(h->dir, 0700);
	d = opendir(h->dir);
	while (d && (entry = readdir(d)))
		unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
	rmdir(h->dir);
	free(h);
	return 0;
}

static inline struct store_writer *help_writer(struct help *h)
{
	struct store_writer *w = NULL;

	OK(h, store_writer_open(&w, h->path, TREE, &h->err));
	return w;
}

static inline struct store_reader *help_reader(struct help *h)
{
	struct store_reader *r = NULL;

	OK(h, store_reader_open(&r, h->path, TREE, &h->err));
	return r;
}

/* A second connection, as another program would have it. */
static inline void help_sql(struct help *h, const char *sql)
{
	sqlite3 *db;

	if (sqlite3_open(h->path, &db) != SQLITE_OK || sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

static inline int64_t help_number(struct help *h, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *s = NULL;
	int64_t n;

	if (sqlite3_open(h->path, &db) != SQLITE_OK || sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK ||
	    sqlite3_step(s) != SQLITE_ROW)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	n = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	return n;
}

static inline struct listing_entry help_entry(const char *name, uint64_t ino)
{
	return (struct listing_entry){.ino = ino, .type = DT_REG, .len = (uint8_t)strlen(name), .name = name};
}

static inline void help_add(struct listing *l, const char *name, uint64_t ino)
{
	struct listing_entry entry = help_entry(name, ino);

	assert_int_equal(listing_add(l, &entry), 0);
}

/* n names that begin with `prefix`, in no order. */
static inline void help_fill(struct listing *l, const char *prefix, unsigned n)
{
	char name[64];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s%u.M%uP1.host:2,S", prefix, 1700000000 + i * 7919 % n, i);
		help_add(l, name, 1000 + i);
	}
}

/* One batch: the half's names become those of l. Returns how many were written. */
static inline uint64_t help_store(struct help *h, struct store_writer *w, const char *folder, const struct listing *l)
{
	struct store_row row;
	uint64_t changed = 0;

	OK(h, store_writer_begin(w, &h->err));
	assert_int_equal(OK(h, store_writer_row(w, folder, HALF_CUR, true, &row, &h->err)), 1);
	OK(h, store_writer_replace(w, &row, l, &changed, &h->err));
	row.fresh.need = false;
	OK(h, store_writer_save(w, &row, &h->err));
	OK(h, store_writer_commit(w, &h->err));
	return changed;
}

/* The same with a writer of its own, and n names. */
static inline void help_store_one(struct help *h, const char *folder, const char *prefix, unsigned n)
{
	struct store_writer *w = help_writer(h);
	struct listing l;

	listing_init(&l);
	help_fill(&l, prefix, n);
	help_store(h, w, folder, &l);
	listing_release(&l);
	store_writer_close(w);
}

/* The names that a reader finds. */
static inline void help_load(struct help *h, const char *folder, struct store_row *row, struct listing *l)
{
	struct store_reader *r = help_reader(h);

	assert_int_equal(OK(h, store_reader_half(r, folder, HALF_CUR, row, l, &h->err)), 1);
	store_reader_close(r);
}

/* Has l this name with this inode? */
static inline bool help_has(const struct listing *l, const char *name, size_t len, uint64_t ino)
{
	struct listing_entry entry;
	size_t at = 0;

	while (listing_next(l, &at, &entry))
		if (entry.len == len && memcmp(entry.name, name, len) == 0 && entry.ino == ino)
			return true;
	return false;
}

/* Runs fn in a child and returns what it returned (0..255), or -1 if it died. */
static inline int help_child(int (*fn)(struct help *h), struct help *h)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn(h));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static inline bool help_become_nobody(void)
{
	return geteuid() == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0;
}

#endif
