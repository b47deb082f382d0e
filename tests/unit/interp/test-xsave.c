/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FXSAVE, XSAVE and their families: images and states against the host CPU's, header checks,
 * alignment, page ends; XSAVES and XRSTORS, which only the kernel may execute natively, against
 * XSAVEC. Then what needs no host: who may execute vector instructions at all, and that a fault
 * leaves everything as it was.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "engine/interp/simd.h"
#include "engine/interp/xsave.h"
#include "sandbox.h"

#define AREA 1024u
#define IMAGE 832u /* x87, SSE and AVX */
#define HEADER 512u

static unsigned failures;

#define EXPECT(x) expect(x, #x, __LINE__)
static void expect(bool good, const char *what, int line)
{
	if (!good && failures++ < 30)
		printf("%d: %s\n", line, what);
}

static bool decode(struct insn *i, const uint8_t *bytes, size_t n)
{
	uint8_t b[15] = { 0 };

	memcpy(b, bytes, n);
	return insn_decode(i, b, sizeof(b), MODE_64) == INSN_OK && sandbox_handler(i->op);
}

static int execute(struct sandbox *s, const struct insn *i)
{
	s->cpu->s.rip = native_rip(s->native) + i->len;
	return sandbox_handler(i->op)(s->cpu, i);
}

/* ---- against the host ---- */

/* Make the page hold an image that XRSTOR takes, or nearly. */
static void plant_image(struct sandbox *s, uint8_t *at, bool compact)
{
	struct native_state n;
	uint64_t header[8] = { sandbox_pick(s, 8) };

	sandbox_randomize(s, &n);
	memcpy(at, n.xsave, IMAGE);
	if (compact) {
		header[1] = BIT(63) | header[0] | sandbox_pick(s, 8);
	}
	switch (sandbox_pick(s, 12)) { /* what must be refused, or just might be */
	case 0:
		header[sandbox_pick(s, 8)] |= BIT(sandbox_pick(s, 64));
		break;
	case 1:
		at[24 + sandbox_pick(s, 4)] |= (uint8_t)BIT(sandbox_pick(s, 8));
		break;
	case 2:
		header[1] ^= BIT(63);
		break;
	default:
		break;
	}
	memcpy(at + HEADER, header, sizeof(header));
}

static bool same_memory(const struct sandbox *s, const uint8_t *want, size_t at)
{
	const uint8_t *got = s->memory;
	bool good = true;

	for (unsigned k = 0; k < PAGE && good; k++) {
		if (got[k] == want[k] ||
		    (k == at + 30 && want[k] == 2)) /* MXCSR_MASK: AMD's MXCSR.MM */
			continue;
		good = false;
		printf("  byte %d of the image: host %02x, ours %02x\n", (int)(k - at), want[k],
		       got[k]);
	}
	return good;
}

static bool same_state(const struct native_state *want, const struct native_state *got)
{
	bool good = true;

	for (unsigned k = 0; k < IMAGE && good; k++) {
		if ((k >= 28 && k < 32) || (k >= 416 && k < 576) || want->xsave[k] == got->xsave[k])
			continue;
		good = false;
		printf("  byte %u of the state: host %02x, ours %02x\n", k, want->xsave[k],
		       got->xsave[k]);
	}
	return good;
}

