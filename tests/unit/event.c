/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/event.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/sock.h"

#define N(a) (sizeof(a) / sizeof(*(a)))

/* "name=inode name=inode ..." as entries; the text is cut up. Returns how many. */
static size_t entries(char *text, struct listing_entry *out)
{
	size_t n = 0;
	char *word, *rest = text;

	while ((word = strsep(&rest, " "))) {
		char *ino = strrchr(word, '=');

		if (!ino)
			continue;
		*ino++ = '\0';
		out[n++] = (struct listing_entry){
			.ino = strtoull(ino, NULL, 10), .type = DT_REG, .len = (uint8_t)strlen(word), .name = word};
	}
	return n;
}

/* The listing after the plan, sorted, in the same form. */
static void apply(const struct listing_entry *now, size_t nnow, const struct plan *plan, char *out, size_t size)
{
	char words[3 * PLAN_MAX][300];
	size_t n = 0, used = 0;

	for (size_t i = 0; i < nnow; i++) {
		bool removed = false;

		for (size_t j = 0; j < plan->nremove; j++)
			removed |= plan->remove[j].len == now[i].len &&
				   memcmp(plan->remove[j].name, now[i].name, now[i].len) == 0;
		if (!removed)
			snprintf(words[n++], 300, "%.*s=%d", now[i].len, now[i].name, (int)now[i].ino);
	}
	for (size_t j = 0; j < plan->nput; j++)
		snprintf(words[n++], 300, "%.*s=%d", plan->put[j].len, plan->put[j].name, (int)plan->put[j].ino);
	qsort(words, n, sizeof(words[0]), (int (*)(const void *, const void *))strcmp);
	out[0] = '\0';
	for (size_t i = 0; i < n; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%s", i ? " " : "", words[i]);
}

enum { BLIND = 1, SEEN = 0 };

static const struct {
	const char *what;
	enum change_kind kind;
	const char *old, *name;
	int ino;
	int blind;
	const char *now;
	enum plan_verdict verdict;
	const char *after; /* CHANGE: the listing; LOOKUP: the names looked up */
} plans[] = {
	{"add: new", CHANGE_ADD, NULL, "1.a", 7, BLIND, "", PLAN_CHANGE, "1.a=7"},
	{"add: late or doubled (C5)", CHANGE_ADD, NULL, "1.a", 7, SEEN, "", PLAN_LOOKUP, "1.a"},
	{"add: listed", CHANGE_ADD, NULL, "1.a", 7, SEEN, "1.a=7", PLAN_SAME, NULL},
	{"add: listed, inode not told", CHANGE_ADD, NULL, "1.a", 0, SEEN, "1.a=7", PLAN_SAME, NULL},
	{"add: inode not told", CHANGE_ADD, NULL, "1.a", 0, BLIND, "", PLAN_LOOKUP, "1.a"},
	{"add: flagged elsewhere", CHANGE_ADD, NULL, "1.a:2,S", 7, BLIND, "1.a:2,=7", PLAN_CHANGE, "1.a:2,S=7"},
	{"add: flagged, late", CHANGE_ADD, NULL, "1.a:2,S", 7, SEEN, "1.a:2,=7", PLAN_LOOKUP, "1.a:2,S 1.a:2,"},
	{"add: other file, same base", CHANGE_ADD, NULL, "1.a:2,S", 8, BLIND, "1.a=7", PLAN_LOOKUP, "1.a:2,S 1.a"},
	{"add: name holds another file", CHANGE_ADD, NULL, "1.a", 8, BLIND, "1.a=7", PLAN_LOOKUP, "1.a"},
	{"add: a second link", CHANGE_ADD, NULL, "1.a:2,S", 7, BLIND, "1.a=7 1.a:2,F=7", PLAN_LOOKUP,
	 "1.a:2,S 1.a 1.a:2,F"},
	{"add: twins, both listed", CHANGE_ADD, NULL, "1.a", 7, BLIND, "1.a=7 1.a:2,F=7", PLAN_LOOKUP, "1.a 1.a:2,F"},
	{"remove", CHANGE_REMOVE, NULL, "1.a", 7, BLIND, "1.a=7", PLAN_CHANGE, ""},
	{"remove: inode not told", CHANGE_REMOVE, NULL, "1.a", 0, BLIND, "1.a=7", PLAN_CHANGE, ""},
	{"remove: gone", CHANGE_REMOVE, NULL, "1.a", 7, SEEN, "", PLAN_SAME, NULL},
	{"remove: own, late, re-added meanwhile (C4)", CHANGE_REMOVE, NULL, "1.a", 7, SEEN, "1.a=9", PLAN_LOOKUP,
	 "1.a"},
	{"remove: re-added as another file (C4)", CHANGE_REMOVE, NULL, "1.a", 7, BLIND, "1.a=9", PLAN_LOOKUP, "1.a"},
	{"remove: an old name (C3)", CHANGE_REMOVE, NULL, "1.a", 7, BLIND, "1.a:2,S=7", PLAN_LOOKUP, "1.a 1.a:2,S"},
	{"remove: one of twins", CHANGE_REMOVE, NULL, "1.a", 7, BLIND, "1.a=7 1.a:2,S=7", PLAN_LOOKUP, "1.a 1.a:2,S"},
	{"rename: flags", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, BLIND, "1.a:2,=7", PLAN_CHANGE, "1.a:2,S=7"},
	{"rename: done", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, SEEN, "1.a:2,S=7", PLAN_SAME, NULL},
	{"rename: not heard of before", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, BLIND, "", PLAN_CHANGE, "1.a:2,S=7"},
	{"rename: late", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, SEEN, "1.a:2,=7", PLAN_LOOKUP, "1.a:2,S 1.a:2,"},
	{"rename: renamed on (C3)", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, BLIND, "1.a:2,FS=7", PLAN_LOOKUP,
	 "1.a:2,S 1.a:2, 1.a:2,FS"},
	{"rename: old is another file", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, BLIND, "1.a:2,=8", PLAN_LOOKUP,
	 "1.a:2,S 1.a:2,"},
	{"rename: inode not told", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 0, BLIND, "1.a:2,=7", PLAN_LOOKUP,
	 "1.a:2,S 1.a:2,"},
	{"rename: over a twin", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, BLIND, "1.a:2,=7 1.a:2,S=8", PLAN_LOOKUP,
	 "1.a:2,S 1.a:2,"},
	{"rename: base", CHANGE_RENAME, "1.a", "2.b", 7, BLIND, "1.a=7", PLAN_CHANGE, "2.b=7"},
	{"rename: base, over another", CHANGE_RENAME, "1.a", "2.b", 7, BLIND, "1.a=7 2.b=8", PLAN_CHANGE, "2.b=7"},
	{"rename: base, over another, old unheard of", CHANGE_RENAME, "1.a", "2.b", 7, BLIND, "2.b=8", PLAN_CHANGE,
	 "2.b=7"},
	{"rename: base, nothing listed", CHANGE_RENAME, "1.a", "2.b", 7, BLIND, "", PLAN_CHANGE, "2.b=7"},
	{"rename: base, done", CHANGE_RENAME, "1.a", "2.b", 7, SEEN, "2.b=7", PLAN_SAME, NULL},
	{"rename: base, late", CHANGE_RENAME, "1.a", "2.b", 7, SEEN, "1.a=7", PLAN_LOOKUP, "2.b 1.a"},
	{"rename: base, old flagged meanwhile", CHANGE_RENAME, "1.a", "2.b", 7, BLIND, "1.a:2,S=7", PLAN_LOOKUP,
	 "2.b 1.a 1.a:2,S"},
	{"rename: between links of one file", CHANGE_RENAME, "1.a", "2.b", 7, BLIND, "1.a=7 2.b=7", PLAN_LOOKUP,
	 "2.b 1.a"},
	{"too many names", CHANGE_ADD, NULL, "1.a", 7, BLIND,
	 "1.a:1=1 1.a:2=2 1.a:3=3 1.a:4=4 1.a:5=5 1.a:6=6 1.a:7=7 1.a:8=8", PLAN_UNCLEAR, NULL},
	{"look", CHANGE_LOOK, NULL, NULL, 0, SEEN, "", PLAN_UNCLEAR, NULL},
	{"need", CHANGE_NEED, NULL, NULL, 0, SEEN, "", PLAN_UNCLEAR, NULL},
};

static void plan(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(plans); i++) {
		char text[400], after[1000] = "";
		struct listing_entry now[PLAN_MAX + 2];
		struct change c;
		struct plan p;
		size_t n;
		enum plan_verdict v;

		snprintf(text, sizeof(text), "%s", plans[i].now);
		n = entries(text, now);
		change_make(&c, plans[i].kind, plans[i].old, plans[i].name, (uint64_t)plans[i].ino, DT_REG);
		v = event_plan(&c, plans[i].blind, now, n, &p);
		if (v != plans[i].verdict)
			fail_msg("%s: verdict %d", plans[i].what, (int)v);
		if (v == PLAN_CHANGE)
			apply(now, n, &p, after, sizeof(after));
		for (size_t j = 0; v == PLAN_LOOKUP && j < p.nlook; j++) {
			if (j)
				strcat(after, " ");
			strncat(after, p.look[j].name, p.look[j].len);
		}
		if (plans[i].after && strcmp(after, plans[i].after) != 0)
			fail_msg("%s: %s", plans[i].what, after);
	}
}

