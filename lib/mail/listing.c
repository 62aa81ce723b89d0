/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/listing.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define RECORD_HEAD 10
/* As much as one READDIR reply of a modern NFS server carries: fewer system calls, and no more memory than is touched.
 */
#define GETDENTS_BYTES (1024 * 1024)

void listing_init(struct listing *l)
{
	buf_init(&l->bytes);
	l->count = 0;
	l->sum = 0;
}

void listing_release(struct listing *l)
{
	buf_release(&l->bytes);
	l->count = 0;
	l->sum = 0;
}

void listing_reset(struct listing *l)
{
	buf_reset(&l->bytes);
	l->count = 0;
	l->sum = 0;
}

uint64_t listing_hash(const char *name, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(name, len, seed);
}

int listing_add(struct listing *l, const struct listing_entry *entry)
{
	/* All or nothing: room first, so that memory running out never leaves half a record. */
	if (!buf_reserve(&l->bytes, RECORD_HEAD + (size_t)entry->len))
		return -ENOMEM;
	buf_put_u64(&l->bytes, entry->ino);
	buf_put_u8(&l->bytes, entry->type);
	buf_put_u8(&l->bytes, entry->len);
	buf_put(&l->bytes, entry->name, entry->len);
	if (!buf_ok(&l->bytes))
		return -ENOMEM;
	l->count++;
	l->sum += listing_entry_hash(entry);
	return 0;
}

/* Takes one record off the cursor; it may be anything. */
static void record_get(struct cursor *c, struct listing_entry *entry)
{
	entry->ino = cursor_u64(c);
	entry->type = cursor_u8(c);
	entry->len = cursor_u8(c);
	entry->name = c->at;
	if (c->bad || entry->len > c->left) {
		c->bad = true;
		return;
	}
	c->at += entry->len;
	c->left -= entry->len;
}

int listing_next(const struct listing *l, size_t *at, struct listing_entry *entry)
{
	struct cursor c;

	if (*at >= l->bytes.len)
		return 0;
	cursor_init(&c, l->bytes.data + *at, l->bytes.len - *at);
	record_get(&c, entry);
	*at = l->bytes.len - c.left;
	return c.bad ? 0 : 1;
}

static bool entry_ok(const struct listing_entry *entry)
{
	return name_ok(entry->name, entry->len) && !name_is_nfs(entry->name, entry->len);
}

int listing_parse(struct listing *l, const void *data, size_t len, uint64_t count, uint64_t sum)
{
	struct listing_entry entry;
	struct cursor c;

	listing_reset(l);
	/* Copied first, checked after: the bytes may lie in memory that somebody else can still write. */
	buf_put(&l->bytes, data, len);
	if (!buf_ok(&l->bytes)) {
		listing_reset(l);
		return -ENOMEM;
	}
	cursor_init(&c, l->bytes.data, l->bytes.len);
	while (c.left > 0) {
		record_get(&c, &entry);
		if (c.bad || !entry_ok(&entry))
			goto bad;
		l->count++;
		l->sum += listing_entry_hash(&entry);
	}
	if (l->count == count && l->sum == sum)
		return 0;
bad:
	listing_reset(l);
	return -EBADMSG;
}

/* One record of getdents64(2); counts it in *all and adds it unless it is not to be listed. */
static int take_dirent(struct listing *l, const struct dirent64 *d, uint64_t *all)
{
	size_t len = strlen(d->d_name);
	struct listing_entry entry = {.ino = d->d_ino, .type = d->d_type, .len = (uint8_t)len, .name = d->d_name};

	if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
		return 0;
	/* A filesystem that hands out '/' or 300 bytes is broken: say so rather than list half a folder. */
	if (!name_ok(d->d_name, len))
		return -EUCLEAN;
	++*all;
	if (name_is_nfs(entry.name, len))
		return 0;
	if (entry.type == DT_UNKNOWN && name_is_message(entry.name, len))
		entry.type = DT_REG;
	return listing_add(l, &entry);
}

static int read_once(int dirfd, char *dents, struct listing *l, uint64_t *all)
{
	listing_reset(l);
	*all = 0;
	if (lseek(dirfd, 0, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		long n = syscall(SYS_getdents64, dirfd, dents, GETDENTS_BYTES);

		if (n <= 0)
			return n < 0 ? -errno : 0;
		for (long at = 0; at < n;) {
			const struct dirent64 *d = (const struct dirent64 *)(dents + at);
			int rc = take_dirent(l, d, all);

			if (rc < 0)
				return rc;
			at += d->d_reclen;
		}
	}
}

int listing_read(int dirfd, struct listing *l, uint64_t *all)
{
	char *dents = malloc(GETDENTS_BYTES);
	int rc;

	if (!dents)
		return -ENOMEM;
	rc = read_once(dirfd, dents, l, all);
	/* Some NFS servers answer a listing that races with changes so; the next try succeeds. */
	if (rc == -EREMOTEIO)
		rc = read_once(dirfd, dents, l, all);
	free(dents);
	if (rc < 0)
		listing_reset(l);
	return rc;
}