static void against_host(struct sandbox *s, const uint8_t *bytes, unsigned rounds)
{
	struct native_state in, want, got;
	uint8_t before[PAGE], after[PAGE];
	struct insn i;

	if (!decode(&i, bytes, 4)) {
		EXPECT(!"decoded");
		return;
	}
	for (unsigned k = 0; k < rounds; k++) {
		enum native_result sig;
		size_t at = 64 * sandbox_pick(s, 40);
		bool same;
		int r;

		sandbox_randomize(s, &in);
		if (!sandbox_pick(s, 6))
			at = sandbox_pick(s, 2048);
		else if (!sandbox_pick(s, 8))
			at = PAGE - 64 * (1 + sandbox_pick(s, 16));
		if (at < PAGE - AREA && sandbox_pick(s, 6))
			plant_image(s, s->memory + at, sandbox_pick(s, 2));
		for (unsigned c = 0; c < 3; c++) { /* initial components */
			if (!sandbox_pick(s, 5) && !(sandbox_pick(s, 2)))
				in.xsave[HEADER] &= (uint8_t)~BIT(c);
		}
		in.gpr[RSI] = (uint64_t)s->memory + at;
		in.gpr[RAX] = sandbox_pick(s, 8);
		in.gpr[RDX] = 0;
		for (unsigned w = 0; w < 2 && at + HEADER + 16 <= PAGE;
		     w++) { /* AVX-512, PKRU: the host has them */
			s->memory[at + HEADER + 8 * w] &= (uint8_t)~0xe0;
			s->memory[at + HEADER + 8 * w + 1] &= (uint8_t)~2;
		}
		if (at + 26 < PAGE)
			s->memory[at + 26] &= (uint8_t)~2; /* MXCSR.MM, which is AMD's */
		/* what the host starts from, as an image */
		memcpy(before, s->memory, PAGE);
		native_run(s->native, (const uint8_t[]){ 0x90 }, 1, &in, &got);
		sandbox_load(s, &got);
		memcpy(s->cpu->s.gpr, in.gpr, sizeof(in.gpr));
		sig = native_run(s->native, i.bytes, i.len, &in, &want);
		memcpy(after, s->memory, PAGE);
		memcpy(s->memory, before, PAGE);
		r = execute(s, &i);
		sandbox_store(s, &got);
		if (sig == NATIVE_ILLEGAL && r == CPU_OK)
			continue;
		same = (r ? sandbox_fault(s) : NATIVE_DONE) == sig;
		if (!same)
			printf("  host fault %d, ours %d vector %u\n", sig, r,
			       r ? s->cpu->fault.vector : 0);
		else if (!sig)
			same = same_memory(s, after, at) && same_state(&want, &got);
		else
			same = !memcmp(before, s->memory, PAGE);
		if (!same && failures++ < 20)
			printf("^ %s at %zx, requested %lx, header %lx %lx, mxcsr %x, in use %x\n",
			       sandbox_name(i.op), at, in.gpr[RAX],
			       ((uint64_t *)(before + at + HEADER))[0],
			       ((uint64_t *)(before + at + HEADER))[1],
			       *(uint32_t *)(in.xsave + 24), in.xsave[HEADER]);
	}
}

/* ---- XSAVES, XRSTORS ---- */

static void supervisor_forms(struct sandbox *s)
{
	struct cpu *c = s->cpu;
	struct native_state in, out;
	struct insn save, restore, compact;
	uint8_t first[IMAGE];

	EXPECT(decode(&compact, (const uint8_t[]){ 0x48, 0x0f, 0xc7, 0x26 }, 4));
	EXPECT(decode(&save, (const uint8_t[]){ 0x48, 0x0f, 0xc7, 0x2e }, 4));
	EXPECT(decode(&restore, (const uint8_t[]){ 0x48, 0x0f, 0xc7, 0x1e }, 4));
	for (unsigned k = 0; k < 50; k++) {
		sandbox_randomize(s, &in);
		in.gpr[RSI] = (uint64_t)s->memory;
		in.gpr[RAX] = 7;
		in.gpr[RDX] = 0;
		memset(s->memory, 0, PAGE);
		sandbox_load(s, &in);
		c->s.cpl = 3;
		EXPECT(execute(s, &save) == CPU_FAULT && c->fault.vector == VEC_GP);
		c->s.cpl = 0;
		EXPECT(execute(s, &compact) == CPU_OK);
		memcpy(first, s->memory, sizeof(first));
		memset(s->memory, 0, PAGE);
		EXPECT(execute(s, &save) == CPU_OK);
		EXPECT(!memcmp(first, s->memory, sizeof(first)));
		memset(c->s.v, 0x55, sizeof(c->s.v));
		c->s.mxcsr = 0x1fbf;
		xsave_x87_init(&c->s.fpu);
		EXPECT(execute(s, &restore) == CPU_OK);
		sandbox_store(s, &out);
		EXPECT(same_state(&in, &out));
		s->memory[HEADER + 15] = 0; /* not compacted */
		EXPECT(execute(s, &restore) == CPU_FAULT && c->fault.vector == VEC_GP);
		c->s.cpl = 3;
	}
}

/* ---- who may execute what ---- */

static const uint8_t paddb[] = { 0x66, 0x0f, 0xfc, 0x06 };  /* PADDB XMM0, [RSI] */
static const uint8_t paddb_mmx[] = { 0x0f, 0xfc, 0x06 };    /* PADDB MM0, [RSI] */
static const uint8_t vpaddb[] = { 0xc5, 0xfd, 0xfc, 0x06 }; /* VPADDB YMM0, YMM0, [RSI] */
static const uint8_t fadd[] = { 0xd8, 0xc1 };		    /* FADD ST0, ST1 */
static const uint8_t fnstsw[] = { 0xdf, 0xe0 };
static const uint8_t vfmadd[] = { 0xc4, 0xe2, 0x71, 0x98, 0xc2 };
static const uint8_t aesenc[] = { 0x66, 0x0f, 0x38, 0xdc, 0xc1 };
static const uint8_t vaddps_evex[] = { 0x62, 0xf1, 0x7c, 0x08, 0x58, 0xc1 };
static const uint8_t fwait_[] = { 0x9b };