static const struct {
	const char *what;
	enum change_kind kind;
	const char *old, *name;
	int ino;
	const char *now;
	const char *disk; /* "name=inode ...", all that exists */
	uint32_t nlink;
	enum plan_verdict verdict;
	const char *after;
} lookups[] = {
	{"C4: removed late, but it is there again", CHANGE_REMOVE, NULL, "1.a", 7, "1.a=9", "1.a=9", 1, PLAN_SAME,
	 NULL},
	{"C4: removed late, and gone", CHANGE_REMOVE, NULL, "1.a", 7, "1.a=9", "", 1, PLAN_CHANGE, ""},
	{"C5: doubled add of a message that is gone", CHANGE_ADD, NULL, "1.a", 7, "", "", 1, PLAN_SAME, NULL},
	{"C5: late add, flagged since", CHANGE_ADD, NULL, "1.a", 7, "1.a:2,S=7", "1.a:2,S=7", 1, PLAN_SAME, NULL},
	{"C3: remove of an old name", CHANGE_REMOVE, NULL, "1.a", 7, "1.a:2,S=7", "1.a:2,S=7", 1, PLAN_SAME, NULL},
	{"C3: rename, old event last", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, "1.a:2,FS=7", "1.a:2,FS=7", 1, PLAN_SAME,
	 NULL},
	{"add found", CHANGE_ADD, NULL, "1.a", 0, "", "1.a=7", 1, PLAN_CHANGE, "1.a=7"},
	{"rename found", CHANGE_RENAME, "1.a:2,", "1.a:2,S", 7, "1.a:2,=7", "1.a:2,S=7", 1, PLAN_CHANGE, "1.a:2,S=7"},
	{"another file under the name", CHANGE_ADD, NULL, "1.a", 8, "1.a=7", "1.a=8", 1, PLAN_CHANGE, "1.a=8"},
	{"two files of one base", CHANGE_ADD, NULL, "1.a:2,S", 8, "1.a=7", "1.a=7 1.a:2,S=8", 1, PLAN_CHANGE,
	 "1.a:2,S=8 1.a=7"},
	{"true twins", CHANGE_ADD, NULL, "1.a:2,S", 7, "1.a=7", "1.a=7 1.a:2,S=7", 2, PLAN_CHANGE, "1.a:2,S=7 1.a=7"},
	{"one file, one link, two names", CHANGE_ADD, NULL, "1.a:2,S", 7, "1.a=7", "1.a=7 1.a:2,S=7", 1, PLAN_UNCLEAR,
	 NULL},
};

