/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libfuse's own loop gives each request a thread until there are no more: twenty sessions on storage that hangs, and nobody
 * is served. Here what is too much of one storage waits without a thread (gate.c).
 *
 * A caller that waits for our answer cannot be killed, unlike one on NFS: the kernel waits for the answer, too. So a killed
 * one gets it (EINTR) from here, while the call below goes on; libfuse is told that nobody waits any more when the worker
 * answers at last (-ENOENT, which the operations know).
 *
 * The race that this makes: for the kernel the request is over, so RELEASE and FORGET of what the worker is still using may
 * come. Such of the same storage are put off until it is done.
 */
#include "fs/loop.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/caller.h"
#include "fs/fs.h"
#include "fs/fuse.h"
#include "fs/gate.h"
#include "fs/lock_wait.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* Between two looks whether an interrupted caller was killed (it may have been interrupted by another signal before). */
#define WATCH_NS (50 * NS_PER_MS)
/* So many threads read at most. The kernel gives each request to the one that has waited longest: were there many (after a
 * hang, say), each would find its memory cold. */
#define READERS_MAX 16
/* So many interrupts that came too late may be left at the end: each request before has taken one away. */
#define INTERRUPTS_LEFT_MAX 64
/* Between two knocks at threads that are to end: a signal just before read(2) is missed. */
#define KNOCK_NS (5 * NS_PER_MS)

/* One that was received: under way, waiting at the gate, or put off. Owns the buffer. */
struct request {
	struct gate_item item; /* first */
	struct request *next, **prev;
	struct fuse_buf buf;
	uint64_t unique, nodeid;
	uint32_t opcode;
	pid_t thread;
	bool waits, interrupted, answered;
};

struct worker {
	struct worker *next;
	pthread_t thread;
	struct request *now; /* with the buffer to read into */
};

static struct {
	struct fs *fs;
	pthread_mutex_t lock;
	pthread_cond_t interrupted;
	struct gate gate;
	struct worker *workers;
	unsigned nworkers, reading, running; /* threads: made, about to read, not ended */
	unsigned resting, called;            /* of those not ended: wait to be called; were, and don't know yet */
	pthread_cond_t call;
	struct request *known; /* all but those put off */
	struct request *put_off, **put_off_last;
	unsigned ghosts; /* answered, and still under way */
	sem_t over;
	bool stop;
} loop = {.lock = PTHREAD_MUTEX_INITIALIZER, .interrupted = PTHREAD_COND_INITIALIZER, .call = PTHREAD_COND_INITIALIZER};

static const struct node *node_of(uint64_t nodeid)
{
	return nodeid == FUSE_ROOT_ID ? loop.fs->nodes.root : (const struct node *)(uintptr_t)nodeid;
}

static void know(struct request *r)
{
	r->next = loop.known;
	r->prev = &loop.known;
	if (r->next)
		r->next->prev = &r->next;
	loop.known = r;
}

static void unknow(struct request *r)
{
	*r->prev = r->next;
	if (r->next)
		r->next->prev = r->prev;
}

static void let_go(struct request *r)
{
	free(r->buf.mem);
	free(r);
}

/* ---- who does not wait any more ---- */

/* Are all nodes and handles that it was given of the storage that is_haunted() will look at? */
static bool may_answer(const struct request *r)
{
	uint64_t other;

	switch (r->opcode) {
	case FUSE_COPY_FILE_RANGE:
		return false;
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK: /* the other node comes first behind the header */
		memcpy(&other, (char *)r->buf.mem + sizeof(struct fuse_in_header), sizeof(other));
		return node_of(other)->dev == r->item.dev;
	default:
		return true;
	}
}

/* Says EINTR. That the worker answered just before is no error. */
static void answer_interrupted(const struct request *r)
{
	const struct fuse_out_header out = {.len = sizeof(out), .error = -EINTR, .unique = r->unique};

	if (write(fuse_session_fd(loop.fs->session), &out, sizeof(out)) < 0 && errno != ENOENT)
		log_warn("a killed caller cannot be answered: %s", strerror(errno));
}

