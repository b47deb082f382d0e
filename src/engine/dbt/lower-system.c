/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions. Those a kernel executes all the time have short forms here; the rest is the interpreter's,
 * as a call from within the block.
 *
 * STI and POPF may let a waiting interrupt in: hot->irq_check says that one may wait at the interrupt controller, the
 * attention word that something has been posted since. Either leaves translated code.
 */
#include "engine/dbt/translate.h"

static bool ring0(const struct tr *t)
{
	return !(t->mode & MODE_CPL);
}

/* Where state changes from, without asking for the flags in the host's. */
static void commit(struct tr *t)
{
	struct insn_map *m = &t->map[t->idx];

	m->zone = MIN(emit_offset(&t->e) - m->host, 255u) & 255;
	t->committed = true;
}

static void leave_emit(struct tr *t, const struct cold *k)
{
	struct emit *e = &t->e;

	emit_label_here(e, k->from);
	if (k->kind) {
		struct opnd m = opnd_gs((int32_t)offsetof(struct cpu, s.shadow));

		enc(e, 0, 0xc6, 0, &m);
		emit8(e, SHADOW_STI);
	}
	tr_emit_va(t, S0, k->arg);
	emit_store(e, opnd_gs(OFF_RIP), S0);
	emit_imm(e, S0, EXIT_BOUNDARY);
	tr_jump_out(t, t->d->tramp_exit_m);
}

/* Interrupts are on now: leave if there may be one. */
static void interrupt_check(struct tr *t, bool shadow)
{
	struct opnd m = opnd_gs(OFF_ATTENTION);
	struct cold *k;

	for (int n = 0; n < 2; n++) {
		emit_alu_imm(&t->e, 0, 7, m, 0);
		k = tr_cold(t, leave_emit, emit_jcc(&t->e, CC_NE));
		k->arg = tr_next_rip(t);
		k->kind = shadow;
		m = opnd_gs(OFF_HOT(irq_check));
	}
}

static void flag_change(struct tr *t, uint64_t flag, bool on)
{
	struct opnd m = opnd_gs(OFF_RFLAGS);

	emit_alu_imm(&t->e, 0, on ? 1 : 4, m, on ? (int32_t)flag : (int32_t)~flag);
}

static enum lowered lower_sti(struct tr *t)
{
	struct emit *e = &t->e;
	struct opnd m = opnd_gs(OFF_RFLAGS);
	label on;

	enc(e, 0, 0xf7, 0, &m); /* test */
	emit32(e, (uint32_t)FLAG_IF);
	commit(t);
	on = emit_jcc(e, CC_NE);
	flag_change(t, FLAG_IF, true);
	interrupt_check(t, true);
	emit_label_here(e, on);
	return LOWERED;
}

/* RAX = RFLAGS as PUSHF shows them; RAX itself is in hot->rax. */
static enum lowered lower_pushf(struct tr *t)
{
	struct emit *e = &t->e;
	struct opnd m, flags = opnd_gs(OFF_HOT(flags)), s0 = opnd_reg(S0), rax = opnd_reg(RAX);
	struct opnd below = opnd_mem(RSP, -(int)t->word);

	mem_stack(t, -(int)t->word, t->word, SLOW_WRITE, false, &m);
	commit(t);
	emit_store(e, opnd_gs(OFF_HOT(rax)), RAX);
	enc(e, ENC_0F, 0xb7, RAX, &flags);
	enc(e, ENC_66, 0xc1, 0, &rax); /* rol ax, 8: AL is the low byte, AH is OF */
	emit8(e, 8);
	emit_bytes(e, "\xc0\xe4\x03", 3); /* shl ah, 3 */
	emit_bytes(e, "\x0f\xb7\xc0", 3); /* movzx eax, ax */
	enc(e, 0, X_MOV_LOAD, S0, &(struct opnd){ .kind = OPND_MEM, .base = OPND_NONE, .index = OPND_NONE, .gs = true,
						  .disp = OFF_RFLAGS });
	emit_alu_imm(e, 0, 4, s0, (int32_t)~(uint32_t)(FLAGS_ARITH | FLAG_RF | FLAG_VM));
	enc(e, 0, X_OR, S0, &rax);
	emit_load(e, RAX, opnd_gs(OFF_HOT(rax)));
	enc(e, t->wide, X_MOV_STORE, S0, &m);
	enc(e, t->wide, X_LEA, RSP, &below);
	return LOWERED;
}

