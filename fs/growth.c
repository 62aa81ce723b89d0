/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/growth.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "fs/caller.h"
#include "lib/base/clock.h"

#define STEP_NS (100000) /* between two looks whether the writer goes on */
#define THREADS_SEEN 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
/* When a thread's last request arrived; two that share a slot take each other for themselves. */
static _Atomic int64_t seen_ns[THREADS_SEEN];

void growth_seen(pid_t thread)
{
	atomic_store_explicit(&seen_ns[(unsigned)thread % THREADS_SEEN], clock_mono_ns(), memory_order_relaxed);
}

static bool went_on(const struct growth *g, pid_t asker)
{
	return !g->ended_ns || g->writer == asker ||
	       atomic_load_explicit(&seen_ns[(unsigned)g->writer % THREADS_SEEN], memory_order_relaxed) > g->ended_ns;
}

/* All that ended is known to the kernel. Called with the lock. */
static void settle(struct growth *g)
{
	g->sure = g->size;
	g->ended_ns = 0;
}

bool growth_began(struct growth *g, int64_t end)
{
	bool grows;

	pthread_mutex_lock(&lock);
	if (!g->writes)
		settle(g);
	grows = end > g->size;
	g->writes += grows;
	g->count += grows;
	if (grows)
		pthread_cond_broadcast(&moved);
	pthread_mutex_unlock(&lock);
	return grows;
}

void growth_ended(struct growth *g, pid_t writer, int64_t end)
{
	pthread_mutex_lock(&lock);
	g->writes--;
	g->writer = writer;
	g->ended_ns = clock_mono_ns();
	if (end > g->size)
		g->size = end;
	pthread_mutex_unlock(&lock);
}

void growth_told(struct growth *g, int64_t size)
{
	pthread_mutex_lock(&lock);
	if (!g->writes && !g->ended_ns)
		g->sure = g->size = size;
	pthread_mutex_unlock(&lock);
}

struct growth_asked growth_await(struct growth *g, pid_t asker)
{
	struct growth_asked asked;
	uint64_t before;
	bool late = false;

	pthread_mutex_lock(&lock);
	before = g->count;
	/* A write that begins meanwhile makes the sizes before it sure. */
	while (!g->writes && g->count == before && !went_on(g, asker) && !late) {
		struct timespec until = clock_timespec(clock_real_ns() + STEP_NS);

		pthread_cond_timedwait(&moved, &lock, &until);
		late = clock_mono_ns() - g->ended_ns >= GROWTH_WAIT_NS || !caller_may_write(g->writer);
	}
	if (!g->writes && (late || went_on(g, asker)))
		settle(g);
	asked = (struct growth_asked){.count = g->count, .sure = g->sure, .under_way = g->writes > 0 || g->ended_ns};
	pthread_mutex_unlock(&lock);
	return asked;
}

int64_t growth_size(struct growth *g, const struct growth_asked *asked, int64_t size)
{
	pthread_mutex_lock(&lock);
	if (asked->under_way || g->count != asked->count)
		size = size < asked->sure ? size : asked->sure;
	else
		g->sure = g->size = size;
	pthread_mutex_unlock(&lock);
	return size;
}
