/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration: any file is either taken, with every value within its limits, or refused with a text that names the
 * line and the key. Input: the file; its lines are given as -o arguments, too.
 */
#include "lib/base/conf.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <sys/mman.h>

#include "lib/base/clock.h"
#include "tests/fuzz/fuzz.h"

#define YEAR_NS (365 * 86400 * NS_PER_S)

static void check_path(const char *path, size_t max)
{
	size_t len = strlen(path);

	CHECK(len < PATH_MAX && (max == 0 || (len > 0 && len <= max)));
	CHECK(len == 0 || path[0] == '/');
	CHECK(!strstr(path, "//") && (len < 2 || path[len - 1] != '/'));
}

static void check_word(const char *word, size_t max)
{
	CHECK(*word && (max == 0 || strlen(word) <= max));
	for (; *word; word++)
		CHECK(isgraph((unsigned char)*word));
}

static void check_within(int64_t v, int64_t min, int64_t max)
{
	CHECK(v >= min && v <= max);
}

/* The limits, written once more: as tools/maildex.conf and the design have them. */
static void check_limits(const struct conf *c)
{
	check_path(c->root, 0);
	check_path(c->mount, 0);
	check_path(c->index, 0);
	check_path(c->socket, 104);
	check_path(c->bus_auth, 0);
	check_path(c->bus_ca, 0);
	check_word(c->host, 255);
	check_word(c->user, 0);
	CHECK(c->bus && c->metrics);
	check_within(c->serve, SERVE_INDEX, SERVE_COMPARE);
	check_within(c->watch, WATCH_NONE, WATCH_INOTIFY);
	check_within(c->log, LOG_LEVEL_ERROR, LOG_LEVEL_DEBUG);
	check_within(c->revalidate_ns, 0, YEAR_NS);
	check_within(c->scrub_interval_ns, NS_PER_MS, YEAR_NS);
	check_within(c->confirm_ns, NS_PER_MS, YEAR_NS);
	check_within(c->scans, 1, 1024);
	check_within(c->bus_shards, 1, 4096);
	check_within(c->threads, 1, 4096);
	CHECK(c->cache_bytes <= 1ULL << 50 && c->passthrough <= 1ULL << 50);
}

static void check_same(const struct conf *a, const struct conf *b)
{
	const char *const strings[][2] = {{a->root, b->root},      {a->mount, b->mount}, {a->index, b->index},
					  {a->socket, b->socket},  {a->bus, b->bus},     {a->bus_auth, b->bus_auth},
					  {a->bus_ca, b->bus_ca},  {a->host, b->host},   {a->user, b->user},
					  {a->metrics, b->metrics}};

	for (size_t i = 0; i < LEN(strings); i++)
		CHECK(strcmp(strings[i][0], strings[i][1]) == 0);
	CHECK(a->serve == b->serve && a->watch == b->watch && a->log == b->log);
	CHECK(a->window_min == b->window_min && a->cache_bytes == b->cache_bytes && a->passthrough == b->passthrough);
}

/* -o with what was read gives the same. */
static void check_set_again(const struct conf *c)
{
	const struct {
		const char *key, *value;
	} strings[] = {{"root", c->root},
		       {"mount", c->mount},
		       {"index", c->index},
		       {"socket", c->socket},
		       {"bus", c->bus},
		       {"bus_auth", c->bus_auth},
		       {"bus_ca", c->bus_ca},
		       {"host", c->host},
		       {"user", c->user},
		       {"metrics", c->metrics},
		       {"serve", serve_mode_word(c->serve)},
		       {"watch", c->watch == WATCH_NONE ? "none" : "inotify"},
		       {"log", (const char *const[]){"error", "warning", "info", "debug"}[c->log]}};
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {{"window_min", c->window_min}, {"cache_bytes", c->cache_bytes}, {"passthrough", c->passthrough}};
	struct conf again;
	char *text;

	conf_init(&again);
	for (size_t i = 0; i < LEN(strings); i++) {
		CHECK(asprintf(&text, "%s=%s", strings[i].key, strings[i].value) > 0);
		CHECK(conf_set(&again, text, NULL) == 0);
		free(text);
	}
	for (size_t i = 0; i < LEN(numbers); i++) {
		CHECK(asprintf(&text, "%s=%llu", numbers[i].key, (unsigned long long)numbers[i].value) > 0);
		CHECK(conf_set(&again, text, NULL) == 0);
		free(text);
	}
	check_same(c, &again);
	conf_release(&again);
}

/* The 1-based line of the file. */
static const char *line_of(const char *bytes, size_t size, unsigned long number, size_t *len)
{
	const char *end = bytes + size, *newline;

	for (; number > 1; number--) {
		newline = memchr(bytes, '\n', (size_t)(end - bytes));
		CHECK(newline);
		bytes = newline + 1;
	}
	CHECK(bytes < end);
	newline = memchr(bytes, '\n', (size_t)(end - bytes));
	*len = (size_t)((newline ? newline : end) - bytes);
	return bytes;
}

/* "FILE:LINE: ...", and the line is in the file; the key that is named stands there. */
static void check_refusal(const char *text, const char *file, const char *bytes, size_t size)
{
	static const char *const before[] = {"unknown key '", "key '"};
	static const char *const others[] = {"unknown section [", "neither ", "a NUL byte ", "the line is longer "};
	unsigned long number;
	const char *line, *key;
	size_t len, key_len;
	char *end;

	CHECK(strncmp(text, file, strlen(file)) == 0 && text[strlen(file)] == ':');
	number = strtoul(text + strlen(file) + 1, &end, 10);
	CHECK(number > 0 && strncmp(end, ": ", 2) == 0);
	line = line_of(bytes, size, number, &len);
	key = end + 2;
	for (size_t i = 0; i < LEN(others); i++)
		if (strncmp(key, others[i], strlen(others[i])) == 0)
			return;
	key_len = strcspn(key, ":");
	for (size_t i = 0; i < LEN(before); i++) {
		if (strncmp(key, before[i], strlen(before[i])) != 0)
			continue;
		key += strlen(before[i]);
		key_len = strcspn(key, "'");
		break;
	}
	CHECK(key_len <= len && memmem(line, len, key, key_len));
}

static void check_file(const char *bytes, size_t size)
{
	struct err e = {""};
	char file[40];
	struct conf c;
	int fd = memfd_create("conf", MFD_CLOEXEC), rc;

	CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
	snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
	conf_init(&c);
	rc = conf_load(&c, file, &e);
	/* Also what a refused file has set until then. */
	check_limits(&c);
	if (rc < 0) {
		CHECK(rc == -EINVAL);
		check_refusal(e.text, file, bytes, size);
	} else {
		check_set_again(&c);
		rc = conf_check(&c, &e);
		CHECK(rc == 0 ? *c.root && !*c.bus && !*c.metrics : e.text[0] != '\0');
	}
	conf_release(&c);
	close(fd);
}

static void check_arguments(const char *bytes, size_t size)
{
	const char *end = bytes + size;
	struct conf c;

	conf_init(&c);
	while (bytes < end) {
		const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
		size_t len = (size_t)((newline ? newline : end) - bytes);
		char *text = fuzz_text(bytes, len);
		struct err e = {""};
		int rc = conf_set(&c, text, &e);

		CHECK(rc == 0 ? strchr(text, '=') != NULL : rc == -EINVAL && strncmp(e.text, "-o ", 3) == 0);
		check_limits(&c);
		free(text);
		bytes += len + 1;
	}
	conf_release(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *bytes = fuzz_copy(data, size);

	check_file(bytes, size);
	check_arguments(bytes, size);
	free(bytes);
	return 0;
}