static void interp_emit(struct tr *t, const struct cold *k)
{
	emit_label_here(&t->e, k->from);
	tr_emit_block(t, S1, SLOW_PARAM(t->b, k->idx, SLOW_INTERP, 1));
	tr_jump_out(t, t->d->tramp_slow);
}

/* Only arithmetic flags, DF and IF change inline. */
static enum lowered lower_popf(struct tr *t)
{
	struct emit *e = &t->e;
	struct opnd m, s0 = opnd_reg(S0), s1 = opnd_reg(S1), rflags = opnd_gs(OFF_RFLAGS);
	struct opnd flags = opnd_gs(OFF_HOT(flags)), above = opnd_mem(RSP, (int)t->word);
	label off;

	mem_stack(t, 0, t->word, SLOW_READ, false, &m);
	enc(e, t->wide, X_MOV_LOAD, S0, &m);
	enc(e, 0, X_MOV_LOAD, S1, &s0);
	enc(e, 0, X_XOR, S1, &rflags);
	enc(e, 0, 0xf7, 0, &s1); /* test */
	emit32(e, (uint32_t)(FLAG_TF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID));
	tr_cold(t, interp_emit, emit_jcc(e, CC_NE));
	commit(t);
	enc(e, t->wide, X_LEA, RSP, &above);
	emit_alu_imm(e, 0, 4, s0, 0x3f7fd5);
	emit_alu_imm(e, 0, 1, s0, 2);
	enc(e, 0, X_MOV_STORE, S0, &rflags);
	emit_store(e, opnd_gs(OFF_HOT(rax)), RAX);
	enc(e, 0, X_MOV_LOAD, RAX, &s0);
	emit_bytes(e, "\xc0\xec\x03\x80\xe4\x01", 6); /* shr ah, 3; and ah, 1 */
	enc(e, ENC_66, 0xc1, 0, &(struct opnd){ .kind = OPND_REG, .reg = RAX });
	emit8(e, 8);
	enc(e, ENC_66, X_MOV_STORE, RAX, &flags);
	emit_load(e, RAX, opnd_gs(OFF_HOT(rax)));
	enc(e, 0, 0xf7, 0, &s0);
	emit32(e, (uint32_t)FLAG_IF);
	off = emit_jcc(e, CC_E);
	interrupt_check(t, false);
	emit_label_here(e, off);
	t->fl = FL_M;
	return LOWERED;
}

static enum lowered lower_rdtsc(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	struct opnd rdx = opnd_reg(RDX), rax = opnd_reg(RAX), m;

	if (t->mode & MODE_TSD)
		return LOWER_HELPER;
	commit(t);
	emit_bytes(e, i->op == OP_RDTSCP ? "\x0f\x01\xf9" : "\x0f\x31", i->op == OP_RDTSCP ? 3 : 2);
	enc(e, ENC_W, 0xc1, 4, &rdx);
	emit8(e, 32);
	enc(e, ENC_W, X_OR, RAX, &rdx);
	m = opnd_gs(OFF_HOT(tsc_host));
	enc(e, ENC_W, X_ADD, RAX, &m);
	m = opnd_gs((int32_t)offsetof(struct cpu, s.tsc_offset));
	enc(e, ENC_W, X_ADD, RAX, &m);
	emit_mov(e, RDX, RAX);
	enc(e, ENC_W, 0xc1, 5, &rdx);
	emit8(e, 32);
	enc(e, 0, X_MOV_LOAD, RAX, &rax);
	if (i->op == OP_RDTSCP) {
		m = opnd_gs((int32_t)offsetof(struct cpu, s.tsc_aux));
		enc(e, 0, X_MOV_LOAD, RCX, &m);
	}
	return LOWERED;
}

static enum lowered lower_swapgs(struct tr *t)
{
	struct emit *e = &t->e;
	int32_t kernel = (int32_t)offsetof(struct cpu, s.kernel_gs_base);

