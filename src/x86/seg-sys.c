/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT as an AMD processor has them, which is what CPUID says we are: SYSCALL also
 * from compatibility and legacy mode; SYSENTER and SYSEXIT in legacy mode only.
 */
#include "x86/private.h"

static struct x86_segment flat(uint16_t selector, unsigned dpl, uint16_t type)
{
	return (struct x86_segment){ .limit = 0xffffffff,
				     .selector = selector,
				     .attr = (uint16_t)(SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_G |
							dpl << SEG_ATTR_DPL_SHIFT | type) };
}
#define CODE_TYPE (TYPE_CODE | TYPE_READ | TYPE_ACCESSED)
#define DATA_TYPE (TYPE_WRITE | TYPE_ACCESSED)

static void enter_kernel(struct cpu *c, uint16_t cs, uint16_t ss, bool long_code)
{
	c->s.seg[SEG_CS] = flat(cs, 0, CODE_TYPE | (long_code ? SEG_ATTR_L : SEG_ATTR_DB));
	c->s.seg[SEG_SS] = flat(ss, 0, DATA_TYPE | SEG_ATTR_DB);
	c->s.cpl = 0;
}

static void enter_user(struct cpu *c, uint16_t cs, uint16_t ss, bool long_code)
{
	c->s.seg[SEG_CS] = flat(cs | 3, 3, CODE_TYPE | (long_code ? SEG_ATTR_L : SEG_ATTR_DB));
	c->s.seg[SEG_SS] = flat(ss | 3, 3, DATA_TYPE | SEG_ATTR_DB);
	c->s.cpl = 3;
}

int seg_syscall(struct cpu *c)
{
	uint16_t cs = (uint16_t)(c->s.star >> 32) & 0xfffc;
	uint64_t flags;

	if (!(c->s.efer & EFER_SCE) || mode_real(c))
		return cpu_raise(c, VEC_UD);
	if (x86_long_mode(&c->s)) {
		bool was64 = x86_64bit(&c->s);

		c->s.gpr[RCX] = c->s.rip;
		c->s.gpr[R11] = c->s.rflags & ~FLAG_RF;
		c->s.rip = was64 ? c->s.lstar : c->s.cstar;
		flags = c->s.rflags & ~(c->s.sfmask | FLAG_RF);
	} else {
		c->s.gpr[RCX] = (uint32_t)c->s.rip;
		c->s.rip = (uint32_t)c->s.star;
		flags = c->s.rflags & ~(FLAG_IF | FLAG_VM | FLAG_RF);
	}
	enter_kernel(c, cs, cs + 8, x86_long_mode(&c->s));
	cpu_set_rflags(c, flags);
	return CPU_OK;
}

int seg_sysret(struct cpu *c, unsigned size)
{
	uint16_t cs = (uint16_t)(c->s.star >> 48) & 0xfffc;

	if (!(c->s.efer & EFER_SCE))
		return cpu_raise(c, VEC_UD);
	if (mode_real(c) || mode_v86(c) || c->s.cpl)
		return raise_gp0(c);
	/* An address that is not canonical faults where it is fetched from: in ring 3. */
	c->s.rip = size == 8 ? c->s.gpr[RCX] : (uint32_t)c->s.gpr[RCX];
	if (size == 8)
		enter_user(c, cs + 16, cs + 8, true);
	else
		enter_user(c, cs, cs + 8, false);
	if (x86_long_mode(&c->s))
		cpu_set_rflags(c, c->s.gpr[R11] & ~(FLAG_RF | FLAG_VM));
	else
		cpu_set_rflags(c, c->s.rflags | FLAG_IF);
	return CPU_OK;
}

int seg_sysenter(struct cpu *c)
{
	uint16_t cs = (uint16_t)c->s.sysenter_cs & 0xfffc;

	if (x86_long_mode(&c->s))
		return cpu_raise(c, VEC_UD);
	if (mode_real(c) || !cs)
		return raise_gp0(c);
	c->s.rip = (uint32_t)c->s.sysenter_eip;
	c->s.gpr[RSP] = (uint32_t)c->s.sysenter_esp;
	enter_kernel(c, cs, cs + 8, false);
	cpu_set_rflags(c, c->s.rflags & ~(FLAG_IF | FLAG_VM | FLAG_RF));
	return CPU_OK;
}

int seg_sysexit(struct cpu *c, unsigned size)
{
	uint16_t cs = (uint16_t)c->s.sysenter_cs & 0xfffc;

	if (x86_long_mode(&c->s))
		return cpu_raise(c, VEC_UD);
	if (mode_real(c) || mode_v86(c) || c->s.cpl || !cs)
		return raise_gp0(c);
	c->s.rip = (uint32_t)c->s.gpr[RDX];
	c->s.gpr[RSP] = (uint32_t)c->s.gpr[RCX];
	enter_user(c, cs + 16, cs + 24, false);
	tlb_select(c);
	return CPU_OK;
}
