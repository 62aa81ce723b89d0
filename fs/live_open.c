/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bringing a live folder to a state that may be served: load, check, scan; and the mtime that goes with it.
 *
 * Races that this file guards against:
 * - An own change is between the lower call and its patch: the stamp would show it, the listing not. The check waits
 * for it (inflight).
 * - Many sessions want the same folder at once: one scans, all others wait for it (scanning).
 * - A reader of an older handle: it keeps its snapshot.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/fs.h"
#include "fs/inval.h"
#include "fs/live_private.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* Far above what a folder counts between two loads, so that a generation is not used twice. */
#define GEN_STRIDE (1ULL << 20)

#define CHECK_ROUNDS_MAX 4
/* So often is a folder listed in which somebody changes what was just listed. */
#define SCANS_MAX 4

static uint64_t gen_next(void)
{
	static _Atomic uint64_t source;
	uint64_t none = 0;

	atomic_compare_exchange_strong(&source, &none, (uint64_t)clock_real_ns());
	return atomic_fetch_add(&source, GEN_STRIDE);
}

/* ---- loading ---- */

static void index_failed(struct fs *fs, struct store_reader *r, int error, const struct err *e)
{
	counter_add(COUNT_INDEX_ERRORS, 1);
	log_warn("index: %s; the folder is listed from the lower tree", e->text);
	store_readers_put(fs->index, r, error != 0);
}

/* Reads the row, and the names if l is given. Returns 1, 0 or negative errno; the errors are logged. */
static int index_read(struct fs *fs, const struct live *live, struct store_row *row, struct listing *l)
{
	struct store_reader *r;
	struct err e;
	int found = store_readers_get(fs->index, &r, &e);

	if (found < 0)
		return found; /* no index now: the feed's connection and status say so */
	found = store_reader_half(r, live->folder, live->half, row, l, &e);
	if (found < 0)
		index_failed(fs, r, found, &e);
	else
		store_readers_put(fs->index, r, false);
	return found;
}

/* May the row that was loaded lack an own change that its stamp does not tell of? */
static bool lacks_own(const struct live *l)
{
	int64_t made_ns = l->node->dir->unproven_ns;

	return made_ns && clock_mono_ns() - made_ns < stamp_settle_ns(&l->fresh.known);
}

/* Called with the lock; drops it while reading. */
static void load(struct fs *fs, struct live *l)
{
	struct store_row row;
	struct listing names;
	struct snapshot *s = NULL;
	bool changed;
	int found;

	l->scanning = true;
	l->need_meanwhile = false;
	l->ntouched = 0;
	pthread_mutex_unlock(&l->lock);
	listing_init(&names);
	found = index_read(fs, l, &row, &names);
	if (found == 1)
		s = snapshot_merge(NULL, &names, l->node->ino, live_parent_ino(fs, l->node), &l->next_cookie, &changed);
	listing_release(&names);
	pthread_mutex_lock(&l->lock);
	if (s) {
		counter_add(COUNT_LOADS, 1);
		l->snapshot = s;
		l->fresh = row.fresh;
		l->scanned_ns = store_row_known_ns(&row);
		if (!l->check_ended_ns) {
			l->checked = row.fresh.known;
			l->check_asked_ns = l->check_ended_ns = l->scanned_ns;
		}
		/* What was done here while it was read, or just before, may or may not be in it. Nor is what this host
		 * listed since in the tick of an unsettled row, if it was another process that did (a restart). */
		if (l->need_meanwhile || l->ntouched || l->fresh.unsettled || lacks_own(l))
			fresh_need(&l->fresh);
	}
	l->fresh.gen = gen_next();
	live_scanning_ends(l);
}

/* ---- opendir ---- */

static int stamp_as(int dirfd, const struct cred *who, struct stamp *s)
{
	int r = cred_become(who);

	if (r == 0)
		r = stamp_read(dirfd, s, NULL);
	cred_restore();
	counter_add(COUNT_LOWER_GETATTRS, 1);
	return r;
}

void live_watch_clock(struct live *l, const struct stamp *s, int64_t asked_ns)
{
	if (asked_ns < l->check_ended_ns)
		return; /* they overtook each other */
	if (l->check_ended_ns)
		serverclock_changed(s, &l->checked, l->check_asked_ns);
	l->checked = *s;
	l->check_asked_ns = asked_ns;
	l->check_ended_ns = clock_mono_ns();
}

/* The check; asks again while something overtakes it. *s: what it read. Called with the lock. */
static int check(struct fs *fs, struct live *l, int dirfd, const struct cred *who, struct event **burst,
		 enum fresh_verdict *verdict, struct stamp *s)
{
	bool again = false;
	unsigned rounds = 0;

