/* SPDX-License-Identifier: Apache-2.0 */
/* Integer work in registers and small tables: loops, calls, branches, tables. */
#include <stdlib.h>
#include <string.h>
#include "parts.h"

static uint64_t run_intloop(void)
{
	uint64_t a = 1, b = 2, c = 3;

	for (uint64_t i = 0; i < 120000000; i++) {
		a = a * 5 + i;
		b ^= a >> 3;
		c += b & 0xff;
		__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c));
	}
	return a + b + c;
}

#define SIEVE_SIZE 2000000
static uint64_t run_sieve(void)
{
	uint8_t *composite = calloc(SIEVE_SIZE, 1);
	uint64_t sum = 0;

	for (int round = 0; round < 24; round++) {
		memset(composite, 0, SIEVE_SIZE);
		for (uint64_t i = 2; i < SIEVE_SIZE; i++) {
			if (composite[i])
				continue;
			sum += i;
			for (uint64_t j = i * i; j < SIEVE_SIZE; j += i)
				composite[j] = 1;
		}
	}
	free(composite);
	return sum;
}

static uint64_t run_crc(void)
{
	static uint32_t table[256];
	static uint8_t data[65536];
	uint32_t crc = ~0u;
	uint64_t seed = 42;

	for (uint32_t i = 0; i < 256; i++) {
		uint32_t v = i;

		for (int k = 0; k < 8; k++)
			v = v & 1 ? 0xedb88320u ^ v >> 1 : v >> 1;
		table[i] = v;
	}
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)next_random(&seed);
	for (int round = 0; round < 900; round++)
		for (unsigned i = 0; i < sizeof(data); i++)
			crc = table[(crc ^ data[i]) & 0xff] ^ crc >> 8;
	return crc;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static uint64_t run_sort(void)
{
	enum { COUNT = 800000 };
	uint32_t *v = malloc(COUNT * sizeof(*v));
	uint64_t seed = 7, sum = 0;

	for (unsigned i = 0; i < COUNT; i++)
		v[i] = (uint32_t)next_random(&seed);
	qsort(v, COUNT, sizeof(*v), compare_u32);
	for (unsigned i = 0; i < COUNT; i += 1000)
		sum = sum * 31 + v[i];
	free(v);
	return sum;
}

static uint64_t run_hash(void)
{
	enum { SLOTS = 1 << 18, KEYS = 1 << 17 };
	uint64_t *key = calloc(SLOTS, sizeof(*key)), *value = calloc(SLOTS, sizeof(*value));
	uint64_t sum = 0;

	for (int round = 0; round < 64; round++) {
		uint64_t seed = 99;

		for (int i = 0; i < KEYS; i++) {
			uint64_t k = next_random(&seed) | 1;
			uint32_t at = (uint32_t)((k * 0x9e3779b97f4a7c15ull) >> 46);

			while (key[at] && key[at] != k)
				at = (at + 1) & (SLOTS - 1);
			key[at] = k;
			value[at] += (uint64_t)i;
			sum += value[at];
		}
	}
	free(key);
	free(value);
	return sum;
}

__attribute__((noinline)) static uint64_t fib(unsigned n)
{
	__asm__ volatile("");
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t run_fib(void)
{
	return fib(37);
}

/* A byte-code interpreter with a switch: the branchy kind of program. */
static uint64_t run_bytecode(void)
{
	enum { PUSH, ADD, SUB, MUL, DUP, SWAP, JNZ, DROP, XOR, HALT };
	static const uint8_t code[] = {
		PUSH, 1, /* the running value */
		PUSH, 200, /* outer counter, times the inner one below */
		/* 4: */ SWAP, PUSH, 7, MUL, PUSH, 3, ADD, DUP, PUSH, 5, XOR, ADD, SWAP,
		PUSH, 1, SUB, DUP, JNZ, 4, DROP, HALT,
	};
	uint64_t sum = 0;

	for (int round = 0; round < 40000; round++) {
		uint32_t stack[16], *sp = stack, t;
		const uint8_t *pc = code;

		for (;;) {
			switch (*pc++) {
			case PUSH: *sp++ = *pc++; continue;
			case ADD: sp--; sp[-1] += *sp; continue;
			case SUB: sp--; sp[-1] -= *sp; continue;
			case MUL: sp--; sp[-1] *= *sp; continue;
			case DUP: *sp = sp[-1]; sp++; continue;
			case SWAP: t = sp[-1]; sp[-1] = sp[-2]; sp[-2] = t; continue;
			case JNZ: pc = *--sp ? code + *pc : pc + 1; continue;
			case DROP: sp--; continue;
			case XOR: sp--; sp[-1] ^= *sp; continue;
			case HALT: break;
			}
			break;
		}
		sum += sp[-1] + (unsigned)round;
	}
	return sum;
}

const struct part parts_compute[] = {
	{ "int-loop", "compute", run_intloop, 0 }, { "sieve", "compute", run_sieve, 0 },
	{ "crc", "compute", run_crc, 0 },	   { "sort", "compute", run_sort, 0 },
	{ "hash", "compute", run_hash, 0 },	   { "fib", "compute", run_fib, 0 },
	{ "bytecode", "compute", run_bytecode, 0 }, { 0 },
};
