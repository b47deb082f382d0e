/* SPDX-License-Identifier: Apache-2.0 */
/* Far JMP, CALL and RET: real and v86, code segments, call gates with and without a change of stack, TSS and task gates. */
#include "x86/event.h"
#include "x86/private.h"

/* A call gate, taken apart. */
struct gate {
	uint16_t selector;
	uint64_t offset;
	unsigned size; /* of what is pushed: 2, 4, 8 */
	unsigned count; /* parameters to be copied */
};

static uint64_t offset_cut(uint64_t offset, unsigned size)
{
	return size == 8 ? offset : size == 4 ? (uint32_t)offset : (uint16_t)offset;
}

/* Where privilege plays no part: real and v86 mode. */
static int simple_load(struct cpu *c, uint16_t selector, uint64_t offset)
{
	if (offset > c->s.seg[SEG_CS].limit)
		return raise_gp0(c);
	if (mode_v86(c)) {
		segment_load_v86(c, SEG_CS, selector);
	} else {
		c->s.seg[SEG_CS].selector = selector;
		c->s.seg[SEG_CS].base = (uint32_t)selector << 4;
	}
	c->s.rip = offset;
	return CPU_OK;
}

/* A code segment named directly. */
static int direct_check(struct cpu *c, const struct desc *d)
{
	unsigned rpl = d->selector & 3;

	if (desc_is_conforming(d) ? desc_dpl(d) > c->s.cpl : (rpl > c->s.cpl || desc_dpl(d) != c->s.cpl))
		return raise_selector(c, VEC_GP, d->selector, 0);
	if (desc_is_64(c, d) && d->low >> 54 & 1)
		return raise_selector(c, VEC_GP, d->selector, 0);
	return desc_present(d) ? CPU_OK : raise_selector(c, VEC_NP, d->selector, 0);
}

/* Gates and TSSs: CPL and RPL must reach them. */
static int gate_check(struct cpu *c, const struct desc *d)
{
	if (desc_dpl(d) < c->s.cpl || desc_dpl(d) < (d->selector & 3u))
		return raise_selector(c, VEC_GP, d->selector, 0);
	return desc_present(d) ? CPU_OK : raise_selector(c, VEC_NP, d->selector, 0);
}

static int gate_read(struct cpu *c, struct desc *d, struct gate *g)
{
	bool wide = desc_type(d) == DESC_CALL32;
	int r = desc_read_high(c, d, VEC_GP, 0);

	if (r)
		return r;
	g->selector = (uint16_t)(d->low >> 16);
	g->offset = d->low & 0xffff;
	if (wide)
		g->offset |= d->low >> 32 & 0xffff0000;
	g->offset |= d->high << 32;
	g->size = x86_long_mode(&c->s) ? 8 : wide ? 4 : 2;
	g->count = x86_long_mode(&c->s) ? 0 : (unsigned)(d->low >> 32) & 31;
	return CPU_OK;
}

/* The code segment a call gate names. */
static int gate_target(struct cpu *c, const struct gate *g, struct desc *code, bool call)
{
	bool same_only = !call;
	int r;

	if (!(g->selector & 0xfffc))
		return raise_gp0(c);
	r = desc_read(c, g->selector, VEC_GP, 0, code);
	if (r)
		return r;
	if (!desc_is_code(code) || desc_dpl(code) > c->s.cpl)
		return raise_selector(c, VEC_GP, g->selector, 0);
	if (same_only && !desc_is_conforming(code) && desc_dpl(code) != c->s.cpl)
		return raise_selector(c, VEC_GP, g->selector, 0);
	if (x86_long_mode(&c->s) && (!(code->low >> 53 & 1) || code->low >> 54 & 1))
		return raise_selector(c, VEC_GP, g->selector, 0);
	return desc_present(code) ? CPU_OK : raise_selector(c, VEC_NP, g->selector, 0);
}

