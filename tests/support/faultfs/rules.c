/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guards against: a call that is told to be held when its rule is already gone, and waits for ever. Matching a call,
 * telling of it and removing a rule all happen under one lock; a call that waits keeps its rule by a count and looks at
 * nothing else.
 */
#include "tests/support/faultfs/rules.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BUCKETS 4096
#define HOLDS_MAX 8 /* rules that hold one call at once */

static const char *const calls[] = {
	[RULES_GETATTR] = "getattr",
	[RULES_READLINK] = "readlink",
	[RULES_MKNOD] = "mknod",
	[RULES_MKDIR] = "mkdir",
	[RULES_UNLINK] = "unlink",
	[RULES_RMDIR] = "rmdir",
	[RULES_SYMLINK] = "symlink",
	[RULES_RENAME] = "rename",
	[RULES_LINK] = "link",
	[RULES_CHMOD] = "chmod",
	[RULES_CHOWN] = "chown",
	[RULES_TRUNCATE] = "truncate",
	[RULES_OPEN] = "open",
	[RULES_READ] = "read",
	[RULES_WRITE] = "write",
	[RULES_STATFS] = "statfs",
	[RULES_FLUSH] = "flush",
	[RULES_RELEASE] = "release",
	[RULES_FSYNC] = "fsync",
	[RULES_SETXATTR] = "setxattr",
	[RULES_GETXATTR] = "getxattr",
	[RULES_LISTXATTR] = "listxattr",
	[RULES_REMOVEXATTR] = "removexattr",
	[RULES_OPENDIR] = "opendir",
	[RULES_READDIR] = "readdir",
	[RULES_RELEASEDIR] = "releasedir",
	[RULES_FSYNCDIR] = "fsyncdir",
	[RULES_CREATE] = "create",
	[RULES_UTIMENS] = "utimens",
	[RULES_LOCK] = "lock",
	[RULES_FLOCK] = "flock",
	[RULES_LSEEK] = "lseek",
	[RULES_COPY_FILE_RANGE] = "copy_file_range",
	[RULES_ACCESS] = "access",
	[RULES_FALLOCATE] = "fallocate",
	[RULES_ANY] = "*",
};

struct rule {
	struct rule *next;
	struct rules_order order;
	int owner;
	unsigned long seen;
	unsigned users; /* calls that wait because of it */
	bool gone;
	char pattern[];
};

/* Calls of one kind and path. */
struct count {
	struct count *next;  /* in its bucket */
	struct count *after; /* in the order of their first calls */
	enum rules_call call;
	unsigned long n;
	char path[];
};