static bool is_it(const struct gate_item *item, const void *arg)
{
	return item == arg;
}

/* One round over those that were interrupted. Returns true if some are to be looked at again. Called with the lock. */
static bool answer_killed(void)
{
	bool again = false;

	for (struct request *r = loop.known, *next; r; r = next) {
		next = r->next;
		if (!r->interrupted || r->answered || !may_answer(r))
			continue;
		if (!caller_is_killed(r->thread)) {
			again = true;
			continue;
		}
		answer_interrupted(r);
		counter_add(COUNT_KILLED, 1);
		if (r->waits) {
			gate_remove(&loop.gate, is_it, &r->item);
			unknow(r);
			let_go(r);
		} else {
			r->answered = true;
			loop.ghosts++;
		}
	}
	return again;
}

static void *watch_main(void *arg)
{
	struct timespec until;

	(void)arg;
	pthread_mutex_lock(&loop.lock);
	while (!loop.stop) {
		bool again = answer_killed();

		if (lock_wait_killed() || again) {
			until = clock_timespec(clock_real_ns() + WATCH_NS);
			pthread_cond_timedwait(&loop.interrupted, &loop.lock, &until);
		} else {
			pthread_cond_wait(&loop.interrupted, &loop.lock);
		}
	}
	pthread_mutex_unlock(&loop.lock);
	return NULL;
}

/* libfuse has noted it. */
static void note_interrupt(const struct request *interrupt)
{
	const struct fuse_interrupt_in *in = (const void *)((char *)interrupt->buf.mem + sizeof(struct fuse_in_header));

	pthread_mutex_lock(&loop.lock);
	for (struct request *r = loop.known; r; r = r->next)
		if (r->unique == in->unique)
			r->interrupted = true;
	pthread_cond_signal(&loop.interrupted); /* or it waits for a lock */
	pthread_mutex_unlock(&loop.lock);
}

/* ---- what has to wait for ghosts ---- */

/* Is a worker still in a call on this storage whose caller is gone? Called with the lock. */
static bool is_haunted(dev_t dev)
{
	for (const struct request *r = loop.known; loop.ghosts && r; r = r->next)
		if (r->answered && r->item.dev == dev)
			return true;
	return false;
}

/* Must it be put off? Called with the lock. */
static bool disturbs_ghosts(const struct request *r)
{
	const char *body = (char *)r->buf.mem + sizeof(struct fuse_in_header);
	const struct fuse_batch_forget_in *batch = (const void *)body;
	const struct fuse_forget_one *one = (const void *)(body + sizeof(*batch));

	if (!loop.ghosts)
		return false;
	switch (r->opcode) {
	case FUSE_FORGET:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		return is_haunted(node_of(r->nodeid)->dev);
	case FUSE_BATCH_FORGET:
		for (uint32_t i = 0; i < batch->count; i++)
			if (is_haunted(node_of(one[i].nodeid)->dev))
				return true;
		return false;
	default:
		return false;
	}
}

/* A ghost is done: what waited for it, if nothing else is in its way. Called with the lock, which is dropped meanwhile. */
static void run_put_off(void)
{
	for (struct request **p = &loop.put_off, *r; (r = *p);) {
		if (disturbs_ghosts(r)) {
			p = &r->next;
			continue;
		}
		*p = r->next;
		if (!*p)
			loop.put_off_last = p;
		pthread_mutex_unlock(&loop.lock);
		fuse_session_process_buf(loop.fs->session, &r->buf);
		let_go(r);
		pthread_mutex_lock(&loop.lock);
		p = &loop.put_off;
	}
}

/* Called with the lock. */
static void put_off(struct request *r)
{
	r->next = NULL;
	*loop.put_off_last = r;
	loop.put_off_last = &r->next;
}

