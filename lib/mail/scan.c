/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scanning a half. The races that this guards against:
 *
 * - A rename while the directory is read (C3): the listing may hold the message under neither name, or under both. Such
 *   a pass shows itself by a stamp that moved. Further passes are made; then all are put together by message (base
 *   name), and each that is still unclear is looked up under all names that it was ever seen with.
 * - A name that is gone proves nothing: the message may have a name by now that nobody has seen. While the directory
 *   moves, such a message keeps its entry, and the half is listed again before it is served next.
 * - Two changes in one tick of the server's clock (C9), and a client that answers the second listing from its pages
 *   (C10): those pages are dropped.
 * - A message that is renamed again while its names are looked up, one after the other: it is found under none, or
 *   under two.
 */
#include "lib/mail/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PASSES_MAX 3
/* Comparing the names of one message in pairs is for the handful that it can have; a folder of "x:1", "x:2" ... is no
 * Maildir and needs no such care. */
#define PAIRS_MAX 64
#define TOUCHED_BITS 8192
/* Of the three lists that are put together: before (pass 0), said, read. */
#define TOUCHED_READ 2

void (*scan_test_hook)(enum scan_stage stage, unsigned pass);

/* See scan_test_hook. */
static void hook(enum scan_stage stage, unsigned pass)
{
	if (scan_test_hook)
		scan_test_hook(stage, pass);
}

/* One name that was seen, and what a lookup said of it. */
struct known {
	struct listing_entry entry;
	unsigned pass; /* the last one that had it; 0: only listed before the scan */
	uint32_t next; /* further name of the same message: index + 1 */
	uint32_t nlink;
	bool there;
};

/* All names of all passes, found by name and by message. Entries borrow from the listings. */
struct roll {
	struct known *known;
	uint32_t count;
	uint32_t *names;    /* by name: index + 1, 0 is free */
	uint32_t *messages; /* by base name: index + 1 of the name seen last, 0 is free */
	size_t mask;
};

static void roll_release(struct roll *r)
{
	free(r->known);
	free(r->names);
	free(r->messages);
	*r = (struct roll){0};
}

static int roll_init(struct roll *r, uint64_t room)
{
	size_t slots = 16;

	*r = (struct roll){0};
	if (room >= UINT32_MAX)
		return -ENOMEM;
	while (slots < 2 * room)
		slots *= 2;
	r->mask = slots - 1;
	r->known = calloc(room + 1, sizeof(*r->known));
	r->names = calloc(slots, sizeof(*r->names));
	r->messages = calloc(slots, sizeof(*r->messages));
	if (r->known && r->names && r->messages)
		return 0;
	roll_release(r);
	return -ENOMEM;
}

static void roll_add(struct roll *r, const struct listing_entry *entry, unsigned pass)
{
	size_t at = listing_hash(entry->name, entry->len, 0) & r->mask;
	struct known *k;

	for (; r->names[at]; at = (at + 1) & r->mask) {
		k = &r->known[r->names[at] - 1];
		if (k->entry.len == entry->len && memcmp(k->entry.name, entry->name, entry->len) == 0) {
			k->entry = *entry;
			k->pass = pass;
			return;
		}
	}
	k = &r->known[r->count++];
	*k = (struct known){.entry = *entry, .pass = pass};
	r->names[at] = r->count;
	at = name_base_hash(entry->name, entry->len) & r->mask;
	while (r->messages[at]) {
		const struct listing_entry *other = &r->known[r->messages[at] - 1].entry;

		if (name_same_base(other->name, other->len, entry->name, entry->len))
			break;
		at = (at + 1) & r->mask;
	}
	k->next = r->messages[at];
	r->messages[at] = r->count;
}

/* before: may be NULL; passes 1 to n. */
static int roll_fill(struct roll *r, const struct listing *before, const struct listing *passes, unsigned n)
{
	uint64_t room = before ? before->count : 0;
	struct listing_entry entry;
	size_t at = 0;
	int rc;

	for (unsigned i = 0; i < n; i++)
		room += passes[i].count;
	rc = roll_init(r, room);
	if (rc < 0)
		return rc;
	while (before && listing_next(before, &at, &entry))
		roll_add(r, &entry, 0);
	for (unsigned i = 0; i < n; i++)
		for (at = 0; listing_next(&passes[i], &at, &entry);)
			roll_add(r, &entry, i + 1);
	return 0;
}

static struct known *next_name(const struct roll *r, const struct known *k)
{
	return k->next ? &r->known[k->next - 1] : NULL;
}

