/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer instructions: the same instruction again, its memory operand redirected and guest R13..R15 replaced by a scratch
 * register or their place in memory. What does not fit says LOWER_HELPER and is interpreted.
 */
#include "engine/dbt/translate.h"
#include "x86/cpuid.h"

enum { A_NONE = ROLE_NONE, A_R = ROLE_READ, A_W = ROLE_WRITE, A_RW = ROLE_BOTH };

static bool is_alu(unsigned op)
{
	return op >= OP_ADD && op <= OP_XOR;
}

static bool is_shift(unsigned op)
{
	return op >= OP_ROL && op <= OP_SAR;
}

static bool roles_rm_reg(const struct insn *i, struct roles *r)
{
	r->reg = A_R;
	switch (i->op) {
	case OP_CMP:
	case OP_TEST:
		r->rm = A_R;
		return true;
	case OP_MOV:
	case OP_MOVNTI:
	case OP_MOVBE:
		r->rm = A_W;
		return true;
	case OP_XCHG:
	case OP_XADD:
		r->rm = r->reg = A_RW;
		return true;
	case OP_CMPXCHG:
	case OP_SHLD:
	case OP_SHRD:
		r->rm = A_RW;
		return true;
	case OP_BT:
		r->rm = A_R;
		return !(i->flags & INSN_MEM); /* in memory the bit may lie anywhere */
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		r->rm = A_RW;
		return !(i->flags & INSN_MEM);
	default:
		r->rm = A_RW;
		return is_alu(i->op);
	}
}

static bool roles_reg_rm(const struct insn *i, struct roles *r)
{
	r->rm = A_R;
	r->reg = A_RW;
	if (i->op >= OP_CMOVO && i->op <= OP_CMOVNLE)
		return true;
	switch (i->op) {
	case OP_CMP:
	case OP_TEST:
		r->reg = A_R;
		return true;
	case OP_MOV:
	case OP_MOVZX:
	case OP_MOVSX:
	case OP_MOVSXD:
	case OP_MOVBE:
		r->reg = A_W;
		return true;
	case OP_IMUL:
	case OP_BSF:
	case OP_BSR:
	case OP_CRC32:
	case OP_ADCX:
	case OP_ADOX:
		return true;
	case OP_LZCNT:
	case OP_TZCNT:
	case OP_POPCNT:
		r->reg = i->opsize == 2 ? A_RW : A_W;
		return true;
	default:
		return is_alu(i->op);
	}
}

static bool roles_rm_imm(const struct insn *i, struct roles *r)
{
	r->reg = A_NONE;
	switch (i->op) {
	case OP_CMP:
	case OP_TEST:
	case OP_BT:
		r->rm = A_R;
		return true;
	case OP_MOV:
		r->rm = A_W;
		return true;
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		r->rm = A_RW;
		return true;
	default:
		r->rm = A_RW;
		return is_alu(i->op) || is_shift(i->op);
	}
}

static bool roles_rm(const struct insn *i, struct roles *r)
{
	r->reg = A_NONE;
	if (i->op >= OP_SETO && i->op <= OP_SETNLE) {
		r->rm = A_W;
		return true;
	}
	switch (i->op) {
	case OP_INC:
	case OP_DEC:
	case OP_NEG:
	case OP_NOT:
		r->rm = A_RW;
		return true;
	case OP_MUL:
	case OP_IMUL:
	case OP_DIV:
	case OP_IDIV:
		r->rm = A_R;
		return true;
	default:
		return false;
	}
}

bool alu_roles(const struct insn *i, struct roles *r)
{
	switch (i->form) {
	case FORM_RM_REG:
		return roles_rm_reg(i, r);
	case FORM_REG_RM:
		return roles_reg_rm(i, r);
	case FORM_RM_IMM:
		return roles_rm_imm(i, r);
	case FORM_RM:
		return roles_rm(i, r);
	case FORM_RM_CL:
	case FORM_RM_1:
		*r = (struct roles){ A_RW, A_NONE };
		return is_shift(i->op);
	case FORM_REG_RM_IMM:
		*r = (struct roles){ A_R, i->opsize == 2 ? A_RW : A_W };
		return i->op == OP_IMUL;
	case FORM_RM_REG_IMM:
	case FORM_RM_REG_CL:
		*r = (struct roles){ A_RW, A_R };
		return i->op == OP_SHLD || i->op == OP_SHRD;
	default:
		return false;
	}
}

