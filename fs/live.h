/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Live folders: per half (new/ or cur/) the entries in memory, ready to be sent, with a struct fresh of their own.
 * Loaded from the index, patched by the mount's own changes and by maildexd's feed, replaced by scans, evicted by
 * least use.
 *
 * Flow: live_get() pins one; live_open() at opendir brings it to a state that may be served (load, check, scan);
 * live_snapshot() at a handle's first READDIR; live_put(). Own changes: own.h. Events from elsewhere: feed.c.
 * Shapes: at most cache_bytes of snapshots that nobody pins; a folder used once counts among at most an eighth of
 * that, so that a backup that walks the mount evicts nobody.
 * Ownership: counted; a live folder holds a reference on its node. Whoever has pinned one keeps it and its snapshot.
 * Threads: `lock` guards all fields behind it and is never held across I/O; `scanning` and `inflight` say what is
 * under way, `moved` tells when they change.
 * Errors: negative errno of the lower call that failed.
 */
#ifndef MAILDEX_FS_LIVE_H
#define MAILDEX_FS_LIVE_H

#include <pthread.h>

#include "fs/gate.h"
#include "fs/names.h"
#include "fs/node.h"
#include "fs/snapshot.h"
#include "lib/base/clock.h"
#include "lib/base/cred.h"
#include "lib/mail/event.h"
#include "lib/mail/scan.h"

struct fs;

/* Messages that changed while a scan was under way: looked up at its end. */
#define LIVE_TOUCHED_MAX 1024
/* So long after a burst's last change its post stamp must be there: when the server read it, nobody else knows. */
#define LIVE_BURST_LATE_NS (100 * NS_PER_MS)

struct live {
	struct node *node;
	enum half half;
	struct live *hash_next, *lru_prev,
		*lru_next; /* guarded by the cache's lock, as are pins, uses, bytes, cached */
	unsigned pins, uses;
	size_t bytes;
	bool cached, detached;

	pthread_mutex_t lock;
	pthread_cond_t moved;
	struct fresh fresh;
	struct snapshot *snapshot; /* NULL: not loaded */
	struct names names;
	uint64_t next_cookie;
	bool served; /* somebody was given a listing */
	bool doubt;  /* patched with what may be wrong: to be listed before anybody is given it */
	bool scanning;
	bool need_meanwhile, doubt_meanwhile; /* set while scanning */
	size_t ntouched;                      /* beyond LIVE_TOUCHED_MAX: too many */
	struct scan_change *touched;
	unsigned inflight; /* own changes between pre and patch */
	bool burst;        /* own changes share a window that is not closed yet */
	struct stamp burst_pre;
	int64_t burst_since_ns, burst_last_ns; /* CLOCK_MONOTONIC: its first and its last change */
	bool burst_timer;                      /* an after-job will look at it */
	struct event *burst_event;             /* its changes so far; NULL: none */
	unsigned looks;                        /* events that wait to be looked at (AFTER_LOOK) */
	struct event *hints; /* own changes without a window that maildexd is not told of yet; NULL: none */
	bool stat_valid;     /* a reading that stats may share */
	bool stat_behind;    /* own changes were made since: what is shown with it is tagged */
	struct stamp stat;
	int64_t stat_at_ns;      /* CLOCK_MONOTONIC */
	int64_t vouched_ns;      /* CLOCK_MONOTONIC: then the listing was what the server had; 0: never */
	struct stamp stat_moved; /* the last reading that the listing did not stand for */
	/* The last reading by a check (or what the row stood for), and CLOCK_MONOTONIC before and after it; 0: none yet. */
	struct stamp checked;
	int64_t check_asked_ns, check_ended_ns;
	int64_t scanned_ns; /* CLOCK_MONOTONIC when the listing that this one goes back to was begun */
	char folder[];
};

struct live_cache {
	pthread_mutex_t lock;
	struct live **slots; /* by folder and half */
	size_t mask, count;
	struct live *lru_first[2], *lru_last[2]; /* [0]: used once, [1]: more often */
	size_t bytes[2], limit;
	uint64_t messages;
	/* Lower listings under way: at most scans_max of one storage, so that one that hangs does not stop all others. Storages
	 * that share a place share those. */
	unsigned scans[GATE_SLOTS], scans_max;
	pthread_cond_t scan_ended;
};

int live_cache_init(struct live_cache *c, size_t limit, unsigned scans_max);
void live_cache_release(struct fs *fs);

/* The live folder of a half's node, pinned; made if there is none (in need, nothing loaded). NULL and *error on
 * failure. */
