/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls on what is open. They run as the process: NFS too uses the credential of the open. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/faultfs/calls.h"
#include "tests/support/faultfs/shown.h"

#define LOCK_POLL_US 5000 /* how often a lock that is waited for is tried */
#define DIRENTS_BYTES 32768

struct dirent64_raw {
	uint64_t ino;
	int64_t off;
	uint16_t len;
	uint8_t type;
	char name[];
};

/* -- opening and closing */

static int open_node(const struct node *n, int flags)
{
	char proc[NODE_PROC_MAX];

	return open(node_proc(n, proc), (flags & ~(O_NOFOLLOW | O_CREAT | O_EXCL)) | O_CLOEXEC);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = calls_node(ino);
	int fd;

	if (calls_refused(req, RULES_OPEN, ino, NULL))
		return;
	node_opened(n); /* before it is: an unlink that comes between makes it .nfsXXXX, as it should */
	AS_CALLER(req, fd, open_node(n, fi->flags));
	if (fd < 0) {
		fuse_reply_err(req, errno);
		node_closed(n);
		return;
	}
	fi->fh = (uint64_t)fd;
	if (fuse_reply_open(req, fi) == -ENOENT) { /* the caller was interrupted: there will be no release */
		close(fd);
		node_closed(n);
	}
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	int fd, error;

	if (calls_refused(req, RULES_CREATE, parent, name))
		return;
	AS_CALLER(req, fd, openat(calls_node(parent)->fd, name, fi->flags | O_CREAT | O_CLOEXEC, mode));
	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	if (calls_enter(req, parent, name, &e) < 0) {
		error = errno;
		close(fd);
		fuse_reply_err(req, error);
		return;
	}
	node_opened(calls_node(e.ino));
	fi->fh = (uint64_t)fd;
	if (fuse_reply_create(req, &e, fi) == -ENOENT) {
		close(fd);
		node_closed(calls_node(e.ino));
		node_forget(calls_node(e.ino), 1);
	}
}

/* What cannot fail is told to the rules all the same: it is counted and can be held. */
static void tell(enum rules_call call, fuse_ino_t ino)
{
	char path[PATH_MAX];

	rules_before(call, node_path(calls_node(ino), NULL, path), NULL);
}

static void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	tell(RULES_RELEASE, ino);
	close((int)fi->fh);
	node_closed(calls_node(ino));
	fuse_reply_err(req, 0);
}

static void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (!calls_refused(req, RULES_FLUSH, ino, NULL))
		calls_reply(req, close(dup((int)fi->fh)));
}

/* -- data */

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	char *data;
	ssize_t n;

	if (calls_refused(req, RULES_READ, ino, NULL))
		return;
	data = malloc(size);
	n = data ? pread((int)fi->fh, data, size, off) : -1;
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, data, (size_t)n);
	free(data);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	ssize_t n;

	if (calls_refused(req, RULES_WRITE, ino, NULL))
		return;
	n = pwrite((int)fi->fh, data, size, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	if (!calls_refused(req, RULES_FSYNC, ino, NULL))
		calls_reply(req, datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

static void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	off_t at;

	if (calls_refused(req, RULES_LSEEK, ino, NULL))
		return;
	at = lseek((int)fi->fh, off, whence);
	if (at < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, at);
}

static void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	if (!calls_refused(req, RULES_FALLOCATE, ino, NULL))
		calls_reply(req, fallocate((int)fi->fh, mode, off, len));
}

static void do_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_off, struct fuse_file_info *from_fi,
			       fuse_ino_t to, off_t to_off, struct fuse_file_info *to_fi, size_t len, int flags)
{
	ssize_t n;

	if (calls_refused2(req, RULES_COPY_FILE_RANGE, calls_node(from), NULL, calls_node(to), NULL))
		return;
	n = copy_file_range((int)from_fi->fh, &from_off, (int)to_fi->fh, &to_off, len, (unsigned)flags);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, (size_t)n);
}

/* -- locks */

