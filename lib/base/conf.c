/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One table of keys: name, where the value goes, how it is read, what it is if nobody says.
 */
#include "lib/base/conf.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/clock.h"

#define SECTION "maildex"
#define YEAR_NS (365 * 86400 * NS_PER_S)
#define HOST_MAX 255
/* Of the socket's path: maildexfs adds a suffix of three bytes. */
#define SOCKET_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1 - 3)

struct key {
	const char *name;
	/* Reads value into the field. Returns 0, or -EINVAL and in e what a value of this key looks like. */
	int (*parse)(const struct key *k, void *field, const char *value, struct err *e);
	size_t offset;
	const char *preset;       /* NULL: the hostname */
	int64_t min, max;         /* numbers; max: longest string */
	bool required;            /* strings: may not be empty */
	const char *const *words; /* in the order of the enum, ended by NULL */
};

static int set_string(void *field, const char *value, struct err *e)
{
	char **s = field;
	char *copy = strdup(value);

	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	free(*s);
	*s = copy;
	return 0;
}

static int parse_string(const struct key *k, void *field, const char *value, struct err *e)
{
	if (k->required && !*value)
		return err_set(e, -EINVAL, "may not be empty");
	if (k->max && strlen(value) > (size_t)k->max)
		return err_set(e, -EINVAL, "is longer than %lld bytes", (long long)k->max);
	return set_string(field, value, e);
}

/* Of a host or a user: it goes into protocols and lists that are read word by word. */
static int parse_word(const struct key *k, void *field, const char *value, struct err *e)
{
	const char *c;

	for (c = value; *c; c++)
		if (!isgraph((unsigned char)*c))
			return err_set(e, -EINVAL, "'%s' is not one word of ASCII letters, digits and signs", value);
	return parse_string(k, field, value, e);
}

/* Stored with single slashes and none at the end, because paths are compared as text (mount = root). */
static int parse_path(const struct key *k, void *field, const char *value, struct err *e)
{
	char path[PATH_MAX];
	size_t len = 0;

	if (!*value)
		return parse_string(k, field, value, e);
	if (*value != '/')
		return err_set(e, -EINVAL, "'%s' is not an absolute path", value);
	if (strlen(value) >= sizeof(path))
		return err_set(e, -EINVAL, "is longer than %zu bytes", sizeof(path) - 1);
	for (; *value; value++)
		if (!(*value == '/' && len && path[len - 1] == '/'))
			path[len++] = *value;
	if (len > 1 && path[len - 1] == '/')
		len--;
	path[len] = '\0';
	return parse_string(k, field, path, e);
}

struct unit {
	const char *word;
	int64_t factor;
};

/* A whole number and a unit. Returns -EINVAL for anything else, -ERANGE if it does not fit. */
static int read_number(const char *value, const struct unit *units, int64_t *out)
{
	char *end;
	long long n;

	if (!isdigit((unsigned char)*value))
		return -EINVAL;
	errno = 0;
	n = strtoll(value, &end, 10);
	if (errno)
		return -ERANGE;
	for (; units->word; units++)
		if (!strcmp(end, units->word))
			return __builtin_mul_overflow(n, units->factor, out) ? -ERANGE : 0;
	return -EINVAL;
}

static int parse_count(const struct key *k, void *field, const char *value, struct err *e)
{
	static const struct unit units[] = {{"", 1}, {NULL, 0}};
	int64_t n;

	if (read_number(value, units, &n) < 0 || n < k->min || n > k->max)
		return err_set(e, -EINVAL, "'%s' is not a whole number from %lld to %lld", value, (long long)k->min,
			       (long long)k->max);
	*(uint32_t *)field = (uint32_t)n;
	return 0;
}

