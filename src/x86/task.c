/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Task switches through 16- and 32-bit TSSs: JMP, CALL, IRET, and interrupts through task gates. Up to the point where
 * the new task's registers are loaded a fault leaves the old task as it was; after that faults belong to the
 * new task.
 */
#include "x86/event.h"
#include "x86/private.h"

#define TSS32_SIZE 104u
#define TSS16_SIZE 44u

/* The part of a TSS that switches read and write; one form for both widths. */
struct tss {
	uint32_t cr3, eip, eflags, gpr[8];
	uint16_t seg[6]; /* ES CS SS DS FS GS */
	uint16_t ldt, trap;
};

static uint32_t load32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint16_t load16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}
static void store32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, 4);
}
static void store16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, 2);
}

static int tss_read(struct cpu *c, uint64_t base, bool wide, struct tss *t)
{
	uint8_t b[TSS32_SIZE];
	unsigned size = wide ? TSS32_SIZE : TSS16_SIZE;
	int r = CPU_OK;

	for (unsigned at = 0; at < size && !r; at += 4)
		r = cpu_read_system(c, base + at, b + at, 4);
	if (r)
		return r;
	memset(t, 0, sizeof(*t));
	if (wide) {
		t->cr3 = load32(b + 28);
		t->eip = load32(b + 32);
		t->eflags = load32(b + 36);
		for (unsigned i = 0; i < 8; i++)
			t->gpr[i] = load32(b + 40 + 4 * i);
		for (unsigned i = 0; i < 6; i++)
			t->seg[i] = load16(b + 72 + 4 * i);
		t->ldt = load16(b + 96);
		t->trap = load16(b + 100) & 1;
		return CPU_OK;
	}
	t->eip = load16(b + 14);
	t->eflags = load16(b + 16);
	for (unsigned i = 0; i < 8; i++)
		t->gpr[i] = load16(b + 18 + 2 * i) | 0xffff0000u;
	for (unsigned i = 0; i < 4; i++)
		t->seg[i] = load16(b + 34 + 2 * i);
	t->ldt = load16(b + 42);
	return CPU_OK;
}

/* The old task's state goes to its TSS: all of it can be written, or nothing is. */
static int tss_write(struct cpu *c, const struct x86_segment *tr, bool wide, uint64_t eflags)
{
	unsigned first = wide ? 32 : 14, end = wide ? 96 : 42;
	uint8_t b[TSS32_SIZE] = { 0 };
	int r = cpu_probe_system(c, tr->base + first, end - first, ACCESS_WRITE);

	if (r)
		return r;
	if (wide) {
		store32(b + 32, (uint32_t)c->s.rip);
		store32(b + 36, (uint32_t)eflags);
		for (unsigned i = 0; i < 8; i++)
			store32(b + 40 + 4 * i, (uint32_t)c->s.gpr[i]);
		for (unsigned i = 0; i < 6; i++)
			store32(b + 72 + 4 * i, c->s.seg[i].selector);
	} else {
		store16(b + 14, (uint16_t)c->s.rip);
		store16(b + 16, (uint16_t)eflags);
		for (unsigned i = 0; i < 8; i++)
			store16(b + 18 + 2 * i, (uint16_t)c->s.gpr[i]);
		for (unsigned i = 0; i < 4; i++)
			store16(b + 34 + 2 * i, c->s.seg[i].selector);
	}
	for (unsigned at = first; at < end && !r; at += 2)
		r = cpu_write_system(c, tr->base + at, b + at, 2);
	return r;
}

static int find_tss(struct cpu *c, uint16_t selector, enum task_source source, unsigned ext, struct desc *d)
{
	enum x86_vector vector = source == TASK_IRET ? VEC_TS : VEC_GP;
	unsigned type;
	int r;

	if (selector & 4 || !(selector & 0xfffc))
		return raise_selector(c, vector, selector, ext);
	r = desc_read(c, selector, vector, ext, d);
	if (r)
		return r;
	type = desc_type(d);
	if (desc_is_segment(d) || (source == TASK_IRET ? type != DESC_TSS16_BUSY && type != DESC_TSS32_BUSY :
							 type != DESC_TSS16 && type != DESC_TSS32))
		return raise_selector(c, vector, selector, ext);
	if (!desc_present(d))
		return raise_selector(c, VEC_NP, selector, ext);
	if (desc_limit(d) < (type >= DESC_TSS32 ? TSS32_SIZE : TSS16_SIZE) - 1)
		return raise_selector(c, VEC_TS, selector, ext);
	return CPU_OK;
}

static int load_ldt(struct cpu *c, uint16_t selector)
{
	struct desc d;
	int r;

	c->s.seg[SEG_LDTR] = (struct x86_segment){ .selector = selector };
	if (!(selector & 0xfffc))
		return CPU_OK;
	if (selector & 4)
		return raise_selector(c, VEC_TS, selector, 0);
	r = desc_read(c, selector, VEC_TS, 0, &d);
	if (r)
		return r;
	if (desc_is_segment(&d) || desc_type(&d) != DESC_LDT || !desc_present(&d))
		return raise_selector(c, VEC_TS, selector, 0);
	c->s.seg[SEG_LDTR] = desc_segment(&d, selector);
	return CPU_OK;
}

