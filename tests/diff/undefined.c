// SPDX-License-Identifier: Apache-2.0
/*
 * Which arithmetic flags hold no defined value after an instruction. Zydis knows most of it; what depends on
 * a count is worked out here, always on the side of "undefined" when the count is not known.
 */
#include <Zydis/Zydis.h>
#include "diff.h"

#define CF 0x001
#define PF 0x004
#define AF 0x010
#define ZF 0x040
#define SF 0x080
#define OF 0x800
#define C1 UNDEFINED_C1
#define ALL (CF | PF | AF | ZF | SF | OF)

/* Count of a shift or rotate: -1 when it is in CL. */
static int shift_count(const ZydisDecodedInstruction *i)
{
	unsigned mask = i->operand_width == 64 ? 63 : 31;

	if (i->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (i->opcode == 0xd0 || i->opcode == 0xd1))
		return 1;
	if (i->raw.imm[0].size)
		return (int)(i->raw.imm[0].value.u & mask);
	return -1;
}

static uint16_t after_shift(const ZydisDecodedInstruction *i, uint16_t before)
{
	int count = shift_count(i);
	bool narrow = i->operand_width < 32;
	uint16_t u;

	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
		if (count == 0)
			return before;
		if (count == 1)
			return before & ~(CF | OF);
		return (count > 0 ? before & ~CF : before) | OF;
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		if (count == 0)
			return before;
		if (count < 0)
			return before | AF | OF | (narrow ? ALL : 0);
		if (count >= i->operand_width)
			return ALL;
		return count == 1 ? AF : AF | OF;
	default: /* SHL, SAL, SHR, SAR */
		if (count == 0)
			return before;
		u = count == 1 ? AF : AF | OF;
		if (narrow && (count < 0 || count >= i->operand_width) && i->mnemonic != ZYDIS_MNEMONIC_SAR)
			u |= CF;
		return count < 0 ? before | u : u;
	}
}

/*
 * C1 of the x87 status word: Intel clears it in comparisons to EFLAGS, AMD leaves it alone; nothing is promised after
 * FCMOV and FFREE. Whatever computes defines it again.
 */
static uint16_t after_x87(const ZydisDecodedInstruction *i, uint16_t before)
{
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_FCMOVB:
	case ZYDIS_MNEMONIC_FCMOVBE:
	case ZYDIS_MNEMONIC_FCMOVE:
	case ZYDIS_MNEMONIC_FCMOVNB:
	case ZYDIS_MNEMONIC_FCMOVNBE:
	case ZYDIS_MNEMONIC_FCMOVNE:
	case ZYDIS_MNEMONIC_FCMOVNU:
	case ZYDIS_MNEMONIC_FCMOVU:
		return before | C1;
	case ZYDIS_MNEMONIC_FCOMI:
	case ZYDIS_MNEMONIC_FCOMIP:
	case ZYDIS_MNEMONIC_FUCOMI:
	case ZYDIS_MNEMONIC_FUCOMIP:
		return (before & (AF | SF | OF)) | C1;
	case ZYDIS_MNEMONIC_FFREE:
	case ZYDIS_MNEMONIC_FFREEP:
		return before | C1;
	case ZYDIS_MNEMONIC_FNOP:
	case ZYDIS_MNEMONIC_FENI8087_NOP:
	case ZYDIS_MNEMONIC_FDISI8087_NOP:
	case ZYDIS_MNEMONIC_FSETPM287_NOP:
	case ZYDIS_MNEMONIC_FWAIT:
	case ZYDIS_MNEMONIC_FNCLEX:
	case ZYDIS_MNEMONIC_FLDCW:
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW:
		return before;
	default:
		return before & ~C1;
	}
}