void lower_encode(struct tr *t, const struct insn *i, unsigned reg, const struct opnd *rm)
{
	struct emit *e = &t->e;
	unsigned flags = i->rex & 8 ? ENC_W : 0, at, tail;
	static const uint16_t maps[] = { 0, ENC_0F, ENC_0F38, ENC_0F3A };

	for (at = 0; at < i->opcode_at; at++) {
		uint8_t b = i->bytes[at];

		if (b == 0x0f) /* a REX in front of another prefix counts for nothing, the prefix does */
			break;
		flags |= b == 0x66 ? ENC_66 : b == 0xf2 ? ENC_F2 : b == 0xf3 ? ENC_F3 : b == 0xf0 ? ENC_LOCK : 0;
	}
	if ((flags & ENC_F2) && (flags & ENC_F3)) /* the last one counts */
		flags &= i->prefix == 0xf2 ? ~ENC_F3 : ~ENC_F2;
	if (i->rex) /* SPL..DIL rather than AH..BH, as the guest has it */
		flags |= ENC_BYTE_REG | ENC_BYTE_RM;
	/* 82 is 80 in 32-bit code only */
	enc(e, flags | maps[i->opmap & 3], unlikely(i->opcode == 0x82) && !i->opmap ? 0x80 : i->opcode, reg, rm);
	tail = i->disp_len ? i->disp_at + i->disp_len : i->imm_len ? i->imm_at : i->len;
	emit_bytes(e, i->bytes + tail, i->len - tail);
}

/* Byte operand in AH..BH and memory: an address in R8..R15 excludes them, so the halves change places for it. */
static enum lowered lower_high_mem(struct tr *t, const struct insn *i, const struct roles *r)
{
	struct emit *e = &t->e;
	unsigned low = i->reg & 3;
	struct opnd m;

	if (i->op == OP_CMPXCHG || i->op == OP_MOVZX || i->op == OP_MOVSX)
		return LOWER_HELPER;
	mem_operand(t, i, 1, r->rm & A_W ? SLOW_WRITE : SLOW_READ, &m);
	emit_lea(e, S0, m);
	m = opnd_mem(S0, 0);
	tr_commit(t, i);
	enc_no_rex(e, 0, 0x86, low + 4, &(struct opnd){ .kind = OPND_REG, .reg = (uint8_t)low });
	lower_encode(t, i, low, &m);
	enc_no_rex(e, 0, 0x86, low + 4, &(struct opnd){ .kind = OPND_REG, .reg = (uint8_t)low });
	return LOWERED;
}

static unsigned mem_size(const struct insn *i)
{
	return i->memsize ? i->memsize : i->opsize;
}

static bool spilled(unsigned g)
{
	return g >= GUEST_HOST_REGS;
}

/* The instruction on a scratch register that stands for guest register `reg`. */
static void encode_reg(struct tr *t, const struct insn *i, unsigned access, struct opnd *rm)
{
	unsigned reg = i->reg;

	if (access == A_NONE)
		reg = i->modrm >> 3 & 7; /* opcode extension */
	if (access == A_NONE || !spilled(reg)) {
		tr_commit(t, i);
		lower_encode(t, i, reg, rm);
		return;
	}
	reg = mem_scratch(t, rm);
	if (access & A_R || i->opsize < 4)
		emit_load(&t->e, reg, opnd_gs(OFF_GPR(i->reg)));
	tr_commit(t, i);
	lower_encode(t, i, reg, rm);
	if (access & A_W)
		emit_store(&t->e, opnd_gs(OFF_GPR(i->reg)), reg);
}

