/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Races that this file guards against:
 * - The kernel holds the directory's lock while the name is made: a worker that did it would wait for itself. So do
 *   threads of our own, which hold no lock. They know nothing of the lower tree: workers answer their walk. Each has a
 *   striker (striker.h), which makes the calls and nothing else: it can't use the descriptors of other threads.
 * - The mount goes, or another one comes over it: see ownmount.c. From there the walk doesn't leave our superblock.
 * - Somebody sees the name in an event and looks for it: only the ringing thread, known by its thread number, is told
 *   that it is there, and nothing is cached; all others are answered by the lower tree.
 * - The end of the process during a ring: closing /dev/fuse aborts its calls, so ring_stop() comes after the unmount.
 */
#include "fs/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/ops.h"
#include "lib/base/clock.h"
#include "lib/base/cred.h"
#include "lib/base/log.h"

/* ---- one ring ---- */

/* Has the kernel an inode for it? Else nobody watches. */
static bool is_known(struct fs *fs, const struct node *half)
{
	bool known;

	pthread_mutex_lock(&fs->nodes.lock);
	known = half->lookups > 0;
	pthread_mutex_unlock(&fs->nodes.lock);
	return known;
}

/* Whom the half belongs to, as far as the client of the lower filesystem knows: its server isn't asked. */
static int owner_of(struct fs *fs, struct node *half, struct cred *owner)
{
	struct statx stx;
	int fd = node_dir_get(&fs->nodes, half), r;

	if (fd < 0)
		return fd;
	r = statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_UID | STATX_GID, &stx) < 0 ? -errno : 0;
	node_dir_put(&fs->nodes, half);
	*owner = (struct cred){.uid = stx.stx_uid, .gid = stx.stx_gid};
	return r;
}

static int strike(struct ring_thread *t, struct node *half)
{
	struct ring *ring = &t->fs->ring;
	char path[FOLDER_PATH_MAX + NAME_LEN_MAX + 2];
	struct cred owner;
	struct strike strike = {.path = path, .name = ring->name, .owner = &owner};
	int r = node_path(&t->fs->nodes, half, path, sizeof(path));

	if (r == 0)
		r = owner_of(t->fs, half, &owner);
	if (r == 0)
		r = strikers_strike(&ring->strikers, (unsigned)(t - ring->threads), &strike);
	atomic_store(&t->made, false);
	return r;
}

/* What hinders all rings is said once; a folder that went is nothing to tell of. */
static void report(struct fs *fs, int r)
{
	static const int usual[] = {ENOENT, ESTALE, ENOTDIR, EACCES, EPERM, EIO, ECONNABORTED, ENOTCONN};
	struct ring *ring = &fs->ring;
	bool said;

	counter_add(r == 0 ? COUNT_RINGS : COUNT_RINGS_FAILED, 1);
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		if (-r == usual[i])
			return;
	pthread_mutex_lock(&ring->lock);
	said = ring->said == r;
	ring->said = r;
	pthread_mutex_unlock(&ring->lock);
	if (r == 0 || said)
		return;
	if (r == -EXDEV)
		log_info("%s is not this mount now: servers that still have it open hear of mail from elsewhere when "
			 "they poll",
			 fs->mountpoint);
	else
		log_warn("servers in IDLE hear of mail from elsewhere only when they poll: %s: %s", fs->mountpoint,
			 r == -EROFS ? "is mounted read-only" : strerror(-r));
}

static void wait_until(struct ring *ring, int64_t until_ns)
{
	struct timespec ts = clock_timespec(until_ns);

	if (until_ns == INT64_MAX)
		pthread_cond_wait(&ring->wake, &ring->lock);
	else
		pthread_cond_timedwait(&ring->wake, &ring->lock, &ts);
}

