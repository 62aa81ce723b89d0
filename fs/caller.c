/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/caller.h"

#include <stddef.h>

#include "fs/fuse.h"
#include "lib/base/cred.h"

#define CALLER_GROUPS_MAX 1024 /* NFS sends 16 of them, a local filesystem looks at all */

static _Thread_local bool started;

static int become(struct fuse_req *req, int ngroups, const gid_t *groups)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct cred c = {.uid = ctx->uid, .gid = ctx->gid, .ngroups = ngroups, .groups = groups};
	int r = started ? 0 : cred_thread_start();

	started = true;
	if (r == 0)
		r = cred_become(&c);
	if (r < 0) {
		errno = -r;
		return -1;
	}
	return 0;
}

int caller_begin(struct fuse_req *req)
{
	return become(req, 0, NULL);
}

bool caller_with_groups(struct fuse_req *req, int error)
{
	gid_t groups[CALLER_GROUPS_MAX];
	int n;

	if (error != EACCES && error != EPERM)
		return false;
	n = fuse_req_getgroups(req, CALLER_GROUPS_MAX, groups);
	if (n > CALLER_GROUPS_MAX)
		n = CALLER_GROUPS_MAX;
	if (n <= 0 || become(req, n, groups) < 0) {
		errno = error;
		return false;
	}
	return true;
}

void caller_end(void)
{
	int error = errno;

	cred_restore();
	errno = error;
}