struct live *live_get(struct fs *fs, struct node *half, int *error);
/* The same only if there is one; else NULL. */
struct live *live_peek(struct fs *fs, struct node *half);
struct live *live_find(struct fs *fs, const char *folder, enum half half);
void live_put(struct fs *fs, struct live *l);
/* Folders at or below this path were renamed or removed: they leave the cache (handles keep theirs). */
void live_detach_below(struct fs *fs, const char *folder);
/* Calls fn for each live folder, pinned. */
void live_each(struct fs *fs, void (*fn)(struct fs *fs, struct live *l, void *arg), void *arg);

/*
 * opendir: loads if needed, asks the server for the stamp as `who`, lists if the check says so (one scan at a time;
 * others wait for it). dirfd: the half's O_PATH descriptor. Returns 0: what live_snapshot() gives may be served. Or
 * negative errno.
 */
int live_open(struct fs *fs, struct live *l, int dirfd, const struct cred *who);
/*
 * Is this name listed with this inode, and is the listing surely what the directory was a moment ago? Returns for how long
 * that may be taken for now (`revalidate` behind the server's last word); 0: ask.
 */
int64_t live_vouches(struct fs *fs, struct node *half, const char *name, uint64_t ino);
/* The same without a limit of time: is it listed with this inode? */
bool live_knows(struct fs *fs, struct node *half, const char *name, uint64_t ino);
/* The listing now, referenced; NULL if none is loaded, or (but for `anyway`) if it came into doubt since live_open(). */
struct snapshot *live_snapshot(struct live *l, bool anyway);
/* Lists and takes the result over, whatever the check says; *repaired: the listing claimed to be right and was not. */
int live_rescan(struct fs *fs, struct live *l, int dirfd, const struct cred *who, bool *repaired);
/*
 * The mtime to show with a stat of the half (rule 6). plain: what an ordinary stat of it said just now, which may be
 * older than the server's state, but not than our own changes. *reading is the stamp that the mtime goes with, *keep_ns
 * how long the kernel may keep it (0: not at all). Returns 0 or negative errno.
 */
struct live_times {
	int64_t ctime_ns, mtime_ns;
};
int live_mtime(struct fs *fs, struct node *half, int dirfd, const struct live_times *plain, struct stamp *reading,
	       int64_t *mtime_ns, int64_t *keep_ns);
/*
 * For who opens the half, and looks at its mode only: a time that is shown with no listing ever, without a call. plain: as
 * in live_mtime(). Returns false where live_mtime() would make no call either.
 */
bool live_mtime_unseen(struct fs *fs, struct node *half, const struct live_times *plain, struct stamp *reading,
		       int64_t *mtime_ns);
/* The half's own attributes were set through this mount: the next stat asks the server. */
void live_stat_forget(struct fs *fs, struct node *half);

/* ---- for own.c and feed.c, with l->lock held ---- */

/* Applies a plan to the snapshot. Returns true if the listing changed. */
bool live_apply_plan(struct live *l, const struct plan *plan);
/* The entries that a change is about, as event_plan() wants them. Returns how many (may exceed max). */
size_t live_now(struct live *l, const struct change *c, struct listing_entry *now, size_t max);
/* Is there an entry of this very name, with this inode (0: any)? */
bool live_lists(struct live *l, const char *name, uint64_t ino);
/* Remembers a change for the scan that is under way. sure: see struct scan_change. */
void live_touch(struct live *l, const struct change *c, bool sure);
/* Sets need, also for a scan under way. */
void live_set_need(struct live *l);
/* A stamp that was just read: stats may share it for `revalidate`. */
void live_stat_remember(struct live *l, const struct stamp *s);
/* Adds a change to one of the two collections. Returns 0 or negative errno (-ENOSPC: full). */
int live_collect(struct live *l, struct event **collection, const struct change *c);
/*
 * Ends a burst with its post stamp, just read. Too late (a machine under load), it proves nothing: a silent change could
 * hide behind the last own one, and the half is to be listed. Nor if an event waits to be looked at: its change is in the
 * window, too, and not in the listing. Returns its event, to be sent by feed_send(); NULL: nothing to tell.
 */
struct event *live_close_burst(struct fs *fs, struct live *l, const struct stamp *post);
void live_context(struct fs *fs, const struct live *l, struct fresh_context *ctx);
/*
 * An own change was made in this half, and no window tells a row that holds it from one that lacks it: within one tick of
 * the server's clock both have the stamp of the directory. Until that tick is over, what is loaded from the index is
 * listed before it is served. Also without the lock.
 */
void live_own_unproven(struct node *half);

#endif
