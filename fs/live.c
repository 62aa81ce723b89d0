/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache of live folders: finding, pinning, evicting. What makes one right is in live_open.c, own.c and feed.c.
 */
#include "fs/live.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

#define LIVE_SLOTS 4096
#define PROBATION_SHARE 8 /* folders used once: an eighth of the cache */

static size_t slot_of(const struct live_cache *c, const char *folder, enum half half)
{
	return listing_hash(folder, strlen(folder), half) & c->mask;
}

int live_cache_init(struct live_cache *c, size_t limit, unsigned scans_max)
{
	*c = (struct live_cache){.mask = LIVE_SLOTS - 1, .limit = limit, .scans_max = scans_max};
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->scan_ended, NULL);
	c->slots = calloc(LIVE_SLOTS, sizeof(struct live *));
	return c->slots ? 0 : -ENOMEM;
}

static struct live *find_locked(struct live_cache *c, const char *folder, enum half half)
{
	struct live *l = c->slots[slot_of(c, folder, half)];

	while (l && (l->half != half || strcmp(l->folder, folder) != 0))
		l = l->hash_next;
	return l;
}

static void lru_remove(struct live_cache *c, struct live *l)
{
	int seg = l->uses > 1;

	*(l->lru_prev ? &l->lru_prev->lru_next : &c->lru_first[seg]) = l->lru_next;
	*(l->lru_next ? &l->lru_next->lru_prev : &c->lru_last[seg]) = l->lru_prev;
	l->lru_prev = l->lru_next = NULL;
	c->bytes[seg] -= l->bytes;
	l->cached = false;
}

static void lru_append(struct live_cache *c, struct live *l)
{
	int seg = l->uses > 1;

	l->lru_prev = c->lru_last[seg];
	*(l->lru_prev ? &l->lru_prev->lru_next : &c->lru_first[seg]) = l;
	c->lru_last[seg] = l;
	l->bytes = sizeof(*l) + strlen(l->folder) + (l->snapshot ? snapshot_bytes(l->snapshot) : 0) +
		   (l->names.slots ? (l->names.mask + 1) * sizeof(uint64_t) : 0);
	c->bytes[seg] += l->bytes;
	l->cached = true;
}

/* Out of the table: nobody finds it any more. */
static void detach_locked(struct live_cache *c, struct live *l)
{
	struct live **p = &c->slots[slot_of(c, l->folder, l->half)];

	if (l->detached)
		return;
	while (*p != l)
		p = &(*p)->hash_next;
	*p = l->hash_next;
	l->detached = true;
	c->count--;
	if (l->node->dir->live == l)
		l->node->dir->live = NULL;
}

static void live_free(struct fs *fs, struct live *l)
{
	node_unref(&fs->nodes, l->node);
	snapshot_unref(l->snapshot);
	names_release(&l->names);
	event_free(l->burst_event);
	event_free(l->hints);
	free(l->touched);
	pthread_cond_destroy(&l->moved);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* The folder's path: that of the half without its last component. */
static int folder_of(struct fs *fs, struct node *half, char folder[FOLDER_PATH_MAX + 1])
{
	char path[FOLDER_PATH_MAX + NAME_LEN_MAX + 2], *slash;
	int r = node_path(&fs->nodes, half, path, sizeof(path));

	if (r < 0)
		return r;
	slash = strrchr(path, '/');
	if (slash)
		*slash = '\0';
	else
		path[0] = '\0';
	if (strlen(path) > FOLDER_PATH_MAX)
		return -ENAMETOOLONG;
	strcpy(folder, path);
	return 0;
}

static struct live *live_new(struct fs *fs, struct node *half, const char *folder)
{
	struct live *l = calloc(1, sizeof(*l) + strlen(folder) + 1);

	if (!l)
		return NULL;
	node_ref(&fs->nodes, half);
	l->node = half;
	l->half = half->dir->half;
	strcpy(l->folder, folder);
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->moved, NULL);
	fresh_init(&l->fresh);
	names_init(&l->names);
	l->next_cookie = SNAPSHOT_FIRST_COOKIE;
	return l;
}

