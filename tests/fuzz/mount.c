/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a mount is sent: the real threads of maildexfs on both of its sockets, over a real Maildir without a mount. What
 * maildexd sends (FEED) may say anything: events are hints, so the next opening of the folder lists what is there. What
 * maildexctl sends is answered once, and serves what it says.
 *
 * Input: messages: u16 how (bits 0-11 length; bit 12: to the mount's own socket; bit 13: the event's window begins with
 * the stamp that the listing stands for), the bytes (without the version).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fs/control.h"
#include "fs/fs.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/mail/wire.h"
#include "tests/fuzz/fuzz.h"

#define MESSAGES 30
#define HOW_LEN 0xfff
#define HOW_CONTROL 0x1000
#define HOW_KNOWN 0x2000
#define PATIENCE_NS (10 * NS_PER_S)

static struct fs *fs;
static struct conf conf;
static struct node *cur;
static char top[200];
static int daemon_fd, control_fd;
static char in[SOCK_MSG_MAX];

/* ---- the mount ---- */

static void message_name(unsigned i, char name[64])
{
	snprintf(name, 64, "%u.M%uP1.h:2,%s", 1700000000 + i, i, i % 2 ? "S" : "");
}

static void make_tree(void)
{
	static const char *const dirs[] = {"u", "u/Maildir", "u/Maildir/new", "u/Maildir/cur", "u/Maildir/tmp"};
	const char *base = getenv("TMPDIR");
	char path[300], name[64];

	snprintf(top, sizeof(top), "%s/mount.XXXXXX", base ? base : "/tmp");
	CHECK(mkdtemp(top));
	for (size_t i = 0; i < LEN(dirs); i++) {
		snprintf(path, sizeof(path), "%s/%s", top, dirs[i]);
		CHECK(mkdir(path, 0700) == 0);
	}
	for (unsigned i = 0; i < MESSAGES; i++) {
		message_name(i, name);
		snprintf(path, sizeof(path), "%s/u/Maildir/cur/%s", top, name);
		close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	}
}

static void remove_tree(void)
{
	static const char *const dirs[] = {"u/Maildir/tmp", "u/Maildir/cur", "u/Maildir/new", "u/Maildir", "u", ""};
	char path[300], name[64];

	for (unsigned i = 0; i < MESSAGES; i++) {
		message_name(i, name);
		snprintf(path, sizeof(path), "%s/u/Maildir/cur/%s", top, name);
		unlink(path);
	}
	for (size_t i = 0; i < LEN(dirs); i++) {
		snprintf(path, sizeof(path), "%s/%s", top, dirs[i]);
		rmdir(path);
	}
}

/* As the kernel's LOOKUP of a directory. */
static struct node *look(struct node *parent, const char *name)
{
	int fd = node_dir_get(&fs->nodes, parent);
	struct statx stx;
	struct node *n;

	CHECK(fd >= 0 && statx(fd, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &stx) == 0);
	n = node_lookup(&fs->nodes, parent, name, &stx, openat(fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC));
	CHECK(n);
	node_dir_put(&fs->nodes, parent);
	return n;
}

/* What the feed sends, of its own accord: it is well-formed, too. */
static void drain(void)
{
	struct wire_scan scan;
	enum wire_type type;
	struct event ev;
	struct cursor c;
	int passed;
	ssize_t n;

	while ((n = sock_recv(daemon_fd, in, &passed)) > 0) {
		CHECK(wire_open(&c, in, (size_t)n, &type, NULL) == 0);
		if (type == WIRE_EVENT) {
			CHECK(event_decode(&ev, &c, NULL) == 0 && cursor_done(&c));
			event_release(&ev);
		} else if (type == WIRE_SCAN) {
			CHECK(wire_get_scan(&c, passed, &scan, NULL) == 0);
			wire_scan_release(&scan);
		} else {
			CHECK(type == WIRE_HELLO);
		}
		if (passed >= 0)
			close(passed);
	}
}

static void stop(void)
{
	char path[300];

	after_stop(fs);
	feed_stop(fs);
	control_stop(fs);
	live_cache_release(fs);
	store_readers_free(fs->index);
	node_table_release(&fs->nodes);
	serve_release(&fs->serve);
	tree_close(&fs->tree);
	close(daemon_fd);
	close(control_fd);
	snprintf(path, sizeof(path), "%s/s", top);
	unlink(path);
	conf_release(&conf);
	free(fs);
	remove_tree();
}

