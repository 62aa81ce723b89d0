/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk that can lose its power: a SQLite VFS over the default one. It knows of each file in one folder what is on
 * the disk for certain (synced) and, in order, what was written, cut, renamed and removed since. powercut.h makes
 * from that what may be found after a power cut.
 *
 * Flow: powercut_install() makes it SQLite's default; then the store is used as always. `op` is called at each
 * change of the disk. A rename or an unlink of an index that SQLite does not do itself must be told:
 * powercut_renamed(), powercut_unlinked(). powercut_remove() at the end.
 * Shapes: files outside the folder are passed through, but never synced: they are only looked at.
 * Ownership: the struct is the caller's and must live until powercut_remove(); everything in it is ours.
 * Threads: one. Errors: out of memory ends the program.
 */
#ifndef MAILDEX_TESTS_POWERCUT_VFS_H
#define MAILDEX_TESTS_POWERCUT_VFS_H

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#define POWERCUT_NAMES 8 /* index, -wal, -journal, .damaged: never more at once */
#define POWERCUT_NAME 64
#define POWERCUT_SHM (32 * 1024) /* SQLite's own unit of it */

/* A write, or, without data, the new length of the file. */
struct powercut_op {
	struct powercut_op *next;
	size_t at, len;
	unsigned char *data;
};

/* A file, whatever its name. */
struct powercut_body {
	struct powercut_body *next;
	size_t len, room; /* what is on the disk for certain */
	unsigned char *bytes;
	struct powercut_op *first, **last;
	size_t nops;
};

struct powercut_name {
	char name[POWERCUT_NAME];
	struct powercut_body *body;
};

/* A change of names: `to` is that of `body`; else `from` is renamed to it; without `to`, `from` is removed. */
struct powercut_link {
	struct powercut_link *next;
	char from[POWERCUT_NAME], to[POWERCUT_NAME];
	struct powercut_body *body;
};

struct powercut {
	sqlite3_vfs vfs;
	sqlite3_vfs *real;
	char dir[PATH_MAX];
	size_t dir_len;
	bool lies; /* the disk says that it has synced a file, and has not */
	uint64_t random;
	struct powercut_body *bodies;
	struct powercut_name now[POWERCUT_NAMES], durable[POWERCUT_NAMES];
	struct powercut_link *first, **last;
	const volatile void *shm; /* NULL while it isn't mapped */
	unsigned long writes, syncs, others;
	/* what: a word for the reader of a failure; path: of the file */
	void (*op)(void *arg, const char *what, const char *path);
	void *arg;
};

struct powercut_file {
	sqlite3_file base;
	struct powercut *cut;
	struct powercut_body *body; /* NULL: not ours to watch */
	const char *path;
	bool names_too; /* SQLite syncs the folder with the first sync of a log */
	sqlite3_file real[];
};

/* ---- small words ---- */

static inline void *powercut_alloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p) {
		perror("powercut");
		abort();
	}
	return p;
}

/* splitmix64 */
static inline uint64_t powercut_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* 0 to n - 1 */
static inline size_t powercut_below(uint64_t *state, size_t n)
{
	return powercut_random(state) % n;
}

static inline void powercut_rubbish(uint64_t *state, unsigned char *to, size_t len)
{
	for (size_t n; len; to += n, len -= n) {
		uint64_t eight = powercut_random(state);

		n = len < sizeof(eight) ? len : sizeof(eight);
		memcpy(to, &eight, n);
	}
}

/* The name in our folder, or NULL for a file elsewhere. */
static inline const char *powercut_ours(const struct powercut *p, const char *path)
{
	bool ours = path && strncmp(path, p->dir, p->dir_len) == 0 && path[p->dir_len] == '/';

	return ours ? path + p->dir_len + 1 : NULL;
}

static inline void powercut_tell(const struct powercut *p, const char *what, const char *path)
{
	if (p->op)
		p->op(p->arg, what, path);
}

/* ---- names ---- */

static inline struct powercut_name *powercut_find(struct powercut_name *names, const char *name)
{
	for (size_t i = 0; i < POWERCUT_NAMES; i++)
		if (names[i].body && strcmp(names[i].name, name) == 0)
			return &names[i];
	return NULL;
}

