/* SPDX-License-Identifier: Apache-2.0 */
/* What an AVX-512 instruction reads, writes and requires, asked of libzydis. */
#include <string.h>
#include "engine/interp/evex.h"
#include "x86/cpuid.h"

/* CPUID.7, subleaf 0 */
#define L7B_F BIT(16)
#define L7B_DQ BIT(17)
#define L7B_IFMA BIT(21)
#define L7B_CD BIT(28)
#define L7B_BW BIT(30)
#define L7B_VL BIT(31)
#define L7C_VBMI BIT(1)
#define L7C_VBMI2 BIT(6)
#define L7C_GFNI BIT(8)
#define L7C_VAES BIT(9)
#define L7C_VPCLMUL BIT(10)
#define L7C_VNNI BIT(11)
#define L7C_BITALG BIT(12)
#define L7C_VPOPCNT BIT(14)

/* libzydis names a set by feature and length: AVX512BW_256, AVX512F_SCALAR, AVX512_VNNI_512, AVX512DQ_KOP. */
static const struct {
	const char *name;
	uint32_t ebx, ecx;
} sets[] = {
	{ "AVX512F", L7B_F, 0 },
	{ "AVX512DQ", L7B_DQ, 0 },
	{ "AVX512CD", L7B_CD, 0 },
	{ "AVX512BW", L7B_BW, 0 },
	{ "AVX512_IFMA", L7B_IFMA, 0 },
	{ "AVX512_VBMI", 0, L7C_VBMI },
	{ "AVX512_VBMI2", 0, L7C_VBMI2 },
	{ "AVX512_GFNI", 0, L7C_GFNI },
	{ "AVX512_VAES", 0, L7C_VAES },
	{ "AVX512_VPCLMULQDQ", 0, L7C_VPCLMUL },
	{ "AVX512_VNNI", 0, L7C_VNNI },
	{ "AVX512_BITALG", 0, L7C_BITALG },
	{ "AVX512_VPOPCNTDQ", 0, L7C_VPOPCNT },
};

bool evex_needs(ZydisISASet set, uint32_t need[3])
{
	const char *name = ZydisISASetGetString(set), *length = name ? strrchr(name, '_') : NULL;

	if (!length)
		return false;
	for (unsigned n = 0; n < ARRAY_LEN(sets); n++) {
		if (strlen(sets[n].name) != (size_t)(length - name) || memcmp(sets[n].name, name, (size_t)(length - name)))
			continue;
		need[0] = (uint32_t)(L7B_F | sets[n].ebx);
		need[1] = (uint32_t)sets[n].ecx;
		need[2] = 0;
		if (!strcmp(length, "_128") || !strcmp(length, "_256"))
			need[0] |= (uint32_t)L7B_VL;
		return true;
	}
	return false;
}

bool evex_offered(const struct cpuid_model *m, const uint32_t need[3])
{
	return m->has_avx512 && !(need[0] & ~m->avx512[0]) && !(need[1] & ~m->avx512[1]) && !(need[2] & ~m->avx512[2]);
}

static bool is_vector(ZydisRegisterClass k)
{
	return k == ZYDIS_REGCLASS_XMM || k == ZYDIS_REGCLASS_YMM || k == ZYDIS_REGCLASS_ZMM;
}

static void take_memory(struct evex *e, const ZydisDecodedOperand *o)
{
	e->reads |= !!(o->actions & ZYDIS_OPERAND_ACTION_MASK_READ);
	e->writes |= !!(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
	e->element = (uint8_t)(o->element_size / 8);
}

static void take_general(struct evex *e, const ZydisDecodedOperand *o)
{
	bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	uint8_t number = (uint8_t)ZydisRegisterGetId(o->reg.value);

	e->general = true;
	e->general_at = number;
	e->narrow = o->size <= 32;
	e->reg_is_general |= o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
	e->rm_is_general |= o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
	if (writes) {
		e->result = RESULT_GENERAL;
		e->result_at = number;
	}
}

static void take_register(struct evex *e, const ZydisDecodedOperand *o, unsigned n)
{
	ZydisRegisterClass k = ZydisRegisterGetClass(o->reg.value);
	uint8_t number = (uint8_t)ZydisRegisterGetId(o->reg.value);
	bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	e->has_vvvv |= o->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD;
	if (k == ZYDIS_REGCLASS_FLAGS) {
		e->flags = true;
	} else if (is_vector(k)) {
		e->vectors |= 1u << number;
		if (writes) {
			e->result = RESULT_VECTOR;
			e->result_at = number;
		}
		if (!e->lanes)
			e->lanes = (uint8_t)o->element_count;
	} else if (k == ZYDIS_REGCLASS_MASK) {
		e->masks |= (uint8_t)(1u << number);
		if (writes && !n) {
			e->result = RESULT_MASK;
			e->result_at = number;
		}
	} else if (k == ZYDIS_REGCLASS_GPR32 || k == ZYDIS_REGCLASS_GPR64 || k == ZYDIS_REGCLASS_GPR16 ||
		   k == ZYDIS_REGCLASS_GPR8) {
		take_general(e, o);
	} else {
		e->known = false;
	}
}

static bool packs(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VCOMPRESSPS:
	case ZYDIS_MNEMONIC_VCOMPRESSPD:
	case ZYDIS_MNEMONIC_VPCOMPRESSB:
	case ZYDIS_MNEMONIC_VPCOMPRESSW:
	case ZYDIS_MNEMONIC_VPCOMPRESSD:
	case ZYDIS_MNEMONIC_VPCOMPRESSQ:
	case ZYDIS_MNEMONIC_VEXPANDPS:
	case ZYDIS_MNEMONIC_VEXPANDPD:
	case ZYDIS_MNEMONIC_VPEXPANDB:
	case ZYDIS_MNEMONIC_VPEXPANDW:
	case ZYDIS_MNEMONIC_VPEXPANDD:
	case ZYDIS_MNEMONIC_VPEXPANDQ:
		return true;
	default:
		return false;
	}
}

