// SPDX-License-Identifier: Apache-2.0
/*
 * The catalogue of encodings under test. It is not written down but found: every opcode of every map is
 * tried with every prefix, width and ModRM group through Zydis, and what it knows, the host has and a user program
 * may execute without leaving the arena is kept. So nothing the decoder knows can be forgotten here.
 */
#include <Zydis/Zydis.h>
#include <stdlib.h>
#include <string.h>
#include "diff.h"

const char *mnemonic_name(uint16_t mnemonic)
{
	const char *s = ZydisMnemonicGetString(mnemonic);

	return mnemonic && s ? s : "(invalid)";
}

/*
 * Left out by name. Results that differ by machine or moment (CPUID, RDTSC...), doors to the host's kernel,
 * instructions that Linux emulates for user programs (those under UMIP), and state images whose
 * layout depends on the features enabled.
 */
static const ZydisMnemonic left_out[] = {
	ZYDIS_MNEMONIC_CPUID, ZYDIS_MNEMONIC_RDTSC, ZYDIS_MNEMONIC_RDTSCP, ZYDIS_MNEMONIC_RDPMC,
	ZYDIS_MNEMONIC_RDRAND, ZYDIS_MNEMONIC_RDSEED, ZYDIS_MNEMONIC_RDPID, ZYDIS_MNEMONIC_RDPRU,
	ZYDIS_MNEMONIC_XGETBV, ZYDIS_MNEMONIC_SYSCALL, ZYDIS_MNEMONIC_SYSENTER,
	ZYDIS_MNEMONIC_SYSEXIT, ZYDIS_MNEMONIC_SYSRET, ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT,
	ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_STR, ZYDIS_MNEMONIC_SMSW, ZYDIS_MNEMONIC_INT1,
	ZYDIS_MNEMONIC_RSM, ZYDIS_MNEMONIC_MONITOR, ZYDIS_MNEMONIC_MWAIT, ZYDIS_MNEMONIC_SWAPGS,
	ZYDIS_MNEMONIC_GETSEC, ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXRSTOR64,
	ZYDIS_MNEMONIC_SETSSBSY, ZYDIS_MNEMONIC_UD0, ZYDIS_MNEMONIC_UD1,
	/* its encoding space has been given to others since */
	ZYDIS_MNEMONIC_MCOMMIT, ZYDIS_MNEMONIC_PREFETCHWT1,
};

static bool host_has(const struct host *h, const ZydisDecodedInstruction *i, enum diff_mode mode)
{
	switch (i->meta.isa_ext) {
	case ZYDIS_ISA_EXT_BASE:
		if (i->meta.isa_set == ZYDIS_ISA_SET_POPCNT)
			return h->popcnt;
		if (i->meta.isa_set == ZYDIS_ISA_SET_CMPXCHG16B)
			return h->cx16;
		return i->meta.isa_set != ZYDIS_ISA_SET_AMD;
	case ZYDIS_ISA_EXT_LONGMODE:
	case ZYDIS_ISA_EXT_PAUSE:
	case ZYDIS_ISA_EXT_X87:
	case ZYDIS_ISA_EXT_MMX:
	case ZYDIS_ISA_EXT_SSE:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_CLFSH:
	case ZYDIS_ISA_EXT_AMD3DNOW_PREFETCH:
		return true;
	case ZYDIS_ISA_EXT_SSSE3:
		return h->ssse3;
	case ZYDIS_ISA_EXT_SSE4:
		return h->sse41 && h->sse42;
	case ZYDIS_ISA_EXT_AES:
		return h->aes;
	case ZYDIS_ISA_EXT_AVXAES:
		return h->aes && h->avx;
	case ZYDIS_ISA_EXT_PCLMULQDQ:
		return h->pclmul && (i->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || h->avx);
	case ZYDIS_ISA_EXT_SHA:
		return h->sha;
	case ZYDIS_ISA_EXT_BMI1:
		return h->bmi1 && h->avx;
	case ZYDIS_ISA_EXT_BMI2:
		return h->bmi2 && h->avx;
	case ZYDIS_ISA_EXT_ADOX_ADCX:
		return h->adx;
	case ZYDIS_ISA_EXT_MOVBE:
		return h->movbe;
	case ZYDIS_ISA_EXT_LZCNT:
		return h->lzcnt;
	case ZYDIS_ISA_EXT_F16C:
		return h->f16c;
	case ZYDIS_ISA_EXT_FMA:
		return h->fma;
	case ZYDIS_ISA_EXT_AVX:
		return h->avx;
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVX2GATHER:
		return h->avx2;
	case ZYDIS_ISA_EXT_GFNI:
		return h->gfni && (i->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY || h->avx);
	case ZYDIS_ISA_EXT_VAES:
		return h->vaes && i->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	case ZYDIS_ISA_EXT_VPCLMULQDQ:
		return h->vpclmul && i->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	case ZYDIS_ISA_EXT_SSE4A:
		return h->sse4a;
	case ZYDIS_ISA_EXT_CLFLUSHOPT:
		return h->clflushopt;
	case ZYDIS_ISA_EXT_CLWB:
		return h->clwb;
	case ZYDIS_ISA_EXT_CET:
		return i->mnemonic == ZYDIS_MNEMONIC_ENDBR32 || i->mnemonic == ZYDIS_MNEMONIC_ENDBR64;
	case ZYDIS_ISA_EXT_RDWRFSGS:
		return h->fsgsbase && mode == DIFF_64;
	default:
		return false;
	}
}

