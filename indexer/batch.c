/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/batch.h"

#include <stdlib.h>
#include <string.h>

enum note_kind { NOTE_TRUSTED, NOTE_RENAMED, NOTE_RESCAN };

struct batch_note {
	struct batch_note *next;
	enum note_kind kind;
	enum half half;
	int64_t since_ns;
	char folder[];
};

void batch_init(struct batch *b, const struct batch_tools *tools, struct store_writer *writer)
{
	*b = (struct batch){.tools = tools, .writer = writer};
	b->feed_tail = &b->feed;
}

void batch_count(struct batch *b, enum tally_key which, uint64_t n)
{
	b->counts[which] += n;
}

void batch_feed(struct batch *b, const struct event *ev, uint64_t except)
{
	struct outbox_message *m = outbox_feed(ev, except);

	if (!m)
		return;
	*b->feed_tail = m;
	b->feed_tail = &m->next;
}

void batch_feed_need(struct batch *b, const char *folder, enum half half, uint64_t except)
{
	struct event ev;
	struct change c;

	event_init(&ev, folder, half);
	change_make(&c, CHANGE_NEED, NULL, NULL, 0, 0);
	if (event_add(&ev, &c) == 0)
		batch_feed(b, &ev, except);
	event_release(&ev);
}

static void note(struct batch *b, enum note_kind kind, const char *folder, enum half half, int64_t since_ns)
{
	size_t len = strlen(folder);
	struct batch_note *n = malloc(sizeof(*n) + len + 1);

	if (!n)
		return;
	*n = (struct batch_note){.next = b->notes, .kind = kind, .half = half, .since_ns = since_ns};
	memcpy(n->folder, folder, len + 1);
	b->notes = n;
}

void batch_trusted(struct batch *b, const struct store_row *row)
{
	note(b, NOTE_TRUSTED, row->folder, row->half, row->fresh.trust_since_ns);
}

void batch_renamed(struct batch *b, const char *to)
{
	note(b, NOTE_RENAMED, to, HALF_NEW, 0);
}

void batch_rescan(struct batch *b, const char *folder, enum half half)
{
	note(b, NOTE_RESCAN, folder, half, 0);
}

static void notes_end(struct batch *b, bool call)
{
	const struct apply_hooks *hooks = &b->tools->hooks;

	while (b->notes) {
		struct batch_note *n = b->notes;

		b->notes = n->next;
		if (call && n->kind == NOTE_TRUSTED && hooks->trusted)
			hooks->trusted(hooks->arg, n->folder, n->half, n->since_ns);
		else if (call && n->kind == NOTE_RENAMED && hooks->renamed)
			hooks->renamed(hooks->arg, n->folder);
		else if (call && n->kind == NOTE_RESCAN && hooks->rescan)
			hooks->rescan(hooks->arg, n->folder, n->half);
		free(n);
	}
}

void batch_done(struct batch *b)
{
	for (int i = 0; i < TALLY_KEYS; i++) {
		if (b->counts[i])
			tally_add(b->tools->tally, i, b->counts[i]);
	}
	outbox_send(b->tools->outbox, b->feed);
	b->feed = NULL;
	notes_end(b, true);
}

void batch_drop(struct batch *b)
{
	outbox_list_free(b->feed);
	b->feed = NULL;
	notes_end(b, false);
}