/* Register form whose rm is guest R13..R15. */
static void encode_spilled_rm(struct tr *t, const struct insn *i, const struct roles *r)
{
	struct opnd home = opnd_gs(OFF_GPR(i->rm)), s = opnd_reg(S1);
	bool atomic = i->op == OP_XCHG || i->op == OP_XADD || i->op == OP_CMPXCHG || i->op == OP_CRC32;
	bool bits = i->op >= OP_BT && i->op <= OP_BTC && i->form == FORM_RM_REG;

	if (!atomic && !bits && (!(r->rm & A_W) || i->opsize != 4)) {
		encode_reg(t, i, r->reg, &home);
		return;
	}
	if (r->rm & A_R || i->opsize < 4)
		emit_load(&t->e, S1, home);
	encode_reg(t, i, r->reg, &s);
	if (!(r->rm & A_W))
		return;
	/* XCHG, XADD r13, r13: both are one register; the rm operand is what stays of XADD */
	emit_store(&t->e, home, S1);
}

static enum lowered lower_lea(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	unsigned reg = i->reg, flags;
	bool both = i->base != REG_NONE && i->base != REG_RIP && spilled(i->base) && i->index != REG_NONE &&
		    spilled(i->index);

	flags = i->opsize == 8 && i->addrsize == 8 ? ENC_W : 0;
	tr_commit(t, i);
	if (i->opsize == 2 || both) {
		struct opnd m = opnd_reg(S0);

		if (both) {
			emit_load(e, S0, opnd_gs(OFF_GPR(i->base)));
			emit_load(e, S1, opnd_gs(OFF_GPR(i->index)));
			m = opnd_sib(S0, S1, i->scale, (int32_t)i->disp);
			enc(e, flags, X_LEA, S0, &m);
			m = opnd_reg(S0);
		} else {
			mem_lea(t, i, S0, flags);
		}
		if (i->opsize == 2) {
			m = opnd_guest(reg);
			enc(e, ENC_66, X_MOV_STORE, S0, &m);
		} else if (spilled(reg)) {
			emit_store(e, opnd_gs(OFF_GPR(reg)), S0);
		} else {
			enc(e, ENC_W, X_MOV_LOAD, reg, &m);
		}
		return LOWERED;
	}
	mem_lea(t, i, spilled(reg) ? S0 : reg, flags);
	if (spilled(reg))
		emit_store(e, opnd_gs(OFF_GPR(reg)), S0);
	return LOWERED;
}

/* Register in the opcode byte, no ModRM. */
static enum lowered lower_opcode_reg(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	unsigned reg = i->reg;
	struct opnd home = opnd_gs(OFF_GPR(reg)), s = opnd_reg(S0);

	if (i->op == OP_MOV) {
		tr_commit(t, i);
		if (i->slot) { /* under another name: swap.c */
			emit_imm(e, reg, i->opsize == 8 ? i->imm : (uint32_t)i->imm);
		} else if (!spilled(reg)) {
			emit_bytes(e, i->bytes, i->len);
		} else if (i->opsize >= 4) {
			emit_imm(e, S0, i->opsize == 8 ? i->imm : (uint32_t)i->imm);
			emit_store(e, home, S0);
		} else if (i->opsize == 2) {
			enc(e, ENC_66, 0xc7, 0, &home);
			emit8(e, (uint8_t)i->imm);
			emit8(e, (uint8_t)(i->imm >> 8));
		} else {
			enc(e, 0, 0xc6, 0, &home);
			emit8(e, (uint8_t)i->imm);
		}
		return LOWERED;
	}
	if (!spilled(reg)) {
		tr_commit(t, i);
		emit_bytes(e, i->bytes, i->len);
		return LOWERED;
	}
	emit_load(e, S0, home);
	tr_commit(t, i);
	/* XCHG with the accumulator */
	enc(e, (i->opsize == 8 ? ENC_W : 0) | (i->opsize == 2 ? ENC_66 : 0), 0x87, RAX, &s);
	emit_store(e, home, S0);
	return LOWERED;
}

