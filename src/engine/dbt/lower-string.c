/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LODS, SCAS and CMPS, alone, as loads and comparisons: 32-bit kernels' string functions are loops of them.
 *
 * MOVS and STOS, alone or repeated: where all of it lies within a page on either side the host's own instruction does
 * it, its pointers moved to the host's addresses for so long. A compiler's short REP MOVS is called as often as any
 * small function, and the call into C cost 25 ns. Everything else (page ends, DF set, other segments and address sizes,
 * what compares or reads only) is the interpreter's, which works page by page.
 *
 * A kick that finds the host's REP underway completes it (signals.c) rather than stepping through thousands of rounds.
 */
#include "engine/dbt/translate.h"

static void slow_emit(struct tr *t, const struct cold *k)
{
	emit_label_here(&t->e, k->from);
	tr_emit_block(t, S1, SLOW_PARAM(t->b, k->idx, SLOW_INTERP, 1));
	tr_jump_out(t, t->d->tramp_slow);
}

static void slow_if(struct tr *t, unsigned cc)
{
	tr_cold(t, slow_emit, emit_jcc(&t->e, cc));
}

static void pointer_move(struct tr *t, bool back, unsigned reg, unsigned by)
{
	struct opnd m = opnd_reg(by);

	enc(&t->e, ENC_W, back ? X_SUB : X_ADD, reg, &m);
}

/* The instruction on pointers that S0 (source) and S1 (destination) make the host's. */
static void host_instruction(struct tr *t, const struct insn *i, bool moves)
{
	struct emit *e = &t->e;

	if (moves)
		pointer_move(t, false, RSI, S0);
	pointer_move(t, false, RDI, S1);
	if (i->flags & (INSN_REP | INSN_REPNE)) /* REPNE is REP to these */
		emit8(e, 0xf3);
	if (i->opsize == 2)
		emit8(e, 0x66);
	if (i->opsize == 8)
		emit8(e, 0x48);
	emit8(e, i->opcode);
	if (moves)
		pointer_move(t, true, RSI, S0);
	pointer_move(t, true, RDI, S1);
}

static unsigned size_flags(unsigned size)
{
	return size == 2 ? ENC_66 : size == 8 ? ENC_W : 0;
}

static void pointer_step(struct tr *t, unsigned reg, unsigned by)
{
	struct opnd m = opnd_mem(reg, (int32_t)by);

	enc(&t->e, t->wide, X_LEA, reg, &m);
}

static void df_check(struct tr *t)
{
	struct opnd df = opnd_gs(OFF_RFLAGS + 1);

	enc(&t->e, 0, 0xf6, 0, &df); /* test */
	emit8(&t->e, (unsigned)(FLAG_DF >> 8));
	slow_if(t, CC_NE);
}

static enum lowered lower_lods(struct tr *t, const struct insn *i)
{
	struct opnd m = opnd_sib(RSI, S1, 0, 0);

	df_check(t);
	mem_span(t, RSI, false, (unsigned)__builtin_ctz(i->opsize), SLOW_READ);
	tr_commit(t, i);
	enc(&t->e, size_flags(i->opsize), i->opsize == 1 ? 0x8a : X_MOV_LOAD, RAX, &m);
	pointer_step(t, RSI, i->opsize);
	return LOWERED;
}

static enum lowered lower_compare(struct tr *t, const struct insn *i, bool both)
{
	struct emit *e = &t->e;
	struct opnd m = opnd_sib(RSI, S1, 0, 0);
	unsigned shift = (unsigned)__builtin_ctz(i->opsize), compare = i->opsize == 1 ? 0x3a : X_CMP;

	df_check(t);
	if (both) {
		mem_span(t, RSI, false, shift, SLOW_READ);
		enc(e, size_flags(i->opsize), i->opsize == 1 ? 0x8a : X_MOV_LOAD, S0, &m);
		emit_store(e, opnd_gs(OFF_HOT(tmp)), S0);
	}
	mem_span(t, RDI, false, shift, SLOW_READ);
	if (both)
		emit_load(e, S0, opnd_gs(OFF_HOT(tmp)));
	tr_commit(t, i);
	m = opnd_sib(RDI, S1, 0, 0);
	enc(e, size_flags(i->opsize), compare, both ? S0 : RAX, &m);
	pointer_step(t, RDI, i->opsize);
	if (both)
		pointer_step(t, RSI, i->opsize);
	return LOWERED;
}

static void wrap(struct tr *t, unsigned reg)
{
	struct opnd m = opnd_reg(reg);

	enc(&t->e, 0, X_MOV_LOAD, reg, &m);
}

enum lowered lower_string(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	bool moves = i->op >= OP_MOVSB && i->op <= OP_MOVSQ, stores = i->op >= OP_STOSB && i->op <= OP_STOSQ;
	bool repeated = i->flags & (INSN_REP | INSN_REPNE);
	unsigned shift = (unsigned)__builtin_ctz(i->opsize);

	if (i->addrsize != t->word || i->flags & INSN_LOCK)
		return LOWER_HELPER;
	if (!repeated && i->op >= OP_LODSB && i->op <= OP_LODSQ)
		return i->seg < SEG_FS ? lower_lods(t, i) : LOWER_HELPER;
	if (!repeated && i->op >= OP_SCASB && i->op <= OP_CMPSQ)
		return i->op < OP_CMPSB || i->seg < SEG_FS ? lower_compare(t, i, i->op >= OP_CMPSB) : LOWER_HELPER;
	if ((!moves && !stores) || (moves && i->seg >= SEG_FS))
		return LOWER_HELPER;
	df_check(t);
	if (repeated) {
		emit_alu_imm(e, ENC_W, 7, opnd_reg(RCX), 4096 >> shift);
		slow_if(t, CC_A);
	}
	if (moves) {
		mem_span(t, RSI, repeated, shift, SLOW_READ);
		emit_store(e, opnd_gs(OFF_HOT(tmp)), S1);
	}
	mem_span(t, RDI, repeated, shift, SLOW_WRITE);
	tr_commit(t, i);
	if (moves)
		emit_load(e, S0, opnd_gs(OFF_HOT(tmp)));
	host_instruction(t, i, moves);
	if (t->m32) { /* past the last byte there is the first */
		wrap(t, RDI);
		if (moves)
			wrap(t, RSI);
	}
	return LOWERED;
}
