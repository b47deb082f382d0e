/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MUL IMUL DIV IDIV MULX. As on AMD's processors MUL and IMUL leave the flags they do not define,
 * and DIV and IDIV clear PF, ZF, SF, set AF and leave CF and OF.
 */
#include "engine/interp/private.h"

static void flags_product(struct cpu *c, bool overflow)
{
	flags_set_some(c, FLAG_CF | FLAG_OF, overflow ? FLAG_CF | FLAG_OF : 0);
}

/* The double-width accumulator: AX, DX:AX, EDX:EAX, RDX:RAX. */
static void pair_set(struct cpu *c, unsigned size, uint64_t high, uint64_t low)
{
	if (size == 1) {
		reg_set(c, RAX, false, 2, (high & 0xff) << 8 | (low & 0xff));
		return;
	}
	reg_set(c, RAX, false, size, low);
	reg_set(c, RDX, false, size, high);
}

static unsigned __int128 pair_get(const struct cpu *c, unsigned size)
{
	if (size == 1)
		return reg_get(c, RAX, false, 2);
	return (unsigned __int128)reg_get(c, RDX, false, size) << (8 * size) |
	       reg_get(c, RAX, false, size);
}

int md_mul(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	unsigned __int128 product;
	uint64_t b, high;
	int e = rm_get(c, i, size, &b);

	if (e)
		return e;
	product = (unsigned __int128)reg_get(c, RAX, false, size) * b;
	high = (uint64_t)(product >> (8 * size)) & size_mask(size);
	pair_set(c, size, high, (uint64_t)product);
	flags_product(c, high != 0);
	return CPU_OK;
}

/* One operand: the accumulator pair; two or three: truncated into reg. */
int md_imul(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	uint64_t a, b;
	__int128 product;
	int e = rm_get(c, i, size, &b);

	if (e)
		return e;
	if (i->form == FORM_REG_RM_IMM)
		a = i->imm;
	else
		a = reg_get(c, i->form == FORM_REG_RM ? i->reg : RAX, false, size);
	product = (__int128)(int64_t)sign_extend(a, size) * (int64_t)sign_extend(b, size);
	if (i->form == FORM_RM)
		pair_set(c, size, (uint64_t)(product >> (8 * size)), (uint64_t)product);
	else
		reg_set(c, i->reg, false, size, (uint64_t)product);
	flags_product(c, product != (int64_t)sign_extend((uint64_t)product, size));
	return CPU_OK;
}

static void flags_quotient(struct cpu *c)
{
	flags_set_some(c, FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF, FLAG_AF);
}

int md_div(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	unsigned __int128 n = pair_get(c, size), q;
	uint64_t d;
	int e = rm_get(c, i, size, &d);

	if (e)
		return e;
	if (!d)
		return cpu_raise(c, VEC_DE);
	if (!(n >> 64)) { /* the usual case, without the 128-bit routine */
		uint64_t n64 = (uint64_t)n;

		q = n64 / d;
		n = n64 % d;
	} else {
		q = n / d;
		n = n % d;
	}
	if (q > size_mask(size))
		return cpu_raise(c, VEC_DE);
	pair_set(c, size, (uint64_t)n, (uint64_t)q);
	flags_quotient(c);
	return CPU_OK;
}

int md_idiv(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize, spare = 128 - 16 * size;
	__int128 n = (__int128)(pair_get(c, size) << spare) >> spare, q,
		 max = (__int128)(size_mask(size) >> 1);
	uint64_t v;
	int64_t d;
	int e = rm_get(c, i, size, &v);

	if (e)
		return e;
	d = (int64_t)sign_extend(v, size);
	if (!d)
		return cpu_raise(c, VEC_DE);
	if (d == -1 && n == (__int128)((unsigned __int128)1 << 127)) /* would trap the host */
		return cpu_raise(c, VEC_DE);
	q = n / d;
	if (q > max || q < -max - 1)
		return cpu_raise(c, VEC_DE);
	pair_set(c, size, (uint64_t)(n % d), (uint64_t)q);
	flags_quotient(c);
	return CPU_OK;
}

/* Unsigned, RDX times r/m into vvvv (low) and reg (high, which wins); no flags. */
int md_mulx(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	unsigned __int128 product;
	uint64_t b;
	int e = vex_check(c);

	if (!e)
		e = rm_get(c, i, size, &b);
	if (e)
		return e;
	product = (unsigned __int128)reg_get(c, RDX, false, size) * b;
	reg_set(c, i->vvvv, false, size, (uint64_t)product & size_mask(size));
	reg_set(c, i->reg, false, size, (uint64_t)(product >> (8 * size)) & size_mask(size));
	return CPU_OK;
}
