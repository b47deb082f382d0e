/* SPDX-License-Identifier: Apache-2.0 */
/* See sandbox.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "engine/interp/simd.h"
#include "engine/interp/xsave.h"
#include "sandbox.h"

static const struct {
	const char *name;
	insn_fn fn;
} rows[OP_COUNT] = {
#define I(mnemonic, class, handler) [OP_##mnemonic] = { #mnemonic, handler },
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I
};

insn_fn sandbox_handler(enum insn_op op)
{
	return rows[op].fn;
}

const char *sandbox_name(enum insn_op op)
{
	return rows[op].name;
}

uint64_t sandbox_random(struct sandbox *s)
{
	s->seed ^= s->seed << 13;
	s->seed ^= s->seed >> 7;
	s->seed ^= s->seed << 17;
	return s->seed;
}

unsigned sandbox_pick(struct sandbox *s, unsigned n)
{
	return (unsigned)(sandbox_random(s) >> 33) % n;
}

static const uint64_t special64[] = {
	0,
	0x8000000000000000,
	0x3ff0000000000000,
	0xbff0000000000000,
	0x7ff0000000000000,
	0xfff0000000000000,
	0x7ff8000000000001,
	0xfff8000000000000,
	0x7ff0000000000001,
	0xfff4000000000003,
	1,
	0x000fffffffffffff,
	0x0010000000000000,
	0x8000000000000001,
	0x7fefffffffffffff,
	0x3fe0000000000000,
	0x4000000000000000,
	0x41dfffffffc00000,
	0xc1e0000000000000,
	0x41e0000000000000,
	0x43e0000000000000,
	0xc3e0000000000000,
	0x36a0000000000000,
	0x3810000000000000,
	0x380fffffffffffff,
	0x47efffffe0000000,
	0x47f0000000000000,
	0x3ff8000000000000,
	0x4004000000000000,
	0x3fe0000000000001,
	0x0000000000000003,
	0x001fffffffffffff,
};
static const uint32_t special32[] = {
	0,	    0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
	0x7fc00001, 0xffc00000, 0x7f800001, 0xffa00003, 1,	    0x007fffff,
	0x00800000, 0x80000001, 0x7f7fffff, 0x3f000000, 0x40000000, 0x4effffff,
	0x4f000000, 0xcf000000, 0x5f000000, 0xdf000000, 0x33000000, 0x33800000,
	0x387fc000, 0x38800000, 0x387fe000, 0x477fe000, 0x477ff000, 0x47800000,
	0x3fc00000, 0x40200000, 0x3effffff, 0x3f000001, 3,	    0x00ffffff,
};

void sandbox_fill(struct sandbox *s, uint8_t *to, unsigned size)
{
	unsigned style = sandbox_pick(s, 8);

	for (unsigned k = 0; k < size; k += 8) {
		uint64_t v = sandbox_random(s);
		uint32_t h[2];

		for (unsigned j = 0; j < 2; j++) {
			h[j] = special32[sandbox_pick(s, ARRAY_LEN(special32))];
			if (!sandbox_pick(
				    s, 3)) /* near each other, for sums that cancel and rounding */
				h[j] = 0x3f800000 + (uint32_t)(sandbox_random(s) & 0x83ffffff);
		}
		switch (style) {
		case 0: /* bits */
			break;
		case 1:
		case 2:
			v = special64[sandbox_pick(s, ARRAY_LEN(special64))];
			if (!sandbox_pick(s, 3))
				v = 0x3ff0000000000000 + (sandbox_random(s) & 0x807fffffffffffff);
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
				v = (v & ~(0xffull << j)) |
				    (uint64_t)((const uint8_t[]){ 0, 0x7f, 0x80,
								  0xff }[sandbox_pick(s, 4)])
					    << j;
			break;
		default: /* few distinct values, and small counts */
			v = sandbox_pick(s, 2) ? v & 0x3f : (v & 1) * ~0ull;
			break;
		}
		memcpy(to + k, &v, MIN(8u, size - k));
	}
}

