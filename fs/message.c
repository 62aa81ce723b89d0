/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fs/message.h"

#include <fcntl.h>

void message_learn(struct message *m, const struct stat *st, int64_t now_ns, uint64_t begun)
{
	if (m->changes != begun)
		return;
	m->st = *st;
	m->read_ns = now_ns;
}

void message_forget(struct message *m)
{
	m->changes++;
	m->read_ns = 0;
}

int64_t message_recall(const struct message *m, uid_t asker, int64_t now_ns, struct stat *st)
{
	int64_t left = m->read_ns + MESSAGE_KEEP_NS - now_ns;

	if (!m->read_ns || left <= 0 || m->st.st_uid != asker)
		return 0;
	*st = m->st;
	return left;
}

bool message_opened(struct message *m, int64_t size, int64_t mtime_ns, bool keep)
{
	keep = keep && m->shown_size == size && m->shown_mtime_ns == mtime_ns;
	if (!keep)
		m->given = 0;
	m->shown_size = size;
	m->shown_mtime_ns = mtime_ns;
	return keep;
}

void message_given(struct message *m, int64_t off, int64_t len)
{
	if (off <= m->given && off + len > m->given)
		m->given = off + len;
}

bool message_held(const struct message *m, uid_t asker, int flags, int64_t now_ns)
{
	struct stat st;

	return (flags & (O_ACCMODE | O_TRUNC | O_DIRECT)) == O_RDONLY && message_recall(m, asker, now_ns, &st) > 0 &&
	       st.st_mode & S_IRUSR && m->shown_size == st.st_size && m->shown_mtime_ns == clock_ns(st.st_mtim) &&
	       m->given >= st.st_size;
}
