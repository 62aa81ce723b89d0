/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is told of a directory without a full reading: steps, and what a light reading is completed to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/dir_attr.h"
#include "lib/mail/fresh.h"

enum step {
	END,
	KEPT,    /* a full reading, with the directory's mtime */
	BEGUN,   /* one begins, and is kept as `LATE` */
	LATE,    /* it ends */
	CHANGED, /* an own change, at that time of the server */
	SET,     /* its attributes were set */
	TOLD,    /* this mtime is told */
	ASKED,   /* a full reading is needed */
	MODE,    /* another mode is found */
};

struct row {
	enum step step;
	int64_t s, at_s; /* mtime or server's time; monotonic time */
};

static const struct row tables[][8] = {
	{{ASKED, 0, 1}},
	{{KEPT, 100, 1}, {TOLD, 100, 1}, {TOLD, 100, 30}, {ASKED, 0, 31}, {ASKED, 0, 100}},
	{{KEPT, 100, 1}, {CHANGED, 105, 6}, {TOLD, 105, 6}, {CHANGED, 106, 7}, {TOLD, 106, 8}, {ASKED, 0, 31}},
	/* its clock is not known: changed all the same */
	{{KEPT, 100, 1}, {CHANGED, INT64_MIN, 2}, {TOLD, 100, 2}},
	{{KEPT, -5, 1}, {CHANGED, INT64_MIN, 2}, {TOLD, -5, 2}},
	{{KEPT, 100, 1}, {SET, 0, 2}, {ASKED, 0, 2}},
	{{KEPT, 100, 1}, {MODE, 0, 2}},
	/* a change while it is read: the reading may be from before it */
	{{BEGUN, 0, 1}, {CHANGED, 105, 1}, {LATE, 100, 1}, {ASKED, 0, 1}},
	{{KEPT, 90, 1}, {BEGUN, 0, 2}, {CHANGED, 105, 2}, {LATE, 100, 2}, {TOLD, 105, 2}},
};

static struct statx reading(int64_t mtime_s, uint16_t mode)
{
	return (struct statx){
		.stx_ino = 7, .stx_mode = mode, .stx_nlink = 2, .stx_size = 4096, .stx_mtime = {.tv_sec = mtime_s}};
}

static void run_table(const struct row *rows, size_t n)
{
	struct dir_attr a = {.read_ns = 0};
	uint64_t begun = 0;

	for (size_t i = 0; i < n && rows[i].step != END; i++) {
		int64_t at = rows[i].at_s * NS_PER_S, server = rows[i].s > 0 ? rows[i].s * NS_PER_S : rows[i].s;
		struct statx full = reading(rows[i].s, 0700), light = reading(1, rows[i].step == MODE ? 0500 : 0700);

		light.stx_size = 0;
		switch (rows[i].step) {
		case KEPT:
			dir_attr_keep(&a, &full, at, dir_attr_begin(&a));
			break;
		case BEGUN:
			begun = dir_attr_begin(&a);
			break;
		case LATE:
			dir_attr_keep(&a, &full, at, begun);
			break;
		case CHANGED:
			dir_attr_changed(&a, server);
			break;
		case SET:
			dir_attr_forget(&a);
			break;
		case TOLD:
			assert_true(dir_attr_merge(&a, &light, at));
			assert_int_equal(light.stx_mtime.tv_sec, rows[i].s);
			assert_int_equal(light.stx_size, 4096);
			break;
		case ASKED:
		case MODE:
			assert_false(dir_attr_merge(&a, &light, at));
			assert_int_equal(light.stx_mtime.tv_sec, 1);
			break;
		case END:
			break;
		}
	}
}

static void told_and_asked(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		run_table(tables[i], sizeof(tables[i]) / sizeof(*tables[i]));
}

/* Where the clock says nothing new, the time moves all the same: further than tags do. */
static void each_change_moves_the_times(void **state)
{
	struct statx full = reading(100, 0700), first, second;
	struct dir_attr a = {.read_ns = 0};

	(void)state;
	dir_attr_keep(&a, &full, NS_PER_S, dir_attr_begin(&a));
	first = second = full;
	dir_attr_changed(&a, 50 * NS_PER_S);
	assert_true(dir_attr_merge(&a, &first, NS_PER_S));
	dir_attr_changed(&a, 50 * NS_PER_S);
	assert_true(dir_attr_merge(&a, &second, NS_PER_S));
	assert_int_equal(first.stx_mtime.tv_nsec, FRESH_TAGS_NS + 1);
	assert_int_equal(second.stx_mtime.tv_nsec, 2 * (FRESH_TAGS_NS + 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(told_and_asked),
		cmocka_unit_test(each_change_moves_the_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
