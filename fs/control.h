/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * maildexfs's own socket (`socket` + ".fs"): status and serve, also while maildexd is away.
 *
 * Flow: control_start() makes one thread; control_stop().
 * Shapes: at most CONTROL_PEERS_MAX connections; messages as in lib/mail/wire.h. serve may be set by root and by the
 * user that maildexfs runs as.
 * Threads: one of its own.
 * Errors: a socket that cannot be made is told to the caller; peers get WIRE_ERROR.
 */
#ifndef MAILDEX_FS_CONTROL_H
#define MAILDEX_FS_CONTROL_H

#include "lib/base/err.h"

#define CONTROL_PEERS_MAX 16

struct fs;

int control_start(struct fs *fs, struct err *e);
void control_stop(struct fs *fs);

#endif