static int vector_of(struct sandbox *s, const uint8_t *bytes, size_t n)
{
	struct insn i;

	if (!decode(&i, bytes, n))
		return -2;
	s->cpu->s.gpr[RSI] = (uint64_t)s->memory;
	return execute(s, &i) == CPU_OK ? -1 : s->cpu->fault.vector;
}
#define VECTOR(bytes) vector_of(s, bytes, sizeof(bytes))

static void availability(struct sandbox *s)
{
	struct x86_state *x = &s->cpu->s;
	const uint64_t cr0 = x->cr0, cr4 = x->cr4;

	xsave_x87_init(&x->fpu);
	x->fpu.tag = 0xff;
	x->mxcsr = MXCSR_DEFAULT;
	EXPECT(VECTOR(paddb) == -1 && VECTOR(paddb_mmx) == -1 && VECTOR(vpaddb) == -1 &&
	       VECTOR(fadd) == -1);
	x->cr0 = cr0 | CR0_TS;
	EXPECT(VECTOR(paddb) == VEC_NM && VECTOR(paddb_mmx) == VEC_NM && VECTOR(vpaddb) == VEC_NM);
	EXPECT(VECTOR(fadd) == VEC_NM && VECTOR(fnstsw) == VEC_NM && VECTOR(fwait_) == -1);
	x->cr0 |= CR0_MP;
	EXPECT(VECTOR(fwait_) == VEC_NM);
	x->cr0 = cr0 | CR0_EM;
	EXPECT(VECTOR(paddb) == VEC_UD && VECTOR(paddb_mmx) == VEC_UD && VECTOR(vpaddb) == -1);
	EXPECT(VECTOR(fadd) == VEC_NM && VECTOR(fwait_) == -1);
	x->cr0 = cr0;
	x->cr4 = cr4 & ~CR4_OSFXSR;
	EXPECT(VECTOR(paddb) == VEC_UD && VECTOR(paddb_mmx) == -1);
	x->cr4 = cr4 & ~CR4_OSXSAVE;
	EXPECT(VECTOR(paddb) == -1 && VECTOR(vpaddb) == VEC_UD);
	x->cr4 = cr4;
	x->xcr0 = 3;
	EXPECT(VECTOR(paddb) == -1 && VECTOR(vpaddb) == VEC_UD);
	x->xcr0 = 7;
	s->model.has_avx2 = s->model.has_fma = s->model.has_aes = false;
	EXPECT(VECTOR(vpaddb) == VEC_UD && VECTOR(vfmadd) == VEC_UD && VECTOR(aesenc) == VEC_UD);
	s->model.has_avx2 = s->model.has_fma = s->model.has_aes = true;
	EXPECT(VECTOR(vpaddb) == -1 && VECTOR(vfmadd) == -1 && VECTOR(aesenc) == -1);

	/* EVEX forms share rows with VEX ones, but AVX-512 is not there */
	EXPECT(VECTOR(vaddps_evex) == VEC_UD || VECTOR(vaddps_evex) == -2);

	x->fpu.cw = 0x37e; /* invalid operation unmasked and pending */
	x->fpu.sw = 0x8081;
	EXPECT(VECTOR(fadd) == VEC_MF && VECTOR(paddb_mmx) == VEC_MF && VECTOR(fwait_) == VEC_MF);
	EXPECT(VECTOR(fnstsw) == -1 && VECTOR(paddb) == -1);
	xsave_x87_init(&x->fpu);

	const uint8_t divps[] = { 0x0f, 0x5e, 0xc1 };

	memset(x->v, 0, sizeof(x->v));
	x->mxcsr = MXCSR_DEFAULT & ~0x80u;
	EXPECT(VECTOR(divps) == VEC_XM && x->mxcsr & MXCSR_IE && !x->v[0].q[0]);
	x->cr4 = cr4 & ~CR4_OSXMMEXCPT;
	EXPECT(VECTOR(divps) == VEC_UD);
	x->cr4 = cr4;
	x->mxcsr = MXCSR_DEFAULT;
}

/* ---- faults in the middle ---- */

