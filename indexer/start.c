/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/start.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cred.h"
#include "lib/base/prog.h"
#include "lib/base/sock.h"
#include "lib/mail/tree.h"

/* The folder that a path is in. */
static void folder_of(const char *path, char out[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	int len = slash && slash != path ? (int)(slash - path) : 1;

	snprintf(out, PATH_MAX, "%.*s", len, path);
}

/* The index on NFS would be corrupted by two hosts, and slower than what it is to speed up. */
static int refuse_remote(const char *index, struct err *e)
{
	char folder[PATH_MAX];
	struct stat st;
	int r;

	folder_of(index, folder);
	while (stat(folder, &st) < 0 && errno == ENOENT && strcmp(folder, "/") != 0) {
		char below[PATH_MAX];

		memcpy(below, folder, sizeof(below));
		folder_of(below, folder);
	}
	r = tree_is_remote(folder, e);
	if (r < 0)
		return PROG_REACH;
	if (r == 0)
		return -1;
	err_set(e, -EINVAL, "index %s: %s is on a network filesystem; give `index` a path on local disk", index,
		folder);
	return PROG_USE;
}

/* Makes a folder and those above it where they are missing; the last one made is the user's. */
static int make_folder(const struct start *s, const char *path, mode_t mode, const char *key, struct err *e)
{
	char part[PATH_MAX];
	bool made = false;

	snprintf(part, sizeof(part), "%s", path);
	for (char *at = part + 1;; at++) {
		char was = *at;

		if (was != '/' && was != '\0')
			continue;
		*at = '\0';
		made = mkdir(part, was ? 0755 : mode) == 0;
		if (!made && errno != EEXIST)
			return err_sys(e, "%s: the folder %s cannot be made", key, part);
		*at = was;
		if (!was)
			break;
	}
	if (made && s->privilege.switches && chown(path, s->privilege.uid, s->privilege.gid) < 0)
		return err_sys(e, "%s: the folder %s cannot be given to user %s", key, path, s->privilege.user);
	return 0;
}

/*
 * An index that root made (by a run with user = root) becomes the user's. The folder may be the user's already, so
 * nothing is followed, and a name that is a link to another file is left alone.
 */
static void give_file(const struct start *s, const char *suffix)
{
	char path[PATH_MAX];
	struct stat st;
	int fd;

	if ((size_t)snprintf(path, sizeof(path), "%s%s", s->conf->index, suffix) >= sizeof(path))
		return;
	fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 && st.st_uid == 0 &&
	    fchownat(fd, "", s->privilege.uid, s->privilege.gid, AT_EMPTY_PATH) < 0) {
		/* Opening the index says what is wrong. */
	}
	close(fd);
}

static void give_files(const struct start *s)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};

	for (size_t i = 0; s->privilege.switches && i < sizeof(suffixes) / sizeof(suffixes[0]); i++)
		give_file(s, suffixes[i]);
}

/* One maildexd per index. */
static int take_lock(struct start *s, struct err *e)
{
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s.lock", s->conf->index) >= sizeof(path))
		return err_set(e, -ENAMETOOLONG, "index %s: the path is too long", s->conf->index);
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0640);
	if (s->lock_fd < 0)
		return err_sys(e, "index %s: %s cannot be written by user %s; give it its folder, or correct `index`",
			       s->conf->index, path, s->privilege.switches ? s->privilege.user : "running this");
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return err_set(e, -EADDRINUSE,
				       "index %s: another maildexd is at work on it; stop that one first",
				       s->conf->index);
		return err_sys(e, "index %s: %s cannot be locked", s->conf->index, path);
	}
	return 0;
}

static int take_socket(struct start *s, struct err *e)
{
	struct stat st;

	/* Anybody may notify: what is claimed is looked up. */
	s->listen_fd = sock_listen(s->conf->socket, 0666, e);
	if (s->listen_fd == -EADDRINUSE)
		return err_set(e, -EADDRINUSE, "socket %s: another maildexd is at work; stop that one first",
			       s->conf->socket);
	if (s->listen_fd < 0)
		return s->listen_fd;
	if (stat(s->conf->socket, &st) == 0) {
		s->socket_dev = st.st_dev;
		s->socket_ino = st.st_ino;
	}
	return 0;
}

static int take_index(struct start *s, struct err *e)
{
	int r = privilege_lend(&s->privilege, e);

	if (r < 0)
		return r;
	r = take_lock(s, e);
	if (r < 0) {
		privilege_return(&s->privilege, NULL);
		return r;
	}
	return privilege_return(&s->privilege, e);
}

int start_prepare(struct start *s, const struct conf *conf, struct err *e)
{
	char folder[PATH_MAX];
	int r;

	*s = (struct start){.conf = conf, .lock_fd = -1, .listen_fd = -1};
	if (!conf->index[0]) {
		err_set(e, -EINVAL, "index is empty: to relay without an index needs a `bus`, which is not set");
		return PROG_USE;
	}
	if (privilege_find(&s->privilege, conf->user, e) < 0)
		return PROG_USE;
	r = refuse_remote(conf->index, e);
	if (r >= 0)
		return r;
	folder_of(conf->index, folder);
	r = make_folder(s, folder, 0750, "index", e);
	if (r == 0) {
		folder_of(conf->socket, folder);
		r = make_folder(s, folder, 0755, "socket", e);
	}
	give_files(s);
	if (r == 0)
		r = take_index(s, e);
	if (r == 0)
		r = take_socket(s, e);
	if (r == 0)
		r = privilege_drop(&s->privilege, e);
	if (r == 0)
		return -1;
	start_release(s);
	return PROG_REACH;
}

static void remove_socket(const struct start *s)
{
	/* The folder may be root's own; as its owner we may remove from it, as the user we became we may not. */
	struct cred root = {.uid = 0, .gid = 0};
	struct stat st;
	bool became;

	if (stat(s->conf->socket, &st) < 0 || st.st_dev != s->socket_dev || st.st_ino != s->socket_ino)
		return;
	if (unlink(s->conf->socket) == 0)
		return;
	became = s->privilege.switches && cred_thread_start() == 0 && cred_become(&root) == 0;
	/* One that is left is replaced at the next start. */
	if (unlink(s->conf->socket) < 0)
		errno = 0;
	if (became)
		cred_restore();
}

void start_release(struct start *s)
{
	if (s->listen_fd >= 0) {
		remove_socket(s);
		close(s->listen_fd);
	}
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	s->listen_fd = s->lock_fd = -1;
}
