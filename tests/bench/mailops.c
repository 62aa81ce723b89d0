/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What mail servers do to a Maildir, timed for several competitors (native, maildexfs, bindfs) in interleaved rounds:
 * each round runs the operation once for every competitor, beginning with another one each time.
 *
 *   mailops fill PATH COUNT SIZE          makes COUNT messages in a directory, with names of 50 bytes
 *   mailops VERB ROUNDS SECONDS LABEL PATH [LABEL PATH]...
 *     list    opendir, readdir to the end, closedir of a directory
 *     first   the same, without a round before that does not count
 *     after   one rename in the directory, not timed; then as list
 *     flag    BATCH renames within a directory, as when flags change
 *     move    BATCH renames from new/ to cur/ of a Maildir, and BATCH back
 *     read    open, read, close of BATCH messages of a directory
 *     big     the same of one message
 * Prints "LABEL MEDIAN_NS ROUNDS COUNT" per competitor: the time for one operation (list, first, after) or for one of
 * the batch; COUNT entries were listed, or bytes read, in the last round. Ends early, after a whole round, when SECONDS
 * are over.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define BATCH 200
#define ROUNDS_MAX 1000
#define RIVALS_MAX 8
#define NAME_SIZE 256

struct rival {
	const char *label, *path;
	char (*names)[NAME_SIZE]; /* BATCH messages to work on */
	bool flagged;             /* they have the second form of their names now */
	uint64_t count;
	double took_ns[ROUNDS_MAX];
};

static _Noreturn void fail(const char *what, const char *path)
{
	fprintf(stderr, "mailops: %s %s: %s\n", what, path, strerror(errno));
	exit(3);
}

static void make_name(char name[NAME_SIZE], unsigned long i)
{
	snprintf(name, NAME_SIZE, "%lu.M%06luP%04lu.mail-in%lu,S=1400,W=1428:2,S", 1700000000 + i * 31,
		 i * 7477 % 1000000, i % 10000, i % 8);
}

static int fill(const char *path, unsigned long count, size_t size)
{
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
	char name[NAME_SIZE], *text = malloc(size + 1);

	if (dir < 0 || !text)
		fail("open", path);
	for (size_t i = 0; i < size; i++)
		text[i] = i % 72 == 71 ? '\n' : 'x';
	for (unsigned long i = 0; i < count; i++) {
		make_name(name, (i * 7919) % count);
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || write(fd, text, size) != (ssize_t)size)
			fail("write", name);
		close(fd);
	}
	free(text);
	close(dir);
	return 0;
}

