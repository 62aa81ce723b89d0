/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bringing a live folder to a state that may be served: load, check, scan; and the mtime that goes with it.
 *
 * Races that this file guards against:
 * - An own change is between the lower call and its patch: the stamp would show it, the listing not. The check waits
 * for it (inflight).
 * - Own changes or events arrive while the directory is read: the pass may or may not have seen them. They are
 * remembered (touched), looked up at the end and win; what comes even later is applied on top and leaves need behind.
 * - Many sessions want the same folder at once: one scans, all others wait for it (scanning); on the host at most
 * `scans` at a time.
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
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* Far above what a folder counts between two loads, so that a generation is not used twice. */
#define GEN_STRIDE (1ULL << 20)

#define CHECK_ROUNDS_MAX 4

static uint64_t gen_next(void)
{
	static _Atomic uint64_t source;
	uint64_t none = 0;

	atomic_compare_exchange_strong(&source, &none, (uint64_t)clock_real_ns());
	return atomic_fetch_add(&source, GEN_STRIDE);
}

/* ---- loading ---- */

static uint64_t parent_ino(struct fs *fs, struct node *n)
{
	uint64_t ino;

	pthread_mutex_lock(&fs->nodes.lock);
	ino = n->names ? n->names->parent->ino : n->ino;
	pthread_mutex_unlock(&fs->nodes.lock);
	return ino;
}

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

static void scanning_ends(struct live *l)
{
	l->scanning = false;
	pthread_cond_broadcast(&l->moved);
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
		s = snapshot_merge(NULL, &names, l->node->ino, parent_ino(fs, l->node), &l->next_cookie, &changed);
	listing_release(&names);
	pthread_mutex_lock(&l->lock);
	if (s) {
		counter_add(COUNT_LOADS, 1);
		l->snapshot = s;
		l->fresh = row.fresh;
		/* What was done here while it was read may or may not be in it. */
		if (l->need_meanwhile || l->ntouched)
			fresh_need(&l->fresh);
	}
	l->fresh.gen = gen_next();
	scanning_ends(l);
}

/* ---- scanning ---- */

static bool touched_base(const struct change *touched, size_t n, const char *name, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (name_same_base(name, len, touched[i].name, touched[i].len) ||
		    (touched[i].old_len && name_same_base(name, len, touched[i].old, touched[i].old_len)))
			return true;
	return false;
}

static int add_if_there(int dirfd, struct listing *out, const char *name, size_t len)
{
	struct listing_entry e, have;
	uint32_t nlink;
	size_t at = 0;
	int r;

	while (listing_next(out, &at, &have))
		if (have.len == len && memcmp(have.name, name, len) == 0)
			return 0;
	r = scan_lookup(dirfd, name, len, &e, &nlink);
	counter_add(COUNT_LOWER_LOOKUPS, 1);
	return r < 0 ? r : e.len ? listing_add(out, &e) : 0;
}

/* Messages that were touched while l was read are looked up by all names that they have or had, and win. */
static int touched_resolve(int dirfd, struct listing *l, const struct listing *before, const struct change *touched,
			   size_t n)
{
	const struct listing *sources[] = {l, before};
	struct listing out, found;
	struct listing_entry e;
	size_t at = 0;
	int r = 0;

	listing_init(&out);
	listing_init(&found);
	for (size_t i = 0; i < n && r == 0; i++) {
		r = add_if_there(dirfd, &found, touched[i].name, touched[i].len);
		if (r == 0 && touched[i].old_len)
			r = add_if_there(dirfd, &found, touched[i].old, touched[i].old_len);
	}
	for (int s = 0; s < 2; s++)
		for (at = 0; r == 0 && listing_next(sources[s], &at, &e);)
			if (touched_base(touched, n, e.name, e.len))
				r = add_if_there(dirfd, &found, e.name, e.len);
	for (at = 0; r == 0 && listing_next(l, &at, &e);)
		if (!touched_base(touched, n, e.name, e.len))
			r = listing_add(&out, &e);
	for (at = 0; r == 0 && listing_next(&found, &at, &e);)
		r = listing_add(&out, &e);
	listing_release(&found);
	listing_release(r == 0 ? l : &out);
	if (r == 0)
		*l = out;
	return r;
}

