/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving elements about: packing, unpacking, shuffling, blending, permuting across lanes,
 * broadcasting, inserting and extracting.
 */
#include "engine/interp/simd.h"

#define HANDLER(name, lane, how)                                                                   \
	int simd_##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return simd_op(c, i, lane, how);                                                   \
	}

/* ---- packing: a's elements, then b's, saturated to half the size ---- */

static inline int clamp(int v, int low, int high)
{
	return v < low ? low : v > high ? high : v;
}

static void lane_packsswb(union lane *d, const union lane *a, const union lane *b, unsigned n,
			  unsigned imm)
{
	for (unsigned k = 0, half = n / 2; k < n; k++)
		d->sb[k] = (int8_t)clamp(k < half ? a->sw[k] : b->sw[k - half], -128, 127);
}

static void lane_packuswb(union lane *d, const union lane *a, const union lane *b, unsigned n,
			  unsigned imm)
{
	for (unsigned k = 0, half = n / 2; k < n; k++)
		d->b[k] = (uint8_t)clamp(k < half ? a->sw[k] : b->sw[k - half], 0, 255);
}

static void lane_packssdw(union lane *d, const union lane *a, const union lane *b, unsigned n,
			  unsigned imm)
{
	for (unsigned k = 0, half = n / 4; k < n / 2; k++)
		d->sw[k] = (int16_t)clamp(k < half ? a->sd[k] : b->sd[k - half], -32768, 32767);
}

static void lane_packusdw(union lane *d, const union lane *a, const union lane *b, unsigned n,
			  unsigned imm)
{
	for (unsigned k = 0, half = n / 4; k < n / 2; k++)
		d->w[k] = (uint16_t)clamp(k < half ? a->sd[k] : b->sd[k - half], 0, 65535);
}

HANDLER(packsswb, lane_packsswb, SIMD_INT)
HANDLER(packuswb, lane_packuswb, SIMD_INT)
HANDLER(packssdw, lane_packssdw, SIMD_INT)
HANDLER(packusdw, lane_packusdw, SIMD_INT)

/* ---- unpacking: interleave the low or high halves of a and b ---- */

static inline void interleave(union lane *d, const union lane *a, const union lane *b, unsigned n,
			      unsigned size, bool high)
{
	for (unsigned k = 0, at = high ? n / 2 : 0; k < n; k += 2 * size, at += size) {
		memcpy(&d->b[k], &a->b[at], size);
		memcpy(&d->b[k + size], &b->b[at], size);
	}
}

#define UNPACK(name, size, high)                                                                   \
	static void lane_##name(union lane *d, const union lane *a, const union lane *b,           \
				unsigned n, unsigned imm)                                          \
	{                                                                                          \
		interleave(d, a, b, n, size, high);                                                \
	}
UNPACK(punpcklbw, 1, false)
UNPACK(punpcklwd, 2, false)
UNPACK(punpckldq, 4, false)
UNPACK(punpcklqdq, 8, false)
UNPACK(punpckhbw, 1, true)
UNPACK(punpckhwd, 2, true)
UNPACK(punpckhdq, 4, true)
UNPACK(punpckhqdq, 8, true)

HANDLER(punpcklbw, lane_punpcklbw, SIMD_INT)
HANDLER(punpcklwd, lane_punpcklwd, SIMD_INT)
HANDLER(punpckldq, lane_punpckldq, SIMD_INT)
HANDLER(punpcklqdq, lane_punpcklqdq, SIMD_INT)
HANDLER(punpckhbw, lane_punpckhbw, SIMD_INT)
HANDLER(punpckhwd, lane_punpckhwd, SIMD_INT)
HANDLER(punpckhdq, lane_punpckhdq, SIMD_INT)
HANDLER(punpckhqdq, lane_punpckhqdq, SIMD_INT)
HANDLER(unpcklps, lane_punpckldq, 0)
HANDLER(unpckhps, lane_punpckhdq, 0)
HANDLER(unpcklpd, lane_punpcklqdq, 0)
HANDLER(unpckhpd, lane_punpckhqdq, 0)

/* ---- shuffles within a lane ---- */

static void lane_pshufb(union lane *d, const union lane *a, const union lane *b, unsigned n,
			unsigned imm)
{
	for (unsigned k = 0; k < n; k++)
		d->b[k] = b->b[k] & 0x80 ? 0 : a->b[b->b[k] & (n - 1)];
}

