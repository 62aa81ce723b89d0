/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listing the lower directory for a live folder.
 *
 * The race that this file guards against: own changes or events arrive while the directory is read; the pass may or
 * may not have seen them.
 * They are remembered (touched), looked up at the end and win; what comes even later is applied on top and leaves
 * need behind.
 * On one storage at most `scans` listings are under way at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fs.h"
#include "fs/inval.h"
#include "fs/live_private.h"
#include "lib/base/clock.h"

void live_scanning_ends(struct live *l)
{
	l->scanning = false;
	pthread_cond_broadcast(&l->moved);
}

void live_await_quiet(struct live *l)
{
	while (l->scanning || l->inflight)
		pthread_cond_wait(&l->moved, &l->lock);
}

uint64_t live_parent_ino(struct fs *fs, struct node *n)
{
	uint64_t ino;

	pthread_mutex_lock(&fs->nodes.lock);
	ino = n->names ? n->names->parent->ino : n->ino;
	pthread_mutex_unlock(&fs->nodes.lock);
	return ino;
}

/* At most `scans` lower listings at a time on one storage. */
static void scan_slot(struct live_cache *c, dev_t dev, bool take)
{
	unsigned *scans = &c->scans[gate_slot(dev)];

	pthread_mutex_lock(&c->lock);
	while (take && *scans >= c->scans_max)
		pthread_cond_wait(&c->scan_ended, &c->lock);
	*scans += take ? 1 : -1;
	pthread_cond_broadcast(&c->scan_ended);
	pthread_mutex_unlock(&c->lock);
}

/*
 * Changes that came after the touched ones were looked up: on top, and listed again before the next serving. What is
 * only said to have happened (an event may be late, or a lie) is not believed: the listing is in doubt.
 */
static void apply_late(struct live *l, size_t from)
{
	struct listing_entry now[PLAN_MAX];
	struct plan plan;

	for (size_t i = from; i < l->ntouched; i++) {
		const struct change *c = &l->touched[i].change;
		enum plan_verdict v = event_plan(c, l->touched[i].sure, now, live_now(l, c, now, PLAN_MAX), &plan);

		if (v == PLAN_CHANGE)
			l->fresh.gen += live_apply_plan(l, &plan);
		else if (v != PLAN_SAME)
			l->doubt = true;
		l->need_meanwhile = true;
	}
}

/* Takes the result over. Called with the lock. */
static int scan_apply(struct fs *fs, struct live *l, const struct scan *scan, size_t resolved, bool *repaired)
{
	bool claimed = !l->fresh.need && !l->fresh.unsettled && l->fresh.nparked == 0 &&
		       stamp_eq(&l->fresh.known, &scan->last.s0) && stamp_eq(&scan->last.s0, &scan->last.s1);
	bool changed;
	struct snapshot *s = snapshot_merge(l->snapshot, &scan->listing, l->node->ino, live_parent_ino(fs, l->node),
					    &l->next_cookie, &changed);

	if (!s)
		return -ENOMEM;
	*repaired = claimed && changed && l->ntouched == 0 && l->snapshot;
	snapshot_unref(l->snapshot);
	l->snapshot = s;
	l->doubt = l->doubt_meanwhile;
	names_release(&l->names);
	if (changed)
		l->fresh.gen++;
	apply_late(l, resolved);
	fresh_scanned(&l->fresh, &scan->last, scan->unclear, l->need_meanwhile);
	/* S1 was read just now: a stat may share it, if nothing was done since. */
	l->stat_valid = false;
	if (!l->ntouched && !l->inflight && stamp_eq(&scan->last.s0, &scan->last.s1))
		live_stat_remember(l, &scan->last.s1);
	inval_attr(fs, l->node);
	if (changed && l->served) /* who waits elsewhere for what this listing found */
		ring_half(fs, l->node);
	return 0;
}

/* Reads the directory as `who`, with the touched messages looked up; no lock held. */
static int scan_read(struct live *l, int dirfd, const struct cred *who, const struct scan_from *known,
		     const struct snapshot *old, struct scan *scan, size_t *resolved)
{
	struct scan_from from = *known;
	struct listing before;
	struct scan_change *touched = NULL;
	int fd = -1, r;

	listing_init(&before);
	r = old ? snapshot_to_listing(old, &before) : 0;
	if (r == 0)
		r = cred_become(who);
	if (r == 0) {
		fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		/* What was only loaded from the index may be long gone: it tells nothing of messages that are being renamed. */
		from.before = l->served ? &before : NULL;
		r = fd < 0 ? -errno : scan_half(fd, &from, scan);
	}
	if (r == 0) {
		counter_add(COUNT_SCANS, 1);
		counter_add(COUNT_LOWER_LISTINGS, scan->listings);
		counter_add(COUNT_LOWER_GETATTRS, scan->listings * 2 - !!from.stamp);
		pthread_mutex_lock(&l->lock);
		*resolved = l->ntouched;
		if (l->ntouched) {
			touched = malloc(l->ntouched * sizeof(*touched));
			if (touched)
				memcpy(touched, l->touched, l->ntouched * sizeof(*touched));
			else
				r = -ENOMEM;
		}
		pthread_mutex_unlock(&l->lock);
		if (touched)
			r = scan_touched(fd, &before, touched, *resolved, scan);
		counter_add(COUNT_LOWER_LOOKUPS, scan->lookups);
		if (r < 0)
			scan_release(scan);
	}
	cred_restore();
	free(touched);
	if (fd >= 0)
		close(fd);
	listing_release(&before);
	return r;
}

/* Called with the lock, which is dropped meanwhile. */
int live_scan(struct fs *fs, struct live *l, int dirfd, const struct cred *who, const struct stamp *stamp,
	      bool *repaired)
{
	struct scan *s = calloc(1, sizeof(*s));
	struct snapshot *old = snapshot_ref(l->snapshot);
	struct stamp known = l->checked;
	struct scan_from from = {.drop_cache = fresh_scan_drops_cache(&l->fresh),
				 .stamp = stamp,
				 .known = l->check_ended_ns ? &known : NULL,
				 .known_mono_ns = l->check_asked_ns};
	int64_t asked_ns = clock_mono_ns();
	size_t resolved = 0;
	int r;

	l->scanning = true;
	l->need_meanwhile = l->doubt_meanwhile = false;
	l->ntouched = 0;
	pthread_mutex_unlock(&l->lock);
	scan_slot(&fs->lives, l->node->dev, true);
	r = s ? scan_read(l, dirfd, who, &from, old, s, &resolved) : -ENOMEM;
	scan_slot(&fs->lives, l->node->dev, false);
	snapshot_unref(old);
	pthread_mutex_lock(&l->lock);
	if (r == 0) {
		live_watch_clock(l, &s->last.s1, asked_ns);
		r = scan_apply(fs, l, s, resolved, repaired);
		if (r < 0)
			scan_release(s);
		else
			l->scanned_ns = asked_ns;
	}
	if (r < 0) {
		live_set_need(l);
		free(s);
	} else {
		/* The row in the index must not claim more than the listing's own stamp. */
		s->unclear |= l->ntouched > 0;
		feed_send_scan(fs, l->folder, l->half, s);
	}
	live_scanning_ends(l);
	return r;
}

int live_rescan(struct fs *fs, struct live *l, int dirfd, const struct cred *who, bool *repaired)
{
	int r;

	*repaired = false;
	pthread_mutex_lock(&l->lock);
	live_await_quiet(l);
	r = live_scan(fs, l, dirfd, who, NULL, repaired);
	pthread_mutex_unlock(&l->lock);
	return r;
}
