/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * inotify as a source of events. What this guards against:
 *
 * - A folder is renamed while arrivals in it wait to be read. The kernel's queue is in the order in which things
 *   happened, over all watches. With the rename all watches at and below it are given up, with what arrived and was not
 *   told yet, and the new path is visited as a new folder is, whose new/ is told.
 * - The queue overflows: then anything may have happened. All of the tree is gone through once more, and every folder
 *   that was watched all along is told of as one where something may have happened.
 * - The tree is away (lower_ok()): what is read then proves nothing about folders. It is dropped, no directory is
 *   visited, and when the tree is back it is gone through as after an overflow.
 *
 * What libinotifytools (3.22) demands: it finds watches by the name they were made with, and its tree of names breaks
 * if one is renamed or given twice. So each watch gets a name of its own, another spelling of /proc/self/fd/N. It keeps
 * what it knows of a watch that the kernel ended, and has no way to forget it: after DEAD_MAX of them it is begun anew.
 */
#include "indexer/source_inotify.h"

#include <errno.h>
#include <fcntl.h>
#include <inotifytools/inotify.h>
#include <inotifytools/inotifytools.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "indexer/patrol.h"
#include "lib/base/clock.h"
#include "lib/base/cred.h"
#include "lib/base/log.h"

/* While there are directories to visit, the library is polled: it waits in whole seconds only. */
#define WALK_PAUSE_NS (2 * NS_PER_MS)
/*
 * After an event others are waited for this long, so that a burst is told in one piece, and our own maildexfs has put
 * what it did itself into its listing before it hears of it.
 */
#define GATHER_NS (2 * NS_PER_MS)
/* So many events are taken before it is their turn to be told. */
#define TURN 4096
/* How often to try to begin, where that was refused. */
#define RETRY_NS (5 * NS_PER_S)
/* Ends the library's wait, which has no other end: its descriptor is hidden. */
#define WAKE SIGUSR1
#define WAKE_EVERY_NS (10 * NS_PER_MS)
/* A server that doesn't answer may hold it in a visit: what was received is written first then. */
#define STOP_NS NS_PER_S
/* The library keeps about 300 bytes of each. */
#define DEAD_MAX 10000
/* "/proc", twice 32, "/self/fd/" and a number. */
#define NAME_MAX_SPELT 96

struct source_inotify {
	struct source source; /* first */
	struct source_sink sink;
	struct lower *lower;
	struct tally *tally;
	pthread_t thread;
	bool started;
	_Atomic bool stop;
	_Atomic bool up;   /* the library is */
	_Atomic bool away; /* the tree is */
	_Atomic uint64_t events, overflows;
	struct places places;
	struct patrol patrol;
	/* The thread's own. */
	bool told_down; /* it was said that the library cannot be up */
	uint32_t names; /* given to watches */
	size_t dead;    /* watches that the library cannot forget */
};

/*
 * "/proc", a number in binary ("/." is 1, "/" is 0; either changes nothing), "/self/fd/N": not behind the last part,
 * where each step would be looked up on the server.
 */
static void spell(uint32_t number, int fd, char out[NAME_MAX_SPELT])
{
	char *at = stpcpy(out, "/proc");

	for (; number; number >>= 1)
		at = stpcpy(at, number & 1 ? "/." : "/");
	snprintf(at, (size_t)(out + NAME_MAX_SPELT - at), "/self/fd/%d", fd);
}

static int add_watch(void *arg, int fd, enum place_what what, int *wd)
{
	static const int masks[PLACE_WHATS] = {
		[PLACE_DIR] = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MOVE_SELF,
		[PLACE_NEW] = IN_CREATE | IN_MOVED_TO | IN_MOVE_SELF,
	};
	struct source_inotify *s = arg;
	char name[NAME_MAX_SPELT];

	spell(++s->names, fd, name);
	if (!inotifytools_watch_file(name, masks[what] | IN_ONLYDIR | IN_MASK_CREATE))
		return inotifytools_error() ? -inotifytools_error() : -EIO;
	*wd = inotifytools_wd_from_filename(name);
	return *wd < 0 ? -ENOMEM : 0;
}

static void remove_watch(void *arg, int wd, bool gone)
{
	struct source_inotify *s = arg;

	s->dead += gone || !inotifytools_remove_watch_by_wd(wd);
}

static void send_pending(struct source_inotify *s, struct place *place)
{
	struct event *ev = place->pending;

	place->pending = NULL;
	tally_add(s->tally, TALLY_EVENTS_RECEIVED, 1);
	s->sink.event(s->sink.arg, ev, 0);
	event_free(ev);
}

static void flush(struct source_inotify *s)
{
	struct place *place;

	while ((place = places_pop(&s->places, PLACES_PENDING)))
		send_pending(s, place);
}