/* libzydis does not have them among those without fault suppression; found by comparing with processors. */
static bool ignores_mask(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_VDBPSADBW || m == ZYDIS_MNEMONIC_VGF2P8AFFINEQB ||
	       m == ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB;
}

/* These check all of what they might write. */
static bool checks_all(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VEXTRACTF32X4:
	case ZYDIS_MNEMONIC_VEXTRACTF32X8:
	case ZYDIS_MNEMONIC_VEXTRACTF64X2:
	case ZYDIS_MNEMONIC_VEXTRACTF64X4:
	case ZYDIS_MNEMONIC_VEXTRACTI32X4:
	case ZYDIS_MNEMONIC_VEXTRACTI32X8:
	case ZYDIS_MNEMONIC_VEXTRACTI64X2:
	case ZYDIS_MNEMONIC_VEXTRACTI64X4:
		return true;
	default:
		return false;
	}
}

/* "NF": no fault suppression, says the manual. */
static enum evex_masking masking_of(const ZydisDecodedInstruction *z, const struct insn *i, const struct evex *e)
{
	unsigned count = e->element ? i->memsize / e->element : 0;

	if (!i->opmask || !count)
		return EVEX_WHOLE;
	if (packs(z->mnemonic))
		return EVEX_PACKED;
	if (e->writes)
		return EVEX_ELEMENTS;
	if (ignores_mask(z->mnemonic))
		return EVEX_WHOLE;
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return EVEX_WHOLE;
	default:
		break;
	}
	if (i->broadcast || (z->avx.broadcast.is_static && count == 1))
		return EVEX_ALL_OR_NONE;
	return z->avx.broadcast.is_static ? EVEX_REPEATED : EVEX_ELEMENTS;
}

static void take_vsib(struct evex *e, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
	const char *name = ZydisMnemonicGetString(z->mnemonic);
	size_t len = strlen(name);
	bool write = o[0].type == ZYDIS_OPERAND_TYPE_MEMORY;

	e->gather = !write;
	e->scatter = write;
	e->index_size = name[len - 2] == 'd' ? 4 : 8; /* vpgatherDq, vgatherQps */
	if (name[len - 1] == 's' || (name[len - 1] == 'd' && name[len - 2] == 'p')) /* ps, pd */
		e->index_size = name[len - 3] == 'd' ? 4 : 8;
	e->lanes = 0;
}

void evex_shape(struct evex *e, const struct insn *i)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth stack;
	} machine[] = {
		[MODE_16] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
		[MODE_32] = { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
		[MODE_64] = { ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
	};
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction z;
	ZydisDecoder d;

	memset(e, 0, sizeof(*e));
	memcpy(e->bytes, i->bytes, sizeof(e->bytes));
	e->len = i->len;
	e->mode = i->mode;
	if (!ZYAN_SUCCESS(ZydisDecoderInit(&d, machine[i->mode].mode, machine[i->mode].stack)) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, i->bytes, i->len, &z, o)) || !evex_needs(z.meta.isa_set, e->need))
		return;
	e->known = true;
	for (unsigned n = 0; n < z.operand_count; n++) {
		if (o[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
			take_memory(e, &o[n]);
		else if (o[n].type == ZYDIS_OPERAND_TYPE_REGISTER)
			take_register(e, &o[n], n);
	}
	if (z.mnemonic == ZYDIS_MNEMONIC_VPSHUFBITQMB) /* a bit of the opmask for each byte; libzydis says quadwords */
		e->element = 1;
	e->aligned = z.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E1 ||
		     z.meta.exception_class == ZYDIS_EXCEPTION_CLASS_E1NF;
	if (i->flags & INSN_VSIB)
		take_vsib(e, &z, o);
	else
		e->masking = (uint8_t)masking_of(&z, i, e);
	e->checks_all = e->writes && i->opmask && checks_all(z.mnemonic);
	if (i->broadcast) /* ZYDIS_BROADCAST_MODE_1_TO_2 is 1, ..._4 is 2 and so on */
		e->lanes = (uint8_t)(1u << z.avx.broadcast.mode);
	else if (!e->lanes && e->element)
		e->lanes = i->vl / e->element;
}
