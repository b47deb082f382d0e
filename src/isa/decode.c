/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instruction bytes to struct insn. libzydis does the parsing; here its verbose result is packed,
 * its mnemonics are mapped to our rows, and the places are mended where it is stricter or laxer
 * than processors are. No state: the decoders are constants.
 */
#include <string.h>
#include <Zydis/Zydis.h>
#include "isa/insn.h"
#include "x86/state.h"

/* Rows that libzydis has no mnemonic of their own for. */
enum {
	ZYDIS_MNEMONIC_MOV_SREG = ZYDIS_MNEMONIC_MAX_VALUE + 1,
	ZYDIS_MNEMONIC_MOV_CR,
	ZYDIS_MNEMONIC_MOV_DR,
	ZYDIS_MNEMONIC_PUSH_SREG,
	ZYDIS_MNEMONIC_POP_SREG,
	ZYDIS_MNEMONIC_JMP_FAR,
	ZYDIS_MNEMONIC_CALL_FAR,
	ZYDIS_MNEMONIC_RET_FAR,
	ZYDIS_MNEMONIC_MOVSD_SSE,
	ZYDIS_MNEMONIC_CMPSD_SSE,
	ZYDIS_MNEMONIC_AVX512,
	MNEMONIC_COUNT
};

static const uint16_t op_of_mnemonic[MNEMONIC_COUNT] = {
#define I(mnemonic, class, handler) [ZYDIS_MNEMONIC_##mnemonic] = OP_##mnemonic,
#include "isa/insn.def"
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I
};

static const uint8_t class_of_op[OP_COUNT] = {
	[OP_INVALID] = CLASS_FAR,
#define I(mnemonic, class, handler) [OP_##mnemonic] = class,
#include "isa/insn.def"
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I
};

static const char *const name_of_op[OP_COUNT] = {
	[OP_INVALID] = "(bad)",
#define I(mnemonic, class, handler) [OP_##mnemonic] = #mnemonic,
#include "isa/insn.def"
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I
};

/*
 * MPX, CLDEMOTE and WBNOINVD are not offered, so their encodings are what they were before: NOP,
 * NOP and WBINVD. CET is not offered either, but ENDBR is kept for the disassembly.
 */
static const ZydisDecoder decoders[] = {
	[MODE_16] = { .machine_mode = ZYDIS_MACHINE_MODE_LEGACY_16,
		      .stack_width = ZYDIS_STACK_WIDTH_16,
		      .decoder_mode = { [ZYDIS_DECODER_MODE_LZCNT] = 1,
					[ZYDIS_DECODER_MODE_TZCNT] = 1,
					[ZYDIS_DECODER_MODE_CET] = 1 } },
	[MODE_32] = { .machine_mode = ZYDIS_MACHINE_MODE_LEGACY_32,
		      .stack_width = ZYDIS_STACK_WIDTH_32,
		      .decoder_mode = { [ZYDIS_DECODER_MODE_LZCNT] = 1,
					[ZYDIS_DECODER_MODE_TZCNT] = 1,
					[ZYDIS_DECODER_MODE_CET] = 1 } },
	[MODE_64] = { .machine_mode = ZYDIS_MACHINE_MODE_LONG_64,
		      .stack_width = ZYDIS_STACK_WIDTH_64,
		      .decoder_mode = { [ZYDIS_DECODER_MODE_LZCNT] = 1,
					[ZYDIS_DECODER_MODE_TZCNT] = 1,
					[ZYDIS_DECODER_MODE_CET] = 1 } },
};

const char *insn_name(enum insn_op op)
{
	return op < OP_COUNT ? name_of_op[op] : "(bad)";
}

