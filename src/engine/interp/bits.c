/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bit instructions: BT and its kin, scans and counts, BMI1/2, CRC32. Undefined flags are as on
 * AMD's processors (Zen): scans set PF by the result and clear the rest, LZCNT and TZCNT keep OF,
 * BEXTR sets AF and clears SF.
 */
#include "engine/interp/private.h"

enum bit { BIT_TEST, BIT_SET, BIT_RESET, BIT_FLIP };

static uint64_t bit_apply(enum bit op, uint64_t v, uint64_t mask)
{
	switch (op) {
	case BIT_SET:
		return v | mask;
	case BIT_RESET:
		return v & ~mask;
	case BIT_FLIP:
		return v ^ mask;
	default:
		return v;
	}
}

/* A memory operand with a bit number in a register names a bit string: the address moves by whole
 * operands. */
static int bit_linear(struct cpu *c, const struct insn *i, int64_t index, bool write, gva_t *at)
{
	unsigned size = i->opsize, shift = 3 + (unsigned)__builtin_ctz(size);
	uint64_t ea = operand_offset(c, i) + (uint64_t)((index >> shift) * (int64_t)size);

	if (i->mode == MODE_64) {
		if (i->addrsize == 4)
			ea = (uint32_t)ea;
		*at = i->seg >= SEG_FS ? ea + c->s.seg[i->seg].base : ea;
		return CPU_OK;
	}
	ea &= size_mask(i->addrsize);
	return seg_linear(c, (enum x86_seg)i->seg, ea, size, write, at);
}

static int bit_memory(struct cpu *c, const struct insn *i, enum bit op, uint64_t index,
		      uint64_t *was)
{
	unsigned size = i->opsize;
	int64_t whole = i->form == FORM_RM_IMM ? 0 : (int64_t)sign_extend(index, size);
	uint64_t mask = 1ull << (index & (8 * size - 1)), r;
	struct rmw m;
	gva_t at;
	int e = bit_linear(c, i, whole, op != BIT_TEST, &at);

	if (e)
		return e;
	if (op == BIT_TEST) {
		e = linear_load(c, at, size, &r);
		*was = r & mask;
		return e;
	}
	if (i->flags & INSN_LOCK) {
		e = lock_begin_at(c, at, size, &m);
		while (!e) {
			e = lock_end(c, &m, size, bit_apply(op, m.old, mask));
			if (e != LOCK_RETRY)
				break;
			e = CPU_OK;
		}
	} else {
		m.at = at;
		m.host = NULL;
		e = rmw_begin_slow(c, size, &m);
		if (!e)
			e = rmw_end(c, &m, size, bit_apply(op, m.old, mask));
	}
	*was = m.old & mask;
	return e;
}

INLINE int bit_op(struct cpu *c, const struct insn *i, enum bit op)
{
	unsigned size = i->opsize;
	uint64_t index = i->form == FORM_RM_IMM ? i->imm : reg_get(c, i->reg, false, size), was,
		 mask, v;
	int e;

	if (i->flags & INSN_MEM) {
		e = bit_memory(c, i, op, index, &was);
		if (e)
			return e;
	} else {
		v = reg_get(c, i->rm, false, size);
		mask = 1ull << (index & (8 * size - 1));
		was = v & mask;
		if (op != BIT_TEST)
			reg_set(c, i->rm, false, size, bit_apply(op, v, mask));
	}
	flags_set_some(c, FLAG_CF, was ? FLAG_CF : 0);
	return CPU_OK;
}
int bits_bt(struct cpu *c, const struct insn *i)
{
	return bit_op(c, i, BIT_TEST);
}
int bits_bts(struct cpu *c, const struct insn *i)
{
	return bit_op(c, i, BIT_SET);
}
int bits_btr(struct cpu *c, const struct insn *i)
{
	return bit_op(c, i, BIT_RESET);
}
int bits_btc(struct cpu *c, const struct insn *i)
{
	return bit_op(c, i, BIT_FLIP);
}

/* A source of zero leaves the destination, all 64 bits of it. */
static int scan(struct cpu *c, const struct insn *i, bool reverse)
{
	uint64_t v, r;
	int e = rm_get(c, i, i->opsize, &v);

	if (e)
		return e;
	if (!v) {
		flags_set(c, FLAG_ZF | FLAG_PF);
		return CPU_OK;
	}
	r = reverse ? 63 - (unsigned)__builtin_clzll(v) : (unsigned)__builtin_ctzll(v);
	reg_set(c, i->reg, false, i->opsize, r);
	flags_set(c, flags_szp(r, 8) & FLAG_PF);
	return CPU_OK;
}
int bits_bsf(struct cpu *c, const struct insn *i)
{
	return scan(c, i, false);
}
int bits_bsr(struct cpu *c, const struct insn *i)
{
	return scan(c, i, true);
}