	for (;;) {
		uint64_t gen = l->fresh.gen;
		int64_t asked_ns = clock_mono_ns();
		int r;

		pthread_mutex_unlock(&l->lock);
		r = stamp_as(dirfd, who, s);
		pthread_mutex_lock(&l->lock);
		if (r < 0)
			return r;
		live_watch_clock(l, s, asked_ns);
		if (l->scanning || l->inflight) {
			live_await_quiet(l);
			if (++rounds < CHECK_ROUNDS_MAX)
				continue;
			*verdict = FRESH_SCAN; /* somebody writes without a pause: a scan copes with that */
			return 0;
		}
		/* This very reading is the burst's `post`, if the burst is not younger than it. */
		if (l->burst && l->fresh.gen == gen && !*burst) {
			*burst = live_close_burst(fs, l, s);
			gen = l->fresh.gen;
		}
		*verdict = fresh_check(&l->fresh, gen, again, s, serverclock_now_ns(s->dev), asked_ns - l->scanned_ns);
		if (*verdict == FRESH_SERVE && l->scanned_ns < serverclock_twice_ns(s))
			*verdict = FRESH_SCAN;
		if (*verdict == FRESH_SERVE)
			l->vouched_ns = asked_ns;
		if (*verdict != FRESH_AGAIN)
			break;
		again = true;
	}
	live_stat_remember(l, s);
	return 0;
}

int live_open(struct fs *fs, struct live *l, int dirfd, const struct cred *who)
{
	enum fresh_verdict verdict = FRESH_SCAN;
	struct event *burst = NULL;
	const struct stamp *read = NULL;
	struct stamp s = {0};
	bool repaired;
	int r = 0;

	pthread_mutex_lock(&fs->lives.lock);
	l->uses++;
	pthread_mutex_unlock(&fs->lives.lock);
	counter_add(COUNT_OPENDIRS, 1);
	pthread_mutex_lock(&l->lock);
	live_await_quiet(l);
	if (!l->snapshot)
		load(fs, l);
	if (l->snapshot) {
		r = check(fs, l, dirfd, who, &burst, &verdict, &s);
		read = &s;
	}
	if (r == 0 && verdict == FRESH_SCAN) {
		int64_t asked_ns = clock_mono_ns();

		r = live_scan(fs, l, dirfd, who, read, &repaired);
		for (int i = 1; r == 0 && l->doubt && i < SCANS_MAX; i++) {
			live_await_quiet(l);
			r = live_scan(fs, l, dirfd, who, NULL, &repaired);
		}
		l->vouched_ns = r == 0 ? asked_ns : 0;
	} else if (r == 0) {
		counter_add(COUNT_SERVED, 1);
	}
	l->served |= r == 0;
	pthread_mutex_unlock(&l->lock);
	feed_send(fs, burst);
	return r;
}

int64_t live_vouches(struct fs *fs, struct node *half, const char *name, uint64_t ino)
{
	struct live *l = live_peek(fs, half);
	int64_t left = 0;

	if (!l)
		return 0;
	pthread_mutex_lock(&l->lock);
	if (l->vouched_ns && !l->fresh.need && !l->doubt && !l->scanning && !l->inflight && live_lists(l, name, ino))
		left = l->vouched_ns + fs->conf->revalidate_ns - clock_mono_ns();
	pthread_mutex_unlock(&l->lock);
	live_put(fs, l);
	return left > 0 ? left : 0;
}

bool live_knows(struct fs *fs, struct node *half, const char *name, uint64_t ino)
{
	struct live *l = live_peek(fs, half);
	bool knows;

	if (!l)
		return false;
	pthread_mutex_lock(&l->lock);
	knows = live_lists(l, name, ino);
	pthread_mutex_unlock(&l->lock);
	live_put(fs, l);
	return knows;
}

/* ---- stat ---- */

/* Not in memory: the index row decides, without its names. */
static int64_t mtime_of_row(struct fs *fs, struct node *half, const struct stamp *s)
{
	struct fresh none;
	struct store_row row;
	struct live *l;
	int error;

	fresh_init(&none);
	none.gen = gen_next();
	l = live_get(fs, half, &error);
	if (!l)
		return fresh_mtime_ns(&none, s, fs->host_hash);
	if (index_read(fs, l, &row, NULL) == 1 && fresh_proven(&row.fresh) && stamp_eq(s, &row.fresh.known) &&
	    !serverclock_twice_ns(s))
		none = row.fresh;
	live_put(fs, l);
	return fresh_mtime_ns(&none, s, fs->host_hash);
}