/* Which row: tells apart what shares a mnemonic. */
static unsigned op_split(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
	bool two_byte = z->opcode_map == ZYDIS_OPCODE_MAP_0F;

	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX || z->meta.isa_ext == ZYDIS_ISA_EXT_KNC || /* Knights Corner's */
	    z->meta.isa_ext == ZYDIS_ISA_EXT_KNCE || z->meta.isa_ext == ZYDIS_ISA_EXT_KNCV)
		return OP_INVALID;
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || z->meta.isa_ext == ZYDIS_ISA_EXT_AVX512VEX)
		return OP_AVX512;
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		if (two_byte)
			return z->opcode & 1 ? OP_MOV_DR : OP_MOV_CR;
		return z->opcode == 0x8c || z->opcode == 0x8e ? OP_MOV_SREG : OP_MOV;
	case ZYDIS_MNEMONIC_PUSH:
	case ZYDIS_MNEMONIC_POP:
		if (o[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    ZydisRegisterGetClass(o[0].reg.value) != ZYDIS_REGCLASS_SEGMENT)
			break;
		return z->mnemonic == ZYDIS_MNEMONIC_PUSH ? OP_PUSH_SREG : OP_POP_SREG;
	case ZYDIS_MNEMONIC_JMP:
		return z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? OP_JMP_FAR : OP_JMP;
	case ZYDIS_MNEMONIC_CALL:
		return z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? OP_CALL_FAR : OP_CALL;
	case ZYDIS_MNEMONIC_RET:
		return z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? OP_RET_FAR : OP_RET;
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_CMPSD:
		if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
			break;
		return op_of_mnemonic[z->mnemonic == ZYDIS_MNEMONIC_MOVSD
					      ? ZYDIS_MNEMONIC_MOVSD_SSE
					      : ZYDIS_MNEMONIC_CMPSD_SSE];
	default:
		break;
	}
	return op_of_mnemonic[z->mnemonic];
}

static bool is_legacy_prefix(uint8_t b)
{
	return b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || (b >= 0x64 && b <= 0x67) ||
	       b == 0xf0 || b == 0xf2 || b == 0xf3;
}

/* Prefix bytes as they stand: what is in force as repeat and mandatory prefix, and where the opcode
 * is. */
struct prefixes {
	uint8_t repeat, opsize, segment, lock;
	uint8_t end; /* first byte that is none, REX included */
};

static struct prefixes prefixes_scan(const uint8_t *b, unsigned len, enum insn_mode mode)
{
	struct prefixes p = { .segment = REG_NONE };
	unsigned at = 0;

	/* a REX in front of another prefix counts for nothing */
	for (; at < len && (is_legacy_prefix(b[at]) || (mode == MODE_64 && (b[at] & 0xf0) == 0x40)); at++) {
		switch (b[at]) {
		case 0xf2:
		case 0xf3:
			p.repeat = b[at];
			break;
		case 0x66:
			p.opsize = 0x66;
			break;
		case 0xf0:
			p.lock = 1;
			break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e: /* ES CS SS DS do nothing in 64-bit mode */
			if (mode != MODE_64)
				p.segment = (b[at] >> 3) & 3;
			break;
		case 0x64:
		case 0x65:
			p.segment = SEG_FS + (b[at] & 1);
			break;
		}
	}
	p.end = (uint8_t)at;
	return p;
}

/* Number of a general register (its AH..BH are 4..7 as encoded), or that of any other class within
 * it. */
static uint8_t register_number(ZydisRegister r)
{
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return (uint8_t)(4 + r - ZYDIS_REGISTER_AH);
	if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
		return (uint8_t)(4 + r - ZYDIS_REGISTER_SPL);
	return (uint8_t)ZydisRegisterGetId(r);
}

static bool register_is_high(ZydisRegister r)
{
	return r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
}

static void take_memory(struct insn *i, const ZydisDecodedInstruction *z,
			const ZydisDecodedOperand *o)
{
	ZydisRegister base = o->mem.base, index = o->mem.index;

	i->memsize = o->size / 8 <= 255 ? (uint8_t)(o->size / 8) : 0;
	i->seg = (uint8_t)ZydisRegisterGetId(o->mem.segment);
	if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM &&
	    !(z->opcode >= 0xa0 && z->opcode <= 0xa3))
		return; /* implicit: strings, XLAT, MASKMOV */
	i->flags |= INSN_MEM;
	if (base == ZYDIS_REGISTER_RIP || base == ZYDIS_REGISTER_EIP)
		i->base = REG_RIP;
	else if (base != ZYDIS_REGISTER_NONE)
		i->base = register_number(base);
	if (index != ZYDIS_REGISTER_NONE) {
		i->index = register_number(index);
		if (ZydisRegisterGetClass(index) >= ZYDIS_REGCLASS_XMM &&
		    ZydisRegisterGetClass(index) <= ZYDIS_REGCLASS_ZMM)
			i->flags |= INSN_VSIB;
		i->scale = o->mem.scale ? (uint8_t)__builtin_ctz(o->mem.scale) : 0;
	}
	i->disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	/* no base but 32 bits of displacement: libzydis 4.0 takes it for [r13d] where REX.B is set
	 * under 67 */
	if (i->modrm_at && z->raw.sib.offset && z->raw.modrm.mod == 0 && z->raw.sib.base == 5) {
		i->base = REG_NONE;
		i->disp = z->raw.disp.value;
	}
}

