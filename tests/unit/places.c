/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/places.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct given {
	struct places places;
	size_t back, gone; /* watches */
	int last;
};

static void unwatch(void *arg, int wd, bool gone)
{
	struct given *g = arg;

	*(gone ? &g->gone : &g->back) += 1;
	g->last = wd;
}

static int setup(void **state)
{
	struct given *g = calloc(1, sizeof(*g));

	assert_non_null(g);
	assert_int_equal(places_init(&g->places, unwatch, g), 0);
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct given *g = *state;

	places_release(&g->places);
	free(g);
	return 0;
}

/* Finds or makes a place and those above it. */
static struct place *at(struct given *g, const char *path)
{
	struct place *place = g->places.root;
	bool made;

	while (*path) {
		size_t n = strcspn(path, "/");

		place = place_child(&g->places, place, path, n, &made);
		assert_non_null(place);
		path += n + (path[n] == '/');
	}
	return place;
}

static void paths(void **state)
{
	static const char *const cases[] = {"", "u", "d/u", "d/u/.Sub", "d/u/ \n\xff", "d/d/d/d"};
	struct given *g = *state;
	char out[FOLDER_PATH_MAX + 1];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(place_path(at(g, cases[i]), out), 0);
		assert_string_equal(out, cases[i]);
		assert_ptr_equal(at(g, cases[i]), at(g, cases[i]));
	}
	assert_null(place_find(&g->places, g->places.root, "x", 1));
	assert_null(place_find(&g->places, g->places.root, "uu", 2));
}

static void longest_path(void **state)
{
	struct given *g = *state;
	char name[NAME_LEN_MAX + 1], out[FOLDER_PATH_MAX + 1];
	struct place *place = g->places.root;
	bool made;
	int r = 0;

	memset(name, 'x', NAME_LEN_MAX);
	for (size_t len = 0; r == 0; len += NAME_LEN_MAX + 1) {
		place = place_child(&g->places, place, name, NAME_LEN_MAX, &made);
		assert_true(place && made);
		r = place_path(place, out);
		assert_int_equal(r, len + NAME_LEN_MAX <= FOLDER_PATH_MAX ? 0 : -ENAMETOOLONG);
	}
}

static void watches(void **state)
{
	struct given *g = *state;
	struct place *u = at(g, "u"), *v = at(g, "v");
	enum place_what what;

	place_watch(&g->places, u, PLACE_DIR, 1, 1, 1);
	place_watch(&g->places, u, PLACE_NEW, 2, 1, 2);
	place_watch(&g->places, v, PLACE_NEW, 2 + 65536, 1, 3); /* the same chain */
	assert_int_equal(g->places.watches, 3);
	assert_int_equal(g->places.folders, 2);
	assert_ptr_equal(places_by_wd(&g->places, 1, &what), u);
	assert_int_equal(what, PLACE_DIR);
	assert_ptr_equal(places_by_wd(&g->places, 2, &what), u);
	assert_int_equal(what, PLACE_NEW);
	assert_ptr_equal(places_by_wd(&g->places, 2 + 65536, &what), v);
	assert_null(places_by_wd(&g->places, 3, &what));
	assert_null(places_by_wd(&g->places, -1, &what)); /* an overflow's */
	place_watch(&g->places, u, PLACE_NEW, 7, 1, 9);   /* instead */
	assert_int_equal(g->back, 1);
	assert_int_equal(g->last, 2);
	assert_null(places_by_wd(&g->places, 2, &what));
	place_unwatch(&g->places, u, PLACE_NEW, true);
	place_unwatch(&g->places, u, PLACE_NEW, true);
	assert_int_equal(g->gone, 1);
	assert_int_equal(g->places.watches, 2);
	places_unwatch_all(&g->places);
	assert_int_equal(g->gone, 3);
	assert_int_equal(g->places.watches, 0);
	assert_int_equal(g->places.folders, 0);
}

/* A place goes with all below it, and out of all lists. */
static void drop(void **state)
{
	struct given *g = *state;
	struct place *deep = at(g, "d/u/.Sub/x/y"), *sub = at(g, "d/u/.Sub"), *other = at(g, "d/v");
	enum place_what what;

	place_watch(&g->places, at(g, "d"), PLACE_DIR, 1, 1, 1);
	place_watch(&g->places, at(g, "d/u"), PLACE_DIR, 2, 1, 1);
	place_watch(&g->places, sub, PLACE_NEW, 3, 1, 1);
	place_watch(&g->places, deep, PLACE_DIR, 4, 1, 1);
	for (int i = 0; i < PLACES_LISTS; i++)
		places_push(&g->places, i, i % 2 ? deep : sub, false);
	sub->pending = event_new("d/u/.Sub", HALF_NEW);
	places_push(&g->places, PLACES_TODO, other, false);
	assert_int_equal(g->places.unwatched, 1);
	place_drop(&g->places, at(g, "d/u"), false);
	assert_int_equal(g->back, 3);
	assert_int_equal(g->places.watches, 1);
	assert_int_equal(g->places.unwatched, 0);
	assert_null(place_find(&g->places, at(g, "d"), "u", 1));
	assert_null(places_by_wd(&g->places, 4, &what));
	assert_ptr_equal(places_pop(&g->places, PLACES_TODO), other);
	assert_null(places_pop(&g->places, PLACES_TODO));
	assert_null(places_pop(&g->places, PLACES_PENDING));
	place_drop(&g->places, g->places.root, true);
	assert_int_equal(g->gone, 1);
	assert_null(g->places.root->child);
}

static void sweep(void **state)
{
	static const char *const all[] = {"a", "b", "c", "d"};
	struct given *g = *state;

	for (int met = 0; met < 4; met++)
		at(g, all[met])->met = met == 2 ? 7 : 6;
	at(g, "b/below")->met = 7; /* of no interest here */
	place_sweep(&g->places, g->places.root, 7);
	assert_ptr_equal(g->places.root->child, at(g, "c"));
	assert_null(g->places.root->child->next);
}

static void lists(void **state)
{
	struct given *g = *state;
	struct place *a = at(g, "a"), *b = at(g, "b"), *c = at(g, "c");

	assert_null(places_pop(&g->places, PLACES_TODO));
	places_push(&g->places, PLACES_TODO, a, false);
	places_push(&g->places, PLACES_TODO, b, false);
	places_push(&g->places, PLACES_TODO, c, true);
	places_push(&g->places, PLACES_TODO, b, true); /* it is in already */
	places_take(&g->places, PLACES_TODO, a);
	places_take(&g->places, PLACES_TODO, a);
	places_push(&g->places, PLACES_UNWATCHED, a, true);
	assert_ptr_equal(places_pop(&g->places, PLACES_TODO), c);
	assert_ptr_equal(places_pop(&g->places, PLACES_TODO), b);
	assert_null(places_pop(&g->places, PLACES_TODO));
	assert_ptr_equal(places_pop(&g->places, PLACES_UNWATCHED), a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(paths, setup, teardown),
		cmocka_unit_test_setup_teardown(longest_path, setup, teardown),
		cmocka_unit_test_setup_teardown(watches, setup, teardown),
		cmocka_unit_test_setup_teardown(drop, setup, teardown),
		cmocka_unit_test_setup_teardown(sweep, setup, teardown),
		cmocka_unit_test_setup_teardown(lists, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
