/* SPDX-License-Identifier: Apache-2.0 */
/* PUSH, POP, LEAVE of words. RSP changes last, so that a fault finds the instruction undone. */
#include "engine/dbt/translate.h"

static bool spilled(unsigned g)
{
	return g >= GUEST_HOST_REGS;
}

static void rsp_add(struct tr *t, int32_t n)
{
	struct opnd m = opnd_mem(RSP, n);

	enc(&t->e, t->wide, X_LEA, RSP, &m);
}

static void word_load(struct tr *t, unsigned reg, const struct opnd *m)
{
	enc(&t->e, t->wide, X_MOV_LOAD, reg, m);
}

static void word_store(struct tr *t, const struct opnd *m, unsigned reg)
{
	enc(&t->e, t->wide, X_MOV_STORE, reg, m);
}

static enum lowered lower_push(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	struct opnd m, src;
	unsigned from = i->reg;
	const int word = (int)t->word;

	if (i->opsize != t->word)
		return LOWER_HELPER;
	if (i->form == FORM_IMM) {
		mem_stack(t, -word, t->word, SLOW_WRITE, false, &m);
		tr_commit(t, i);
		enc(e, t->wide, 0xc7, 0, &m);
		emit32(e, (uint32_t)i->imm);
		rsp_add(t, -word);
		return LOWERED;
	}
	if (i->flags & INSN_MEM) {
		/* the value waits in hot->tmp while the scratch registers check the stack */
		mem_operand(t, i, t->word, SLOW_READ, &src);
		word_load(t, S0, &src);
		emit_store(e, opnd_gs(OFF_HOT(tmp)), S0);
		mem_stack(t, -word, t->word, SLOW_WRITE, true, &m);
		emit_load(e, S0, opnd_gs(OFF_HOT(tmp)));
		tr_commit(t, i);
		word_store(t, &m, S0);
		rsp_add(t, -word);
		return LOWERED;
	}
	if (i->form == FORM_RM)
		from = i->rm;
	else if (i->form != FORM_REG)
		return LOWER_HELPER;
	mem_stack(t, -word, t->word, SLOW_WRITE, false, &m);
	if (spilled(from)) {
		emit_load(e, S0, opnd_gs(OFF_GPR(from)));
		from = S0;
	}
	tr_commit(t, i);
	word_store(t, &m, from);
	rsp_add(t, -word);
	return LOWERED;
}

static enum lowered lower_pop(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	unsigned to = i->form == FORM_RM ? i->rm : i->reg;
	struct opnd m;

	if (i->opsize != t->word || i->flags & INSN_MEM || (i->form != FORM_REG && i->form != FORM_RM))
		return LOWER_HELPER;
	mem_stack(t, 0, t->word, SLOW_READ, false, &m);
	if (spilled(to)) {
		word_load(t, S0, &m);
		tr_commit(t, i);
		emit_store(e, opnd_gs(OFF_GPR(to)), S0);
	} else {
		tr_commit(t, i);
		word_load(t, to, &m);
		if (to == RSP)
			return LOWERED;
	}
	rsp_add(t, (int)t->word);
	return LOWERED;
}

static enum lowered lower_leave_frame(struct tr *t, const struct insn *i)
{
	/* mov rsp, rbp ; pop rbp */
	struct insn at_rbp = { .base = RBP, .index = REG_NONE, .seg = SEG_DS, .addrsize = (uint8_t)t->word };
	struct opnd m, above = opnd_mem(RBP, (int)t->word);

	if (i->opsize != t->word)
		return LOWER_HELPER;
	mem_operand(t, &at_rbp, t->word, SLOW_READ, &m);
	t->cold[t->ncold - 1].rbp = true;
	word_load(t, S0, &m);
	tr_commit(t, i);
	enc(&t->e, t->wide, X_LEA, RSP, &above);
	emit_mov(&t->e, RBP, S0);
	return LOWERED;
}

static enum lowered lower_push_sreg(struct tr *t, const struct insn *i)
{
	struct opnd m, from = opnd_gs((int32_t)(offsetof(struct cpu, s.seg) + sizeof(struct x86_segment) * i->reg +
						offsetof(struct x86_segment, selector)));

	if (i->opsize != t->word || i->reg > SEG_GS)
		return LOWER_HELPER;
	mem_stack(t, -(int)t->word, t->word, SLOW_WRITE, false, &m);
	enc(&t->e, ENC_0F, 0xb7, S0, &from);
	tr_commit(t, i);
	word_store(t, &m, S0);
	rsp_add(t, -(int)t->word);
	return LOWERED;
}

enum lowered lower_stack(struct tr *t, const struct insn *i)
{
	switch (i->op) {
	case OP_PUSH:
		return lower_push(t, i);
	case OP_POP:
		return lower_pop(t, i);
	case OP_PUSH_SREG:
		return lower_push_sreg(t, i);
	case OP_LEAVE:
		return lower_leave_frame(t, i);
	default:
		return LOWER_HELPER;
	}
}
