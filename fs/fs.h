/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One mount: the parts and what they share. Made in main.c, lives as long as the process.
 */
#ifndef MAILDEX_FS_FS_H
#define MAILDEX_FS_FS_H

#include <limits.h>

#include "fs/after.h"
#include "fs/counters.h"
#include "fs/feed.h"
#include "fs/inval.h"
#include "fs/live.h"
#include "fs/locks.h"
#include "fs/node.h"
#include "fs/ring.h"
#include "fs/serve.h"
#include "lib/base/conf.h"
#include "lib/store/reader.h"

struct fuse_session;
struct prog;

struct fs {
	const struct conf *conf;
	struct tree tree; /* the lower tree */
	bool spares;      /* a network filesystem: what is known is answered without a call (dir_attr.h, message.h) */
	char mountpoint[PATH_MAX];
	uint64_t host_hash;
	struct node_table nodes;
	struct live_cache lives;
	struct store_readers *index;
	struct serve serve;
	struct after after;
	struct feed feed;
	struct locks locks;
	struct ring ring;
	struct fuse_session *session;
	struct inval inval;
	int64_t started_ns;
	void (*ready)(struct fs *fs); /* once the mount answers */
	struct prog *prog;
};

#endif
