/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/wire.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static const struct fresh_pass pass = {
	.number = 3,
	.s0 = {1, 2, 3, -4, 5, true},
	.s1 = {UINT64_MAX, 2, STAMP_NS_MAX, -STAMP_NS_MAX, 6, false},
	.server_now_ns = 77,
	.absent = true,
};

static void open_message(void **state)
{
	enum wire_type type;
	struct cursor c;
	struct buf b;
	struct err e = {""};

	(void)state;
	buf_init(&b);
	buf_put_u32(&b, 99);
	wire_begin(&b, WIRE_NOTIFY);
	buf_put_str(&b, "a/new/1.x", 9);
	assert_int_equal(wire_open(&c, b.data, b.len, &type, &e), 0);
	assert_int_equal(type, WIRE_NOTIFY);
	assert_int_equal(cursor_u32(&c), 9);
	/* An unknown type is the receiver's to answer. */
	b.data[1] = (char)200;
	assert_int_equal(wire_open(&c, b.data, b.len, &type, &e), 0);
	assert_int_equal(type, 200);
	b.data[0] = WIRE_VERSION + 1;
	assert_int_equal(wire_open(&c, b.data, b.len, &type, &e), -EPROTO);
	assert_int_equal(wire_open(&c, b.data, 1, &type, &e), -EPROTO);
	b.data[0] = WIRE_VERSION;
	assert_int_equal(wire_open(&c, b.data, 1, &type, &e), -EBADMSG);
	assert_int_equal(wire_open(&c, b.data, 0, &type, &e), -EBADMSG);
	assert_true(e.text[0] != '\0');
	buf_release(&b);
}

static void assert_same_pass(const struct fresh_pass *a, const struct fresh_pass *b)
{
	assert_int_equal(a->number, b->number);
	assert_true(stamp_eq(&a->s0, &b->s0) && a->s0.sized == b->s0.sized && a->s0.size == b->s0.size);
	assert_true(stamp_eq(&a->s1, &b->s1) && a->s1.sized == b->s1.sized && a->s1.size == b->s1.size);
	assert_int_equal(a->absent, b->absent);
	assert_int_equal(a->twins, b->twins);
}

static void passes(void **state)
{
	struct fresh_pass got, unknown = pass;
	struct cursor c;
	struct buf b;

	(void)state;
	buf_init(&b);
	wire_put_pass(&b, &pass);
	cursor_init(&c, b.data, b.len);
	wire_get_pass(&c, &got);
	assert_true(cursor_done(&c));
	assert_same_pass(&pass, &got);
	assert_true(got.server_now_ns == pass.server_now_ns);

	/* A server whose clock was never seen: still as good as never. */
	unknown.server_now_ns = INT64_MIN;
	buf_reset(&b);
	wire_put_pass(&b, &unknown);
	cursor_init(&c, b.data, b.len);
	wire_get_pass(&c, &got);
	assert_true(cursor_done(&c));
	assert_true(got.server_now_ns <= 0);
	buf_release(&b);
}

/* Values that later arithmetic could not bear. */
static void bad_values(void **state)
{
	struct fresh_pass got;
	struct cursor c;
	struct buf b;

	(void)state;
	buf_init(&b);
	wire_put_stamp(&b, &pass.s0);
	for (int i = 0; i < 2; i++) {
		b.data[16 + 8 * i + 7] = 0x7f; /* the top byte of ctime, of mtime */
		cursor_init(&c, b.data, b.len);
		wire_get_stamp(&c, &got.s0);
		assert_true(c.bad);
		b.data[16 + 8 * i + 7] = i ? (char)0xff : 0;
	}
	cursor_init(&c, b.data, b.len);
	wire_get_stamp(&c, &got.s0);
	assert_true(cursor_done(&c));
	b.data[40] = 2; /* sized */
	cursor_init(&c, b.data, b.len);
	wire_get_stamp(&c, &got.s0);
	assert_true(c.bad);
	buf_release(&b);
}

static void make_listing(struct listing *l, int n)
{
	char name[] = "0000.x:2,S";

	listing_init(l);
	for (int i = 0; i < n; i++) {
		struct listing_entry entry = {.ino = (uint64_t)i, .type = DT_REG, .len = 10, .name = name};

		for (int at = 3, v = i; at >= 0; at--, v /= 10)
			name[at] = (char)('0' + v % 10);
		assert_int_equal(listing_add(l, &entry), 0);
	}
}

/* Receives one message; returns its length. */
static size_t receive(int fd, char *data, int *passed)
{
	ssize_t n = sock_recv(fd, data, passed);

	assert_true(n > 0);
	return (size_t)n;
}