/* What kind of system descriptor may a far transfer name? */
static int system_dispatch(struct cpu *c, struct desc *d, bool call, struct gate *g, struct desc *code)
{
	unsigned type = desc_type(d);
	bool lma = x86_long_mode(&c->s);
	int r;

	if (type != DESC_CALL32 && (lma || (type != DESC_CALL16 && type != DESC_TASK && type != DESC_TSS16 &&
					    type != DESC_TSS32)))
		return raise_selector(c, VEC_GP, d->selector, 0);
	r = gate_check(c, d);
	if (r)
		return r;
	if (type != DESC_CALL32 && type != DESC_CALL16) {
		uint16_t tss = type == DESC_TASK ? (uint16_t)(d->low >> 16) : d->selector;

		r = task_switch(c, tss, call ? TASK_CALL : TASK_JUMP, false, 0);
		return r == CPU_OK ? CPU_BOUNDARY : r;
	}
	r = gate_read(c, d, g);
	if (!r)
		r = gate_target(c, g, code, call);
	if (!r)
		r = code_check_offset(c, code, g->offset);
	return r;
}

int seg_far_jump(struct cpu *c, uint16_t selector, uint64_t offset, unsigned size)
{
	struct desc d, code;
	struct gate g;
	int r;

	offset = offset_cut(offset, size);
	if (mode_real(c) || mode_v86(c))
		return simple_load(c, selector, offset);
	if (!(selector & 0xfffc))
		return raise_gp0(c);
	r = desc_read(c, selector, VEC_GP, 0, &d);
	if (r)
		return r;
	if (!desc_is_segment(&d)) {
		r = system_dispatch(c, &d, false, &g, &code);
		return r ? r : code_load(c, &code, c->s.cpl, g.offset);
	}
	if (!desc_is_code(&d))
		return raise_selector(c, VEC_GP, selector, 0);
	r = direct_check(c, &d);
	if (!r)
		r = code_check_offset(c, &d, offset);
	return r ? r : code_load(c, &d, c->s.cpl, offset);
}

static int push_return(struct stack *k, unsigned size)
{
	struct cpu *c = k->c;
	int r = stack_push(k, size, c->s.seg[SEG_CS].selector);

	return r ? r : stack_push(k, size, c->s.rip);
}

static int call_same_level(struct cpu *c, struct desc *code, uint64_t offset, unsigned size)
{
	struct stack k = stack_current(c);
	int r = push_return(&k, size);

	if (!r)
		r = code_load(c, code, c->s.cpl, offset);
	if (!r)
		stack_commit(&k);
	return r;
}

/* Parameters lie on the outer stack, above nothing but what was pushed last. */
static int copy_parameters(struct stack *to, const struct gate *g)
{
	struct stack from = stack_current(to->c);
	uint64_t v[32];
	int r = CPU_OK;

	for (unsigned i = 0; i < g->count && !r; i++)
		r = stack_pop(&from, g->size, &v[i]);
	for (unsigned i = g->count; i-- > 0 && !r;)
		r = stack_push(to, g->size, v[i]);
	return r;
}

static int call_inner_level(struct cpu *c, struct desc *code, const struct gate *g)
{
	unsigned cpl = desc_dpl(code);
	struct stack k;
	struct desc ss;
	int r = stack_from_tss(c, cpl, 0, 0, &k, &ss);

	if (!r)
		r = stack_push(&k, g->size, c->s.seg[SEG_SS].selector);
	if (!r)
		r = stack_push(&k, g->size, c->s.gpr[RSP]);
	if (!r)
		r = copy_parameters(&k, g);
	if (!r)
		r = push_return(&k, g->size);
	if (!r)
		r = code_load(c, code, cpl, g->offset);
	if (r)
		return r;
	c->s.seg[SEG_SS] = k.ss;
	c->s.gpr[RSP] = k.width == 2 ? stack_merge(c->s.gpr[RSP], k.sp, 2) : k.sp;
	return CPU_OK;
}

