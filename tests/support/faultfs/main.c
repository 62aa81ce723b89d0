/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * faultfs MADE MIRROR -o control=PATH[,OPTIONS]: a mirror of the directory MADE that imitates what an NFS client shows,
 * and misbehaves on order (control.h). For tests only; tests/support/faultfs.py has the options and drives it. It stays in the
 * foreground, prints "ready" when it can be used, and ends when it is unmounted.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/dirops.h"
#include "tests/support/faultfs/calls.h"
#include "tests/support/faultfs/control.h"
#include "tests/support/faultfs/shown.h"

#define THREADS 1000 /* a held call occupies one */

#define OPTION(text, field)                                                                                            \
	{                                                                                                              \
		text, offsetof(struct calls_options, field), 0                                                         \
	}
static const struct fuse_opt spec[] = {
	OPTION("control=%s", control),
	OPTION("attr_ms=%u", attr_ms),
	OPTION("entry_ms=%u", entry_ms),
	OPTION("tick_ms=%u", tick_ms),
	OPTION("hold_s=%u", hold_s),
	OPTION("squash=%d", squash),
	OPTION("sized=%d", sized),
	OPTION("unknown=%d", unknown),
	OPTION("silly=%d", silly),
	OPTION("numbers=%d", numbers),
	FUSE_OPT_END,
};

static int parsed(void *data, const char *arg, int key, struct fuse_args *args)
{
	struct calls_options *o = data;

	(void)args;
	if (key != FUSE_OPT_KEY_NONOPT)
		return 1;
	if (!o->made)
		return fuse_opt_add_opt(&o->made, arg) < 0 ? -1 : 0;
	return o->mirror || fuse_opt_add_opt(&o->mirror, arg) < 0 ? -1 : 0;
}

static int fail(const char *what)
{
	fprintf(stderr, "faultfs: %s: %s\n", what, strerror(errno));
	return 1;
}

/* A node takes a descriptor, and the kernel remembers many. */
static void raise_limit(void)
{
	struct rlimit r = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};

	if (setrlimit(RLIMIT_NOFILE, &r) < 0 && getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static int run(struct fuse_session *se)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int ret;

	fuse_loop_cfg_set_max_threads(config, THREADS);
	fuse_loop_cfg_set_idle_threads(config, THREADS);
	ret = fuse_session_loop_mt(se, config);
	fuse_loop_cfg_destroy(config);
	return ret;
}

static int mount_and_run(struct fuse_args *args)
{
	struct fuse_session *se = fuse_session_new(args, &calls_ops, sizeof(calls_ops), NULL);
	struct err e;
	int ret = 1;

	if (!se)
		return 1;
	if (fuse_set_signal_handlers(se) == 0 && fuse_session_mount(se, calls_options.mirror) == 0) {
		if (dirops_allow(se) < 0) {
			fprintf(stderr, "faultfs: libfuse does not let its answers through\n");
		} else if (control_open(calls_options.control, node_root()->fd, &e) < 0) {
			fprintf(stderr, "faultfs: %s\n", e.text);
		} else {
			puts("ready");
			fflush(stdout);
			ret = run(se) < 0;
			unlink(calls_options.control);
		}
		fuse_session_unmount(se);
	}
	fuse_remove_signal_handlers(se);
	fuse_session_destroy(se);
	return ret;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct calls_options *o = &calls_options;
	int ret;

	if (fuse_opt_parse(&args, o, spec, parsed) < 0 || !o->made || !o->mirror || !o->control) {
		fprintf(stderr, "usage: faultfs MADE MIRROR -o control=PATH[,OPTIONS]\n");
		return 2;
	}
	umask(0); /* the kernel has applied the caller's */
	raise_limit();
	rules_init(o->hold_s);
	shown_init(o->tick_ms, o->sized, o->numbers);
	calls_add_handles(&calls_ops);
	if (node_init(o->made, o->silly) < 0)
		return fail(o->made);
	ret = mount_and_run(&args);
	fuse_opt_free_args(&args);
	return ret;
}
