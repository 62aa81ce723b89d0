/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/clock.h"

#include <time.h>

static int64_t read_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return clock_ns(ts);
}

int64_t clock_mono_ns(void)
{
	return read_ns(CLOCK_MONOTONIC);
}

int64_t clock_real_ns(void)
{
	return read_ns(CLOCK_REALTIME);
}

int64_t clock_mono_of_real(int64_t real_ns)
{
	int64_t mono_ns = clock_mono_ns(), ago_ns = clock_real_ns() - real_ns;

	return ago_ns > 0 ? mono_ns - ago_ns : mono_ns;
}
