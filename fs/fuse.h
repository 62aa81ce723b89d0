/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The one place that says which libfuse: the low-level API of 3.14 (Debian 12) or newer.
 */
#ifndef MAILDEX_FS_FUSE_H
#define MAILDEX_FS_FUSE_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#endif