static int parse_duration(const struct key *k, void *field, const char *value, struct err *e)
{
	static const struct unit units[] = {
		{"", NS_PER_S},         {"s", NS_PER_S},         {"ms", NS_PER_MS}, {"min", 60 * NS_PER_S},
		{"h", 3600 * NS_PER_S}, {"d", 86400 * NS_PER_S}, {NULL, 0}};
	int64_t n;
	int ret = read_number(value, units, &n);

	if (ret == -EINVAL)
		return err_set(e, ret, "'%s' is not a duration: a whole number with ms, s, min, h or d behind it",
			       value);
	if (ret < 0 || n > k->max)
		return err_set(e, -EINVAL, "'%s' is longer than %lld d", value,
			       (long long)(k->max / (86400 * NS_PER_S)));
	if (n < k->min)
		return err_set(e, -EINVAL, "'%s' is shorter than %lld ms", value, (long long)(k->min / NS_PER_MS));
	*(int64_t *)field = n;
	return 0;
}

static int parse_size(const struct key *k, void *field, const char *value, struct err *e)
{
	static const struct unit units[] = {{"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {NULL, 0}};
	int64_t n;
	int ret = read_number(value, units, &n);

	if (ret == -EINVAL)
		return err_set(e, ret, "'%s' is not a size: a whole number of bytes, or with K, M or G behind it",
			       value);
	if (ret < 0 || n > k->max)
		return err_set(e, -EINVAL, "'%s' is more than %lldG", value, (long long)(k->max >> 30));
	*(uint64_t *)field = (uint64_t)n;
	return 0;
}

/* Returns the index of the word or -1. */
static int find_word(const char *const *words, const char *value)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(words[i], value))
			return i;
	return -1;
}

_Static_assert(sizeof(enum serve_mode) == sizeof(int), "enums of the configuration are read as int");
_Static_assert(sizeof(enum watch_mode) == sizeof(int), "enums of the configuration are read as int");
_Static_assert(sizeof(enum log_level) == sizeof(int), "enums of the configuration are read as int");

static int parse_choice(const struct key *k, void *field, const char *value, struct err *e)
{
	int i = find_word(k->words, value);
	char list[128] = "";
	size_t len = 0;

	if (i >= 0) {
		memcpy(field, &i, sizeof(i));
		return 0;
	}
	for (i = 0; k->words[i]; i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s",
					!i                ? ""
					: k->words[i + 1] ? ", "
							  : " or ",
					k->words[i]);
	return err_set(e, -EINVAL, "'%s' is not %s", value, list);
}

static const char *const serve_words[] = {"index", "lower", "compare", NULL};
static const char *const watch_words[] = {"none", "inotify", NULL};
static const char *const log_words[] = {"error", "warning", "info", "debug", NULL};

#define AT(field) .offset = offsetof(struct conf, field)

static const struct key keys[] = {
	{"root", parse_path, AT(root), .preset = ""},
	{"mount", parse_path, AT(mount), .preset = ""},
	{"serve", parse_choice, AT(serve), .preset = "index", .words = serve_words},
	{"index", parse_path, AT(index), .preset = "/var/lib/maildex/index.sqlite"},
	{"socket", parse_path, AT(socket), .preset = "/run/maildex/maildexd.sock", .max = SOCKET_MAX, .required = true},
	{"bus", parse_string, AT(bus), .preset = ""},
	{"bus_auth", parse_path, AT(bus_auth), .preset = ""},
	{"bus_ca", parse_path, AT(bus_ca), .preset = ""},
	{"host", parse_word, AT(host), .preset = NULL, .max = HOST_MAX, .required = true},
	{"watch", parse_choice, AT(watch), .preset = "none", .words = watch_words},
	{"user", parse_word, AT(user), .preset = "vmail", .required = true},
	{"revalidate", parse_duration, AT(revalidate_ns), .preset = "1s", .min = 0, .max = YEAR_NS},
	{"scrub_interval", parse_duration, AT(scrub_interval_ns), .preset = "24h", .min = NS_PER_MS, .max = YEAR_NS},
	{"confirm", parse_duration, AT(confirm_ns), .preset = "30min", .min = NS_PER_MS, .max = YEAR_NS},
	{"window_min", parse_count, AT(window_min), .preset = "2000", .min = 0, .max = UINT32_MAX},
	{"scans", parse_count, AT(scans), .preset = "8", .min = 1, .max = 1024},
	{"bus_shards", parse_count, AT(bus_shards), .preset = "16", .min = 1, .max = 4096},
	{"cache_bytes", parse_size, AT(cache_bytes), .preset = "1G", .max = 1LL << 50},
	{"passthrough", parse_size, AT(passthrough), .preset = "1M", .max = 1LL << 50},
	{"threads", parse_count, AT(threads), .preset = "64", .min = 1, .max = 4096},
	{"log", parse_choice, AT(log), .preset = "info", .words = log_words},
	{"metrics", parse_string, AT(metrics), .preset = ""},
};

