/* SPDX-License-Identifier: GPL-2.0-or-later */
/* maildexctl verify: what index and disk disagree on. Needs neither maildexd nor maildexfs. */
#include "tools/maildexctl/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/maildexctl/mailbox.h"
#include "tools/maildexctl/text.h"
#include "tools/maildexctl/verbs.h"

struct verify {
	const struct order *order;
	struct tree tree;
	struct store_reader *reader;
	char last[FOLDER_PATH_MAX + 1]; /* the folder compared last: its halves follow each other */
	const char *comma;
	uint64_t folders, messages, differences, claimed, not_indexed, unreadable;
};

static const struct {
	const char *text;
	const char *json;
} kinds[] = {
	[DIFF_MISSING] = {"missing from the index: ", "missing"},
	[DIFF_EXTRA] = {"only in the index: ", "extra"},
	[DIFF_INODE] = {"another inode: ", "inode"},
};

#define KNOWS " (the index knows: it will list this folder at its next opendir)"

/* name NULL: the folder itself. */
static void tell(struct verify *v, const char *folder, enum half half, const char *text, const char *json,
		 const struct listing_entry *entry, bool claimed)
{
	struct buf b;

	v->differences++;
	v->claimed += claimed;
	buf_init(&b);
	if (v->order->json) {
		buf_printf(&b, "%s{\"folder\": ", v->comma);
		text_put_json(&b, folder, strlen(folder), false);
		buf_printf(&b, ", \"half\": \"%s\", \"kind\": \"%s\", \"name\": ", half_word(half), json);
		text_put_json(&b, entry ? entry->name : "", entry ? entry->len : 0, false);
		buf_printf(&b, ", \"claimed\": %s}", claimed ? "true" : "false");
		v->comma = ", ";
	} else {
		text_put_shown(&b, folder, strlen(folder));
		buf_printf(&b, "%s%s: %s", folder[0] ? "/" : "", half_word(half), text);
		if (entry)
			text_put_shown(&b, entry->name, entry->len);
		buf_printf(&b, "%s\n", claimed ? "" : KNOWS);
	}
	if (buf_ok(&b))
		fputs(b.data, stdout);
	buf_release(&b);
}

static void unreadable(struct verify *v, const char *text)
{
	v->unreadable++;
	fflush(stdout);
	fprintf(stderr, "maildexctl: %s\n", text);
}

static void tell_found(struct verify *v, const struct store_row *row, const struct verify_found *f)
{
	if (v->folders == 0 || strcmp(v->last, row->folder) != 0)
		v->folders++;
	memcpy(v->last, row->folder, sizeof(v->last));
	v->messages += f->messages;
	if (f->state == VERIFY_GONE)
		tell(v, row->folder, row->half, "gone from the disk", "gone", NULL, false);
	else if (f->state == VERIFY_DAMAGED)
		tell(v, row->folder, row->half, "damaged in the index", "damaged", NULL, false);
	for (size_t i = 0; i < f->count; i++) {
		const struct difference *d = &f->differences[i];

		tell(v, row->folder, row->half, kinds[d->kind].text, kinds[d->kind].json, &d->entry, f->claimed);
	}
}

/* All rows at and below a path. Returns 0 or negative errno (nothing can be verified any more). */
static int verify_rows(struct verify *v, const char *below, struct err *e)
{
	struct store_row *row = calloc(1, sizeof(*row));
	struct verify_found f;
	int rc;

	if (!row)
		return err_set(e, -ENOMEM, "out of memory");
	while ((rc = store_reader_next(v->reader, below, row, e)) > 0) {
		rc = verify_half(v->reader, &v->tree, row->folder, row->half, &f, e);
		if (rc == 0 && f.state == VERIFY_UNREADABLE)
			unreadable(v, f.why.text);
		else if (rc == 0 && f.state != VERIFY_VANISHED)
			tell_found(v, row, &f);
		verify_found_release(&f);
		if (rc < 0)
			break;
	}
	free(row);
	return rc;
}

static int count_folder(void *arg, const char *path)
{
	struct verify *v = arg;
	struct store_row row;
	struct err e;
	int rc = 1;

	for (int half = 0; half < HALVES && rc > 0; half++)
		rc = store_reader_half(v->reader, path, (enum half)half, &row, NULL, &e);
	v->not_indexed += rc == 0;
	return rc < 0 ? rc : 0;
}

