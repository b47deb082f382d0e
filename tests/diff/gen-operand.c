// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes of one instruction: prefixes, REX or VEX, ModRM, SIB, displacement, immediates. The address of a memory operand is
 * chosen first, then the form (base, index, scale, RIP, absolute) and the displacement that leads
 * there from what the registers are known to hold.
 */
#include <string.h>
#include "gen.h"

/* An address in the arena: mostly in writable pages, often aligned, sometimes across a page's end. */
uint64_t gen_target(struct gen *g)
{
	static const uint8_t pages[] = { 0, 1, 2, 0, 1, 2, 4, 5, 0, 1, 2, 0, 1, 2, 4, 6, 0, 1, 2, 3 };
	uint32_t at = arena_pages[pages[rng_below(&g->r, ARRAY_LEN(pages))]].at;
	unsigned how = rng_below(&g->r, 100);

	if (how < 45)
		return at + rng_below(&g->r, PAGE / 64) * 64;
	if (how < 65)
		return at + rng_below(&g->r, PAGE / 16) * 16;
	if (how < 92)
		return at + rng_below(&g->r, PAGE - 64);
	if (how < 96)
		return at + PAGE - rng_below(&g->r, 33);
	if (how < 98)
		return at - rng_below(&g->r, 32);
	return at + PAGE - 512 + rng_below(&g->r, 520);
}

static void put32(struct bytes *o, uint32_t v)
{
	memcpy(o->b + o->n, &v, 4);
	o->n += 4;
}

static unsigned pick_known(struct gen *g, unsigned limit, bool index)
{
	for (unsigned tries = 0; tries < 24; tries++) {
		unsigned k = rng_below(&g->r, limit);

		if (g->known[k] && !(index && k == 4))
			return k;
	}
	return 0xff;
}

struct address {
	unsigned rex_x, rex_b; /* 0 or 1 */
	uint8_t modrm, sib;    /* mod and rm only */
	bool has_sib;
	uint8_t disp_len;
	uint32_t disp;
	bool rip; /* disp is to be made relative to the end of the instruction */
	bool exact;
	uint64_t target;
};

/* mod and disp for base + what is known; the displacement's length is chosen among those that fit. */
static void set_disp(struct gen *g, struct address *a, int64_t disp, bool no_mod0)
{
	a->disp = (uint32_t)disp;
	if (disp == 0 && !no_mod0 && rng_below(&g->r, 4)) {
		a->disp_len = 0;
	} else if (disp >= -128 && disp <= 127 && rng_below(&g->r, 4)) {
		a->disp_len = 1;
		a->modrm |= 0x40;
	} else {
		a->disp_len = 4;
		a->modrm |= 0x80;
	}
}

static bool address_wild(struct gen *g, struct address *a, bool vector_index)
{
	uint8_t modrm = (uint8_t)(rng_next(&g->r) & 0xc7);

	if ((modrm & 0xc0) == 0xc0)
		modrm &= 0x7f;
	if (vector_index)
		modrm = (modrm & 0xc0) | 4;
	a->modrm = modrm;
	a->has_sib = (modrm & 7) == 4;
	a->sib = (uint8_t)rng_next(&g->r);
	a->rex_b = rng_below(&g->r, 2);
	a->rex_x = rng_below(&g->r, 2);
	a->disp = (uint32_t)random_integer(&g->r);
	a->disp_len = (modrm & 0xc0) == 0x40 ? 1 : (modrm & 0xc0) == 0x80 ? 4 : 0;
	if ((modrm & 0xc7) == 5 || ((modrm & 0xc7) == 4 && (a->sib & 7) == 5))
		a->disp_len = 4;
	return true;
}