/* At most `scans` lower listings at a time on this host. */
static void scan_slot(struct live_cache *c, bool take)
{
	pthread_mutex_lock(&c->lock);
	while (take && c->scans >= c->scans_max)
		pthread_cond_wait(&c->scan_ended, &c->lock);
	c->scans += take ? 1 : -1;
	pthread_cond_signal(&c->scan_ended);
	pthread_mutex_unlock(&c->lock);
}

/* Changes that came after the touched ones were looked up: on top, and listed again before serving. */
static void apply_late(struct live *l, size_t from)
{
	struct listing_entry now[PLAN_MAX];
	struct plan plan;

	for (size_t i = from; i < l->ntouched; i++) {
		size_t n = live_now(l, &l->touched[i], now, PLAN_MAX);

		if (event_plan(&l->touched[i], true, now, n, &plan) == PLAN_CHANGE)
			live_apply_plan(l, &plan);
		l->need_meanwhile = true;
	}
}

/* Takes the result over. Called with the lock. */
static int scan_apply(struct fs *fs, struct live *l, const struct scan *scan, size_t resolved, bool *repaired)
{
	bool claimed = !l->fresh.need && !l->fresh.unsettled && l->fresh.nparked == 0 &&
		       stamp_eq(&l->fresh.known, &scan->last.s0) && stamp_eq(&scan->last.s0, &scan->last.s1);
	bool changed;
	struct snapshot *s = snapshot_merge(l->snapshot, &scan->listing, l->node->ino, parent_ino(fs, l->node),
					    &l->next_cookie, &changed);

	if (!s)
		return -ENOMEM;
	*repaired = claimed && changed && l->ntouched == 0 && l->snapshot;
	snapshot_unref(l->snapshot);
	l->snapshot = s;
	names_release(&l->names);
	if (changed)
		l->fresh.gen++;
	apply_late(l, resolved);
	fresh_scanned(&l->fresh, &scan->last, scan->unclear, l->need_meanwhile);
	l->stat_valid = false;
	inval_attr(fs, l->node);
	return 0;
}

/* Reads the directory as `who`, with the touched messages looked up; no lock held. */
static int scan_read(struct live *l, int dirfd, const struct cred *who, bool drop, const struct snapshot *old,
		     struct scan *scan, size_t *resolved)
{
	struct listing before;
	struct change *touched = NULL;
	int fd = -1, r;

