/* SPDX-License-Identifier: Apache-2.0 */
/* PUSH POP and their kin. The stack pointer is written after the last access that can fault. */
#include "engine/interp/private.h"

/* 64-bit mode, the hot forms. */
static int push_reg_64(struct cpu *c, const struct insn *i)
{
	uint64_t sp = c->s.gpr[RSP] - 8;
	int r = cpu_write(c, sp, &c->s.gpr[i->reg], 8);

	if (unlikely(r))
		return r;
	c->s.gpr[RSP] = sp;
	return CPU_OK;
}
static int pop_reg_64(struct cpu *c, const struct insn *i)
{
	uint64_t v;
	int r = cpu_read(c, c->s.gpr[RSP], &v, 8);

	if (unlikely(r))
		return r;
	c->s.gpr[RSP] += 8;
	c->s.gpr[i->reg] = v; /* after the increment: POP RSP */
	return CPU_OK;
}

insn_fn stack_bind(const struct insn *i)
{
	if (i->form == FORM_REG && i->mode == MODE_64 && i->opsize == 8)
		return i->op == OP_PUSH ? push_reg_64 : pop_reg_64;
	return i->op == OP_PUSH ? stk_push : stk_pop;
}

int stk_push(struct cpu *c, const struct insn *i)
{
	uint64_t v = i->imm;
	int r;

	if (i->form == FORM_REG) {
		v = c->s.gpr[i->reg];
	} else if (i->form == FORM_RM) {
		r = rm_get(c, i, i->opsize, &v);
		if (r)
			return r;
	}
	return stack_push_value(c, i, i->opsize, v);
}

/* A memory destination addressed by the stack pointer sees it incremented already. */
int stk_pop(struct cpu *c, const struct insn *i)
{
	uint64_t v, sp = c->s.gpr[RSP];
	int r = stack_load(c, i, sp, i->opsize, &v);

	if (r)
		return r;
	stack_pointer_set(c, stack_width(c, i), sp + i->opsize);
	if (i->form == FORM_REG) {
		reg_set(c, i->reg, false, i->opsize, v);
		return CPU_OK;
	}
	r = rm_set(c, i, i->opsize, v);
	if (r)
		c->s.gpr[RSP] = sp;
	return r;
}

/* In 16 of the 32 bits of a 32-bit push the processor writes nothing; four bytes are written here
 * as AMD's do. */
int stk_push_sreg(struct cpu *c, const struct insn *i)
{
	return stack_push_value(c, i, i->opsize, c->s.seg[i->reg].selector);
}

int stk_pop_sreg(struct cpu *c, const struct insn *i)
{
	uint64_t v, sp = c->s.gpr[RSP];
	unsigned width = stack_width(c, i);
	int r = stack_load(c, i, sp, i->opsize, &v);

	if (!r)
		r = seg_load(c, (enum x86_seg)i->reg, (uint16_t)v);
	if (r == CPU_FAULT)
		return r;
	stack_pointer_set(c, width, sp + i->opsize);
	if (i->reg == SEG_SS)
		c->s.shadow |= SHADOW_MOVSS;
	return segment_boundary(i, i->reg) ? CPU_BOUNDARY : r;
}

int stk_pusha(struct cpu *c, const struct insn *i)
{
	uint64_t sp = c->s.gpr[RSP], width = stack_width(c, i);
	unsigned size = i->opsize;
	int r = CPU_OK;

	/* a fault half way leaves values below the stack pointer, as on the processor */
	for (unsigned n = 0; n < 8 && !r; n++)
		r = stack_store(c, i, sp - (n + 1) * size, size, c->s.gpr[n]);
	if (r)
		return r;
	stack_pointer_set(c, (unsigned)width, sp - 8 * size);
	return CPU_OK;
}

int stk_popa(struct cpu *c, const struct insn *i)
{
	uint64_t v, sp = c->s.gpr[RSP];
	unsigned size = i->opsize;

	/* a fault half way leaves what was popped in its registers, as on the processor */
	for (unsigned n = 0; n < 8; n++) {
		int r = stack_load(c, i, sp + n * size, size, &v);

		if (r)
			return r;
		if (7 - n != RSP)
			reg_set(c, 7 - n, false, size, v);
	}
	stack_pointer_set(c, stack_width(c, i), sp + 8 * size);
	return CPU_OK;
}

