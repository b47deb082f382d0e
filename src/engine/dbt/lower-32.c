/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is special about 32-bit code: instructions that 64-bit code does not have, and those that the lowerings leave to the
 * interpreter because the same bytes mean something else in 64-bit code. All else is done by the 64-bit code's
 * lowerings, with tr->word and tr->wide for what a word is.
 *
 * The upper halves of RAX..RDI are zero whenever 32-bit code runs (gpr_narrow()), and every lowering leaves them so.
 */
#include "engine/dbt/translate.h"

/* VEX and EVEX: bits that name registers 8..31 or 64-bit operands count for less in 32-bit code, or for nothing. */
static bool vex_unfit(const struct insn *i)
{
	const uint8_t *b = i->bytes + i->opcode_at;

	if (i->flags & INSN_EVEX) /* RXB R' set, vvvv and V' beyond 7 not, W clear */
		return (b[-3] & 0xf0) != 0xf0 || (b[-2] & 0xc0) != 0x40 || !(b[-1] & 8);
	if (b[-2] == 0xc5)
		return (b[-1] & 0xc0) != 0xc0;
	if ((b[-2] & 0xe0) != 0xe0 || !(b[-1] & 0x40))
		return true;
	/* with general registers or their size among the operands W counts for nothing; in FMA it says double precision */
	return b[-1] & 0x80 && i->class != CLASS_PLAIN && !(i->opmap == 2 && i->opcode >= 0x96 && i->opcode <= 0xbf && (i->opcode & 15) > 5);
}

bool lower_unfit(const struct tr *t, const struct insn *i)
{
	bool memory = i->flags & INSN_MEM || i->class == CLASS_STRING;

	if (i->flags & (INSN_VEX | INSN_EVEX) && vex_unfit(i))
		return true;
	if (i->flags & INSN_VEX && i->opmap == 3 && i->bytes[i->len - 1] & 0x80) /* a register in the immediate, maybe */
		return true;
	if (i->class == CLASS_BRANCH && i->opsize != 4) /* to 16 bits of address */
		return true;
	if (!memory)
		return false;
	if (i->addrsize != 4 || i->seg == SEG_CS)
		return true;
	return (i->seg == SEG_FS && !(t->mode & MODE_FS)) || (i->seg == SEG_GS && !(t->mode & MODE_GS));
}

/* MOV between the accumulator and an absolute address: as the form with ModRM. */
static enum lowered lower_moffs(struct tr *t, const struct insn *i)
{
	bool loads = i->form == FORM_REG_RM;
	struct opnd m;

	if (i->flags & INSN_LOCK)
		return LOWER_HELPER;
	mem_operand(t, i, i->opsize, loads ? SLOW_READ : SLOW_WRITE, &m);
	tr_commit(t, i);
	enc(&t->e, i->opsize == 2 ? ENC_66 : 0, (loads ? 0x8a : 0x88) | (i->opsize > 1), RAX, &m);
	return LOWERED;
}

/* One byte, a REX prefix in 64-bit code. */
static enum lowered lower_step(struct tr *t, const struct insn *i)
{
	struct opnd reg = opnd_reg(i->reg);

	tr_commit(t, i);
	enc(&t->e, i->opsize == 2 ? ENC_66 : 0, 0xff, i->op == OP_DEC, &reg);
	return LOWERED;
}

enum lowered lower_only32(struct tr *t, const struct insn *i)
{
	if (i->flags & INSN_LOCK)
		return LOWER_HELPER;
	if (i->op == OP_MOV && i->flags & INSN_MEM)
		return lower_moffs(t, i);
	if ((i->op == OP_INC || i->op == OP_DEC) && i->form == FORM_REG)
		return lower_step(t, i);
	return lower_simple(t, i);
}
