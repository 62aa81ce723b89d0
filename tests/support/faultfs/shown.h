/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a server shows of its files: coarse, stepped or rolled-back times, sizes of directories that count, inode numbers
 * that are used again.
 *
 * Flow: shown_init() at start; shown_attr() on each stat(2) of the real tree; shown_clock() and shown_stamp() on order.
 * Shapes: times in nanoseconds since 1970.
 * Ownership: the caller's memory.
 * Threads: any.
 * Errors: shown_stamp() negative errno.
 */
#ifndef MAILDEX_TESTS_FAULTFS_SHOWN_H
#define MAILDEX_TESTS_FAULTFS_SHOWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct shown_times {
	int64_t now_ctime_ns; /* shown while this is the real ctime */
	int64_t ctime_ns, mtime_ns;
};

void shown_init(unsigned tick_ms, bool sized, bool numbers);
/* Makes of the real attributes those shown; fd: the file's. */
void shown_attr(int fd, struct stat *st);
/* The inode number shown of a file of that name; directories have their real ones. */
uint64_t shown_ino(const char *name, mode_t mode, uint64_t ino);
/* From at_ns on the server's clock is back_ns late. Steps add up. */
void shown_clock(int64_t at_ns, int64_t back_ns);
/* Sets what is shown of the directory at path below `top`. Returns 0 or negative errno. */
int shown_stamp(int top, const char *path, const struct shown_times *times);

#endif
