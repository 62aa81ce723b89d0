/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guards against: two daemons that start together, both find the same left-over socket, and the second removes what the
 * first has just bound. Finding out, removing and binding are done under a lock file beside the socket.
 */
#include "lib/base/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 128

static int address(const char *path, struct sockaddr_un *addr, struct err *e)
{
	size_t len = strlen(path);

	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!len || len >= sizeof(addr->sun_path))
		return err_set(e, -ENAMETOOLONG, "socket path '%s' must have 1 to %zu bytes", path,
			       sizeof(addr->sun_path) - 1);
	memcpy(addr->sun_path, path, len + 1);
	return 0;
}

/*
 * The lock file goes away with its holder, so whoever waited for it may hold one that has no name any more, and then
 * starts again.
 */
static int lock(const char *file, struct err *e)
{
	struct stat held, named;
	int fd, ret;

	for (;;) {
		fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return err_sys(e, "cannot make %s", file);
		while (flock(fd, LOCK_EX) < 0)
			if (errno != EINTR) {
				ret = err_sys(e, "cannot lock %s", file);
				goto failed;
			}
		if (fstat(fd, &held) < 0) {
			ret = err_sys(e, "cannot stat %s", file);
			goto failed;
		}
		if (stat(file, &named) == 0 && named.st_dev == held.st_dev && named.st_ino == held.st_ino)
			return fd;
		close(fd);
	}
failed:
	close(fd);
	return ret;
}

/* Removes a socket that nobody answers on. Returns 0 when nothing is at the path any more. */
static int remove_leftover(const char *path, const struct sockaddr_un *addr, struct err *e)
{
	struct stat st;
	int ret = 0;
	int fd;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot stat %s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EEXIST, "%s is there and is no socket: move it away", path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	/* Only a refusal proves that nobody is there; a full queue (EAGAIN) or another kind of socket does not. */
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN || errno == EPROTOTYPE)
		ret = err_set(e, -EADDRINUSE, "%s is in use: another process answers there", path);
	else if (errno != ECONNREFUSED)
		ret = err_sys(e, "cannot tell whether %s is in use", path);
	else if (unlink(path) < 0)
		ret = err_sys(e, "cannot remove the left-over socket %s", path);
	close(fd);
	return ret;
}

static int bind_and_listen(const char *path, const struct sockaddr_un *addr, mode_t mode, struct err *e)
{
	int fd, ret;

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0) {
		ret = err_sys(e, "cannot make the socket %s", path);
		goto out;
	}
	/* Before listen(): until then nobody can connect, whatever the umask was. */
	if (chmod(path, mode) < 0) {
		ret = err_sys(e, "cannot set the mode of %s", path);
		unlink(path);
		goto out;
	}
	if (listen(fd, BACKLOG) < 0) {
		ret = err_sys(e, "cannot listen on %s", path);
		unlink(path);
		goto out;
	}
	return fd;
out:
	close(fd);
	return ret;
}

int sock_listen(const char *path, mode_t mode, struct err *e)
{
	char lock_file[sizeof(((struct sockaddr_un *)NULL)->sun_path) + sizeof(".lock")];
	struct sockaddr_un addr;
	int lock_fd, ret;

	ret = address(path, &addr, e);
	if (ret < 0)
		return ret;
	snprintf(lock_file, sizeof(lock_file), "%s.lock", path);
	lock_fd = lock(lock_file, e);
	if (lock_fd < 0)
		return lock_fd;
	ret = remove_leftover(path, &addr, e);
	if (ret == 0)
		ret = bind_and_listen(path, &addr, mode, e);
	unlink(lock_file);
	close(lock_fd);
	return ret;
}

int sock_connect(const char *path, bool nonblocking, struct err *e)
{
	struct sockaddr_un addr;
	int fd, ret;

	ret = address(path, &addr, e);
	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	do
		ret = connect(fd, (const struct sockaddr *)&addr, sizeof(addr));
	while (ret < 0 && errno == EINTR);
	if (ret < 0) {
		ret = err_sys(e, "cannot connect to %s", path);
		close(fd);
		return ret;
	}
	return fd;
}

int sock_peer(int fd, struct sock_peer *peer)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	*peer = (struct sock_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
	return 0;
}

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int))];
};

int sock_send(int fd, const void *data, size_t len, int passed)
{
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control = {0};
	struct cmsghdr *cmsg;
	ssize_t n;

	if (!len)
		return -EINVAL; /* would read as the end of the connection */
	if (len > SOCK_MSG_MAX)
		return -EMSGSIZE;
	if (passed >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &passed, sizeof(int));
	}
	do
		n = sendmsg(fd, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int received_fd(struct msghdr *msg)
{
	struct cmsghdr *cmsg;
	int fd = -1;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg))
		if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS &&
		    cmsg->cmsg_len == CMSG_LEN(sizeof(int)))
			memcpy(&fd, CMSG_DATA(cmsg), sizeof(int));
	return fd;
}

ssize_t sock_recv(int fd, void *data, int *passed)
{
	struct iovec iov = {.iov_base = data, .iov_len = SOCK_MSG_MAX};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control;
	ssize_t n;

	*passed = -1;
	do {
		msg.msg_control = &control;
		/* Not the padded size: a second descriptor would fit there. The kernel closes what does not fit. */
		msg.msg_controllen = CMSG_LEN(sizeof(int));
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*passed = received_fd(&msg);
	if (n > 0 && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return n;
	if (*passed >= 0)
		close(*passed);
	*passed = -1;
	return n ? -EMSGSIZE : 0;
}
