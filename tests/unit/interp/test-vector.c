/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of insn-x87.def and insn-vector.def against the host CPU: all encodings of the 0F, 0F38 and 0F3A maps
 * with each mandatory prefix, REX.W, VEX.L and VEX.W, and all of D8..DF are decoded; those that give one of our
 * rows are executed natively and by the handler with the same registers and memory, and everything is
 * compared: registers, flags, MXCSR, x87 environment, memory, and which fault. Operands are random with a taste
 * for special values, so are rounding, masks, x87 stack contents, alignment and nearness to an unmapped page.
 *
 *	test-vector [rounds [seed [mnemonic]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "engine/interp/simd.h"
#include "engine/interp/x87.h"
#include "engine/interp/xsave.h"
#include "native.h"
#include "x86/cpuid.h"

#define PAGE 4096u
#define MAX_REPORTS 40u

static const struct {
	const char *name;
	insn_fn fn;
} rows[OP_COUNT] = {
#define I(mnemonic, class, handler) [OP_##mnemonic] = { #mnemonic, handler },
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I
};

struct test {
	struct native *native;
	struct cpu *cpu;
	struct machine machine;
	struct cpuid_model model;
	uint8_t *memory; /* a page, and one that is not mapped behind it */
	uint8_t before[PAGE], after[PAGE];
	uint64_t seed;
	unsigned rounds, runs, failures, lacking;
	unsigned seen[OP_COUNT], bad[OP_COUNT];
	const char *only;
};

/* ---- the memory the handlers see: one page, identity-mapped; weak, so that the real ones may be linked too ---- */

static struct test *current;

static int page_fault(struct cpu *c, gva_t at, unsigned size)
{
	uint64_t page = (uint64_t)current->memory;

	return at - page <= PAGE - size ? CPU_OK : cpu_raise_error(c, VEC_PF, 0);
}

/* ---- random states ---- */

static uint64_t rnd(struct test *t)
{
	t->seed ^= t->seed << 13;
	t->seed ^= t->seed >> 7;
	t->seed ^= t->seed << 17;
	return t->seed;
}

static unsigned pick(struct test *t, unsigned n)
{
	return (unsigned)(rnd(t) >> 33) % n;
}

static const uint64_t special64[] = {
	0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
	0x7ff8000000000001, 0xfff8000000000000, 0x7ff0000000000001, 0xfff4000000000003, 1, 0x000fffffffffffff,
	0x0010000000000000, 0x8000000000000001, 0x7fefffffffffffff, 0x3fe0000000000000, 0x4000000000000000,
	0x41dfffffffc00000, 0xc1e0000000000000, 0x41e0000000000000, 0x43e0000000000000, 0xc3e0000000000000,
	0x36a0000000000000, 0x3810000000000000, 0x380fffffffffffff, 0x47efffffe0000000, 0x47f0000000000000,
	0x3ff8000000000000, 0x4004000000000000, 0x3fe0000000000001, 0x0000000000000003, 0x001fffffffffffff,
};
static const uint32_t special32[] = {
	0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00001, 0xffc00000, 0x7f800001,
	0xffa00003, 1, 0x007fffff, 0x00800000, 0x80000001, 0x7f7fffff, 0x3f000000, 0x40000000, 0x4effffff,
	0x4f000000, 0xcf000000, 0x5f000000, 0xdf000000, 0x33000000, 0x33800000, 0x387fc000, 0x38800000, 0x387fe000,
	0x477fe000, 0x477ff000, 0x47800000, 0x3fc00000, 0x40200000, 0x3effffff, 0x3f000001, 3, 0x00ffffff,
};

static void fill(struct test *t, uint8_t *to, unsigned size)
{
	unsigned style = pick(t, 8);

	for (unsigned k = 0; k < size; k += 8) {
		uint64_t v = rnd(t);
		uint32_t h[2];

		for (unsigned j = 0; j < 2; j++) {
			h[j] = special32[pick(t, ARRAY_LEN(special32))];
			if (!pick(t, 3)) /* near each other, for sums that cancel and rounding */
				h[j] = 0x3f800000 + (uint32_t)(rnd(t) & 0x83ffffff);
		}
		switch (style) {
		case 0: /* bits */
			break;
		case 1:
		case 2:
			v = special64[pick(t, ARRAY_LEN(special64))];
			if (!pick(t, 3))
				v = 0x3ff0000000000000 + (rnd(t) & 0x807fffffffffffff);
			break;
		case 3:
		case 4:
			memcpy(&v, h, 8);
			break;
		case 5: /* small bytes, words: text */
			v &= 0x0303030303030303;
			break;
		case 6: /* saturated, and signs */
			for (unsigned j = 0; j < 64; j += 8)
				v = (v & ~(0xffull << j)) | (uint64_t)((const uint8_t[]){ 0, 0x7f, 0x80, 0xff }[pick(t, 4)]) << j;
			break;
		default: /* few distinct values, and small counts */
			v = pick(t, 2) ? v & 0x3f : (v & 1) * ~0ull;
			break;
		}
		memcpy(to + k, &v, MIN(8u, size - k));
	}
}

static void fill_x87(struct test *t, uint8_t *image)
{
	unsigned masks = pick(t, 4) ? 0x3f : pick(t, 64), sw = pick(t, 8) << 11 | (pick(t, 16) << 8 & 0x4700);

	if (!pick(t, 4))
		sw |= pick(t, 128);
	if (pick(t, 8))
		sw &= masks | ~0x3fu; /* nothing pending */
	if (sw & ~masks & 0x3f)
		sw |= 0x8080;
	*(uint16_t *)image = (uint16_t)(0x40 | masks | pick(t, 16) << 8);
	*(uint16_t *)(image + 2) = (uint16_t)sw;
	image[4] = pick(t, 3) ? 0xff : pick(t, 2) ? 0 : (uint8_t)rnd(t);
	if (pick(t, 2) && image[4] == 0xff) /* room for a push */
		image[4] &= (uint8_t)~(1u << (((sw >> 11) - 1) & 7));
	for (unsigned k = 0; k < 8; k++) {
		uint8_t *r = image + 32 + 16 * k;
		long double v;
		uint64_t bits = special64[pick(t, ARRAY_LEN(special64))];
		double d;

		memcpy(&d, &bits, 8);
		switch (pick(t, 6)) {
		case 0:
			v = d;
			break;
		case 1:
			v = (long double)(int64_t)rnd(t);
			break;
		case 2:
			v = (long double)(int32_t)rnd(t) / 65536;
			break;
		case 3:
			v = (long double)(int32_t)rnd(t) / (1ull << 40);
			break;
		default: /* any bits: unnormal, pseudo-denormal, NaN */
			bits = rnd(t);
			if (!pick(t, 2))
				bits = special64[pick(t, ARRAY_LEN(special64))] << pick(t, 12);
			memcpy(&v, &bits, 8);
			bits = pick(t, 2) ? 0x3fff - 70 + pick(t, 140) : (const unsigned[]){ 0, 1, 0x7fff, 0x7ffe, 0x3fff }[pick(t, 5)];
			bits |= pick(t, 2) << 15;
			memcpy((uint8_t *)&v + 8, &bits, 2);
			break;
		}
		memcpy(r, &v, 10);
	}
}

static void random_state(struct test *t, struct native_state *s)
{
	uint32_t masks = pick(t, 5) ? 0x1f80 : pick(t, 64) << 7;
	uint32_t mxcsr = masks | pick(t, 4) << 13 | (pick(t, 4) ? 0 : 0x8000) | (pick(t, 4) ? 0 : 0x40);
	const uint64_t all = 7;

	memset(s, 0, sizeof(*s));
	fill_x87(t, s->xsave);
	if (!pick(t, 3))
		mxcsr |= pick(t, 64);
	memcpy(s->xsave + 24, &mxcsr, 4);
	for (unsigned k = 0; k < 16; k++) {
		fill(t, s->xsave + 160 + 16 * k, 16);
		fill(t, s->xsave + 576 + 16 * k, 16);
		fill(t, (uint8_t *)&s->gpr[k], 8);
	}
	memcpy(s->xsave + 512, &all, 8);
	s->rflags = 0x202 | (rnd(t) & FLAGS_ARITH);
	fill(t, t->memory, PAGE - 64);
	fill(t, t->memory + PAGE - 64, 64);
}

/* Address of the memory operand: aligned, anyhow, at the end of the page, over the end. */
static uint64_t random_address(struct test *t, unsigned size)
{
	uint64_t page = (uint64_t)t->memory;

	switch (pick(t, 8)) {
	case 0:
		return page + pick(t, 2048);
	case 1:
		return page + PAGE - (size ? size : 64);
	case 2:
		return page + PAGE - pick(t, 64);
	default:
		return page + 64 * pick(t, 32);
	}
}

/* ---- both sides ---- */

static void load_cpu(struct cpu *c, const struct native_state *s)
{
	xsave_x87_unpack(&c->s.fpu, s->xsave, true);
	memcpy(&c->s.mxcsr, s->xsave + 24, 4);
	memset(c->s.v, 0, sizeof(c->s.v));
	for (unsigned k = 0; k < 16; k++) {
		memcpy(&c->s.v[k].b[0], s->xsave + 160 + 16 * k, 16);
		memcpy(&c->s.v[k].b[16], s->xsave + 576 + 16 * k, 16);
	}
	memcpy(c->s.gpr, s->gpr, sizeof(s->gpr));
	c->s.rflags = s->rflags;
}

static void store_cpu(const struct cpu *c, struct native_state *s)
{
	memset(s, 0, sizeof(*s));
	xsave_x87_pack(&c->s.fpu, s->xsave, true);
	memcpy(s->xsave + 24, &c->s.mxcsr, 4);
	for (unsigned k = 0; k < 16; k++) {
		memcpy(s->xsave + 160 + 16 * k, &c->s.v[k].b[0], 16);
		memcpy(s->xsave + 576 + 16 * k, &c->s.v[k].b[16], 16);
	}
	memcpy(s->gpr, c->s.gpr, sizeof(s->gpr));
	s->rflags = c->s.rflags;
}

static enum native_result result_of(const struct cpu *c)
{
	switch (c->fault.vector) {
	case VEC_UD:
		return NATIVE_ILLEGAL;
	case VEC_XM:
	case VEC_MF:
		return NATIVE_ARITHMETIC;
	case VEC_AC:
		return NATIVE_ALIGNMENT;
	default:
		return NATIVE_MEMORY;
	}
}

static void hex(const char *what, const uint8_t *p, unsigned n)
{
	printf("    %s ", what);
	for (unsigned k = n; k-- > 0;)
		printf("%02x", p[k]);
	printf("\n");
}

/* One difference: report it, and return true. */
static bool differs(const char *what, unsigned index, const uint8_t *in, const uint8_t *want, const uint8_t *got,
		    unsigned n, bool quiet)
{
	if (!memcmp(want, got, n))
		return false;
	if (!quiet) {
		printf("  %s%u\n", what, index);
		hex("before", in, n);
		hex("host  ", want, n);
		hex("ours  ", got, n);
	}
	return true;
}

static bool compare(struct test *t, const struct insn *i, const struct native_state *in,
		    const struct native_state *want, struct native_state *got, bool faulted, bool quiet)
{
	bool bad = false;

	/*
	 * With an unmasked overflow or underflow, PE tells whether the result would have been inexact had
	 * the exponent no bounds; we say it for the bounded one. Nothing can depend on it.
	 */
	if (faulted && want->xsave[24] & 0x18)
		got->xsave[24] = (got->xsave[24] & ~0x20) | (want->xsave[24] & 0x20);
	bad |= differs("MXCSR", 0, in->xsave + 24, want->xsave + 24, got->xsave + 24, 4, quiet);
	bad |= differs("FSW", 0, in->xsave + 2, want->xsave + 2, got->xsave + 2, 2, quiet);
	if (faulted)
		return bad;
	bad |= differs("FCW", 0, in->xsave, want->xsave, got->xsave, 2, quiet);
	bad |= differs("FTW", 0, in->xsave + 4, want->xsave + 4, got->xsave + 4, 1, quiet);
	bad |= differs("RFLAGS", 0, (uint8_t *)&in->rflags, (uint8_t *)&want->rflags, (uint8_t *)&got->rflags, 8, quiet);
	for (unsigned k = 0; k < 16; k++) {
		if (k != RSP)
			bad |= differs("GPR", k, (uint8_t *)&in->gpr[k], (uint8_t *)&want->gpr[k], (uint8_t *)&got->gpr[k],
				       8, quiet);
		bad |= differs("XMM", k, in->xsave + 160 + 16 * k, want->xsave + 160 + 16 * k, got->xsave + 160 + 16 * k,
			       16, quiet);
		bad |= differs("YMMH", k, in->xsave + 576 + 16 * k, want->xsave + 576 + 16 * k,
			       got->xsave + 576 + 16 * k, 16, quiet);
		if (k < 8)
			bad |= differs("ST", k, in->xsave + 32 + 16 * k, want->xsave + 32 + 16 * k,
				       got->xsave + 32 + 16 * k, 10, quiet);
	}
	for (unsigned k = 0; k < PAGE; k += 16)
		bad |= differs("memory+", k, t->before + k, t->after + k, t->memory + k, 16, quiet);
	return bad;
}

static bool run(struct test *t, const struct insn *i, bool quiet)
{
	static struct native_state in, want, got;
	struct cpu *c = t->cpu;
	bool bad;
	enum native_result sig;
	int r;

	in = want; /* keep the compiler from thinking them constant */
	random_state(t, &in);
	in.gpr[RSI] = random_address(t, i->memsize);
	in.gpr[RDI] = (uint64_t)t->memory + pick(t, PAGE - 16); /* MASKMOV: bytes not written may fault or not */
	if (i->flags & INSN_VSIB) { /* indices small enough to stay about the page */
		in.gpr[RSI] = (uint64_t)t->memory + 1024 * (1 + pick(t, 3));
		for (unsigned k = 0; k < 4; k++)
			((uint32_t *)(in.xsave + 160 + 16 * (i->index & 15)))[k] = (rnd(t) & 0x7f) - 64;
		if (i->op == OP_VPGATHERQD || i->op == OP_VPGATHERQQ || i->op == OP_VGATHERQPS || i->op == OP_VGATHERQPD) {
			for (unsigned k = 0; k < 2; k++) {
				((int64_t *)(in.xsave + 160 + 16 * (i->index & 15)))[k] = (int64_t)(rnd(t) & 0x7f) - 64;
				((int64_t *)(in.xsave + 576 + 16 * (i->index & 15)))[k] = (int64_t)(rnd(t) & 0x7f) - 64;
			}
		} else {
			for (unsigned k = 0; k < 4; k++)
				((uint32_t *)(in.xsave + 576 + 16 * (i->index & 15)))[k] = (rnd(t) & 0x7f) - 64;
		}
	}
	if (!strcmp(rows[i->op].name + (i->flags & INSN_VEX ? 1 : 0), "LDMXCSR") && in.gpr[RSI] % PAGE < PAGE - 4)
		((uint8_t *)in.gpr[RSI])[2] &= (uint8_t)~2; /* AMD's misaligned mode exists there, not here */
	memcpy(t->before, t->memory, PAGE);
	sig = native_run(t->native, i->bytes, i->len, &in, &want);
	memcpy(t->after, t->memory, PAGE);
	memcpy(t->memory, t->before, PAGE);

	load_cpu(c, &in);
	c->s.rip = native_rip(t->native) + i->len;
	r = rows[i->op].fn(c, i);
	store_cpu(c, &got);
	t->runs++;
	if (sig == NATIVE_ILLEGAL && r == CPU_OK) {
		t->lacking++;
		return true;
	}
	bad = (r == CPU_FAULT ? result_of(c) : NATIVE_DONE) != sig;
	if (bad && !quiet)
		printf("  host fault %d, ours %d vector %u\n", sig, r, r ? c->fault.vector : 0);
	if (!bad)
		bad = compare(t, i, &in, &want, &got, sig != 0, quiet);
	if (bad && !quiet) {
		char text[128];

		insn_format(i, c->s.rip - i->len, text, sizeof(text));
		printf("^ %s  mxcsr %08x fcw %04x fsw %04x ftw %02x rsi %lx rdi %lx\n", text, *(uint32_t *)(in.xsave + 24),
		       *(uint16_t *)in.xsave, *(uint16_t *)(in.xsave + 2), in.xsave[4], in.gpr[RSI] & 4095, in.gpr[RDI] & 4095);
	}
	return !bad;
}

/* Rows that test-xsave.c covers: they need images that make sense. */
static bool elsewhere(unsigned op)
{
	return !strncmp(rows[op].name, "XSAVE", 5) || !strncmp(rows[op].name, "XRSTOR", 6) ||
	       !strncmp(rows[op].name, "FXSAVE", 6) || !strncmp(rows[op].name, "FXRSTOR", 7);
}

static void try(struct test *t, const uint8_t *bytes)
{
	struct insn i;
	bool good = true;

	if (insn_decode(&i, bytes, 15, MODE_64) != INSN_OK || !rows[i.op].fn || elsewhere(i.op))
		return;
	if (i.flags & INSN_MEM && (i.base != RSI || i.disp || (i.index != REG_NONE && !(i.flags & INSN_VSIB))))
		return; /* not the address meant: bytes that parse differently */
	if (i.flags & INSN_EVEX || (t->only && strcmp(t->only, rows[i.op].name)))
		return;
	t->seen[i.op]++;
	for (unsigned k = 0; good && k < t->rounds; k++) {
		good = run(t, &i, t->failures >= MAX_REPORTS || t->bad[i.op] > 1);
		if (!good) {
			t->failures++;
			t->bad[i.op]++;
		}
	}
}

/* ModRM and what follows: a register, [rsi], or [rsi + index * scale] for gathers. */
static void operands(struct test *t, uint8_t *b, unsigned at, unsigned reg, unsigned form)
{
	unsigned rm = pick(t, 7);

	for (unsigned k = at; k < 15; k++)
		b[k] = (uint8_t)rnd(t);
	if (form == 0)
		b[at] = (uint8_t)(0xc0 | reg << 3 | (rm + (rm >= RSP)));
	else if (form == 1)
		b[at] = (uint8_t)(reg << 3 | RSI);
	else {
		b[at] = (uint8_t)(reg << 3 | 4);
		b[at + 1] = (uint8_t)(pick(t, 4) << 6 | pick(t, 8) << 3 | RSI);
	}
}

static bool is_group(unsigned map, unsigned opcode)
{
	return map == 1 && ((opcode >= 0x71 && opcode <= 0x73) || opcode == 0xae || opcode == 0xc7 || opcode == 0x78);
}

static void try_legacy(struct test *t, unsigned map, unsigned opcode, unsigned pp, unsigned reg, unsigned form)
{
	static const uint8_t prefix[4] = { 0, 0x66, 0xf3, 0xf2 };
	uint8_t b[15];
	unsigned at = 0, rex = pick(t, 16);

	if (form)
		rex &= ~1u; /* RSI stays RSI */
	if (prefix[pp])
		b[at++] = prefix[pp];
	if (rex)
		b[at++] = (uint8_t)(0x40 | rex);
	b[at++] = 0x0f;
	if (map > 1)
		b[at++] = map == 2 ? 0x38 : 0x3a;
	b[at++] = (uint8_t)opcode;
	operands(t, b, at, reg, form);
	try(t, b);
}

static void try_vex(struct test *t, unsigned map, unsigned opcode, unsigned pp, unsigned reg, unsigned form)
{
	static const uint8_t order[4] = { 0, 1, 2, 3 };

	for (unsigned wl = 0; wl < 4; wl++) {
		unsigned vvvv = pick(t, 2) ? 0 : pick(t, 16);
		uint8_t b[15] = { 0xc4, (uint8_t)(0x40 | (pick(t, 2) << 7) | ((form ? 1 : pick(t, 2)) << 5) | map) };

		b[2] = (uint8_t)((wl >> 1) << 7 | (~vvvv & 15) << 3 | (wl & 1) << 2 | order[pp]);
		b[3] = (uint8_t)opcode;
		operands(t, b, 4, reg, form);
		if (map == 1 && opcode == 0x77)
			b[1] |= 0x80;
		try(t, b);
	}
}

static void try_x87(struct test *t)
{
	for (unsigned opcode = 0xd8; opcode <= 0xdf; opcode++) {
		for (unsigned modrm = 0; modrm < 256; modrm++) {
			uint8_t b[15] = { (uint8_t)opcode, (uint8_t)modrm };

			if (modrm >= 0xc0 || (modrm & 0xc7) == RSI) {
				for (unsigned k = 0; k < 8; k++)
					try(t, b);
			}
		}
	}
	try(t, (const uint8_t[15]){ 0x9b });
}

static void try_all(struct test *t)
{
	for (unsigned map = 1; map <= 3; map++) {
		for (unsigned n = 0; n < 256 * 4 * 8 * 3; n++) {
			unsigned opcode = n / 96, pp = n / 24 % 4, reg = n / 3 % 8, form = n % 3;

			if (reg == RSP && !is_group(map, opcode))
				continue; /* the host's stack pointer if it is a general register */
			for (unsigned k = is_group(map, opcode) ? 4 : 1; k-- > 0;) {
				try_legacy(t, map, opcode, pp, reg, form);
				try_vex(t, map, opcode, pp, reg, form);
			}
		}
	}
	try_x87(t);
}

/* ---- */

static void setup(struct test *t)
{
	struct cpu *c = t->cpu = calloc(1, sizeof(*c));
	struct tlb_table *table = malloc(sizeof(*table));
	uint64_t page;

	t->native = native_create();
	t->memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(t->memory + PAGE, PAGE, PROT_NONE);
	page = (uint64_t)t->memory;
	for (unsigned k = 0; k < TLB_ENTRIES; k++)
		table->read_tag[k] = table->write_tag[k] = TLB_NONE;
	table->read_tag[page >> 12 & (TLB_ENTRIES - 1)] = table->write_tag[page >> 12 & (TLB_ENTRIES - 1)] = page;
	table->addend[page >> 12 & (TLB_ENTRIES - 1)] = 0;
	c->tlb.data = table;
	c->machine = &t->machine;
	t->machine.cpuid = &t->model;
	t->model.has_avx = t->model.has_avx2 = t->model.has_fma = t->model.has_xsave = true;
	t->model.has_f16c = t->model.has_aes = t->model.has_vaes = t->model.has_pclmul = t->model.has_vpclmul = true;
	t->model.has_sha = t->model.has_gfni = t->model.has_sse4a = true;
	c->s.cr0 = CR0_PE | CR0_PG | CR0_NE;
	c->s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	c->s.xcr0 = 7;
	c->s.efer = EFER_LMA | EFER_LME;
	c->s.seg[SEG_CS].attr = SEG_ATTR_L;
}

int main(int argc, char **argv)
{
	struct test t = { .seed = 0x9e3779b97f4a7c15, .rounds = 4 };
	unsigned missing = 0;

	if (!__builtin_cpu_supports("avx"))
		return 77; /* the harness moves state by XSAVE with AVX */
	if (argc > 1)
		t.rounds = (unsigned)atoi(argv[1]);
	if (argc > 2)
		t.seed += strtoull(argv[2], NULL, 0) * 0xd1342543de82ef95;
	t.only = argc > 3 ? argv[3] : NULL;
	current = &t;
	setup(&t);
	try_all(&t);
	for (unsigned op = 0; op < OP_COUNT && !t.only; op++) {
		if (rows[op].name && !t.seen[op] && !elsewhere(op)) {
			printf("row %s was not reached\n", rows[op].name);
			missing++;
		}
	}
	for (unsigned op = 0; op < OP_COUNT; op++) {
		if (t.bad[op])
			printf("%-16s %u of %u encodings differ\n", rows[op].name, t.bad[op], t.seen[op]);
	}
	printf("%u runs, %u differ, %u not on this host, %u rows not reached\n", t.runs, t.failures, t.lacking, missing);
	native_destroy(t.native);
	return t.failures || missing ? 1 : 0;
}

/* Not there yet or not wanted here: what a miss in our one-page TLB leads to. */
__attribute__((weak)) int access_read_slow(struct cpu *c, gva_t at, void *buf, unsigned size, enum tlb_mode mode)
{
	return page_fault(c, at, size);
}
__attribute__((weak)) int access_write_slow(struct cpu *c, gva_t at, const void *buf, unsigned size,
					    enum tlb_mode mode)
{
	return page_fault(c, at, size);
}
__attribute__((weak)) int cpu_probe(struct cpu *c, gva_t at, unsigned size, enum tlb_access access)
{
	return page_fault(c, at, size);
}
__attribute__((weak)) int seg_linear(struct cpu *c, enum x86_seg seg, uint64_t offset, unsigned size, bool write,
				     gva_t *linear)
{
	*linear = offset;
	return CPU_OK;
}
