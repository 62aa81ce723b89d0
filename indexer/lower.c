/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/lower.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

#define CHECK_EVERY_NS NS_PER_S
/* A check that takes longer than this is itself a state worth telling. */
#define CHECK_SLOW_NS (5 * NS_PER_S)

int lower_open(struct lower *l, const struct conf *conf, struct err *e)
{
	char path[PATH_MAX];
	int r;

	*l = (struct lower){.conf = conf, .ok = true};
	tree_lower_path(conf->root, conf->mount, conf->socket, path, sizeof(path));
	r = tree_open(&l->tree, path, e);
	if (r < 0)
		return r;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &attr);
	pthread_condattr_destroy(&attr);
	return 0;
}

void lower_close(struct lower *l)
{
	tree_close(&l->tree);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
}

/* One log line a change of state. */
static void lower_note(struct lower *l, int r, const struct err *e)
{
	bool was;

	pthread_mutex_lock(&l->lock);
	was = l->ok;
	l->ok = r == 0;
	l->asked_ns = 0;
	snprintf(l->text, sizeof(l->text), "%s", r == 0 ? "" : e->text);
	pthread_mutex_unlock(&l->lock);
	if (was && r < 0)
		log_error("%s; nothing is looked up, scanned or dropped until it is back", e->text);
	else if (!was && r == 0)
		log_info("%s: the tree is back", l->tree.path);
}

int lower_check(struct lower *l)
{
	/*
	 * With mount = root, maildexfs covers the path after we opened it, and binds the tree elsewhere first: so the
	 * path to look at is asked for each time, while the descriptor stays.
	 */
	char path[PATH_MAX];
	struct tree view = l->tree;
	struct err e = {""};
	int r;

	pthread_mutex_lock(&l->lock);
	if (l->asked_ns == 0)
		l->asked_ns = clock_mono_ns();
	pthread_mutex_unlock(&l->lock);
	tree_lower_path(l->conf->root, l->conf->mount, l->conf->socket, path, sizeof(path));
	view.path = path;
	r = tree_check(&view, &e);
	lower_note(l, r, &e);
	return r;
}

static void *lower_watch(void *arg)
{
	struct lower *l = arg;

	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		int64_t until = clock_mono_ns() + CHECK_EVERY_NS;
		struct timespec ts = clock_timespec(until);

		pthread_cond_timedwait(&l->wake, &l->lock, &ts);
		if (l->stop)
			break;
		pthread_mutex_unlock(&l->lock);
		lower_check(l);
		pthread_mutex_lock(&l->lock);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

int lower_start(struct lower *l, struct err *e)
{
	int r = pthread_create(&l->thread, NULL, lower_watch, l);

	if (r != 0)
		return err_set(e, -r, "cannot start a thread: %s", strerror(r));
	l->started = true;
	return 0;
}

void lower_stop(struct lower *l)
{
	if (!l->started)
		return;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	l->started = false;
}

bool lower_ok(struct lower *l)
{
	bool ok;

	pthread_mutex_lock(&l->lock);
	ok = l->ok;
	pthread_mutex_unlock(&l->lock);
	return ok;
}

void lower_state(struct lower *l, char out[ERR_TEXT_MAX])
{
	pthread_mutex_lock(&l->lock);
	snprintf(out, ERR_TEXT_MAX, "%s", l->text);
	if (l->ok && l->asked_ns != 0 && clock_mono_ns() - l->asked_ns > CHECK_SLOW_NS)
		snprintf(out, ERR_TEXT_MAX, "%s has not answered for %lld s", l->tree.path,
			 (long long)((clock_mono_ns() - l->asked_ns) / NS_PER_S));
	pthread_mutex_unlock(&l->lock);
}

static int half_path(const char *folder, enum half half, char *out, size_t size)
{
	int n = snprintf(out, size, "%s%s%s", folder, folder[0] ? "/" : "", half_word(half));

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int lower_open_half(struct lower *l, const char *folder, enum half half, struct cred *owner)
{
	char path[FOLDER_PATH_MAX + 8];
	uid_t uid;
	gid_t gid;
	int fd;

	if (half_path(folder, half, path, sizeof(path)) < 0)
		return -ENAMETOOLONG;
	fd = tree_open_dir(&l->tree, path, O_RDONLY, &uid, &gid);
	if (fd >= 0)
		*owner = (struct cred){.uid = uid, .gid = gid};
	return fd;
}

static bool path_gone(struct lower *l, const char *path)
{
	uid_t uid;
	gid_t gid;
	int fd;

	if (lower_check(l) < 0)
		return false;
	fd = tree_open_dir(&l->tree, path, O_PATH, &uid, &gid);
	if (fd >= 0) {
		close(fd);
		return false;
	}
	return (fd == -ENOENT || fd == -ENOTDIR) && lower_check(l) == 0;
}

bool lower_gone(struct lower *l, const char *folder)
{
	/* The root itself is the tree's own check. */
	return folder[0] != '\0' && path_gone(l, folder);
}

bool lower_half_gone(struct lower *l, const char *folder, enum half half)
{
	char path[FOLDER_PATH_MAX + 8];

	return half_path(folder, half, path, sizeof(path)) == 0 && path_gone(l, path);
}
