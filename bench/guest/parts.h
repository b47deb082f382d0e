/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the benchmark. Each does a fixed amount of work, sized to take 0.05 to 0.2 s natively, and gives a
 * checksum that must be the same everywhere: a wrong answer is not a fast one.
 */
#ifndef BENCH_PARTS_H
#define BENCH_PARTS_H

#include <stdint.h>

struct part {
	const char *name;
	const char *group; /* "compute", "kernel", "smp", "job"; "large": only when named */
	uint64_t (*run)(void);
	int (*usable)(void); /* NULL: everywhere */
};

extern const struct part parts_compute[], parts_vector[], parts_memory[], parts_kernel[], parts_job[], parts_large[];

/* xorshift: the same numbers everywhere */
static inline uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

#endif
