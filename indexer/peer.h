/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection of the local socket: who it is, what it says it is, and what waits to be sent to it.
 *
 * A peer that doesn't read never makes anybody wait: what it is sent is kept up to PEER_BYTES, then the connection
 * ends.
 *
 * Flow: peer_new() for an accepted descriptor; peer_send(); peer_flush() when it can be written; peer_free().
 * Ownership: the peer owns its descriptor. Threads: the main thread. Errors: negative errno.
 */
#ifndef MAILDEX_INDEXER_PEER_H
#define MAILDEX_INDEXER_PEER_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "lib/base/buf.h"
#include "lib/base/sock.h"
#include "lib/mail/wire.h"

#define PEER_BYTES (8u << 20)

struct peer_packet;
struct peer {
	struct peer *next;
	uint64_t id;
	int fd;
	struct sock_peer cred;
	bool trusted; /* uid 0 or our own: its windows and scans are believed */
	bool hello;
	enum wire_role role;
	bool goodbye;   /* it said END: nothing is missing */
	bool ended;     /* to be freed as soon as nobody holds it */
	char name[256]; /* as it says; the origin of its events */
	sd_event_source *io;
	struct peer_packet *first, **last;
	size_t bytes;
};

/* Takes the descriptor, also if it fails. Returns NULL if who it is can't be told. */
struct peer *peer_new(int fd, uint64_t id);
void peer_free(struct peer *p);
/* Sends, or keeps for later. Returns 0, or negative errno: the connection is to end. */
int peer_send(struct peer *p, const struct buf *b);
/* Sends what was kept. Returns 0 or negative errno. */
int peer_flush(struct peer *p);
/* Is something kept? */
bool peer_waiting(const struct peer *p);

#endif
