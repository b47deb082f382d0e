/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands of translated code: guest-virtual address to host address through the software TLB, inline.
 *
 *	lea  S0, [ea]
 *	bextr S1, S0, TB			index: see TB_BIAS
 *	sub  S0, [TB + S1*8 + tag]
 *	cmp  S0, 4096 - size			tag and page crossing in one compare
 *	ja   slow				out of line: fill and retry, or the interpreter
 *	mov  S1, [TB + S1*8 + addend]
 *	op   [ea + S1]
 *
 * Where the address is base + displacement it is used as it stands in the last step, otherwise it is computed a
 * second time (cheaper than keeping it, there is no third register). Constant addresses need no index and one
 * compare. This file is the seam for other ways of reaching memory.
 *
 * 32-bit code: addresses wrap at 4 GiB, and the upper halves of the guest's registers are zero. LEA with a 32-bit result wraps
 * them. base + displacement is used without that where the TLB knows no address beyond 4 GiB (no MODE_COMPAT): what does not
 * fit 32 bits is in no table then, and the interpreter wraps it. What is checked is what is used, or the access
 * would be 4 GiB off in the host: see run_direct().
 */
#include "engine/dbt/translate.h"

static bool spilled(unsigned g)
{
	return g >= GUEST_HOST_REGS && g < 16;
}

static bool ea_constant(const struct tr *t, const struct insn *i, uint64_t *ea)
{
	if (i->seg >= SEG_FS || i->index != REG_NONE)
		return false;
	if (i->base == REG_RIP)
		*ea = tr_next_rip(t) + (uint64_t)i->disp;
	else if (i->base == REG_NONE)
		*ea = (uint64_t)i->disp;
	else
		return false;
	if (i->addrsize == 4)
		*ea = (uint32_t)*ea;
	return true;
}

#define NEAR_32 (1 << 20) /* larger displacements are addresses of tables, which wrap */

/* Usable as [base + S1 + disp] without computing it. */
static bool ea_direct(const struct tr *t, const struct insn *i)
{
	if (i->seg >= SEG_FS || i->index != REG_NONE || i->base >= GUEST_HOST_REGS)
		return false;
	if (likely(!t->m32))
		return i->addrsize == 8;
	return !i->disp || (!(t->mode & MODE_COMPAT) && i->disp < NEAR_32 && i->disp > -NEAR_32);
}

/* The address itself, of a few bytes more or less. */
static bool ea_unwrapped(const struct tr *t, const struct insn *i)
{
	if (likely(!t->m32))
		return i->addrsize == 8;
	return i->seg < SEG_FS && i->index == REG_NONE && i->base < GUEST_HOST_REGS && !(t->mode & MODE_COMPAT) &&
	       i->disp < 2 * NEAR_32 && i->disp > -2 * NEAR_32;
}

/* Parts that live in memory are loaded into S0 (and S1, for LEA: flags may be live there). */
void mem_lea(struct tr *t, const struct insn *i, unsigned reg, unsigned enc_flags)
{
	struct emit *e = &t->e;
	unsigned base = i->base, index = i->index;
	struct opnd m;

	if (base == REG_RIP || (base == REG_NONE && index == REG_NONE)) {
		uint64_t ea = base == REG_RIP ? tr_next_rip(t) + (uint64_t)i->disp : (uint64_t)i->disp;

		if (i->addrsize == 4 || !(enc_flags & ENC_W)) {
			emit_imm(e, reg, (uint32_t)ea);
			t->fixed |= base == REG_RIP;
		} else if (base == REG_RIP) {
			tr_emit_va(t, reg, ea);
		} else {
			emit_imm(e, reg, ea);
		}
		return;
	}
	if (index != REG_NONE && spilled(index)) {
		emit_load(e, S0, opnd_gs(OFF_GPR(index)));
		index = S0;
		if (base != REG_NONE && spilled(base)) { /* no register left for an access: S1 is the addend's */
			emit_lea(e, S0, opnd_sib(OPND_NONE, S0, i->scale, (int32_t)i->disp));
			m = opnd_gs(OFF_GPR(base));
			enc(e, ENC_W, X_ADD, S0, &m);
			m = opnd_reg(S0);
			if (reg != S0 || !(enc_flags & ENC_W))
				enc(e, enc_flags, X_MOV_LOAD, reg, &m);
			return;
		}
	} else if (base != REG_NONE && spilled(base)) {
		emit_load(e, S0, opnd_gs(OFF_GPR(base)));
		base = S0;
	}
	m = opnd_sib(base, index, index == REG_NONE ? 0 : i->scale, (int32_t)i->disp);
	if (index != REG_NONE || i->disp || base != reg || !(enc_flags & ENC_W))
		enc(e, enc_flags, X_LEA, reg, &m);
}

