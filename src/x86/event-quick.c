/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and interrupts as kernels take them: from 64-bit code through a gate of the 64-bit IDT to the flat code segment of level 0, on
 * the stack of the TSS, of an IST entry or the current one; tables and stack in memory the software TLB knows. All else is
 * event.c's, to which this leaves everything as it was. Built with general registers only and calls nothing that is not, so that
 * the guest's vector registers may stay in the host's.
 */
#include "base/trace.h"
#include "x86/event.h"
#include "x86/private.h"
#include "x86/tlb-fill.h"

#define GATE_PRESENT BIT(47)
#define GATE_TYPE(low) ((low) >> 40 & 31)
#define TSS_RSP0 4u
#define TSS_IST1 36u

/* Stack pushes and reads of tables: a supervisor's, whatever AC says. */
static enum tlb_mode system_mode(const struct cpu *c)
{
	return c->s.cr4 & CR4_SMAP ? TLB_SUPER : TLB_SUPER_AC;
}

static const uint64_t *table_read(struct cpu *c, gva_t at, unsigned size)
{
	enum tlb_mode mode = system_mode(c);
	const struct tlb_table *t = c->tlb.space->table[mode];
	const uint64_t *p = tlb_read_hit(t, at, size);
	gpa_t where;

	if (!p && is_canonical(at) && tlb_fill(c, at, ACCESS_READ, mode, &where) == CPU_OK)
		p = tlb_read_hit(t, at, size);
	return p;
}

static uint64_t *stack_write(struct cpu *c, gva_t at, unsigned size)
{
	enum tlb_mode mode = system_mode(c);
	struct tlb_table *t = c->tlb.space->table[mode];
	uint64_t *p = tlb_write_hit(t, at, size);
	gpa_t where;

	if (!p && is_canonical(at) && tlb_fill(c, at, ACCESS_WRITE, mode, &where) == CPU_OK)
		p = tlb_write_hit(t, at, size);
	return p;
}

/* The stack pointer to begin with. */
static bool stack_find(struct cpu *c, unsigned ist, uint64_t *sp)
{
	const struct x86_segment *tr = &c->s.seg[SEG_TR];
	unsigned offset = ist ? TSS_IST1 + (ist - 1) * 8 : TSS_RSP0;
	const uint64_t *p;

	if (!ist && !c->s.cpl) {
		*sp = c->s.gpr[RSP];
		return true;
	}
	if (!(tr->attr & SEG_ATTR_P) || offset + 7 > tr->limit)
		return false;
	p = table_read(c, tr->base + offset, 8);
	if (p) /* not aligned */
		__builtin_memcpy(sp, p, sizeof(*sp));
	return p;
}

static bool deliver(struct cpu *c, uint8_t vector, bool has_error, uint32_t error, uint64_t flags)
{
	struct x86_state *s = &c->s;
	uint64_t low, target, sp, *frame;
	const uint64_t *gate;
	unsigned size = has_error ? 48 : 40;

	if (!x86_64bit(s) || s->rflags & (FLAG_TF | FLAG_NT | FLAG_VM) || s->dr[7] & 0xff || c->debug.active || c->data_hits ||
	    vector * 16u + 15 > s->idtr.limit)
		return false;
	gate = table_read(c, s->idtr.base + vector * 16u, 16);
	if (!gate)
		return false;
	low = gate[0];
	target = (low & 0xffff) | (low >> 32 & 0xffff0000) | gate[1] << 32;
	if (GATE_TYPE(low) != DESC_INT32 && GATE_TYPE(low) != DESC_TRAP32)
		return false;
	if (!(low & GATE_PRESENT) || !is_canonical(target) || low >> 16 & 3 || !descriptor_is(c, low >> 16 & 0xffff, RAW_CODE64) ||
	    !stack_find(c, low >> 32 & 7, &sp))
		return false;
	sp = (sp & ~15ull) - size;
	frame = stack_write(c, sp, size);
	if (!frame)
		return false;
	if (has_error)
		*frame++ = error;
	frame[0] = s->rip;
	frame[1] = s->seg[SEG_CS].selector;
	frame[2] = flags;
	frame[3] = s->gpr[RSP];
	frame[4] = s->seg[SEG_SS].selector;
	if (s->cpl)
		s->seg[SEG_SS] = stack_segment_null(0);
	s->seg[SEG_CS] = flat_segment(low >> 16 & 0xffff, TYPE_CODE | TYPE_READ | TYPE_ACCESSED | SEG_ATTR_L);
	s->gpr[RSP] = sp;
	s->rip = target;
	s->cpl = 0;
	s->shadow = SHADOW_NONE;
	if (s->activity == ACTIVITY_HLT)
		s->activity = ACTIVITY_RUN;
	cpu_set_rflags(c, s->rflags & ~(FLAG_TF | FLAG_NT | FLAG_VM | FLAG_RF | (GATE_TYPE(low) & 1 ? 0 : FLAG_IF)));
	return true;
}

bool event_fault_quick(struct cpu *c)
{
	const struct cpu_fault f = c->fault;

	if (f.soft || f.vector == VEC_DB || f.vector == VEC_DF || trace_on(c->machine->trace, TRACE_exc))
		return false;
	if (!deliver(c, f.vector, f.has_error, f.error, c->s.rflags | FLAG_RF)) {
		c->fault = f;
		return false;
	}
	if (f.vector == VEC_PF)
		c->s.cr2 = f.cr2;
	return true;
}

bool event_interrupt_quick(struct cpu *c, uint8_t vector)
{
	return !trace_on(c->machine->trace, TRACE_irq) && deliver(c, vector, false, 0, c->s.rflags);
}
