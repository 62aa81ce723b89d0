/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/dir_attr.h"

#include <pthread.h>

#include "lib/mail/fresh.h"
#include "lib/mail/stamp.h"

/* Further than what is shown lies before a time (rule 6): one nanosecond more, and a tag that grew by one, would show the
 * same time with two listings. */
#define STEP_NS (FRESH_TAGS_NS + 1)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct statx_timestamp timestamp_of(int64_t ns)
{
	int64_t rest = ns % NS_PER_S;

	if (rest < 0) /* before 1970 */
		rest += NS_PER_S;
	return (struct statx_timestamp){.tv_sec = (ns - rest) / NS_PER_S, .tv_nsec = (uint32_t)rest};
}

uint64_t dir_attr_begin(struct dir_attr *a)
{
	uint64_t changes;

	pthread_mutex_lock(&lock);
	changes = a->changes;
	pthread_mutex_unlock(&lock);
	return changes;
}

bool dir_attr_merge(struct dir_attr *a, struct statx *stx, int64_t now_ns)
{
	struct statx all;
	bool known;

	pthread_mutex_lock(&lock);
	known = a->read_ns && now_ns - a->read_ns < DIR_ATTR_KEEP_NS && a->stx.stx_ino == stx->stx_ino &&
		a->stx.stx_dev_major == stx->stx_dev_major && a->stx.stx_dev_minor == stx->stx_dev_minor &&
		a->stx.stx_nlink == stx->stx_nlink && a->stx.stx_mode == stx->stx_mode &&
		a->stx.stx_uid == stx->stx_uid && a->stx.stx_gid == stx->stx_gid;
	all = a->stx;
	pthread_mutex_unlock(&lock);
	if (known)
		*stx = all;
	return known;
}

void dir_attr_keep(struct dir_attr *a, const struct statx *stx, int64_t now_ns, uint64_t begun)
{
	pthread_mutex_lock(&lock);
	if (a->changes == begun) {
		a->stx = *stx;
		a->read_ns = now_ns;
	}
	pthread_mutex_unlock(&lock);
}

void dir_attr_changed(struct dir_attr *a, int64_t server_now_ns)
{
	int64_t mtime, ctime;

	pthread_mutex_lock(&lock);
	a->changes++;
	mtime = stamp_time_ns(&a->stx.stx_mtime) + STEP_NS;
	ctime = stamp_time_ns(&a->stx.stx_ctime) + STEP_NS;
	a->stx.stx_mtime = timestamp_of(mtime > server_now_ns ? mtime : server_now_ns);
	a->stx.stx_ctime = timestamp_of(ctime > server_now_ns ? ctime : server_now_ns);
	pthread_mutex_unlock(&lock);
}

void dir_attr_forget(struct dir_attr *a)
{
	pthread_mutex_lock(&lock);
	a->changes++;
	a->read_ns = 0;
	pthread_mutex_unlock(&lock);
}
