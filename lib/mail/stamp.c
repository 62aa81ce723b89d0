/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "lib/base/clock.h"
#include "lib/mail/tree.h"

#define SETTLE_SECONDS_NS (2 * NS_PER_S)
#define SETTLE_FINE_NS (100 * NS_PER_MS)

int64_t stamp_time_ns(const struct statx_timestamp *t)
{
	if (t->tv_sec >= STAMP_NS_MAX / NS_PER_S)
		return STAMP_NS_MAX;
	if (t->tv_sec <= -STAMP_NS_MAX / NS_PER_S)
		return -STAMP_NS_MAX;
	return t->tv_sec * NS_PER_S + t->tv_nsec;
}

int stamp_read(int fd, struct stamp *s, struct stamp_more *more)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) < 0)
		return -errno;
	if (stx.stx_nlink == 0)
		return -ESTALE;
	s->dev = tree_device(makedev(stx.stx_dev_major, stx.stx_dev_minor));
	s->ino = stx.stx_ino;
	s->ctime_ns = stamp_time_ns(&stx.stx_ctime);
	s->mtime_ns = stamp_time_ns(&stx.stx_mtime);
	s->size = stx.stx_size;
	s->sized = sizecount_known(s->dev);
	serverclock_saw(s->dev, s->ctime_ns);
	if (more)
		*more = (struct stamp_more){.uid = stx.stx_uid, .gid = stx.stx_gid, .mode = stx.stx_mode};
	return 0;
}

bool stamp_eq(const struct stamp *a, const struct stamp *b)
{
	if (a->dev != b->dev || a->ino != b->ino || a->ctime_ns != b->ctime_ns || a->mtime_ns != b->mtime_ns)
		return false;
	/* A stamp read before the size was known to count says nothing by its size. */
	return !(a->sized && b->sized) || a->size == b->size;
}

int64_t stamp_settle_ns(const struct stamp *s)
{
	/* The ctime alone decides: the mtime may have been set to anything. */
	return s->ctime_ns % NS_PER_S == 0 ? SETTLE_SECONDS_NS : SETTLE_FINE_NS;
}

int64_t serverclock_at(const struct serverclock *c, int64_t mono_ns)
{
	int64_t elapsed = mono_ns - c->mono_ns, now;

	/*
	 * Both clocks may be slewed by NTP, by up to 500 ppm each and in opposite directions: a thousandth less keeps
	 * this a lower bound however long ago the stamp was seen; or a thousandth more, before it was seen.
	 */
	elapsed -= elapsed / 1000 * (elapsed < 0 ? -1 : 1);
	return __builtin_add_overflow(c->ctime_ns, elapsed, &now) ? INT64_MAX : now;
}

void serverclock_update(struct serverclock *c, int64_t ctime_ns, int64_t mono_ns)
{
	if (mono_ns < c->doubt_ns || ctime_ns <= serverclock_at(c, mono_ns))
		return;
	c->ctime_ns = ctime_ns;
	c->mono_ns = mono_ns;
}

static int64_t later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* The step was made after the directory was asked before, and the change after the step. */
static void twice_widen(struct serverclock *c, int64_t from_ns, int64_t to_ns)
{
	if (!c->back_ns || from_ns < c->twice_from_ns)
		c->twice_from_ns = from_ns;
	if (!c->back_ns || to_ns > c->twice_to_ns)
		c->twice_to_ns = to_ns;
}

int64_t serverclock_twice_at(const struct serverclock *c, int64_t ctime_ns)
{
	return c->back_ns && ctime_ns >= c->twice_from_ns && ctime_ns <= c->twice_to_ns ? c->back_ns : 0;
}

/*
 * A directory that showed at most was_ns shows less. It need not be the clock that went back: a directory that is
 * rolled back in doubt, to what it was before the step, neither ends the doubt nor tells a later time.
 */
static void set_back(struct serverclock *c, const struct stamp *now, int64_t was_ns, int64_t before_mono_ns,
		     int64_t mono_ns)
{
	int64_t most_ns = now->ctime_ns + stamp_settle_ns(now) + (mono_ns - before_mono_ns), ahead, doubt_ns;

	twice_widen(c, now->ctime_ns - (mono_ns - before_mono_ns), was_ns);
	if (__builtin_sub_overflow(was_ns, now->ctime_ns, &ahead) || __builtin_add_overflow(mono_ns, ahead, &doubt_ns))
		doubt_ns = INT64_MAX;
	if (mono_ns < c->doubt_ns)
		most_ns = earlier(most_ns, c->most_ns + (mono_ns - c->back_ns));
	c->most_ns = most_ns;
	c->doubt_ns = later(c->doubt_ns, doubt_ns);
	c->back_ns = later(c->back_ns, mono_ns);
}

void serverclock_moved(struct serverclock *c, const struct stamp *now, const struct stamp *before,
		       int64_t before_mono_ns, int64_t mono_ns)
{
	int64_t now_ns = serverclock_at(c, mono_ns);
	int64_t then_ns = later(serverclock_at(c, before_mono_ns), before->ctime_ns), was_ns = later(now_ns, then_ns);
	/* Steps that are too small to be told from ticks must not add up. */
	bool behind = now->ctime_ns < then_ns, possible;

	/* A directory's own times never go back otherwise. */
	if (now->ctime_ns < later(then_ns - stamp_settle_ns(now), before->ctime_ns))
		set_back(c, now, was_ns, before_mono_ns, mono_ns);
	/* Also in doubt a change that was made after the step tells the time; not a directory that was rolled back to what it
	 * was before the step. */
	possible = mono_ns >= c->doubt_ns || now->ctime_ns <= c->most_ns + (mono_ns - c->back_ns);
	if ((behind && now->ctime_ns < now_ns) ||
	    (before_mono_ns >= c->back_ns && now->ctime_ns > now_ns && possible)) {
		c->ctime_ns = now->ctime_ns;
		c->mono_ns = mono_ns;
	}
}

