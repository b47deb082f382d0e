// SPDX-License-Identifier: Apache-2.0
/*
 * What a hostile program would try: pointers to nowhere and to the ends of the address space, stack pointers
 * likewise, jumps into the middle of instructions and out of the code, LOCK where it is illegal, too many
 * prefixes, code that writes over itself.
 */
#include <string.h>
#include "gen.h"

static uint64_t wild_address(struct gen *g)
{
	static const uint64_t edges[] = {
		0x00007fffffffffff, 0x0000800000000000, 0xffff800000000000, 0xffff7fffffffffff,
		0xffffffffffffffff, 0xfffffffffffff000, 0x0000000000000000, 0x0000000100000000,
		0x00000000ffffffff, 0x00007ffffffff000, 0xffffffff80000000, 0xffff888000000000,
		0x8000000000000000, 0x4000000020010000, 0xffffffffff600000 - 4096, ARENA_CODE,
		ARENA_CODE + CODE_PAGES * PAGE, ARENA_DATA - 8, ARENA_DATA + 4 * PAGE, ARENA_STACK,
	};
	uint64_t v = edges[rng_below(&g->r, ARRAY_LEN(edges))];

	return v + (rng_below(&g->r, 2) ? 0 : rng_below(&g->r, 40) - 20ull);
}

static bool load_wild(struct gen *g, unsigned reg)
{
	uint64_t v = wild_address(g);

	return gen_load(g, reg, gen_64(g) ? v : (uint32_t)v);
}

static bool wild_pointer(struct gen *g)
{
	unsigned reg = rng_below(&g->r, gen_64(g) ? 16 : 8);

	if (reg == 4 || !load_wild(g, reg))
		return false;
	/* an address made from it, without a correcting displacement */
	for (unsigned tries = 0; tries < 30; tries++) {
		const struct encoding *e = gen_pick(g, 0);
		struct bytes b;

		if (!e->memory || e->vex || (reg & 7) == 4 || (reg & 7) == 5)
			continue;
		memset(&b, 0, sizeof(b));
		if (e->prefix)
			b.b[b.n++] = e->prefix;
		if (gen_64(g))
			b.b[b.n++] = (uint8_t)(0x40 | e->w << 3 | reg >> 3);
		if (e->map)
			b.b[b.n++] = 0x0f;
		if (e->map >= 2)
			b.b[b.n++] = e->map == 2 ? 0x38 : 0x3a;
		b.b[b.n++] = e->opcode;
		b.b[b.n++] = (uint8_t)((reg & 7) | (e->reg == 0xff ? rng_below(&g->r, 8) : e->reg) << 3);
		b.b[b.n] = (uint8_t)rng_below(&g->r, 8);
		if (gen_emit(g, &b))
			return true;
	}
	return false;
}

static bool wild_stack(struct gen *g)
{
	static const struct {
		uint8_t n, b[4];
	} users[] = {
		{ 1, { 0x50 } },	   { 1, { 0x58 } },	      { 1, { 0x9c } },
		{ 1, { 0xc3 } },	   { 1, { 0xc9 } },	      { 1, { 0xcf } },
		{ 4, { 0xc8, 16, 0, 3 } }, { 2, { 0xff, 0xd0 } },     { 3, { 0xff, 0x34, 0x24 } },
		{ 2, { 0x66, 0x50 } },	   { 1, { 0xcb } },	      { 3, { 0xc2, 0xf8, 0xff } },
		{ 4, { 0xc8, 8, 0, 0 } },  { 3, { 0x8f, 0x04, 0x24 } }, { 1, { 0x9d } },
	};
	unsigned k = rng_below(&g->r, ARRAY_LEN(users));

	if (!load_wild(g, 4) || (users[k].b[0] == 0xc9 && !load_wild(g, 5)))
		return false;
	struct bytes b = { .n = users[k].n };

	memcpy(b.b, users[k].b, 4);
	return gen_emit(g, &b);
}

static bool wild_jump(struct gen *g)
{
	unsigned reg = rng_below(&g->r, 3); /* rax, rcx, rdx */
	uint8_t b[2] = { 0xff, (uint8_t)((rng_below(&g->r, 2) ? 0xe0 : 0xd0) | reg) };

	return load_wild(g, reg) && gen_raw(g, b, 2);
}

