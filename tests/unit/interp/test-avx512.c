/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX-512 against the host's CPU: random EVEX encodings and opmask instructions, valid or not, with random registers, masks,
 * memory and MXCSR, operands at the end of the mapped page included. Registers, flags, memory and which fault
 * are compared. Skipped where the host has no AVX-512.
 *
 *	test-avx512 [cases [seed]]
 */
#include <setjmp.h>
#include <signal.h>
#undef REG_RIP /* an enumerator of <signal.h> too */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/err.h"
#include "engine/interp/evex.h"
#include "engine/interp/interp.h"
#include "engine/interp/simd.h"
#include "sandbox.h"

#define SKIPPED 77
#define MAX_REPORTS 20u

/* The offsets are in the assembly below. */
struct state {
	union x86_vreg v[32]; /* 0 */
	uint64_t k[8];	      /* 2048 */
	uint64_t gpr[16];     /* 2112; RSP and RDI are not used */
	uint64_t rflags;      /* 2240 */
	uint64_t mxcsr;	      /* 2248 */
} __attribute__((aligned(64)));

struct test {
	struct sandbox s;
	uint8_t *code;
	struct state in, want, got;
	uint8_t before[PAGE], after[PAGE], ours[PAGE];
	unsigned runs, done, faults, refused, failures;
};

#define EACH16(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)
#define EACH16_31(x) x(16) x(17) x(18) x(19) x(20) x(21) x(22) x(23) x(24) x(25) x(26) x(27) x(28) x(29) x(30) x(31)
#define EACH8(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7)
#define LOAD_V(n) "vmovdqu64 64*" #n "(%rdi), %zmm" #n "\n"
#define SAVE_V(n) "vmovdqu64 %zmm" #n ", 64*" #n "(%rdi)\n"
#define LOAD_K(n) "kmovq 2048+8*" #n "(%rdi), %k" #n "\n"
#define SAVE_K(n) "kmovq %k" #n ", 2048+8*" #n "(%rdi)\n"
#define GPRS(op)                                                                                                  \
	op(0, rax) op(1, rcx) op(2, rdx) op(3, rbx) op(5, rbp) op(6, rsi) op(8, r8) op(9, r9) op(10, r10) op(11, r11) \
		op(12, r12) op(13, r13) op(14, r14) op(15, r15)
#define LOAD_G(n, r) "mov 2112+8*" #n "(%rdi), %" #r "\n"
#define SAVE_G(n, r) "mov %" #r ", 2112+8*" #n "(%rdi)\n"

/* native(state, code): the instruction at `code` is followed by a RET. */
void avx512_native(struct state *s, void *code);
__asm__(".text\navx512_native:\n"
	"push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\npush %rsi\n"
	"push 2240(%rdi)\npopf\nldmxcsr 2248(%rdi)\n" EACH16(LOAD_V) EACH16_31(LOAD_V) EACH8(LOAD_K) GPRS(LOAD_G)
	"call *(%rsp)\n" EACH16(SAVE_V) EACH16_31(SAVE_V) EACH8(SAVE_K) GPRS(SAVE_G)
	"pushf\npop 2240(%rdi)\nstmxcsr 2248(%rdi)\n"
	"pop %rsi\npop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nvzeroupper\nret\n");

/* A signal handler has nothing else to find its way by. */
static sigjmp_buf back;
static volatile sig_atomic_t running;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	if (sig == SIGILL && evex_recover(context))
		return;
	if (!running) {
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	running = 0;
	siglongjmp(back, sig);
}

static enum native_result run_native(struct test *t, const struct insn *i)
{
	const uint32_t mxcsr = MXCSR_DEFAULT;
	int sig;

