/* SPDX-License-Identifier: Apache-2.0 */
/* PUSH, POP, LEAVE of 64-bit code. RSP changes last, so that a fault finds the instruction undone. */
#include "engine/dbt/translate.h"

static bool spilled(unsigned g)
{
	return g >= GUEST_HOST_REGS;
}

static void rsp_add(struct tr *t, int32_t n)
{
	emit_lea(&t->e, RSP, opnd_mem(RSP, n));
}

static enum lowered lower_push(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	struct opnd m, src;
	unsigned from = i->reg;

	if (i->opsize != 8)
		return LOWER_HELPER;
	if (i->form == FORM_IMM) {
		mem_stack(t, -8, 8, SLOW_WRITE, false, &m);
		tr_commit(t, i);
		emit_store_imm32(e, m, (int32_t)i->imm);
		rsp_add(t, -8);
		return LOWERED;
	}
	if (i->flags & INSN_MEM) {
		/* the value waits in hot->tmp while the scratch registers check the stack */
		mem_operand(t, i, 8, SLOW_READ, &src);
		emit_load(e, S0, src);
		emit_store(e, opnd_gs(OFF_HOT(tmp)), S0);
		mem_stack(t, -8, 8, SLOW_WRITE, true, &m);
		emit_load(e, S0, opnd_gs(OFF_HOT(tmp)));
		tr_commit(t, i);
		emit_store(e, m, S0);
		rsp_add(t, -8);
		return LOWERED;
	}
	if (i->form == FORM_RM)
		from = i->rm;
	else if (i->form != FORM_REG)
		return LOWER_HELPER;
	mem_stack(t, -8, 8, SLOW_WRITE, false, &m);
	if (spilled(from)) {
		emit_load(e, S0, opnd_gs(OFF_GPR(from)));
		from = S0;
	}
	tr_commit(t, i);
	emit_store(e, m, from);
	rsp_add(t, -8);
	return LOWERED;
}

static enum lowered lower_pop(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	unsigned to = i->form == FORM_RM ? i->rm : i->reg;
	struct opnd m;

	if (i->opsize != 8 || i->flags & INSN_MEM || (i->form != FORM_REG && i->form != FORM_RM))
		return LOWER_HELPER;
	mem_stack(t, 0, 8, SLOW_READ, false, &m);
	if (spilled(to)) {
		emit_load(e, S0, m);
		tr_commit(t, i);
		emit_store(e, opnd_gs(OFF_GPR(to)), S0);
	} else {
		tr_commit(t, i);
		emit_load(e, to, m);
		if (to == RSP)
			return LOWERED;
	}
	rsp_add(t, 8);
	return LOWERED;
}

static enum lowered lower_leave_frame(struct tr *t, const struct insn *i)
{
	/* mov rsp, rbp ; pop rbp */
	static const struct insn at_rbp = { .base = RBP, .index = REG_NONE, .seg = SEG_DS, .addrsize = 8 };
	struct opnd m;

	if (i->opsize != 8)
		return LOWER_HELPER;
	mem_operand(t, &at_rbp, 8, SLOW_READ, &m);
	t->cold[t->ncold - 1].rbp = true;
	emit_load(&t->e, S0, m);
	tr_commit(t, i);
	emit_lea(&t->e, RSP, opnd_mem(RBP, 8));
	emit_mov(&t->e, RBP, S0);
	return LOWERED;
}

enum lowered lower_stack(struct tr *t, const struct insn *i)
{
	switch (i->op) {
	case OP_PUSH:
		return lower_push(t, i);
	case OP_POP:
		return lower_pop(t, i);
	case OP_LEAVE:
		return lower_leave_frame(t, i);
	default:
		return LOWER_HELPER;
	}
}
