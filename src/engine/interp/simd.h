/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the MMX, SSE and AVX handlers share. Nearly all of these instructions do the same thing to
 * each 128-bit lane, so an operation is one lane function, and one handler shape (simd_op) does
 * everything around it: may it execute at all, fetch the operands, apply the function to each lane,
 * write back with the upper part kept (SSE) or cleared (VEX). MMX is a lane of 8 bytes.
 */
#ifndef ENGINE_INTERP_SIMD_H
#define ENGINE_INTERP_SIMD_H

#include "engine/interp/operand.h"

#define I(mnemonic, class, handler) int handler(struct cpu *c, const struct insn *i);
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I

union lane {
	uint8_t b[16];
	uint16_t w[8];
	uint32_t d[4];
	uint64_t q[2];
	int8_t sb[16];
	int16_t sw[8];
	int32_t sd[4];
	int64_t sq[2];
	float ps[4];
	double pd[2];
} __attribute__((packed)); /* also stands for a piece of memory or of a register, at any address */

/* d = f(a, b, imm) for the first n bytes of a lane. d aliases neither a nor b. */
typedef void lane_fn(union lane *d, const union lane *a, const union lane *b, unsigned n,
		     unsigned imm);

/* What must be there besides the registers being enabled. */
enum simd_feature {
	SIMD_BASE, /* SSE..SSE4.2; with VEX: AVX */
	SIMD_AVX2,
	SIMD_FMA,
	SIMD_F16C,
	SIMD_AES, /* with VEX: and AVX; 256 bits: VAES */
	SIMD_PCLMUL,
	SIMD_SHA,
	SIMD_GFNI,
	SIMD_SSE4A,
};

/* How simd_op is to treat an operation; the feature is in the low bits. */
#define SIMD_FEATURE 0x000f
#define SIMD_INT 0x0010	      /* integer: 256 bits need AVX2 */
#define SIMD_UNALIGNED 0x0020 /* 16-byte memory operand may be anywhere also without VEX */
#define SIMD_F32 0x0040	      /* under MXCSR; results are float */
#define SIMD_F64 0x0080	      /* under MXCSR; results are double */
#define SIMD_FI 0x0100	      /* under MXCSR; results are integers */
#define SIMD_ONE4 0x0200      /* scalar: the lowest 4 bytes of the result are the function's */
#define SIMD_ONE8 0x0400      /* the lowest 8 */
#define SIMD_WIDEN2 0x0800    /* source elements have half the result's size */
#define SIMD_WIDEN4 0x1000
#define SIMD_WIDEN8 0x1800
#define SIMD_WIDEN_SHIFT 11
#define SIMD_NARROW 0x2000 /* results have half the size */
#define SIMD_IMM3 0x4000   /* the second lane takes the next 3 bits of the immediate */
#define SIMD_FP (SIMD_F32 | SIMD_F64 | SIMD_FI)

/* CPU_OK, or #UD, #NM, #MF. */
int simd_check(struct cpu *c, const struct insn *i, unsigned how);
int simd_op(struct cpu *c, const struct insn *i, lane_fn *fn, unsigned how);

/* The ModRM operand, zero-extended: a register, or i->memsize bytes of memory. */
int simd_load(struct cpu *c, const struct insn *i, union x86_vreg *v, unsigned how);
/* Linear address of a memory operand that must be aligned to its size, else #GP. */
int simd_linear_aligned(struct cpu *c, const struct insn *i, unsigned size, bool write, gva_t *at);

static inline unsigned simd_bytes(const struct insn *i)
{
	return i->flags & INSN_MMX ? 8 : i->vl == 32 ? 32 : 16;
}

static inline union lane *simd_lane(union x86_vreg *v, unsigned n)
{
	return (union lane *)&v->b[16 * n];
}

/* First source: the destination itself without VEX. */
static inline const union x86_vreg *simd_first(const struct cpu *c, const struct insn *i)
{
	return &c->s.v[i->flags & INSN_VEX ? i->vvvv : i->reg];
}

/* Write the low n bytes (16 or more); with VEX the rest becomes zero. */
static inline void simd_store(struct cpu *c, const struct insn *i, unsigned reg, const void *from,
			      unsigned n)
{
	memcpy(&c->s.v[reg], from, n);
	if (i->flags & INSN_VEX)
		memset(&c->s.v[reg].b[n], 0, sizeof(c->s.v[reg]) - n);
}

/* REX.W or VEX.W where it selects the size of a general register or of integer memory. */
static inline bool simd_wide(const struct insn *i)
{
	if (i->mode != MODE_64)
		return false;
	if (!(i->flags & INSN_VEX))
		return i->rex & 8;
	return i->opcode_at >= 3 && i->bytes[i->opcode_at - 3] == 0xc4 &&
	       i->bytes[i->opcode_at - 1] & 0x80;
}

/* MMX registers are the mantissas of the x87 registers. */
static inline uint64_t mmx_get(const struct cpu *c, unsigned reg)
{
	return c->s.fpu.reg[reg & 7].mantissa;
}

/* What every MMX instruction but EMMS does to the x87 state: top 0, all registers in use. */
static inline void mmx_enter(struct cpu *c)
{
	c->s.fpu.sw &= (uint16_t)~0x3800;
	c->s.fpu.tag = 0xff;
}

static inline void mmx_set(struct cpu *c, unsigned reg, uint64_t v)
{
	mmx_enter(c);
	c->s.fpu.reg[reg & 7].mantissa = v;
	c->s.fpu.reg[reg & 7].exponent = 0xffff;
}

/* MXCSR */
#define MXCSR_IE 0x01u
#define MXCSR_DE 0x02u
#define MXCSR_ZE 0x04u
#define MXCSR_OE 0x08u
#define MXCSR_UE 0x10u
#define MXCSR_PE 0x20u
#define MXCSR_FLAGS 0x3fu
#define MXCSR_DAZ 0x40u
#define MXCSR_MASKS 0x1f80u
#define MXCSR_MASK_SHIFT 7
#define MXCSR_UM 0x0800u
#define MXCSR_RC_SHIFT 13
#define MXCSR_FTZ 0x8000u
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_VALID 0xffffu

/*
 * Guest arithmetic runs on the host's SSE unit between fp_enter and fp_leave: with the guest's
 * rounding, DAZ and FTZ, nothing unmasked. All of it must be volatile asm (simd-float.h), or the
 * compiler might move it out. With underflow unmasked FTZ has no effect.
 */
static inline void fp_enter(const struct cpu *c)
{
	uint32_t csr = (c->s.mxcsr & MXCSR_VALID & ~MXCSR_FLAGS) | MXCSR_MASKS;

	if (unlikely(!(c->s.mxcsr & MXCSR_UM)))
		csr &= ~MXCSR_FTZ;
	__asm__ volatile("ldmxcsr %0" : : "m"(csr) : "memory");
}

static inline unsigned fp_leave(void)
{
	const uint32_t host = MXCSR_DEFAULT;
	uint32_t csr;

	__asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(csr) : "m"(host) : "memory");
	return csr & MXCSR_FLAGS;
}

/* Account for the flags an operation raised. CPU_FAULT (#XM, #UD) when one of them is not masked.
 */
int fp_commit(struct cpu *c, unsigned flags);
/* MXCSR_UE if underflow is unmasked and one of the results is denormal, exact ones included. */
unsigned fp_tiny(const struct cpu *c, const void *results, unsigned bytes, unsigned how);

#endif