/* What rule 3 asks about a pass: is a message absent from it, or in it under two names? */
static void roll_ask(const struct roll *r, struct fresh_pass *p)
{
	p->absent = p->twins = false;
	for (size_t at = 0; at <= r->mask; at++) {
		unsigned names = 0;

		if (!r->messages[at])
			continue;
		for (const struct known *k = &r->known[r->messages[at] - 1]; k; k = next_name(r, k))
			names += k->pass == p->number;
		p->absent |= names == 0;
		p->twins |= names > 1;
	}
}

/*
 * The verdict on the last pass. Whether messages are absent or double is only found out where it makes a difference:
 * most scans are quiet, and cost no more than their listing. *quiet: the pass is the listing, whatever was there
 * before.
 */
static int judge(const struct listing *before, const struct listing *passes, struct fresh_pass *p, bool *quiet,
		 enum fresh_pass_verdict *verdict)
{
	enum fresh_pass_verdict worst;
	struct roll r;
	int rc;

	p->absent = p->twins = true;
	worst = fresh_scan(p);
	p->absent = p->twins = false;
	*verdict = fresh_scan(p);
	*quiet = worst == FRESH_DONE;
	if (*verdict == worst)
		return 0;
	rc = roll_fill(&r, before, passes, p->number);
	if (rc < 0)
		return rc;
	roll_ask(&r, p);
	roll_release(&r);
	*verdict = fresh_scan(p);
	return 0;
}

/*
 * S0 has just fed the clock, so that this is not below it; but where the clock was set back over S0, which may come once
 * more. Then what was found settled before the step was noticed isn't: fresh_scanned().
 */
static int64_t server_time(const struct stamp *s0)
{
	int64_t now_ns = serverclock_now_ns(s0->dev);

	if (!serverclock_twice_ns(s0) || now_ns >= s0->ctime_ns + stamp_settle_ns(s0))
		return now_ns;
	return now_ns < s0->ctime_ns ? now_ns : s0->ctime_ns - 1;
}

/* One pass: S0 (the stamp, if there is one already), the listing, S1. */
static int pass_read(int dirfd, const struct scan_from *from, struct fresh_pass *p, struct listing *l, uint64_t *all)
{
	bool first = p->number == 1;
	int rc = 0;

	if (from->drop_cache || !first)
		posix_fadvise(dirfd, 0, 0, POSIX_FADV_DONTNEED);
	if (first && from->stamp)
		p->s0 = *from->stamp;
	else
		rc = stamp_read(dirfd, &p->s0, NULL);
	if (rc < 0)
		return rc;
	if (first && from->known)
		serverclock_changed(&p->s0, from->known, from->known_mono_ns);
	p->server_now_ns = server_time(&p->s0);
	hook(SCAN_STAMPED, p->number);
	rc = listing_read(dirfd, l, all);
	if (rc < 0)
		return rc;
	hook(SCAN_LISTED, p->number);
	return stamp_read(dirfd, &p->s1, NULL);
}

int scan_lookup(int dirfd, const char *name, size_t len, struct listing_entry *entry, uint32_t *nlink)
{
	char path[NAME_LEN_MAX + 1];
	struct statx stx;

	*entry = (struct listing_entry){.name = name};
	*nlink = 0;
	if (!name_ok(name, len))
		return -EINVAL;
	memcpy(path, name, len);
	path[len] = '\0';
	if (statx(dirfd, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_FORCE_SYNC,
		  STATX_TYPE | STATX_INO | STATX_NLINK, &stx) < 0)
		/* A name too long for this filesystem isn't in it either. */
		return errno == ENOENT || errno == ENAMETOOLONG ? 0 : -errno;
	entry->ino = stx.stx_ino;
	entry->type = (uint8_t)IFTODT(stx.stx_mode);
	entry->len = (uint8_t)len;
	*nlink = stx.stx_nlink;
	return 0;
}

/* Was the message read under one name only, and is that in the last pass? */
static bool is_clear(const struct roll *r, const struct known *head, unsigned last)
{
	unsigned names = 0;
	bool in_last = false;

	for (const struct known *k = head; k; k = next_name(r, k)) {
		names += k->pass > 0;
		in_last |= k->pass == last;
	}
	return names == 1 && in_last;
}

static int look_up_all(int dirfd, struct roll *r, struct known *head, struct scan *s)
{
	for (struct known *k = head; k; k = next_name(r, k)) {
		struct listing_entry entry;
		int rc = scan_lookup(dirfd, k->entry.name, k->entry.len, &entry, &k->nlink);

		if (rc < 0)
			return rc;
		hook(SCAN_LOOKED, ++s->lookups);
		k->there = entry.len > 0;
		if (k->there)
			k->entry = entry;
	}
	return 0;
}

