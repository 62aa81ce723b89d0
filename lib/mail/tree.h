/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lower tree: which one it is, and how to reach a folder in it.
 *
 * Flow: tree_open() at start; tree_check() now and then; tree_open_dir() per folder; tree_walk() over all folders.
 * Shapes: a tree is known by filesystem type, source ("server:/export") and the root's inode: tree.identity is that as
 * text, stable over mounts and reboots (law 7). tree_device() is the same idea for any st_dev: a stable 64-bit hash of
 * type, source and the filesystem's root path, read from /proc/self/mountinfo and remembered.
 * Ownership: tree.fd (O_PATH) is the tree's.
 * Threads: any, after tree_open().
 * Errors: negative errno with a text that names the path and what to do.
 */
#ifndef MAILDEX_MAIL_TREE_H
#define MAILDEX_MAIL_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"
#include "lib/mail/folder.h"

#define TREE_IDENTITY_MAX 1024
#define TREE_FS_MAILDEX "fuse.maildex"

struct listing_entry;

struct tree {
	char *path;
	int fd;
	dev_t dev;
	ino_t ino;
	char identity[TREE_IDENTITY_MAX];
};

/*
 * Opens the root directory. -ENOENT if it is not there, -ENOTDIR if it is none, -ELOOP if it is itself a maildex mount
 * (read the lower tree instead). Returns 0 or negative errno.
 */
int tree_open(struct tree *t, const char *path, struct err *e);
void tree_close(struct tree *t);
/* Is the path still the tree of the held descriptor? Returns 0 or -ESTALE with a text. */
int tree_check(const struct tree *t, struct err *e);

/* A stable identity for a device number. */
uint64_t tree_device(dev_t dev);
/* The filesystem type of a path's filesystem, as in mountinfo ("nfs4", "ext4", "fuse.maildex"). Returns 0 or negative
 * errno. */
int tree_fstype(const char *path, char *out, size_t size);
/* Is it a network filesystem by statfs(2) type (NFS, SMB, Ceph, FUSE network...)? Returns 1, 0 or negative errno. */
int tree_is_remote(const char *path, struct err *e);

/*
 * Where the lower tree is to be read: `root`, or, where mount = root and the private bind below the socket's folder
 * ("lower") is in place, that. Writes to out[PATH_MAX].
 */
void tree_lower_path(const char *root, const char *mount, const char *socket, char *out, size_t size);

/*
 * Opens a directory below the root, step by step without following symbolic links, each step as the process and, where
 * that is refused with EACCES, as the owner of the directory it stands in; *owner and *group are the opened
 * directory's. flags: O_PATH or O_RDONLY. Opening for reading is tried as the directory's owner. Credentials are
 * restored. Returns the descriptor or negative errno.
 */
int tree_open_dir(const struct tree *t, const char *path, int flags, uid_t *owner, gid_t *group);

/*
 * Calls fn for each Maildir (a directory with new/, cur/ and tmp/) at or below `start` (relative path), parents before
 * children, in no other order. new/, cur/ and tmp/ are not descended into; symbolic links are not followed. A folder
 * that cannot be read is given to `failed` (may be NULL) and passed over. fn's non-zero answer ends the walk and is
 * returned. Returns 0 or negative errno.
 */
struct tree_walker {
	int (*folder)(void *arg, const char *path);
	void (*failed)(void *arg, const char *path, int error); /* negative errno */
	void *arg;
};
int tree_walk(const struct tree *t, const char *start, const struct tree_walker *w);
/* Which of a Maildir's three directories is a name? One bit, or 0: none. All of them: TREE_MAILDIR. */
#define TREE_MAILDIR 7u
unsigned tree_maildir_bit(const char *name, size_t len);
/* Is an entry of this directory one itself? Asked of the tree where the listing did not tell (DT_UNKNOWN, as on NFS). */
bool tree_entry_is_dir(int dir, const struct listing_entry *entry);

#endif
