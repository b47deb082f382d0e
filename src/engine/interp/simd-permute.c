/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shuffles whose control differs from lane to lane or reaches across lanes: blends, permutes,
 * broadcasts, 128-bit inserts and extracts. One shape: a function of whole registers.
 */
#include "engine/interp/simd.h"

typedef void whole_fn(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
		      unsigned bytes, unsigned imm);

static int whole_op(struct cpu *c, const struct insn *i, whole_fn *fn, unsigned how)
{
	unsigned bytes = simd_bytes(i);
	union x86_vreg a, b, d;
	int r = simd_check(c, i, how);

	if (!r)
		r = simd_load(c, i, &b, how);
	if (r)
		return r;
	a = *simd_first(c, i);
	fn(&d, &a, &b, bytes, (unsigned)i->imm & 0xff);
	simd_store(c, i, i->reg, &d, bytes);
	return CPU_OK;
}

#define WHOLE(name, how)                                                                           \
	int simd_##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return whole_op(c, i, whole_##name, how);                                          \
	}

/* ---- blends ---- */

static void whole_blendps(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			  unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < bytes / 4; k++)
		d->d[k] = (imm >> k & 1 ? b : a)->d[k];
}

static void whole_blendpd(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			  unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < bytes / 8; k++)
		d->q[k] = (imm >> k & 1 ? b : a)->q[k];
}

static void whole_pblendw(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			  unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < bytes / 2; k++)
		d->w[k] = (imm >> (k & 7) & 1 ? b : a)->w[k];
}

static void whole_shufpd(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			 unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < bytes / 8; k++)
		d->q[k] = (k & 1 ? b : a)->q[(k & ~1u) + (imm >> k & 1)];
}

WHOLE(blendps, 0)
WHOLE(blendpd, 0)
WHOLE(pblendw, SIMD_INT)
WHOLE(shufpd, 0)

int simd_vpblendd(struct cpu *c, const struct insn *i)
{
	return whole_op(c, i, whole_blendps, SIMD_AVX2);
}

/* Chosen by the elements' top bits in XMM0, or in the register a VEX form names in its last byte.
 */
static int blend_variable(struct cpu *c, const struct insn *i, unsigned size, unsigned how)
{
	const union x86_vreg *mask = &c->s.v[i->flags & INSN_VEX ? i->imm2 & 15 : 0];
	unsigned bytes = simd_bytes(i);
	union x86_vreg b, d;
	int r = simd_check(c, i, how);

	if (!r)
		r = simd_load(c, i, &b, how);
	if (r)
		return r;
	d = *simd_first(c, i);
	for (unsigned k = 0; k < bytes; k += size) {
		if (mask->sb[k + size - 1] < 0)
			memcpy(&d.b[k], &b.b[k], size);
	}
	simd_store(c, i, i->reg, &d, bytes);
	return CPU_OK;
}

int simd_pblendvb(struct cpu *c, const struct insn *i)
{
	return blend_variable(c, i, 1, SIMD_INT);
}

int simd_blendvps(struct cpu *c, const struct insn *i)
{
	return blend_variable(c, i, 4, 0);
}

int simd_blendvpd(struct cpu *c, const struct insn *i)
{
	return blend_variable(c, i, 8, 0);
}

/* ---- permutes ---- */

static void whole_vpermd(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			 unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < 8; k++)
		d->d[k] = b->d[a->d[k] & 7];
}

static void whole_vpermq(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			 unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < 4; k++)
		d->q[k] = b->q[imm >> 2 * k & 3];
}

static void whole_vperm2f128(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			     unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < 2; k++, imm >>= 4) {
		if (imm & 8)
			memset(&d->q[2 * k], 0, 16);
		else
			memcpy(&d->q[2 * k], &(imm & 2 ? b : a)->q[2 * (imm & 1)], 16);
	}
}

static void permil_ps(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
		      unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < bytes / 4; k++)
		d->d[k] = a->d[(k & ~3u) + (b->d[k] & 3)];
}

static void permil_ps_imm(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			  unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < bytes / 4; k++)
		d->d[k] = b->d[(k & ~3u) + (imm >> 2 * (k & 3) & 3)];
}

static void permil_pd(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
		      unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < bytes / 8; k++)
		d->q[k] = a->q[(k & ~1u) + (b->q[k] >> 1 & 1)];
}

static void permil_pd_imm(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			  unsigned bytes, unsigned imm)
{
	for (unsigned k = 0; k < bytes / 8; k++)
		d->q[k] = b->q[(k & ~1u) + (imm >> k & 1)];
}

WHOLE(vpermd, SIMD_AVX2)
WHOLE(vpermq, SIMD_AVX2)
WHOLE(vperm2f128, 0)

