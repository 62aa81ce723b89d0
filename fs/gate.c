/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/gate.h"

#include <stdlib.h>

void gate_init(struct gate *g, unsigned limit, unsigned all)
{
	*g = (struct gate){.limit = limit, .all = all};
	g->turn_last = &g->turn_first;
}

void gate_release(struct gate *g)
{
	for (size_t i = 0; i < GATE_SLOTS; i++)
		while (g->slots[i]) {
			struct gate_storage *s = g->slots[i];

			g->slots[i] = s->next;
			free(s);
		}
}

static struct gate_storage **slot_of(struct gate *g, dev_t dev)
{
	return &g->slots[gate_slot(dev)];
}

static struct gate_storage *find(struct gate *g, dev_t dev, bool make)
{
	struct gate_storage **slot = slot_of(g, dev), *s = *slot;

	while (s && s->dev != dev)
		s = s->next;
	if (s || !make)
		return s;
	s = malloc(sizeof(*s));
	if (!s)
		return NULL;
	*s = (struct gate_storage){.next = *slot, .dev = dev};
	s->last = &s->first;
	*slot = s;
	return s;
}

/* A storage of which nothing is under way is forgotten: there may be one for each mailbox. */
static void forget_idle(struct gate *g, struct gate_storage *s)
{
	struct gate_storage **p = slot_of(g, s->dev);

	if (s->busy || s->first)
		return;
	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	free(s);
}

/* It waits for nothing but a worker. */
static void take_turn(struct gate *g, struct gate_storage *s)
{
	if (s->in_turn || !s->first || s->busy >= g->limit)
		return;
	s->in_turn = true;
	s->turn_next = NULL;
	*g->turn_last = s;
	g->turn_last = &s->turn_next;
}

static void lose_turn(struct gate *g, struct gate_storage *s)
{
	struct gate_storage **p = &g->turn_first;

	if (!s->in_turn)
		return;
	while (*p != s)
		p = &(*p)->turn_next;
	*p = s->turn_next;
	if (!*p)
		g->turn_last = p;
	s->in_turn = false;
}

static struct gate_item *pop(struct gate_storage *s)
{
	struct gate_item *item = s->first;

	s->first = item->next;
	if (!s->first)
		s->last = &s->first;
	return item;
}

bool gate_enter(struct gate *g, struct gate_item *item)
{
	struct gate_storage *s = find(g, item->dev, true);

	if (!s)
		return true;
	if (!s->first && s->busy < g->limit && g->busy < g->all) {
		s->busy++;
		g->busy++;
		return true;
	}
	item->next = NULL;
	*s->last = item;
	s->last = &item->next;
	take_turn(g, s);
	return false;
}

struct gate_item *gate_leave(struct gate *g, dev_t dev)
{
	struct gate_storage *s = find(g, dev, false), *next;
	struct gate_item *item;

	if (!s || !s->busy)
		return NULL; /* uncounted */
	s->busy--;
	g->busy--;
	take_turn(g, s);
	forget_idle(g, s);
	next = g->turn_first;
	if (!next)
		return NULL;
	lose_turn(g, next);
	item = pop(next);
	next->busy++;
	g->busy++;
	take_turn(g, next);
	return item;
}

struct gate_item *gate_remove(struct gate *g, bool (*is)(const struct gate_item *item, const void *arg),
			      const void *arg)
{
	for (size_t i = 0; i < GATE_SLOTS; i++)
		for (struct gate_storage *s = g->slots[i]; s; s = s->next)
			for (struct gate_item **p = &s->first; *p; p = &(*p)->next) {
				struct gate_item *item = *p;

				if (!is(item, arg))
					continue;
				*p = item->next;
				if (!*p)
					s->last = p;
				if (!s->first)
					lose_turn(g, s);
				forget_idle(g, s);
				return item;
			}
	return NULL;
}
