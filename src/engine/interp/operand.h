/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What handlers use to reach their operands. A handler finds rip already advanced to the next
 * instruction (interp_exec puts it back on CPU_FAULT), works on temporaries and commits last.
 */
#ifndef ENGINE_INTERP_OPERAND_H
#define ENGINE_INTERP_OPERAND_H

#include "isa/insn.h"
#include "x86/access.h"
#include "x86/segment.h"

/* Effective address within the segment (wrapped to the address size), without its base. */
static inline uint64_t operand_offset(const struct cpu *c, const struct insn *i)
{
	uint64_t ea = (uint64_t)i->disp;

	if (i->base == REG_RIP)
		ea += c->s.rip;
	else if (i->base != REG_NONE)
		ea += c->s.gpr[i->base];
	if (i->index != REG_NONE)
		ea += c->s.gpr[i->index] << i->scale;
	if (i->addrsize == 4)
		ea = (uint32_t)ea;
	else if (i->addrsize == 2)
		ea = (uint16_t)ea;
	return ea;
}

/*
 * seg_linear() for the legacy modes, with the usual case inline: an expand-up data segment
 * (writable, if it is to be written) and an access within its limit. ea is at most 32 bits wide.
 */
static inline int operand_segment(struct cpu *c, enum x86_seg seg, uint64_t ea, unsigned size,
				  bool write, gva_t *at)
{
	const struct x86_segment *s = &c->s.seg[seg];
	unsigned want = SEG_ATTR_P | SEG_ATTR_S | (write ? 2u : 0), care = want | 0xc;

	if (likely(ea + size - 1 <= s->limit && (s->attr & care) == want)) {
		*at = (uint32_t)(s->base + ea);
		return CPU_OK;
	}
	return seg_linear(c, seg, ea, size, write, at);
}

/* Linear address of the ModRM memory operand; limit checks for legacy modes. */
static inline int operand_linear(struct cpu *c, const struct insn *i, unsigned size, bool write,
				 gva_t *at)
{
	uint64_t ea = operand_offset(c, i);

	if (likely(i->mode == MODE_64)) {
		*at = i->seg >= SEG_FS ? ea + c->s.seg[i->seg].base : ea;
		return CPU_OK;
	}
	return operand_segment(c, (enum x86_seg)i->seg, ea, size, write, at);
}

/*
 * A long operand is several accesses to a processor: its first `first` bytes, then the rest. The fault of the whole, which
 * has been raised, gives way to one that the first part alone has: the page fault of an operand at the end of the address space, whose last
 * bytes lie beyond. CPU_FAULT.
 */
int operand_first_fault(struct cpu *c, const struct insn *i, unsigned first, bool write);

/* The memory operand's bytes. */
static inline int operand_read(struct cpu *c, const struct insn *i, void *buf, unsigned size)
{
	gva_t at;
	int r = operand_linear(c, i, size, false, &at);

	return r ? r : cpu_read(c, at, buf, size);
}
static inline int operand_write(struct cpu *c, const struct insn *i, const void *buf, unsigned size)
{
	gva_t at;
	int r = operand_linear(c, i, size, true, &at);

	return r ? r : cpu_write(c, at, buf, size);
}
static inline int operand_read_parts(struct cpu *c, const struct insn *i, void *buf, unsigned size, unsigned first)
{
	int r = operand_read(c, i, buf, size);

	return r ? operand_first_fault(c, i, first, false) : CPU_OK;
}
static inline int operand_write_parts(struct cpu *c, const struct insn *i, const void *buf, unsigned size, unsigned first)
{
	int r = operand_write(c, i, buf, size);

	return r ? operand_first_fault(c, i, first, true) : CPU_OK;
}

#endif
