/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who runs and who waits: steps of requests (a letter each; small: of storage 1, capital: of storage 2), with at most 2 of a
 * storage and 3 of all under way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <ctype.h>

#include "fs/gate.h"

/* "+a": a arrives; "-a": a is done. "?a": a is removed. runs: those that ran, in their order. */
static const struct gate_case {
	const char *what, *steps, *runs;
} cases[] = {
	{"one after the other", "+a-a+b-b", "ab"},
	{"a third of one storage waits, another's does not", "+a+b+c+A", "abA"},
	{"and runs when one is done", "+a+b+c+A-a", "abAc"},
	{"in their order", "+a+b+c+d-b-a", "abcd"},
	{"none overtakes those who wait", "+a+b+c-a+d-b", "abcd"},
	{"all workers are taken", "+a+b+A+B-a", "abAB"},
	{"turns by storage", "+a+b+A+B+c+d-a-b-A", "abABcd"},
	{"a storage at its limit has no turn", "+a+b+c+A+B-A", "abAB"},
	{"who had room first", "+a+b+c+A+B+C-A-a", "abABC"},
	{"what was removed does not run", "+a+b+c+d?c-a", "abd"},
	{"the last one that waited was removed", "+a+b+c?c-a-b+d", "abd"},
	{"the one whose turn it was", "+a+b+A+B+c?B-a", "abAc"},
};

struct request {
	struct gate_item item;
	char name;
};

static bool is_named(const struct gate_item *item, const void *arg)
{
	return ((const struct request *)item)->name == *(const char *)arg;
}

static void run_case(const struct gate_case *c)
{
	struct request requests[128];
	struct gate_item *next = NULL;
	struct gate g;
	char ran[64];
	size_t n = 0;

	gate_init(&g, 2, 3);
	for (const char *s = c->steps; *s; s += 2) {
		struct request *r = &requests[(int)s[1]];

		switch (*s) {
		case '+':
			*r = (struct request){.item.dev = isupper(s[1]) ? 2 : 1, .name = s[1]};
			if (gate_enter(&g, &r->item))
				ran[n++] = r->name;
			break;
		case '-':
			next = gate_leave(&g, isupper(s[1]) ? 2 : 1);
			if (next)
				ran[n++] = ((struct request *)next)->name;
			break;
		default:
			assert_ptr_equal(gate_remove(&g, is_named, &s[1]), r);
			assert_null(gate_remove(&g, is_named, &s[1]));
		}
	}
	ran[n] = '\0';
	if (strcmp(ran, c->runs) != 0)
		fail_msg("%s: ran %s", c->what, ran);
	gate_release(&g);
}

static void table(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		run_case(&cases[i]);
}

/* Nothing of them stays. */
static void thousands_of_storages(void **state)
{
	struct request r;
	struct gate g;

	(void)state;
	gate_init(&g, 2, 3);
	for (dev_t dev = 0; dev < 5000; dev++) {
		r = (struct request){.item.dev = dev};
		assert_true(gate_enter(&g, &r.item));
		assert_null(gate_leave(&g, dev));
	}
	assert_int_equal(g.busy, 0);
	for (size_t i = 0; i < GATE_SLOTS; i++)
		assert_null(g.slots[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(table), cmocka_unit_test(thousands_of_storages)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
