/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Folders: a Maildir's path below the root, and its two halves that are indexed.
 *
 * Shapes: a folder path is relative to the root, without leading or trailing '/', without empty, "." or ".."
 * components, at most FOLDER_PATH_MAX bytes; "" is a Maildir that is the root itself. Pure functions; threads: any.
 * Errors: -EINVAL with a text that names what was wrong.
 */
#ifndef MAILDEX_MAIL_FOLDER_H
#define MAILDEX_MAIL_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"
#include "lib/mail/name.h"

#define FOLDER_PATH_MAX 3072

enum half { HALF_NEW = 0, HALF_CUR = 1 };
#define HALVES 2

/* "new" or "cur". */
const char *half_word(enum half h);
/* Returns 0 if name (len bytes) is "new" or "cur", else -ENOENT. */
int half_parse(const char *name, size_t len, enum half *h);

/* Checks a relative folder path as above. Returns 0 or -EINVAL. */
int folder_path_check(const char *path, size_t len, struct err *e);

/* What a path given to maildex-notify means. */
struct folder_ref {
	char folder[FOLDER_PATH_MAX + 1];
	bool has_half;
	enum half half;
	char name[NAME_LEN_MAX + 1]; /* "" if no message was named */
};

/*
 * Takes a path relative to the root apart: ".../new/NAME", ".../cur/NAME", ".../new", ".../cur", or a Maildir (then
 * has_half is false: "something arrived here" means new/). A trailing '/' is ignored. Returns 0 or -EINVAL.
 */
int folder_ref_parse(const char *path, size_t len, struct folder_ref *ref, struct err *e);

/*
 * Makes an absolute path relative to the first of the given absolute prefixes that holds it (root, mount). "."
 * components and doubled '/' are dropped, ".." refused; symbolic links are not followed. Writes to out[FOLDER_PATH_MAX
 * + 1 + NAME_LEN_MAX + 1]. Returns 0 or -EINVAL.
 */
int folder_relative(const char *path, const char *const *prefixes, size_t nprefixes, char *out, struct err *e);

#endif
