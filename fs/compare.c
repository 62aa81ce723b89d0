/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/compare.h"

#include <string.h>
#include <unistd.h>

#include "fs/fs.h"
#include "lib/base/log.h"

static void difference(const struct live *l, const char *what, const struct listing_entry *e, unsigned *n)
{
	counter_add(COUNT_COMPARE_DIFFERENCES, 1);
	if ((*n)++ < COMPARE_LOGGED)
		log_error("compare: %s/%s: %s: %.*s", l->folder, half_word(l->half), what, e->len, e->name);
}

/* The entry of this very name, or NULL. */
static const struct listing_entry *find_name(const struct names *names, const struct snapshot *s,
					     const struct listing_entry *e, struct snapshot_entry found[PLAN_MAX])
{
	size_t n = names_find(names, s, e->name, e->len, found, PLAN_MAX);

	for (size_t k = 0; k < n && k < PLAN_MAX; k++)
		if (found[k].entry.len == e->len && memcmp(found[k].entry.name, e->name, e->len) == 0)
			return &found[k].entry;
	return NULL;
}

/* Reports what s has and other has not; with inodes too if asked. */
static void report(const struct live *l, const struct snapshot *s, const struct snapshot *other, const char *only,
		   bool inodes, unsigned *n)
{
	struct snapshot_entry found[PLAN_MAX], e;
	struct snapshot_walk w;
	struct names names;

	names_init(&names);
	if (names_build(&names, other) < 0)
		return;
	snapshot_walk_init(&w, s);
	while (snapshot_walk_next(&w, &e)) {
		const struct listing_entry *have = find_name(&names, other, &e.entry, found);

		if (!have)
			difference(l, only, &e.entry, n);
		else if (inodes && have->ino != e.entry.ino)
			difference(l, "another inode in the index", &e.entry, n);
	}
	names_release(&names);
}

static void compare_listings(const struct live *l, const struct snapshot *index, const struct listing *real)
{
	uint64_t next = SNAPSHOT_FIRST_COOKIE;
	unsigned n = 0;
	bool changed;
	struct snapshot *lower = snapshot_merge(NULL, real, 0, 0, &next, &changed);

	if (!lower)
		return;
	report(l, lower, index, "only in the lower tree", true, &n);
	report(l, index, lower, "only in the index", false, &n);
	snapshot_unref(lower);
}

void compare_half(struct fs *fs, struct node *half, int dirfd, int fd, uid_t uid, gid_t gid)
{
	struct cred who = {.uid = uid, .gid = gid};
	struct snapshot *index = NULL;
	struct stamp s0, s1;
	struct listing real;
	struct live *l;
	uint64_t all;
	bool same = false;
	int error;

	l = live_get(fs, half, &error);
	if (!l)
		return;
	listing_init(&real);
	if (live_open(fs, l, dirfd, &who) == 0) {
		index = live_snapshot(l, false);
		/* Only what stood still is compared: what is served was then what the index would have answered. */
		same = stamp_read(fd, &s0, NULL) == 0 && listing_read(fd, &real, &all) == 0 &&
		       stamp_read(fd, &s1, NULL) == 0 && stamp_eq(&s0, &s1);
		counter_add(COUNT_LOWER_LISTINGS, 1);
		pthread_mutex_lock(&l->lock);
		same = same && !l->fresh.need && stamp_eq(&l->fresh.known, &s0) && l->snapshot == index;
		pthread_mutex_unlock(&l->lock);
	}
	if (same) {
		counter_add(COUNT_COMPARED, 1);
		compare_listings(l, index, &real);
	}
	lseek(fd, 0, SEEK_SET);
	listing_release(&real);
	snapshot_unref(index);
	live_put(fs, l);
}
