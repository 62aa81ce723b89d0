/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/status.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/clock.h"

static void print_state(const struct status_tools *t, struct buf *out)
{
	char tree[ERR_TEXT_MAX], file[ERR_TEXT_MAX];

	lower_state(t->lower, tree);
	indexfile_state(t->file, file);
	/* A line is a line. */
	for (char *at = tree; *at; at++)
		*at = *at == '\n' ? ' ' : *at;
	for (char *at = file; *at; at++)
		*at = *at == '\n' ? ' ' : *at;
	if (tree[0])
		buf_printf(out, "maildexd.state tree: %s\n", tree);
	else if (file[0])
		buf_printf(out, "maildexd.state index: %s\n", file);
	else
		buf_printf(out, "maildexd.state ok\n");
}

static void print_index(const struct status_tools *t, struct buf *out)
{
	struct store_totals totals = {0};
	struct store_reader *reader;
	struct err e;

	if (store_readers_get(t->readers, &reader, &e) == 0) {
		int r = store_reader_totals(reader, &totals, &e);

		store_readers_put(t->readers, reader, r < 0);
		indexfile_seen(t->file, r);
		if (r < 0)
			totals = (struct store_totals){0};
	}
	buf_printf(out, "index.path %s\n", t->conf->index);
	buf_printf(out, "index.halves %" PRIu64 "\n", totals.halves);
	buf_printf(out, "index.messages %" PRIu64 "\n", totals.messages);
	buf_printf(out, "index.need %" PRIu64 "\n", totals.need);
	buf_printf(out, "index.trust %" PRIu64 "\n", totals.trust);
	buf_printf(out, "index.unsettled %" PRIu64 "\n", totals.unsettled);
	buf_printf(out, "index.bytes %" PRIu64 "\n", totals.file_bytes);
}

static void print_queue(const struct status_tools *t, struct buf *out)
{
	struct queue_stats stats;

	queue_stats(t->queue, &stats);
	buf_printf(out, "queue.changes %" PRIu64 "\n", stats.changes);
	buf_printf(out, "queue.limit %" PRIu64 "\n", stats.limit);
	buf_printf(out, "queue.overflows %" PRIu64 "\n", stats.overflows);
	buf_printf(out, "queue.lag_ms %" PRId64 "\n", (int64_t)(stats.lag_ns / NS_PER_MS));
}

void status_print(const struct status_tools *t, struct buf *out)
{
	char rebuild[128];

	buf_printf(out, "maildexd.version %s\n", MAILDEX_VERSION);
	buf_printf(out, "maildexd.pid %d\n", (int)getpid());
	buf_printf(out, "maildexd.uptime_s %" PRId64 "\n", (int64_t)((clock_mono_ns() - t->started_ns) / NS_PER_S));
	print_state(t, out);
	print_index(t, out);
	print_queue(t, out);
	tally_print(t->tally, out);
	buf_printf(out, "scans.running %u\n", rescan_running(t->pool));
	rebuild_state(t->rebuild, rebuild, sizeof(rebuild));
	buf_printf(out, "rebuild.state %s\n", rebuild);
	for (size_t i = 0; i < t->nsources; i++)
		t->sources[i]->status(t->sources[i], out);
}
