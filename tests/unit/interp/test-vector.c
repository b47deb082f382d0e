/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every row of insn-x87.def and insn-vector.def against the host CPU: all encodings of the 0F, 0F38
 *and 0F3A maps with each mandatory prefix, REX.W, VEX.L and VEX.W, and all of D8..DF are decoded;
 *those that give one of our rows are executed natively and by the handler with the same registers
 *and memory, and everything is compared: registers, flags, MXCSR, x87 environment, memory, and
 *which fault. Operands are random with a taste for special values, so are rounding, masks, x87
 *stack contents, alignment and nearness to an unmapped page.
 *
 *	test-vector [rounds [seed [mnemonic]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sandbox.h"

#define MAX_REPORTS 40u

struct test {
	struct sandbox s;
	uint8_t before[PAGE], after[PAGE], ours[PAGE];
	unsigned rounds, runs, failures, lacking;
	unsigned seen[OP_COUNT], bad[OP_COUNT];
	const char *only;
};

/* Address of the memory operand: aligned, anyhow, at the end of the page, over the end. */
static uint64_t random_address(struct test *t, unsigned size)
{
	uint64_t page = (uint64_t)t->s.memory;

	switch (sandbox_pick(&t->s, 8)) {
	case 0:
		return page + sandbox_pick(&t->s, 2048);
	case 1:
		return page + PAGE - (size ? size : 64);
	case 2:
		return page + PAGE - sandbox_pick(&t->s, 64);
	default:
		return page + 64 * sandbox_pick(&t->s, 32);
	}
}

/* ---- both sides ---- */

static void hex(const char *what, const uint8_t *p, unsigned n)
{
	printf("    %s ", what);
	for (unsigned k = n; k-- > 0;)
		printf("%02x", p[k]);
	printf("\n");
}

/* One difference: report it, and return true. */
static bool differs(const char *what, unsigned index, const uint8_t *in, const uint8_t *want,
		    const uint8_t *got, unsigned n, bool quiet)
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
		    const struct native_state *want, struct native_state *got, bool faulted,
		    bool quiet)
{
	bool bad = false;

	/*
	 * With an unmasked overflow or underflow, PE tells whether the result would have been
	 * inexact had the exponent no bounds; we say it for the bounded one. Nothing can depend on
	 * it.
	 */
	if (faulted && want->xsave[24] & 0x18)
		got->xsave[24] = (got->xsave[24] & ~0x20) | (want->xsave[24] & 0x20);
	bad |= differs("MXCSR", 0, in->xsave + 24, want->xsave + 24, got->xsave + 24, 4, quiet);
	bad |= differs("FSW", 0, in->xsave + 2, want->xsave + 2, got->xsave + 2, 2, quiet);
	if (faulted)
		return bad;
	bad |= differs("FCW", 0, in->xsave, want->xsave, got->xsave, 2, quiet);
	bad |= differs("FTW", 0, in->xsave + 4, want->xsave + 4, got->xsave + 4, 1, quiet);
	bad |= differs("FOP FIP FDP", 0, in->xsave + 6, want->xsave + 6, got->xsave + 6, 18, quiet);
	bad |= differs("RFLAGS", 0, (uint8_t *)&in->rflags, (uint8_t *)&want->rflags,
		       (uint8_t *)&got->rflags, 8, quiet);
	for (unsigned k = 0; k < 16; k++) {
		if (k != RSP)
			bad |= differs("GPR", k, (uint8_t *)&in->gpr[k], (uint8_t *)&want->gpr[k],
				       (uint8_t *)&got->gpr[k], 8, quiet);
		bad |= differs("XMM", k, in->xsave + 160 + 16 * k, want->xsave + 160 + 16 * k,
			       got->xsave + 160 + 16 * k, 16, quiet);
		bad |= differs("YMMH", k, in->xsave + 576 + 16 * k, want->xsave + 576 + 16 * k,
			       got->xsave + 576 + 16 * k, 16, quiet);
		if (k < 8)
			bad |= differs("ST", k, in->xsave + 32 + 16 * k, want->xsave + 32 + 16 * k,
				       got->xsave + 32 + 16 * k, 10, quiet);
	}
	for (unsigned k = 0; k < PAGE; k += 16)
		bad |= differs("memory+", k, t->before + k, t->after + k, t->ours + k, 16, quiet);
	return bad;
}

/* Indices of a gather: small enough to stay about the page. */
static void small_indices(struct test *t, const struct insn *i, struct native_state *in)
{
	bool wide = i->op == OP_VPGATHERQD || i->op == OP_VPGATHERQQ || i->op == OP_VGATHERQPS ||
		    i->op == OP_VGATHERQPD;
	unsigned size = wide ? 8 : 4;

	in->gpr[RSI] = (uint64_t)t->s.memory + 1024 * (1 + sandbox_pick(&t->s, 3));
	for (unsigned k = 0; k < 32; k += size) {
		int64_t v = (int64_t)sandbox_pick(&t->s, 128) - 64;

		memcpy(in->xsave + (k < 16 ? 160 : 576 - 16) + 16 * (i->index & 15) + k, &v, size);
	}
}

static void prepare(struct test *t, const struct insn *i, struct native_state *in)
{
	const char *name = sandbox_name(i->op);

	sandbox_randomize(&t->s, in);
	in->gpr[RSI] = random_address(t, i->memsize);
	/* MASKMOV: whether bytes that are not written fault is left open */
	in->gpr[RDI] = (uint64_t)t->s.memory + sandbox_pick(&t->s, PAGE - 16);
	if (i->flags & INSN_VSIB)
		small_indices(t, i, in);
	if ((!strcmp(name, "LDMXCSR") || !strcmp(name, "VLDMXCSR")) &&
	    in->gpr[RSI] % PAGE <= PAGE - 4)
		((uint8_t *)in->gpr[RSI])[2] &=
			(uint8_t)~2; /* AMD's misaligned mode exists there, not here */
	memcpy(t->before, t->s.memory, PAGE);
}

/* The host's side again, should the first time be disturbed; then compare. */
static bool agrees(struct test *t, const struct insn *i, const uint8_t *code, size_t len,
		   const struct native_state *in, struct native_state *got, enum native_result ours,
		   bool quiet)
{
	static struct native_state want;
	enum native_result host;

	memcpy(t->s.memory, t->before, PAGE);
	host = native_run(t->s.native, code, len, in, &want);
	memcpy(t->after, t->s.memory, PAGE);
	if (host == NATIVE_ILLEGAL && ours == NATIVE_DONE) {
		t->lacking++;
		return true;
	}
	if (host != ours) {
		if (!quiet)
			printf("  host fault %d, ours %d\n", host, ours);
		return false;
	}
	return !compare(t, i, in, &want, got, host != NATIVE_DONE, quiet);
}

/* One instruction on both sides; x87 ones often followed by FNSTENV, which shows the pointers too.
 */
static bool run(struct test *t, const struct insn *i, bool quiet)
{
	static const uint8_t fnstenv[15] = { 0xd9, 0xb6, 0x80, 0, 0, 0 }; /* FNSTENV [RSI + 128] */
	static struct native_state in, got;
	struct cpu *c = t->s.cpu;
	enum native_result ours;
	struct insn env;
	uint8_t code[30];
	char text[128];
	size_t len = i->len;
	bool with_env;
	int r;

	prepare(t, i, &in);
	with_env = i->class == CLASS_X87 && in.gpr[RSI] % PAGE < 2048 && sandbox_pick(&t->s, 2);
	insn_decode(&env, fnstenv, sizeof(fnstenv), MODE_64);
	memcpy(code, i->bytes, i->len);
	memcpy(code + i->len, fnstenv, env.len);
	sandbox_load(&t->s, &in);
	c->s.rip = native_rip(t->s.native) + i->len;
	r = sandbox_handler(i->op)(c, i);
	if (with_env) {
		len += env.len;
		c->s.rip += env.len;
		r = r ? r : sandbox_handler(env.op)(c, &env);
	}
	sandbox_store(&t->s, &got);
	memcpy(t->ours, t->s.memory, PAGE);
	ours = r == CPU_FAULT ? sandbox_fault(&t->s) : NATIVE_DONE;
	t->runs++;
	/* a context switch of the host's between instruction and FNSTENV loses the pointers */
	for (unsigned k = 0; k < 3; k++) {
		if (agrees(t, i, code, len, &in, &got, ours, true))
			return true;
	}
	if (quiet)
		return false;
	agrees(t, i, code, len, &in, &got, ours, false);
	insn_format(i, native_rip(t->s.native), text, sizeof(text));
	printf("^ %s  mxcsr %08x fcw %04x fsw %04x ftw %02x rsi %lx rdi %lx rip %lx\n", text,
	       *(uint32_t *)(in.xsave + 24), *(uint16_t *)in.xsave, *(uint16_t *)(in.xsave + 2),
	       in.xsave[4], in.gpr[RSI], in.gpr[RDI], native_rip(t->s.native));
	return false;
}

/* Rows that test-xsave.c and test-avx512.c cover. */
static bool elsewhere(unsigned op)
{
	return op == OP_AVX512 || !strncmp(sandbox_name(op), "XSAVE", 5) || !strncmp(sandbox_name(op), "XRSTOR", 6) ||
	       !strncmp(sandbox_name(op), "FXSAVE", 6) || !strncmp(sandbox_name(op), "FXRSTOR", 7);
}

static void try(struct test *t, const uint8_t *bytes)
{
	struct insn i;
	bool good = true;

	if (insn_decode(&i, bytes, 15, MODE_64) != INSN_OK || !sandbox_handler(i.op) ||
	    elsewhere(i.op))
		return;
	if (i.flags & INSN_MEM &&
	    (i.base != RSI || i.disp || (i.index != REG_NONE && !(i.flags & INSN_VSIB))))
		return; /* not the address meant: bytes that parse differently */
	if (t->only && strcmp(t->only, sandbox_name(i.op)))
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
	unsigned rm = sandbox_pick(&t->s, 7);

	for (unsigned k = at; k < 15; k++)
		b[k] = (uint8_t)sandbox_random(&t->s);
	if (form == 0)
		b[at] = (uint8_t)(0xc0 | reg << 3 | (rm + (rm >= RSP)));
	else if (form == 1)
		b[at] = (uint8_t)(reg << 3 | RSI);
	else {
		b[at] = (uint8_t)(reg << 3 | 4);
		b[at + 1] =
			(uint8_t)(sandbox_pick(&t->s, 4) << 6 | sandbox_pick(&t->s, 8) << 3 | RSI);
	}
}

static bool is_group(unsigned map, unsigned opcode)
{
	return map == 1 && ((opcode >= 0x71 && opcode <= 0x73) || opcode == 0xae ||
			    opcode == 0xc7 || opcode == 0x78);
}

static void try_legacy(struct test *t, unsigned map, unsigned opcode, unsigned pp, unsigned reg,
		       unsigned form)
{
	static const uint8_t prefix[4] = { 0, 0x66, 0xf3, 0xf2 };
	uint8_t b[15];
	unsigned at = 0, rex = sandbox_pick(&t->s, 16);

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

static void try_vex(struct test *t, unsigned map, unsigned opcode, unsigned pp, unsigned reg,
		    unsigned form)
{
	static const uint8_t order[4] = { 0, 1, 2, 3 };

	for (unsigned wl = 0; wl < 4; wl++) {
		unsigned vvvv = sandbox_pick(&t->s, 2) ? 0 : sandbox_pick(&t->s, 16);
		uint8_t b[15] = { 0xc4,
				  (uint8_t)(0x40 | (sandbox_pick(&t->s, 2) << 7) |
					    ((form ? 1 : sandbox_pick(&t->s, 2)) << 5) | map) };

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

			uint8_t wide[15] = { 0x66, (uint8_t)opcode, (uint8_t)modrm };

			if (modrm < 0xc0 && (modrm & 0xc7) != RSI)
				continue;
			for (unsigned k = 0; k < 8; k++)
				try(t, b);
			try(t, wide); /* the 16-bit environment */
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

int main(int argc, char **argv)
{
	struct test t = { .rounds = 4 };
	unsigned missing = 0;

	if (!sandbox_create(&t.s, argc > 2 ? strtoull(argv[2], NULL, 0) : 0, false))
		return 77;
	if (argc > 1)
		t.rounds = (unsigned)atoi(argv[1]);
	t.only = argc > 3 ? argv[3] : NULL;
	try_all(&t);
	for (unsigned op = 0; op < OP_COUNT && !t.only; op++) {
		if (sandbox_name(op) && !t.seen[op] && !elsewhere(op)) {
			printf("row %s was not reached\n", sandbox_name(op));
			missing++;
		}
	}
	for (unsigned op = 0; op < OP_COUNT; op++) {
		if (t.bad[op])
			printf("%-16s %u of %u encodings differ\n", sandbox_name(op), t.bad[op],
			       t.seen[op]);
	}
	printf("%u runs, %u differ, %u not on this host, %u rows not reached\n", t.runs, t.failures,
	       t.lacking, missing);
	sandbox_destroy(&t.s);
	return t.failures || missing ? 1 : 0;
}
