/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/prog.h"
#include "lib/mail/mounts.h"
#include "lib/mail/wire.h"

#define ALONE_WAIT_NS (3 * NS_PER_S)

static bool is_at_or_below(const char *path, const char *top)
{
	size_t len = strlen(top);

	return strncmp(path, top, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static int is_empty(const char *path, struct err *e)
{
	DIR *d = opendir(path);
	struct dirent *de;
	int n = 0;

	if (!d)
		return err_sys(e, "mount %s: cannot be read", path);
	while ((de = readdir(d)))
		n += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
	closedir(d);
	return n == 0 ? 0
		      : err_set(e, -ENOTEMPTY,
				"mount %s: is not empty; after an unmount its content would be taken for the mail "
				"store. "
				"Name an empty directory, or the same path as root",
				path);
}

/* Without symbolic links and "..", where it can be told. */
static const char *resolved(const char *path, char real[PATH_MAX])
{
	return realpath(path, real) ? real : path;
}

/* Neither may hide the other, however they are spelled. */
static int check_apart(const char *path, const char *root, struct err *e)
{
	char real_path[PATH_MAX], real_root[PATH_MAX];
	const char *at = resolved(path, real_path), *top = resolved(root, real_root);

	if (strcmp(at, top) == 0)
		return err_set(e, -EINVAL, "mount %s: is root %s by another name; write both the same way", path, root);
	if (is_at_or_below(at, top))
		return err_set(e, -EINVAL,
			       "mount %s: lies below root %s; name a directory outside of it, or root itself", path,
			       root);
	if (is_at_or_below(top, at))
		return err_set(e, -EINVAL, "mount %s: would hide root %s, which lies below it", path, root);
	return 0;
}

/* A separate mount point must never look like a mail store while nothing is mounted on it. */
static int check_separate(const struct conf *conf, int *code, struct err *e)
{
	const char *path = conf->mount;
	char fstype[64];
	struct stat st;

	*code = PROG_USE;
	if (check_apart(path, conf->root, e) < 0)
		return -EINVAL;
	if (lstat(path, &st) < 0) {
		if (errno == ENOTCONN)
			return err_set(e, -ENOTCONN,
				       "mount %s: a crashed maildexfs is still mounted there; run 'umount -l %s' first",
				       path, path);
		*code = PROG_REACH;
		return err_sys(e, "mount %s: make this directory (owned by root, mode 0755, empty) first", path);
	}
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "mount %s: is no directory", path);
	if (tree_fstype(path, fstype, sizeof(fstype)) == 0 && strcmp(fstype, TREE_FS_MAILDEX) == 0)
		return err_set(e, -EBUSY, "mount %s: maildexfs is mounted there already; unmount it first", path);
	if (st.st_uid != 0 || st.st_mode & 022)
		return err_set(e, -EPERM,
			       "mount %s: mail users could write to it while nothing is mounted (owner %u, mode %04o), "
			       "and mail "
			       "would be lost there; run 'chown root %s; chmod 0755 %s'",
			       path, st.st_uid, st.st_mode & 07777, path, path);
	return is_empty(path, e);
}

/* Binds the lower tree to a path of our own, so that it stays reachable below the overlay. */
static int bind_privately(const struct conf *conf, char lower[PATH_MAX], int *code, struct err *e)
{
	const char *slash = strrchr(conf->socket, '/');
	int n = snprintf(lower, PATH_MAX, "%.*s/lower", (int)(slash - conf->socket), conf->socket);

	*code = PROG_REACH;
	if (n < 0 || n >= PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "socket %s: its path is too long", conf->socket);
	if (mkdir(lower, 0700) < 0 && errno != EEXIST)
		return err_sys(e, "cannot make %s for the private bind of root %s", lower, conf->root);
	/* What a crash left behind: holders of its descriptors keep them. */
	while (umount2(lower, MNT_DETACH) == 0)
		;
	if (mount(conf->root, lower, NULL, MS_BIND | MS_REC, NULL) < 0)
		return err_sys(e, "cannot bind root %s to %s", conf->root, lower);
	if (mount(NULL, lower, NULL, MS_PRIVATE | MS_REC, NULL) < 0) {
		err_sys(e, "cannot make the bind at %s private", lower);
		umount2(lower, MNT_DETACH);
		return -EINVAL;
	}
	return 0;
}

/*
 * One socket, one maildexfs: the other one's private bind has the very place that ours would have. umount returns
 * before the process behind
 * it has ended, so a moment is waited for that. The lock is the process's until it ends.
 */
static int lock_alone(const struct conf *conf, int *code, struct err *e)
{
	const struct timespec pause = {.tv_nsec = 20 * NS_PER_MS};
	int64_t until = clock_mono_ns() + ALONE_WAIT_NS;
	const char *slash = strrchr(conf->socket, '/');
	char path[PATH_MAX];
	int fd;

	*code = PROG_REACH;
	snprintf(path, sizeof(path), "%.*s", (int)(slash - conf->socket), conf->socket);
	if (path[0] && mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_sys(e, "cannot make %s for the socket", path);
	snprintf(path, sizeof(path), "%s%s.alive", conf->socket, WIRE_FS_SUFFIX);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, "cannot make %s", path);
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK || clock_mono_ns() >= until) {
			close(fd);
			return err_set(
				e, -EADDRINUSE,
				"%s%s is in use: another maildexfs is at work there; end it first, or give this one a "
				"`socket` of its own",
				conf->socket, WIRE_FS_SUFFIX);
		}
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* Opens root as it is, to refuse what cannot be served before anything is changed. */
static int check_root(const struct conf *conf, int *code, struct err *e)
{
	struct stat st;
	struct tree tree;
	int r;

	*code = PROG_REACH;
	if (stat(conf->root, &st) < 0 && errno == ENOTCONN)
		return err_set(e, -ENOTCONN,
			       "root %s: a crashed maildexfs is still mounted there; run 'umount -l %s' first",
			       conf->root, conf->root);
	r = tree_open(&tree, conf->root, e);
	if (r == -ENOTDIR)
		*code = PROG_USE;
	if (r == 0)
		tree_close(&tree);
	return r;
}

int mount_prepare(const struct conf *conf, struct tree *tree, bool *bound, int *code, struct err *e)
{
	char lower[PATH_MAX];
	int r;

	*bound = false;
	*code = PROG_USE;
	if (!conf->mount[0])
		return err_set(e, -EINVAL, "no mount point: give one as MOUNTPOINT or as `mount`");
	r = lock_alone(conf, code, e);
	if (r == 0)
		r = check_root(conf, code, e);
	if (r < 0)
		return r;
	if (strcmp(conf->mount, conf->root) != 0) {
		r = check_separate(conf, code, e);
		if (r == 0) {
			*code = PROG_REACH;
			r = tree_open(tree, conf->root, e);
		}
		return r;
	}
	r = bind_privately(conf, lower, code, e);
	if (r < 0)
		return r;
	r = tree_open(tree, lower, e);
	if (r < 0)
		umount2(lower, MNT_DETACH);
	else
		*bound = true;
	return r;
}

void mount_undo(const struct tree *tree)
{
	if (umount2(tree->path, MNT_DETACH) < 0)
		log_warn("cannot unmount the private bind at %s: %s", tree->path, strerror(errno));
	rmdir(tree->path);
}

/* Is this word among the comma-separated options? */
static bool has_option(const char *options, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = strstr(options, word); p; p = strstr(p + 1, word))
		if ((p == options || p[-1] == ',' || p[-1] == ' ') &&
		    (p[len] == ',' || p[len] == '\0' || p[len] == '\n'))
			return true;
	return false;
}