/* ---- workers ---- */

/* Carries it out, and then what waited for it. own: r stays the caller's. */
static void run(struct request *r, bool own)
{
	while (r) {
		struct gate_item *next;

		fuse_session_process_buf(loop.fs->session, &r->buf);
		pthread_mutex_lock(&loop.lock);
		unknow(r);
		if (r->answered) {
			loop.ghosts--;
			run_put_off();
		}
		next = gate_leave(&loop.gate, r->item.dev);
		if (next)
			((struct request *)next)->waits = false;
		pthread_mutex_unlock(&loop.lock);
		if (!own)
			let_go(r);
		own = false;
		r = (struct request *)next;
	}
}

/* Does it ask for nothing below, so that it is carried out where it was received? */
static bool is_quick(const struct request *r)
{
	return !r->nodeid || r->opcode == FUSE_FORGET || r->opcode == FUSE_BATCH_FORGET || r->opcode == FUSE_INTERRUPT;
}

/* What was received. Returns true if it was given away: it waits, or is put off. */
static bool handle(struct request *r)
{
	bool quick = is_quick(r), away;

	pthread_mutex_lock(&loop.lock);
	away = disturbs_ghosts(r);
	if (away) {
		put_off(r);
	} else if (!quick) {
		r->item.dev = node_of(r->nodeid)->dev;
		know(r);
		away = r->waits = !gate_enter(&loop.gate, &r->item);
		counter_add(COUNT_WAITED, away);
	}
	pthread_mutex_unlock(&loop.lock);
	if (away)
		return true;
	if (!quick) {
		run(r, true);
		return false;
	}
	fuse_session_process_buf(loop.fs->session, &r->buf);
	if (r->opcode == FUSE_INTERRUPT)
		note_interrupt(r);
	return false;
}

static bool parse(struct request *r, size_t size)
{
	struct fuse_in_header in;

	if (size < sizeof(in))
		return false;
	memcpy(&in, r->buf.mem, sizeof(in));
	*r = (struct request){
		.buf = r->buf, .unique = in.unique, .nodeid = in.nodeid, .opcode = in.opcode, .thread = (pid_t)in.pid};
	return true;
}

static void start_worker(void);

/* Called with the lock. Counts the thread among those that read, when it is needed. */
static void rest(void)
{
	if (loop.reading < READERS_MAX || fuse_session_exited(loop.fs->session)) {
		loop.reading++;
		return;
	}
	loop.resting++;
	while (!loop.called && !loop.stop)
		pthread_cond_wait(&loop.call, &loop.lock);
	loop.resting--;
	if (loop.called)
		loop.called--; /* who called has counted it */
	else
		loop.reading++;
}

/* Reads one request. Returns false at the end. */
static bool receive(struct worker *w)
{
	int n;

	if (!w->now)
		w->now = calloc(1, sizeof(*w->now));
	if (!w->now)
		return false;
	n = fuse_session_receive_buf(loop.fs->session, &w->now->buf);
	pthread_mutex_lock(&loop.lock);
	loop.reading--;
	/* Somebody always reads: interrupts must be heard of. */
	if (n > 0 && !loop.reading && !loop.stop)
		start_worker();
	pthread_mutex_unlock(&loop.lock);
	if (n > 0 && parse(w->now, (size_t)n) && handle(w->now))
		w->now = NULL;
	if (n < 0 && n != -EINTR && n != -EAGAIN) {
		log_error("the kernel's requests cannot be read: %s", strerror(-n));
		fuse_session_exit(loop.fs->session);
	}
	pthread_mutex_lock(&loop.lock);
	rest();
	pthread_mutex_unlock(&loop.lock);
	return n != 0 && !fuse_session_exited(loop.fs->session);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	while (receive(w))
		;
	sem_post(&loop.over);
	pthread_mutex_lock(&loop.lock);
	loop.reading--;
	loop.running--;
	pthread_mutex_unlock(&loop.lock);
	return NULL;
}