	memcpy(t->code, i->bytes, i->len);
	t->code[i->len] = 0xc3;
	t->want = t->in;
	sig = sigsetjmp(back, 1);
	if (!sig) {
		running = 1;
		avx512_native(&t->want, t->code);
		running = 0;
	}
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
	switch (sig) {
	case 0:
		return NATIVE_DONE;
	case SIGILL:
		return NATIVE_ILLEGAL;
	case SIGFPE:
		return NATIVE_ARITHMETIC;
	default:
		return NATIVE_MEMORY;
	}
}

static enum native_result run_ours(struct test *t, const struct insn *i)
{
	struct x86_state *s = &t->s.cpu->s;
	int r;

	memcpy(s->v, t->in.v, sizeof(s->v));
	memcpy(s->k, t->in.k, sizeof(s->k));
	memcpy(s->gpr, t->in.gpr, sizeof(s->gpr));
	s->rflags = t->in.rflags;
	s->mxcsr = (uint32_t)t->in.mxcsr;
	r = evex_exec(t->s.cpu, i);
	memcpy(t->got.v, s->v, sizeof(s->v));
	memcpy(t->got.k, s->k, sizeof(s->k));
	memcpy(t->got.gpr, s->gpr, sizeof(s->gpr));
	t->got.rflags = s->rflags;
	t->got.mxcsr = s->mxcsr;
	return r ? sandbox_fault(&t->s) : NATIVE_DONE;
}

/* ---- cases ---- */

static unsigned pick(struct test *t, unsigned n)
{
	return sandbox_pick(&t->s, n);
}

static void random_state(struct test *t, const struct insn *i)
{
	uint64_t page = (uint64_t)t->s.memory;
	unsigned where = pick(t, 8);

	sandbox_fill(&t->s, t->s.memory, PAGE);
	for (unsigned n = 0; n < 32; n++)
		sandbox_fill(&t->s, t->in.v[n].b, 64);
	for (unsigned n = 0; n < 8; n++) {
		t->in.k[n] = sandbox_random(&t->s);
		if (!pick(t, 4))
			t->in.k[n] &= sandbox_random(&t->s) & sandbox_random(&t->s);
		if (!pick(t, 6))
			t->in.k[n] = pick(t, 2) ? 0 : ~0ull;
	}
	for (unsigned n = 0; n < 16; n++)
		t->in.gpr[n] = sandbox_random(&t->s) >> pick(t, 64);
	t->in.gpr[RSI] = where == 0   ? page + pick(t, 2048) + 1024
			 : where == 1 ? page + PAGE - (i->memsize ? i->memsize : 64)
			 : where == 2 ? page + PAGE - pick(t, 64)
				      : page + 1024 + 64 * pick(t, 32);
	if (where < 3)
		t->in.gpr[RSI] -= (uint64_t)i->disp;
	if (i->flags & INSN_VSIB) {
		unsigned size = pick(t, 2) ? 4 : 8;

		t->in.gpr[RSI] = page + 2048;
		for (unsigned n = 0; n < 64 / size; n++) {
			int64_t v = (int64_t)pick(t, 200) - 100;

			memcpy(&t->in.v[i->index].b[n * size], &v, size);
		}
	}
	t->in.rflags = 0x202 | (sandbox_random(&t->s) & FLAGS_ARITH);
	t->in.mxcsr = MXCSR_DEFAULT | pick(t, 4) << MXCSR_RC_SHIFT | pick(t, 64);
	if (!pick(t, 3))
		t->in.mxcsr |= pick(t, 2) ? MXCSR_DAZ : MXCSR_FTZ;
	if (!pick(t, 6)) /* something unmasked */
		t->in.mxcsr &= ~((uint64_t)BIT(7 + pick(t, 6)) | MXCSR_FLAGS);
	memcpy(t->before, t->s.memory, PAGE);
}

