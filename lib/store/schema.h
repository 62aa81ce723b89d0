/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The schema of the index, its version (PRAGMA user_version) and its owner (PRAGMA application_id). Private to
 * lib/store.
 *
 * Flow: the writer calls schema_upgrade(), a reader schema_check(); both then schema_tree().
 * Shapes: version N is what the first N upgrades made; 0 is an empty file.
 * Threads: the connection's.
 * Errors: -EPROTO for a newer version and for another program's file, which stays as it is;
 * -EXDEV for another tree; else as store.h.
 */
#ifndef MAILDEX_STORE_SCHEMA_H
#define MAILDEX_STORE_SCHEMA_H

#include "lib/store/db.h"

#define SCHEMA_APPLICATION_ID 0x4d644978 /* "MdIx" */

struct schema {
	const char *const *upgrades; /* SQL texts; upgrades[N] leads from version N to N + 1 */
	int version;                 /* how many there are */
};
extern const struct schema schema_current;

/* Brings the file to the schema's version, each upgrade in a transaction of its own. Returns 0 or negative errno. */
int schema_upgrade(struct db *db, const struct schema *schema, struct err *e);
/* Has the file this version? -ENOENT while it is empty or older: the writer is about to make it. Returns 0 or negative
 * errno. */
int schema_check(struct db *db, const struct schema *schema, struct err *e);
/* Is it this tree's index? (NULL: any will do.) take: one without a tree takes it. Returns 0 or -EXDEV, or other
 * negative errno. */
int schema_tree(struct db *db, const char *tree, bool take, struct err *e);

#endif
