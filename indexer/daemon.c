/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "indexer/rebuild.h"
#include "indexer/schedule.h"
#include "indexer/source_inotify.h"
#include "indexer/source_socket.h"
#include "indexer/status.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* What was received is applied before the end, if that takes no longer. */
#define GRACE_NS (2 * NS_PER_S)
/* Which events of whom were received, at a clean end. */
#define FACT_ORIGINS "origins"

struct daemon {
	const struct conf *conf;
	struct lower *lower;
	struct tally tally;
	struct indexfile file;
	struct queue *queue;
	struct outbox *outbox;
	struct store_readers *readers;
	struct apply apply;
	struct rescan *pool;
	struct schedule *schedule;
	struct rebuild *rebuild;
	struct origins origins;
	sd_event *loop;
	struct source *sources[2]; /* socket, inotify (may be NULL) */
	size_t nsources;           /* started */
	struct status_tools status;
};

static void sink_event(void *arg, struct event *ev, uint64_t from)
{
	struct daemon *d = arg;

	queue_event(d->queue, ev, from);
}

static void sink_scan(void *arg, struct wire_scan *scan, uint64_t from)
{
	struct daemon *d = arg;

	if (queue_scan(d->queue, scan, from) == 0)
		return;
	rescan_add(d->pool, scan->folder, scan->half, RESCAN_LATE, 0);
	wire_scan_release(scan);
	free(scan);
}

static void sink_rename(void *arg, const char *from, const char *to)
{
	struct daemon *d = arg;

	apply_rename(&d->apply, from, to);
}

static void sink_gap(void *arg, const char *why)
{
	struct daemon *d = arg;

	log_info("%s: what stood on trust is listed again", why);
	queue_gap(d->queue);
}

static void control_status(void *arg, struct buf *out)
{
	struct daemon *d = arg;

	status_print(&d->status, out);
}

static int control_rebuild(void *arg, uint64_t peer, bool all, char **paths, size_t n, struct err *e)
{
	struct daemon *d = arg;

	return rebuild_request(d->rebuild, peer, all, paths, n, e);
}

static void control_peer_gone(void *arg, uint64_t peer)
{
	struct daemon *d = arg;

	rebuild_peer_gone(d->rebuild, peer);
}

static void hook_touched(void *arg, const char *folder, enum half half)
{
	struct daemon *d = arg;

	rescan_touched(d->pool, folder, half);
}

static void hook_trusted(void *arg, const char *folder, enum half half, int64_t since_ns)
{
	struct daemon *d = arg;

	schedule_trusted(d->schedule, folder, half, since_ns);
}

static void hook_renamed(void *arg, const char *to)
{
	struct daemon *d = arg;

	schedule_trusted_below(d->schedule, to);
}

static void hook_rescan(void *arg, const char *folder, enum half half)
{
	struct daemon *d = arg;

	rescan_add(d->pool, folder, half, RESCAN_LATE, 0);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *arg)
{
	(void)arg;
	log_info("signal %u from pid %u: ends", info->ssi_signo, info->ssi_pid);
	return sd_event_exit(sd_event_source_get_event(source), 0);
}

static int make_loop(struct daemon *d, struct err *e)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	/* Before any thread: all of them leave these to the loop. */
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_new(&d->loop);
	if (r >= 0)
		r = sd_event_add_signal(d->loop, NULL, SIGTERM, on_signal, NULL);
	if (r >= 0)
		r = sd_event_add_signal(d->loop, NULL, SIGINT, on_signal, NULL);
	if (r >= 0)
		r = sd_event_set_watchdog(d->loop, true);
	return r < 0 ? err_set(e, r, "cannot make an event loop: %s", strerror(-r)) : 0;
}

/* Everything but the index, which is open. */
static int make_parts(struct daemon *d, int listen_fd, struct err *e)
{
	struct source_socket_control control = {
		.arg = d, .status = control_status, .rebuild = control_rebuild, .peer_gone = control_peer_gone};

	d->queue = queue_new(QUEUE_LIMIT);
	d->outbox = outbox_new();
	d->apply.tools = (struct batch_tools){.conf = d->conf,
					      .lower = d->lower,
					      .outbox = d->outbox,
					      .tally = &d->tally,
					      .hooks = {.arg = d,
							.touched = hook_touched,
							.trusted = hook_trusted,
							.renamed = hook_renamed,
							.rescan = hook_rescan}};
	d->apply.queue = d->queue;
	d->apply.file = &d->file;
	if (!d->queue || !d->outbox || store_readers_new(&d->readers, d->conf->index, d->lower->tree.identity) < 0)
		goto memory;
	d->file.readers = d->readers;
	d->pool = rescan_new(d->conf->scans, &d->apply, d->readers, &d->apply.tools);
	if (!d->pool)
		goto memory;
	d->schedule = schedule_new(d->conf, &d->apply, d->readers, d->pool, &d->tally);
	d->rebuild = rebuild_new(&d->apply, d->readers, d->pool, &d->apply.tools);
	d->sources[0] = source_socket_new(d->loop, listen_fd, d->outbox, &d->origins, &d->tally, &control);
	if (d->conf->watch == WATCH_INOTIFY)
		d->sources[1] = source_inotify_new(d->lower, &d->tally, d->conf->scrub_interval_ns);
	if (!d->schedule || !d->rebuild || !d->sources[0] || (d->conf->watch == WATCH_INOTIFY && !d->sources[1]))
		goto memory;
	rescan_listen(d->pool, RESCAN_REBUILD, (struct rescan_listener){d->rebuild, rebuild_scanned});
	rescan_listen(d->pool, RESCAN_CONFIRM, (struct rescan_listener){d->schedule, schedule_confirmed});
	rescan_listen(d->pool, RESCAN_SCRUB, (struct rescan_listener){d->schedule, schedule_scrubbed});
	d->status = (struct status_tools){.conf = d->conf,
					  .lower = d->lower,
					  .queue = d->queue,
					  .file = &d->file,
					  .readers = d->readers,
					  .pool = d->pool,
					  .rebuild = d->rebuild,
					  .tally = &d->tally,
					  .sources = d->sources,
					  .nsources = d->sources[1] ? 2 : 1,
					  .started_ns = clock_mono_ns()};
	return 0;
memory:
	return err_set(e, -ENOMEM, "out of memory");
}

