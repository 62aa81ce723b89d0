/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index that the fuzzer damages: made by the real writer, once a process, in two pieces: the file, and the log of a
 * last transaction that is not yet in it. What is done to it is a recipe, so that inputs stay small.
 *
 * Flow: image_make(); per input image_reset(), image_apply() until the recipe is at its end, image_write().
 * Ownership: struct image owns its bytes. Threads: one. Errors: CHECK.
 */
#ifndef MAILDEX_TESTS_FUZZ_INDEX_IMAGE_H
#define MAILDEX_TESTS_FUZZ_INDEX_IMAGE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "lib/store/reader.h"
#include "lib/store/writer.h"
#include "tests/fuzz/fuzz.h"

#define TREE "ext4 /dev/mail 2"
#define PAGE 4096
#define IMAGE_BYTES_MAX (256 * 1024)
#define IMAGE_HALVES 5

struct image {
	char dir[PATH_MAX], path[PATH_MAX + 16], wal[PATH_MAX + 24];
	uint8_t *made, *bytes; /* the file, then its log */
	size_t made_file, made_wal, file, wal_len;
};

static const struct {
	const char *folder;
	enum half half;
	unsigned names;
} image_halves[IMAGE_HALVES] = {
	{"", HALF_NEW, 1},       {"user/a", HALF_NEW, 3}, {"user/a", HALF_CUR, 120}, {"user/a/.Sent", HALF_CUR, 5},
	{"user/b", HALF_CUR, 0},
};

static inline void image_fill(struct listing *l, unsigned n, uint64_t ino)
{
	char name[64];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%u.M%uP1V2I%u.mail.example.org:2,S", 1700000000 + i * 7919 % 1000, i, i);
		struct listing_entry entry = {ino + i, i % 5 == 4 ? 0 : 8, (uint8_t)strlen(name), name};

		CHECK(listing_add(l, &entry) == 0);
	}
}

static inline void image_half(struct store_writer *w, size_t at)
{
	struct store_row row;
	struct listing l;
	uint64_t changed;

	listing_init(&l);
	image_fill(&l, image_halves[at].names, 1000 * at);
	CHECK(store_writer_row(w, image_halves[at].folder, image_halves[at].half, true, &row, NULL) == 1);
	CHECK(store_writer_replace(w, &row, &l, &changed, NULL) == 0);
	row.fresh.known = (struct stamp){1, 100 + at, 1700000000000000000, 1700000000000000001, 40, at & 1};
	row.fresh.seen_ns = row.fresh.known.ctime_ns;
	row.fresh.need = at == 3;
	row.fresh.trust = at == 2;
	row.fresh.nparked = at == 1 ? 2 : 0;
	for (unsigned i = 0; i < row.fresh.nparked; i++)
		row.fresh.parked[i].pre = row.fresh.parked[i].post = row.fresh.known;
	CHECK(store_writer_save(w, &row, NULL) == 0);
	listing_release(&l);
}

/* Reads a file behind what is there; returns its length. */
static inline size_t image_read(const char *path, uint8_t *to)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, to, IMAGE_BYTES_MAX / 2);

	CHECK(n >= 0 && n < IMAGE_BYTES_MAX / 2);
	if (fd >= 0)
		close(fd);
	return (size_t)n;
}

static inline void image_load(struct image *m)
{
	m->file = image_read(m->path, m->bytes);
	m->wal_len = image_read(m->wal, m->bytes + m->file);
}

/* Everything of this input goes: the file, what SQLite makes beside it, what was moved aside. */
static inline void image_clear(const struct image *m)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", ".damaged"};
	char name[PATH_MAX + 32];

	for (size_t i = 0; i < LEN(suffixes); i++) {
		snprintf(name, sizeof(name), "%s%s", m->path, suffixes[i]);
		CHECK(unlink(name) == 0 || errno == ENOENT);
	}
}

