/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What maildexd and maildexfs say of themselves ("key value" lines), what follows from it, and how it is printed.
 *
 * Shapes: keys begin with the program's name and a dot, added where it is missing.
 * Ownership: facts own their strings until facts_release().
 * Threads: one. Errors: -ENOMEM.
 */
#ifndef MAILDEXCTL_FACTS_H
#define MAILDEXCTL_FACTS_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"

struct fact {
	char *key;
	char *value;
};

struct facts {
	struct fact *items;
	size_t count;
};

void facts_init(struct facts *f);
void facts_release(struct facts *f);
/* Adds the lines of one program. Returns 0 or -ENOMEM. */
int facts_add(struct facts *f, const char *program, const char *text);
/* Returns the value or NULL. */
const char *facts_get(const struct facts *f, const char *key);
/*
 * Appends to `reason` what is wrong by the facts themselves (a table of what they should be); sentences are joined by
 * "; ". Returns true if nothing is.
 */
bool facts_healthy(const struct facts *f, struct buf *reason);
/* Appends one program's facts as aligned lines, the program's name left off. */
void facts_print(const struct facts *f, const char *program, struct buf *out);
/* Appends ', "key": value' for each; numbers as numbers. */
void facts_json(const struct facts *f, struct buf *out);

#endif
