/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "indexer/indexfile.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/log.h"
#include "lib/store/reader.h"

static void set_state(struct indexfile *f, const char *text)
{
	pthread_mutex_lock(&f->lock);
	snprintf(f->text, sizeof(f->text), "%s", text);
	pthread_mutex_unlock(&f->lock);
}

void indexfile_state(struct indexfile *f, char out[ERR_TEXT_MAX])
{
	pthread_mutex_lock(&f->lock);
	memcpy(out, f->text, ERR_TEXT_MAX);
	pthread_mutex_unlock(&f->lock);
}

static void shut(struct indexfile *f)
{
	if (f->writer)
		store_writer_close(f->writer);
	f->writer = NULL;
}

static int open_writer(struct indexfile *f, struct err *e)
{
	struct stat st;
	int r = store_writer_open(&f->writer, f->path, f->tree, e);

	if (r == -EUCLEAN) {
		log_error("%s; it is moved to %s.damaged, and the index is built anew", e->text, f->path);
		tally_add(f->tally, TALLY_INDEX_DAMAGED, 1);
		r = store_discard(f->path, e);
		if (r == 0)
			r = store_writer_open(&f->writer, f->path, f->tree, e);
	}
	if (r < 0) {
		f->writer = NULL;
		return r;
	}
	if (stat(f->path, &st) < 0) {
		r = err_sys(e, "%s", f->path);
		shut(f);
		return r;
	}
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	return 0;
}

int indexfile_open(struct indexfile *f, const char *path, const char *tree, struct tally *tally, struct err *e)
{
	int r;

	*f = (struct indexfile){.path = path, .tree = tree, .tally = tally};
	pthread_mutex_init(&f->lock, NULL);
	r = open_writer(f, e);
	if (r < 0)
		pthread_mutex_destroy(&f->lock);
	return r;
}

void indexfile_close(struct indexfile *f)
{
	shut(f);
	pthread_mutex_destroy(&f->lock);
}

/* Opens again; one log line a change of state. */
static int reopen(struct indexfile *f)
{
	struct err e = {""};
	int r;

	shut(f);
	if (f->readers)
		store_readers_retire(f->readers);
	r = open_writer(f, &e);
	if (r < 0) {
		char was[ERR_TEXT_MAX];

		indexfile_state(f, was);
		if (strcmp(was, e.text) != 0)
			log_error("%s; tried again every second", e.text);
		set_state(f, e.text);
		return r;
	}
	tally_add(f->tally, TALLY_INDEX_REOPENED, 1);
	set_state(f, "");
	return 0;
}

/* Moves it aside and begins a new one. Returns 0 or negative errno. */
static int make_anew(struct indexfile *f, const struct err *e)
{
	struct err why = {""};
	int r;

	log_error("%s; it is moved to %s.damaged, and the index is built anew", e->text, f->path);
	tally_add(f->tally, TALLY_INDEX_DAMAGED, 1);
	atomic_store(&f->suspect, false);
	shut(f);
	r = store_discard(f->path, &why);
	if (r < 0 && r != -ENOENT) {
		log_error("%s", why.text);
		set_state(f, why.text);
		return r;
	}
	return reopen(f);
}

/* Its log is that of the file that was there before: its pages do not belong to this one. */
static int open_other(struct indexfile *f)
{
	struct err e = {""};

	log_warn("%s was deleted or replaced; it is opened anew", f->path);
	shut(f);
	if (store_forget_log(f->path, &e) < 0)
		log_warn("%s", e.text);
	return reopen(f);
}

/* Does somebody who has read nothing yet find what makes it an index, and if that is asked for, all rows? Returns 0 or
 * negative errno. */
static int read_afresh(const struct indexfile *f, bool rows, struct err *e)
{
	struct store_reader *reader;
	struct store_row row = {0};
	struct store_totals totals;
	int r = store_reader_open(&reader, f->path, f->tree, e);

	if (r < 0)
		return r;
	if (rows)
		r = store_reader_totals(reader, &totals, e);
	if (rows && r == 0) {
		do
			r = store_reader_next(reader, "", &row, e);
		while (r > 0);
	}
	store_reader_close(reader);
	return r;
}

int indexfile_check(struct indexfile *f)
{
	struct err e = {""};
	struct stat st;

	if (!f->writer)
		return reopen(f);
	if (stat(f->path, &st) < 0 || st.st_dev != f->dev || st.st_ino != f->ino)
		return open_other(f);
	/* Never so short: what makes it an index is in it from the beginning. */
	if (st.st_size == 0)
		err_set(&e, -EUCLEAN, "index %s is damaged: it was emptied", f->path);
	else if (!store_writer_current(f->writer))
		err_set(&e, -EUCLEAN, "index %s is damaged: its log was deleted", f->path);
	else {
		/* -ENOENT: what makes it an index was in what is lost. */
		int r = read_afresh(f, atomic_exchange(&f->suspect, false), &e);

		if (r != -EUCLEAN && r != -ENOENT)
			return 0;
	}
	return make_anew(f, &e);
}

void indexfile_seen(struct indexfile *f, int r)
{
	if (r == -EUCLEAN)
		atomic_store(&f->suspect, true);
}

bool indexfile_failed(struct indexfile *f, int r, const struct err *e)
{
	char was[ERR_TEXT_MAX];

	if (r == -EUCLEAN)
		return make_anew(f, e) == 0;
	if (r == -ESTALE) /* it, or its log, was deleted or replaced */
		return indexfile_check(f) == 0;
	indexfile_state(f, was);
	if (was[0] == '\0')
		log_error("%s; tried again every second, the mail is served from the tree meanwhile", e->text);
	set_state(f, e->text);
	return false;
}

void indexfile_worked(struct indexfile *f)
{
	char was[ERR_TEXT_MAX];

	indexfile_state(f, was);
	if (was[0] == '\0')
		return;
	log_info("%s: the index can be written again", f->path);
	set_state(f, "");
}
