/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/base/cred.h"

#define N(a) (sizeof(a) / sizeof(*(a)))

static char top[64];

static char *at(const char *path)
{
	static char out[2][2 * PATH_MAX];
	static unsigned turn;
	char *to = out[turn++ % 2];

	snprintf(to, sizeof(out[0]), "%s/%s", top, path);
	return to;
}

static int top_make(void **state)
{
	(void)state;
	strcpy(top, "/tmp/maildex-tree-XXXXXX");
	return mkdtemp(top) && chmod(top, 0755) == 0 ? 0 : -1;
}

static void make_dirs(const char *const *paths, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(mkdir(at(paths[i]), 0755), 0);
}

static void make_maildir(const char *path)
{
	static const char *const subs[] = {"", "/new", "/cur", "/tmp"};
	char sub[PATH_MAX];

	for (size_t i = 0; i < N(subs); i++) {
		snprintf(sub, sizeof(sub), "%s%s", path, subs[i]);
		assert_int_equal(mkdir(at(sub), 0755), 0);
	}
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int top_remove(void **state)
{
	(void)state;
	return nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void open_and_check(void **state)
{
	struct tree t, again;
	struct err e;
	char *root;

	(void)state;
	make_dirs((const char *const[]){"a", "b"}, 2);
	root = strdup(at("a"));
	assert_int_equal(tree_open(&t, root, &e), 0);
	assert_string_equal(t.path, root);
	assert_int_equal(tree_check(&t, &e), 0);
	/* The same however often it is opened; another directory is another tree. */
	assert_int_equal(tree_open(&again, root, &e), 0);
	assert_string_equal(t.identity, again.identity);
	tree_close(&again);
	assert_int_equal(tree_open(&again, at("b"), &e), 0);
	assert_string_not_equal(t.identity, again.identity);
	tree_close(&again);

	/* Replaced, gone, no directory. */
	assert_int_equal(rename(root, at("old")), 0);
	assert_int_equal(tree_check(&t, &e), -ESTALE);
	assert_non_null(strstr(e.text, root));
	assert_int_equal(mkdir(root, 0755), 0);
	assert_int_equal(tree_check(&t, &e), -ESTALE);
	assert_int_equal(rmdir(root), 0);
	assert_int_equal(rename(at("old"), root), 0);
	assert_int_equal(tree_check(&t, &e), 0);
	tree_close(&t);
	assert_int_equal(tree_open(&t, at("c"), &e), -ENOENT);
	assert_non_null(strstr(e.text, "mount the mail storage"));
	assert_int_equal(tree_open(&t, "/dev/null", &e), -ENOTDIR);
	assert_int_equal(t.fd, -1);
	free(root);
}

static void filesystems(void **state)
{
	char type[64], shortest[3];
	struct stat st, proc;
	uint64_t device;

	(void)state;
	assert_int_equal(tree_fstype("/proc/self", type, sizeof(type)), 0);
	assert_string_equal(type, "proc");
	assert_int_equal(tree_fstype("/proc/self", shortest, sizeof(shortest)), -ENAMETOOLONG);
	assert_int_equal(tree_fstype(at("nothing"), type, sizeof(type)), -ENOENT);
	assert_int_equal(tree_is_remote("/proc", NULL), 0);
	assert_int_equal(tree_is_remote(at("nothing"), NULL), -ENOENT);

	assert_int_equal(stat(top, &st), 0);
	assert_int_equal(stat("/proc", &proc), 0);
	device = tree_device(st.st_dev);
	assert_true(tree_device(proc.st_dev) != device);
	assert_true(tree_device(st.st_dev) == device);
	/* Numbers that no mount shows: something stable, not all the same. */
	assert_true(tree_device(0xfffff001) == tree_device(0xfffff001));
	assert_true(tree_device(0xfffff001) != tree_device(0xfffff002));
}

/* Runs fn in a child; it answers whether all was well. Skips where the child may not do what it needs (exit 77). */
static void in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* In a child: says where it failed by the line. */
#define MUST(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                \
			return 1;                                                                                      \
		}                                                                                                      \
	} while (0)

/* Mounts of a child of its own: nobody else sees them, and they end with it. */
static int private_mounts(void)
{
	return unshare(CLONE_NEWNS) == 0 && mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == 0;
}

