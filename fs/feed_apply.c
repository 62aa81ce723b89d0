/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What maildexd tells of: changes from elsewhere, brought into the live folders that are in memory.
 *
 * Races that this file guards against: events are late, doubled or out of order, and own changes or a scan are under
 * way. Only a window that starts behind everything that the listing holds is believed; any other name is looked up, off
 * the connection's thread, so that a hung mailbox holds nobody else up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/fs.h"
#include "fs/inval.h"
#include "lib/base/clock.h"

/* inotify below can tell of an own change that is under way: until it is in the listing, the event waits. */
#define OWN_FIRST_NS (2 * NS_PER_MS)

static void event_to_fresh(const struct event *ev, struct fresh_event *fe)
{
	*fe = (struct fresh_event){
		.windowed = ev->windowed, .window = ev->window, .entries_delta = event_entries_delta(ev)};
}

/* Called with the lock. *news: it told what the listing did not say. Returns false if the disk has to be asked. */
static bool apply_blindly(struct fs *fs, struct live *l, const struct event *ev, bool *news)
{
	struct listing_entry now[PLAN_MAX];
	struct fresh_context ctx;
	struct fresh_event fe;
	struct plan plan;
	bool blind, changed = false, doubt = false;

	event_to_fresh(ev, &fe);
	/*
	 * What a listing that is under way has read is newer than `seen` says; and while the server's clock is back where it
	 * was before, an old event looks new.
	 */
	blind = fresh_event(&l->fresh, &fe) == FRESH_APPLY && !l->scanning && !serverclock_doubted(ev->window.pre.dev);
	for (size_t i = 0; i < ev->nchanges; i++) {
		size_t n = live_now(l, &ev->changes[i], now, PLAN_MAX);
		enum plan_verdict v = event_plan(&ev->changes[i], blind, now, n, &plan);

		if (v == PLAN_LOOKUP && i == 0)
			return false;
		if (v == PLAN_CHANGE)
			changed |= live_apply_plan(l, &plan);
		else if (v != PLAN_SAME) {
			live_set_need(l); /* in the middle of a burst: simpler than taking it apart */
			doubt = true;
		}
		live_touch(l, &ev->changes[i], blind);
	}
	live_context(fs, l, &ctx);
	fresh_applied(&l->fresh, &fe, &ctx, changed);
	*news = changed || doubt;
	return true;
}

void feed_apply(struct fs *fs, struct event *ev)
{
	struct live *l = live_find(fs, ev->folder, ev->half);
	struct event *later;
	bool done = true, news = true, echo, windowed = ev->windowed, own = false;

	counter_add(COUNT_FEED, 1);
	if (!l) {
		ring_event(fs, ev);
		return;
	}
	pthread_mutex_lock(&l->lock);
	if (ev->nchanges && ev->changes[0].kind == CHANGE_NEED)
		live_set_need(l);
	else if (ev->nchanges && ev->changes[0].kind != CHANGE_LOOK && l->snapshot) {
		own = !windowed && l->inflight;
		done = !own && apply_blindly(fs, l, ev, &news);
	}
	/* An own delivery that inotify tells of, too, is no reason to ask the server at each stat that follows. */
	echo = done && !news && !windowed;
	l->stat_valid &= echo;
	l->looks += !done;
	if (!echo) /* before anybody can see the listing */
		inval_attr(fs, l->node);
	pthread_mutex_unlock(&l->lock);
	if (!done) {
		news = false;
		later = malloc(sizeof(*later));
		if (later)
			event_move(later, ev);
		if (!later || after_add(fs, AFTER_LOOK, l, own ? OWN_FIRST_NS : 0, later) < 0) {
			pthread_mutex_lock(&l->lock);
			l->looks--;
			live_set_need(l);
			pthread_mutex_unlock(&l->lock);
			if (later)
				event_release(later);
			free(later);
			news = true;
		}
	}
	if (news)
		ring_half(fs, l->node);
	live_put(fs, l);
}

