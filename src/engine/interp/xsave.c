/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FXSAVE, XSAVE and their families, and MXCSR. An image is written only after all of it was found
 * writable, and taken over only after all of it was read and checked, so a fault leaves everything
 * as it was. Where components are is the CPU model's business (x86/cpuid.h).
 */
#include "engine/interp/simd.h"
#include "engine/interp/x87.h"
#include "engine/interp/xsave.h"
#include "x86/cpuid.h"

#define FIRST_PLACED 2u /* the components before are in the legacy area */
#define CHUNK 64u

/* Offsets in the legacy area */
#define AT_MXCSR 24u
#define AT_ST 32u
#define AT_XMM 160u
/* and in the header behind it */
#define AT_XSTATE_BV XSAVE_LEGACY_SIZE
#define AT_XCOMP_BV (XSAVE_LEGACY_SIZE + 8)
#define XCOMP_COMPACT BIT(63)

/* ---- formats ---- */

void xsave_x87_init(struct x86_fpu *f)
{
	*f = (struct x86_fpu){ .cw = X87_CW_DEFAULT };
}

void xsave_x87_pack(const struct x86_fpu *f, uint8_t *image, bool wide)
{
	uint32_t ip = (uint32_t)f->ip, dp = (uint32_t)f->dp;

	memset(image, 0, AT_MXCSR);
	memcpy(image, &f->cw, 2);
	memcpy(image + 2, &f->sw, 2);
	image[4] = f->tag;
	if (!(f->sw & X87_ES)) {
		/* AMD's way: without an exception waiting there is nothing to point at (FSTENV
		 * still does) */
	} else if (wide) {
		memcpy(image + 6, &f->opcode, 2);
		memcpy(image + 8, &f->ip, 8);
		memcpy(image + 16, &f->dp, 8);
	} else {
		memcpy(image + 6, &f->opcode, 2);
		memcpy(image + 8, &ip, 4);
		memcpy(image + 12, &f->cs, 2);
		memcpy(image + 16, &dp, 4);
		memcpy(image + 20, &f->ds, 2);
	}
	for (unsigned k = 0; k < 8; k++) {
		uint8_t *to = image + AT_ST + 16 * k;

		memset(to, 0, 16);
		memcpy(to, &f->reg[x87_physical(f, k)], 10);
	}
}

static inline uint64_t canonical(uint64_t v)
{
	return (uint64_t)((int64_t)(v << 7) >> 7); /* 57 bits */
}

void xsave_x87_unpack(struct x86_fpu *f, const uint8_t *image, bool wide)
{
	uint32_t ip, dp;

	memset(f, 0, sizeof(*f));
	memcpy(&f->cw, image, 2);
	memcpy(&f->sw, image + 2, 2);
	f->tag = image[4];
	memcpy(&f->opcode, image + 6, 2);
	f->opcode &= 0x7ff;
	if (wide) {
		memcpy(&f->ip, image + 8, 8);
		memcpy(&f->dp, image + 16, 8);
		f->ip = canonical(f->ip);
		f->dp = canonical(f->dp);
	} else {
		memcpy(&ip, image + 8, 4);
		memcpy(&f->cs, image + 12, 2);
		memcpy(&dp, image + 16, 4);
		memcpy(&f->ds, image + 20, 2);
		f->ip = ip;
		f->dp = dp;
	}
	f->cw = (f->cw & X87_CW_VALID) | X87_CW_FIXED;
	x87_update_summary(f);
	for (unsigned k = 0; k < 8; k++)
		memcpy(&f->reg[x87_physical(f, k)], image + AT_ST + 16 * k, 10);
}

static unsigned register_count(const struct x86_state *s)
{
	return x86_64bit(s) ? 16 : 8;
}

