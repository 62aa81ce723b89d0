/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guards against: a thread that runs on with half of somebody's credentials. The user is changed first, because that is
 * what fails; groups are changed last, so that no later failure would have to bring lost groups back.
 */
#include "lib/base/cred.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef SYS_setgroups32 /* 32-bit machines: the older call has 16-bit groups */
#define SETGROUPS SYS_setgroups32
#else
#define SETGROUPS SYS_setgroups
#endif

/* What this thread runs under, to save the calls that would change nothing. */
static _Thread_local struct {
	bool started;
	bool stuck;  /* supplementary groups cannot be dropped: the thread may be nobody else */
	bool groups; /* has supplementary groups of a caller */
	uid_t own_uid, uid;
	gid_t own_gid, gid;
} self;

/* setfsuid(-1) changes nothing and tells what is (setfsuid(2)). */
static uid_t fsuid_now(void)
{
	return (uid_t)setfsuid((uid_t)-1);
}

static gid_t fsgid_now(void)
{
	return (gid_t)setfsgid((gid_t)-1);
}

int cred_thread_start(void)
{
	int ret;

	self.own_uid = self.uid = fsuid_now();
	self.own_gid = self.gid = fsgid_now();
	self.groups = false;
	self.stuck = false;
	self.started = true;
	if (syscall(SETGROUPS, 0, NULL) == 0)
		return 0;
	ret = -errno;
	if (ret == -EPERM && getgroups(0, NULL) == 0)
		return 0;
	self.stuck = true;
	return ret;
}

static bool become_uid(uid_t uid)
{
	if (uid == self.uid)
		return true;
	setfsuid(uid);
	if (fsuid_now() != uid)
		return false;
	self.uid = uid;
	return true;
}

static bool become_gid(gid_t gid)
{
	if (gid == self.gid)
		return true;
	setfsgid(gid);
	if (fsgid_now() != gid)
		return false;
	self.gid = gid;
	return true;
}

static int become_groups(const struct cred *c)
{
	if (!c->ngroups && !self.groups)
		return 0;
	if (syscall(SETGROUPS, (size_t)c->ngroups, c->groups) < 0)
		return -errno;
	self.groups = c->ngroups > 0;
	return 0;
}

int cred_become(const struct cred *c)
{
	uid_t uid;
	gid_t gid;
	int ret;

	/* What a thread that never started runs under is not known, above all not its groups. */
	if (!self.started)
		cred_thread_start();
	uid = self.uid;
	gid = self.gid;
	if (c->uid == (uid_t)-1 || c->gid == (gid_t)-1 || c->ngroups < 0)
		return -EINVAL;
	if (self.stuck && (c->uid != self.own_uid || c->gid != self.own_gid || c->ngroups))
		return -EPERM;
	ret = become_uid(c->uid) && become_gid(c->gid) ? become_groups(c) : -EPERM;
	if (ret < 0) {
		become_gid(gid);
		become_uid(uid);
	}
	return ret;
}

void cred_restore(void)
{
	const struct cred own = {.uid = self.own_uid, .gid = self.own_gid};

	if (self.started)
		cred_become(&own);
}

bool cred_may_use(const struct cred *c, mode_t mode, uid_t uid, gid_t gid)
{
	mode_t others = S_ISDIR(mode) ? S_IXOTH : S_IROTH;
	bool member = c->gid == gid;

	if (c->uid == 0)
		return true;
	if (c->uid == uid)
		return mode & others << 6;
	for (int i = 0; i < c->ngroups && !member; i++)
		member = c->groups[i] == gid;
	return mode & (member ? others << 3 : others);
}
