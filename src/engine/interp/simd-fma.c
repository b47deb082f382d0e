/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FMA: one rounding. On the host's FMA unit where there is one, else by libm's exact fallback, which
 * rounds and raises flags as MXCSR asks but knows neither DAZ nor FTZ nor the order of NaNs: those are done here.
 */
#include <math.h>
#include "engine/interp/simd.h"

#define NEGATE_PRODUCT 1u
#define NEGATE_ADDEND 2u
#define ALTERNATE 4u /* the addend has the other sign in even elements */

/* One element x * y + z; NaNs are chosen in that order. */
typedef float fma_f32(float x, float y, float z);
typedef double fma_f64(double x, double y, double z);

static float host_f32(float x, float y, float z)
{
	__asm__ volatile("vfmadd231ss %2, %1, %0" : "+x"(z) : "x"(x), "x"(y));
	return z;
}

static double host_f64(double x, double y, double z)
{
	__asm__ volatile("vfmadd231sd %2, %1, %0" : "+x"(z) : "x"(x), "x"(y));
	return z;
}

static inline uint32_t csr_get(void)
{
	uint32_t csr;

	__asm__ volatile("stmxcsr %0" : "=m"(csr) : : "memory");
	return csr;
}

static inline void csr_set(uint32_t csr)
{
	__asm__ volatile("ldmxcsr %0" : : "m"(csr) : "memory");
}

/* A denormal, or its value under DAZ. True if it is to be reported. */
static bool soft_operand(double *v, uint32_t csr, double tiniest)
{
	if (*v == 0 || !(fabs(*v) < tiniest))
		return false;
	if (csr & MXCSR_DAZ)
		*v = copysign(0, *v);
	return !(csr & MXCSR_DAZ);
}

static double soft_result(double v, uint32_t csr, double tiniest, bool denormal)
{
	uint32_t raised = csr_get() & MXCSR_FLAGS;

	if (csr & MXCSR_FTZ && v != 0 && fabs(v) < tiniest) {
		v = copysign(0, v);
		raised |= MXCSR_UE | MXCSR_PE;
	}
	csr_set(csr | raised | (denormal && !(raised & MXCSR_IE) ? MXCSR_DE : 0));
	return v;
}

/*
 * The fallback. Operands that are NaN go through an addition, whose NaN is the one wanted and which
 * raises what a signalling one must. libm is called through a volatile pointer to stay where it is.
 */
static double soft_f64(double x, double y, double z)
{
	fma_f64 *volatile exact = fma;
	uint32_t csr = csr_get();
	bool denormal;

	if (isnan(x) || isnan(y) || isnan(z)) {
		double first = isnan(x) ? x : isnan(y) ? y : z, second = isnan(z) ? z : y, third = x;

		__asm__ volatile("addsd %1, %0\n\taddsd %2, %0" : "+x"(first) : "x"(y), "x"(second));
		(void)third;
		return first;
	}
	csr_set(csr & ~(MXCSR_DAZ | MXCSR_FTZ));
	denormal = soft_operand(&x, csr, 0x1p-1022) | soft_operand(&y, csr, 0x1p-1022) |
		   soft_operand(&z, csr, 0x1p-1022);
	return soft_result(exact(x, y, z), csr, 0x1p-1022, denormal);
}

static float soft_f32(float x, float y, float z)
{
	float (*volatile exact)(float, float, float) = fmaf;
	uint32_t csr = csr_get();
	double dx, dy, dz;
	bool denormal;

	if (isnan(x) || isnan(y) || isnan(z)) {
		float first = isnan(x) ? x : isnan(y) ? y : z, second = isnan(z) ? z : y;

		__asm__ volatile("addss %1, %0\n\taddss %2, %0" : "+x"(first) : "x"(y), "x"(second));
		return first;
	}
	csr_set(csr & ~(MXCSR_DAZ | MXCSR_FTZ));
	dx = x;
	dy = y;
	dz = z;
	denormal = soft_operand(&dx, csr, 0x1p-126) | soft_operand(&dy, csr, 0x1p-126) |
		   soft_operand(&dz, csr, 0x1p-126);
	return (float)soft_result((double)exact((float)dx, (float)dy, (float)dz), csr, 0x1p-126, denormal);
}