uint64_t xsave_in_use(const struct x86_state *s)
{
	struct x86_fpu init;
	uint64_t sse = 0, avx = 0, masks = 0, upper = 0, more = 0;

	xsave_x87_init(&init);
	for (unsigned k = 0; k < register_count(s); k++) {
		sse |= s->v[k].q[0] | s->v[k].q[1];
		avx |= s->v[k].q[2] | s->v[k].q[3];
		upper |= s->v[k].q[4] | s->v[k].q[5] | s->v[k].q[6] | s->v[k].q[7];
		masks |= s->k[k & 7];
	}
	for (unsigned k = 16; k < 32 && x86_64bit(s); k++) {
		for (unsigned n = 0; n < 8; n++)
			more |= s->v[k].q[n];
	}
	return (memcmp(&init, &s->fpu, sizeof(init)) ? XSTATE_X87 : 0) | (sse ? XSTATE_SSE : 0) |
	       (avx ? XSTATE_AVX : 0) | (masks ? XSTATE_OPMASK : 0) | (upper ? XSTATE_ZMM_UPPER : 0) |
	       (more ? XSTATE_ZMM_16 : 0);
}

static void xmm_pack(const struct x86_state *s, uint8_t *image)
{
	for (unsigned k = 0; k < register_count(s); k++)
		memcpy(image + AT_XMM + 16 * k, &s->v[k], 16);
}

/* NULL: the initial configuration. */
static void xmm_unpack(struct x86_state *s, const uint8_t *image)
{
	for (unsigned k = 0; k < register_count(s); k++) {
		if (image)
			memcpy(&s->v[k], image + AT_XMM + 16 * k, 16);
		else
			memset(&s->v[k], 0, 16);
	}
}

/*
 * The components behind the header: a piece of each of some registers, one after the other. Outside of 64-bit mode the
 * upper half of the registers takes no part.
 */
struct pieces {
	unsigned count, size; /* 0: no such component */
	uint8_t *(*piece)(struct x86_state *s, unsigned n);
};

static uint8_t *piece_ymm(struct x86_state *s, unsigned n)
{
	return &s->v[n].b[16];
}

static uint8_t *piece_zmm(struct x86_state *s, unsigned n)
{
	return &s->v[n].b[32];
}

static uint8_t *piece_zmm16(struct x86_state *s, unsigned n)
{
	return s->v[16 + n].b;
}

static uint8_t *piece_mask(struct x86_state *s, unsigned n)
{
	return (uint8_t *)&s->k[n];
}

static struct pieces pieces_of(const struct x86_state *s, unsigned component)
{
	switch (BIT(component)) {
	case XSTATE_AVX:
		return (struct pieces){ register_count(s), 16, piece_ymm };
	case XSTATE_OPMASK:
		return (struct pieces){ 8, 8, piece_mask };
	case XSTATE_ZMM_UPPER:
		return (struct pieces){ register_count(s), 32, piece_zmm };
	case XSTATE_ZMM_16:
		return (struct pieces){ x86_64bit(s) ? 16 : 0, 64, piece_zmm16 };
	default:
		return (struct pieces){ 0 };
	}
}

/* Both ways; NULL: the initial configuration. */
static void pieces_unpack(struct x86_state *s, unsigned component, const uint8_t *image)
{
	struct pieces p = pieces_of(s, component);

	for (unsigned n = 0; n < p.count; n++) {
		if (image)
			memcpy(p.piece(s, n), image + n * p.size, p.size);
		else
			memset(p.piece(s, n), 0, p.size);
	}
}

static unsigned pieces_pack(struct x86_state *s, unsigned component, uint8_t *image)
{
	struct pieces p = pieces_of(s, component);

	for (unsigned n = 0; n < p.count; n++)
		memcpy(image + n * p.size, p.piece(s, n), p.size);
	return p.count * p.size;
}

static void mxcsr_pack(const struct x86_state *s, uint8_t *image)
{
	const uint32_t valid = MXCSR_VALID;

	memcpy(image + AT_MXCSR, &s->mxcsr, 4);
	memcpy(image + AT_MXCSR + 4, &valid, 4);
}

