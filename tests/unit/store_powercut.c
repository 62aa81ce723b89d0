/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The power is cut while the index is written. A script of real transactions runs on a disk that can lose its power
 * (powercut.h), twice: first to know every state that was ever committed, then with a cut at each write, sync and
 * commit. What a cut leaves is opened as maildexd does it, sometimes by a reader first as maildexfs does it, and
 * must be one of the states that were committed: each half's row with exactly its own names, all of one transaction,
 * none that had been synced lost. Then it is written to.
 *
 * That the cuts can bite at all is shown with a disk that lies (it says "synced" and has not): the same script loses
 * and mixes pages there. Whatever maildexd opens and serves even then must be right half by half: count and sum see
 * to it.
 *
 * MAILDEX_POWERCUT_SEEDS: how many scripts; MAILDEX_POWERCUT_FIRST: the seed of the first one. A failure names its
 * seed.
 */
#include <inttypes.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "indexer/indexfile.h"
#include "lib/base/log.h"
#include "tests/unit/powercut_script.h"
#include "tests/unit/store_help.h"

#define INDEX "index.sqlite"
#ifdef __SANITIZE_THREAD__ /* there is one thread only, and it is ten times slower */
#define SEEDS 1
#define SEEDS_OF_LIES 1
#else
#define SEEDS 4
#define SEEDS_OF_LIES 2
#endif
#define STEPS 16
#define STATES_MAX (4 * STEPS)
#define HALVES_MAX 4096

/* Every state that was ever committed; 0 is the empty index. */
struct states {
	unsigned n;
	uint64_t all[STATES_MAX];
	size_t nhalves;
	uint64_t halves[HALVES_MAX];
};

/* What was seen; shared with a child. */
struct counts {
	unsigned long cuts, last, older, empty;       /* which state was found */
	unsigned long refused, refused_halves, mixed; /* damage that was told as such; halves of different commits */
	unsigned long wrong;                          /* served, and was never committed */
	char first_wrong[512];
};

struct run {
	struct powercut cut;
	struct err err; /* of what a cut left; the script has its own */
	char path[96], cut_dir[96], cut_path[128];
	uint64_t seed;
	struct script script; /* the same in both passes */
	uint64_t random;      /* where and how the power is cut */
	bool cutting;         /* this is the second pass, and we aren't in a cut */
	struct states states;
	/* Transactions: begun, committed, on the disk for certain, and those of an index that was given up. */
	unsigned begun, done, floor, given_up;
	sqlite3 *holding; /* another process's reader in the middle of a transaction */
	struct counts *counts;
};

/* ---- what is in an index ---- */

static uint64_t digest_stamp(uint64_t seed, const struct stamp *s)
{
	const uint64_t words[] = {s->dev, s->ino, (uint64_t)s->ctime_ns, (uint64_t)s->mtime_ns, s->size, s->sized};

	return XXH3_64bits_withSeed(words, sizeof(words), seed);
}

/*
 * All that a half's row says, and its names in the order of the index. Its folder counts for whole states only: the
 * index of a damaged table may lead to another folder's row, and that is no harm: `known` is not that of the
 * directory then.
 */
static uint64_t digest_half(const struct store_row *row, const struct listing *l)
{
	const struct fresh *f = &row->fresh;
	const uint64_t words[] = {row->half,
				  (uint64_t)f->seen_ns,
				  f->need,
				  f->unsettled,
				  f->trust,
				  (uint64_t)f->trust_since_ns,
				  f->gen,
				  f->nparked,
				  row->count,
				  row->sum,
				  (uint64_t)row->scanned_ns};
	uint64_t d = XXH3_64bits_withSeed(words, sizeof(words), digest_stamp(1, &f->known));

	for (unsigned i = 0; i < f->nparked; i++)
		d = digest_stamp(digest_stamp(d, &f->parked[i].pre), &f->parked[i].post);
	return XXH3_64bits_withSeed(l->bytes.data, l->bytes.len, d);
}

struct found {
	uint64_t all; /* the sum of the digests of its halves */
	unsigned nhalves, refused, wrong;
};

