/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Comparing while mail is read and delivered. What this guards against:
 *
 * - the folder changes between the reading of the index and the listing: then the row or the stamp is another one
 *   afterwards, and both are read again;
 * - a change in the same tick of the server's clock as the listing leaves the stamp as it was: what the index claims as
 *   right and the disk denies is looked at once more when the tick is over, before it is called a difference;
 * - a folder whose storage went away is not a folder that was deleted: the tree is checked.
 */
#include "tools/maildexctl/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define TRIES 4

/* How one attempt ended. */
enum attempt { ATTEMPT_DONE, ATTEMPT_MOVED };

static int open_half(const struct tree *t, const char *folder, enum half half, struct err *e)
{
	char path[FOLDER_PATH_MAX + 8];
	uid_t uid;
	gid_t gid;
	int fd;

	snprintf(path, sizeof(path), "%s%s%s", folder, folder[0] ? "/" : "", half_word(half));
	fd = tree_open_dir(t, path, O_RDONLY, &uid, &gid);
	if (fd >= 0)
		return fd;
	return err_set(e, fd, "%s: cannot be read: %s", path, strerror(-fd));
}

static int scan_disk(struct verify_found *f, const struct tree *t, const char *folder, enum half half, struct err *e)
{
	/* The client's cached pages are dropped: the server is asked, whatever the mount options say. */
	struct scan_from from = {.before = f->state == VERIFY_DAMAGED ? NULL : &f->index, .drop_cache = true};
	int fd = open_half(t, folder, half, e), rc;

	if (fd < 0)
		return fd;
	rc = scan_half(fd, &from, &f->disk);
	close(fd);
	return rc < 0 ? err_set(e, rc, "%s/%s: cannot be listed: %s", folder, half_word(half), strerror(-rc)) : 0;
}

/* Is the row still what it was? Returns 1, 0 or negative errno; *vanished if there is none now. */
static int row_same(struct store_reader *r, const struct store_row *before, bool *vanished, struct err *e)
{
	struct store_row row;
	int rc = store_reader_half(r, before->folder, before->half, &row, NULL, e);

	*vanished = rc == 0;
	if (rc <= 0)
		return rc;
	return row.fresh.gen == before->fresh.gen && stamp_eq(&row.fresh.known, &before->fresh.known);
}

static bool would_serve(const struct fresh *row, const struct stamp *s)
{
	return fresh_check(row, row->gen, true, s, serverclock_now_ns(s->dev), 0) == FRESH_SERVE;
}

static int attempt(struct store_reader *r, const struct tree *t, struct store_row *row, struct verify_found *f,
		   enum attempt *how, struct err *e)
{
	bool vanished;
	int rc = store_reader_half(r, row->folder, row->half, row, &f->index, e);

	*how = ATTEMPT_DONE;
	f->state = rc == 0 ? VERIFY_VANISHED : rc == -EUCLEAN ? VERIFY_DAMAGED : VERIFY_COMPARED;
	if (rc == 0 || rc == -EUCLEAN)
		return 0;
	if (rc < 0)
		return rc;
	f->messages = row->count;
	rc = scan_disk(f, t, row->folder, row->half, &f->why);
	if (rc < 0) {
		if (tree_check(t, e) < 0)
			return -ESTALE;
		f->state = rc == -ENOENT || rc == -ENOTDIR || rc == -ESTALE ? VERIFY_GONE : VERIFY_UNREADABLE;
	}
	rc = row_same(r, row, &vanished, e);
	if (rc < 0)
		return rc;
	if (vanished)
		f->state = VERIFY_VANISHED;
	else if (rc == 0 || (f->state == VERIFY_COMPARED && !stamp_eq(&f->disk.last.s0, &f->disk.last.s1)))
		*how = ATTEMPT_MOVED;
	if (f->state != VERIFY_COMPARED)
		return 0;
	f->claimed = would_serve(&row->fresh, &f->disk.last.s1);
	rc = diff_listings(&f->index, &f->disk.listing, &f->differences, &f->count);
	return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

static void found_init(struct verify_found *f)
{
	*f = (struct verify_found){0};
	listing_init(&f->index);
	listing_init(&f->disk.listing);
}

int verify_half(struct store_reader *r, const struct tree *t, const char *folder, enum half half,
		struct verify_found *f, struct err *e)
{
	struct store_row *row = calloc(1, sizeof(*row));
	bool confirmed = false;
	enum attempt how;
	int rc = 0;

	found_init(f);
	if (!row)
		return err_set(e, -ENOMEM, "out of memory");
	for (int i = 0; i < TRIES; i++) {
		verify_found_release(f);
		snprintf(row->folder, sizeof(row->folder), "%s", folder);
		row->half = half;
		rc = attempt(r, t, row, f, &how, e);
		if (rc < 0 || f->state == VERIFY_VANISHED)
			break;
		if (how == ATTEMPT_MOVED)
			continue;
		if (!f->claimed || f->count == 0 || confirmed)
			break;
		confirmed = true;
		poll(NULL, 0, (int)(stamp_settle_ns(&f->disk.last.s1) / NS_PER_MS) + 1);
	}
	free(row);
	return rc;
}

void verify_found_release(struct verify_found *f)
{
	listing_release(&f->index);
	scan_release(&f->disk);
	free(f->differences);
	found_init(f);
}
