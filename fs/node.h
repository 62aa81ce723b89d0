/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes: what the kernel knows of the lower tree. One node is one lower inode (device, inode number, birth time where
 * there is one, type), reached by the (parent, name) pairs under which it was looked up.
 *
 * Flow: node_lookup() when the kernel asks for a name or a call made one; node_forget() when it forgets; node_at() to
 * reach the lower file: a held descriptor of the parent directory and the name. Names follow our own renames and
 * unlinks.
 * Shapes: no descriptor is held for a file that nobody has open (an O_PATH descriptor keeps the NFS dentry busy and
 * turns each unlink into a rename to .nfsXXXX). Directories hold an O_PATH descriptor, at most node_table.dirfds_max
 * of them; others are opened again on use.
 * Ownership: nodes belong to the table; the kernel's lookups and children count as references. `root` lives as long as
 * the table.
 * Threads: any; one lock in the table, never held across I/O.
 * Errors: negative errno; -ESTALE when the name on disk is another file now (the kernel then looks the path up again).
 */
#ifndef MAILDEX_FS_NODE_H
#define MAILDEX_FS_NODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/backing.h"
#include "fs/dir_attr.h"
#include "fs/growth.h"
#include "fs/message.h"
#include "lib/mail/folder.h"
#include "lib/mail/tree.h"

struct live;
struct node;
struct turn;

/* One name of a node. */
struct node_name {
	struct node *node;
	struct node *parent;
	struct node_name *next;      /* of the same node */
	struct node_name *hash_next; /* in the table by (parent, name) */
	char name[];
};

/* What only directories have. */
struct node_dir {
	int fd; /* O_PATH, or -1 */
	unsigned users;
	struct node *lru_prev, *lru_next; /* among those with a descriptor; the least used first */
	enum half half;
	_Atomic bool is_half;        /* new/ or cur/ of a Maildir, established; `half` is set before */
	_Atomic bool is_maildir;     /* a child is_half */
	_Atomic bool stale;          /* the server said so: its name is to be asked for again, see node_stale() */
	_Atomic bool above_maildir;  /* a Maildir is somewhere below, and this is none */
	struct node *halves[HALVES]; /* of a Maildir; not counted, cleared when they go */
	struct dir_attr attr;
	struct live *live;           /* not counted; guarded by the lives' lock */
	struct turn *turn;           /* not counted; guarded by the ring's lock */
	_Atomic int64_t unproven_ns; /* of a half: see live_own_unproven() */
	unsigned renaming;           /* calls under way that change or remove a name in it */
	_Atomic uint64_t renames;    /* names in it that were changed or removed through the mount, or found gone */
};

struct node {
	struct node *hash_next;
	dev_t dev;
	ino_t ino;
	int64_t btime_ns; /* 0 where the filesystem has none */
	mode_t type;      /* S_IFMT bits */
	uint64_t lookups; /* the kernel's references */
	unsigned refs;    /* ours: names of children, live folders, calls under way */
	bool hashed;
	bool replaced; /* its number is another file's now */
	struct node_name *names;
	struct node_dir *dir; /* NULL unless a directory */

	/* files */
	struct handle *handles_first;
	unsigned handles;       /* open files */
	unsigned closing;       /* of these, FLUSHed: a RELEASE is under way */
	unsigned leaving;       /* calls under way that take a name from it: no open goes late */
	struct message message; /* of a Maildir's half */
	struct growth growth;
	struct backing backing;
};

/* An open file. */
struct handle {
	struct handle *next, **prev;
	struct node *node;
	int fd;       /* the lower file; -1: late, and not opened yet */
	bool flushed; /* a close() was seen: RELEASE may be under way */
	bool fills;   /* what is read stays in the kernel's pages (message.h) */
	enum backing_way way;
	atomic_bool locked;
	atomic_uint lock_waits; /* see lock_wait.h */

	/* see late.h */
	bool late, released;
	uid_t uid;
	gid_t gid;
	struct node *half;
};

/*
 * A message that was opened below by the lookup on the way to its open(2): one call to the server instead of two. Its
 * open follows at once, as a rule; if not, the descriptor goes with the name, the node or the NODE_EARLY_MAX-th one after.
 */
#define NODE_EARLY_MAX 64
struct node_early {
	struct node *node; /* NULL: free */
	pid_t thread;      /* of whose open it is, and who that is */
	uid_t uid;
	int fd;
	int64_t kept_ns; /* CLOCK_MONOTONIC */
};

struct node_table {
	pthread_mutex_t lock;
	pthread_cond_t released; /* a handle was released */
	const struct tree *tree;
	struct node *root;
	struct node **nodes;      /* by device and inode */
	struct node_name **names; /* by parent and name */
	size_t mask, count;       /* both tables have mask + 1 slots */
	struct node *lru_first, *lru_last;
	unsigned dirfds, dirfds_max;
	struct node_early early[NODE_EARLY_MAX];
	unsigned early_next;
};

int node_table_init(struct node_table *t, const struct tree *tree, unsigned dirfds_max, struct err *e);
void node_table_release(struct node_table *t);

/*
 * The node for name in parent, whose attributes are stx (statx(2), no symbolic link followed): counted as one lookup of
 * the kernel. dirfd: an O_PATH descriptor of a directory to keep (taken over), or -1. Returns NULL when out of memory.
 */
struct node *node_lookup(struct node_table *t, struct node *parent, const char *name, const struct statx *stx,
			 int dirfd);
