// SPDX-License-Identifier: Apache-2.0
/*
 * The generator: sequences of instructions picked by mnemonic with weights. It follows what
 * the registers hold (so that memory operands hit the arena) and which flags are undefined (so that no
 * instruction makes use of a value that processors may choose freely).
 */
#include <string.h>
#include "gen.h"

static const ZydisMnemonic approximate[] = {
	ZYDIS_MNEMONIC_RCPPS, ZYDIS_MNEMONIC_RCPSS, ZYDIS_MNEMONIC_RSQRTPS, ZYDIS_MNEMONIC_RSQRTSS,
	ZYDIS_MNEMONIC_VRCPPS, ZYDIS_MNEMONIC_VRCPSS, ZYDIS_MNEMONIC_VRSQRTPS,
	ZYDIS_MNEMONIC_VRSQRTSS, ZYDIS_MNEMONIC_FSIN, ZYDIS_MNEMONIC_FCOS, ZYDIS_MNEMONIC_FSINCOS,
	ZYDIS_MNEMONIC_FPTAN, ZYDIS_MNEMONIC_FPATAN, ZYDIS_MNEMONIC_F2XM1, ZYDIS_MNEMONIC_FYL2X,
	ZYDIS_MNEMONIC_FYL2XP1,
};

static bool is_approximate(ZydisMnemonic m)
{
	for (unsigned i = 0; i < ARRAY_LEN(approximate); i++)
		if (approximate[i] == m)
			return true;
	return false;
}

/* x87 images in memory hold instruction and data pointers, which processors keep differently. */
static bool saves_x87_pointers(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_FXSAVE || m == ZYDIS_MNEMONIC_FXSAVE64 || m == ZYDIS_MNEMONIC_FNSAVE ||
	       m == ZYDIS_MNEMONIC_FNSTENV;
}

static void ignore(struct diff_case *c, uint64_t at, uint32_t len)
{
	if (c->nignore < MAX_IGNORE) {
		c->ignore[c->nignore].at = (uint32_t)at;
		c->ignore[c->nignore++].len = len;
	}
}

static void ignore_x87_pointers(struct diff_case *c, const ZydisDecodedInstruction *i, uint64_t at)
{
	if (i->mnemonic == ZYDIS_MNEMONIC_FXSAVE || i->mnemonic == ZYDIS_MNEMONIC_FXSAVE64) {
		ignore(c, at + 6, 18);
		ignore(c, at + 28, 4); /* MXCSR_MASK */
		ignore(c, at + 464, 48);
	} else if (i->operand_width == 16 && !i->raw.rex.W) {
		ignore(c, at + 6, 8);
	} else {
		ignore(c, at + 12, 16);
	}
}

/* Forms in which processors differ from each other, or whose result the manuals leave open. */
static bool is_vendor_dependent(const struct gen *g, const ZydisDecodedInstruction *i, const struct bytes *b)
{
	bool near_branch = i->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR ||
			   i->meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT;

	if (i->raw.imm[0].is_relative)
		return true; /* not that, but gen-flow.c makes those */
	if (gen_64(g) && near_branch && (i->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE))
		return true; /* 16-bit on AMD, ignored on Intel */
	/* VEX.W1 outside 64-bit mode: ignored or #UD */
	if (!gen_64(g) && i->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && i->raw.vex.W &&
	    i->meta.isa_ext == ZYDIS_ISA_EXT_AVX)
		return true;
	/* AMD does not ask for aligned operands */
	if (i->meta.isa_ext == ZYDIS_ISA_EXT_SHA && i->raw.modrm.mod != 3 && (!b->exact || b->target & 15))
		return true;
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_PAUSE: /* with REX.B it is XCHG r8, rAX, which libzydis does not know */
		return i->raw.rex.B;
	case ZYDIS_MNEMONIC_ENTER: /* RBP is written whole by Intel's */
		return gen_64(g) && i->operand_width == 16;
	case ZYDIS_MNEMONIC_BSWAP:
		return i->operand_width == 16;
	case ZYDIS_MNEMONIC_MOVSXD:
		return i->operand_width == 16;
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
		return i->operand_width == 64;
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
		return i->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && i->operand_width == 64;
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return i->operand_width == 16 && (!i->raw.imm[0].size || (i->raw.imm[0].value.u & 31) > 16);
	case ZYDIS_MNEMONIC_INT:
		return i->raw.imm[0].value.u == 0x80;
	default:
		return false;
	}
}

