/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who rings when: scripts of what happens to two halves, a and b, and what each turns_next() gives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/turns.h"
#include "lib/base/clock.h"

static struct node_table table;
static struct node_dir dirs[2];
static struct node halves[2];

/*
 * At a time in ms: 'a', 'b': something happened; '?': turns_next(), which gives `rings` ('a', 'b', '-': nobody) and,
 * for nobody, `until_ms` (-1: never); 'A', 'B': its ring is over.
 */
struct step {
	int64_t at_ms;
	char what, rings;
	int64_t until_ms;
};

#define STEPS_MAX 16
static const struct {
	const char *name;
	struct step steps[STEPS_MAX];
} scripts[] = {
	{"nothing", {{0, '?', '-', -1}}},
	{"one ring, at once, and forgotten a second later",
	 {{5, 'a', 0, 0}, {5, '?', 'a', 0}, {6, 'A', 0, 0}, {6, '?', '-', 1006}, {1006, '?', '-', -1}}},
	{"two before the ring are one",
	 {{5, 'a', 0, 0},
	  {6, 'a', 0, 0},
	  {7, '?', 'a', 0},
	  {7, '?', '-', -1},
	  {8, 'A', 0, 0},
	  {1007, '?', '-', 1008},
	  {1008, '?', '-', -1}}},
	{"something in the quiet second: once more at its end",
	 {{5, 'a', 0, 0},
	  {5, '?', 'a', 0},
	  {6, 'A', 0, 0},
	  {7, 'a', 0, 0},
	  {800, 'a', 0, 0},
	  {900, '?', '-', 1006},
	  {1006, '?', 'a', 0},
	  {1010, 'A', 0, 0},
	  {1010, '?', '-', 2010},
	  {2010, '?', '-', -1}}},
	{"something during the ring: once more",
	 {{5, 'a', 0, 0},
	  {5, '?', 'a', 0},
	  {6, 'a', 0, 0},
	  {6, '?', '-', -1},
	  {9, 'A', 0, 0},
	  {9, '?', '-', 1009},
	  {1010, '?', 'a', 0}}},
	{"after the quiet second: at once again",
	 {{5, 'a', 0, 0},
	  {5, '?', 'a', 0},
	  {6, 'A', 0, 0},
	  {1500, '?', '-', -1},
	  {1600, 'a', 0, 0},
	  {1600, '?', 'a', 0}}},
	{"nobody looked when it was over: the quiet second ended all the same",
	 {{5, 'a', 0, 0}, {5, '?', 'a', 0}, {6, 'A', 0, 0}, {1600, 'a', 0, 0}, {1600, '?', 'a', 0}}},
	{"b doesn't wait for a's second",
	 {{5, 'a', 0, 0},
	  {5, '?', 'a', 0},
	  {6, 'A', 0, 0},
	  {7, 'a', 0, 0},
	  {8, 'b', 0, 0},
	  {8, '?', 'b', 0},
	  {9, 'B', 0, 0},
	  {9, '?', '-', 1006},
	  {10, 'b', 0, 0},
	  {1009, '?', 'a', 0},
	  {1009, '?', 'b', 0},
	  {1009, '?', '-', -1}}},
	{"both at a time, over in another order",
	 {{5, 'a', 0, 0},
	  {5, 'b', 0, 0},
	  {5, '?', 'a', 0},
	  {5, '?', 'b', 0},
	  {6, 'B', 0, 0},
	  {7, 'A', 0, 0},
	  {8, 'a', 0, 0},
	  {1006, '?', '-', 1007},
	  {1007, '?', 'a', 0}}},
};

static void play(const struct step *steps)
{
	struct turns turns;
	struct turn *out[2] = {NULL, NULL};

	turns_init(&turns, &table);
	for (const struct step *s = steps; s < steps + STEPS_MAX && s->what; s++) {
		int64_t now = s->at_ms * NS_PER_MS, until;

		if (s->what == 'a' || s->what == 'b') {
			int n = s->what - 'a', new = !dirs[n].turn;

			assert_int_equal(turns_ask(&turns, &halves[n]), new);
		} else if (s->what == '?') {
			struct turn *turn = turns_next(&turns, now, &until);
			char rings = turn ? (char)('a' + (turn->node - halves)) : '-';

			if (rings != s->rings)
				print_error("at %d ms: %c, not %c\n", (int)s->at_ms, rings, s->rings);
			assert_int_equal(rings, s->rings);
			if (turn)
				out[turn->node - halves] = turn;
			else
				assert_true(until == (s->until_ms < 0 ? INT64_MAX : s->until_ms * NS_PER_MS));
		} else {
			turns_done(&turns, out[s->what - 'A'], now);
			out[s->what - 'A'] = NULL;
		}
	}
	for (int i = 0; i < 2; i++)
		if (out[i])
			turns_done(&turns, out[i], INT64_MAX / 2);
	turns_release(&turns);
	assert_int_equal(turns.count, 0);
	for (int i = 0; i < 2; i++) {
		assert_null(dirs[i].turn);
		assert_int_equal(halves[i].refs, 1);
	}
}

static void test_scripts(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		print_message("%s\n", scripts[i].name);
		play(scripts[i].steps);
	}
}

/* Those beyond the limit are refused, and taken again when others are through. */
static void test_limit(void **state)
{
	struct node *many = calloc(TURNS_MAX + 1, sizeof(*many));
	struct node_dir *their = calloc(TURNS_MAX + 1, sizeof(*their));
	struct turns turns;
	struct turn *turn;
	int64_t until;

	(void)state;
	assert_true(many && their);
	turns_init(&turns, &table);
	for (size_t i = 0; i <= TURNS_MAX; i++) {
		many[i].dir = &their[i];
		many[i].refs = 1;
		assert_int_equal(turns_ask(&turns, &many[i]), i < TURNS_MAX ? 1 : -ENOSPC);
	}
	assert_null(their[TURNS_MAX].turn);
	turn = turns_next(&turns, 0, &until);
	assert_ptr_equal(turn->node, &many[0]);
	turns_done(&turns, turn, 0);
	assert_int_equal(turns_ask(&turns, &many[TURNS_MAX]), -ENOSPC);
	assert_ptr_equal(turns_next(&turns, TURNS_QUIET_NS, &until)->node, &many[1]);
	turns_done(&turns, their[1].turn, TURNS_QUIET_NS);
	assert_int_equal(turns_ask(&turns, &many[TURNS_MAX]), 1);
	turns_release(&turns);
	assert_int_equal(turns.count, 0);
	free(their);
	free(many);
}

static int setup(void **state)
{
	(void)state;
	pthread_mutex_init(&table.lock, NULL);
	for (int i = 0; i < 2; i++)
		halves[i] = (struct node){.dir = &dirs[i], .refs = 1};
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_scripts), cmocka_unit_test(test_limit)};

	return cmocka_run_group_tests(tests, setup, NULL);
}
