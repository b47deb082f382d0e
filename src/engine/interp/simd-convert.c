/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions between integers and the floating-point formats, half precision included. */
#include "engine/interp/simd.h"
#include "engine/interp/simd-float.h"

/* name, result elements, how many in a lane, value of element k from lane b, how */
#define CONVERSIONS                                                                                \
	X(cvtdq2ps, ps, 4, f32_from_i32(b->sd[k]), SIMD_FI)                                        \
	X(cvtps2dq, sd, 4, f32_to_i32(b->ps[k]), SIMD_FI)                                          \
	X(cvttps2dq, sd, 4, f32_trunc_i32(b->ps[k]), SIMD_FI)                                      \
	X(cvtdq2pd, pd, 2, f64_from_i32(b->sd[k]), SIMD_WIDEN2)                                    \
	X(cvtps2pd, pd, 2, f32_to_f64(b->ps[k]), SIMD_FI | SIMD_WIDEN2)                            \
	X(cvtpd2ps, ps, 2, f64_to_f32(b->pd[k]), SIMD_F32 | SIMD_NARROW)                           \
	X(cvtpd2dq, sd, 2, f64_to_i32(b->pd[k]), SIMD_FI | SIMD_NARROW)                            \
	X(cvttpd2dq, sd, 2, f64_trunc_i32(b->pd[k]), SIMD_FI | SIMD_NARROW)                        \
	X(cvtss2sd, pd, 1, f32_to_f64(b->ps[k]), SIMD_FI | SIMD_ONE8)                              \
	X(cvtsd2ss, ps, 1, f64_to_f32(b->pd[k]), SIMD_F32 | SIMD_ONE4)

#define X(name, T, count, value, how)                                                              \
	static void lane_##name(union lane *d, const union lane *a, const union lane *b,           \
				unsigned n, unsigned imm)                                          \
	{                                                                                          \
		for (unsigned k = 0; k < (count); k++)                                             \
			d->T[k] = (value);                                                         \
	}
CONVERSIONS
#undef X
#define X(name, T, count, value, how)                                                              \
	int simd_##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return simd_op(c, i, lane_##name, how);                                            \
	}
CONVERSIONS
#undef X

/* ---- one integer in a general register or memory ---- */

static int from_integer(struct cpu *c, const struct insn *i, bool dbl)
{
	unsigned size = simd_wide(i) ? 8 : 4;
	union x86_vreg v;
	int64_t value = 0;
	int r = simd_check(c, i, 0);

	if (r)
		return r;
	if (i->flags & INSN_MEM)
		r = operand_read(c, i, &value, size);
	else
		value = (int64_t)c->s.gpr[i->rm];
	if (r)
		return r;
	v = *simd_first(c, i);
	fp_enter(c);
	if (dbl)
		v.pd[0] = size == 8 ? f64_from_i64(value) : f64_from_i32((int32_t)value);
	else
		v.ps[0] = size == 8 ? f32_from_i64(value) : f32_from_i32((int32_t)value);
	r = fp_commit(c, fp_leave());
	if (!r)
		simd_store(c, i, i->reg, &v, 16);
	return r;
}

static int to_integer(struct cpu *c, const struct insn *i, bool dbl, bool truncate)
{
	bool wide = simd_wide(i);
	union x86_vreg b;
	int64_t value;
	int r = simd_check(c, i, 0);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	fp_enter(c);
	if (dbl && truncate)
		value = wide ? f64_trunc_i64(b.pd[0]) : (uint32_t)f64_trunc_i32(b.pd[0]);
	else if (dbl)
		value = wide ? f64_to_i64(b.pd[0]) : (uint32_t)f64_to_i32(b.pd[0]);
	else if (truncate)
		value = wide ? f32_trunc_i64(b.ps[0]) : (uint32_t)f32_trunc_i32(b.ps[0]);
	else
		value = wide ? f32_to_i64(b.ps[0]) : (uint32_t)f32_to_i32(b.ps[0]);
	r = fp_commit(c, fp_leave());
	if (!r)
		c->s.gpr[i->reg] = (uint64_t)value;
	return r;
}

int simd_cvtsi2ss(struct cpu *c, const struct insn *i)
{
	return from_integer(c, i, false);
}

int simd_cvtsi2sd(struct cpu *c, const struct insn *i)
{
	return from_integer(c, i, true);
}

int simd_cvtss2si(struct cpu *c, const struct insn *i)
{
	return to_integer(c, i, false, false);
}

int simd_cvttss2si(struct cpu *c, const struct insn *i)
{
	return to_integer(c, i, false, true);
}

int simd_cvtsd2si(struct cpu *c, const struct insn *i)
{
	return to_integer(c, i, true, false);
}

int simd_cvttsd2si(struct cpu *c, const struct insn *i)
{
	return to_integer(c, i, true, true);
}

/* ---- between MMX and XMM ---- */

static int from_mmx(struct cpu *c, const struct insn *i, bool dbl)
{
	union x86_vreg b, d = c->s.v[i->reg];
	int r = simd_check(c, i, 0);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	fp_enter(c);
	for (unsigned k = 0; k < 2; k++) {
		if (dbl)
			d.pd[k] = f64_from_i32(b.sd[k]);
		else
			d.ps[k] = f32_from_i32(b.sd[k]);
	}
	if (i->flags & INSN_MMX) /* comes before #XM */
		mmx_enter(c);
	r = fp_commit(c, fp_leave());
	if (!r)
		memcpy(&c->s.v[i->reg], &d, 16);
	return r;
}