/* Linear address into S0; flags: ENC_W or 0, for 32 bits of it. */
static void ea_emit_as(struct tr *t, const struct insn *i, unsigned flags)
{
	struct emit *e = &t->e;
	struct opnd base;

	if (i->seg < SEG_FS) {
		mem_lea(t, i, S0, flags);
		return;
	}
	base = opnd_gs(OFF_SEG_BASE(i->seg));
	if (flags && i->index == REG_NONE && i->base == REG_NONE) {
		emit_load(e, S0, base);
		if (i->disp)
			emit_lea(e, S0, opnd_mem(S0, (int32_t)i->disp));
	} else if (flags && i->index == REG_NONE && i->base < GUEST_HOST_REGS) {
		emit_load(e, S0, base);
		emit_lea(e, S0, opnd_sib(i->base, S0, 0, (int32_t)i->disp)); /* RSP cannot be an index */
	} else {
		mem_lea(t, i, S0, flags);
		enc(e, t->wide, X_ADD, S0, &base);
	}
}

static void ea_emit(struct tr *t, const struct insn *i)
{
	ea_emit_as(t, i, ea_unwrapped(t, i) ? ENC_W : 0);
}

void mem_linear(struct tr *t, const struct insn *i)
{
	ea_emit(t, i);
}

/* [RSP + offset] into S0; 32-bit code of a 64-bit system has to wrap it. */
static bool stack_wraps(const struct tr *t, int32_t offset)
{
	return offset && t->mode & MODE_COMPAT;
}

static void stack_emit(struct tr *t, int32_t offset)
{
	struct opnd m = opnd_mem(RSP, offset);

	enc(&t->e, stack_wraps(t, offset) ? 0 : ENC_W, X_LEA, S0, &m);
}

static unsigned slow_low(unsigned kind)
{
	switch (kind) {
	case SLOW_READ:
		return SLOW_READ_LOW;
	case SLOW_WRITE:
		return SLOW_WRITE_LOW;
	case SLOW_MASKED:
		return SLOW_MASKED_LOW;
	default:
		return SLOW_INTERP_LOW;
	}
}

static void slow_emit(struct tr *t, const struct cold *k)
{
	struct emit *e = &t->e;
	unsigned kind = k->kind;

	if (insn_masked(&t->insn[k->idx]))
		kind = kind == SLOW_READ ? SLOW_MASKED : SLOW_INTERP;
	if (k->low)
		kind = slow_low(kind);
	emit_label_here(e, k->from);
	if (k->rbp)
		emit_mov(e, S0, RBP);
	else if (k->stack)
		stack_emit(t, (int32_t)k->arg);
	else if (kind != SLOW_INTERP)
		ea_emit(t, &t->insn[k->idx]);
	tr_emit_block(t, S1, SLOW_PARAM(t->b, k->idx, kind, k->size));
	tr_jump_out(t, t->d->tramp_slow);
}

/* Behind a check. Where an instruction goes on with another addend (slow.c) is known only if one read is all it makes. */
static void addend_load(struct tr *t, unsigned kind)
{
	struct insn_map *m = &t->map[t->idx];
	uint32_t at;

	emit_load(&t->e, S1, opnd_sib(TB, S1, 3, OFF_ADDEND));
	at = emit_offset(&t->e) - m->host;
	if (kind == SLOW_READ && at <= UINT8_MAX)
		m->behind = m->behind ? 0 : at & UINT8_MAX;
}

static struct cold *slow_jump(struct tr *t, unsigned cc, unsigned kind, unsigned size)
{
	struct cold *k = tr_cold(t, slow_emit, emit_jcc(&t->e, cc));

	k->kind = (uint8_t)kind;
	k->size = (uint8_t)size;
	return k;
}