/* One more that reads. Called with the lock. Signals are the main thread's, but for the knock. */
static void start_worker(void)
{
	struct worker *w;
	sigset_t all, old;

	if (loop.resting > loop.called) {
		loop.called++;
		loop.reading++;
		pthread_cond_signal(&loop.call);
		return;
	}
	if (loop.nworkers > loop.fs->conf->threads) /* one more, which reads */
		return;
	w = calloc(1, sizeof(*w));
	if (!w)
		return;
	sigfillset(&all);
	sigdelset(&all, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&w->thread, NULL, worker_main, w) == 0) {
		w->next = loop.workers;
		loop.workers = w;
		loop.nworkers++;
		loop.reading++;
		loop.running++;
		w = NULL;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	free(w);
}

static void knocked(int number)
{
	(void)number;
}

/* Those who read must look whether the session is over. */
static void end_workers(void)
{
	const struct timespec pause = clock_timespec(KNOCK_NS);
	bool left = true;

	while (left) {
		pthread_mutex_lock(&loop.lock);
		loop.stop = true;
		pthread_cond_signal(&loop.interrupted);
		pthread_cond_broadcast(&loop.call);
		left = loop.running > 0;
		for (struct worker *w = loop.workers; left && w; w = w->next)
			pthread_kill(w->thread, SIGUSR1);
		pthread_mutex_unlock(&loop.lock);
		if (left)
			nanosleep(&pause, NULL);
	}
	while (loop.workers) {
		struct worker *w = loop.workers;

		loop.workers = w->next;
		pthread_join(w->thread, NULL);
		if (w->now)
			let_go(w->now);
		free(w);
	}
}

static void drop_waiting(void)
{
	struct request *r;

	while ((r = loop.known)) { /* workers are gone: these wait at the gate */
		gate_remove(&loop.gate, is_it, &r->item);
		unknow(r);
		let_go(r);
	}
	while ((r = loop.put_off)) {
		loop.put_off = r->next;
		let_go(r);
	}
	gate_release(&loop.gate);
}

/*
 * libfuse keeps an interrupt whose request it doesn't know, in case that comes after it, until another request comes; what
 * it has at the end it would lose. FORGET of nothing is a request that asks for no answer.
 */
static void take_back_interrupts(void)
{
	struct {
		struct fuse_in_header head;
		struct fuse_forget_in body;
	} nothing = {.head = {.len = sizeof(nothing), .opcode = FUSE_FORGET, .nodeid = FUSE_ROOT_ID}};
	struct fuse_buf buf = {.size = sizeof(nothing), .mem = &nothing};

	for (int i = 0; i < INTERRUPTS_LEFT_MAX; i++)
		fuse_session_process_buf(loop.fs->session, &buf);
}

int loop_run(struct fs *fs)
{
	const struct sigaction knock = {.sa_handler = knocked};
	unsigned threads = fs->conf->threads;
	pthread_t watch;
	int r;

	loop.fs = fs;
	loop.put_off_last = &loop.put_off;
	gate_init(&loop.gate, threads > 1 ? threads - threads / 4 : 1, threads);
	sem_init(&loop.over, 0, 0);
	sigaction(SIGUSR1, &knock, NULL);
	r = pthread_create(&watch, NULL, watch_main, NULL);
	if (r)
		return -r;
	pthread_mutex_lock(&loop.lock);
	start_worker();
	r = loop.nworkers ? 0 : -EAGAIN;
	pthread_mutex_unlock(&loop.lock);
	while (r == 0 && !fuse_session_exited(fs->session))
		sem_wait(&loop.over); /* or a signal */
	fuse_session_exit(fs->session);
	end_workers();
	pthread_join(watch, NULL);
	drop_waiting();
	take_back_interrupts();
	sem_destroy(&loop.over);
	return r;
}
