/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host signals in translated code.
 *
 * A kick finds the guest instruction whose host code was interrupted. While that has not changed guest state yet (the
 * first `zone` bytes, see struct insn_map, and is not held back by an STI before it) the state is that before the instruction: the thread is sent to the exit
 * with rip there. Otherwise it is single-stepped on until it is. In C code the kick is only noted: every way back
 * into translated code looks at hot->kick.
 *
 * A fault of the host (division, alignment of SSE operands, unmasked floating-point exceptions) leaves the same way, and the
 * interpreter executes the instruction: it knows which exception is the guest's.
 *
 * The handlers run on the thread's alternate stack, RSP being the guest's. The interrupted thread holds no lock when it
 * is in translated code, so taking dbt->lock here is safe.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#undef REG_RIP /* an enumerator of <ucontext.h> too: used here by the names below */
#include <unistd.h>
#include "base/err.h"
#include "base/kick.h"
#include "engine/dbt/dbt.h"

#define HOST_TF 0x100
#define SIGNAL_STACK 65536u
/* The kernel must not take a guest's stack pointer that lies in the signal stack for a signal underway. */
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

enum { UC_R13 = REG_R13, UC_R14 = REG_R14, UC_RIP = REG_CR2 - 6, UC_EFL = REG_EFL };
enum { UC_RDI = REG_RDI, UC_RSI = REG_RSI, UC_RAX = REG_RAX, UC_RCX = REG_RCX };
/* gregs by register number, of those that may be exchanged */
static const uint8_t uc_gpr[GUEST_HOST_REGS] = {
	[RBX] = REG_RBX, [RSI] = REG_RSI, [RDI] = REG_RDI, [R8] = REG_R8, [R9] = REG_R9,
	[R10] = REG_R10, [R11] = REG_R11, [R12] = REG_R12,
};
_Static_assert(UC_EFL == UC_RIP + 1, "order of gregs");

/* Signal dispositions are the process's; which vCPU the thread runs is found here. */
static _Thread_local struct dbt_cpu *signal_self;

static bool between(uintptr_t pc, const char *from, const char *to)
{
	return pc >= (uintptr_t)from && pc < (uintptr_t)to;
}

static bool in_cache(const struct dbt_cpu *dc, uintptr_t pc)
{
	return pc - (uintptr_t)dc->d->rx < dc->d->size;
}

/* Leave translated code with rip at instruction idx of b. */
static void redirect(struct dbt_cpu *dc, ucontext_t *uc, const struct block *b, int idx, enum dbt_exit why)
{
	greg_t *g = uc->uc_mcontext.gregs;
	struct dbt_hot *h = dbt_hot(dc->c);

	for (unsigned n = 0; n < b->nswaps; n++) { /* exchange them back */
		greg_t *host = &g[uc_gpr[b->swap[n].host]];
		uint64_t *home = &dc->c->s.gpr[b->swap[n].guest], v = *home;

		*home = (uint64_t)*host;
		*host = (greg_t)v;
	}
	if (b->map[idx].flags == FL_H)
		h->flags = flags_to_m((uint64_t)g[UC_EFL]);
	dc->c->s.rip = block_rip(b, (unsigned)idx);
	g[UC_R13] = why;
	g[UC_R14] = idx + 1; /* told apart from a kick met in C, for engine=verify */
	g[UC_RIP] = (greg_t)(uintptr_t)dbt_stub_exit_m;
	g[UC_EFL] &= ~HOST_TF;
}

/* At or in the instruction, before it changed anything? */
static bool boundary_at(const struct dbt_cpu *dc, uintptr_t pc, const struct block **b, int *idx)
{
	*b = dbt_cache_find(dc->d, pc);
	if (!*b)
		return false;
	*idx = block_insn_at(dc->d, *b, pc);
	return *idx >= 0 && !(*b)->map[*idx].shadowed && pc <= (uintptr_t)dbt_exec(dc->d, (*b)->map[*idx].host) + (*b)->map[*idx].zone;
}

/*
 * A REP MOVS or STOS of ours underway: all of it is known to lie in checked pages, so do the rest here. Stepping through
 * it would take a signal for each round.
 */
static void rep_complete(greg_t *g)
{
	const uint8_t *code = (const uint8_t *)(uintptr_t)g[UC_RIP];
	uint64_t count = (uint64_t)g[UC_RCX];
	unsigned at = 1, size = 4;
	bool moves;

	if (code[0] != 0xf3)
		return;
	if (code[at] == 0x66 || code[at] == 0x48)
		size = code[at++] == 0x66 ? 2 : 8;
	if ((code[at] & 0xfe) != 0xa4 && (code[at] & 0xfe) != 0xaa)
		return;
	if (!(code[at] & 1))
		size = 1;
	moves = code[at] < 0xa8;
	for (uint64_t n = 0; n < count; n++) { /* forwards, element by element: the areas may overlap */
		__builtin_memcpy((void *)(uintptr_t)g[UC_RDI], moves ? (void *)(uintptr_t)g[UC_RSI] : &g[UC_RAX], size);
		g[UC_RDI] += size;
		if (moves)
			g[UC_RSI] += size;
	}
	g[UC_RCX] = 0;
	g[UC_RIP] += at + 1;
}

