/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random integer instructions in 16-bit code, natively and in the interpreter: registers, flags
 * (undefined ones too, on AMD's processors) and the low 68 KiB of memory must agree. The host runs
 * 16-bit code through a segment of the LDT, on memory mapped at address 0: where that is not
 * allowed the test is skipped. Usage: test-16bit [SEED [CASES]]
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <asm/ldt.h>
#include <cpuid.h>

enum { GREG_RIP = REG_RIP }; /* the host's name for an index, ours for a base register */
#undef REG_RIP
#include "guest.h"
#include "isa/insn.h"

#define SKIP 77
#define LOW 0x11000ull	/* compared: 64 KiB and what an access may reach beyond */
#define CODE 0x18000ull /* outside, the same address on both sides */
#define SELECTOR 0x0f	/* LDT entry 1, ring 3 */
#define FLAGS (FLAGS_ARITH | FLAG_DF)

static const int gregs[8] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI
};

struct regs {
	uint32_t gpr[8];
	uint64_t flags;
};

#define LOW_BASE 0ull
static sigjmp_buf back;
static volatile bool entering;
static struct regs native; /* in, and out of the signal handler */
static volatile int ended_by;
static volatile uint64_t ended_at;
static uint64_t rng;

/* To and from address 0, which neither the compiler nor a sanitizer would have. */
static void copy(uint64_t to, uint64_t from, uint64_t count)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	return rng ^= rng << 17;
}

static uint32_t value(void)
{
	switch (next() % 5) {
	case 0:
		return (uint32_t)(next() % 3);
	case 1:
		return (uint32_t) - (next() % 3);
	case 2:
		return 1u << next() % 32;
	default:
		return (uint32_t)next();
	}
}

/* The first signal is raised to enter: its frame is rewritten. The second comes from the 16-bit
 * code. */
static void on_signal(int number, siginfo_t *info, void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;

	if (entering) {
		entering = false;
		for (unsigned n = 0; n < 8; n++)
			g[gregs[n]] = native.gpr[n];
		g[REG_EFL] = (greg_t)(((uint64_t)g[REG_EFL] & ~FLAGS) | native.flags);
		g[GREG_RIP] = CODE;
		g[REG_CSGSFS] = (greg_t)(((uint64_t)g[REG_CSGSFS] & 0x0000ffffffff0000) | SELECTOR |
					 0x2bull << 48);
		return;
	}
	ended_by = number;
	ended_at = (uint64_t)g[GREG_RIP];
	for (unsigned n = 0; n < 8; n++)
		native.gpr[n] = (uint32_t)g[gregs[n]];
	native.flags = (uint64_t)g[REG_EFL] & FLAGS;
	siglongjmp(back, 1);
}

static bool wanted(const struct insn *i)
{
	bool sp = (i->reg == 4 && i->form != FORM_RM && i->opsize > 1) || i->base == 4 ||
		  i->index == 4 ||
		  (!(i->flags & INSN_MEM) && i->modrm_at && (i->modrm & 7) == 4 && i->opsize > 1);

	if (i->class == CLASS_STRING)
		return i->op < OP_INSB && i->seg < SEG_FS;
	if (i->class != CLASS_PLAIN || sp || i->seg >= SEG_FS || i->flags & (INSN_VEX | INSN_EVEX))
		return false;
	if ((i->op >= OP_PUSH && i->op <= OP_LEAVE) || i->op == OP_RDRAND || i->op == OP_RDSEED ||
	    i->op == OP_BOUND)
		return false;
	/* memory by 32 bits must stay low, which choose_registers() sees to for a base alone */
	if (i->flags & INSN_MEM && i->addrsize == 4)
		return i->base < 8 && i->index == REG_NONE && !(i->op >= OP_BT && i->op <= OP_BTC);
	return true;
}

static bool choose_insn(struct insn *i)
{
	uint8_t b[15];
	unsigned n = 0;

	for (unsigned k = 0; k < sizeof(b); k++)
		b[k] = (uint8_t)next();
	if (next() % 4 == 0)
		b[n++] = 0x66;
	if (next() % 5 == 0)
		b[n++] = 0x67;
	if (next() % 8 == 0)
		b[n++] = next() % 2 ? 0xf2 : 0xf3;
	if (next() % 12 == 0)
		b[n++] = 0xf0;
	if (next() % 2)
		b[n] = 0x0f;
	else if (next() % 6 == 0)
		b[n] = (uint8_t)(0xa4 + next() % 12);
	return insn_decode(i, b, sizeof(b), MODE_16) == INSN_OK && wanted(i);
}

static void choose_registers(const struct insn *i, struct regs *r)
{
	for (unsigned n = 0; n < 8; n++)
		r->gpr[n] = value();
	r->gpr[RSP] = 0x8000;
	r->flags = next() & FLAGS_ARITH;
	if (i->class == CLASS_STRING) {
		r->gpr[RSI] &= 0xffff;
		r->gpr[RDI] &= 0xffff;
		r->gpr[RCX] = (uint32_t)(next() % 20);
		r->flags |= next() & FLAG_DF;
		if (i->addrsize == 4) { /* must not leave the memory there is */
			r->gpr[RSI] = 0x4000 + r->gpr[RSI] % 0x8000;
			r->gpr[RDI] = 0x4000 + r->gpr[RDI] % 0x8000;
		}
	}
	if (i->flags & INSN_MEM && i->addrsize == 4)
		r->gpr[i->base] = (uint32_t)(0x9000 - i->disp);
}