static void fill_x87(struct sandbox *s, uint8_t *image)
{
	unsigned masks = sandbox_pick(s, 4) ? 0x3f : sandbox_pick(s, 64),
		 sw = sandbox_pick(s, 8) << 11 | (sandbox_pick(s, 16) << 8 & 0x4700);

	if (!sandbox_pick(s, 4))
		sw |= sandbox_pick(s, 128);
	if (sandbox_pick(s, 8))
		sw &= masks | ~0x3fu; /* nothing pending */
	if (sw & ~masks & 0x3f)
		sw |= 0x8080;
	*(uint16_t *)image = (uint16_t)(0x40 | masks | sandbox_pick(s, 16) << 8);
	*(uint16_t *)(image + 2) = (uint16_t)sw;
	image[4] = sandbox_pick(s, 3) ? 0xff : sandbox_pick(s, 2) ? 0 : (uint8_t)sandbox_random(s);
	if (sandbox_pick(s, 2) && image[4] == 0xff) /* room for a push */
		image[4] &= (uint8_t) ~(1u << (((sw >> 11) - 1) & 7));
	for (unsigned k = 0; k < 8; k++) {
		uint8_t *r = image + 32 + 16 * k;
		long double v;
		uint64_t bits = special64[sandbox_pick(s, ARRAY_LEN(special64))];
		double d;

		memcpy(&d, &bits, 8);
		switch (sandbox_pick(s, 6)) {
		case 0:
			v = d;
			break;
		case 1:
			v = (long double)(int64_t)sandbox_random(s);
			break;
		case 2:
			v = (long double)(int32_t)sandbox_random(s) / 65536;
			break;
		case 3:
			v = (long double)(int32_t)sandbox_random(s) / (1ull << 40);
			break;
		default: /* any bits: unnormal, pseudo-denormal, NaN */
			bits = sandbox_random(s);
			if (!sandbox_pick(s, 2))
				bits = special64[sandbox_pick(s, ARRAY_LEN(special64))]
				       << sandbox_pick(s, 12);
			memcpy(&v, &bits, 8);
			bits = sandbox_pick(s, 2)
				       ? 0x3fff - 70 + sandbox_pick(s, 140)
				       : (const unsigned[]){ 0, 1, 0x7fff, 0x7ffe,
							     0x3fff }[sandbox_pick(s, 5)];
			bits |= sandbox_pick(s, 2) << 15;
			memcpy((uint8_t *)&v + 8, &bits, 2);
			break;
		}
		memcpy(r, &v, 10);
	}
}

void sandbox_randomize(struct sandbox *s, struct native_state *n)
{
	uint32_t masks = sandbox_pick(s, 5) ? 0x1f80 : sandbox_pick(s, 64) << 7;
	uint32_t mxcsr = masks | sandbox_pick(s, 4) << 13 | (sandbox_pick(s, 4) ? 0 : 0x8000) |
			 (sandbox_pick(s, 4) ? 0 : 0x40);
	const uint64_t all = 7;

	memset(n, 0, sizeof(*n));
	fill_x87(s, n->xsave);
	if (!sandbox_pick(s, 3))
		mxcsr |= sandbox_pick(s, 64);
	memcpy(n->xsave + 24, &mxcsr, 4);
	for (unsigned k = 0; k < 16; k++) {
		sandbox_fill(s, n->xsave + 160 + 16 * k, 16);
		sandbox_fill(s, n->xsave + 576 + 16 * k, 16);
		sandbox_fill(s, (uint8_t *)&n->gpr[k], 8);
	}
	memcpy(n->xsave + 512, &all, 8);
	n->rflags = 0x202 | (sandbox_random(s) & FLAGS_ARITH);
	sandbox_fill(s, s->memory, PAGE - 64);
	sandbox_fill(s, s->memory + PAGE - 64, 64);
}

void sandbox_load(struct sandbox *s, const struct native_state *n)
{
	struct cpu *c = s->cpu;

	xsave_x87_unpack(&c->s.fpu, n->xsave, true);
	memcpy(&c->s.mxcsr, n->xsave + 24, 4);
	memset(c->s.v, 0, sizeof(c->s.v));
	for (unsigned k = 0; k < 16; k++) {
		memcpy(&c->s.v[k].b[0], n->xsave + 160 + 16 * k, 16);
		memcpy(&c->s.v[k].b[16], n->xsave + 576 + 16 * k, 16);
	}
	memcpy(c->s.gpr, n->gpr, sizeof(n->gpr));
	c->s.rflags = n->rflags;
}

