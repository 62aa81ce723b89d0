/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/queue.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/clock.h"

#define LIMIT 100

static int setup(void **state)
{
	*state = queue_new(LIMIT);
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	queue_free(*state);
	return 0;
}

static void push(struct queue *q, const char *folder, unsigned changes, uint64_t peer)
{
	struct event ev;
	struct change c;

	event_init(&ev, folder, HALF_CUR);
	for (unsigned i = 0; i < changes; i++) {
		char name[32];

		snprintf(name, sizeof(name), "1.%u.h", i);
		change_make(&c, CHANGE_ADD, NULL, name, i + 1, 0);
		assert_int_equal(event_add(&ev, &c), 0);
	}
	queue_event(q, &ev, peer);
	assert_int_equal(ev.nchanges, 0);
}

static struct wire_scan *scan_new(const char *folder, unsigned names)
{
	struct wire_scan *s = calloc(1, sizeof(*s));
	struct listing_entry entry = {.ino = 1, .type = 8, .len = 1, .name = "x"};

	assert_non_null(s);
	snprintf(s->folder, sizeof(s->folder), "%s", folder);
	s->half = HALF_CUR;
	listing_init(&s->listing);
	for (unsigned i = 0; i < names; i++)
		assert_int_equal(listing_add(&s->listing, &entry), 0);
	return s;
}

static void take(struct queue *q, struct queue_batch *b)
{
	assert_int_equal(queue_take(q, SIZE_MAX, 0, b), 1);
}

static void keeps_order_and_halves(void **state)
{
	struct queue *q = *state;
	struct queue_batch b;
	struct queue_item *it;

	push(q, "a", 1, 1);
	push(q, "b", 1, 2);
	push(q, "a", 2, 3);
	assert_int_equal(queue_scan(q, scan_new("a", 1), 4), 0);
	push(q, "a", 3, 5);
	take(q, &b);
	assert_int_equal(b.items, 5);
	assert_string_equal(b.halves->folder, "a");
	assert_string_equal(b.halves->next->folder, "b");
	assert_null(b.halves->next->next);
	it = b.halves->items;
	for (uint64_t peer = 1; it; it = it->next, peer = peer == 1 ? 3 : peer + 1) {
		assert_int_equal(it->peer, peer);
		assert_int_equal(!it->scan, peer != 4);
	}
	queue_batch_release(&b);
	assert_int_equal(queue_take(q, 1, 0, &b), 0);
	assert_false(queue_waiting(q));
}

static void takes_whole_halves_up_to_max(void **state)
{
	struct queue *q = *state;
	struct queue_batch b;

	for (int i = 0; i < 3; i++) {
		push(q, "a", 1, 0);
		push(q, "b", 1, 0);
		push(q, "c", 1, 0);
	}
	assert_int_equal(queue_take(q, 4, 0, &b), 1);
	assert_int_equal(b.items, 6);
	queue_batch_release(&b);
	take(q, &b);
	assert_string_equal(b.halves->folder, "c");
	assert_int_equal(b.items, 3);
	queue_batch_release(&b);
}

static void overflow_collapses_the_half(void **state)
{
	struct queue *q = *state;
	struct queue_stats st;
	struct queue_batch b;

	push(q, "other", 10, 0);
	assert_int_equal(queue_scan(q, scan_new("a", 1), 4), 0);
	for (int i = 0; i < 10; i++)
		push(q, "a", 10, 0); /* the tenth is too much */
	queue_stats(q, &st);
	assert_int_equal(st.overflows, 1);
	assert_int_equal(st.changes, 11);
	push(q, "a", 10, 0); /* adds nothing to NEED */
	queue_stats(q, &st);
	assert_int_equal(st.changes, 11);
	take(q, &b);
	assert_false(b.gap);
	assert_false(b.halves->need);
	assert_string_equal(b.halves->next->folder, "a");
	assert_true(b.halves->next->need);
	/* The scan stays. */
	assert_non_null(b.halves->next->items->scan);
	assert_null(b.halves->next->items->next);
	queue_batch_release(&b);
	queue_stats(q, &st);
	assert_int_equal(st.changes, 0);
	/* And all is as before. */
	push(q, "a", 2, 0);
	take(q, &b);
	assert_false(b.halves->need);
	assert_int_equal(b.items, 1);
	queue_batch_release(&b);
}

static void overflow_of_a_new_half(void **state)
{
	struct queue *q = *state;
	struct queue_batch b;

	push(q, "other", LIMIT - 1, 0);
	push(q, "a", 5, 0);
	take(q, &b);
	assert_false(b.gap);
	assert_string_equal(b.halves->next->folder, "a");
	assert_true(b.halves->next->need);
	queue_batch_release(&b);
}

static void too_many_halves_are_one_gap(void **state)
{
	struct queue *q = *state;
	struct queue_stats st;
	struct queue_batch b;
	char folder[16];
	size_t n = 0;

	for (int i = 0; i < 3 * LIMIT; i++) {
		snprintf(folder, sizeof(folder), "f%d", i);
		push(q, folder, 1, 0);
	}
	queue_stats(q, &st);
	assert_int_equal(st.changes, LIMIT);
	assert_int_equal(st.overflows, 2 * LIMIT);
	take(q, &b);
	assert_true(b.gap);
	for (struct queue_half *h = b.halves; h; h = h->next)
		n++;
	assert_int_equal(n, LIMIT);
	queue_batch_release(&b);
	assert_int_equal(queue_take(q, 1, 0, &b), 0);
}

