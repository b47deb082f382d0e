/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FMA: one rounding. On the host's FMA unit where there is one, else by libm's exact fallback,
 * which rounds and raises flags as MXCSR asks but knows neither DAZ nor FTZ nor the order of NaNs:
 * those are done here.
 */
#include <math.h>
#include "engine/interp/simd-fma.h"
#include "engine/interp/simd.h"

#define NEGATE_PRODUCT 1u
#define NEGATE_ADDEND 2u
#define ALTERNATE 4u /* the addend has the other sign in odd elements */

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

static inline uint32_t f32_bits(float x)
{
	uint32_t v;

	memcpy(&v, &x, 4);
	return v;
}

static inline uint64_t f64_bits(double x)
{
	uint64_t v;

	memcpy(&v, &x, 8);
	return v;
}

static inline float f32_of(uint64_t v)
{
	float x;

	memcpy(&x, &v, 4);
	return x;
}

static inline double f64_of(uint64_t v)
{
	double x;

	memcpy(&x, &v, 8);
	return x;
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

/* On the bits: comparing would raise flags. */
struct format {
	uint64_t exponent, fraction;
};
static const struct format single = { 0x7f800000, 0x7fffff },
			   dbl_format = { 0x7ff0000000000000, 0xfffffffffffff };

static bool is_nan(uint64_t v, const struct format *f)
{
	return (v & f->exponent) == f->exponent && v & f->fraction;
}

static bool is_denormal(uint64_t v, const struct format *f)
{
	return !(v & f->exponent) && v & f->fraction;
}

/*
 * Operands of an operation without NaNs: denormals become zeros under DAZ, else they are to be
 * reported. MXCSR becomes what libm understands.
 */
static uint32_t soft_begin(uint64_t v[3], uint32_t csr, const struct format *f)
{
	uint32_t raised = 0;

	for (unsigned k = 0; k < 3; k++) {
		if (!is_denormal(v[k], f))
			continue;
		if (csr & MXCSR_DAZ)
			v[k] &= ~f->fraction;
		else
			raised = MXCSR_DE;
	}
	csr_set(csr & ~(MXCSR_DAZ | MXCSR_FTZ | MXCSR_FLAGS));
	return raised;
}

static uint64_t soft_end(uint64_t v, uint32_t csr, uint32_t denormal, const struct format *f)
{
	uint32_t raised =
		csr_get() & (MXCSR_FLAGS & ~MXCSR_DE); /* libm's own operands may be denormal */

	if (csr & MXCSR_FTZ &&
	    (is_denormal(v, f) || raised & MXCSR_UE)) { /* tiny, though it may round to normal */
		v &= ~(f->fraction | f->exponent);
		raised |= MXCSR_UE | MXCSR_PE;
	}
	csr_set(csr | raised | (raised & MXCSR_IE ? 0 : denormal));
	return v;
}

/*
 * Operands that are NaN go through an addition, whose NaN is the one wanted and which raises what a
 * signalling one must. libm is called through a volatile pointer to stay where it is.
 */
double fma_soft_f64(double x, double y, double z)
{
	fma_f64 *volatile exact = fma;
	uint64_t v[3] = { f64_bits(x), f64_bits(y), f64_bits(z) };
	uint32_t csr = csr_get(), denormal;
	double r;

	if (is_nan(v[0], &dbl_format) || is_nan(v[1], &dbl_format) || is_nan(v[2], &dbl_format)) {
		double first = is_nan(v[0], &dbl_format) ? x : is_nan(v[1], &dbl_format) ? y : z;

		__asm__ volatile("addsd %1, %0\n\taddsd %2, %0" : "+x"(first) : "x"(y), "x"(z));
		return first;
	}
	denormal = soft_begin(v, csr, &dbl_format);
	r = exact(f64_of(v[0]), f64_of(v[1]), f64_of(v[2]));
	return f64_of(soft_end(f64_bits(r), csr, denormal, &dbl_format));
}

float fma_soft_f32(float x, float y, float z)
{
	fma_f32 *volatile exact = fmaf;
	uint64_t v[3] = { f32_bits(x), f32_bits(y), f32_bits(z) };
	uint32_t csr = csr_get(), denormal;
	float r;

	if (is_nan(v[0], &single) || is_nan(v[1], &single) || is_nan(v[2], &single)) {
		float first = is_nan(v[0], &single) ? x : is_nan(v[1], &single) ? y : z;

		__asm__ volatile("addss %1, %0\n\taddss %2, %0" : "+x"(first) : "x"(y), "x"(z));
		return first;
	}
	denormal = soft_begin(v, csr, &single);
	r = exact(f32_of(v[0]), f32_of(v[1]), f32_of(v[2]));
	return f32_of(soft_end(f32_bits(r), csr, denormal, &single));
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
	bool host = __builtin_cpu_supports("fma"), product = signs & NEGATE_PRODUCT;
	bool addend = signs & NEGATE_ADDEND;
	union lane a;

	if (signs & ALTERNATE && k & 1)
		addend = !addend;
	if (dbl) {
		a.q[0] = negate64(x->q[k], product);
		a.q[1] = negate64(z->q[k], addend);
		d->pd[k] = (host ? host_f64 : fma_soft_f64)(a.pd[0], y->pd[k], a.pd[1]);
	} else {
		a.d[0] = negate32(x->d[k], product);
		a.d[1] = negate32(z->d[k], addend);
		d->ps[k] = (host ? host_f32 : fma_soft_f32)(a.ps[0], y->ps[k], a.ps[1]);
	}
}

/*
 * The digits in the mnemonic say which operands are multiplied and which is added; the opcode's
 * high nibble tells: 9x 132, Ax 213, Bx 231. VEX.W: double. Bit 0 of the opcode from x8 on: scalar.
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