static void partial_faults(struct sandbox *s)
{
	static const uint8_t gather[] = {
		0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x0e
	}; /* VPGATHERDD YMM0, [RSI+YMM1], YMM2 */
	static const uint8_t load[] = { 0xc4, 0xe2, 0x6d, 0x2c,
					0x06 }; /* VMASKMOVPS YMM0, YMM2, [RSI] */
	static const uint8_t store[] = { 0xc4, 0xe2, 0x6d, 0x2e,
					 0x06 }; /* VMASKMOVPS [RSI], YMM2, YMM0 */
	struct x86_state *x = &s->cpu->s;
	uint8_t before[PAGE];
	struct insn i;

	for (unsigned k = 0; k < PAGE; k++)
		s->memory[k] = (uint8_t)(k * 7);
	memcpy(before, s->memory, PAGE);
	memset(x->v, 0xcc, sizeof(x->v));
	for (unsigned k = 0; k < 8; k++) {
		x->v[1].d[k] = k == 5 ? PAGE : 16 * k; /* element 5 is not there */
		x->v[2].d[k] = k == 2 ? 0x7fffffff : 0x80000000;
	}
	EXPECT(vector_of(s, gather, sizeof(gather)) == VEC_PF);
	for (unsigned k = 0; k < 8; k++) {
		uint32_t want;

		memcpy(&want, before + 16 * k, 4);
		EXPECT(x->v[0].d[k] == (k < 5 && k != 2 ? want : 0xcccccccc));
		EXPECT((x->v[2].sd[k] < 0) == (k >= 5));
	}
	x->v[1].d[5] = 80; /* now it is */
	EXPECT(vector_of(s, gather, sizeof(gather)) == -1);
	EXPECT(x->v[0].d[2] == 0xcccccccc && !memcmp(&x->v[0].d[7], before + 112, 4));
	EXPECT(!x->v[2].q[0] && !x->v[2].q[3] && !x->v[0].q[4]);

	EXPECT(decode(&i, load, sizeof(load)));
	memset(&x->v[0], 0x11, sizeof(x->v[0]));
	memset(&x->v[2], 0, sizeof(x->v[2]));
	x->v[2].d[0] = x->v[2].d[1] = 0x80000000;
	x->gpr[RSI] = (uint64_t)s->memory + PAGE - 8; /* only the first two elements exist */
	EXPECT(execute(s, &i) == CPU_OK && !memcmp(&x->v[0], before + PAGE - 8, 8) &&
	       !x->v[0].q[1]);
	EXPECT(decode(&i, store, sizeof(store)));
	x->v[0].q[0] = 0x1122334455667788;
	EXPECT(execute(s, &i) == CPU_OK && !memcmp(s->memory + PAGE - 8, &x->v[0], 8));
	memcpy(s->memory, before, PAGE);
	x->v[2].d[2] = 0x80000000;
	EXPECT(execute(s, &i) == CPU_FAULT && s->cpu->fault.vector == VEC_PF);
	EXPECT(!memcmp(s->memory, before, PAGE)); /* nothing of it was written */
}

int main(int argc, char **argv)
{
	static const uint8_t forms[][4] = {
		{ 0x0f, 0xae, 0x06 }, { 0x48, 0x0f, 0xae, 0x06 }, /* FXSAVE */
		{ 0x0f, 0xae, 0x0e }, { 0x48, 0x0f, 0xae, 0x0e }, /* FXRSTOR */
		{ 0x0f, 0xae, 0x26 }, { 0x48, 0x0f, 0xae, 0x26 }, /* XSAVE */
		{ 0x0f, 0xae, 0x2e }, { 0x48, 0x0f, 0xae, 0x2e }, /* XRSTOR */
		{ 0x0f, 0xae, 0x36 }, { 0x48, 0x0f, 0xae, 0x36 }, /* XSAVEOPT */
		{ 0x0f, 0xc7, 0x26 }, { 0x48, 0x0f, 0xc7, 0x26 }, /* XSAVEC */
	};
	struct sandbox s;

	if (!sandbox_create(&s, argc > 2 ? strtoull(argv[2], NULL, 0) : 0, false))
		return 77;
	s.cpu->s.cpl = 3;
	for (unsigned k = 0; k < ARRAY_LEN(forms); k++)
		against_host(&s, forms[k], argc > 1 ? (unsigned)atoi(argv[1]) : 200);
	supervisor_forms(&s);
	availability(&s);
	partial_faults(&s);
	printf("%u failures\n", failures);
	sandbox_destroy(&s);
	return failures ? 1 : 0;
}
