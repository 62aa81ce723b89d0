/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log: one line an event, on standard error (which systemd gives to the journal).
 *
 * Flow: log_open() once at start, then log_error/warn/info/debug from anywhere.
 * Shapes: lines are "<N>prog: text" when standard error is the journal (JOURNAL_STREAM names it; <N> as in
 * sd-daemon(3)), else "prog: level: text". Control bytes in the text are shown as \xNN, so that a file name can't
 * forge a line. A text is cut at 4 KiB.
 * Ownership: `prog` must outlive the process's use of the log.
 * Threads: any.
 * Errors: none; a log that cannot be written is not a failure.
 */
#ifndef MAILDEX_BASE_LOG_H
#define MAILDEX_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_open(const char *prog, enum log_level level);
/*
 * For a daemon whose starter goes away: standard error is kept if it is the journal or a file; else (a terminal, a pipe
 * whose reader would wait for its end) it becomes /dev/null, and the log goes to syslog(3), facility mail.
 */
void log_detach(void);
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
