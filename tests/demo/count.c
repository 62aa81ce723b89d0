/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Preloaded into an unmodified imapd: counts how often it lists a new/ or cur/, and how many entries it reads there.
 * At its end one line "LISTINGS ENTRIES" is appended to the file that MAILDEX_COUNT names. An opendir() that is never
 * read from is no listing. For one thread, as imapd is.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIRS_MAX 64

static DIR *halves[DIRS_MAX]; /* open directories that count */
static bool listed[DIRS_MAX];
static unsigned long listings, entries;

static void *real(const char *name)
{
	void *fn = dlsym(RTLD_NEXT, name);

	if (!fn)
		abort();
	return fn;
}

static bool is_half(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	return strcmp(name, "new") == 0 || strcmp(name, "cur") == 0;
}

DIR *opendir(const char *path)
{
	DIR *(*fn)(const char *) = (DIR * (*)(const char *)) real("opendir");
	DIR *d = fn(path);

	for (int i = 0; d && is_half(path) && i < DIRS_MAX; i++)
		if (!halves[i]) {
			halves[i] = d;
			listed[i] = false;
			break;
		}
	return d;
}

static void count(const DIR *d, const char *name)
{
	for (int i = 0; i < DIRS_MAX; i++) {
		if (halves[i] != d)
			continue;
		listings += !listed[i];
		listed[i] = true;
		entries += name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
	}
}

struct dirent *readdir(DIR *d)
{
	struct dirent *(*fn)(DIR *) = (struct dirent * (*)(DIR *)) real("readdir");
	struct dirent *e = fn(d);

	count(d, e ? e->d_name : NULL);
	return e;
}

struct dirent64 *readdir64(DIR *d)
{
	struct dirent64 *(*fn)(DIR *) = (struct dirent64 * (*)(DIR *)) real("readdir64");
	struct dirent64 *e = fn(d);

	count(d, e ? e->d_name : NULL);
	return e;
}

int closedir(DIR *d)
{
	int (*fn)(DIR *) = (int (*)(DIR *))real("closedir");

	for (int i = 0; i < DIRS_MAX; i++)
		if (halves[i] == d)
			halves[i] = NULL;
	return fn(d);
}

__attribute__((destructor)) static void report(void)
{
	const char *path = getenv("MAILDEX_COUNT");
	FILE *f = path ? fopen(path, "a") : NULL;

	if (!f)
		return;
	fprintf(f, "%lu %lu\n", listings, entries);
	fclose(f);
}
