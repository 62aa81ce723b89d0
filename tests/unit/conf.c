/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/conf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/base/clock.h"

#define N(a) (sizeof(a) / sizeof(*(a)))
#define TEN "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

static char folder[] = "/tmp/maildex-conf-XXXXXX";
static char file[64];

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/m.conf", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(folder);
}

static void write_file(const char *text, size_t len)
{
	FILE *f = fopen(file, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void defaults(void **state)
{
	char host[256] = "";
	struct conf c;

	(void)state;
	gethostname(host, sizeof(host) - 1);
	conf_init(&c);
	assert_string_equal(c.root, "");
	assert_string_equal(c.mount, "");
	assert_int_equal(c.serve, SERVE_INDEX);
	assert_string_equal(c.index, "/var/lib/maildex/index.sqlite");
	assert_string_equal(c.socket, "/run/maildex/maildexd.sock");
	assert_string_equal(c.bus, "");
	assert_string_equal(c.bus_auth, "");
	assert_string_equal(c.bus_ca, "");
	assert_string_equal(c.host, host);
	assert_int_equal(c.watch, WATCH_NONE);
	assert_string_equal(c.user, "vmail");
	assert_true(c.revalidate_ns == NS_PER_S);
	assert_true(c.scrub_interval_ns == 86400 * NS_PER_S);
	assert_true(c.confirm_ns == 1800 * NS_PER_S);
	assert_int_equal(c.window_min, 2000);
	assert_int_equal(c.scans, 8);
	assert_int_equal(c.bus_shards, 16);
	assert_true(c.cache_bytes == 1ULL << 30);
	assert_true(c.passthrough == 1 << 20);
	assert_int_equal(c.threads, 64);
	assert_int_equal(c.log, LOG_LEVEL_INFO);
	assert_string_equal(c.metrics, "");
	conf_release(&c);
	conf_release(&c); /* once more does no harm */
}

static void paths(void **state)
{
	static const char *const cases[][2] = {
		{"root=/srv/mail", "/srv/mail"},
		{"root=/srv/mail/", "/srv/mail"},
		{"root=/srv//mail///", "/srv/mail"},
		{"root=/", "/"},
		{"root=///", "/"},
		{"root=", ""},
		{"root=/a b=c;d", "/a b=c;d"},
		{"root=/\xff\xfe/x", "/\xff\xfe/x"},
	};
	struct conf c;

	(void)state;
	conf_init(&c);
	for (size_t i = 0; i < N(cases); i++) {
		assert_int_equal(conf_set(&c, cases[i][0], NULL), 0);
		assert_string_equal(c.root, cases[i][1]);
	}
	assert_int_equal(conf_set(&c, "index=", NULL), 0);
	assert_string_equal(c.index, "");
	conf_release(&c);
}

static void durations(void **state)
{
	static const struct {
		const char *set;
		int64_t want_ns;
	} cases[] = {
		{"revalidate=0", 0},
		{"revalidate=7", 7 * NS_PER_S},
		{"revalidate=7s", 7 * NS_PER_S},
		{"revalidate=250ms", 250 * NS_PER_MS},
		{"revalidate=30min", 1800 * NS_PER_S},
		{"revalidate=24h", 86400 * NS_PER_S},
		{"revalidate=365d", 365 * 86400 * NS_PER_S},
	};
	struct conf c;

	(void)state;
	conf_init(&c);
	for (size_t i = 0; i < N(cases); i++) {
		assert_int_equal(conf_set(&c, cases[i].set, NULL), 0);
		assert_true(c.revalidate_ns == cases[i].want_ns);
	}
	conf_release(&c);
}

static void sizes(void **state)
{
	static const struct {
		const char *set;
		uint64_t want;
	} cases[] = {
		{"cache_bytes=0", 0},        {"cache_bytes=4096", 4096},     {"cache_bytes=64K", 64 << 10},
		{"cache_bytes=3M", 3 << 20}, {"cache_bytes=8G", 8ULL << 30}, {"cache_bytes=1048576G", 1ULL << 50},
	};
	struct conf c;

	(void)state;
	conf_init(&c);
	for (size_t i = 0; i < N(cases); i++) {
		assert_int_equal(conf_set(&c, cases[i].set, NULL), 0);
		assert_true(c.cache_bytes == cases[i].want);
	}
	conf_release(&c);
}

/* What -o refuses, and the whole sentence; the value stays what it was. */
static void refused(void **state)
{
	static const char *const cases[][2] = {
		{"root", "-o root: not of the form key=value"},
		{"=x", "-o =x: not of the form key=value"},
		{"", "-o : not of the form key=value"},
		{"rot=/x", "-o rot=/x: unknown key 'rot'"},
		{"root =/x", "-o root =/x: unknown key 'root '"},
		{HUNDRED "=1", "-o " HUNDRED "=1: unknown key '" HUNDRED "'"},
		{"root=mail", "-o root=mail: root: 'mail' is not an absolute path"},
		{"mount=./x", "-o mount=./x: mount: './x' is not an absolute path"},
		{"socket=", "-o socket=: socket: may not be empty"},
		{"socket=/" HUNDRED TEN, "-o socket=/" HUNDRED TEN ": socket: is longer than 104 bytes"},
		{"host=", "-o host=: host: may not be empty"},
		{"host=a b", "-o host=a b: host: 'a b' is not one word of ASCII letters, digits and signs"},
		{"user=", "-o user=: user: may not be empty"},
		{"serve=fast", "-o serve=fast: serve: 'fast' is not index, lower or compare"},
		{"serve=", "-o serve=: serve: '' is not index, lower or compare"},
		{"watch=yes", "-o watch=yes: watch: 'yes' is not none or inotify"},
		{"log=warn", "-o log=warn: log: 'warn' is not error, warning, info or debug"},
		{"scans=0", "-o scans=0: scans: '0' is not a whole number from 1 to 1024"},
		{"scans=", "-o scans=: scans: '' is not a whole number from 1 to 1024"},
		{"scans=-1", "-o scans=-1: scans: '-1' is not a whole number from 1 to 1024"},
		{"scans= 1", "-o scans= 1: scans: ' 1' is not a whole number from 1 to 1024"},
		{"scans=8x", "-o scans=8x: scans: '8x' is not a whole number from 1 to 1024"},
		{"scans=8.5", "-o scans=8.5: scans: '8.5' is not a whole number from 1 to 1024"},
		{"threads=0", "-o threads=0: threads: '0' is not a whole number from 1 to 4096"},
		{"window_min=4294967296",
		 "-o window_min=4294967296: window_min: '4294967296' is not a whole number from 0 to 4294967295"},
		{"bus_shards=99999999999999999999", "-o bus_shards=99999999999999999999: bus_shards: "
						    "'99999999999999999999' is not a whole number from 1 to 4096"},
		{"confirm=soon",
		 "-o confirm=soon: confirm: 'soon' is not a duration: a whole number with ms, s, min, h "
		 "or d behind it"},
		{"confirm=5m", "-o confirm=5m: confirm: '5m' is not a duration: a whole number with ms, s, min, h or d "
			       "behind it"},
		{"confirm=0", "-o confirm=0: confirm: '0' is shorter than 1 ms"},
		{"confirm=366d", "-o confirm=366d: confirm: '366d' is longer than 365 d"},
		{"confirm=9223372036854775807h",
		 "-o confirm=9223372036854775807h: confirm: '9223372036854775807h' is longer than 365 d"},
		{"cache_bytes=1GB", "-o cache_bytes=1GB: cache_bytes: '1GB' is not a size: a whole number of bytes, or "
				    "with K, M or G behind it"},
		{"cache_bytes=1048577G", "-o cache_bytes=1048577G: cache_bytes: '1048577G' is more than 1048576G"},
	};
	struct conf c;
	struct err e;

	(void)state;
	conf_init(&c);
	for (size_t i = 0; i < N(cases); i++) {
		assert_int_equal(conf_set(&c, cases[i][0], &e), -EINVAL);
		assert_string_equal(e.text, cases[i][1]);
	}
	assert_string_equal(c.root, "");
	assert_int_equal(c.scans, 8);
	assert_true(c.confirm_ns == 1800 * NS_PER_S);
	assert_int_equal(c.serve, SERVE_INDEX);
	conf_release(&c);
}

static void whole_file(void **state)
{
	static const char text[] = "\xef\xbb\xbf# mail on nfs-1 " HUNDRED HUNDRED "\n"
				   "\n"
				   "  ; a remark\n"
				   "[maildex]\r\n"
				   "root = /srv/mail/\r\n"
				   "   mount=/srv/mail ; the same\n"
				   "serve: compare\n"
				   "\t# indented = remark\n"
				   "log = debug\n"
				   "index =\n"
				   "confirm = 5min\n"
				   "scans = 2\n"
				   "scans = 3\n"
				   "host = a\n"
				   "user = root";
	struct conf c;
	struct err e = {""};

	(void)state;
	write_file(text, sizeof(text) - 1);
	conf_init(&c);
	assert_int_equal(conf_load(&c, file, &e), 0);
	assert_string_equal(e.text, "");
	assert_string_equal(c.root, "/srv/mail");
	assert_string_equal(c.mount, "/srv/mail");
	assert_int_equal(c.serve, SERVE_COMPARE);
	assert_int_equal(c.log, LOG_LEVEL_DEBUG);
	assert_string_equal(c.index, "");
	assert_true(c.confirm_ns == 300 * NS_PER_S);
	assert_int_equal(c.scans, 3);
	assert_string_equal(c.host, "a");
	assert_string_equal(c.user, "root");
	assert_int_equal(conf_check(&c, &e), 0);
	conf_release(&c);
}

static void refused_files(void **state)
{
#define T(s) s, sizeof(s) - 1
	static const struct {
		const char *text;
		size_t len;
		const char *want; /* behind the file's name */
	} cases[] = {
		{T("[maildex]\nroot = mail\n"), ":2: root: 'mail' is not an absolute path"},
		{T("[maildex]\n\n# x\nrot = /x\n"), ":4: unknown key 'rot'"},
		{T("[maildex]\n" TEN TEN TEN TEN TEN TEN " = /x\n"), ":2: unknown key '" TEN TEN TEN TEN TEN TEN "'"},
		{T("root = /x\n[maildex]\n"), ":1: key 'root' stands before section [maildex]"},
		{T("[maildex]\nroot = /x\n[dovecot]\n\nroot = /y\n"),
		 ":3: unknown section [dovecot]: only [maildex] is known"},
		{T("[maildex2]\nroot = /x\n"), ":1: unknown section [maildex2]: only [maildex] is known"},
		{T("[maildex]\nroot /x\n"), ":2: neither 'key = value' nor '[section]'"},
		{T("[maildex\nroot = /x\n"), ":1: neither 'key = value' nor '[section]'"},
		{T("[maildex]\nroot\nscans = 0\n"), ":2: neither 'key = value' nor '[section]'"},
		{T("[maildex]\nscans = 0\nroot\n"), ":2: scans: '0' is not a whole number from 1 to 1024"},
		{T("[maildex]\nscans = 0\nscans = 1\n"), ":2: scans: '0' is not a whole number from 1 to 1024"},
		/* Not more of the value above it. */
		{T("[maildex]\nbus =\n   scans = 0\n"), ":3: scans: '0' is not a whole number from 1 to 1024"},
		{T("[maildex]\nroot = /x\n  /y\n"), ":3: neither 'key = value' nor '[section]'"},
		{T("[maildex]\nroot = /" HUNDRED HUNDRED "\n"), ":2: the line is longer than 198 bytes"},
		{T("[maildex]\nroot\nindex = /" HUNDRED HUNDRED "\n"), ":2: neither 'key = value' nor '[section]'"},
		{T("[maildex]\nroot = /x\0/y\n"), ":2: a NUL byte is in the line"},
	};
	char want[512];
	struct conf c;
	struct err e;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		write_file(cases[i].text, cases[i].len);
		conf_init(&c);
		assert_int_equal(conf_load(&c, file, &e), -EINVAL);
		snprintf(want, sizeof(want), "%s%s", file, cases[i].want);
		assert_string_equal(e.text, want);
		assert_int_equal(conf_load(&c, file, NULL), -EINVAL);
		conf_release(&c);
	}
}

/* The longest line that is taken is taken whole. */
static void longest_line(void **state)
{
	char text[512], root[192];
	struct conf c;
	struct err e = {""};
	int len;

	(void)state;
	memset(root, 'r', sizeof(root));
	root[0] = '/';
	root[191] = '\0';
	len = snprintf(text, sizeof(text), "[maildex]\nroot = %s\nscans = 5\n", root);
	assert_int_equal(strlen("root = ") + strlen(root), 198);
	write_file(text, (size_t)len);
	conf_init(&c);
	assert_int_equal(conf_load(&c, file, &e), 0);
	assert_string_equal(c.root, root);
	assert_int_equal(c.scans, 5);
	conf_release(&c);
}

static void unreadable(void **state)
{
	struct conf c;
	struct err e;

	(void)state;
	conf_init(&c);
	assert_int_equal(conf_load(&c, "/nowhere/m.conf", &e), -ENOENT);
	assert_string_equal(e.text, "cannot open the configuration /nowhere/m.conf: No such file or directory");
	assert_int_equal(conf_load(&c, "/", &e), -EISDIR);
	assert_string_equal(e.text, "the configuration / is a directory");
	conf_release(&c);
}

static void check(void **state)
{
	static const struct {
		const char *sets[2];
		const char *want; /* NULL: fine */
	} cases[] = {
		{{"root=/x"}, NULL},
		{{"root=/x", "mount=/x"}, NULL},
		{{"mount=/x"}, "root is not set: name the lower tree in the configuration or with -o root=PATH"},
		{{"root=/x", "bus=redis://h:1/0"},
		 "bus: this version has no bus yet: remove the key or leave it empty"},
		{{"root=/x", "watch=inotify"}, NULL},
		{{"root=/x", "metrics=:9100"},
		 "metrics: this version has no metrics yet: remove the key or leave it empty"},
	};
	struct conf c;
	struct err e;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		conf_init(&c);
		for (size_t j = 0; j < 2 && cases[i].sets[j]; j++)
			assert_int_equal(conf_set(&c, cases[i].sets[j], &e), 0);
		assert_int_equal(conf_check(&c, &e), cases[i].want ? -EINVAL : 0);
		if (cases[i].want)
			assert_string_equal(e.text, cases[i].want);
		conf_release(&c);
	}
}