static void pin_locked(struct live_cache *c, struct live *l)
{
	if (l->cached)
		lru_remove(c, l);
	l->pins++;
}

struct live *live_peek(struct fs *fs, struct node *half)
{
	struct live *l;

	if (!half->dir)
		return NULL;
	pthread_mutex_lock(&fs->lives.lock);
	l = half->dir->live;
	if (l)
		pin_locked(&fs->lives, l);
	pthread_mutex_unlock(&fs->lives.lock);
	return l;
}

struct live *live_find(struct fs *fs, const char *folder, enum half half)
{
	struct live *l;

	pthread_mutex_lock(&fs->lives.lock);
	l = find_locked(&fs->lives, folder, half);
	if (l)
		pin_locked(&fs->lives, l);
	pthread_mutex_unlock(&fs->lives.lock);
	return l;
}

struct live *live_get(struct fs *fs, struct node *half, int *error)
{
	struct live_cache *c = &fs->lives;
	char folder[FOLDER_PATH_MAX + 1];
	struct live *l = live_peek(fs, half), *other;

	if (l)
		return l;
	*error = folder_of(fs, half, folder);
	if (*error < 0)
		return NULL;
	l = live_new(fs, half, folder);
	if (!l) {
		*error = -ENOMEM;
		return NULL;
	}
	pthread_mutex_lock(&c->lock);
	other = find_locked(c, folder, l->half);
	if (other && other->node != half) { /* the folder was replaced by another one */
		bool idle = other->pins == 0;

		detach_locked(c, other);
		if (idle) {
			lru_remove(c, other);
			pthread_mutex_unlock(&c->lock);
			live_free(fs, other);
			pthread_mutex_lock(&c->lock);
		}
		other = find_locked(c, folder, l->half);
	}
	if (other) {
		pin_locked(c, other);
		pthread_mutex_unlock(&c->lock);
		live_free(fs, l);
		return other;
	}
	l->pins = 1;
	l->hash_next = c->slots[slot_of(c, folder, l->half)];
	c->slots[slot_of(c, folder, l->half)] = l;
	c->count++;
	half->dir->live = l;
	pthread_mutex_unlock(&c->lock);
	return l;
}

/* Takes one folder off the cache if there is too much; returns it to be freed. */
static struct live *evict_locked(struct live_cache *c)
{
	struct live *l = NULL;

	if (c->lru_first[0] && c->bytes[0] > c->limit / PROBATION_SHARE)
		l = c->lru_first[0];
	else if (c->bytes[0] + c->bytes[1] > c->limit)
		l = c->lru_first[1] ? c->lru_first[1] : c->lru_first[0];
	if (!l)
		return NULL;
	lru_remove(c, l);
	detach_locked(c, l);
	return l;
}

void live_put(struct fs *fs, struct live *l)
{
	struct live_cache *c = &fs->lives;
	struct live *old;
	bool gone;

	pthread_mutex_lock(&c->lock);
	gone = --l->pins == 0 && (l->detached || !l->snapshot);
	if (gone)
		detach_locked(c, l);
	else if (l->pins == 0)
		lru_append(c, l);
	pthread_mutex_unlock(&c->lock);
	if (gone) {
		live_free(fs, l);
		return;
	}
	for (;;) {
		pthread_mutex_lock(&c->lock);
		old = evict_locked(c);
		pthread_mutex_unlock(&c->lock);
		if (!old)
			return;
		counter_add(COUNT_EVICTIONS, 1);
		live_free(fs, old);
	}
}

static bool is_below(const char *folder, const char *top)
{
	size_t len = strlen(top);

	return strncmp(folder, top, len) == 0 && (folder[len] == '\0' || folder[len] == '/' || len == 0);
}

