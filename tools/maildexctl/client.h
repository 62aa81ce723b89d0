/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A conversation with maildexd or maildexfs (lib/mail/wire.h).
 *
 * Flow: client_open(); wire_begin(&c.out, ...) and client_send(); client_recv() per answer; client_close().
 * Ownership: what a cursor shows is the client's until the next client_recv().
 * Threads: one. Errors: negative errno with a text; -ETIMEDOUT.
 */
#ifndef MAILDEXCTL_CLIENT_H
#define MAILDEXCTL_CLIENT_H

#include "lib/base/buf.h"
#include "lib/base/conf.h"
#include "lib/base/err.h"
#include "lib/mail/wire.h"

#define CLIENT_PATIENCE_MS 5000

struct client {
	int fd;
	char *socket;
	struct buf out;
	char *in; /* SOCK_MSG_MAX */
};

/* suffix: "" for maildexd, WIRE_FS_SUFFIX for maildexfs. Connects and says HELLO. Returns 0 or negative errno. */
int client_open(struct client *c, const struct conf *conf, const char *suffix, struct err *e);
/* Sends what is in c->out. Returns 0 or negative errno. */
int client_send(struct client *c, struct err *e);
/* Takes the next message; timeout_ms -1: however long it takes. Returns 0 or negative errno. */
int client_recv(struct client *c, int timeout_ms, enum wire_type *type, struct cursor *cur, struct err *e);
/*
 * Sends what is in c->out and takes the one answer, a STATUS, whose text is appended to `text`; an ERROR gives -EPERM
 * with its text. Returns 0 or negative errno.
 */
int client_ask(struct client *c, struct buf *text, struct err *e);
void client_close(struct client *c);

#endif
