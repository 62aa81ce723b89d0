/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs of maildexctl: one file each, one table of them in main.c.
 *
 * Errors: a verb prints what is wrong itself and returns the exit code (PROG_*).
 */
#ifndef MAILDEXCTL_VERBS_H
#define MAILDEXCTL_VERBS_H

#include <stdbool.h>

#include "lib/base/prog.h"

struct order {
	const struct conf *conf;
	bool all;
	bool json;
	int argc; /* what follows the verb */
	char **argv;
};

int verb_status(const struct order *o);
int verb_rebuild(const struct order *o);
int verb_verify(const struct order *o);
int verb_serve(const struct order *o);

/* Says what is wrong with the command line; returns PROG_USE. */
int verb_wrong_use(const char *text);

#endif
