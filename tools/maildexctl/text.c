/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Returns the length of the UTF-8 character at s (1 to 4), or 0 if there is none. */
static size_t utf8_len(const unsigned char *s, size_t left)
{
	static const struct {
		unsigned char mask, lead;
		size_t len;
		uint32_t least; /* anything smaller has a shorter form, which is the only right one */
	} forms[] = {{0x80, 0x00, 1, 0}, {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		uint32_t point = s[0] & (unsigned char)~forms[i].mask;

		if ((s[0] & forms[i].mask) != forms[i].lead)
			continue;
		if (forms[i].len > left)
			return 0;
		for (size_t k = 1; k < forms[i].len; k++) {
			if ((s[k] & 0xc0) != 0x80)
				return 0;
			point = point << 6 | (s[k] & 0x3f);
		}
		if (point < forms[i].least || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
			return 0;
		return forms[i].len;
	}
	return 0;
}

/* U+0080 to U+009F move the cursor as the ASCII ones do. */
static bool is_control(const unsigned char *s, size_t len)
{
	return (len == 1 && (s[0] < 0x20 || s[0] == 0x7f)) || (len == 2 && s[0] == 0xc2 && s[1] < 0xa0);
}

static void put_shown(struct buf *b, const char *s, size_t len, bool plain, bool json)
{
	const unsigned char *at = (const unsigned char *)s, *end = at + len;
	const char *slash = json ? "\\\\" : "\\";

	while (at < end) {
		size_t n = utf8_len(at, (size_t)(end - at));

		if (n == 0 || is_control(at, n) || (*at == '\\' && !plain)) {
			for (size_t i = 0; i < (n ? n : 1); i++)
				buf_printf(b, "%sx%02x", slash, at[i]);
		} else if (json && (*at == '"' || *at == '\\')) {
			buf_printf(b, "\\%c", *at);
		} else {
			buf_put(b, at, n);
		}
		at += n ? n : 1;
	}
}

void text_put_shown(struct buf *b, const char *s, size_t len)
{
	put_shown(b, s, len, false, false);
}

void text_put_json(struct buf *b, const char *s, size_t len, bool plain)
{
	buf_put(b, "\"", 1);
	put_shown(b, s, len, plain, true);
	buf_put(b, "\"", 1);
}

static const char *skip_digits(const char *s)
{
	return s + strspn(s, "0123456789");
}

bool text_is_number(const char *s)
{
	const char *end;

	if (*s == '-')
		s++;
	end = skip_digits(s);
	if (end == s || (*s == '0' && end - s > 1))
		return false;
	if (*end == '.') {
		s = end + 1;
		end = skip_digits(s);
		if (end == s)
			return false;
	}
	return *end == '\0';
}

void text_put_grouped(struct buf *b, uint64_t n)
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, n);

	for (int i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			buf_put(b, ",", 1);
		buf_put(b, &digits[i], 1);
	}
}