static uint16_t joined_undefined(const struct gen *g)
{
	uint16_t u = g->undefined;

	for (unsigned k = 0; k < g->nfixups; k++)
		if (g->fixup[k].target == g->c->ninsns)
			u |= g->fixup[k].undefined;
	return u;
}

static int gpr_number(ZydisRegister reg)
{
	ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

	return full >= ZYDIS_REGISTER_RAX && full <= ZYDIS_REGISTER_R15 ? full - ZYDIS_REGISTER_RAX : -1;
}

/* What is known of the registers after the instruction. False: it writes one that must be kept. */
static bool follow_registers(struct gen *g, const ZydisDecodedInstruction *i,
			     const ZydisDecodedOperand *ops, bool commit)
{
	for (unsigned k = 0; k < i->operand_count; k++) {
		const ZydisDecodedOperand *o = &ops[k];
		int reg;

		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		reg = gpr_number(o->reg.value);
		if (reg < 0)
			continue;
		if (g->keep & (1u << reg))
			return false;
		if (!commit)
			continue;
		if (reg == 4 && o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
		    i->mnemonic != ZYDIS_MNEMONIC_LEAVE)
			continue; /* it stays near */
		g->known[reg] = false;
		if (reg == 4)
			g->refill_sp = true;
	}
	if (i->meta.category == ZYDIS_CATEGORY_STRINGOP || i->meta.category == ZYDIS_CATEGORY_IOSTRINGOP) {
		if (g->keep & 0xc2) /* rcx, rsi, rdi, which not every list of operands names */
			return false;
		if (commit)
			g->known[1] = g->known[6] = g->known[7] = false;
	}
	return true;
}

static bool append(struct gen *g, const uint8_t *b, unsigned n, uint16_t mnemonic)
{
	struct diff_case *c = g->c;

	if (c->ninsns == MAX_INSNS || c->code_len + n > CODE_MAX)
		return false;
	c->insn[c->ninsns] = (struct diff_insn){ .at = c->code_len, .len = (uint16_t)n,
						 .mnemonic = mnemonic, .undefined = joined_undefined(g) };
	g->undefined = c->insn[c->ninsns].undefined;
	c->undefined_any |= g->undefined;
	memcpy(c->code + c->code_len, b, n);
	c->code_len = (uint16_t)(c->code_len + n);
	c->ninsns++;
	return true;
}

bool gen_raw(struct gen *g, const uint8_t *b, unsigned n)
{
	ZydisDecodedInstruction i;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, b, n, &i, ops)))
		return append(g, b, n, 0);
	if (!append(g, b, n, (uint16_t)i.mnemonic))
		return false;
	follow_registers(g, &i, ops, true);
	g->undefined = undefined_after(&i, g->undefined);
	g->c->undefined_any |= g->undefined;
	return true;
}

bool gen_load(struct gen *g, unsigned reg, uint64_t value)
{
	uint8_t b[16];
	unsigned n = 0;

	if (value == (uint32_t)value) {
		if (reg >= 8)
			b[n++] = 0x41;
		b[n++] = (uint8_t)(0xb8 | (reg & 7));
		memcpy(b + n, &value, 4);
		n += 4;
	} else if (gen_64(g)) {
		b[n++] = (uint8_t)(0x48 | reg >> 3);
		b[n++] = (uint8_t)(0xb8 | (reg & 7));
		memcpy(b + n, &value, 8);
		n += 8;
	} else {
		return false;
	}
	if ((g->keep & (1u << reg)) || !gen_raw(g, b, n))
		return false;
	g->known[reg] = true;
	g->value[reg] = value;
	if (reg == 4)
		g->refill_sp = false;
	return true;
}

/* cmp of two registers: after it no flag is undefined. */
static bool define_flags(struct gen *g)
{
	uint8_t b[2] = { 0x39, (uint8_t)(0xc0 | rng_below(&g->r, 64)) };

	return gen_raw(g, b, 2);
}

