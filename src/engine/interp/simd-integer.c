/* SPDX-License-Identifier: Apache-2.0 */
/* Packed integer arithmetic: element by element (simd-integer.def), across neighbours, shifts. */
#include "engine/interp/simd.h"

static inline int clamp(int v, int low, int high)
{
	return v < low ? low : v > high ? high : v;
}

/* Lane functions: plain, horizontal (results from a's neighbours first, then b's), shifts by one
 * count. */
#define E(name, T, how, value)                                                                     \
	static void lane_##name(union lane *ld, const union lane *la, const union lane *lb,        \
				unsigned n, unsigned imm)                                          \
	{                                                                                          \
		for (unsigned k = 0; k < n / sizeof(ld->T[0]); k++) {                              \
			__typeof__(ld->T[0]) x = la->T[k], y = lb->T[k];                           \
			(void)x;                                                                   \
			ld->T[k] = (__typeof__(x))(value);                                         \
		}                                                                                  \
	}
#define H(name, T, value)                                                                          \
	static void lane_##name(union lane *ld, const union lane *la, const union lane *lb,        \
				unsigned n, unsigned imm)                                          \
	{                                                                                          \
		unsigned half = n / (unsigned)sizeof(ld->T[0]) / 2;                                \
		for (unsigned k = 0; k < 2 * half; k++) {                                          \
			const union lane *from = k < half ? la : lb;                               \
			__typeof__(ld->T[0]) x = from->T[2 * (k % half)],                          \
					     y = from->T[2 * (k % half) + 1];                      \
			ld->T[k] = (__typeof__(x))(value);                                         \
		}                                                                                  \
	}
#define S(name, T, value)                                                                          \
	static void shift_##name(union lane *ld, const union lane *la, uint64_t count)             \
	{                                                                                          \
		const unsigned width = 8 * sizeof(ld->T[0]);                                       \
		(void)width;                                                                       \
		for (unsigned k = 0; k < 16 / sizeof(ld->T[0]); k++) {                             \
			__typeof__(ld->T[0]) x = la->T[k];                                         \
			(void)x;                                                                   \
			ld->T[k] = (__typeof__(x))(value);                                         \
		}                                                                                  \
	}
#include "engine/interp/simd-integer.def"
#undef E
#undef H
#undef S

static void lane_pmaddwd(union lane *d, const union lane *a, const union lane *b, unsigned n,
			 unsigned imm)
{
	for (unsigned k = 0; k < n / 4; k++)
		d->d[k] = (uint32_t)(a->sw[2 * k] * b->sw[2 * k]) +
			  (uint32_t)(a->sw[2 * k + 1] * b->sw[2 * k + 1]);
}

static void lane_pmaddubsw(union lane *d, const union lane *a, const union lane *b, unsigned n,
			   unsigned imm)
{
	for (unsigned k = 0; k < n / 2; k++)
		d->sw[k] = (int16_t)clamp(a->b[2 * k] * b->sb[2 * k] +
						  a->b[2 * k + 1] * b->sb[2 * k + 1],
					  -32768, 32767);
}

static void lane_psadbw(union lane *d, const union lane *a, const union lane *b, unsigned n,
			unsigned imm)
{
	for (unsigned k = 0; k < n / 8; k++) {
		unsigned sum = 0;

		for (unsigned j = 8 * k; j < 8 * k + 8; j++)
			sum += (unsigned)(a->b[j] > b->b[j] ? a->b[j] - b->b[j]
							    : b->b[j] - a->b[j]);
		d->q[k] = sum;
	}
}

/* Sums of absolute differences of a block of b with eight places of a. */
static void lane_mpsadbw(union lane *d, const union lane *a, const union lane *b, unsigned n,
			 unsigned imm)
{
	unsigned from = imm & 4, block = 4 * (imm & 3);

	for (unsigned k = 0; k < 8; k++) {
		int sum = 0;

		for (unsigned j = 0; j < 4; j++) {
			int diff = a->b[from + k + j] - b->b[block + j];

			sum += diff < 0 ? -diff : diff;
		}
		d->w[k] = (uint16_t)sum;
	}
}

static void lane_phminposuw(union lane *d, const union lane *a, const union lane *b, unsigned n,
			    unsigned imm)
{
	unsigned at = 0;

	for (unsigned k = 1; k < 8; k++)
		at = b->w[k] < b->w[at] ? k : at;
	*d = (union lane){ .w = { b->w[at], (uint16_t)at } };
}

/* Handlers that are simd_op and a lane function. */
#define HANDLER(name, how)                                                                         \
	int simd_##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return simd_op(c, i, lane_##name, how);                                            \
	}
HANDLER(pmaddwd, SIMD_INT)
HANDLER(pmaddubsw, SIMD_INT)
HANDLER(psadbw, SIMD_INT)
HANDLER(mpsadbw, SIMD_INT | SIMD_IMM3)
HANDLER(phminposuw, SIMD_INT)

/*
 * Shifts by one count for all elements: an immediate (destination in VEX.vvvv or ModRM.rm), or the
 * low 64 bits of a 128-bit operand, whatever the vector's length.
 */
typedef void shift_fn(union lane *d, const union lane *a, uint64_t count);

static int shift_op(struct cpu *c, const struct insn *i, shift_fn *fn)
{
	bool immediate = i->opmap == 1 && i->opcode >= 0x71 && i->opcode <= 0x73;
	unsigned bytes = simd_bytes(i), dest = i->reg;
	uint64_t count = i->imm & 0xff;
	union x86_vreg a, b, d;
	int r = simd_check(c, i, SIMD_INT);

	if (r)
		return r;
	if (immediate) {
		r = simd_load(c, i, &a, 0);
		dest = i->flags & INSN_VEX ? i->vvvv : i->rm;
	} else {
		r = simd_load(c, i, &b, 0);
		count = b.q[0];
		a = *simd_first(c, i);
		if (i->flags & INSN_MMX)
			a.q[0] = mmx_get(c, i->reg);
	}
	if (r)
		return r;
	for (unsigned l = 0; 16 * l < bytes; l++)
		fn(simd_lane(&d, l), simd_lane(&a, l), count);
	if (i->flags & INSN_MMX)
		mmx_set(c, dest, d.q[0]);
	else
		simd_store(c, i, dest, &d, bytes);
	return CPU_OK;
}

#define E(name, T, how, value)                                                                     \
	int simd_##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return simd_op(c, i, lane_##name, how);                                            \
	}
#define H(name, T, value) E(name, T, SIMD_INT, value)
#define S(name, T, value)                                                                          \
	int simd_##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return shift_op(c, i, shift_##name);                                               \
	}
#include "engine/interp/simd-integer.def"
