/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WRMSR of what kernels write all the time in 64-bit code of level 0, and INVLPG in any.
 *
 * MSRs of the local APIC are its own code's, which may use vector registers; but the block goes on unless an interrupt is to be
 * taken now, and whether one waits is known exactly, so that neither STI nor IRET has to leave in order to look.
 */
#include "engine/dbt/quick.h"
#include "x86/event.h"
#include "x86/msr.h"

#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC 0x800u
#define MSR_X2APIC_END 0x8ffu

static enum quick_result apic_write(struct cpu *c, uint32_t index, uint64_t value)
{
	struct fp_was was = fp_put_by(c);
	bool waiting;
	int r;

	dbt_cpu(c)->calling = true;
	r = msr_write(c, index, value);
	waiting = r != CPU_FAULT && event_interrupt_waiting(c);
	dbt_cpu(c)->calling = false;
	fp_take_up(c, was);
	if (r == CPU_FAULT)
		return QUICK_NOT;
	dbt_hot(c)->irq_check = waiting;
	return waiting && c->s.rflags & FLAG_IF ? QUICK_LEAVE : QUICK_DONE;
}

static enum quick_result base_write(uint64_t *base, uint64_t value)
{
	if ((uint64_t)((int64_t)(value << 16) >> 16) != value)
		return QUICK_NOT;
	*base = value;
	return QUICK_DONE;
}

enum quick_result quick_wrmsr(struct cpu *c)
{
	uint32_t index = (uint32_t)c->s.gpr[RCX];
	uint64_t value = c->s.gpr[RDX] << 32 | (uint32_t)c->s.gpr[RAX];

	if (c->s.cpl || c->machine->trace)
		return QUICK_NOT;
	switch (index) {
	case MSR_FS_BASE:
		return base_write(&c->s.seg[SEG_FS].base, value);
	case MSR_GS_BASE:
		return base_write(&c->s.seg[SEG_GS].base, value);
	case MSR_KERNEL_GS_BASE:
		return base_write(&c->s.kernel_gs_base, value);
	case MSR_TSC_DEADLINE:
	case MSR_X2APIC ... MSR_X2APIC_END:
		return apic_write(c, index, value);
	default:
		return QUICK_NOT;
	}
}

enum quick_result quick_invlpg(struct cpu *c, uint64_t ea)
{
	const struct dbt_cpu *dc = dbt_cpu(c);

	if (c->s.cpl)
		return QUICK_NOT;
	if ((uint64_t)((int64_t)(ea << 16) >> 16) != ea)
		return QUICK_DONE; /* of nothing */
	tlb_flush_page(c, ea);
	return dc->code_changes == c->tlb.code_changes && dc->local_changes == c->tlb.local_changes ? QUICK_DONE : QUICK_MOVED;
}
