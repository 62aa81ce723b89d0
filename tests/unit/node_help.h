/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes of real directories, without a mount. Errors: the running test fails.
 */
#ifndef MAILDEX_TESTS_NODE_HELP_H
#define MAILDEX_TESTS_NODE_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/node.h"

/* As the kernel's LOOKUP of a directory. */
static inline struct node *help_look(struct node_table *nodes, struct node *parent, const char *name)
{
	int fd = node_dir_get(nodes, parent);
	struct statx stx;
	struct node *n;

	assert_true(fd >= 0);
	assert_int_equal(statx(fd, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &stx), 0);
	n = node_lookup(nodes, parent, name, &stx, openat(fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC));
	node_dir_put(nodes, parent);
	assert_non_null(n);
	return n;
}

#endif