	commit(t);
	emit_load(e, S0, opnd_gs(OFF_SEG_BASE(SEG_GS)));
	emit_load(e, S1, opnd_gs(kernel));
	emit_store(e, opnd_gs(kernel), S0);
	emit_store(e, opnd_gs(OFF_SEG_BASE(SEG_GS)), S1);
	return LOWERED;
}

/* STAC, CLAC: another table for data. */
static enum lowered lower_ac(struct tr *t, bool on)
{
	struct emit *e = &t->e;
	enum tlb_mode mode = on ? TLB_SUPER_AC : TLB_SUPER;
	struct opnd m = opnd_gs((int32_t)offsetof(struct cpu, tlb.mode));

	if (!ring0(t) || !(t->mode & MODE_SMAP))
		return LOWER_HELPER;
	commit(t);
	flag_change(t, FLAG_AC, on);
	emit_load(e, TB, opnd_gs((int32_t)offsetof(struct cpu, tlb.space)));
	emit_load(e, TB, opnd_mem(TB, (int32_t)(offsetof(struct tlb_space, table) + sizeof(void *) * mode)));
	emit_store(e, opnd_gs(OFF_TLB_DATA), TB);
	emit_lea(e, TB, opnd_mem(TB, TB_BIAS));
	enc(e, 0, 0xc7, 0, &m);
	emit32(e, mode);
	return LOWERED;
}

/* MOV r, Sreg; loads are the interpreter's. */
static enum lowered lower_mov_sreg(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	struct opnd m, to = opnd_guest(i->rm);

	if (i->opcode != 0x8c || i->flags & INSN_MEM || (i->modrm >> 3 & 7) > 5)
		return LOWER_HELPER;
	commit(t);
	m = opnd_gs((int32_t)(offsetof(struct cpu, s.seg) + sizeof(struct x86_segment) * (i->modrm >> 3 & 7) +
			      offsetof(struct x86_segment, selector)));
	enc(e, ENC_0F, 0xb7, S0, &m);
	if (i->opsize == 2)
		enc(e, ENC_66, X_MOV_STORE, S0, &to);
	else
		emit_store(e, to, S0);
	return LOWERED;
}

/* RDFSBASE and kin, where CR4 allows them and the address is canonical with 48 bits; else the interpreter. */
static enum lowered lower_base(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	bool fs = i->op == OP_RDFSBASE || i->op == OP_WRFSBASE, writes = i->op == OP_WRFSBASE || i->op == OP_WRGSBASE;
	struct opnd base = opnd_gs(OFF_SEG_BASE(fs ? SEG_FS : SEG_GS)), cr4 = opnd_gs((int32_t)offsetof(struct cpu, s.cr4));
	struct opnd reg = opnd_guest(i->rm), s1 = opnd_reg(S1);

	if (i->opsize != 8)
		return LOWER_HELPER;
	enc(e, 0, 0xf7, 0, &cr4); /* test */
	emit32(e, (uint32_t)CR4_FSGSBASE);
	tr_cold(t, interp_emit, emit_jcc(e, CC_E));
	if (!writes) {
		commit(t);
		emit_load(e, S0, base);
		emit_store(e, reg, S0);
		return LOWERED;
	}
	emit_load(e, S0, reg);
	emit_mov(e, S1, S0);
	enc(e, ENC_W, 0xc1, 4, &s1); /* shl, sar */
	emit8(e, 16);
	enc(e, ENC_W, 0xc1, 7, &s1);
	emit8(e, 16);
	enc(e, ENC_W, X_CMP, S0, &s1);
	tr_cold(t, interp_emit, emit_jcc(e, CC_NE));
	commit(t);
	emit_store(e, base, S0);
	return LOWERED;
}

/* In C, but without leaving: far.c. */
static enum lowered lower_far(struct tr *t, const struct insn *i, enum far_kind kind)
{
	if (i->len > 4)
		return LOWER_HELPER;
	if (t->fl == FL_H) {
		tr_flags_save(t);
		t->fl = FL_M;
	}
	if (kind == FAR_CR3)
		emit_load(&t->e, S0, opnd_guest(i->rm));
	tr_emit_block(t, S1, SLOW_PARAM(t->b, t->idx, SLOW_FAR, 1) | (uint64_t)(kind | (MAX(i->len, 2u) - 2) << 2) << 60);
	tr_jump_out(t, t->d->tramp_slow);
	t->ended = true;
	return LOWERED;
}

