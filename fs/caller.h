/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls by name in the caller's name (law 6): fsuid, fsgid, and, only where the call is refused with EACCES or EPERM,
 * once more with the caller's supplementary groups (read from /proc, which costs more than most calls).
 *
 * Flow: CALLER_RUN(req, result, expression) with an expression that gives -1 and errno on failure.
 * Threads: one thread's credentials only; restored at the end, errno kept.
 */
#ifndef MAILDEX_FS_CALLER_H
#define MAILDEX_FS_CALLER_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct fuse_req;

/* What /proc/THREAD/FILE says, cut off at size. Returns false if there is nothing. */
bool caller_proc(pid_t thread, const char *file, char *text, size_t size);
/*
 * What the caller is about to do. It waits for our answer inside of its system call, which the kernel shows
 * (proc_pid_syscall(5); CAP_SYS_PTRACE), so a lookup on its way there need not ask what the call itself will.
 */
enum caller_act {
	CALLER_OTHER, /* or we cannot know */
	CALLER_OPENS, /* open(2) to read what is there: mode and owner are wanted, and the open itself asks the server */
	CALLER_LISTS,   /* the same of a directory (O_DIRECTORY) */
	CALLER_CHMODS,  /* chmod(2) */
	CALLER_UNLINKS, /* unlink(2): no attributes are wanted */
};

enum caller_act caller_act(struct fuse_req *req);
/* The decision, by a line of /proc/PID/syscall. */
enum caller_act caller_act_by(const char *line);
static inline bool caller_act_opens(enum caller_act act)
{
	return act == CALLER_OPENS || act == CALLER_LISTS;
}

/*
 * May this thread still be in a write(2) that was answered, so that the kernel has yet to note the file's new size? False
 * if it is seen waiting in another call, or is gone.
 */
bool caller_may_write(pid_t thread);
bool caller_may_write_by(const char *line);

/* Is this thread to be killed? It waits for our answer, and cannot end before. */
bool caller_is_killed(pid_t thread);
/* The decision, by a /proc/PID/status. */
bool caller_killed_by(const char *status);

/* Becomes the caller. Returns 0, or -1 with errno where that is impossible. */
int caller_begin(struct fuse_req *req);
/* The caller's supplementary groups, max of them at most. Returns how many; 0 also where they cannot be told. */
int caller_groups(struct fuse_req *req, gid_t *groups, int max);
/* After a refusal: becomes the caller with its groups. Returns true if a second try is worth it. */
bool caller_with_groups(struct fuse_req *req, int error);
/* By these attributes, would the kernel (default_permissions) let the caller search the directory, or read the file? */
bool caller_may_use(struct fuse_req *req, mode_t mode, uid_t uid, gid_t gid);
/* Itself again; errno stays. */
void caller_end(void);

#define CALLER_RUN(req, result, expression)                                                                            \
	do {                                                                                                           \
		(result) = caller_begin(req);                                                                          \
		if ((result) == 0) {                                                                                   \
			(result) = (expression);                                                                       \
			if ((result) < 0 && caller_with_groups(req, errno))                                            \
				(result) = (expression);                                                               \
		}                                                                                                      \
		caller_end();                                                                                          \
	} while (0)

#endif
