/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events. The races that event_plan() guards against (C3 to C5 of the model's report):
 *
 * - C3: the message was renamed meanwhile: an old name that is gone says nothing about the message. So all names that
 *   a message has, here and in the event, are looked up together, and what is there is listed.
 * - C4: a remove, ours or another's, that is applied late, after the message came back: applied blindly only where the
 *   names are exactly those that it was made for, and nothing newer was applied (`blind`).
 * - C5: a doubled or late add of a message that is gone: the same.
 */
#include "lib/mail/event.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mail/wire.h"

/* So that an event with the longest folder and origin is one socket message, with room around it. */
#define CHANGES_BYTES_MAX (SOCK_MSG_MAX - FOLDER_PATH_MAX - 2048)
#define CHANGE_HEAD_BYTES 18

void event_init(struct event *ev, const char *folder, enum half half)
{
	*ev = (struct event){.half = half};
	memcpy(ev->folder, folder, strnlen(folder, FOLDER_PATH_MAX));
}

void event_release(struct event *ev)
{
	free(ev->changes);
	ev->changes = NULL;
	ev->nchanges = 0;
}

struct event *event_new(const char *folder, enum half half)
{
	struct event *ev = malloc(sizeof(*ev));

	if (ev)
		event_init(ev, folder, half);
	return ev;
}

void event_free(struct event *ev)
{
	if (ev)
		event_release(ev);
	free(ev);
}

void event_move(struct event *dst, struct event *src)
{
	*dst = *src;
	src->changes = NULL;
	src->nchanges = 0;
}

static size_t changes_bytes(const struct event *ev)
{
	size_t bytes = 0;

	for (size_t i = 0; i < ev->nchanges; i++)
		bytes += CHANGE_HEAD_BYTES + (size_t)ev->changes[i].len + ev->changes[i].old_len;
	return bytes;
}

int event_add(struct event *ev, const struct change *c)
{
	size_t n = ev->nchanges;

	if (n == EVENT_CHANGES_MAX || changes_bytes(ev) + CHANGE_HEAD_BYTES + c->len + c->old_len > CHANGES_BYTES_MAX)
		return -ENOSPC;
	/* The room is a power of two: it is full when the count is one. */
	if ((n & (n - 1)) == 0) {
		struct change *more = realloc(ev->changes, (n ? 2 * n : 1) * sizeof(*more));

		if (!more)
			return -ENOMEM;
		ev->changes = more;
	}
	ev->changes[ev->nchanges++] = *c;
	return 0;
}

void change_make(struct change *c, enum change_kind kind, const char *old, const char *name, uint64_t ino, uint8_t type)
{
	*c = (struct change){.kind = kind, .type = type, .ino = ino};
	if (name) {
		c->len = (uint8_t)strlen(name);
		memcpy(c->name, name, c->len);
	}
	if (old) {
		c->old_len = (uint8_t)strlen(old);
		memcpy(c->old, old, c->old_len);
	}
	if (c->type == DT_UNKNOWN && name_is_message(c->name, c->len))
		c->type = DT_REG;
}

/*
 * The form: u8 version, u32 length of the rest, str folder, u8 half, then version 1's fields: u8 windowed, pre and post
 * if so, str origin, u64 epoch, u64 sequence, u32 n, n changes (u8 kind, u8 type, u64 ino, str name, str old). The
 * length, folder and half stay in all versions: a host that doesn't understand the rest knows where to look.
 */
void event_encode(const struct event *ev, struct buf *b)
{
	struct buf body;

	buf_init(&body);
	buf_put_str(&body, ev->folder, strlen(ev->folder));
	buf_put_u8(&body, (uint8_t)ev->half);
	buf_put_u8(&body, ev->windowed);
	if (ev->windowed) {
		wire_put_stamp(&body, &ev->window.pre);
		wire_put_stamp(&body, &ev->window.post);
	}
	buf_put_str(&body, ev->origin, strlen(ev->origin));
	buf_put_u64(&body, ev->epoch);
	buf_put_u64(&body, ev->sequence);
	buf_put_u32(&body, (uint32_t)ev->nchanges);
	for (size_t i = 0; i < ev->nchanges; i++) {
		const struct change *c = &ev->changes[i];

		buf_put_u8(&body, (uint8_t)c->kind);
		buf_put_u8(&body, c->type);
		buf_put_u64(&body, c->ino);
		buf_put_str(&body, c->name, c->len);
		buf_put_str(&body, c->old, c->old_len);
	}
	buf_put_u8(b, EVENT_VERSION);
	buf_put_str(b, body.data ? body.data : "", body.len);
	b->failed |= body.failed;
	buf_release(&body);
}

static bool type_ok(uint8_t type)
{
	return type <= DT_WHT;
}

/* Which names a kind has. */
static const struct {
	bool name, old;
} kinds[] = {
	[CHANGE_ADD] = {true, false},   [CHANGE_REMOVE] = {true, false}, [CHANGE_RENAME] = {true, true},
	[CHANGE_LOOK] = {false, false}, [CHANGE_NEED] = {false, false},
};

/* Returns NULL or what is wrong. */
static const char *change_decode(struct change *ch, struct cursor *c)
{
	uint8_t kind;

	memset(ch, 0, sizeof(*ch));
	kind = cursor_u8(c);
	ch->type = cursor_u8(c);
	ch->ino = cursor_u64(c);
	ch->len = (uint8_t)cursor_str_copy(c, ch->name, NAME_LEN_MAX);
	ch->old_len = (uint8_t)cursor_str_copy(c, ch->old, NAME_LEN_MAX);
	if (c->bad)
		return "a change is cut short or has a bad name";
	if (kind < CHANGE_ADD || kind > CHANGE_NEED)
		return "a change is of no known kind";
	ch->kind = (enum change_kind)kind;
	if (!type_ok(ch->type))
		return "a change has no possible file type";
	if (kinds[kind].name ? !name_ok(ch->name, ch->len) : ch->len > 0)
		return "a change has a name that can be none";
	if (kinds[kind].old ? !name_ok(ch->old, ch->old_len) : ch->old_len > 0)
		return "a change has an old name that can be none";
	return NULL;
}

/* What is the same in all versions. */
static const char *place_decode(struct event *ev, struct cursor *c)
{
	char folder[FOLDER_PATH_MAX + 1];
	size_t len = cursor_str_copy(c, folder, FOLDER_PATH_MAX);
	uint8_t half = cursor_u8(c);

	if (c->bad)
		return "it is cut short, or the folder is too long";
	if (folder_path_check(folder, len, NULL) < 0)
		return "the folder can be none";
	if (half >= HALVES)
		return "the half is neither new nor cur";
	event_init(ev, folder, (enum half)half);
	return NULL;
}

static const char *body_decode(struct event *ev, struct cursor *c)
{
	const char *wrong;
	struct change ch;
	uint8_t windowed = cursor_u8(c);
	uint32_t n;

	if (windowed > 1)
		return "the window is neither there nor not";
	ev->windowed = windowed;
	if (windowed) {
		wire_get_stamp(c, &ev->window.pre);
		wire_get_stamp(c, &ev->window.post);
	}
	cursor_str_copy(c, ev->origin, sizeof(ev->origin) - 1);
	ev->epoch = cursor_u64(c);
	ev->sequence = cursor_u64(c);
	n = cursor_u32(c);
	if (c->bad)
		return "it is cut short, or the origin is too long";
	if (n > EVENT_CHANGES_MAX)
		return "it has too many changes";
	for (uint32_t i = 0; i < n; i++) {
		wrong = change_decode(&ch, c);
		if (wrong)
			return wrong;
		if (event_add(ev, &ch) < 0)
			return "it is too large";
	}
	return cursor_done(c) ? NULL : "there is more behind its end";
}

int event_decode(struct event *ev, struct cursor *c, struct err *e)
{
	const char *wrong, *data;
	struct cursor body;
	struct change look;
	size_t len;
	uint8_t version = cursor_u8(c);

	event_init(ev, "", HALF_NEW);
	data = cursor_str(c, SOCK_MSG_MAX, &len);
	if (c->bad)
		return err_set(e, -EBADMSG, "event: cut short or too long");
	cursor_init(&body, data, len);
	wrong = version < 1 ? "there is no version 0" : place_decode(ev, &body);
	if (!wrong && version > EVENT_VERSION) {
		/* From a newer host: what it says is beyond us, where it happened is not. */
		change_make(&look, CHANGE_LOOK, NULL, NULL, 0, DT_UNKNOWN);
		if (event_add(ev, &look) < 0)
			wrong = "out of memory";
	} else if (!wrong) {
		wrong = body_decode(ev, &body);
	}
	if (!wrong)
		return 0;
	event_release(ev);
	event_init(ev, "", HALF_NEW);
	return err_set(e, -EBADMSG, "event: %s", wrong);
}

int64_t event_entries_delta(const struct event *ev)
{
	static const int deltas[] = {[CHANGE_ADD] = 1, [CHANGE_REMOVE] = -1, [CHANGE_NEED] = 0};
	int64_t delta = 0;

	for (size_t i = 0; i < ev->nchanges; i++)
		delta += deltas[ev->changes[i].kind];
	return delta;
}

static bool same_name(const struct listing_entry *a, const char *name, size_t len)
{
	return a->len == len && memcmp(a->name, name, len) == 0;
}

static bool same_entry(const struct listing_entry *a, const struct listing_entry *b)
{
	return same_name(a, b->name, b->len) && a->ino == b->ino && a->type == b->type;
}

static const struct listing_entry *find_name(const struct listing_entry *list, size_t n, const char *name, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (same_name(&list[i], name, len))
			return &list[i];
	return NULL;
}

/* Adds a name to be looked up, once. Returns false when the plan is full. */
static bool look_add(struct plan *plan, const char *name, uint8_t len)
{
	if (len == 0 || find_name(plan->look, plan->nlook, name, len))
		return true;
	if (plan->nlook == PLAN_MAX)
		return false;
	plan->look[plan->nlook++] = (struct listing_entry){.name = name, .len = len};
	return true;
}

static enum plan_verdict look_all(const struct change *c, const struct listing_entry *now, size_t nnow,
				  struct plan *plan)
{
	bool room = look_add(plan, c->name, c->len) && look_add(plan, c->old, c->old_len);

	for (size_t i = 0; room && i < nnow; i++)
		room = look_add(plan, now[i].name, now[i].len);
	return room ? PLAN_LOOKUP : PLAN_UNCLEAR;
}

/* The names in now[] go, `put` (may be NULL) comes. nnow is at most 2. */
static enum plan_verdict replace(const struct listing_entry *now, size_t nnow, const struct listing_entry *put,
				 struct plan *plan)
{
	for (size_t i = 0; i < nnow; i++)
		plan->remove[plan->nremove++] = now[i];
	if (put)
		plan->put[plan->nput++] = *put;
	return PLAN_CHANGE;
}

/* Does the listing already say that the message has this name and no other? */
static bool says_so(const struct change *c, const struct listing_entry *now, size_t nnow)
{
	return nnow == 1 && same_name(&now[0], c->name, c->len) && (c->ino == 0 || now[0].ino == c->ino) &&
	       (c->ino == 0 || c->type == DT_UNKNOWN || now[0].type == c->type);
}

/* Blind removal: nothing but that name, and no sign that it is another file by now. */
static bool removable(const struct change *c, const struct listing_entry *now, size_t nnow)
{
	return nnow == 1 && same_name(&now[0], c->name, c->len) && (c->ino == 0 || now[0].ino == c->ino);
}

/* Blind addition: a new message, or another name of the same file. */
static bool addable(const struct change *c, const struct listing_entry *now, size_t nnow)
{
	return nnow == 0 || (nnow == 1 && !same_name(&now[0], c->name, c->len) && now[0].ino == c->ino);
}

/* Blind renaming: old (the same file) and name (another, replaced) are all there is. */
static bool renamable(const struct change *c, const struct listing_entry *now, size_t nnow)
{
	bool same_base = name_same_base(c->name, c->len, c->old, c->old_len);

	for (size_t i = 0; i < nnow; i++) {
		bool is_old = same_name(&now[i], c->old, c->old_len);

		if (is_old != (now[i].ino == c->ino))
			return false;
		if (!is_old && (same_base || !same_name(&now[i], c->name, c->len)))
			return false;
	}
	return nnow <= (same_base ? 1 : 2);
}

enum plan_verdict event_plan(const struct change *c, bool blind, const struct listing_entry *now, size_t nnow,
			     struct plan *plan)
{
	struct listing_entry put = {.ino = c->ino, .type = c->type, .len = c->len, .name = c->name};

	plan->nremove = plan->nput = plan->nlook = 0;
	if (nnow > PLAN_MAX) /* now[] holds only some of them */
		return PLAN_UNCLEAR;
	switch (c->kind) {
	case CHANGE_REMOVE:
		if (nnow == 0)
			return PLAN_SAME;
		if (blind && removable(c, now, nnow))
			return replace(now, nnow, NULL, plan);
		return look_all(c, now, nnow, plan);
	case CHANGE_ADD:
	case CHANGE_RENAME:
		if (says_so(c, now, nnow))
			return PLAN_SAME;
		/* A name without an inode cannot be listed before it is looked up. */
		if (blind && c->ino != 0 && (c->kind == CHANGE_ADD ? addable(c, now, nnow) : renamable(c, now, nnow)))
			return replace(now, nnow, &put, plan);
		return look_all(c, now, nnow, plan);
	case CHANGE_LOOK:
	case CHANGE_NEED:
		break;
	}
	return PLAN_UNCLEAR;
}

/* Can what was found be true at one moment? A file with one link has one name. */
static bool found_clear(const struct listing_entry *found, const uint32_t *nlinks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++)
			if (found[i].len && found[j].len && found[i].ino == found[j].ino &&
			    (nlinks[i] == 1 || nlinks[j] == 1))
				return false;
	return true;
}

