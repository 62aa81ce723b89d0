/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/privilege.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

int privilege_find(struct privilege *p, const char *user, struct err *e)
{
	struct passwd *pw;

	*p = (struct privilege){.user = user, .uid = geteuid(), .gid = getegid()};
	if (geteuid() != 0)
		return 0;
	errno = 0;
	pw = getpwnam(user);
	if (!pw)
		return err_set(e, -ENOENT, "user %s: there is no such user; make it, or correct `user`", user);
	p->uid = pw->pw_uid;
	p->gid = pw->pw_gid;
	p->switches = pw->pw_uid != 0;
	return 0;
}

int privilege_lend(const struct privilege *p, struct err *e)
{
	if (!p->switches)
		return 0;
	if (setgroups(0, NULL) < 0 || setegid(p->gid) < 0 || seteuid(p->uid) < 0)
		return err_sys(e, "cannot become user %s", p->user);
	return 0;
}

int privilege_return(const struct privilege *p, struct err *e)
{
	if (!p->switches)
		return 0;
	if (seteuid(0) < 0 || setegid(0) < 0)
		return err_sys(e, "cannot become root again");
	return 0;
}

static int keep_two(struct err *e)
{
	static const cap_value_t kept[] = {CAP_SETUID, CAP_SETGID};
	cap_t caps = cap_init();
	int r = 0;

	if (!caps || cap_set_flag(caps, CAP_PERMITTED, 2, kept, CAP_SET) < 0 ||
	    cap_set_flag(caps, CAP_EFFECTIVE, 2, kept, CAP_SET) < 0 || cap_set_proc(caps) < 0)
		r = err_sys(e, "cannot keep CAP_SETUID and CAP_SETGID");
	if (caps)
		cap_free(caps);
	return r;
}

int privilege_drop(const struct privilege *p, struct err *e)
{
	int r;

	if (!p->switches)
		return 0;
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return err_sys(e, "cannot keep capabilities");
	if (setgroups(0, NULL) < 0 || setresgid(p->gid, p->gid, p->gid) < 0 || setresuid(p->uid, p->uid, p->uid) < 0)
		return err_sys(e, "cannot become user %s", p->user);
	r = keep_two(e);
	if (r < 0)
		return r;
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	/*
	 * Other processes of that user (delivery agents) must not read our memory or make it dump core where they can
	 * see it: names of everybody's mail are in it. The kernel does the same at each switch of fsuid.
	 */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(e, "cannot protect the process from being traced");
	return 0;
}