static int to_mmx(struct cpu *c, const struct insn *i, bool dbl, bool truncate)
{
	union x86_vreg b = c->s.v[i->rm];
	union lane d;
	int r = simd_check(c, i, 0);

	if (!r && i->flags & INSN_MEM)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	fp_enter(c);
	for (unsigned k = 0; k < 2; k++) {
		if (dbl)
			d.sd[k] = truncate ? f64_trunc_i32(b.pd[k]) : f64_to_i32(b.pd[k]);
		else
			d.sd[k] = truncate ? f32_trunc_i32(b.ps[k]) : f32_to_i32(b.ps[k]);
	}
	mmx_enter(c);
	r = fp_commit(c, fp_leave());
	if (!r)
		mmx_set(c, i->reg, d.q[0]);
	return r;
}

int simd_cvtpi2ps(struct cpu *c, const struct insn *i)
{
	return from_mmx(c, i, false);
}

int simd_cvtpi2pd(struct cpu *c, const struct insn *i)
{
	return from_mmx(c, i, true);
}

int simd_cvtps2pi(struct cpu *c, const struct insn *i)
{
	return to_mmx(c, i, false, false);
}

int simd_cvttps2pi(struct cpu *c, const struct insn *i)
{
	return to_mmx(c, i, false, true);
}

int simd_cvtpd2pi(struct cpu *c, const struct insn *i)
{
	return to_mmx(c, i, true, false);
}

int simd_cvttpd2pi(struct cpu *c, const struct insn *i)
{
	return to_mmx(c, i, true, true);
}

/* ---- half precision, on the bits ---- */

static uint32_t half_to_single(uint16_t h, unsigned *flags)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, f = h & 0x3ff;
	unsigned up;

	if (e == 31) {
		if (f && !(f & 0x200))
			*flags |= MXCSR_IE;
		return sign | 0x7f800000 | (f ? 0x400000 | f << 13 : 0);
	}
	if (e)
		return sign | (e + 112) << 23 | f << 13;
	if (!f)
		return sign;
	up = (unsigned)__builtin_clz(f) - 21; /* denormal: all of them are normal as singles */
	return sign | (113 - up) << 23 | (f << up & 0x3ff) << 13;
}

static bool rounds_up(uint32_t m, unsigned shift, unsigned rc, bool negative)
{
	uint32_t low = m & ((1u << shift) - 1), half = 1u << (shift - 1);

	switch (rc) {
	case 0:
		return low > half || (low == half && m >> shift & 1);
	case 1:
		return low && negative;
	case 2:
		return low && !negative;
	default:
		return false;
	}
}

static uint16_t single_to_half(uint32_t v, unsigned rc, uint32_t mxcsr, unsigned *flags)
{
	uint16_t sign = (uint16_t)(v >> 16 & 0x8000), h;
	int e = (int)(v >> 23 & 255) - 127;
	uint32_t m = v & 0x7fffff;
	unsigned shift = 13;
	bool up, tiny;

	if (e == 128) {
		if (m && !(m & 0x400000))
			*flags |= MXCSR_IE;
		return (uint16_t)(sign | 0x7c00 | (m ? 0x200 | m >> 13 : 0));
	}
	if (e == -127) {
		if (!m || mxcsr & MXCSR_DAZ)
			return sign;
		*flags |= MXCSR_DE;
		e = -126;
	} else {
		m |= 0x800000;
	}
	tiny = e < -14 && !(e == -15 && (m >> 13) + rounds_up(m, 13, rc, sign) == 0x800);
	if (e < -14)
		shift = MIN(13u + (unsigned)(-14 - e), 25u);
	up = rounds_up(m, shift, rc, sign);
	h = (uint16_t)((m >> shift) + up);
	if (e >= -14)
		h = (uint16_t)(h +
			       ((uint32_t)(e + 14) << 10)); /* the implicit bit makes it e + 15 */
	if (m & ((1u << shift) - 1))
		*flags |= MXCSR_PE | (tiny ? MXCSR_UE : 0);
	if (tiny && !(mxcsr & MXCSR_UM))
		*flags |= MXCSR_UE;
	if (e > 15 || h >= 0x7c00) {
		*flags |= MXCSR_OE | MXCSR_PE;
		up = rc == 0 || (rc == 1 && sign) || (rc == 2 && !sign);
		h = up ? 0x7c00 : 0x7bff;
	}
	return sign | h;
}

int simd_vcvtph2ps(struct cpu *c, const struct insn *i)
{
	unsigned bytes = simd_bytes(i), flags = 0;
	union x86_vreg b, d;
	int r = simd_check(c, i, SIMD_F16C);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	for (unsigned k = 0; k < bytes / 4; k++)
		d.d[k] = half_to_single(b.w[k], &flags);
	r = fp_commit(c, flags);
	if (!r)
		simd_store(c, i, i->reg, &d, bytes);
	return r;
}

int simd_vcvtps2ph(struct cpu *c, const struct insn *i)
{
	unsigned bytes = simd_bytes(i), flags = 0, imm = (unsigned)i->imm;
	unsigned rc = imm & 4 ? c->s.mxcsr >> MXCSR_RC_SHIFT & 3 : imm & 3;
	union x86_vreg d = { 0 };
	gva_t at = 0;
	int r = simd_check(c, i, SIMD_F16C);

	if (!r && i->flags & INSN_MEM) {
		r = operand_linear(c, i, bytes / 2, true, &at);
		if (!r)
			r = cpu_probe(c, at, bytes / 2, ACCESS_WRITE);
	}
	if (r)
		return r;
	for (unsigned k = 0; k < bytes / 4; k++)
		d.w[k] = single_to_half(c->s.v[i->reg].d[k], rc, c->s.mxcsr, &flags);
	r = fp_commit(c, flags);
	if (r)
		return r;
	if (i->flags & INSN_MEM)
		return cpu_write(c, at, &d, bytes / 2);
	simd_store(c, i, i->rm, &d, 16);
	return CPU_OK;
}
