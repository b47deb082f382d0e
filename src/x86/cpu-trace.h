/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trace points that know of CPUs. Each is to be called under trace_on(c->machine->trace, category), which is inline
 * and all that a machine without traces pays; use cpu_traces().
 */
#ifndef X86_CPU_TRACE_H
#define X86_CPU_TRACE_H

#include "base/trace.h"
#include "x86/cpu.h"

struct insn;

static inline bool cpu_traces(const struct cpu *c, enum trace_category category)
{
	return trace_on(c->machine->trace, category);
}

/* Before it is executed; rip is that of the instruction. */
void trace_insn(struct cpu *c, const struct insn *i);
void trace_forget(struct cpu *c); /* frees what traces keep of it */
/* cpu->fault is about to be delivered. */
void trace_exception(struct cpu *c);
/* what: "irq", "nmi", "init", "sipi", "smi" */
void trace_interrupt(struct cpu *c, const char *what, uint8_t vector);
void trace_msr(struct cpu *c, bool write, uint32_t index, uint64_t value, bool fault);
void trace_cpuid(struct cpu *c, uint32_t leaf, uint32_t subleaf, const uint32_t out[4]);
/* name: "cr0", "dr7", "xcr0" */
void trace_control(struct cpu *c, const char *name, uint64_t value);

#endif