static void plan_looked(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(lookups); i++) {
		char text[400], disk_text[400], after[1000] = "";
		struct listing_entry now[PLAN_MAX], disk[PLAN_MAX], found[PLAN_MAX] = {0};
		uint32_t nlinks[PLAN_MAX];
		struct change c;
		struct plan p;
		size_t n, ndisk;
		enum plan_verdict v;

		snprintf(text, sizeof(text), "%s", lookups[i].now);
		snprintf(disk_text, sizeof(disk_text), "%s", lookups[i].disk);
		n = entries(text, now);
		ndisk = entries(disk_text, disk);
		change_make(&c, lookups[i].kind, lookups[i].old, lookups[i].name, (uint64_t)lookups[i].ino, DT_REG);
		assert_int_equal(event_plan(&c, false, now, n, &p), PLAN_LOOKUP);
		for (size_t j = 0; j < p.nlook; j++) {
			nlinks[j] = lookups[i].nlink;
			for (size_t k = 0; k < ndisk; k++)
				if (disk[k].len == p.look[j].len &&
				    memcmp(disk[k].name, p.look[j].name, disk[k].len) == 0)
					found[j] = disk[k];
		}
		v = event_plan_looked(&p, now, n, found, nlinks);
		if (v != lookups[i].verdict)
			fail_msg("%s: verdict %d", lookups[i].what, (int)v);
		if (v != PLAN_CHANGE)
			continue;
		apply(now, n, &p, after, sizeof(after));
		if (strcmp(after, lookups[i].after) != 0)
			fail_msg("%s: %s", lookups[i].what, after);
	}
}

