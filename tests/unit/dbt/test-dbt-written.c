/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs that rewrite what they execute, across pages and modes: functions of a few instructions at any offset, over page
 * ends too, are called from 64-bit and from 32-bit code of the same bytes (which mean something else there) and written anew in
 * between, at their own address or at another of the same page. The interpreter and the translator have
 * to end alike. By hand: SEED=1234 COUNT=5000 build/tests/unit/dbt/test-dbt-written
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../interp/guest.h"
#include "engine/dbt/dbt.h"

#define FUNCTIONS 24u
#define ROOM 40u             /* bytes of one at most */
#define AREA 0x50000u        /* where they are: three pages, */
#define ALIAS 0x250000u      /* also seen here */
#define BODIES 0x60000u      /* what is to be written there: 64 bodies of ROOM */
#define NBODIES 64u
#define STUB 0x54000u        /* 32-bit code: calls ebp, and goes on at [BACK] in 64-bit mode */
#define BACK 0x55000u
#define PROGRAM_MAX 4000u
#define CODE64 8u
#define CODE32 24u

struct program {
	uint8_t byte[PROGRAM_MAX + 64];
	unsigned n;
	uint64_t seed;
	uint32_t at[FUNCTIONS];
	uint8_t body[NBODIES][ROOM];
};

static unsigned roll(struct program *k, unsigned sides)
{
	k->seed = k->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(k->seed >> 33) % sides;
}

static void put(struct program *k, const char *bytes, unsigned n)
{
	memcpy(k->byte + k->n, bytes, n);
	k->n += n;
}
#define PUT(k, bytes) put(k, bytes, sizeof(bytes) - 1)

static void put32(struct program *k, uint32_t v)
{
	put(k, (const char *)&v, 4);
}

/* Registers only, good in both modes; 40 to 4f are INC and DEC in one and part of the next instruction in the other. */
static void make_body(struct program *k, uint8_t *to)
{
	static const struct {
		uint8_t len, random;
		const char *bytes;
	} insn[] = {
		{ 2, 0, "\x01\xc8" }, { 2, 0, "\x31\xd0" }, { 3, 1, "\xc1\xc0" }, { 3, 0, "\x8d\x04\x48" }, { 6, 4, "\x69\xc0" },
		{ 5, 4, "\x05" }, { 3, 0, "\x48\x01\xc1" }, { 3, 0, "\x41\x31\xc9" }, { 3, 0, "\x49\x89\xc0" }, { 3, 0, "\x0f\xaf\xca" },
		{ 2, 0, "\x11\xd8" }, { 3, 0, "\x43\x0f\xc8" }, { 2, 0, "\xf7\xe1" }, { 3, 0, "\x73\x01\x40" }, { 3, 0, "\x72\x01\x42" },
		{ 5, 4, "\xbb" }, { 3, 0, "\x0f\x92\xc2" }, { 4, 0, "\x73\x02\xeb\x00" }, { 1, 0, "\x50" "" }, { 2, 0, "\x85\xc9" },
	};
	unsigned n = 0;

	while (n < ROOM - 8) {
		unsigned pick = roll(k, ARRAY_LEN(insn) + 1);

		if (pick == ARRAY_LEN(insn) && n > 4)
			break;
		pick %= ARRAY_LEN(insn);
		if (insn[pick].bytes[0] == 0x50) { /* push, pop */
			to[n++] = 0x50;
			to[n++] = 0x5b;
			continue;
		}
		memcpy(to + n, insn[pick].bytes, insn[pick].len - insn[pick].random);
		for (unsigned b = insn[pick].len - insn[pick].random; b < insn[pick].len; b++)
			to[n + b] = (uint8_t)roll(k, 256);
		n += insn[pick].len;
	}
	to[n++] = 0xc3;
	memset(to + n, 0xc3, ROOM - n);
}

static void call_64(struct program *k, unsigned f)
{
	PUT(k, "\xbd"); /* mov ebp; call rbp */
	put32(k, (roll(k, 3) ? AREA : ALIAS) - AREA + k->at[f]);
	PUT(k, "\xff\xd5");
}

/* Upper halves, which nobody promises, are zero before and after. */
static void call_32(struct program *k, unsigned f)
{
	uint32_t back = (uint32_t)GUEST_CODE + k->n + 16 + 6 + 5 + 12 + 2 + 5 + 2;

	PUT(k, "\x89\xc0\x89\xc9\x89\xd2\x89\xdb\x89\xf6\x89\xff\x89\xed\x90\x90");
	PUT(k, "\xc7\x04\x25"); /* mov dword [BACK], back */
	put32(k, BACK);
	put32(k, back);
	PUT(k, "\xbd");
	put32(k, k->at[f]);
	PUT(k, "\x6a\x18\x68"); /* push CODE32; push STUB; retfq */
	put32(k, STUB);
	PUT(k, "\x48\xcb");
	while (GUEST_CODE + k->n < back)
		PUT(k, "\x90");
}

