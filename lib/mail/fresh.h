/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Freshness: how a listing knows that it is right (design 3.1). Pure functions, used for the index row in maildexd and
 * for the live folder in maildexfs alike; no I/O, no clock, no lock.
 *
 * Flow: a half has one struct fresh beside its names. opendir -> fresh_check(); a listing of the disk -> fresh_scan()
 * per pass, then fresh_scanned(); a change heard of or made -> fresh_event() (how to apply it), then fresh_applied();
 * stat of the directory -> fresh_mtime_ns(); a hole in the events -> fresh_gap().
 * Shapes: times are ns since 1970 on the server's clock, unless named otherwise.
 * Ownership: plain values.
 * Threads: the caller's lock.
 * Errors: none.
 */
#ifndef MAILDEX_MAIL_FRESH_H
#define MAILDEX_MAIL_FRESH_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/mail/stamp.h"

#define FRESH_PARKED_MAX 4

/* The state of the directory before and after a change, both forced. */
struct window {
	struct stamp pre;
	struct stamp post;
};

struct fresh {
	struct stamp known;     /* what the listing stands for */
	int64_t seen_ns;        /* newest ctime applied or scanned */
	bool need;              /* list before serving */
	bool unsettled;         /* scanned while later changes could still share its stamp */
	bool trust;             /* raised by windows since the last scan */
	int64_t trust_since_ns; /* this host's CLOCK_REALTIME at the first raise; 0 if !trust */
	uint64_t gen;           /* grows with every change of the listing */
	unsigned nparked;
	struct window parked[FRESH_PARKED_MAX]; /* windows that start above known, by pre ctime */
};

/* A half that nothing is known of: need is set. */
void fresh_init(struct fresh *f);

/*
 * Rule 1: may the listing be served? S was asked for after gen_before was read. listed_ns: so long ago was it begun to be
 * read, or less. While the server's clock is known, that decides nothing; behind a step back, who knows what time it is.
 */
enum fresh_verdict { FRESH_SERVE, FRESH_AGAIN, FRESH_SCAN };
enum fresh_verdict fresh_check(const struct fresh *f, uint64_t gen_before, bool asked_again, const struct stamp *s,
			       int64_t server_now_ns, int64_t listed_ns);

/* Rule 3: what one pass over the directory showed. */
struct fresh_pass {
	unsigned number;       /* 1-based */
	struct stamp s0, s1;   /* before and after */
	int64_t server_now_ns; /* when the pass began */
	bool absent;           /* a message listed before, or read by an earlier pass, is in this one under no name */
	bool twins;            /* a message is in this pass under two names */
};
enum fresh_pass_verdict { FRESH_DONE, FRESH_PASS, FRESH_LOOKUP };
enum fresh_pass_verdict fresh_scan(const struct fresh_pass *p);
/*
 * The row after a scan that ended with pass `p`. unclear: a message was found under no name and kept. need_meanwhile:
 * need was set since the scan began. gen and seen_ns go on from `f`.
 */
void fresh_scanned(struct fresh *f, const struct fresh_pass *p, bool unclear, bool need_meanwhile);
/* Must the next scan drop the client's cached pages of the directory first? (C10) */
bool fresh_scan_drops_cache(const struct fresh *f);
/* Rule 8: may a scan made elsewhere, which began at s0, replace this row? */
bool fresh_accepts_scan(const struct fresh *f, const struct stamp *s0);

/* Rules 4 and 5: a change, or a burst of changes in one window. */
struct fresh_event {
	bool windowed;
	struct window window;
	int64_t entries_delta; /* names added minus names removed by it */
};
struct fresh_context {
	uint64_t names; /* in this half */
	uint64_t window_min;
	bool bus_healthy;    /* none configured, or read within 2 s */
	int64_t real_now_ns; /* CLOCK_REALTIME of this host */
};
enum fresh_apply { FRESH_APPLY, FRESH_LOOK };
/* How its names are to be applied: blindly by base name, or by what a lookup in the directory says. */
enum fresh_apply fresh_event(const struct fresh *f, const struct fresh_event *ev);
/* After its names were applied; changed: the listing is not what it was. */
void fresh_applied(struct fresh *f, const struct fresh_event *ev, const struct fresh_context *ctx, bool changed);
/* Is a window worth its calls in this half? (the sender's side of rule 5) */
bool fresh_wants_window(const struct fresh *f, const struct fresh_context *ctx);

/* Rule 2: ENOENT on a listed name, or whatever else makes the listing doubtful. */
void fresh_need(struct fresh *f);
/* Rule 7: events were lost. */
void fresh_gap(struct fresh *f);

/* Rule 6: the mtime to show with stamp s. proven listings show the server's own; others one that is less than FRESH_TAGS_NS
 * older, so times that are further apart than that never show the same. */
#define FRESH_TAGS_NS 999983 /* prime, so that neighbouring hosts and generations spread over a millisecond */
bool fresh_proven(const struct fresh *f);
int64_t fresh_mtime_ns(const struct fresh *f, const struct stamp *s, uint64_t host_hash);

#endif