/* MOV r, CRn: those that are only state. */
static enum lowered lower_mov_cr(struct tr *t, const struct insn *i)
{
	static const int32_t where[] = { offsetof(struct cpu, s.cr0), 0, offsetof(struct cpu, s.cr2), offsetof(struct cpu, s.cr3),
					 offsetof(struct cpu, s.cr4) };

	if (!t->m32 && ring0(t) && i->form == FORM_REG_RM && i->reg == 3 && !(i->flags & INSN_LOCK) && t->at[t->idx] + i->len < 4096u) {
		return lower_far(t, i, FAR_CR3);
	}
	if (!ring0(t) || i->form != FORM_RM_REG || i->reg > 4 || i->reg == 1 || i->flags & INSN_LOCK)
		return LOWER_HELPER;
	commit(t);
	if (t->m32)
		enc(&t->e, 0, X_MOV_LOAD, S0, &(struct opnd){ .kind = OPND_MEM, .base = OPND_NONE, .index = OPND_NONE, .gs = true,
							      .disp = where[i->reg] });
	else
		emit_load(&t->e, S0, opnd_gs(where[i->reg]));
	emit_store(&t->e, opnd_guest(i->rm), S0);
	return LOWERED;
}

enum lowered lower_system(struct tr *t, const struct insn *i)
{
	switch (i->op) {
	case OP_CLI:
		if (!ring0(t))
			return LOWER_HELPER;
		commit(t);
		flag_change(t, FLAG_IF, false);
		return LOWERED;
	case OP_STI:
		/* as the last of its block it leaves no place to hold an interrupt off */
		return ring0(t) && t->idx + 1 < t->n ? lower_sti(t) : LOWER_HELPER;
	case OP_PUSHFQ:
	case OP_PUSHFD:
		return i->opsize == t->word ? lower_pushf(t) : LOWER_HELPER;
	case OP_POPFQ:
	case OP_POPFD:
		return i->opsize == t->word && ring0(t) ? lower_popf(t) : LOWER_HELPER;
	case OP_RDTSC:
	case OP_RDTSCP:
		return lower_rdtsc(t, i);
	case OP_SWAPGS:
		return ring0(t) && !t->m32 ? lower_swapgs(t) : LOWER_HELPER;
	case OP_STAC:
	case OP_CLAC:
		return lower_ac(t, i->op == OP_STAC);
	case OP_MOV_SREG:
		return lower_mov_sreg(t, i);
	case OP_RDFSBASE:
	case OP_RDGSBASE:
	case OP_WRFSBASE:
	case OP_WRGSBASE:
		return lower_base(t, i);
	case OP_MOV_CR:
		return lower_mov_cr(t, i);
	case OP_WRMSR:
		return ring0(t) && !t->m32 && !(i->flags & INSN_LOCK) ? lower_quick(t, i, QUICK_WRMSR) : LOWER_HELPER;
	case OP_INVLPG:
		return ring0(t) && i->flags & INSN_MEM && !(i->flags & INSN_LOCK) ? lower_quick(t, i, QUICK_INVLPG) : LOWER_HELPER;
	case OP_SYSCALL:
		if (t->m32)
			return LOWER_HELPER;
		return lower_far(t, i, FAR_SYSCALL);
	case OP_SYSRET:
		return i->opsize == 8 && ring0(t) ? lower_far(t, i, FAR_SYSRET) : LOWER_HELPER;
	case OP_SYSENTER:
		return t->m32 && !(t->mode & MODE_COMPAT) ? lower_far(t, i, FAR_SYSCALL) : LOWER_HELPER;
	case OP_SYSEXIT:
		return t->m32 && !(t->mode & MODE_COMPAT) && ring0(t) ? lower_far(t, i, FAR_SYSRET) : LOWER_HELPER;
	case OP_IRETD:
		return t->m32 && !(t->mode & MODE_COMPAT) && ring0(t) ? lower_far(t, i, FAR_IRET) : LOWER_HELPER;
	case OP_IRETQ:
		return ring0(t) ? lower_far(t, i, FAR_IRET) : LOWER_HELPER;
	case OP_INVALID:
		return LOWER_LEAVE;
	default:
		return LOWER_HELPER;
	}
}