static void take_register(struct insn *i, const ZydisDecodedOperand *o)
{
	ZydisRegister r = o->reg.value;

	if (ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_MMX)
		i->flags |= INSN_MMX;
	switch (o->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		i->reg = register_number(r);
		i->flags |= register_is_high(r) ? INSN_HIGH_REG : 0;
		break;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		i->rm = register_number(r);
		i->flags |= register_is_high(r) ? INSN_HIGH_RM : 0;
		break;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		i->vvvv = register_number(r);
		break;
	case ZYDIS_OPERAND_ENCODING_IS4:
		i->imm2 = register_number(r);
		break;
	default: /* fixed: accumulator, CL, segment registers of PUSH and POP */
		if (o->id == 0 && !i->modrm_at)
			i->reg = register_number(r);
		break;
	}
}

enum part { PART_NONE, PART_REG, PART_RM, PART_IMM, PART_CL, PART_ONE, PART_OTHER };

static enum part part_of(const struct insn *i, const ZydisDecodedOperand *o)
{
	switch (o->type) {
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		return o->encoding == ZYDIS_OPERAND_ENCODING_NONE ? PART_ONE : PART_IMM;
	case ZYDIS_OPERAND_TYPE_POINTER:
		return PART_IMM;
	case ZYDIS_OPERAND_TYPE_MEMORY:
		return i->flags & INSN_MEM ? PART_RM : PART_OTHER;
	case ZYDIS_OPERAND_TYPE_REGISTER:
		if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
			return PART_RM;
		if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ||
		    o->encoding == ZYDIS_OPERAND_ENCODING_OPCODE)
			return PART_REG;
		if (o->encoding != ZYDIS_OPERAND_ENCODING_NONE)
			return PART_OTHER;
		if (o->reg.value == ZYDIS_REGISTER_CL)
			return PART_CL;
		/* the accumulator, or PUSH/POP of a segment register */
		return i->modrm_at || o->reg.value == ZYDIS_REGISTER_DX ? PART_OTHER : PART_REG;
	default:
		return PART_OTHER;
	}
}

static enum insn_form form_of(const struct insn *i, const ZydisDecodedOperand *o, unsigned count)
{
	static const uint8_t forms[][4] = {
		{ FORM_NONE },
		{ FORM_RM, PART_RM },
		{ FORM_REG, PART_REG },
		{ FORM_IMM, PART_IMM },
		{ FORM_RM_REG, PART_RM, PART_REG },
		{ FORM_REG_RM, PART_REG, PART_RM },
		{ FORM_RM_IMM, PART_RM, PART_IMM },
		{ FORM_REG_IMM, PART_REG, PART_IMM },
		{ FORM_REG_RM_IMM, PART_REG, PART_RM, PART_IMM },
		{ FORM_RM_REG_IMM, PART_RM, PART_REG, PART_IMM },
		{ FORM_RM_CL, PART_RM, PART_CL },
		{ FORM_RM_REG_CL, PART_RM, PART_REG, PART_CL },
		{ FORM_RM_1, PART_RM, PART_ONE },
	};
	uint8_t parts[3] = { 0 };

	if (count > 3)
		return FORM_OTHER;
	for (unsigned n = 0; n < count; n++)
		parts[n] = (uint8_t)part_of(i, &o[n]);
	for (unsigned n = 0; n < ARRAY_LEN(forms); n++) {
		if (!memcmp(parts, forms[n] + 1, 3))
			return (enum insn_form)forms[n][0];
	}
	return FORM_OTHER;
}

/* Implicit memory operands whose segment can be overridden. */
static bool has_implicit_memory(const struct insn *i)
{
	return i->op == OP_XLAT || i->op == OP_MASKMOVQ || i->op == OP_MASKMOVDQU ||
	       i->op == OP_VMASKMOVDQU;
}

static void take_operands(struct insn *i, const ZydisDecodedInstruction *z,
			  const ZydisDecodedOperand *o)
{
	for (unsigned n = 0; n < z->operand_count; n++) {
		bool visible = n < z->operand_count_visible;

		if (o[n].type == ZYDIS_OPERAND_TYPE_MEMORY && (visible || has_implicit_memory(i)))
			take_memory(i, z, &o[n]);
		else if (o[n].type == ZYDIS_OPERAND_TYPE_REGISTER && visible)
			take_register(i, &o[n]);
		else if (o[n].type == ZYDIS_OPERAND_TYPE_POINTER)
			i->imm = (uint64_t)o[n].ptr.segment << 32 | o[n].ptr.offset;
	}
	i->form = (uint8_t)form_of(i, o, z->operand_count_visible);
	if (i->form == FORM_RM_1)
		i->imm = 1;
}

