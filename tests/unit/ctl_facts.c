/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void parsed_and_printed(void **state)
{
	struct facts f;
	struct buf b;

	(void)state;
	facts_init(&f);
	assert_int_equal(facts_add(&f, "maildexd", "maildexd.state ok\nindex.path /var/lib/a b\nlower.listings 12\n"),
			 0);
	assert_int_equal(facts_add(&f, "maildexfs", "maildexfs.live.bytes 0\n\nodd\n"), 0);
	assert_int_equal(f.count, 5);
	assert_string_equal(facts_get(&f, "maildexd.index.path"), "/var/lib/a b");
	assert_string_equal(facts_get(&f, "maildexfs.odd"), "");
	assert_null(facts_get(&f, "lower.listings"));

	buf_init(&b);
	facts_print(&f, "maildexd", &b);
	assert_string_equal(b.data, "  state           ok\n"
				    "  index.path      /var/lib/a b\n"
				    "  lower.listings  12\n");
	buf_reset(&b);
	facts_json(&f, &b);
	assert_string_equal(b.data, ", \"maildexd.state\": \"ok\", \"maildexd.index.path\": \"/var/lib/a b\""
				    ", \"maildexd.lower.listings\": 12, \"maildexfs.live.bytes\": 0"
				    ", \"maildexfs.odd\": \"\"");
	buf_release(&b);
	facts_release(&f);
}

static void health(void **state)
{
	static const struct {
		const char *maildexd, *maildexfs, *reason;
	} cases[] = {
		{"", "", ""},
		{"maildexd.state ok\nscrub.repaired_other 0\nrebuild.state idle\n",
		 "maildexfs.state ok\nmaildexfs.maildexd connected\n", ""},
		{"maildexd.state index: no space left\n", "", "maildexd: index: no space left"},
		{"", "maildexfs.state tree: gone\nmaildexfs.maildexd away\n",
		 "maildexfs: tree: gone; maildexfs has no connection to maildexd (away)"},
		{"scrub.repaired_other 3\n", "",
		 "scrub had to repair 3 folders that the index held for right: set 'maildexctl serve compare' and "
		 "report it"},
		{"scrub.repaired_trust 3\n", "", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct facts f;
		struct buf b;

		facts_init(&f);
		buf_init(&b);
		assert_int_equal(facts_add(&f, "maildexd", cases[i].maildexd), 0);
		assert_int_equal(facts_add(&f, "maildexfs", cases[i].maildexfs), 0);
		assert_int_equal(facts_healthy(&f, &b), cases[i].reason[0] == '\0');
		assert_string_equal(b.data ? b.data : "", cases[i].reason);
		buf_release(&b);
		facts_release(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parsed_and_printed),
		cmocka_unit_test(health),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