static inline void image_make(struct image *m)
{
	const char *base = getenv("TMPDIR");
	struct store_writer *w;

	snprintf(m->dir, sizeof(m->dir), "%s/index.XXXXXX", base ? base : "/tmp");
	CHECK(mkdtemp(m->dir));
	snprintf(m->path, sizeof(m->path), "%s/index.sqlite", m->dir);
	snprintf(m->wal, sizeof(m->wal), "%s-wal", m->path);
	m->made = malloc(IMAGE_BYTES_MAX);
	m->bytes = malloc(IMAGE_BYTES_MAX);
	CHECK(m->made && m->bytes);
	CHECK(store_writer_open(&w, m->path, TREE, NULL) == 0);
	CHECK(store_writer_begin(w, NULL) == 0);
	for (size_t i = 0; i + 1 < IMAGE_HALVES; i++)
		image_half(w, i);
	CHECK(store_writer_set_fact(w, "rebuild", "done", NULL) == 0);
	CHECK(store_writer_commit(w, NULL) == 0);
	store_writer_close(w);
	CHECK(store_writer_open(&w, m->path, TREE, NULL) == 0);
	CHECK(store_writer_begin(w, NULL) == 0);
	image_half(w, IMAGE_HALVES - 1);
	CHECK(store_writer_commit(w, NULL) == 0);
	image_load(m);
	store_writer_close(w);
	image_clear(m);
	m->made_file = m->file;
	m->made_wal = m->wal_len;
	CHECK(m->made_file && m->made_wal);
	memcpy(m->made, m->bytes, m->file + m->wal_len);
}

static inline void image_reset(struct image *m, bool with_wal)
{
	m->file = m->made_file;
	m->wal_len = with_wal ? m->made_wal : 0;
	memcpy(m->bytes, m->made, m->made_file + m->made_wal);
}

