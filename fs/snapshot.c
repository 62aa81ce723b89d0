/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct chunk {
	_Atomic unsigned refs;
	uint32_t used;
	uint32_t room; /* grows up to SNAPSHOT_CHUNK, so that a small folder costs little */
	uint32_t count;
	uint64_t last; /* greatest cookie */
	char data[];
};

#define CHUNK_ROOM_MIN 512

struct snapshot {
	_Atomic unsigned refs;
	uint64_t count;
	size_t bytes; /* of the chunks */
	size_t nchunks, room;
	struct chunk **chunks;
};

static const struct fuse_dirent *dirent_at(const struct chunk *c, size_t at)
{
	return (const struct fuse_dirent *)(const void *)(c->data + at);
}

static void chunk_unref(struct chunk *c)
{
	if (atomic_fetch_sub(&c->refs, 1) == 1)
		free(c);
}

static struct chunk *chunk_new(uint32_t room)
{
	struct chunk *c = malloc(sizeof(*c) + room);

	if (c) {
		atomic_init(&c->refs, 1);
		c->used = c->count = 0;
		c->room = room;
		c->last = 0;
	}
	return c;
}

/* Puts a copy of chunk i with that much room in its place. */
static int chunk_replace(struct snapshot *s, size_t i, uint32_t room)
{
	struct chunk *old = s->chunks[i], *c = chunk_new(room);

	if (!c)
		return -ENOMEM;
	c->used = old->used;
	c->count = old->count;
	c->last = old->last;
	memcpy(c->data, old->data, old->used);
	s->chunks[i] = c;
	s->bytes += room;
	s->bytes -= old->room;
	chunk_unref(old);
	return 0;
}

/* Makes chunk i one that only this snapshot holds. */
static int chunk_writable(struct snapshot *s, size_t i)
{
	return atomic_load(&s->chunks[i]->refs) == 1 ? 0 : chunk_replace(s, i, s->chunks[i]->room);
}

static int snapshot_add_chunk(struct snapshot *s, uint32_t room)
{
	struct chunk *c;

	if (s->nchunks == s->room) {
		size_t more = s->room ? s->room * 2 : 2;
		struct chunk **chunks = realloc(s->chunks, more * sizeof(struct chunk *));

		if (!chunks)
			return -ENOMEM;
		s->chunks = chunks;
		s->room = more;
	}
	c = chunk_new(room);
	if (!c)
		return -ENOMEM;
	s->chunks[s->nchunks++] = c;
	s->bytes += room;
	return 0;
}

/* Room for one more entry behind all, in the last chunk or in a new one. */
static int make_room(struct snapshot *s, size_t need)
{
	const struct chunk *last = s->nchunks ? s->chunks[s->nchunks - 1] : NULL;
	uint32_t room;

	if (last && last->used + need <= last->room)
		return chunk_writable(s, s->nchunks - 1);
	if (!last)
		return snapshot_add_chunk(s, CHUNK_ROOM_MIN);
	if (last->used + need > SNAPSHOT_CHUNK)
		return snapshot_add_chunk(s, SNAPSHOT_CHUNK);
	for (room = last->room; last->used + need > room; room *= 2)
		;
	return chunk_replace(s, s->nchunks - 1, room);
}

int snapshot_append(struct snapshot *s, uint64_t cookie, const struct listing_entry *e)
{
	size_t need = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + e->len);
	struct fuse_dirent *d;
	struct chunk *c;
	int r = make_room(s, need);

	if (r < 0)
		return r;
	c = s->chunks[s->nchunks - 1];
	d = (struct fuse_dirent *)(void *)(c->data + c->used);
	d->ino = e->ino;
	d->off = cookie;
	d->namelen = e->len;
	d->type = e->type;
	memcpy(d->name, e->name, e->len);
	memset(d->name + e->len, 0, need - FUSE_NAME_OFFSET - e->len);
	c->used += need;
	c->count++;
	c->last = cookie;
	s->count++;
	return 0;
}

struct snapshot *snapshot_new(uint64_t dir_ino, uint64_t parent_ino)
{
	struct listing_entry dot = {.ino = dir_ino, .type = DT_DIR, .len = 1, .name = "."};
	struct listing_entry dotdot = {.ino = parent_ino, .type = DT_DIR, .len = 2, .name = ".."};
	struct snapshot *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	atomic_init(&s->refs, 1);
	if (snapshot_append(s, 1, &dot) < 0 || snapshot_append(s, 2, &dotdot) < 0) {
		snapshot_unref(s);
		return NULL;
	}
	s->count = 0;
	return s;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
	if (s)
		atomic_fetch_add(&s->refs, 1);
	return s;
}