static void take_raw(struct insn *i, const ZydisDecodedInstruction *z, const struct prefixes *p)
{
	unsigned at = p->end;

	i->opmap = z->opcode_map <= ZYDIS_OPCODE_MAP_0F3A ? (uint8_t)z->opcode_map : 4;
	i->opcode = z->opcode;
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		i->flags |= INSN_VEX;
		at += i->bytes[at] == 0xc5 ? 2 : 3;
	} else if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
		i->flags |= INSN_EVEX;
		at += 4;
	} else {
		static const uint8_t escape[] = { 0, 1, 2, 2 };

		at += i->opmap < ARRAY_LEN(escape) ? escape[i->opmap] : 0;
	}
	i->opcode_at = (uint8_t)at;
	if (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
		i->modrm_at = z->raw.modrm.offset;
		i->modrm = i->bytes[i->modrm_at];
	}
	if (z->attributes & ZYDIS_ATTRIB_HAS_REX && p->end)
		i->rex = i->bytes[p->end - 1];
	if (z->raw.disp.size) {
		i->disp_at = z->raw.disp.offset;
		i->disp_len = z->raw.disp.size / 8;
	}
	if (z->raw.imm[0].size) {
		i->imm_at = z->raw.imm[0].offset;
		i->imm_len = z->raw.imm[0].size / 8;
		i->imm = z->raw.imm[0].value.u;
	}
	if (z->raw.imm[1].size) {
		i->imm_len += z->raw.imm[1].size / 8;
		i->imm2 = (uint8_t)z->raw.imm[1].value.u;
	}
}

static void take_prefix(struct insn *i, const ZydisDecodedInstruction *z, const struct prefixes *p)
{
	static const uint8_t pp[] = { 0, 0x66, 0xf3, 0xf2 };

	if (i->flags & INSN_VEX)
		i->prefix = pp[z->raw.vex.pp & 3];
	else if (i->flags & INSN_EVEX)
		i->prefix = pp[z->raw.evex.pp & 3];
	else
		i->prefix = p->repeat ? p->repeat : p->opsize;
	if (p->lock)
		i->flags |= INSN_LOCK;
	if (i->class == CLASS_STRING && p->repeat) {
		bool compares = i->op >= OP_SCASB && i->op <= OP_CMPSQ;

		i->flags |= compares && p->repeat == 0xf2 ? INSN_REPNE : INSN_REP;
	}
	if (i->class == CLASS_STRING || i->op == OP_XLAT)
		i->seg = p->segment == REG_NONE ? SEG_DS : p->segment;
}

/* May the instruction leave the flags it is said to write as they are? */
static bool flags_pass_through(const struct insn *i)
{
	unsigned count = (unsigned)i->imm & (i->opsize == 8 ? 63 : 31);

	if (i->flags & (INSN_REP | INSN_REPNE))
		return true;
	if (i->op < OP_ROL || i->op > OP_SHRD)
		return false;
	if (i->form == FORM_RM_CL || i->form == FORM_RM_REG_CL || !count)
		return true;
	return (i->op == OP_RCL || i->op == OP_RCR) && i->opsize < 4; /* count modulo 9, 17 */
}

static void take_flags(struct insn *i, const ZydisDecodedInstruction *z)
{
	const uint32_t mask = FLAGS_ARITH | FLAG_DF;

	if (!z->cpu_flags)
		return;
	i->flags_read = (uint16_t)(z->cpu_flags->tested & mask);
	i->flags_written = (uint16_t)((z->cpu_flags->modified | z->cpu_flags->set_0 |
				       z->cpu_flags->set_1 | z->cpu_flags->undefined) &
				      mask);
	if (i->op >= OP_ANDN && i->op <= OP_BZHI)
		i->flags_read = 0; /* libzydis 4.0 says ZF */
	if (flags_pass_through(i))
		i->flags_read |= i->flags_written;
}

static void take_evex(struct insn *i, const ZydisDecodedInstruction *z)
{
	if (z->avx.mask.reg != ZYDIS_REGISTER_NONE)
		i->opmask = (uint8_t)ZydisRegisterGetId(z->avx.mask.reg);
	i->zeroing = z->avx.mask.mode == ZYDIS_MASK_MODE_ZEROING;
	i->broadcast = z->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID &&
		       !z->avx.broadcast.is_static;
	i->rounding = z->avx.rounding.mode & 7;
	if (!i->rounding && z->avx.has_sae)
		i->rounding = 5;
}