/* Extensions that are not this project's business: their absence on the host is not counted. */
static bool known_extension(const ZydisDecodedInstruction *i)
{
	struct host all;

	memset(&all, 1, sizeof(all));
	return host_has(&all, i, DIFF_64);
}

static unsigned weight_of(const ZydisDecodedInstruction *i)
{
	switch (i->meta.category) {
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SEGOP:
	case ZYDIS_CATEGORY_NOP:
		return 1;
	case ZYDIS_CATEGORY_BINARY:
	case ZYDIS_CATEGORY_LOGICAL:
	case ZYDIS_CATEGORY_SHIFT:
	case ZYDIS_CATEGORY_ROTATE:
	case ZYDIS_CATEGORY_BITBYTE:
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP:
	case ZYDIS_CATEGORY_STRINGOP:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
		return i->meta.isa_ext == ZYDIS_ISA_EXT_BASE ? 12 : 4;
	case ZYDIS_CATEGORY_UNCOND_BR:
		return 16;
	default:
		return 4;
	}
}

struct builder {
	const struct host *host;
	enum diff_mode mode;
	ZydisDecoder decoder;
	struct catalogue *out;
	unsigned capacity;
	unsigned weight[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	unsigned per_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

static bool decode(const struct builder *b, const struct encoding *e, ZydisDecodedInstruction *i)
{
	uint8_t bytes[32] = { 0 };
	unsigned n = 0, reg = e->reg;

	if (e->vex) {
		bytes[n++] = 0xc4;
		bytes[n++] = 0xe0 | e->map;
		/* vvvv must be 1111 where it is unused; a gather's three registers must differ */
		bool gather = e->memory && e->rm == 4;

		reg |= gather;
		bytes[n++] = (uint8_t)(e->w << 7 | (gather ? 0x68 : 0x78) | e->l << 2 |
				       (e->prefix == 0x66 ? 1 : e->prefix == 0xf3 ? 2 : e->prefix == 0xf2 ? 3 : 0));
	} else {
		if (e->prefix)
			bytes[n++] = e->prefix;
		if (e->w)
			bytes[n++] = 0x48;
		if (e->map)
			bytes[n++] = 0x0f;
		if (e->map >= 2)
			bytes[n++] = e->map == 2 ? 0x38 : 0x3a;
	}
	bytes[n++] = e->opcode;
	bytes[n++] = (uint8_t)((e->memory ? 0 : 0xc0) | (reg & 7) << 3 | (e->rm & 7));
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&b->decoder, bytes, sizeof(bytes), i,
						   (ZydisDecodedOperand[ZYDIS_MAX_OPERAND_COUNT]){ 0 }));
}

