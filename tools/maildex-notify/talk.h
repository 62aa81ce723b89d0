/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The conversation with maildexd: HELLO, then one NOTIFY a path, each answered by OK or ERROR in that order.
 *
 * A delivery waits for this program, so everything that may block is bounded: a peer that is stopped, a full queue of
 * connections, a socket buffer that nobody empties. Answers are read while sending, so that neither side waits for the
 * other to read.
 *
 * Flow: talk_open(), talk_notify() per path, talk_finish(), talk_close().
 * Shapes: `patience_ms` is the time to wait altogether; with `renew` it starts anew with every message that gets
 * through.
 * Threads: one. Errors: negative errno with a text; -ETIMEDOUT when patience ends.
 */
#ifndef MAILDEX_NOTIFY_TALK_H
#define MAILDEX_NOTIFY_TALK_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct talk {
	const char *socket;
	int fd;
	int patience_ms;
	bool renew;
	int64_t left_ns;
	uint64_t unanswered;
	uint64_t refused; /* ERROR answers; each was logged */
	struct buf out;
	char *in; /* SOCK_MSG_MAX */
};

/* Returns 0 or negative errno; talk_close() is due in any case. */
int talk_open(struct talk *t, const char *socket, int patience_ms, bool renew, struct err *e);
int talk_notify(struct talk *t, const char *path, struct err *e);
/* Waits for the answers that are still due. Returns 0 or negative errno. */
int talk_finish(struct talk *t, struct err *e);
void talk_close(struct talk *t);

#endif