static void send_scan(void **state)
{
	static const int counts[] = {0, 1, 9000};
	char *data = malloc(SOCK_MSG_MAX);
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		enum wire_type type;
		struct wire_scan s;
		struct listing l;
		struct cursor c;
		int memfd;
		size_t len;

		make_listing(&l, counts[i]);
		assert_int_equal(wire_send_scan(pair[0], "a/.Sent", HALF_CUR, &pass, true, &l), 0);
		len = receive(pair[1], data, &memfd);
		assert_true(memfd >= 0);
		assert_int_equal(wire_open(&c, data, len, &type, NULL), 0);
		assert_int_equal(type, WIRE_SCAN);
		assert_int_equal(wire_get_scan(&c, memfd, &s, NULL), 0);
		assert_string_equal(s.folder, "a/.Sent");
		assert_int_equal(s.half, HALF_CUR);
		assert_same_pass(&s.pass, &pass);
		assert_true(s.unclear);
		assert_int_equal(s.listing.count, counts[i]);
		assert_true(s.listing.sum == l.sum);
		/* Sealed: what was checked stays so. */
		assert_true(write(memfd, "x", 1) < 0);
		assert_true(ftruncate(memfd, 0) < 0 || counts[i] == 0);
		wire_scan_release(&s);
		listing_release(&l);
		close(memfd);
	}
	close(pair[0]);
	close(pair[1]);
	free(data);
}

/* Writes a SCAN message's fields; bytes is what it claims. */
static void put_scan(struct buf *b, const char *folder, uint8_t half, const struct listing *l, uint64_t bytes)
{
	buf_reset(b);
	buf_put_str(b, folder, strlen(folder));
	buf_put_u8(b, half);
	wire_put_pass(b, &pass);
	buf_put_u8(b, 0);
	buf_put_u64(b, l->count);
	buf_put_u64(b, l->sum);
	buf_put_u64(b, bytes);
}

static int get_scan(const struct buf *b, int memfd)
{
	struct wire_scan s;
	struct cursor c;
	struct err e = {""};
	int rc;

	cursor_init(&c, b->data, b->len);
	rc = wire_get_scan(&c, memfd, &s, &e);
	assert_int_equal(e.text[0] != '\0', rc < 0);
	wire_scan_release(&s);
	return rc;
}

static void bad_scan(void **state)
{
	struct listing l;
	struct buf b;
	int memfd = memfd_create("test", MFD_CLOEXEC), ends[2];

	(void)state;
	buf_init(&b);
	make_listing(&l, 5);
	assert_int_equal(write(memfd, l.bytes.data, l.bytes.len), (ssize_t)l.bytes.len);
	put_scan(&b, "a", HALF_NEW, &l, l.bytes.len);
	assert_int_equal(get_scan(&b, memfd), 0); /* an unsealed one is copied first */
	assert_int_equal(get_scan(&b, -1), -EBADMSG);
	while (b.len-- > 0)
		assert_int_equal(get_scan(&b, memfd), -EBADMSG);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	put_scan(&b, "a", HALF_NEW, &l, l.bytes.len);
	assert_int_equal(get_scan(&b, ends[0]), -EBADMSG); /* would wait for ever */
	close(ends[0]);
	close(ends[1]);
	put_scan(&b, "a", 2, &l, l.bytes.len);
	assert_int_equal(get_scan(&b, memfd), -EBADMSG);
	put_scan(&b, "../a", HALF_NEW, &l, l.bytes.len);
	assert_int_equal(get_scan(&b, memfd), -EBADMSG);
	put_scan(&b, "a", HALF_NEW, &l, l.bytes.len - 1);
	assert_int_equal(get_scan(&b, memfd), -EBADMSG);
	put_scan(&b, "a", HALF_NEW, &l, UINT64_MAX);
	assert_int_equal(get_scan(&b, memfd), -EBADMSG);
	l.sum ^= 1;
	put_scan(&b, "a", HALF_NEW, &l, l.bytes.len);
	assert_int_equal(get_scan(&b, memfd), -EBADMSG);
	/* Larger than any folder: refused before memory is taken for it. */
	put_scan(&b, "a", HALF_NEW, &l, 1ULL << 40);
	assert_int_equal(ftruncate(memfd, 1LL << 40), 0);
	assert_int_equal(get_scan(&b, memfd), -EBADMSG);
	close(memfd);
	listing_release(&l);
	buf_release(&b);
}

static void random_scan(void **state)
{
	unsigned short seed[3] = {1, 2, 3};
	struct listing l;
	struct buf b;
	int memfd = memfd_create("test", MFD_CLOEXEC);

	(void)state;
	buf_init(&b);
	make_listing(&l, 5);
	assert_int_equal(write(memfd, l.bytes.data, l.bytes.len), (ssize_t)l.bytes.len);
	put_scan(&b, "a/b", HALF_NEW, &l, l.bytes.len);
	for (int round = 0; round < 50000; round++) {
		size_t len = round % 4 ? b.len : (size_t)nrand48(seed) % b.len;
		struct buf exact = {.data = malloc(len + 1), .len = len};
		int rc;

		memcpy(exact.data, b.data, len);
		for (size_t i = 0; i < len; i++)
			if (round % 2 == 0 || nrand48(seed) % 64 == 0)
				exact.data[i] = (char)nrand48(seed);
		rc = get_scan(&exact, memfd);
		assert_true(rc == 0 || rc == -EBADMSG);
		free(exact.data);
	}
	close(memfd);
	listing_release(&l);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open_message), cmocka_unit_test(passes),   cmocka_unit_test(bad_values),
		cmocka_unit_test(send_scan),    cmocka_unit_test(bad_scan), cmocka_unit_test(random_scan),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