static enum insn_status decode_bad(struct insn *out, enum insn_mode mode, unsigned len)
{
	out->op = OP_INVALID;
	out->class = CLASS_FAR;
	out->mode = (uint8_t)mode;
	out->len = (uint8_t)len;
	out->form = FORM_NONE;
	return INSN_UD;
}

static void insn_clear(struct insn *out, const uint8_t *bytes, size_t available)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->bytes, bytes, MIN(available, sizeof(out->bytes)));
	out->base = REG_NONE;
	out->index = REG_NONE;
	out->seg = SEG_DS;
}

/* ModRM's own fields where no explicit operand told (opcode groups, x87). */
static void take_modrm(struct insn *i)
{
	if (!i->modrm_at)
		return;
	i->reg = (i->modrm >> 3) & 7;
	if (!(i->flags & (INSN_VEX | INSN_EVEX)) && i->class != CLASS_X87)
		i->reg |= i->rex & 4 ? 8 : 0;
	if (i->modrm >= 0xc0)
		i->rm = (i->modrm & 7) | (i->rex & 1 ? 8 : 0);
}

/* Where libzydis and the processors differ. */
static void mend(struct insn *i)
{
	if (i->op == OP_MOVNTI)
		i->opsize = i->memsize;	       /* there is no 16-bit form */
	if (i->op == OP_PAUSE && i->rex & 1) { /* F3 does nothing to XCHG r8, rAX */
		i->op = OP_XCHG;
		i->form = FORM_OTHER;
		i->reg = R8;
		i->opsize = i->rex & 8 ? 8 : memchr(i->bytes, 0x66, i->opcode_at) ? 2 : 4;
	}
}

/* 0F 0D with a register is #UD on AMD's processors; libzydis says NOP. */
static bool is_refused(const struct insn *i)
{
	return i->op == OP_NOP && i->opmap == 1 && i->opcode == 0x0d && i->modrm >= 0xc0;
}

enum insn_status insn_decode(struct insn *out, const uint8_t *bytes, size_t available,
			     enum insn_mode mode)
{
	ZydisDecodedInstruction z;
	ZydisDecoderContext context;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	struct prefixes p;
	ZyanStatus status;
	unsigned op;

	insn_clear(out, bytes, available);
	status = ZydisDecoderDecodeInstruction(&decoders[mode], &context, bytes,
					       MIN(available, 15u), &z);
	if (status == ZYDIS_STATUS_NO_MORE_DATA && available < 15)
		return INSN_TRUNCATED;
	if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG || status == ZYDIS_STATUS_NO_MORE_DATA)
		return INSN_TOO_LONG;
	if (!ZYAN_SUCCESS(status))
		return decode_bad(out, mode, 0);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoders[mode], &context, &z, operands,
						     z.operand_count)))
		return decode_bad(out, mode, 0);
	op = op_split(&z, operands);
	if (op == OP_INVALID)
		return decode_bad(out, mode, z.length);

	memset(out->bytes + z.length, 0, sizeof(out->bytes) - z.length);
	out->op = (uint16_t)op;
	out->class = class_of_op[op];
	out->mode = (uint8_t)mode;
	out->len = z.length;
	out->opsize = z.operand_width / 8;
	out->addrsize = z.address_width / 8;
	out->vl = (uint8_t)(z.avx.vector_length / 8);
	p = prefixes_scan(bytes, z.length, mode);
	take_raw(out, &z, &p);
	take_modrm(out);
	take_operands(out, &z, operands);
	take_prefix(out, &z, &p);
	take_flags(out, &z);
	if (out->flags & INSN_EVEX)
		take_evex(out, &z);
	mend(out);
	if (is_refused(out)) {
		insn_clear(out, bytes, available);
		return decode_bad(out, mode, z.length);
	}
	if (z.meta.category == ZYDIS_CATEGORY_COND_BR || z.meta.category == ZYDIS_CATEGORY_CMOV ||
	    z.meta.category == ZYDIS_CATEGORY_SETCC) {
		out->cond = z.opcode & 15;
		out->flags |= (op >= OP_JCXZ && op <= OP_LOOPNE) ? 0 : INSN_COND;
	}
	return INSN_OK;
}

void insn_format(const struct insn *i, uint64_t rip, char *text, size_t size)
{
	ZydisFormatter formatter;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

	if (!size)
		return;
	strncpy(text, "(bad)", size);
	text[size - 1] = 0;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[i->mode], i->bytes, sizeof(i->bytes), &z,
						 operands)) ||
	    !ZYAN_SUCCESS(ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)))
		return;
	ZydisFormatterFormatInstruction(&formatter, &z, operands, z.operand_count_visible, text,
					size, rip, NULL);
}
