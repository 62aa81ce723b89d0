/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/buf.h"

#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP_MIN 64

void buf_init(struct buf *b)
{
	*b = (struct buf){0};
}

void buf_release(struct buf *b)
{
	free(b->data);
	buf_init(b);
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	b->failed = false;
	if (b->data)
		b->data[0] = '\0';
}

/* After a failure nothing more is added: what is there stays a clean beginning, never a message with a hole. */
char *buf_reserve(struct buf *b, size_t more)
{
	size_t need, cap;
	char *data;

	if (b->failed)
		return NULL;
	if (__builtin_add_overflow(b->len, more, &need) || __builtin_add_overflow(need, 1, &need))
		goto failed;
	if (need > b->cap) {
		cap = b->cap ? b->cap : CAP_MIN;
		while (cap < need)
			if (__builtin_mul_overflow(cap, 2, &cap))
				cap = need;
		data = realloc(b->data, cap);
		if (!data)
			goto failed;
		b->data = data;
		b->cap = cap;
	}
	b->data[b->len] = '\0';
	b->data[need - 1] = '\0';
	return b->data + b->len;
failed:
	b->failed = true;
	return NULL;
}

void buf_put(struct buf *b, const void *data, size_t len)
{
	char *to = buf_reserve(b, len);

	if (!to || !len)
		return;
	memcpy(to, data, len);
	b->len += len;
}

void buf_put_u8(struct buf *b, uint8_t v)
{
	buf_put(b, &v, sizeof(v));
}

void buf_put_u32(struct buf *b, uint32_t v)
{
	v = htole32(v);
	buf_put(b, &v, sizeof(v));
}

void buf_put_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	buf_put(b, &v, sizeof(v));
}

void buf_put_str(struct buf *b, const char *s, size_t len)
{
	size_t whole;

	if (len > UINT32_MAX || __builtin_add_overflow(len, sizeof(uint32_t), &whole)) {
		b->failed = true;
		return;
	}
	if (!buf_reserve(b, whole))
		return;
	buf_put_u32(b, (uint32_t)len);
	buf_put(b, s, len);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	char *to;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (len < 0) {
		b->failed = true;
		return;
	}
	to = buf_reserve(b, (size_t)len);
	if (!to)
		return;
	va_start(ap, fmt);
	vsnprintf(to, (size_t)len + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)len;
}

bool buf_ok(const struct buf *b)
{
	return !b->failed;
}

void cursor_init(struct cursor *c, const void *data, size_t len)
{
	*c = (struct cursor){.at = data, .left = len};
}

static const char *take(struct cursor *c, size_t len)
{
	const char *at = c->at;

	if (c->bad || c->left < len) {
		c->bad = true;
		return NULL;
	}
	if (len)
		c->at += len;
	c->left -= len;
	return at;
}

uint8_t cursor_u8(struct cursor *c)
{
	const char *at = take(c, 1);

	return at ? (uint8_t)*at : 0;
}

uint32_t cursor_u32(struct cursor *c)
{
	const char *at = take(c, sizeof(uint32_t));
	uint32_t v = 0;

	if (at)
		memcpy(&v, at, sizeof(v));
	return le32toh(v);
}

uint64_t cursor_u64(struct cursor *c)
{
	const char *at = take(c, sizeof(uint64_t));
	uint64_t v = 0;

	if (at)
		memcpy(&v, at, sizeof(v));
	return le64toh(v);
}

const char *cursor_str(struct cursor *c, size_t max, size_t *len)
{
	size_t n = cursor_u32(c);
	const char *at;

	*len = 0;
	if (n > max)
		c->bad = true;
	at = take(c, n);
	if (!at)
		return "";
	*len = n;
	return at;
}

size_t cursor_str_copy(struct cursor *c, char *out, size_t max)
{
	size_t len;
	const char *s = cursor_str(c, max, &len);

	if (memchr(s, '\0', len)) {
		c->bad = true;
		len = 0;
	}
	memcpy(out, s, len);
	out[len] = '\0';
	return len;
}

bool cursor_done(const struct cursor *c)
{
	return !c->bad && !c->left;
}
