/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel knows of the real tree: a node is a file handle, as on NFS. It leads to the same file whoever renames
 * it, and is stale (ESTALE) when the file is gone.
 *
 * Flow: node_enter() for each entry that is told to the kernel; node_forget(); node_opened()/node_closed() around
 * handles. node_unlink() and node_rename() are where a file that is open becomes .nfsXXXX (`silly`).
 * Shapes: the kernel's number of a node is its address, the root's is FUSE_ROOT_ID. node.fd is O_PATH.
 * Ownership: a node lives until the kernel forgets it.
 * Threads: any.
 * Errors: -1 and errno, as the system calls that they stand for.
 */
#ifndef MAILDEX_TESTS_FAULTFS_NODE_H
#define MAILDEX_TESTS_FAULTFS_NODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define NODE_PROC_MAX 40

struct silly;

struct node {
	struct node *next; /* in its bucket */
	int fd;
	dev_t dev;
	ino_t ino;
	uint64_t lookups;
	_Atomic uint64_t shown_ino;
	unsigned opens;
	struct silly *silly; /* under which name it waits for its last close */
};

int node_init(const char *made, bool silly);
struct node *node_root(void);

/* Opens and tells the kernel of parent/name; *st: its real attributes. */
int node_enter(const struct node *parent, const char *name, struct node **out, struct stat *st);
void node_forget(struct node *n, uint64_t lookups);
/* Real attributes, through the handle where there is one (fh >= 0). -1 and ESTALE where the file is gone. */
int node_stat(struct node *n, int fh, struct stat *st);
/* Its path relative to the mirror, with name behind it if that is not NULL. out: PATH_MAX bytes. */
const char *node_path(const struct node *n, const char *name, char *out);
/* A name that leads to its file. out: NODE_PROC_MAX bytes. */
const char *node_proc(const struct node *n, char *out);

void node_opened(struct node *n);
void node_closed(struct node *n);
int node_unlink(const struct node *parent, const char *name);
int node_rename(const struct node *from, const char *name, const struct node *to, const char *to_name, unsigned flags);

#endif