/* A repeat prefix that changes nothing makes no encoding of its own. */
static bool prefix_matters(const struct builder *b, const struct encoding *e,
			   const ZydisDecodedInstruction *i)
{
	struct encoding plain = *e;
	ZydisDecodedInstruction p;

	if (e->vex || (e->prefix != 0xf2 && e->prefix != 0xf3))
		return true;
	if (i->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
		return true;
	plain.prefix = 0;
	return !decode(b, &plain, &p) || p.mnemonic != i->mnemonic;
}

static void add(struct builder *b, const struct encoding *e, const ZydisDecodedInstruction *i)
{
	struct catalogue *c = b->out;

	for (unsigned k = 0; k < ARRAY_LEN(left_out); k++)
		if (i->mnemonic == left_out[k])
			return;
	if (i->meta.isa_set == ZYDIS_ISA_SET_VTX || i->meta.isa_set == ZYDIS_ISA_SET_SVM)
		return;
	if (!host_has(b->host, i, b->mode)) {
		if (known_extension(i))
			c->unsupported++;
		return;
	}
	if (!prefix_matters(b, e, i))
		return;
	if (c->count == b->capacity) {
		b->capacity = b->capacity ? b->capacity * 2 : 4096;
		c->encodings = realloc(c->encodings, b->capacity * sizeof(*c->encodings));
		CHECK(c->encodings);
	}
	c->encodings[c->count] = *e;
	c->encodings[c->count].mnemonic = (uint16_t)i->mnemonic;
	c->encodings[c->count].has_modrm = !!(i->attributes & ZYDIS_ATTRIB_HAS_MODRM);
	c->count++;
	b->per_mnemonic[i->mnemonic]++;
	b->weight[i->mnemonic] = weight_of(i);
}

/* All ModRM forms of one opcode under one prefix and width. */
static void scan_opcode(struct builder *b, struct encoding e)
{
	ZydisDecodedInstruction i;
	bool group = !e.vex || e.opcode == 0xf3 || (e.opcode >= 0x71 && e.opcode <= 0x73) || e.opcode == 0xae;
	bool by_rm = !e.vex && ((e.map == 0 && e.opcode >= 0xd8 && e.opcode <= 0xdf) ||
				(e.map == 1 && (e.opcode == 0x01 || e.opcode == 0xae || e.opcode == 0x1e)));

	for (unsigned memory = 0; memory < 2; memory++) {
		for (unsigned reg = 0; reg < (group ? 8 : 1); reg++) {
			for (unsigned rm = 0; rm < (by_rm && !memory ? 8 : 1); rm++) {
				e.memory = (uint8_t)memory;
				e.reg = (uint8_t)reg;
				e.rm = (uint8_t)rm;
				bool ok = decode(b, &e, &i);

				if (!ok && memory) { /* a vector index needs a SIB byte */
					e.rm = 4;
					ok = decode(b, &e, &i);
				}
				if (!ok)
					continue;
				if (!(i.attributes & ZYDIS_ATTRIB_HAS_MODRM)) {
					if (reg || memory || rm)
						return;
					e.reg = e.rm = 0xff;
				}
				if (!group)
					e.reg = 0xff;
				if (!by_rm && !(memory && e.rm == 4))
					e.rm = 0xff;
				add(b, &e, &i);
			}
		}
	}
}

static bool is_prefix_opcode(unsigned op, enum diff_mode mode)
{
	if (mode == DIFF_64 && (op == 0xc4 || op == 0xc5 || op == 0x62 || (op & 0xf0) == 0x40))
		return true;
	return op == 0x0f || op == 0x26 || op == 0x2e || op == 0x36 || op == 0x3e || op == 0x64 ||
	       op == 0x65 || op == 0x66 || op == 0x67 || op == 0xf0 || op == 0xf2 || op == 0xf3;
}

static void scan(struct builder *b)
{
	static const uint8_t prefixes[] = { 0, 0x66, 0xf2, 0xf3 };

	for (unsigned vex = 0; vex < 2; vex++) {
		for (unsigned map = vex; map < 4; map++) {
			for (unsigned op = 0; op < 256; op++) {
				if (!vex && !map && is_prefix_opcode(op, b->mode))
					continue;
				for (unsigned v = 0; v < 16; v++) {
					struct encoding e = { .vex = (uint8_t)vex,
							      .map = (uint8_t)map,
							      .opcode = (uint8_t)op,
							      .prefix = prefixes[v & 3],
							      .w = (v >> 2) & 1,
							      .l = (uint8_t)(v >> 3) };
					if ((e.l && !vex) || (e.w && !vex && b->mode == DIFF_32))
						continue;
					if (!vex && map == 0 && (op == 0xc4 || op == 0xc5) && e.w)
						continue;
					scan_opcode(b, e);
				}
			}
		}
	}
}

static int by_mnemonic(const void *a, const void *b)
{
	const struct encoding *x = a, *y = b;

	return x->mnemonic != y->mnemonic ? x->mnemonic - y->mnemonic : memcmp(x, y, sizeof(*x));
}

struct catalogue *catalogue_create(const struct host *h, enum diff_mode mode)
{
	struct builder *b = calloc(1, sizeof(*b));
	struct catalogue *c = calloc(1, sizeof(*c));

	CHECK(b && c);
	b->host = h;
	b->mode = mode;
	b->out = c;
	ZydisDecoderInit(&b->decoder,
			 mode == DIFF_64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 mode == DIFF_64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	scan(b);
	qsort(c->encodings, c->count, sizeof(*c->encodings), by_mnemonic);
	for (unsigned i = 0; i < c->count; i++)
		c->nmnemonics += !i || c->encodings[i].mnemonic != c->encodings[i - 1].mnemonic;
	c->mnemonics = calloc(c->nmnemonics, sizeof(*c->mnemonics));
	CHECK(c->mnemonics);
	for (unsigned i = 0, n = 0; n < c->nmnemonics; n++) {
		uint16_t m = c->encodings[i].mnemonic;

		c->mnemonics[n].mnemonic = m;
		c->mnemonics[n].first = i;
		c->mnemonics[n].count = b->per_mnemonic[m];
		c->mnemonics[n].weight = b->weight[m];
		c->total_weight += b->weight[m];
		i += b->per_mnemonic[m];
	}
	free(b);
	return c;
}

void catalogue_destroy(struct catalogue *c)
{
	if (!c)
		return;
	free(c->encodings);
	free(c->mnemonics);
	free(c);
}