/* A name that was listed between planning and looking up: its lookup is missing. */
static void plan_overtaken(void **state)
{
	char text[] = "1.a:2,F=7";
	struct listing_entry now[1], found[PLAN_MAX] = {0};
	uint32_t nlinks[PLAN_MAX] = {0};
	struct change c;
	struct plan p;

	(void)state;
	change_make(&c, CHANGE_ADD, NULL, "1.a", 7, DT_REG);
	assert_int_equal(event_plan(&c, false, NULL, 0, &p), PLAN_LOOKUP);
	assert_int_equal(entries(text, now), 1);
	assert_int_equal(event_plan_looked(&p, now, 1, found, nlinks), PLAN_UNCLEAR);
}

static void fill(struct event *ev)
{
	struct change c;

	event_init(ev, "example.org/a/Maildir", HALF_CUR);
	ev->windowed = true;
	ev->window.pre = (struct stamp){1, 2, 3, -4, 5, true};
	ev->window.post = (struct stamp){UINT64_MAX, 2, STAMP_NS_MAX, -STAMP_NS_MAX, 6, false};
	strcpy(ev->origin, "fetch1");
	ev->epoch = 11;
	ev->sequence = 12;
	change_make(&c, CHANGE_ADD, NULL, "1.a", 7, DT_UNKNOWN);
	assert_int_equal(event_add(ev, &c), 0);
	change_make(&c, CHANGE_RENAME, "odd\n\xff:2,", "odd\n\xff:2,S", UINT64_MAX, DT_REG);
	assert_int_equal(event_add(ev, &c), 0);
	change_make(&c, CHANGE_REMOVE, NULL, "2.b", 0, DT_UNKNOWN);
	assert_int_equal(event_add(ev, &c), 0);
	change_make(&c, CHANGE_LOOK, NULL, NULL, 0, DT_UNKNOWN);
	assert_int_equal(event_add(ev, &c), 0);
	change_make(&c, CHANGE_NEED, NULL, NULL, 0, DT_UNKNOWN);
	assert_int_equal(event_add(ev, &c), 0);
}

static void assert_same_event(const struct event *a, const struct event *b)
{
	assert_string_equal(a->folder, b->folder);
	assert_int_equal(a->half, b->half);
	assert_int_equal(a->windowed, b->windowed);
	assert_true(stamp_eq(&a->window.pre, &b->window.pre));
	assert_true(stamp_eq(&a->window.post, &b->window.post));
	assert_int_equal(a->window.pre.sized, b->window.pre.sized);
	assert_int_equal(a->window.post.sized, b->window.post.sized);
	assert_string_equal(a->origin, b->origin);
	assert_true(a->epoch == b->epoch && a->sequence == b->sequence);
	assert_int_equal(a->nchanges, b->nchanges);
	for (size_t i = 0; i < a->nchanges; i++) {
		assert_int_equal(a->changes[i].kind, b->changes[i].kind);
		assert_int_equal(a->changes[i].type, b->changes[i].type);
		assert_true(a->changes[i].ino == b->changes[i].ino);
		assert_int_equal(a->changes[i].len, b->changes[i].len);
		assert_string_equal(a->changes[i].name, b->changes[i].name);
		assert_int_equal(a->changes[i].old_len, b->changes[i].old_len);
		assert_string_equal(a->changes[i].old, b->changes[i].old);
	}
}

