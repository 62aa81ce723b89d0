/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/diff.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* "name=inode name=inode" -> a listing */
static void make(struct listing *l, const char *spec)
{
	char copy[256], *save = NULL;

	listing_init(l);
	snprintf(copy, sizeof(copy), "%s", spec);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		char *eq = strchr(word, '=');
		struct listing_entry e = {.ino = strtoull(eq + 1, NULL, 10), .type = DT_REG, .name = word};

		e.len = (uint8_t)(eq - word);
		assert_int_equal(listing_add(l, &e), 0);
	}
}

static void compared(void **state)
{
	static const struct {
		const char *index, *disk, *found;
	} cases[] = {
		{"", "", ""},
		{"a=1 b=2", "b=2 a=1", ""},
		{"", "b=2 a=1", "missing a=1;missing b=2;"},
		{"b=2 a=1", "", "extra a=1;extra b=2;"},
		{"a=1 b=2 c=3", "c=3 b=9 a=1", "inode b=9;"},
		{"m:2,=1", "m:2,S=1", "extra m:2,=1;missing m:2,S=1;"},
		{"a=1 ab=2", "ab=2 abc=3", "extra a=1;missing abc=3;"},
	};
	static const char *const words[] = {[DIFF_MISSING] = "missing", [DIFF_EXTRA] = "extra", [DIFF_INODE] = "inode"};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct listing index, disk;
		struct difference *d;
		char found[256] = "";
		size_t n;

		make(&index, cases[i].index);
		make(&disk, cases[i].disk);
		assert_int_equal(diff_listings(&index, &disk, &d, &n), 0);
		for (size_t k = 0; k < n; k++)
			snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s %.*s=%llu;",
				 words[d[k].kind], d[k].entry.len, d[k].entry.name, (unsigned long long)d[k].entry.ino);
		assert_string_equal(found, cases[i].found);
		free(d);
		listing_release(&index);
		listing_release(&disk);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(compared)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
