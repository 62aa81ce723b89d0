/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which size is told while a file grows: steps of a writer that never waits anywhere, and what an asker is told of a size
 * below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/caller.h"
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
	pid_t writer = fork();

	(void)state;
	assert_true(writer >= 0);
	while (writer == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
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
				growth_ended(&g, writer, r->size);
				break;
			case FAILED:
				growth_ended(&g, writer, -1);
				break;
			case WENT_ON:
				growth_seen(writer);
				break;
			case OTHERS:
				growth_seen(writer + 2);
				break;
			case ASKS:
				start = clock_mono_ns();
				asked = growth_await(&g, writer + 1);
				assert_true(!r->size || clock_mono_ns() - start >= GROWTH_WAIT_NS / 2);
				break;
			case SAYS:
				assert_int_equal(growth_size(&g, &asked, r->size), r->told);
				break;
			case END:
				break;
			}
	}
	kill(writer, SIGKILL);
	waitpid(writer, NULL, 0);
}

/* A writer that waits in another call, or is gone, has gone on. */
static void seen_elsewhere(void **state)
{
	struct growth g = {0};
	struct growth_asked asked;
	int64_t start = clock_mono_ns();
	pid_t child = fork();

	(void)state;
	assert_true(child >= 0);
	if (child == 0)
		for (prctl(PR_SET_PDEATHSIG, SIGKILL);;)
			pause();
	for (int i = 0; i < 2; i++) {
		assert_true(growth_began(&g, 20 + i));
		growth_ended(&g, child, 20 + i);
		while (caller_may_write(child)) /* until it pauses */
			assert_true(clock_mono_ns() - start < 60 * NS_PER_S);
		asked = growth_await(&g, getpid() + 1);
		assert_int_equal(growth_size(&g, &asked, 20 + i), 20 + i);
		if (i == 0) {
			kill(child, SIGKILL);
			waitpid(child, NULL, 0);
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
	growth_ended(&g, getpid(), 20);
	asked = growth_await(&g, getpid());
	assert_int_equal(growth_size(&g, &asked, 20), 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(seen_elsewhere),
					   cmocka_unit_test(own)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