int seg_far_call(struct cpu *c, uint16_t selector, uint64_t offset, unsigned size)
{
	struct desc d, code;
	struct gate g;
	int r;

	offset = offset_cut(offset, size);
	if (mode_real(c) || mode_v86(c)) {
		struct stack k = stack_current(c);

		r = push_return(&k, size);
		if (!r)
			r = simple_load(c, selector, offset);
		if (!r)
			stack_commit(&k);
		return r;
	}
	if (!(selector & 0xfffc))
		return raise_gp0(c);
	r = desc_read(c, selector, VEC_GP, 0, &d);
	if (r)
		return r;
	if (!desc_is_segment(&d)) {
		r = system_dispatch(c, &d, true, &g, &code);
		if (r)
			return r;
		if (!desc_is_conforming(&code) && desc_dpl(&code) < c->s.cpl)
			return call_inner_level(c, &code, &g);
		return call_same_level(c, &code, g.offset, g.size);
	}
	if (!desc_is_code(&d))
		return raise_selector(c, VEC_GP, selector, 0);
	r = direct_check(c, &d);
	if (!r)
		r = code_check_offset(c, &d, offset);
	return r ? r : call_same_level(c, &d, offset, size);
}

/* To a less privileged level: its stack lies above the parameters to be released. */
static int return_outer(struct cpu *c, struct desc *code, uint64_t rip, uint64_t sp, uint64_t selector, unsigned release)
{
	unsigned cpl = code->selector & 3;
	struct x86_segment segment;
	struct desc ss;
	unsigned width;
	int r;

	if (!(selector & 0xfffc) && desc_is_64(c, code) && cpl != 3) {
		segment = stack_segment_null(cpl);
	} else {
		r = stack_segment_check(c, (uint16_t)selector, cpl, VEC_GP, 0, &ss);
		if (!r)
			r = desc_set_accessed(c, &ss);
		if (r)
			return r;
		segment = desc_segment(&ss, (uint16_t)selector);
	}
	width = desc_is_64(c, code) ? 8 : segment.attr & SEG_ATTR_DB ? 4 : 2;
	r = code_load(c, code, cpl, rip);
	if (r)
		return r;
	c->s.seg[SEG_SS] = segment;
	c->s.gpr[RSP] = stack_merge(c->s.gpr[RSP], sp + release, width);
	data_segments_drop(c, cpl);
	return CPU_OK;
}

/* The order in which the stack is read, and that all of it is before anything is checked, is a Zen 5's. */
static int return_protected(struct cpu *c, struct stack *k, uint64_t rip, uint64_t selector, unsigned size, unsigned release)
{
	uint64_t sp, ss, above = 2 * size + release;
	struct desc code;
	int r = CPU_OK;

	if ((selector & 3) != c->s.cpl) {
		r = stack_peek(k, above + size, size, &ss);
		if (!r)
			r = stack_peek(k, above, size, &sp);
	}
	if (!r)
		r = code_return_check(c, (uint16_t)selector, &code);
	if (!r)
		r = code_check_offset(c, &code, rip);
	if (r)
		return r;
	if ((selector & 3) > c->s.cpl)
		return return_outer(c, &code, rip, sp, ss, release);
	k->sp += above;
	r = code_load(c, &code, c->s.cpl, rip);
	if (!r)
		stack_commit(k);
	return r;
}

int seg_far_return(struct cpu *c, unsigned size, unsigned release)
{
	struct stack k = stack_current(c);
	uint64_t rip, selector;
	int r = stack_peek(&k, size, size, &selector);

	if (!r)
		r = stack_peek(&k, 0, size, &rip);
	if (r)
		return r;
	if (!mode_real(c) && !mode_v86(c))
		return return_protected(c, &k, rip, selector, size, release);
	r = simple_load(c, (uint16_t)selector, rip);
	if (r)
		return r;
	k.sp += 2 * size + release;
	stack_commit(&k);
	return CPU_OK;
}
