/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The rules of freshness. The races that they guard against (C1 to C16 of the model's report; tests/unit/fresh.c names
 * each):
 *
 * - A change that nobody tells of (silent writer, lost event): the stamp differs, in any direction, and the folder is
 * listed. Older counts as changed: restores, rollbacks and clock steps set times back (C6, C7, C8).
 * - Two changes in one tick of the server's clock, the listing read between them: the stamps are equal for ever. So a
 *   listing read before its stamp settled is read once more after that (C9), from the server, not from the client's
 * pages (C10).
 * - A rename during a listing: a message under neither or both of its names. A pass counts only when nothing moved;
 * else passes are put together and single messages looked up; a name that is gone proves nothing about the message
 * (C3).
 * - Late and doubled events: applied blindly only if they start after everything that the listing holds, else looked up
 * (C4, C5).
 * - A foreign change inside an own window (C2, the slip): nobody can see it, so such a listing is on trust until listed
 * again.
 * - A listing that holds more than its stamp says, while the tree rolls back to that stamp: need (C8).
 * - An mtime shown with two listings: tagged unless the listing is proven (C14, C15).
 */
#include "lib/mail/fresh.h"

#include <string.h>

void fresh_init(struct fresh *f)
{
	*f = (struct fresh){.need = true};
}

/* Has the stamp become one that no later change can share? */
static bool settled(const struct stamp *s, int64_t server_now_ns)
{
	return server_now_ns >= s->ctime_ns && server_now_ns - s->ctime_ns >= stamp_settle_ns(s);
}

/* A listing that was begun so long ago is older than any change that shares its stamp. A little longer than it must be, so
 * that the server's clock, where it is known, has said so before. */
static int64_t listed_settle_ns(const struct stamp *s)
{
	return stamp_settle_ns(s) + stamp_settle_ns(s) / 200;
}

enum fresh_verdict fresh_check(const struct fresh *f, uint64_t gen_before, bool asked_again, const struct stamp *s,
			       int64_t server_now_ns, int64_t listed_ns)
{
	if (f->need || f->nparked > 0)
		return FRESH_SCAN;
	if (f->unsettled && (settled(&f->known, server_now_ns) || listed_ns >= listed_settle_ns(&f->known)))
		return FRESH_SCAN;
	if (stamp_eq(s, &f->known))
		return FRESH_SERVE;
	if (f->gen != gen_before && !asked_again)
		return FRESH_AGAIN;
	return FRESH_SCAN;
}

enum fresh_pass_verdict fresh_scan(const struct fresh_pass *p)
{
	if (!stamp_eq(&p->s0, &p->s1))
		return p->number < 3 ? FRESH_PASS : FRESH_LOOKUP;
	if (settled(&p->s0, p->server_now_ns))
		return FRESH_DONE;
	if (p->number == 1 && (p->absent || p->twins))
		return FRESH_PASS;
	return p->twins ? FRESH_LOOKUP : FRESH_DONE;
}

void fresh_scanned(struct fresh *f, const struct fresh_pass *p, bool unclear, bool need_meanwhile)
{
	/*
	 * A stamp that an earlier scan found settled stays so, also for a process that has not seen much of the
	 * server's clock yet (a restart). One that a window raised was never found settled, and one that the clock was
	 * set back over will be the clock's time once more.
	 */
	bool was_settled = p->server_now_ns >= p->s0.ctime_ns && !f->unsettled && !f->trust && !f->need &&
			   stamp_eq(&f->known, &p->s0);

	/* Newer than all that this row knew, or the clock went back below what the row stands for. */
	if (p->s1.ctime_ns > f->seen_ns || p->s1.ctime_ns < f->known.ctime_ns)
		f->seen_ns = p->s1.ctime_ns;
	f->known = p->s0;
	f->need = need_meanwhile || unclear || !stamp_eq(&p->s0, &p->s1);
	f->unsettled = !was_settled && !settled(&p->s0, p->server_now_ns);
	f->trust = false;
	f->trust_since_ns = 0;
	f->nparked = 0;
}

bool fresh_scan_drops_cache(const struct fresh *f)
{
	return f->unsettled;
}

bool fresh_accepts_scan(const struct fresh *f, const struct stamp *s0)
{
	return s0->ctime_ns >= f->known.ctime_ns && s0->ctime_ns >= f->seen_ns;
}

