/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A growing byte buffer, and a cursor that reads one back: the words of the socket protocol.
 *
 * Shapes: integers are little-endian; a string is u32 length + bytes (no NUL stored).
 * Ownership: a struct buf owns its bytes until buf_release(); a cursor borrows them.
 * Threads: one thread at a time.
 * Errors: out of memory is remembered in `failed` (buf_ok() at the end tells); a cursor that runs past its end or
 * meets a string that is too long sets `bad`, and every later get returns zero or an empty string: check once at the
 * end.
 */
#ifndef MAILDEX_BASE_BUF_H
#define MAILDEX_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	char *data; /* NULL while empty; else always followed by a NUL that `len` doesn't count */
	size_t len;
	size_t cap;
	bool failed;
};

void buf_init(struct buf *b);
void buf_release(struct buf *b);
/* Empties, keeps the memory. */
void buf_reset(struct buf *b);
/* Makes room for `more` bytes; returns where they go, or NULL (failed is set). Does not change len. */
char *buf_reserve(struct buf *b, size_t more);
void buf_put(struct buf *b, const void *data, size_t len);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_str(struct buf *b, const char *s, size_t len);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Returns true if nothing failed since init or reset. */
bool buf_ok(const struct buf *b);

struct cursor {
	const char *at;
	size_t left;
	bool bad;
};

void cursor_init(struct cursor *c, const void *data, size_t len);
uint8_t cursor_u8(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
/* A string of at most `max` bytes, borrowed (not NUL-terminated); longer sets bad. */
const char *cursor_str(struct cursor *c, size_t max, size_t *len);
/* The same, copied into out[max + 1] with a NUL; a NUL inside sets bad. Returns the length. */
size_t cursor_str_copy(struct cursor *c, char *out, size_t max);
/* Returns true if nothing was bad and nothing is left. */
bool cursor_done(const struct cursor *c);

#endif
