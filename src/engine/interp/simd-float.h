/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IEEE arithmetic on the host's SSE unit, one element at a time: results, NaNs and MXCSR flags are
 * what the guest's instruction would give. Only between fp_enter and fp_leave. The asm is volatile,
 * so it stays in order with the MXCSR loads and is not dropped when only its flags matter.
 */
#ifndef ENGINE_INTERP_SIMD_FLOAT_H
#define ENGINE_INTERP_SIMD_FLOAT_H

#include <stdint.h>

#define BINARY(name, insn, T)                                                                      \
	static inline T name(T x, T y)                                                             \
	{                                                                                          \
		__asm__ volatile(insn " %1, %0" : "+x"(x) : "x"(y));                               \
		return x;                                                                          \
	}
BINARY(f32_add, "addss", float)
BINARY(f32_sub, "subss", float)
BINARY(f32_mul, "mulss", float)
BINARY(f32_div, "divss", float)
BINARY(f32_min, "minss", float)
BINARY(f32_max, "maxss", float)
BINARY(f64_add, "addsd", double)
BINARY(f64_sub, "subsd", double)
BINARY(f64_mul, "mulsd", double)
BINARY(f64_div, "divsd", double)
BINARY(f64_min, "minsd", double)
BINARY(f64_max, "maxsd", double)
#undef BINARY

#define UNARY(name, insn, R, rc, T, tc)                                                            \
	static inline R name(T x)                                                                  \
	{                                                                                          \
		R result;                                                                          \
		__asm__ volatile(insn " %1, %0" : rc(result) : tc(x));                             \
		return result;                                                                     \
	}
UNARY(f32_sqrt, "sqrtss", float, "=x", float, "x")
UNARY(f64_sqrt, "sqrtsd", double, "=x", double, "x")
UNARY(f32_to_i32, "cvtss2si", int32_t, "=r", float, "x")
UNARY(f32_to_i64, "cvtss2si", int64_t, "=r", float, "x")
UNARY(f32_trunc_i32, "cvttss2si", int32_t, "=r", float, "x")
UNARY(f32_trunc_i64, "cvttss2si", int64_t, "=r", float, "x")
UNARY(f64_to_i32, "cvtsd2si", int32_t, "=r", double, "x")
UNARY(f64_to_i64, "cvtsd2si", int64_t, "=r", double, "x")
UNARY(f64_trunc_i32, "cvttsd2si", int32_t, "=r", double, "x")
UNARY(f64_trunc_i64, "cvttsd2si", int64_t, "=r", double, "x")
UNARY(f32_from_i32, "cvtsi2ssl", float, "=x", int32_t, "r")
UNARY(f32_from_i64, "cvtsi2ssq", float, "=x", int64_t, "r")
UNARY(f64_from_i32, "cvtsi2sdl", double, "=x", int32_t, "r")
UNARY(f64_from_i64, "cvtsi2sdq", double, "=x", int64_t, "r")
UNARY(f32_to_f64, "cvtss2sd", double, "=x", float, "x")
UNARY(f64_to_f32, "cvtsd2ss", float, "=x", double, "x")
#undef UNARY

/*
 * Approximations: the bits are not specified by the architecture (only the error is), and differ
 * between vendors, so the guest sees the host's, as it would in every other engine.
 */
static inline float f32_rcp(float x)
{
	__asm__ volatile("rcpss %0, %0" : "+x"(x));
	return x;
}

static inline float f32_rsqrt(float x)
{
	__asm__ volatile("rsqrtss %0, %0" : "+x"(x));
	return x;
}

/* How x compares with y, as one bit. */
#define REL_LT 1u
#define REL_EQ 2u
#define REL_GT 4u
#define REL_UN 8u

static inline unsigned relation(bool carry, bool parity, bool zero)
{
	return parity ? REL_UN : carry ? REL_LT : zero ? REL_EQ : REL_GT;
}

#define COMPARE(name, insn, T)                                                                     \
	static inline unsigned name(T x, T y)                                                      \
	{                                                                                          \
		bool carry, parity, zero;                                                          \
		__asm__ volatile(insn " %4, %3"                                                    \
				 : "=@ccc"(carry), "=@ccp"(parity), "=@ccz"(zero)                  \
				 : "x"(x), "x"(y));                                                \
		return relation(carry, parity, zero);                                              \
	}
COMPARE(f32_compare_quiet, "ucomiss", float) /* invalid only for signalling NaNs */
COMPARE(f32_compare, "comiss", float)	     /* for all NaNs */
COMPARE(f64_compare_quiet, "ucomisd", double)
COMPARE(f64_compare, "comisd", double)
#undef COMPARE

#endif
