/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Also of place_visit: real directories, and a kernel of our own that gives out watches. */
#include "indexer/patrol.h"

#include <sys/fsuid.h>

#include "tests/unit/indexer_help.h"

#define WATCHES 256

struct ground {
	struct help *help;
	struct places places;
	struct patrol patrol;
	int64_t now_ns;
	/* The kernel's side. */
	ino_t watched[WATCHES]; /* by descriptor; 0: none */
	int last;
	size_t count, limit, asked;
	bool refuses;    /* everything */
	bool alive;      /* the inodes are: no watch ends by itself */
	uid_t as;        /* whom the last one was asked for by */
	struct buf told; /* "folder:name " each; a name of "*": LOOK */
};

static int add(void *arg, int fd, enum place_what what, int *wd)
{
	struct ground *g = arg;
	struct stat st;

	(void)what;
	g->asked++;
	g->as = (uid_t)setfsuid((uid_t)-1); /* changes nothing */
	if (g->refuses)
		return -EACCES;
	assert_int_equal(fstat(fd, &st), 0);
	for (int i = 0; i < WATCHES; i++)
		if (g->watched[i] == st.st_ino)
			return -EEXIST;
	if (g->count == g->limit)
		return -ENOSPC;
	g->count++;
	*wd = ++g->last;
	assert_true(*wd < WATCHES);
	g->watched[*wd] = st.st_ino;
	return 0;
}

static void unwatch(void *arg, int wd, bool gone)
{
	struct ground *g = arg;

	assert_false(gone && g->alive);
	assert_int_not_equal(g->watched[wd], 0);
	g->watched[wd] = 0;
	g->count--;
}

static void tell(void *arg, struct place *place, const char *name, size_t len)
{
	struct ground *g = arg;
	char path[FOLDER_PATH_MAX + 1];

	assert_int_equal(place_path(place, path), 0);
	buf_printf(&g->told, "%s:%.*s ", path, name ? (int)len : 1, name ? name : "*");
}

static int setup(void **state)
{
	struct ground *g = calloc(1, sizeof(*g));
	struct visit v = {.places = &g->places, .add = add, .tell = tell, .arg = g};
	void *help;

	help_setup(&help);
	g->help = help;
	v.lower = &g->help->lower;
	g->limit = WATCHES;
	g->now_ns = 1000 * NS_PER_S;
	buf_init(&g->told);
	assert_int_equal(places_init(&g->places, unwatch, g), 0);
	patrol_init(&g->patrol, 3600 * NS_PER_S, &v);
	cred_thread_start();
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct ground *g = *state;
	void *help = g->help;

	places_release(&g->places);
	assert_int_equal(g->count, 0);
	buf_release(&g->told);
	free(g);
	return help_teardown(&help);
}

/* Until there is nothing to visit. Returns how many steps that took. */
static int steps(struct ground *g)
{
	int n = 0;

	do {
		patrol_step(&g->patrol, g->now_ns);
		g->now_ns += NS_PER_S;
		n++;
	} while (patrol_busy(&g->patrol));
	patrol_step(&g->patrol, g->now_ns);
	return n;
}

static struct place *find(struct ground *g, const char *path)
{
	struct place *place = g->places.root;

	while (place && *path) {
		size_t n = strcspn(path, "/");

		place = place_find(&g->places, place, path, n);
		path += n + (path[n] == '/');
	}
	return place;
}

/* "dn": watched for subdirectories, and its new/. */
static const char *watched(struct ground *g, const char *path)
{
	static const char *const words[] = {"", "d", "n", "dn"};
	const struct place *place = find(g, path);

	if (!place)
		return "none";
	return words[(place->watch[PLACE_DIR].wd >= 0) + 2 * (place->watch[PLACE_NEW].wd >= 0)];
}

static void assert_told(struct ground *g, const char *want)
{
	assert_string_equal(g->told.data ? g->told.data : "", want);
	buf_reset(&g->told);
}

