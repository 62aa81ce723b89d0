/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/names.h"

#include <errno.h>
#include <stdlib.h>

#define TAG_SHIFT 48
#define COOKIE_MASK ((1ULL << TAG_SHIFT) - 1)
#define SLOT_DELETED COOKIE_MASK /* no tag, a cookie that no folder lives to see */

static uint64_t slot_make(uint64_t hash, uint64_t cookie)
{
	return (hash & ~COOKIE_MASK) | (cookie & COOKIE_MASK);
}

void names_init(struct names *n)
{
	*n = (struct names){0};
}

void names_release(struct names *n)
{
	free(n->slots);
	names_init(n);
}

int names_build(struct names *n, const struct snapshot *s)
{
	struct snapshot_walk w;
	struct snapshot_entry e;
	size_t size = 64;

	if (n->slots)
		return 0;
	while (size < snapshot_count(s) * 2)
		size *= 2;
	n->slots = calloc(size, sizeof(*n->slots));
	if (!n->slots)
		return -ENOMEM;
	n->mask = size - 1;
	n->filled = 0;
	snapshot_walk_init(&w, s);
	while (snapshot_walk_next(&w, &e))
		names_added(n, e.entry.name, e.entry.len, e.cookie);
	return 0;
}

size_t names_find(const struct names *n, const struct snapshot *s, const char *name, size_t len,
		  struct snapshot_entry *out, size_t max)
{
	uint64_t hash = name_base_hash(name, len);
	size_t found = 0;
	struct snapshot_entry e;

	for (size_t i = hash & n->mask; n->slots[i]; i = (i + 1) & n->mask) {
		uint64_t slot = n->slots[i];

		if (slot == SLOT_DELETED || (slot ^ hash) >> TAG_SHIFT || !snapshot_find(s, slot & COOKIE_MASK, &e) ||
		    !name_same_base(e.entry.name, e.entry.len, name, len))
			continue;
		if (found < max)
			out[found] = e;
		found++;
	}
	return found;
}

void names_added(struct names *n, const char *name, size_t len, uint64_t cookie)
{
	uint64_t hash = name_base_hash(name, len);
	size_t i;

	if (!n->slots)
		return;
	if (n->filled >= n->mask / 8 * 7) {
		names_release(n);
		return;
	}
	for (i = hash & n->mask; n->slots[i] && n->slots[i] != SLOT_DELETED; i = (i + 1) & n->mask)
		;
	if (!n->slots[i])
		n->filled++;
	n->slots[i] = slot_make(hash, cookie);
}

void names_removed(struct names *n, const char *name, size_t len, uint64_t cookie)
{
	uint64_t hash = name_base_hash(name, len), slot = slot_make(hash, cookie);

	if (!n->slots)
		return;
	for (size_t i = hash & n->mask; n->slots[i]; i = (i + 1) & n->mask) {
		if (n->slots[i] == slot) {
			n->slots[i] = SLOT_DELETED;
			return;
		}
	}
}