/* ---- memory ---- */

static int write_part(struct cpu *c, gva_t at, const uint8_t *image, unsigned from, unsigned size)
{
	void *p = tlb_write_hit(c->tlb.data, at + from, size);
	int r = CPU_OK;

	if (likely(p)) {
		memcpy(p, image + from, size);
		return CPU_OK;
	}
	for (unsigned k = 0; !r && k < size; k += CHUNK)
		r = cpu_write(c, at + from + k, image + from + k, MIN(size - k, CHUNK));
	return r;
}

static int read_part(struct cpu *c, gva_t at, uint8_t *image, unsigned from, unsigned size)
{
	const void *p = tlb_read_hit(c->tlb.data, at + from, size);
	int r = CPU_OK;

	if (likely(p)) {
		memcpy(image + from, p, size);
		return CPU_OK;
	}
	for (unsigned k = 0; !r && k < size; k += CHUNK)
		r = cpu_read(c, at + from + k, image + from + k, MIN(size - k, CHUNK));
	return r;
}

/* ---- MXCSR ---- */

int xsave_ldmxcsr(struct cpu *c, const struct insn *i)
{
	uint32_t v;
	int r = simd_check(c, i, 0);

	if (!r)
		r = operand_read(c, i, &v, 4);
	if (r)
		return r;
	if (v & ~MXCSR_VALID)
		return cpu_raise_error(c, VEC_GP, 0);
	c->s.mxcsr = v;
	return CPU_OK;
}

int xsave_stmxcsr(struct cpu *c, const struct insn *i)
{
	int r = simd_check(c, i, 0);

	return r ? r : operand_write(c, i, &c->s.mxcsr, 4);
}

/* ---- FXSAVE, FXRSTOR ---- */

static int fx_check(struct cpu *c, const struct insn *i, bool write, gva_t *at)
{
	int r;

	if (i->flags & INSN_LOCK || c->s.cr0 & CR0_EM)
		return cpu_raise(c, VEC_UD);
	if (c->s.cr0 & CR0_TS)
		return cpu_raise(c, VEC_NM);
	r = operand_linear(c, i, XSAVE_LEGACY_SIZE, write, at);
	if (!r && *at & 15)
		r = cpu_raise_error(c, VEC_GP, 0);
	return r;
}

int xsave_fxsave(struct cpu *c, const struct insn *i)
{
	uint8_t image[XSAVE_LEGACY_SIZE];
	unsigned size = AT_XMM + 16 * register_count(&c->s);
	gva_t at;
	int r = fx_check(c, i, true, &at);

	if (!r)
		r = cpu_probe(c, at, XSAVE_LEGACY_SIZE, ACCESS_WRITE);
	if (r)
		return r;
	xsave_x87_pack(&c->s.fpu, image, simd_wide(i));
	mxcsr_pack(&c->s, image);
	xmm_pack(&c->s, image);
	return write_part(c, at, image, 0, size);
}

int xsave_fxrstor(struct cpu *c, const struct insn *i)
{
	uint8_t image[XSAVE_LEGACY_SIZE];
	uint32_t mxcsr;
	gva_t at;
	int r = fx_check(c, i, false, &at);

	if (!r)
		r = read_part(c, at, image, 0, sizeof(image));
	if (r)
		return r;
	memcpy(&mxcsr, image + AT_MXCSR, 4);
	if (mxcsr & ~MXCSR_VALID)
		return cpu_raise_error(c, VEC_GP, 0);
	xsave_x87_unpack(&c->s.fpu, image, simd_wide(i));
	c->s.mxcsr = mxcsr;
	xmm_unpack(&c->s, image);
	return CPU_OK;
}

/* ---- XSAVE family ---- */

enum xsave_form { FORM_STANDARD, FORM_OPTIMIZED, FORM_COMPACT, FORM_SUPERVISOR };

