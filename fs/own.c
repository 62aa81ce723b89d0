/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Races that this file guards against:
 * - An opendir between the lower call and the patch: it waits (inflight), so that neither the new nor the old state is
 * missed.
 * - A failed call that did happen (NFS sends a call again after a lost reply, and the server answers ENOENT or EEXIST
 * to the second): whatever the error says, a listing that disagrees with it is listed again.
 * - A foreign event applied between `pre` and the patch: the change starts before what the listing has seen, so it
 * raises nothing.
 */
#include "fs/own.h"

#include <errno.h>
#include <string.h>

#include "fs/fs.h"
#include "lib/base/clock.h"

#define BURST_NS (50 * NS_PER_MS)
/* A burst ends when it was quiet for so long: what a silent writer does before its end cannot be told from it. */
#define BURST_QUIET_NS (5 * NS_PER_MS)

/* Its end was not seen. Called with the lock. */
static void burst_lost(struct live *l)
{
	live_set_need(l);
	live_own_unproven(l->node);
}

/* Starts a burst, with one GETATTR, where a window is worth it. Called with the lock, which is dropped for the call. */
static void burst_begin(struct fs *fs, struct live *l, int dirfd, struct event **ended)
{
	struct fresh_context ctx;
	struct stamp pre;
	bool idle = l->inflight == 1; /* only us */
	uint64_t gen;
	int r;

	live_context(fs, l, &ctx);
	/* In new/ a window would hide a silent delivery in the same moment, and mail there is listed soon anyway. */
	if (l->half == HALF_NEW || l->scanning || !fresh_wants_window(&l->fresh, &ctx))
		return;
	if (l->burst && clock_mono_ns() - l->burst_since_ns < BURST_NS &&
	    (!l->burst_event || l->burst_event->nchanges + 2 <= EVENT_CHANGES_MAX))
		return;
	if (!idle)
		return;
	gen = l->fresh.gen;
	pthread_mutex_unlock(&l->lock);
	counter_add(COUNT_LOWER_GETATTRS, 1);
	r = stamp_read(dirfd, &pre, NULL);
	pthread_mutex_lock(&l->lock);
	if (r < 0 || l->inflight > 1 || l->fresh.gen != gen || l->scanning) {
		if (l->burst)
			burst_lost(l);
		return;
	}
	/* One reading ends the burst before and begins the next. */
	if (l->burst)
		*ended = live_close_burst(fs, l, &pre);
	if (!fresh_wants_window(&l->fresh, &ctx) || !stamp_eq(&pre, &l->fresh.known))
		return; /* somebody changed the folder: to be listed anyway */
	l->burst = true;
	l->burst_pre = pre;
	l->burst_since_ns = l->burst_last_ns = clock_mono_ns();
	counter_add(COUNT_OWN_WINDOWS, 1);
	if (!l->burst_timer)
		l->burst_timer = after_add(fs, AFTER_BURST, l, BURST_QUIET_NS, NULL) == 0;
	l->burst = l->burst_timer;
}

void own_begin(struct fs *fs, struct node *dir, int dirfd, struct own *own)
{
	struct event *ended = NULL;

	*own = (struct own){.dir = dir, .is_half = node_is_half(&fs->nodes, dir)};
	if (!own->is_half)
		return;
	own->live = live_peek(fs, dir);
	if (!own->live)
		return;
	pthread_mutex_lock(&own->live->lock);
	own->live->inflight++;
	burst_begin(fs, own->live, dirfd, &ended);
	pthread_mutex_unlock(&own->live->lock);
	feed_send(fs, ended);
}

/* The listing says something else than the change expects: do what the change says, and list before serving. */
static void patch_literally(struct live *l, const struct change *c)
{
	struct plan plan = {0};

	if (c->kind != CHANGE_ADD)
		plan.remove[plan.nremove++] =
			(struct listing_entry){.len = c->kind == CHANGE_RENAME ? c->old_len : c->len,
					       .name = c->kind == CHANGE_RENAME ? c->old : c->name};
	if (c->kind != CHANGE_REMOVE)
		plan.put[plan.nput++] =
			(struct listing_entry){.ino = c->ino, .type = c->type, .len = c->len, .name = c->name};
	live_apply_plan(l, &plan);
	live_set_need(l);
}