static inline void powercut_put(struct powercut_name *names, const char *name, struct powercut_body *body)
{
	struct powercut_name *found = powercut_find(names, name);

	for (size_t i = 0; !found && i < POWERCUT_NAMES; i++)
		if (!names[i].body)
			found = &names[i];
	if (!found)
		abort();
	snprintf(found->name, sizeof(found->name), "%s", name);
	found->body = body;
}

static inline void powercut_link(struct powercut_name *names, const struct powercut_link *l)
{
	struct powercut_name *from = l->from[0] ? powercut_find(names, l->from) : NULL;
	struct powercut_body *body = from ? from->body : l->body;

	if (from)
		from->body = NULL;
	if (l->to[0] && body)
		powercut_put(names, l->to, body);
}

static inline void powercut_links_sync(struct powercut *p)
{
	while (p->first) {
		struct powercut_link *l = p->first;

		powercut_link(p->durable, l);
		p->first = l->next;
		free(l);
	}
	p->last = &p->first;
}

static inline void powercut_linked(struct powercut *p, const char *from, const char *to, struct powercut_body *body)
{
	struct powercut_link *l = powercut_alloc(sizeof(*l));

	snprintf(l->from, sizeof(l->from), "%s", from);
	snprintf(l->to, sizeof(l->to), "%s", to);
	l->body = body;
	*p->last = l;
	p->last = &l->next;
	powercut_link(p->now, l);
	p->others++;
}

/* The store renamed a file in our folder. */
static inline void powercut_renamed(struct powercut *p, const char *from, const char *to)
{
	powercut_linked(p, powercut_ours(p, from), powercut_ours(p, to), NULL);
	powercut_tell(p, "rename", from);
}

/* The store, or somebody else, removed a file in our folder. Nothing if it was not there. */
static inline void powercut_unlinked(struct powercut *p, const char *path)
{
	if (!powercut_find(p->now, powercut_ours(p, path)))
		return;
	powercut_linked(p, powercut_ours(p, path), "", NULL);
	powercut_tell(p, "unlink", path);
}

static inline struct powercut_body *powercut_body(struct powercut *p, const char *name)
{
	struct powercut_name *found = powercut_find(p->now, name);
	struct powercut_body *b;

	if (found)
		return found->body;
	b = powercut_alloc(sizeof(*b));
	b->last = &b->first;
	b->next = p->bodies;
	p->bodies = b;
	powercut_linked(p, "", name, b);
	return b;
}

/* Removed by the store without SQLite: what a deleted index left beside it. */
static inline void powercut_notice(struct powercut *p)
{
	for (size_t i = 0; i < POWERCUT_NAMES; i++) {
		char path[PATH_MAX + POWERCUT_NAME + 8];

		snprintf(path, sizeof(path), "%s/%s", p->dir, p->now[i].name);
		if (p->now[i].body && access(path, F_OK) < 0)
			powercut_linked(p, p->now[i].name, "", NULL);
	}
}

/* ---- content ---- */

static inline void powercut_resize(unsigned char **bytes, size_t *len, size_t *room, size_t to)
{
	if (to > *room) {
		unsigned char *more = powercut_alloc(2 * to);

		memcpy(more, *bytes ? *bytes : more, *len);
		free(*bytes);
		*bytes = more;
		*room = 2 * to;
	}
	if (to > *len)
		memset(*bytes + *len, 0, to - *len);
	*len = to;
}

static inline size_t powercut_op_end(const struct powercut_op *op, size_t len)
{
	if (!op->data)
		return op->at;
	return op->at + op->len > len ? op->at + op->len : len;
}

static inline void powercut_op_free(struct powercut_op *op)
{
	free(op->data);
	free(op);
}

static inline void powercut_body_sync(struct powercut_body *b)
{
	while (b->first) {
		struct powercut_op *op = b->first;

		powercut_resize(&b->bytes, &b->len, &b->room, powercut_op_end(op, b->len));
		if (op->data)
			memcpy(b->bytes + op->at, op->data, op->len);
		b->first = op->next;
		powercut_op_free(op);
	}
	b->last = &b->first;
	b->nops = 0;
}

