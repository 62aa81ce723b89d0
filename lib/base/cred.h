/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filesystem credentials of one thread: whose name a system call by name runs under (law 6).
 *
 * Flow: cred_thread_start() once in each thread that switches; then cred_become() ... cred_restore() around calls.
 * Shapes: uid, gid, and supplementary groups (none unless given).
 * Threads: raw system calls (setfsuid, setfsgid, setgroups): only the calling thread changes. glibc's wrappers of
 * setgroups would change every thread (nptl(7)).
 * Errors: the kernel reports none for setfsuid; cred_become() reads it back. Where the process lacks CAP_SETUID the
 * answer is -EPERM and the thread runs on as before.
 */
#ifndef MAILDEX_BASE_CRED_H
#define MAILDEX_BASE_CRED_H

#include <stdbool.h>
#include <sys/types.h>

struct cred {
	uid_t uid;
	gid_t gid;
	int ngroups; /* 0: no supplementary groups */
	const gid_t *groups;
};

/* Remembers the thread's own fsuid and fsgid and drops its supplementary groups. Returns 0 or negative errno. */
int cred_thread_start(void);

/* Switches this thread. Cheap when it already runs so. Returns 0 or negative errno. */
int cred_become(const struct cred *c);

/* Back to what cred_thread_start() found (without supplementary groups). */
void cred_restore(void);

/* By mode and owner alone, without ACLs (inode(7)): may c search this directory, or read what is none? */
bool cred_may_use(const struct cred *c, mode_t mode, uid_t uid, gid_t gid);

#endif