static uint16_t after(const ZydisDecodedInstruction *i, uint16_t before)
{
	uint32_t changed, undefined;

	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return after_shift(i, before);
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_IMUL:
		return SF | ZF | AF | PF;
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		return ALL;
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
		return ALL & ~ZF;
	case ZYDIS_MNEMONIC_TZCNT:
	case ZYDIS_MNEMONIC_LZCNT:
		return ALL & ~(ZF | CF);
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return (before & ZF) | OF | SF | AF | PF;
	case ZYDIS_MNEMONIC_AAA:
	case ZYDIS_MNEMONIC_AAS:
		return OF | SF | ZF | PF;
	case ZYDIS_MNEMONIC_AAD:
	case ZYDIS_MNEMONIC_AAM:
		return OF | AF | CF;
	case ZYDIS_MNEMONIC_DAA:
	case ZYDIS_MNEMONIC_DAS:
		return OF;
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_ANDN:
		return i->mnemonic == ZYDIS_MNEMONIC_ANDN ? AF | PF : AF;
	case ZYDIS_MNEMONIC_BLSI:
	case ZYDIS_MNEMONIC_BLSR:
	case ZYDIS_MNEMONIC_BLSMSK:
		return AF | PF;
	case ZYDIS_MNEMONIC_BZHI:
		return AF | PF;
	case ZYDIS_MNEMONIC_BEXTR:
		return AF | SF | PF;
	default:
		break;
	}
	if (i->meta.isa_ext == ZYDIS_ISA_EXT_X87)
		return after_x87(i, before);
	if (!i->cpu_flags)
		return before;
	changed = i->cpu_flags->modified | i->cpu_flags->set_0 | i->cpu_flags->set_1;
	undefined = i->cpu_flags->undefined;
	/* REP SCAS and CMPS with a zero count leave the flags alone */
	if (i->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
		changed = 0;
	return (uint16_t)(((before & ~changed) | undefined) & (ALL | C1));
}

uint16_t undefined_after(const ZydisDecodedInstruction *i, uint16_t before)
{
	uint16_t u = after(i, before);

	/* only the x87's own instructions say something about C1 */
	return i->meta.isa_ext == ZYDIS_ISA_EXT_X87 ? u : (uint16_t)((u & ~C1) | (before & C1));
}

uint16_t undefined_tested(const ZydisDecodedInstruction *i)
{
	uint16_t tested = i->cpu_flags ? (uint16_t)(i->cpu_flags->tested & ALL) : 0;

	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
		return ALL;
	case ZYDIS_MNEMONIC_FNSTSW:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
		return C1;
	default:
		return tested;
	}
}

/* Index of the instruction at an offset, or ninsns. */
static unsigned index_at(const struct diff_case *c, unsigned at)
{
	unsigned k = 0;

	while (k < c->ninsns && c->insn[k].at != at)
		k++;
	return k;
}

struct flow {
	ZydisDecodedInstruction i[MAX_INSNS];
	bool valid[MAX_INSNS];
	uint16_t in[MAX_INSNS + 1];
};

static bool pass(const struct diff_case *c, struct flow *f)
{
	bool changed = false;

	for (unsigned k = 0; k < c->ninsns; k++) {
		const ZydisDecodedInstruction *i = &f->i[k];
		uint16_t out = f->in[k];
		unsigned to = k + 1;

		if (f->valid[k])
			out = undefined_after(i, out);
		if (f->in[to] != (f->in[to] | out)) {
			f->in[to] |= out;
			changed = true;
		}
		if (!f->valid[k] || i->meta.branch_type == ZYDIS_BRANCH_TYPE_NONE)
			continue;
		if (i->raw.imm[0].is_relative) {
			to = index_at(c, c->insn[k].at + c->insn[k].len + (unsigned)i->raw.imm[0].value.s);
			if (f->in[to] != (f->in[to] | out)) {
				f->in[to] |= out;
				changed = true;
			}
			continue;
		}
		for (to = k + 1; to <= c->ninsns; to++) { /* anywhere behind */
			if (f->in[to] != (f->in[to] | out)) {
				f->in[to] |= out;
				changed = true;
			}
		}
	}
	return changed;
}

bool undefined_compute(struct diff_case *c)
{
	struct flow f = { 0 };
	ZydisDecoder decoder;
	bool wide = c->mode == DIFF_64, ok = true;

	ZydisDecoderInit(&decoder, wide ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 wide ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	for (unsigned k = 0; k < c->ninsns; k++)
		f.valid[k] = !c->insn[k].skipped &&
			     ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, c->code + c->insn[k].at,
									c->insn[k].len, &f.i[k]));
	while (pass(c, &f))
		;
	c->undefined_any = 0;
	for (unsigned k = 0; k < c->ninsns; k++) {
		c->insn[k].undefined = f.in[k];
		c->undefined_any |= f.in[k];
		if (f.valid[k] && (undefined_tested(&f.i[k]) & f.in[k]))
			ok = false;
	}
	c->undefined_end = f.in[c->ninsns];
	c->undefined_any |= c->undefined_end;
	return ok;
}
