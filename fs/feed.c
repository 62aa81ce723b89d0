/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/feed.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/fs.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/mail/wire.h"

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000
#define GOODBYE_MS 1000

/* ---- out ---- */

static void item_free(struct feed_item *item)
{
	event_release(&item->event);
	if (item->scan) {
		scan_release(item->scan);
		free(item->scan);
	}
	free(item->to);
	free(item);
}

/* Queues it; drops it if nobody listens or too much waits. */
static void enqueue(struct fs *fs, struct feed_item *item)
{
	struct feed *f = &fs->feed;
	bool take;

	pthread_mutex_lock(&f->lock);
	take = atomic_load(&f->connected) && f->waiting < FEED_QUEUE_MAX;
	if (!item->scan && !item->to)
		item->event.sequence = ++f->sequence;
	if (take) {
		*f->last = item;
		f->last = &item->next;
		f->waiting++;
	}
	pthread_mutex_unlock(&f->lock);
	if (!take) {
		counter_add(COUNT_EVENTS_DROPPED, 1);
		item_free(item);
	} else if (write(f->wake[1], "", 1) < 0 && errno != EAGAIN) {
		log_debug("feed: cannot wake the sender: %s", strerror(errno));
	}
}

void feed_send(struct fs *fs, struct event *ev)
{
	struct feed_item *item;

	if (!ev)
		return;
	item = calloc(1, sizeof(*item));
	if (item) {
		event_move(&item->event, ev);
		enqueue(fs, item);
	}
	event_free(ev);
}

void feed_send_changes(struct fs *fs, const char *folder, enum half half, const struct change *changes, size_t n)
{
	struct event *ev = event_new(folder, half);

	for (size_t i = 0; ev && i < n; i++)
		event_add(ev, &changes[i]);
	feed_send(fs, ev);
}

void feed_send_scan(struct fs *fs, const char *folder, enum half half, struct scan *scan)
{
	struct feed_item *item = calloc(1, sizeof(*item));

	if (!item) {
		scan_release(scan);
		free(scan);
		return;
	}
	event_init(&item->event, folder, half);
	item->scan = scan;
	enqueue(fs, item);
}

void feed_send_rename(struct fs *fs, const char *from, const char *to)
{
	struct feed_item *item = calloc(1, sizeof(*item));

	if (!item)
		return;
	event_init(&item->event, from, HALF_NEW);
	item->to = strdup(to);
	if (item->to)
		enqueue(fs, item);
	else
		item_free(item);
}

static struct feed_item *dequeue(struct feed *f)
{
	struct feed_item *item;

	pthread_mutex_lock(&f->lock);
	item = f->first;
	if (item) {
		f->first = item->next;
		if (!f->first)
			f->last = &f->first;
		f->waiting--;
	}
	pthread_mutex_unlock(&f->lock);
	return item;
}

static int send_item(struct fs *fs, int fd, struct feed_item *item)
{
	struct buf b;
	int r;

	if (item->scan)
		return wire_send_scan(fd, item->event.folder, item->event.half, &item->scan->last, item->scan->unclear,
				      &item->scan->listing);
	buf_init(&b);
	if (item->to) {
		wire_begin(&b, WIRE_RENAME);
		buf_put_str(&b, item->event.folder, strlen(item->event.folder));
		buf_put_str(&b, item->to, strlen(item->to));
	} else {
		wire_begin(&b, WIRE_EVENT);
		snprintf(item->event.origin, sizeof(item->event.origin), "%s", fs->conf->host);
		item->event.epoch = fs->feed.epoch;
		event_encode(&item->event, &b);
	}
	r = buf_ok(&b) ? sock_send(fd, b.data, b.len, -1) : -ENOMEM;
	buf_release(&b);
	return r;
}

/* Sends what waits. *held keeps the item that did not fit. Returns 0, -EAGAIN, or the error that ends the connection.
 */
static int drain(struct fs *fs, int fd, struct feed_item **held)
{
	int r;

	for (;;) {
		if (!*held)
			*held = dequeue(&fs->feed);
		if (!*held)
			return 0;
		r = send_item(fs, fd, *held);
		if (r == -EAGAIN)
			return r;
		if (r < 0 && r != -EMSGSIZE && r != -ENOMEM)
			return r;
		counter_add(r == 0 ? COUNT_EVENTS_SENT : COUNT_EVENTS_DROPPED, 1);
		item_free(*held);
		*held = NULL;
	}
}

/* ---- the connection ---- */

static int receive(struct fs *fs, int fd, char *data)
{
	struct cursor c;
	struct event ev;
	struct err e;
	enum wire_type type;
	int passed;
	ssize_t n = sock_recv(fd, data, &passed);

	if (passed >= 0)
		close(passed);
	if (n <= 0)
		return n == -EAGAIN ? 0 : n < 0 ? (int)n : -EPIPE;
	if (wire_open(&c, data, (size_t)n, &type, &e) < 0) {
		log_warn("feed: %s", e.text);
		return 0;
	}
	if (type == WIRE_FEED) {
		if (event_decode(&ev, &c, &e) < 0) {
			log_warn("feed: %s", e.text);
			return 0;
		}
		feed_apply(fs, &ev);
		event_release(&ev);
	} else if (type == WIRE_ERROR) {
		char text[ERR_TEXT_MAX];

		cursor_str_copy(&c, text, sizeof(text) - 1);
		log_warn("maildexd says: %s", text);
	}
	return 0;
}

