/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tools/maildexctl/mailbox.h"

#include <errno.h>
#include <string.h>

#include "lib/base/sock.h"

/* What one order may name: maildexd takes no more. */
#define BATCH_MAX 4096

int mailbox_path(const struct conf *conf, const char *arg, char out[FOLDER_PATH_MAX + 1], struct err *e)
{
	const char *const prefixes[] = {conf->root, conf->mount};
	char path[FOLDER_PATH_MAX + 1 + NAME_LEN_MAX + 1];
	size_t len;
	int rc;

	if (arg[0] == '\0')
		return err_set(e, -EINVAL, "an empty path is no mailbox; the whole tree is --all");
	if (arg[0] == '/') {
		rc = folder_relative(arg, prefixes, 2, path, e);
		if (rc < 0)
			return rc;
		arg = path;
	}
	while (strncmp(arg, "./", 2) == 0)
		arg += 2 + strspn(arg + 2, "/");
	len = strcmp(arg, ".") == 0 ? 0 : strlen(arg);
	while (len > 0 && arg[len - 1] == '/')
		len--;
	rc = folder_path_check(arg, len, e);
	if (rc < 0)
		return rc;
	memcpy(out, arg, len);
	out[len] = '\0';
	return 0;
}

int mailbox_put(const struct conf *conf, char **argv, int argc, int *next, struct buf *b, struct err *e)
{
	char path[FOLDER_PATH_MAX + 1];
	size_t at = b->len;
	uint32_t n = 0;

	buf_put_u32(b, 0);
	while (*next < argc && n < BATCH_MAX) {
		int rc = mailbox_path(conf, argv[*next], path, e);

		if (rc < 0)
			return rc;
		if (b->len + sizeof(uint32_t) + strlen(path) > SOCK_MSG_MAX)
			break;
		buf_put_str(b, path, strlen(path));
		(*next)++;
		n++;
	}
	if (!buf_ok(b))
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < sizeof(n); i++)
		b->data[at + i] = (char)(n >> (8 * i));
	return 0;
}