/* Another body, by REP MOVS of quadwords, words of 32 bits, bytes. */
static void rewrite(struct program *k)
{
	unsigned f = roll(k, FUNCTIONS), b = roll(k, NBODIES), how = roll(k, 3);

	PUT(k, "\x50\x51\xbe"); /* push rax, rcx; mov esi, edi, ecx */
	put32(k, BODIES + b * ROOM);
	PUT(k, "\xbf");
	put32(k, (roll(k, 2) ? AREA : ALIAS) - AREA + k->at[f]);
	PUT(k, "\xb9");
	put32(k, how == 0 ? ROOM / 8 : how == 1 ? ROOM / 4 : ROOM);
	put(k, how == 0 ? "\xf3\x48\xa5" : how == 1 ? "\xf3\x90\xf3\xa5" : "\xf3\xa4", how == 0 ? 3 : how == 1 ? 4 : 2);
	PUT(k, "\x59\x58");
}

/* An immediate of the program's own, a few instructions ahead. */
static void rewrite_ahead(struct program *k)
{
	unsigned between = roll(k, 4);

	PUT(k, "\xc6\x05");
	put32(k, 1 + 3 * between + 1 + roll(k, 4));
	put(k, (const char[]){ (char)roll(k, 256) }, 1);
	for (unsigned n = 0; n < between; n++)
		PUT(k, "\x48\x01\xc8");
	PUT(k, "\x90\x05");
	put32(k, roll(k, 1u << 30));
}

static void make(struct program *k)
{
	k->n = 0;
	for (unsigned n = 0; n < NBODIES; n++)
		make_body(k, k->body[n]);
	for (unsigned f = 0; f < FUNCTIONS; f++) /* every eighth over the end of a page */
		k->at[f] = AREA + 512 * f + (f % 8 == 7 ? 512 - roll(k, ROOM) : ROOM + roll(k, 400));
	PUT(k, "\xb9\x0a\0\0\0\x51"); /* ten times round: mov ecx, 10; push rcx */
	while (k->n < PROGRAM_MAX - 200) {
		unsigned what = roll(k, 10);

		if (what < 4)
			call_64(k, roll(k, FUNCTIONS));
		else if (what < 6)
			call_32(k, roll(k, FUNCTIONS));
		else if (what < 9)
			rewrite(k);
		else
			rewrite_ahead(k);
	}
	PUT(k, "\x59\xff\xc9\x74\x06\x51\xe9"); /* pop rcx; dec ecx; jz +6; push rcx; jmp */
	put32(k, 5 - (k->n + 4) + 1);
	PUT(k, "\xf4");
}

static void run(const struct engine_ops *engine, const struct program *k, struct x86_state *s, uint8_t *area, uint64_t *killed)
{
	static const uint8_t stub[] = { 0xff, 0xd5, 0xea, STUB & 0xff, 0x41, STUB >> 16, 0, CODE64, 0 }; /* call ebp; jmp far */
	static const uint8_t back[] = { 0xff, 0x24, 0x25, 0, BACK >> 8 & 0xff, BACK >> 16, 0 };          /* jmp [BACK] */
	const uint64_t code32 = 0x00cf9b000000ffff, zero = 0, alias = 0x83 | 0x000000;
	struct guest g;
	struct err e;
	struct cpu *c;

	assert_int_equal(guest_create(&g, 1, engine, &e), 0);
	c = &g.cpus[0];
	guest_long(&g, 0);
	guest_load(&g, GUEST_TABLES + CODE32, &code32, 8);
	c->s.gdtr.limit = CODE32 + 7;
	guest_load(&g, GUEST_TABLES + 0x4000 + 8, &alias, 8); /* 2 MiB again */
	c->s.gpr[RAX] = 0x12345;
	engine->state_set(c);
	guest_load(&g, BACK, &zero, 8);
	guest_load(&g, STUB, stub, sizeof(stub));
	guest_load(&g, (STUB & ~0xffffu) | 0x4100, back, sizeof(back));
	for (unsigned n = 0; n < NBODIES; n++)
		guest_load(&g, BODIES + n * ROOM, k->body[n], ROOM);
	for (unsigned f = 0; f < FUNCTIONS; f++)
		guest_load(&g, k->at[f], k->body[f], ROOM);
	guest_load(&g, GUEST_CODE, k->byte, k->n);
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	assert_int_equal(guest_vector(&g, 0), -1);
	engine->state_get(c);
	*s = c->s;
	guest_read(&g, AREA, area, 0x4000);
	if (killed)
		*killed += dbt_of(c)->counters.invalidated;
	guest_destroy(&g);
}

static void written(void **state)
{
	static struct program k = { .seed = 7 };
	static uint8_t area[2][0x4000];
	struct x86_state want, got;
	const char *seed = getenv("SEED"), *count = getenv("COUNT");
	uint64_t killed = 0;

	if (seed)
		k.seed = strtoull(seed, NULL, 0);
	for (unsigned n = count ? (unsigned)strtoul(count, NULL, 0) : 40; n; n--) {
		make(&k);
		run(&engine_interp, &k, &want, area[0], NULL);
		run(&engine_dbt, &k, &got, area[1], &killed);
		assert_memory_equal(want.gpr, got.gpr, sizeof(want.gpr));
		assert_int_equal(want.rip, got.rip);
		assert_int_equal(want.rflags, got.rflags);
		assert_memory_equal(area[0], area[1], sizeof(area[0]));
	}
	assert_true(killed > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
