/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/guard.h"

#include <errno.h>
#include <pthread.h>

#include "fs/fs.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

int guard_check(struct fs *fs)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static int64_t checked_ns;
	static int state;
	int64_t now = clock_mono_ns();
	struct err e;
	int r;

	pthread_mutex_lock(&lock);
	if (!checked_ns || now - checked_ns >= NS_PER_S) {
		checked_ns = now;
		r = tree_check(&fs->tree, &e) < 0 ? -EIO : 0;
		if (r < 0 && state == 0)
			log_error("%s: directories answer with an error until it is back", e.text);
		else if (r == 0 && state < 0)
			log_info("%s is the right tree again", fs->tree.path);
		state = r;
	}
	r = state;
	pthread_mutex_unlock(&lock);
	return r;
}
