// SPDX-License-Identifier: Apache-2.0
/* Control flow within a sequence: forward branches and calls, indirect ones, and short counted loops. */
#include <string.h>
#include "gen.h"

static bool add_fixup(struct gen *g, unsigned patch_at, unsigned size, unsigned skip)
{
	if (g->nfixups == MAX_FIXUPS)
		return false;
	g->fixup[g->nfixups++] = (struct fixup){ .patch_at = (uint16_t)patch_at, .size = (uint8_t)size,
						 .target = (uint16_t)(g->c->ninsns + skip),
						 .undefined = g->undefined };
	return true;
}

/* Fill in the references to instructions that are written by now (or, at the end, all others). */
void gen_resolve(struct gen *g, bool all)
{
	struct diff_case *c = g->c;
	unsigned kept = 0;

	for (unsigned k = 0; k < g->nfixups; k++) {
		const struct fixup *f = &g->fixup[k];
		int32_t to = f->target < c->ninsns ? c->insn[f->target].at : c->code_len;

		if (f->target >= c->ninsns) {
			if (!all) {
				g->fixup[kept++] = *f;
				continue;
			}
			g->undefined |= f->undefined;
		}
		if (f->size == 0) {
			uint32_t v = (uint32_t)(ARENA_CODE + c->code_at + to);

			memcpy(c->code + f->patch_at, &v, 4);
		} else if (f->size == 1) {
			int32_t rel = to - (f->patch_at + 1);

			if (rel > 127)
				rel = 127; /* somewhere behind; the padding ends it */
			c->code[f->patch_at] = (uint8_t)rel;
		} else {
			int32_t rel = to - (f->patch_at + 4);

			memcpy(c->code + f->patch_at, &rel, 4);
		}
	}
	g->nfixups = kept;
}

static bool flags_tested(uint8_t condition, uint16_t *tested)
{
	static const uint16_t by_condition[8] = { 0x800, 0x001, 0x040, 0x041, 0x080, 0x004, 0x880, 0x8c0 };

	*tested = by_condition[condition >> 1];
	return true;
}

static bool settle_flags(struct gen *g, uint16_t tested)
{
	for (unsigned tries = 0; tries < 3; tries++) {
		uint16_t u = g->undefined;
		uint8_t cmp[2] = { 0x39, (uint8_t)(0xc0 | rng_below(&g->r, 64)) };

		for (unsigned k = 0; k < g->nfixups; k++)
			if (g->fixup[k].target == g->c->ninsns)
				u |= g->fixup[k].undefined;
		if (!(u & tested))
			return true;
		if (!gen_raw(g, cmp, 2))
			return false;
	}
	return false;
}

bool gen_branch(struct gen *g)
{
	uint8_t b[8] = { 0 };
	unsigned n = 0, size = 4, skip = rng_below(&g->r, 4), how = rng_below(&g->r, 10);
	uint16_t tested = 0;

	if (g->nfixups == MAX_FIXUPS || g->keep)
		return false;
	if (rng_permille(&g->r, 30))
		b[n++] = rng_below(&g->r, 2) ? 0x2e : 0x3e; /* branch hints */
	if (how < 3) {
		uint8_t condition = (uint8_t)rng_below(&g->r, 16);

		flags_tested(condition, &tested);
		b[n++] = 0x70 | condition;
		size = 1;
	} else if (how < 6) {
		uint8_t condition = (uint8_t)rng_below(&g->r, 16);

		flags_tested(condition, &tested);
		b[n++] = 0x0f;
		b[n++] = 0x80 | condition;
	} else if (how == 6) {
		static const uint16_t loops[4] = { 0x40, 0x40, 0, 0 }; /* LOOPNE LOOPE LOOP JCXZ */
		unsigned k = rng_below(&g->r, 4);

		tested = loops[k];
		if (rng_below(&g->r, 6) == 0)
			b[n++] = 0x67;
		b[n++] = (uint8_t)(0xe0 + k);
		size = 1;
		if (k < 3)
			g->known[1] = false;
	} else if (how == 7) {
		b[n++] = 0xe8;
	} else if (how == 8) {
		b[n++] = 0xe9;
	} else {
		b[n++] = 0xeb;
		size = 1;
	}
	if (!settle_flags(g, tested) || !gen_raw(g, b, n + size))
		return false;
	return add_fixup(g, g->c->code_len - size, size, skip);
}

