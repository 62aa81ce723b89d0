/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A line leaves in one write(2), so that lines of several threads and programs don't mix.
 */
#include "lib/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#define TEXT_MAX 4096
#define PREFIX_MAX 128

enum target { TARGET_STDERR, TARGET_JOURNAL, TARGET_SYSLOG };

static const struct {
	const char *word;
	int priority; /* syslog(3), sd-daemon(3) */
} levels[] = {
	[LOG_LEVEL_ERROR] = {"error", LOG_ERR},
	[LOG_LEVEL_WARNING] = {"warning", LOG_WARNING},
	[LOG_LEVEL_INFO] = {"info", LOG_INFO},
	[LOG_LEVEL_DEBUG] = {"debug", LOG_DEBUG},
};

static const char *name = "maildex";
static enum log_level threshold = LOG_LEVEL_INFO;
/* Atomic because log_detach() comes when threads run already. */
static _Atomic enum target target = TARGET_STDERR;

/* JOURNAL_STREAM is inherited by children whose stderr was redirected: it names the stream it speaks of. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &dev, &ino) != 2 || fstat(STDERR_FILENO, &st) < 0)
		return false;
	return st.st_dev == dev && st.st_ino == ino;
}

void log_open(const char *prog, enum log_level level)
{
	name = prog;
	threshold = level;
	atomic_store(&target, stderr_is_journal() ? TARGET_JOURNAL : TARGET_STDERR);
}

void log_detach(void)
{
	struct stat st;
	int fd;

	if (atomic_load(&target) == TARGET_JOURNAL || (fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode)))
		return;
	openlog(name, LOG_PID | LOG_NDELAY, LOG_MAIL);
	atomic_store(&target, TARGET_SYSLOG);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	dup2(fd, STDERR_FILENO);
	if (fd != STDERR_FILENO)
		close(fd);
}

static size_t put_escaped(char *out, const char *text)
{
	static const char hex[] = "0123456789abcdef";
	char *o = out;

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c >= 0x20 && c != 0x7f) {
			*o++ = *text;
			continue;
		}
		*o++ = '\\';
		*o++ = 'x';
		*o++ = hex[c >> 4];
		*o++ = hex[c & 15];
	}
	*o = '\0';
	return (size_t)(o - out);
}

static void emit(enum log_level level, const char *text)
{
	char line[PREFIX_MAX + 4 * TEXT_MAX + 1];
	enum target to = atomic_load(&target);
	int prefix = 0;
	size_t len;
	ssize_t n;

	if (to == TARGET_JOURNAL)
		prefix = snprintf(line, PREFIX_MAX, "<%d>%.64s: ", levels[level].priority, name);
	else if (to == TARGET_STDERR)
		prefix = snprintf(line, PREFIX_MAX, "%.64s: %s: ", name, levels[level].word);
	len = (size_t)prefix + put_escaped(line + prefix, text);
	if (to == TARGET_SYSLOG) {
		syslog(levels[level].priority, "%s", line);
		return;
	}
	line[len++] = '\n';
	do
		n = write(STDERR_FILENO, line, len);
	while (n < 0 && errno == EINTR);
}

static void log_at(enum log_level level, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void log_at(enum log_level level, const char *fmt, va_list ap)
{
	int saved = errno;
	char text[TEXT_MAX];

	if (level <= threshold) {
		vsnprintf(text, sizeof(text), fmt, ap);
		emit(level, text);
	}
	errno = saved;
}

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_at(LOG_LEVEL_ERROR, fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_at(LOG_LEVEL_WARNING, fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_at(LOG_LEVEL_INFO, fmt, ap);
	va_end(ap);
}

void log_debug(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_at(LOG_LEVEL_DEBUG, fmt, ap);
	va_end(ap);
}