static int bound_child(void)
{
	char lower[2 * PATH_MAX], root[2 * PATH_MAX], sock[2 * PATH_MAX], out[PATH_MAX], type[64];
	struct tree direct, bound, other;
	struct stat st;
	uint64_t device;

	if (!private_mounts())
		return 77;
	snprintf(root, sizeof(root), "%s", at("mail"));
	snprintf(lower, sizeof(lower), "%s", at("run/lower"));
	snprintf(sock, sizeof(sock), "%s", at("link/maildexd.sock"));

	/* Without the bind there is only the root. */
	tree_lower_path(root, root, sock, out, sizeof(out));
	MUST(strcmp(out, root) == 0);
	MUST(tree_open(&direct, root, NULL) == 0);
	MUST(stat(root, &st) == 0);
	device = tree_device(st.st_dev);

	/* With it the same tree is seen in both places; links to the socket's folder don't matter. */
	MUST(mount(root, lower, "none", MS_BIND, NULL) == 0);
	tree_lower_path(root, root, sock, out, sizeof(out));
	MUST(strcmp(out, lower) == 0);
	MUST(tree_open(&bound, out, NULL) == 0);
	MUST(strcmp(bound.identity, direct.identity) == 0);
	MUST(tree_device(st.st_dev) == device);
	tree_lower_path(root, at("elsewhere"), sock, out, sizeof(out));
	MUST(strcmp(out, root) == 0);
	tree_lower_path(root, "", sock, out, sizeof(out));
	MUST(strcmp(out, root) == 0);

	/* Something else mounted over the root: the held tree stays, the path is another. */
	MUST(mount("covered", root, "tmpfs", 0, NULL) == 0);
	MUST(tree_check(&direct, NULL) == -ESTALE);
	MUST(tree_check(&bound, NULL) == 0);
	MUST(tree_fstype(root, type, sizeof(type)) == 0 && strcmp(type, "tmpfs") == 0);
	MUST(tree_open(&other, root, NULL) == 0);
	MUST(strcmp(other.identity, direct.identity) != 0);
	tree_close(&other);
	tree_close(&direct);
	tree_close(&bound);
	return 0;
}

static void bound_tree(void **state)
{
	(void)state;
	make_dirs((const char *const[]){"mail", "run", "run/lower"}, 3);
	assert_int_equal(symlink("run", at("link")), 0);
	in_child(bound_child);
}

/* A device number that is used again, by another filesystem. */
static int device_child(void)
{
	uint64_t first, second;
	struct stat a, b;

	if (!private_mounts())
		return 77;
	for (int i = 0; i < 1000; i++) {
		MUST(mount("first", at("m"), "tmpfs", 0, NULL) == 0);
		MUST(stat(at("m"), &a) == 0);
		first = tree_device(a.st_dev);
		MUST(umount(at("m")) == 0);
		MUST(mount("second", at("m"), "tmpfs", 0, NULL) == 0);
		MUST(stat(at("m"), &b) == 0);
		second = tree_device(b.st_dev);
		MUST(umount(at("m")) == 0);
		MUST(first != second);
		if (a.st_dev == b.st_dev)
			return 0;
	}
	return 77; /* the kernel never gave the number again */
}

static void device_reused(void **state)
{
	(void)state;
	make_dirs((const char *const[]){"m"}, 1);
	in_child(device_child);
}

