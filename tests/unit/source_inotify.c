/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/source_inotify.h"

#include <pthread.h>

#include "tests/unit/indexer_help.h"

#define WAIT_NS (60 * NS_PER_S)

struct heard {
	struct help *help;
	struct source *source;
	pthread_mutex_t lock;
	struct buf told; /* "folder:name " each */
};

static void hear(void *arg, struct event *ev, uint64_t from)
{
	struct heard *h = arg;

	assert_int_equal(ev->half, HALF_NEW);
	assert_false(ev->windowed);
	assert_int_equal(from, 0);
	pthread_mutex_lock(&h->lock);
	for (size_t i = 0; i < ev->nchanges; i++)
		buf_printf(&h->told, "%s:%s ", ev->folder, ev->changes[i].name);
	pthread_mutex_unlock(&h->lock);
	event_release(ev);
}

static int setup(void **state)
{
	struct heard *h = calloc(1, sizeof(*h));
	void *help;

	assert_non_null(h);
	help_setup(&help);
	h->help = help;
	buf_init(&h->told);
	pthread_mutex_init(&h->lock, NULL);
	*state = h;
	return 0;
}

static int teardown(void **state)
{
	struct heard *h = *state;
	void *help = h->help;

	source_inotify_free(h->source);
	buf_release(&h->told);
	pthread_mutex_destroy(&h->lock);
	free(h);
	return help_teardown(&help);
}

static void begin(struct heard *h)
{
	struct source_sink sink = {.arg = h, .event = hear};

	h->source = source_inotify_new(&h->help->lower, &h->help->tally, 3600 * NS_PER_S);
	assert_non_null(h->source);
	OK(h->help, h->source->start(h->source, &sink, &h->help->err));
}

static void end(struct heard *h)
{
	h->source->stop(h->source);
	h->source->stop(h->source); /* does nothing */
	source_inotify_free(h->source);
	h->source = NULL;
}

static void wait_status(struct heard *h, const char *line)
{
	int64_t until = clock_mono_ns() + WAIT_NS;
	bool found = false;
	struct buf b;

	while (!found) {
		assert_true(clock_mono_ns() < until);
		buf_init(&b);
		h->source->status(h->source, &b);
		found = strstr(b.data, line) != NULL;
		buf_release(&b);
		nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
	}
}

static void wait_told(struct heard *h, const char *what)
{
	int64_t until = clock_mono_ns() + WAIT_NS;
	bool found = false;

	while (!found) {
		assert_true(clock_mono_ns() < until);
		pthread_mutex_lock(&h->lock);
		found = h->told.data && strstr(h->told.data, what);
		pthread_mutex_unlock(&h->lock);
		nanosleep(&(struct timespec){.tv_nsec = NS_PER_MS}, NULL);
	}
}

static void arrivals(void **state)
{
	struct heard *h = *state;

	help_maildir(h->help, "u");
	help_make(h->help, "u/new/before");
	begin(h);
	wait_status(h, "inotify.state watching\ninotify.folders 1\ninotify.unwatched 0\ninotify.watches 3\n");
	help_make(h->help, "u/new/made");
	help_make(h->help, "u/tmp/x");
	help_rename(h->help, "u/tmp/x", "u/new/renamed");
	help_maildir(h->help, "u/.Sub");
	help_make(h->help, "u/.Sub/new/at.once");
	wait_told(h, "u/.Sub:at.once ");
	wait_status(h, "inotify.folders 2\n");
	end(h); /* nothing more is told: its words may be read */
	assert_non_null(strstr(h->told.data, "u:made "));
	assert_non_null(strstr(h->told.data, "u:renamed "));
	assert_null(strstr(h->told.data, "before"));
}

/* The library's state is global: one life must not see the other's. */
static void another_life(void **state)
{
	struct heard *h = *state;
	char name[64];

	help_maildir(h->help, "u");
	help_maildir(h->help, "v");
	for (int life = 0; life < 5; life++) {
		begin(h);
		wait_status(h, "inotify.state watching\ninotify.folders 2\n");
		snprintf(name, sizeof(name), "u/new/%d.", life);
		help_make(h->help, name);
		snprintf(name, sizeof(name), "u:%d. ", life);
		wait_told(h, name);
		end(h);
	}
	assert_string_equal(h->told.data, "u:0. u:1. u:2. u:3. u:4. ");
}

/* Watches come and go; what the library knows of each stays apart from the others'. */
static void many(void **state)
{
	struct heard *h = *state;
	char name[64], want[64];

	begin(h);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 100; i++) {
			snprintf(name, sizeof(name), "u%d", i);
			help_maildir(h->help, name);
		}
		wait_status(h, "inotify.folders 100\ninotify.unwatched 0\ninotify.watches 201\n");
		for (int i = 0; i < 100; i++) {
			snprintf(name, sizeof(name), "u%d/new/%d.", i, round);
			help_make(h->help, name);
			snprintf(want, sizeof(want), "u%d:%d. ", i, round);
			wait_told(h, want);
		}
		for (int i = 0; i < 100; i++) {
			snprintf(name, sizeof(name), "u%d", i);
			help_remove_tree(h->help, name);
		}
		wait_status(h, "inotify.folders 0\ninotify.unwatched 0\ninotify.watches 1\n");
	}
	end(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(arrivals, setup, teardown),
		cmocka_unit_test_setup_teardown(another_life, setup, teardown),
		cmocka_unit_test_setup_teardown(many, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