int simd_vperm2i128(struct cpu *c, const struct insn *i)
{
	return whole_op(c, i, whole_vperm2f128, SIMD_AVX2);
}

int simd_vpermilps(struct cpu *c, const struct insn *i)
{
	return whole_op(c, i, i->opmap == 3 ? permil_ps_imm : permil_ps, 0);
}

int simd_vpermilpd(struct cpu *c, const struct insn *i)
{
	return whole_op(c, i, i->opmap == 3 ? permil_pd_imm : permil_pd, 0);
}

/* ---- broadcasts and 128-bit halves ---- */

static int broadcast(struct cpu *c, const struct insn *i, unsigned size, unsigned how)
{
	unsigned bytes = simd_bytes(i);
	union x86_vreg b, d;
	int r;

	/* from a register only since AVX2 */
	r = simd_check(c, i, i->flags & INSN_MEM ? how : SIMD_AVX2);
	if (!r)
		r = simd_load(c, i, &b, how);
	if (r)
		return r;
	for (unsigned k = 0; k < bytes; k += size)
		memcpy(&d.b[k], &b, size);
	simd_store(c, i, i->reg, &d, bytes);
	return CPU_OK;
}

int simd_vbroadcastss(struct cpu *c, const struct insn *i)
{
	return broadcast(c, i, 4, 0);
}

int simd_vbroadcastsd(struct cpu *c, const struct insn *i)
{
	return broadcast(c, i, 8, 0);
}

int simd_vbroadcastf128(struct cpu *c, const struct insn *i)
{
	return broadcast(c, i, 16, 0);
}

int simd_vbroadcasti128(struct cpu *c, const struct insn *i)
{
	return broadcast(c, i, 16, SIMD_AVX2);
}

int simd_vpbroadcastb(struct cpu *c, const struct insn *i)
{
	return broadcast(c, i, 1, SIMD_AVX2);
}

int simd_vpbroadcastw(struct cpu *c, const struct insn *i)
{
	return broadcast(c, i, 2, SIMD_AVX2);
}

int simd_vpbroadcastd(struct cpu *c, const struct insn *i)
{
	return broadcast(c, i, 4, SIMD_AVX2);
}

int simd_vpbroadcastq(struct cpu *c, const struct insn *i)
{
	return broadcast(c, i, 8, SIMD_AVX2);
}

static void whole_vinsertf128(union x86_vreg *d, const union x86_vreg *a, const union x86_vreg *b,
			      unsigned bytes, unsigned imm)
{
	*d = *a;
	memcpy(&d->q[2 * (imm & 1)], b, 16);
}

WHOLE(vinsertf128, 0)

int simd_vinserti128(struct cpu *c, const struct insn *i)
{
	return whole_op(c, i, whole_vinsertf128, SIMD_AVX2);
}

static int extract128(struct cpu *c, const struct insn *i, unsigned how)
{
	union x86_vreg d;
	int r = simd_check(c, i, how);

	if (r)
		return r;
	memcpy(&d, &c->s.v[i->reg].q[2 * (i->imm & 1)], 16);
	if (i->flags & INSN_MEM)
		return operand_write(c, i, &d, 16);
	simd_store(c, i, i->rm, &d, 16);
	return CPU_OK;
}

int simd_vextractf128(struct cpu *c, const struct insn *i)
{
	return extract128(c, i, 0);
}

int simd_vextracti128(struct cpu *c, const struct insn *i)
{
	return extract128(c, i, SIMD_AVX2);
}

/* ---- tests: ZF = no bit of a & b, CF = no bit of ~a & b, in all bits or the sign bits only ----
 */

static int test(struct cpu *c, const struct insn *i, uint64_t mask)
{
	const union x86_vreg *a = &c->s.v[i->reg];
	uint64_t both = 0, only_b = 0;
	union x86_vreg b;
	int r = simd_check(c, i, 0);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	for (unsigned k = 0; k < simd_bytes(i) / 8; k++) {
		both |= a->q[k] & b.q[k] & mask;
		only_b |= ~a->q[k] & b.q[k] & mask;
	}
	c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (both ? 0 : FLAG_ZF) | (only_b ? 0 : FLAG_CF);
	return CPU_OK;
}

int simd_ptest(struct cpu *c, const struct insn *i)
{
	return test(c, i, ~0ull);
}

int simd_vtestps(struct cpu *c, const struct insn *i)
{
	return test(c, i, 0x8000000080000000);
}

int simd_vtestpd(struct cpu *c, const struct insn *i)
{
	return test(c, i, 0x8000000000000000);
}
