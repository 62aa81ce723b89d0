/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/support/faultfs/control.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/sock.h"
#include "tests/support/faultfs/rules.h"
#include "tests/support/faultfs/shown.h"

#define CONNECTIONS_MAX 256
#define FIELDS_MAX 6

struct order {
	int conn;
	char *fields[FIELDS_MAX]; /* after the order's own name */
};

static int tree; /* the real tree's directory */

static void answer(int conn, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void answer(int conn, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	sock_send(conn, text, strlen(text), -1);
}

/* A decimal number from min to max. Answers with an error and returns false if the field is none. */
static bool number(const struct order *o, const char *text, int64_t min, int64_t max, int64_t *out)
{
	long long n;
	char *rest;

	errno = 0;
	n = strtoll(text, &rest, 10);
	if (rest == text || *rest || errno || n < min || n > max) {
		answer(o->conn, "error '%.100s' is no number from %lld to %lld", text, (long long)min, (long long)max);
		return false;
	}
	*out = n;
	return true;
}

/* The common part of the three rules: CALL, NTH, TIMES, PATTERN. */
static void add(const struct order *o, struct rules_order *r, const char *nth, const char *times, const char *pattern)
{
	int64_t n, t;

	r->call = rules_call_of(o->fields[0]);
	if (r->call > RULES_ANY) {
		answer(o->conn, "error there is no call '%.100s'", o->fields[0]);
		return;
	}
	if (!*pattern) {
		answer(o->conn, "error the pattern is empty (the root is '.')");
		return;
	}
	if (!number(o, nth, 1, INT_MAX, &n) || !number(o, times, 0, INT_MAX, &t))
		return;
	r->nth = (unsigned long)n;
	r->times = (unsigned long)t;
	if (rules_add(o->conn, r, pattern) < 0)
		answer(o->conn, "error no memory");
	else
		answer(o->conn, "ok");
}

static void fail(const struct order *o, enum rules_act act)
{
	struct rules_order r = {.act = act};
	int64_t error;

	if (!number(o, o->fields[1], 1, 4095, &error))
		return;
	r.error = (int)error;
	add(o, &r, o->fields[2], o->fields[3], o->fields[4]);
}

static void do_fail(const struct order *o)
{
	fail(o, RULES_FAIL);
}

static void do_lose(const struct order *o)
{
	if (rules_can_lose(rules_call_of(o->fields[0])))
		fail(o, RULES_LOSE);
	else
		answer(o->conn, "error the answer of '%.100s' cannot be lost", o->fields[0]);
}

static void do_delay(const struct order *o)
{
	struct rules_order r = {.act = RULES_DELAY};
	int64_t ms;

	if (!number(o, o->fields[1], 0, 600000, &ms))
		return;
	r.ms = (unsigned)ms;
	add(o, &r, o->fields[2], o->fields[3], o->fields[4]);
}

static void do_hold(const struct order *o)
{
	struct rules_order r = {.act = RULES_HOLD};

	add(o, &r, o->fields[1], "1", o->fields[2]);
}

static void do_release(const struct order *o)
{
	rules_end(o->conn);
	answer(o->conn, "ok");
}

static void do_cancel(const struct order *o)
{
	answer(o->conn, rules_cancel(o->conn) ? "ok held" : "ok");
}

static void do_waiting(const struct order *o)
{
	answer(o->conn, "ok %u", rules_waiting());
}

static void do_clear(const struct order *o)
{
	rules_clear();
	answer(o->conn, "ok");
}

static void do_counts(const struct order *o)
{
	static char packet[SOCK_MSG_MAX]; /* only this thread answers */
	size_t next, len, head = sizeof("ok 18446744073709551615");
	int64_t first;

	if (!number(o, o->fields[0], 0, INT64_MAX, &first))
		return;
	next = rules_counts((size_t)first, packet + head, sizeof(packet) - head, &len);
	snprintf(packet, head, "ok %020zu", next);
	sock_send(o->conn, packet, head + len, -1);
}

static void do_reset(const struct order *o)
{
	rules_counts_reset();
	answer(o->conn, "ok");
}

static void do_clock(const struct order *o)
{
	int64_t at, back;

	if (!number(o, o->fields[0], INT64_MIN, INT64_MAX, &at) ||
	    !number(o, o->fields[1], INT64_MIN, INT64_MAX, &back))
		return;
	shown_clock(at, back);
	answer(o->conn, "ok");
}

static void do_stamp(const struct order *o)
{
	struct shown_times t;
	int ret;

	if (!number(o, o->fields[0], INT64_MIN, INT64_MAX, &t.now_ctime_ns) ||
	    !number(o, o->fields[1], INT64_MIN, INT64_MAX, &t.ctime_ns) ||
	    !number(o, o->fields[2], INT64_MIN, INT64_MAX, &t.mtime_ns))
		return;
	ret = shown_stamp(tree, o->fields[3], &t);
	if (ret < 0)
		answer(o->conn, "error %.200s: %s", o->fields[3], strerror(-ret));
	else
		answer(o->conn, "ok");
}

static const struct verb {
	const char *name;
	unsigned fields;
	void (*act)(const struct order *o);
} verbs[] = {
	{"fail", 5, do_fail},       {"lose", 5, do_lose},       {"delay", 5, do_delay},   {"hold", 3, do_hold},
	{"waiting", 0, do_waiting}, {"release", 0, do_release}, {"cancel", 0, do_cancel}, {"clear", 0, do_clear},
	{"counts", 1, do_counts},   {"reset", 0, do_reset},     {"clock", 2, do_clock},   {"stamp", 4, do_stamp},
};

static void obey(int conn, char *text)
{
	struct order o = {.conn = conn};
	const char *name = strsep(&text, " ");
	const struct verb *v = NULL;
	unsigned n = 0;

	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			v = &verbs[i];
	if (!v) {
		answer(conn, "error there is no order '%.100s'", name);
		return;
	}
	while (text && n + 1 < v->fields)
		o.fields[n++] = strsep(&text, " ");
	if (text && n < v->fields) {
		o.fields[n++] = text;
		text = NULL;
	}
	if (n != v->fields || text)
		answer(conn, "error '%s' takes %u fields", name, v->fields);
	else
		v->act(&o);
}

/* Returns false at the end of the connection. */
static bool served(int conn)
{
	static char packet[SOCK_MSG_MAX + 1];
	int passed = -1;
	ssize_t n = sock_recv(conn, packet, &passed);

	if (passed >= 0)
		close(passed);
	if (n == -EAGAIN || n == -EINTR)
		return true;
	if (n <= 0)
		return false;
	packet[n] = '\0';
	obey(conn, packet);
	return true;
}

/* polls[0] is the socket that is listened on. */
static void *serve(void *arg)
{
	static struct pollfd polls[CONNECTIONS_MAX] = {{.events = POLLIN}};
	nfds_t n = 1;

	polls[0].fd = (int)(intptr_t)arg;
	for (;;) {
		if (poll(polls, n, -1) < 0)
			continue;
		for (nfds_t i = n; i-- > 1;) {
			if (!polls[i].revents || served(polls[i].fd))
				continue;
			/* Its rules go before its number can be another's. */
			rules_end(polls[i].fd);
			close(polls[i].fd);
			polls[i] = polls[--n];
		}
		if (polls[0].revents) {
			int conn = accept4(polls[0].fd, NULL, NULL, SOCK_CLOEXEC);

			if (conn >= 0 && n < CONNECTIONS_MAX)
				polls[n++] = (struct pollfd){.fd = conn, .events = POLLIN};
			else if (conn >= 0)
				close(conn);
		}
	}
	return NULL;
}

int control_open(const char *path, int top, struct err *e)
{
	int fd = sock_listen(path, 0666, e), ret;
	pthread_t thread;

	if (fd < 0)
		return fd;
	tree = top;
	ret = pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd);
	if (ret) {
		close(fd);
		return err_set(e, -ret, "cannot start a thread: %s", strerror(ret));
	}
	pthread_detach(thread);
	return 0;
}
