/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/caller.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
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

bool caller_with_groups(struct fuse_req *req, int error)
{
	gid_t groups[CALLER_GROUPS_MAX];
	int n;

	if (error != EACCES && error != EPERM)
		return false;
	n = fuse_req_getgroups(req, CALLER_GROUPS_MAX, groups);
	if (n > CALLER_GROUPS_MAX)
		n = CALLER_GROUPS_MAX;
	if (n <= 0 || become(req, n, groups) < 0) {
		errno = error;
		return false;
	}
	return true;
}

void caller_end(void)
{
	int error = errno;

	cred_restore();
	errno = error;
}

/* ---- what it is about to do ---- */

/* Which argument is the path, and what the call is (OTHER: by the flags, which are the argument behind it). */
static const struct call {
	long number;
	int path;
	enum caller_act act;
} known_calls[] = {
	{SYS_openat, 1, CALLER_OTHER},     {SYS_fchmodat, 1, CALLER_CHMODS}, {SYS_unlinkat, 1, CALLER_NAMES},
	{SYS_renameat2, -1, CALLER_NAMES}, {SYS_linkat, -1, CALLER_NAMES},
#ifdef SYS_renameat
	{SYS_renameat, -1, CALLER_NAMES},
#endif
#ifdef SYS_open
	{SYS_open, 0, CALLER_OTHER},       {SYS_chmod, 0, CALLER_CHMODS},    {SYS_unlink, 0, CALLER_NAMES},
	{SYS_rename, -1, CALLER_NAMES},    {SYS_link, -1, CALLER_NAMES},
#endif
};

static enum caller_act act_of_open(uint64_t flags)
{
	/* fstat(2) of an O_PATH descriptor shows what the lookup said. */
	if (flags & (O_PATH | O_CREAT | O_TRUNC | O_DIRECT) || (flags & O_ACCMODE) != O_RDONLY)
		return CALLER_OTHER;
	return flags & O_DIRECTORY ? CALLER_LISTS : CALLER_OPENS;
}

struct caller_call caller_call_by(const char *line)
{
	const struct caller_call other = {.act = CALLER_OTHER};
	const struct call *known = NULL;
	struct caller_call call;
	uint64_t args[3];
	char *rest;
	long number;

	number = strtol(line, &rest, 10);
	if (rest == line)
		return other; /* "running", or nothing */
	for (size_t i = 0; i < sizeof(known_calls) / sizeof(known_calls[0]); i++)
		if (known_calls[i].number == number)
			known = &known_calls[i];
	for (int i = 0; i < 3; i++)
		args[i] = strtoull(rest, &rest, 16);
	if (!known || *rest != ' ') /* cut off */
		return other;
	call = (struct caller_call){.act = known->act, .path = known->path < 0 ? 0 : args[known->path]};
	if (call.act == CALLER_OTHER)
		call.act = act_of_open(args[known->path + 1]);
	return call;
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

struct caller_call caller_call(struct fuse_req *req)
{
	const struct timespec pause = {.tv_nsec = ASLEEP_NS};
	char line[256];

	for (int i = 0; i < ASLEEP_TRIES; i++) {
		if (!caller_proc(fuse_req_ctx(req)->pid, "syscall", line, sizeof(line)))
			break;
		if (strncmp(line, "running", 7) != 0)
			return caller_call_by(line);
		nanosleep(&pause, NULL); /* it is about to wait for us */
	}
	return (struct caller_call){.act = CALLER_OTHER};
}

bool caller_path_ends_at(const char *path, const char *name)
{
	size_t len = strlen(name), n;
	bool last = false;

	for (path += strspn(path, "/"); *path; path += n + strspn(path + n, "/")) {
		if (last)
			return false; /* it is on the way, too */
		n = strcspn(path, "/");
		last = n == len && memcmp(path, name, n) == 0;
	}
	return last;
}

/* Its path, as it stands in its memory now. Returns false if that cannot be read. */
static bool read_path(pid_t thread, uint64_t at, char path[PATH_MAX])
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t done = 0;

	while (done < PATH_MAX) {
		size_t n = page - (at + done) % page; /* the next page may not be there */
		struct iovec ours = {.iov_base = path + done, .iov_len = n < PATH_MAX - done ? n : PATH_MAX - done};
		struct iovec theirs = {.iov_base = (void *)(uintptr_t)(at + done), .iov_len = ours.iov_len};

		if (process_vm_readv(thread, &ours, 1, &theirs, 1, 0) != (ssize_t)ours.iov_len)
			return false;
		if (memchr(ours.iov_base, '\0', ours.iov_len))
			return true;
		done += ours.iov_len;
	}
	return false;
}

bool caller_ends_at(struct fuse_req *req, const struct caller_call *call, const char *name)
{
	char path[PATH_MAX];

	return call->path && read_path(fuse_req_ctx(req)->pid, call->path, path) && caller_path_ends_at(path, name);
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
