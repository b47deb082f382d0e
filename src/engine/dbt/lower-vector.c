/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87, MMX, SSE, AVX and AVX-512: the same instruction again on the same registers. Only a memory operand or a general
 * register among R13..R15 makes a difference. What the operands are is asked of libzydis, which is too slow for every
 * instruction but not for these. Whatever saves or restores state as a whole (FXSAVE, FNSTENV, XRSTOR) or addresses
 * memory by more than ModRM (gathers, MASKMOV) is the interpreter's.
 */
#include <string.h>
#include <Zydis/Zydis.h>
#include "engine/dbt/translate.h"
#include "engine/interp/evex.h"
#include "x86/cpuid.h"

static bool is_gpr(ZydisRegister r)
{
	ZydisRegisterClass k = ZydisRegisterGetClass(r);

	return k >= ZYDIS_REGCLASS_GPR8 && k <= ZYDIS_REGCLASS_GPR64;
}

/* False: something this file does not do. */
static bool operand_take(struct shape *s, const ZydisDecodedOperand *o)
{
	bool reads = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ, writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM || o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			return false;
		s->mem_read = reads;
		s->mem_write = writes;
		s->mem_size = (uint8_t)MIN(o->size / 8, 255);
		return true;
	}
	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return true;
	s->mmx |= ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MMX;
	if (!is_gpr(o->reg.value))
		return true;
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		s->reg_gpr = true;
		s->reg_read = reads;
		s->reg_write = writes;
		return true;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		s->rm_gpr = true;
		s->rm_read = reads;
		s->rm_write = writes;
		return true;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		s->vvvv_gpr = true;
		s->other_write |= writes;
		return true;
	default:
		s->other_write |= writes;
		return o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN || o->visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT;
	}
}

static bool whole_state(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_LDMXCSR: /* the interpreter knows which bits the model has */
	case ZYDIS_MNEMONIC_VLDMXCSR:
		return true;
	default:
		return false;
	}
}

/* What the CPU model lacks is #UD, whatever the host could do: the interpreter sees to it. */
static bool offered(const struct cpuid_model *m, ZydisISASet set)
{
	uint32_t need[3];

	if (evex_needs(set, need))
		return evex_offered(m, need);
	switch (set) {
	case ZYDIS_ISA_SET_AVX:
		return m->has_avx;
	case ZYDIS_ISA_SET_AVX2:
	case ZYDIS_ISA_SET_AVX2GATHER:
		return m->has_avx2;
	case ZYDIS_ISA_SET_AES:
	case ZYDIS_ISA_SET_AVXAES:
		return m->has_aes;
	case ZYDIS_ISA_SET_VAES:
		return m->has_vaes;
	case ZYDIS_ISA_SET_PCLMULQDQ:
		return m->has_pclmul;
	case ZYDIS_ISA_SET_VPCLMULQDQ:
		return m->has_vpclmul;
	case ZYDIS_ISA_SET_GFNI:
	case ZYDIS_ISA_SET_AVX_GFNI:
		return m->has_gfni;
	case ZYDIS_ISA_SET_FMA:
		return m->has_fma;
	case ZYDIS_ISA_SET_F16C:
		return m->has_f16c;
	case ZYDIS_ISA_SET_SHA:
		return m->has_sha;
	case ZYDIS_ISA_SET_SSE4A:
		return m->has_sse4a;
	default:
		return true;
	}
}

static bool shape_of(const struct cpuid_model *m, const struct insn *i, struct shape *s)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecoder d;

	memset(s, 0, sizeof(*s));
	bool m32 = i->mode == MODE_32;

	if (!ZYAN_SUCCESS(ZydisDecoderInit(&d, m32 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LONG_64,
					   m32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64)) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, i->bytes, i->len, &z, o)))
		return false;
	if (i->op == OP_VPCLMULQDQ && !m->has_pclmul) /* in libzydis's set AVX */
		return false;
	if ((i->op == OP_AVX512 && !evex_needs(z.meta.isa_set, (uint32_t[3]){ 0 })) || !offered(m, z.meta.isa_set) || whole_state(z.mnemonic) || z.meta.category == ZYDIS_CATEGORY_XSAVE ||
	    z.meta.category == ZYDIS_CATEGORY_XSAVEOPT || z.meta.isa_set == ZYDIS_ISA_SET_FXSAVE ||
	    z.meta.isa_set == ZYDIS_ISA_SET_FXSAVE64)
		return false;
	s->mmx = z.mnemonic == ZYDIS_MNEMONIC_EMMS;
	for (unsigned n = 0; n < z.operand_count; n++) {
		if (!operand_take(s, &o[n]))
			return false;
	}
	return true;
}

