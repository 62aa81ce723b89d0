/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/name.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

size_t name_base_len(const char *name, size_t len)
{
	if (len < 2)
		return len;
	/* From the second byte on: two files called ":2,S" and ":2,F" must not become one message without a name. */
	const char *colon = memchr(name + 1, ':', len - 1);

	return colon ? (size_t)(colon - name) : len;
}

bool name_same_base(const char *a, size_t alen, const char *b, size_t blen)
{
	size_t n = name_base_len(a, alen);

	return n == name_base_len(b, blen) && memcmp(a, b, n) == 0;
}

uint64_t name_base_hash(const char *name, size_t len)
{
	return XXH3_64bits(name, name_base_len(name, len));
}

bool name_is_message(const char *name, size_t len)
{
	size_t digits = 0;

	while (digits < len && name[digits] >= '0' && name[digits] <= '9')
		digits++;
	return digits > 0 && digits + 1 < len && name[digits] == '.';
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool name_is_nfs(const char *name, size_t len)
{
	if (len < 5 || memcmp(name, ".nfs", 4) != 0)
		return false;
	for (size_t i = 4; i < len; i++)
		if (!is_hex(name[i]))
			return false;
	return true;
}

bool name_ok(const char *name, size_t len)
{
	if (len < 1 || len > NAME_LEN_MAX || memchr(name, '/', len) || memchr(name, '\0', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}