/* What look[i] was found to be, under its own name. */
static struct listing_entry looked(const struct plan *plan, const struct listing_entry *found, size_t i)
{
	return (struct listing_entry){
		.ino = found[i].ino, .type = found[i].type, .len = plan->look[i].len, .name = plan->look[i].name};
}

enum plan_verdict event_plan_looked(struct plan *plan, const struct listing_entry *now, size_t nnow,
				    const struct listing_entry *found, const uint32_t *nlinks)
{
	plan->nremove = plan->nput = 0;
	if (nnow > PLAN_MAX || !found_clear(found, nlinks, plan->nlook))
		return PLAN_UNCLEAR;
	for (size_t i = 0; i < nnow; i++) {
		const struct listing_entry *look = find_name(plan->look, plan->nlook, now[i].name, now[i].len);
		struct listing_entry is;

		/* Listed since the lookups were planned: they do not tell of it. */
		if (!look)
			return PLAN_UNCLEAR;
		is = looked(plan, found, (size_t)(look - plan->look));
		if (found[look - plan->look].len == 0 || !same_entry(&is, &now[i]))
			plan->remove[plan->nremove++] = now[i];
	}
	for (size_t i = 0; i < plan->nlook; i++) {
		struct listing_entry is = looked(plan, found, i);
		const struct listing_entry *n = find_name(now, nnow, is.name, is.len);

		if (found[i].len > 0 && (!n || !same_entry(n, &is)))
			plan->put[plan->nput++] = is;
	}
	return plan->nremove || plan->nput ? PLAN_CHANGE : PLAN_SAME;
}