	listing_init(&before);
	r = old ? snapshot_to_listing(old, &before) : 0;
	if (r == 0)
		r = cred_become(who);
	if (r == 0) {
		fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = fd < 0 ? -errno : scan_half(fd, old ? &before : NULL, drop, scan);
	}
	if (r == 0) {
		counter_add(COUNT_SCANS, 1);
		counter_add(COUNT_LOWER_LISTINGS, scan->listings);
		counter_add(COUNT_LOWER_GETATTRS, scan->listings * 2);
		counter_add(COUNT_LOWER_LOOKUPS, scan->lookups);
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
			r = touched_resolve(fd, &scan->listing, &before, touched, *resolved);
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
static int scan(struct fs *fs, struct live *l, int dirfd, const struct cred *who, bool *repaired)
{
	struct scan *s = calloc(1, sizeof(*s));
	struct snapshot *old = snapshot_ref(l->snapshot);
	bool drop = fresh_scan_drops_cache(&l->fresh);
	size_t resolved = 0;
	int r;

	l->scanning = true;
	l->need_meanwhile = false;
	l->ntouched = 0;
	pthread_mutex_unlock(&l->lock);
	scan_slot(&fs->lives, true);
	r = s ? scan_read(l, dirfd, who, drop, old, s, &resolved) : -ENOMEM;
	scan_slot(&fs->lives, false);
	snapshot_unref(old);
	pthread_mutex_lock(&l->lock);
	if (r == 0) {
		r = scan_apply(fs, l, s, resolved, repaired);
		if (r < 0)
			scan_release(s);
	}
	if (r < 0) {
		live_set_need(l);
		free(s);
	} else {
		/* The row in the index must not claim more than the listing's own stamp. */
		s->unclear |= l->ntouched > 0;
		feed_send_scan(fs, l->folder, l->half, s);
	}
	scanning_ends(l);
	return r;
}

/* ---- opendir ---- */

/* Waits until neither a scan nor an own change is under way. Called with the lock. */
static void await_quiet(struct live *l)
{
	while (l->scanning || l->inflight)
		pthread_cond_wait(&l->moved, &l->lock);
}

static int stamp_as(int dirfd, const struct cred *who, struct stamp *s)
{
	int r = cred_become(who);

	if (r == 0)
		r = stamp_read(dirfd, s, NULL);
	cred_restore();
	counter_add(COUNT_LOWER_GETATTRS, 1);
	return r;
}

/* The check; asks again while something overtakes it. Called with the lock. */
static int check(struct fs *fs, struct live *l, int dirfd, const struct cred *who, struct event **burst,
		 enum fresh_verdict *verdict)
{
	struct stamp s = {0};
	bool again = false;
	unsigned rounds = 0;

	for (;;) {
		uint64_t gen = l->fresh.gen;
		int r;

		pthread_mutex_unlock(&l->lock);
		r = stamp_as(dirfd, who, &s);
		pthread_mutex_lock(&l->lock);
		if (r < 0)
			return r;
		if (l->scanning || l->inflight) {
			await_quiet(l);
			if (++rounds < CHECK_ROUNDS_MAX)
				continue;
			*verdict = FRESH_SCAN; /* somebody writes without a pause: a scan copes with that */
			return 0;
		}
		/* This very reading is the burst's `post`, if the burst is not younger than it. */
		if (l->burst && l->fresh.gen == gen && !*burst) {
			*burst = live_close_burst(fs, l, &s);
			gen = l->fresh.gen;
		}
		*verdict = fresh_check(&l->fresh, gen, again, &s, serverclock_now_ns(s.dev));
		if (*verdict != FRESH_AGAIN)
			break;
		again = true;
	}
	live_stat_remember(l, &s);
	return 0;
}

int live_open(struct fs *fs, struct live *l, int dirfd, const struct cred *who)
{
	enum fresh_verdict verdict = FRESH_SCAN;
	struct event *burst = NULL;
	bool repaired;
	int r = 0;

	pthread_mutex_lock(&fs->lives.lock);
	l->uses++;
	pthread_mutex_unlock(&fs->lives.lock);
	counter_add(COUNT_OPENDIRS, 1);
	pthread_mutex_lock(&l->lock);
	await_quiet(l);
	if (!l->snapshot)
		load(fs, l);
	if (l->snapshot)
		r = check(fs, l, dirfd, who, &burst, &verdict);
	if (r == 0 && verdict == FRESH_SCAN) {
		r = scan(fs, l, dirfd, who, &repaired);
	} else if (r == 0) {
		counter_add(COUNT_SERVED, 1);
	}
	pthread_mutex_unlock(&l->lock);
	feed_send(fs, burst);
	return r;
}

int live_rescan(struct fs *fs, struct live *l, int dirfd, const struct cred *who, bool *repaired)
{
	int r;

	*repaired = false;
	pthread_mutex_lock(&l->lock);
	await_quiet(l);
	r = scan(fs, l, dirfd, who, repaired);
	pthread_mutex_unlock(&l->lock);
	return r;
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
	if (index_read(fs, l, &row, NULL) == 1 && fresh_proven(&row.fresh) && stamp_eq(s, &row.fresh.known))
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

int live_mtime(struct fs *fs, struct node *half, int dirfd, struct stamp *reading, int64_t *mtime_ns, int64_t *keep_ns)
{
	struct live *l = live_peek(fs, half);
	struct event *burst = NULL;
	struct fresh shown;
	bool loaded = false, moved = false;
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
		if (l->stat_valid && clock_mono_ns() - l->stat_at_ns < fs->conf->revalidate_ns) {
			*reading = l->stat;
		} else {
			uint64_t gen = l->fresh.gen;

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
		moved = r == 0 && !stamp_eq(reading, &l->fresh.known);
		if (moved)
			l->fresh.gen++;
		/* The reading is from before our own changes: with the listing's generation it is never shown twice. */
		shown = l->fresh;
		shown.need |= l->stat_behind;
		if (r == 0)
			*mtime_ns = fresh_mtime_ns(&shown, reading, fs->host_hash);
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