static enum lowered lower_bswap(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;

	if (i->opsize == 2)
		return LOWER_HELPER;
	if (!spilled(i->reg)) {
		tr_commit(t, i);
		emit_bytes(e, i->bytes, i->len);
		return LOWERED;
	}
	emit_load(e, S0, opnd_gs(OFF_GPR(i->reg)));
	tr_commit(t, i);
	emit8(e, i->opsize == 8 ? 0x49 : 0x41);
	emit8(e, 0x0f);
	emit8(e, 0xc8 | (S0 & 7));
	emit_store(e, opnd_gs(OFF_GPR(i->reg)), S0);
	return LOWERED;
}

/* BMI's VEX forms and the like: only when every register is in the host's. */
static enum lowered lower_vex_gpr(struct tr *t, const struct insn *i)
{
	struct emit *e = &t->e;
	const uint8_t *b = i->bytes + i->opcode_at;
	bool three = b[-2] != 0xc5; /* a C4 form cannot have C5 there: there is no opcode map 5 */
	unsigned p1 = three ? b[-2] : 0xe1, p2 = b[-1], tail;
	struct opnd m = opnd_reg(i->rm);

	if (!three) /* C5: R and the rest in one byte, map 0F */
		p1 = (p2 & 0x80) | 0x61, p2 &= 0x7f;
	if (t->m32) /* W counts for nothing there */
		p2 &= 0x7f;
	if (spilled(15 & ~(p2 >> 3)))
		return LOWER_HELPER;
	if (i->reg >= GUEST_HOST_REGS && !(i->opmap == 2 && i->opcode == 0xf3))
		return LOWER_HELPER;
	if (i->flags & INSN_MEM)
		mem_operand(t, i, mem_size(i), SLOW_READ, &m);
	else if (spilled(i->rm))
		m = opnd_gs(OFF_GPR(i->rm));
	tr_commit(t, i);
	if (m.kind == OPND_MEM && m.gs)
		emit8(e, 0x65);
	emit8(e, 0xc4);
	p1 = (p1 & 0x9f) | (~opnd_rex(0, &m) << 5 & 0x60);
	emit8(e, p1);
	emit8(e, p2);
	emit8(e, i->opcode);
	enc_modrm(e, i->modrm >> 3 & 7, &m, false);
	tail = i->imm_len ? i->imm_at : i->len;
	emit_bytes(e, i->bytes + tail, i->len - tail);
	return LOWERED;
}

static enum lowered lower_pair(struct tr *t, const struct insn *i)
{
	struct opnd m;

	if (!(i->flags & INSN_MEM))
		return LOWER_HELPER;
	if (i->op == OP_CMPXCHG16B) /* #GP when not aligned: left to the host's own check */
		mem_operand(t, i, 16, SLOW_WRITE, &m);
	else
		mem_operand(t, i, 8, SLOW_WRITE, &m);
	tr_commit(t, i);
	lower_encode(t, i, 1, &m);
	return LOWERED;
}

enum lowered lower_simple(struct tr *t, const struct insn *i)
{
	switch (i->op) {
	case OP_NOP:
	case OP_ENDBR32:
	case OP_ENDBR64:
	case OP_PREFETCH:
	case OP_PREFETCHNTA:
	case OP_PREFETCHT0:
	case OP_PREFETCHT1:
	case OP_PREFETCHT2:
	case OP_PREFETCHW:
	case OP_PREFETCHWT1:
		tr_commit(t, i);
		return LOWERED;
	case OP_CBW:
	case OP_CWDE:
	case OP_CDQE:
	case OP_CWD:
	case OP_CDQ:
	case OP_CQO:
	case OP_CLC:
	case OP_STC:
	case OP_CMC:
	case OP_LAHF:
	case OP_SAHF:
	case OP_LFENCE:
	case OP_MFENCE:
	case OP_SFENCE:
		tr_commit(t, i);
		emit_bytes(&t->e, i->bytes, i->len);
		return LOWERED;
	case OP_PAUSE: /* steps aside now and then */
		if (t->c->machine->ncpus > 1)
			return LOWER_HELPER;
		tr_commit(t, i);
		emit_bytes(&t->e, i->bytes, i->len);
		return LOWERED;
	case OP_CLD:
	case OP_STD: { /* DF is not in the host's flags; those are saved or dead here */
		struct opnd m = opnd_gs(OFF_RFLAGS + 1);

		tr_commit(t, i);
		enc(&t->e, 0, 0x80, i->op == OP_STD ? 1 : 4, &m);
		emit8(&t->e, i->op == OP_STD ? (unsigned)(FLAG_DF >> 8) : 0xff & ~(unsigned)(FLAG_DF >> 8));
		return LOWERED;
	}
	default:
		return LOWER_HELPER;
	}
}