/* Called with the lock. Returns true if the change goes into the open burst. */
static bool patch(struct fs *fs, struct live *l, const struct change *c)
{
	struct listing_entry now[PLAN_MAX];
	struct fresh_context ctx;
	struct fresh_event hint = {.windowed = false};
	struct plan plan;
	size_t n = live_now(l, c, now, PLAN_MAX);
	bool changed = true;

	if (c->kind == CHANGE_NEED) {
		live_set_need(l);
		return false;
	}
	switch (event_plan(c, true, now, n, &plan)) {
	case PLAN_SAME:
		changed = false;
		break;
	case PLAN_CHANGE:
		changed = live_apply_plan(l, &plan);
		break;
	case PLAN_LOOKUP:
	case PLAN_UNCLEAR:
		patch_literally(l, c);
		break;
	}
	/* The kernel stats a half before each call by name in it: asking the server each time would end every burst. */
	l->stat_behind = true;
	live_touch(l, c, true);
	if (l->burst && l->burst_pre.ctime_ns >= l->fresh.seen_ns && live_collect(l, &l->burst_event, c) == 0) {
		l->burst_last_ns = clock_mono_ns();
		l->fresh.gen++;
		return true;
	}
	live_own_unproven(l->node);
	live_context(fs, l, &ctx);
	fresh_applied(&l->fresh, &hint, &ctx, changed);
	if (l->scanning && changed)
		l->need_meanwhile = true;
	return false;
}

/* Errors after which the directory is surely as it was. */
static bool surely_nothing(int error)
{
	static const int errors[] = {EACCES,    EPERM,  EROFS,  ENOSPC,  EDQUOT, ENAMETOOLONG, EXDEV, EINVAL,
				     ENOTEMPTY, EMLINK, EISDIR, ENOTDIR, EBUSY,  EOPNOTSUPP,   ELOOP};

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (-error == errors[i])
			return true;
	return false;
}

/* Called with the lock. Does a refusal fit what is listed? */
static bool refusal_fits(struct live *l, int error, const struct change *c)
{
	const char *gone = c->kind == CHANGE_RENAME ? c->old : c->name;

	if (surely_nothing(error))
		return true;
	if (error == -EEXIST)
		return live_lists(l, c->name, 0);
	if (error == -ENOENT && c->kind != CHANGE_ADD)
		return !live_lists(l, gone, 0);
	return false;
}

/*
 * maildexd is told of changes without a window 50 ms later, all in one message: its row must be listed again anyway. Where
 * each look costs a call, that is all that it is told: it would look the names up, for nothing. Called with the lock.
 * Returns what is to be sent now: those before, if there are too many for one message.
 */
static struct event *hint(struct fs *fs, struct live *l, const struct change *c)
{
	struct event *full = NULL;
	bool first = !l->hints;
	struct change need;

	if (!atomic_load(&fs->feed.connected) || (fs->spares && !first))
		return NULL;
	if (fs->spares) {
		change_make(&need, CHANGE_NEED, NULL, "", 0, 0);
		c = &need;
	}
	if (live_collect(l, &l->hints, c) < 0) {
		full = l->hints;
		l->hints = NULL;
		live_collect(l, &l->hints, c);
	}
	if (first && after_add(fs, AFTER_HINTS, l, BURST_NS, NULL) < 0) {
		full = l->hints;
		l->hints = NULL;
	}
	return full;
}

void own_hints_due(struct fs *fs, struct live *l)
{
	struct event *ev;

	pthread_mutex_lock(&l->lock);
	ev = l->hints;
	l->hints = NULL;
	pthread_mutex_unlock(&l->lock);
	feed_send(fs, ev);
}

/* A half that is not in memory: maildexd may hold it all the same. */
static void tell(struct fs *fs, struct node *dir, const struct change *changes, size_t n)
{
	char path[FOLDER_PATH_MAX + NAME_LEN_MAX + 2], *slash;
	struct change need;

	if (!n || !atomic_load(&fs->feed.connected) || node_path(&fs->nodes, dir, path, sizeof(path)) < 0)
		return;
	slash = strrchr(path, '/');
	*(slash ? slash : path) = '\0';
	ring_own(fs, dir, changes, n);
	if (fs->spares) { /* see hint() */
		change_make(&need, CHANGE_NEED, NULL, "", 0, 0);
		changes = &need;
		n = 1;
	}
	feed_send_changes(fs, path, dir->dir->half, changes, n);
}

