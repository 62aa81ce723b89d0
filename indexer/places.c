/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* A platform of 400,000 folders has 8 in a chain. */
#define BUCKETS 65536

struct places_index {
	struct place *by_name[BUCKETS];
	struct place *by_wd[PLACE_WHATS][BUCKETS];
};

static struct place **name_bucket(struct places *p, const struct place *parent, const char *name, size_t len)
{
	return &p->index->by_name[XXH3_64bits_withSeed(name, len, (XXH64_hash_t)(uintptr_t)parent) % BUCKETS];
}

/* Descriptors are given out one after the other. */
static struct place **wd_bucket(struct places *p, enum place_what what, int wd)
{
	return &p->index->by_wd[what][(unsigned)wd % BUCKETS];
}

static struct place *place_new(const char *name, size_t len)
{
	struct place *place = calloc(1, sizeof(*place) + len + 1);

	if (!place)
		return NULL;
	for (int i = 0; i < PLACE_WHATS; i++)
		place->watch[i].wd = -1;
	place->len = (uint8_t)len;
	memcpy(place->name, name, len);
	return place;
}

int places_init(struct places *p, void (*unwatch)(void *arg, int wd, bool gone), void *arg)
{
	*p = (struct places){.unwatch = unwatch, .arg = arg};
	p->index = calloc(1, sizeof(*p->index));
	p->root = place_new("", 0);
	if (p->index && p->root)
		return 0;
	places_release(p);
	return -ENOMEM;
}

void places_release(struct places *p)
{
	if (p->root && p->index)
		place_drop(p, p->root, true);
	free(p->root);
	free(p->index);
	*p = (struct places){0};
}

struct place *place_find(struct places *p, const struct place *parent, const char *name, size_t len)
{
	struct place *place = *name_bucket(p, parent, name, len);

	while (place && (place->parent != parent || place->len != len || memcmp(place->name, name, len) != 0))
		place = place->chain;
	return place;
}

struct place *place_child(struct places *p, struct place *parent, const char *name, size_t len, bool *made)
{
	struct place *place = place_find(p, parent, name, len), **at;

	*made = !place;
	if (place)
		return place;
	place = place_new(name, len);
	if (!place)
		return NULL;
	place->parent = parent;
	place->next = parent->child;
	if (place->next)
		place->next->prev = place;
	parent->child = place;
	at = name_bucket(p, parent, name, len);
	place->chain = *at;
	*at = place;
	return place;
}

int place_path(const struct place *place, char *out)
{
	size_t len = 0;
	char *at;

	for (const struct place *up = place; up->parent; up = up->parent)
		len += up->len + (size_t)(up != place);
	if (len > FOLDER_PATH_MAX)
		return -ENAMETOOLONG;
	at = out + len;
	*at = '\0';
	for (const struct place *up = place; up->parent; up = up->parent) {
		if (up != place)
			*--at = '/';
		at -= up->len;
		memcpy(at, up->name, up->len);
	}
	return 0;
}

static void unchain(struct place **at, struct place *place, size_t offset)
{
	while (*at != place)
		at = (struct place **)((char *)*at + offset);
	*at = *(struct place **)((char *)place + offset);
}

static void place_free(struct places *p, struct place *place)
{
	unchain(name_bucket(p, place->parent, place->name, place->len), place, offsetof(struct place, chain));
	if (place->prev)
		place->prev->next = place->next;
	else
		place->parent->child = place->next;
	if (place->next)
		place->next->prev = place->prev;
	free(place);
}

void place_drop(struct places *p, struct place *place, bool gone)
{
	struct place *at = place, *up;

	/* Deepest first, without recursion: anybody may make a deep tree. */
	for (;;) {
		while (at->child)
			at = at->child;
		for (int i = 0; i < PLACE_WHATS; i++)
			place_unwatch(p, at, i, gone);
		for (int i = 0; i < PLACES_LISTS; i++)
			places_take(p, i, at);
		event_free(at->pending);
		at->pending = NULL;
		up = at == place ? NULL : at->parent;
		if (at->parent)
			place_free(p, at);
		if (!up)
			break;
		at = up;
	}
}

void place_sweep(struct places *p, struct place *place, uint64_t met)
{
	struct place *next;

	for (struct place *child = place->child; child; child = next) {
		next = child->next;
		if (child->met != met)
			place_drop(p, child, false);
	}
}

void place_watch(struct places *p, struct place *place, enum place_what what, int wd, dev_t dev, ino_t ino)
{
	struct place **at = wd_bucket(p, what, wd);

	place_unwatch(p, place, what, false);
	place->watch[what] = (struct place_watch){.wd = wd, .dev = dev, .ino = ino, .chain = *at};
	*at = place;
	p->watches++;
	p->folders += what == PLACE_NEW;
}

void place_unwatch(struct places *p, struct place *place, enum place_what what, bool gone)
{
	int wd = place->watch[what].wd;

	if (wd < 0)
		return;
	unchain(wd_bucket(p, what, wd), place, offsetof(struct place, watch[0].chain) + what * sizeof(place->watch[0]));
	place->watch[what].wd = -1;
	p->watches--;
	p->folders -= what == PLACE_NEW;
	p->unwatch(p->arg, wd, gone);
}

void places_unwatch_all(struct places *p)
{
	for (int what = 0; what < PLACE_WHATS; what++)
		for (size_t i = 0; i < BUCKETS; i++)
			while (p->index->by_wd[what][i])
				place_unwatch(p, p->index->by_wd[what][i], what, true);
}

struct place *places_by_wd(struct places *p, int wd, enum place_what *what)
{
	for (int i = 0; i < PLACE_WHATS; i++) {
		struct place *place = wd < 0 ? NULL : *wd_bucket(p, i, wd);

		while (place && place->watch[i].wd != wd)
			place = place->watch[i].chain;
		*what = (enum place_what)i;
		if (place)
			return place;
	}
	return NULL;
}

void places_push(struct places *p, enum places_list list, struct place *place, bool front)
{
	struct place_link *link = &place->link[list];

	if (link->in)
		return;
	*link = (struct place_link){.in = true};
	if (front) {
		link->next = p->first[list];
		p->first[list] = place;
		*(link->next ? &link->next->link[list].prev : &p->last[list]) = place;
	} else {
		link->prev = p->last[list];
		p->last[list] = place;
		*(link->prev ? &link->prev->link[list].next : &p->first[list]) = place;
	}
	p->unwatched += list == PLACES_UNWATCHED;
}

void places_take(struct places *p, enum places_list list, struct place *place)
{
	struct place_link *link = &place->link[list];

	if (!link->in)
		return;
	*(link->prev ? &link->prev->link[list].next : &p->first[list]) = link->next;
	*(link->next ? &link->next->link[list].prev : &p->last[list]) = link->prev;
	*link = (struct place_link){.in = false};
	p->unwatched -= list == PLACES_UNWATCHED;
}

struct place *places_pop(struct places *p, enum places_list list)
{
	struct place *place = p->first[list];

	if (place)
		places_take(p, list, place);
	return place;
}
