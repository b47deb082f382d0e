/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From one privilege level to another without leaving translated code: SYSCALL, SYSRET, SYSENTER, SYSEXIT and IRET as operating systems use
 * them; and to another address space. The vector registers stay where they are, and the way on is looked up in the jump
 * cache. What does not fit (an interrupt that waits, an address met for the first time, another mode) leaves as if the
 * interpreter had done it.
 */
#include "engine/dbt/dbt.h"
#include "x86/segment.h"

/* MOV CR3 in 64-bit code: another address space. */
static bool cr3_write_quick(struct cpu *c, uint64_t value)
{
	bool noflush = c->s.cr4 & CR4_PCIDE && value & BIT(63);

	if (noflush)
		value &= ~BIT(63);
	if (!c->tlb.address || value & ~(c->tlb.address | 0xfff))
		return false;
	c->s.cr3 = value;
	tlb_switch(c, value, noflush);
	return true;
}

uint64_t far_go_on(struct cpu *c)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	struct dbt_hot *h = dbt_hot(c);
	uint64_t flags = c->s.rflags;
	uint64_t host;
	uint32_t mode;

	h->flags = flags_to_m(flags);
	h->exit_code = EXIT_BOUNDARY;
	if (atomic_load_explicit(&c->attention, memory_order_relaxed) || c->s.shadow || flags & FLAG_RF ||
	    (flags & FLAG_IF && h->irq_check))
		return 0;
	mode = mode_of(c);
	if (mode == MODE_NONE)
		return 0;
	if (mode_32bit(mode))
		gpr_narrow(c);
	chain_check(c, mode);
	host = jc_find(c, c->s.rip);
	dc->indirect |= !host;
	return host;
}

/* Of a 32-bit system: SYSENTER and SYSEXIT take the places of SYSCALL and SYSRET. */
static bool far_quick_32(struct cpu *c, enum far_kind kind, uint64_t next)
{
	uint64_t rip = c->s.rip;
	int r;

	if (kind == FAR_IRET)
		return seg_iret_quick_32(c);
	if (kind == FAR_CR3)
		return false;
	c->s.rip = next;
	r = kind == FAR_SYSCALL ? seg_sysenter(c) : seg_sysexit(c, 4);
	if (r)
		c->s.rip = rip;
	return !r;
}

bool far_quick(struct cpu *c, enum far_kind kind, uint64_t next, uint64_t value, uint64_t *resume)
{
	struct dbt_hot *h = dbt_hot(c);

	if (dbt_of(c)->watch || (x86_64bit(&c->s) ? !(c->s.efer & EFER_SCE) : x86_long_mode(&c->s)))
		return false;
	c->s.rflags = flags_from_m(c->s.rflags, h->flags);
	if (!x86_64bit(&c->s)) {
		if (!far_quick_32(c, kind, next))
			return false;
		*resume = far_go_on(c);
		return true;
	}
	switch (kind) {
	case FAR_SYSCALL:
		c->s.rip = next;
		seg_syscall(c);
		break;
	case FAR_SYSRET:
		if (c->s.cpl)
			return false;
		c->s.rip = next;
		seg_sysret(c, 8);
		break;
	case FAR_IRET:
		if (!seg_iret_quick(c))
			return false;
		break;
	case FAR_CR3:
		if (!cr3_write_quick(c, value))
			return false;
		c->s.rip = next;
		break;
	}
	*resume = far_go_on(c);
	return true;
}
