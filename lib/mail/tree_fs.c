/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What filesystems the tree is on. The race guarded against: a device number that comes back. The kernel gives an
 * unmounted NFS filesystem's number to the next one, so what is remembered of devices is forgotten whenever any mount
 * changes.
 */
#include "lib/mail/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "lib/mail/mounts.h"

#ifndef LUSTRE_SUPER_MAGIC
#define LUSTRE_SUPER_MAGIC 0x0BD00BD0
#endif
#ifndef GPFS_SUPER_MAGIC
#define GPFS_SUPER_MAGIC 0x47504653
#endif

struct device {
	dev_t dev;
	const struct mount *mount;
	uint64_t hash;
};

static struct {
	pthread_mutex_t lock;
	struct device *list;
	size_t count;
	bool fresh;
} devices = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int compare_paths(const char *a, const char *b)
{
	size_t alen = strlen(a), blen = strlen(b);

	return alen != blen ? (alen > blen) - (alen < blen) : strcmp(a, b);
}

/* By device; of one device's mounts the outermost first, so that a bind mount more or less changes nothing. */
static int compare_devices(const void *pa, const void *pb)
{
	const struct device *a = pa, *b = pb;
	int order = (a->dev > b->dev) - (a->dev < b->dev);

	if (order == 0)
		order = compare_paths(a->mount->source, b->mount->source);
	return order ? order : compare_paths(a->mount->root, b->mount->root);
}

static uint64_t mount_hash(const struct mount *m)
{
	uint64_t hash = XXH3_64bits(m->fstype, strlen(m->fstype));

	hash = XXH3_64bits_withSeed(m->source, strlen(m->source), hash);
	return XXH3_64bits_withSeed(m->root, strlen(m->root), hash);
}

static int devices_read(void)
{
	struct mounts all;
	struct device *list;
	size_t count = 0;
	int rc = mounts_read(&all);

	if (rc < 0)
		return rc;
	list = calloc(all.count + 1, sizeof(*list));
	if (!list) {
		mounts_release(&all);
		return -ENOMEM;
	}
	for (size_t i = 0; i < all.count; i++)
		list[i] = (struct device){.dev = all.list[i].dev, .mount = &all.list[i]};
	qsort(list, all.count, sizeof(*list), compare_devices);
	for (size_t i = 0; i < all.count; i++) {
		if (count > 0 && list[count - 1].dev == list[i].dev)
			continue;
		list[count] = list[i];
		list[count].hash = mount_hash(list[i].mount);
		list[count++].mount = NULL;
	}
	mounts_release(&all);
	free(devices.list);
	devices.list = list;
	devices.count = count;
	return 0;
}

static int compare_dev(const void *key, const void *element)
{
	dev_t a = *(const dev_t *)key, b = ((const struct device *)element)->dev;

	return (a > b) - (a < b);
}

uint64_t tree_device(dev_t dev)
{
	const struct device *d = NULL;
	uint64_t number = dev, hash;

	pthread_mutex_lock(&devices.lock);
	if (mounts_changed())
		devices.fresh = false;
	if (!devices.fresh)
		devices.fresh = devices_read() == 0;
	if (devices.count > 0)
		d = bsearch(&dev, devices.list, devices.count, sizeof(*devices.list), compare_dev);
	/* A btrfs subvolume has a number that no mount shows. It may be another after a reboot: then folders are read
	 * once more. */
	hash = d ? d->hash : XXH3_64bits(&number, sizeof(number));
	pthread_mutex_unlock(&devices.lock);
	return hash;
}

int tree_fstype(const char *path, char *out, size_t size)
{
	const struct mount *m;
	struct mounts all;
	int fd = open(path, O_PATH | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = mounts_of_fd(&all, fd, &m);
	close(fd);
	if (rc < 0)
		return rc;
	rc = (size_t)snprintf(out, size, "%s", m->fstype) < size ? 0 : -ENAMETOOLONG;
	mounts_release(&all);
	return rc;
}

static const uint32_t remote_magics[] = {
	NFS_SUPER_MAGIC, SMB_SUPER_MAGIC,  CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,   CEPH_SUPER_MAGIC, AFS_SUPER_MAGIC,
	AFS_FS_MAGIC,    CODA_SUPER_MAGIC, V9FS_MAGIC,       LUSTRE_SUPER_MAGIC, GPFS_SUPER_MAGIC,
};
/* FUSE itself is neither; what is behind these is elsewhere, or (maildex) nothing to keep an index on. */
static const char *const remote_fuse[] = {
	TREE_FS_MAILDEX, "fuse.sshfs",   "fuse.glusterfs", "fuse.ceph",      "fuse.ceph-fuse",
	"fuse.s3fs",     "fuse.rclone",  "fuse.davfs",     "fuse.curlftpfs", "fuse.mfs",
	"fuse.moosefs",  "fuse.juicefs", "fuse.lizardfs",  "fuse.nfs",       "fuse.fuse-nfs",
	"fuse.smbnetfs", "fuse.gcsfuse", "fuse.seaweedfs", "fuse.beegfs",    "fuse.goofys",
};

int tree_is_remote(const char *path, struct err *e)
{
	char fstype[256];
	struct statfs st;
	int rc;

	if (statfs(path, &st) < 0)
		return err_sys(e, "%s: cannot tell its filesystem", path);
	for (size_t i = 0; i < sizeof(remote_magics) / sizeof(*remote_magics); i++)
		if ((uint32_t)st.f_type == remote_magics[i])
			return 1;
	if ((uint32_t)st.f_type != FUSE_SUPER_MAGIC)
		return 0;
	rc = tree_fstype(path, fstype, sizeof(fstype));
	if (rc < 0)
		return err_set(e, rc, "%s: cannot tell its filesystem: %s", path, strerror(-rc));
	for (size_t i = 0; i < sizeof(remote_fuse) / sizeof(*remote_fuse); i++)
		if (strcmp(fstype, remote_fuse[i]) == 0)
			return 1;
	return 0;
}
