/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/mail/folder.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

static const char *const half_words[HALVES] = {[HALF_NEW] = "new", [HALF_CUR] = "cur"};

const char *half_word(enum half h)
{
	return half_words[h];
}

int half_parse(const char *name, size_t len, enum half *h)
{
	for (int i = 0; i < HALVES; i++) {
		if (len == strlen(half_words[i]) && memcmp(name, half_words[i], len) == 0) {
			*h = (enum half)i;
			return 0;
		}
	}
	return -ENOENT;
}

/* The length of the component that starts at `at`. */
static size_t component_len(const char *path, size_t len, size_t at)
{
	const char *slash = memchr(path + at, '/', len - at);

	return slash ? (size_t)(slash - path) - at : len - at;
}

int folder_path_check(const char *path, size_t len, struct err *e)
{
	if (len == 0)
		return 0;
	if (len > FOLDER_PATH_MAX)
		return err_set(e, -EINVAL, "folder path of %zu bytes: at most %d are possible", len, FOLDER_PATH_MAX);
	if (memchr(path, '\0', len))
		return err_set(e, -EINVAL, "folder path with a NUL byte");
	for (size_t at = 0; at <= len;) {
		size_t n = component_len(path, len, at);

		if (!name_ok(path + at, n))
			return err_set(e, -EINVAL, "folder path %.*s: has an empty, \".\", \"..\" or over-long part",
				       (int)len, path);
		at += n + 1;
	}
	return 0;
}

/* Where the last component of path[len] starts; len is not 0. */
static size_t last_component(const char *path, size_t len)
{
	const char *slash = memrchr(path, '/', len);

	return slash ? (size_t)(slash - path) + 1 : 0;
}

/* The length of the path above the component that starts at `at`. */
static size_t above(size_t at)
{
	return at > 0 ? at - 1 : 0;
}

int folder_ref_parse(const char *path, size_t len, struct folder_ref *ref, struct err *e)
{
	size_t folder_len, last, name_len = 0;

	memset(ref, 0, sizeof(*ref));
	if (len > 0 && path[0] == '/')
		return err_set(e, -EINVAL, "path %.*s: is not relative to the root", (int)len, path);
	while (len > 0 && path[len - 1] == '/')
		len--;
	folder_len = len;
	if (len > 0) {
		size_t up, upper;

		last = last_component(path, len);
		up = above(last);
		upper = up > 0 ? last_component(path, up) : 0;
		if (half_parse(path + last, len - last, &ref->half) == 0) {
			ref->has_half = true;
			folder_len = above(last);
		} else if (up > 0 && half_parse(path + upper, up - upper, &ref->half) == 0) {
			ref->has_half = true;
			folder_len = above(upper);
			name_len = len - last;
		}
	}
	if (name_len > 0) {
		if (!name_ok(path + last, name_len))
			return err_set(e, -EINVAL, "path %.*s: the last part can be no file's name", (int)len, path);
		memcpy(ref->name, path + last, name_len);
	}
	if (folder_path_check(path, folder_len, e) < 0)
		return -EINVAL;
	memcpy(ref->folder, path, folder_len);
	return 0;
}

/*
 * Writes an absolute path to out[PATH_MAX] without its leading '/', "." components and doubled '/'. Text only: a
 * symbolic link followed here could be another one by the time the path is used.
 */
static int normalise(const char *path, char *out, struct err *e)
{
	size_t len = strlen(path), used = 0;

	if (path[0] != '/')
		return err_set(e, -EINVAL, "path %s: is not absolute", path);
	if (len >= PATH_MAX)
		return err_set(e, -EINVAL, "path of %zu bytes: too long", len);
	for (size_t at = 1; at < len;) {
		size_t n = component_len(path, len, at);

		if (n == 2 && memcmp(path + at, "..", 2) == 0)
			return err_set(e, -EINVAL, "path %s: \"..\" is refused", path);
		if (n > 0 && !(n == 1 && path[at] == '.')) {
			if (used > 0)
				out[used++] = '/';
			memcpy(out + used, path + at, n);
			used += n;
		}
		at += n + 1;
	}
	out[used] = '\0';
	return 0;
}

int folder_relative(const char *path, const char *const *prefixes, size_t nprefixes, char *out, struct err *e)
{
	char whole[PATH_MAX], prefix[PATH_MAX];
	int rc = normalise(path, whole, e);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < nprefixes; i++) {
		const char *rest;
		size_t n;

		if (!prefixes[i] || prefixes[i][0] == '\0')
			continue;
		rc = normalise(prefixes[i], prefix, e);
		if (rc < 0)
			return rc;
		n = strlen(prefix);
		if (strncmp(whole, prefix, n) != 0 || (n > 0 && whole[n] != '\0' && whole[n] != '/'))
			continue;
		rest = whole + n + (n > 0 && whole[n] == '/');
		if (strlen(rest) > FOLDER_PATH_MAX + 1 + NAME_LEN_MAX)
			return err_set(e, -EINVAL, "path %s: too long", path);
		memcpy(out, rest, strlen(rest) + 1);
		return 0;
	}
	return err_set(e, -EINVAL, "path %s: is neither below root nor below mount", path);
}
