/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/control.h"
#include "fs/dirops.h"
#include "fs/lock_wait.h"
#include "fs/loop.h"
#include "fs/mount.h"
#include "fs/ops.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/prog.h"
#include "lib/mail/name.h"

#define DIRFDS_MAX 262144

static const char usage[] =
	"Usage: maildexfs [-c FILE] [-o KEY=VALUE]... [-f] [MOUNTPOINT]\n"
	"\n"
	"Mounts the overlay: listings of new/ and cur/ come from the index, everything else from `root`.\n"
	"Returns when the mount answers. `umount MOUNTPOINT` (or `umount -l`) ends it.\n"
	"\n"
	"  -c FILE        configuration (default /etc/maildex/maildex.conf)\n"
	"  -o KEY=VALUE   overrides the file\n"
	"  -f             stay in the foreground\n"
	"  --help, --version\n";

static void mount_answers(struct fs *fs)
{
	prog_ready(fs->prog);
	log_info("serving %s from %s", fs->mountpoint, fs->conf->root);
}

/* The mount point on the command line goes over the file's. Returns 0 or -EINVAL. */
static int take_mountpoint(struct prog *p, struct err *e)
{
	char cwd[PATH_MAX], setting[2 * PATH_MAX + 16];

	if (p->argc > 1)
		return err_set(e, -EINVAL, "too many arguments: %s", p->argv[1]);
	if (p->argc == 0)
		return 0;
	if (p->argv[0][0] == '/')
		cwd[0] = '\0';
	else if (!getcwd(cwd, sizeof(cwd)))
		return err_sys(e, "cannot tell the current directory");
	snprintf(setting, sizeof(setting), "mount=%s%s%s", cwd, cwd[0] ? "/" : "", p->argv[0]);
	return conf_set(&p->conf, setting, e);
}

/* Every directory of the cache and every open file costs a descriptor. Returns how many there may be. */
static unsigned raise_nofile(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return 1024;
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
	getrlimit(RLIMIT_NOFILE, &rl);
	return rl.rlim_cur > UINT_MAX ? UINT_MAX : (unsigned)rl.rlim_cur;
}

/* The index, if there is one now, must be this tree's. */
static int check_index(const struct fs *fs, struct err *e)
{
	struct store_reader *r;
	int rc;

	if (!fs->conf->index[0])
		return 0;
	rc = store_reader_open(&r, fs->conf->index, fs->tree.identity, e);
	if (rc == 0)
		store_reader_close(r);
	if (rc == -EXDEV || rc == -EPROTO)
		return rc;
	if (rc < 0 && rc != -ENOENT)
		log_warn("%s; folders are listed from the lower tree until it is mended", e->text);
	else if (rc < 0)
		log_warn("no index at %s yet: folders are listed from the lower tree, and indexed by maildexd",
			 fs->conf->index);
	return 0;
}

