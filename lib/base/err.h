/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one error idiom of maildex.
 *
 * Flow: the function that detects a failure writes the text and returns a negative errno; who passes it on adds
 * nothing; who decides what to do logs it once.
 * Shapes: a text of at most ERR_TEXT_MAX - 1 bytes, cut where it would be longer.
 * Ownership: the caller's memory, nothing allocated; a NULL struct err is allowed everywhere.
 * Threads: one struct belongs to one thread.
 * Errors: codes are negative errno values (errno(3)).
 */
#ifndef MAILDEX_BASE_ERR_H
#define MAILDEX_BASE_ERR_H

#define ERR_TEXT_MAX 1024

struct err {
	char text[ERR_TEXT_MAX];
};

/* Writes the text; returns code, which must be negative. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set() with the code -errno and ": strerror" behind the text; returns -errno. */
int err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
