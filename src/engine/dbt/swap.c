/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest R13..R15 in loops. A block that leads to its own start and uses one of them a few times gives it, while it goes
 * round, the host register of another that it does not use; that one waits in the home of the first. The block's entry
 * exchanges them, every way out exchanges them back, only the jump to its own start (b->inner) does not.
 *
 * Who looks at the registers while the block runs knows: dbt_slow exchanges them in cpu->s before anything else and goes back
 * through b->swap_in; signal handlers exchange them when they send the thread out of the block.
 */
#include "engine/dbt/translate.h"

#define USES_MIN 2u

static bool renamed_operands(const struct insn *i)
{
	return (i->class == CLASS_PLAIN && !(i->flags & INSN_VEX)) || i->class == CLASS_BRANCH;
}

static void count(unsigned uses[16], unsigned reg)
{
	if (reg < 16)
		uses[reg]++;
}

/* References, more rather than less. False: not in a block of this kind. */
static bool references(struct tr *t, unsigned idx, unsigned uses[16])
{
	const struct insn *i = &t->insn[idx];
	bool vector = i->class == CLASS_VECTOR || i->class == CLASS_X87;

	if (i->class != CLASS_PLAIN && i->class != CLASS_BRANCH && !vector)
		return false;
	if (i->flags & INSN_MEM || i->op == OP_LEA) {
		count(uses, i->base);
		if (!(i->flags & INSN_VSIB))
			count(uses, i->index);
	}
	if (renamed_operands(i)) {
		if ((i->op == OP_XCHG || i->op == OP_BSWAP || (i->op == OP_MOV && i->opsize < 4)) && !i->modrm_at &&
		    i->reg >= GUEST_HOST_REGS)
			return false; /* the register is in the opcode */
		if (i->op == OP_BSWAP && i->reg >= GUEST_HOST_REGS)
			return false;
		if (i->op == OP_CMPXCHG8B || i->op == OP_CMPXCHG16B || i->op == OP_XLAT)
			uses[RBX]++;
		count(uses, i->reg);
		count(uses, i->rm);
		return true;
	}
	if (vector) {
		const struct shape *s = vector_shape(t, idx);

		if (!s->known)
			return true; /* interpreted */
		if (!s->reg_gpr && !s->rm_gpr && !s->vvvv_gpr)
			return true;
	}
	if (i->reg >= GUEST_HOST_REGS || i->vvvv >= GUEST_HOST_REGS ||
	    (!(i->flags & INSN_MEM) && i->rm >= GUEST_HOST_REGS))
		return false;
	count(uses, i->reg);
	count(uses, i->vvvv);
	count(uses, i->rm);
	return true;
}

static bool loops(const struct tr *t)
{
	const struct insn *last = &t->insn[t->n - 1];

	for (unsigned idx = 0; idx < t->n; idx++) {
		const struct insn *i = &t->insn[idx];

		if (i->class == CLASS_BRANCH && i->flags & INSN_COND &&
		    (t->page_va | t->at[idx]) + i->len + i->imm == t->b->va)
			return true;
	}
	if (last->op == OP_JMP && last->form == FORM_IMM)
		return (t->page_va | t->at[t->n - 1]) + last->len + last->imm == t->b->va;
	return false;
}

static uint8_t other_name(const struct tr *t, uint8_t reg)
{
	for (unsigned n = 0; n < t->b->nswaps; n++) {
		if (t->b->swap[n].guest == reg)
			return t->b->swap[n].host;
	}
	return reg;
}

static void rename(struct tr *t, struct insn *i)
{
	uint8_t reg = i->reg;

	if (i->flags & INSN_MEM || i->op == OP_LEA) {
		i->base = other_name(t, i->base);
		if (!(i->flags & INSN_VSIB))
			i->index = other_name(t, i->index);
	}
	if (!renamed_operands(i))
		return;
	i->reg = other_name(t, i->reg);
	i->rm = other_name(t, i->rm);
	i->slot = i->reg != reg;
}

void plan_swaps(struct tr *t)
{
	static const uint8_t idle[] = { R11, R10, R9, R8, RDI, RSI, RBX, R12 };
	unsigned uses[16] = { 0 }, next = 0;
	struct block *b = t->b;

	b->nswaps = 0;
	if (t->m32 || may_straddle(b->va) || !loops(t))
		return;
	for (unsigned idx = 0; idx < t->n; idx++) {
		if (!references(t, idx, uses))
			return;
	}
	for (uint8_t g = GUEST_HOST_REGS; g < 16; g++) {
		if (uses[g] < USES_MIN)
			continue;
		while (next < sizeof(idle) && uses[idle[next]])
			next++;
		if (next == sizeof(idle))
			break;
		b->swap[b->nswaps].guest = g;
		b->swap[b->nswaps++].host = idle[next++];
	}
	for (unsigned idx = 0; b->nswaps && idx < t->n; idx++)
		rename(t, &t->insn[idx]);
}

/* Either way; S1 is lost, flags are not. */
void swap_emit(struct tr *t)
{
	for (unsigned n = 0; n < t->b->nswaps; n++) {
		struct opnd home = opnd_gs(OFF_GPR(t->b->swap[n].guest));

		emit_load(&t->e, S1, home);
		emit_store(&t->e, home, t->b->swap[n].host);
		emit_mov(&t->e, t->b->swap[n].host, S1);
	}
}

void swap_out(struct tr *t)
{
	if (t->swapped)
		swap_emit(t);
}