/* Registers that instructions use without naming them get useful contents most of the time. */
static bool prepare(struct gen *g, const ZydisDecodedInstruction *i)
{
	unsigned width = i->operand_width / 8;

	if (g->refill_sp && rng_below(&g->r, 10) &&
	    !gen_load(g, 4, ARENA_STACK + PAGE + rng_below(&g->r, 64) * 8 - 256))
		return false;
	if (i->meta.category == ZYDIS_CATEGORY_STRINGOP || i->meta.category == ZYDIS_CATEGORY_IOSTRINGOP) {
		if (rng_below(&g->r, 8) == 0)
			return true;
		if (!gen_load(g, 6, gen_target(g)) || !gen_load(g, 7, gen_target(g)))
			return false;
		if (rng_below(&g->r, 16) &&
		    !gen_load(g, 1, rng_below(&g->r, 12) ? rng_below(&g->r, 70) : rng_below(&g->r, 3000)))
			return false;
		return true;
	}
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_XLAT:
		return gen_load(g, 3, gen_target(g));
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		return gen_load(g, 7, gen_target(g));
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		if (rng_below(&g->r, 4) == 0)
			return true;
		if (width == 1)
			return gen_load(g, 0, rng_below(&g->r, 600));
		if (rng_below(&g->r, 2))
			return gen_load(g, 2, rng_below(&g->r, 3)) && gen_load(g, 0, random_integer(&g->r) & 0x7fffffff);
		return gen_load(g, 2, 0);
	case ZYDIS_MNEMONIC_LEAVE:
		return rng_below(&g->r, 8) == 0 || gen_load(g, 5, ARENA_STACK + rng_below(&g->r, 1000) * 8);
	default:
		return true;
	}
}

/*
 * Check an instruction and append it, after whatever must come before it. b->b may be longer than the
 * instruction.
 */
bool gen_emit(struct gen *g, const struct bytes *b)
{
	ZydisDecodedInstruction i;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct diff_case *c = g->c;
	uint16_t tested, length = c->code_len;
	bool approx;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, b->b, 15, &i, ops)))
		return false;
	if (is_vendor_dependent(g, &i, b) || !follow_registers(g, &i, ops, false))
		return false;
	approx = is_approximate(i.mnemonic) || saves_x87_pointers(i.mnemonic);
	if (approx && (g->keep || g->nfixups))
		return false;
	if (saves_x87_pointers(i.mnemonic) && (!b->exact || c->nignore))
		return false;
	if ((b->exact || !(i.attributes & ZYDIS_ATTRIB_HAS_MODRM)) && !prepare(g, &i) && !g->keep)
		return false;
	if (!follow_registers(g, &i, ops, false))
		return false;
	tested = undefined_tested(&i);
	for (unsigned tries = 0; tested & joined_undefined(g); tries++)
		if (tries == 3 || !define_flags(g))
			return false;
	/* what prepare() wrote has moved a RIP-relative operand; few must lie exactly */
	if ((saves_x87_pointers(i.mnemonic) || i.meta.isa_ext == ZYDIS_ISA_EXT_SHA) && c->code_len != length)
		return false;
	if (!append(g, b->b, i.length, (uint16_t)i.mnemonic))
		return false;
	follow_registers(g, &i, ops, true);
	g->undefined = undefined_after(&i, g->undefined);
	c->undefined_any |= g->undefined;
	if (saves_x87_pointers(i.mnemonic))
		ignore_x87_pointers(c, &i, b->target);
	if (is_approximate(i.mnemonic))
		c->approx = true;
	g->ended |= approx;
	return true;
}

static bool is_relative_branch(const struct encoding *e)
{
	if (e->vex)
		return false;
	if (e->map == 0)
		return (e->opcode & 0xf0) == 0x70 || (e->opcode >= 0xe0 && e->opcode <= 0xe3) ||
		       e->opcode == 0xe8 || e->opcode == 0xe9 || e->opcode == 0xeb;
	return e->map == 1 && (e->opcode & 0xf0) == 0x80;
}

/* By weight, or of one mnemonic. */
const struct encoding *gen_pick(struct gen *g, uint16_t mnemonic)
{
	const struct catalogue *c = g->g->catalogue[g->c->mode];
	unsigned w = rng_below(&g->r, c->total_weight), k = 0;

	if (mnemonic) {
		while (k < c->nmnemonics && c->mnemonics[k].mnemonic != mnemonic)
			k++;
		if (k == c->nmnemonics)
			return NULL;
	} else {
		while (w >= c->mnemonics[k].weight)
			w -= c->mnemonics[k++].weight;
	}
	return &c->encodings[c->mnemonics[k].first + rng_below(&g->r, c->mnemonics[k].count)];
}

