/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Big messages are read straight from the lower file: the kernel reads and maps it by itself (FUSE_PASSTHROUGH: libfuse
 * 3.17, Linux 6.9) and asks us for no byte.
 *
 * Which files, and why no others. Messages only, of `passthrough` bytes or more, opened by their owner to read. A message
 * never changes, so nobody has to agree with a writer's pages on what it holds. Uidlists, indexes and caches are
 * written, grow, are mapped while they grow (growth.h) and are replaced on other hosts: they keep close-to-open as it
 * is, by our own open and without pages that stay; they are small, and our read of them is hardly slower. A small
 * message is one request; the kernel opens the lower file once more for each straight open (on NFSv4 that is a call to
 * the server), which only pays for many reads.
 *
 * What the kernel asks for (fs/fuse/iomode.c there), at the price of EIO at open():
 *  - all open files of an inode are read straight, through one and the same registered file, or none is. Whether they
 *    are is decided by the first open of a node and holds until the last one is closed. It drops an open file's mode
 *    before it sends RELEASE, so what we count is never less than what it counts.
 *  - it opens the lower file again with the flags of each open, and reads and writes in the name of him who registered
 *    it. So whoever opens a file that is read straight to write it, or is somebody else, is served beside: his reads and
 *    writes come to us, uncached, and go through his own descriptor; only what he maps is the lower file.
 *
 * Flow: backing_start() when the session begins; backing_opened() at each open, backing_closed() before its descriptor
 * is closed.
 * Shapes: struct backing in each node, zero at first.
 * Ownership: the kernel's registered file lives as long as somebody has the node open with it.
 * Threads: any; struct backing is guarded by the node table's lock, which is not held over calls to the kernel.
 * Errors: none. Where the kernel refuses a lower filesystem, the log says so once, and its files are read through us.
 */
#ifndef MAILDEX_FS_BACKING_H
#define MAILDEX_FS_BACKING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;
struct fs;
struct fuse_conn_info;
struct fuse_file_info;
struct fuse_req;
struct handle;
struct node;
struct stat;

/* How an open file is read and written. */
enum backing_way {
	BACKING_NONE,     /* through us, and the kernel keeps pages */
	BACKING_STRAIGHT, /* by the kernel */
	BACKING_BESIDE,   /* through us, and no pages are kept: others read straight */
};

struct backing {
	int id; /* the kernel's; 0: none */
	uid_t uid;
	gid_t gid;         /* in whose name it reads */
	unsigned straight; /* open files with it, those beside among them */
	unsigned plain;    /* open files without */
};

/* An open. */
struct backing_ask {
	bool worth_it; /* a big message, and the kernel can do it */
	int flags;     /* of open(2) */
	uid_t uid;
	gid_t gid;
};

/* The decision. */
enum backing_way backing_way(const struct backing *b, const struct backing_ask *ask);
/* Counts an open file. id: of a file that was registered for it, or 0. Returns the id that nobody needs, or 0. */
int backing_take(struct backing *b, enum backing_way way, int id, const struct backing_ask *ask);
/* It is closed. Returns the id that nobody needs any more, or 0. */
int backing_leave(struct backing *b, enum backing_way way);

/* Asks the kernel for it, where there is such a thing. */
void backing_start(struct fs *fs, struct fuse_conn_info *conn);
/* Decides for a handle whose descriptor was just opened, and puts what the kernel must be told into fi. */
void backing_opened(struct fuse_req *req, struct node *n, struct handle *h, const struct stat *st, bool message,
		    struct fuse_file_info *fi);
void backing_closed(struct fs *fs, struct handle *h);
/* Appends what `maildexctl status` tells. */
void backing_print(struct buf *b);

#endif
