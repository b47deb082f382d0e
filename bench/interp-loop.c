/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the interpreter is: small guest loops on a machine without devices, in million
 * instructions a second. Usage: interp-loop [MILLION-INSTRUCTIONS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "guest.h"

struct program {
	const char *name, *what;
	unsigned insns; /* in a round of the loop */
	uint8_t code[64];
};

/* Each counts ecx down to a HLT; rsi points to data. */
static const struct program programs[] = {
	{ "integer",
	  "add, xor, lea, shift, store, load-add",
	  8,
	  { /* l: add rax,rbx; xor rdx,rax; lea rbx,[rbx+rax+3]; mov [rsi],rax; add rdi,[rsi]; shr
	       rdx,3; dec ecx; jnz l */
	    0x48, 0x01, 0xd8, 0x48, 0x31, 0xc2, 0x48, 0x8d, 0x5c, 0x03, 0x03, 0x48, 0x89,
	    0x06, 0x48, 0x03, 0x3e, 0x48, 0xc1, 0xea, 0x03, 0xff, 0xc9, 0x75, 0xe7, 0xf4 } },
	{ "calls",
	  "call, push, pop, ret, a branch",
	  9,
	  { /* l: call f; test al,1; jz m; m: dec ecx; jnz l; hlt; f: push rbx; mov rbx,rax; pop
	       rbx; ret */
	    0xe8, 0x09, 0x00, 0x00, 0x00, 0xa8, 0x01, 0x74, 0x00, 0xff,
	    0xc9, 0x75, 0xf3, 0xf4, 0x53, 0x48, 0x89, 0xc3, 0x5b, 0xc3 } },
	{ "copy",
	  "byte copy through memory",
	  6,
	  { /* l: movzx eax,byte [rsi+rdx]; mov [rsi+rdx+64],al; inc edx; and edx,63; dec ecx; jnz l
	     */
	    0x0f,
	    0xb6, 0x04, 0x16, 0x88, 0x44, 0x16, 0x40, 0xff, 0xc2, 0x83, 0xe2, 0x3f, 0xff, 0xc9,
	    0x75, 0xef, 0xf4 } },
};

/* Of processor time: what else the host does must not count. */
static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int measure(struct guest *g, const struct program *p, uint64_t insns)
{
	struct cpu *c = &g->cpus[0];
	double start, took;

	guest_long(g, 0);
	guest_load(g, GUEST_CODE, p->code, sizeof(p->code));
	c->s.gpr[RSI] = GUEST_DATA;
	c->s.gpr[RCX] = insns / p->insns;
	start = seconds();
	if (guest_run(g, 0) != STOP_HLT || c->s.gpr[RCX]) {
		fprintf(stderr, "interp-loop: %s did not finish\n", p->name);
		return 1;
	}
	took = seconds() - start;
	printf("interp %-8s %7.1f million instructions a second (%s)\n", p->name,
	       (double)(insns / p->insns * p->insns) / took / 1e6, p->what);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t insns = (argc > 1 ? strtoull(argv[1], NULL, 0) : 200) * 1000000;
	struct err e = { 0 };
	struct guest g;
	int r = 0;

	if (insns < 1000000 || guest_create(&g, 1, &engine_interp, &e)) {
		fprintf(stderr, "interp-loop: %s\n", e.text);
		return 1;
	}
	for (unsigned n = 0; n < ARRAY_LEN(programs) && !r; n++)
		r = measure(&g, &programs[n], insns);
	guest_destroy(&g);
	return r;
}