/* Bytes that may be one of the instructions: a memory operand is at [RSI + disp8]. */
static unsigned random_operand(struct test *t, uint8_t *b)
{
	unsigned reg = pick(t, 8), at = 0;

	if (pick(t, 2)) {
		b[at++] = (uint8_t)(0xc0 | reg << 3 | pick(t, 8));
	} else if (pick(t, 8)) {
		b[at++] = (uint8_t)(0x40 | reg << 3 | RSI);
		b[at++] = (uint8_t)(pick(t, 8) - 4);
	} else {
		b[at++] = (uint8_t)(0x44 | reg << 3);
		b[at++] = (uint8_t)(pick(t, 4) << 6 | pick(t, 8) << 3 | RSI);
		b[at++] = (uint8_t)(pick(t, 8) - 4);
	}
	return at;
}

static void random_evex(struct test *t, uint8_t *b)
{
	unsigned map = 1 + pick(t, 3), vvvv = pick(t, 2) ? 0 : pick(t, 32), at = 6;
	bool memory = pick(t, 2);

	b[0] = 0x62;
	b[1] = (uint8_t)(map | (pick(t, 2) << 7) | (pick(t, 2) << 6) | ((memory || pick(t, 2)) << 5) | (pick(t, 2) << 4));
	b[2] = (uint8_t)(pick(t, 2) << 7 | (~vvvv & 15) << 3 | 4 | (pick(t, 3) ? 1 : pick(t, 4)));
	b[3] = (uint8_t)((pick(t, 8) ? pick(t, 3) : 3) << 5 | (vvvv & 16 ? 0 : 8) | (pick(t, 3) ? pick(t, 8) : 0));
	if (!pick(t, 3))
		b[3] |= 0x80;
	if (!pick(t, 4))
		b[3] |= 0x10;
	if (!pick(t, 200))
		b[1 + pick(t, 3)] ^= (uint8_t)BIT(pick(t, 8));
	b[4] = (uint8_t)pick(t, 256);
	at = 5 + random_operand(t, b + 5);
	for (; at < 15; at++)
		b[at] = (uint8_t)sandbox_random(&t->s);
}

static void random_opmask(struct test *t, uint8_t *b)
{
	unsigned vvvv = pick(t, 2) ? 0 : pick(t, 8), map = pick(t, 3) ? 1 : 3, at;

	b[0] = 0xc4;
	b[1] = (uint8_t)(0xe0 | map);
	b[2] = (uint8_t)(pick(t, 2) << 7 | (~vvvv & 15) << 3 | pick(t, 2) << 2 | pick(t, 4));
	if (!pick(t, 50))
		b[1 + pick(t, 2)] ^= (uint8_t)BIT(pick(t, 8));
	b[3] = (uint8_t)(map == 3 ? 0x30 + pick(t, 4) : pick(t, 2) ? 0x41 + pick(t, 11) : 0x90 + pick(t, 10));
	at = 4 + random_operand(t, b + 4);
	for (; at < 15; at++)
		b[at] = (uint8_t)sandbox_random(&t->s);
}

/* One that both sides can be asked about. */
static bool usable(const struct test *t, const struct insn *i)
{
	struct evex e;

	if (i->op != OP_AVX512)
		return false;
	if (i->flags & INSN_MEM && (i->base != RSI || (i->index != REG_NONE && !(i->flags & INSN_VSIB))))
		return false;
	evex_shape(&e, i);
	if (!e.known || !evex_offered(&t->s.model, e.need))
		return false;
	/* the host's own RSP, and RDI, which holds the state */
	return !e.general || (e.general_at != RSP && e.general_at != RDI);
}

