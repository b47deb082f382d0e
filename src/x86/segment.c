/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: linear addresses, descriptor tables, stacks, privilege; what all transfers are made of. */
#include "x86/private.h"

void cpu_set_cpl(struct cpu *c, unsigned cpl)
{
	c->s.cpl = (uint8_t)cpl;
	tlb_select(c);
}

void cpu_set_rflags(struct cpu *c, uint64_t rflags)
{
	c->s.rflags = (rflags & RFLAGS_IMPLEMENTED) | 2;
	tlb_select(c);
}

/* Is [offset, +size) within the segment's limit? */
static bool limit_holds(const struct x86_segment *s, uint64_t offset, unsigned size)
{
	uint64_t last = offset + size - 1;
	bool data = !(s->attr & TYPE_CODE);

	if (data && s->attr & TYPE_DOWN && s->attr & SEG_ATTR_S)
		return offset > s->limit && last <= (s->attr & SEG_ATTR_DB ? 0xffffffffu : 0xffffu);
	return last <= s->limit; /* a flat segment too does not wrap at 4 GiB */
}

static bool type_allows(const struct x86_segment *s, bool write)
{
	if (!(s->attr & SEG_ATTR_P))
		return false;
	if (s->attr & TYPE_CODE)
		return !write && s->attr & TYPE_READ;
	return !write || s->attr & TYPE_WRITE;
}

