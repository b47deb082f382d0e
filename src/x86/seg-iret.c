/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IRET in every form: real, v86 (with VME), from protected mode to v86, to the same and to an outer level, 64-bit
 * (which always returns SS:RSP), and to the task that a nested one interrupted.
 */
#include "x86/event.h"
#include "x86/private.h"

/* What IRET takes off the stack first. */
struct frame {
	uint64_t rip, cs, flags;
};

/* From above, as a Zen 5 does it. */
static int frame_pop(struct stack *k, unsigned size, struct frame *f)
{
	int r = stack_peek(k, 2 * size, size, &f->flags);

	if (!r)
		r = stack_peek(k, size, size, &f->cs);
	if (!r)
		r = stack_peek(k, 0, size, &f->rip);
	if (!r)
		k->sp += 3 * size;
	return r;
}

static void flags_merge(struct cpu *c, uint64_t flags, uint64_t mask, unsigned size)
{
	if (size == 2)
		mask &= 0xffff;
	cpu_set_rflags(c, (c->s.rflags & ~mask) | (flags & mask));
}

#define FLAGS_ALWAYS (FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID)

static int iret_real(struct cpu *c, unsigned size)
{
	struct stack k = stack_current(c);
	struct frame f;
	int r = frame_pop(&k, size, &f);

	if (r)
		return r;
	if (f.rip > c->s.seg[SEG_CS].limit)
		return raise_gp0(c);
	c->s.seg[SEG_CS].selector = (uint16_t)f.cs;
	c->s.seg[SEG_CS].base = (uint32_t)(uint16_t)f.cs << 4;
	c->s.rip = f.rip;
	stack_commit(&k);
	flags_merge(c, f.flags, FLAGS_ALWAYS | FLAG_IF | FLAG_IOPL, size);
	return CPU_OK;
}

static int iret_v86(struct cpu *c, unsigned size)
{
	struct stack k = stack_current(c);
	uint64_t mask = FLAGS_ALWAYS | FLAG_IF;
	struct frame f;
	int r;

	if (mode_iopl(c) < 3 && (!(c->s.cr4 & CR4_VME) || size != 2))
		return raise_gp0(c);
	r = frame_pop(&k, size, &f);
	if (r)
		return r;
	if (mode_iopl(c) < 3) {
		if (f.flags & FLAG_TF || (f.flags & FLAG_IF && c->s.rflags & FLAG_VIP))
			return raise_gp0(c);
		mask &= ~FLAG_IF;
	}
	if (f.rip > 0xffff)
		return raise_gp0(c);
	segment_load_v86(c, SEG_CS, (uint16_t)f.cs);
	c->s.rip = f.rip;
	stack_commit(&k);
	flags_merge(c, f.flags, mask, size);
	if (mode_iopl(c) < 3)
		cpu_set_rflags(c, (c->s.rflags & ~FLAG_VIF) | (f.flags & FLAG_IF ? FLAG_VIF : 0));
	return CPU_OK;
}

/* CPL 0 returns to virtual-8086 mode: nine 32-bit words. */
static int iret_to_v86(struct cpu *c, struct stack *k, const struct frame *f)
{
	static const uint8_t order[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	uint64_t sp, ss, seg[ARRAY_LEN(order)];
	int r = stack_pop(k, 4, &sp);

	if (!r)
		r = stack_pop(k, 4, &ss);
	for (unsigned i = 0; i < ARRAY_LEN(order) && !r; i++)
		r = stack_pop(k, 4, &seg[i]);
	if (r)
		return r;
	if (f->rip > 0xffff)
		return raise_gp0(c);
	c->s.rflags = (f->flags & RFLAGS_IMPLEMENTED) | 2;
	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		segment_load_v86(c, order[i], (uint16_t)seg[i]);
	segment_load_v86(c, SEG_SS, (uint16_t)ss);
	segment_load_v86(c, SEG_CS, (uint16_t)f->cs);
	c->s.rip = f->rip;
	c->s.gpr[RSP] = sp;
	cpu_set_cpl(c, 3);
	return CPU_OK;
}

/* SS of the level returned to, when the frame has one. */
static int iret_stack(struct cpu *c, uint16_t selector, const struct desc *code, struct x86_segment *out)
{
	unsigned cpl = code->selector & 3;
	struct desc ss;
	int r;

	if (!(selector & 0xfffc) && desc_is_64(c, code) && cpl != 3) {
		*out = stack_segment_null(cpl);
		out->selector = selector;
		return CPU_OK;
	}
	r = stack_segment_check(c, selector, cpl, VEC_GP, 0, &ss);
	if (!r)
		r = desc_set_accessed(c, &ss);
	if (!r)
		*out = desc_segment(&ss, selector);
	return r;
}

static uint64_t flags_mask(const struct cpu *c, unsigned size)
{
	uint64_t mask = FLAGS_ALWAYS;

	if (c->s.cpl <= mode_iopl(c))
		mask |= FLAG_IF;
	if (c->s.cpl == 0)
		mask |= FLAG_IOPL | (size == 2 ? 0 : FLAG_VIF | FLAG_VIP);
	return mask;
}

static int iret_protected(struct cpu *c, unsigned size)
{
	bool from64 = x86_64bit(&c->s), outer;
	struct stack k = stack_current(c);
	uint64_t sp = 0, selector = 0, mask;
	struct x86_segment ss = c->s.seg[SEG_SS];
	struct desc code;
	struct frame f;
	int r = frame_pop(&k, size, &f);

	if (r)
		return r;
	if (f.flags & FLAG_VM && size == 4 && c->s.cpl == 0 && !x86_long_mode(&c->s))
		return iret_to_v86(c, &k, &f);
	/* all of the stack before any check, whatever the level */
	if ((f.cs & 3) != c->s.cpl || from64) {
		r = stack_peek(&k, size, size, &selector);
		if (!r)
			r = stack_peek(&k, 0, size, &sp);
	}
	if (!r)
		r = code_return_check(c, (uint16_t)f.cs, &code);
	if (r)
		return r;
	outer = (f.cs & 3) > c->s.cpl;
	if (outer || from64)
		r = iret_stack(c, (uint16_t)selector, &code, &ss);
	if (!r)
		r = code_check_offset(c, &code, f.rip);
	mask = flags_mask(c, size);
	if (!r)
		r = code_load(c, &code, f.cs & 3, f.rip);
	if (r)
		return r;
	if (outer || from64) {
		c->s.seg[SEG_SS] = ss;
		c->s.gpr[RSP] = stack_merge(c->s.gpr[RSP], sp,
					    x86_64bit(&c->s) ? 8 : ss.attr & SEG_ATTR_DB ? 4 : 2);
		if (outer)
			data_segments_drop(c, c->s.cpl);
	} else {
		stack_commit(&k);
	}
	flags_merge(c, f.flags, mask, size);
	return CPU_OK;
}

static int iret_task(struct cpu *c)
{
	uint16_t link;
	int r;

	if (x86_long_mode(&c->s))
		return raise_gp0(c);
	r = cpu_read_system(c, c->s.seg[SEG_TR].base, &link, 2);
	return r ? r : task_switch(c, link, TASK_IRET, false, 0);
}

int seg_iret(struct cpu *c, unsigned size)
{
	int r;

	if (mode_real(c))
		r = iret_real(c, size);
	else if (mode_v86(c))
		r = iret_v86(c, size);
	else if (c->s.rflags & FLAG_NT)
		r = iret_task(c);
	else
		r = iret_protected(c, size);
	if (r != CPU_FAULT)
		c->s.nmi_mask = 0;
	return r;
}
