/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All parts of maildexd put together, started in order, and ended in order.
 *
 *   sources -> queue -> applier -> index        pool of scans <- schedule, rebuild, late listings
 *                          |                         |
 *                          +-> outbox -> FS peers    +-> applier
 *
 * Threads: the main one (sockets, signals, watchdog: never touches the lower tree or writes the index), the applier,
 * the pool, the schedule, the tree's watch, inotify's if it is used, and two while a rebuild runs.
 */
#ifndef MAILDEX_INDEXER_DAEMON_H
#define MAILDEX_INDEXER_DAEMON_H

#include "indexer/lower.h"
#include "lib/base/prog.h"

/* Runs until SIGTERM or SIGINT. Returns the code to exit with; a refusal has a text in e. */
int daemon_run(struct prog *prog, struct lower *lower, int listen_fd, struct err *e);

#endif
