/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/cred.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define NOBODY 65534
#define OTHER 65533
#define GROUP 65532

static char folder[] = "/tmp/maildex-cred-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return !mkdtemp(folder) || chmod(folder, 0777) < 0;
}

static int remove_folder(void **state)
{
	(void)state;
	return rmdir(folder);
}

/* Makes a file as whoever the thread is, removes it and tells whose it was. Returns 0 or -errno. */
static int owner_of_new_file(const char *name, struct stat *st)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	fstat(fd, st);
	close(fd);
	unlink(path);
	return 0;
}

static void assert_owner(uid_t uid, gid_t gid)
{
	struct stat st;

	assert_int_equal(owner_of_new_file("file", &st), 0);
	assert_int_equal(st.st_uid, uid);
	assert_int_equal(st.st_gid, gid);
}

static void need_root(void)
{
	if (geteuid() != 0)
		skip();
}

static void become_and_restore(void **state)
{
	const struct cred nobody = {.uid = NOBODY, .gid = NOBODY}, other = {.uid = OTHER, .gid = NOBODY};

	(void)state;
	need_root();
	assert_int_equal(cred_thread_start(), 0);
	assert_int_equal(cred_become(&nobody), 0);
	assert_owner(NOBODY, NOBODY);
	assert_int_equal(cred_become(&nobody), 0);
	assert_owner(NOBODY, NOBODY);
	/* From one user straight to another. */
	assert_int_equal(cred_become(&other), 0);
	assert_owner(OTHER, NOBODY);
	cred_restore();
	assert_owner(geteuid(), getegid());
	cred_restore();
	assert_owner(geteuid(), getegid());
}

/* A folder of mode 0070 lets in by group only. */
static void groups(void **state)
{
	const gid_t list[] = {GROUP, OTHER};
	const struct cred plain = {.uid = NOBODY, .gid = NOBODY},
			  member = {.uid = NOBODY, .gid = NOBODY, .ngroups = 2, .groups = list};
	struct stat st;

	(void)state;
	need_root();
	assert_int_equal(cred_thread_start(), 0);
	assert_int_equal(chown(folder, OTHER, GROUP), 0);
	assert_int_equal(chmod(folder, 0070), 0);
	assert_int_equal(cred_become(&plain), 0);
	assert_int_equal(owner_of_new_file("file", &st), -EACCES);
	assert_int_equal(cred_become(&member), 0);
	assert_int_equal(owner_of_new_file("file", &st), 0);
	/* They do not stay for the next. */
	assert_int_equal(cred_become(&plain), 0);
	assert_int_equal(owner_of_new_file("file", &st), -EACCES);
	assert_int_equal(cred_become(&member), 0);
	cred_restore();
	assert_int_equal(getgroups(0, NULL), 0);
	assert_int_equal(chown(folder, 0, 0), 0);
	assert_int_equal(chmod(folder, 0777), 0);
}

static void bad_ids(void **state)
{
	static gid_t many[1 << 20];
	static const struct cred cases[] = {
		{.uid = (uid_t)-1, .gid = 0},
		{.uid = 0, .gid = (gid_t)-1},
		{.uid = NOBODY, .gid = NOBODY, .ngroups = -1},
		{.uid = NOBODY, .gid = NOBODY, .ngroups = 1 << 20, .groups = many}, /* more than the kernel takes */
	};

	(void)state;
	need_root();
	assert_int_equal(cred_thread_start(), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(cred_become(&cases[i]), -EINVAL);
		assert_owner(0, 0); /* runs on as before */
	}
}

static pthread_barrier_t barrier;
static struct stat seen_by_thread;
static int thread_ret;

static void *bystander(void *arg)
{
	(void)arg;
	pthread_barrier_wait(&barrier);
	thread_ret = owner_of_new_file("bystander", &seen_by_thread);
	pthread_barrier_wait(&barrier);
	return NULL;
}

static void other_threads_are_unaffected(void **state)
{
	const gid_t list[] = {GROUP};
	const struct cred nobody = {.uid = NOBODY, .gid = NOBODY, .ngroups = 1, .groups = list};
	pthread_t thread;

	(void)state;
	need_root();
	assert_int_equal(cred_thread_start(), 0);
	assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
	assert_int_equal(pthread_create(&thread, NULL, bystander, NULL), 0);
	assert_int_equal(cred_become(&nobody), 0);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	assert_owner(NOBODY, NOBODY);
	cred_restore();
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&barrier);
	assert_int_equal(thread_ret, 0);
	assert_int_equal(seen_by_thread.st_uid, 0);
	assert_int_equal(seen_by_thread.st_gid, 0);
}

