/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzzers share. Each file here but replay.c is one fuzzer: LLVMFuzzerTestOneInput() takes any bytes and
 * CHECK()s what must hold for all of them. `make fuzz` runs them with clang's libFuzzer, `make check-fuzz` replays
 * corpus/NAME/ with any compiler (replay.c).
 *
 * Flow: fuzz_in_init(), then words are taken off the input: zeros and nothing once it is at its end.
 * Ownership: fuzz_copy()'s and fuzz_text()'s memory is the caller's; exactly as long as its content, so that ASan sees
 * a read behind it.
 * Threads: one. Errors: a CHECK that fails aborts, with its line.
 */
#ifndef MAILDEX_TESTS_FUZZ_H
#define MAILDEX_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                      \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

struct fuzz_in {
	const uint8_t *at;
	size_t left;
};

static inline void fuzz_in_init(struct fuzz_in *in, const uint8_t *data, size_t size)
{
	*in = (struct fuzz_in){.at = data, .left = size};
}

/* Takes at most `want` bytes; returns how many. */
static inline size_t fuzz_take(struct fuzz_in *in, size_t want, const uint8_t **bytes)
{
	size_t n = want < in->left ? want : in->left;

	*bytes = in->at;
	if (n)
		in->at += n;
	in->left -= n;
	return n;
}

/* A little-endian number of 1 to 8 bytes. */
static inline uint64_t fuzz_number(struct fuzz_in *in, size_t bytes)
{
	const uint8_t *at;
	size_t n = fuzz_take(in, bytes, &at);
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)at[i] << (8 * i);
	return v;
}

static inline uint8_t fuzz_u8(struct fuzz_in *in)
{
	return (uint8_t)fuzz_number(in, 1);
}

static inline char *fuzz_copy(const void *bytes, size_t len)
{
	char *copy = malloc(len ? len : 1);

	CHECK(copy);
	if (len)
		memcpy(copy, bytes, len);
	return copy;
}

/* The bytes as a string: it ends at the first NUL. */
static inline char *fuzz_text(const void *bytes, size_t len)
{
	char *copy = strndup(len ? bytes : "", len);

	CHECK(copy);
	return copy;
}

#endif