static void visit(struct ground *g, const char *path, bool tell_all)
{
	struct place *place = find(g, path);

	assert_non_null(place);
	place->tell |= tell_all;
	places_push(&g->places, PLACES_TODO, place, true);
	steps(g);
}

/* Which watches each kind of directory gets. */
static void kinds(void **state)
{
	static const struct {
		const char *path, *want;
	} cases[] = {
		{"", "d"},
		{"domain", "d"},
		{"domain/u", "dn"},
		{"domain/u/.Sub", "n"},
		{"domain/u/.Sub.Deeper", "n"},
		{"domain/u/nested", "dn"},
		{"domain/u/.half", "d"}, /* is being made */
		{"domain/u/courierimapkeywords", "d"},
		{"domain/u/cur", "none"}, /* never */
		{"domain/u/new", "none"},
		{"domain/.hidden", "dn"}, /* no subfolder of anything */
		{"domain/tmp", "dn"},     /* a user of that name */
		{"domain/file", "none"},
		{"domain/link", "none"},
	};
	struct ground *g = *state;
	char path[512];

	help_mkdir(g->help, "domain");
	help_maildir(g->help, "domain/u");
	help_maildir(g->help, "domain/u/.Sub");
	help_maildir(g->help, "domain/u/.Sub.Deeper");
	help_maildir(g->help, "domain/u/nested");
	help_mkdir(g->help, "domain/u/.half");
	help_mkdir(g->help, "domain/u/.half/tmp");
	help_mkdir(g->help, "domain/u/courierimapkeywords");
	help_maildir(g->help, "domain/.hidden");
	help_maildir(g->help, "domain/tmp");
	help_make(g->help, "domain/file");
	help_make(g->help, "domain/u/new/1.2.3");
	help_path(g->help, "domain/link", path);
	assert_int_equal(symlink("u", path), 0);
	steps(g);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (strcmp(watched(g, cases[i].path), cases[i].want) != 0)
			fail_msg("%s: %s, not %s", cases[i].path, watched(g, cases[i].path), cases[i].want);
	}
	assert_int_equal(g->places.folders, 6);
	assert_int_equal(g->places.unwatched, 0);
	assert_int_equal(g->patrol.state, PATROL_WATCHING);
	assert_told(g, ""); /* what is there at the start is no news */
}

static void root_as_a_folder(void **state)
{
	struct ground *g = *state;

	help_mkdir(g->help, "new");
	help_mkdir(g->help, "cur");
	help_mkdir(g->help, "tmp");
	help_maildir(g->help, ".Sub");
	steps(g);
	assert_string_equal(watched(g, ""), "dn");
	assert_string_equal(watched(g, ".Sub"), "n");
}

/* What arrived in a new folder before it was watched. */
static void arrived_before(void **state)
{
	struct ground *g = *state;
	char name[64];

	help_maildir(g->help, "u");
	steps(g);
	help_mkdir(g->help, "u/.Sub");
	help_mkdir(g->help, "u/.Sub/new");
	help_make(g->help, "u/.Sub/new/1.2.3");
	visit(g, "u", false); /* found by itself */
	assert_string_equal(watched(g, "u/.Sub"), "d");
	assert_told(g, "");
	help_mkdir(g->help, "u/.Sub/cur");
	help_mkdir(g->help, "u/.Sub/tmp");
	visit(g, "u/.Sub", false);
	assert_string_equal(watched(g, "u/.Sub"), "n");
	assert_told(g, "u/.Sub:1.2.3 ");
	help_maildir(g->help, "u/.Big");
	for (int i = 0; i <= EVENT_CHANGES_MAX; i++) {
		snprintf(name, sizeof(name), "u/.Big/new/%d", i);
		help_make(g->help, name);
	}
	visit(g, "u", false);
	assert_told(g, "u/.Big:* ");
	visit(g, "u/.Big", true);
	assert_told(g, ""); /* it was watched all the time */
}