/* short_address: 67h, so that sums wrap at 4 GiB. */
static bool address_make(struct gen *g, struct address *a, uint64_t seg_base, bool short_address,
			 bool vector_index)
{
	unsigned limit = gen_64(g) ? 16 : 8, how = rng_below(&g->r, 100), base, index;
	uint64_t target = gen_target(g), sum;
	unsigned scale = rng_below(&g->r, 4);
	int64_t disp;

	memset(a, 0, sizeof(*a));
	if (how >= 98)
		return address_wild(g, a, vector_index);
	a->exact = !vector_index;
	a->target = target;
	target -= seg_base;
	if (how >= 85 && !vector_index && gen_64(g)) {
		a->modrm = 5;
		a->rip = true;
		a->disp_len = 4;
		a->disp = (uint32_t)(target - gen_here(g));
		return true;
	}
	base = pick_known(g, limit, false);
	if (base == 0xff)
		return false;
	index = how < 50 ? pick_known(g, limit, true) : 0xff;
	if (how >= 78) {
		/* no base: absolute, or index * scale + disp32 */
		index = how >= 81 ? pick_known(g, limit, true) : 0xff;
		sum = index == 0xff ? 0 : g->value[index] << scale;
		disp = (int64_t)(target - sum);
		if (!gen_64(g) || short_address)
			disp = (int32_t)disp;
		if (disp != (int32_t)disp)
			return false;
		a->has_sib = true;
		a->modrm = 4;
		a->sib = (uint8_t)(scale << 6 | (index == 0xff ? 4 : index & 7) << 3 | 5);
		a->rex_x = index != 0xff && index >= 8;
		if (vector_index) {
			a->sib = (uint8_t)((a->sib & 0xc7) | rng_below(&g->r, 8) << 3);
			a->rex_x = rng_below(&g->r, 2);
		}
		a->rex_b = gen_64(g) ? rng_below(&g->r, 2) : 0;
		a->disp = (uint32_t)disp;
		a->disp_len = 4;
		return true;
	}
	sum = g->value[base] + (index == 0xff || vector_index ? 0 : g->value[index] << scale);
	disp = (int64_t)(target - sum);
	if (!gen_64(g) || short_address)
		disp = (int32_t)disp;
	if (disp != (int32_t)disp)
		return false;
	if (base == 4)
		a->exact = false; /* pushes and pops have moved it */
	a->rex_b = base >= 8;
	if (vector_index || index != 0xff || (base & 7) == 4 || rng_below(&g->r, 12) == 0) {
		unsigned x = index == 0xff ? 4 : index;

		if (vector_index)
			x = rng_below(&g->r, gen_64(g) ? 16 : 8);
		a->has_sib = true;
		a->modrm = 4;
		a->sib = (uint8_t)(scale << 6 | (x & 7) << 3 | (base & 7));
		a->rex_x = x >= 8;
	} else {
		a->modrm = base & 7;
	}
	set_disp(g, a, disp, (base & 7) == 5);
	return true;
}

/* 16-bit addresses reach nothing of the arena; they are there for their faults. */
static void address_16(struct gen *g, struct address *a)
{
	memset(a, 0, sizeof(*a));
	a->modrm = (uint8_t)(rng_below(&g->r, 3) << 6 | rng_below(&g->r, 8));
	a->disp = (uint32_t)rng_next(&g->r);
	a->disp_len = a->modrm >> 6 == 1 ? 1 : a->modrm >> 6 == 2 || (a->modrm & 0xc7) == 6 ? 2 : 0;
}

static void encode_vex(struct gen *g, const struct encoding *e, const struct address *a, struct bytes *o,
		       unsigned reg_high, unsigned rm_high)
{
	unsigned pp = e->prefix == 0x66 ? 1 : e->prefix == 0xf3 ? 2 : e->prefix == 0xf2 ? 3 : 0;
	unsigned x = e->memory ? a->rex_x : gen_64(g) && rng_below(&g->r, 8) == 0;
	unsigned b = e->memory ? a->rex_b : rm_high;
	unsigned vvvv = rng_below(&g->r, 3) ? rng_below(&g->r, gen_64(g) ? 16 : 8) : 0;

	if (!gen_64(g))
		reg_high = x = b = 0;
	if (e->map == 1 && !x && !b && !e->w && rng_below(&g->r, 2)) {
		o->b[o->n++] = 0xc5;
		o->b[o->n++] = (uint8_t)(!reg_high << 7 | (vvvv ^ 15) << 3 | e->l << 2 | pp);
	} else {
		o->b[o->n++] = 0xc4;
		o->b[o->n++] = (uint8_t)(!reg_high << 7 | !x << 6 | !b << 5 | e->map);
		o->b[o->n++] = (uint8_t)(e->w << 7 | (vvvv ^ 15) << 3 | e->l << 2 | pp);
	}
}

static void encode_legacy(struct gen *g, const struct encoding *e, const struct address *a,
			  struct bytes *o, unsigned reg_high, unsigned rm_high)
{
	unsigned rex = e->w << 3;

	if (e->prefix)
		o->b[o->n++] = e->prefix;
	if (gen_64(g)) {
		rex |= reg_high << 2;
		if (e->memory)
			rex |= a->rex_x << 1 | a->rex_b;
		else
			rex |= rm_high | (rng_below(&g->r, 16) == 0 ? 2 : 0);
		if (rex || rng_below(&g->r, 12) == 0)
			o->b[o->n++] = (uint8_t)(0x40 | rex);
	}
	if (e->map)
		o->b[o->n++] = 0x0f;
	if (e->map >= 2)
		o->b[o->n++] = e->map == 2 ? 0x38 : 0x3a;
}

