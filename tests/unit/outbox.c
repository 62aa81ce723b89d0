/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/outbox.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/mail/wire.h"

static int setup(void **state)
{
	*state = outbox_new();
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	outbox_free(*state);
	return 0;
}

static bool readable(const struct outbox *o)
{
	struct pollfd p = {.fd = outbox_fd(o), .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

static struct outbox_message *text(uint64_t peer, size_t len)
{
	struct outbox_message *m;
	struct buf b;

	buf_init(&b);
	memset(buf_reserve(&b, len), 'x', len);
	b.len = len;
	m = outbox_to(peer, &b);
	assert_non_null(m);
	assert_null(b.data);
	return m;
}

static void order_and_targets(void **state)
{
	struct outbox *o = *state;
	struct outbox_message *list, *m;
	struct event ev, back;
	struct change c;
	enum wire_type type;
	struct cursor cursor;
	bool dropped;

	assert_false(readable(o));
	event_init(&ev, "alice", HALF_CUR);
	change_make(&c, CHANGE_REMOVE, NULL, "1.2.3", 5, 0);
	assert_int_equal(event_add(&ev, &c), 0);
	list = outbox_feed(&ev, 3);
	list->next = text(9, 10);
	outbox_send(o, list);
	outbox_send(o, text(10, 1));
	outbox_send(o, NULL);
	assert_true(readable(o));
	list = outbox_take(o, &dropped);
	assert_false(dropped);
	assert_false(readable(o));
	m = list;
	assert_int_equal(m->to, 0);
	assert_int_equal(m->except, 3);
	assert_int_equal(wire_open(&cursor, m->bytes.data, m->bytes.len, &type, NULL), 0);
	assert_int_equal(type, WIRE_FEED);
	assert_int_equal(event_decode(&back, &cursor, NULL), 0);
	assert_string_equal(back.folder, "alice");
	assert_string_equal(back.changes[0].name, "1.2.3");
	event_release(&back);
	event_release(&ev);
	assert_int_equal(m->next->to, 9);
	assert_int_equal(m->next->next->to, 10);
	assert_null(m->next->next->next);
	outbox_list_free(list);
	assert_null(outbox_take(o, &dropped));
}

static void bounded(void **state)
{
	struct outbox *o = *state;
	struct outbox_message *list;
	size_t n = 0;
	bool dropped;

	for (int i = 0; i < 70; i++)
		outbox_send(o, text(1, 1 << 20));
	list = outbox_take(o, &dropped);
	for (struct outbox_message *m = list; m; m = m->next)
		n++;
	assert_int_equal(n, OUTBOX_BYTES >> 20);
	assert_true(dropped);
	outbox_list_free(list);
	/* Told once, and there is room again. */
	outbox_send(o, text(1, 1 << 20));
	list = outbox_take(o, &dropped);
	assert_non_null(list);
	assert_false(dropped);
	outbox_list_free(list);
}

static void left_over(void **state)
{
	outbox_send(*state, text(1, 10)); /* freed with it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(order_and_targets, setup, teardown),
		cmocka_unit_test_setup_teardown(bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(left_over, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