void snapshot_unref(struct snapshot *s)
{
	if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	for (size_t i = 0; i < s->nchunks; i++)
		chunk_unref(s->chunks[i]);
	free(s->chunks);
	free(s);
}

uint64_t snapshot_count(const struct snapshot *s)
{
	return s->count;
}

size_t snapshot_bytes(const struct snapshot *s)
{
	return s->bytes + s->nchunks * sizeof(struct chunk) + s->room * sizeof(struct chunk *) + sizeof(*s);
}

int snapshot_writable(struct snapshot **sp)
{
	struct snapshot *old = *sp, *s;

	if (atomic_load(&old->refs) == 1)
		return 0;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->chunks = malloc((old->nchunks + 1) * sizeof(struct chunk *));
	if (!s->chunks) {
		free(s);
		return -ENOMEM;
	}
	atomic_init(&s->refs, 1);
	s->count = old->count;
	s->bytes = old->bytes;
	s->nchunks = old->nchunks;
	s->room = old->nchunks + 1;
	for (size_t i = 0; i < old->nchunks; i++) {
		s->chunks[i] = old->chunks[i];
		atomic_fetch_add(&s->chunks[i]->refs, 1);
	}
	snapshot_unref(old);
	*sp = s;
	return 0;
}

/* The first chunk that holds a cookie greater than `cookie`. */
static size_t chunk_behind(const struct snapshot *s, uint64_t cookie)
{
	size_t lo = 0, hi = s->nchunks;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->chunks[mid]->last > cookie)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* The first entry in a chunk with a cookie greater than `cookie`, or the chunk's end. */
static size_t entry_behind(const struct chunk *c, uint64_t cookie)
{
	size_t at = 0;

	while (at < c->used && dirent_at(c, at)->off <= cookie)
		at += FUSE_DIRENT_SIZE(dirent_at(c, at));
	return at;
}

static void entry_fill(const struct fuse_dirent *d, struct snapshot_entry *e)
{
	e->cookie = d->off;
	e->entry = (struct listing_entry){
		.ino = d->ino, .type = (uint8_t)d->type, .len = (uint8_t)d->namelen, .name = d->name};
}

bool snapshot_find(const struct snapshot *s, uint64_t cookie, struct snapshot_entry *e)
{
	size_t i = chunk_behind(s, cookie - 1), at;

	if (i == s->nchunks)
		return false;
	at = entry_behind(s->chunks[i], cookie - 1);
	if (at >= s->chunks[i]->used || dirent_at(s->chunks[i], at)->off != cookie)
		return false;
	entry_fill(dirent_at(s->chunks[i], at), e);
	return true;
}

int snapshot_remove(struct snapshot *s, uint64_t cookie)
{
	size_t i = chunk_behind(s, cookie - 1), at, size;
	struct chunk *c;

	if (i == s->nchunks)
		return -ENOENT;
	at = entry_behind(s->chunks[i], cookie - 1);
	if (at >= s->chunks[i]->used || dirent_at(s->chunks[i], at)->off != cookie)
		return -ENOENT;
	if (chunk_writable(s, i) < 0)
		return -ENOMEM;
	c = s->chunks[i];
	size = FUSE_DIRENT_SIZE(dirent_at(c, at));
	memmove(c->data + at, c->data + at + size, c->used - at - size);
	c->used -= size;
	c->count--;
	s->count--;
	/* `last` may stay too great: the searches only need it to be an upper bound below the next chunk's first. */
	if (c->count == 0) {
		s->bytes -= c->room;
		chunk_unref(c);
		memmove(&s->chunks[i], &s->chunks[i + 1], (s->nchunks - i - 1) * sizeof(struct chunk *));
		s->nchunks--;
	}
	return 0;
}

void snapshot_walk_init(struct snapshot_walk *w, const struct snapshot *s)
{
	*w = (struct snapshot_walk){.s = s};
}

bool snapshot_walk_next(struct snapshot_walk *w, struct snapshot_entry *e)
{
	while (w->chunk < w->s->nchunks) {
		const struct chunk *c = w->s->chunks[w->chunk];

		if (w->at >= c->used) {
			w->chunk++;
			w->at = 0;
			continue;
		}
		entry_fill(dirent_at(c, w->at), e);
		w->at += FUSE_DIRENT_SIZE(dirent_at(c, w->at));
		if (e->cookie >= SNAPSHOT_FIRST_COOKIE)
			return true;
	}
	return false;
}