static bool generic(struct gen *g, uint16_t mnemonic)
{
	for (unsigned tries = 0; tries < 40; tries++) {
		const struct encoding *e = gen_pick(g, mnemonic);
		struct bytes b;

		if (!e)
			return false;
		if (is_relative_branch(e)) {
			if (gen_branch(g))
				return true;
			continue;
		}
		/* indirect near jumps, calls and returns lead astray; gen_indirect makes useful ones */
		if (!mnemonic && !e->vex && !e->map &&
		    (e->opcode == 0xff ? e->reg >= 2 && e->reg <= 5 : e->opcode == 0xc2 || e->opcode == 0xc3) &&
		    rng_below(&g->r, 20)) {
			if (gen_indirect(g))
				return true;
			continue;
		}
		if (!gen_encode(g, e, &b)) {
			/* no register leads into the arena any more: give one back */
			if (rng_below(&g->r, 4) == 0)
				gen_load(g, (unsigned[]){ 0, 2, 3, 6, 7 }[rng_below(&g->r, 5)], gen_target(g));
			continue;
		}
		if (gen_emit(g, &b))
			return true;
	}
	return false;
}

/* Bytes that are no instruction: both sides must agree that they are not. */
static bool invalid(struct gen *g)
{
	uint8_t b[15];
	ZydisDecodedInstruction i;

	for (unsigned tries = 0; tries < 16; tries++) {
		uint64_t v[2] = { rng_next(&g->r), rng_next(&g->r) };

		memcpy(b, v, 15);
		if (rng_below(&g->r, 2))
			b[0] = 0x0f;
		if (b[0] == 0xc4 || b[0] == 0xc5 || b[0] == 0x62 || b[0] == 0x8f)
			continue;
		ZyanStatus s = ZydisDecoderDecodeInstruction(&g->decoder, NULL, b, 15, &i);

		if (ZYAN_SUCCESS(s) || s == ZYDIS_STATUS_NO_MORE_DATA)
			continue;
		g->ended = true;
		return append(g, b, 15, 0);
	}
	return false;
}

static void choose_place(struct gen *g)
{
	unsigned how = rng_below(&g->r, 100);

	if (how < 70)
		g->c->code_at = (uint16_t)rng_below(&g->r, PAGE - CODE_MAX);
	else if (how < 95)
		g->c->code_at = (uint16_t)(PAGE - rng_below(&g->r, 100));
	else
		g->c->code_at = (uint16_t)(CODE_PAGES * PAGE - 1 - rng_below(&g->r, 60));
}

static void start(struct gen *g, const struct generator *from, uint64_t seed, struct diff_case *c)
{
	memset(g, 0, sizeof(*g));
	memset(c, 0, sizeof(*c));
	g->g = from;
	g->r.state = seed;
	g->c = c;
	c->seed = seed;
	c->mode = from->only_mode >= 0 ? (uint8_t)from->only_mode :
		  from->host.compat && rng_permille(&g->r, 200) ? DIFF_32 : DIFF_64;
	c->image = (uint8_t)rng_below(&g->r, IMAGES);
	random_regs(&g->r, c->mode, &c->in);
	ZydisDecoderInit(&g->decoder,
			 c->mode == DIFF_64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 c->mode == DIFF_64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	memcpy(g->value, c->in.gpr, sizeof(g->value));
	memset(g->known, 1, sizeof(g->known));
	choose_place(g);
	c->in.rip = gen_here(g);
}

void generate_case(const struct generator *from, uint64_t seed, struct diff_case *c)
{
	struct gen g;
	unsigned want, how, only_at;

	start(&g, from, seed, c);
	how = rng_below(&g.r, 10);
	want = how < 3 ? 1 : how < 8 ? 2 + rng_below(&g.r, 8) : 8 + rng_below(&g.r, 18);
	only_at = rng_below(&g.r, want);
	if (c->in.rflags & 0x100)
		want = 1; /* single step ends it anyway */
	for (unsigned k = 0; k < want && !g.ended; k++) {
		how = rng_below(&g.r, 1000);
		if (from->only && k == only_at % want)
			generic(&g, from->only);
		else if (from->attack && how < 250)
			gen_attack(&g);
		else if (how < 60)
			gen_branch(&g);
		else if (how < 80)
			gen_loop(&g);
		else if (how < 110)
			gen_indirect(&g);
		else if (how < 113)
			invalid(&g);
		else
			generic(&g, 0);
		gen_resolve(&g, false);
	}
	gen_resolve(&g, true);
	c->undefined_end = g.undefined;
	c->undefined_any |= g.undefined;
	if (c->code_at + c->code_len > CODE_PAGES * PAGE)
		c->code_len = (uint16_t)(CODE_PAGES * PAGE - c->code_at);
}
