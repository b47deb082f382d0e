/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's x87 unit as a calculator: one operation under the guest's control word, unmasked
 * exceptions included. They are recorded in the status word and cleared (fnclex does not wait)
 * before anything could deliver them, so the guest's result is bit for bit what the host gives,
 * transcendental functions and unsupported formats too. Loading and storing 80 bits raises nothing.
 * The unit is left as the ABI wants it: empty, default control. It is cleared first: C code (a
 * comparison of long doubles) may have left flags, which would be delivered to us as soon as the
 * guest's control word unmasks them.
 */
#ifndef ENGINE_INTERP_X87_UNIT_H
#define ENGINE_INTERP_X87_UNIT_H

#include <stddef.h>
#include <stdint.h>

struct x87_unit {
	long double x, y;   /* operands: ST(0) or the destination, ST(1) or the source */
	long double r0, r1; /* what is on top afterwards, and below */
	float f;	    /* memory operands and results */
	double d;
	int16_t w;
	int32_t l;
	int64_t q;
	uint8_t bcd[10];
	uint16_t cw, sw;
};

typedef void x87_unit_fn(struct x87_unit *u);

/* One register and offsets: as operands of their own they would need too many in unoptimised code.
 */
#define X87_AT(field) [field] "i"(offsetof(struct x87_unit, field))
#define X87_RUN(insns, store)                                                                      \
	__asm__ volatile(                                                                          \
		"fnclex\n\tfldcw %c[cw](%[u])\n\t" insns                                           \
		"\n\tfnstsw %c[sw](%[u])\n\tfnclex\n\t" store "\n\tfninit"                         \
		:                                                                                  \
		: [u] "r"(u), X87_AT(x), X87_AT(y), X87_AT(r0), X87_AT(r1), X87_AT(f), X87_AT(d),  \
		  X87_AT(w), X87_AT(l), X87_AT(q), X87_AT(bcd), X87_AT(cw), X87_AT(sw)             \
		: "memory", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)")
#define X87_UNIT(name, insns)                                                                      \
	static inline void unit_##name(struct x87_unit *u)                                         \
	{                                                                                          \
		X87_RUN(insns, "fstpt %c[r0](%[u])");                                              \
	}
/* The same for functions that push a second result. */
#define X87_UNIT_PUSH(name, insn)                                                                  \
	static inline void unit_##name(struct x87_unit *u)                                         \
	{                                                                                          \
		X87_RUN("fldt %c[x](%[u])\n\t" insn, "fstpt %c[r0](%[u])\n\tfstpt %c[r1](%[u])");  \
	}

#define X87_ARITH(name)                                                                            \
	X87_UNIT(name, "fldt %c[y](%[u])\n\tfldt %c[x](%[u])\n\tf" #name " %%st(1), %%st")         \
	X87_UNIT(name##_f, "fldt %c[x](%[u])\n\tf" #name "s %c[f](%[u])")                          \
	X87_UNIT(name##_d, "fldt %c[x](%[u])\n\tf" #name "l %c[d](%[u])")
#define X87_ONE(name) X87_UNIT(name, "fldt %c[x](%[u])\n\tf" #name)
#define X87_TWO(name) X87_UNIT(name, "fldt %c[y](%[u])\n\tfldt %c[x](%[u])\n\tf" #name)
#define X87_CONSTANT(name) X87_UNIT(name, "f" #name)

/* clang-format off */
X87_ARITH(add) X87_ARITH(mul) X87_ARITH(sub) X87_ARITH(subr) X87_ARITH(div) X87_ARITH(divr)
X87_UNIT(com, "fldt %c[y](%[u])\n\tfldt %c[x](%[u])\n\tfcom %%st(1)")
X87_UNIT(com_f, "fldt %c[x](%[u])\n\tfcoms %c[f](%[u])")
X87_UNIT(com_d, "fldt %c[x](%[u])\n\tfcoml %c[d](%[u])")
X87_UNIT(ucom, "fldt %c[y](%[u])\n\tfldt %c[x](%[u])\n\tfucom %%st(1)")
X87_ONE(tst) X87_ONE(xam) X87_ONE(sqrt) X87_ONE(sin) X87_ONE(cos) X87_ONE(2xm1) X87_ONE(rndint)
X87_TWO(prem) X87_TWO(prem1) X87_TWO(scale) X87_TWO(patan) X87_TWO(yl2x) X87_TWO(yl2xp1)
X87_UNIT_PUSH(xtract, "fxtract") X87_UNIT_PUSH(ptan, "fptan") X87_UNIT_PUSH(sincos, "fsincos")
X87_CONSTANT(ld1) X87_CONSTANT(ldl2t) X87_CONSTANT(ldl2e) X87_CONSTANT(ldpi) X87_CONSTANT(ldlg2)
X87_CONSTANT(ldln2) X87_CONSTANT(ldz)
X87_UNIT(load_f, "flds %c[f](%[u])") X87_UNIT(load_d, "fldl %c[d](%[u])")
X87_UNIT(load_w, "filds %c[w](%[u])") X87_UNIT(load_l, "fildl %c[l](%[u])") X87_UNIT(load_q, "fildq %c[q](%[u])")
X87_UNIT(load_bcd, "fbld %c[bcd](%[u])")
/* popping stores keep a copy below, for the fstpt at the end */
X87_UNIT(store_f, "fldt %c[x](%[u])\n\tfsts %c[f](%[u])") X87_UNIT(store_d, "fldt %c[x](%[u])\n\tfstl %c[d](%[u])")
X87_UNIT(store_w, "fldt %c[x](%[u])\n\tfists %c[w](%[u])") X87_UNIT(store_l, "fldt %c[x](%[u])\n\tfistl %c[l](%[u])")
X87_UNIT(store_q, "fldt %c[x](%[u])\n\tfldt %c[x](%[u])\n\tfistpq %c[q](%[u])")
X87_UNIT(store_bcd, "fldt %c[x](%[u])\n\tfldt %c[x](%[u])\n\tfbstp %c[bcd](%[u])")
/* clang-format on */

#undef X87_CONSTANT
#undef X87_TWO
#undef X87_ONE
#undef X87_ARITH
#undef X87_UNIT_PUSH
#undef X87_UNIT
#undef X87_RUN
#undef X87_AT

#endif