static bool pending_has(const struct event *ev, const struct change *c)
{
	for (size_t i = 0; i < ev->nchanges; i++)
		if (ev->changes[i].kind == c->kind && ev->changes[i].len == c->len &&
		    memcmp(ev->changes[i].name, c->name, c->len) == 0)
			return true;
	return false;
}

/* The event that tells of arrivals in it. Returns NULL if that can't be done. */
static struct event *pending(struct source_inotify *s, struct place *place)
{
	char path[FOLDER_PATH_MAX + 1];

	if (place->pending && place->pending->nchanges == EVENT_CHANGES_MAX)
		send_pending(s, place);
	if (!place->pending && place_path(place, path) == 0)
		place->pending = event_new(path, HALF_NEW);
	if (place->pending)
		places_push(&s->places, PLACES_PENDING, place, false);
	return place->pending;
}

static void tell(void *arg, struct place *place, const char *name, size_t len)
{
	struct source_inotify *s = arg;
	struct event *ev = pending(s, place);
	char word[NAME_LEN_MAX + 1];
	struct change c;

	if (!ev)
		return;
	if (name) {
		memcpy(word, name, len);
		word[len] = '\0';
		change_make(&c, CHANGE_ADD, NULL, word, 0, 0);
	} else {
		change_make(&c, CHANGE_LOOK, NULL, NULL, 0, 0);
	}
	if (!pending_has(ev, &c))
		event_add(ev, &c); /* without memory it is seen when the folder is opened */
}

static void on_overflow(struct source_inotify *s)
{
	s->overflows++;
	if (!s->patrol.again)
		log_warn("inotify: the kernel's queue was full and arrivals were lost: all %zu folders that are "
			 "watched are looked at again; to make that rarer, raise the sysctl "
			 "fs.inotify.max_queued_events",
			 (size_t)s->places.folders);
	patrol_again(&s->patrol);
}

/* A directory came to or went from a place. */
static void on_directory(struct source_inotify *s, struct place *place, const struct inotify_event *ev)
{
	size_t len = strlen(ev->name);
	struct place *child;
	bool made;

	if (ev->mask & (IN_DELETE | IN_MOVED_FROM)) {
		child = place_find(&s->places, place, ev->name, len);
		if (child)
			place_drop(&s->places, child, ev->mask & IN_DELETE);
	}
	if (tree_maildir_bit(ev->name, len)) {
		place->tell |= !place->maildir;
		places_push(&s->places, PLACES_TODO, place, true);
	} else if (ev->mask & (IN_CREATE | IN_MOVED_TO)) {
		child = place_find(&s->places, place, ev->name, len);
		if (child && (ev->mask & IN_MOVED_TO)) /* it was replaced */
			place_drop(&s->places, child, false);
		child = place_child(&s->places, place, ev->name, len, &made);
		if (!child)
			return;
		child->tell |= made;
		places_push(&s->places, PLACES_TODO, child, true);
	}
}

static void on_event(struct source_inotify *s, const struct inotify_event *ev)
{
	enum place_what what;
	struct place *place;

	if (ev->mask & IN_Q_OVERFLOW)
		on_overflow(s);
	place = places_by_wd(&s->places, ev->wd, &what);
	if (!place)
		return;
	if (ev->mask & (IN_IGNORED | IN_MOVE_SELF)) {
		place_unwatch(&s->places, place, what, ev->mask & IN_IGNORED);
		place->tell = true;
		places_push(&s->places, PLACES_TODO, place, true);
	}
	if (ev->len == 0 || s->away)
		return;
	if (what == PLACE_NEW) {
		s->events++;
		if (!name_is_nfs(ev->name, strlen(ev->name)))
			tell(s, place, ev->name, strlen(ev->name));
	} else if (ev->mask & IN_ISDIR) {
		on_directory(s, place, ev);
	}
}

static void nap(int64_t ns)
{
	struct timespec ts = clock_timespec(ns);

	nanosleep(&ts, NULL);
}

/* Takes what there is. Returns true if there was something. */
static bool read_events(struct source_inotify *s, int timeout_s)
{
	const struct inotify_event *ev = inotifytools_next_events(timeout_s, 1);
	int n;

	if (ev)
		nap(GATHER_NS);
	for (n = 0; ev; n++) {
		on_event(s, ev);
		ev = n < TURN ? inotifytools_next_events(0, 1) : NULL;
	}
	flush(s);
	if (n == 0 && inotifytools_error() && !s->stop)
		nap(NS_PER_S);
	return n > 0;
}

/* select(2) in the library can't do with a higher one. */
static bool descriptor_fits(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd < FD_SETSIZE - 64;
}

/* Returns false if it can't be had now. */
static bool library_up(struct source_inotify *s)
{
	if (s->up)
		return true;
	s->up = descriptor_fits() && inotifytools_initialize();
	if (!s->up && !s->told_down)
		log_warn(
			"inotify: cannot be used now: %s; raise the sysctl fs.inotify.max_user_instances (it is %d) or "
			"the limit of open files; it is tried again, and until then mail is seen when folders are "
			"opened",
			strerror(inotifytools_error() ? inotifytools_error() : EMFILE),
			inotifytools_get_max_user_instances());
	if (s->up && s->told_down)
		log_info("inotify: can be used now");
	s->told_down = !s->up;
	s->dead = 0;
	return s->up;
}

