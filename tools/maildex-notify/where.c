/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildex-notify/where.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int below(const struct conf *conf, const char *path, char *out, struct err *e)
{
	const char *const prefixes[] = {conf->root, conf->mount};

	return folder_relative(path, prefixes, 2, out, e);
}

/* dir is freed. */
static int below_dir(const struct conf *conf, char *dir, const char *path, char *out, struct err *e)
{
	char *whole = NULL;
	int rc;

	if (!dir)
		return err_sys(e, "path %s: is relative, and the current directory has no name", path);
	while (strncmp(path, "./", 2) == 0)
		path += 2;
	if (asprintf(&whole, "%s/%s", dir, path) < 0)
		rc = err_set(e, -ENOMEM, "out of memory");
	else
		rc = below(conf, whole, out, e);
	free(whole);
	free(dir);
	return rc;
}

/*
 * The shell's name of the current directory first ($PWD, if it still is this directory), then the kernel's: where the
 * configured path leads over a symbolic link, only one of them begins with it.
 */
static int relative(const struct conf *conf, const char *path, char *out, struct err *e)
{
	int rc = below_dir(conf, get_current_dir_name(), path, out, e);

	if (rc == 0)
		return 0;
	return below_dir(conf, getcwd(NULL, 0), path, out, e);
}

int where_is(const struct conf *conf, const char *path, size_t len, char out[WHERE_MAX + 1], struct err *e)
{
	struct folder_ref ref;
	int rc;

	if (len == 0)
		return err_set(e, -EINVAL, "an empty path");
	if (strlen(path) != len)
		return err_set(e, -EINVAL, "path %s: a NUL byte follows", path);
	rc = path[0] == '/' ? below(conf, path, out, e) : relative(conf, path, out, e);
	return rc < 0 ? rc : folder_ref_parse(out, strlen(out), &ref, e);
}