/* A bit in memory wherever a register says. */
static enum lowered lower_bits(struct tr *t, const struct insn *i)
{
	struct opnd m;

	if (i->opsize < 4 || i->addrsize != t->word || t->mode & MODE_COMPAT || (i->op == OP_BT && i->flags & INSN_LOCK))
		return LOWER_HELPER;
	mem_bits(t, i, i->op != OP_BT, &m);
	encode_reg(t, i, A_R, &m);
	return LOWERED;
}

enum lowered lower_alu(struct tr *t, const struct insn *i)
{
	struct roles r;
	struct opnd m;

	/* what a model without BMI has not, the interpreter refuses, or takes for BSR and BSF */
	if ((i->flags & INSN_VEX || i->op == OP_LZCNT || i->op == OP_TZCNT) && !t->d->machine->cpuid->has_avx2)
		return LOWER_HELPER;
	if (i->flags & INSN_VEX)
		return lower_vex_gpr(t, i);
	if (i->op == OP_LEA)
		return i->addrsize >= 4 && i->opsize >= 2 ? lower_lea(t, i) : LOWER_HELPER;
	if (i->op == OP_BSWAP)
		return lower_bswap(t, i);
	if (i->op == OP_CMPXCHG8B || i->op == OP_CMPXCHG16B)
		return lower_pair(t, i);
	if (!i->modrm_at && !(i->flags & INSN_MEM)) {
		if (i->form == FORM_REG_IMM && (is_alu(i->op) || i->op == OP_CMP || i->op == OP_TEST)) {
			tr_commit(t, i); /* the accumulator forms */
			emit_bytes(&t->e, i->bytes, i->len);
			return LOWERED;
		}
		if ((i->op == OP_MOV && i->form == FORM_REG_IMM) || i->op == OP_XCHG)
			return lower_opcode_reg(t, i);
	}
	if (!i->modrm_at && t->m32)
		return lower_only32(t, i);
	if (!i->modrm_at && i->op == OP_MOV && i->flags & INSN_MEM)
		return LOWER_HELPER; /* absolute 64-bit addresses */
	if (i->op >= OP_BT && i->op <= OP_BTC && i->form == FORM_RM_REG && i->flags & INSN_MEM)
		return lower_bits(t, i);
	if (!i->modrm_at || !alu_roles(i, &r))
		return lower_simple(t, i);
	if (i->flags & (INSN_HIGH_REG | INSN_HIGH_RM)) {
		if (i->flags & INSN_MEM)
			return lower_high_mem(t, i, &r);
		tr_commit(t, i); /* no REX there, so no register of ours either */
		emit_bytes(&t->e, i->bytes, i->len);
		return LOWERED;
	}
	if (i->flags & INSN_MEM) {
		if (i->addrsize < 4)
			return LOWER_HELPER;
		mem_operand(t, i, mem_size(i), r.rm & A_W ? SLOW_WRITE : SLOW_READ, &m);
		encode_reg(t, i, r.reg, &m);
		return LOWERED;
	}
	if (i->flags & INSN_LOCK)
		return LOWER_HELPER; /* #UD */
	if (spilled(i->rm)) {
		encode_spilled_rm(t, i, &r);
		return LOWERED;
	}
	m = opnd_reg(i->rm);
	encode_reg(t, i, r.reg, &m);
	return LOWERED;
}
