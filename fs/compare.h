/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * serve = compare: what the index would have answered, held against the real listing that is served. Each difference
 * is counted and logged (at most COMPARE_LOGGED lines an opendir).
 * Threads: any.
 * Errors: none; a folder that changes meanwhile is not compared.
 */
#ifndef MAILDEX_FS_COMPARE_H
#define MAILDEX_FS_COMPARE_H

#include <sys/types.h>

#define COMPARE_LOGGED 10

struct fs;
struct node;

/* dirfd: the half's O_PATH descriptor; fd: open for reading (left at its start). */
void compare_half(struct fs *fs, struct node *half, int dirfd, int fd, uid_t uid, gid_t gid);

#endif