int mount_judge_options(const char *path, const char *fstype, const char *options, unsigned *warnings, struct err *e)
{
	static const struct {
		const char *option, *what;
	} warned[] = {
		{"nocto", "changes by other hosts to files other than messages may be seen late"},
		{"nolock", "locks exclude nobody on other hosts"},
		{"local_lock=all", "locks exclude nobody on other hosts"},
		{"local_lock=posix", "fcntl locks exclude nobody on other hosts"},
		{"local_lock=flock", "flock locks exclude nobody on other hosts"},
	};

	*warnings = 0;
	if (strcmp(fstype, "nfs") != 0 && strcmp(fstype, "nfs4") != 0)
		return 0;
	if (has_option(options, "softreval"))
		return err_set(e, -EINVAL,
			       "root %s is mounted with softreval: the kernel then answers from an old cache when the "
			       "server is "
			       "slow, and listings would be wrong; mount it without",
			       path);
	for (size_t i = 0; i < sizeof(warned) / sizeof(warned[0]); i++) {
		if (!has_option(options, warned[i].option))
			continue;
		log_warn("root %s is mounted with %s: %s", path, warned[i].option, warned[i].what);
		(*warnings)++;
	}
	return 0;
}

bool mount_opens_by_name(const char *fstype, const char *options)
{
	return strcmp(fstype, "nfs4") == 0 && has_option(options, "vers=4.0");
}

int mount_check_options(const struct tree *tree, int *code, struct err *e)
{
	const struct mount *m;
	struct mounts all;
	unsigned warnings;
	int r = mounts_of_fd(&all, tree->fd, &m);

	if (r < 0)
		return 0; /* its identity was told: it is no network mount that hides */
	r = mount_judge_options(tree->path, m->fstype, m->options, &warnings, e);
	if (r < 0)
		*code = PROG_USE;
	mounts_release(&all);
	return r;
}