void sandbox_store(const struct sandbox *s, struct native_state *n)
{
	const struct cpu *c = s->cpu;

	memset(n, 0, sizeof(*n));
	xsave_x87_pack(&c->s.fpu, n->xsave, true);
	memcpy(n->xsave + 24, &c->s.mxcsr, 4);
	for (unsigned k = 0; k < 16; k++) {
		memcpy(n->xsave + 160 + 16 * k, &c->s.v[k].b[0], 16);
		memcpy(n->xsave + 576 + 16 * k, &c->s.v[k].b[16], 16);
	}
	memcpy(n->gpr, c->s.gpr, sizeof(n->gpr));
	n->rflags = c->s.rflags;
}

enum native_result sandbox_fault(const struct sandbox *s)
{
	switch (s->cpu->fault.vector) {
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

bool sandbox_create(struct sandbox *s, uint64_t seed, bool low)
{
	struct cpu *c;
	uint64_t page;

	if (!__builtin_cpu_supports("avx"))
		return false;
	*s = (struct sandbox){ .seed = 0x9e3779b97f4a7c15 + seed * 0xd1342543de82ef95 };
	s->native = native_create();
	s->cpu = c = calloc(1, sizeof(*c));
	s->table = malloc(sizeof(*s->table));
	s->memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | (low ? MAP_32BIT : 0), -1, 0);
	if (!s->native || !c || !s->table || s->memory == MAP_FAILED)
		return false;
	mprotect(s->memory + PAGE, PAGE, PROT_NONE);
	page = (uint64_t)s->memory;
	s->table->mask = TLB_ENTRIES - 1;
	for (unsigned k = 0; k < TLB_ENTRIES; k++)
		s->table->read_tag[k] = s->table->write_tag[k] = TLB_NONE;
	s->table->read_tag[page >> 12 & (TLB_ENTRIES - 1)] = page;
	s->table->write_tag[page >> 12 & (TLB_ENTRIES - 1)] = page;
	s->table->addend[page >> 12 & (TLB_ENTRIES - 1)] = 0;
	c->tlb.data = s->table;
	c->ctx = s;
	c->machine = &s->machine;
	s->machine.cpuid = &s->model;
	s->model.has_avx = s->model.has_avx2 = s->model.has_fma = s->model.has_xsave = true;
	s->model.has_xsaveopt = s->model.has_xsavec = s->model.has_xsaves = true;
	s->model.has_f16c = s->model.has_aes = s->model.has_vaes = s->model.has_pclmul = true;
	s->model.has_vpclmul = s->model.has_sha = s->model.has_gfni = s->model.has_sse4a = true;
	s->model.xsave_at[2] = 576;
	c->s.cr0 = CR0_PE | CR0_PG | CR0_NE;
	c->s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	c->s.xcr0 = 7;
	c->s.efer = EFER_LMA | EFER_LME;
	c->s.seg[SEG_CS].attr = SEG_ATTR_L;
	c->s.seg[SEG_CS].selector = 0x33; /* Linux's, for FNSTENV */
	return true;
}

void sandbox_destroy(struct sandbox *s)
{
	native_destroy(s->native);
	munmap(s->memory, 2 * PAGE);
	free(s->cpu);
	free(s->table);
}

/*
 * What a miss in the one-page TLB leads to, instead of x86/access.c. Weak, should something else
 * ever pull that file in; the sandbox would not work then.
 */
static int page_fault(struct cpu *c, gva_t at, unsigned size)
{
	const struct sandbox *s = c->ctx;

	return at - (uint64_t)s->memory <= PAGE - size ? CPU_OK : cpu_raise_error(c, VEC_PF, 0);
}

__attribute__((weak)) int access_read_slow(struct cpu *c, gva_t at, void *buf, unsigned size,
					   enum tlb_mode mode)
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
__attribute__((weak)) int seg_linear(struct cpu *c, enum x86_seg seg, uint64_t offset,
				     unsigned size, bool write, gva_t *linear)
{
	*linear = offset;
	return CPU_OK;
}
