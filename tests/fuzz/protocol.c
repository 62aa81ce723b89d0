/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a peer may send to maildexd: real messages over a real socket pair to the real request_handle(). Whatever comes,
 * only what this peer may say, and only what is well-formed, gets past it, and the answer is the one that
 * lib/mail/wire.h promises.
 *
 * Input: u8 peer (bit 0: trusted; bits 1-2: the role that it has said HELLO with, 0: none yet), then messages: u16 how
 * (bits 0-11 length; bit 12: a memfd comes with it, u16 its length and content after the message; bit 13: the message's
 * last 24 bytes become what the memfd holds; bit 14: a pipe instead; bit 15: of another version), the bytes (without the
 * version).
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "indexer/request.h"
#include "lib/base/log.h"
#include "tests/fuzz/fuzz.h"

#define PEER_ID 7
#define HOW_LEN 0xfff
#define HOW_MEMFD 0x1000
#define HOW_RIGHT 0x2000
#define HOW_PIPE 0x4000
#define HOW_NEWER 0x8000

struct world {
	struct request_tools tools;
	struct origins origins;
	struct tally tally;
	struct peer *peer;
	int client;
	/* Of the message under way. */
	enum wire_type type;
	const char *message; /* behind version and type */
	size_t len;
	unsigned events, scans, renames, gaps, statuses, rebuilds;
};

/* ---- what gets past it ---- */

