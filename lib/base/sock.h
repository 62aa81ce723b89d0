/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unix SOCK_SEQPACKET sockets: one message a packet, whole or not at all (unix(7)).
 *
 * Shapes: a message has 1 to SOCK_MSG_MAX bytes and may carry one descriptor (SCM_RIGHTS).
 * Ownership: returned and received descriptors are the caller's (close-on-exec).
 * Threads: a socket may be written by one thread and read by another.
 * Errors: negative errno with a text; -EAGAIN where a non-blocking socket would wait; -EMSGSIZE for a longer message
 * or more than one descriptor (the message is lost: end that peer).
 */
#ifndef MAILDEX_BASE_SOCK_H
#define MAILDEX_BASE_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "lib/base/err.h"

#define SOCK_MSG_MAX 65536

struct sock_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
};

/*
 * Listens at path with the given mode; non-blocking: accept4() until -EAGAIN. A left-over socket that nobody answers on
 * is replaced; one that is answered gives -EADDRINUSE. Returns the descriptor or negative errno.
 */
int sock_listen(const char *path, mode_t mode, struct err *e);
/* Connects. Returns the descriptor or negative errno. */
int sock_connect(const char *path, bool nonblocking, struct err *e);
/* Who is at the other end (SO_PEERCRED). Returns 0 or negative errno. */
int sock_peer(int fd, struct sock_peer *peer);
/* Sends one message, with a descriptor if passed >= 0. Never raises SIGPIPE. Returns 0 or negative errno. */
int sock_send(int fd, const void *data, size_t len, int passed);
/*
 * Receives one message into data[SOCK_MSG_MAX]. Returns its length, 0 at the end of the connection, or negative
 * errno. *passed becomes the descriptor that came with it, or -1.
 */
ssize_t sock_recv(int fd, void *data, int *passed);

#endif
