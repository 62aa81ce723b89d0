/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lower tree. What this guards against:
 *
 * - An empty Maildir shown because the storage is not mounted, or another tree is: the root is known by what it is
 *   (type, source, place, inode), and its path must go on leading to the held descriptor (law 7).
 * - A mail user who swaps a directory for a symbolic link while root walks by: every step opens one name below a held
 *   descriptor and follows nothing.
 */
#include "lib/mail/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cred.h"
#include "lib/mail/listing.h"
#include "lib/mail/mounts.h"

/* A tree of mail is 3 or 4 deep, Maildir++ subfolders are flat; each level of a walk holds a descriptor. */
#define WALK_DEPTH_MAX 64

static bool is_nfs(const char *fstype)
{
	return strcmp(fstype, "nfs") == 0 || strcmp(fstype, "nfs4") == 0;
}

/* The directory's path inside its filesystem, which is the same however it is mounted or bound. */
static int path_inside(int fd, const struct mount *m, char *out, size_t size)
{
	char link[64], path[PATH_MAX];
	const char *rest;
	ssize_t n;
	size_t point = strlen(m->point);

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return -errno;
	path[n] = '\0';
	if (point == 1)
		point = 0; /* "/" */
	if (strncmp(path, m->point, point) != 0)
		return -ENODEV;
	rest = path + point;
	if (strcmp(rest, "/") == 0)
		rest = "";
	if (strcmp(m->root, "/") != 0 || !*rest)
		n = snprintf(out, size, "%s%s", m->root, rest);
	else
		n = snprintf(out, size, "%s", rest);
	return (size_t)n < size ? 0 : -ENAMETOOLONG;
}

/*
 * An NFS mount of "server:/a" and its directory b are, seen through a bind mount of b, "server:/a/b" and "/": the
 * client puts the path into the source. So for NFS the whole path always goes there.
 */
static int identity_write(struct tree *t, const struct mount *m)
{
	char inside[PATH_MAX];
	int rc = path_inside(t->fd, m, inside, sizeof(inside));
	size_t source = strlen(m->source);
	bool fold = is_nfs(m->fstype) && strcmp(inside, "/") != 0;

	if (rc < 0)
		return rc;
	while (fold && source > 0 && m->source[source - 1] == '/')
		source--;
	rc = snprintf(t->identity, sizeof(t->identity), "%s %.*s%s %s %llu", m->fstype, (int)source, m->source,
		      fold ? inside : "", fold ? "/" : inside, (unsigned long long)t->ino);
	return (size_t)rc < sizeof(t->identity) ? 0 : -ENAMETOOLONG;
}

static int tree_identify(struct tree *t, struct err *e)
{
	const struct mount *m;
	struct mounts all;
	int rc = mounts_of_fd(&all, t->fd, &m);

	if (rc < 0)
		return err_set(e, rc, "root %s: cannot tell which filesystem it is on: %s", t->path, strerror(-rc));
	if (strcmp(m->fstype, TREE_FS_MAILDEX) == 0)
		rc = err_set(e, -ELOOP, "root %s: is itself a maildex mount; name the lower tree, or unmount it first",
			     t->path);
	else if ((rc = identity_write(t, m)) < 0)
		err_set(e, rc, "root %s: cannot tell where in its filesystem it is: %s", t->path, strerror(-rc));
	mounts_release(&all);
	return rc;
}

int tree_open(struct tree *t, const char *path, struct err *e)
{
	struct stat st;
	int rc;

	*t = (struct tree){.fd = -1, .path = strdup(path)};
	if (!t->path)
		return err_set(e, -ENOMEM, "root %s: out of memory", path);
	t->fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (t->fd < 0 && errno == ENOENT)
		rc = err_set(e, -ENOENT, "root %s: is not there; mount the mail storage first, or correct `root`",
			     path);
	else if (t->fd < 0 && errno == ENOTDIR)
		rc = err_set(e, -ENOTDIR, "root %s: is no directory; correct `root`", path);
	else if (t->fd < 0 || fstat(t->fd, &st) < 0)
		rc = err_sys(e, "root %s: cannot be opened", path);
	else {
		t->dev = st.st_dev;
		t->ino = st.st_ino;
		rc = tree_identify(t, e);
	}
	if (rc < 0)
		tree_close(t);
	return rc;
}

