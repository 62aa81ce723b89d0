/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fs/fs.h"
#include "fs/guard.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/mail/wire.h"

static struct {
	pthread_t thread;
	int listener, wake[2];
	bool running;
	char path[PATH_MAX];
} control = {.listener = -1};

static void print_status(struct fs *fs, struct buf *b)
{
	size_t folders, bytes, nodes;

	pthread_mutex_lock(&fs->lives.lock);
	folders = fs->lives.count;
	bytes = fs->lives.bytes[0] + fs->lives.bytes[1];
	pthread_mutex_unlock(&fs->lives.lock);
	pthread_mutex_lock(&fs->nodes.lock);
	nodes = fs->nodes.count;
	pthread_mutex_unlock(&fs->nodes.lock);
	buf_printf(b, "maildexfs.version %s\n", MAILDEX_VERSION);
	buf_printf(b, "maildexfs.pid %d\n", (int)getpid());
	buf_printf(b, "maildexfs.uptime_s %lld\n", (long long)((clock_mono_ns() - fs->started_ns) / NS_PER_S));
	buf_printf(b, "maildexfs.state %s\n",
		   guard_check(fs) < 0 ? "tree: root is not the tree that was mounted" : "ok");
	buf_printf(b, "maildexfs.mount %s\n", fs->mountpoint);
	buf_printf(b, "maildexfs.root %s\n", fs->conf->root);
	buf_printf(b, "maildexfs.maildexd %s\n", atomic_load(&fs->feed.connected) ? "connected" : "away");
	buf_printf(b, "maildexfs.live.folders %zu\n", folders);
	buf_printf(b, "maildexfs.live.bytes %zu\n", bytes);
	buf_printf(b, "maildexfs.nodes %zu\n", nodes);
	buf_printf(b, "maildexfs.listings_saved %" PRIu64 "\n", counter_get(COUNT_SERVED));
	backing_print(b);
	counters_print(b);
}

static void send_text(int fd, enum wire_type type, const char *text, size_t len)
{
	struct buf b;

	buf_init(&b);
	wire_begin(&b, type);
	if (len > SOCK_MSG_MAX - 64)
		len = SOCK_MSG_MAX - 64;
	buf_put_str(&b, text, len);
	if (buf_ok(&b))
		sock_send(fd, b.data, b.len, -1);
	buf_release(&b);
}

static void send_error(int fd, const char *text)
{
	send_text(fd, WIRE_ERROR, text, strlen(text));
}

/* Reads the mailboxes of a SERVE message, up to its end. Returns 0 or negative errno with a text. */
static int check_paths(struct cursor c, uint32_t n, struct err *e)
{
	char path[FOLDER_PATH_MAX + 1];

	for (uint32_t i = 0; i < n; i++) {
		size_t len = cursor_str_copy(&c, path, FOLDER_PATH_MAX);
		int r = c.bad ? err_set(e, -EBADMSG, "a mailbox path that is too long or malformed")
			      : folder_path_check(path, len, e);

		if (r < 0)
			return r;
	}
	return cursor_done(&c) ? 0 : err_set(e, -EBADMSG, "a malformed request");
}

/* Sets those that were checked. */
static int serve_paths(struct fs *fs, struct cursor *c, enum serve_mode mode, uint32_t n, struct err *e)
{
	char path[FOLDER_PATH_MAX + 1];

	for (uint32_t i = 0; i < n; i++) {
		int r;

		cursor_str_copy(c, path, FOLDER_PATH_MAX);
		r = serve_set(&fs->serve, path, mode);
		if (r == -ENOSPC || r == -ENOMEM)
			err_set(e, r, "too many mailboxes with a mode of their own");
		if (r < 0)
			return r;
		log_info("serve %s for %s", serve_mode_word(mode), path);
	}
	return 0;
}

