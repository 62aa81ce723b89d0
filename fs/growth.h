/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that grow: a size is told to others when the kernel knows it too.
 *
 * The race: the kernel takes a file's new size over when the writer's thread goes on, some time after our reply. A
 * GETATTR of somebody else that is answered with the new size before that hands it to its caller, but not to the
 * kernel's own reads and mappings: who maps the file up to there gets SIGBUS, who reads there gets nothing (Dovecot maps
 * its logs).
 *
 * Flow: growth_began() when a write arrives, growth_ended() before the reply to it; growth_seen() where a request
 * arrives: its thread has gone on. GETATTR: growth_await(), ask below, growth_size().
 * Shapes: the kernel lets one write to a file be under way at a time, so one that arrives tells that those before are
 * over. Who asks meanwhile is told the size before it. Who asks when it is answered waits until its thread goes on: it
 * sends another request, or is seen in another system call; GROWTH_WAIT_NS at most, since it may only compute (on a busy
 * machine it may also not have had its turn yet: so long).
 * Threads: any.
 * Errors: none.
 */
#ifndef MAILDEX_FS_GROWTH_H
#define MAILDEX_FS_GROWTH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define GROWTH_WAIT_NS (200 * NS_PER_MS)

/* In each node; zero at first. */
struct growth {
	int64_t sure, size; /* what the kernel knows; what it will know when the writer goes on */
	unsigned writes;    /* under way, behind `size` */
	pid_t writer;       /* of the last one that ended */
	int64_t ended_ns;   /* 0: it has gone on */
	uint64_t count;     /* of beginnings */
};

/* `end` is where the write ends. Returns true if that is behind what is known; then call growth_ended(). */
bool growth_began(struct growth *g, int64_t end);
/* Negative end: it failed. */
void growth_ended(struct growth *g, pid_t writer, int64_t end);
/* A file was opened, perhaps emptied by that. */
void growth_told(struct growth *g, int64_t size);
/* A thread sends another request. */
void growth_seen(pid_t thread);

struct growth_asked {
	uint64_t count;
	int64_t sure;
	bool under_way;
};

/* Waits for a writer other than `asker`. */
struct growth_asked growth_await(struct growth *g, pid_t asker);
/* What may be told of the size that was found below since. */
int64_t growth_size(struct growth *g, const struct growth_asked *asked, int64_t size);

#endif
