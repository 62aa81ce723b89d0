/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local socket: the first source of events (maildexfs, maildex-notify), and where maildexctl asks.
 *
 * What is believed: any local user may notify; what it claims is looked up in the lower tree. Only uid 0 and our own
 * uid may be an FS peer, hand scans over, send windows, or have something rebuilt. Malformed input ends its connection
 * at most.
 *
 * Gaps (rule 7): an FS peer numbers its events 1, 2, 3, ... within an epoch (HELLO's name is the origin), and says END
 * before it closes for good. A hole in the numbers, a new epoch without that goodbye, a connection that ends without it,
 * is a gap. So is an unclean end of maildexd: origins are kept over a clean one only.
 *
 * Flow: source_socket_new() with a listening descriptor; then as source.h.
 * Ownership: the descriptor stays the caller's; the rest is borrowed. Threads: the main thread.
 */
#ifndef MAILDEX_INDEXER_SOURCE_SOCKET_H
#define MAILDEX_INDEXER_SOURCE_SOCKET_H

#include <systemd/sd-event.h>

#include "indexer/tally.h"
#include "indexer/origins.h"
#include "indexer/outbox.h"
#include "indexer/source.h"

/* What peers may ask beyond telling of events. */
struct source_socket_control {
	void *arg;
	void (*status)(void *arg, struct buf *out);
	/* paths: malloc'ed, taken over in any case. Answers go through the outbox. Returns 0 or negative errno. */
	int (*rebuild)(void *arg, uint64_t peer, bool all, char **paths, size_t n, struct err *e);
	void (*peer_gone)(void *arg, uint64_t peer);
};

/* Returns NULL without memory. */
struct source *source_socket_new(sd_event *loop, int listen_fd, struct outbox *outbox, struct origins *origins,
				 struct tally *tally, const struct source_socket_control *control);
void source_socket_free(struct source *s);

#endif
