/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clocks of this host, in nanoseconds.
 * Threads: any.
 * Errors: none.
 */
#ifndef MAILDEX_BASE_CLOCK_H
#define MAILDEX_BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL

/* CLOCK_MONOTONIC: for durations. Returns nanoseconds. */
int64_t clock_mono_ns(void);

/* CLOCK_REALTIME: for what is stored or shown. Returns nanoseconds since 1970. */
int64_t clock_real_ns(void);

#endif