static bool half_known(const struct states *s, uint64_t digest)
{
	for (size_t i = 0; i < s->nhalves; i++)
		if (s->halves[i] == digest)
			return true;
	return false;
}

/* learn: what is there is right, and goes to the states; else it is compared with them. */
static int read_half(struct run *run, struct store_reader *r, const struct store_row *at, bool learn,
		     struct found *found)
{
	struct store_row row;
	struct listing l;
	uint64_t digest;
	int rc;

	listing_init(&l);
	rc = store_reader_half(r, at->folder, at->half, &row, &l, &run->err);
	if (rc == 1) {
		digest = digest_half(&row, &l);
		found->all += XXH3_64bits_withSeed(row.folder, strlen(row.folder), digest);
		if (learn && run->states.nhalves < HALVES_MAX)
			run->states.halves[run->states.nhalves++] = digest;
		/* A new row, or one of zeros, is of no directory: nobody is served from it. */
		if (row.fresh.known.ino)
			found->wrong += !half_known(&run->states, digest);
		found->nhalves++;
	} else {
		found->refused++;
	}
	listing_release(&l);
	return rc == 1 || rc == -EUCLEAN ? 0 : rc;
}

static int read_all(struct run *run, struct store_reader *r, bool learn, struct found *found)
{
	struct store_row at = {0};
	int rc;

	*found = (struct found){0};
	while ((rc = store_reader_next(r, "", &at, &run->err)) > 0) {
		rc = read_half(run, r, &at, learn, found);
		if (rc < 0)
			return rc;
	}
	return rc;
}

/* ---- a cut ---- */

