/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Readers of the index. See store.h.
 */
#ifndef MAILDEX_STORE_READER_H
#define MAILDEX_STORE_READER_H

#include "lib/store/store.h"

struct store_reader;

/*
 * Opens an existing index read-only; tree: must be this tree's (NULL: any). -ENOENT if there is none yet. Returns 0 or
 * negative errno.
 */
int store_reader_open(struct store_reader **r, const char *path, const char *tree, struct err *e);
void store_reader_close(struct store_reader *r);
/* Is the file that was opened still the one at the path? (an index may be deleted or replaced at any moment) */
bool store_reader_current(const struct store_reader *r);
/* What was read before is read again, so that damage in the file is met. */
void store_reader_forget_pages(struct store_reader *r);
/*
 * One half: its row and, unless l is NULL, its names, in one read transaction; with names, count and sum are checked
 * (-EUCLEAN). Returns 1, 0 (not in the index) or negative errno.
 */
int store_reader_half(struct store_reader *r, const char *folder, enum half half, struct store_row *row,
		      struct listing *l, struct err *e);
/*
 * Walks the rows at and below a folder ("" is all), by path: *after starts as an all-zero row (id 0) and then holds the
 * last one. Returns 1, 0 at the end, or negative errno.
 */
int store_reader_next(struct store_reader *r, const char *below, struct store_row *after, struct err *e);
/* Counts for status. Returns 0 or negative errno. */
struct store_totals {
	uint64_t halves, messages, need, trust, unsettled, file_bytes;
};
int store_reader_totals(struct store_reader *r, struct store_totals *t, struct err *e);

/* A pool: store_readers_get() gives a current reader (opened anew when the file was replaced), put gives it back. */
struct store_readers;
int store_readers_new(struct store_readers **p, const char *path, const char *tree);
void store_readers_free(struct store_readers *p);
/* Returns 0 or negative errno (-ENOENT: no index now). */
int store_readers_get(struct store_readers *p, struct store_reader **r, struct err *e);
/* Closes those that no thread holds and that are not current. */
void store_readers_retire(struct store_readers *p);
/* broken: it gave an error; it is closed. */
void store_readers_put(struct store_readers *p, struct store_reader *r, bool broken);

#endif
