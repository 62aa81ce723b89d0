/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a host does to an index: other users, read-only and full disks, killed writers, deleted files.
 *
 * Children are forked before their parent opens the index: SQLite believes that it holds locks which fork(2) doesn't
 * hand on.
 */
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#include "tests/unit/store_help.h"

/* What a child answers with when the place does not allow what it was to do. */
#define CHILD_SKIP 77

static void as_child(struct help *h, int (*fn)(struct help *h))
{
	int rc = help_child(fn, h);

	if (rc == CHILD_SKIP) {
		print_message("skipped: this needs root\n");
		skip();
	}
	if (rc != 0)
		fail_msg("the child answered %d", rc);
}

static void give_to_nobody(const struct help *h)
{
	if (geteuid() != 0 || chown(h->path, NOBODY, NOBODY) < 0) {
		print_message("skipped: this needs root\n");
		skip();
	}
}

/* The index is a cache: somebody may delete it under a writer that goes on. */
static void test_deleted_under_the_writer(void **state)
{
	struct help *h = *state;
	struct store_writer *w = help_writer(h);

	assert_int_equal(unlink(h->path), 0);
	REFUSED(h, -ESTALE, "deleted or replaced", store_writer_begin(w, &h->err));
	store_writer_close(w);
}

/*
 * Another process still holds the deleted index, so that its -wal and -shm stay locked beside the new one, full of
 * pages that must not come up there.
 */
static void test_deleted_and_still_held(void **state)
{
	struct help *h = *state;
	struct store_writer *w;
	struct listing l;
	struct store_row row;
	int fds[2], status;
	char word;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	listing_init(&l);
	help_fill(&l, "old", 500);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		help_store(h, help_writer(h), "a", &l);
		_exit(write(fds[1], "w", 1) == 1 && pause());
	}
	assert_int_equal(read(fds[0], &word, 1), 1);
	assert_int_equal(unlink(h->path), 0);
	w = help_writer(h);
	assert_int_equal(OK(h, store_writer_row(w, "a", HALF_CUR, false, &row, &h->err)), 0);
	listing_reset(&l);
	help_fill(&l, "new", 40);
	help_store(h, w, "b", &l);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	help_store(h, w, "c", &l);
	store_writer_close(w);
	for (const char *folder = "b"; folder; folder = *folder == 'b' ? "c" : NULL) {
		help_load(h, folder, &row, &l);
		assert_int_equal(l.count, 40);
	}
	listing_release(&l);
	close(fds[0]);
	close(fds[1]);
}

/* Refused for want of permission, with the path in the text: 1 the writer was not, 2 the reader was not. */
static int nobody_is_refused(struct help *h)
{
	struct store_writer *w;
	struct store_reader *r;

	if (!help_become_nobody())
		return CHILD_SKIP;
	h->err.text[0] = '\0';
	if (store_writer_open(&w, h->path, TREE, &h->err) != -EACCES || !strstr(h->err.text, h->path))
		return 1;
	h->err.text[0] = '\0';
	if (store_reader_open(&r, h->path, TREE, &h->err) != -EACCES || !strstr(h->err.text, h->path))
		return 2;
	return 0;
}

static void test_file_of_another_user(void **state)
{
	struct help *h = *state;

	chmod(h->dir, 0755);
	help_store_one(h, "a", "", 3);
	as_child(h, nobody_is_refused);
}

/* The file is the program's own, but SQLite can't make its log beside it. */
static void test_read_only_folder(void **state)
{
	struct help *h = *state;
	struct store_row row;

	help_store_one(h, "a", "", 3);
	give_to_nobody(h);
	chmod(h->dir, 0555);
	as_child(h, nobody_is_refused);
	chmod(h->dir, 0755);
	help_load(h, "a", &row, NULL);
	assert_int_equal(row.count, 3);
}

static int nobody_makes_none(struct help *h)
{
	struct store_writer *w;

	if (!help_become_nobody())
		return CHILD_SKIP;
	if (store_writer_open(&w, h->path, TREE, &h->err) != -EACCES || !strstr(h->err.text, h->path))
		return 1;
	return access(h->path, F_OK) == 0 ? 2 : 0;
}

static void test_new_file_in_read_only_folder(void **state)
{
	struct help *h = *state;

	chmod(h->dir, 0555);
	as_child(h, nobody_makes_none);
}

/* SQLite alone would open it for reading, and say so at the first write only. */
static int nobody_may_only_read(struct help *h)
{
	struct store_writer *w;

	if (!help_become_nobody())
		return CHILD_SKIP;
	if (store_writer_open(&w, h->path, TREE, &h->err) != -EACCES || !strstr(h->err.text, "cannot be written"))
		return 1;
	return 0;
}

static void test_read_only_file(void **state)
{
	struct help *h = *state;

	help_store_one(h, "a", "", 3);
	chmod(h->path, 0444);
	chmod(h->dir, 0777);
	as_child(h, nobody_may_only_read);
}

