/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/facts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/maildexctl/text.h"

void facts_init(struct facts *f)
{
	*f = (struct facts){0};
}

void facts_release(struct facts *f)
{
	for (size_t i = 0; i < f->count; i++) {
		free(f->items[i].key);
		free(f->items[i].value);
	}
	free(f->items);
	*f = (struct facts){0};
}

static bool of_program(const char *key, const char *program)
{
	size_t n = strlen(program);

	return strncmp(key, program, n) == 0 && key[n] == '.';
}

static int add_line(struct facts *f, const char *program, const char *line, size_t len)
{
	const char *blank = memchr(line, ' ', len);
	size_t key_len = blank ? (size_t)(blank - line) : len;
	struct fact *items = realloc(f->items, (f->count + 1) * sizeof(*items)), *new;
	bool named = of_program(line, program);

	if (!items)
		return -ENOMEM;
	f->items = items;
	new = &items[f->count];
	if (asprintf(&new->key, "%s%s%.*s", named ? "" : program, named ? "" : ".", (int)key_len, line) < 0)
		return -ENOMEM;
	new->value = blank ? strndup(blank + 1, len - key_len - 1) : strdup("");
	if (!new->value) {
		free(new->key);
		return -ENOMEM;
	}
	f->count++;
	return 0;
}

int facts_add(struct facts *f, const char *program, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "\n");

		if (len > 0 && add_line(f, program, text, len) < 0)
			return -ENOMEM;
		text += len + (text[len] == '\n');
	}
	return 0;
}

const char *facts_get(const struct facts *f, const char *key)
{
	for (size_t i = 0; i < f->count; i++)
		if (strcmp(f->items[i].key, key) == 0)
			return f->items[i].value;
	return NULL;
}

/* "%s" is the value found. */
static const struct {
	const char *key;
	const char *good;
	const char *text;
} expected[] = {
	{"maildexd.state", "ok", "maildexd: %s"},
	{"maildexfs.state", "ok", "maildexfs: %s"},
	{"maildexfs.maildexd", "connected", "maildexfs has no connection to maildexd (%s)"},
	{"maildexd.scrub.repaired_other", "0",
	 "scrub had to repair %s folders that the index held for right: set 'maildexctl serve compare' and report it"},
};

bool facts_healthy(const struct facts *f, struct buf *reason)
{
	size_t before = reason->len;

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		const char *value = facts_get(f, expected[i].key), *text = expected[i].text;
		const char *gap = strstr(text, "%s");

		if (!value || strcmp(value, expected[i].good) == 0)
			continue;
		buf_printf(reason, "%s%.*s", reason->len ? "; " : "", (int)(gap - text), text);
		text_put_shown(reason, value, strlen(value));
		buf_put(reason, gap + 2, strlen(gap + 2));
	}
	return reason->len == before;
}

void facts_print(const struct facts *f, const char *program, struct buf *out)
{
	size_t skip = strlen(program) + 1, width = 0;

	for (size_t i = 0; i < f->count; i++)
		if (of_program(f->items[i].key, program) && strlen(f->items[i].key) - skip > width)
			width = strlen(f->items[i].key) - skip;
	for (size_t i = 0; i < f->count; i++) {
		if (!of_program(f->items[i].key, program))
			continue;
		buf_printf(out, "  %-*s  ", (int)width, f->items[i].key + skip);
		text_put_shown(out, f->items[i].value, strlen(f->items[i].value));
		buf_put(out, "\n", 1);
	}
}

void facts_json(const struct facts *f, struct buf *out)
{
	for (size_t i = 0; i < f->count; i++) {
		buf_put(out, ", ", 2);
		text_put_json(out, f->items[i].key, strlen(f->items[i].key), true);
		buf_put(out, ": ", 2);
		if (text_is_number(f->items[i].value))
			buf_put(out, f->items[i].value, strlen(f->items[i].value));
		else
			text_put_json(out, f->items[i].value, strlen(f->items[i].value), true);
	}
}
