/* SPDX-License-Identifier: Apache-2.0 */
/* Hints, fences, cache-line flushes and random numbers. */
#include <sched.h>
#include <sys/random.h>
#include "engine/interp/private.h"

int misc_nop(struct cpu *c, const struct insn *i)
{
	return CPU_OK;
}

/*
 * A spinning CPU waits for another one of the machine, which may be waiting for this very host CPU: after some microseconds,
 * longer than any lock is held by a CPU that runs, it steps aside.
 */
#define PAUSES_TO_YIELD 64
int misc_pause(struct cpu *c, const struct insn *i)
{
	__builtin_ia32_pause();
	if (c->machine->ncpus > 1 && ++c->pauses % PAUSES_TO_YIELD == 0)
		sched_yield();
	return CPU_OK;
}

/* Guest accesses are host accesses in the same order; only a store passing a later load must be
 * held back. */
int misc_fence(struct cpu *c, const struct insn *i)
{
	if (i->op == OP_MFENCE)
		atomic_thread_fence(memory_order_seq_cst);
	return CPU_OK;
}

/* Checked as a load of one byte; there is no cache to flush. */
int misc_clflush(struct cpu *c, const struct insn *i)
{
	gva_t at;
	int r = operand_linear(c, i, 1, false, &at);

	return r ? r : cpu_probe(c, at, 1, ACCESS_READ);
}

int misc_rdrand(struct cpu *c, const struct insn *i)
{
	const struct cpuid_model *m = c->machine->cpuid;
	uint64_t v;
	bool ok;

	if (!(i->op == OP_RDRAND ? m->has_rdrand : m->has_rdseed))
		return raise_ud(c);
	ok = getrandom(&v, sizeof(v), GRND_NONBLOCK) == sizeof(v);
	reg_set(c, i->rm, false, i->opsize, ok ? v : 0);
	flags_set(c, ok ? FLAG_CF : 0);
	return CPU_OK;
}
