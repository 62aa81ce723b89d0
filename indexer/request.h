/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a peer's message asks for: one table says which types there are, who may send them, and what they do.
 *
 * Flow: request_handle() per received message. Ownership: borrows. Threads: the main thread.
 * Errors: REQUEST_END: the connection is to end, after what was sent to it.
 */
#ifndef MAILDEX_INDEXER_REQUEST_H
#define MAILDEX_INDEXER_REQUEST_H

#include "indexer/peer.h"
#include "indexer/source_socket.h"

struct request_tools {
	struct source_sink sink;
	struct source_socket_control control;
	struct origins *origins;
	struct tally *tally;
};

enum request_verdict { REQUEST_GO_ON, REQUEST_END };

/* memfd: the descriptor that came along, or -1; stays the caller's. */
enum request_verdict request_handle(const struct request_tools *tools, struct peer *p, const void *data, size_t len,
				    int memfd);
/* Answers ERROR. Returns 0 or negative errno. */
int request_error(struct peer *p, const char *text);

#endif