static void open_dir(void **state)
{
	static const struct {
		const char *path;
		int rc;
	} cases[] = {
		{"", 0},           {"a", 0},          {"a/b", 0},        {"a/c", -ENOENT}, {"a/f", -ENOTDIR},
		{"a/l", -ENOTDIR}, {"l", -ENOTDIR},   {"l/b", -ENOTDIR}, {"..", -EINVAL},  {"a/../a", -EINVAL},
		{"/a", -EINVAL},   {"a//b", -EINVAL},
	};
	static const int flags[] = {O_PATH, O_RDONLY};
	struct tree t;
	struct stat st;
	uid_t uid;
	gid_t gid;

	(void)state;
	make_dirs((const char *const[]){"a", "a/b"}, 2);
	close(open(at("a/f"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(symlink("b", at("a/l")), 0);
	assert_int_equal(symlink("a", at("l")), 0);
	assert_int_equal(tree_open(&t, top, NULL), 0);
	for (size_t i = 0; i < N(cases); i++)
		for (size_t j = 0; j < N(flags); j++) {
			int fd = tree_open_dir(&t, cases[i].path, flags[j], &uid, &gid);

			if (cases[i].rc < 0) {
				assert_int_equal(fd, cases[i].rc);
				continue;
			}
			assert_true(fd >= 0);
			assert_int_equal(fstat(fd, &st), 0);
			assert_int_equal(st.st_uid, uid);
			assert_int_equal(st.st_gid, gid);
			assert_int_equal(fcntl(fd, F_GETFL) & O_PATH, flags[j] & O_PATH);
			assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
			close(fd);
		}
	tree_close(&t);
}

/* What tree_walk() tells, as text. */
struct told {
	char text[2048];
	unsigned failed;
	int stop_after;
};

static int tell(void *arg, const char *path)
{
	struct told *told = arg;

	strcat(told->text, *path ? path : "(root)");
	strcat(told->text, " ");
	return --told->stop_after == 0 ? 42 : 0;
}

static void tell_failed(void *arg, const char *path, int error)
{
	struct told *told = arg;
	char line[300];

	snprintf(line, sizeof(line), "!%s%d ", path, error);
	strcat(told->text, line);
	told->failed++;
}

static int walk(const struct tree *t, const char *start, struct told *told)
{
	struct tree_walker w = {.folder = tell, .failed = tell_failed, .arg = told};

	return tree_walk(t, start, &w);
}

/* Is `path` told, as a word? Returns its place or NULL. */
static const char *told_of(const struct told *told, const char *path)
{
	size_t len = strlen(path);

	for (const char *p = told->text; (p = strstr(p, path)); p++)
		if ((p == told->text || p[-1] == ' ') && p[len] == ' ')
			return p;
	return NULL;
}

static void walk_folders(void **state)
{
	struct told told = {.failed = 0};
	struct tree t;

	(void)state;
	make_dirs((const char *const[]){"org", "org/new", "org/half", "org/half/new", "org/half/cur", "org/a"}, 6);
	make_maildir("org/a/Maildir");
	make_maildir("org/a/Maildir/.Sent");
	make_maildir("org/a/Maildir/cur/inside");
	make_maildir("org/new/Maildir"); /* a user called "new": org is no Maildir */
	assert_int_equal(symlink("a", at("org/linked")), 0);
	assert_int_equal(mkdir(at("org/twisted"), 0755), 0);
	assert_int_equal(mkdir(at("org/twisted/new"), 0755), 0);
	assert_int_equal(mkdir(at("org/twisted/cur"), 0755), 0);
	assert_int_equal(symlink("../a/Maildir/tmp", at("org/twisted/tmp")), 0);
	assert_int_equal(tree_open(&t, top, NULL), 0);

	assert_int_equal(walk(&t, "", &told), 0);
	assert_int_equal(told.failed, 0);
	assert_int_equal(strlen(told.text), strlen("org/a/Maildir org/a/Maildir/.Sent org/new/Maildir "));
	assert_non_null(told_of(&told, "org/new/Maildir"));
	assert_true(told_of(&told, "org/a/Maildir") < told_of(&told, "org/a/Maildir/.Sent"));
	assert_non_null(told_of(&told, "org/a/Maildir"));

	told = (struct told){.failed = 0};
	assert_int_equal(walk(&t, "org/a/Maildir/.Sent", &told), 0);
	assert_string_equal(told.text, "org/a/Maildir/.Sent ");
	told = (struct told){.stop_after = 1};
	assert_int_equal(walk(&t, "org/a", &told), 42);
	assert_string_equal(told.text, "org/a/Maildir ");
	told = (struct told){.failed = 0};
	assert_int_equal(walk(&t, "org/none", &told), -ENOENT);
	assert_int_equal(walk(&t, "org/linked", &told), -ENOTDIR);
	assert_int_equal(walk(&t, "../x", &told), -EINVAL);
	assert_string_equal(told.text, "");
	tree_close(&t);

	/* The root itself may be a Maildir. */
	assert_int_equal(tree_open(&t, at("org/a/Maildir"), NULL), 0);
	assert_int_equal(walk(&t, "", &told), 0);
	assert_string_equal(told.text, "(root) .Sent ");
	tree_close(&t);
}

/* Deeper than any tree of mail: told, and the walk goes on elsewhere. */
static void walk_deep(void **state)
{
	struct told told = {.failed = 0};
	struct tree t;
	int fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	make_maildir("m");
	for (int i = 0; i < 70; i++) {
		int next;

		assert_int_equal(mkdirat(fd, "d", 0755), 0);
		next = openat(fd, "d", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close(fd);
		fd = next;
	}
	close(fd);
	assert_int_equal(tree_open(&t, top, NULL), 0);
	assert_int_equal(walk(&t, "", &told), 0);
	assert_int_equal(told.failed, 1);
	assert_non_null(told_of(&told, "m"));
	tree_close(&t);
}

enum { VMAIL = 54321, ALICE = 54322, BOB = 54323 };

/* As maildexd runs: a user of its own with nothing but the right to change it. */
static int become_vmail(void)
{
	cap_value_t keep[] = {CAP_SETUID, CAP_SETGID};
	cap_t caps = cap_init();
	int ok = prctl(PR_SET_KEEPCAPS, 1) == 0 && setresgid(VMAIL, VMAIL, VMAIL) == 0 &&
		 setresuid(VMAIL, VMAIL, VMAIL) == 0 && cap_set_flag(caps, CAP_PERMITTED, 2, keep, CAP_SET) == 0 &&
		 cap_set_flag(caps, CAP_EFFECTIVE, 2, keep, CAP_SET) == 0 && cap_set_proc(caps) == 0;

	cap_free(caps);
	return ok;
}

static int owners_child(void)
{
	struct told told = {.failed = 0};
	struct tree t;
	uid_t uid = 0;
	gid_t gid = 0;
	int fd;

	MUST(tree_open(&t, top, NULL) == 0);
	if (!become_vmail())
		return 77;
	MUST(cred_thread_start() == 0);
	fd = tree_open_dir(&t, "alice/.Sent/new", O_RDONLY, &uid, &gid);
	MUST(fd >= 0 && uid == ALICE && gid == ALICE);
	close(fd);
	/* Bob's directory in Alice's: by her through hers, by him into his. */
	fd = tree_open_dir(&t, "alice/bobs/deep", O_RDONLY, &uid, &gid);
	MUST(fd >= 0 && uid == BOB);
	close(fd);
	/* Not readable by its owner either. */
	MUST(tree_open_dir(&t, "alice/shut", O_RDONLY, &uid, &gid) == -EACCES);
	MUST(tree_open_dir(&t, "alice/shut/x", O_PATH, &uid, &gid) == -EACCES);
	/* The thread is itself again. */
	MUST(openat(t.fd, "alice/.Sent", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
	MUST(walk(&t, "", &told) == 0);
	MUST(told_of(&told, "alice") && told_of(&told, "alice/.Sent"));
	MUST(told_of(&told, "!alice/shut-13"));
	MUST(told.failed == 1);
	tree_close(&t);
	return 0;
}

static void chown_below(const char *path, uid_t uid, mode_t mode)
{
	assert_int_equal(chown(at(path), uid, uid), 0);
	assert_int_equal(chmod(at(path), mode), 0);
}

static void as_owner(void **state)
{
	static const char *const alices[] = {"alice/new",       "alice/cur",       "alice/tmp",   "alice/.Sent/new",
					     "alice/.Sent/cur", "alice/.Sent/tmp", "alice/.Sent", "alice"};

	(void)state;
	if (geteuid() != 0)
		skip();
	make_maildir("alice");
	make_maildir("alice/.Sent");
	make_dirs((const char *const[]){"alice/bobs", "alice/bobs/deep", "alice/shut"}, 3);
	for (size_t i = 0; i < N(alices); i++)
		chown_below(alices[i], ALICE, 0700);
	chown_below("alice/bobs", BOB, 0700);
	chown_below("alice/bobs/deep", BOB, 0700);
	chown_below("alice/shut", ALICE, 0);
	in_child(owners_child);
}

#define TOPPED(test) cmocka_unit_test_setup_teardown(test, top_make, top_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TOPPED(open_and_check), TOPPED(filesystems),  TOPPED(bound_tree), TOPPED(device_reused),
		TOPPED(open_dir),       TOPPED(walk_folders), TOPPED(walk_deep),  TOPPED(as_owner),
	};

	if (cred_thread_start() < 0 && geteuid() == 0)
		return 1;
	return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