void tree_close(struct tree *t)
{
	if (t->fd >= 0)
		close(t->fd);
	free(t->path);
	t->fd = -1;
	t->path = NULL;
}

int tree_check(const struct tree *t, struct err *e)
{
	struct stat st;
	int fd = open(t->path, O_PATH | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		rc = err_set(e, -ESTALE, "root %s: cannot be reached any more: %s; is the mail storage still mounted?",
			     t->path, strerror(errno));
	else if (st.st_dev != t->dev || st.st_ino != t->ino)
		rc = err_set(e, -ESTALE,
			     "root %s: is not the tree that it was at start; mount the mail storage again, or restart",
			     t->path);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Writes where the private bind of the lower tree would be; false where there is no such folder. */
static bool bind_path(const char *socket, char *out, size_t size)
{
	char folder[PATH_MAX], real[PATH_MAX];
	const char *slash = strrchr(socket, '/');

	if (!slash || (size_t)(slash - socket) >= sizeof(folder))
		return false;
	memcpy(folder, socket, (size_t)(slash - socket));
	folder[slash - socket] = '\0';
	/* Mount points are shown without symbolic links (/var/run); the last part is the mount itself, which may hang:
	 * it is not touched. */
	if (!realpath(slash == socket ? "/" : folder, real))
		return false;
	return (size_t)snprintf(out, size, "%s/lower", strcmp(real, "/") == 0 ? "" : real) < size;
}

void tree_lower_path(const char *root, const char *mount, const char *socket, char *out, size_t size)
{
	struct mounts all;
	bool bound = false;

	if (*mount && strcmp(root, mount) == 0 && bind_path(socket, out, size) && mounts_read(&all) == 0) {
		bound = mounts_by_point(&all, out) != NULL;
		mounts_release(&all);
	}
	if (!bound)
		snprintf(out, size, "%s", root);
}

/* Opens one name below a held directory; see tree_open_dir(). */
static int step(int at, const char *name)
{
	const int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(at, name, flags), code = fd < 0 ? errno : 0;
	struct stat st;

	if (code != EACCES || fstat(at, &st) < 0)
		return fd < 0 ? -code : fd;
	if (cred_become(&(struct cred){.uid = st.st_uid, .gid = st.st_gid}) < 0)
		return -EACCES;
	fd = openat(at, name, flags);
	code = errno;
	cred_restore();
	return fd < 0 ? -code : fd;
}

/* Opens a held directory for reading, as its owner; where that is refused, as the process. */
static int open_to_read(int dir, const struct stat *st)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	int fd, code;

	if (cred_become(&(struct cred){.uid = st->st_uid, .gid = st->st_gid}) == 0) {
		fd = openat(dir, ".", flags);
		code = errno;
		cred_restore();
		if (fd >= 0 || code != EACCES)
			return fd < 0 ? -code : fd;
	}
	fd = openat(dir, ".", flags);
	return fd < 0 ? -errno : fd;
}

/* Walks down from the root to path. Returns an O_PATH descriptor or negative errno. */
static int descend(const struct tree *t, const char *path)
{
	char name[NAME_LEN_MAX + 1];
	int fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	while (*path) {
		size_t n = strcspn(path, "/");
		int next;

		next = -EINVAL;
		if (name_ok(path, n)) {
			memcpy(name, path, n);
			name[n] = '\0';
			next = step(fd, name);
		}
		close(fd);
		if (next < 0)
			return next;
		fd = next;
		path += n + (path[n] == '/');
	}
	return fd;
}

int tree_open_dir(const struct tree *t, const char *path, int flags, uid_t *owner, gid_t *group)
{
	struct stat st;
	int dir = descend(t, path), fd;

	if (dir < 0)
		return dir;
	if (fstat(dir, &st) < 0) {
		fd = -errno;
		close(dir);
		return fd;
	}
	*owner = st.st_uid;
	*group = st.st_gid;
	if (flags & O_PATH)
		return dir;
	fd = open_to_read(dir, &st);
	close(dir);
	return fd;
}

struct walk {
	const struct tree_walker *w;
	unsigned depth;
	size_t len;
	char path[FOLDER_PATH_MAX + 1];
};

static void walk_failed(const struct walk *k, int error)
{
	/* Gone since it was listed is no failure. */
	if (k->w->failed && error != -ENOENT && error != -ESTALE)
		k->w->failed(k->w->arg, k->path, error);
}

unsigned tree_maildir_bit(const char *name, size_t len)
{
	static const char *const words[] = {"new", "cur", "tmp"};

	for (unsigned i = 0; len == 3 && i < 3; i++)
		if (memcmp(name, words[i], 3) == 0)
			return 1u << i;
	return 0;
}

bool tree_entry_is_dir(int dir, const struct listing_entry *entry)
{
	char name[NAME_LEN_MAX + 1];
	int fd;

	if (entry->type != DT_UNKNOWN)
		return entry->type == DT_DIR;
	memcpy(name, entry->name, entry->len);
	name[entry->len] = '\0';
	fd = step(dir, name);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool is_maildir(int dir, const struct listing *l)
{
	struct listing_entry entry;
	unsigned found = 0;
	size_t at = 0;

	while (found != TREE_MAILDIR && listing_next(l, &at, &entry)) {
		unsigned bit = tree_maildir_bit(entry.name, entry.len);

		if (bit && tree_entry_is_dir(dir, &entry))
			found |= bit;
	}
	return found == TREE_MAILDIR;
}

static int walk_list(int dir, struct listing *l)
{
	struct stat st;
	uint64_t all;
	int fd, rc;

	if (fstat(dir, &st) < 0)
		return -errno;
	fd = open_to_read(dir, &st);
	if (fd < 0)
		return fd;
	rc = listing_read(fd, l, &all);
	close(fd);
	return rc;
}

static int walk_dir(struct walk *k, int dir);

/* Goes into one entry of dir, if it is a directory. */
static int walk_child(struct walk *k, int dir, const struct listing_entry *entry)
{
	size_t len = k->len, slash = len > 0;
	int fd, rc = 0;

	if (len + slash + entry->len > FOLDER_PATH_MAX || k->depth == WALK_DEPTH_MAX) {
		walk_failed(k, -ENAMETOOLONG);
		return 0;
	}
	if (slash)
		k->path[len] = '/';
	memcpy(k->path + len + slash, entry->name, entry->len);
	k->len = len + slash + entry->len;
	k->path[k->len] = '\0';
	k->depth++;
	fd = step(dir, k->path + len + slash);
	if (fd >= 0) {
		rc = walk_dir(k, fd);
		close(fd);
	} else if (fd != -ENOTDIR) { /* a file of unknown type, or a link that came instead */
		walk_failed(k, fd);
	}
	k->depth--;
	k->len = len;
	k->path[len] = '\0';
	return rc;
}

static int walk_dir(struct walk *k, int dir)
{
	struct listing_entry entry;
	struct listing l;
	bool maildir;
	size_t at = 0;
	int rc;

	/* Listed whole before anything below is visited: a long visit must not lose the place in a changing directory.
	 */
	listing_init(&l);
	rc = walk_list(dir, &l);
	if (rc < 0) {
		walk_failed(k, rc);
		rc = 0;
		goto out;
	}
	maildir = is_maildir(dir, &l);
	if (maildir)
		rc = k->w->folder(k->w->arg, k->path);
	while (rc == 0 && listing_next(&l, &at, &entry)) {
		if ((entry.type != DT_DIR && entry.type != DT_UNKNOWN) ||
		    (maildir && tree_maildir_bit(entry.name, entry.len)))
			continue;
		rc = walk_child(k, dir, &entry);
	}
out:
	listing_release(&l);
	return rc;
}

int tree_walk(const struct tree *t, const char *start, const struct tree_walker *w)
{
	struct walk k = {.w = w, .len = strlen(start)};
	int fd, rc;

	if (folder_path_check(start, k.len, NULL) < 0)
		return -EINVAL;
	memcpy(k.path, start, k.len + 1);
	fd = descend(t, start);
	if (fd < 0)
		return fd;
	rc = walk_dir(&k, fd);
	close(fd);
	return rc;
}
