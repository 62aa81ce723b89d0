/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guards against: a file's last close and its unlink at the same time, of which each leaves the .nfs name to the other.
 * Who makes such a name counts as having the file open until the name is noted.
 */
#include "tests/support/faultfs/node.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/faultfs/shown.h"

#define BUCKETS 4096
#define DELETED " (deleted)"

struct silly {
	int dir;
	char name[32];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *buckets[BUCKETS];
static struct node root;
static char top[PATH_MAX]; /* the real tree's path, as the kernel tells it */
static size_t top_len;
static bool sillies;

static struct node **place(dev_t dev, ino_t ino)
{
	struct node **at = &buckets[(ino ^ dev) % BUCKETS];

	while (*at && ((*at)->ino != ino || (*at)->dev != dev))
		at = &(*at)->next;
	return at;
}

const char *node_proc(const struct node *n, char *out)
{
	snprintf(out, NODE_PROC_MAX, "/proc/self/fd/%d", n->fd);
	return out;
}

int node_init(const char *made, bool silly)
{
	struct stat st;

	if (!realpath(made, top))
		return -1;
	top_len = strlen(top);
	root.fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root.fd < 0 || fstat(root.fd, &st) < 0)
		return -1;
	root.dev = st.st_dev;
	root.ino = st.st_ino;
	root.shown_ino = st.st_ino;
	root.lookups = 1;
	sillies = silly;
	*place(root.dev, root.ino) = &root;
	return 0;
}

struct node *node_root(void)
{
	return &root;
}

const char *node_path(const struct node *n, const char *name, char *out)
{
	char proc[NODE_PROC_MAX], path[PATH_MAX];
	ssize_t len = readlink(node_proc(n, proc), path, sizeof(path) - 1);
	const char *below = ".";

	path[len > 0 ? len : 0] = '\0';
	if (len > (ssize_t)strlen(DELETED) && strcmp(path + len - strlen(DELETED), DELETED) == 0)
		path[len - (ssize_t)strlen(DELETED)] = '\0';
	if (strncmp(path, top, top_len) == 0 && path[top_len] == '/')
		below = path + top_len + 1;
	if (!name)
		snprintf(out, PATH_MAX, "%s", below);
	else if (n == &root)
		snprintf(out, PATH_MAX, "%s", name);
	else
		snprintf(out, PATH_MAX, "%s/%s", below, name);
	return out;
}

/* A node for the file that fd is open to, which becomes the node's. */
static struct node *known(int fd, const char *name, const struct stat *st)
{
	struct node **at = place(st->st_dev, st->st_ino), *n = *at;

	if (!n) {
		n = calloc(1, sizeof(*n));
		if (!n)
			return NULL;
		n->dev = st->st_dev;
		n->ino = st->st_ino;
		n->fd = fd;
		*at = n;
	} else {
		/* The node's path is the one that it was last found at, whichever of its links that is. */
		if (n != &root)
			dup3(fd, n->fd, O_CLOEXEC);
		close(fd);
	}
	n->lookups++;
	n->shown_ino = shown_ino(name, st->st_mode, st->st_ino);
	return n;
}

int node_enter(const struct node *parent, const char *name, struct node **out, struct stat *st)
{
	int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (fstat(fd, st) < 0) {
		close(fd);
		return -1;
	}
	pthread_mutex_lock(&lock);
	*out = known(fd, name, st);
	pthread_mutex_unlock(&lock);
	if (*out)
		return 0;
	close(fd);
	errno = ENOMEM;
	return -1;
}

void node_forget(struct node *n, uint64_t lookups)
{
	if (n == &root)
		return;
	pthread_mutex_lock(&lock);
	n->lookups -= lookups;
	if (!n->lookups) {
		struct node **at = place(n->dev, n->ino);

		*at = n->next;
		close(n->fd);
		free(n);
	}
	pthread_mutex_unlock(&lock);
}

int node_stat(struct node *n, int fh, struct stat *st)
{
	bool open;

	if (fstat(fh >= 0 ? fh : n->fd, st) < 0)
		return -1;
	pthread_mutex_lock(&lock);
	open = n->opens > 0;
	pthread_mutex_unlock(&lock);
	/* A directory that is open is no less gone. */
	if (!st->st_nlink && (S_ISDIR(st->st_mode) || !open)) {
		errno = ESTALE;
		return -1;
	}
	return 0;
}

void node_opened(struct node *n)
{
	pthread_mutex_lock(&lock);
	n->opens++;
	pthread_mutex_unlock(&lock);
}

void node_closed(struct node *n)
{
	struct silly *s = NULL;

	pthread_mutex_lock(&lock);
	if (--n->opens == 0) {
		s = n->silly;
		n->silly = NULL;
	}
	pthread_mutex_unlock(&lock);
	if (!s)
		return;
	unlinkat(s->dir, s->name, 0);
	close(s->dir);
	free(s);
}

/* The file of that name if it is open and has no .nfs name yet; counted as open once more. */
static struct node *open_file(const struct node *parent, const char *name)
{
	struct node *n;
	struct stat st;

	if (!sillies || fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return NULL;
	pthread_mutex_lock(&lock);
	n = *place(st.st_dev, st.st_ino);
	if (n && n->opens && !n->silly)
		n->opens++;
	else
		n = NULL;
	pthread_mutex_unlock(&lock);
	return n;
}

static int make_silly(struct node *n, const struct node *parent, const char *name)
{
	static unsigned serial;
	struct silly *s = malloc(sizeof(*s));
	int ret;

	if (!s)
		return -1;
	s->dir = fcntl(parent->fd, F_DUPFD_CLOEXEC, 0);
	snprintf(s->name, sizeof(s->name), ".nfs%016llx%08x", (unsigned long long)n->ino,
		 __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED));
	ret = renameat(parent->fd, name, parent->fd, s->name);
	if (ret == 0) {
		pthread_mutex_lock(&lock);
		n->silly = s;
		pthread_mutex_unlock(&lock);
		return 0;
	}
	if (s->dir >= 0)
		close(s->dir);
	free(s);
	return -1;
}

int node_unlink(const struct node *parent, const char *name)
{
	struct node *n = open_file(parent, name);
	int ret, error;

	if (!n)
		return unlinkat(parent->fd, name, 0);
	ret = make_silly(n, parent, name);
	error = errno;
	node_closed(n);
	errno = error;
	return ret;
}

int node_rename(const struct node *from, const char *name, const struct node *to, const char *to_name, unsigned flags)
{
	struct node *n = flags ? NULL : open_file(to, to_name);
	int ret = 0, error;

	if (n) {
		ret = make_silly(n, to, to_name);
		error = errno;
		node_closed(n);
		errno = error;
	}
	return ret < 0 ? ret : renameat2(from->fd, name, to->fd, to_name, flags);
}