int stk_pushf(struct cpu *c, const struct insn *i)
{
	uint64_t f = c->s.rflags & ~(FLAG_VM | FLAG_RF);

	if (cpu_v86(c) && cpu_iopl(c) < 3) {
		if (!(c->s.cr4 & CR4_VME) || i->opsize != 2)
			return raise_gp0(c);
		f = (f & ~FLAG_IF) | FLAG_IOPL | (f & FLAG_VIF ? FLAG_IF : 0);
	}
	return stack_push_value(c, i, i->opsize, f);
}

/* Which flags POPF may change here; the virtual-8086 extension is apart. */
static uint64_t popf_mask(const struct cpu *c, unsigned size)
{
	uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

	if (size != 2)
		mask |= FLAG_AC | FLAG_ID | FLAG_RF; /* RF is read as 0 */
	if (!(c->s.cr0 & CR0_PE) || (!cpu_v86(c) && c->s.cpl == 0))
		return mask | FLAG_IF | FLAG_IOPL;
	if (cpu_v86(c) || c->s.cpl <= cpu_iopl(c))
		mask |= FLAG_IF;
	return mask;
}

static int popf_vme(struct cpu *c, uint64_t *v, uint64_t *mask)
{
	if (*v & FLAG_TF || (*v & FLAG_IF && c->s.rflags & FLAG_VIP))
		return raise_gp0(c);
	*v = (*v & ~FLAG_VIF) | (*v & FLAG_IF ? FLAG_VIF : 0);
	*mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_VIF;
	return CPU_OK;
}

int stk_popf(struct cpu *c, const struct insn *i)
{
	uint64_t v, sp = c->s.gpr[RSP], old = c->s.rflags, mask = popf_mask(c, i->opsize);
	bool vme = cpu_v86(c) && cpu_iopl(c) < 3;
	int r;

	if (vme && (!(c->s.cr4 & CR4_VME) || i->opsize != 2))
		return raise_gp0(c);
	r = stack_load(c, i, sp, i->opsize, &v);
	if (r)
		return r;
	v &= ~FLAG_RF;
	if (vme) {
		r = popf_vme(c, &v, &mask);
		if (r)
			return r;
	}
	stack_pointer_set(c, stack_width(c, i), sp + i->opsize);
	v = (old & ~mask) | (v & mask) | 2;
	if (!((old ^ v) & (FLAG_IF | FLAG_TF | FLAG_AC | FLAG_VIF))) { /* the usual case */
		c->s.rflags = v;
		return CPU_OK;
	}
	cpu_set_rflags(c, v);
	return CPU_BOUNDARY;
}

/* Level 0..31 of nesting copies frame pointers. */
int stk_enter(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize, level = i->imm2 & 31, width = stack_width(c, i);
	uint64_t sp = c->s.gpr[RSP], bp = c->s.gpr[RBP], frame, v;
	int r;

	sp -= size;
	frame = sp;
	r = stack_store(c, i, sp, size, bp);
	for (unsigned n = 1; n < level && !r; n++) {
		bp -= size;
		r = stack_load(c, i, bp, size, &v);
		sp -= size;
		if (!r)
			r = stack_store(c, i, sp, size, v);
	}
	if (level && !r) {
		sp -= size;
		r = stack_store(c, i, sp, size, frame);
	}
	if (r)
		return r;
	sp -= (uint16_t)i->imm;
	/* the new frame must be writable, or ENTER itself faults */
	r = stack_linear(c, i, sp, 1, true, &v);
	if (!r)
		r = cpu_probe(c, v, 1, ACCESS_WRITE);
	if (r)
		return r;
	reg_set(c, RBP, false, i->mode == MODE_64 ? width : size, frame);
	stack_pointer_set(c, width, sp);
	return CPU_OK;
}

int stk_leave(struct cpu *c, const struct insn *i)
{
	unsigned width = stack_width(c, i);
	uint64_t bp = c->s.gpr[RBP], v;
	int r = stack_load(c, i, bp, i->opsize, &v);

	if (r)
		return r;
	stack_pointer_set(c, width, bp + i->opsize);
	reg_set(c, RBP, false, i->opsize, v);
	return CPU_OK;
}
