/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions about single flags, and the interrupt flag with its virtual forms (v86 and PVI). */
#include "engine/interp/private.h"

int flag_clc(struct cpu *c, const struct insn *i)
{
	c->s.rflags &= ~FLAG_CF;
	return CPU_OK;
}
int flag_stc(struct cpu *c, const struct insn *i)
{
	c->s.rflags |= FLAG_CF;
	return CPU_OK;
}
int flag_cmc(struct cpu *c, const struct insn *i)
{
	c->s.rflags ^= FLAG_CF;
	return CPU_OK;
}
int flag_cld(struct cpu *c, const struct insn *i)
{
	c->s.rflags &= ~FLAG_DF;
	return CPU_OK;
}
int flag_std(struct cpu *c, const struct insn *i)
{
	c->s.rflags |= FLAG_DF;
	return CPU_OK;
}
int flag_lahf(struct cpu *c, const struct insn *i)
{
	reg_set(c, 4, true, 1, (c->s.rflags & (FLAGS_ARITH & ~FLAG_OF)) | 2);
	return CPU_OK;
}
int flag_sahf(struct cpu *c, const struct insn *i)
{
	flags_set_some(c, FLAGS_ARITH & ~FLAG_OF, c->s.gpr[RAX] >> 8 & (FLAGS_ARITH & ~FLAG_OF));
	return CPU_OK;
}
int flag_salc(struct cpu *c, const struct insn *i)
{
	reg_set(c, RAX, false, 1, c->s.rflags & FLAG_CF ? 0xff : 0);
	return CPU_OK;
}

/* What CLI and STI work on: IF itself, or VIF where the mode virtualises it; -1: #GP. */
static int interrupt_flag(const struct cpu *c, uint64_t *flag)
{
	*flag = FLAG_IF;
	if (!(c->s.cr0 & CR0_PE))
		return 0;
	if (cpu_v86(c)) {
		if (cpu_iopl(c) == 3)
			return 0;
		*flag = FLAG_VIF;
		return c->s.cr4 & CR4_VME ? 0 : -1;
	}
	if (c->s.cpl <= cpu_iopl(c))
		return 0;
	*flag = FLAG_VIF;
	return c->s.cpl == 3 && c->s.cr4 & CR4_PVI ? 0 : -1;
}

int flag_cli(struct cpu *c, const struct insn *i)
{
	uint64_t flag;

	if (interrupt_flag(c, &flag))
		return raise_gp0(c);
	c->s.rflags &= ~flag;
	return CPU_OK;
}

int flag_sti(struct cpu *c, const struct insn *i)
{
	uint64_t flag;

	if (interrupt_flag(c, &flag))
		return raise_gp0(c);
	if (flag == FLAG_VIF) {
		if (c->s.rflags & FLAG_VIP)
			return raise_gp0(c);
		c->s.rflags |= FLAG_VIF;
		return CPU_OK;
	}
	if (c->s.rflags & FLAG_IF)
		return CPU_OK;
	c->s.rflags |= FLAG_IF;
	c->s.shadow |= SHADOW_STI;
	return CPU_BOUNDARY;
}

/* CLAC, STAC */
int flag_ac(struct cpu *c, const struct insn *i)
{
	if (c->s.cpl || cpu_v86(c))
		return raise_ud(c);
	cpu_set_rflags(c, i->op == OP_STAC ? c->s.rflags | FLAG_AC : c->s.rflags & ~FLAG_AC);
	return CPU_OK;
}
