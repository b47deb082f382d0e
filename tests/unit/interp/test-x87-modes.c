/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of x87 and SSE the host cannot show from 64-bit code: environments of real and protected
 * mode in 16 and 32 bits, written out by hand from the manual's figures; segment bases; the
 * register count outside 64-bit mode.
 */
#include <stdio.h>
#include <string.h>
#include "engine/interp/simd.h"
#include "engine/interp/xsave.h"
#include "sandbox.h"

static unsigned failures;

#define EXPECT(x) expect(x, #x, __LINE__)
static void expect(bool good, const char *what, int line)
{
	if (!good) {
		printf("%d: %s\n", line, what);
		failures++;
	}
}

static int execute(struct sandbox *s, enum insn_mode mode, const uint8_t *bytes, size_t n)
{
	uint8_t b[15] = { 0 };
	struct insn i;

	memcpy(b, bytes, n);
	if (insn_decode(&i, b, sizeof(b), mode) != INSN_OK || !sandbox_handler(i.op))
		return -1;
	s->cpu->s.rip += i.len;
	return sandbox_handler(i.op)(s->cpu, &i);
}
#define EXECUTE(mode, ...)                                                                         \
	execute(s, mode, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void setup(struct sandbox *s, bool protected)
{
	struct x86_state *x = &s->cpu->s;

	memset(s->memory, 0xee, PAGE);
	x->efer = 0;
	x->cr0 = protected ? CR0_PE | CR0_NE : CR0_NE;
	x->seg[SEG_CS].attr = 0;
	x->seg[SEG_CS].selector = 0x1234;
	xsave_x87_init(&x->fpu);
	x->fpu.ip = 0x3abcd;
	x->fpu.dp = 0x52345;
	x->fpu.cs = 0x1000;
	x->fpu.ds = 0x2000;
	x->fpu.opcode = 0x5a3;
	x->fpu.sw = 0x3801; /* top 7, invalid operation */
	x->fpu.tag = 0xc0;
	x->fpu.reg[7].mantissa = 1ull << 63;
	x->fpu.reg[7].exponent = 0x3fff; /* valid; 6 is zero; the others are empty */
}

static uint32_t d(const struct sandbox *s, unsigned k)
{
	uint32_t v;

	memcpy(&v, s->memory + 4 * k, 4);
	return v;
}

static uint16_t w(const struct sandbox *s, unsigned k)
{
	uint16_t v;

	memcpy(&v, s->memory + 2 * k, 2);
	return v;
}

static void environments(struct sandbox *s)
{
	struct x86_state *x = &s->cpu->s;

	setup(s, true);
	EXPECT(EXECUTE(MODE_32, 0xd9, 0x36) == CPU_OK); /* FNSTENV [ESI] */
	EXPECT(d(s, 0) == 0xffff037f && d(s, 1) == 0xffff3801 && d(s, 2) == 0xffff1fff);
	EXPECT(d(s, 3) == 0x3abcd && d(s, 4) == 0x05a31000 && d(s, 5) == 0x52345 &&
	       d(s, 6) == 0xffff2000);
	EXPECT(x->fpu.cw == 0x37f);
	setup(s, true);
	EXPECT(EXECUTE(MODE_32, 0x66, 0xd9, 0x36) == CPU_OK);
	EXPECT(w(s, 0) == 0x37f && w(s, 1) == 0x3801 && w(s, 2) == 0x1fff && w(s, 3) == 0xabcd &&
	       w(s, 4) == 0x1000);
	EXPECT(w(s, 5) == 0x2345 && w(s, 6) == 0x2000 && w(s, 7) == 0xeeee);
	setup(s, false); /* linear addresses: 0x10000 + 0x3abcd, 0x20000 + 0x52345 */
	EXPECT(EXECUTE(MODE_32, 0xd9, 0x36) == CPU_OK);
	EXPECT(d(s, 0) == 0xffff037f && (d(s, 3) & 0xffff) == 0xabcd &&
	       (d(s, 5) & 0xffff) == 0x2345);
	EXPECT(d(s, 4) == 0x000045a3 && d(s, 6) == 0x00007000);
	setup(s, false);
	EXPECT(EXECUTE(MODE_32, 0x66, 0xd9, 0x36) == CPU_OK);
	EXPECT(w(s, 3) == 0xabcd && w(s, 4) == 0x45a3 && w(s, 5) == 0x2345 && w(s, 6) == 0x7000);
	/* and back: linear addresses stay what they are */
	x->fpu.ip = x->fpu.dp = x->fpu.cs = x->fpu.ds = x->fpu.opcode = 0;
	EXPECT(EXECUTE(MODE_32, 0x66, 0xd9, 0x26) == CPU_OK); /* FLDENV */
	EXPECT(x->fpu.ip == 0x4abcd && x->fpu.dp == 0x72345 && x->fpu.opcode == 0x5a3 &&
	       x->fpu.tag == 0xc0);
}

static void saves(struct sandbox *s)
{
	struct x86_state *x = &s->cpu->s;
	struct x86_fpu before;

	for (unsigned k = 0; k < 4; k++) {
		bool wide = k & 1, protected = k & 2;

		setup(s, protected);
		x->fpu.cs = x->fpu.ds = 0;
		x->fpu.ip &= 0xffff;
		x->fpu.dp &= 0xffff;
		if (protected && !wide)
			x->fpu.opcode = 0; /* not in that format */
		before = x->fpu;
		EXPECT((wide ? EXECUTE(MODE_32, 0xdd, 0x36) : EXECUTE(MODE_32, 0x66, 0xdd, 0x36)) ==
		       CPU_OK);
		EXPECT(x->fpu.cw == 0x37f && !x->fpu.sw && !x->fpu.tag);
		EXPECT(!memcmp(s->memory + (wide ? 28 : 14), &before.reg[7], 10)); /* ST(0) first */
		EXPECT(s->memory[(wide ? 28 : 14) + 80] == 0xee);
		memset(x->fpu.reg, 0x77, sizeof(x->fpu.reg));
		for (unsigned j = 0; j < 8; j++)
			memset(x->fpu.reg[j].pad, 0, sizeof(x->fpu.reg[j].pad));
		EXPECT((wide ? EXECUTE(MODE_32, 0xdd, 0x26) : EXECUTE(MODE_32, 0x66, 0xdd, 0x26)) ==
		       CPU_OK);
		EXPECT(!memcmp(&before, &x->fpu, sizeof(before)));
	}
}

/* FXSAVE and XSAVE outside 64-bit mode: eight registers, the others neither written nor read. */
static void eight_registers(struct sandbox *s)
{
	struct x86_state *x = &s->cpu->s;

	setup(s, true);
	memset(x->v, 0x33, sizeof(x->v));
	x->mxcsr = MXCSR_DEFAULT;
	EXPECT(EXECUTE(MODE_32, 0x0f, 0xae, 0x06) == CPU_OK); /* FXSAVE [ESI] */
	EXPECT(s->memory[160 + 127] == 0x33 && s->memory[160 + 128] == 0xee);
	memset(s->memory + 160, 0x44, 256);
	EXPECT(EXECUTE(MODE_32, 0x0f, 0xae, 0x0e) == CPU_OK); /* FXRSTOR */
	EXPECT(x->v[7].b[15] == 0x44 && x->v[7].b[16] == 0x33 && x->v[8].b[0] == 0x33);
	memset(s->memory, 0, PAGE);
	x->gpr[RAX] = 7;
	x->gpr[RDX] = 0;
	EXPECT(EXECUTE(MODE_32, 0x0f, 0xae, 0x26) == CPU_OK); /* XSAVE */
	EXPECT(s->memory[512] == 7 && s->memory[576 + 127] == 0x33 && !s->memory[576 + 128] &&
	       !s->memory[160 + 128]);
	memset(s->memory + 512, 0, 64);
	EXPECT(EXECUTE(MODE_32, 0x0f, 0xae, 0x2e) == CPU_OK); /* XRSTOR of nothing: initial state */
	EXPECT(!x->v[7].q[0] && !x->v[7].q[3] && x->v[8].b[0] == 0x33 && x->v[8].b[31] == 0x33 &&
	       x->fpu.cw == 0x37f);
	EXPECT(EXECUTE(MODE_32, 0xc5, 0xfc, 0x77) == CPU_OK); /* VZEROALL */
	EXPECT(x->v[8].b[0] == 0x33);
}

int main(void)
{
	struct sandbox s;

	if (!sandbox_create(&s, 0, true))
		return 77;
	s.cpu->s.gpr[RSI] = (uint64_t)s.memory;

	environments(&s);
	saves(&s);
	eight_registers(&s);
	printf("%u failures\n", failures);
	sandbox_destroy(&s);
	return failures != 0;
}
