/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index: one SQLite file on local disk, one writer (maildexd), any number of readers. This folder is the only
 * place that knows SQL or includes sqlite3.h. See schema.c for the tables.
 *
 * Shapes: a half is named by (folder path, half). Its row carries struct fresh, the count and the order-free sum of
 * its names.
 * Ownership: handles are opened and closed by the caller; listings filled are the caller's.
 * Threads: a writer belongs to one thread; each thread has a reader of its own (store_readers hands them out).
 * Errors: -EUCLEAN for a damaged index or a row whose checksum is wrong, -EPROTO for one of a newer version, -EXDEV
 * for another tree's,
 * -ENOSPC for a full disk, -EAGAIN for a lock that was not had in time, other negative errno; always with a text.
 */
#ifndef MAILDEX_STORE_STORE_H
#define MAILDEX_STORE_STORE_H

#include "lib/base/err.h"
#include "lib/mail/folder.h"
#include "lib/mail/fresh.h"
#include "lib/mail/listing.h"

struct store_row {
	int64_t id; /* 0: not in the index */
	char folder[FOLDER_PATH_MAX + 1];
	enum half half;
	struct fresh fresh;
	uint64_t count;
	uint64_t sum;
	int64_t scanned_ns; /* CLOCK_REALTIME of the last scan, 0: never */
};

/* CLOCK_MONOTONIC before which fresh.known was not read, so that a change of the directory since was made since then: the
 * scan's end, less than what a scan may take. */
int64_t store_row_known_ns(const struct store_row *row);

#endif
