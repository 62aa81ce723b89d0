/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lookups and listings of one directory side by side. Without the kernel's FUSE_PARALLEL_DIROPS it sends one after the
 * other: one mailbox on storage that hangs, looked up, and no other one that the kernel does not know yet can be reached.
 *
 * libfuse before 3.16.3 takes FUSE_CAP_PARALLEL_DIROPS and never tells the kernel (libfuse #861); later ones tell it where
 * asked to (#880).
 *
 * Flow: dirops_want() in the init operation; dirops_allow() behind fuse_session_mount(), before the loop.
 * Threads: before there are any. One session a process.
 * Errors: negative errno.
 */
#ifndef MAILDEX_FS_DIROPS_H
#define MAILDEX_FS_DIROPS_H

#include "fs/fuse.h"

void dirops_want(struct fuse_conn_info *conn);
int dirops_allow(struct fuse_session *se);

#endif
