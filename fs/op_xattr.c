/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes, by the magic link of an O_PATH descriptor: there are no calls that take such descriptors
 * themselves. The magic link leads to the file itself: where that is a symbolic link, it is not followed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/ops.h"

#define XATTR_LIST_LIMIT (1 << 20)

/* Answers the error itself. Returns the descriptor or a negative number. */
static int xattr_begin(fuse_req_t req, fuse_ino_t ino, char path[64])
{
	int fd = ops_open_path(req, ops_node(req, ino));

	if (fd < 0)
		ops_reply_err(req, ops_node(req, ino), fd);
	else
		snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

/* One attribute's value, or with name NULL the list of names. size 0: only how much there is. */
static void xattr_read(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char path[64], *data = NULL;
	int fd = xattr_begin(req, ino, path);
	ssize_t r;

	if (fd < 0)
		return;
	if (size > XATTR_LIST_LIMIT)
		size = XATTR_LIST_LIMIT;
	if (size)
		data = malloc(size);
	CALLER_RUN(req, r, name ? getxattr(path, name, data, size) : listxattr(path, data, size));
	if (r < 0)
		fuse_reply_err(req, errno);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)r);
	else
		fuse_reply_buf(req, data, (size_t)r);
	free(data);
	close(fd);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	xattr_read(req, ino, name, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	xattr_read(req, ino, NULL, size);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	char path[64];
	int fd = xattr_begin(req, ino, path), r;

	if (fd < 0)
		return;
	CALLER_RUN(req, r, setxattr(path, name, value, size, flags));
	fuse_reply_err(req, r < 0 ? errno : 0);
	close(fd);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	char path[64];
	int fd = xattr_begin(req, ino, path), r;

	if (fd < 0)
		return;
	CALLER_RUN(req, r, removexattr(path, name));
	fuse_reply_err(req, r < 0 ? errno : 0);
	close(fd);
}
