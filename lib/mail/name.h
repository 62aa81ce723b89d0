/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of files in a Maildir (https://cr.yp.to/proto/maildir.html): what of a name is the message and what its flags.
 *
 * Shapes: a name is 1 to 255 bytes, any but '/' and NUL. The base name is what stands before the first ':' (":2,FS");
 * it names the message for life, while flags change. Pure functions; threads: any; errors: none.
 */
#ifndef MAILDEX_MAIL_NAME_H
#define MAILDEX_MAIL_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_LEN_MAX 255

/* Returns the length of the base name. A leading ':' belongs to it: a base is never empty. */
size_t name_base_len(const char *name, size_t len);
/* Returns true if both names have the same base. */
bool name_same_base(const char *a, size_t alen, const char *b, size_t blen);
/* Returns a hash of the base name (XXH3). */
uint64_t name_base_hash(const char *name, size_t len);
/* Returns true if the name looks like a delivered message: digits, '.', more (so DT_UNKNOWN may be shown as DT_REG). */
bool name_is_message(const char *name, size_t len);
/* Returns true for ".nfsXXXX", the NFS client's name for an unlinked file that is still open. */
bool name_is_nfs(const char *name, size_t len);
/* Returns true if it can be a file's name: 1..255 bytes, no '/', no NUL, not "." or "..". */
bool name_ok(const char *name, size_t len);

#endif