static void lane_pshufd(union lane *d, const union lane *a, const union lane *b, unsigned n,
			unsigned imm)
{
	for (unsigned k = 0; k < 4; k++)
		d->d[k] = b->d[imm >> 2 * k & 3];
}

static void lane_pshuflw(union lane *d, const union lane *a, const union lane *b, unsigned n,
			 unsigned imm)
{
	d->q[1] = b->q[1];
	for (unsigned k = 0; k < 4; k++)
		d->w[k] = b->w[imm >> 2 * k & 3];
}

static void lane_pshufhw(union lane *d, const union lane *a, const union lane *b, unsigned n,
			 unsigned imm)
{
	d->q[0] = b->q[0];
	for (unsigned k = 0; k < 4; k++)
		d->w[4 + k] = b->w[4 + (imm >> 2 * k & 3)];
}

static void lane_palignr(union lane *d, const union lane *a, const union lane *b, unsigned n,
			 unsigned imm)
{
	uint8_t both[64] = { 0 };

	memcpy(both, b, n);
	memcpy(both + n, a, n);
	memcpy(d, both + (imm < 2 * n ? imm : 2 * n), n);
}

static void lane_shufps(union lane *d, const union lane *a, const union lane *b, unsigned n,
			unsigned imm)
{
	for (unsigned k = 0; k < 4; k++)
		d->d[k] = (k < 2 ? a : b)->d[imm >> 2 * k & 3];
}

static void lane_movsldup(union lane *d, const union lane *a, const union lane *b, unsigned n,
			  unsigned imm)
{
	for (unsigned k = 0; k < 4; k++)
		d->d[k] = b->d[k & 2];
}

static void lane_movshdup(union lane *d, const union lane *a, const union lane *b, unsigned n,
			  unsigned imm)
{
	for (unsigned k = 0; k < 4; k++)
		d->d[k] = b->d[k | 1];
}

static void lane_movddup(union lane *d, const union lane *a, const union lane *b, unsigned n,
			 unsigned imm)
{
	d->q[0] = d->q[1] = b->q[0];
}

HANDLER(pshufb, lane_pshufb, SIMD_INT)
HANDLER(pshufd, lane_pshufd, SIMD_INT)
HANDLER(pshuflw, lane_pshuflw, SIMD_INT)
HANDLER(pshufhw, lane_pshufhw, SIMD_INT)
HANDLER(pshufw, lane_pshuflw, SIMD_INT)
HANDLER(palignr, lane_palignr, SIMD_INT)
HANDLER(shufps, lane_shufps, 0)
HANDLER(movsldup, lane_movsldup, 0)
HANDLER(movshdup, lane_movshdup, 0)
HANDLER(movddup, lane_movddup, 0)

/* ---- sign and zero extension ---- */

static inline void extend(union lane *d, const union lane *b, unsigned to, unsigned from, bool sign)
{
	const int8_t *source = (const int8_t *)b; /* part of a register: not aligned as a lane is */

	memset(d, 0, sizeof(*d));
	for (unsigned k = 0; k < 16 / to; k++) {
		memcpy(&d->b[k * to], source + k * from, from);
		if (sign && source[k * from + from - 1] < 0)
			memset(&d->b[k * to + from], 0xff, to - from);
	}
}

#define EXTEND(name, to, from, sign)                                                               \
	static void lane_##name(union lane *d, const union lane *a, const union lane *b,           \
				unsigned n, unsigned imm)                                          \
	{                                                                                          \
		extend(d, b, to, from, sign);                                                      \
	}
