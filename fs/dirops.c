/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/dirops.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

void dirops_want(struct fuse_conn_info *conn)
{
	if (conn->capable & FUSE_CAP_PARALLEL_DIROPS)
		conn->want |= FUSE_CAP_PARALLEL_DIROPS;
}

#if FUSE_VERSION < FUSE_MAKE_VERSION(3, 17)
/* The first answer of a session is that to INIT. */
static ssize_t answer(int fd, struct iovec *iov, int count, void *arg)
{
	static atomic_flag began = ATOMIC_FLAG_INIT;
	struct init_out {
		uint32_t major, minor, max_readahead, flags;
	} *init = count > 1 ? iov[1].iov_base : NULL;

	(void)arg;
	if (!atomic_flag_test_and_set(&began) && init && iov[1].iov_len >= sizeof(*init))
		init->flags |= FUSE_CAP_PARALLEL_DIROPS; /* the kernel's bit is the same */
	return writev(fd, iov, count);
}

static ssize_t receive(int fd, void *data, size_t size, void *arg)
{
	(void)arg;
	return read(fd, data, size);
}

int dirops_allow(struct fuse_session *se)
{
	static const struct fuse_custom_io io = {.writev = answer, .read = receive};

	return fuse_session_custom_io(se, &io, fuse_session_fd(se));
}
#else
int dirops_allow(struct fuse_session *se)
{
	(void)se;
	return 0;
}
#endif
