/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Four million names of the longest kind: more is no folder, but a peer that would fill our memory. */
#define SCAN_BYTES_MAX (1024 * 1024 * 1024ULL)

void wire_begin(struct buf *b, enum wire_type type)
{
	buf_reset(b);
	buf_put_u8(b, WIRE_VERSION);
	buf_put_u8(b, (uint8_t)type);
}

int wire_open(struct cursor *c, const void *data, size_t len, enum wire_type *type, struct err *e)
{
	uint8_t version, number;

	cursor_init(c, data, len);
	version = cursor_u8(c);
	if (!c->bad && version != WIRE_VERSION)
		return err_set(e, -EPROTO, "message of version %u: this program speaks version %u", version,
			       WIRE_VERSION);
	number = cursor_u8(c);
	if (c->bad)
		return err_set(e, -EBADMSG, "message of %zu bytes: too short", len);
	*type = (enum wire_type)number;
	return 0;
}

/* A truth value is 0 or 1; anything else is no message of ours. */
static bool get_bool(struct cursor *c)
{
	uint8_t v = cursor_u8(c);

	c->bad |= v > 1;
	return v == 1;
}

static int64_t get_time(struct cursor *c)
{
	int64_t ns = (int64_t)cursor_u64(c);

	/* Differences of such times are taken later; see STAMP_NS_MAX. */
	if (ns > STAMP_NS_MAX || ns < -STAMP_NS_MAX) {
		c->bad = true;
		return 0;
	}
	return ns;
}

void wire_put_stamp(struct buf *b, const struct stamp *s)
{
	buf_put_u64(b, s->dev);
	buf_put_u64(b, s->ino);
	buf_put_u64(b, (uint64_t)s->ctime_ns);
	buf_put_u64(b, (uint64_t)s->mtime_ns);
	buf_put_u64(b, s->size);
	buf_put_u8(b, s->sized);
}

void wire_get_stamp(struct cursor *c, struct stamp *s)
{
	s->dev = cursor_u64(c);
	s->ino = cursor_u64(c);
	s->ctime_ns = get_time(c);
	s->mtime_ns = get_time(c);
	s->size = cursor_u64(c);
	s->sized = get_bool(c);
}

/* INT64_MIN (nothing known of the server's clock) travels as 0: as far below every real stamp. */
void wire_put_pass(struct buf *b, const struct fresh_pass *p)
{
	buf_put_u32(b, p->number);
	wire_put_stamp(b, &p->s0);
	wire_put_stamp(b, &p->s1);
	buf_put_u64(b, p->server_now_ns < -STAMP_NS_MAX ? 0 : (uint64_t)p->server_now_ns);
	buf_put_u8(b, p->absent);
	buf_put_u8(b, p->twins);
}

void wire_get_pass(struct cursor *c, struct fresh_pass *p)
{
	p->number = cursor_u32(c);
	wire_get_stamp(c, &p->s0);
	wire_get_stamp(c, &p->s1);
	p->server_now_ns = get_time(c);
	p->absent = get_bool(c);
	p->twins = get_bool(c);
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Returns a sealed memfd with the bytes or negative errno. */
static int memfd_with(const char *data, size_t len)
{
	int fd = memfd_create("maildex-listing", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc;

	if (fd < 0)
		return -errno;
	rc = write_all(fd, data, len);
	if (rc == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		rc = -errno;
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

int wire_send_scan(int fd, const char *folder, enum half half, const struct fresh_pass *pass, bool unclear,
		   const struct listing *l)
{
	struct buf b;
	int memfd, rc;

	if (l->bytes.len > SCAN_BYTES_MAX)
		return -EMSGSIZE;
	memfd = memfd_with(l->bytes.data, l->bytes.len);
	if (memfd < 0)
		return memfd;
	buf_init(&b);
	wire_begin(&b, WIRE_SCAN);
	buf_put_str(&b, folder, strlen(folder));
	buf_put_u8(&b, (uint8_t)half);
	wire_put_pass(&b, pass);
	buf_put_u8(&b, unclear);
	buf_put_u64(&b, l->count);
	buf_put_u64(&b, l->sum);
	buf_put_u64(&b, l->bytes.len);
	rc = buf_ok(&b) ? sock_send(fd, b.data, b.len, memfd) : -ENOMEM;
	buf_release(&b);
	close(memfd);
	return rc;
}

/* Copies exactly len bytes out of the descriptor; the peer may still be writing to it. */
static int read_exactly(int fd, char *out, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = pread(fd, out + at, len - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		at += (size_t)n;
	}
	return 0;
}

static int get_listing(int memfd, uint64_t bytes, uint64_t count, uint64_t sum, struct listing *l, struct err *e)
{
	struct stat st;
	char *data;
	int rc;

	/* A pipe or a device could make us wait for ever. */
	if (memfd < 0 || fstat(memfd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, -EBADMSG, "scan: came without its listing");
	if (bytes > SCAN_BYTES_MAX || (uint64_t)st.st_size != bytes)
		return err_set(e, -EBADMSG, "scan: says %llu bytes of listing, %lld came", (unsigned long long)bytes,
			       (long long)st.st_size);
	data = malloc(bytes + 1);
	if (!data)
		return err_set(e, -ENOMEM, "scan: no memory for %llu bytes", (unsigned long long)bytes);
	rc = read_exactly(memfd, data, bytes);
	if (rc == 0)
		rc = listing_parse(l, data, bytes, count, sum);
	free(data);
	if (rc == 0)
		return 0;
	listing_release(l);
	return err_set(e, rc, "scan: listing: %s", strerror(-rc));
}

int wire_get_scan(struct cursor *c, int memfd, struct wire_scan *s, struct err *e)
{
	uint64_t count, sum, bytes;
	uint8_t half;
	size_t len;

	memset(s, 0, sizeof(*s));
	listing_init(&s->listing);
	len = cursor_str_copy(c, s->folder, FOLDER_PATH_MAX);
	half = cursor_u8(c);
	wire_get_pass(c, &s->pass);
	s->unclear = get_bool(c);
	count = cursor_u64(c);
	sum = cursor_u64(c);
	bytes = cursor_u64(c);
	if (!cursor_done(c))
		return err_set(e, -EBADMSG, "scan: malformed");
	if (half >= HALVES)
		return err_set(e, -EBADMSG, "scan: the half is neither new nor cur");
	s->half = (enum half)half;
	if (folder_path_check(s->folder, len, e) < 0)
		return -EBADMSG;
	return get_listing(memfd, bytes, count, sum, &s->listing, e);
}

void wire_scan_release(struct wire_scan *s)
{
	listing_release(&s->listing);
}
