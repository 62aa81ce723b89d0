/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clocks of this host, in nanoseconds.
 * Threads: any.
 * Errors: none.
 */
#ifndef MAILDEX_BASE_CLOCK_H
#define MAILDEX_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL

static inline int64_t clock_ns(struct timespec t)
{
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* ns must not be negative. */
static inline struct timespec clock_timespec(int64_t ns)
{
	return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

/* CLOCK_MONOTONIC: for durations. Returns nanoseconds. */
int64_t clock_mono_ns(void);

/* CLOCK_REALTIME: for what is stored or shown. Returns nanoseconds since 1970. */
int64_t clock_real_ns(void);

/* When CLOCK_MONOTONIC it was, if nobody has set CLOCK_REALTIME since; never later than now. */
int64_t clock_mono_of_real(int64_t real_ns);

#endif