static enum xsave_form form_of(const struct insn *i)
{
	switch (i->op) {
	case OP_XSAVEOPT:
	case OP_XSAVEOPT64:
		return FORM_OPTIMIZED;
	case OP_XSAVEC:
	case OP_XSAVEC64:
		return FORM_COMPACT;
	case OP_XSAVES:
	case OP_XSAVES64:
	case OP_XRSTORS:
	case OP_XRSTORS64:
		return FORM_SUPERVISOR;
	default:
		return FORM_STANDARD;
	}
}

/* Checks that all have in common; gives the address and the requested components. */
static int xsave_check(struct cpu *c, const struct insn *i, bool write, gva_t *at,
		       uint64_t *requested)
{
	const struct cpuid_model *m = c->machine->cpuid;
	enum xsave_form form = form_of(i);
	uint64_t allowed = c->s.xcr0 | (form == FORM_SUPERVISOR ? c->s.xss : 0);
	int r;

	if (i->flags & INSN_LOCK || !(c->s.cr4 & CR4_OSXSAVE) || !m->has_xsave ||
	    (form == FORM_OPTIMIZED && !m->has_xsaveopt) ||
	    (form == FORM_COMPACT && !m->has_xsavec) || (form == FORM_SUPERVISOR && !m->has_xsaves))
		return cpu_raise(c, VEC_UD);
	if (c->s.cr0 & CR0_TS)
		return cpu_raise(c, VEC_NM);
	if (form == FORM_SUPERVISOR && c->s.cpl)
		return cpu_raise_error(c, VEC_GP, 0);
	*requested = allowed & (c->s.gpr[RDX] << 32 | (uint32_t)c->s.gpr[RAX]);
	r = operand_linear(c, i, AT_XCOMP_BV + 8, write, at);
	if (*at & 63)
		return cpu_raise_error(c, VEC_GP, 0);
	return r ? operand_first_fault(c, i, 8, write) : CPU_OK;
}

/* Write the pieces of a component to where it belongs. */
static int pieces_write(struct cpu *c, gva_t at, unsigned component)
{
	uint8_t image[1024];

	return write_part(c, at, image, 0, pieces_pack(&c->s, component, image));
}

int xsave_xsave(struct cpu *c, const struct insn *i)
{
	enum xsave_form form = form_of(i);
	const struct cpuid_model *m = c->machine->cpuid;
	bool compact = form >= FORM_COMPACT;
	uint64_t requested, in_use, saved, header[2];
	uint8_t image[XSAVE_LEGACY_SIZE];
	gva_t at;
	int r = xsave_check(c, i, true, &at, &requested);

	if (r)
		return r;
	r = cpu_probe(c, at, cpuid_xsave_size(m, requested, compact), ACCESS_WRITE);
	if (!r && form < FORM_COMPACT)
		r = cpu_read(c, at + AT_XSTATE_BV, header, 8);
	if (r)
		return operand_first_fault(c, i, 8, true);
	in_use = xsave_in_use(&c->s);
	saved = form == FORM_STANDARD ? requested : requested & in_use;
	if (form >= FORM_COMPACT) {
		/* MXCSR goes with SSE here, and counts */
		if (c->s.mxcsr != MXCSR_DEFAULT)
			saved |= requested & XSTATE_SSE;
		header[0] = saved;
		header[1] = requested | XCOMP_COMPACT;
	} else {
		header[0] = (header[0] & ~requested) | (requested & in_use);
	}
	xsave_x87_pack(&c->s.fpu, image, simd_wide(i));
	mxcsr_pack(&c->s, image);
	xmm_pack(&c->s, image);
	if (saved & XSTATE_X87) {
		r = write_part(c, at, image, 0, AT_MXCSR);
		r = r ? r : write_part(c, at, image, AT_ST, AT_XMM - AT_ST);
	}
	if (!r &&
	    (form < FORM_COMPACT ? requested & (XSTATE_SSE | XSTATE_AVX) : saved & XSTATE_SSE))
		r = write_part(c, at, image, AT_MXCSR, 8);
	if (!r && saved & XSTATE_SSE)
		r = write_part(c, at, image, AT_XMM, 16 * register_count(&c->s));
	for (unsigned n = FIRST_PLACED; !r && n < XSAVE_COMPONENTS; n++) {
		if (saved >> n & 1)
			r = pieces_write(c, at + cpuid_xsave_offset(m, requested, compact, n), n);
	}
	return r ? r : cpu_write(c, at + AT_XSTATE_BV, header, form >= FORM_COMPACT ? 16 : 8);
}