/* A processor without them ignores the prefix: BSR and BSF. */
static int zero_count(struct cpu *c, const struct insn *i, bool leading)
{
	unsigned width = 8u * i->opsize;
	uint64_t v, r;
	int e;

	if (!c->machine->cpuid->has_avx2)
		return scan(c, i, leading);
	e = rm_get(c, i, i->opsize, &v);
	if (e)
		return e;
	if (!v)
		r = width;
	else
		r = leading ? (unsigned)__builtin_clzll(v) - (64 - width)
			    : (unsigned)__builtin_ctzll(v);
	reg_set(c, i->reg, false, i->opsize, r);
	flags_set_some(c, FLAGS_ARITH & ~FLAG_OF, (v ? 0 : FLAG_CF) | (r ? 0 : FLAG_ZF));
	return CPU_OK;
}
int bits_lzcnt(struct cpu *c, const struct insn *i)
{
	return zero_count(c, i, true);
}
int bits_tzcnt(struct cpu *c, const struct insn *i)
{
	return zero_count(c, i, false);
}

int bits_popcnt(struct cpu *c, const struct insn *i)
{
	uint64_t v;
	int e = rm_get(c, i, i->opsize, &v);

	if (e)
		return e;
	reg_set(c, i->reg, false, i->opsize, (uint64_t)__builtin_popcountll(v));
	flags_set(c, v ? 0 : FLAG_ZF);
	return CPU_OK;
}

int bits_andn(struct cpu *c, const struct insn *i)
{
	uint64_t v;
	int e = vex_check(c);

	if (!e)
		e = rm_get(c, i, i->opsize, &v);
	if (e)
		return e;
	v &= ~reg_get(c, i->vvvv, false, i->opsize);
	reg_set(c, i->reg, false, i->opsize, v);
	flags_set(c, flags_szp(v, i->opsize));
	return CPU_OK;
}

/* BLSI BLSR BLSMSK: destination in vvvv. */
static int lowest_bit(struct cpu *c, const struct insn *i)
{
	uint64_t v, r, cf;
	int e = vex_check(c);

	if (!e)
		e = rm_get(c, i, i->opsize, &v);
	if (e)
		return e;
	cf = v == 0;
	if (i->op == OP_BLSI) {
		r = v & -v;
		cf = !cf;
	} else {
		r = i->op == OP_BLSR ? v & (v - 1) : v ^ (v - 1);
	}
	r &= size_mask(i->opsize);
	reg_set(c, i->vvvv, false, i->opsize, r);
	flags_set(c, flags_szp(r, i->opsize) | cf);
	return CPU_OK;
}
int bits_blsi(struct cpu *c, const struct insn *i)
{
	return lowest_bit(c, i);
}
int bits_blsmsk(struct cpu *c, const struct insn *i)
{
	return lowest_bit(c, i);
}
int bits_blsr(struct cpu *c, const struct insn *i)
{
	return lowest_bit(c, i);
}

int bits_bextr(struct cpu *c, const struct insn *i)
{
	uint64_t v, control = c->s.gpr[i->vvvv];
	unsigned start = (uint8_t)control, count = (uint8_t)(control >> 8);
	int e = vex_check(c);

	if (!e)
		e = rm_get(c, i, i->opsize, &v);
	if (e)
		return e;
	v = start < 64 ? v >> start : 0;
	if (count < 64)
		v &= (1ull << count) - 1;
	reg_set(c, i->reg, false, i->opsize, v);
	flags_set(c, (flags_szp(v, i->opsize) & ~FLAG_SF) | FLAG_AF);
	return CPU_OK;
}

int bits_bzhi(struct cpu *c, const struct insn *i)
{
	unsigned n = (uint8_t)c->s.gpr[i->vvvv], width = 8u * i->opsize;
	uint64_t v;
	int e = vex_check(c);

	if (!e)
		e = rm_get(c, i, i->opsize, &v);
	if (e)
		return e;
	if (n < width)
		v &= (1ull << n) - 1;
	reg_set(c, i->reg, false, i->opsize, v);
	flags_set(c, flags_szp(v, i->opsize) | (n >= width ? FLAG_CF : 0));
	return CPU_OK;
}

int bits_pdep(struct cpu *c, const struct insn *i)
{
	uint64_t mask, src = reg_get(c, i->vvvv, false, i->opsize), r = 0;
	int e = vex_check(c);

	if (!e)
		e = rm_get(c, i, i->opsize, &mask);
	if (e)
		return e;
	for (; mask; mask &= mask - 1, src >>= 1)
		r |= src & 1 ? mask & -mask : 0;
	reg_set(c, i->reg, false, i->opsize, r);
	return CPU_OK;
}

int bits_pext(struct cpu *c, const struct insn *i)
{
	uint64_t mask, src = reg_get(c, i->vvvv, false, i->opsize), r = 0;
	unsigned n = 0;
	int e = vex_check(c);

	if (!e)
		e = rm_get(c, i, i->opsize, &mask);
	if (e)
		return e;
	for (; mask; mask &= mask - 1, n++)
		r |= src & mask & -mask ? 1ull << n : 0;
	reg_set(c, i->reg, false, i->opsize, r);
	return CPU_OK;
}

/* CRC-32C (polynomial 11EDC6F41, reflected), a byte at a time. The source's size is that of the
 * operand. */
int bits_crc32(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opcode == 0xf0 ? 1 : i->opsize;
	uint32_t crc = (uint32_t)c->s.gpr[i->reg];
	uint64_t v;
	int e;

	e = rm_get(c, i, size, &v);
	if (e)
		return e;
	for (unsigned n = 0; n < size; n++, v >>= 8) {
		crc ^= (uint8_t)v;
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	c->s.gpr[i->reg] = crc;
	return CPU_OK;
}
