/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/lower.h"

#include "tests/unit/indexer_help.h"

static void refusals(void **state)
{
	struct help *h = *state;
	struct conf c;
	struct lower l;
	char key[160], path[128];
	int fd;

	conf_init(&c);
	snprintf(path, sizeof(path), "%s/nowhere", h->dir);
	snprintf(key, sizeof(key), "root=%s", path);
	OK(h, conf_set(&c, key, &h->err));
	assert_int_equal(lower_open(&l, &c, &h->err), -ENOENT);
	assert_non_null(strstr(h->err.text, path));
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(lower_open(&l, &c, &h->err), -ENOTDIR);
	assert_non_null(strstr(h->err.text, path));
	conf_release(&c);
}

static void opens_halves(void **state)
{
	struct help *h = *state;
	struct cred owner = {.uid = 77};
	struct stat st;
	char path[512];
	int fd;

	help_maildir(h, "alice");
	help_path(h, "alice/new", path);
	if (geteuid() == 0)
		assert_int_equal(chown(path, 60001, 60002), 0);
	assert_int_equal(stat(path, &st), 0);
	fd = lower_open_half(&h->lower, "alice", HALF_NEW, &owner);
	assert_true(fd >= 0);
	assert_int_equal(owner.uid, st.st_uid);
	assert_int_equal(owner.gid, st.st_gid);
	close(fd);
	assert_int_equal(lower_open_half(&h->lower, "bob", HALF_NEW, &owner), -ENOENT);
}

/* The root itself may be a Maildir. */
static void root_as_a_folder(void **state)
{
	struct help *h = *state;
	struct cred owner;
	int fd;

	help_mkdir(h, "new");
	fd = lower_open_half(&h->lower, "", HALF_NEW, &owner);
	assert_true(fd >= 0);
	close(fd);
	assert_false(lower_gone(&h->lower, ""));
	assert_true(lower_half_gone(&h->lower, "", HALF_CUR));
	assert_false(lower_half_gone(&h->lower, "", HALF_NEW));
}

static void gone(void **state)
{
	struct help *h = *state;
	char root[128], away[128], text[ERR_TEXT_MAX];

	help_maildir(h, "alice");
	assert_false(lower_gone(&h->lower, "alice"));
	assert_true(lower_gone(&h->lower, "bob"));
	assert_true(lower_gone(&h->lower, "alice/.Sent"));
	/* Another tree at the path: nothing is gone, whatever is not there. */
	snprintf(root, sizeof(root), "%s/mail", h->dir);
	snprintf(away, sizeof(away), "%s/away", h->dir);
	assert_int_equal(rename(root, away), 0);
	assert_int_equal(mkdir(root, 0700), 0);
	assert_false(lower_gone(&h->lower, "bob"));
	assert_false(lower_ok(&h->lower));
	lower_state(&h->lower, text);
	assert_non_null(strstr(text, root));
	assert_int_equal(rmdir(root), 0);
	assert_int_equal(rename(away, root), 0);
	assert_true(lower_gone(&h->lower, "bob"));
	assert_true(lower_ok(&h->lower));
	lower_state(&h->lower, text);
	assert_string_equal(text, "");
}

/* The watch notices by itself, both ways. */
static void watch(void **state)
{
	struct help *h = *state;
	char root[128], away[128];
	struct timespec ten_ms = {.tv_nsec = 10 * NS_PER_MS};

	snprintf(root, sizeof(root), "%s/mail", h->dir);
	snprintf(away, sizeof(away), "%s/away", h->dir);
	OK(h, lower_start(&h->lower, &h->err));
	assert_int_equal(rename(root, away), 0);
	for (int i = 0; i < 6000 && lower_ok(&h->lower); i++)
		nanosleep(&ten_ms, NULL);
	assert_false(lower_ok(&h->lower));
	assert_int_equal(rename(away, root), 0);
	for (int i = 0; i < 6000 && !lower_ok(&h->lower); i++)
		nanosleep(&ten_ms, NULL);
	assert_true(lower_ok(&h->lower));
	lower_stop(&h->lower);
}

#define T(f) cmocka_unit_test_setup_teardown(f, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(refusals), T(opens_halves), T(root_as_a_folder), T(gone), T(watch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