static int hello(struct fs *fs, int fd)
{
	struct buf b;
	int r;

	buf_init(&b);
	wire_begin(&b, WIRE_HELLO);
	buf_put_u8(&b, WIRE_ROLE_FS);
	buf_put_str(&b, fs->conf->host, strlen(fs->conf->host));
	r = buf_ok(&b) ? sock_send(fd, b.data, b.len, -1) : -ENOMEM;
	buf_release(&b);
	return r;
}

static bool stopping(struct feed *f)
{
	bool stop;

	pthread_mutex_lock(&f->lock);
	stop = f->stop;
	pthread_mutex_unlock(&f->lock);
	return stop;
}

/* Everything sent, then the goodbye that says so: no gap for the next start. */
static void goodbye(struct fs *fs, int fd, struct feed_item **held)
{
	int64_t until = clock_mono_ns() + GOODBYE_MS * NS_PER_MS;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	struct buf b;
	int r;

	while ((r = drain(fs, fd, held)) == -EAGAIN && clock_mono_ns() < until)
		poll(&p, 1, 50);
	if (r < 0)
		return;
	buf_init(&b);
	wire_begin(&b, WIRE_END);
	buf_put_u8(&b, 0);
	buf_put_str(&b, "", 0);
	if (buf_ok(&b))
		sock_send(fd, b.data, b.len, -1);
	buf_release(&b);
}

static void converse(struct fs *fs, int fd, char *data)
{
	struct feed *f = &fs->feed;
	struct feed_item *held = NULL;
	char bytes[256];
	int r = 0;

	while (!stopping(f) && r == 0) {
		struct pollfd p[2] = {{.fd = fd, .events = POLLIN | (held ? POLLOUT : 0)},
				      {.fd = f->wake[0], .events = POLLIN}};

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents && read(f->wake[0], bytes, sizeof(bytes)) < 0 && errno != EAGAIN)
			break;
		if (p[0].revents & (POLLIN | POLLHUP | POLLERR))
			r = receive(fs, fd, data);
		if (r == 0)
			r = drain(fs, fd, &held);
		if (r == -EAGAIN)
			r = 0;
	}
	if (stopping(f))
		goodbye(fs, fd, &held);
	if (held) {
		counter_add(COUNT_EVENTS_DROPPED, 1);
		item_free(held);
	}
}

static void disconnected(struct fs *fs)
{
	struct feed_item *item;

	atomic_store(&fs->feed.connected, false);
	while ((item = dequeue(&fs->feed))) {
		counter_add(COUNT_EVENTS_DROPPED, 1);
		item_free(item);
	}
	feed_gap(fs);
}

static void *feed_main(void *arg)
{
	struct fs *fs = arg;
	struct feed *f = &fs->feed;
	char *data = malloc(SOCK_MSG_MAX), bytes[256];
	int pause_ms = RETRY_MIN_MS;
	bool said = false;
	struct err e;

	cred_thread_start();
	while (data && !stopping(f)) {
		int fd = sock_connect(fs->conf->socket, true, &e);

		if (fd >= 0 && hello(fs, fd) == 0) {
			log_info("connected to maildexd at %s", fs->conf->socket);
			pthread_mutex_lock(&f->lock);
			f->epoch = (uint64_t)clock_real_ns();
			f->sequence = 0;
			pthread_mutex_unlock(&f->lock);
			atomic_store(&f->connected, true);
			converse(fs, fd, data);
			disconnected(fs);
			pause_ms = RETRY_MIN_MS;
			if (!stopping(f))
				log_warn("maildexd at %s is gone: changed folders are listed from the lower tree until "
					 "it is back",
					 fs->conf->socket);
			said = true;
		} else if (!said) {
			log_warn("%s: changed folders are listed from the lower tree until maildexd answers",
				 fd >= 0 ? "maildexd does not take a greeting" : e.text);
			said = true;
		}
		if (fd >= 0)
			close(fd);
		if (!stopping(f)) {
			struct pollfd p = {.fd = f->wake[0], .events = POLLIN};

			if (poll(&p, 1, pause_ms) > 0 && read(f->wake[0], bytes, sizeof(bytes)) < 0)
				log_debug("feed: %s", strerror(errno));
			pause_ms = pause_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : pause_ms * 2;
		}
	}
	free(data);
	return NULL;
}

int feed_start(struct fs *fs, struct err *e)
{
	struct feed *f = &fs->feed;
	int r;

	*f = (struct feed){.wake = {-1, -1}};
	f->last = &f->first;
	pthread_mutex_init(&f->lock, NULL);
	if (pipe2(f->wake, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(e, "cannot make a pipe");
	r = pthread_create(&f->thread, NULL, feed_main, fs);
	if (r)
		return err_set(e, -r, "cannot start a thread");
	f->running = true;
	return 0;
}

void feed_stop(struct fs *fs)
{
	struct feed *f = &fs->feed;

	if (!f->running)
		return;
	pthread_mutex_lock(&f->lock);
	f->stop = true;
	pthread_mutex_unlock(&f->lock);
	if (write(f->wake[1], "", 1) < 0)
		log_debug("feed: %s", strerror(errno));
	pthread_join(f->thread, NULL);
	f->running = false;
	close(f->wake[0]);
	close(f->wake[1]);
	pthread_mutex_destroy(&f->lock);
}