/* Load an address within the code into a register, by its 32-bit immediate. */
static bool load_label(struct gen *g, unsigned reg, unsigned skip)
{
	uint8_t b[6];
	unsigned n = 0;

	if (g->nfixups == MAX_FIXUPS)
		return false;
	if (reg >= 8)
		b[n++] = 0x41;
	b[n++] = (uint8_t)(0xb8 | (reg & 7));
	memset(b + n, 0, 4);
	if (!gen_raw(g, b, n + 4) || !add_fixup(g, g->c->code_len - 4, 0, skip))
		return false;
	g->known[reg] = false;
	return true;
}

bool gen_indirect(struct gen *g)
{
	unsigned reg = rng_below(&g->r, gen_64(g) ? 16 : 8), how = rng_below(&g->r, 5), n = 0;
	uint8_t b[16];

	if (reg == 4 || g->keep || g->nfixups == MAX_FIXUPS)
		return false;
	if (!load_label(g, reg, 1 + (how > 1) + (how == 4) + rng_below(&g->r, 3)))
		return false;
	switch (how) {
	case 0: /* jmp reg */
	case 1: /* call reg */
		if (reg >= 8)
			b[n++] = 0x41;
		b[n++] = 0xff;
		b[n++] = (uint8_t)((how ? 0xd0 : 0xe0) | (reg & 7));
		return gen_raw(g, b, n);
	case 2: /* push reg; ret */
	case 3: /* push reg; ret imm16 */
		if (reg >= 8)
			b[n++] = 0x41;
		b[n++] = (uint8_t)(0x50 | (reg & 7));
		if (!gen_raw(g, b, n))
			return false;
		b[0] = how == 2 ? 0xc3 : 0xc2;
		b[1] = (uint8_t)(rng_below(&g->r, 4) * 8);
		b[2] = 0;
		return gen_raw(g, b, how == 2 ? 1 : 3);
	default: { /* mov [abs], reg; jmp or call [abs] */
		uint32_t at = ARENA_DATA + rng_below(&g->r, 3 * PAGE - 8);
		bool call = rng_below(&g->r, 2);

		if (gen_64(g))
			b[n++] = (uint8_t)(0x48 | (reg >> 3) << 2);
		b[n++] = 0x89;
		b[n++] = (uint8_t)(0x04 | (reg & 7) << 3);
		b[n++] = 0x25;
		memcpy(b + n, &at, 4);
		if (!gen_raw(g, b, n + 4))
			return false;
		n = 0;
		b[n++] = 0xff;
		b[n++] = call ? 0x14 : 0x24;
		b[n++] = 0x25;
		memcpy(b + n, &at, 4);
		return gen_raw(g, b, n + 4);
	}
	}
}

/* mov reg, n; body; dec reg; jnz back */
bool gen_loop(struct gen *g)
{
	unsigned reg = rng_below(&g->r, gen_64(g) ? 16 : 8), body = 1 + rng_below(&g->r, 4), head, n = 0;
	bool by_loop = rng_below(&g->r, 3) == 0;
	uint8_t b[8];
	int32_t rel;

	if (g->keep || g->nfixups)
		return false;
	if (by_loop)
		reg = 1;
	if (reg == 4 || !gen_load(g, reg, 1 + rng_below(&g->r, 6)))
		return false;
	g->known[reg] = false;
	head = g->c->code_len;
	g->undefined = FLAGS_SIX;
	g->keep = (uint16_t)(1u << reg);
	for (unsigned k = 0; k < body; k++) {
		for (unsigned tries = 0; tries < 20; tries++) {
			const struct encoding *e = gen_pick(g, 0);
			struct bytes bytes;

			if (e->memory || !e->vex || rng_below(&g->r, 2))
				if (gen_encode(g, e, &bytes) && gen_emit(g, &bytes))
					break;
		}
	}
	g->keep = 0;
	if (by_loop) {
		b[n++] = 0xe2;
	} else {
		unsigned m = 0;

		if (gen_64(g))
			b[m++] = (uint8_t)(0x40 | (rng_below(&g->r, 2) << 3) | reg >> 3);
		b[m++] = 0xff;
		b[m++] = (uint8_t)(0xc8 | (reg & 7));
		if (!gen_raw(g, b, m))
			return false;
		b[n++] = 0x75;
	}
	rel = (int32_t)head - (int32_t)(g->c->code_len + 2);
	if (rel < -128)
		return false;
	b[n++] = (uint8_t)rel;
	return gen_raw(g, b, n);
}