static void constant_operand(struct tr *t, uint64_t ea, bool moves, unsigned size, unsigned kind, struct opnd *out)
{
	struct emit *e = &t->e;
	int32_t row = (int32_t)(ea >> 12 & (TLB_ENTRIES - 1)) * 8;
	int32_t tag = (kind == SLOW_WRITE ? OFF_WRITE_TAG : OFF_READ_TAG) + row;
	uint64_t page = ea & ~0xfffull;
	struct opnd m = opnd_mem(TB, tag);

	if ((ea & 0xfff) > 4096 - size) { /* crosses a page: never inline */
		struct cold *k = tr_cold(t, slow_emit, emit_jmp(e));

		k->kind = SLOW_INTERP;
		k->size = (uint8_t)size;
		*out = opnd_mem(S0, 0);
		return;
	}
	if (page == (uint64_t)(int64_t)(int32_t)page && ea == (uint64_t)(int64_t)(int32_t)ea) {
		emit_alu_imm(e, ENC_W, 7, m, (int32_t)page);
		*out = opnd_mem(S1, (int32_t)ea);
		t->fixed |= moves;
	} else {
		if (moves) {
			tr_emit_va(t, S0, page);
			t->fixed |= tag == (int8_t)tag;
		} else {
			emit_imm(e, S0, page);
		}
		enc(e, ENC_W, X_CMP, S0, &m);
		if (moves)
			tr_reloc(t, RELOC_ROW);
		*out = opnd_sib(S0, S1, 0, (int32_t)(ea & 0xfff));
	}
	slow_jump(t, CC_NE, kind, size)->low = true;
	emit_load(e, S1, opnd_mem(TB, OFF_ADDEND + row));
	if (moves)
		tr_reloc(t, RELOC_ROW);
}

/* S0 = address on entry (`from` is a register that has it too, or S0). S1 = addend at the end. */
static void tlb_check(struct tr *t, unsigned from, unsigned size, bool write)
{
	struct emit *e = &t->e;
	struct opnd m = opnd_sib(TB, S1, 3, write ? OFF_WRITE_TAG : OFF_READ_TAG);

	emit_bextr(e, S1, from, TB);
	if (from != S0)
		emit_mov(e, S0, from);
	enc(e, ENC_W, X_SUB, S0, &m);
	emit_alu_imm(e, ENC_W, 7, opnd_reg(S0), (int32_t)(4096 - size));
}

bool mem_run_usable(const struct tr *t)
{
	int n = t->run_of[t->idx];

	return n >= 0 && (t->s1_run == n || (t->runs[n].slot && t->runs_ready & BIT(n)));
}

static void run_slow_emit(struct tr *t, const struct cold *k)
{
	struct emit *e = &t->e;
	struct insn at = t->insn[k->idx];

	emit_label_here(e, k->from);
	if (k->stack) {
		stack_emit(t, (int32_t)k->arg);
	} else {
		at.disp = (int32_t)k->arg;
		ea_emit(t, &at);
	}
	tr_emit_block(t, S1, (uint64_t)(uintptr_t)t->b | (uint64_t)k->idx << 48 | (uint64_t)SLOW_RUN << 56 |
				     (uint64_t)k->kind << 60);
	tr_jump_out(t, t->d->tramp_slow);
}

/* The check for all of a run. */
static void run_check(struct tr *t, const struct insn *i, unsigned n)
{
	struct emit *e = &t->e;
	struct run *r = &t->runs[n];
	struct insn at = *i;
	struct cold *k;

	at.disp -= t->run_at[t->idx];
	if (ea_direct(t, &at) && !at.disp) {
		tlb_check(t, at.base, r->span, r->write);
	} else {
		ea_emit(t, &at);
		tlb_check(t, S0, r->span, r->write);
	}
	k = tr_cold(t, run_slow_emit, emit_jcc(e, CC_A));
	k->kind = (uint8_t)n;
	k->stack = i != &t->insn[t->idx];
	k->arg = (uint64_t)at.disp;
	emit_load(e, S1, opnd_sib(TB, S1, 3, OFF_ADDEND));
	if (r->slot)
		emit_store(e, opnd_gs(OFF_HOT(run) + 8 * (int32_t)n), S1);
	t->runs_ready |= (uint32_t)BIT(n);
	t->run_checked[n] = t->run_off[t->idx];
}

