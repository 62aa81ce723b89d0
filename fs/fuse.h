/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one place that says which libfuse: the low-level API of 3.14 (Debian 12) or newer. Passthrough where both libfuse
 * and the kernel's headers have it.
 */
#ifndef MAILDEX_FS_FUSE_H
#define MAILDEX_FS_FUSE_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
#include <linux/fuse.h>
#ifdef FUSE_DEV_IOC_BACKING_OPEN
#define FUSE_HAS_PASSTHROUGH
#endif
#endif

#endif
