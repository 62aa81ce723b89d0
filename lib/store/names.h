/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The names of one half in the index. Private to lib/store; writer.h and reader.h say what each call means.
 *
 * Flow: names_load() reads; the others change names and let row->count and row->sum follow, which the caller saves.
 * Ownership: the caller's listings.
 * Threads: the connection's.
 * Errors: as store.h.
 */
#ifndef MAILDEX_STORE_NAMES_H
#define MAILDEX_STORE_NAMES_H

#include "lib/store/db.h"
#include "lib/store/store.h"

/* One name as the message table gives it; borrowed until the statement moves on. Returns 0 or -EUCLEAN. */
int names_entry(const struct db *db, sqlite3_stmt *s, struct listing_entry *entry, struct err *e);
/* All names of a half into l, which is emptied first; `likely` of them are expected. l's count and sum are those of
 * what was read. Returns 0 or negative errno. */
int names_load(struct db *db, int64_t id, uint64_t likely, struct listing *l, struct err *e);
int names_of_message(struct db *db, int64_t id, const char *name, size_t len, size_t max, struct listing *l,
		     struct err *e);
int names_put(struct db *db, struct store_row *row, const struct listing_entry *entry, struct err *e);
int names_remove(struct db *db, struct store_row *row, const char *name, size_t len, struct err *e);
/* In replace.c. */
int names_replace(struct db *db, struct store_row *row, const struct listing *l, uint64_t *changed, bool *damaged,
		  struct err *e);

#endif
