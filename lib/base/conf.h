/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration: one INI file, section [maildex], and -o key=value over it.
 *
 * Flow: conf_init() (defaults), conf_load() and conf_set() in the order of the command line, conf_check() once.
 * Shapes: durations take s, ms, min, h, d ("1s", "30min", "24h"; a bare number is seconds); sizes take K, M, G
 * (1024s). Paths are absolute and stored without trailing slashes.
 * Ownership: strings belong to the struct until conf_release(); none is NULL after conf_init() ("" for empty).
 * Threads: written at start only.
 * Errors: -EINVAL with file, line and key in the text (exit 2); -ENOENT and the like if the file cannot be read (exit
 * 2).
 */
#ifndef MAILDEX_BASE_CONF_H
#define MAILDEX_BASE_CONF_H

#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/log.h"

#define CONF_FILE_DEFAULT "/etc/maildex/maildex.conf"

enum serve_mode { SERVE_INDEX, SERVE_LOWER, SERVE_COMPARE };
enum watch_mode { WATCH_NONE, WATCH_INOTIFY };

struct conf {
	char *root;
	char *mount;
	enum serve_mode serve;
	char *index;
	char *socket;
	char *bus;
	char *bus_auth;
	char *bus_ca;
	char *host;
	enum watch_mode watch;
	char *user;
	int64_t revalidate_ns;
	int64_t scrub_interval_ns;
	int64_t confirm_ns;
	uint32_t window_min;
	uint32_t scans;
	uint32_t bus_shards;
	uint64_t cache_bytes;
	uint64_t passthrough; /* messages of this size are read straight from the lower file; 0: none are */
	uint32_t threads;
	enum log_level log;
	char *metrics;
};

void conf_init(struct conf *c);
void conf_release(struct conf *c);
/* Reads the file. Returns 0 or negative errno. */
int conf_load(struct conf *c, const char *file, struct err *e);
/* Sets "key=value". Returns 0 or -EINVAL. */
int conf_set(struct conf *c, const char *assignment, struct err *e);
/* Cross-checks: root given; what this version cannot do yet (bus, metrics) is refused by name. Returns 0 or -EINVAL. */
int conf_check(struct conf *c, struct err *e);
/* The word of a mode, as written in the file. */
const char *serve_mode_word(enum serve_mode m);
/* Returns 0 or -EINVAL. */
int serve_mode_parse(const char *word, enum serve_mode *m);

#endif