static inline void image_write(const struct image *m)
{
	const char *const paths[] = {m->path, m->wal};
	const size_t lens[] = {m->file, m->wal_len};

	for (size_t i = 0; i < LEN(paths); i++) {
		int fd;

		if (i > 0 && lens[i] == 0)
			continue;
		fd = open(paths[i], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
		CHECK(fd >= 0 && write(fd, m->bytes + (i ? lens[0] : 0), lens[i]) == (ssize_t)lens[i]);
		close(fd);
	}
}

/* ---- what SQLite itself would take for a sound file ---- */

static const char *const image_columns[] = {
	"folder",
	"half",
	"known_dev",
	"known_ino",
	"known_ctime_ns",
	"known_mtime_ns",
	"known_size",
	"known_sized",
	"seen_ns",
	"need",
	"unsettled",
	"trust",
	"trust_since_ns",
	"gen",
	"count",
	"sum",
	"scanned_ns",
	"parked",
	"id",
};
static const char *const image_texts[] = {
	"UPDATE fact SET value = ?1",
	"UPDATE fact SET key = ?1 WHERE key = 'tree'",
	"DELETE FROM half WHERE id = ?1",
	"DELETE FROM message WHERE half = ?1",
	"UPDATE sqlite_sequence SET seq = ?1",
	"INSERT INTO message VALUES(?2, ?1, 1, 0)",
	"ALTER TABLE message RENAME COLUMN ino TO inode",
	"ALTER TABLE half RENAME TO other",
	"DROP TABLE fact",
	"CREATE TRIGGER t AFTER INSERT ON message BEGIN DELETE FROM message; END",
};

static inline void image_sql_one(sqlite3 *db, const char *text, struct fuzz_in *in)
{
	sqlite3_stmt *s;
	const uint8_t *bytes;
	uint8_t kind = fuzz_u8(in);
	size_t len;

	if (sqlite3_prepare_v2(db, text, -1, &s, NULL) != SQLITE_OK)
		return;
	sqlite3_bind_int64(s, 2, fuzz_u8(in) % 128);
	if (kind % 3 == 0) {
		sqlite3_bind_int64(s, 1, (int64_t)fuzz_number(in, 8));
	} else {
		len = fuzz_take(in, fuzz_u8(in), &bytes);
		if (kind % 3 == 1)
			sqlite3_bind_blob(s, 1, bytes, (int)len, SQLITE_TRANSIENT);
		else
			sqlite3_bind_text(s, 1, (const char *)bytes, (int)len, SQLITE_TRANSIENT);
	}
	while (sqlite3_step(s) == SQLITE_ROW)
		;
	sqlite3_finalize(s);
}

/* Count and sum become those of the names that are there. */
static inline void image_sql_seal(sqlite3 *db)
{
	for (int64_t id = 1; id <= IMAGE_HALVES; id++) {
		char text[200];
		uint64_t count = 0, sum = 0;
		sqlite3_stmt *s;

		snprintf(text, sizeof(text), "SELECT name, ino, type FROM message WHERE half = %d", (int)id);
		if (sqlite3_prepare_v2(db, text, -1, &s, NULL) != SQLITE_OK)
			return;
		for (; sqlite3_step(s) == SQLITE_ROW; count++) {
			const char *name = sqlite3_column_blob(s, 0);
			struct listing_entry entry = {.ino = (uint64_t)sqlite3_column_int64(s, 1),
						      .type = (uint8_t)(sqlite3_column_int(s, 2) ^ DT_REG),
						      .len = (uint8_t)sqlite3_column_bytes(s, 0),
						      .name = name ? name : ""};

			sum += listing_entry_hash(&entry);
		}
		sqlite3_finalize(s);
		snprintf(text, sizeof(text), "UPDATE half SET count = %lld, sum = %lld WHERE id = %d", (long long)count,
			 (long long)sum, (int)id);
		sqlite3_exec(db, text, NULL, NULL, NULL);
	}
}

/* The file as it is by now, changed through SQLite: what comes of it is a sound file with odd content. */
static inline void image_sql(struct image *m, struct fuzz_in *in)
{
	uint8_t which = fuzz_u8(in);
	char text[200];
	sqlite3 *db;

	image_write(m);
	if (sqlite3_open(m->path, &db) == SQLITE_OK) {
		if (which == 0xff) {
			image_sql_seal(db);
		} else if (which & 0x80) {
			snprintf(text, sizeof(text), "UPDATE OR IGNORE half SET %s = ?1 WHERE id = 1 + ?2 %% %d",
				 image_columns[which % LEN(image_columns)], IMAGE_HALVES);
			image_sql_one(db, text, in);
		} else if (which % 16 < 3) { /* of the Nth name of all */
			static const char *const columns[] = {"name", "ino", "type"};

			snprintf(text, sizeof(text),
				 "UPDATE OR IGNORE message SET %s = ?1 WHERE (half, name) = "
				 "(SELECT half, name FROM message LIMIT 1 OFFSET ?2)",
				 columns[which % 16]);
			image_sql_one(db, text, in);
		} else {
			image_sql_one(db, image_texts[which % LEN(image_texts)], in);
		}
	}
	sqlite3_close(db);
	image_load(m);
	image_clear(m);
}

/* ---- what a disk or another program may do to it ---- */

static inline void image_truncate(struct image *m, size_t to)
{
	if (to >= m->file)
		return;
	memmove(m->bytes + to, m->bytes + m->file, m->wal_len);
	m->file = to;
}

/* One step of the recipe. */
static inline void image_apply(struct image *m, struct fuzz_in *in)
{
	uint8_t step = fuzz_u8(in);
	size_t all = m->file + m->wal_len, pages = all / PAGE, at, n;
	const uint8_t *bytes;

	if (step % 8 == 7) {
		image_sql(m, in);
		return;
	}
	if (step % 8 == 6) {
		image_truncate(m, fuzz_number(in, 3));
		return;
	}
	if (pages == 0)
		return;
	if (step % 8 < 2) { /* bytes */
		at = fuzz_number(in, 3) % all;
		n = fuzz_take(in, step % 8 ? fuzz_u8(in) : 1, &bytes);
		memcpy(m->bytes + at, bytes, n < all - at ? n : all - at);
	} else if (step % 8 == 2) { /* one bit */
		at = fuzz_number(in, 3) % all;
		m->bytes[at] ^= (uint8_t)(1 << (step >> 3 & 7));
	} else if (step % 8 == 3) { /* a page in another's place */
		at = fuzz_u8(in) % pages;
		memmove(m->bytes + at * PAGE, m->bytes + fuzz_u8(in) % pages * PAGE, PAGE);
	} else if (step % 8 == 4) { /* a page that was never written */
		memset(m->bytes + fuzz_u8(in) % pages * PAGE, 0, PAGE);
	} else { /* in a page's head or its cells, counted from its start */
		at = fuzz_u8(in) % pages * PAGE;
		at += fuzz_u8(in);
		m->bytes[at] = fuzz_u8(in);
	}
}

#endif
