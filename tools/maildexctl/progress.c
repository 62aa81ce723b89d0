/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/progress.h"

#include <inttypes.h>
#include <string.h>

#include "lib/base/clock.h"
#include "tools/maildexctl/text.h"

#define BAR_MAX 30
#define BAR_MIN 5

int64_t progress_left_ns(const struct progress *p, int64_t elapsed_ns)
{
	uint64_t worked = p->done - p->skipped;

	if (!p->complete || p->done < p->skipped || worked == 0 || p->known < p->done)
		return -1;
	return (int64_t)((double)elapsed_ns / (double)worked * (double)(p->known - p->done));
}

static uint64_t rate(const struct progress *p, int64_t elapsed_ns)
{
	return elapsed_ns <= 0 ? 0 : (uint64_t)((double)p->messages * NS_PER_S / (double)elapsed_ns);
}

static void put_duration(struct buf *out, int64_t ns)
{
	int64_t s = ns / NS_PER_S;

	if (s >= 3600)
		buf_printf(out, "%" PRId64 ":%02d:%02d", s / 3600, (int)(s / 60 % 60), (int)(s % 60));
	else
		buf_printf(out, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

static void put_folders(const struct progress *p, struct buf *out)
{
	text_put_grouped(out, p->done);
	buf_printf(out, " of ");
	text_put_grouped(out, p->known);
	buf_printf(out, "%s folders", p->complete ? "" : " or more");
	if (p->failed > 0) {
		buf_printf(out, ", ");
		text_put_grouped(out, p->failed);
		buf_printf(out, " failed");
	}
}

void progress_line(const struct progress *p, int64_t elapsed_ns, struct buf *out)
{
	int64_t left = progress_left_ns(p, elapsed_ns);

	text_put_grouped(out, p->messages);
	buf_printf(out, " messages, ");
	put_folders(p, out);
	buf_printf(out, ", ");
	text_put_grouped(out, rate(p, elapsed_ns));
	buf_printf(out, " messages/s");
	if (left >= 0) {
		buf_printf(out, ", ");
		put_duration(out, left);
		buf_printf(out, " left");
	}
}

void progress_bar(const struct progress *p, int64_t elapsed_ns, unsigned columns, struct buf *out)
{
	/* While folders are still being found, what is known is no end to measure against. */
	unsigned percent = p->complete && p->known > 0 ? (unsigned)((double)p->done * 100 / (double)p->known) : 0;
	struct buf words;
	unsigned width = 0;

	buf_init(&words);
	progress_line(p, elapsed_ns, &words);
	if (percent > 100)
		percent = 100;
	/* "[" bar "] 100% " words */
	if (columns > words.len + 8)
		width = columns - (unsigned)words.len - 8;
	if (width > BAR_MAX)
		width = BAR_MAX;
	if (width >= BAR_MIN) {
		buf_put(out, "[", 1);
		for (unsigned i = 0; i < width; i++)
			buf_put(out, i < width * percent / 100 ? "#" : ".", 1);
		buf_printf(out, "] %3u%% ", percent);
	}
	if (words.data)
		buf_put(out, words.data, words.len < columns ? words.len : columns);
	buf_release(&words);
}

void progress_summary(const struct progress *p, int64_t elapsed_ns, struct buf *out)
{
	text_put_grouped(out, p->done);
	buf_printf(out, " folders, ");
	text_put_grouped(out, p->messages);
	buf_printf(out, " messages, in %.1f s", (double)elapsed_ns / NS_PER_S);
	if (p->skipped > 0) {
		buf_printf(out, " (");
		text_put_grouped(out, p->skipped);
		buf_printf(out, " of them by an earlier run)");
	}
	if (p->failed > 0) {
		buf_printf(out, ", ");
		text_put_grouped(out, p->failed);
		buf_printf(out, " could not be read");
	}
}