/* Who had sent what when we ended; if that wasn't clean, events may be missing. */
static int take_origins(struct daemon *d, struct err *e)
{
	char *text = malloc(APPLY_FACT_MAX);
	int r;

	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	r = apply_fact(&d->apply, FACT_ORIGINS, text, e);
	if (r == 0 || (r > 0 && origins_parse(&d->origins, text) < 0))
		queue_gap(d->queue);
	/* From now on it is not clean. */
	if (r >= 0)
		r = apply_set_fact(&d->apply, FACT_ORIGINS, NULL, e);
	free(text);
	return r;
}

static int start_parts(struct daemon *d, struct err *e)
{
	struct source_sink sink = {
		.arg = d, .event = sink_event, .scan = sink_scan, .rename = sink_rename, .gap = sink_gap};
	int r = apply_start(&d->apply, e);

	if (r == 0)
		r = take_origins(d, e);
	if (r == 0)
		r = lower_start(d->lower, e);
	if (r == 0)
		r = rescan_start(d->pool, e);
	if (r == 0)
		r = schedule_start(d->schedule, e);
	for (; r == 0 && d->nsources < d->status.nsources; d->nsources++)
		r = d->sources[d->nsources]->start(d->sources[d->nsources], &sink, e);
	return r;
}

/*
 * Nothing new comes in; what came in is applied; whoever waits for the applier is told; then the rest can end. A kill
 * at any point leaves an index that is right, and costs a gap.
 */
static void stop_parts(struct daemon *d)
{
	struct buf origins;

	sd_notify(0, "STOPPING=1");
	while (d->nsources > 0) {
		d->nsources--;
		d->sources[d->nsources]->stop(d->sources[d->nsources]);
	}
	buf_init(&origins);
	origins_print(&d->origins, &origins);
	rebuild_stop(d->rebuild);
	queue_close(d->queue);
	if (!apply_stop(&d->apply, GRACE_NS, FACT_ORIGINS, origins.data ? origins.data : ""))
		log_warn("not all that was received could be applied: what stood on trust is listed again");
	buf_release(&origins);
	schedule_stop(d->schedule);
	rescan_stop(d->pool);
	lower_stop(d->lower);
}

static void free_parts(struct daemon *d)
{
	rebuild_free(d->rebuild);
	schedule_free(d->schedule);
	rescan_free(d->pool);
	source_inotify_free(d->sources[1]);
	source_socket_free(d->sources[0]);
	store_readers_free(d->readers);
	indexfile_close(&d->file); /* the last connection: writes the log back into the file */
	outbox_free(d->outbox);
	queue_free(d->queue);
	origins_release(&d->origins);
	sd_event_unref(d->loop);
	free(d);
}

int daemon_run(struct prog *prog, struct lower *lower, int listen_fd, struct err *e)
{
	struct daemon *d = calloc(1, sizeof(*d));
	int r;

	if (!d) {
		err_set(e, -ENOMEM, "out of memory");
		return PROG_REACH;
	}
	d->conf = &prog->conf;
	d->lower = lower;
	origins_init(&d->origins);
	r = indexfile_open(&d->file, d->conf->index, lower->tree.identity, &d->tally, e);
	if (r < 0) {
		free(d);
		return PROG_REACH;
	}
	r = make_loop(d, e);
	if (r == 0)
		r = make_parts(d, listen_fd, e);
	if (r < 0)
		goto out;
	r = start_parts(d, e);
	if (r == 0) {
		log_info("root %s, index %s, socket %s", lower->tree.path, d->conf->index, d->conf->socket);
		prog_ready(prog);
		r = sd_event_loop(d->loop);
		if (r < 0)
			err_set(e, r, "the event loop failed: %s", strerror(-r));
	}
	stop_parts(d);
out:
	free_parts(d);
	return r < 0 ? PROG_REACH : PROG_OK;
}