static void kicked(struct dbt_cpu *dc, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	uintptr_t pc = (uintptr_t)g[UC_RIP];
	const struct block *b;
	int idx;

	g[UC_EFL] &= ~HOST_TF;
	if (between(pc, dbt_enter_check, dbt_enter_go) || between(pc, dbt_slow_check, dbt_slow_go)) {
		g[UC_RIP] = (greg_t)(uintptr_t)dbt_stub_kicked;
		return;
	}
	if (!in_cache(dc, pc))
		return;
	pthread_mutex_lock(&dc->d->lock);
	if (boundary_at(dc, pc, &b, &idx)) {
		redirect(dc, uc, b, idx, EXIT_KICK);
	} else {
		rep_complete(g);
		g[UC_EFL] |= HOST_TF;
	}
	pthread_mutex_unlock(&dc->d->lock);
}

static void kick_handler(void *opaque, void *ucontext)
{
	struct dbt_cpu *dc = opaque;

	__atomic_store_n(&dbt_hot(dc->c)->kick, 1, __ATOMIC_RELAXED);
	kicked(dc, ucontext);
}

/* Not ours: what would have happened without us. */
static void not_ours(int number)
{
	if (number == SIGBUS && write(STDERR_FILENO, MEM_LOST, sizeof(MEM_LOST) - 1) < 0) {
		/* nobody is listening */
	}
	signal(number, SIG_DFL);
	raise(number);
}

static void fault_handler(int number, siginfo_t *info, void *ucontext)
{
	struct dbt_cpu *dc = signal_self;
	ucontext_t *uc = ucontext;
	uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[UC_RIP];
	const struct block *b = NULL;
	int saved = errno, idx = -1;

	if (number == SIGTRAP && dc && uc->uc_mcontext.gregs[UC_EFL] & HOST_TF) {
		kicked(dc, uc);
		errno = saved;
		return;
	}
	if (dc && in_cache(dc, pc)) {
		pthread_mutex_lock(&dc->d->lock);
		b = dbt_cache_find(dc->d, pc);
		idx = b ? block_insn_at(dc->d, b, pc) : -1;
		if (idx >= 0)
			redirect(dc, uc, b, idx, EXIT_STEP);
		pthread_mutex_unlock(&dc->d->lock);
	}
	if (idx < 0 && !(number == SIGILL && evex_recover(uc)))
		not_ours(number);
	errno = saved;
}

/* A kick for a vCPU whose thread has no struct kick_thread (tests). */
static void own_kick_handler(int number, siginfo_t *info, void *ucontext)
{
	int saved = errno;

	if (signal_self)
		kick_handler(signal_self, ucontext);
	errno = saved;
}

static int own_kick_signal(void)
{
	return SIGRTMIN + 3;
}

/* hot->kick is set. An interrupt that an instruction of ours sends to ourselves would take two signals' time, 3 us. */
void signals_kick(struct dbt_cpu *dc)
{
	if (signal_self == dc && dc->calling)
		return;
	if (dc->c->thread)
		kick_send(dc->c->thread);
	else
		syscall(SYS_tgkill, getpid(), dc->tid, own_kick_signal());
}

int signals_install(struct err *e)
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction sa = { .sa_sigaction = fault_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigfillset(&sa.sa_mask);
	for (unsigned n = 0; n < ARRAY_LEN(numbers); n++) {
		if (sigaction(numbers[n], &sa, NULL))
			return err_errno(e, "translator: cannot handle signal %d", numbers[n]);
	}
	sa.sa_sigaction = own_kick_handler;
	if (sigaction(own_kick_signal(), &sa, NULL))
		return err_errno(e, "translator: cannot handle its signal");
	return 0;
}

int signals_attach(struct dbt_cpu *dc, struct err *e)
{
	stack_t now, own = { .ss_size = SIGNAL_STACK, .ss_flags = SS_AUTODISARM };

	if (sigaltstack(NULL, &now))
		return err_errno(e, "translator: no signal stack");
	if (now.ss_flags & SS_DISABLE) {
		dc->signal_stack = malloc(SIGNAL_STACK);
		own.ss_sp = dc->signal_stack;
		if (!dc->signal_stack || sigaltstack(&own, NULL))
			return err_errno(e, "translator: cannot set a signal stack");
	}
	dc->tid = (int)syscall(SYS_gettid);
	signal_self = dc;
	if (dc->c->thread)
		kick_set(dc->c->thread, kick_handler, dc);
	return 0;
}

void signals_detach(struct dbt_cpu *dc)
{
	stack_t off = { .ss_flags = SS_DISABLE };

	if (dc->c->thread)
		kick_set(dc->c->thread, NULL, NULL);
	signal_self = NULL;
	if (dc->signal_stack)
		sigaltstack(&off, NULL);
	free(dc->signal_stack);
}