#define KEYS (sizeof(keys) / sizeof(keys[0]))

static void *field_of(struct conf *c, const struct key *k)
{
	return (char *)c + k->offset;
}

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < KEYS; i++)
		if (!strcmp(keys[i].name, name))
			return &keys[i];
	return NULL;
}

void conf_init(struct conf *c)
{
	char host[HOST_MAX + 1] = "localhost";

	memset(c, 0, sizeof(*c));
	if (gethostname(host, sizeof(host)) < 0 || !*host)
		strcpy(host, "localhost");
	host[sizeof(host) - 1] = '\0';
	for (char *h = host; *h; h++)
		if (!isgraph((unsigned char)*h))
			*h = '-';
	/* A preset fails for want of memory only, at the very start: there is nothing to go on with. */
	for (size_t i = 0; i < KEYS; i++)
		if (keys[i].parse(&keys[i], field_of(c, &keys[i]), keys[i].preset ? keys[i].preset : host, NULL) < 0)
			abort();
}

void conf_release(struct conf *c)
{
	char **strings[] = {&c->root,     &c->mount,  &c->index, &c->socket, &c->bus,
			    &c->bus_auth, &c->bus_ca, &c->host,  &c->user,   &c->metrics};

	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
		free(*strings[i]);
		*strings[i] = NULL;
	}
}

/* A file being read. inih does not tell its handler where it is, so the reader counts. */
struct source {
	struct conf *conf;
	const char *file;
	FILE *stream;
	char *text; /* getline's */
	size_t size;
	int line;
	int section_line; /* of the last line that opened a section */
	int ret;          /* the first error; ends the reading */
	struct err *err;
};

/*
 * inih's quirks are kept out here: it would cut a long line in two, take an indented line for more of the value above,
 * and stop at a NUL byte.
 */
static char *next_line(char *out, int size, void *arg)
{
	struct source *s = arg;
	ssize_t len;
	char *text;

	if (s->ret < 0)
		return NULL;
	errno = 0;
	len = getline(&s->text, &s->size, s->stream);
	if (len < 0) {
		if (!feof(s->stream))
			s->ret = err_sys(s->err, "cannot read %s", s->file);
		return NULL;
	}
	s->line++;
	if (strlen(s->text) != (size_t)len) {
		s->ret = err_set(s->err, -EINVAL, "%s:%d: a NUL byte is in the line", s->file, s->line);
		return NULL;
	}
	text = s->text;
	if (s->line == 1 && !strncmp(text, "\xef\xbb\xbf", 3)) /* some editors' mark of UTF-8 */
		text += 3;
	text += strspn(text, " \t\r\v\f");
	if (*text == '#' || *text == ';')
		strcpy(text, "\n");
	if (*text == '[')
		s->section_line = s->line;
	if (strlen(text) >= (size_t)size) {
		s->ret =
			err_set(s->err, -EINVAL, "%s:%d: the line is longer than %d bytes", s->file, s->line, size - 2);
		return NULL;
	}
	return strcpy(out, text);
}