/* One half changed: the other one's reading is not to be shared any longer, a message may have moved there (C12). */
static void drop_sibling_reading(struct fs *fs, const struct live *l)
{
	struct live *other = live_find(fs, l->folder, l->half == HALF_NEW ? HALF_CUR : HALF_NEW);

	if (!other)
		return;
	pthread_mutex_lock(&other->lock);
	other->stat_valid = false;
	pthread_mutex_unlock(&other->lock);
	inval_attr(fs, other->node);
	live_put(fs, other);
}

void live_stat_forget(struct fs *fs, struct node *half)
{
	struct live *l = live_peek(fs, half);

	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->stat_valid = false;
	pthread_mutex_unlock(&l->lock);
	live_put(fs, l);
}

/* Called with the lock. The reading is from before our own changes: with the listing's generation it is never shown
 * twice. */
static int64_t mtime_shown(struct fs *fs, const struct live *l, const struct stamp *reading)
{
	struct fresh shown = l->fresh;

	shown.need |= l->stat_behind || serverclock_twice_ns(reading);
	return fresh_mtime_ns(&shown, reading, fs->host_hash);
}

static bool reading_lasts(struct fs *fs, const struct live *l)
{
	return l->stat_valid && clock_mono_ns() - l->stat_at_ns < fs->conf->revalidate_ns;
}

bool live_mtime_unseen(struct fs *fs, struct node *half, const struct live_times *plain, struct stamp *reading,
		       int64_t *mtime_ns)
{
	struct live *l = live_peek(fs, half);
	struct fresh none;
	bool lasts = false;

	fresh_init(&none); /* in need: what goes with it is tagged */
	*reading = (struct stamp){.ctime_ns = plain->ctime_ns, .mtime_ns = plain->mtime_ns};
	if (l) {
		pthread_mutex_lock(&l->lock);
		lasts = l->snapshot && reading_lasts(fs, l);
		pthread_mutex_unlock(&l->lock);
		live_put(fs, l);
	}
	none.gen = gen_next();
	*mtime_ns = fresh_mtime_ns(&none, reading, fs->host_hash);
	return !lasts;
}

int live_mtime(struct fs *fs, struct node *half, int dirfd, const struct live_times *plain, struct stamp *reading,
	       int64_t *mtime_ns, int64_t *keep_ns)
{
	struct live *l = live_peek(fs, half);
	struct event *burst = NULL;
	bool loaded = false, moved = false;
	int64_t asked_ns = 0; /* not asked: a reading is shared */
	int r = 0;

	*keep_ns = 0;
	if (l) {
		pthread_mutex_lock(&l->lock);
		loaded = l->snapshot;
		if (!loaded)
			pthread_mutex_unlock(&l->lock);
	}
	if (!loaded) {
		counter_add(COUNT_LOWER_GETATTRS, 1);
		r = stamp_read(dirfd, reading, NULL);
		if (r == 0)
			*mtime_ns = mtime_of_row(fs, half, reading);
	} else {
		if (reading_lasts(fs, l)) {
			*reading = l->stat;
		} else {
			uint64_t gen = l->fresh.gen;

			asked_ns = clock_mono_ns();
			pthread_mutex_unlock(&l->lock);
			counter_add(COUNT_LOWER_GETATTRS, 1);
			r = stamp_read(dirfd, reading, NULL);
			pthread_mutex_lock(&l->lock);
			if (r == 0 && l->fresh.gen == gen && !l->inflight && !l->scanning) {
				if (l->burst)
					burst = live_close_burst(fs, l, reading);
				live_stat_remember(l, reading);
			}
		}
		if (r == 0 && stamp_eq(reading, &l->fresh.known) && asked_ns && !l->scanning && !l->inflight) {
			l->vouched_ns = asked_ns;
		} else if (r == 0 && !stamp_eq(reading, &l->fresh.known)) {
			l->fresh.gen++;
			/* Once for each reading: what the other half showed since is from behind it. */
			moved = !stamp_eq(reading, &l->stat_moved);
			l->stat_moved = *reading;
		}
		/* Behind our own changes the times of an ordinary stat are nearer to the truth: rsync -a does not set a folder's
		 * time if it looks as it should. */
		if (r == 0 && l->stat_behind && plain->ctime_ns > reading->ctime_ns) {
			reading->ctime_ns = plain->ctime_ns;
			reading->mtime_ns = plain->mtime_ns;
		}
		if (r == 0)
			*mtime_ns = mtime_shown(fs, l, reading);
		if (r == 0 && l->stat_valid)
			*keep_ns = fs->conf->revalidate_ns - (clock_mono_ns() - l->stat_at_ns);
		pthread_mutex_unlock(&l->lock);
	}
	if (moved)
		drop_sibling_reading(fs, l);
	feed_send(fs, burst);
	if (l)
		live_put(fs, l);
	return r;
}
