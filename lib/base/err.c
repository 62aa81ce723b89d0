/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lib/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (e) {
		va_start(ap, fmt);
		vsnprintf(e->text, sizeof(e->text), fmt, ap);
		va_end(ap);
	}
	return code;
}

int err_sys(struct err *e, const char *fmt, ...)
{
	int code = errno;
	char reason[128];
	size_t len, reason_len;
	va_list ap;

	if (!e)
		return -code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	/* The reason is what the reader needs most: a long text makes room for it. */
	errno = code;
	snprintf(reason, sizeof(reason), ": %m");
	reason_len = strlen(reason);
	len = strlen(e->text);
	if (len > sizeof(e->text) - 1 - reason_len)
		len = sizeof(e->text) - 1 - reason_len;
	memcpy(e->text + len, reason, reason_len + 1);
	errno = code;
	return -code;
}
