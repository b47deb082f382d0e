/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers that go through descriptors, the IDT or system-call registers. What happens there is
 * x86's (segment.c, event.c); here operands are read and the outcome told: everything may be
 * different afterwards.
 */
#include "engine/interp/private.h"
#include "x86/event.h"

static int far_done(int r)
{
	return r == CPU_OK ? CPU_BOUNDARY : r;
}

static int far_pointer(struct cpu *c, const struct insn *i, uint16_t *selector, uint64_t *offset)
{
	uint8_t bytes[10] = { 0 };
	int r;

	if (i->form == FORM_IMM) {
		*selector = (uint16_t)(i->imm >> 32);
		*offset = (uint32_t)i->imm;
		return CPU_OK;
	}
	r = operand_read_parts(c, i, bytes, i->opsize + 2u, i->opsize);
	*offset = host_load(bytes, i->opsize);
	*selector = (uint16_t)host_load(bytes + i->opsize, 2);
	return r;
}

int far_jmp(struct cpu *c, const struct insn *i)
{
	uint16_t selector;
	uint64_t offset;
	int r = far_pointer(c, i, &selector, &offset);

	return r ? r : far_done(seg_far_jump(c, selector, offset, i->opsize));
}
int far_call(struct cpu *c, const struct insn *i)
{
	uint16_t selector;
	uint64_t offset;
	int r = far_pointer(c, i, &selector, &offset);

	return r ? r : far_done(seg_far_call(c, selector, offset, i->opsize));
}
int far_ret(struct cpu *c, const struct insn *i)
{
	return far_done(seg_far_return(c, i->opsize, (unsigned)i->imm));
}
int far_iret(struct cpu *c, const struct insn *i)
{
	return far_done(seg_iret(c, i->opsize));
}

static int soft_interrupt(struct cpu *c, const struct insn *i, uint8_t vector)
{
	c->fault = (struct cpu_fault){ .vector = vector, .soft = true, .len = i->len };
	return event_deliver_fault(c);
}
/* In v86 mode without IOPL 3 only through the VME redirection bitmap, which event_deliver_fault()
 * looks at. */
int far_int(struct cpu *c, const struct insn *i)
{
	if (cpu_v86(c) && cpu_iopl(c) < 3 && !(c->s.cr4 & CR4_VME))
		return raise_gp0(c);
	return soft_interrupt(c, i, (uint8_t)i->imm);
}
int far_int3(struct cpu *c, const struct insn *i)
{
	return soft_interrupt(c, i, VEC_BP);
}
int far_into(struct cpu *c, const struct insn *i)
{
	return c->s.rflags & FLAG_OF ? soft_interrupt(c, i, VEC_OF) : CPU_OK;
}
/* #DB as a trap, without the DPL check of INT n and without a bit in DR6. */
int far_int1(struct cpu *c, const struct insn *i)
{
	c->fault = (struct cpu_fault){ .vector = VEC_DB };
	return event_deliver_fault(c);
}
int far_bound(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	uint8_t bytes[8];
	int64_t index = (int64_t)sign_extend(c->s.gpr[i->reg], size);
	int r = operand_read_parts(c, i, bytes, 2 * size, size);

	if (r)
		return r;
	if (index < (int64_t)sign_extend(host_load(bytes, size), size) ||
	    index > (int64_t)sign_extend(host_load(bytes + size, size), size))
		return cpu_raise(c, VEC_BR);
	return CPU_OK;
}

int far_syscall(struct cpu *c, const struct insn *i)
{
	return far_done(seg_syscall(c));
}
int far_sysret(struct cpu *c, const struct insn *i)
{
	return far_done(seg_sysret(c, i->opsize));
}
int far_sysenter(struct cpu *c, const struct insn *i)
{
	return far_done(seg_sysenter(c));
}
int far_sysexit(struct cpu *c, const struct insn *i)
{
	return far_done(seg_sysexit(c, i->opsize));
}

/* UD0 UD1 UD2, RSM outside SMM, and whatever was not decoded. */
int far_ud(struct cpu *c, const struct insn *i)
{
	return raise_ud(c);
}