static void round_trip(void **state)
{
	struct event a, b, moved;
	struct cursor c;
	struct buf buf;

	(void)state;
	buf_init(&buf);
	fill(&a);
	assert_int_equal(a.changes[0].type, DT_REG); /* a message's name is a file's */
	assert_int_equal(event_entries_delta(&a), 0);
	event_encode(&a, &buf);
	assert_true(buf_ok(&buf));
	cursor_init(&c, buf.data, buf.len);
	assert_int_equal(event_decode(&b, &c, NULL), 0);
	assert_true(cursor_done(&c));
	assert_same_event(&a, &b);
	event_move(&moved, &b);
	assert_same_event(&a, &moved);
	assert_int_equal(b.nchanges, 0);
	assert_null(b.changes);
	event_release(&a);
	event_release(&b);
	event_release(&moved);
	buf_release(&buf);
}

static void deltas(void **state)
{
	static const struct {
		enum change_kind kind;
		int delta;
	} cases[] = {{CHANGE_ADD, 1}, {CHANGE_REMOVE, -1}, {CHANGE_RENAME, 0}, {CHANGE_LOOK, 0}, {CHANGE_NEED, 0}};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct event ev;
		struct change c = {.kind = cases[i].kind};

		event_init(&ev, "", HALF_NEW);
		assert_int_equal(event_add(&ev, &c), 0);
		assert_int_equal(event_add(&ev, &c), 0);
		assert_int_equal(event_entries_delta(&ev), 2 * cases[i].delta);
		event_release(&ev);
	}
}

/* The largest event is one socket message, whatever the lengths of its names. */
static void largest(void **state)
{
	char folder[FOLDER_PATH_MAX + 1], name[NAME_LEN_MAX + 1], old[NAME_LEN_MAX + 1];

	(void)state;
	for (size_t i = 0; i < FOLDER_PATH_MAX; i++)
		folder[i] = i % 200 == 199 ? '/' : 'x';
	folder[FOLDER_PATH_MAX] = '\0';
	for (int longest_name = 0; longest_name < 2; longest_name++) {
		size_t len = longest_name ? NAME_LEN_MAX : 10;
		struct event ev, back;
		struct change change;
		struct cursor c;
		struct buf buf;
		int rc;

		memset(name, 'n', len);
		memset(old, 'o', len);
		name[len] = old[len] = '\0';
		buf_init(&buf);
		event_init(&ev, folder, HALF_NEW);
		ev.windowed = true;
		memset(ev.origin, 'h', sizeof(ev.origin) - 1);
		change_make(&change, CHANGE_RENAME, old, name, 1, DT_REG);
		while ((rc = event_add(&ev, &change)) == 0)
			;
		assert_int_equal(rc, -ENOSPC);
		if (!longest_name)
			assert_int_equal(ev.nchanges, EVENT_CHANGES_MAX);
		else
			assert_true(ev.nchanges > 100);
		event_encode(&ev, &buf);
		assert_true(buf_ok(&buf) && buf.len + 16 <= SOCK_MSG_MAX);
		cursor_init(&c, buf.data, buf.len);
		assert_int_equal(event_decode(&back, &c, NULL), 0);
		assert_same_event(&ev, &back);
		event_release(&ev);
		event_release(&back);
		buf_release(&buf);
	}
}

/* Where in an encoded event (folder "a") things stand. */
enum {
	AT_VERSION = 0,
	AT_FOLDER = 9,
	AT_HALF = 10,
	AT_WINDOWED = 11,
	AT_COUNT = 32,
	AT_KIND = 36,
	AT_TYPE = 37,
	AT_NAME = 50
};