/*
 * Finds two names that were found one after the other but cannot both be there: one file, one link. drop: the one seen
 * in an earlier pass is taken as gone. Returns true if there were such.
 */
static bool find_doubles(const struct roll *r, struct known *head, bool drop)
{
	bool found = false;
	unsigned names = 0;

	for (const struct known *k = head; k; k = next_name(r, k))
		names++;
	for (struct known *a = head; a && names <= PAIRS_MAX; a = next_name(r, a))
		for (struct known *b = next_name(r, a); b; b = next_name(r, b)) {
			if (!a->there || !b->there || a->entry.ino != b->entry.ino || (a->nlink > 1 && b->nlink > 1))
				continue;
			found = true;
			/* Within a pass a was read later: names are chained in front. */
			if (drop)
				*(b->pass > a->pass ? &a->there : &b->there) = false;
		}
	return found;
}

/* Lists what one unclear message is found to be; keep: as what it stays listed if it is found under no name, or NULL. */
static int resolve(int dirfd, struct roll *r, struct known *head, const struct listing_entry *keep, struct scan *s)
{
	bool found = false;
	int rc = look_up_all(dirfd, r, head, s);

	if (rc == 0 && find_doubles(r, head, false)) {
		/* Renamed between two lookups. A forced GETATTR first, else the client may answer from its dentries. */
		struct stamp again;

		rc = stamp_read(dirfd, &again, NULL);
		if (rc == 0)
			rc = look_up_all(dirfd, r, head, s);
		if (rc == 0 && find_doubles(r, head, true))
			s->unclear = true;
	}
	for (const struct known *k = head; k && rc == 0; k = next_name(r, k)) {
		if (k->there)
			rc = listing_add(&s->listing, &k->entry);
		found |= k->there;
	}
	if (rc == 0 && !found && keep) {
		s->unclear = true;
		rc = listing_add(&s->listing, keep);
	}
	return rc;
}

/* The name of a message that was seen last. */
static const struct listing_entry *newest(const struct roll *r, const struct known *head)
{
	const struct known *last = head;

	for (const struct known *k = head; k; k = next_name(r, k))
		if (k->pass > last->pass)
			last = k;
	return &last->entry;
}

static int list_clear(const struct roll *r, const struct known *head, struct scan *s)
{
	for (const struct known *k = head; k; k = next_name(r, k))
		if (k->pass == s->last.number)
			return listing_add(&s->listing, &k->entry);
	return 0;
}

/* The passes put together. */
static int list_union(int dirfd, const struct listing *before, const struct listing *passes, struct scan *s)
{
	bool moved = !stamp_eq(&s->last.s0, &s->last.s1);
	struct roll r;
	int rc = roll_fill(&r, before, passes, s->last.number);

	if (rc < 0)
		return rc;
	hook(SCAN_LOOKING, s->last.number);
	for (size_t at = 0; at <= r.mask && rc == 0; at++) {
		struct known *head;

		if (!r.messages[at])
			continue;
		head = &r.known[r.messages[at] - 1];
		rc = is_clear(&r, head, s->last.number) ? list_clear(&r, head, s)
							: resolve(dirfd, &r, head, moved ? newest(&r, head) : NULL, s);
	}
	roll_release(&r);
	return rc;
}

int scan_half(int dirfd, const struct scan_from *from, struct scan *s)
{
	const struct listing *before = from->before;
	struct listing passes[PASSES_MAX];
	enum fresh_pass_verdict verdict = FRESH_PASS;
	uint64_t all;
	bool quiet;
	int rc = 0;

	*s = (struct scan){0};
	listing_init(&s->listing);
	for (unsigned i = 0; i < PASSES_MAX; i++)
		listing_init(&passes[i]);
	for (unsigned i = 0; i < PASSES_MAX && verdict == FRESH_PASS; i++) {
		s->last = (struct fresh_pass){.number = i + 1};
		rc = pass_read(dirfd, from, &s->last, &passes[i], &all);
		if (rc < 0)
			goto out;
		s->listings++;
		rc = judge(before, passes, &s->last, &quiet, &verdict);
		if (rc < 0)
			goto out;
		if (quiet)
			sizecount_learn(s->last.s0.dev, s->last.s0.size, all);
	}
	if (verdict == FRESH_DONE) {
		s->listing = passes[s->last.number - 1];
		listing_init(&passes[s->last.number - 1]);
	} else {
		rc = list_union(dirfd, before, passes, s);
	}
out:
	for (unsigned i = 0; i < PASSES_MAX; i++)
		listing_release(&passes[i]);
	if (rc < 0)
		scan_release(s);
	return rc;
}

void scan_release(struct scan *s)
{
	listing_release(&s->listing);
}