static uint32_t negate32(uint32_t v, bool negate)
{
	bool nan = (v & 0x7fffffff) > 0x7f800000;

	return negate && !nan ? v ^ 0x80000000 : v;
}

static uint64_t negate64(uint64_t v, bool negate)
{
	bool nan = (v & ~BIT(63)) > 0x7ff0000000000000;

	return negate && !nan ? v ^ BIT(63) : v;
}

static void fma_element(union x86_vreg *d, const union x86_vreg *x, const union x86_vreg *y,
			const union x86_vreg *z, unsigned k, bool dbl, unsigned signs)
{
	bool host = __builtin_cpu_supports("fma");
	bool product = signs & NEGATE_PRODUCT;
	bool addend = (signs & NEGATE_ADDEND) && !(signs & ALTERNATE && k & 1);
	union lane a;

	if (signs & ALTERNATE && !(signs & NEGATE_ADDEND))
		addend = k & 1;
	if (dbl) {
		a.q[0] = negate64(x->q[k], product);
		a.q[1] = negate64(z->q[k], addend);
		d->pd[k] = (host ? host_f64 : soft_f64)(a.pd[0], y->pd[k], a.pd[1]);
	} else {
		a.d[0] = negate32(x->d[k], product);
		a.d[1] = negate32(z->d[k], addend);
		d->ps[k] = (host ? host_f32 : soft_f32)(a.ps[0], y->ps[k], a.ps[1]);
	}
}

/*
 * The digits in the mnemonic say which operands are multiplied and which is added; the opcode's high nibble
 * tells: 9x 132, Ax 213, Bx 231. VEX.W: double. Bit 0 of the opcode from x8 on: scalar.
 */
static int fma_op(struct cpu *c, const struct insn *i, unsigned signs)
{
	unsigned order = i->opcode >> 4, low = i->opcode & 15;
	bool scalar = low >= 8 && low & 1, dbl = i->opcode_at && i->bytes[i->opcode_at - 1] & 0x80;
	unsigned size = dbl ? 8 : 4, bytes = scalar ? size : simd_bytes(i), flags;
	union x86_vreg b, d = c->s.v[i->reg];
	const union x86_vreg *first = &c->s.v[i->reg], *second = &c->s.v[i->vvvv];
	const union x86_vreg *x = order == 9 ? first : second, *y = order == 10 ? first : &b;
	const union x86_vreg *z = order == 9 ? second : order == 10 ? &b : first;
	int r = simd_check(c, i, SIMD_FMA);

	if (!r)
		r = simd_load(c, i, &b, 0);
	if (r)
		return r;
	fp_enter(c);
	for (unsigned k = 0; k < bytes / size; k++)
		fma_element(&d, x, y, z, k, dbl, signs);
	flags = fp_leave();
	r = fp_commit(c, flags | fp_tiny(c, &d, bytes, dbl ? SIMD_F64 : SIMD_F32));
	if (!r)
		simd_store(c, i, i->reg, &d, scalar ? 16 : bytes);
	return r;
}

int simd_fmadd(struct cpu *c, const struct insn *i)
{
	return fma_op(c, i, 0);
}

int simd_fmsub(struct cpu *c, const struct insn *i)
{
	return fma_op(c, i, NEGATE_ADDEND);
}

int simd_fnmadd(struct cpu *c, const struct insn *i)
{
	return fma_op(c, i, NEGATE_PRODUCT);
}

int simd_fnmsub(struct cpu *c, const struct insn *i)
{
	return fma_op(c, i, NEGATE_PRODUCT | NEGATE_ADDEND);
}

int simd_fmaddsub(struct cpu *c, const struct insn *i) /* subtracts in even elements */
{
	return fma_op(c, i, ALTERNATE | NEGATE_ADDEND);
}

int simd_fmsubadd(struct cpu *c, const struct insn *i) /* subtracts in odd elements */
{
	return fma_op(c, i, ALTERNATE);
}