/* Looks one change's names up and applies what is there. Returns true if the listing changed; *doubt: perhaps. */
static bool look_one(struct fs *fs, struct live *l, int dirfd, const struct change *c, bool *doubt)
{
	struct listing_entry now[PLAN_MAX], found[PLAN_MAX];
	char names[PLAN_MAX][NAME_LEN_MAX + 1];
	uint32_t nlinks[PLAN_MAX];
	struct plan plan;
	enum plan_verdict v;
	bool changed = false;
	size_t n;
	int r = 0;

	pthread_mutex_lock(&l->lock);
	n = live_now(l, c, now, PLAN_MAX);
	v = event_plan(c, false, now, n, &plan);
	for (size_t i = 0; v == PLAN_LOOKUP && i < plan.nlook; i++)
		plan.look[i].name = memcpy(names[i], plan.look[i].name, plan.look[i].len);
	pthread_mutex_unlock(&l->lock);
	for (size_t i = 0; v == PLAN_LOOKUP && r == 0 && i < plan.nlook; i++) {
		r = scan_lookup(dirfd, names[i], plan.look[i].len, &found[i], &nlinks[i]);
		counter_add(COUNT_LOWER_LOOKUPS, 1);
	}
	pthread_mutex_lock(&l->lock);
	if (v == PLAN_LOOKUP && r == 0) {
		n = live_now(l, c, now, PLAN_MAX);
		v = event_plan_looked(&plan, now, n, found, nlinks);
		if (v == PLAN_CHANGE && plan.nremove && l->inflight)
			v = PLAN_UNCLEAR; /* renamed by ourselves just now, to a name that nobody looked up */
	}
	if (v == PLAN_CHANGE)
		changed = live_apply_plan(l, &plan);
	else if (v != PLAN_SAME) {
		live_set_need(l);
		*doubt = true;
	}
	if (changed) { /* no time that was shown with the listing before, from here on */
		l->fresh.gen++;
		l->stat_valid = false;
		inval_attr(fs, l->node);
	}
	live_touch(l, c, false);
	pthread_mutex_unlock(&l->lock);
	return changed;
}

void feed_look(struct fs *fs, struct live *l, struct event *ev)
{
	struct fresh_context ctx;
	struct fresh_event fe;
	struct stamp s;
	struct stat st;
	struct cred owner;
	bool changed = false, doubt = false;
	int fd = node_dir_get(&fs->nodes, l->node), r = fd;

	event_to_fresh(ev, &fe);
	if (fd >= 0) {
		r = fstat(fd, &st) < 0 ? -errno : 0;
		owner = (struct cred){.uid = st.st_uid, .gid = st.st_gid};
		if (r == 0)
			r = cred_become(&owner);
		if (r == 0)
			r = stamp_read(fd, &s, NULL); /* else a cached dentry would answer */
		counter_add(COUNT_LOWER_GETATTRS, 1);
		for (size_t i = 0; r == 0 && i < ev->nchanges; i++)
			changed |= look_one(fs, l, fd, &ev->changes[i], &doubt);
		cred_restore();
		node_dir_put(&fs->nodes, l->node);
	}
	pthread_mutex_lock(&l->lock);
	l->looks--;
	if (r < 0)
		live_set_need(l);
	live_context(fs, l, &ctx);
	fresh_applied(&l->fresh, &fe, &ctx, changed);
	if (l->scanning && changed)
		l->need_meanwhile = true;
	pthread_mutex_unlock(&l->lock);
	inval_attr(fs, l->node);
	if (changed || doubt || r < 0)
		ring_half(fs, l->node);
	event_release(ev);
	free(ev);
}

static void gap_one(struct fs *fs, struct live *l, void *arg)
{
	(void)fs;
	(void)arg;
	pthread_mutex_lock(&l->lock);
	fresh_gap(&l->fresh);
	pthread_mutex_unlock(&l->lock);
}

void feed_gap(struct fs *fs)
{
	live_each(fs, gap_one, NULL);
}