static void walk_failed(void *arg, const char *path, int error)
{
	struct err e;

	err_set(&e, -EIO, "%s: cannot be read: %s", path[0] ? path : "the root", strerror(abs(error)));
	unreadable(arg, e.text);
}

/* Folders of the disk that have no row are no difference: they are indexed when they are first opened. */
static int count_folders(struct verify *v, const char *below, struct err *e)
{
	const struct tree_walker w = {.folder = count_folder, .failed = walk_failed, .arg = v};
	int rc = tree_walk(&v->tree, below, &w);

	if (rc == -ENOENT || rc == -ENOTDIR) {
		/* In the index it was told as gone; in neither, it may be a slip of the pen. */
		fflush(stdout);
		fprintf(stderr, "maildexctl: %s: there is no such folder on disk\n", below);
		return 0;
	}
	return rc < 0 ? err_set(e, rc, "%s: cannot be walked: %s", below[0] ? below : v->tree.path, strerror(-rc)) : 0;
}

static int verify_path(struct verify *v, const char *arg, struct err *e)
{
	char path[FOLDER_PATH_MAX + 1];
	int rc = mailbox_path(v->order->conf, arg, path, e);

	if (rc == 0)
		rc = verify_rows(v, path, e);
	if (rc == 0)
		rc = count_folders(v, path, e);
	return rc;
}

static int verify_stdin(struct verify *v, struct err *e)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t len;
	int rc = 0;

	while (rc == 0 && (len = getline(&line, &room, stdin)) > 0) {
		if (line[len - 1] == '\n')
			line[--len] = '\0';
		if (len > 0)
			rc = verify_path(v, line, e);
	}
	if (rc == 0 && ferror(stdin))
		rc = err_sys(e, "cannot read standard input");
	free(line);
	return rc;
}

static int verify_all(struct verify *v, struct err *e)
{
	const struct order *o = v->order;
	int rc = 0;

	if (o->all)
		return verify_path(v, ".", e);
	for (int i = 0; rc == 0 && i < o->argc; i++)
		rc = strcmp(o->argv[i], "-") == 0 ? verify_stdin(v, e) : verify_path(v, o->argv[i], e);
	return rc;
}

static int verify_open(struct verify *v, struct err *e)
{
	const struct conf *c = v->order->conf;
	char lower[PATH_MAX];
	int rc;

	if (!c->index[0])
		return err_set(e, -ENOENT, "the configuration has no index: there is nothing to verify");
	tree_lower_path(c->root, c->mount, c->socket, lower, sizeof(lower));
	rc = tree_open(&v->tree, lower, e);
	if (rc < 0)
		return rc;
	rc = store_reader_open(&v->reader, c->index, v->tree.identity, e);
	if (rc < 0)
		tree_close(&v->tree);
	return rc;
}

static void print_end(const struct verify *v)
{
	if (v->order->json)
		printf("], \"folders\": %" PRIu64 ", \"messages\": %" PRIu64 ", \"claimed\": %" PRIu64
		       ", \"not_indexed\": %" PRIu64 ", \"unreadable\": %" PRIu64 "}\n",
		       v->folders, v->messages, v->claimed, v->not_indexed, v->unreadable);
	else
		printf("%" PRIu64 " folders, %" PRIu64 " messages compared, %" PRIu64 " differences (%" PRIu64
		       " of them claimed as right), %" PRIu64 " not indexed\n",
		       v->folders, v->messages, v->differences, v->claimed, v->not_indexed);
}

int verb_verify(const struct order *o)
{
	struct verify v = {.order = o, .comma = ""};
	struct err e;
	int rc;

	if (o->all == (o->argc > 0))
		return verb_wrong_use("verify: name mailboxes, or give --all, or - for standard input");
	rc = verify_open(&v, &e);
	if (rc < 0) {
		fprintf(stderr, "maildexctl: %s\n", e.text);
		return PROG_REACH;
	}
	if (o->json)
		fputs("{\"differences\": [", stdout);
	rc = verify_all(&v, &e);
	print_end(&v);
	store_reader_close(v.reader);
	tree_close(&v.tree);
	if (rc < 0) {
		fflush(stdout);
		fprintf(stderr, "maildexctl: %s\n", e.text);
		return rc == -EINVAL ? PROG_USE : PROG_REACH;
	}
	if (v.differences > 0)
		return PROG_NO;
	return v.unreadable > 0 ? PROG_REACH : PROG_OK;
}