/* jmp into the immediate of a move, which holds other instructions and a jump on */
static bool middle(struct gen *g)
{
	uint8_t b[16] = { 0xeb, 1, 0xb8, 0x90, 0x40, 0xeb, 0 };
	static const uint8_t inner[][2] = { { 0x90, 0x90 }, { 0xf7, 0xd8 }, { 0xf3, 0x90 }, { 0x0f, 0x0b },
					    { 0xf0, 0x90 }, { 0x01, 0xc0 }, { 0x31, 0xdb } };

	memcpy(b + 3, inner[rng_below(&g->r, ARRAY_LEN(inner))], 2);
	if (!gen_raw(g, b, 2) || !gen_raw(g, b + 2, 5))
		return false;
	g->undefined |= 0x10; /* AF of what was inside */
	g->c->undefined_any |= 0x10;
	return true;
}

static bool bad_lock(struct gen *g)
{
	for (unsigned tries = 0; tries < 20; tries++) {
		const struct encoding *e = gen_pick(g, 0);
		struct bytes b, locked = { 0 };
		ZydisDecodedInstruction i;

		if (e->vex || !gen_encode(g, e, &b))
			continue;
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&g->decoder, NULL, b.b, 15, &i)) ||
		    i.length > 14 || (i.attributes & ZYDIS_ATTRIB_HAS_LOCK) || i.raw.imm[0].is_relative ||
		    (e->map == 1 && (e->opcode == 0x20 || e->opcode == 0x22))) /* CR8 by another name on AMD's */
			continue;
		locked.b[0] = 0xf0;
		memcpy(locked.b + 1, b.b, i.length);
		if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&g->decoder, NULL, locked.b, 15, &i)))
			return gen_emit(g, &locked);
		g->ended = true;
		return gen_raw(g, locked.b, i.length + 1u);
	}
	return false;
}

static bool too_long(struct gen *g)
{
	static const uint8_t prefixes[] = { 0x66, 0x67, 0x2e, 0x3e, 0x26, 0x36, 0x64, 0x65 };
	uint8_t b[20];
	unsigned n = 8 + rng_below(&g->r, 8);

	for (unsigned k = 0; k < n; k++)
		b[k] = prefixes[rng_below(&g->r, ARRAY_LEN(prefixes))];
	b[n] = 0x90;
	if (rng_below(&g->r, 2)) {
		b[n] = 0x8b; /* mov eax, ebx */
		b[++n] = 0xc3;
	}
	return gen_raw(g, b, n + 1);
}

/*
 * Write an instruction over one that comes next: mov byte/dword [rip + x], imm. The code pages
 * of such a case are writable.
 */
static bool self_modify(struct gen *g)
{
	static const uint8_t filler[] = { 0x90, 0x40, 0x43, 0x99, 0xf8, 0xf9, 0xfc, 0x98 };
	uint8_t nops[8] = { 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90 };
	unsigned ahead = rng_below(&g->r, 6), before = gen_64(g) ? 7 : 0;
	uint8_t b[16] = { 0xc6, 0x05 };
	int32_t disp;

	g->c->writable = true;
	if (gen_64(g)) {
		disp = (int32_t)ahead;
	} else {
		disp = (int32_t)(gen_here(g) + 7 + ahead);
		before = 7;
	}
	memcpy(b + 2, &disp, 4);
	b[6] = filler[rng_below(&g->r, gen_64(g) ? 1 : 3)];
	if (rng_below(&g->r, 2))
		b[6] = filler[3 + rng_below(&g->r, 5)];
	return gen_raw(g, b, before) && gen_raw(g, nops, 8);
}

bool gen_attack(struct gen *g)
{
	switch (rng_below(&g->r, 8)) {
	case 0:
	case 1:
		return wild_pointer(g);
	case 2:
		return wild_stack(g);
	case 3:
		return wild_jump(g);
	case 4:
		return middle(g);
	case 5:
		return bad_lock(g);
	case 6:
		return too_long(g);
	default:
		return self_modify(g);
	}
}
