/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/sweep.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"

int sweep_init(struct sweep *s, size_t cap)
{
	*s = (struct sweep){.cap = cap};
	s->seen = calloc(cap ? cap : 1, sizeof(*s->seen));
	return s->seen ? 0 : -ENOMEM;
}

void sweep_release(struct sweep *s)
{
	free(s->seen);
}

void sweep_seen(struct sweep *s, const char *folder)
{
	if (s->n < s->cap)
		s->seen[s->n++] = folder;
	s->sorted = false;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool was_seen(struct sweep *s, const char *folder)
{
	return bsearch(&folder, s->seen, s->n, sizeof(*s->seen), compare) != NULL;
}

static bool forget_if_gone(struct apply *apply, struct lower *lower, const struct store_row *row)
{
	struct err e;

	if (lower_gone(lower, row->folder))
		return apply_forget(apply, row->folder, true, &e) == 0;
	if (lower_half_gone(lower, row->folder, row->half))
		return apply_forget(apply, row->folder, false, &e) == 0;
	return false;
}

unsigned sweep_run(struct sweep *s, struct apply *apply, struct store_readers *readers, struct lower *lower,
		   const char *below, const _Atomic bool *stop)
{
	struct store_row row = {0};
	struct store_reader *reader;
	struct err e;
	unsigned forgotten = 0;
	int r = 1;

	if (!s->sorted)
		qsort(s->seen, s->n, sizeof(*s->seen), compare);
	s->sorted = true;
	while (r > 0 && !atomic_load(stop)) {
		if (store_readers_get(readers, &reader, &e) < 0)
			break;
		r = store_reader_next(reader, below, &row, &e);
		store_readers_put(readers, reader, r < 0);
		indexfile_seen(apply->file, r);
		if (r > 0 && !was_seen(s, row.folder))
			forgotten += forget_if_gone(apply, lower, &row);
	}
	if (forgotten)
		log_info("%u folders that are gone were forgotten", forgotten);
	return forgotten;
}