void node_forget(struct node_table *t, struct node *n, uint64_t lookups);
void node_ref(struct node_table *t, struct node *n);
void node_unref(struct node_table *t, struct node *n);

/* A directory's descriptor (O_PATH), valid until node_dir_put(). Returns it or negative errno. */
int node_dir_get(struct node_table *t, struct node *dir);
void node_dir_put(struct node_table *t, struct node *dir);

/* Where a node is: its parent's descriptor and its name in name[NAME_LEN_MAX + 1] ("" and the tree's for the root). */
struct node_at {
	struct node *parent;
	int dirfd;
	char name[NAME_LEN_MAX + 1];
};
/* Returns 0 or negative errno (-ESTALE: no name is left); end with node_at_end(). */
int node_at(struct node_table *t, struct node *n, struct node_at *at);
void node_at_end(struct node_table *t, struct node_at *at);

/*
 * The lower filesystem said ESTALE of this node, or of something in it: the directories on its path are to be asked for
 * again when the kernel walks it anew. An NFS client else goes on believing the names that it knows.
 */
void node_stale(struct node_table *t, struct node *n);

/* The path below the root. Returns 0, -ENAMETOOLONG, or -ESTALE. */
int node_path(struct node_table *t, struct node *n, char *out, size_t size);

/*
 * A directory is about to be removed, or was not after all. The kernel calls it dead then, and keeps it for a while. The
 * next one made may get its number, at once, and must not get its node: where there are no birth times (NFS) nothing
 * else would tell them apart.
 */
void node_dir_leaves(struct node_table *t, struct node *parent, const char *name, bool leaves);
/* Around a call that changes or removes names in a directory, with the notes of it that follow. */
void node_renaming(struct node_table *t, struct node *dir, bool begins);
/* Something was not found where its name said: may it have been renamed through the mount meanwhile? Waits for such that is
 * under way, 20 ms at most. renames: what it was before the look. */
bool node_renamed_meanwhile(struct node_table *t, struct node *dir, uint64_t renames);
/* Our own changes of names, after they succeeded below. Each counts in the `renames` of the directories. */
void node_name_removed(struct node_table *t, struct node *parent, const char *name);
/* It was not found; believed if `renames` is still what it was before the look, and nothing is under way. */
void node_name_missing(struct node_table *t, struct node *parent, const char *name, uint64_t renames);
void node_renamed(struct node_table *t, struct node *from, const char *old, struct node *to, const char *new,
		  bool exchange);
/* The child known under this name, or NULL; referenced (node_unref()). */
struct node *node_child(struct node_table *t, struct node *parent, const char *name);

/*
 * The node of a name in a half, counted as one lookup of the kernel, if its attributes are known (message.h): st, and for
 * how long (*left_ns). Else NULL. The name comes first, if the half vouches for it, by node_vouched().
 */
struct node *node_recall(struct node_table *t, struct node *half, const char *name, uid_t asker, struct stat *st,
			 int64_t *left_ns);
/* The name is surely one of the node's. */
void node_vouched(struct node_table *t, struct node *n, const struct node *parent, const char *name);
/* The other half of its Maildir, referenced, or NULL. */
struct node *node_sibling(struct node_table *t, struct node *half);

/* Is this directory a half of a Maildir? Asks the lower tree until the answer is yes. */
bool node_is_half(struct node_table *t, struct node *dir);

/* Open files: RELEASE comes after close() returned, so a change of the name waits for closes that are under way. */
void node_opened(struct node_table *t, struct node *n, struct handle *h);
void node_flushed(struct node_table *t, struct handle *h);
void node_released(struct node_table *t, struct handle *h); /* closes its descriptor */
/* Is one of its handles being closed? No longer than NODE_CLOSE_WAIT_NS: a duplicate of the descriptor may stay. */
#define NODE_CLOSE_WAIT_NS (20 * NS_PER_MS)
bool node_closing(struct node_table *t, struct node *n);
/* A late one (late.h), if the message may be opened so. Takes a reference on h->half. */
bool node_opened_late(struct node_table *t, struct node *n, struct handle *h, int flags);
/* The descriptor of a late handle, which may be gone; fd (or -1) becomes it unless it has one, and is closed then. Returns
 * it or -1. */
int node_late_fd(struct node_table *t, struct node *n, const struct handle *h, int fd);
/* A handle of the node without a descriptor that nobody closes, copied with a reference on its half; or NULL. */
struct handle *node_late(struct node_table *t, struct node *n, struct handle *copy);
/* Keeps a descriptor of the node (takes it over) for this thread's open. */
void node_early_keep(struct node_table *t, struct node *n, pid_t thread, uid_t uid, int fd);
/* Gives it, unless it was kept before since_ns (CLOCK_MONOTONIC): closed then. Returns -1 if there is none. */
int node_early_take(struct node_table *t, struct node *n, pid_t thread, uid_t uid, int64_t since_ns);
/* Closes those of a node, whosever they are. */
void node_early_end(struct node_table *t, struct node *n);
void node_leaves(struct node_table *t, struct node *n, bool begins);
/* A duplicate of one of its open descriptors (for a file that has no name any more), or negative errno. */
int node_any_fd(struct node_table *t, struct node *n);
/* Waits at most 20 ms while all open handles of the child of this name are being closed; then they count as open. */
void node_await_close(struct node_table *t, struct node *parent, const char *name);

#endif
