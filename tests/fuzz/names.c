/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of messages and paths of folders: what the functions of lib/mail/name.h and folder.h say of the same bytes must
 * fit together, and a name that is possible comes back unchanged from wherever it is put. Input: two lengths, then three
 * names; the whole is one path, too.
 */
#include <errno.h>
#include <limits.h>

#include "lib/mail/event.h"
#include "lib/mail/folder.h"
#include "lib/mail/name.h"
#include "tests/fuzz/fuzz.h"
#include "tools/maildexctl/text.h"

struct name {
	char *bytes;
	size_t len;
};

static bool same(const struct name *a, const struct name *b)
{
	return name_same_base(a->bytes, a->len, b->bytes, b->len);
}

static void check_base(const struct name *a)
{
	size_t base = name_base_len(a->bytes, a->len);

	CHECK(base <= a->len && (base > 0 || a->len == 0));
	CHECK(base == a->len || a->bytes[base] == ':');
	CHECK(name_base_len(a->bytes, base) == base);
	CHECK(name_same_base(a->bytes, a->len, a->bytes, base));
	CHECK(name_base_hash(a->bytes, a->len) == name_base_hash(a->bytes, base));
}

/* However its flags change, it is the same message. */
static void check_flags(const struct name *a)
{
	struct name flagged = {.len = a->len + 4};

	if (a->len == 0)
		return;
	flagged.bytes = malloc(flagged.len);
	CHECK(flagged.bytes);
	memcpy(flagged.bytes, a->bytes, a->len);
	memcpy(flagged.bytes + a->len, ":2,S", 4);
	CHECK(same(a, &flagged));
	free(flagged.bytes);
}

static void check_kind(const struct name *a)
{
	bool ok = name_ok(a->bytes, a->len), nfs = name_is_nfs(a->bytes, a->len);

	CHECK(!nfs || a->len > NAME_LEN_MAX || ok);
	CHECK(!nfs || !name_is_message(a->bytes, a->len));
	CHECK(!ok || (a->len > 0 && a->len <= NAME_LEN_MAX && !memchr(a->bytes, '/', a->len) &&
		      !memchr(a->bytes, '\0', a->len)));
	/* One part of a folder's path is a possible name, and the other way round. */
	if (a->len > 0 && !memchr(a->bytes, '/', a->len))
		CHECK(ok == (folder_path_check(a->bytes, a->len, NULL) == 0));
}

/* a ~ b ~ c: an equivalence, and the hash follows it. */
static void check_same(const struct name *n)
{
	for (int i = 0; i < 3; i++)
		CHECK(same(&n[i], &n[i]));
	for (int i = 0; i < 3; i++) {
		const struct name *a = &n[i], *b = &n[(i + 1) % 3], *c = &n[(i + 2) % 3];

		CHECK(same(a, b) == same(b, a));
		CHECK(!(same(a, b) && same(b, c)) || same(a, c));
		CHECK(!same(a, b) || name_base_hash(a->bytes, a->len) == name_base_hash(b->bytes, b->len));
	}
}

/* Into a listing and out, and through the check of foreign bytes. */
static void check_listed(const struct name *a)
{
	struct listing_entry in = {.ino = 42, .type = 8, .len = (uint8_t)a->len, .name = a->bytes}, out;
	struct listing l, parsed;
	size_t at = 0;
	int rc;

	listing_init(&l);
	listing_init(&parsed);
	CHECK(listing_add(&l, &in) == 0 && l.count == 1 && l.sum == listing_entry_hash(&in));
	CHECK(listing_next(&l, &at, &out) == 1);
	CHECK(out.ino == 42 && out.type == 8 && out.len == a->len && memcmp(out.name, a->bytes, a->len) == 0);
	CHECK(listing_next(&l, &at, &out) == 0);
	rc = listing_parse(&parsed, l.bytes.data, l.bytes.len, 1, l.sum);
	CHECK(rc == (name_is_nfs(a->bytes, a->len) ? -EBADMSG : 0));
	CHECK(listing_parse(&parsed, l.bytes.data, l.bytes.len, 1, l.sum + 1) == -EBADMSG && parsed.count == 0);
	listing_release(&l);
	listing_release(&parsed);
}

/* As a change: what is sent is what arrives. */
static void check_sent(const struct name *a)
{
	char *text = fuzz_text(a->bytes, a->len);
	struct event ev, back;
	struct change change;
	struct cursor c;
	struct buf b;

	buf_init(&b);
	event_init(&ev, "a/.b", HALF_CUR);
	change_make(&change, CHANGE_RENAME, text, text, 7, 0);
	CHECK(event_add(&ev, &change) == 0);
	event_encode(&ev, &b);
	CHECK(buf_ok(&b));
	cursor_init(&c, b.data, b.len);
	CHECK(event_decode(&back, &c, NULL) == 0 && cursor_done(&c) && back.nchanges == 1);
	CHECK(back.changes[0].len == a->len && memcmp(back.changes[0].name, a->bytes, a->len) == 0);
	CHECK(back.changes[0].old_len == a->len && memcmp(back.changes[0].old, a->bytes, a->len) == 0);
	event_release(&ev);
	event_release(&back);
	buf_release(&b);
	free(text);
}