/* A subfolder that was met before its mailbox was one. */
static void subfolder_first(void **state)
{
	struct ground *g = *state;

	help_mkdir(g->help, "u");
	help_maildir(g->help, "u/.Sub");
	steps(g);
	assert_string_equal(watched(g, "u/.Sub"), "dn");
	help_mkdir(g->help, "u/new");
	help_mkdir(g->help, "u/cur");
	help_mkdir(g->help, "u/tmp");
	visit(g, "u", false);
	assert_string_equal(watched(g, "u"), "dn");
	assert_string_equal(watched(g, "u/.Sub"), "n");
}

/* A round finds what nobody told of: what went, what came, what was exchanged. */
static void unseen(void **state)
{
	struct ground *g = *state;

	help_maildir(g->help, "u");
	help_maildir(g->help, "u/.A");
	help_maildir(g->help, "u/.B");
	help_maildir(g->help, "u/.C");
	steps(g);
	help_rename(g->help, "u/.A", "x");
	help_rename(g->help, "u/.B", "u/.A");
	help_rename(g->help, "x", "u/.B");
	help_remove_tree(g->help, "u/.C");
	help_maildir(g->help, "v");
	help_make(g->help, "v/new/1.2.3");
	steps(g);
	assert_string_equal(watched(g, "v"), "none");
	g->now_ns += 3600 * NS_PER_S;
	steps(g);
	assert_string_equal(watched(g, "u/.C"), "none");
	assert_string_equal(watched(g, "v"), "dn");
	assert_non_null(strstr(g->told.data, "v:1.2.3 "));
	/* Exchanged ones may have to wait for one another. */
	g->now_ns += PATROL_RETRY_NS;
	steps(g);
	steps(g);
	assert_string_equal(watched(g, "u/.A"), "n");
	assert_string_equal(watched(g, "u/.B"), "n");
	assert_int_equal(g->places.unwatched, 0);
	for (int i = 0; i < 2; i++) {
		const struct place *place = find(g, i ? "u/.A" : "u/.B");
		char path[512];
		struct stat st;

		help_path(g->help, i ? "u/.A/new" : "u/.B/new", path);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(place->watch[PLACE_NEW].ino, st.st_ino);
		assert_int_equal(g->watched[place->watch[PLACE_NEW].wd], st.st_ino);
	}
}

/* It was renamed, and is looked at before the event is read. */
static void moved_unread(void **state)
{
	struct ground *g = *state;

	help_maildir(g->help, "u");
	help_maildir(g->help, "u/.Sub");
	steps(g);
	g->alive = true;
	help_rename(g->help, "u", "v");
	visit(g, "u", false);
	place_drop(&g->places, find(g, "u"), false); /* the event */
	visit(g, "", false);
	assert_string_equal(watched(g, "v"), "dn");
	assert_string_equal(watched(g, "v/.Sub"), "n");
	assert_int_equal(g->places.unwatched, 0);
	g->alive = false;
}

/* May not be looked at for a while, as with chmod 0: the watches that it has are given up, and come back. */
static void refused(void **state)
{
	struct ground *g = *state;

	help_maildir(g->help, "u");
	steps(g);
	g->alive = true;
	g->refuses = true;
	visit(g, "u", false);
	assert_string_equal(watched(g, "u"), "");
	g->refuses = false;
	visit(g, "u", false);
	assert_string_equal(watched(g, "u"), "dn");
	g->alive = false;
}

/* After an overflow every folder that was watched is told of, and only then. */
static void again(void **state)
{
	struct ground *g = *state;

	help_maildir(g->help, "u");
	help_maildir(g->help, "u/.Sub");
	steps(g);
	g->now_ns += 3600 * NS_PER_S;
	steps(g);
	assert_told(g, "");
	patrol_again(&g->patrol);
	assert_true(patrol_busy(&g->patrol));
	steps(g);
	assert_told(g, "u:* u/.Sub:* ");
	steps(g);
	assert_told(g, "");
	/* The kernel lost all: so did we all arrivals. */
	places_unwatch_all(&g->places);
	patrol_again(&g->patrol);
	steps(g);
	assert_told(g, "u:* u/.Sub:* ");
	assert_int_equal(g->places.folders, 2);
}

