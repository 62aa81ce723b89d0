/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/origins.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

struct step {
	const char *name;
	uint64_t epoch, sequence;
	enum origins_verdict verdict;
	const char *why;
};

static const struct step steps[] = {
	{"a", 10, 1, ORIGINS_HOLE, "not known: what it did before is not, either"},
	{"a", 10, 2, ORIGINS_NEXT, "the second"},
	{"a", 10, 2, ORIGINS_DOUBLED, "doubled"},
	{"a", 10, 1, ORIGINS_DOUBLED, "an old one again"},
	{"a", 10, 3, ORIGINS_NEXT, "doubles don't count"},
	{"a", 10, 5, ORIGINS_HOLE, "4 is missing"},
	{"a", 10, 6, ORIGINS_NEXT, "told once"},
	{"a", 10, 4, ORIGINS_DOUBLED, "late after all: its window proves nothing"},
	{"b", 10, 2, ORIGINS_HOLE, "an origin whose first we never saw"},
	{"b", 10, 3, ORIGINS_NEXT, "another origin's numbers are its own"},
	{"a", 11, 1, ORIGINS_HOLE, "started anew without goodbye"},
	{"a", 11, 0, ORIGINS_NEXT, "goodbye"},
	{"a", 12, 1, ORIGINS_NEXT, "started anew after goodbye"},
	{"a", 13, 1, ORIGINS_HOLE, "a goodbye counts once"},
	{"a", 13, 0, ORIGINS_NEXT, "goodbye"},
	{"a", 14, 2, ORIGINS_HOLE, "started anew after goodbye, and the first is missing"},
	{"a", 14, 3, ORIGINS_NEXT, "told once"},
	{" host with spaces", 0, 0, ORIGINS_NEXT, "goodbye of one that sent nothing"},
	{" host with spaces", 1, 1, ORIGINS_NEXT, "a name is any"},
};

static void sequences(void **state)
{
	struct origins o;

	(void)state;
	origins_init(&o);
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		const struct step *s = &steps[i];

		if (s->sequence == 0)
			origins_goodbye(&o, s->name);
		else if (origins_saw(&o, s->name, s->epoch, s->sequence) != s->verdict)
			fail_msg("%s", s->why);
	}
	origins_release(&o);
}

static void over_a_restart(void **state)
{
	struct origins o, again;
	struct buf text;

	(void)state;
	origins_init(&o);
	origins_init(&again);
	buf_init(&text);
	origins_saw(&o, " host with spaces", 77, 1);
	origins_saw(&o, "b", UINT64_MAX, 1);
	origins_saw(&o, "b", UINT64_MAX, 2);
	origins_saw(&o, "gone", 5, 1);
	origins_goodbye(&o, "gone");
	origins_print(&o, &text);
	assert_int_equal(origins_parse(&again, text.data), 0);
	assert_int_equal(origins_saw(&again, " host with spaces", 77, 2), ORIGINS_NEXT);
	assert_int_equal(origins_saw(&again, "b", UINT64_MAX, 2), ORIGINS_DOUBLED);
	assert_int_equal(origins_saw(&again, "b", UINT64_MAX, 4), ORIGINS_HOLE);
	assert_int_equal(origins_saw(&again, "gone", 6, 1), ORIGINS_NEXT); /* its goodbye is kept, too */
	origins_release(&again);
	assert_int_equal(origins_parse(&again, ""), 0);
	assert_null(again.first);
	buf_release(&text);
	origins_release(&o);
}

static void malformed(void **state)
{
	static const char *const texts[] = {"x\n", "1 2\n", "1 2 0 \n", "1 2 0 name", "1 2 0 a\nx y b\n"};
	struct origins o;

	(void)state;
	origins_init(&o);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		assert_int_equal(origins_parse(&o, texts[i]), -EBADMSG);
		assert_null(o.first);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sequences),
		cmocka_unit_test(over_a_restart),
		cmocka_unit_test(malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
