/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/backing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fs/mount.h"
#include "fs/ops.h"
#include "lib/base/log.h"
#include "lib/mail/mounts.h"

#define DEVICES_MAX 64 /* lower filesystems that are told apart; files of more are read through us */

/* ---- the decision ---- */

enum backing_way backing_way(const struct backing *b, const struct backing_ask *ask)
{
	/* O_DIRECT asks more of the lower filesystem than we do, and O_TRUNC would be done a second time. */
	bool reads = (ask->flags & (O_ACCMODE | O_TRUNC | O_DIRECT)) == O_RDONLY;

	if (b->straight)
		return reads && ask->uid == b->uid && ask->gid == b->gid ? BACKING_STRAIGHT : BACKING_BESIDE;
	return reads && ask->worth_it && !b->plain ? BACKING_STRAIGHT : BACKING_NONE;
}

int backing_take(struct backing *b, enum backing_way way, int id, const struct backing_ask *ask)
{
	if (way == BACKING_NONE) {
		b->plain++;
		return id;
	}
	if (b->straight++)
		return id;
	b->id = id;
	b->uid = ask->uid;
	b->gid = ask->gid;
	return 0;
}

int backing_leave(struct backing *b, enum backing_way way)
{
	int id = b->id;

	if (way == BACKING_NONE) {
		b->plain--;
		return 0;
	}
	if (--b->straight)
		return 0;
	b->id = 0;
	return id;
}

/* ---- the kernel ---- */

static const char *state = "off: not asked for yet";
static bool usable;

#ifdef FUSE_HAS_PASSTHROUGH

void backing_start(struct fs *fs, struct fuse_conn_info *conn)
{
	usable = fs->conf->passthrough && conn->capable & FUSE_CAP_PASSTHROUGH;
	state = !fs->conf->passthrough ? "off: as configured"
		: usable               ? "on"
				       : "off: the kernel has none (Linux 6.9 has)";
	if (usable) {
		conn->want |= FUSE_CAP_PASSTHROUGH;
		/* The lower tree is no overlay, so one may be laid over the mount, as without this. */
		conn->max_backing_stack_depth = FUSE_BACKING_STACKED_UNDER;
	}
}

/*
 * By ioctl: libfuse's own call hides the error and writes a line for each, and its call for the end wants a request
 * where there may be none. Returns the id or -1 and errno.
 */
static int kernel_open(struct fs *fs, int fd)
{
	struct fuse_backing_map map = {.fd = fd};

	return ioctl(fuse_session_fd(fs->session), FUSE_DEV_IOC_BACKING_OPEN, &map);
}

static void kernel_close(struct fs *fs, int id)
{
	uint32_t wire = (uint32_t)id;

	if (ioctl(fuse_session_fd(fs->session), FUSE_DEV_IOC_BACKING_CLOSE, &wire) < 0)
		log_warn("passthrough: the kernel does not let go of a file: %s", strerror(errno));
}

static void tell_kernel(struct fuse_file_info *fi, enum backing_way way, int id)
{
	fi->backing_id = way == BACKING_NONE ? 0 : id;
	fi->direct_io = way == BACKING_BESIDE;
}

#else

void backing_start(struct fs *fs, struct fuse_conn_info *conn)
{
	(void)conn;
	state = fs->conf->passthrough ? "off: built with a libfuse that has none (3.17 has)" : "off: as configured";
}

static int kernel_open(struct fs *fs, int fd)
{
	(void)fs;
	(void)fd;
	errno = ENOSYS;
	return -1;
}

static void kernel_close(struct fs *fs, int id)
{
	(void)fs;
	(void)id;
}

static void tell_kernel(struct fuse_file_info *fi, enum backing_way way, int id)
{
	(void)fi;
	(void)way;
	(void)id;
}

#endif

/* ---- lower filesystems: the kernel takes files of some only ---- */

static struct {
	pthread_mutex_t lock;
	unsigned count;
	struct device {
		dev_t dev;
		bool taken; /* until somebody was refused */
	} list[DEVICES_MAX];
} devices = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Called with the lock. Returns NULL if it is not there. */
static struct device *device_find(dev_t dev)
{
	for (struct device *d = devices.list; d < devices.list + devices.count; d++)
		if (d->dev == dev)
			return d;
	return NULL;
}

