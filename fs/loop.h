/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The session's loop: receives requests and runs them on workers, so that storage that hangs holds up nobody else.
 *
 * Flow: loop_run() after the mount, until it is unmounted or a signal says so.
 * Shapes: at most `threads` requests are under way, three quarters of that on one storage (gate.h), and one thread more
 * always reads. Threads are started when they are first needed, and stay.
 * Threads: loop_run() in the main thread, which takes the signals.
 * Errors: negative errno.
 */
#ifndef MAILDEX_FS_LOOP_H
#define MAILDEX_FS_LOOP_H

struct fs;

int loop_run(struct fs *fs);

#endif