EXTEND(pmovsxbw, 2, 1, true)
EXTEND(pmovsxbd, 4, 1, true)
EXTEND(pmovsxbq, 8, 1, true)
EXTEND(pmovsxwd, 4, 2, true)
EXTEND(pmovsxwq, 8, 2, true)
EXTEND(pmovsxdq, 8, 4, true)
EXTEND(pmovzxbw, 2, 1, false)
EXTEND(pmovzxbd, 4, 1, false)
EXTEND(pmovzxbq, 8, 1, false)
EXTEND(pmovzxwd, 4, 2, false)
EXTEND(pmovzxwq, 8, 2, false)
EXTEND(pmovzxdq, 8, 4, false)
HANDLER(pmovsxbw, lane_pmovsxbw, SIMD_INT | SIMD_WIDEN2)
HANDLER(pmovsxbd, lane_pmovsxbd, SIMD_INT | SIMD_WIDEN4)
HANDLER(pmovsxbq, lane_pmovsxbq, SIMD_INT | SIMD_WIDEN8)
HANDLER(pmovsxwd, lane_pmovsxwd, SIMD_INT | SIMD_WIDEN2)
HANDLER(pmovsxwq, lane_pmovsxwq, SIMD_INT | SIMD_WIDEN4)
HANDLER(pmovsxdq, lane_pmovsxdq, SIMD_INT | SIMD_WIDEN2)
HANDLER(pmovzxbw, lane_pmovzxbw, SIMD_INT | SIMD_WIDEN2)
HANDLER(pmovzxbd, lane_pmovzxbd, SIMD_INT | SIMD_WIDEN4)
HANDLER(pmovzxbq, lane_pmovzxbq, SIMD_INT | SIMD_WIDEN8)
HANDLER(pmovzxwd, lane_pmovzxwd, SIMD_INT | SIMD_WIDEN2)
HANDLER(pmovzxwq, lane_pmovzxwq, SIMD_INT | SIMD_WIDEN4)
HANDLER(pmovzxdq, lane_pmovzxdq, SIMD_INT | SIMD_WIDEN2)

/* ---- insert, extract ---- */

static int insert(struct cpu *c, const struct insn *i, unsigned size)
{
	union x86_vreg a;
	uint64_t value = 0;
	unsigned lanes = (i->flags & INSN_MMX ? 8 : 16) / size;
	int r = simd_check(c, i, SIMD_INT);

	if (r)
		return r;
	if (i->flags & INSN_MEM) {
		r = operand_read(c, i, &value, size);
		if (r)
			return r;
	} else {
		value = c->s.gpr[i->rm];
	}
	a = *simd_first(c, i);
	if (i->flags & INSN_MMX)
		a.q[0] = mmx_get(c, i->reg);
	memcpy(&a.b[size * (i->imm & (lanes - 1))], &value, size);
	if (i->flags & INSN_MMX)
		mmx_set(c, i->reg, a.q[0]);
	else
		simd_store(c, i, i->reg, &a, 16);
	return CPU_OK;
}

/* To a general register (zero-extended) or memory. PEXTRW has an older form with the operands
 * swapped. */
static int extract(struct cpu *c, const struct insn *i, unsigned size)
{
	bool old = i->opmap == 1;
	unsigned lanes = (i->flags & INSN_MMX ? 8 : 16) / size;
	union x86_vreg a;
	uint64_t value = 0;
	int r = simd_check(c, i, SIMD_INT);

	if (r)
		return r;
	a = c->s.v[old ? i->rm : i->reg];
	if (i->flags & INSN_MMX) {
		mmx_enter(c);
		a.q[0] = mmx_get(c, i->rm);
	}
	memcpy(&value, &a.b[size * (i->imm & (lanes - 1))], size);
	if (i->flags & INSN_MEM)
		return operand_write(c, i, &value, size);
	c->s.gpr[old ? i->reg : i->rm] = value;
	return CPU_OK;
}

int simd_pinsrb(struct cpu *c, const struct insn *i)
{
	return insert(c, i, 1);
}

int simd_pinsrw(struct cpu *c, const struct insn *i)
{
	return insert(c, i, 2);
}

int simd_pinsrd(struct cpu *c, const struct insn *i)
{
	return insert(c, i, simd_wide(i) ? 8 : 4);
}

int simd_pextrb(struct cpu *c, const struct insn *i)
{
	return extract(c, i, 1);
}

int simd_pextrw(struct cpu *c, const struct insn *i)
{
	return extract(c, i, 2);
}

int simd_pextrd(struct cpu *c, const struct insn *i)
{
	return extract(c, i, simd_wide(i) ? 8 : 4);
}

int simd_extractps(struct cpu *c, const struct insn *i)
{
	return extract(c, i, 4);
}

int simd_insertps(struct cpu *c, const struct insn *i)
{
	unsigned imm = (unsigned)i->imm;
	union x86_vreg a, b;
	int r = simd_check(c, i, 0);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	a = *simd_first(c, i);
	a.d[imm >> 4 & 3] = b.d[i->flags & INSN_MEM ? 0 : imm >> 6 & 3];
	for (unsigned k = 0; k < 4; k++)
		a.d[k] = imm >> k & 1 ? 0 : a.d[k];
	simd_store(c, i, i->reg, &a, 16);
	return CPU_OK;
}