static void wrong(struct run *run, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void wrong(struct run *run, const char *fmt, ...)
{
	struct counts *c = run->counts;
	va_list ap;
	int n;

	if (c->wrong++)
		return;
	n = snprintf(c->first_wrong, sizeof(c->first_wrong),
		     "seed %" PRIu64 ", cut %lu, transaction %u of %u: ", run->seed, c->cuts, run->begun,
		     run->states.n - 1);
	va_start(ap, fmt);
	vsnprintf(c->first_wrong + n, sizeof(c->first_wrong) - (size_t)n, fmt, ap);
	va_end(ap);
}

/* Which of the states that may be there is it? Returns its number, or -1. */
static int which_state(const struct run *run, uint64_t all)
{
	for (unsigned i = run->begun + 1; i-- > run->floor;)
		if (run->states.all[i] == all)
			return (int)i;
	return -1;
}

static void judge(struct run *run, const char *who, const struct found *found)
{
	struct counts *c = run->counts;
	int state = which_state(run, found->all);

	c->refused_halves += found->refused;
	if (found->wrong)
		wrong(run, "%s serves %u halves that were never committed", who, found->wrong);
	else if (found->refused)
		return;
	else if (state < 0 && run->cut.lies)
		c->mixed++;
	else if (state < 0)
		wrong(run,
		      "%s serves %u halves, each right, but not of one transaction, or older than %u, which was synced",
		      who, found->nhalves, run->floor);
	else if (state == (int)run->begun)
		c->last++;
	else if (state)
		c->older++;
	else
		c->empty++;
}

/* maildexfs looks. Before maildexd has opened it, there may be none. */
static void look(struct run *run, bool before)
{
	const char *who = before ? "a reader before maildexd" : "a reader";
	struct store_reader *r;
	struct found found;
	int rc = store_reader_open(&r, run->cut_path, TREE, &run->err);

	/* -EACCES: a file that was being made; a reader does not finish that. */
	if (before && (rc == -ENOENT || rc == -EACCES))
		return;
	if (rc < 0) {
		run->counts->refused_halves++;
		if (rc != -EUCLEAN)
			wrong(run, "%s cannot open it: %s", who, run->err.text);
		return;
	}
	rc = read_all(run, r, false, &found);
	if (rc == 0)
		judge(run, who, &found);
	else if (rc == -EUCLEAN)
		run->counts->refused_halves++;
	else
		wrong(run, "%s cannot read it: %s", who, run->err.text);
	store_reader_close(r);
}

/* One transaction, as the applier does it. */
static int write_one(struct run *run, struct store_writer *w, const struct listing *l)
{
	struct store_row row;
	uint64_t changed;
	int rc = store_writer_begin(w, &run->err);

	if (rc == 0)
		rc = store_writer_row(w, "after the cut", HALF_NEW, true, &row, &run->err);
	if (rc == 1)
		rc = store_writer_replace(w, &row, l, &changed, &run->err);
	if (rc == 0)
		rc = store_writer_save(w, &row, &run->err);
	if (rc == 0)
		rc = store_writer_commit(w, &run->err);
	if (rc)
		store_writer_rollback(w);
	return rc;
}

/* It goes on by itself: what can't be written is replaced by an empty one, and that can. */
static void go_on(struct run *run, struct indexfile *file)
{
	struct store_reader *r;
	struct store_row row;
	struct listing l;
	int rc;

	listing_init(&l);
	help_fill(&l, "after", 30);
	rc = write_one(run, file->writer, &l);
	if (rc == -EUCLEAN && indexfile_failed(file, rc, &run->err))
		rc = write_one(run, file->writer, &l);
	if (rc == 0)
		rc = store_reader_open(&r, run->cut_path, TREE, &run->err);
	if (rc == 0) {
		rc = store_reader_half(r, "after the cut", HALF_NEW, &row, &l, &run->err);
		store_reader_close(r);
		/* Refused where more is damaged: the next listing heals it. */
		run->counts->refused_halves += rc == -EUCLEAN;
		rc = rc == -EUCLEAN || (rc == 1 && l.count == 30) ? 0 : rc < 0 ? rc : -EIO;
	}
	if (rc)
		wrong(run, "the index does not work again: %s", run->err.text);
	listing_release(&l);
}

/* What is not read by our queries must be sound too. */
static void check_pages(struct run *run)
{
	sqlite3 *db;
	sqlite3_stmt *s = NULL;

	if (sqlite3_open(run->cut_path, &db) != SQLITE_OK ||
	    sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL) != SQLITE_OK ||
	    sqlite3_step(s) != SQLITE_ROW || strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
		wrong(run, "integrity_check: %s", s ? (const char *)sqlite3_column_text(s, 0) : sqlite3_errmsg(db));
	sqlite3_finalize(s);
	sqlite3_close(db);
}

static void empty_folder(const char *path)
{
	struct dirent *entry;
	DIR *d = opendir(path);

	while (d && (entry = readdir(d)))
		unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
}

static void cut_once(struct run *run)
{
	struct tally tally = {0};
	struct indexfile file;
	int rc;

	run->counts->cuts++;
	powercut_image(&run->cut, &run->random, run->cut_dir, INDEX);
	if (powercut_below(&run->random, 3) == 0)
		look(run, true);
	rc = indexfile_open(&file, run->cut_path, TREE, &tally, &run->err);
	if (rc < 0) {
		wrong(run, "maildexd does not start: %s", run->err.text);
	} else {
		look(run, false);
		if (powercut_below(&run->random, 2) == 0)
			go_on(run, &file);
		if (!run->cut.lies)
			check_pages(run);
		indexfile_close(&file);
	}
	run->counts->refused += tally_get(&tally, TALLY_INDEX_DAMAGED);
	empty_folder(run->cut_dir);
}

static void cut_here(void *arg, const char *what, const char *path)
{
	struct run *run = arg;

	if (strcmp(what, "sync") == 0 && strstr(path, "-wal") && !run->cut.lies && run->done > run->given_up)
		run->floor = run->done;
	if (!run->cutting)
		return;
	run->cutting = false;
	cut_once(run);
	run->cutting = true;
}

/* ---- the script ---- */

/* The state that was just committed becomes known. */
static void learn(struct run *run)
{
	struct store_reader *r;
	struct found found;

	OK(&run->script, store_reader_open(&r, run->path, TREE, &run->script.err));
	OK(&run->script, read_all(run, r, true, &found));
	store_reader_close(r);
	assert_int_equal(found.refused, 0);
	assert_true(run->states.n < STATES_MAX);
	run->states.all[run->states.n++] = found.all;
}

static void transaction(struct run *run, bool second)
{
	bool keep = script_pick(&run->script, 6);

	OK(&run->script, store_writer_begin(run->script.w, &run->script.err));
	for (size_t n = 1 + script_pick(&run->script, 3); n; n--)
		script_step(&run->script);
	if (!keep) {
		store_writer_rollback(run->script.w);
		return;
	}
	run->begun++;
	OK(&run->script, store_writer_commit(run->script.w, &run->script.err));
	run->done++;
	if (second)
		cut_here(run, "commit", run->path);
	else
		learn(run);
}

/* The connection that was opened last for this file: the store does not show it. */
static struct {
	const char *path;
	sqlite3 *db;
} opened;

static int remember(sqlite3 *db, char **text, const struct sqlite3_api_routines *api)
{
	(void)text;
	(void)api;
	/* What a cut left is opened meanwhile too. */
	if (strcmp(sqlite3_db_filename(db, "main"), opened.path) == 0)
		opened.db = db;
	return SQLITE_OK;
}

/* The log is copied back each few pages instead of each 4096: many times in a short script. */
static void open_index(struct run *run)
{
	opened.path = run->path;
	sqlite3_auto_extension((void (*)(void))remember);
	OK(&run->script, store_writer_open(&run->script.w, run->path, TREE, &run->script.err));
	sqlite3_cancel_auto_extension((void (*)(void))remember);
	sqlite3_wal_autocheckpoint(opened.db, 1 << script_pick(&run->script, 7));
}

static void close_index(struct run *run)
{
	store_writer_close(run->script.w);
	run->script.w = NULL;
}

static void reopen(struct run *run)
{
	close_index(run);
	open_index(run);
}

/* Another process's reader stands in the middle of a transaction: the log can't be used from its start again. */
static void hold(struct run *run)
{
	bool held = run->holding;

	sqlite3_close(run->holding);
	run->holding = NULL;
	if (held)
		return;
	assert_int_equal(sqlite3_open_v2(run->path, &run->holding, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(run->holding, "BEGIN; SELECT count(*) FROM half", NULL, NULL, NULL), SQLITE_OK);
}

/* An index that was found damaged, or that was deleted while it was open, begins anew: what it held may be lost now. */
static void begin_anew(struct run *run)
{
	char aside[128];

	sqlite3_close(run->holding);
	run->holding = NULL;
	run->floor = 0;
	run->given_up = run->done;
	if (script_pick(&run->script, 2)) {
		assert_int_equal(unlink(run->path), 0);
		powercut_unlinked(&run->cut, run->path);
		assert_int_equal(store_writer_begin(run->script.w, &run->script.err), -ESTALE);
		close_index(run);
	} else {
		close_index(run);
		snprintf(aside, sizeof(aside), "%s.damaged", run->path);
		OK(&run->script, store_discard(run->path, &run->script.err));
		powercut_renamed(&run->cut, run->path, aside);
	}
	open_index(run);
}

static void play(struct run *run, bool second)
{
	run->script.random = run->seed;
	run->script.calm = false;
	run->begun = run->done = run->floor = run->given_up = 0;
	open_index(run);
	for (unsigned i = 0; i < STEPS; i++) {
		size_t what = script_pick(&run->script, 16);

		/* Old and new pages that still fit together are what only count and sum can tell from sound ones. */
		run->script.calm = run->cut.lies && i >= STEPS / 3;
		if (run->script.calm)
			transaction(run, second);
		else if (what == 0)
			begin_anew(run);
		else if (what < 3)
			reopen(run);
		else if (what < 5)
			hold(run);
		else
			transaction(run, second);
	}
	sqlite3_close(run->holding);
	run->holding = NULL;
	close_index(run);
}

/* One script on a new disk, first without cuts, then with one at each point. */
static void play_twice(const struct help *h, uint64_t seed, bool lies, struct counts *counts)
{
	struct run *run = calloc(1, sizeof(*run));
	char dir[80];

	assert_non_null(run);
	snprintf(dir, sizeof(dir), "%s/live", h->dir);
	snprintf(run->path, sizeof(run->path), "%s/" INDEX, dir);
	snprintf(run->cut_dir, sizeof(run->cut_dir), "%s/cut", h->dir);
	snprintf(run->cut_path, sizeof(run->cut_path), "%s/" INDEX, run->cut_dir);
	mkdir(dir, 0700);
	mkdir(run->cut_dir, 0700);
	run->seed = run->random = seed;
	run->counts = counts;
	run->states.n = 1;
	for (int second = 0; second < 2; second++) {
		powercut_install(&run->cut, dir, seed);
		run->cut.lies = lies;
		run->cut.op = cut_here;
		run->cut.arg = run;
		run->cutting = second;
		play(run, second);
		powercut_remove(&run->cut);
		empty_folder(dir);
	}
	free(run);
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
	const char *value = getenv(variable);

	return value ? strtoull(value, NULL, 10) : otherwise;
}

static void play_all(const struct help *h, bool lies, uint64_t seeds, struct counts *c)
{
	uint64_t first = number_of("MAILDEX_POWERCUT_FIRST", 1);

	for (uint64_t i = 0; i < seeds; i++)
		play_twice(h, first + i, lies, c);
	print_message("# %s: %" PRIu64 " scripts, %lu cuts; found the last transaction %lu times, an older one "
		      "%lu, an empty index %lu, halves of several transactions %lu; refused %lu indexes, %lu halves; "
		      "wrong: %lu\n",
		      lies ? "a disk that lies" : "power cuts", seeds, c->cuts, c->last, c->older, c->empty, c->mixed,
		      c->refused, c->refused_halves, c->wrong);
}

static void test_power_cut(void **state)
{
	struct counts c = {0};

	play_all(*state, false, number_of("MAILDEX_POWERCUT_SEEDS", SEEDS), &c);
	if (c.wrong)
		fail_msg("%s", c.first_wrong);
	/* What was synced in its order is never damaged: a power cut does not cost the index. */
	assert_int_equal(c.refused, 0);
	assert_int_equal(c.refused_halves, 0);
	assert_true(c.last && c.older && c.empty);
}

/* What the child's log says: one line for each index that was refused. */
static unsigned long lines_of_refusal(FILE *log)
{
	unsigned long n = 0;
	char line[4096];

	rewind(log);
	while (fgets(line, sizeof(line), log)) {
		if (strstr(line, INDEX ".damaged, and the index is built anew"))
			n++;
		else
			fputs(line, stderr);
	}
	return n;
}

/* In a child whose log is kept: there are hundreds of damaged indexes to be told of. */
static void test_disk_that_lies(void **state)
{
	struct counts *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	FILE *log = tmpfile();
	int status;
	pid_t pid;

	assert_true(c != MAP_FAILED);
	assert_non_null(log);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(fileno(log), STDERR_FILENO);
		play_all(*state, true, number_of("MAILDEX_POWERCUT_SEEDS", SEEDS_OF_LIES), c);
		fflush(NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(lines_of_refusal(log), c->refused);
	fclose(log);
	assert_int_equal(status, 0);
	if (c->wrong)
		fail_msg("%s", c->first_wrong);
	/* Else the cuts of the other test could do no harm either. */
	assert_true(c->refused && c->refused_halves);
	munmap(c, sizeof(*c));
}

/* In memory where that is possible: nothing here needs a real disk. */
static int setup(void **state)
{
	static const char *const places[] = {"/dev/shm", "/tmp"};
	struct help *h = calloc(1, sizeof(*h));

	for (size_t i = 0; h && i < LEN(places); i++) {
		snprintf(h->dir, sizeof(h->dir), "%s/maildex-store-XXXXXX", places[i]);
		*state = h;
		if (mkdtemp(h->dir))
			return 0;
	}
	return -1;
}

static int teardown(void **state)
{
	static const char *const inside[] = {"live", "cut"};
	struct help *h = *state;
	char path[80];

	for (size_t i = 0; i < LEN(inside); i++) {
		snprintf(path, sizeof(path), "%s/%s", h->dir, inside[i]);
		empty_folder(path);
		rmdir(path);
	}
	return help_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_power_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_that_lies, setup, teardown),
	};

	log_open("store_powercut", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests_name("store_powercut", tests, NULL, NULL);
}