static void attr_changed(struct node *dir, int result)
{
	int64_t now_ns;

	if (result < 0 && surely_nothing(result))
		return;
	now_ns = serverclock_now_ns(tree_device(dir->dev));
	if (result == 0 && now_ns != INT64_MIN)
		dir_attr_changed(&dir->dir->attr, now_ns);
	else
		dir_attr_forget(&dir->dir->attr);
}

void own_end(struct fs *fs, struct own *own, int result, const struct change *changes, size_t nchanges)
{
	struct live *l = own->live;
	struct event *full = NULL;
	bool doubtful = false;

	if (fs->spares)
		attr_changed(own->dir, result);
	if (!own->is_half)
		return;
	if (result == 0)
		counter_add(COUNT_OWN_CHANGES, nchanges);
	if (!l) {
		live_own_unproven(own->dir);
		if (result == 0)
			tell(fs, own->dir, changes, nchanges);
		/* Loaded meanwhile: with the change or without it. */
		l = live_peek(fs, own->dir);
		if (l) {
			pthread_mutex_lock(&l->lock);
			live_set_need(l);
			pthread_mutex_unlock(&l->lock);
			live_put(fs, l);
		}
		return;
	}
	pthread_mutex_lock(&l->lock);
	for (size_t i = 0; i < nchanges; i++) {
		if (result < 0)
			doubtful |= !refusal_fits(l, result, &changes[i]);
		else if (!patch(fs, l, &changes[i]) && !full)
			full = hint(fs, l, &changes[i]);
	}
	if (doubtful)
		live_set_need(l);
	l->inflight--;
	pthread_cond_broadcast(&l->moved);
	pthread_mutex_unlock(&l->lock);
	feed_send(fs, full);
	live_put(fs, l);
}

void own_missing(struct fs *fs, struct node *dir, const char *name)
{
	struct change need;
	struct live *l = live_peek(fs, dir);
	bool listed = false;

	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	/* While one of our own changes is under way the name may be gone for a good reason. */
	if (!l->inflight && !l->fresh.need && live_lists(l, name, 0)) {
		listed = true;
		live_set_need(l);
	}
	pthread_mutex_unlock(&l->lock);
	if (listed) {
		change_make(&need, CHANGE_NEED, NULL, "", 0, 0);
		feed_send_changes(fs, l->folder, l->half, &need, 1);
	}
	live_put(fs, l);
}

/*
 * Takes the post stamp, if nothing happens meanwhile. Called with the lock, which is dropped for the call. Returns true
 * when the burst is over.
 */
static bool burst_end(struct fs *fs, struct live *l, int fd, struct event **ended)
{
	uint64_t gen = l->fresh.gen;
	struct stamp post;
	int r;

	pthread_mutex_unlock(&l->lock);
	counter_add(COUNT_LOWER_GETATTRS, 1);
	r = fd < 0 ? fd : stamp_read(fd, &post, NULL);
	pthread_mutex_lock(&l->lock);
	if (!l->burst)
		return true;
	if (r == 0 && (l->inflight || l->fresh.gen != gen))
		return false;
	if (r == 0) {
		*ended = live_close_burst(fs, l, &post);
		return true;
	}
	burst_lost(l);
	l->burst = false;
	*ended = l->burst_event;
	l->burst_event = NULL;
	return true;
}

void own_burst_ends(struct fs *fs, struct live *l)
{
	int64_t now = clock_mono_ns();
	struct event *ended = NULL;
	int fd = node_dir_get(&fs->nodes, l->node);

	pthread_mutex_lock(&l->lock);
	l->burst_timer = false;
	if (l->burst) {
		bool wait = now - l->burst_last_ns < BURST_QUIET_NS && now - l->burst_since_ns < BURST_NS;

		if (wait || !burst_end(fs, l, fd, &ended))
			l->burst_timer = l->burst_timer || after_add(fs, AFTER_BURST, l, BURST_QUIET_NS, NULL) == 0;
		if (l->burst && !l->burst_timer) { /* nobody will end it */
			burst_lost(l);
			l->burst = false;
		}
	}
	pthread_mutex_unlock(&l->lock);
	if (fd >= 0)
		node_dir_put(&fs->nodes, l->node);
	feed_send(fs, ended);
}