static void do_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl)
{
	if (calls_refused(req, RULES_LOCK, ino, NULL))
		return;
	fl->l_pid = 0; /* the lock is the open file's */
	if (fcntl((int)fi->fh, F_OFD_GETLK, fl) < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lock(req, fl);
}

/* Tried now and then, not waited for in the kernel: an interrupted caller is answered. */
static void do_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *fl, int sleep)
{
	int ret;

	if (calls_refused(req, RULES_LOCK, ino, NULL))
		return;
	fl->l_pid = 0;
	while ((ret = fcntl((int)fi->fh, F_OFD_SETLK, fl)) < 0 && errno == EAGAIN && sleep) {
		if (fuse_req_interrupted(req)) {
			fuse_reply_err(req, EINTR);
			return;
		}
		usleep(LOCK_POLL_US);
	}
	calls_reply(req, ret);
}

static void do_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	int ret;

	if (calls_refused(req, RULES_FLOCK, ino, NULL))
		return;
	while ((ret = flock((int)fi->fh, op | LOCK_NB)) < 0 && errno == EWOULDBLOCK && !(op & LOCK_NB)) {
		if (fuse_req_interrupted(req)) {
			fuse_reply_err(req, EINTR);
			return;
		}
		usleep(LOCK_POLL_US);
	}
	calls_reply(req, ret);
}

/* -- directories */

static void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int fd;

	if (calls_refused(req, RULES_OPENDIR, ino, NULL))
		return;
	AS_CALLER(req, fd, open_node(calls_node(ino), O_RDONLY | O_DIRECTORY));
	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	fi->fh = (uint64_t)fd;
	if (fuse_reply_open(req, fi) == -ENOENT)
		close(fd);
}

static void do_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	tell(RULES_RELEASEDIR, ino);
	close((int)fi->fh);
	fuse_reply_err(req, 0);
}

static void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	if (!calls_refused(req, RULES_FSYNCDIR, ino, NULL))
		calls_reply(req, datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

/* Adds entries from raw[n] while they fit. Returns false when one did not. */
static bool add_entries(fuse_req_t req, const char *raw, long n, char *out, size_t size, size_t *len)
{
	for (long at = 0; at < n;) {
		const struct dirent64_raw *d = (const struct dirent64_raw *)(raw + at);
		struct stat st = {
			.st_ino = shown_ino(d->name, DTTOIF(d->type), d->ino),
			.st_mode = calls_options.unknown ? 0 : DTTOIF(d->type),
		};
		size_t need = fuse_add_direntry(req, out + *len, size - *len, d->name, &st, d->off);

		if (need > size - *len)
			return false;
		*len += need;
		at += d->len;
	}
	return true;
}

/* Each READDIR reads what is there now: nothing is kept from one to the next, as on a server. */
static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	char raw[DIRENTS_BYTES] __attribute__((aligned(8))), *out;
	size_t len = 0;
	long n = -1;

	if (calls_refused(req, RULES_READDIR, ino, NULL))
		return;
	out = malloc(size);
	if (out && lseek((int)fi->fh, off, SEEK_SET) >= 0)
		do
			n = syscall(SYS_getdents64, (int)fi->fh, raw, sizeof(raw));
		while (n > 0 && add_entries(req, raw, n, out, size, &len));
	if (n < 0 && !len)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, out, len);
	free(out);
}

void calls_add_handles(struct fuse_lowlevel_ops *ops)
{
	ops->open = do_open;
	ops->create = do_create;
	ops->release = do_release;
	ops->flush = do_flush;
	ops->read = do_read;
	ops->write = do_write;
	ops->fsync = do_fsync;
	ops->lseek = do_lseek;
	ops->fallocate = do_fallocate;
	ops->copy_file_range = do_copy_file_range;
	ops->getlk = do_getlk;
	ops->setlk = do_setlk;
	ops->flock = do_flock;
	ops->opendir = do_opendir;
	ops->releasedir = do_releasedir;
	ops->fsyncdir = do_fsyncdir;
	ops->readdir = do_readdir;
}
