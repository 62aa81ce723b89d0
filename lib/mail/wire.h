/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The socket protocol between maildexd, maildexfs, maildex-notify and maildexctl: one SOCK_SEQPACKET message each
 * (lib/base/sock.h).
 *
 * Shapes: every message starts with u8 version (WIRE_VERSION), u8 type, then the type's fields in the order given
 * here. A message of a newer version or an unknown type is answered by WIRE_ERROR and the connection goes on.
 *
 * To maildexd (`socket`):
 *   HELLO    u8 role, str name          first message; role FS is believed only from root and maildexd's own user, and
 *                                       is sent FEED from then on
 *   EVENT    event (event_encode)       no answer unless it is refused (ERROR)
 *   NOTIFY   str path below the root    answered OK or ERROR once it is queued (folder_ref_parse tells what it means)
 *   SCAN     str folder, u8 half, pass (wire_put_pass), u8 unclear, u64 count, u64 sum, u64 bytes
 *                                       a memfd with the listing's bytes comes with it; only from an FS peer
 *   STATUS                              answered by STATUS with one str: lines "key value\n"
 *   REBUILD  u8 all, u32 n, n paths     answered by PROGRESS as it goes, FAILED, and END; paths are folders, their
 *                                       subtrees are meant
 *   SERVE    as below                   answered ERROR: ask maildexfs
 *   END      u8 code, str text          goodbye: everything was sent, no gap
 *   RENAME   str from, str to           a directory with Maildirs at or below it was renamed, paths below the root; no
 *                                       answer unless it is refused; only from an FS peer
 * To maildexfs (`socket` + ".fs"):
 *   HELLO, STATUS                       as above
 *   SERVE    u8 set, u8 mode, u32 n, n paths
 *                                       set: 0 asks, 1 sets; no paths: the whole mount; else these mailboxes. Answered
 *                                       by STATUS with lines "PATH MODE\n" (the whole mount first, as "*")
 * From both:
 *   OK
 *   ERROR    str text
 *   FEED     event                      what was applied to the index from elsewhere
 *   PROGRESS u64 folders done, u64 folders known so far, u8 walk complete, u64 messages, u64 failed, u64 skipped
 *   FAILED   str folder, str text       a folder that a rebuild could not read
 *   END      u8 exit code (PROG_*), str text
 * Ownership, threads and errors: as struct buf and struct cursor.
 */
#ifndef MAILDEX_MAIL_WIRE_H
#define MAILDEX_MAIL_WIRE_H

#include "lib/base/sock.h"
#include "lib/mail/event.h"

#define WIRE_VERSION 1
#define WIRE_FS_SUFFIX ".fs"

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_EVENT,
	WIRE_NOTIFY,
	WIRE_SCAN,
	WIRE_STATUS,
	WIRE_REBUILD,
	WIRE_SERVE,
	WIRE_OK,
	WIRE_ERROR,
	WIRE_FEED,
	WIRE_PROGRESS,
	WIRE_FAILED,
	WIRE_END,
	WIRE_RENAME,
};

enum wire_role { WIRE_ROLE_NOTIFY = 1, WIRE_ROLE_FS, WIRE_ROLE_CTL };

/* Starts a message in b (which is emptied). */
void wire_begin(struct buf *b, enum wire_type type);
/* Opens a received message. Returns 0 and the type, -EPROTO for another version, -EBADMSG for too short. */
int wire_open(struct cursor *c, const void *data, size_t len, enum wire_type *type, struct err *e);
void wire_put_stamp(struct buf *b, const struct stamp *s);
void wire_get_stamp(struct cursor *c, struct stamp *s);
void wire_put_pass(struct buf *b, const struct fresh_pass *p);
void wire_get_pass(struct cursor *c, struct fresh_pass *p);

/* A scan handed over (SCAN). */
struct wire_scan {
	char folder[FOLDER_PATH_MAX + 1];
	enum half half;
	struct fresh_pass pass;
	bool unclear;
	struct listing listing;
};
/* Sends it with its memfd. Returns 0 or negative errno. */
int wire_send_scan(int fd, const char *folder, enum half half, const struct fresh_pass *pass, bool unclear,
		   const struct listing *l);
/* Takes it from an opened message and the descriptor that came with it (which stays the caller's). Returns 0 or
 * negative errno. */
int wire_get_scan(struct cursor *c, int memfd, struct wire_scan *s, struct err *e);
void wire_scan_release(struct wire_scan *s);

#endif