const struct shape *vector_shape(struct tr *t, unsigned idx)
{
	struct shape *s = &t->shape[idx];

	if (!s->seen) {
		s->known = shape_of(t->d->machine->cpuid, &t->insn[idx], s);
		s->seen = true;
	}
	return s;
}

static bool spilled(unsigned g)
{
	return g >= GUEST_HOST_REGS;
}

static void live_check_emit(struct tr *t, const struct cold *k)
{
	struct emit *e = &t->e;

	emit_label_here(e, k->from);
	/* the size field says which: 1 vector, 2 x87 */
	tr_emit_block(t, S1, (uint64_t)(uintptr_t)t->b | (uint64_t)k->idx << 48 | (uint64_t)SLOW_FP << 56 |
				(uint64_t)k->arg << 60);
	tr_jump_out(t, t->d->tramp_slow);
}

static void live_check(struct tr *t, int32_t flag, unsigned which)
{
	struct emit *e = &t->e;
	struct opnd m = opnd_gs(flag);
	struct cold *k;

	enc(e, 0, 0x80, 7, &m);
	emit8(e, 0);
	k = tr_cold(t, live_check_emit, emit_jcc(e, CC_E));
	k->arg = which;
}

/* VEX and EVEX prefix as it was, but for the bits that extend `reg` and the rm operand. */
static void vex_prefix(struct emit *e, const struct insn *i, unsigned reg, const struct opnd *rm)
{
	const uint8_t *b = i->bytes + i->opcode_at;
	unsigned rex = opnd_rex(reg, rm), p1, p2;

	if (rm->kind == OPND_MEM && rm->gs)
		emit8(e, 0x65);
	if (i->flags & INSN_EVEX) {
		p1 = b[-3];
		/* of a register operand X is bit 4 of its number; leave that to the original */
		if (rm->kind == OPND_MEM)
			p1 = (p1 & 0x9f) | (~rex << 5 & 0x60);
		emit8(e, 0x62);
		emit8(e, p1);
		emit8(e, b[-2]);
		emit8(e, b[-1]);
		return;
	}
	if (b[-2] != 0xc5) {
		p1 = b[-2];
		p2 = b[-1];
	} else {
		p1 = (b[-1] & 0x80) | 0x61;
		p2 = b[-1] & 0x7f;
	}
	p1 = (p1 & 0x1f) | (~rex << 5 & 0xe0);
	emit8(e, 0xc4);
	emit8(e, p1);
	emit8(e, p2);
}

static void encode(struct tr *t, const struct insn *i, unsigned reg, const struct opnd *rm)
{
	struct emit *e = &t->e;
	unsigned tail;

	if (!(i->flags & (INSN_VEX | INSN_EVEX))) {
		lower_encode(t, i, reg, rm);
		return;
	}
	vex_prefix(e, i, reg, rm);
	emit8(e, i->opcode);
	enc_modrm(e, reg, rm, i->flags & INSN_EVEX);
	tail = i->disp_len ? i->disp_at + i->disp_len : i->modrm_at + 1u + (i->flags & INSN_MEM && (i->modrm & 7) == 4);
	emit_bytes(e, i->bytes + tail, i->len - tail);
}

/* ModRM.reg as encoded, without what EVEX adds */
static unsigned raw_reg(const struct insn *i)
{
	unsigned r = i->modrm >> 3 & 7;

	if (i->flags & INSN_EVEX)
		return r | (i->bytes[i->opcode_at - 3] & 0x80 ? 0 : 8);
	if (i->flags & INSN_VEX) /* R is the top bit of the byte after C4 or C5 */
		return r | (i->bytes[i->opcode_at - 2] == 0xc5 ? (i->bytes[i->opcode_at - 1] & 0x80 ? 0 : 8) :
								 (i->bytes[i->opcode_at - 2] & 0x80 ? 0 : 8));
	return r | (i->rex & 4 ? 8 : 0);
}

static unsigned raw_rm(const struct insn *i)
{
	unsigned r = i->modrm & 7;

	if (i->flags & INSN_EVEX)
		return r | (i->bytes[i->opcode_at - 3] & 0x20 ? 0 : 8);
	if (i->flags & INSN_VEX)
		return r | (i->bytes[i->opcode_at - 2] == 0xc5 || i->bytes[i->opcode_at - 2] & 0x20 ? 0 : 8);
	return r | (i->rex & 1 ? 8 : 0);
}