enum fresh_apply fresh_event(const struct fresh *f, const struct fresh_event *ev)
{
	/* Within one tick of the server's clock nobody knows what came first; back in time still less. */
	if (!ev->windowed || ev->window.post.ctime_ns <= ev->window.pre.ctime_ns)
		return FRESH_LOOK;
	return ev->window.pre.ctime_ns >= f->seen_ns ? FRESH_APPLY : FRESH_LOOK;
}

/* Does the window say nothing against the change being alone in it? Where sizes count entries, they must agree. */
static bool window_usable(const struct fresh_event *ev, const struct fresh_context *ctx)
{
	const struct window *w = &ev->window;

	if (ctx->names < ctx->window_min || !ctx->bus_healthy)
		return false;
	if (w->pre.sized && w->post.sized)
		return (int64_t)(w->post.size - w->pre.size) == ev->entries_delta;
	return true;
}

static void parked_remove(struct fresh *f, unsigned i)
{
	memmove(&f->parked[i], &f->parked[i + 1], (f->nparked - i - 1) * sizeof(f->parked[0]));
	f->nparked--;
}

/* A window that starts above known waits for the one before it. */
static void park(struct fresh *f, const struct window *w)
{
	unsigned i;

	for (i = 0; i < f->nparked && f->parked[i].pre.ctime_ns < w->pre.ctime_ns; i++)
		;
	if (i < f->nparked && stamp_eq(&f->parked[i].pre, &w->pre) && stamp_eq(&f->parked[i].post, &w->post))
		return; /* doubled */
	if (f->nparked == FRESH_PARKED_MAX) {
		f->need = true;
		f->nparked = 0;
		return;
	}
	memmove(&f->parked[i + 1], &f->parked[i], (f->nparked - i) * sizeof(f->parked[0]));
	f->parked[i] = *w;
	f->nparked++;
}

static void raise_known(struct fresh *f, const struct window *w, const struct fresh_context *ctx)
{
	f->known = w->post;
	if (!f->trust)
		f->trust_since_ns = ctx->real_now_ns;
	f->trust = true;
	for (unsigned i = 0; i < f->nparked;) {
		if (stamp_eq(&f->parked[i].pre, &f->known)) {
			f->known = f->parked[i].post;
			parked_remove(f, i);
			i = 0;
		} else if (f->parked[i].pre.ctime_ns < f->known.ctime_ns) {
			/* It overlaps what was raised: two changes at once, in an order that nobody knows. */
			f->need = true;
			f->nparked = 0;
		} else {
			i++;
		}
	}
}

void fresh_applied(struct fresh *f, const struct fresh_event *ev, const struct fresh_context *ctx, bool changed)
{
	const struct window *w = &ev->window;

	if (changed)
		f->gen++;
	if (!ev->windowed) {
		f->need |= changed;
		return;
	}
	if (w->post.ctime_ns < w->pre.ctime_ns) { /* the server's clock went back (C7) */
		f->need = true;
		f->seen_ns = w->post.ctime_ns;
		return;
	}
	if (w->post.ctime_ns > f->seen_ns)
		f->seen_ns = w->post.ctime_ns;
	if (f->need)
		return;
	if (window_usable(ev, ctx) && stamp_eq(&w->pre, &f->known))
		raise_known(f, w, ctx);
	else if (window_usable(ev, ctx) && w->pre.ctime_ns > f->known.ctime_ns)
		park(f, w);
	else
		f->need |= changed;
}

bool fresh_wants_window(const struct fresh *f, const struct fresh_context *ctx)
{
	return !f->need && ctx->names >= ctx->window_min && ctx->bus_healthy;
}

void fresh_need(struct fresh *f)
{
	f->need = true;
}

void fresh_gap(struct fresh *f)
{
	f->need |= f->trust;
}

bool fresh_proven(const struct fresh *f)
{
	return !f->need && !f->unsettled && !f->trust && f->nparked == 0;
}

int64_t fresh_mtime_ns(const struct fresh *f, const struct stamp *s, uint64_t host_hash)
{
	if (fresh_proven(f) && stamp_eq(s, &f->known))
		return s->mtime_ns;
	return s->mtime_ns - (int64_t)(1 + (host_hash * 8191 + f->gen) % FRESH_TAGS_NS);
}