void live_detach_below(struct fs *fs, const char *folder)
{
	struct live_cache *c = &fs->lives;
	struct live *idle = NULL, *next;

	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i <= c->mask; i++)
		for (struct live *l = c->slots[i]; l; l = next) {
			next = l->hash_next;
			if (!is_below(l->folder, folder))
				continue;
			detach_locked(c, l);
			if (l->pins == 0) {
				lru_remove(c, l);
				l->hash_next = idle;
				idle = l;
			}
		}
	pthread_mutex_unlock(&c->lock);
	for (; idle; idle = next) {
		next = idle->hash_next;
		live_free(fs, idle);
	}
}

void live_each(struct fs *fs, void (*fn)(struct fs *fs, struct live *l, void *arg), void *arg)
{
	struct live_cache *c = &fs->lives;
	struct live **all;
	size_t n = 0;

	pthread_mutex_lock(&c->lock);
	all = malloc((c->count + 1) * sizeof(struct live *));
	for (size_t i = 0; all && i <= c->mask; i++)
		for (struct live *l = c->slots[i]; l; l = l->hash_next) {
			pin_locked(c, l);
			all[n++] = l;
		}
	pthread_mutex_unlock(&c->lock);
	for (size_t i = 0; i < n; i++) {
		fn(fs, all[i], arg);
		live_put(fs, all[i]);
	}
	free(all);
}

void live_cache_release(struct fs *fs)
{
	live_detach_below(fs, "");
	free(fs->lives.slots);
	pthread_cond_destroy(&fs->lives.scan_ended);
	pthread_mutex_destroy(&fs->lives.lock);
}

/* ---- patches, with l->lock held ---- */

struct snapshot *live_snapshot(struct live *l, bool anyway)
{
	struct snapshot *s;

	pthread_mutex_lock(&l->lock);
	s = l->doubt && !anyway ? NULL : snapshot_ref(l->snapshot);
	pthread_mutex_unlock(&l->lock);
	return s;
}

size_t live_now(struct live *l, const struct change *c, struct listing_entry *now, size_t max)
{
	struct snapshot_entry found[PLAN_MAX];
	size_t n, old;

	if (!l->snapshot || names_build(&l->names, l->snapshot) < 0)
		return 0;
	n = names_find(&l->names, l->snapshot, c->name, c->len, found, PLAN_MAX);
	if (c->kind == CHANGE_RENAME && !name_same_base(c->name, c->len, c->old, c->old_len) && n < PLAN_MAX) {
		old = names_find(&l->names, l->snapshot, c->old, c->old_len, found + n, PLAN_MAX - n);
		n += old;
	}
	for (size_t i = 0; i < n && i < max && i < PLAN_MAX; i++)
		now[i] = found[i].entry;
	return n;
}

static void remove_name(struct live *l, const char *name, size_t len)
{
	struct snapshot_entry found[PLAN_MAX];
	size_t n = names_find(&l->names, l->snapshot, name, len, found, PLAN_MAX);

	for (size_t i = 0; i < n && i < PLAN_MAX; i++) {
		if (found[i].entry.len != len || memcmp(found[i].entry.name, name, len) != 0)
			continue;
		if (snapshot_remove(l->snapshot, found[i].cookie) < 0)
			live_set_need(l);
		names_removed(&l->names, name, len, found[i].cookie);
		return;
	}
}