static inline void powercut_changed(struct powercut_body *b, size_t at, const void *data, size_t len)
{
	struct powercut_op *op = powercut_alloc(sizeof(*op));

	op->at = at;
	op->len = len;
	if (data) {
		op->data = powercut_alloc(len);
		memcpy(op->data, data, len);
	}
	*b->last = op;
	b->last = &op->next;
	b->nops++;
}

/* ---- the file's methods ---- */

static inline struct powercut_file *powercut_file(sqlite3_file *f)
{
	return (struct powercut_file *)f;
}

#define POWERCUT_PASS(name, parameters, ...)                                                                           \
	static inline int powercut_##name parameters                                                                   \
	{                                                                                                              \
		sqlite3_file *real = powercut_file(f)->real;                                                           \
                                                                                                                       \
		return real->pMethods->name(real, ##__VA_ARGS__);                                                      \
	}
POWERCUT_PASS(xRead, (sqlite3_file * f, void *to, int n, sqlite3_int64 at), to, n, at)
POWERCUT_PASS(xFileSize, (sqlite3_file * f, sqlite3_int64 *size), size)
POWERCUT_PASS(xLock, (sqlite3_file * f, int how), how)
POWERCUT_PASS(xUnlock, (sqlite3_file * f, int how), how)
POWERCUT_PASS(xCheckReservedLock, (sqlite3_file * f, int *out), out)
POWERCUT_PASS(xFileControl, (sqlite3_file * f, int op, void *arg), op, arg)
POWERCUT_PASS(xSectorSize, (sqlite3_file * f))
POWERCUT_PASS(xDeviceCharacteristics, (sqlite3_file * f))
POWERCUT_PASS(xShmLock, (sqlite3_file * f, int at, int n, int flags), at, n, flags)

static inline int powercut_xClose(sqlite3_file *f)
{
	sqlite3_file *real = powercut_file(f)->real;
	int rc = real->pMethods ? real->pMethods->xClose(real) : SQLITE_OK;

	f->pMethods = NULL;
	return rc;
}

static inline int powercut_xWrite(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
	struct powercut_file *file = powercut_file(f);
	int rc = file->real->pMethods->xWrite(file->real, data, n, at);

	if (rc == SQLITE_OK && file->body) {
		powercut_changed(file->body, (size_t)at, data, (size_t)n);
		file->cut->writes++;
		powercut_tell(file->cut, "write", file->path);
	}
	return rc;
}

static inline int powercut_xTruncate(sqlite3_file *f, sqlite3_int64 to)
{
	struct powercut_file *file = powercut_file(f);
	int rc = file->real->pMethods->xTruncate(file->real, to);

	if (rc == SQLITE_OK && file->body) {
		powercut_changed(file->body, (size_t)to, NULL, 0);
		file->cut->others++;
		powercut_tell(file->cut, "truncate", file->path);
	}
	return rc;
}

/* Nothing is really synced: no power is cut that the test would survive. */
static inline int powercut_xSync(sqlite3_file *f, int flags)
{
	struct powercut_file *file = powercut_file(f);

	(void)flags;
	if (!file->body)
		return SQLITE_OK;
	file->cut->syncs++;
	if (!file->cut->lies)
		powercut_body_sync(file->body);
	if (file->names_too)
		powercut_links_sync(file->cut);
	file->names_too = false;
	powercut_tell(file->cut, "sync", file->path);
	return SQLITE_OK;
}

static inline int powercut_xShmMap(sqlite3_file *f, int region, int size, int extend, void volatile **out)
{
	struct powercut_file *file = powercut_file(f);
	int rc = file->real->pMethods->xShmMap(file->real, region, size, extend, out);

	if (rc == SQLITE_OK && file->body && region == 0 && size == POWERCUT_SHM)
		file->cut->shm = *out;
	return rc;
}

static inline void powercut_xShmBarrier(sqlite3_file *f)
{
	sqlite3_file *real = powercut_file(f)->real;

	real->pMethods->xShmBarrier(real);
}

static inline int powercut_xShmUnmap(sqlite3_file *f, int remove)
{
	struct powercut_file *file = powercut_file(f);

	if (file->body)
		file->cut->shm = NULL;
	return file->real->pMethods->xShmUnmap(file->real, remove);
}

/* Version 2: with shared memory, without mmap of the file itself, which would write past us. */
static const sqlite3_io_methods powercut_methods = {
	.iVersion = 2,
	.xClose = powercut_xClose,
	.xRead = powercut_xRead,
	.xWrite = powercut_xWrite,
	.xTruncate = powercut_xTruncate,
	.xSync = powercut_xSync,
	.xFileSize = powercut_xFileSize,
	.xLock = powercut_xLock,
	.xUnlock = powercut_xUnlock,
	.xCheckReservedLock = powercut_xCheckReservedLock,
	.xFileControl = powercut_xFileControl,
	.xSectorSize = powercut_xSectorSize,
	.xDeviceCharacteristics = powercut_xDeviceCharacteristics,
	.xShmMap = powercut_xShmMap,
	.xShmLock = powercut_xShmLock,
	.xShmBarrier = powercut_xShmBarrier,
	.xShmUnmap = powercut_xShmUnmap,
};

/* ---- the VFS's methods ---- */

static inline int powercut_xOpen(sqlite3_vfs *v, const char *path, sqlite3_file *f, int flags, int *out)
{
	struct powercut *p = v->pAppData;
	struct powercut_file *file = powercut_file(f);
	const int logs = SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL;
	const char *name = powercut_ours(p, path);
	int rc;

	if (name)
		powercut_notice(p);
	*file = (struct powercut_file){.cut = p, .path = path};
	file->real->pMethods = NULL;
	rc = p->real->xOpen(p->real, path, file->real, flags, out);
	/* SQLite closes what has methods. */
	f->pMethods = file->real->pMethods ? &powercut_methods : NULL;
	if (rc != SQLITE_OK || !name)
		return rc;
	file->body = powercut_body(p, name);
	file->names_too = (flags & SQLITE_OPEN_CREATE) && (flags & logs);
	powercut_tell(p, "open", path);
	return rc;
}

static inline int powercut_xDelete(sqlite3_vfs *v, const char *path, int sync_names)
{
	struct powercut *p = v->pAppData;
	int rc = p->real->xDelete(p->real, path, 0);

	if (rc != SQLITE_OK || !powercut_ours(p, path))
		return rc;
	powercut_unlinked(p, path);
	if (sync_names)
		powercut_links_sync(p);
	return rc;
}

/* SQLite's random numbers (a log's salt) are ours: what was found once is found again. */
static inline int powercut_xRandomness(sqlite3_vfs *v, int n, char *out)
{
	struct powercut *p = v->pAppData;

	powercut_rubbish(&p->random, (unsigned char *)out, (size_t)n);
	return n;
}

static inline void powercut_install(struct powercut *p, const char *dir, uint64_t seed)
{
	*p = (struct powercut){.real = sqlite3_vfs_find(NULL), .random = seed};
	p->dir_len = (size_t)snprintf(p->dir, sizeof(p->dir), "%s", dir);
	p->last = &p->first;
	/* All else of it works on the real one's own data. */
	p->vfs = *p->real;
	p->vfs.pNext = NULL;
	p->vfs.zName = "powercut";
	p->vfs.szOsFile = (int)sizeof(struct powercut_file) + p->real->szOsFile;
	p->vfs.pAppData = p;
	p->vfs.xOpen = powercut_xOpen;
	p->vfs.xDelete = powercut_xDelete;
	p->vfs.xRandomness = powercut_xRandomness;
	if (sqlite3_vfs_register(&p->vfs, 1) != SQLITE_OK)
		abort();
	sqlite3_randomness(0, NULL);
}

static inline void powercut_remove(struct powercut *p)
{
	sqlite3_vfs_unregister(&p->vfs);
	sqlite3_vfs_register(p->real, 1);
	powercut_links_sync(p);
	while (p->bodies) {
		struct powercut_body *b = p->bodies;

		p->bodies = b->next;
		powercut_body_sync(b);
		free(b->bytes);
		free(b);
	}
}

#endif