static void malformed(void **state)
{
	static const struct {
		const char *what;
		size_t at;
		char byte;
	} cases[] = {
		{"version 0", AT_VERSION, 0},
		{"folder /", AT_FOLDER, '/'},
		{"folder .", AT_FOLDER, '.'},
		{"folder NUL", AT_FOLDER, 0},
		{"half", AT_HALF, 2},
		{"windowed", AT_WINDOWED, 2},
		{"window missing", AT_WINDOWED, 1},
		{"count", AT_COUNT, 2},
		{"count too large", AT_COUNT, (char)(EVENT_CHANGES_MAX + 1)},
		{"kind 0", AT_KIND, 0},
		{"kind 6", AT_KIND, 6},
		{"a look with a name", AT_KIND, CHANGE_LOOK},
		{"a rename without an old name", AT_KIND, CHANGE_RENAME},
		{"type", AT_TYPE, 15},
		{"name with /", AT_NAME + 1, '/'},
		{"name with NUL", AT_NAME + 1, 0},
		{"body too short", 1, 20},
		{"body too long", 1, 100},
	};
	struct event ev, back;
	struct change change;
	struct buf buf;
	struct cursor c;
	struct err e;

	(void)state;
	buf_init(&buf);
	event_init(&ev, "a", HALF_CUR);
	change_make(&change, CHANGE_ADD, NULL, "1.a", 7, DT_REG);
	assert_int_equal(event_add(&ev, &change), 0);
	event_encode(&ev, &buf);
	assert_memory_equal(buf.data + AT_NAME, "1.a", 3);
	for (size_t i = 0; i < N(cases); i++) {
		char was = buf.data[cases[i].at];

		assert_true(was != cases[i].byte);
		buf.data[cases[i].at] = cases[i].byte;
		e.text[0] = '\0';
		cursor_init(&c, buf.data, buf.len);
		if (event_decode(&back, &c, &e) != -EBADMSG)
			fail_msg("%s: taken", cases[i].what);
		assert_true(e.text[0] != '\0');
		assert_null(back.changes);
		buf.data[cases[i].at] = was;
	}
	for (size_t len = 0; len < buf.len; len++) {
		cursor_init(&c, buf.data, len);
		assert_int_equal(event_decode(&back, &c, NULL), -EBADMSG);
	}
	/* From a newer host: something happened there. */
	buf.data[AT_VERSION] = EVENT_VERSION + 1;
	buf.data[AT_KIND] = 99;
	cursor_init(&c, buf.data, buf.len);
	assert_int_equal(event_decode(&back, &c, NULL), 0);
	assert_true(cursor_done(&c));
	assert_string_equal(back.folder, "a");
	assert_int_equal(back.half, HALF_CUR);
	assert_int_equal(back.nchanges, 1);
	assert_int_equal(back.changes[0].kind, CHANGE_LOOK);
	event_release(&back);
	event_release(&ev);
	buf_release(&buf);
}

static void random_bytes(void **state)
{
	unsigned short seed[3] = {1, 2, 3};
	struct event ev, back;
	struct cursor c;
	struct buf buf;
	int taken = 0;

	(void)state;
	buf_init(&buf);
	fill(&ev);
	event_encode(&ev, &buf);
	for (int round = 0; round < 100000; round++) {
		size_t len = round % 4 ? buf.len : (size_t)nrand48(seed) % buf.len;
		unsigned char *bytes = malloc(len + 1); /* of exactly that size: reading on is caught */

		if (round % 2)
			memcpy(bytes, buf.data, len);
		for (size_t i = 0; i < len; i++)
			if (round % 2 == 0 || nrand48(seed) % 64 == 0)
				bytes[i] = (unsigned char)nrand48(seed);
		cursor_init(&c, bytes, len);
		if (event_decode(&back, &c, NULL) == 0) {
			taken++;
			assert_int_equal(folder_path_check(back.folder, strlen(back.folder), NULL), 0);
			assert_true(back.nchanges <= EVENT_CHANGES_MAX);
			event_entries_delta(&back);
		}
		event_release(&back);
		free(bytes);
	}
	assert_true(taken > 0);
	event_release(&ev);
	buf_release(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plan),       cmocka_unit_test(plan_looked),  cmocka_unit_test(plan_overtaken),
		cmocka_unit_test(round_trip), cmocka_unit_test(deltas),       cmocka_unit_test(largest),
		cmocka_unit_test(malformed),  cmocka_unit_test(random_bytes),
	};

	return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