static int open_session(struct fs *fs, struct err *e)
{
	char options[PATH_MAX * 2 + 128], name[PATH_MAX * 2];
	char *argv[] = {"maildexfs", "-o", options, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	size_t n = 0;

	for (const char *p = fs->conf->root; *p && n + 2 < sizeof(name); p++) {
		if (*p == ',' || *p == '\\')
			name[n++] = '\\';
		name[n++] = *p;
	}
	name[n] = '\0';
	snprintf(options, sizeof(options), "allow_other,default_permissions,subtype=maildex,fsname=%s", name);
	fs->session = fuse_session_new(&args, &ops_table, sizeof(ops_table), fs);
	fuse_opt_free_args(&args);
	if (!fs->session)
		return err_set(e, -EINVAL, "libfuse refuses to start");
	if (fuse_set_signal_handlers(fs->session) < 0)
		return err_set(e, -EINVAL, "cannot set signal handlers");
	if (fuse_session_mount(fs->session, fs->mountpoint) < 0)
		return err_set(e, -EIO, "mount %s: cannot be mounted (is /dev/fuse there, and are you root?)",
			       fs->mountpoint);
	if (dirops_allow(fs->session) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

static int init_parts(struct fs *fs, struct err *e)
{
	unsigned nofile = raise_nofile(), dirfds = nofile / 2;
	char tree[64];
	int r;

	snprintf(tree, sizeof(tree), "/proc/self/fd/%d", fs->tree.fd);
	/* What cannot be told is asked for as if it were local. */
	fs->spares = fs->conf->revalidate_ns > 0 && tree_is_remote(tree, e) == 1;
	fs->started_ns = clock_mono_ns();
	fs->host_hash = name_base_hash(fs->conf->host, strlen(fs->conf->host));
	snprintf(fs->mountpoint, sizeof(fs->mountpoint), "%s", fs->conf->mount);
	serve_init(&fs->serve, fs->conf->serve);
	locks_init(&fs->locks);
	inval_init(&fs->inval);
	r = node_table_init(&fs->nodes, &fs->tree, dirfds > DIRFDS_MAX ? DIRFDS_MAX : dirfds, e);
	if (r == 0 && live_cache_init(&fs->lives, fs->conf->cache_bytes, fs->conf->scans) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0 && store_readers_new(&fs->index, fs->conf->index, fs->tree.identity) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	return r;
}

/* Our threads must not take the signals that end the main loop. */
static int start_threads(struct fs *fs, struct err *e)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	r = ring_start(fs, e);
	if (r == 0)
		r = feed_start(fs, e);
	if (r == 0)
		r = after_start(fs, e);
	if (r == 0)
		r = control_start(fs, e);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

/* In the order in which they need each other. */
static void stop_threads(struct fs *fs)
{
	control_stop(fs);
	after_stop(fs);
	feed_stop(fs);
	ring_stop(fs);
}

static void release_parts(struct fs *fs)
{
	lock_wait_end();
	op_dir_end(fs);
	if (fs->session) {
		fuse_remove_signal_handlers(fs->session);
		fuse_session_destroy(fs->session);
	}
	live_cache_release(fs);
	node_table_release(&fs->nodes);
	store_readers_free(fs->index);
	locks_release(&fs->locks);
	inval_release(&fs->inval);
	serve_release(&fs->serve);
}

static int run(struct fs *fs, int *code, struct err *e)
{
	bool bound;
	int r = mount_prepare(fs->conf, &fs->tree, &bound, code, e);

	if (r < 0)
		return r;
	r = mount_check_options(&fs->tree, code, e);
	if (r == 0) {
		*code = PROG_REACH;
		r = check_index(fs, e);
	}
	if (r == 0)
		r = init_parts(fs, e);
	if (r == 0) {
		r = start_threads(fs, e);
		if (r == 0)
			r = open_session(fs, e);
		if (r == 0) {
			*code = PROG_OK;
			inval_allow(&fs->inval, true);
			ring_mounted(fs);
			loop_run(fs);
			inval_allow(&fs->inval, false);
			log_info("%s is unmounted", fs->mountpoint);
			fuse_session_unmount(fs->session);
		}
		stop_threads(fs);
		release_parts(fs);
	}
	if (bound)
		mount_undo(&fs->tree);
	tree_close(&fs->tree);
	return r;
}

int main(int argc, char **argv)
{
	struct prog p = {.name = "maildexfs", .usage = usage, .daemon = true};
	struct fs *fs = calloc(1, sizeof(*fs));
	int code = prog_parse(&p, argc, argv);
	struct err e;

	if (code >= 0) {
		free(fs);
		return code;
	}
	umask(0); /* the caller's umask was applied by the kernel */
	if (!fs || take_mountpoint(&p, &e) < 0) {
		fprintf(stderr, "maildexfs: %s\n", fs ? e.text : "out of memory");
		prog_release(&p);
		free(fs);
		return PROG_USE;
	}
	fs->conf = &p.conf;
	fs->prog = &p;
	fs->ready = mount_answers;
	code = PROG_REACH;
	if (prog_daemonize(&p, &e) < 0 || run(fs, &code, &e) < 0)
		log_error("%s", e.text);
	prog_release(&p);
	free(fs);
	return code;
}