static bool fits_inline(unsigned size)
{
	return size == 10 || (size && size <= 64 && !(size & (size - 1)));
}

/* The register form. */
static enum lowered lower_registers(struct tr *t, const struct insn *i, const struct shape *s)
{
	struct emit *e = &t->e;
	unsigned reg = raw_reg(i), rm = raw_rm(i);
	struct opnd m = opnd_reg(rm);

	if ((s->reg_gpr && spilled(reg)) || (s->rm_gpr && spilled(rm))) {
		if (i->flags & INSN_EVEX)
			return LOWER_HELPER;
		if (s->rm_gpr && spilled(rm)) {
			emit_load(e, S1, opnd_gs(OFF_GPR(rm)));
			m = opnd_reg(S1);
		}
		if (s->reg_gpr && spilled(reg)) {
			emit_load(e, S0, opnd_gs(OFF_GPR(reg)));
			tr_commit(t, i);
			encode(t, i, S0, &m);
			if (s->reg_write)
				emit_store(e, opnd_gs(OFF_GPR(reg)), S0);
		} else {
			tr_commit(t, i);
			encode(t, i, reg, &m);
		}
		if (s->rm_gpr && spilled(rm) && s->rm_write)
			emit_store(e, opnd_gs(OFF_GPR(rm)), S1);
		return LOWERED;
	}
	tr_commit(t, i);
	emit_bytes(e, i->bytes, i->len);
	return LOWERED;
}

static enum lowered lower_memory(struct tr *t, const struct insn *i, const struct shape *s)
{
	struct emit *e = &t->e;
	unsigned reg = raw_reg(i), scratch;
	struct opnd m;

	if (!fits_inline(s->mem_size) || i->addrsize < 4)
		return LOWER_HELPER;
	mem_operand(t, i, s->mem_size, s->mem_write ? SLOW_WRITE : SLOW_READ, &m);
	if (!s->reg_gpr || !spilled(reg)) {
		tr_commit(t, i);
		encode(t, i, reg, &m);
		return LOWERED;
	}
	scratch = mem_scratch(t, &m);
	if (s->reg_read || i->opsize < 4)
		emit_load(e, scratch, opnd_gs(OFF_GPR(reg)));
	tr_commit(t, i);
	encode(t, i, scratch, &m);
	if (s->reg_write)
		emit_store(e, opnd_gs(OFF_GPR(reg)), scratch);
	return LOWERED;
}

/* The XSAVE family of 64-bit code: quick-xsave.c. */
static bool lower_xsave(struct tr *t, const struct insn *i, enum lowered *r)
{
	bool restore = i->op == OP_XRSTOR || i->op == OP_XRSTOR64 || i->op == OP_XRSTORS || i->op == OP_XRSTORS64;

	if (t->m32 || !(i->flags & INSN_MEM) || i->op < OP_XSAVE || i->op > OP_XSAVEC64)
		return false;
	*r = lower_quick(t, i, restore ? QUICK_XRSTOR : QUICK_XSAVE);
	if (restore)
		t->x87_known = false; /* it may have been put by */
	return true;
}

enum lowered lower_vector(struct tr *t, const struct insn *i)
{
	bool x87 = i->class == CLASS_X87 || i->flags & INSN_MMX, vec = i->class == CLASS_VECTOR;
	const struct shape *s = vector_shape(t, t->idx);
	enum lowered r;

	if (vec && lower_xsave(t, i, &r))
		return r;
	if (i->class == CLASS_X87 && i->op == OP_INVALID)
		return LOWER_LEAVE;
	if (!i->modrm_at && i->opcode != 0x9b && !(i->flags & INSN_VEX) && i->opmap == 0)
		return LOWER_HELPER;
	if (!s->known)
		return LOWER_HELPER;
	x87 |= s->mmx;
	if (s->vvvv_gpr || (s->reg_gpr && i->flags & INSN_EVEX))
		return LOWER_HELPER;
	if ((x87 && !(t->mode & MODE_X87)) || (vec && !(t->mode & MODE_SSE) && !s->mmx) ||
	    (i->flags & INSN_VEX && !(t->mode & MODE_AVX)) || (i->op == OP_AVX512 && !(t->mode & MODE_AVX512)))
		return LOWER_HELPER;
	if (vec && !t->vec_known) {
		live_check(t, OFF_HOT(vec_live), 1);
		t->vec_known = true;
	}
	if (x87 && !t->x87_known) {
		live_check(t, OFF_HOT(x87_live), 2);
		t->x87_known = true;
	}
	return i->flags & INSN_MEM ? lower_memory(t, i, s) : lower_registers(t, i, s);
}
