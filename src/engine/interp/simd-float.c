/* SPDX-License-Identifier: Apache-2.0 */
/* SSE and AVX floating point: arithmetic, comparisons, dot products, rounding. */
#include "engine/interp/simd.h"
#include "engine/interp/simd-float.h"

/* Lane functions, then handlers, from simd-float.def. */
#define LANE(name, T, count, first, second, value)                                                 \
	static void lane_##name(union lane *ld, const union lane *la, const union lane *lb,        \
				unsigned n, unsigned imm)                                          \
	{                                                                                          \
		for (unsigned k = 0; k < (count); k++) {                                           \
			__typeof__(ld->T[0]) x = (first), y = (second);                            \
			(void)x;                                                                   \
			ld->T[k] = (value);                                                        \
		}                                                                                  \
	}
#define F(name, how32, how64, single, dbl)                                                         \
	LANE(name##ps, ps, n / 4, la->ps[k], lb->ps[k], single)                                    \
	LANE(name##pd, pd, n / 8, la->pd[k], lb->pd[k], dbl)
#define P(name, how32, how64, single, dbl) F(name, how32, how64, single, dbl)
#define A(name, single) LANE(name##ps, ps, n / 4, la->ps[k], lb->ps[k], single)
#define H(name, op)                                                                                \
	LANE(name##ps, ps, 4, (k < 2 ? la : lb)->ps[2 * (k & 1)],                                  \
	     (k < 2 ? la : lb)->ps[2 * (k & 1) + 1], f32_##op(x, y))                               \
	LANE(name##pd, pd, 2, (k < 1 ? la : lb)->pd[0], (k < 1 ? la : lb)->pd[1], f64_##op(x, y))
#include "engine/interp/simd-float.def"
#undef F
#undef P
#undef A
#undef H

#define HANDLER(name, lane, how)                                                                   \
	int simd_##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return simd_op(c, i, lane, how);                                                   \
	}
#define P(name, how32, how64, single, dbl)                                                         \
	HANDLER(name##ps, lane_##name##ps, how32)                                                  \
	HANDLER(name##pd, lane_##name##pd, how64)
#define F(name, how32, how64, single, dbl)                                                         \
	P(name, how32, how64, single, dbl)                                                         \
	HANDLER(name##ss, lane_##name##ps, how32 | SIMD_ONE4)                                      \
	HANDLER(name##sd, lane_##name##pd, how64 | SIMD_ONE8)
#define A(name, single)                                                                            \
	HANDLER(name##ps, lane_##name##ps, 0)                                                      \
	HANDLER(name##ss, lane_##name##ps, SIMD_ONE4)
#define H(name, op) P(name, SIMD_F32, SIMD_F64, 0, 0)
#include "engine/interp/simd-float.def"

/*
 * Dot products: products chosen by imm[7:4], summed pairwise, to the elements chosen by imm[3:0].
 * Each step, for all lanes together, is an operation of its own: an unmasked exception in it stops
 * the rest.
 */
static int step_commit(struct cpu *c, const union x86_vreg *v, unsigned bytes, unsigned how)
{
	unsigned flags = fp_leave();

	return fp_commit(c, flags | fp_tiny(c, v, bytes, how));
}

/* Replace each lane's first n elements by sums of neighbours; the others become 0. */
static int dot_sum(struct cpu *c, union x86_vreg *v, unsigned bytes, unsigned n, bool dbl)
{
	union x86_vreg p = *v;

	memset(v, 0, sizeof(*v));
	fp_enter(c);
	for (unsigned l = 0; 16 * l < bytes; l++) {
		for (unsigned k = 0; k < n / 2; k++) {
			if (dbl)
				v->pd[2 * l + k] =
					f64_add(p.pd[2 * (l + k)], p.pd[2 * (l + k) + 1]);
			else
				v->ps[4 * l + k] =
					f32_add(p.ps[4 * l + 2 * k], p.ps[4 * l + 2 * k + 1]);
		}
	}
	return step_commit(c, v, bytes, dbl ? SIMD_F64 : SIMD_F32);
}

static int dot(struct cpu *c, const struct insn *i, bool dbl)
{
	unsigned bytes = simd_bytes(i), imm = (unsigned)i->imm, size = dbl ? 8 : 4, n = 16 / size;
	union x86_vreg a, b, v = { 0 }, d = { 0 };
	int r = simd_check(c, i, 0);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	a = *simd_first(c, i);
	fp_enter(c);
	for (unsigned k = 0; k < bytes / size; k++) {
		if (!(imm >> (4 + k % n) & 1))
			continue;
		if (dbl)
			v.pd[k] = f64_mul(a.pd[k], b.pd[k]);
		else
			v.ps[k] = f32_mul(a.ps[k], b.ps[k]);
	}
	r = step_commit(c, &v, bytes, dbl ? SIMD_F64 : SIMD_F32);
	for (unsigned left = n; !r && left > 1; left /= 2)
		r = dot_sum(c, &v, bytes, left, dbl);
	if (r)
		return r;
	for (unsigned k = 0; k < bytes / size; k++) {
		if (imm >> k % n & 1)
			memcpy(&d.b[size * k], &v.b[size * (k - k % n)], size);
	}
	simd_store(c, i, i->reg, &d, bytes);
	return CPU_OK;
}

int simd_dpps(struct cpu *c, const struct insn *i)
{
	return dot(c, i, false);
}

int simd_dppd(struct cpu *c, const struct insn *i)
{
	return dot(c, i, true);
}

/* ---- comparisons ---- */

/*
 * The first 16 predicates as the set of relations for which they hold; the other 16 are the same
 * with quiet and signalling exchanged.
 */
static const uint8_t predicate_holds[16] = {
	REL_EQ,
	REL_LT,
	REL_LT | REL_EQ,
	REL_UN, /* EQ LT LE UNORD */
	REL_LT | REL_GT | REL_UN,
	REL_EQ | REL_GT | REL_UN,
	REL_GT | REL_UN,
	REL_LT | REL_EQ | REL_GT, /* NEQ NLT NLE ORD */
	REL_EQ | REL_UN,
	REL_LT | REL_UN,
	REL_LT | REL_EQ | REL_UN,
	0, /* EQ_U NGE NGT FALSE */
	REL_LT | REL_GT,
	REL_EQ | REL_GT,
	REL_GT,
	REL_LT | REL_EQ | REL_GT | REL_UN, /* NEQ_O GE GT TRUE */
};

static bool predicate_signals(unsigned predicate)
{
	const unsigned signalling = 0x6666; /* LT LE NLT NLE NGE NGT GE GT */

	return (signalling >> (predicate & 15) ^ predicate >> 4) & 1;
}

static void lane_cmpps(union lane *d, const union lane *a, const union lane *b, unsigned n,
		       unsigned imm)
{
	for (unsigned k = 0; k < n / 4; k++) {
		unsigned rel = predicate_signals(imm) ? f32_compare(a->ps[k], b->ps[k])
						      : f32_compare_quiet(a->ps[k], b->ps[k]);

		d->sd[k] = predicate_holds[imm & 15] & rel ? -1 : 0;
	}
}

static void lane_cmppd(union lane *d, const union lane *a, const union lane *b, unsigned n,
		       unsigned imm)
{
	for (unsigned k = 0; k < n / 8; k++) {
		unsigned rel = predicate_signals(imm) ? f64_compare(a->pd[k], b->pd[k])
						      : f64_compare_quiet(a->pd[k], b->pd[k]);

		d->sq[k] = predicate_holds[imm & 15] & rel ? -1 : 0;
	}
}

/* Reserved bits of the predicate are ignored: 3 bits without VEX, 5 with. */
static int compare(struct cpu *c, const struct insn *i, lane_fn *fn, unsigned how)
{
	struct insn masked = *i;

	masked.imm &= i->flags & INSN_VEX ? 31 : 7;
	return simd_op(c, &masked, fn, how | SIMD_FI);
}

int simd_cmpps(struct cpu *c, const struct insn *i)
{
	return compare(c, i, lane_cmpps, 0);
}

int simd_cmppd(struct cpu *c, const struct insn *i)
{
	return compare(c, i, lane_cmppd, 0);
}

int simd_cmpss(struct cpu *c, const struct insn *i)
{
	return compare(c, i, lane_cmpps, SIMD_ONE4);
}

int simd_cmpsd(struct cpu *c, const struct insn *i)
{
	return compare(c, i, lane_cmppd, SIMD_ONE8);
}

/* COMISx, UCOMISx: the relation into ZF, PF, CF. */
static int compare_flags(struct cpu *c, const struct insn *i, bool dbl, bool quiet)
{
	const union x86_vreg *a = &c->s.v[i->reg];
	union x86_vreg b;
	unsigned rel;
	int r = simd_check(c, i, 0);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	fp_enter(c);
	if (dbl)
		rel = quiet ? f64_compare_quiet(a->pd[0], b.pd[0]) : f64_compare(a->pd[0], b.pd[0]);
	else
		rel = quiet ? f32_compare_quiet(a->ps[0], b.ps[0]) : f32_compare(a->ps[0], b.ps[0]);
	r = fp_commit(c, fp_leave());
	if (r)
		return r;
	c->s.rflags &= ~FLAGS_ARITH;
	c->s.rflags |= (rel == REL_UN ? FLAG_ZF | FLAG_PF | FLAG_CF : 0) |
		       (rel == REL_EQ ? FLAG_ZF : 0) | (rel == REL_LT ? FLAG_CF : 0);
	return CPU_OK;
}

int simd_comiss(struct cpu *c, const struct insn *i)
{
	return compare_flags(c, i, false, false);
}

int simd_ucomiss(struct cpu *c, const struct insn *i)
{
	return compare_flags(c, i, false, true);
}

int simd_comisd(struct cpu *c, const struct insn *i)
{
	return compare_flags(c, i, true, false);
}

int simd_ucomisd(struct cpu *c, const struct insn *i)
{
	return compare_flags(c, i, true, true);
}

/* ---- ROUNDxx, done on the bits: the host may lack SSE4.1 ---- */

/* Bits of a binary float with `frac` fraction bits below a biased exponent and the sign at bit
 * `top`. */
static uint64_t round_bits(uint64_t v, unsigned frac, unsigned top, unsigned rc, bool daz,
			   unsigned *flags)
{
	const uint64_t sign = v & BIT(top), one = BIT(frac), fraction = v & (one - 1);
	const int max = (int)BIT(top - frac) - 1, bias = max / 2;
	int e = (int)(v >> frac & (uint64_t)max), shift = (int)frac - (e - bias);
	uint64_t magnitude = v & (BIT(top) - 1), low, half;
	bool up;

	if (e == max) {
		if (fraction && !(fraction & one >> 1))
			*flags |= MXCSR_IE;
		return fraction ? v | one >> 1 : v;
	}
	if (shift <= 0 || !magnitude || (!e && daz))
		return e ? v : sign;
	*flags |= MXCSR_PE;
	if (shift > (int)frac + 1) { /* below one half */
		up = (rc == 1 && sign) || (rc == 2 && !sign);
		return sign | (up ? (uint64_t)bias << frac : 0);
	}
	low = magnitude & (BIT(shift) - 1);
	half = BIT(shift - 1);
	if (shift == (int)frac + 1) { /* one half up to one: the implicit bit is the half */
		up = rc == 0 ? fraction != 0 : rc == 1 ? sign != 0 : rc == 2 && !sign;
		return sign | (up ? (uint64_t)bias << frac : 0);
	}
	if (!low) {
		*flags &= ~MXCSR_PE;
		return v;
	}
	if (rc == 0)
		up = low > half ||
		     (low == half && ((shift == (int)frac) || magnitude >> shift & 1));
	else
		up = rc == 1 ? sign != 0 : rc == 2 && !sign;
	return sign | ((magnitude - low) + (up ? BIT(shift) : 0));
}

static int round_op(struct cpu *c, const struct insn *i, unsigned size, bool scalar)
{
	unsigned bytes = scalar ? size : simd_bytes(i), flags = 0, imm = (unsigned)i->imm;
	unsigned rc = imm & 4 ? c->s.mxcsr >> MXCSR_RC_SHIFT & 3 : imm & 3;
	bool daz = c->s.mxcsr & MXCSR_DAZ;
	union x86_vreg b, d;
	int r = simd_check(c, i, 0);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	d = *simd_first(c, i);
	for (unsigned k = 0; k < bytes / size; k++) {
		unsigned raised = 0;

		if (size == 4)
			d.d[k] = (uint32_t)round_bits(b.d[k], 23, 31, rc, daz, &raised);
		else
			d.q[k] = round_bits(b.q[k], 52, 63, rc, daz, &raised);
		flags |= raised;
	}
	r = fp_commit(c, imm & 8 ? flags & ~MXCSR_PE : flags);
	if (!r)
		simd_store(c, i, i->reg, &d, scalar ? 16 : bytes);
	return r;
}

int simd_roundps(struct cpu *c, const struct insn *i)
{
	return round_op(c, i, 4, false);
}

int simd_roundpd(struct cpu *c, const struct insn *i)
{
	return round_op(c, i, 8, false);
}

int simd_roundss(struct cpu *c, const struct insn *i)
{
	return round_op(c, i, 4, true);
}

int simd_roundsd(struct cpu *c, const struct insn *i)
{
	return round_op(c, i, 8, true);
}
