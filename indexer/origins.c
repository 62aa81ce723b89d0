/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/origins.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct origin {
	struct origin *next;
	uint64_t epoch;
	uint64_t last;
	bool goodbye;
	char name[256];
};

void origins_init(struct origins *o)
{
	o->first = NULL;
}

void origins_release(struct origins *o)
{
	while (o->first) {
		struct origin *next = o->first->next;

		free(o->first);
		o->first = next;
	}
}

static struct origin *find(struct origins *o, const char *name)
{
	struct origin *at = o->first;

	while (at && strcmp(at->name, name) != 0)
		at = at->next;
	return at;
}

static struct origin *add(struct origins *o, const char *name)
{
	struct origin *at = calloc(1, sizeof(*at));

	if (!at)
		return NULL;
	snprintf(at->name, sizeof(at->name), "%s", name);
	at->next = o->first;
	o->first = at;
	return at;
}

enum origins_verdict origins_saw(struct origins *o, const char *name, uint64_t epoch, uint64_t sequence)
{
	struct origin *at = find(o, name);
	bool hole = false;

	if (!at)
		at = add(o, name);
	if (!at)
		return ORIGINS_HOLE; /* no memory to know better */
	if (at->epoch != epoch) {
		hole = !at->goodbye;
		at->epoch = epoch;
		at->last = 0;
	}
	if (sequence <= at->last)
		return ORIGINS_DOUBLED;
	hole |= sequence != at->last + 1;
	at->last = sequence;
	at->goodbye = false;
	return hole ? ORIGINS_HOLE : ORIGINS_NEXT;
}

void origins_goodbye(struct origins *o, const char *name)
{
	struct origin *at = find(o, name);

	if (!at)
		at = add(o, name); /* it sent nothing: then nothing is missing either */
	if (at)
		at->goodbye = true;
}

void origins_print(const struct origins *o, struct buf *out)
{
	for (const struct origin *at = o->first; at; at = at->next)
		buf_printf(out, "%" PRIu64 " %" PRIu64 " %d %s\n", at->epoch, at->last, at->goodbye, at->name);
}

int origins_parse(struct origins *o, const char *text)
{
	while (*text) {
		uint64_t epoch, last;
		int goodbye, at = 0;
		size_t len;
		char name[256];
		struct origin *new;

		/* One space, not any: a name may begin with some. */
		if (sscanf(text, "%" SCNu64 " %" SCNu64 " %d%n", &epoch, &last, &goodbye, &at) != 3 ||
		    text[at++] != ' ')
			goto bad;
		len = strcspn(text + at, "\n");
		if (len == 0 || len >= sizeof(name) || text[at + len] != '\n')
			goto bad;
		memcpy(name, text + at, len);
		name[len] = '\0';
		new = add(o, name);
		if (!new)
			goto bad;
		new->epoch = epoch;
		new->last = last;
		new->goodbye = goodbye == 1;
		text += at + len + 1;
	}
	return 0;
bad:
	origins_release(o);
	return -EBADMSG;
}