/* The library forgets all; places stay, without watches. */
static void library_down(struct source_inotify *s)
{
	places_unwatch_all(&s->places);
	/*
	 * It keeps what it has read and not given out, also for its next life. Should something be left, it is taken
	 * for another folder's: all is looked up.
	 */
	for (int n = 0; n < TURN && inotifytools_next_events(0, 1); n++) {
		/* dropped */
	}
	inotifytools_cleanup();
	s->up = false;
}

static void step(struct source_inotify *s)
{
	bool was_away = s->away;

	s->away = !lower_ok(s->lower);
	if (s->away)
		return;
	if (was_away)
		patrol_again(&s->patrol);
	if (s->dead > DEAD_MAX + s->places.watches) {
		library_down(s);
		patrol_again(&s->patrol);
		return;
	}
	patrol_step(&s->patrol, clock_mono_ns());
	flush(s);
}

static void *inotify_main(void *arg)
{
	struct source_inotify *s = arg;

	cred_thread_start();
	while (!s->stop) {
		bool busy = patrol_busy(&s->patrol) && !s->away;

		if (!library_up(s)) {
			nap(RETRY_NS);
			continue;
		}
		if (!read_events(s, busy ? 0 : 1) && busy)
			nap(WALK_PAUSE_NS);
		step(s);
	}
	return NULL;
}

static void on_wake(int number)
{
	(void)number; /* a call that waits ends with EINTR */
}

static int inotify_start(struct source *source, const struct source_sink *sink, struct err *e)
{
	struct source_inotify *s = (struct source_inotify *)source;
	int r;

	s->sink = *sink;
	sigaction(WAKE, &(struct sigaction){.sa_handler = on_wake}, NULL);
	r = pthread_create(&s->thread, NULL, inotify_main, s);
	s->started = r == 0;
	return r == 0 ? 0 : err_set(e, -r, "cannot start a thread: %s", strerror(r));
}

static void end_thread(struct source_inotify *s, int64_t until_ns)
{
	s->stop = true;
	/* It may be about to wait in the library, so once may not do. */
	while (s->started && clock_mono_ns() < until_ns) {
		int64_t wake_ns = clock_real_ns() + WAKE_EVERY_NS;
		struct timespec ts = clock_timespec(wake_ns);

		pthread_kill(s->thread, WAKE);
		if (pthread_timedjoin_np(s->thread, NULL, &ts) == ETIMEDOUT)
			continue;
		s->started = false;
		inotifytools_cleanup();
	}
}

static void inotify_stop(struct source *source)
{
	end_thread((struct source_inotify *)source, clock_mono_ns() + STOP_NS);
}

static void inotify_status(struct source *source, struct buf *out)
{
	static const char *const words[] = {
		[PATROL_WALKING] = "walking", [PATROL_WATCHING] = "watching", [PATROL_LIMITED] = "limited"};
	struct source_inotify *s = (struct source_inotify *)source;
	int state = atomic_load(&s->patrol.state); /* gcc 12 takes no atomic value for an index */

	buf_printf(out, "inotify.state %s\n", !s->up ? "off" : s->away ? "away" : words[state]);
	buf_printf(out, "inotify.folders %zu\n", (size_t)s->places.folders);
	buf_printf(out, "inotify.unwatched %zu\n", (size_t)s->places.unwatched);
	buf_printf(out, "inotify.watches %zu\n", (size_t)s->places.watches);
	buf_printf(out, "inotify.events %" PRIu64 "\n", (uint64_t)s->events);
	buf_printf(out, "inotify.overflows %" PRIu64 "\n", (uint64_t)s->overflows);
}

struct source *source_inotify_new(struct lower *lower, struct tally *tally, int64_t every_ns)
{
	struct source_inotify *s = calloc(1, sizeof(*s));
	struct visit visit;

	if (!s)
		return NULL;
	if (places_init(&s->places, remove_watch, s) < 0) {
		free(s);
		return NULL;
	}
	s->source = (struct source){
		.name = "inotify", .start = inotify_start, .stop = inotify_stop, .status = inotify_status};
	s->lower = lower;
	s->tally = tally;
	visit = (struct visit){.places = &s->places, .lower = lower, .add = add_watch, .tell = tell, .arg = s};
	patrol_init(&s->patrol, every_ns, &visit);
	return &s->source;
}

void source_inotify_free(struct source *source)
{
	struct source_inotify *s = (struct source_inotify *)source;

	if (!s)
		return;
	end_thread(s, INT64_MAX);
	places_release(&s->places);
	free(s);
}