/* What the rules say of one call. */
struct verdict {
	int error, lost;
	unsigned ms;
	struct rule *waits[HOLDS_MAX];
	unsigned nwaits;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct rule *rules;
static atomic_uint nrules; /* read without the lock: most calls meet no rule */
static unsigned long cleared;
static unsigned hold_s;
static unsigned waiting; /* calls that are held or delayed */
static _Thread_local int lost;

static pthread_mutex_t counts_lock = PTHREAD_MUTEX_INITIALIZER;
static struct count *buckets[BUCKETS], *counts_first, **counts_last = &counts_first;

void rules_init(unsigned longest_hold_s)
{
	hold_s = longest_hold_s;
}

enum rules_call rules_call_of(const char *name)
{
	if (strcmp(name, "statx") == 0)
		return RULES_GETATTR;
	for (enum rules_call c = 0; c <= RULES_ANY; c++)
		if (strcmp(calls[c], name) == 0)
			return c;
	return RULES_ANY + 1;
}

/* -- counts */

static unsigned bucket(enum rules_call call, const char *path)
{
	unsigned h = 2166136261U ^ call;

	for (; *path; path++)
		h = (h ^ (unsigned char)*path) * 16777619U;
	return h % BUCKETS;
}

static void count(enum rules_call call, const char *path)
{
	unsigned at = bucket(call, path);
	size_t len = strlen(path) + 1;
	struct count *c;

	pthread_mutex_lock(&counts_lock);
	for (c = buckets[at]; c; c = c->next)
		if (c->call == call && strcmp(c->path, path) == 0)
			break;
	if (!c) {
		c = calloc(1, sizeof(*c) + len);
		if (!c)
			abort(); /* a count that is wrong would be taken for a finding */
		c->call = call;
		memcpy(c->path, path, len);
		c->next = buckets[at];
		buckets[at] = c;
		*counts_last = c;
		counts_last = &c->after;
	}
	c->n++;
	pthread_mutex_unlock(&counts_lock);
}

size_t rules_counts(size_t first, char *out, size_t size, size_t *len)
{
	size_t at = 0;

	*len = 0;
	pthread_mutex_lock(&counts_lock);
	for (struct count *c = counts_first; c; c = c->after, at++) {
		size_t left = size - *len;
		int n;

		if (at < first)
			continue;
		n = snprintf(out + *len, left, "%s %s%c%lu%c", calls[c->call], c->path, '\0', c->n, '\0');
		if (n < 0 || (size_t)n >= left) {
			pthread_mutex_unlock(&counts_lock);
			return at;
		}
		*len += (size_t)n;
	}
	pthread_mutex_unlock(&counts_lock);
	return 0;
}

void rules_counts_reset(void)
{
	struct count *c, *after;

	pthread_mutex_lock(&counts_lock);
	for (c = counts_first; c; c = after) {
		after = c->after;
		free(c);
	}
	memset(buckets, 0, sizeof(buckets));
	counts_first = NULL;
	counts_last = &counts_first;
	pthread_mutex_unlock(&counts_lock);
}

/* -- rules; all below is called under the lock, but for the functions of the header */

static void put(struct rule *r)
{
	if (r->gone && !r->users)
		free(r);
}

/* Ends *at; whoever waits because of it goes on. */
static void end(struct rule **at)
{
	struct rule *r = *at;

	*at = r->next;
	r->gone = true;
	atomic_fetch_sub(&nrules, 1);
	pthread_cond_broadcast(&changed);
	put(r);
}

static void tell(const struct rule *r, const char *what)
{
	/* Who does not read what it ordered is not waited for. */
	send(r->owner, what, strlen(what), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static bool matches(const struct rule *r, enum rules_call call, const char *path, const char *other)
{
	if (r->order.call != call && r->order.call != RULES_ANY)
		return false;
	return fnmatch(r->pattern, path, 0) == 0 || (other && fnmatch(r->pattern, other, 0) == 0);
}

/* Counts the call for the rule. Returns whether the rule acts on it. */
static bool acts(struct rule *r)
{
	unsigned long n = ++r->seen, nth = r->order.nth;

	return n >= nth && (!r->order.times || n - nth < r->order.times);
}

static void judge(enum rules_call call, const char *path, const char *other, struct verdict *v)
{
	for (struct rule *r = rules; r; r = r->next) {
		if (!matches(r, call, path, other) || !acts(r))
			continue;
		if (r->order.act == RULES_FAIL && !v->error)
			v->error = r->order.error;
		if (r->order.act == RULES_LOSE && !v->lost)
			v->lost = r->order.error;
		if (r->order.act == RULES_DELAY)
			v->ms += r->order.ms;
		if (r->order.act == RULES_HOLD && v->nwaits < HOLDS_MAX) {
			r->users++;
			v->waits[v->nwaits++] = r;
			tell(r, "held");
		}
	}
}

static struct timespec from_now(unsigned long ms)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static void wait_for(const struct verdict *v)
{
	const struct timespec longest = from_now(hold_s * 1000UL), until = from_now(v->ms);
	unsigned long before = cleared;

	for (unsigned i = 0; i < v->nwaits; i++) {
		struct rule *r = v->waits[i];

		while (!r->gone && pthread_cond_timedwait(&changed, &lock, &longest) == 0)
			;
		r->users--;
		put(r);
	}
	while (v->ms && cleared == before && pthread_cond_timedwait(&changed, &lock, &until) == 0)
		;
}

int rules_before(enum rules_call call, const char *path, const char *other)
{
	struct verdict v = {0};

	count(call, path);
	lost = 0;
	if (atomic_load(&nrules) == 0)
		return 0;
	pthread_mutex_lock(&lock);
	judge(call, path, other, &v);
	waiting += v.nwaits || v.ms;
	wait_for(&v);
	waiting -= v.nwaits || v.ms;
	pthread_mutex_unlock(&lock);
	lost = v.lost;
	return v.error;
}

unsigned rules_waiting(void)
{
	unsigned n;

	pthread_mutex_lock(&lock);
	n = waiting;
	pthread_mutex_unlock(&lock);
	return n;
}

int rules_lost(void)
{
	return lost;
}

bool rules_can_lose(enum rules_call call)
{
	return call >= RULES_MKNOD && call <= RULES_LINK;
}

int rules_add(int owner, const struct rules_order *order, const char *pattern)
{
	size_t len = strlen(pattern) + 1;
	struct rule *r = calloc(1, sizeof(*r) + len), **at;

	if (!r)
		return -ENOMEM;
	r->order = *order;
	r->owner = owner;
	memcpy(r->pattern, pattern, len);
	pthread_mutex_lock(&lock);
	for (at = &rules; *at; at = &(*at)->next)
		;
	*at = r;
	atomic_fetch_add(&nrules, 1);
	pthread_mutex_unlock(&lock);
	return 0;
}

void rules_end(int owner)
{
	struct rule **at = &rules;

	pthread_mutex_lock(&lock);
	while (*at)
		if ((*at)->owner == owner)
			end(at);
		else
			at = &(*at)->next;
	pthread_mutex_unlock(&lock);
}

bool rules_cancel(int owner)
{
	struct rule **at = &rules;
	bool holds = false;

	pthread_mutex_lock(&lock);
	while (*at) {
		if ((*at)->owner != owner) {
			at = &(*at)->next;
		} else if ((*at)->users) {
			holds = true;
			at = &(*at)->next;
		} else {
			end(at);
		}
	}
	pthread_mutex_unlock(&lock);
	return holds;
}

void rules_clear(void)
{
	pthread_mutex_lock(&lock);
	cleared++;
	while (rules) {
		if (rules->order.act == RULES_HOLD)
			tell(rules, "gone");
		end(&rules);
	}
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}