/* As a path that a delivery agent gives. */
static void check_delivered(const struct name *a)
{
	char path[16 + NAME_LEN_MAX] = "a/.b/new/";
	struct folder_ref ref;
	enum half half;

	if (half_parse(a->bytes, a->len, &half) == 0)
		return;
	memcpy(path + 9, a->bytes, a->len);
	CHECK(folder_ref_parse(path, 9 + a->len, &ref, NULL) == 0);
	CHECK(ref.has_half && ref.half == HALF_NEW && strcmp(ref.folder, "a/.b") == 0);
	CHECK(strlen(ref.name) == a->len && memcmp(ref.name, a->bytes, a->len) == 0);
}

static int hex(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* As maildexctl shows it: no control bytes, and it can be turned back. */
static void check_shown(const struct name *a)
{
	struct buf b, back;

	buf_init(&b);
	buf_init(&back);
	text_put_shown(&b, a->bytes, a->len);
	for (size_t i = 0; i < b.len; i++) {
		CHECK((unsigned char)b.data[i] >= 0x20 && b.data[i] != 0x7f);
		if (b.data[i] == '\\') {
			CHECK(i + 3 < b.len && b.data[i + 1] == 'x');
			buf_put_u8(&back, (uint8_t)(hex(b.data[i + 2]) << 4 | hex(b.data[i + 3])));
			i += 3;
		} else {
			buf_put_u8(&back, (uint8_t)b.data[i]);
		}
	}
	CHECK(back.len == a->len && (a->len == 0 || memcmp(back.data, a->bytes, a->len) == 0));
	buf_release(&b);
	buf_release(&back);
}

static bool climbs(const char *path)
{
	return strcmp(path, "..") == 0 || strncmp(path, "../", 3) == 0 || strstr(path, "/../") ||
	       (strlen(path) > 2 && strcmp(path + strlen(path) - 3, "/..") == 0);
}

static void check_folder(const char *folder)
{
	size_t len = strlen(folder);

	CHECK(len <= FOLDER_PATH_MAX && folder_path_check(folder, len, NULL) == 0);
	CHECK(!climbs(folder) && !strstr(folder, "//") && !strstr(folder, "/./"));
	CHECK(len == 0 || (folder[0] != '/' && folder[len - 1] != '/'));
}

/* A path taken apart: each part is what it should be, and together they are the path. */
static void check_path(const char *bytes, size_t len)
{
	struct folder_ref ref;
	struct err e = {""};
	char whole[FOLDER_PATH_MAX + NAME_LEN_MAX + 8];

	if (folder_path_check(bytes, len, NULL) == 0) {
		char *folder = fuzz_text(bytes, len);

		CHECK(strlen(folder) == len);
		check_folder(folder);
		free(folder);
	}
	if (folder_ref_parse(bytes, len, &ref, &e) < 0) {
		CHECK(e.text[0]);
		return;
	}
	check_folder(ref.folder);
	CHECK(ref.name[0] == '\0' || (ref.has_half && name_ok(ref.name, strlen(ref.name))));
	snprintf(whole, sizeof(whole), "%s%s%s%s%s", ref.folder, ref.folder[0] && ref.has_half ? "/" : "",
		 ref.has_half ? half_word(ref.half) : "", ref.name[0] ? "/" : "", ref.name);
	while (len > 0 && bytes[len - 1] == '/')
		len--;
	CHECK(strlen(whole) == len && memcmp(whole, bytes, len) == 0);
}

/* Whatever path and prefixes: what comes out doesn't lead out of them. */
static void check_relative(const char *bytes, size_t len, const char *prefix)
{
	const char *const prefixes[] = {"/srv/mail", prefix, "", NULL};
	char out[FOLDER_PATH_MAX + 1 + NAME_LEN_MAX + 1], again[sizeof(out)], *path = fuzz_text(bytes, len), *whole;
	struct err e = {""};

	if (folder_relative(path, prefixes, LEN(prefixes), out, &e) < 0) {
		CHECK(e.text[0]);
	} else {
		CHECK(path[0] == '/' && out[0] != '/' && !climbs(out) && !strstr(out, "//"));
		/* What came out, below a prefix, is the same again. */
		if (strncmp(path, "/srv/mail/", 10) == 0) {
			CHECK(asprintf(&whole, "/srv/mail/%s", out) > 0);
			CHECK(folder_relative(whole, prefixes, 1, again, NULL) == 0 && strcmp(again, out) == 0);
			free(whole);
		}
	}
	free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t lens[3] = {0};
	struct name n[3];
	struct fuzz_in in;
	char *prefix;

	fuzz_in_init(&in, data, size);
	lens[0] = fuzz_u8(&in);
	lens[1] = fuzz_u8(&in);
	lens[2] = SIZE_MAX;
	check_path((const char *)in.at, in.left);
	for (int i = 0; i < 3; i++) {
		const uint8_t *bytes;

		n[i].len = fuzz_take(&in, lens[i], &bytes);
		n[i].bytes = fuzz_copy(bytes, n[i].len);
	}
	check_same(n);
	for (int i = 0; i < 3; i++) {
		check_base(&n[i]);
		check_flags(&n[i]);
		check_kind(&n[i]);
		check_shown(&n[i]);
		check_path(n[i].bytes, n[i].len);
		if (name_ok(n[i].bytes, n[i].len)) {
			check_listed(&n[i]);
			check_sent(&n[i]);
			check_delivered(&n[i]);
		}
	}
	prefix = fuzz_text(n[0].bytes, n[0].len);
	check_relative(n[2].bytes, n[2].len, prefix);
	free(prefix);
	for (int i = 0; i < 3; i++)
		free(n[i].bytes);
	return 0;
}