/* maildexfs puts its MOUNTPOINT argument there itself. */
static void check_relative(void **state)
{
	struct conf c;
	struct err e;

	(void)state;
	conf_init(&c);
	assert_int_equal(conf_set(&c, "root=/x", &e), 0);
	free(c.mount);
	c.mount = strdup("mnt");
	assert_int_equal(conf_check(&c, &e), -EINVAL);
	assert_string_equal(e.text, "mount: 'mnt' is not an absolute path");
	free(c.root);
	c.root = strdup("mail");
	assert_int_equal(conf_check(&c, &e), -EINVAL);
	assert_string_equal(e.text, "root: 'mail' is not an absolute path");
	conf_release(&c);
}

static void modes(void **state)
{
	static const enum serve_mode all[] = {SERVE_INDEX, SERVE_LOWER, SERVE_COMPARE};
	static const char *const words[] = {"index", "lower", "compare"};
	enum serve_mode m;

	(void)state;
	for (size_t i = 0; i < N(all); i++) {
		assert_string_equal(serve_mode_word(all[i]), words[i]);
		assert_int_equal(serve_mode_parse(words[i], &m), 0);
		assert_int_equal(m, all[i]);
	}
	assert_int_equal(serve_mode_parse("Index", &m), -EINVAL);
	assert_int_equal(serve_mode_parse("", &m), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),      cmocka_unit_test(paths),          cmocka_unit_test(durations),
		cmocka_unit_test(sizes),         cmocka_unit_test(refused),        cmocka_unit_test(whole_file),
		cmocka_unit_test(refused_files), cmocka_unit_test(longest_line),   cmocka_unit_test(unreadable),
		cmocka_unit_test(check),         cmocka_unit_test(check_relative), cmocka_unit_test(modes),
	};

	return cmocka_run_group_tests_name("conf", tests, make_folder, remove_folder);
}
