/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/patrol.h"

#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"

void patrol_init(struct patrol *p, int64_t every_ns, const struct visit *visit)
{
	*p = (struct patrol){.visit = *visit, .every_ns = every_ns};
	p->visit.first = true;
}

void patrol_again(struct patrol *p)
{
	p->again = true;
	p->round_ns = 0;
}

bool patrol_busy(const struct patrol *p)
{
	return p->visit.places->first[PLACES_TODO] || p->walking || p->round_ns == 0;
}

static void tell_limit(struct patrol *p)
{
	const struct places *places = p->visit.places;
	bool full = p->visit.full;

	if (full && !p->told_limit)
		log_warn("inotify: no more watches are to be had: %zu folders are watched, %zu are not (new mail there "
			 "is "
			 "seen when they are opened); raise the sysctl fs.inotify.max_user_watches",
			 (size_t)places->folders, (size_t)places->unwatched);
	if (!full && p->told_limit)
		log_info("inotify: there are enough watches now: %zu folders are watched", (size_t)places->folders);
	p->told_limit = full;
}

static void begin_round(struct patrol *p, int64_t now_ns)
{
	struct places *places = p->visit.places;

	p->walking = true;
	p->visit.look = p->again;
	p->visit.full = false;
	p->again = false;
	p->round_ns = now_ns + p->every_ns;
	places->root->round = true;
	places_push(places, PLACES_TODO, places->root, false);
}

static void end_round(struct patrol *p)
{
	const struct places *places = p->visit.places;

	if (places->unwatched > 0 && !p->visit.full)
		log_warn("inotify: %zu folders are watched, %zu can't be: %s", (size_t)places->folders,
			 (size_t)places->unwatched, strerror(-p->visit.why));
	else
		log_debug("inotify: %zu folders are watched", (size_t)places->folders);
	p->visit.first = false;
	p->visit.look = false;
	p->walking = false;
}

/*
 * A few at a time; if that works, twice as many at once: where the limit was raised all are soon watched, and where it
 * was not the server is left alone.
 */
static void retry(struct patrol *p, int64_t now_ns)
{
	struct place *place = p->visit.places->first[PLACES_UNWATCHED];

	if (!place)
		return;
	if (p->retry > 0 && p->visit.why == 0) {
		p->retry *= 2;
	} else if (now_ns >= p->retry_ns) {
		p->retry = PATROL_RETRY_MIN;
		p->retry_ns = now_ns + PATROL_RETRY_NS;
	} else {
		return;
	}
	p->visit.why = 0;
	for (size_t n = 0; place && n < p->retry; n++) {
		places_push(p->visit.places, PLACES_TODO, place, false);
		place = place->link[PLACES_UNWATCHED].next;
	}
}

/* There is nothing to visit now. */
static void at_rest(struct patrol *p, int64_t now_ns)
{
	if (p->visit.places->unwatched == 0)
		p->visit.full = false;
	tell_limit(p);
	if (p->walking)
		end_round(p);
	if (now_ns >= p->round_ns)
		begin_round(p, now_ns);
	else
		retry(p, now_ns);
}

void patrol_step(struct patrol *p, int64_t now_ns)
{
	struct place *place;

	if (!p->visit.places->first[PLACES_TODO])
		at_rest(p, now_ns);
	if (p->paid_ns < now_ns - NS_PER_S)
		p->paid_ns = now_ns - NS_PER_S;
	for (int n = 0; n < PATROL_STEP && p->paid_ns < now_ns; n++) {
		place = places_pop(p->visit.places, PLACES_TODO);
		if (!place)
			break;
		p->paid_ns += NS_PER_S / PATROL_PER_S;
		visit_place(&p->visit, place);
	}
	if (p->walking || p->round_ns == 0)
		p->state = PATROL_WALKING;
	else
		p->state = p->visit.full ? PATROL_LIMITED : PATROL_WATCHING;
}
