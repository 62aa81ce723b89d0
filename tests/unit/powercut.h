/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a folder may look like after a power cut, made from what powercut_vfs.h saw.
 *
 * What may happen to what was not synced, as a page cache that writes back whenever it likes allows: each sector
 * (512 or 4096 bytes) is found as it was at any moment since the last sync, independent of all others; so is the
 * length of a file; what a longer file gained but was never written there is zeros or rubbish; of the changes of
 * names the first few are found, or any. The -shm is memory: it is gone, as it was, or rubbish.
 *
 * Flow: powercut_image(), at any moment, also from the VFS's `op`. Ownership: nothing is kept. Threads: one.
 * Errors: out of memory, or a file that can't be written, ends the program.
 */
#ifndef MAILDEX_TESTS_POWERCUT_H
#define MAILDEX_TESTS_POWERCUT_H

#include "tests/unit/powercut_vfs.h"

/* How one file was caught. */
struct powercut_fate {
	enum { FATE_LOST, FATE_KEPT, FATE_MOMENT, FATE_SECTORS, FATES } kind;
	size_t sector, moment;
	size_t odds; /* FATE_SECTORS: so many of 8 sectors are either new or old as a whole */
	bool rubbish;
};

/* How many of the file's changes has this sector seen? */
static inline size_t powercut_seen(const struct powercut_body *b, const struct powercut_fate *fate, uint64_t *random)
{
	switch (fate->kind) {
	case FATE_LOST:
		return 0;
	case FATE_KEPT:
		return b->nops;
	case FATE_MOMENT:
		return fate->moment;
	default:
		if (powercut_below(random, 8) < fate->odds)
			return powercut_below(random, 2) * b->nops;
		return powercut_below(random, b->nops + 1);
	}
}

static inline size_t powercut_len(const struct powercut_body *b, size_t seen)
{
	size_t len = b->len;

	for (const struct powercut_op *op = b->first; op && seen; op = op->next, seen--)
		len = powercut_op_end(op, len);
	return len;
}

/* One change as far as the sectors have seen it; the n-th. */
static inline void powercut_replay(const struct powercut_op *op, size_t n, const size_t *seen, size_t sector,
				   unsigned char *bytes, size_t len)
{
	size_t from = op->at, to = op->data ? op->at + op->len : len;

	for (size_t end; from < to; from = end) {
		end = (from / sector + 1) * sector;
		if (end > to)
			end = to;
		if (seen[from / sector] <= n)
			continue;
		if (op->data)
			memcpy(bytes + from, op->data + (from - op->at), end - from);
		else
			memset(bytes + from, 0, end - from);
	}
}

/* The file as it is found; *len may be 0. */
static inline unsigned char *powercut_content(const struct powercut_body *b, const struct powercut_fate *fate,
					      uint64_t *random, size_t *len)
{
	size_t room = b->len, n = 0, *seen;
	unsigned char *bytes;

	for (const struct powercut_op *op = b->first; op; op = op->next)
		room = op->at + op->len > room ? op->at + op->len : room;
	bytes = powercut_alloc(room);
	if (b->len)
		memcpy(bytes, b->bytes, b->len);
	if (fate->rubbish)
		powercut_rubbish(random, bytes + b->len, room - b->len);
	seen = powercut_alloc((room / fate->sector + 1) * sizeof(*seen));
	for (size_t i = 0; i <= room / fate->sector; i++)
		seen[i] = powercut_seen(b, fate, random);
	for (const struct powercut_op *op = b->first; op; op = op->next, n++)
		powercut_replay(op, n, seen, fate->sector, bytes, room);
	*len = powercut_len(b, powercut_seen(b, fate, random));
	free(seen);
	return bytes;
}

static inline void powercut_write(const char *dir, const char *name, const void *bytes, size_t len)
{
	char path[PATH_MAX + POWERCUT_NAME + 8];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len) {
		perror(path);
		abort();
	}
	close(fd);
}

static inline void powercut_shm_image(const struct powercut *p, uint64_t *random, const char *dir, const char *name)
{
	unsigned char *bytes;
	char shm[POWERCUT_NAME + 8];
	size_t how = powercut_below(random, 4);

	if (how > 1 || !p->shm)
		return;
	bytes = powercut_alloc(POWERCUT_SHM);
	if (how)
		memcpy(bytes, (const void *)p->shm, POWERCUT_SHM);
	else
		powercut_rubbish(random, bytes, POWERCUT_SHM);
	snprintf(shm, sizeof(shm), "%s-shm", name);
	powercut_write(dir, shm, bytes, POWERCUT_SHM);
	free(bytes);
}

/* Puts what may be found after a cut into `dir`, which must be empty. index: the database's name. */
static inline void powercut_image(const struct powercut *p, uint64_t *random, const char *dir, const char *index)
{
	struct powercut_name names[POWERCUT_NAMES];
	bool ordered = powercut_below(random, 2), go_on = true;
	size_t sector = powercut_below(random, 2) ? 512 : 4096;

	memcpy(names, p->durable, sizeof(names));
	for (const struct powercut_link *l = p->first; l && go_on; l = l->next) {
		if (powercut_below(random, 4))
			powercut_link(names, l);
		else
			go_on = !ordered;
	}
	for (size_t i = 0; i < POWERCUT_NAMES; i++) {
		const struct powercut_body *b = names[i].body;
		struct powercut_fate fate = {.kind = powercut_below(random, FATES + 2), .sector = sector};
		unsigned char *bytes;
		size_t len;

		if (!b)
			continue;
		fate.moment = powercut_below(random, b->nops + 1);
		fate.odds = powercut_below(random, 9);
		fate.rubbish = !powercut_below(random, 4);
		bytes = powercut_content(b, &fate, random, &len);
		powercut_write(dir, names[i].name, bytes, len);
		free(bytes);
	}
	powercut_shm_image(p, random, dir, index);
}

#endif