/* A child that waits for a word before it becomes nobody and runs fn. */
struct waiting {
	pid_t pid;
	int go;
};

static struct waiting wait_as_nobody(struct help *h, int (*fn)(struct help *h))
{
	struct waiting child;
	int fds[2];
	char word;

	assert_int_equal(pipe(fds), 0);
	child.pid = fork();
	assert_true(child.pid >= 0);
	if (child.pid == 0) {
		close(fds[1]);
		if (read(fds[0], &word, 1) != 1 || !help_become_nobody())
			_exit(100);
		_exit(fn(h));
	}
	close(fds[0]);
	child.go = fds[1];
	return child;
}

static void assert_answers_0(const struct waiting *child)
{
	int status;

	assert_int_equal(write(child->go, "g", 1), 1);
	close(child->go);
	assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int nobody_writes(struct help *h)
{
	struct store_writer *w;
	struct store_row row;
	int rc = store_writer_open(&w, h->path, TREE, &h->err);

	if (rc)
		return 1;
	rc = store_writer_begin(w, &h->err);
	if (!rc)
		rc = store_writer_row(w, "by/nobody", HALF_CUR, true, &row, &h->err);
	if (rc >= 0)
		rc = store_writer_commit(w, &h->err);
	store_writer_close(w);
	return rc < 0 ? 2 : 0;
}

/* maildexfs (root) starts before maildexd (an unprivileged user): what it leaves beside the file is maildexd's. */
static void test_root_reads_first(void **state)
{
	static const char *const suffixes[] = {"-wal", "-shm"};
	struct help *h = *state;
	struct store_reader *r;
	struct store_row row;
	struct waiting writer;

	help_store_one(h, "a", "", 3);
	give_to_nobody(h);
	assert_int_equal(chown(h->dir, NOBODY, NOBODY), 0);
	writer = wait_as_nobody(h, nobody_writes);
	r = help_reader(h);
	assert_int_equal(OK(h, store_reader_half(r, "a", HALF_CUR, &row, NULL, &h->err)), 1);
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		char name[128];
		struct stat st;

		snprintf(name, sizeof(name), "%s%s", h->path, suffixes[i]);
		assert_int_equal(stat(name, &st), 0);
		assert_int_equal(st.st_uid, NOBODY);
		assert_int_equal(st.st_mode & 07777, 0640);
	}
	assert_answers_0(&writer);
	assert_int_equal(OK(h, store_reader_half(r, "by/nobody", HALF_CUR, &row, NULL, &h->err)), 1);
	assert_true(store_reader_current(r));
	store_reader_close(r);
}

static int nobody_reads(struct help *h)
{
	struct store_reader *r;
	struct store_row row;
	int rc = store_reader_open(&r, h->path, TREE, &h->err);

	if (rc)
		return 1;
	rc = store_reader_half(r, "a", HALF_CUR, &row, NULL, &h->err);
	store_reader_close(r);
	return rc == 1 && row.count == 3 ? 0 : 2;
}

/* While a writer is at work, its readers need no right to write to the folder. */
static void test_reader_in_read_only_folder(void **state)
{
	struct help *h = *state;
	struct waiting reader;
	struct store_writer *w;

	help_store_one(h, "a", "", 3);
	give_to_nobody(h);
	reader = wait_as_nobody(h, nobody_reads);
	w = help_writer(h);
	chmod(h->dir, 0555);
	assert_answers_0(&reader);
	store_writer_close(w);
}

/* Stores halves until the disk is full. Returns what the last answered; *n: how many were stored. */
static int fill_disk(struct store_writer *w, const struct listing *l, unsigned *n, struct err *e)
{
	for (*n = 0;; ++*n) {
		struct store_row row;
		uint64_t changed;
		char folder[16];
		int rc = store_writer_begin(w, e);

		snprintf(folder, sizeof(folder), "%u", *n);
		if (!rc)
			rc = store_writer_row(w, folder, HALF_CUR, true, &row, e);
		if (rc >= 0)
			rc = store_writer_replace(w, &row, l, &changed, e);
		if (!rc)
			rc = store_writer_save(w, &row, e);
		if (!rc)
			rc = store_writer_commit(w, e);
		if (rc < 0) {
			store_writer_rollback(w);
			return rc;
		}
	}
}