static void handle_serve(struct fs *fs, int fd, struct cursor *c)
{
	uint8_t set = cursor_u8(c), mode = cursor_u8(c);
	uint32_t n = cursor_u32(c);
	struct sock_peer peer;
	struct buf b;
	struct err e;
	int r;

	if (c->bad || mode > SERVE_COMPARE) {
		send_error(fd, "a malformed request");
		return;
	}
	if (set && (sock_peer(fd, &peer) < 0 || (peer.uid != 0 && peer.uid != geteuid()))) {
		send_error(fd, "only root may change what is served");
		return;
	}
	r = check_paths(*c, n, &e);
	if (r == 0 && set && n == 0) {
		serve_set_all(&fs->serve, (enum serve_mode)mode);
		log_info("serve %s", serve_mode_word((enum serve_mode)mode));
	} else if (r == 0 && set) {
		r = serve_paths(fs, c, (enum serve_mode)mode, n, &e);
	}
	if (r < 0) {
		send_error(fd, e.text);
		return;
	}
	buf_init(&b);
	serve_print(&fs->serve, &b);
	send_text(fd, WIRE_STATUS, b.data ? b.data : "", b.len);
	buf_release(&b);
}

/* Returns false when the connection is over. */
static bool handle(struct fs *fs, int fd, char *data)
{
	enum wire_type type;
	struct cursor c;
	struct err e;
	struct buf b;
	int passed = -1;
	ssize_t n = sock_recv(fd, data, &passed);

	if (passed >= 0)
		close(passed);
	if (n <= 0)
		return n == -EAGAIN;
	if (wire_open(&c, data, (size_t)n, &type, &e) < 0) {
		send_error(fd, e.text);
		return true;
	}
	switch (type) {
	case WIRE_HELLO:
		break;
	case WIRE_STATUS:
		buf_init(&b);
		print_status(fs, &b);
		send_text(fd, WIRE_STATUS, b.data ? b.data : "", b.len);
		buf_release(&b);
		break;
	case WIRE_SERVE:
		handle_serve(fs, fd, &c);
		break;
	default:
		send_error(fd, "maildexfs answers status and serve only; ask maildexd");
		break;
	}
	return true;
}

static void *control_main(void *arg)
{
	struct pollfd p[2 + CONTROL_PEERS_MAX];
	struct fs *fs = arg;
	char *data = malloc(SOCK_MSG_MAX);
	nfds_t n = 2;

	p[0] = (struct pollfd){.fd = control.wake[0], .events = POLLIN};
	p[1] = (struct pollfd){.fd = control.listener, .events = POLLIN};
	while (data) {
		if (poll(p, n, -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents)
			break;
		for (nfds_t i = n; i-- > 2;) {
			if (!p[i].revents || handle(fs, p[i].fd, data))
				continue;
			close(p[i].fd);
			p[i] = p[--n];
		}
		if (p[1].revents) {
			int fd = accept4(control.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

			if (fd >= 0 && n == 2 + CONTROL_PEERS_MAX) {
				send_error(fd, "too many connections");
				close(fd);
			} else if (fd >= 0) {
				p[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
			}
		}
	}
	for (nfds_t i = 2; i < n; i++)
		close(p[i].fd);
	free(data);
	return NULL;
}

int control_start(struct fs *fs, struct err *e)
{
	int r;

	snprintf(control.path, sizeof(control.path), "%s%s", fs->conf->socket, WIRE_FS_SUFFIX);
	control.listener = sock_listen(control.path, 0666, e);
	if (control.listener < 0)
		return control.listener;
	if (pipe2(control.wake, O_CLOEXEC) < 0)
		return err_sys(e, "cannot make a pipe");
	r = pthread_create(&control.thread, NULL, control_main, fs);
	if (r)
		return err_set(e, -r, "cannot start a thread");
	control.running = true;
	return 0;
}

void control_stop(struct fs *fs)
{
	(void)fs;
	if (control.running) {
		if (write(control.wake[1], "", 1) == 1)
			pthread_join(control.thread, NULL);
		close(control.wake[0]);
		close(control.wake[1]);
	}
	if (control.listener >= 0) {
		unlink(control.path);
		close(control.listener);
	}
}
