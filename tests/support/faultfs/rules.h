/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What faultfs was ordered to do to calls, and what was called.
 *
 * Flow: each call of the mirror begins with rules_before(), which counts it, lets it wait and says whether it fails; the
 * control socket (control.c) adds and removes rules. A rule looks at each call of its kind (all: RULES_ANY) whose path
 * its pattern matches (fnmatch(3) without flags: "*" matches "/" too), lets nth - 1 of them pass, then acts on `times`.
 * A call whose answer is lost (RULES_LOSE) is carried out; rules_lost() says so before it is answered.
 * Shapes: paths are relative to the mirror ("." is its root); times in milliseconds; errors are positive errno values.
 * Ownership: rules belong to the connection (its socket) that ordered them, and end with it: whoever dies leaves nothing
 * hanging. Texts are copied.
 * Threads: any. A call that waits occupies its thread and holds no lock.
 * Errors: rules_add() -ENOMEM.
 */
#ifndef MAILDEX_TESTS_FAULTFS_RULES_H
#define MAILDEX_TESTS_FAULTFS_RULES_H

#include <stdbool.h>
#include <stddef.h>

enum rules_call {
	RULES_GETATTR, /* also each step of a path: what LOOKUP is to FUSE */
	RULES_READLINK,
	RULES_MKNOD,
	RULES_MKDIR,
	RULES_UNLINK,
	RULES_RMDIR,
	RULES_SYMLINK,
	RULES_RENAME,
	RULES_LINK,
	RULES_CHMOD,
	RULES_CHOWN,
	RULES_TRUNCATE,
	RULES_OPEN,
	RULES_READ,
	RULES_WRITE,
	RULES_STATFS,
	RULES_FLUSH,
	RULES_RELEASE,
	RULES_FSYNC,
	RULES_SETXATTR,
	RULES_GETXATTR,
	RULES_LISTXATTR,
	RULES_REMOVEXATTR,
	RULES_OPENDIR,
	RULES_READDIR,
	RULES_RELEASEDIR,
	RULES_FSYNCDIR,
	RULES_CREATE,
	RULES_UTIMENS,
	RULES_LOCK,
	RULES_FLOCK,
	RULES_LSEEK,
	RULES_COPY_FILE_RANGE,
	RULES_ACCESS,
	RULES_FALLOCATE,
	RULES_ANY,
};

enum rules_act {
	RULES_FAIL,
	RULES_LOSE, /* for the calls of rules_can_lose() */
	RULES_DELAY,
	RULES_HOLD,
};

struct rules_order {
	enum rules_act act;
	enum rules_call call;
	unsigned long nth;   /* 1: the next one */
	unsigned long times; /* 0: for ever */
	int error;           /* RULES_FAIL, RULES_LOSE */
	unsigned ms;         /* RULES_DELAY */
};

/*
 * No call is held longer than so many seconds: who ordered it may itself hang in the kernel because of it, and cannot even
 * be killed.
 */
void rules_init(unsigned longest_hold_s);

/* The call of that name ("statx" is getattr, "*" all). Returns RULES_ANY + 1 if there is none. */
enum rules_call rules_call_of(const char *name);

/* To be called before a call is carried out; `other` is NULL but for rename and link. Returns 0, or the errno that the call is
 * to fail with. */
int rules_before(enum rules_call call, const char *path, const char *other);

/* The errno that this thread's call, which rules_before() let pass, is to be answered with although it is done; or 0. */
int rules_lost(void);
/* Calls that change names. */
bool rules_can_lose(enum rules_call call);

/* Adds a rule of a connection. Returns 0 or -ENOMEM. */
int rules_add(int owner, const struct rules_order *order, const char *pattern);
/* Removes the connection's rules; its held calls go on. */
void rules_end(int owner);
/* Removes those of its rules that hold no call. Returns whether one holds a call (and still does). */
bool rules_cancel(int owner);
/* Removes all rules; who had ordered a call to be held is told "gone". */
void rules_clear(void);

/* How many calls are held or delayed now. */
unsigned rules_waiting(void);

/*
 * Writes "CALL PATH\0N\0" for counted calls into out, from the first-th on, as many as fit. Returns the number of the first
 * one left, 0: none is; *len: the bytes written.
 */
size_t rules_counts(size_t first, char *out, size_t size, size_t *len);
void rules_counts_reset(void);

#endif
