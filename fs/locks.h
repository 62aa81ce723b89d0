/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fcntl locks, forwarded to the lower file as open-file-description locks on one lower descriptor per (inode, lock
 * owner): one per handle would let a process block itself, the process's own would make all callers one (law 6).
 *
 * Flow: locks_get()/locks_set() per request; locks_flush() when an owner closes a handle of the inode (POSIX drops its
 * locks then); locks_released() when a handle is gone: what is still held through it are locks of its open file
 * description (F_OFD_SETLK), whose end the kernel does not tell.
 * Shapes: owner is the kernel's lock_owner: of a process, or of an open file description. Descriptors are opened
 * read-write if the handle allows.
 * Ownership: descriptors are the table's.
 * Threads: any; nothing here waits. The first lock of an owner opens the file again with the thread's credentials.
 * Errors: negative errno of fcntl(2): -EAGAIN where somebody else holds it.
 */
#ifndef MAILDEX_FS_LOCKS_H
#define MAILDEX_FS_LOCKS_H

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct lock_holder {
	struct lock_holder *next;
	dev_t dev;
	ino_t ino;
	uint64_t owner;
	const void *handle; /* through which it locked last */
	int fd;
	unsigned users;
	bool dropped;
};

#define LOCKS_SLOTS 1024

struct locks {
	pthread_mutex_t lock;
	struct lock_holder *slots[LOCKS_SLOTS];
};

void locks_init(struct locks *l);
void locks_release(struct locks *l);
/* handle_fd: the lower descriptor of the file handle; handle: which one it is. Return 0 or negative errno. */
int locks_get(struct locks *l, int handle_fd, dev_t dev, ino_t ino, uint64_t owner, struct flock *fl);
int locks_set(struct locks *l, int handle_fd, const void *handle, dev_t dev, ino_t ino, uint64_t owner,
	      const struct flock *fl);
void locks_flush(struct locks *l, dev_t dev, ino_t ino, uint64_t owner);
void locks_released(struct locks *l, const void *handle);

#endif