static int load_code(struct cpu *c, uint16_t selector)
{
	unsigned rpl = selector & 3;
	struct desc d;
	int r;

	if (!(selector & 0xfffc))
		return raise_selector(c, VEC_TS, selector, 0);
	r = desc_read(c, selector, VEC_TS, 0, &d);
	if (r)
		return r;
	if (!desc_is_code(&d) || (desc_is_conforming(&d) ? desc_dpl(&d) > rpl : desc_dpl(&d) != rpl))
		return raise_selector(c, VEC_TS, selector, 0);
	if (!desc_present(&d))
		return raise_selector(c, VEC_NP, selector, 0);
	r = desc_set_accessed(c, &d);
	if (!r)
		c->s.seg[SEG_CS] = desc_segment(&d, selector);
	return r;
}

static int load_stack(struct cpu *c, uint16_t selector)
{
	struct desc d;
	int r;

	if (!(selector & 0xfffc))
		return raise_selector(c, VEC_TS, selector, 0);
	r = stack_segment_check(c, selector, c->s.cpl, VEC_TS, 0, &d);
	if (!r)
		r = desc_set_accessed(c, &d);
	if (!r)
		c->s.seg[SEG_SS] = desc_segment(&d, selector);
	return r;
}

static int load_data(struct cpu *c, enum x86_seg seg, uint16_t selector)
{
	int r;

	if (!(selector & 0xfffc))
		return CPU_OK;
	r = seg_load(c, seg, selector);
	if (r == CPU_FAULT && c->fault.vector == VEC_GP)
		c->fault.vector = VEC_TS;
	return r;
}

/* Descriptors of the new task, in the order the processor checks them. */
static int load_segments(struct cpu *c, const struct tss *t)
{
	static const uint8_t data[] = { SEG_DS, SEG_ES, SEG_FS, SEG_GS };
	int r = load_ldt(c, t->ldt);

	if (r)
		return r;
	if (c->s.rflags & FLAG_VM) {
		for (unsigned i = 0; i < 6; i++)
			segment_load_v86(c, (enum x86_seg)i, t->seg[i]);
		return CPU_OK;
	}
	r = load_code(c, t->seg[SEG_CS]);
	if (!r)
		r = load_stack(c, t->seg[SEG_SS]);
	for (unsigned i = 0; i < ARRAY_LEN(data) && !r; i++)
		r = load_data(c, (enum x86_seg)data[i], t->seg[data[i]]);
	if (!r && c->s.rip > c->s.seg[SEG_CS].limit)
		r = raise_gp0(c);
	return r;
}

/* General registers, flags, selectors without their descriptors: from here on this is the new task. */
static void load_registers(struct cpu *c, const struct tss *t, bool wide, bool nested)
{
	for (unsigned i = 0; i < 8; i++)
		c->s.gpr[i] = t->gpr[i];
	for (unsigned i = 0; i < 6; i++)
		c->s.seg[i] = (struct x86_segment){ .selector = t->seg[i] };
	c->s.rip = t->eip;
	c->s.cr0 |= CR0_TS;
	c->s.dr[7] &= ~0x155ull; /* local breakpoints are the task's */
	if (wide && c->s.cr0 & CR0_PG && (uint32_t)c->s.cr3 != t->cr3)
		cr3_load(c, t->cr3);
	c->s.rflags = ((t->eflags | (nested ? FLAG_NT : 0)) & RFLAGS_IMPLEMENTED) | 2;
	cpu_set_cpl(c, c->s.rflags & FLAG_VM ? 3 : t->seg[SEG_CS] & 3);
}

static int push_error(struct cpu *c, bool wide, uint32_t error)
{
	struct stack k = stack_current(c);
	int r = stack_push(&k, wide ? 4 : 2, error);

	if (!r)
		stack_commit(&k);
	return r;
}

/* Link and busy bits; the old task is saved. */
static int leave_old(struct cpu *c, struct desc *new, enum task_source source)
{
	const struct x86_segment *tr = &c->s.seg[SEG_TR];
	uint64_t flags = c->s.rflags & ~(source == TASK_IRET ? FLAG_NT : 0);
	bool nested = source == TASK_CALL || source == TASK_INTERRUPT;
	struct desc old;
	int r;

	if (!(tr->attr & SEG_ATTR_P))
		return raise_selector(c, VEC_TS, tr->selector, 0);
	if (nested) { /* the link lies in the new TSS; can it be written? */
		r = cpu_write_system(c, desc_base(new), &tr->selector, 2);
		if (r)
			return r;
	}
	r = tss_write(c, tr, (tr->attr & SEG_ATTR_TYPE) >= DESC_TSS32, flags);
	if (!r && !nested) {
		r = desc_read(c, tr->selector, VEC_TS, 0, &old);
		if (!r)
			r = desc_set_busy(c, &old, false);
	}
	if (!r && source != TASK_IRET)
		r = desc_set_busy(c, new, true);
	return r;
}

int task_switch(struct cpu *c, uint16_t selector, enum task_source source, bool has_error, uint32_t error)
{
	unsigned ext = source == TASK_INTERRUPT && !c->fault.soft;
	struct desc d;
	struct tss t;
	bool wide;
	int r = find_tss(c, selector, source, ext, &d);

	if (r)
		return r;
	wide = desc_type(&d) >= DESC_TSS32;
	r = tss_read(c, desc_base(&d), wide, &t);
	if (!r)
		r = leave_old(c, &d, source);
	if (r)
		return r;
	c->s.seg[SEG_TR] = desc_segment(&d, selector);
	c->s.seg[SEG_TR].attr |= 2;
	load_registers(c, &t, wide, source == TASK_CALL || source == TASK_INTERRUPT);
	r = load_segments(c, &t);
	if (!r && has_error)
		r = push_error(c, wide, error);
	if (r == CPU_FAULT && source != TASK_INTERRUPT)
		return event_deliver_fault(c);
	if (!r && t.trap)
		return event_debug_trap(c, BIT(15));
	return r;
}