int snapshot_gather(const struct snapshot *s, uint64_t cookie, size_t size, struct iovec *iov, int max,
		    uint64_t *entries)
{
	int n = 0;

	*entries = 0;
	for (size_t i = chunk_behind(s, cookie); i < s->nchunks && n < max; i++) {
		const struct chunk *c = s->chunks[i];
		size_t from = n ? 0 : entry_behind(c, cookie), to = c->used;

		if (to - from > size) { /* the last piece: as many whole entries as fit */
			to = from;
			while (FUSE_DIRENT_SIZE(dirent_at(c, to)) <= size - (to - from)) {
				to += FUSE_DIRENT_SIZE(dirent_at(c, to));
				(*entries)++;
			}
		} else {
			*entries += c->count;
			for (size_t at = 0; at < from; at += FUSE_DIRENT_SIZE(dirent_at(c, at)))
				(*entries)--;
		}
		if (to > from)
			iov[n++] = (struct iovec){.iov_base = (void *)(c->data + from), .iov_len = to - from};
		size -= to - from;
		if (to < c->used)
			break;
	}
	return n;
}

/* A set of a listing's entries by name, for the time of one merge. */
struct name_set {
	struct listing_entry *entries;
	bool *used;
	uint32_t *slots; /* index + 1, 0: empty */
	size_t mask, count;
};

static void name_set_release(struct name_set *set)
{
	free(set->entries);
	free(set->used);
	free(set->slots);
}

static int name_set_init(struct name_set *set, const struct listing *l)
{
	struct listing_entry e;
	size_t at = 0, size = 16;

	while (size < l->count * 2)
		size *= 2;
	set->mask = size - 1;
	set->count = 0;
	set->entries = calloc(l->count + 1, sizeof(*set->entries));
	set->used = calloc(l->count + 1, sizeof(*set->used));
	set->slots = calloc(size, sizeof(*set->slots));
	if (!set->entries || !set->used || !set->slots) {
		name_set_release(set);
		return -ENOMEM;
	}
	while (set->count < l->count && listing_next(l, &at, &e)) {
		size_t h = listing_hash(e.name, e.len, 0) & set->mask;

		while (set->slots[h])
			h = (h + 1) & set->mask;
		set->entries[set->count] = e;
		set->slots[h] = (uint32_t)++set->count;
	}
	return 0;
}

/* The entry with this very name, or NULL. */
static struct listing_entry *name_set_find(struct name_set *set, const struct listing_entry *e)
{
	for (size_t h = listing_hash(e->name, e->len, 0) & set->mask; set->slots[h]; h = (h + 1) & set->mask) {
		struct listing_entry *have = &set->entries[set->slots[h] - 1];

		if (have->len == e->len && memcmp(have->name, e->name, e->len) == 0)
			return have;
	}
	return NULL;
}

struct snapshot *snapshot_merge(const struct snapshot *old, const struct listing *l, uint64_t dir_ino,
				uint64_t parent_ino, uint64_t *next, bool *changed)
{
	struct snapshot *s = snapshot_new(dir_ino, parent_ino);
	struct name_set set;
	struct snapshot_walk w;
	struct snapshot_entry e;

	*changed = false;
	if (!s)
		return NULL;
	if (name_set_init(&set, l) < 0)
		goto fail;
	if (old) {
		snapshot_walk_init(&w, old);
		while (snapshot_walk_next(&w, &e)) {
			struct listing_entry *have = name_set_find(&set, &e.entry);

			if (!have || set.used[have - set.entries]) {
				*changed = true;
				continue;
			}
			set.used[have - set.entries] = true;
			*changed |= have->ino != e.entry.ino || have->type != e.entry.type;
			if (snapshot_append(s, e.cookie, have) < 0)
				goto fail_set;
		}
	}
	for (size_t i = 0; i < set.count; i++) {
		if (set.used[i])
			continue;
		*changed = true;
		if (snapshot_append(s, (*next)++, &set.entries[i]) < 0)
			goto fail_set;
	}
	name_set_release(&set);
	return s;
fail_set:
	name_set_release(&set);
fail:
	snapshot_unref(s);
	return NULL;
}

int snapshot_to_listing(const struct snapshot *s, struct listing *l)
{
	struct snapshot_walk w;
	struct snapshot_entry e;

	listing_reset(l);
	snapshot_walk_init(&w, s);
	while (snapshot_walk_next(&w, &e))
		if (listing_add(l, &e.entry) < 0)
			return -ENOMEM;
	return 0;
}