static void run_native(const struct insn *i)
{
	uint8_t bytes[32];

	memset(bytes, 0xcc, sizeof(bytes));
	memcpy(bytes, i->bytes, i->len);
	copy(LOW_BASE + CODE, (uint64_t)bytes, sizeof(bytes));
	entering = true;
	if (!sigsetjmp(back, 1)) {
		raise(SIGUSR1);
		abort();
	}
}

static enum cpu_stop run_guest(struct guest *g, const struct insn *i, const struct regs *r)
{
	struct cpu *c = &g->cpus[0];
	static const uint8_t hlt = 0xf4;

	guest_load(g, CODE, i->bytes, i->len);
	guest_load(g, CODE + i->len, &hlt, 1);
	for (unsigned n = 0; n < 8; n++)
		c->s.gpr[n] = r->gpr[n];
	c->s.rflags = 2 | r->flags;
	c->s.rip = CODE;
	c->s.activity = ACTIVITY_RUN;
	return guest_run(g, 0);
}

static bool compare(struct guest *g, const struct insn *i, enum cpu_stop stop, const uint8_t *after,
		    uint64_t mask)
{
	const struct cpu *c = &g->cpus[0];
	bool done = ended_by == SIGTRAP && ended_at == CODE + i->len + 1;
	bool same = done == (stop == STOP_HLT);
	static uint8_t low[LOW];

	for (unsigned n = 0; n < 8 && done; n++)
		same = same && (uint32_t)c->s.gpr[n] == native.gpr[n];
	copy((uint64_t)low, LOW_BASE, LOW);
	if (done)
		same = same && !((c->s.rflags ^ native.flags) & mask) && !memcmp(low, after, LOW);
	return same;
}

static void report(const struct guest *g, const struct insn *i, const struct regs *in)
{
	const struct cpu *c = &g->cpus[0];
	char text[96];

	insn_format(i, CODE, text, sizeof(text));
	printf("%s: native ended by signal %d\n", text, ended_by);
	for (unsigned n = 0; n < 8; n++)
		printf("  r%u %08x -> native %08x, ours %08x\n", n, in->gpr[n], native.gpr[n],
		       (uint32_t)c->s.gpr[n]);
	printf("  flags %03llx -> native %03llx, ours %03llx\n", (unsigned long long)in->flags,
	       (unsigned long long)native.flags, (unsigned long long)(c->s.rflags & FLAGS));
}

static bool host_prepare(void)
{
	static const int signals[] = { SIGILL, SIGSEGV, SIGFPE, SIGBUS, SIGTRAP, SIGUSR1 };
	static uint8_t stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_sigaction = on_signal,
				    .sa_flags = SA_ONSTACK | SA_NODEFER | SA_SIGINFO };
	struct user_desc d = { .entry_number = 1,
			       .limit = 0xfffff,
			       .contents = 2,
			       .limit_in_pages = 1,
			       .useable = 1 };

	if (mmap(NULL, 0x20000, PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ||
	    syscall(SYS_modify_ldt, 1, &d, sizeof(d)))
		return false;
	sigaltstack(&alternate, NULL);
	for (unsigned n = 0; n < ARRAY_LEN(signals); n++)
		sigaction(signals[n], &action, NULL);
	return true;
}

/* Other vendors set undefined flags differently. */
static bool host_is_amd(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx;
}

int main(int argc, char **argv)
{
	static uint8_t before[LOW], after[LOW];
	unsigned long cases = argc > 2 ? strtoul(argv[2], NULL, 0) : 20000, compared = 0,
		      failures = 0;
	struct err e = { 0 };
	struct guest g;

	if (!host_is_amd() || !host_prepare() || guest_create(&g, 1, &engine_interp, &e))
		return SKIP;
	rng = 0x9e3779b97f4a7c15 * (argc > 1 ? strtoull(argv[1], NULL, 0) : 1);
	guest_protected(&g, 0);
	g.cpus[0].s.seg[SEG_CS].attr &= (uint16_t)~SEG_ATTR_DB;
	for (unsigned k = 0; k < LOW; k++)
		before[k] = (uint8_t)next();
	for (unsigned long n = 0; n < cases; n++) {
		struct regs in;
		struct insn i;
		enum cpu_stop stop;

		if (!choose_insn(&i))
			continue;
		choose_registers(&i, &in);
		native = in;
		copy(LOW_BASE, (uint64_t)before, LOW);
		run_native(&i);
		if (ended_by == SIGSEGV) /* outside the memory there is */
			continue;
		guest_load(&g, 0, before, LOW);
		stop = run_guest(&g, &i, &in);
		guest_read(&g, 0, after, LOW);
		compared++;
		if (!compare(&g, &i, stop, after, FLAGS) && failures++ < 5)
			report(&g, &i, &in);
	}
	guest_destroy(&g);
	printf("%lu of %lu cases compared, %lu differ\n", compared, cases, failures);
	return failures || compared < cases / 20;
}