static void put_tail(struct gen *g, const struct encoding *e, struct bytes *o)
{
	uint64_t imm = random_integer(&g->r), more = rng_next(&g->r);
	unsigned n = o->n;

	if (rng_below(&g->r, 3) == 0)
		imm = rng_below(&g->r, 40);
	/* absolute addresses of MOV AL/eAX, moffs */
	if (!e->vex && !e->map && e->opcode >= 0xa0 && e->opcode <= 0xa3 && rng_below(&g->r, 50)) {
		imm = gen_target(g);
		o->exact = false;
	}
	memcpy(o->b + n, &imm, 8);
	if (n + 16 <= sizeof(o->b))
		memcpy(o->b + n + 8, &more, 8);
}

/* Legacy prefixes in front; gives the base that FS or GS adds. */
static uint64_t put_prefixes(struct gen *g, const struct encoding *e, struct bytes *o, bool *short_address)
{
	uint64_t base = 0;

	if (e->memory && rng_permille(&g->r, 60)) {
		static const uint8_t overrides[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x64, 0x65 };
		uint8_t p = overrides[rng_below(&g->r, gen_64(g) || rng_below(&g->r, 20) == 0 ? 8 : 4)];

		o->b[o->n++] = p;
		if (gen_64(g) && p == 0x64)
			base = g->c->in.fs_base;
		if (gen_64(g) && p == 0x65)
			base = g->c->in.gs_base;
	}
	if (rng_permille(&g->r, gen_64(g) ? 40 : 8)) {
		o->b[o->n++] = 0x67;
		*short_address = true;
	}
	if (e->memory && !e->vex && rng_permille(&g->r, 120))
		o->b[o->n++] = 0xf0;
	if (!e->vex && e->prefix == 0 && rng_permille(&g->r, 5))
		o->b[o->n++] = rng_below(&g->r, 2) ? 0xf2 : 0xf3;
	return base;
}

bool gen_encode(struct gen *g, const struct encoding *e, struct bytes *o)
{
	struct address a = { 0 };
	bool short_address = false, vector_index = e->memory && e->rm == 4 && e->vex;
	unsigned reg_high = gen_64(g) && rng_below(&g->r, 2), rm_high = gen_64(g) && rng_below(&g->r, 2);
	unsigned reg = e->reg == 0xff ? rng_below(&g->r, 8) : e->reg;
	unsigned rm = e->rm == 0xff ? rng_below(&g->r, 8) : e->rm;
	uint64_t base;

	memset(o, 0, sizeof(*o));
	base = put_prefixes(g, e, o, &short_address);
	if (e->memory) {
		if (!gen_64(g) && short_address)
			address_16(g, &a);
		else if (!address_make(g, &a, base, short_address, vector_index))
			return false;
		if (base >= 0x80000000u && !a.rip)
			a.exact = false;
	}
	if (e->vex)
		encode_vex(g, e, &a, o, reg_high, rm_high);
	else
		encode_legacy(g, e, &a, o, reg_high, rm_high);
	o->b[o->n++] = e->opcode;
	if (!e->has_modrm) {
		put_tail(g, e, o);
		return true;
	}
	if (!e->memory) {
		o->b[o->n++] = (uint8_t)(0xc0 | reg << 3 | rm);
		put_tail(g, e, o);
		return true;
	}
	o->b[o->n++] = (uint8_t)(a.modrm | reg << 3);
	if (a.has_sib)
		o->b[o->n++] = a.sib;
	unsigned disp_at = o->n;

	if (a.disp_len == 4)
		put32(o, a.disp);
	else
		for (unsigned k = 0; k < a.disp_len; k++)
			o->b[o->n++] = (uint8_t)(a.disp >> (8 * k));
	put_tail(g, e, o);
	o->exact = a.exact && !short_address;
	o->target = a.target;
	if (a.rip) { /* the length is known only after decoding */
		ZydisDecodedInstruction i;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, o->b, 24, &i,
							 (ZydisDecodedOperand[ZYDIS_MAX_OPERAND_COUNT]){ 0 })))
			return true; /* illegal LOCK and the like */
		uint32_t disp = a.disp - i.length;

		memcpy(o->b + disp_at, &disp, 4);
	}
	return true;
}
