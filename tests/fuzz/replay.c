/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main() of a fuzzer that is not run by libFuzzer: `names FILE|DIRECTORY...` gives each file to LLVMFuzzerTestOneInput()
 * and says in its last line how many held. A child does it, so that an input that kills it, or keeps it longer than
 * PATIENCE_S, fails alone; another child goes on with the next. TMPDIR is a folder of its own, removed at the end.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/fuzz/fuzz.h"

#define FILES_MAX 10000
#define PATIENCE_S 20

static char *files[FILES_MAX];
static size_t nfiles;

static int take(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (kind == FTW_F && nfiles < FILES_MAX)
		files[nfiles++] = strdup(path);
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static void run_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *data;

	if (fd < 0 || fstat(fd, &st) < 0) {
		perror(path);
		abort();
	}
	/* As long as the file: a read behind it is seen. */
	data = malloc((size_t)st.st_size + (st.st_size == 0));
	CHECK(data && read(fd, data, (size_t)st.st_size) == (ssize_t)st.st_size);
	close(fd);
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	free(data);
}

/* *at says which file is being run. */
static void run_from(volatile size_t *at)
{
	for (; *at < nfiles; ++*at) {
		alarm(PATIENCE_S);
		run_file(files[*at]);
	}
	exit(0);
}

static size_t run_all(void)
{
	volatile size_t *at = mmap(NULL, sizeof(*at), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	size_t failed = 0;

	CHECK(at != MAP_FAILED);
	while (*at < nfiles) {
		pid_t pid = fork();
		int status = -1;

		if (pid == 0)
			run_from(at);
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			break;
		failed++;
		/* Behind the last file it is the fuzzer's own end that failed (a leak). */
		fprintf(stderr, "failed: %s (%s %d)\n", *at < nfiles ? files[*at] : "at the end",
			WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		++*at;
	}
	return failed;
}

int main(int argc, char **argv)
{
	const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	char dir[40];
	size_t failed;

	for (int i = 1; i < argc; i++)
		if (nftw(argv[i], take, 16, FTW_PHYS) < 0) {
			perror(argv[i]);
			return 2;
		}
	qsort(files, nfiles, sizeof(files[0]), compare);
	snprintf(dir, sizeof(dir), "%s/maildex-fuzz.XXXXXX", base);
	CHECK(mkdtemp(dir) && setenv("TMPDIR", dir, 1) == 0);
	failed = run_all();
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	for (size_t i = 0; i < nfiles; i++)
		free(files[i]);
	printf("%zu passed, %zu failed\n", failed < nfiles ? nfiles - failed : 0, failed);
	return failed || nfiles == 0;
}
