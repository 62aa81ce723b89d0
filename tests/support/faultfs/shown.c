/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/support/faultfs/shown.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL
#define NAME_DIGITS_MAX 19 /* what surely fits into 64 bits */

struct step {
	struct step *next;
	int64_t at_ns, back_ns;
};

struct stamp {
	struct stamp *next;
	dev_t dev;
	ino_t ino;
	struct shown_times times;
};

static int64_t tick_ns;
static bool sized, numbers;

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct step *steps;
static struct stamp *stamps;

void shown_init(unsigned tick_ms, bool with_sizes, bool with_numbers)
{
	tick_ns = tick_ms * 1000000LL;
	sized = with_sizes;
	numbers = with_numbers;
}

static int64_t to_ns(struct timespec t)
{
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static struct timespec of_ns(int64_t ns)
{
	int64_t rest = ns % SECOND_NS;

	if (rest < 0)
		rest += SECOND_NS;
	return (struct timespec){.tv_sec = (ns - rest) / SECOND_NS, .tv_nsec = rest};
}

static int64_t rounded(int64_t ns)
{
	int64_t rest;

	if (!tick_ns)
		return ns;
	rest = ns % tick_ns;
	return ns - (rest < 0 ? rest + tick_ns : rest);
}

static int64_t stepped(int64_t ns)
{
	int64_t back = 0;

	for (const struct step *s = steps; s; s = s->next)
		if (ns >= s->at_ns)
			back += s->back_ns;
	return ns - back;
}

static const struct shown_times *rolled_back(const struct stat *st)
{
	for (const struct stamp *s = stamps; s; s = s->next)
		if (s->ino == st->st_ino && s->dev == st->st_dev)
			return s->times.now_ctime_ns == to_ns(st->st_ctim) ? &s->times : NULL;
	return NULL;
}

/* Entries without "." and ".."; -1 if they cannot be counted. */
static off_t entries(int fd)
{
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	off_t n = 0;

	if (!d) {
		if (own >= 0)
			close(own);
		return -1;
	}
	for (const struct dirent *e = readdir(d); e; e = readdir(d))
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	return n;
}

void shown_attr(int fd, struct stat *st)
{
	const struct shown_times *back;

	pthread_rwlock_rdlock(&lock);
	back = S_ISDIR(st->st_mode) ? rolled_back(st) : NULL;
	if (back) {
		st->st_ctim = of_ns(back->ctime_ns);
		st->st_mtim = of_ns(back->mtime_ns);
	} else {
		st->st_ctim = of_ns(rounded(stepped(to_ns(st->st_ctim))));
		st->st_mtim = of_ns(rounded(stepped(to_ns(st->st_mtim))));
	}
	st->st_atim = of_ns(rounded(to_ns(st->st_atim)));
	pthread_rwlock_unlock(&lock);
	if (sized && S_ISDIR(st->st_mode)) {
		off_t n = entries(fd);

		if (n >= 0)
			st->st_size = n;
	}
}

uint64_t shown_ino(const char *name, mode_t mode, uint64_t ino)
{
	size_t digits = strspn(name, "0123456789");

	if (!numbers || S_ISDIR(mode) || !digits || digits > NAME_DIGITS_MAX)
		return ino;
	return strtoull(name, NULL, 10);
}

void shown_clock(int64_t at_ns, int64_t back_ns)
{
	struct step *s = malloc(sizeof(*s));

	if (!s)
		abort();
	*s = (struct step){.at_ns = at_ns, .back_ns = back_ns};
	pthread_rwlock_wrlock(&lock);
	s->next = steps;
	steps = s;
	pthread_rwlock_unlock(&lock);
}

int shown_stamp(int top, const char *path, const struct shown_times *times)
{
	struct stamp *s;
	struct stat st;

	if (fstatat(top, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	s = malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct stamp){.dev = st.st_dev, .ino = st.st_ino, .times = *times};
	pthread_rwlock_wrlock(&lock);
	s->next = stamps; /* before an older one of the same directory */
	stamps = s;
	pthread_rwlock_unlock(&lock);
	return 0;
}
