/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Only run when asked for by name: more memory than a TLB of 2048 pages reaches, in small and in large pages; calls through
 * pointers, to one place or to several.
 */
#include <sys/mman.h>
#include "parts.h"

static uint64_t *map(uint64_t size, int huge)
{
	uint64_t *p = mmap(0, size + (2u << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	p = (uint64_t *)(((uintptr_t)p + (2u << 20) - 1) & ~(uintptr_t)((2u << 20) - 1));
	madvise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	for (uint64_t i = 0; i < size / 8; i += 512)
		p[i] = i;
	return p;
}

/* One word of each page, the next page known from it alone: what a miss takes from begin to end. */
static uint64_t chase(uint64_t size, int huge, unsigned steps)
{
	uint64_t *p = map(size, huge), pages = size >> 12, at = 0;

	/* a full cycle of the pages: a linear congruence; the word's place in its page spreads them over cache sets */
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t next = (i * 1664525 + 1013904223) & (pages - 1);

		p[i * 512 + (i * 37 & 511)] = next * 512 + (next * 37 & 511);
	}
	at = 0;
	for (unsigned i = 0; i < steps; i++)
		at = p[at];
	munmap(p, size);
	return at;
}

/* Words of random pages changed, none waiting for another. */
static uint64_t update(uint64_t size, int huge, unsigned steps)
{
	uint64_t *p = map(size, huge), seed = 29, sum = 0;

	for (unsigned i = 0; i < steps; i++)
		p[next_random(&seed) & (size / 8 - 1)] ^= seed;
	for (uint64_t i = 0; i < size / 8; i += 512)
		sum = sum * 31 + p[i];
	munmap(p, size);
	return sum;
}

/* From page to page in order. */
static uint64_t stride(uint64_t size, int huge, unsigned rounds)
{
	uint64_t *p = map(size, huge), sum = 0;

	for (unsigned n = 0; n < rounds; n++)
		for (uint64_t i = 0; i < size / 8; i += 520)
			sum += p[i & (size / 8 - 1)];
	munmap(p, size);
	return sum;
}

struct shape {
	uint64_t (*area)(const struct shape *s);
	uint64_t side;
};

__attribute__((noinline)) static uint64_t area_square(const struct shape *s) { return s->side * s->side; }
__attribute__((noinline)) static uint64_t area_line(const struct shape *s) { return s->side; }
__attribute__((noinline)) static uint64_t area_point(const struct shape *s) { return s->side ^ 1; }
__attribute__((noinline)) static uint64_t area_cube(const struct shape *s) { return s->side * 3; }

/* Calls through pointers in objects: of one kind, or of four at random. */
static uint64_t shapes(unsigned kinds)
{
	static uint64_t (*const area[])(const struct shape *) = { area_square, area_line, area_point, area_cube };
	static struct shape all[256];
	uint64_t seed = 31, sum = 0;

	for (unsigned i = 0; i < 256; i++)
		all[i] = (struct shape){ area[(next_random(&seed) >> 7) % kinds], i };
	for (unsigned n = 0; n < 80000; n++)
		for (unsigned i = 0; i < 256; i++)
			sum += all[i].area(&all[i]);
	return sum;
}

static uint64_t run_shapes_1(void) { return shapes(1); }
static uint64_t run_shapes_4(void) { return shapes(4); }

#define MiB (1ull << 20)
static uint64_t run_chase_16(void) { return chase(16 * MiB, 0, 4000000); }
static uint64_t run_chase_64(void) { return chase(64 * MiB, 0, 4000000); }
static uint64_t run_chase_256(void) { return chase(256 * MiB, 0, 3000000); }
static uint64_t run_chase_64_huge(void) { return chase(64 * MiB, 1, 4000000); }
static uint64_t run_chase_256_huge(void) { return chase(256 * MiB, 1, 3000000); }
static uint64_t run_update_16(void) { return update(16 * MiB, 0, 4000000); }
static uint64_t run_update_64(void) { return update(64 * MiB, 0, 3000000); }
static uint64_t run_update_64_huge(void) { return update(64 * MiB, 1, 3000000); }
static uint64_t run_stride_64(void) { return stride(64 * MiB, 0, 200); }

const struct part parts_large[] = {
	{ "chase-16m", "large", run_chase_16, 0 },
	{ "chase-64m", "large", run_chase_64, 0 },
	{ "chase-256m", "large", run_chase_256, 0 },
	{ "chase-64m-huge", "large", run_chase_64_huge, 0 },
	{ "chase-256m-huge", "large", run_chase_256_huge, 0 },
	{ "update-16m", "large", run_update_16, 0 },
	{ "update-64m", "large", run_update_64, 0 },
	{ "update-64m-huge", "large", run_update_64_huge, 0 },
	{ "calls-alike", "large", run_shapes_1, 0 },
	{ "calls-mixed", "large", run_shapes_4, 0 },
	{ "stride-64m", "large", run_stride_64, 0 },
	{ 0 },
};
