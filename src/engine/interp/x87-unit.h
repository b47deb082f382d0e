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

#define X87_UNIT(name, insns)                                                                      \
	static inline void unit_##name(struct x87_unit *u)                                         \
	{                                                                                          \
		__asm__ volatile(                                                                  \
			"fnclex\n\tfldcw %[cw]\n\t" insns                                          \
			"\n\tfnstsw %[sw]\n\tfnclex\n\tfstpt %[r0]\n\tfninit"                      \
			: [sw] "=m"(u->sw), [r0] "=m"(u->r0), [f] "+m"(u->f), [d] "+m"(u->d),      \
			  [w] "+m"(u->w), [l] "+m"(u->l), [q] "+m"(u->q), [bcd] "+m"(u->bcd)       \
			: [cw] "m"(u->cw), [x] "m"(u->x), [y] "m"(u->y)                            \
			: "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");    \
	}
/* The same for functions that push a second result. */
#define X87_UNIT_PUSH(name, insn)                                                                  \
	static inline void unit_##name(struct x87_unit *u)                                         \
	{                                                                                          \
		__asm__ volatile(                                                                  \
			"fnclex\n\tfldcw %[cw]\n\tfldt %[x]\n\t" insn                              \
			"\n\tfnstsw %[sw]\n\tfnclex\n\tfstpt %[r0]\n\tfstpt %[r1]\n\tfninit"       \
			: [sw] "=m"(u->sw), [r0] "=m"(u->r0), [r1] "=m"(u->r1)                     \
			: [cw] "m"(u->cw), [x] "m"(u->x)                                           \
			: "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");    \
	}

#define X87_ARITH(name)                                                                            \
	X87_UNIT(name, "fldt %[y]\n\tfldt %[x]\n\tf" #name " %%st(1), %%st")                       \
	X87_UNIT(name##_f, "fldt %[x]\n\tf" #name "s %[f]")                                        \
	X87_UNIT(name##_d, "fldt %[x]\n\tf" #name "l %[d]")
#define X87_ONE(name) X87_UNIT(name, "fldt %[x]\n\tf" #name)
#define X87_TWO(name) X87_UNIT(name, "fldt %[y]\n\tfldt %[x]\n\tf" #name)
#define X87_CONSTANT(name) X87_UNIT(name, "f" #name)

/* clang-format off */
X87_ARITH(add) X87_ARITH(mul) X87_ARITH(sub) X87_ARITH(subr) X87_ARITH(div) X87_ARITH(divr)
X87_UNIT(com, "fldt %[y]\n\tfldt %[x]\n\tfcom %%st(1)")
X87_UNIT(com_f, "fldt %[x]\n\tfcoms %[f]")
X87_UNIT(com_d, "fldt %[x]\n\tfcoml %[d]")
X87_UNIT(ucom, "fldt %[y]\n\tfldt %[x]\n\tfucom %%st(1)")
X87_ONE(tst) X87_ONE(xam) X87_ONE(sqrt) X87_ONE(sin) X87_ONE(cos) X87_ONE(2xm1) X87_ONE(rndint)
X87_TWO(prem) X87_TWO(prem1) X87_TWO(scale) X87_TWO(patan) X87_TWO(yl2x) X87_TWO(yl2xp1)
X87_UNIT_PUSH(xtract, "fxtract") X87_UNIT_PUSH(ptan, "fptan") X87_UNIT_PUSH(sincos, "fsincos")
X87_CONSTANT(ld1) X87_CONSTANT(ldl2t) X87_CONSTANT(ldl2e) X87_CONSTANT(ldpi) X87_CONSTANT(ldlg2)
X87_CONSTANT(ldln2) X87_CONSTANT(ldz)
X87_UNIT(load_f, "flds %[f]") X87_UNIT(load_d, "fldl %[d]")
X87_UNIT(load_w, "filds %[w]") X87_UNIT(load_l, "fildl %[l]") X87_UNIT(load_q, "fildq %[q]")
X87_UNIT(load_bcd, "fbld %[bcd]")
/* popping stores keep a copy below, for the fstpt at the end */
X87_UNIT(store_f, "fldt %[x]\n\tfsts %[f]") X87_UNIT(store_d, "fldt %[x]\n\tfstl %[d]")
X87_UNIT(store_w, "fldt %[x]\n\tfists %[w]") X87_UNIT(store_l, "fldt %[x]\n\tfistl %[l]")
X87_UNIT(store_q, "fldt %[x]\n\tfldt %[x]\n\tfistpq %[q]")
X87_UNIT(store_bcd, "fldt %[x]\n\tfldt %[x]\n\tfbstp %[bcd]")
/* clang-format on */

#undef X87_CONSTANT
#undef X87_TWO
#undef X87_ONE
#undef X87_ARITH
#undef X87_UNIT_PUSH
#undef X87_UNIT

#endif