static void start_parts(void)
{
	char index[300];
	struct err e;

	snprintf(index, sizeof(index), "%s/none.sqlite", top);
	CHECK(tree_open(&fs->tree, top, &e) == 0);
	serve_init(&fs->serve, SERVE_INDEX);
	CHECK(node_table_init(&fs->nodes, &fs->tree, 64, &e) == 0);
	CHECK(live_cache_init(&fs->lives, 1 << 20, 2) == 0);
	CHECK(store_readers_new(&fs->index, index, fs->tree.identity) == 0);
	inval_init(&fs->inval);
}

static void start(void)
{
	char text[300];
	struct err e;
	int listener;

	log_open("fuzz", LOG_LEVEL_ERROR);
	make_tree();
	fs = calloc(1, sizeof(*fs));
	CHECK(fs);
	conf_init(&conf);
	conf.window_min = 10;
	fs->conf = &conf;
	snprintf(text, sizeof(text), "socket=%s/s", top);
	CHECK(conf_set(&conf, text, &e) == 0);
	start_parts();
	listener = sock_listen(conf.socket, 0600, &e);
	CHECK(listener >= 0);
	CHECK(feed_start(fs, &e) == 0 && after_start(fs, &e) == 0 && control_start(fs, &e) == 0);
	CHECK(poll(&(struct pollfd){.fd = listener, .events = POLLIN}, 1, 10000) == 1);
	daemon_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	close(listener);
	snprintf(text, sizeof(text), "%s%s", conf.socket, WIRE_FS_SUFFIX);
	control_fd = sock_connect(text, false, &e);
	CHECK(daemon_fd >= 0 && control_fd >= 0);
	while (!atomic_load(&fs->feed.connected))
		sched_yield();
	cur = look(look(look(fs->nodes.root, "u"), "Maildir"), "cur");
	CHECK(node_is_half(&fs->nodes, cur));
	atexit(stop);
}

/* ---- what is listed ---- */

static struct snapshot *list(struct stamp *known)
{
	const struct cred self = {.uid = geteuid(), .gid = getegid()};
	int fd = node_dir_get(&fs->nodes, cur), error;
	struct live *l = live_get(fs, cur, &error);
	struct snapshot *s;

	CHECK(fd >= 0 && l);
	CHECK(live_open(fs, l, fd, &self) == 0);
	s = live_snapshot(l, false);
	CHECK(s);
	pthread_mutex_lock(&l->lock);
	*known = l->fresh.known;
	pthread_mutex_unlock(&l->lock);
	live_put(fs, l);
	node_dir_put(&fs->nodes, cur);
	return s;
}

/* Exactly what is on disk, each name once. Returns the stamp that it stands for. */
static struct stamp check_listed(void)
{
	bool seen[MESSAGES] = {false};
	struct stamp known;
	struct snapshot *s = list(&known);
	struct snapshot_entry e;
	struct snapshot_walk w;
	unsigned n = 0;

	snapshot_walk_init(&w, s);
	while (snapshot_walk_next(&w, &e)) {
		char name[64];

		if (e.entry.name[0] == '.') /* "." and ".." */
			continue;
		unsigned i = (unsigned)strtoul(e.entry.name, NULL, 10) - 1700000000;

		CHECK(i < MESSAGES && !seen[i]);
		message_name(i, name);
		CHECK(e.entry.len == strlen(name) && memcmp(e.entry.name, name, e.entry.len) == 0);
		seen[i] = true;
		n++;
	}
	CHECK(n == MESSAGES);
	snapshot_unref(s);
	return known;
}

/* ---- what is sent ---- */

/* How often feed_apply() will be called for the message. */
static unsigned events_in(const char *message, size_t len)
{
	enum wire_type type;
	struct event ev;
	struct cursor c;

	if (wire_open(&c, message, len, &type, NULL) < 0 || type != WIRE_FEED || event_decode(&ev, &c, NULL) < 0)
		return 0;
	event_release(&ev);
	return 1;
}

/* The window, if there is one, becomes one that the listing can be raised by. */
static void put_known(char *message, size_t len, const struct stamp *known)
{
	struct cursor c;
	struct buf b;
	size_t folder;

	cursor_init(&c, message, len);
	/* Version and type of the message, version and length of the event. */
	for (int i = 0; i < 2 + 1 + 4; i++)
		cursor_u8(&c);
	cursor_str(&c, FOLDER_PATH_MAX, &folder);
	cursor_u8(&c);
	if (cursor_u8(&c) != 1 || c.bad || c.left < 2 * 41)
		return;
	buf_init(&b);
	wire_put_stamp(&b, known);
	memcpy(message + (len - c.left), b.data, b.len);
	buf_release(&b);
}