/* An event that was sent is the event that arrives, less what an unprivileged or doubled one may not claim. */
static void check_event(const struct world *w, const struct event *ev)
{
	struct event sent;
	struct cursor c;
	struct buf a, b;

	cursor_init(&c, w->message, w->len);
	CHECK(event_decode(&sent, &c, NULL) == 0 && cursor_done(&c));
	CHECK(sent.windowed || !ev->windowed);
	sent.windowed = ev->windowed;
	buf_init(&a);
	buf_init(&b);
	event_encode(&sent, &a);
	event_encode(ev, &b);
	CHECK(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
	buf_release(&a);
	buf_release(&b);
	event_release(&sent);
}

/* A path that was told is the event's folder, half and name. */
static void check_notify(const struct world *w, const struct event *ev)
{
	const struct change *ch = ev->changes;
	char whole[FOLDER_PATH_MAX + NAME_LEN_MAX + 8];
	struct cursor c;
	const char *path;
	size_t len;

	cursor_init(&c, w->message, w->len);
	path = cursor_str(&c, SOCK_MSG_MAX, &len);
	while (len > 0 && path[len - 1] == '/')
		len--;
	CHECK(ev->nchanges == 1 && ch->ino == 0 && !ev->windowed);
	CHECK(ch->kind == CHANGE_LOOK ? ch->len == 0 : ch->kind == CHANGE_ADD && name_ok(ch->name, ch->len));
	snprintf(whole, sizeof(whole), "%s%s%s%s%s", ev->folder, ev->folder[0] ? "/" : "", half_word(ev->half),
		 ch->len ? "/" : "", ch->name);
	if (ch->kind == CHANGE_LOOK && strlen(ev->folder) == len && ev->half == HALF_NEW)
		whole[len] = '\0';
	CHECK(strlen(whole) == len && memcmp(whole, path, len) == 0);
}

static void on_event(void *arg, struct event *ev, uint64_t from)
{
	struct world *w = arg;

	w->events++;
	CHECK(w->peer->hello && (w->type == WIRE_EVENT || w->type == WIRE_NOTIFY));
	CHECK(from == (w->type == WIRE_EVENT ? PEER_ID : 0));
	CHECK(w->peer->trusted || !ev->windowed);
	CHECK(folder_path_check(ev->folder, strlen(ev->folder), NULL) == 0);
	if (w->type == WIRE_EVENT)
		check_event(w, ev);
	else
		check_notify(w, ev);
	event_release(ev);
}

static void on_scan(void *arg, struct wire_scan *scan, uint64_t from)
{
	const struct listing *l = &scan->listing;
	struct world *w = arg;
	struct listing again;

	w->scans++;
	CHECK(w->peer->hello && w->peer->trusted && w->type == WIRE_SCAN && from == PEER_ID);
	CHECK(folder_path_check(scan->folder, strlen(scan->folder), NULL) == 0);
	listing_init(&again);
	CHECK(listing_parse(&again, l->bytes.data, l->bytes.len, l->count, l->sum) == 0);
	listing_release(&again);
	fresh_scan(&scan->pass);
	wire_scan_release(scan);
	free(scan);
}

static void on_rename(void *arg, const char *from, const char *to)
{
	struct world *w = arg;

	w->renames++;
	CHECK(w->peer->hello && w->peer->trusted && w->type == WIRE_RENAME);
	CHECK(*from && folder_path_check(from, strlen(from), NULL) == 0);
	CHECK(*to && folder_path_check(to, strlen(to), NULL) == 0);
}

static void on_gap(void *arg, const char *why)
{
	struct world *w = arg;

	w->gaps++;
	CHECK(*why && w->type == WIRE_EVENT && w->peer->role == WIRE_ROLE_FS);
}

static void on_status(void *arg, struct buf *out)
{
	struct world *w = arg;

	w->statuses++;
	CHECK(w->peer->hello && w->type == WIRE_STATUS);
	tally_print(&w->tally, out);
}

static int on_rebuild(void *arg, uint64_t peer, bool all, char **paths, size_t n, struct err *e)
{
	struct world *w = arg;

	w->rebuilds++;
	CHECK(w->peer->hello && w->peer->trusted && w->type == WIRE_REBUILD && peer == PEER_ID);
	CHECK(all || n > 0);
	for (size_t i = 0; i < n; i++) {
		CHECK(folder_path_check(paths[i], strlen(paths[i]), NULL) == 0);
		free(paths[i]);
	}
	free(paths);
	return n == 3 ? err_set(e, -EBUSY, "busy") : 0;
}

/* ---- the answer ---- */

/* Reads the one answer, if there is one. Returns its type or 0. */
static enum wire_type read_answer(const struct world *w)
{
	static char data[SOCK_MSG_MAX];
	enum wire_type type;
	struct cursor c;
	size_t len;
	int passed;
	ssize_t n = sock_recv(w->client, data, &passed);

	if (n == -EAGAIN)
		return 0;
	CHECK(n > 0 && passed == -1);
	CHECK(wire_open(&c, data, (size_t)n, &type, NULL) == 0);
	if (type == WIRE_OK) {
		CHECK(cursor_done(&c));
	} else {
		const char *text = cursor_str(&c, SOCK_MSG_MAX, &len);

		CHECK((type == WIRE_ERROR || type == WIRE_STATUS) && cursor_done(&c));
		CHECK(len > 0 && !memchr(text, '\0', len));
	}
	CHECK(sock_recv(w->client, data, &passed) == -EAGAIN);
	return type;
}

static void check_answer(const struct world *w, enum request_verdict verdict, enum wire_type answer)
{
	unsigned done = w->events + w->scans + w->renames + w->statuses + w->rebuilds;

	CHECK(done <= 1);
	CHECK(verdict == REQUEST_GO_ON || (answer == WIRE_ERROR && !done));
	switch (answer) {
	case WIRE_OK:
		CHECK(w->type == WIRE_NOTIFY && w->events == 1);
		break;
	case WIRE_STATUS:
		CHECK(w->type == WIRE_STATUS && w->statuses == 1);
		break;
	case WIRE_ERROR:
		CHECK(!done || w->rebuilds);
		break;
	default: /* none: done, or nothing to do */
		CHECK(done || w->type == WIRE_HELLO || w->type == WIRE_END);
		CHECK(w->type != WIRE_NOTIFY && w->type != WIRE_STATUS && w->type != WIRE_SERVE);
	}
}

/* ---- the messages ---- */

/* What stands in the listing, as far as it is one. */
static void put_right(char *tail, const uint8_t *bytes, size_t len)
{
	struct listing l = {.bytes = {.data = (char *)bytes, .len = len}};
	struct listing_entry entry;
	struct buf b;
	size_t at = 0;

	buf_init(&b);
	while (listing_next(&l, &at, &entry)) {
		l.count++;
		l.sum += listing_entry_hash(&entry);
	}
	buf_put_u64(&b, l.count);
	buf_put_u64(&b, l.sum);
	buf_put_u64(&b, len);
	memcpy(tail, b.data, b.len);
	buf_release(&b);
}

/* Takes the descriptor that goes along, or -1; may put it right in the message. */
static int take_descriptor(struct fuzz_in *in, unsigned how, char *message, size_t len)
{
	const uint8_t *bytes;
	size_t n = fuzz_take(in, fuzz_number(in, 2), &bytes);
	int ends[2], fd;

	if (how & HOW_PIPE) {
		CHECK(pipe2(ends, O_CLOEXEC) == 0);
		close(ends[1]);
		return ends[0];
	}
	fd = memfd_create("fuzz", MFD_CLOEXEC);
	CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	if ((how & HOW_RIGHT) && len >= 24 + 2)
		put_right(message + len - 24, bytes, n);
	return fd;
}

/* One message there and its answer back. Returns false when the connection is over. */
static bool exchange(struct world *w, struct fuzz_in *in)
{
	static char received[SOCK_MSG_MAX];
	unsigned how = (unsigned)fuzz_number(in, 2);
	const uint8_t *bytes;
	size_t len = fuzz_take(in, how & HOW_LEN, &bytes);
	char *message = malloc(len + 1), *exact;
	enum request_verdict verdict;
	int fd = -1, passed;
	ssize_t n;

	CHECK(message);
	message[0] = how & HOW_NEWER ? WIRE_VERSION + 1 : WIRE_VERSION;
	memcpy(message + 1, bytes, len);
	len++;
	if (how & (HOW_MEMFD | HOW_PIPE))
		fd = take_descriptor(in, how, message, len);
	CHECK(sock_send(w->client, message, len, fd) == 0);
	if (fd >= 0)
		close(fd);
	n = sock_recv(w->peer->fd, received, &passed);
	CHECK(n == (ssize_t)len && memcmp(received, message, len) == 0 && (passed >= 0) == (fd >= 0));
	exact = fuzz_copy(received, len);
	w->type = len > 1 && !(how & HOW_NEWER) ? (enum wire_type)(uint8_t)exact[1] : 0;
	w->message = exact + 2;
	w->len = len > 1 ? len - 2 : 0;
	w->events = w->scans = w->renames = w->gaps = w->statuses = w->rebuilds = 0;
	verdict = request_handle(&w->tools, w->peer, exact, len, passed);
	check_answer(w, verdict, read_answer(w));
	if (passed >= 0)
		close(passed);
	free(exact);
	free(message);
	return verdict == REQUEST_GO_ON;
}

/* What is kept of the senders over a clean restart. */
static void check_origins(const struct origins *o)
{
	struct origins again;
	struct buf a, b, back;

	buf_init(&a);
	buf_init(&b);
	buf_init(&back);
	origins_init(&again);
	origins_print(o, &a);
	CHECK(origins_parse(&again, a.data ? a.data : "") == 0);
	origins_print(&again, &b);
	/* In the other order. */
	origins_release(&again);
	CHECK(origins_parse(&again, b.data ? b.data : "") == 0);
	origins_print(&again, &back);
	CHECK(a.len == b.len && a.len == back.len && (a.len == 0 || memcmp(a.data, back.data, a.len) == 0));
	origins_release(&again);
	buf_release(&a);
	buf_release(&b);
	buf_release(&back);
}

static void world_init(struct world *w, uint8_t flags)
{
	int pair[2];

	log_open("fuzz", LOG_LEVEL_ERROR);
	memset(w, 0, sizeof(*w));
	origins_init(&w->origins);
	w->tools = (struct request_tools){
		.sink = {.arg = w, .event = on_event, .scan = on_scan, .rename = on_rename, .gap = on_gap},
		.control = {.arg = w, .status = on_status, .rebuild = on_rebuild},
		.origins = &w->origins,
		.tally = &w->tally};
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	w->client = pair[0];
	w->peer = peer_new(pair[1], PEER_ID);
	CHECK(w->peer);
	w->peer->trusted = flags & 1;
	w->peer->role = (enum wire_role)(flags >> 1 & 3);
	w->peer->hello = w->peer->role != 0;
	if (!w->peer->trusted && w->peer->role == WIRE_ROLE_FS)
		w->peer->role = WIRE_ROLE_NOTIFY;
	if (w->peer->hello)
		strcpy(w->peer->name, "host");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in;
	struct world w;

	fuzz_in_init(&in, data, size);
	world_init(&w, fuzz_u8(&in));
	for (int i = 0; i < 64 && in.left > 0; i++)
		if (!exchange(&w, &in))
			break;
	CHECK(!w.peer->hello || w.peer->trusted || w.peer->role != WIRE_ROLE_FS);
	check_origins(&w.origins);
	origins_release(&w.origins);
	peer_free(w.peer);
	close(w.client);
	return 0;
}