bool live_apply_plan(struct live *l, const struct plan *plan)
{
	struct plan copy = *plan;
	char names[2 * PLAN_MAX][NAME_LEN_MAX + 1];

	if (!l->snapshot)
		return false;
	/* The plan borrows from the snapshot that is about to change. */
	for (size_t i = 0; i < copy.nremove; i++)
		copy.remove[i].name = memcpy(names[i], copy.remove[i].name, copy.remove[i].len);
	for (size_t i = 0; i < copy.nput; i++)
		copy.put[i].name = memcpy(names[PLAN_MAX + i], copy.put[i].name, copy.put[i].len);
	if (names_build(&l->names, l->snapshot) < 0 || snapshot_writable(&l->snapshot) < 0) {
		live_set_need(l);
		return false;
	}
	for (size_t i = 0; i < copy.nremove; i++)
		remove_name(l, copy.remove[i].name, copy.remove[i].len);
	for (size_t i = 0; i < copy.nput; i++) {
		if (names_build(&l->names, l->snapshot) < 0)
			live_set_need(l);
		else
			remove_name(l, copy.put[i].name, copy.put[i].len);
		if (snapshot_append(l->snapshot, l->next_cookie, &copy.put[i]) < 0)
			live_set_need(l);
		else
			names_added(&l->names, copy.put[i].name, copy.put[i].len, l->next_cookie++);
	}
	return copy.nremove || copy.nput;
}

void live_touch(struct live *l, const struct change *c, bool sure)
{
	if (!l->scanning)
		return;
	if (l->ntouched < LIVE_TOUCHED_MAX && !l->touched)
		l->touched = malloc(LIVE_TOUCHED_MAX * sizeof(*l->touched));
	if (l->ntouched < LIVE_TOUCHED_MAX && l->touched)
		l->touched[l->ntouched++] = (struct scan_change){.change = *c, .sure = sure};
	else {
		live_set_need(l);
		l->doubt_meanwhile = true;
	}
}

void live_set_need(struct live *l)
{
	fresh_need(&l->fresh);
	l->need_meanwhile = true;
	l->doubt = true;
	l->stat_valid = false;
}

void live_context(struct fs *fs, const struct live *l, struct fresh_context *ctx)
{
	*ctx = (struct fresh_context){.names = l->snapshot ? snapshot_count(l->snapshot) : 0,
				      .window_min = fs->conf->window_min,
				      .bus_healthy = true, /* there is no bus to lose events on */
				      .real_now_ns = clock_real_ns()};
}

void live_stat_remember(struct live *l, const struct stamp *s)
{
	l->stat = *s;
	l->stat_at_ns = clock_mono_ns();
	l->stat_valid = true;
	l->stat_behind = false;
}

int live_collect(struct live *l, struct event **collection, const struct change *c)
{
	if (!*collection)
		*collection = event_new(l->folder, l->half);
	return *collection ? event_add(*collection, c) : -ENOMEM;
}

void live_own_unproven(struct node *half)
{
	half->dir->unproven_ns = clock_mono_ns();
}

struct event *live_close_burst(struct fs *fs, struct live *l, const struct stamp *post)
{
	struct event *ev = l->burst_event;
	struct fresh_context ctx;
	bool proves = clock_mono_ns() - l->burst_last_ns <= LIVE_BURST_LATE_NS && !l->looks;
	struct fresh_event fe = {.windowed = proves, .window = {l->burst_pre, *post}};

	fe.entries_delta = ev ? event_entries_delta(ev) : 0;
	live_context(fs, l, &ctx);
	fresh_applied(&l->fresh, &fe, &ctx, true);
	live_stat_remember(l, post);
	l->burst = false;
	l->burst_event = NULL;
	if (!proves || post->ctime_ns == l->burst_pre.ctime_ns)
		live_own_unproven(l->node);
	if (ev && proves) {
		ev->windowed = true;
		ev->window = fe.window;
	}
	return ev;
}

bool live_lists(struct live *l, const char *name, uint64_t ino)
{
	struct snapshot_entry found[PLAN_MAX];
	size_t n, len = strlen(name);

	if (!l->snapshot || names_build(&l->names, l->snapshot) < 0)
		return false;
	n = names_find(&l->names, l->snapshot, name, len, found, PLAN_MAX);
	for (size_t i = 0; i < n && i < PLAN_MAX; i++)
		if (found[i].entry.len == len && memcmp(found[i].entry.name, name, len) == 0)
			return !ino || found[i].entry.ino == ino;
	return n > PLAN_MAX && !ino;
}