static void send_to(int fd, const char *message, size_t len)
{
	while (sock_send(fd, message, len, -1) == -EAGAIN)
		sched_yield();
}

/* Waits until all that was sent is done: the last one is counted when those before it are. */
static void wait_for_feed(uint64_t count)
{
	int64_t give_up = clock_mono_ns() + PATIENCE_NS;
	struct event ev;
	struct buf b;

	buf_init(&b);
	wire_begin(&b, WIRE_FEED);
	event_init(&ev, "nobody", HALF_CUR);
	event_encode(&ev, &b);
	send_to(daemon_fd, b.data, b.len);
	buf_release(&b);
	while (counter_get(COUNT_FEED) < count + 1) {
		CHECK(clock_mono_ns() < give_up);
		sched_yield();
	}
	CHECK(counter_get(COUNT_FEED) == count + 1);
}

/* A SERVE that was answered has done what it says. */
static void check_serve(const char *message, size_t len)
{
	char path[FOLDER_PATH_MAX + 1];
	struct cursor c;
	uint8_t set, mode;
	uint32_t n;

	cursor_init(&c, message + 2, len - 2);
	set = cursor_u8(&c);
	mode = cursor_u8(&c);
	n = cursor_u32(&c);
	CHECK(!c.bad && mode <= SERVE_COMPARE);
	if (set && n == 0)
		CHECK(serve_of(&fs->serve, "anybody") == (enum serve_mode)mode);
	for (uint32_t i = 0; set && i < n; i++) {
		cursor_str_copy(&c, path, FOLDER_PATH_MAX);
		CHECK(!c.bad && folder_path_check(path, strlen(path), NULL) == 0);
		CHECK(serve_of(&fs->serve, path) == (enum serve_mode)mode);
	}
	CHECK(!set || cursor_done(&c));
}

/* To the mount's own socket: one answer, unless it is a greeting. */
static void ask(const char *message, size_t len)
{
	enum wire_type asked = WIRE_ERROR, type;
	struct cursor c;
	const char *text;
	size_t text_len;
	int passed;
	ssize_t n;

	send_to(control_fd, message, len);
	if (wire_open(&c, message, len, &asked, NULL) == 0 && asked == WIRE_HELLO)
		return;
	n = sock_recv(control_fd, in, &passed);
	CHECK(n > 0 && passed == -1);
	CHECK(wire_open(&c, in, (size_t)n, &type, NULL) == 0);
	text = cursor_str(&c, SOCK_MSG_MAX, &text_len);
	CHECK(cursor_done(&c) && text_len > 0);
	if (type == WIRE_STATUS) {
		CHECK(asked == WIRE_STATUS || asked == WIRE_SERVE);
		CHECK(text[text_len - 1] == '\n' && strncmp(text, asked == WIRE_STATUS ? "maildexfs." : "* ", 2) == 0);
		if (asked == WIRE_SERVE)
			check_serve(message, len);
	} else {
		CHECK(type == WIRE_ERROR && asked != WIRE_STATUS);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stamp known;
	struct fuzz_in rest;
	uint64_t count;

	if (!fs)
		start();
	serve_set_all(&fs->serve, SERVE_INDEX);
	known = check_listed();
	count = counter_get(COUNT_FEED);
	fuzz_in_init(&rest, data, size);
	for (int i = 0; i < 32 && rest.left > 0; i++) {
		unsigned how = (unsigned)fuzz_number(&rest, 2);
		const uint8_t *bytes;
		size_t len = fuzz_take(&rest, how & HOW_LEN, &bytes);
		char *message = malloc(len + 1);

		CHECK(message);
		message[0] = WIRE_VERSION;
		memcpy(message + 1, bytes, len);
		if (how & HOW_KNOWN)
			put_known(message, len + 1, &known);
		if (how & HOW_CONTROL) {
			ask(message, len + 1);
		} else {
			count += events_in(message, len + 1);
			send_to(daemon_fd, message, len + 1);
		}
		free(message);
	}
	wait_for_feed(count);
	serve_set_all(&fs->serve, SERVE_INDEX);
	check_listed();
	drain();
	return 0;
}