/* inih: 1 goes on, 0 is an error. */
static int take_pair(void *arg, const char *section, const char *name, const char *value)
{
	struct source *s = arg;
	const struct key *k = find_key(name);
	struct err why;

	if (s->ret < 0)
		return 0;
	if (!*section)
		s->ret = err_set(s->err, -EINVAL, "%s:%d: key '%s' stands before section [" SECTION "]", s->file,
				 s->line, name);
	else if (strcmp(section, SECTION) != 0)
		s->ret = err_set(s->err, -EINVAL, "%s:%d: unknown section [%s]: only [" SECTION "] is known", s->file,
				 s->section_line, section);
	else if (!k)
		s->ret = err_set(s->err, -EINVAL, "%s:%d: unknown key '%s'", s->file, s->line, name);
	else if ((s->ret = k->parse(k, field_of(s->conf, k), value, &why)) < 0)
		err_set(s->err, s->ret, "%s:%d: %s: %s", s->file, s->line, name, why.text);
	return s->ret == 0;
}

int conf_load(struct conf *c, const char *file, struct err *e)
{
	struct source s = {.conf = c, .file = file, .err = e};
	struct stat st;
	int bad_line;

	s.stream = fopen(file, "re");
	if (!s.stream)
		return err_sys(e, "cannot open the configuration %s", file);
	if (fstat(fileno(s.stream), &st) == 0 && S_ISDIR(st.st_mode)) {
		s.ret = err_set(e, -EISDIR, "the configuration %s is a directory", file);
		goto out;
	}
	bad_line = ini_parse_stream(next_line, &s, take_pair, &s);
	/* A line that inih itself refused comes before whatever stopped the reading. */
	if (bad_line > 0 && (s.ret == 0 || bad_line < s.line))
		s.ret = err_set(e, -EINVAL, "%s:%d: neither 'key = value' nor '[section]'", file, bad_line);
	else if (bad_line < 0)
		s.ret = err_set(e, -ENOMEM, "out of memory");
out:
	free(s.text);
	fclose(s.stream);
	return s.ret;
}

int conf_set(struct conf *c, const char *assignment, struct err *e)
{
	const char *equals = strchr(assignment, '=');
	const struct key *k;
	char name[32];
	struct err why;
	int ret;

	if (!equals || equals == assignment)
		return err_set(e, -EINVAL, "-o %s: not of the form key=value", assignment);
	snprintf(name, sizeof(name), "%.*s", (int)(equals - assignment), assignment);
	k = (size_t)(equals - assignment) < sizeof(name) ? find_key(name) : NULL;
	if (!k)
		return err_set(e, -EINVAL, "-o %s: unknown key '%.*s'", assignment, (int)(equals - assignment),
			       assignment);
	ret = k->parse(k, field_of(c, k), equals + 1, &why);
	if (ret < 0)
		err_set(e, ret, "-o %s: %s: %s", assignment, name, why.text);
	return ret;
}

int conf_check(struct conf *c, struct err *e)
{
	if (!*c->root)
		return err_set(e, -EINVAL,
			       "root is not set: name the lower tree in the configuration or with -o root=PATH");
	if (*c->root != '/')
		return err_set(e, -EINVAL, "root: '%s' is not an absolute path", c->root);
	if (*c->mount && *c->mount != '/')
		return err_set(e, -EINVAL, "mount: '%s' is not an absolute path", c->mount);
	if (*c->bus)
		return err_set(e, -EINVAL, "bus: this version has no bus yet: remove the key or leave it empty");
	if (*c->metrics)
		return err_set(e, -EINVAL,
			       "metrics: this version has no metrics yet: remove the key or leave it empty");
	return 0;
}

const char *serve_mode_word(enum serve_mode m)
{
	return serve_words[m];
}

int serve_mode_parse(const char *word, enum serve_mode *m)
{
	int i = find_word(serve_words, word);

	if (i < 0)
		return -EINVAL;
	*m = (enum serve_mode)i;
	return 0;
}
