/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Near branches. A conditional jump is a side exit, the block goes on with what follows it; an unconditional one is
 * followed within the page where that helps, else it is the end. Direct exits are jumps patched when their target is known
 * (same page), or jumps through a slot of the vCPU (other pages: which mapping holds is each vCPU's own). Indirect ones look
 * into the jump cache inline. Host RET and the host's stack play no part.
 */
#include "engine/dbt/translate.h"

/* Where an unlinked exit goes: name it and leave. */
static void exit_stub_emit(struct tr *t, const struct cold *k)
{
	struct emit *e = &t->e;
	struct exit *x = k->exit;

	if (x->slot < 0)
		emit_label_here(e, k->from);
	x->stub = emit_offset(e);
	if (x->self)
		swap_emit(t);
	emit_imm(e, S1, (uint64_t)(uintptr_t)(t->exits_final + (x - t->exits)));
	tr_reloc(t, RELOC_EXIT);
	tr_jump_out(t, x->flags == FL_H ? t->d->tramp_link_h : t->d->tramp_link_m);
}

static struct exit *exit_new(struct tr *t, uint64_t target)
{
	struct exit *x = &t->exits[t->nexits++];

	*x = (struct exit){ .from = t->b, .target = target, .slot = -1,
			    .flags = t->fl == FL_M ? FL_M : FL_H };
	if ((target & ~0xfffull) != t->page_va || may_straddle(target))
		x->slot = -2; /* wanted */
	return x;
}

static void slot_jump(struct tr *t, struct exit *x)
{
	emit_jmp_mem(&t->e, opnd_gs(OFF_SLOT(x->slot)));
	x->patch = emit_offset(&t->e);
}

static void slot_jump_emit(struct tr *t, const struct cold *k)
{
	emit_label_here(&t->e, k->from);
	slot_jump(t, k->exit);
}

/* No slot left: as if the jump were an indirect one. */
static void exit_by_cache(struct tr *t, uint64_t target)
{
	bool ended = t->ended, swapped = t->swapped;

	if (t->fl == FL_H)
		tr_flags_save(t);
	tr_emit_va(t, S0, target);
	t->swapped = false; /* the caller's business */
	lower_exit_indirect(t);
	t->swapped = swapped;
	t->ended = ended;
}

static void exit_by_cache_emit(struct tr *t, const struct cold *k)
{
	emit_label_here(&t->e, k->from);
	t->fl = (enum flags_state)k->kind;
	swap_out(t);
	exit_by_cache(t, k->arg);
}

/* A conditional exit of a block with registers exchanged: back with them first. */
static void exit_swapped_emit(struct tr *t, const struct cold *k)
{
	struct exit *x = k->exit;

	emit_label_here(&t->e, k->from);
	swap_emit(t);
	if (x->slot >= 0) {
		slot_jump(t, x);
		exit_stub_emit(t, k);
	} else {
		struct cold stub = *k;

		x->patch = stub.from = emit_jmp(&t->e);
		exit_stub_emit(t, &stub);
	}
}

static void exit_swapped(struct tr *t, unsigned cc, uint64_t target)
{
	struct exit *x = exit_new(t, target);
	label l = emit_jcc(&t->e, cc);
	struct cold *k;

	if (x->slot == -2)
		x->slot = slot_take(t->d);
	if (x->slot == -1 && ((target & ~0xfffull) != t->page_va || may_straddle(target))) { /* no slot left */
		t->nexits--;
		k = tr_cold(t, exit_by_cache_emit, l);
		k->arg = target;
		k->kind = FL_H;
		return;
	}
	k = tr_cold(t, exit_swapped_emit, l);
	k->exit = x;
}

/* cc < 0: always. */
static void exit_emit(struct tr *t, int cc, uint64_t target)
{
	struct exit *x;
	struct cold *k;
	bool self = t->swapped && target == t->b->va && t->fl != FL_M;

	if (t->swapped && !self) {
		if (cc >= 0) {
			exit_swapped(t, (unsigned)cc, target);
			return;
		}
		swap_out(t);
	}
	x = exit_new(t, target);
	x->self = self;

	if (x->slot == -2) {
		x->slot = slot_take(t->d);
		if (x->slot < 0) {
			t->nexits--;
			if (cc < 0) {
				exit_by_cache(t, target);
				return;
			}
			k = tr_cold(t, exit_by_cache_emit, emit_jcc(&t->e, (unsigned)cc));
			k->arg = target;
			k->kind = FL_H;
			return;
		}
	}
	if (x->slot >= 0) {
		if (cc < 0) {
			slot_jump(t, x);
		} else {
			k = tr_cold(t, slot_jump_emit, emit_jcc(&t->e, (unsigned)cc));
			k->exit = x;
		}
		k = tr_cold(t, exit_stub_emit, 0);
	} else {
		label l = cc < 0 ? emit_jmp(&t->e) : emit_jcc(&t->e, (unsigned)cc);

		x->patch = l;
		k = tr_cold(t, exit_stub_emit, l);
	}
	k->exit = x;
}

void lower_exit_direct(struct tr *t, uint64_t target)
{
	exit_emit(t, -1, target);
	t->ended = true;
}

static void indirect_miss_emit(struct tr *t, const struct cold *k)
{
	const struct insn *i = &t->insn[k->idx];
	struct opnd s1 = opnd_reg(S1);
	int32_t undo = i->op == OP_CALL ? 8 : i->op == OP_RET ? -8 - (i->form == FORM_IMM ? (uint16_t)i->imm : 0) : 0;

	emit_label_here(&t->e, k->from);
	enc(&t->e, ENC_66, X_MOV_LOAD, S0, &s1);
	emit_store(&t->e, opnd_gs(OFF_RIP), S0);
	/* a target that is not canonical faults at the branch, with the stack pointer as it was */
	tr_emit_va(t, S0, t->page_va | t->at[k->idx]);
	emit_store(&t->e, opnd_gs(OFF_HOT(from)), S0);
	emit_store_imm32(&t->e, opnd_gs(OFF_HOT(undo)), undo);
	tr_jump_out(t, t->d->tramp_indirect);
}

/*
 * Jump cache: its index is the address's low 16 bits, the key the address with the id in their place, so the whole page number
 * is compared: no address a guest makes up can match what is another address space's or privilege's. The address
 * itself is put together again where it is not found.
 */
void lower_exit_indirect(struct tr *t)
{
	struct emit *e = &t->e;
	struct opnd s0 = opnd_reg(S0), m = opnd_gs(OFF_HOT(jc_id));

	swap_out(t);
	enc(e, ENC_0F, 0xb7, S1, &s0); /* MOVZX */
	enc(e, ENC_66, X_MOV_LOAD, S0, &m);
	m = opnd_sib(OPND_NONE, S1, 3, OFF_HOT(jc_key));
	m.gs = true;
	enc(e, ENC_W, X_CMP, S0, &m);
	tr_cold(t, indirect_miss_emit, emit_jcc(e, CC_NE));
	m.disp = OFF_HOT(jc_host);
	emit_jmp_mem(e, m);
	t->ended = true;
}

void lower_leave(struct tr *t, enum dbt_exit why, uint64_t rip)
{
	struct emit *e = &t->e;

	swap_out(t);
	tr_emit_va(t, S0, rip);
	emit_store(e, opnd_gs(OFF_RIP), S0);
	emit_imm(e, S0, (unsigned)why);
	tr_jump_out(t, t->fl == FL_M ? t->d->tramp_exit_m : t->d->tramp_exit_h);
	t->ended = true;
}

/* Push the return address. S0, S1 are free again afterwards. */
static void push_return(struct tr *t, const struct insn *i, bool second)
{
	struct emit *e = &t->e;
	uint64_t back = tr_next_rip(t);
	struct opnd m, below = opnd_mem(RSP, -(int)t->word);

	mem_stack(t, -(int)t->word, t->word, SLOW_WRITE, second, &m);
	if (t->m32) {
		tr_commit(t, i);
		enc(e, 0, 0xc7, 0, &m);
		emit32(e, (uint32_t)back);
	} else if (back == (uint64_t)(int64_t)(int32_t)back) {
		tr_commit(t, i);
		emit_store_imm32(e, m, (int32_t)back);
		tr_reloc(t, RELOC_VA32);
	} else {
		tr_emit_va(t, S0, back);
		tr_commit(t, i);
		emit_store(e, m, S0);
	}
	enc(e, t->wide, X_LEA, RSP, &below);
}

static bool canonical(uint64_t v)
{
	return (uint64_t)((int64_t)(v << 16) >> 16) == v;
}

/* Target of JMP, CALL through register or memory into S0. */
static void load_target(struct tr *t, const struct insn *i)
{
	struct opnd m;

	if (i->flags & INSN_MEM) {
		mem_operand(t, i, t->word, SLOW_READ, &m);
		enc(&t->e, t->wide, X_MOV_LOAD, S0, &m);
	} else if (i->rm >= GUEST_HOST_REGS) {
		emit_load(&t->e, S0, opnd_gs(OFF_GPR(i->rm)));
	} else {
		emit_mov(&t->e, S0, i->rm);
	}
}

static enum lowered lower_call(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;

	if (i->form == FORM_IMM) {
		uint64_t target = tr_target(t, i);

		if (!canonical(target) || i->opsize != t->word)
			return LOWER_LEAVE;
		push_return(t, i, false);
		lower_exit_direct(t, target);
		return LOWERED;
	}
	if (i->opsize != t->word || i->form != FORM_RM)
		return LOWER_LEAVE;
	load_target(t, i);
	emit_store(e, opnd_gs(OFF_HOT(tmp)), S0);
	push_return(t, i, i->flags & INSN_MEM);
	emit_load(e, S0, opnd_gs(OFF_HOT(tmp)));
	lower_exit_indirect(t);
	return LOWERED;
}

static enum lowered lower_ret(struct tr *t, const struct insn *i)
{
	struct opnd m;

	if (i->opsize != t->word)
		return LOWER_LEAVE;
	mem_stack(t, 0, t->word, SLOW_READ, false, &m);
	enc(&t->e, t->wide, X_MOV_LOAD, S0, &m);
	tr_commit(t, i);
	m = opnd_mem(RSP, (int32_t)t->word + (int32_t)(i->form == FORM_IMM ? (uint16_t)i->imm : 0));
	enc(&t->e, t->wide, X_LEA, RSP, &m);
	lower_exit_indirect(t);
	return LOWERED;
}

static enum lowered lower_jmp(struct tr *t, const struct insn *i)
{
	if (i->form == FORM_IMM) {
		uint64_t target = tr_target(t, i);

		if (!canonical(target) || i->opsize != t->word)
			return LOWER_LEAVE;
		tr_commit(t, i);
		lower_exit_direct(t, target);
		return LOWERED;
	}
	if (i->opsize != t->word || i->form != FORM_RM)
		return LOWER_LEAVE;
	load_target(t, i);
	tr_commit(t, i);
	lower_exit_indirect(t);
	return LOWERED;
}

/* JRCXZ (JECXZ in 32-bit code) and LOOP: RCX without touching the flags. */
static enum lowered lower_counted(struct tr *t, const struct insn *i, uint64_t target)
{
	struct emit *e = &t->e;
	struct opnd less = opnd_mem(RCX, -1);
	bool empty = i->op == (t->m32 ? OP_JECXZ : OP_JRCXZ);
	uint8_t *over;

	if (i->addrsize != t->word || (!empty && i->op != OP_LOOP))
		return LOWER_LEAVE;
	tr_commit(t, i);
	if (!empty)
		enc(e, t->wide, X_LEA, RCX, &less);
	/* jrcxz has one byte of reach only */
	if (empty) {
		emit8(e, 0xe3);
		emit8(e, 2);
		emit8(e, 0xeb);
		emit8(e, 0);
		over = e->p;
		exit_emit(t, -1, target);
		if (!e->full)
			over[-1] = (uint8_t)(e->p - over);
	} else {
		emit8(e, 0xe3);
		emit8(e, 0);
		over = e->p;
		exit_emit(t, -1, target);
		if (!e->full)
			over[-1] = (uint8_t)(e->p - over);
	}
	return LOWERED;
}

enum lowered lower_branch(struct tr *t, const struct insn *i)
{
	uint64_t target;

	switch (i->op) {
	case OP_JMP:
		return lower_jmp(t, i);
	case OP_CALL:
		return lower_call(t, i);
	case OP_RET:
		return lower_ret(t, i);
	default:
		break;
	}
	target = tr_target(t, i);
	if (!canonical(target))
		return LOWER_LEAVE;
	if (i->op >= OP_JCXZ && i->op <= OP_LOOPNE)
		return lower_counted(t, i, target);
	tr_commit(t, i);
	exit_emit(t, i->cond, target);
	return LOWERED;
}