static void gap_alone(void **state)
{
	struct queue *q = *state;
	struct queue_batch b;

	queue_gap(q);
	assert_true(queue_waiting(q));
	take(q, &b);
	assert_true(b.gap);
	assert_null(b.halves);
	assert_int_equal(queue_take(q, 1, 0, &b), 0);
	assert_false(b.gap);
}

static void newer_scan_replaces(void **state)
{
	struct queue *q = *state;
	struct queue_batch b;

	assert_int_equal(queue_scan(q, scan_new("a", 1), 1), 0);
	push(q, "a", 1, 2);
	assert_int_equal(queue_scan(q, scan_new("a", 2), 3), 0);
	take(q, &b);
	assert_int_equal(b.items, 2);
	assert_int_equal(b.halves->items->peer, 2);
	assert_int_equal(b.halves->items->next->scan->listing.count, 2);
	queue_batch_release(&b);
}

static void lag_is_that_of_the_oldest(void **state)
{
	struct queue *q = *state;
	struct queue_stats st;
	struct queue_batch b;
	int64_t before, after;

	queue_stats(q, &st);
	assert_int_equal(st.lag_ns, 0);
	before = clock_mono_ns();
	push(q, "a", 1, 0);
	after = clock_mono_ns();
	push(q, "b", 1, 0);
	queue_stats(q, &st);
	assert_true(st.lag_ns >= 0 && st.lag_ns <= clock_mono_ns() - before);
	assert_int_equal(queue_take(q, 1, 0, &b), 1);
	queue_batch_release(&b);
	queue_stats(q, &st);
	assert_true(st.lag_ns <= clock_mono_ns() - after);
	take(q, &b);
	queue_batch_release(&b);
}

struct test_call {
	struct queue_call call;
	int ran;
};

static void closed(void **state)
{
	struct queue *q = *state;
	struct test_call c = {.ran = 0};
	struct wire_scan *s = scan_new("a", 1);
	struct queue_batch b;

	push(q, "a", 1, 0);
	assert_int_equal(queue_call(q, &c.call), 0);
	queue_close(q);
	push(q, "b", 1, 0);
	assert_int_equal(queue_scan(q, s, 0), -ESHUTDOWN);
	assert_int_equal(queue_call(q, &c.call), -ESHUTDOWN);
	assert_int_equal(queue_take(q, 1, 3600 * NS_PER_S, &b), 1); /* what came before */
	assert_ptr_equal(b.calls, &c.call);
	assert_null(b.halves->next);
	queue_batch_release(&b);
	assert_int_equal(queue_take(q, 1, 3600 * NS_PER_S, &b), 0); /* without waiting */
	wire_scan_release(s);
	free(s);
}

/* Any number of senders, one taker: nothing is lost or doubled, and each sender's order stays. */
#define SENDERS 4
#define EACH 5000

struct sender {
	struct queue *q;
	uint64_t id;
};

static void *send_all(void *arg)
{
	struct sender *s = arg;

	for (uint64_t i = 0; i < EACH; i++) {
		struct event ev;
		struct change c;

		event_init(&ev, i % 2 ? "a" : "b", HALF_NEW);
		change_make(&c, CHANGE_ADD, NULL, "x", i + 1, 0);
		assert_int_equal(event_add(&ev, &c), 0);
		queue_event(s->q, &ev, s->id);
	}
	return NULL;
}

static size_t count_batch(const struct queue_batch *b, uint64_t last[][SENDERS])
{
	size_t n = 0;

	for (struct queue_half *h = b->halves; h; h = h->next) {
		for (struct queue_item *it = h->items; it; it = it->next, n++) {
			uint64_t *at = &last[h->folder[0] - 'a'][it->peer];

			assert_true(it->event.changes[0].ino > *at);
			*at = it->event.changes[0].ino;
		}
	}
	return n;
}

static void many_threads(void **state)
{
	struct queue *q = queue_new(SENDERS * EACH);
	struct sender senders[SENDERS];
	pthread_t threads[SENDERS];
	uint64_t last[2][SENDERS] = {{0}};
	struct queue_batch b;
	size_t n = 0;

	(void)state;
	for (uint64_t i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){q, i};
		assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
	}
	while (n < SENDERS * EACH) {
		if (queue_take(q, 100, NS_PER_S, &b))
			n += count_batch(&b, last);
		queue_batch_release(&b);
	}
	for (int i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(n, SENDERS * EACH);
	queue_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(keeps_order_and_halves, setup, teardown),
		cmocka_unit_test_setup_teardown(takes_whole_halves_up_to_max, setup, teardown),
		cmocka_unit_test_setup_teardown(overflow_collapses_the_half, setup, teardown),
		cmocka_unit_test_setup_teardown(overflow_of_a_new_half, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many_halves_are_one_gap, setup, teardown),
		cmocka_unit_test_setup_teardown(gap_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(newer_scan_replaces, setup, teardown),
		cmocka_unit_test_setup_teardown(lag_is_that_of_the_oldest, setup, teardown),
		cmocka_unit_test_setup_teardown(closed, setup, teardown),
		cmocka_unit_test(many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
