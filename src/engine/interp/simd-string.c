/* SPDX-License-Identifier: Apache-2.0 */
/* PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM: compare two strings of bytes or words, with lengths
 * or ended by 0. */
#include "engine/interp/simd.h"

/* imm8 */
#define STR_WORDS 1u
#define STR_SIGNED 2u
#define STR_AGGREGATE(imm) ((imm) >> 2 & 3) /* equal any, ranges, equal each, equal ordered */
#define STR_NEGATE 0x10u
#define STR_MASKED 0x20u /* negate only where b is valid */
#define STR_LAST 0x40u	 /* STRI: highest index; STRM: expand to a mask of elements */

static int element(const union x86_vreg *v, unsigned k, unsigned imm)
{
	if (imm & STR_WORDS)
		return imm & STR_SIGNED ? v->sw[k] : v->w[k];
	return imm & STR_SIGNED ? v->sb[k] : v->b[k];
}

static unsigned implicit_length(const union x86_vreg *v, unsigned imm)
{
	unsigned count = imm & STR_WORDS ? 8 : 16, k = 0;

	while (k < count && element(v, k, imm & STR_WORDS))
		k++;
	return k;
}

static unsigned explicit_length(uint64_t v, bool wide, unsigned imm)
{
	const uint64_t count = imm & STR_WORDS ? 8 : 16;
	int64_t n = wide ? (int64_t)v : (int32_t)v;
	uint64_t magnitude = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;

	return (unsigned)MIN(magnitude, count);
}

/* Does the result's bit k hold? la, lb: valid elements of a and b. */
static bool aggregate(const union x86_vreg *a, const union x86_vreg *b, unsigned la, unsigned lb,
		      unsigned k, unsigned imm)
{
	unsigned count = imm & STR_WORDS ? 8 : 16;

	switch (STR_AGGREGATE(imm)) {
	case 0: /* b[k] is one of a */
		for (unsigned j = 0; k < lb && j < la; j++) {
			if (element(a, j, imm) == element(b, k, imm))
				return true;
		}
		return false;
	case 1: /* b[k] lies in one of the pairs of a */
		for (unsigned j = 0; k < lb && j + 1 < la; j += 2) {
			if (element(a, j, imm) <= element(b, k, imm) &&
			    element(b, k, imm) <= element(a, j + 1, imm))
				return true;
		}
		return false;
	case 2: /* a[k] == b[k]; both ended counts as equal */
		return k < la && k < lb ? element(a, k, imm) == element(b, k, imm)
					: k >= la && k >= lb;
	default: /* a is found in b at k, as far as b goes */
		for (unsigned j = 0; j < la && k + j < count; j++) {
			if (k + j >= lb || element(a, j, imm) != element(b, k + j, imm))
				return false;
		}
		return true;
	}
}

static unsigned string_result(const union x86_vreg *a, const union x86_vreg *b, unsigned la,
			      unsigned lb, unsigned imm)
{
	unsigned count = imm & STR_WORDS ? 8 : 16, result = 0;

	for (unsigned k = 0; k < count; k++)
		result |= aggregate(a, b, la, lb, k, imm) ? 1u << k : 0;
	if (imm & STR_NEGATE)
		result ^= imm & STR_MASKED ? (1u << lb) - 1 : (1u << count) - 1;
	return result;
}

static int string_op(struct cpu *c, const struct insn *i, bool lengths, bool mask)
{
	const union x86_vreg *a = &c->s.v[i->reg];
	unsigned imm = (unsigned)i->imm, count = imm & STR_WORDS ? 8 : 16, la, lb, result;
	bool wide = simd_wide(i);
	union x86_vreg b, d = { 0 };
	int r = simd_check(c, i, 0);

	if (!r)
		r = simd_load(c, i, &b, SIMD_UNALIGNED);
	if (r)
		return r;
	la = lengths ? explicit_length(c->s.gpr[RAX], wide, imm) : implicit_length(a, imm);
	lb = lengths ? explicit_length(c->s.gpr[RDX], wide, imm) : implicit_length(&b, imm);
	result = string_result(a, &b, la, lb, imm);
	c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (result ? FLAG_CF : 0) |
		      (lb < count ? FLAG_ZF : 0) | (la < count ? FLAG_SF : 0) |
		      (result & 1 ? FLAG_OF : 0);
	if (!mask) {
		c->s.gpr[RCX] = !result		 ? count
				: imm & STR_LAST ? 31u - (unsigned)__builtin_clz(result)
						 : (unsigned)__builtin_ctz(result);
		return CPU_OK;
	}
	d.w[0] = (uint16_t)result;
	for (unsigned k = 0; imm & STR_LAST && k < count; k++)
		memset(&d.b[k * 16 / count], result >> k & 1 ? 0xff : 0, 16 / count);
	simd_store(c, i, 0, &d, 16);
	return CPU_OK;
}

int simd_pcmpestri(struct cpu *c, const struct insn *i)
{
	return string_op(c, i, true, false);
}

int simd_pcmpestrm(struct cpu *c, const struct insn *i)
{
	return string_op(c, i, true, true);
}

int simd_pcmpistri(struct cpu *c, const struct insn *i)
{
	return string_op(c, i, false, false);
}

int simd_pcmpistrm(struct cpu *c, const struct insn *i)
{
	return string_op(c, i, false, true);
}
