/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/place_visit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/mail/listing.h"

/* So many names in a new folder are told one by one; more, as one LOOK. */
#define TELL_MAX EVENT_CHANGES_MAX
/* As a walk of the tree. */
#define DEPTH_MAX 64

static bool is_gone(int code)
{
	return code == -ENOENT || code == -ENOTDIR || code == -ELOOP || code == -ENAMETOOLONG;
}

static void failed(struct visit *v, struct place *place, int code)
{
	v->full |= code == -ENOSPC;
	v->why = code;
	places_push(v->places, PLACES_UNWATCHED, place, false);
}

/* Opens the place, or its new/. */
static int place_open(struct visit *v, struct place *place, enum place_what what, int flags, struct cred *owner)
{
	char path[FOLDER_PATH_MAX + 1];
	uid_t uid;
	gid_t gid;
	int fd = place_path(place, path);

	if (fd < 0)
		return fd;
	if (what == PLACE_NEW && flags == O_RDONLY)
		return lower_open_half(v->lower, path, HALF_NEW, owner);
	if (what == PLACE_NEW) {
		size_t len = strlen(path);

		if (len + sizeof("/new") > sizeof(path))
			return -ENAMETOOLONG;
		strcpy(path + len, len > 0 ? "/new" : "new");
	}
	fd = tree_open_dir(&v->lower->tree, path, flags, &uid, &gid);
	if (fd >= 0)
		*owner = (struct cred){.uid = uid, .gid = gid};
	return fd;
}

/* As the directory's owner; where that is refused, as we are. */
static int add_as_owner(struct visit *v, int fd, enum place_what what, const struct cred *owner, int *wd)
{
	int r = -EACCES;

	if (cred_become(owner) == 0) {
		r = v->add(v->arg, fd, what, wd);
		cred_restore();
	}
	return r == -EACCES ? v->add(v->arg, fd, what, wd) : r;
}

enum watched { WATCHED_NEWLY, WATCHED_STILL, WATCHED_NOT };

static enum watched watch_fd(struct visit *v, struct place *place, enum place_what what, int fd,
			     const struct cred *owner)
{
	const struct place_watch *has = &place->watch[what];
	struct stat st;
	int wd, r;

	if (fstat(fd, &st) < 0) {
		failed(v, place, -errno);
		return WATCHED_NOT;
	}
	if (has->wd >= 0 && (has->dev != st.st_dev || has->ino != st.st_ino))
		place_unwatch(v->places, place, what, false);
	r = add_as_owner(v, fd, what, owner, &wd);
	if (r == 0) {
		/* If it had one on that inode, that one died, and its number is another directory's now. */
		place_unwatch(v->places, place, what, true);
		place_watch(v->places, place, what, wd, st.st_dev, st.st_ino);
		return WATCHED_NEWLY;
	}
	if (r == -EEXIST && has->wd >= 0)
		return WATCHED_STILL;
	/* Refused, it may live all the same: the kernel would refuse the next one for it. */
	place_unwatch(v->places, place, what, false);
	failed(v, place, r);
	return WATCHED_NOT;
}

static void tell_names(struct visit *v, struct place *place)
{
	struct listing_entry entry;
	struct listing l;
	struct cred owner;
	size_t at = 0;
	uint64_t all;
	int fd = place_open(v, place, PLACE_NEW, O_RDONLY, &owner);

	listing_init(&l);
	if (fd < 0 || listing_read(fd, &l, &all) < 0 || l.count > TELL_MAX)
		v->tell(v->arg, place, NULL, 0);
	else
		while (listing_next(&l, &at, &entry))
			v->tell(v->arg, place, entry.name, entry.len);
	listing_release(&l);
	if (fd >= 0)
		close(fd);
}

static void watch_new(struct visit *v, struct place *place)
{
	struct cred owner;
	enum watched w = WATCHED_NOT;
	int fd = place_open(v, place, PLACE_NEW, O_PATH, &owner);

	if (fd >= 0) {
		w = watch_fd(v, place, PLACE_NEW, fd, &owner);
		close(fd);
	} else if (!is_gone(fd)) { /* else: whatever removed it is told by the watch on the place */
		failed(v, place, fd);
	}
	if (w == WATCHED_NEWLY && place->tell)
		tell_names(v, place);
	else if (w == WATCHED_NEWLY ? !v->first : w == WATCHED_STILL && v->look)
		v->tell(v->arg, place, NULL, 0);
	if (w != WATCHED_NOT)
		place->tell = false;
}