/* Lists; remembers the first BATCH messages if names is given. Returns the number of entries but "." and "..". */
static uint64_t list(const char *path, char (*names)[NAME_SIZE])
{
	DIR *d = opendir(path);
	struct dirent *de;
	uint64_t n = 0;

	if (!d)
		fail("list", path);
	while ((errno = 0, de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		if (names && n < BATCH)
			snprintf(names[n], NAME_SIZE, "%s", de->d_name);
		n++;
	}
	if (errno)
		fail("list", path);
	closedir(d);
	return n;
}

/* The name as it is, or with one flag more. */
static void form(const struct rival *r, unsigned i, bool flagged, char out[NAME_SIZE])
{
	snprintf(out, NAME_SIZE, "%.250s%s", r->names[i], flagged ? "T" : "");
}

static void rename_at(int from_dir, const char *from, int to_dir, const char *to)
{
	if (renameat(from_dir, from, to_dir, to) < 0)
		fail("rename", from);
}

static int open_dir(const char *path, const char *name)
{
	char full[4096];
	int fd;

	snprintf(full, sizeof(full), "%s%s", path, name);
	fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fail("open", full);
	return fd;
}

static void flag(struct rival *r, unsigned n)
{
	char from[NAME_SIZE], to[NAME_SIZE];
	int dir = open_dir(r->path, "");

	for (unsigned i = 0; i < n; i++) {
		form(r, i, r->flagged, from);
		form(r, i, !r->flagged, to);
		rename_at(dir, from, dir, to);
	}
	r->flagged = !r->flagged;
	close(dir);
}

/* ---- what is timed; each returns nanoseconds ---- */

static double time_list(struct rival *r)
{
	int64_t start = clock_mono_ns();

	r->count = list(r->path, NULL);
	return (double)(clock_mono_ns() - start);
}

static double time_after(struct rival *r)
{
	flag(r, 1);
	return time_list(r);
}

static double time_flag(struct rival *r)
{
	int64_t start = clock_mono_ns();

	flag(r, BATCH);
	return (double)(clock_mono_ns() - start) / BATCH;
}

static double time_move(struct rival *r)
{
	int dirs[2] = {open_dir(r->path, "/new"), open_dir(r->path, "/cur")};
	int64_t start = clock_mono_ns();

	for (int back = 0; back < 2; back++)
		for (unsigned i = 0; i < BATCH; i++)
			rename_at(dirs[back], r->names[i], dirs[!back], r->names[i]);
	start = clock_mono_ns() - start;
	close(dirs[0]);
	close(dirs[1]);
	return (double)start / (2 * BATCH);
}

static double read_messages(struct rival *r, unsigned count)
{
	static char text[1 << 16];
	int dir = open_dir(r->path, ""), fd;
	int64_t start = clock_mono_ns();
	ssize_t n;

	r->count = 0;
	for (unsigned i = 0; i < count; i++) {
		fd = openat(dir, r->names[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			fail("open", r->names[i]);
		while ((n = read(fd, text, sizeof(text))) > 0)
			r->count += (uint64_t)n;
		if (n < 0)
			fail("read", r->names[i]);
		close(fd);
	}
	start = clock_mono_ns() - start;
	close(dir);
	return (double)start / count;
}

static double time_read(struct rival *r)
{
	return read_messages(r, BATCH);
}

static double time_big(struct rival *r)
{
	return read_messages(r, 1);
}

/* ---- rounds ---- */

static const struct verb {
	const char *name;
	double (*time)(struct rival *r);
	unsigned batch;     /* messages that must be there to work on */
	const char *subdir; /* where they are */
	bool cold;          /* no round before that does not count */
} verbs[] = {
	{"list", time_list, 0, "", false},         {"first", time_list, 0, "", true},
	{"after", time_after, 1, "", false},       {"flag", time_flag, BATCH, "", false},
	{"move", time_move, BATCH, "/new", false}, {"read", time_read, BATCH, "", false},
	{"big", time_big, 1, "", false},
};

static void rival_init(struct rival *r, const struct verb *v, const char *label, const char *path)
{
	char full[4096];
	uint64_t n = 0;

	r->label = label;
	r->path = path;
	r->names = calloc(BATCH, NAME_SIZE);
	snprintf(full, sizeof(full), "%s%s", path, v->subdir);
	if (v->batch && r->names)
		n = list(full, r->names);
	if (!r->names || n < v->batch) {
		fprintf(stderr, "mailops: %s: %u messages are needed\n", full, v->batch);
		exit(2);
	}
	if (!v->cold) /* a round that does not count: caches are as warm as they will be */
		v->time(r);
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Both forms back to the first, so that another run finds the names as they were. */
static void rival_print(struct rival *r, unsigned rounds, unsigned changed)
{
	qsort(r->took_ns, rounds, sizeof(r->took_ns[0]), by_value);
	printf("%s %.0f %u %llu\n", r->label, r->took_ns[rounds / 2], rounds, (unsigned long long)r->count);
	if (r->flagged)
		flag(r, changed);
	free(r->names);
}

static int run(const struct verb *v, unsigned rounds, double seconds, int n, char **pairs)
{
	static struct rival rivals[RIVALS_MAX];
	int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * NS_PER_S);
	unsigned round;

	for (int i = 0; i < n; i++)
		rival_init(&rivals[i], v, pairs[2 * i], pairs[2 * i + 1]);
	for (round = 0; round < rounds && (round == 0 || clock_mono_ns() < end_ns); round++)
		for (int i = 0; i < n; i++) {
			struct rival *r = &rivals[((unsigned)i + round) % (unsigned)n];

			r->took_ns[round] = v->time(r);
		}
	for (int i = 0; i < n; i++)
		rival_print(&rivals[i], round, v->batch);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 0;

	if (argc == 5 && strcmp(argv[1], "fill") == 0)
		return fill(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (argc > 5 && argc % 2 == 0 && (argc - 4) / 2 <= RIVALS_MAX && rounds && rounds <= ROUNDS_MAX &&
		    strcmp(argv[1], verbs[i].name) == 0)
			return run(&verbs[i], rounds, atof(argv[3]), (argc - 4) / 2, argv + 4);
	fprintf(stderr,
		"usage: mailops fill PATH COUNT SIZE\n"
		"       mailops list|first|after|flag|move|read|big ROUNDS SECONDS LABEL PATH [LABEL PATH]...\n");
	return 2;
}