/*
 * Of 32-bit code: a base register that has been stepped past 4 GiB since the check, or is to be stepped back by the displacement,
 * names the byte that was checked only modulo 4 GiB. Not so if it is the register of the check, or points into the range.
 */
static bool run_direct(const struct tr *t, const struct insn *i, unsigned n)
{
	int64_t points = t->run_at[t->idx] - i->disp;

	if (!ea_direct(t, i))
		return false;
	return likely(!t->m32) || t->run_off[t->idx] == t->run_checked[n] || (points >= 0 && points < t->runs[n].span);
}

static void run_operand(struct tr *t, const struct insn *i, unsigned kind, struct opnd *out)
{
	unsigned n = (unsigned)t->run_of[t->idx];

	CHECK(kind != SLOW_WRITE || t->runs[n].write);
	if (!mem_run_usable(t))
		run_check(t, i, n);
	else if (t->s1_run != (int)n)
		emit_load(&t->e, S1, opnd_gs(OFF_HOT(run) + 8 * (int32_t)n));
	t->s1_next = (int)n;
	if (run_direct(t, i, n)) {
		*out = opnd_sib(i->base, S1, 0, (int32_t)i->disp);
		return;
	}
	ea_emit_as(t, i, i->addrsize == 8 ? ENC_W : 0);
	*out = opnd_sib(S0, S1, 0, 0);
}

static int32_t guess_of(const struct tr *t, unsigned idx)
{
	return OFF_HOT(guess) + 4 * (int32_t)((t->b->va ^ t->b->va >> 12 ^ idx * 67) & (GUESSES - 1));
}

/* The guess was wrong: the entry that the address has, which is the next guess. */
static void guess_wrong_emit(struct tr *t, const struct cold *k)
{
	struct emit *e = &t->e;
	struct opnd m = opnd_gs(guess_of(t, k->idx)), tag;
	bool write = k->kind == SLOW_WRITE;
	struct cold miss = *k;

	emit_label_here(e, k->from);
	ea_emit(t, &t->insn[k->idx]);
	emit_bextr(e, S1, S0, TB);
	emit_alu_imm(e, 0, 4, opnd_reg(S1), TLB_ENTRIES - 1); /* in a grown table too: see tlb.h */
	enc(e, 0, X_MOV_STORE, S1, &m);
	tag = opnd_sib(TB, S1, 3, write ? OFF_WRITE_TAG : OFF_READ_TAG);
	enc(e, ENC_W, X_SUB, S0, &tag);
	emit_alu_imm(e, ENC_W, 7, opnd_reg(S0), (int32_t)(4096 - k->size));
	miss.from = emit_jcc(e, CC_A);
	emit_jmp_to(e, e->base + k->arg);
	miss.stack = miss.rbp = false;
	miss.low = true;
	slow_emit(t, &miss);
}

/*
 * A table in one page, most likely: its index may be the last value of a chain of computation, the page is not. So the entry is
 * guessed to be that of the last time, which takes six cycles out of the chain; the check remains what it is.
 */
static void guess_check(struct tr *t, const struct insn *i, unsigned size, unsigned kind)
{
	struct emit *e = &t->e;
	struct opnd m = opnd_gs(guess_of(t, t->idx)), tag;
	struct cold *k;

	ea_emit(t, i);
	enc(e, 0, X_MOV_LOAD, S1, &m);
	tag = opnd_sib(TB, S1, 3, kind == SLOW_WRITE ? OFF_WRITE_TAG : OFF_READ_TAG);
	enc(e, ENC_W, X_SUB, S0, &tag);
	emit_alu_imm(e, ENC_W, 7, opnd_reg(S0), (int32_t)(4096 - size));
	k = tr_cold(t, guess_wrong_emit, emit_jcc(e, CC_A));
	k->kind = (uint8_t)kind;
	k->size = (uint8_t)size;
	k->arg = emit_offset(e);
}

