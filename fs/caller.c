/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/caller.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fs/fuse.h"
#include "lib/base/cred.h"

#define CALLER_GROUPS_MAX 1024 /* NFS sends 16 of them, a local filesystem looks at all */

/* A caller falls asleep a moment after its request is there. */
#define ASLEEP_NS 20000
#define ASLEEP_TRIES 5

static _Thread_local bool started;

static int become(struct fuse_req *req, int ngroups, const gid_t *groups)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct cred c = {.uid = ctx->uid, .gid = ctx->gid, .ngroups = ngroups, .groups = groups};
	int r = started ? 0 : cred_thread_start();

	started = true;
	if (r == 0)
		r = cred_become(&c);
	if (r < 0) {
		errno = -r;
		return -1;
	}
	return 0;
}

int caller_begin(struct fuse_req *req)
{
	return become(req, 0, NULL);
}

int caller_groups(struct fuse_req *req, gid_t *groups, int max)
{
	int n = fuse_req_getgroups(req, max, groups);

	return n < 0 ? 0 : n > max ? max : n;
}

bool caller_with_groups(struct fuse_req *req, int error)
{
	gid_t groups[CALLER_GROUPS_MAX];
	int n;

	if (error != EACCES && error != EPERM)
		return false;
	n = caller_groups(req, groups, CALLER_GROUPS_MAX);
	if (n == 0 || become(req, n, groups) < 0) {
		errno = error;
		return false;
	}
	return true;
}

bool caller_may_use(struct fuse_req *req, mode_t mode, uid_t uid, gid_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct cred c = {.uid = ctx->uid, .gid = ctx->gid};
	gid_t groups[CALLER_GROUPS_MAX];

	if (cred_may_use(&c, mode, uid, gid))
		return true;
	c.groups = groups;
	c.ngroups = caller_groups(req, groups, CALLER_GROUPS_MAX);
	return cred_may_use(&c, mode, uid, gid);
}

void caller_end(void)
{
	int error = errno;

	cred_restore();
	errno = error;
}

/* ---- what it is about to do ---- */

static enum caller_act act_of_open(unsigned long flags)
{
	/* fstat(2) of an O_PATH descriptor shows what the lookup said. */
	if (flags & (O_PATH | O_CREAT | O_TRUNC | O_DIRECT) || (flags & O_ACCMODE) != O_RDONLY)
		return CALLER_OTHER;
	return flags & O_DIRECTORY ? CALLER_LISTS : CALLER_OPENS;
}

/* Not link(2) and rename(2): whether there is the new name, and what file is moved, is not to be what the client remembers. */
enum caller_act caller_act_by(const char *line)
{
	unsigned long args[3];
	char *rest;
	long number;

	number = strtol(line, &rest, 10);
	if (rest == line)
		return CALLER_OTHER; /* "running", or nothing */
	for (int i = 0; i < 3; i++)
		args[i] = strtoul(rest, &rest, 16);
	if (*rest != ' ') /* cut off */
		return CALLER_OTHER;
	switch (number) {
	case SYS_openat:
		return act_of_open(args[2]);
	case SYS_fchmodat:
		return CALLER_CHMODS;
	case SYS_unlinkat:
		return CALLER_UNLINKS;
#ifdef SYS_open
	case SYS_open:
		return act_of_open(args[1]);
	case SYS_chmod:
		return CALLER_CHMODS;
	case SYS_unlink:
		return CALLER_UNLINKS;
#endif
	default:
		return CALLER_OTHER;
	}
}

bool caller_proc(pid_t thread, const char *file, char *text, size_t size)
{
	char path[64];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)thread, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, size - 1);
		close(fd);
	}
	if (n > 0)
		text[n] = '\0';
	return n > 0;
}

enum caller_act caller_act(struct fuse_req *req)
{
	const struct timespec pause = {.tv_nsec = ASLEEP_NS};
	char line[256];

	for (int i = 0; i < ASLEEP_TRIES; i++) {
		if (!caller_proc(fuse_req_ctx(req)->pid, "syscall", line, sizeof(line)))
			break;
		if (strncmp(line, "running", 7) != 0)
			return caller_act_by(line);
		nanosleep(&pause, NULL); /* it is about to wait for us */
	}
	return CALLER_OTHER;
}

bool caller_may_write_by(const char *line)
{
	static const long writes[] = {SYS_write,  SYS_pwrite64, SYS_writev,          SYS_pwritev,  SYS_pwritev2,
				      SYS_splice, SYS_sendfile, SYS_copy_file_range, SYS_fallocate};
	char *rest;
	long number = strtol(line, &rest, 10);

	if (rest == line || number < 0)
		return true; /* "running", or waiting for memory, or a worker of io_uring */
	for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++)
		if (number == writes[i])
			return true;
	return false;
}

bool caller_may_write(pid_t thread)
{
	char line[256];

	/* 0: in a namespace of processes that is not ours. */
	return !thread || (caller_proc(thread, "syscall", line, sizeof(line)) && caller_may_write_by(line));
}

bool caller_killed_by(const char *status)
{
	const char *line = strstr(status, "\nSigPnd:");

	return line && strtoull(line + strlen("\nSigPnd:"), NULL, 16) & 1ULL << (SIGKILL - 1);
}

bool caller_is_killed(pid_t thread)
{
	char status[4096];

	return caller_proc(thread, "status", status, sizeof(status)) && caller_killed_by(status);
}