/*
 * What is known of each filesystem. A set-associative table of fixed size: a platform with a mount for each mailbox
 * must not grow the process. Devices are hashes already. A filesystem that is pushed out of the clock's table starts
 * anew with the next stamp: a lower bound again. One that finds no room for its sizes is never taken to count: safe.
 */
#define SETS 512
#define WAYS 8

struct clock_slot {
	uint64_t dev;
	int64_t used_ns; /* CLOCK_MONOTONIC; 0: free */
	struct serverclock clock;
};

struct size_slot {
	uint64_t dev;
	bool used;
	struct sizecount count;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct clock_slot clocks[SETS][WAYS];
static struct size_slot sizes[SETS][WAYS];

static struct clock_slot *clock_find(uint64_t dev)
{
	struct clock_slot *set = clocks[dev % SETS];

	for (int i = 0; i < WAYS; i++)
		if (set[i].used_ns && set[i].dev == dev)
			return &set[i];
	return NULL;
}

static struct clock_slot *clock_oldest(uint64_t dev)
{
	struct clock_slot *set = clocks[dev % SETS], *oldest = set;

	for (int i = 1; i < WAYS; i++)
		if (set[i].used_ns < oldest->used_ns)
			oldest = &set[i];
	return oldest;
}

void serverclock_saw(uint64_t dev, int64_t ctime_ns)
{
	/* Read before the lock: a wait for it must not make the stamp younger than it is. */
	int64_t mono_ns = clock_mono_ns();
	struct clock_slot *slot;

	pthread_mutex_lock(&lock);
	slot = clock_find(dev);
	if (slot) {
		serverclock_update(&slot->clock, ctime_ns, mono_ns);
	} else {
		slot = clock_oldest(dev);
		slot->dev = dev;
		slot->clock = (struct serverclock){.ctime_ns = ctime_ns, .mono_ns = mono_ns};
	}
	slot->used_ns = mono_ns;
	pthread_mutex_unlock(&lock);
}

void serverclock_changed(const struct stamp *now, const struct stamp *before, int64_t before_mono_ns)
{
	int64_t mono_ns = clock_mono_ns();
	struct clock_slot *slot;

	if (now->dev != before->dev || now->ino != before->ino || stamp_eq(now, before))
		return;
	pthread_mutex_lock(&lock);
	slot = clock_find(now->dev);
	if (slot)
		serverclock_moved(&slot->clock, now, before, before_mono_ns, mono_ns);
	pthread_mutex_unlock(&lock);
}

int64_t serverclock_twice_ns(const struct stamp *s)
{
	struct clock_slot *slot;
	int64_t twice_ns = 0;

	pthread_mutex_lock(&lock);
	slot = clock_find(s->dev);
	if (slot)
		twice_ns = serverclock_twice_at(&slot->clock, s->ctime_ns);
	pthread_mutex_unlock(&lock);
	return twice_ns;
}

bool serverclock_doubted(uint64_t dev)
{
	struct clock_slot *slot;
	bool doubted;

	pthread_mutex_lock(&lock);
	slot = clock_find(dev);
	doubted = slot && clock_mono_ns() < slot->clock.doubt_ns;
	pthread_mutex_unlock(&lock);
	return doubted;
}

int64_t serverclock_now_ns(uint64_t dev)
{
	int64_t mono_ns = clock_mono_ns(), now_ns = INT64_MIN;
	struct clock_slot *slot;

	pthread_mutex_lock(&lock);
	slot = clock_find(dev);
	if (slot)
		now_ns = serverclock_at(&slot->clock, mono_ns);
	pthread_mutex_unlock(&lock);
	return now_ns;
}

void sizecount_update(struct sizecount *c, uint64_t size, uint64_t entries)
{
	uint64_t offset = size - entries;

	if (c->refuted)
		return;
	if ((offset != 0 && offset != 2) || (c->ncounts > 0 && offset != c->offset)) {
		c->refuted = true;
		return;
	}
	/* An empty directory can disagree, but its zero agrees with too many filesystems to prove anything. */
	if (entries == 0)
		return;
	for (unsigned i = 0; i < c->ncounts; i++)
		if (c->counts[i] == entries)
			return;
	if (c->ncounts < SIZECOUNT_PROOF) {
		c->offset = offset;
		c->counts[c->ncounts++] = entries;
	}
}

bool sizecount_counts(const struct sizecount *c)
{
	return !c->refuted && c->ncounts == SIZECOUNT_PROOF;
}

static struct size_slot *size_find(uint64_t dev, bool make)
{
	struct size_slot *set = sizes[dev % SETS];

	for (int i = 0; i < WAYS; i++) {
		if (set[i].used && set[i].dev == dev)
			return &set[i];
		if (!set[i].used && make) {
			set[i] = (struct size_slot){.dev = dev, .used = true};
			return &set[i];
		}
	}
	return NULL;
}

void sizecount_learn(uint64_t dev, uint64_t size, uint64_t entries)
{
	struct size_slot *slot;

	pthread_mutex_lock(&lock);
	slot = size_find(dev, true);
	if (slot)
		sizecount_update(&slot->count, size, entries);
	pthread_mutex_unlock(&lock);
}

bool sizecount_known(uint64_t dev)
{
	struct size_slot *slot;
	bool known;

	pthread_mutex_lock(&lock);
	slot = size_find(dev, false);
	known = slot && sizecount_counts(&slot->count);
	pthread_mutex_unlock(&lock);
	return known;
}
