/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is known of a message's file: when a lookup or an open may do without the lower file. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/message.h"

#define OWNER 1000
#define SIZE 5000
#define MTIME_S 77

static struct stat reading(void)
{
	return (struct stat){.st_uid = OWNER, .st_mode = S_IFREG | 0600, .st_size = SIZE, .st_mtim = {MTIME_S, 0}};
}

static struct message learnt(int64_t at_s)
{
	struct message m = {.read_ns = 0};
	struct stat st = reading();

	message_learn(&m, &st, at_s * NS_PER_S, 0);
	return m;
}

static void attributes_last(void **state)
{
	struct message m = learnt(100);
	struct stat st = {.st_size = 0};

	(void)state;
	assert_int_equal(message_recall(&m, OWNER, 100 * NS_PER_S, &st), MESSAGE_KEEP_NS);
	assert_int_equal(st.st_size, SIZE);
	assert_int_equal(message_recall(&m, OWNER, 699 * NS_PER_S, &st), NS_PER_S);
	assert_int_equal(message_recall(&m, OWNER, 700 * NS_PER_S, &st), 0);
	assert_int_equal(message_recall(&m, OWNER, 9000 * NS_PER_S, &st), 0);
}

static void only_the_owner_is_answered(void **state)
{
	struct message m = learnt(100);
	struct stat st;

	(void)state;
	assert_int_equal(message_recall(&m, 0, 100 * NS_PER_S, &st), 0);
	assert_int_equal(message_recall(&m, OWNER + 1, 100 * NS_PER_S, &st), 0);
}

static void a_reading_from_before_a_change_is_dropped(void **state)
{
	struct message m = learnt(100);
	struct stat st = reading();
	uint64_t begun = m.changes;

	(void)state;
	message_forget(&m);
	assert_int_equal(message_recall(&m, OWNER, 100 * NS_PER_S, &st), 0);
	message_learn(&m, &st, 101 * NS_PER_S, begun);
	assert_int_equal(message_recall(&m, OWNER, 101 * NS_PER_S, &st), 0);
	message_learn(&m, &st, 101 * NS_PER_S, m.changes);
	assert_true(message_recall(&m, OWNER, 101 * NS_PER_S, &st) > 0);
}

/* Opened below, read so far; then somebody opens it. */
static const struct held_case {
	const char *what;
	int64_t size, mtime_s; /* as it was at the lower open */
	struct {
		int64_t off, len;
	} reads[3];
	bool forgotten;
	uid_t who;
	int flags;
	mode_t mode;
	bool held;
} held_cases[] = {
	{"read whole", SIZE, MTIME_S, {{0, SIZE}}, false, OWNER, O_RDONLY, 0600, true},
	{"in pieces", SIZE, MTIME_S, {{0, 4096}, {4096, 904}}, false, OWNER, O_RDONLY, 0600, true},
	{"pieces that overlap", SIZE, MTIME_S, {{0, 4096}, {1000, 4000}}, false, OWNER, O_RDONLY, 0600, true},
	{"read by nobody", SIZE, MTIME_S, {{0, 0}}, false, OWNER, O_RDONLY, 0600, false},
	{"its beginning", SIZE, MTIME_S, {{0, 4096}}, false, OWNER, O_RDONLY, 0600, false},
	{"its end", SIZE, MTIME_S, {{4096, 904}}, false, OWNER, O_RDONLY, 0600, false},
	{"the end first: not counted", SIZE, MTIME_S, {{4096, 904}, {0, 4096}}, false, OWNER, O_RDONLY, 0600, false},
	{"longer then", SIZE - 1, MTIME_S, {{0, SIZE}}, false, OWNER, O_RDONLY, 0600, false},
	{"another mtime then", SIZE, MTIME_S - 1, {{0, SIZE}}, false, OWNER, O_RDONLY, 0600, false},
	{"attributes not known", SIZE, MTIME_S, {{0, SIZE}}, true, OWNER, O_RDONLY, 0600, false},
	{"somebody else", SIZE, MTIME_S, {{0, SIZE}}, false, 0, O_RDONLY, 0644, false},
	{"to write", SIZE, MTIME_S, {{0, SIZE}}, false, OWNER, O_RDWR, 0600, false},
	{"to write only", SIZE, MTIME_S, {{0, SIZE}}, false, OWNER, O_WRONLY, 0600, false},
	{"emptied", SIZE, MTIME_S, {{0, SIZE}}, false, OWNER, O_RDONLY | O_TRUNC, 0600, false},
	{"past the pages", SIZE, MTIME_S, {{0, SIZE}}, false, OWNER, O_RDONLY | O_DIRECT, 0600, false},
	{"not to be read", SIZE, MTIME_S, {{0, SIZE}}, false, OWNER, O_RDONLY, 0200, false},
	{"flags that change nothing", SIZE, MTIME_S, {{0, SIZE}}, false, OWNER, O_NONBLOCK | O_NOCTTY, 0600, true},
};

static void opens_that_go_without(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(held_cases) / sizeof(*held_cases); i++) {
		const struct held_case *c = &held_cases[i];
		struct message m = {.read_ns = 0};
		struct stat st = reading();

		message_opened(&m, c->size, c->mtime_s * NS_PER_S, true);
		for (size_t k = 0; k < 3; k++)
			message_given(&m, c->reads[k].off, c->reads[k].len);
		st.st_mode = S_IFREG | c->mode;
		message_learn(&m, &st, NS_PER_S, 0);
		if (c->forgotten)
			message_forget(&m);
		if (message_held(&m, c->who, c->flags, NS_PER_S) != c->held)
			fail_msg("%s: held is %d", c->what, !c->held);
	}
}

static void pages_stay_while_the_file_looks_the_same(void **state)
{
	struct message m = {.read_ns = 0};

	(void)state;
	assert_false(message_opened(&m, SIZE, MTIME_S, true));
	message_given(&m, 0, SIZE);
	assert_true(message_opened(&m, SIZE, MTIME_S, true));
	assert_int_equal(m.given, SIZE);
	assert_false(message_opened(&m, SIZE, MTIME_S, false)); /* no message, or read straight */
	assert_int_equal(m.given, 0);
	message_given(&m, 0, SIZE);
	assert_false(message_opened(&m, SIZE + 1, MTIME_S, true));
	assert_int_equal(m.given, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attributes_last),
		cmocka_unit_test(only_the_owner_is_answered),
		cmocka_unit_test(a_reading_from_before_a_change_is_dropped),
		cmocka_unit_test(opens_that_go_without),
		cmocka_unit_test(pages_stay_while_the_file_looks_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