/* Returns what it was. */
static bool device_set(dev_t dev, bool taken)
{
	struct device *d;
	bool was;

	pthread_mutex_lock(&devices.lock);
	d = device_find(dev);
	was = d && d->taken;
	if (d)
		d->taken = taken;
	pthread_mutex_unlock(&devices.lock);
	return was;
}

static void device_refused(dev_t dev, const char *why)
{
	if (device_set(dev, false))
		log_info("big messages are read through maildexfs, not straight from the lower files: %s", why);
}

/* A look at how it is mounted, once. */
static bool device_judge(dev_t dev, int fd)
{
	const struct mount *m;
	struct mounts all;
	bool by_name;

	if (mounts_of_fd(&all, fd, &m) < 0)
		return false;
	by_name = mount_opens_by_name(m->fstype, m->options);
	mounts_release(&all);
	device_set(dev, true);
	if (by_name)
		device_refused(dev, "NFS 4.0 opens by name, and another host may change the name meanwhile");
	return !by_name;
}

static bool device_takes(dev_t dev, int fd)
{
	struct device *d;
	bool is_new, takes;

	pthread_mutex_lock(&devices.lock);
	d = device_find(dev);
	takes = d && d->taken;
	is_new = !d && devices.count < DEVICES_MAX;
	if (is_new)
		devices.list[devices.count++] = (struct device){.dev = dev};
	pthread_mutex_unlock(&devices.lock);
	return is_new ? device_judge(dev, fd) : takes;
}

/* ---- open files ---- */

/* In the caller's name: NFS reads with the credential of this moment. Returns the id or 0. */
static int registered(struct fuse_req *req, int fd, const struct stat *st)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int id = caller_begin(req);

	if (id == 0) {
		/* Who is not the owner may have access by a group only; nothing is refused here that would tell. */
		if (ctx->uid != st->st_uid && ctx->uid != 0)
			caller_with_groups(req, EACCES);
		id = kernel_open(ops_fs(req), fd);
	}
	caller_end();
	if (id > 0)
		return id;
	if (errno != ENOMEM)
		device_refused(st->st_dev, strerror(errno));
	return 0;
}

void backing_opened(struct fuse_req *req, struct node *n, struct handle *h, const struct stat *st, bool message,
		    struct fuse_file_info *fi)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs *fs = ops_fs(req);
	struct backing_ask ask = {.flags = fi->flags, .uid = ctx->uid, .gid = ctx->gid};
	int id = 0, spare;

	/* The owner only: on NFSv4 the server refuses an open for writing in the name of who may only read. */
	ask.worth_it = usable && message && ctx->uid == st->st_uid && st->st_size >= (off_t)fs->conf->passthrough &&
		       device_takes(st->st_dev, h->fd);
	pthread_mutex_lock(&fs->nodes.lock);
	h->way = backing_way(&n->backing, &ask);
	if (h->way == BACKING_STRAIGHT && !n->backing.straight) {
		pthread_mutex_unlock(&fs->nodes.lock);
		id = registered(req, h->fd, st);
		ask.worth_it = id > 0;
		pthread_mutex_lock(&fs->nodes.lock);
		/* Somebody else may have opened it meanwhile. */
		h->way = backing_way(&n->backing, &ask);
	}
	spare = backing_take(&n->backing, h->way, id, &ask);
	tell_kernel(fi, h->way, n->backing.id);
	pthread_mutex_unlock(&fs->nodes.lock);
	if (spare)
		kernel_close(fs, spare);
	if (h->way != BACKING_NONE)
		counter_add(h->way == BACKING_STRAIGHT ? COUNT_STRAIGHT : COUNT_BESIDE, 1);
}

void backing_closed(struct fs *fs, struct handle *h)
{
	int id;

	pthread_mutex_lock(&fs->nodes.lock);
	id = backing_leave(&h->node->backing, h->way);
	pthread_mutex_unlock(&fs->nodes.lock);
	if (id)
		kernel_close(fs, id);
}

void backing_print(struct buf *b)
{
	buf_printf(b, "maildexfs.passthrough %s\n", state);
}