static void *ring_main(void *arg)
{
	struct ring_thread *t = arg;
	struct ring *ring = &t->fs->ring;
	int64_t until_ns;

	cred_thread_start();
	pthread_mutex_lock(&ring->lock);
	while (!ring->stop) {
		struct turn *turn = turns_next(&ring->turns, clock_mono_ns(), &until_ns);

		if (!turn) {
			wait_until(ring, until_ns);
			continue;
		}
		pthread_mutex_unlock(&ring->lock);
		if (is_known(t->fs, turn->node))
			report(t->fs, strike(t, turn->node));
		pthread_mutex_lock(&ring->lock);
		turns_done(&ring->turns, turn, clock_mono_ns());
	}
	pthread_mutex_unlock(&ring->lock);
	return NULL;
}

int ring_start(struct fs *fs, struct err *e)
{
	struct ring *ring = &fs->ring;
	pthread_condattr_t attr;
	uint64_t random;
	int r;

	*ring = (struct ring){.nthreads = 0};
	turns_init(&ring->turns, &fs->nodes);
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return err_sys(e, "no random numbers");
	snprintf(ring->name, sizeof(ring->name), ".maildex-ring.%016" PRIx64, random);
	pthread_mutex_init(&ring->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ring->wake, &attr);
	pthread_condattr_destroy(&attr);
	r = strikers_start(&ring->strikers, fs->mountpoint, e);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < STRIKERS; i++) {
		struct ring_thread *t = &ring->threads[i];

		t->fs = fs;
		t->pseudo = (struct node){.type = S_IFREG, .refs = 1};
		r = pthread_create(&t->id, NULL, ring_main, t);
		if (r)
			return err_set(e, -r, "cannot start a thread");
		ring->nthreads++;
	}
	return 0;
}

void ring_stop(struct fs *fs)
{
	struct ring *ring = &fs->ring;

	if (!ring->strikers.started)
		return;
	pthread_mutex_lock(&ring->lock);
	ring->stop = true;
	pthread_cond_broadcast(&ring->wake);
	pthread_mutex_unlock(&ring->lock);
	for (unsigned i = 0; i < ring->nthreads; i++)
		pthread_join(ring->threads[i].id, NULL);
	ring->nthreads = 0;
	strikers_stop(&ring->strikers);
	turns_release(&ring->turns);
	pthread_cond_destroy(&ring->wake);
	pthread_mutex_destroy(&ring->lock);
}

void ring_mounted(struct fs *fs)
{
	atomic_store(&fs->ring.mounted, ownmount_mounted(&fs->ring.strikers.mount));
}

/* ---- who asks ---- */

void ring_half(struct fs *fs, struct node *half)
{
	struct ring *ring = &fs->ring;
	int r;

	if (!atomic_load(&ring->mounted) || !half->dir || !is_known(fs, half))
		return;
	pthread_mutex_lock(&ring->lock);
	r = turns_ask(&ring->turns, half);
	if (r == 1)
		pthread_cond_signal(&ring->wake);
	pthread_mutex_unlock(&ring->lock);
	if (r < 0)
		counter_add(COUNT_RINGS_FAILED, 1);
}

/* An own change, or one part of a rename, as one number. */
static uint64_t own_key(const struct node *half, enum change_kind kind, const char *name, size_t len)
{
	return listing_hash(name, len, (uint64_t)(uintptr_t)half + kind);
}

/* Calls fn for what a change adds and removes. */
static void own_each(const struct node *half, const struct change *c, void (*fn)(uint64_t key, void *arg), void *arg)
{
	if (c->kind == CHANGE_RENAME)
		fn(own_key(half, CHANGE_REMOVE, c->old, c->old_len), arg);
	if (c->kind == CHANGE_RENAME || c->kind == CHANGE_ADD)
		fn(own_key(half, CHANGE_ADD, c->name, c->len), arg);
	if (c->kind == CHANGE_REMOVE)
		fn(own_key(half, CHANGE_REMOVE, c->name, c->len), arg);
}

static void own_remember(uint64_t key, void *arg)
{
	struct ring *ring = arg;

	atomic_store(&ring->own[key % RING_OWN_SLOTS], key);
}