static void limit(void **state)
{
	struct ground *g = *state;
	char name[32];
	size_t asked;

	for (int i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		help_maildir(g->help, name);
	}
	g->limit = 41; /* of 121 */
	steps(g);
	assert_int_equal(g->patrol.state, PATROL_LIMITED);
	assert_int_equal(g->places.watches, 41);
	assert_int_equal(g->places.folders, 20);
	assert_int_equal(g->places.unwatched, 40);
	g->now_ns += PATROL_RETRY_NS;
	steps(g);
	/* Tried again, a few at a time, and not before their time. */
	asked = g->asked;
	for (int i = 0; i < 10; i++)
		patrol_step(&g->patrol, g->now_ns + i);
	assert_in_range(g->asked - asked, 0, 2 * PATROL_RETRY_MIN);
	g->limit = WATCHES;
	g->now_ns += PATROL_RETRY_NS;
	steps(g);
	steps(g);
	assert_int_equal(g->places.unwatched, 0);
	assert_int_equal(g->places.folders, 60);
	assert_int_equal(g->patrol.state, PATROL_WATCHING);
	assert_non_null(strstr(g->told.data, ":* ")); /* something may have arrived meanwhile */
}

/* Visits are counted out. */
static void rate(void **state)
{
	struct ground *g = *state;
	char name[32];
	int64_t from;

	g->limit = 0;
	for (int i = 0; i < 1200; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		help_mkdir(g->help, name);
	}
	from = g->now_ns;
	do {
		size_t before = g->asked;

		patrol_step(&g->patrol, g->now_ns);
		assert_in_range(g->asked - before, 0, PATROL_STEP);
		g->now_ns += 2 * NS_PER_MS;
	} while (g->patrol.visit.first);
	/* The last second's are not used up. */
	assert_in_range(g->now_ns - from, 1200 / PATROL_PER_S * NS_PER_S - NS_PER_S, 3 * NS_PER_S);
	assert_in_range(g->asked, 1201, 1201 + 4 * PATROL_RETRY_MIN);
}

/* While the tree is away, nothing is taken for gone. */
static void away(void **state)
{
	struct ground *g = *state;
	char root[128], elsewhere[128];

	help_maildir(g->help, "u");
	steps(g);
	help_remove_tree(g->help, "u");
	snprintf(root, sizeof(root), "%s/mail", g->help->dir);
	snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", g->help->dir);
	assert_int_equal(rename(root, elsewhere), 0);
	assert_int_equal(lower_check(&g->help->lower), -ESTALE);
	visit(g, "u", false);
	assert_non_null(find(g, "u"));
	assert_int_equal(rename(elsewhere, root), 0);
	assert_int_equal(lower_check(&g->help->lower), 0);
	visit(g, "", false);
	assert_null(find(g, "u"));
}

/* Somebody's folders that only he can read. */
static void as_owner(void **state)
{
	static const char *const all[] = {"u", "u/new", "u/cur", "u/tmp"};
	struct ground *g = *state;
	char path[512];

	if (geteuid() != 0)
		skip();
	help_maildir(g->help, "u");
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		help_path(g->help, all[i], path);
		assert_int_equal(chown(path, 60001, 60002), 0);
	}
	steps(g);
	assert_string_equal(watched(g, "u"), "dn");
	assert_int_equal(g->as, 60001);
	assert_int_equal(setfsuid((uid_t)-1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(root_as_a_folder, setup, teardown),
		cmocka_unit_test_setup_teardown(arrived_before, setup, teardown),
		cmocka_unit_test_setup_teardown(subfolder_first, setup, teardown),
		cmocka_unit_test_setup_teardown(unseen, setup, teardown),
		cmocka_unit_test_setup_teardown(moved_unread, setup, teardown),
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
		cmocka_unit_test_setup_teardown(again, setup, teardown),
		cmocka_unit_test_setup_teardown(limit, setup, teardown),
		cmocka_unit_test_setup_teardown(rate, setup, teardown),
		cmocka_unit_test_setup_teardown(away, setup, teardown),
		cmocka_unit_test_setup_teardown(as_owner, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