static bool same(struct test *t, const struct insn *i, enum native_result host, enum native_result ours, bool loud)
{
	bool good = true;
	char what[16];

#define SAME(name, a, b, n)                                                                                              \
	do {                                                                                                             \
		if (memcmp(a, b, n)) {                                                                                   \
			good = false;                                                                                    \
			if (loud)                                                                                        \
				printf("  %s differs\n", name);                                                          \
		}                                                                                                        \
	} while (0)
	if (host != ours) {
		if (loud)
			printf("  fault of the host %d, ours %d\n", host, ours);
		return false;
	}
	if (host && i->flags & INSN_VSIB)
		return true; /* which elements were moved before is left open */
	for (unsigned n = 0; n < 32 && !host; n++) {
		snprintf(what, sizeof(what), "zmm%u", n);
		SAME(what, &t->want.v[n], &t->got.v[n], 64);
	}
	for (unsigned n = 0; n < 8 && !host; n++) {
		snprintf(what, sizeof(what), "k%u", n);
		SAME(what, &t->want.k[n], &t->got.k[n], 8);
	}
	for (unsigned n = 0; n < 16 && !host; n++) {
		snprintf(what, sizeof(what), "gpr%u", n);
		if (n != RSP && n != RDI)
			SAME(what, &t->want.gpr[n], &t->got.gpr[n], 8);
	}
	if (!host) {
		SAME("rflags", &t->want.rflags, &t->got.rflags, 8);
		SAME("mxcsr", &t->want.mxcsr, &t->got.mxcsr, 4);
	}
	SAME("memory", t->after, t->ours, PAGE);
	return good;
}

static void try(struct test *t, const struct insn *i)
{
	enum native_result host, ours;
	char text[128];

	random_state(t, i);
	host = run_native(t, i);
	memcpy(t->after, t->s.memory, PAGE);
	memcpy(t->s.memory, t->before, PAGE);
	ours = run_ours(t, i);
	memcpy(t->ours, t->s.memory, PAGE);
	t->runs++;
	t->done += host == NATIVE_DONE;
	t->faults += host == NATIVE_MEMORY || host == NATIVE_ARITHMETIC;
	t->refused += host == NATIVE_ILLEGAL;
	if (same(t, i, host, ours, false))
		return;
	if (t->failures++ >= MAX_REPORTS)
		return;
	same(t, i, host, ours, true);
	insn_format(i, 0, text, sizeof(text));
	printf("^ %s  rsi %lx of %lx, mxcsr %lx, k%u %lx, bytes", text, t->in.gpr[RSI], (uint64_t)t->s.memory, t->in.mxcsr,
	       i->opmask, t->in.k[i->opmask]);
	for (unsigned n = 0; n < i->len; n++)
		printf(" %02x", i->bytes[n]);
	printf("\n");
}

static bool create(struct test *t, uint64_t seed)
{
	static const int signals[] = { SIGILL, SIGSEGV, SIGBUS, SIGFPE };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct err e;

	if (!sandbox_create(&t->s, seed, false) || cpuid_build(&t->s.model, "host", 1, 1000000, &e) ||
	    !t->s.model.has_avx512)
		return false;
	t->code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	t->s.cpu->evex = evex_unit_create(&e);
	t->s.cpu->s.xcr0 = 0xe7;
	for (unsigned n = 0; n < ARRAY_LEN(signals); n++)
		sigaction(signals[n], &sa, NULL);
	return t->code != MAP_FAILED && t->s.cpu->evex;
}

int main(int argc, char **argv)
{
	unsigned cases = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 200000;
	static struct test t;

	if (!create(&t, argc > 2 ? strtoull(argv[2], NULL, 0) : 1)) {
		printf("skipped: this host has no AVX-512\n");
		return SKIPPED;
	}
	for (unsigned n = 0; n < cases; n++) {
		uint8_t bytes[15];
		struct insn i;

		if (pick(&t, 8))
			random_evex(&t, bytes);
		else
			random_opmask(&t, bytes);
		if (insn_decode(&i, bytes, sizeof(bytes), MODE_64) == INSN_OK && usable(&t, &i))
			try(&t, &i);
	}
	printf("%u instructions (%u done, %u faults, %u refused by the host), %u differ\n", t.runs, t.done, t.faults, t.refused,
	       t.failures);
	evex_unit_destroy(t.s.cpu->evex);
	sandbox_destroy(&t.s);
	return t.failures || t.done < t.runs / 4 ? 1 : 0;
}