void ring_own(struct fs *fs, const struct node *half, const struct change *changes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		own_each(half, &changes[i], own_remember, &fs->ring);
}

struct own_search {
	struct ring *ring;
	bool foreign;
};

/* Each own change has one echo at most: it is forgotten when that was heard. */
static void own_recall(uint64_t key, void *arg)
{
	struct own_search *s = arg;

	s->foreign |= !atomic_compare_exchange_strong(&s->ring->own[key % RING_OWN_SLOTS], &(uint64_t){key}, 0);
}

static bool is_echo(struct fs *fs, const struct node *half, const struct event *ev)
{
	struct own_search s = {.ring = &fs->ring};

	for (size_t i = 0; i < ev->nchanges; i++) {
		s.foreign |= ev->changes[i].kind == CHANGE_LOOK || ev->changes[i].kind == CHANGE_NEED;
		own_each(half, &ev->changes[i], own_recall, &s);
	}
	return !s.foreign;
}

/* The half's node if all of its path is known; referenced. */
static struct node *find_half(struct fs *fs, const struct event *ev)
{
	char path[FOLDER_PATH_MAX + NAME_LEN_MAX + 2], *next = path, *name;
	struct node *n = fs->nodes.root, *child;

	snprintf(path, sizeof(path), "%s/%s", ev->folder, half_word(ev->half));
	node_ref(&fs->nodes, n);
	while (n && (name = strsep(&next, "/"))) {
		if (!name[0])
			continue;
		child = n->dir ? node_child(&fs->nodes, n, name) : NULL;
		node_unref(&fs->nodes, n);
		n = child;
	}
	return n;
}

void ring_event(struct fs *fs, const struct event *ev)
{
	struct node *half;

	if (!atomic_load(&fs->ring.mounted))
		return;
	half = find_half(fs, ev);
	if (!half)
		return;
	if (!is_echo(fs, half, ev))
		ring_half(fs, half);
	node_unref(&fs->nodes, half);
}

/* ---- what the kernel asks for meanwhile ---- */

/* The thread whose ring this is, or NULL: somebody else's call. */
static struct ring_thread *ringing(struct fuse_req *req, const char *name)
{
	struct ring *ring = &ops_fs(req)->ring;
	const struct fuse_ctx *ctx;

	if (name[0] != '.' || strcmp(name, ring->name) != 0)
		return NULL;
	ctx = fuse_req_ctx(req);
	for (unsigned i = 0; ctx->uid == 0 && i < STRIKERS; i++)
		if (ctx->pid == atomic_load(&ring->strikers.each[i].tid))
			return &ring->threads[i];
	return NULL;
}

/* The reference that the kernel gets is counted as any node's, so that FORGET needs no exception. */
static void answer_entry(struct fuse_req *req, struct ring_thread *t)
{
	struct fuse_entry_param e = {.ino = (fuse_ino_t)(uintptr_t)&t->pseudo,
				     .attr = {.st_ino = (ino_t)-1, .st_mode = S_IFREG | 0600, .st_nlink = 1}};

	pthread_mutex_lock(&t->fs->nodes.lock);
	t->pseudo.lookups++;
	pthread_mutex_unlock(&t->fs->nodes.lock);
	ops_reply_entry(req, &e);
}

bool ring_lookup(struct fuse_req *req, const char *name)
{
	struct ring_thread *t = ringing(req, name);

	if (!t)
		return false;
	if (atomic_load(&t->made))
		answer_entry(req, t);
	else
		fuse_reply_err(req, ENOENT);
	return true;
}

bool ring_mknod(struct fuse_req *req, const char *name)
{
	struct ring_thread *t = ringing(req, name);

	if (!t)
		return false;
	atomic_store(&t->made, true);
	answer_entry(req, t);
	return true;
}

bool ring_unlink(struct fuse_req *req, const char *name)
{
	struct ring_thread *t = ringing(req, name);

	if (!t)
		return false;
	atomic_store(&t->made, false);
	fuse_reply_err(req, 0);
	return true;
}