/* Without CAP_SETUID: -EPERM, and the thread stays who it is. Returns 0 or the number of the step that failed. */
static int unprivileged_child(void)
{
	const struct cred self = {.uid = NOBODY, .gid = NOBODY}, other = {.uid = OTHER, .gid = OTHER},
			  other_group = {.uid = NOBODY, .gid = OTHER};
	const gid_t list[] = {GROUP};
	struct stat st;

	if (setgroups(1, list) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
		return 1;
	if (cred_thread_start() != -EPERM)
		return 2;
	if (cred_become(&other) != -EPERM || cred_become(&other_group) != -EPERM)
		return 3;
	if (cred_become(&self) != 0)
		return 4;
	if (owner_of_new_file("child", &st) < 0 || st.st_uid != NOBODY || st.st_gid != NOBODY)
		return 5;
	cred_restore();
	return getgroups(0, NULL) == 1 ? 0 : 6;
}

/* The same without groups to lose: it is the switch itself that is refused, and half of it taken back. */
static int groupless_child(void)
{
	const struct cred other = {.uid = OTHER, .gid = OTHER}, half = {.uid = NOBODY, .gid = OTHER};
	struct stat st;

	if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	    setresuid(OTHER, NOBODY, NOBODY) < 0) /* as OTHER the switch of the user is allowed, of the group not */
		return 1;
	if (cred_thread_start() != 0)
		return 2;
	if (cred_become(&other) != -EPERM || cred_become(&half) != -EPERM)
		return 3;
	if (owner_of_new_file("child", &st) < 0 || st.st_uid != NOBODY || st.st_gid != NOBODY)
		return 4;
	return 0;
}

static void run_child(int (*fn)(void))
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child)
		_exit(fn());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void unprivileged(void **state)
{
	(void)state;
	need_root();
	run_child(unprivileged_child);
	run_child(groupless_child);
}

struct use_case {
	uid_t uid;
	gid_t gid;
	int ngroups;
	mode_t mode;
	bool may;
};

static const struct use_case use_cases[] = {
	/* OTHER's, and GROUP's */
	{OTHER, NOBODY, 0, S_IFDIR | 0700, true},
	{OTHER, GROUP, 1, S_IFDIR | 0677, false}, /* the owner's bits alone count */
	{NOBODY, GROUP, 0, S_IFDIR | 0710, true},
	{NOBODY, GROUP, 0, S_IFDIR | 0701, false},
	{NOBODY, NOBODY, 1, S_IFDIR | 0710, true},
	{NOBODY, NOBODY, 1, S_IFDIR | 0701, false},
	{NOBODY, NOBODY, 0, S_IFDIR | 0710, false},
	{NOBODY, NOBODY, 0, S_IFDIR | 0701, true},
	{NOBODY, NOBODY, 0, S_IFDIR | 0776, false}, /* to list is another right */
	{0, 0, 0, S_IFDIR | 0, true},
	{OTHER, NOBODY, 0, S_IFREG | 0400, true},
	{OTHER, NOBODY, 0, S_IFREG | 0355, false},
	{NOBODY, NOBODY, 1, S_IFREG | 0040, true},
	{NOBODY, NOBODY, 0, S_IFREG | 0771, false},
};

static void who_may_use(void **state)
{
	static const gid_t group = GROUP;

	(void)state;
	for (size_t i = 0; i < sizeof(use_cases) / sizeof(*use_cases); i++) {
		const struct use_case *c = &use_cases[i];
		struct cred who = {.uid = c->uid, .gid = c->gid, .ngroups = c->ngroups, .groups = &group};

		if (cred_may_use(&who, c->mode, OTHER, GROUP) != c->may)
			fail_msg("case %zu", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(become_and_restore),
		cmocka_unit_test(groups),
		cmocka_unit_test(bad_ids),
		cmocka_unit_test(other_threads_are_unaffected),
		cmocka_unit_test(unprivileged),
		cmocka_unit_test(who_may_use),
	};

	return cmocka_run_group_tests_name("cred", tests, make_folder, remove_folder);
}