/* In a mount namespace of its own, on a disk of 1 MB; answers the number of the step that went wrong. */
static int on_a_small_disk(struct help *h)
{
	struct store_writer *w;
	struct store_reader *r;
	struct store_row row;
	struct listing l;
	char filler[128];
	unsigned n;
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", h->dir, "tmpfs", 0, "size=1m") < 0)
		return CHILD_SKIP;
	listing_init(&l);
	help_fill(&l, "", 500);
	snprintf(filler, sizeof(filler), "%s/filler", h->dir);
	fd = open(filler, O_WRONLY | O_CREAT, 0600);
	if (fd < 0 || posix_fallocate(fd, 0, 1 << 20) < 0)
		return 1;
	if (store_writer_open(&w, h->path, TREE, &h->err) != -ENOSPC || !strstr(h->err.text, "make room"))
		return 2;
	if (ftruncate(fd, 400 << 10) < 0 || store_writer_open(&w, h->path, TREE, &h->err) < 0)
		return 3;
	h->err.text[0] = '\0';
	if (fill_disk(w, &l, &n, &h->err) != -ENOSPC || !n || !strstr(h->err.text, "make room"))
		return 4;
	/* What was stored is still read, nothing else is, and with room the same writer goes on. */
	if (store_reader_open(&r, h->path, TREE, &h->err) < 0)
		return 5;
	if (store_reader_half(r, "0", HALF_CUR, &row, &l, &h->err) != 1 || l.count != 500)
		return 6;
	snprintf(filler, sizeof(filler), "%u", n);
	if (store_reader_half(r, filler, HALF_CUR, &row, NULL, &h->err) != 0)
		return 7;
	if (ftruncate(fd, 0) < 0 || fill_disk(w, &l, &n, &h->err) != -ENOSPC || n < 2)
		return 8;
	store_reader_close(r);
	store_writer_close(w);
	close(fd);
	listing_release(&l);
	return 0;
}

static void test_full_disk(void **state)
{
	as_child(*state, on_a_small_disk);
}

/* Writes batches without end: names, count and a fact of one transaction. Says a byte after each and, later, in one. */
static void write_until_killed(struct help *h, int say, bool inside)
{
	struct store_writer *w = help_writer(h);
	struct store_row row;
	struct listing l;
	char value[16];
	uint64_t changed;

	listing_init(&l);
	for (unsigned i = 1;; i++) {
		listing_reset(&l);
		help_fill(&l, i % 2 ? "odd" : "even", 200 + i % 100);
		snprintf(value, sizeof(value), "%llu", (unsigned long long)l.count);
		OK(h, store_writer_begin(w, &h->err));
		OK(h, store_writer_row(w, "a", HALF_CUR, true, &row, &h->err));
		OK(h, store_writer_replace(w, &row, &l, &changed, &h->err));
		OK(h, store_writer_save(w, &row, &h->err));
		if (inside && i > 5) {
			if (write(say, "i", 1) != 1)
				_exit(1);
			pause();
		}
		OK(h, store_writer_set_fact(w, "names", value, &h->err));
		OK(h, store_writer_commit(w, &h->err));
		if (!inside && i > 5 && write(say, "c", 1) != 1)
			_exit(1);
	}
}

static void kill_a_writer(struct help *h, bool inside, unsigned words)
{
	int fds[2], status;
	char word;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		write_until_killed(h, fds[1], inside);
	}
	close(fds[1]);
	for (unsigned i = 0; i < words; i++)
		assert_int_equal(read(fds[0], &word, 1), 1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	close(fds[0]);
}

/* Killed in the middle of a batch and wherever it happens to be; the reader comes first afterwards, then a writer. */
static void test_killed_writer(void **state)
{
	struct help *h = *state;

	for (unsigned i = 0; i < 12; i++) {
		struct store_row row;
		struct listing l;
		struct store_writer *w;
		char value[16];

		kill_a_writer(h, i % 3 == 0, i % 3 == 0 ? 1 : i);
		listing_init(&l);
		help_load(h, "a", &row, &l);
		w = help_writer(h);
		assert_int_equal(OK(h, store_writer_fact(w, "names", value, sizeof(value), &h->err)), 1);
		assert_int_equal(strtoull(value, NULL, 10), l.count);
		store_writer_close(w);
		listing_release(&l);
		assert_int_equal(help_number(h, "SELECT count(*) FROM pragma_integrity_check "
						"WHERE integrity_check <> 'ok'"),
				 0);
	}
}

static void test_discard(void **state)
{
	struct help *h = *state;
	struct store_writer *w;
	char aside[128];
	struct store_row row;

	snprintf(aside, sizeof(aside), "%s.damaged", h->path);
	for (unsigned i = 0; i < 2; i++) {
		help_store_one(h, "a", "", 3);
		OK(h, store_discard(h->path, &h->err));
		assert_int_equal(access(aside, F_OK), 0);
		assert_int_equal(access(h->path, F_OK), -1);
	}
	REFUSED(h, -ENOENT, "moved aside", store_discard(h->path, &h->err));
	w = help_writer(h);
	assert_int_equal(OK(h, store_writer_row(w, "a", HALF_CUR, false, &row, &h->err)), 0);
	store_writer_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_deleted_under_the_writer),
		TEST(test_deleted_and_still_held),
		TEST(test_file_of_another_user),
		TEST(test_read_only_folder),
		TEST(test_new_file_in_read_only_folder),
		TEST(test_read_only_file),
		TEST(test_root_reads_first),
		TEST(test_reader_in_read_only_folder),
		TEST(test_full_disk),
		TEST(test_killed_writer),
		TEST(test_discard),
	};

	return cmocka_run_group_tests_name("store_faults", tests, NULL, NULL);
}