/*
 * The messages that were touched: a bit for each base name's hash first, so that a folder of any size is gone through
 * quickly.
 */
struct touched {
	const struct scan_change *changes;
	size_t n;
	uint64_t bits[TOUCHED_BITS / 64];
};

static void touched_init(struct touched *t, const struct scan_change *changes, size_t n)
{
	*t = (struct touched){.changes = changes, .n = n};
	for (size_t i = 0; i < n; i++) {
		uint64_t name = name_base_hash(changes[i].change.name, changes[i].change.len) % TOUCHED_BITS;
		uint64_t old = name_base_hash(changes[i].change.old, changes[i].change.old_len) % TOUCHED_BITS;

		t->bits[name / 64] |= 1ULL << name % 64;
		t->bits[old / 64] |= 1ULL << old % 64;
	}
}

/* The last change (the last sure one) that was about the message, or NULL. */
static const struct change *touched_last(const struct touched *t, const char *name, size_t len, bool sure)
{
	uint64_t bit = name_base_hash(name, len) % TOUCHED_BITS;

	if (!(t->bits[bit / 64] >> bit % 64 & 1))
		return NULL;
	for (size_t i = t->n; i-- > 0;) {
		const struct change *c = &t->changes[i].change;

		if (sure && !t->changes[i].sure)
			continue;
		if (name_same_base(name, len, c->name, c->len) ||
		    (c->old_len && name_same_base(name, len, c->old, c->old_len)))
			return c;
	}
	return NULL;
}

/* Splits l: what was touched goes to `touched`, the rest to `rest` (may be NULL). */
static int touched_split(const struct touched *t, const struct listing *l, struct listing *touched,
			 struct listing *rest)
{
	struct listing_entry e;
	size_t at = 0;
	int rc = 0;

	while (rc == 0 && listing_next(l, &at, &e)) {
		struct listing *to = touched_last(t, e.name, e.len, false) ? touched : rest;

		rc = to ? listing_add(to, &e) : 0;
	}
	return rc;
}

/* All names that the changes speak of. */
static int touched_names(const struct touched *t, struct listing *l)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < t->n; i++) {
		const struct change *c = &t->changes[i].change;
		struct listing_entry name = {.ino = c->ino, .type = c->type, .len = c->len, .name = c->name};
		struct listing_entry old = {.ino = c->ino, .type = c->type, .len = c->old_len, .name = c->old};

		rc = c->len ? listing_add(l, &name) : 0;
		if (rc == 0 && c->old_len)
			rc = listing_add(l, &old);
	}
	return rc;
}

/* As what a message stays that is found under no name; or NULL. `left` is room for it. read: the pass that read it. */
static const struct listing_entry *touched_leave(const struct touched *t, const struct roll *r,
						 const struct known *head, unsigned read, struct listing_entry *left)
{
	const struct listing_entry *e = &head->entry;
	const struct change *c = touched_last(t, e->name, e->len, true);

	for (const struct known *k = head; !c && k; k = next_name(r, k))
		if (k->pass == read)
			return &k->entry;
	if (!c || c->ino == 0 || c->kind == CHANGE_REMOVE || !name_same_base(e->name, e->len, c->name, c->len))
		return NULL;
	*left = (struct listing_entry){.ino = c->ino, .type = c->type, .len = c->len, .name = c->name};
	return left;
}

int scan_touched(int dirfd, const struct listing *before, const struct scan_change *changes, size_t n, struct scan *s)
{
	struct listing known[3], rest; /* before, said, read */
	struct touched t;
	struct roll r = {0};
	int rc;

	touched_init(&t, changes, n);
	listing_init(&rest);
	for (int i = 0; i < 3; i++)
		listing_init(&known[i]);
	rc = before ? touched_split(&t, before, &known[0], NULL) : 0;
	if (rc == 0)
		rc = touched_split(&t, &s->listing, &known[TOUCHED_READ], &rest);
	if (rc == 0)
		rc = touched_names(&t, &known[1]);
	if (rc == 0)
		rc = roll_fill(&r, &known[0], &known[1], 2);
	if (rc == 0) {
		struct listing read = s->listing;

		s->listing = rest;
		rest = read;
	}
	hook(SCAN_LOOKING, s->last.number);
	for (size_t at = 0; rc == 0 && at <= r.mask; at++) {
		struct listing_entry left;
		struct known *head;

		if (!r.messages[at])
			continue;
		head = &r.known[r.messages[at] - 1];
		rc = resolve(dirfd, &r, head, touched_leave(&t, &r, head, TOUCHED_READ, &left), s);
	}
	roll_release(&r);
	listing_release(&rest);
	for (int i = 0; i < 3; i++)
		listing_release(&known[i]);
	return rc;
}
