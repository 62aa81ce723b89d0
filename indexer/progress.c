/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/progress.h"

#include <string.h>

#include "lib/base/clock.h"
#include "lib/mail/wire.h"

void progress_init(struct progress *p, struct outbox *outbox, uint64_t peer)
{
	*p = (struct progress){.outbox = outbox, .peer = peer};
}

static void send_to_peer(struct progress *p, struct buf *b)
{
	outbox_send(p->outbox, outbox_to(p->peer, b));
	buf_release(b);
}

void progress_tell(struct progress *p, bool now)
{
	struct buf b;

	if (!now && clock_mono_ns() - p->told_ns < PROGRESS_EVERY_NS)
		return;
	p->told_ns = clock_mono_ns();
	buf_init(&b);
	wire_begin(&b, WIRE_PROGRESS);
	buf_put_u64(&b, p->done);
	buf_put_u64(&b, p->known);
	buf_put_u8(&b, p->walked);
	buf_put_u64(&b, p->messages);
	buf_put_u64(&b, p->failed);
	buf_put_u64(&b, p->skipped);
	send_to_peer(p, &b);
}

void progress_failed(struct progress *p, const char *folder, const char *text)
{
	struct buf b;

	p->failed++;
	buf_init(&b);
	wire_begin(&b, WIRE_FAILED);
	buf_put_str(&b, folder, strlen(folder));
	buf_put_str(&b, text, strlen(text));
	send_to_peer(p, &b);
}

void progress_end(struct progress *p, uint8_t code, const char *text)
{
	struct buf b;

	buf_init(&b);
	wire_begin(&b, WIRE_END);
	buf_put_u8(&b, code);
	buf_put_str(&b, text, strlen(text));
	send_to_peer(p, &b);
}
