/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How names and values are printed.
 *
 * Shapes: file names are any bytes. Shown, control bytes, '\' and bytes that are not UTF-8 become \xNN: one form, which
 * can't forge a line and can be turned back, for people and for JSON.
 * Threads: any. Errors: in the buffer.
 */
#ifndef MAILDEXCTL_TEXT_H
#define MAILDEXCTL_TEXT_H

#include <stdbool.h>

#include "lib/base/buf.h"

/* Appends the name as shown. */
void text_put_shown(struct buf *b, const char *s, size_t len);
/* Appends a JSON string, with its quotes: of a name (as shown), or with `plain` of a text that is none, where '\' stays
 * what it is. */
void text_put_json(struct buf *b, const char *s, size_t len, bool plain);
/* Is it a number as JSON writes them? */
bool text_is_number(const char *s);
/* Appends a number with a ',' between thousands. */
void text_put_grouped(struct buf *b, uint64_t n);

#endif