int seg_linear(struct cpu *c, enum x86_seg seg, uint64_t offset, unsigned size, bool write, gva_t *linear)
{
	const struct x86_segment *s = &c->s.seg[seg];

	if (x86_64bit(&c->s)) {
		*linear = seg == SEG_FS || seg == SEG_GS ? s->base + offset : offset;
		return CPU_OK;
	}
	*linear = (uint32_t)(s->base + offset);
	if (likely(limit_holds(s, offset, size) && (mode_real(c) || type_allows(s, write))))
		return CPU_OK;
	return cpu_raise_error(c, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* ---- descriptors */

/* [offset, +size) of the table the selector names. */
static bool table_holds(const struct cpu *c, uint16_t selector, unsigned size, gva_t *at)
{
	unsigned offset = selector & 0xfff8u;
	const struct x86_segment *ldt = &c->s.seg[SEG_LDTR];

	if (selector & 4) {
		*at = ldt->base + offset;
		return ldt->attr & SEG_ATTR_P && offset + size - 1 <= ldt->limit;
	}
	*at = c->s.gdtr.base + offset;
	return offset + size - 1 <= c->s.gdtr.limit;
}

int desc_find(struct cpu *c, uint16_t selector, struct desc *d, bool *ok)
{
	*d = (struct desc){ .selector = selector };
	*ok = (selector & 0xfffc) && table_holds(c, selector, 8, &d->at);
	return *ok ? cpu_read_system(c, d->at, &d->low, 8) : CPU_OK;
}

int desc_read(struct cpu *c, uint16_t selector, enum x86_vector vector, unsigned ext, struct desc *d)
{
	bool ok;
	int r = desc_find(c, selector, d, &ok);

	if (r)
		return r;
	return ok ? CPU_OK : raise_selector(c, vector, selector, ext);
}

int desc_read_high(struct cpu *c, struct desc *d, enum x86_vector vector, unsigned ext)
{
	gva_t at;
	int r;

	if (!x86_long_mode(&c->s))
		return CPU_OK;
	if (!table_holds(c, d->selector, 16, &at))
		return raise_selector(c, vector, d->selector, ext);
	r = cpu_read_system(c, d->at + 8, &d->high, 8);
	if (r)
		return r;
	if (d->high >> 40 & 0x1f) /* a type there would be that of a descriptor in its own right */
		return raise_selector(c, vector, d->selector, ext);
	return CPU_OK;
}

static int desc_write_type(struct cpu *c, struct desc *d, uint64_t low)
{
	uint8_t byte = (uint8_t)(low >> 40);
	int r;

	if (low == d->low)
		return CPU_OK;
	r = cpu_write_system(c, d->at + 5, &byte, 1);
	if (!r)
		d->low = low;
	return r;
}

int desc_set_accessed(struct cpu *c, struct desc *d)
{
	return desc_write_type(c, d, d->low | BIT(40));
}

int desc_set_busy(struct cpu *c, struct desc *d, bool busy)
{
	return desc_write_type(c, d, busy ? d->low | BIT(41) : d->low & ~BIT(41));
}

struct x86_segment desc_segment(const struct desc *d, uint16_t selector)
{
	return (struct x86_segment){ .base = desc_base(d) | (desc_is_segment(d) ? 0 : d->high << 32),
				     .limit = desc_limit(d),
				     .selector = selector,
				     .attr = desc_attr(d) };
}

/* ---- code */

int code_check_offset(struct cpu *c, const struct desc *d, uint64_t offset)
{
	if (desc_is_64(c, d))
		return is_canonical(offset) ? CPU_OK : raise_gp0(c);
	return offset <= desc_limit(d) ? CPU_OK : raise_gp0(c);
}

int code_load(struct cpu *c, struct desc *d, unsigned cpl, uint64_t rip)
{
	int r = desc_set_accessed(c, d);

	if (r)
		return r;
	c->s.seg[SEG_CS] = desc_segment(d, (uint16_t)((d->selector & 0xfffc) | cpl));
	c->s.rip = rip;
	cpu_set_cpl(c, cpl);
	return CPU_OK;
}

int code_return_check(struct cpu *c, uint16_t selector, struct desc *d)
{
	unsigned rpl = selector & 3;
	int r;

	if (!(selector & 0xfffc))
		return raise_gp0(c);
	r = desc_read(c, selector, VEC_GP, 0, d);
	if (r)
		return r;
	if (!desc_is_code(d) || rpl < c->s.cpl)
		return raise_selector(c, VEC_GP, selector, 0);
	if (desc_is_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl)
		return raise_selector(c, VEC_GP, selector, 0);
	if (desc_is_64(c, d) && d->low >> 54 & 1)
		return raise_selector(c, VEC_GP, selector, 0);
	if (!desc_present(d))
		return raise_selector(c, VEC_NP, selector, 0);
	return CPU_OK;
}

/* ---- stacks */

struct x86_segment stack_segment_null(unsigned cpl)
{
	return (struct x86_segment){ .selector = (uint16_t)cpl, .attr = (uint16_t)(cpl << SEG_ATTR_DPL_SHIFT) };
}

int stack_segment_check(struct cpu *c, uint16_t selector, unsigned cpl, enum x86_vector vector, unsigned ext,
			struct desc *d)
{
	int r;

	if (!(selector & 0xfffc))
		return cpu_raise_error(c, vector, ext);
	r = desc_read(c, selector, vector, ext, d);
	if (r)
		return r;
	if ((selector & 3) != cpl || desc_dpl(d) != cpl || !desc_is_writable(d))
		return raise_selector(c, vector, selector, ext);
	if (!desc_present(d))
		return raise_selector(c, VEC_SS, selector, ext);
	return CPU_OK;
}

void data_segments_drop(struct cpu *c, unsigned cpl)
{
	static const uint8_t which[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned i = 0; i < ARRAY_LEN(which); i++) {
		struct x86_segment *s = &c->s.seg[which[i]];
		unsigned dpl = (s->attr & SEG_ATTR_DPL) >> SEG_ATTR_DPL_SHIFT;

		if (!(s->attr & SEG_ATTR_P) || dpl >= cpl)
			continue;
		if ((s->attr & (TYPE_CODE | TYPE_CONFORM)) == (TYPE_CODE | TYPE_CONFORM))
			continue;
		*s = (struct x86_segment){ 0 };
	}
}

struct stack stack_current(struct cpu *c)
{
	return (struct stack){ .c = c,
			       .ss = c->s.seg[SEG_SS],
			       .sp = c->s.gpr[RSP],
			       .width = x86_64bit(&c->s) ? 8 : c->s.seg[SEG_SS].attr & SEG_ATTR_DB ? 4 : 2,
			       .cpl = c->s.cpl };
}

static uint64_t width_cut(uint64_t v, unsigned width)
{
	return width == 8 ? v : width == 4 ? (uint32_t)v : (uint16_t)v;
}

static int stack_linear(struct stack *k, uint64_t sp, unsigned size, bool write, gva_t *at)
{
	if (k->width == 8) {
		*at = sp;
		return is_canonical(sp) && is_canonical(sp + size - 1) ? CPU_OK :
									 cpu_raise_error(k->c, VEC_SS, k->error);
	}
	*at = (uint32_t)(k->ss.base + sp);
	if (limit_holds(&k->ss, sp, size) && (mode_real(k->c) || type_allows(&k->ss, write)))
		return CPU_OK;
	return cpu_raise_error(k->c, VEC_SS, k->error);
}

int stack_push(struct stack *k, unsigned size, uint64_t v)
{
	uint64_t sp = width_cut(k->sp - size, k->width);
	gva_t at;
	int r = stack_linear(k, sp, size, true, &at);

	if (!r)
		r = cpu_write_as(k->c, k->cpl, at, &v, size);
	if (!r)
		k->sp = sp;
	return r;
}

int stack_pop(struct stack *k, unsigned size, uint64_t *v)
{
	uint64_t sp = width_cut(k->sp, k->width);
	gva_t at;
	int r = stack_linear(k, sp, size, false, &at);

	*v = 0;
	if (!r)
		r = cpu_read_as(k->c, k->cpl, at, v, size);
	if (!r)
		k->sp = width_cut(sp + size, k->width);
	return r;
}

int stack_peek(const struct stack *k, uint64_t offset, unsigned size, uint64_t *v)
{
	struct stack there = *k;

	there.sp += offset;
	return stack_pop(&there, size, v);
}

void stack_commit(const struct stack *k)
{
	k->c->s.gpr[RSP] = stack_merge(k->c->s.gpr[RSP], k->sp, k->width);
}

static int stack_from_tss64(struct cpu *c, unsigned cpl, unsigned ist, unsigned ext, struct stack *k)
{
	const struct x86_segment *tr = &c->s.seg[SEG_TR];
	unsigned offset = ist ? 36 + (ist - 1) * 8 : 4 + cpl * 8;
	uint64_t sp;
	int r;

	if (!(tr->attr & SEG_ATTR_P) || offset + 7 > tr->limit)
		return raise_selector(c, VEC_TS, tr->selector, ext);
	r = cpu_read_system(c, tr->base + offset, &sp, 8);
	if (r)
		return r;
	*k = (struct stack){
		.c = c, .ss = stack_segment_null(cpl), .sp = sp, .width = 8, .cpl = cpl, .error = ext
	};
	return is_canonical(sp) ? CPU_OK : cpu_raise_error(c, VEC_SS, ext);
}

int stack_from_tss(struct cpu *c, unsigned cpl, unsigned ist, unsigned ext, struct stack *k, struct desc *ss)
{
	const struct x86_segment *tr = &c->s.seg[SEG_TR];
	bool wide = (tr->attr & SEG_ATTR_TYPE) >= DESC_TSS32;
	unsigned size = wide ? 4 : 2, offset = size * (1 + 2 * cpl);
	uint32_t sp = 0;
	uint16_t selector;
	int r;

	if (x86_long_mode(&c->s))
		return stack_from_tss64(c, cpl, ist, ext, k);
	if (!(tr->attr & SEG_ATTR_P) || offset + size + 1 > tr->limit)
		return raise_selector(c, VEC_TS, tr->selector, ext);
	r = cpu_read_system(c, tr->base + offset, &sp, size);
	if (!r)
		r = cpu_read_system(c, tr->base + offset + size, &selector, 2);
	if (!r)
		r = stack_segment_check(c, selector, cpl, VEC_TS, ext, ss);
	if (!r)
		r = desc_set_accessed(c, ss);
	if (r)
		return r;
	*k = (struct stack){ .c = c,
			     .ss = desc_segment(ss, selector),
			     .sp = sp,
			     .cpl = cpl,
			     .error = (selector & 0xfffcu) | ext };
	k->width = k->ss.attr & SEG_ATTR_DB ? 4 : 2;
	return CPU_OK;
}