/* Lists the directories in it; *bits says what of a Maildir is there. */
static int list_place(struct visit *v, struct place *place, struct listing *l, unsigned *bits)
{
	struct listing_entry entry;
	struct listing all;
	struct cred owner;
	size_t at = 0;
	uint64_t count;
	int fd = place_open(v, place, PLACE_DIR, O_RDONLY, &owner), r;

	*bits = 0;
	if (fd < 0)
		return fd;
	listing_reset(l);
	listing_init(&all);
	r = listing_read(fd, &all, &count);
	while (r == 0 && listing_next(&all, &at, &entry)) {
		if (!tree_entry_is_dir(fd, &entry))
			continue;
		*bits |= tree_maildir_bit(entry.name, entry.len);
		r = listing_add(l, &entry);
	}
	listing_release(&all);
	close(fd);
	return r;
}

static unsigned depth_of(const struct place *place)
{
	unsigned depth = 0;

	while ((place = place->parent))
		depth++;
	return depth;
}

/*
 * Meets the directories in it. new, cur and tmp in what is no Maildir: one that is being made, most likely, or users of
 * that name; only a round goes and sees. changed: it has become a Maildir, or none, which makes subfolders of them, or
 * no subfolders.
 */
static void meet_children(struct visit *v, struct place *place, const struct listing *l, bool changed)
{
	struct listing_entry entry;
	size_t at = 0;
	uint64_t met = ++v->count;
	bool deep = depth_of(place) >= DEPTH_MAX;

	while (!deep && listing_next(l, &at, &entry)) {
		struct place *child;
		bool made;

		if (tree_maildir_bit(entry.name, entry.len) && place->maildir)
			continue;
		if (tree_maildir_bit(entry.name, entry.len) && !place->round) {
			child = place_find(v->places, place, entry.name, entry.len);
			if (child)
				child->met = met;
			continue;
		}
		child = place_child(v->places, place, entry.name, entry.len, &made);
		if (!child)
			continue;
		child->met = met;
		child->round |= place->round;
		child->tell |= made && (place->tell || !v->first);
		if (made || place->round || changed)
			places_push(v->places, PLACES_TODO, child, !place->round);
	}
	place_sweep(v->places, place, met);
}

static bool like_subfolder(const struct place *place)
{
	return place->parent && place->parent->maildir && place->name[0] == '.';
}

static void watch_dir(struct visit *v, struct place *place)
{
	struct cred owner;
	int fd = place_open(v, place, PLACE_DIR, O_PATH, &owner);

	if (fd < 0) {
		failed(v, place, fd);
		return;
	}
	watch_fd(v, place, PLACE_DIR, fd, &owner);
	close(fd);
}

static int look_at(struct visit *v, struct place *place, struct listing *l)
{
	bool sub = like_subfolder(place);
	unsigned bits;
	int r;

	if (!sub)
		watch_dir(v, place);
	r = list_place(v, place, l, &bits);
	if (r == 0 && sub && bits != TREE_MAILDIR) {
		/* Not yet: it is watched until it is one. */
		watch_dir(v, place);
		r = list_place(v, place, l, &bits);
	}
	if (r < 0)
		return r;
	place->maildir = bits == TREE_MAILDIR;
	if (sub && place->maildir)
		place_unwatch(v->places, place, PLACE_DIR, false);
	return 0;
}

/*
 * It is gone, and what tells whether it was removed or moved is yet to be read: that drops it. Watches that live on
 * where it is now must be given back; of others the library complains.
 */
static bool event_waits(const struct place *place)
{
	bool watched = place->child || place->watch[PLACE_DIR].wd >= 0 || place->watch[PLACE_NEW].wd >= 0;

	return watched && place->parent->watch[PLACE_DIR].wd >= 0;
}

void visit_place(struct visit *v, struct place *place)
{
	bool was_maildir = place->maildir;
	struct listing l;
	int r;

	places_take(v->places, PLACES_UNWATCHED, place);
	listing_init(&l);
	r = look_at(v, place, &l);
	if (r == 0) {
		if (place->maildir)
			watch_new(v, place);
		else
			place_unwatch(v->places, place, PLACE_NEW, false);
		meet_children(v, place, &l, place->maildir != was_maildir);
		if (!place->maildir)
			place->tell |= !v->first; /* once it is one */
		place->round = false;
	} else if (is_gone(r) && place->parent && lower_ok(v->lower)) {
		if (!event_waits(place))
			place_drop(v->places, place, false);
	} else {
		failed(v, place, r);
		place->round = false;
	}
	listing_release(&l);
}