void mem_operand(struct tr *t, const struct insn *i, unsigned size, unsigned kind, struct opnd *out)
{
	bool direct = ea_direct(t, i);
	uint64_t ea;

	if (t->run_of[t->idx] >= 0) {
		run_operand(t, i, kind, out);
		return;
	}
	if (ea_constant(t, i, &ea)) {
		constant_operand(t, ea, i->base == REG_RIP, size, kind, out);
		return;
	}
	if (i == &t->insn[t->idx] && index_is_small(t, t->idx)) {
		guess_check(t, i, size, kind);
	} else if (direct && !i->disp) {
		tlb_check(t, i->base, size, kind == SLOW_WRITE);
		slow_jump(t, CC_A, kind, size);
	} else {
		ea_emit(t, i);
		tlb_check(t, S0, size, kind == SLOW_WRITE);
		slow_jump(t, CC_A, kind, size);
	}
	addend_load(t, kind);
	if (direct) {
		*out = opnd_sib(i->base, S1, 0, (int32_t)i->disp);
		return;
	}
	ea_emit(t, i);
	*out = opnd_sib(S0, S1, 0, 0);
}

unsigned mem_scratch(struct tr *t, struct opnd *m)
{
	if (m->kind != OPND_MEM || m->gs)
		return S0;
	if (m->base != S0 && m->index != S0)
		return S0;
	if (m->base != S1 && m->index != S1)
		return S1;
	emit_lea(&t->e, S0, *m);
	*m = opnd_mem(S0, 0);
	return S1;
}

/*
 * BT and its kin with a bit number in a register: which element it lies in is for the check only, the instruction does it by itself.
 * Where the check fails the interpreter's own access fills the TLB.
 */
void mem_bits(struct tr *t, const struct insn *i, bool write, struct opnd *out)
{
	struct emit *e = &t->e;
	unsigned scale = i->opsize == 8 ? 3 : 2;
	struct opnd bit = opnd_guest(i->reg), s1 = opnd_reg(S1);

	ea_emit(t, i);
	enc(e, ENC_W, scale == 3 ? X_MOV_LOAD : 0x63, S1, &bit); /* MOVSXD */
	enc(e, ENC_W, 0xc1, 7, &s1); /* sar */
	emit8(e, scale + 3);
	emit_lea(e, S0, opnd_sib(S0, S1, scale, 0));
	tlb_check(t, S0, i->opsize, write);
	slow_jump(t, CC_A, SLOW_INTERP, i->opsize);
	emit_load(e, S1, opnd_sib(TB, S1, 3, OFF_ADDEND));
	if (ea_direct(t, i)) {
		*out = opnd_sib(i->base, S1, 0, (int32_t)i->disp);
		return;
	}
	ea_emit(t, i);
	*out = opnd_sib(S0, S1, 0, 0);
}

void mem_stack(struct tr *t, int32_t offset, unsigned size, unsigned kind, bool second, struct opnd *out)
{
	struct emit *e = &t->e;
	struct cold *k;

	if (!second && t->run_of[t->idx] >= 0) {
		struct insn at = { .base = RSP, .index = REG_NONE, .seg = SEG_SS, .addrsize = (uint8_t)t->word, .disp = offset };

		run_operand(t, &at, kind, out);
		return;
	}
	if (offset)
		stack_emit(t, offset);
	tlb_check(t, offset ? S0 : RSP, size, kind == SLOW_WRITE);
	/* after an earlier access of the same instruction a fill and retry could go round for ever */
	k = slow_jump(t, CC_A, second ? SLOW_INTERP : kind, size);
	k->stack = true;
	k->arg = (uint64_t)(int64_t)offset;
	addend_load(t, second ? SLOW_INTERP : kind);
	*out = opnd_sib(RSP, S1, 0, offset);
	if (unlikely(stack_wraps(t, offset))) { /* S0 is free for the caller as ever */
		stack_emit(t, offset);
		emit_lea(e, S1, opnd_sib(S0, S1, 0, 0));
		*out = opnd_mem(S1, 0);
	}
}

void mem_span(struct tr *t, unsigned reg, bool counted, unsigned shift, unsigned kind)
{
	struct emit *e = &t->e;

	tlb_check(t, reg, counted ? 1 : 1u << shift, kind == SLOW_WRITE);
	slow_jump(t, CC_A, SLOW_INTERP, 1);
	emit_load(e, S1, opnd_sib(TB, S1, 3, OFF_ADDEND));
	if (!counted)
		return;
	emit_lea(e, S0, opnd_sib(S0, RCX, shift, 0));
	emit_alu_imm(e, ENC_W, 7, opnd_reg(S0), 4096);
	slow_jump(t, CC_A, SLOW_INTERP, 1);
}
