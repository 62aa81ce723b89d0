/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is listed again without being asked for: confirm (halves on trust, `confirm` and a tenth after their first
 * raise: maildexfs does its own at `confirm` and hands the result over) and scrub (each half once per scrub_interval,
 * evenly spread, one at a time and at most SCRUB_PER_S).
 *
 * The scrub goes round by folder path; where it stands is kept in the index once a minute, so that restarts do not make
 * it begin at the same end every day.
 *
 * Flow: schedule_start(); schedule_trusted() and schedule_trusted_below() from the applier; schedule_confirmed() and
 * schedule_scrubbed() from the pool.
 * Ownership: borrows. Threads: one of its own. Errors: none after the start: what could not be listed comes again.
 */
#ifndef MAILDEX_INDEXER_SCHEDULE_H
#define MAILDEX_INDEXER_SCHEDULE_H

#include "indexer/rescan.h"

#define SCRUB_PER_S 20

struct schedule;
struct schedule *schedule_new(const struct conf *conf, struct apply *apply, struct store_readers *readers,
			      struct rescan *pool, struct tally *tally);
void schedule_free(struct schedule *s);
int schedule_start(struct schedule *s, struct err *e);
void schedule_stop(struct schedule *s);
/* The half is on trust since then (CLOCK_REALTIME). */
void schedule_trusted(struct schedule *s, const char *folder, enum half half, int64_t since_ns);
/* Takes up those on trust at and below a folder: at the start, and after a rename, under their new path. */
void schedule_trusted_below(struct schedule *s, const char *below);
/* Listeners of the pool (arg: the schedule). */
void schedule_confirmed(void *arg, const struct rescan_result *result);
void schedule_scrubbed(void *arg, const struct rescan_result *result);
/* How long after its first raise a half is confirmed here. */
int64_t schedule_confirm_ns(const struct conf *conf);
/* How long to wait between two halves of a scrub, given how many there are. */
int64_t schedule_scrub_pause_ns(const struct conf *conf, uint64_t halves);

#endif
