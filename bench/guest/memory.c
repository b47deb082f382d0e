/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: pointer chasing, copies, strings, and compression. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "parts.h"

static uint64_t chase(unsigned count, unsigned steps)
{
	void **ring = malloc(count * sizeof(*ring));
	uint32_t *order = malloc(count * sizeof(*order));
	uint64_t seed = 3;
	void **p;

	for (unsigned i = 0; i < count; i++)
		order[i] = i;
	for (unsigned i = count - 1; i > 0; i--) { /* one cycle through all */
		unsigned j = (unsigned)(next_random(&seed) % i);
		uint32_t t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
	for (unsigned i = 0; i < count; i++)
		ring[order[i]] = &ring[order[(i + 1) % count]];
	p = ring;
	for (unsigned i = 0; i < steps; i++)
		p = *p;
	seed = (uint64_t)(p - ring);
	free(order);
	free(ring);
	return seed;
}

static uint64_t run_chase_small(void)
{
	return chase(4096, 100000000);
}

static uint64_t run_chase_large(void)
{
	return chase(1 << 19, 12000000);
}

static uint64_t run_memcpy(void)
{
	enum { SIZE = 1 << 20 };
	uint8_t *x = malloc(SIZE), *y = malloc(SIZE);
	uint64_t sum = 0;

	memset(x, 1, SIZE);
	for (int i = 0; i < 2500; i++) {
		memcpy(y, x, SIZE);
		x[i] = y[SIZE - 1 - i] + (uint8_t)i;
		sum += y[i * 7];
	}
	free(x);
	free(y);
	return sum;
}

static uint64_t run_memcpy_small(void)
{
	static uint8_t x[4096], y[4096];
	uint64_t seed = 11, sum = 0;

	for (int i = 0; i < 9000000; i++) {
		unsigned n = next_random(&seed) & 127, at = (unsigned)(seed >> 20) & 2047;

		x[at] = (uint8_t)i;
		memcpy(y + at, x + 2047 - at, n);
		sum += y[at];
	}
	return sum;
}

static uint64_t run_strings(void)
{
	static char text[1 << 16];
	uint64_t seed = 17, sum = 0;

	for (unsigned i = 0; i < sizeof(text) - 1; i++)
		text[i] = 'a' + (char)(next_random(&seed) % 26);
	for (int i = 0; i < 60000; i++) {
		const char *at = text + (next_random(&seed) & 0x7fff);

		sum += strlen(at);
		sum += (uint64_t)(strchr(at, 'q') - at);
		sum += (uint64_t)(memcmp(at, text, 64) > 0);
		sum += strstr(at, "abc") ? 1 : 0;
	}
	return sum;
}

static uint64_t run_zlib(void)
{
	enum { SIZE = 1 << 20 };
	uint8_t *in = malloc(SIZE), *out = malloc(SIZE * 2), *back = malloc(SIZE);
	uint64_t seed = 23, sum = 0;

	for (unsigned i = 0; i < SIZE; i++)
		in[i] = (uint8_t)"the quick brown fox jumps over lazy dogs "[next_random(&seed) % 13 + i % 28];
	for (int round = 0; round < 2; round++) {
		uLongf n = SIZE * 2, m = SIZE;

		compress2(out, &n, in, SIZE, 6);
		uncompress(back, &m, out, n);
		sum += n + crc32(0, back, (uInt)m);
		in[round] ^= 1;
	}
	free(in);
	free(out);
	free(back);
	return sum;
}

const struct part parts_memory[] = {
	{ "chase-32k", "compute", run_chase_small, 0 }, { "chase-4m", "compute", run_chase_large, 0 },
	{ "memcpy-1m", "compute", run_memcpy, 0 },	{ "memcpy-small", "compute", run_memcpy_small, 0 },
	{ "strings", "compute", run_strings, 0 },	{ "zlib", "compute", run_zlib, 0 },
	{ 0 },
};
