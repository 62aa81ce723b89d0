/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *va, const void *vb)
{
	const struct listing_entry *a = va, *b = vb;
	int order = memcmp(a->name, b->name, a->len < b->len ? a->len : b->len);

	return order ? order : (int)a->len - (int)b->len;
}

static struct listing_entry *sorted(const struct listing *l)
{
	struct listing_entry *all = malloc((l->count + 1) * sizeof(*all));
	size_t at = 0, n = 0;

	if (!all)
		return NULL;
	while (n < l->count && listing_next(l, &at, &all[n]))
		n++;
	qsort(all, n, sizeof(*all), by_name);
	return all;
}

int diff_listings(const struct listing *index, const struct listing *disk, struct difference **out, size_t *count)
{
	struct listing_entry *have = sorted(index), *real = sorted(disk);
	struct difference *d = malloc((index->count + disk->count + 1) * sizeof(*d));
	size_t n = 0;

	*out = NULL;
	*count = 0;
	if (!have || !real || !d) {
		free(have);
		free(real);
		free(d);
		return -ENOMEM;
	}
	for (size_t i = 0, k = 0; i < index->count || k < disk->count;) {
		int order = i == index->count ? 1 : k == disk->count ? -1 : by_name(&have[i], &real[k]);

		if (order > 0)
			d[n++] = (struct difference){DIFF_MISSING, real[k]};
		else if (order < 0)
			d[n++] = (struct difference){DIFF_EXTRA, have[i]};
		else if (have[i].ino != real[k].ino)
			d[n++] = (struct difference){DIFF_INODE, real[k]};
		i += order <= 0;
		k += order >= 0;
	}
	free(have);
	free(real);
	*out = d;
	*count = n;
	return 0;
}
