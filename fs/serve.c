/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void serve_init(struct serve *s, enum serve_mode mode)
{
	*s = (struct serve){.mode = mode};
	pthread_rwlock_init(&s->lock, NULL);
}

static void forget_mailboxes(struct serve *s)
{
	for (size_t i = 0; i < s->count; i++)
		free(s->mailboxes[i].path);
	s->count = 0;
}

void serve_release(struct serve *s)
{
	forget_mailboxes(s);
	free(s->mailboxes);
	pthread_rwlock_destroy(&s->lock);
}

/* Where a path of this length is, or belongs. */
static size_t position(const struct serve *s, const char *path, size_t len, bool *found)
{
	size_t lo = 0, hi = s->count;

	*found = false;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int order = strncmp(s->mailboxes[mid].path, path, len);

		if (order == 0 && s->mailboxes[mid].path[len] != '\0')
			order = 1;
		if (order == 0) {
			*found = true;
			return mid;
		}
		if (order < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

enum serve_mode serve_of(struct serve *s, const char *folder)
{
	size_t len = strlen(folder), at;
	enum serve_mode mode;
	bool found = false;

	pthread_rwlock_rdlock(&s->lock);
	mode = s->mode;
	while (s->count) {
		at = position(s, folder, len, &found);
		if (found) {
			mode = s->mailboxes[at].mode;
			break;
		}
		if (len == 0)
			break;
		while (len > 0 && folder[len - 1] != '/')
			len--;
		if (len > 0)
			len--;
	}
	pthread_rwlock_unlock(&s->lock);
	return mode;
}

void serve_set_all(struct serve *s, enum serve_mode mode)
{
	pthread_rwlock_wrlock(&s->lock);
	forget_mailboxes(s);
	s->mode = mode;
	pthread_rwlock_unlock(&s->lock);
}

int serve_set(struct serve *s, const char *mailbox, enum serve_mode mode)
{
	char *path = strdup(mailbox);
	struct serve_mailbox *more;
	bool found;
	size_t at;
	int r = path ? 0 : -ENOMEM;

	pthread_rwlock_wrlock(&s->lock);
	at = position(s, mailbox, strlen(mailbox), &found);
	if (found) {
		s->mailboxes[at].mode = mode;
	} else if (r == 0 && s->count == SERVE_MAILBOXES_MAX) {
		r = -ENOSPC;
	} else if (r == 0) {
		if (s->count == s->room) {
			more = realloc(s->mailboxes, (s->room * 2 + 8) * sizeof(*more));
			if (!more) {
				r = -ENOMEM;
				goto out;
			}
			s->mailboxes = more;
			s->room = s->room * 2 + 8;
		}
		memmove(&s->mailboxes[at + 1], &s->mailboxes[at], (s->count - at) * sizeof(*s->mailboxes));
		s->mailboxes[at] = (struct serve_mailbox){.path = path, .mode = mode};
		s->count++;
		path = NULL;
	}
out:
	pthread_rwlock_unlock(&s->lock);
	free(path);
	return r;
}

void serve_print(struct serve *s, struct buf *b)
{
	pthread_rwlock_rdlock(&s->lock);
	buf_printf(b, "* %s\n", serve_mode_word(s->mode));
	for (size_t i = 0; i < s->count; i++)
		buf_printf(b, "%s %s\n", s->mailboxes[i].path, serve_mode_word(s->mailboxes[i].mode));
	pthread_rwlock_unlock(&s->lock);
}
