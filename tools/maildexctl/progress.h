/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How far a rebuild is, as one line.
 *
 * Shapes: folders skipped (done by an earlier, interrupted run) count as done, but not for the rate.
 * Pure functions; threads: any; errors: in the buffer.
 */
#ifndef MAILDEXCTL_PROGRESS_H
#define MAILDEXCTL_PROGRESS_H

#include <stdbool.h>

#include "lib/base/buf.h"

struct progress {
	uint64_t done;  /* folders */
	uint64_t known; /* folders found so far */
	bool complete;  /* no more will be found */
	uint64_t messages;
	uint64_t failed;  /* folders */
	uint64_t skipped; /* folders */
};

/* Returns the nanoseconds left by the rate so far, or -1 while that can't be told. */
int64_t progress_left_ns(const struct progress *p, int64_t elapsed_ns);
/* Appends a bar and the numbers, at most `columns` wide. */
void progress_bar(const struct progress *p, int64_t elapsed_ns, unsigned columns, struct buf *out);
/* Appends the numbers alone: a line for a log. */
void progress_line(const struct progress *p, int64_t elapsed_ns, struct buf *out);
/* Appends the last line: what was done. */
void progress_summary(const struct progress *p, int64_t elapsed_ns, struct buf *out);

#endif
