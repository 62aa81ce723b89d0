/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of maildexd's parts share: a tree of their own, and the parts that write the index, put together over
 * it. Flow: help_setup/help_teardown per test; help_apply_start() where the applier is wanted. Errors: the running test
 * fails.
 */
#ifndef MAILDEX_TESTS_INDEXER_HELP_H
#define MAILDEX_TESTS_INDEXER_HELP_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "indexer/rescan.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define HELP_QUEUE_LIMIT 1000

struct help {
	char dir[64];
	char index[96];
	struct conf conf;
	struct lower lower;
	struct tally tally;
	struct queue *queue;
	struct outbox *outbox;
	struct indexfile file;
	struct store_readers *readers;
	struct apply apply;
	struct err err;
};

#define OK(h, call)                                                                                                    \
	__extension__({                                                                                                \
		int ok_rc_ = (call);                                                                                   \
		if (ok_rc_ < 0)                                                                                        \
			fail_msg("%s: %d %s", #call, ok_rc_, (h)->err.text);                                           \
		ok_rc_;                                                                                                \
	})

static inline void help_path(const struct help *h, const char *path, char out[512])
{
	snprintf(out, 512, "%s/mail/%s", h->dir, path);
}

static inline void help_mkdir(const struct help *h, const char *path)
{
	char full[512];

	help_path(h, path, full);
	assert_int_equal(mkdir(full, 0700), 0);
}

static inline void help_maildir(const struct help *h, const char *folder)
{
	static const char *const subs[] = {"", "/new", "/cur", "/tmp"};
	char path[256];

	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s%s", folder, subs[i]);
		help_mkdir(h, path);
	}
}

/* Makes a message; returns its inode. */
static inline uint64_t help_make(const struct help *h, const char *path)
{
	char full[512];
	struct stat st;
	int fd;

	help_path(h, path, full);
	fd = open(full, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	close(fd);
	return st.st_ino;
}

static inline void help_unlink(const struct help *h, const char *path)
{
	char full[512];

	help_path(h, path, full);
	assert_int_equal(unlink(full), 0);
}

static inline void help_rename(const struct help *h, const char *from, const char *to)
{
	char a[512], b[512];

	help_path(h, from, a);
	help_path(h, to, b);
	assert_int_equal(rename(a, b), 0);
}

static inline int help_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static inline void help_remove_tree(const struct help *h, const char *path)
{
	char full[512];

	help_path(h, path, full);
	assert_int_equal(nftw(full, help_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline struct stamp help_stamp(struct help *h, const char *folder, enum half half)
{
	struct cred owner;
	struct stamp s;
	int fd = OK(h, lower_open_half(&h->lower, folder, half, &owner));

	assert_int_equal(stamp_read(fd, &s, NULL), 0);
	close(fd);
	return s;
}

static inline int help_setup(void **state)
{
	struct help *h = calloc(1, sizeof(*h));
	char path[128];

	assert_non_null(h);
	strcpy(h->dir, "/tmp/maildex-indexer-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	help_mkdir(h, "");
	snprintf(h->index, sizeof(h->index), "%s/index.sqlite", h->dir);
	log_open("test", LOG_LEVEL_ERROR);
	conf_init(&h->conf);
	snprintf(path, sizeof(path), "root=%s/mail", h->dir);
	OK(h, conf_set(&h->conf, path, &h->err));
	OK(h, lower_open(&h->lower, &h->conf, &h->err));
	OK(h, indexfile_open(&h->file, h->index, h->lower.tree.identity, &h->tally, &h->err));
	h->queue = queue_new(HELP_QUEUE_LIMIT);
	h->outbox = outbox_new();
	assert_true(h->queue && h->outbox);
	OK(h, store_readers_new(&h->readers, h->index, NULL));
	h->apply.tools =
		(struct batch_tools){.conf = &h->conf, .lower = &h->lower, .outbox = h->outbox, .tally = &h->tally};
	h->apply.queue = h->queue;
	h->apply.file = &h->file;
	*state = h;
	return 0;
}

static inline void help_apply_start(struct help *h)
{
	OK(h, apply_start(&h->apply, &h->err));
}

static inline int help_teardown(void **state)
{
	struct help *h = *state;

	queue_close(h->queue);
	apply_stop(&h->apply, 10 * NS_PER_S, "clean", "");
	store_readers_free(h->readers);
	indexfile_close(&h->file);
	lower_close(&h->lower);
	outbox_free(h->outbox);
	queue_free(h->queue);
	conf_release(&h->conf);
	assert_int_equal(nftw(h->dir, help_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(h);
	return 0;
}

/* Waits until what was queued is applied: a call is in the batch of what came before it, if that is no more than one.
 */
static inline void help_drain(struct help *h)
{
	OK(h, apply_set_fact(&h->apply, "drained", "", &h->err));
}

/* The half's row, and its names if l. Returns false if it is not held. */
static inline bool help_row(struct help *h, const char *folder, enum half half, struct store_row *row,
			    struct listing *l)
{
	struct store_reader *reader;
	int r;

	OK(h, store_readers_get(h->readers, &reader, &h->err));
	r = OK(h, store_reader_half(reader, folder, half, row, l, &h->err));
	store_readers_put(h->readers, reader, false);
	return r > 0;
}

/* Does the index hold the name, with that inode? */
static inline bool help_has(struct help *h, const char *folder, enum half half, const char *name, uint64_t ino)
{
	struct listing_entry entry;
	struct store_row row;
	struct listing l;
	size_t at = 0;
	bool found = false;

	listing_init(&l);
	if (help_row(h, folder, half, &row, &l)) {
		while (!found && listing_next(&l, &at, &entry))
			found = entry.len == strlen(name) && memcmp(entry.name, name, entry.len) == 0 &&
				entry.ino == ino;
	}
	listing_release(&l);
	return found;
}

/* Queues an event of one change; window NULL: none. */
static inline void help_event(struct help *h, const char *folder, enum half half, enum change_kind kind,
			      const char *old, const char *name, uint64_t ino, const struct window *window)
{
	struct event ev;
	struct change c;

	event_init(&ev, folder, half);
	change_make(&c, kind, old, name, ino, 0);
	assert_int_equal(event_add(&ev, &c), 0);
	if (window) {
		ev.windowed = true;
		ev.window = *window;
	}
	queue_event(h->queue, &ev, 7);
}

/* The half as it is on disk now, taken over; settled, so that it serves. */
static inline void help_hold(struct help *h, const char *folder, enum half half)
{
	_Atomic bool disturbed = false;
	struct takeover t = {.folder = folder, .half = half, .create = true, .last = true, .disturbed = &disturbed};
	struct scan scan;
	struct cred owner;
	int fd = OK(h, lower_open_half(&h->lower, folder, half, &owner));

	assert_int_equal(scan_half(fd, &(struct scan_from){.before = NULL}, &scan), 0);
	scan.last.server_now_ns = scan.last.s0.ctime_ns + 10 * NS_PER_S;
	t.scan = &scan;
	OK(h, apply_takeover(&h->apply, &t, &h->err));
	assert_int_equal(t.verdict, TAKEOVER_DONE);
	scan_release(&scan);
	close(fd);
}

#endif
