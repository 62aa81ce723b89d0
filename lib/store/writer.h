/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index's one writer. See store.h.
 *
 * Flow: store_writer_open(); then per batch begin ... (row, put, remove, replace, save) ... commit. After any error
 * inside a batch: rollback, nothing of it is kept.
 */
#ifndef MAILDEX_STORE_WRITER_H
#define MAILDEX_STORE_WRITER_H

#include <stdbool.h>

#include "lib/mail/event.h"
#include "lib/store/store.h"

struct store_writer;

/*
 * Opens or makes the file (mode 0640), upgrades an older schema, checks that it was built for `tree` (an empty index
 * takes it). A damaged file gives -EUCLEAN: the caller may store_discard() and open again. Returns 0 or negative errno.
 */
int store_writer_open(struct store_writer **w, const char *path, const char *tree, struct err *e);
void store_writer_close(struct store_writer *w);
/* Moves a damaged index aside: PATH.damaged (an older one is replaced), without -wal and -shm. Returns 0 or negative
 * errno. */
int store_discard(const char *path, struct err *e);

/* Removes what SQLite keeps beside the file: it is that of a file that was there before. Returns 0 or negative errno. */
int store_forget_log(const char *path, struct err *e);

/* Is the file at the path still the opened one, and the log beside it too? */
bool store_writer_current(const struct store_writer *w);
/* Outside of a batch: what was read before is read again, so that damage in the file is met. */
void store_writer_forget_pages(struct store_writer *w);
/* Starts a batch. -ESTALE: the file, or its log, was deleted or replaced (the index is a cache); close and open again. Returns 0 or
 * negative errno. */
int store_writer_begin(struct store_writer *w, struct err *e);
int store_writer_commit(struct store_writer *w, struct err *e);
void store_writer_rollback(struct store_writer *w);

/* Finds a half's row. create: make it (need set) if it is not there. Returns 1, 0 (not there) or negative errno. */
int store_writer_row(struct store_writer *w, const char *folder, enum half half, bool create, struct store_row *row,
		     struct err *e);
/*
 * Finds the names of a message (same base name) and puts them into l, which is emptied first: at most STORE_NAMES_MAX,
 * one more than a plan can hold, so that too many are seen as such. Returns 0 or negative errno.
 */
#define STORE_NAMES_MAX (PLAN_MAX + 1)
int store_writer_names(struct store_writer *w, const struct store_row *row, const char *name, size_t len,
		       struct listing *l, struct err *e);
/* Puts a name in (replacing inode and type), or takes it out; row->count and row->sum follow. Returns 0 or negative
 * errno. */
int store_writer_put(struct store_writer *w, struct store_row *row, const struct listing_entry *entry, struct err *e);
int store_writer_remove(struct store_writer *w, struct store_row *row, const char *name, size_t len, struct err *e);
/* Makes the row's names those of l, writing only what differs; *changed: how many names were put or removed. All of
 * them if those in the index were not those of the row's count and sum, which store_writer_healed() then tells until
 * the next one. Returns 0 or negative errno. */
int store_writer_replace(struct store_writer *w, struct store_row *row, const struct listing *l, uint64_t *changed,
			 struct err *e);
bool store_writer_healed(const struct store_writer *w);
/* Writes the fields of a row that was found in this batch: if it isn't there now, the index is damaged. Returns 0 or
 * negative errno. */
int store_writer_save(struct store_writer *w, const struct store_row *row, struct err *e);
/* Forgets both halves of a folder, with `below` those of folders below it too ("" has all below it). Returns 0 or
 * negative errno. */
int store_writer_drop(struct store_writer *w, const char *folder, bool below, struct err *e);
/*
 * A directory was renamed: rows at it and below it follow as they are, replacing what stood there. That may be wrong or
 * late at no harm: `known` holds the half's inode, so a row served under a path that is another directory's is listed
 * first (rule 1). Returns 0 or negative errno.
 */
int store_writer_rename(struct store_writer *w, const char *from, const char *to, struct err *e);
/* need on every row with trust (rule 7). Returns 0 or negative errno. */
int store_writer_gap(struct store_writer *w, struct err *e);
/* Small facts that live in the same transaction (a rebuild's state; the bus's last ID). Returns 1/0/negative errno. */
int store_writer_fact(struct store_writer *w, const char *key, char *out, size_t size, struct err *e);
/* value NULL removes. */
int store_writer_set_fact(struct store_writer *w, const char *key, const char *value, struct err *e);

#endif
