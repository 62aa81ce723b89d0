/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The calls of the mirror: each is told to the rules, then made in the real tree in the caller's name.
 *
 * Flow: calls_init(), then calls_ops of names and attributes (calls.c) and of open files and directories (handles.c).
 * What both share is here.
 * Shapes: options are what is mounted with; times in milliseconds. A handle (fi->fh) is a descriptor of the real tree.
 * Ownership: nodes are node.h's.
 * Threads: any; credentials are the thread's own and restored behind each call.
 * Errors: as -1 and errno within, by fuse_reply_err() to the kernel.
 */
#ifndef MAILDEX_TESTS_FAULTFS_CALLS_H
#define MAILDEX_TESTS_FAULTFS_CALLS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <stdbool.h>

#include "tests/support/faultfs/node.h"
#include "tests/support/faultfs/rules.h"

struct calls_options {
	char *made, *mirror, *control;
	unsigned attr_ms, entry_ms, tick_ms, hold_s;
	int squash, sized, unknown, silly, numbers;
};

extern struct calls_options calls_options;
extern struct fuse_lowlevel_ops calls_ops;

/* Adds the calls of handles.c. */
void calls_add_handles(struct fuse_lowlevel_ops *ops);

struct node *calls_node(fuse_ino_t ino);
int calls_handle(const struct fuse_file_info *fi);
/*
 * Answers and returns true if the call is to fail, or goes to something that is gone. name: in the directory n, or NULL;
 * `to` is NULL but for rename and link.
 */
bool calls_refused2(fuse_req_t req, enum rules_call call, struct node *n, const char *name, struct node *to,
		    const char *to_name);
bool calls_refused(fuse_req_t req, enum rules_call call, fuse_ino_t ino, const char *name);
void calls_reply(fuse_req_t req, int ret);
/* Tells the kernel of parent/name. Returns 0, or -1 and errno. */
int calls_enter(fuse_req_t req, fuse_ino_t parent, const char *name, struct fuse_entry_param *e);

/* Becomes the caller (root: nobody, where that is squashed). Returns 0, or -1 and errno. */
int calls_become(fuse_req_t req);
/* After a refusal: with the caller's groups. Returns whether a second try is worth it; errno stays if not. */
bool calls_become_with_groups(fuse_req_t req);
/* Itself again; errno stays. */
void calls_restore(void);

#define AS_CALLER(req, result, expression)                                                                             \
	do {                                                                                                           \
		(result) = calls_become(req);                                                                          \
		if ((result) == 0) {                                                                                   \
			(result) = (expression);                                                                       \
			if ((result) < 0 && calls_become_with_groups(req))                                             \
				(result) = (expression);                                                               \
		}                                                                                                      \
		calls_restore();                                                                                       \
	} while (0)

#endif
