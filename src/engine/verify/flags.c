/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic flags that hold nothing an architecture defines: the host's own CPU and the interpreter may leave different
 * values there. Guests that keep them (PUSHF) keep the difference, so it is followed there too.
 */
#include "engine/verify/verify.h"

#define SHIFT_FLAGS (FLAG_CF | FLAG_OF | FLAG_AF)

static uint64_t after_shift(const struct insn *i, uint64_t before)
{
	bool rotate = i->op == OP_ROL || i->op == OP_ROR || i->op == OP_RCL || i->op == OP_RCR;
	unsigned mask = i->opsize == 8 ? 63 : 31, count = (unsigned)i->imm & mask;
	bool known = i->form == FORM_RM_IMM || i->form == FORM_RM_1 || i->form == FORM_RM_REG_IMM;

	if (known && !count)
		return before;
	if (known && count == 1 && rotate)
		return before & ~(FLAG_CF | FLAG_OF);
	if (rotate)
		return before | FLAG_OF;
	if (i->op == OP_SHLD || i->op == OP_SHRD || i->opsize < 4)
		return FLAGS_ARITH; /* counts beyond the operand */
	return known && count == 1 ? FLAG_AF : known ? FLAG_AF | FLAG_OF : before | FLAG_AF | FLAG_OF;
}

uint64_t flags_undefined_after(const struct insn *i, uint64_t before)
{
	switch (i->op) {
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
	case OP_ROL:
	case OP_ROR:
	case OP_RCL:
	case OP_RCR:
	case OP_SHLD:
	case OP_SHRD:
		return after_shift(i, before);
	case OP_MUL:
	case OP_IMUL:
		return FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF;
	case OP_DIV:
	case OP_IDIV:
		return FLAGS_ARITH;
	case OP_BSF:
	case OP_BSR:
		return FLAGS_ARITH & ~FLAG_ZF;
	case OP_TZCNT:
	case OP_LZCNT:
		return FLAGS_ARITH & ~(FLAG_ZF | FLAG_CF);
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		return (before & FLAG_ZF) | FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF;
	case OP_AND:
	case OP_OR:
	case OP_XOR:
	case OP_TEST:
		return FLAG_AF;
	case OP_ANDN:
	case OP_BLSI:
	case OP_BLSR:
	case OP_BLSMSK:
	case OP_BZHI:
		return FLAG_AF | FLAG_PF;
	case OP_BEXTR:
		return FLAG_AF | FLAG_SF | FLAG_PF;
	default:
		return before & ~(uint64_t)(i->flags_written & ~i->flags_read);
	}
}

/* Does what it does depend on any of them? Flags that only pass through do not count. */
bool flags_depend(const struct insn *i, uint64_t flags)
{
	switch (i->op) {
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
	case OP_ROL:
	case OP_ROR:
	case OP_SHLD:
	case OP_SHRD:
		return false;
	case OP_RCL:
	case OP_RCR:
		return flags & FLAG_CF;
	case OP_PUSHFQ:
	case OP_PUSHFD:
	case OP_PUSHF:
		return false; /* followed: see verify.loose */
	default:
		return i->class != CLASS_FAR && i->class != CLASS_STRING && i->flags_read & flags;
	}
}
