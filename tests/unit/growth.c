/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which size is told while a file grows: steps of a writer (thread 1) and what an asker (thread 2) is told of a size
 * below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/growth.h"
#include "lib/base/clock.h"

enum step {
	END,
	TOLD,  /* a size that was found when nothing was under way */
	BEGAN, /* a write up to there arrives */
	ENDED, /* is answered */
	FAILED,
	WENT_ON, /* its thread sends another request */
	OTHERS,  /* a request of another thread */
	ASKS,    /* growth_await() */
	SAYS,    /* found below since, and what is told */
};

struct row {
	enum step step;
	int64_t size, told;
};

static const struct row tables[][12] = {
	/* nothing is under way */
	{{TOLD, 10, 0}, {ASKS, 0, 0}, {SAYS, 10, 10}, {ASKS, 0, 0}, {SAYS, 30, 30}, {ASKS, 0, 0}, {SAYS, 5, 5}},
	/* under way: the size before */
	{{TOLD, 10, 0},
	 {BEGAN, 20, 0},
	 {ASKS, 0, 0},
	 {SAYS, 20, 10},
	 {ENDED, 20, 0},
	 {WENT_ON, 0, 0},
	 {ASKS, 0, 0},
	 {SAYS, 20, 20}},
	/* it begins, or begins and ends, between the question and the answer */
	{{TOLD, 10, 0}, {ASKS, 0, 0}, {BEGAN, 20, 0}, {SAYS, 20, 10}},
	{{TOLD, 10, 0}, {ASKS, 0, 0}, {BEGAN, 20, 0}, {ENDED, 20, 0}, {SAYS, 20, 10}},
	/* one after the other: that the second arrives says that the first is known */
	{{TOLD, 10, 0}, {BEGAN, 20, 0}, {ENDED, 20, 0}, {BEGAN, 30, 0}, {ASKS, 0, 0}, {SAYS, 30, 20}},
	/* a failed one */
	{{TOLD, 10, 0}, {BEGAN, 20, 0}, {FAILED, 0, 0}, {WENT_ON, 0, 0}, {ASKS, 0, 0}, {SAYS, 10, 10}},
	/* not behind the end */
	{{TOLD, 10, 0}, {BEGAN, 10, 0}, {ASKS, 0, 0}, {SAYS, 10, 10}},
	/* the file was made shorter meanwhile */
	{{TOLD, 10, 0}, {BEGAN, 20, 0}, {ASKS, 0, 0}, {SAYS, 3, 3}},
	/* told by somebody who opens it while a write is under way */
	{{TOLD, 10, 0}, {BEGAN, 20, 0}, {TOLD, 20, 0}, {ASKS, 0, 0}, {SAYS, 20, 10}},
	/* who does nothing more is waited for, and no longer than that */
	{{TOLD, 10, 0},
	 {BEGAN, 20, 0},
	 {ENDED, 20, 0},
	 {OTHERS, 0, 0},
	 {ASKS, 1, 0},
	 {SAYS, 20, 20},
	 {ASKS, 0, 0},
	 {SAYS, 20, 20}},
};

static void sizes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		struct growth g = {0};
		struct growth_asked asked = {0};
		bool grows = false;
		int64_t start;

		for (const struct row *r = tables[i]; r->step != END; r++)
			switch (r->step) {
			case TOLD:
				growth_told(&g, r->size);
				break;
			case BEGAN:
				grows = growth_began(&g, r->size);
				break;
			case ENDED:
				assert_true(grows);
				growth_ended(&g, 1, r->size);
				break;
			case FAILED:
				growth_ended(&g, 1, -1);
				break;
			case WENT_ON:
				growth_seen(1);
				break;
			case OTHERS:
				growth_seen(3);
				break;
			case ASKS:
				start = clock_mono_ns();
				asked = growth_await(&g, 2);
				assert_true(!r->size || clock_mono_ns() - start >= GROWTH_WAIT_NS / 2);
				break;
			case SAYS:
				assert_int_equal(growth_size(&g, &asked, r->size), r->told);
				break;
			case END:
				break;
			}
	}
}

/* The writer sees its own size at once. */
static void own(void **state)
{
	struct growth g = {0};
	struct growth_asked asked;

	(void)state;
	assert_true(growth_began(&g, 20));
	growth_ended(&g, 1, 20);
	asked = growth_await(&g, 1);
	assert_int_equal(growth_size(&g, &asked, 20), 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(own)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
