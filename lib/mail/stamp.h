/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stamps: the state of a directory in one forced GETATTR (design 3.1).
 *
 * Flow: stamp_read() on a held directory; everything else is comparison.
 * Shapes: ctime and mtime in nanoseconds since 1970. `dev` is not st_dev (an NFS mount's number is new at every mount)
 * but tree_device(): a hash that says which filesystem it is. `size` matters only where `sized` (the server counts
 * entries in it).
 * Threads: any.
 * Errors: negative errno from statx(2); -ESTALE for a directory that was removed (no links left).
 */
#ifndef MAILDEX_MAIL_STAMP_H
#define MAILDEX_MAIL_STAMP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct statx_timestamp;

/* Times in stamps are within +-this, so that differences and sums with durations cannot overflow. */
#define STAMP_NS_MAX (INT64_MAX / 2)
/* A server may say anything: what doesn't fit becomes the nearest that does. Returns nanoseconds since 1970. */
int64_t stamp_time_ns(const struct statx_timestamp *t);

struct stamp {
	uint64_t dev;
	uint64_t ino;
	int64_t ctime_ns;
	int64_t mtime_ns;
	uint64_t size;
	bool sized;
};

/* What came along in the same call: what attributes and access need. */
struct stamp_more {
	uid_t uid;
	gid_t gid;
	mode_t mode;
};

/*
 * Asks the server: statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC), exactly one call, never answered from a client's
 * cache. Feeds serverclock_saw(). `more` may be NULL. `sized` is set where sizecount_known() says so for that
 * filesystem. Returns 0 or negative errno.
 */
int stamp_read(int fd, struct stamp *s, struct stamp_more *more);

/* Equal in everything that counts. */
bool stamp_eq(const struct stamp *a, const struct stamp *b);

/* How long after its ctime a stamp can still be shared by a later change: 2 s where it shows whole seconds, else 100
 * ms. */
int64_t stamp_settle_ns(const struct stamp *s);

/*
 * The server's clock, from below: the greatest ctime or mtime... of any stamp seen on that filesystem plus the
 * monotonic time since (only ctime is used: utimes cannot set it). One table of filesystems for the process.
 */
void serverclock_saw(uint64_t dev, int64_t ctime_ns);
/*
 * The directory showed `before` when it was asked at before_mono_ns (CLOCK_MONOTONIC, or earlier than that), so this one
 * was made since, if it is another one of the same directory. If it is older than the server's clock was then, that was
 * set back, or shows coarse ticks: the bound goes down to it. If by more than ticks explain, it was set back (a storage
 * failover, NTP): stamps from before the step are not believed until the clock is behind them again.
 */
void serverclock_changed(const struct stamp *now, const struct stamp *before, int64_t before_mono_ns);
/*
 * CLOCK_MONOTONIC when the clock was last seen to be set back over this time, so that a change may have the very stamp of
 * one before; 0: it was not. What was listed before says nothing then, and what the server shows may have been shown.
 */
int64_t serverclock_twice_ns(const struct stamp *s);
/* Is the clock known to be where it was before, so that stamps do not tell which of two changes came first? */
bool serverclock_doubted(uint64_t dev);
/* Returns a lower bound of the server's time now in ns since 1970; INT64_MIN if nothing was seen on dev. */
int64_t serverclock_now_ns(uint64_t dev);

/*
 * Does a directory's size count its entries (ZFS)? Told from listings: `entries` is what a quiet listing held, "." and
 * ".." not counted, every other name counted. True after three listings of different, non-zero counts agreed on one
 * offset (size - entries is 0 or 2) and none ever disagreed.
 */
void sizecount_learn(uint64_t dev, uint64_t size, uint64_t entries);
bool sizecount_known(uint64_t dev);

/* The pure parts of the two above; callers use the tables. */
struct serverclock {
	int64_t ctime_ns;          /* the stamp that says most */
	int64_t mono_ns;           /* CLOCK_MONOTONIC when it was seen */
	int64_t back_ns, doubt_ns; /* CLOCK_MONOTONIC: when it was seen to be set back; stamps say nothing until then */
	int64_t most_ns;           /* what it was at most at back_ns */
	int64_t twice_from_ns, twice_to_ns; /* what it went through twice, if back_ns */
};
void serverclock_update(struct serverclock *c, int64_t ctime_ns, int64_t mono_ns);
void serverclock_moved(struct serverclock *c, const struct stamp *now, const struct stamp *before,
		       int64_t before_mono_ns, int64_t mono_ns);
int64_t serverclock_at(const struct serverclock *c, int64_t mono_ns);
int64_t serverclock_twice_at(const struct serverclock *c, int64_t ctime_ns);

#define SIZECOUNT_PROOF 3
struct sizecount { /* starts all zero */
	uint64_t offset;
	uint64_t counts[SIZECOUNT_PROOF];
	unsigned ncounts;
	bool refuted;
};
void sizecount_update(struct sizecount *c, uint64_t size, uint64_t entries);
bool sizecount_counts(const struct sizecount *c);

#endif
