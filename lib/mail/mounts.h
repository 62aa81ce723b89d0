/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mounts of this process's mount namespace, as /proc/self/mountinfo tells them (proc_pid_mountinfo(5)).
 *
 * Flow: mounts_read() takes all of them at one moment; mounts_by_id() and the like search. mounts_changed() tells
 * cheaply whether a second look is worth it.
 * Shapes: paths are unescaped. `root` is the directory inside the filesystem that is mounted ("/" unless it is a bind
 * mount).
 * Ownership: struct mounts owns all strings until mounts_release().
 * Threads: one at a time, except mounts_changed() and mounts_fd_id(): any.
 * Errors: negative errno.
 */
#ifndef MAILDEX_MAIL_MOUNTS_H
#define MAILDEX_MAIL_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct mount {
	unsigned id;
	dev_t dev;
	char *root;
	char *point;
	char *fstype;
	char *source;
	const char *options; /* the filesystem's own ("rw,vers=3,nolock"), not those of the mount point */
};

struct mounts {
	size_t count;
	struct mount *list;
	char *text; /* what the strings point into */
};

/* Takes the text of a mountinfo file (copied). Lines that are none are passed over. Returns 0 or -ENOMEM. */
int mounts_parse(struct mounts *m, const char *text, size_t len);
/* Reads /proc/self/mountinfo. Returns 0 or negative errno. */
int mounts_read(struct mounts *m);
void mounts_release(struct mounts *m);
/* Returns the mount or NULL. */
const struct mount *mounts_by_id(const struct mounts *m, unsigned id);
/* Returns the mount that is on top at this mount point, or NULL. */
const struct mount *mounts_by_point(const struct mounts *m, const char *point);
/* Reads the id of the mount that a descriptor (O_PATH too) was opened through. Returns 0 or negative errno. */
int mounts_fd_id(int fd, unsigned *id);
/* Reads all mounts and finds the one that fd was opened through. Returns 0, or negative errno (then nothing is held).
 */
int mounts_of_fd(struct mounts *m, int fd, const struct mount **mount);
/*
 * Were mounts made, moved or removed since the last call? True at the first call, and where it cannot be told. It
 * watches the namespace of the first call: a process that changes its own does so before.
 */
bool mounts_changed(void);

#endif