/* Is the header one that XRSTOR takes? */
static bool header_valid(const struct cpu *c, const uint8_t *image, enum xsave_form form,
			 uint64_t *present)
{
	uint64_t h[8], allowed = c->s.xcr0 | (form == FORM_SUPERVISOR ? c->s.xss : 0), rest = 0;

	memcpy(h, image + XSAVE_LEGACY_SIZE, sizeof(h));
	*present = h[0];
	if (!(h[1] & XCOMP_COMPACT))
		return form != FORM_SUPERVISOR && !h[1] && !h[2] && !(h[0] & ~allowed);
	for (unsigned k = 2; k < 8; k++)
		rest |= h[k];
	h[1] &= ~XCOMP_COMPACT;
	return c->machine->cpuid->has_xsavec && !rest && !(h[1] & ~allowed) && !(h[0] & ~h[1]);
}

int xsave_xrstor(struct cpu *c, const struct insn *i)
{
	enum xsave_form form = form_of(i);
	const struct cpuid_model *m = c->machine->cpuid;
	uint64_t requested, present, load, layout;
	uint8_t image[XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE], placed[XSAVE_COMPONENTS][1024];
	uint32_t mxcsr = MXCSR_DEFAULT;
	bool compact;
	gva_t at;
	int r = xsave_check(c, i, false, &at, &requested);

	if (r)
		return r;
	r = read_part(c, at, image, 0, XSAVE_LEGACY_SIZE + XSAVE_HEADER_SIZE);
	if (r)
		return operand_first_fault(c, i, 8, false);
	if (!header_valid(c, image, form, &present))
		return cpu_raise_error(c, VEC_GP, 0);
	compact = image[AT_XCOMP_BV + 7] & 0x80;
	load = requested & present;
	memcpy(&layout, image + AT_XCOMP_BV, 8);
	for (unsigned n = FIRST_PLACED; !r && n < XSAVE_COMPONENTS; n++) {
		struct pieces p = pieces_of(&c->s, n);

		if (load >> n & 1)
			r = read_part(c, at + cpuid_xsave_offset(m, layout, compact, n), placed[n], 0, p.count * p.size);
	}
	if (r)
		return r;
	if (!compact || load & XSTATE_SSE)
		memcpy(&mxcsr, image + AT_MXCSR, 4);
	if (requested & (compact ? XSTATE_SSE : XSTATE_SSE | XSTATE_AVX)) {
		if (mxcsr & ~MXCSR_VALID)
			return cpu_raise_error(c, VEC_GP, 0);
		c->s.mxcsr = mxcsr;
	}
	if (load & XSTATE_X87)
		xsave_x87_unpack(&c->s.fpu, image, simd_wide(i));
	else if (requested & XSTATE_X87)
		xsave_x87_init(&c->s.fpu);
	if (requested & XSTATE_SSE)
		xmm_unpack(&c->s, load & XSTATE_SSE ? image : NULL);
	for (unsigned n = FIRST_PLACED; n < XSAVE_COMPONENTS; n++) {
		if (requested >> n & 1)
			pieces_unpack(&c->s, n, load >> n & 1 ? placed[n] : NULL);
	}
	return CPU_OK;
}
