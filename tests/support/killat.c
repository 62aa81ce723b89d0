/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * To be preloaded (LD_PRELOAD): kills its process with SIGKILL just before the MAILDEX_KILL_AT-th time that it writes to,
 * syncs or truncates a file whose path has MAILDEX_KILL_PATH in it. See tests/mount/test_killed_at.py.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FDS 4096

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at);
int open64(const char *path, int flags, ...);
int ftruncate64(int fd, off64_t len);

static _Atomic bool ours[FDS];
static _Atomic long times;

static void *real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static void opened(const char *path, int fd)
{
	const char *wanted = getenv("MAILDEX_KILL_PATH");

	if (fd >= 0 && fd < FDS)
		ours[fd] = wanted && strstr(path, wanted);
}

static void about_to_change(int fd)
{
	const char *at = getenv("MAILDEX_KILL_AT");

	if (at && fd >= 0 && fd < FDS && ours[fd] && atomic_fetch_add(&times, 1) + 1 == atol(at))
		kill(getpid(), SIGKILL);
}

int open64(const char *path, int flags, ...)
{
	int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))real("open64");
	mode_t mode;
	va_list ap;
	int fd;

	va_start(ap, flags);
	mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	fd = next(path, flags, mode);
	opened(path, fd);
	return fd;
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
	ssize_t (*next)(int, const void *, size_t, off64_t) =
		(ssize_t(*)(int, const void *, size_t, off64_t))real("pwrite64");

	about_to_change(fd);
	return next(fd, data, len, at);
}

int ftruncate64(int fd, off64_t len)
{
	int (*next)(int, off64_t) = (int (*)(int, off64_t))real("ftruncate64");

	about_to_change(fd);
	return next(fd, len);
}

int fdatasync(int fd)
{
	int (*next)(int) = (int (*)(int))real("fdatasync");

	about_to_change(fd);
	return next(fd);
}

int fsync(int fd)
{
	int (*next)(int) = (int (*)(int))real("fsync");

	about_to_change(fd);
	return next(fd);
}
