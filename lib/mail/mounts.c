/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/base/buf.h"

#define READ_BYTES 65536

/* "\040" and the like back to bytes, in place. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
		    s[3] <= '7') {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* The next word of a line; "" where two spaces meet (an empty source), NULL at its end. */
static char *next_word(char **line)
{
	return strsep(line, " ");
}

/* ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE OPTIONS. Returns false if it is no such line. */
static bool parse_line(char *line, struct mount *m)
{
	char *words[6], *word, *end;
	unsigned major, minor;

	for (int i = 0; i < 6; i++) {
		words[i] = next_word(&line);
		if (!words[i])
			return false;
	}
	do {
		word = next_word(&line);
		if (!word)
			return false;
	} while (strcmp(word, "-") != 0);
	m->fstype = next_word(&line);
	m->source = next_word(&line);
	m->options = line ? line : "";
	m->root = words[3];
	m->point = words[4];
	if (!m->fstype || !m->source || sscanf(words[2], "%u:%u", &major, &minor) != 2)
		return false;
	m->id = (unsigned)strtoul(words[0], &end, 10);
	if (end == words[0] || *end)
		return false;
	m->dev = makedev(major, minor);
	unescape(m->root);
	unescape(m->point);
	unescape(m->fstype);
	unescape(m->source);
	return true;
}

int mounts_parse(struct mounts *m, const char *text, size_t len)
{
	size_t lines = 1;
	char *rest, *line;

	*m = (struct mounts){0};
	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	m->text = malloc(len + 1);
	m->list = calloc(lines, sizeof(*m->list));
	if (!m->text || !m->list) {
		mounts_release(m);
		return -ENOMEM;
	}
	if (len > 0)
		memcpy(m->text, text, len);
	m->text[len] = '\0';
	rest = m->text;
	while ((line = strsep(&rest, "\n")))
		if (parse_line(line, &m->list[m->count]))
			m->count++;
	return 0;
}

/* Reads a file of /proc whole; such files tell no size. */
static int read_file(const char *path, struct buf *b)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		char *to = buf_reserve(b, READ_BYTES);
		ssize_t n;

		if (!to) {
			rc = -ENOMEM;
			break;
		}
		n = read(fd, to, READ_BYTES);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			rc = n < 0 ? -errno : 0;
			break;
		}
		b->len += (size_t)n;
	}
	close(fd);
	return rc;
}

int mounts_read(struct mounts *m)
{
	struct buf b;
	int rc;

	*m = (struct mounts){0};
	buf_init(&b);
	rc = read_file("/proc/self/mountinfo", &b);
	if (rc == 0)
		rc = mounts_parse(m, b.data, b.len);
	buf_release(&b);
	return rc;
}

void mounts_release(struct mounts *m)
{
	free(m->list);
	free(m->text);
	*m = (struct mounts){0};
}

const struct mount *mounts_by_id(const struct mounts *m, unsigned id)
{
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].id == id)
			return &m->list[i];
	return NULL;
}

const struct mount *mounts_by_point(const struct mounts *m, const char *point)
{
	/* The kernel lists mounts in the order they were made: the last one covers the others. */
	for (size_t i = m->count; i > 0; i--)
		if (strcmp(m->list[i - 1].point, point) == 0)
			return &m->list[i - 1];
	return NULL;
}

int mounts_fd_id(int fd, unsigned *id)
{
	char path[64], *line;
	struct buf b;
	int rc;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	buf_init(&b);
	rc = read_file(path, &b);
	if (rc == 0) {
		line = b.data ? strstr(b.data, "mnt_id:") : NULL;
		if (!line || sscanf(line, "mnt_id: %u", id) != 1)
			rc = -ENODATA;
	}
	buf_release(&b);
	return rc;
}

int mounts_of_fd(struct mounts *m, int fd, const struct mount **mount)
{
	unsigned id = 0;
	int rc = mounts_fd_id(fd, &id);

	if (rc == 0)
		rc = mounts_read(m);
	if (rc < 0)
		return rc;
	*mount = mounts_by_id(m, id);
	if (*mount)
		return 0;
	mounts_release(m);
	return -ENODEV;
}

bool mounts_changed(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static int fd = -1;
	static pid_t owner;
	struct pollfd p = {.events = POLLPRI};
	bool changed = true;

	/*
	 * The kernel remembers per open file what it told: the descriptor stays open, and each answer is given once. So
	 * a child that shared its parent's would miss what the parent was told.
	 */
	pthread_mutex_lock(&lock);
	if (fd >= 0 && owner != getpid()) {
		close(fd);
		fd = -1;
	}
	if (fd < 0) {
		owner = getpid();
		fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	} else {
		p.fd = fd;
		changed = poll(&p, 1, 0) != 0;
	}
	pthread_mutex_unlock(&lock);
	return changed;
}
