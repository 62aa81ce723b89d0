/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What maildexd does to an index, by seeded random numbers and with few folders, so that steps meet each other's rows:
 * listings handed over, messages that come, go and get flags, folders renamed and dropped, gaps.
 *
 * Flow: within a transaction of the writer, one or several of script_steps. Ownership: the writer is the caller's.
 * Threads: one. Errors: the running test fails.
 */
#ifndef MAILDEX_TESTS_POWERCUT_SCRIPT_H
#define MAILDEX_TESTS_POWERCUT_SCRIPT_H

#include "tests/unit/powercut.h"
#include "tests/unit/store_help.h"

struct script {
	uint64_t random;
	bool calm; /* from now on, messages in folders with short paths only: the tables keep their shape */
	struct store_writer *w;
	struct err err;
};

static const char *const script_folders[] = {"u", "u/.Sent", "u/.Sent/.Old", "v", "w/.Archive"};

static inline size_t script_pick(struct script *s, size_t n)
{
	return powercut_below(&s->random, n);
}

/* Long paths take pages of their own. */
static inline void script_pick_folder(struct script *s, char out[FOLDER_PATH_MAX + 1])
{
	size_t len = s->calm || script_pick(s, 8) ? 0 : 1500 + script_pick(s, 1500);

	memset(out, 'x', len);
	for (size_t i = 100; i + 1 < len; i += 101)
		out[i] = '/';
	snprintf(out + len, FOLDER_PATH_MAX + 1 - len, "%s%s", len ? "/" : "",
		 script_folders[script_pick(s, LEN(script_folders))]);
}

static inline struct stamp script_pick_stamp(struct script *s)
{
	struct stamp stamp;

	/* One after the other: in an initializer each compiler has an order of its own, and seeds would mean other scripts. */
	stamp.dev = 1 + script_pick(s, 2);
	stamp.ino = 1 + script_pick(s, 1000);
	stamp.size = script_pick(s, 3);
	stamp.sized = script_pick(s, 2);
	stamp.ctime_ns = (int64_t)script_pick(s, INT64_MAX / 2);
	stamp.mtime_ns = stamp.ctime_ns - (int64_t)script_pick(s, 2);
	return stamp;
}

static inline void script_pick_fresh(struct script *s, struct store_row *row)
{
	struct fresh *f = &row->fresh;

	f->known = script_pick_stamp(s);
	f->seen_ns = f->known.ctime_ns;
	f->need = script_pick(s, 4) == 0;
	f->unsettled = script_pick(s, 2);
	f->trust = script_pick(s, 2);
	f->trust_since_ns = f->trust ? 1 + (int64_t)script_pick(s, 1000) : 0;
	f->gen++;
	f->nparked = (unsigned)script_pick(s, FRESH_PARKED_MAX + 1);
	for (unsigned i = 0; i < f->nparked; i++) {
		f->parked[i].pre = script_pick_stamp(s);
		f->parked[i].post = script_pick_stamp(s);
	}
	row->scanned_ns = (int64_t)script_pick(s, 1000);
}

/* One of some hundred messages with one of its flags; a few names are long. */
static inline void script_pick_name(struct script *s, char out[NAME_LEN_MAX + 1])
{
	size_t i = script_pick(s, 400);
	int more = i % 40 ? 0 : 150;

	snprintf(out, NAME_LEN_MAX + 1, "%zu.M%zuP1%0*d.host:2,%.*s", 1700000000 + i * 7919, i, more, 0,
		 (int)script_pick(s, 3), "SF");
}

static inline void script_scan(struct script *s)
{
	struct store_row row;
	struct listing l;
	char folder[FOLDER_PATH_MAX + 1], name[NAME_LEN_MAX + 1];
	uint64_t changed;
	size_t n = script_pick(s, 4) ? script_pick(s, 30) : script_pick(s, 250);

	listing_init(&l);
	script_pick_folder(s, folder);
	OK(s, store_writer_row(s->w, folder, script_pick(s, HALVES), true, &row, &s->err));
	while (n--) {
		script_pick_name(s, name);
		help_add(&l, name, 1 + script_pick(s, 5));
	}
	OK(s, store_writer_replace(s->w, &row, &l, &changed, &s->err));
	script_pick_fresh(s, &row);
	OK(s, store_writer_save(s->w, &row, &s->err));
	listing_release(&l);
}

/* Messages come, go, and get flags. */
static inline void script_event(struct script *s)
{
	struct store_row row;
	struct listing l;
	char folder[FOLDER_PATH_MAX + 1], name[NAME_LEN_MAX + 1];
	struct listing_entry entry;

	listing_init(&l);
	script_pick_folder(s, folder);
	OK(s, store_writer_row(s->w, folder, script_pick(s, HALVES), true, &row, &s->err));
	for (size_t n = 1 + script_pick(s, 6); n; n--) {
		size_t at = 0;

		script_pick_name(s, name);
		OK(s, store_writer_names(s->w, &row, name, strlen(name), &l, &s->err));
		while (listing_next(&l, &at, &entry))
			OK(s, store_writer_remove(s->w, &row, entry.name, entry.len, &s->err));
		entry = help_entry(name, 1 + script_pick(s, 5));
		if (script_pick(s, 4))
			OK(s, store_writer_put(s->w, &row, &entry, &s->err));
	}
	script_pick_fresh(s, &row);
	OK(s, store_writer_save(s->w, &row, &s->err));
	listing_release(&l);
}

static inline void script_rename_folder(struct script *s)
{
	char from[FOLDER_PATH_MAX + 1], to[FOLDER_PATH_MAX + 1];

	script_pick_folder(s, from);
	script_pick_folder(s, to);
	OK(s, store_writer_rename(s->w, from, to, &s->err));
}

static inline void script_drop_folder(struct script *s)
{
	const char *folder = script_folders[script_pick(s, LEN(script_folders))];

	OK(s, store_writer_drop(s->w, folder, script_pick(s, 2), &s->err));
}

static inline void script_gap(struct script *s)
{
	OK(s, store_writer_gap(s->w, &s->err));
}

/* The more often, the more of it. */
static void (*const script_steps[])(struct script *) = {
	script_scan,  script_scan,  script_scan,          script_event,       script_event,
	script_event, script_event, script_rename_folder, script_drop_folder, script_gap,
};

/* Any of them. */
static inline void script_step(struct script *s)
{
	if (s->calm)
		script_event(s);
	else
		script_steps[script_pick(s, LEN(script_steps))](s);
}

#endif
