/* SPDX-License-Identifier: Apache-2.0 */
/* Loading segment registers, LDTR, TR; LAR, LSL, VERR, VERW. */
#include "x86/private.h"

void segment_load_v86(struct cpu *c, enum x86_seg seg, uint16_t selector)
{
	c->s.seg[seg] = (struct x86_segment){
		.base = (uint32_t)selector << 4,
		.limit = 0xffff,
		.selector = selector,
		.attr = SEG_ATTR_P | SEG_ATTR_S | 3 << SEG_ATTR_DPL_SHIFT | TYPE_WRITE | TYPE_ACCESSED,
	};
}

/* Real mode keeps limit and attributes: so a program can use 4 GiB segments it set up in protected mode. */
static void load_real(struct cpu *c, enum x86_seg seg, uint16_t selector)
{
	struct x86_segment *s = &c->s.seg[seg];

	if (!(s->attr & SEG_ATTR_P)) { /* was null */
		s->limit = 0xffff;
		s->attr = SEG_ATTR_P | SEG_ATTR_S | TYPE_WRITE | TYPE_ACCESSED;
	}
	s->selector = selector;
	s->base = (uint32_t)selector << 4;
}

static int load_null(struct cpu *c, enum x86_seg seg, uint16_t selector)
{
	if (seg != SEG_SS) {
		c->s.seg[seg] = (struct x86_segment){ .selector = selector };
		return CPU_OK;
	}
	if (!x86_64bit(&c->s) || c->s.cpl == 3 || (selector & 3) != c->s.cpl)
		return raise_gp0(c);
	c->s.seg[SEG_SS] = stack_segment_null(c->s.cpl);
	return CPU_OK;
}

static int check_data(struct cpu *c, const struct desc *d)
{
	unsigned rpl = d->selector & 3, dpl = desc_dpl(d);

	if (!desc_is_segment(d) || (desc_type(d) & (TYPE_CODE | TYPE_READ)) == TYPE_CODE)
		return raise_selector(c, VEC_GP, d->selector, 0);
	if (!desc_is_conforming(d) && (rpl > dpl || c->s.cpl > dpl))
		return raise_selector(c, VEC_GP, d->selector, 0);
	return desc_present(d) ? CPU_OK : raise_selector(c, VEC_NP, d->selector, 0);
}

int seg_load(struct cpu *c, enum x86_seg seg, uint16_t selector)
{
	struct desc d;
	int r;

	if (mode_real(c)) {
		load_real(c, seg, selector);
		return CPU_OK;
	}
	if (mode_v86(c)) {
		segment_load_v86(c, seg, selector);
		return CPU_OK;
	}
	if (!(selector & 0xfffc))
		return load_null(c, seg, selector);
	if (seg == SEG_SS) {
		r = stack_segment_check(c, selector, c->s.cpl, VEC_GP, 0, &d);
	} else {
		r = desc_read(c, selector, VEC_GP, 0, &d);
		if (!r)
			r = check_data(c, &d);
	}
	if (!r)
		r = desc_set_accessed(c, &d);
	if (!r)
		c->s.seg[seg] = desc_segment(&d, selector);
	return r;
}

/* LDT or TSS: in the GDT, of the right type, present, its base canonical. */
static int read_system(struct cpu *c, uint16_t selector, struct desc *d, unsigned types)
{
	int r;

	if (selector & 4)
		return raise_selector(c, VEC_GP, selector, 0);
	r = desc_read(c, selector, VEC_GP, 0, d);
	if (r)
		return r;
	if (desc_is_segment(d) || !(types >> desc_type(d) & 1))
		return raise_selector(c, VEC_GP, selector, 0);
	if (!desc_present(d))
		return raise_selector(c, VEC_NP, selector, 0);
	r = desc_read_high(c, d, VEC_GP, 0);
	if (!r && !is_canonical(desc_base(d) | d->high << 32))
		r = raise_selector(c, VEC_GP, selector, 0);
	return r;
}

int seg_load_ldtr(struct cpu *c, uint16_t selector)
{
	struct desc d;
	int r;

	if (!(selector & 0xfffc)) {
		c->s.seg[SEG_LDTR] = (struct x86_segment){ .selector = selector };
		return CPU_OK;
	}
	r = read_system(c, selector, &d, 1u << DESC_LDT);
	if (!r)
		c->s.seg[SEG_LDTR] = desc_segment(&d, selector);
	return r;
}

int seg_load_tr(struct cpu *c, uint16_t selector)
{
	unsigned types = 1u << DESC_TSS32 | (x86_long_mode(&c->s) ? 0 : 1u << DESC_TSS16);
	struct desc d;
	int r;

	if (!(selector & 0xfffc))
		return raise_gp0(c);
	r = read_system(c, selector, &d, types);
	if (!r)
		r = desc_set_busy(c, &d, true);
	if (!r)
		c->s.seg[SEG_TR] = desc_segment(&d, selector);
	return r;
}

/* ---- queries: never a fault but for the table's memory */

static bool visible(const struct cpu *c, const struct desc *d)
{
	return desc_is_conforming(d) || (c->s.cpl <= desc_dpl(d) && (d->selector & 3u) <= desc_dpl(d));
}

/* A segment, or a system descriptor of one of these types, that may be seen from here. */
static int query(struct cpu *c, uint16_t selector, unsigned types, unsigned types_long, struct desc *d, bool *ok)
{
	int r = desc_find(c, selector, d, ok);

	if (r || !*ok)
		return r;
	if (desc_is_segment(d)) {
		*ok = visible(c, d);
		return CPU_OK;
	}
	if (x86_long_mode(&c->s))
		types = types_long;
	*ok = types >> desc_type(d) & 1 && c->s.cpl <= desc_dpl(d) && (selector & 3u) <= desc_dpl(d);
	return CPU_OK;
}

#define TYPES_TSS (1u << DESC_TSS16 | 1u << DESC_TSS16_BUSY | 1u << DESC_TSS32 | 1u << DESC_TSS32_BUSY)
#define TYPES_LONG (1u << DESC_LDT | 1u << DESC_TSS32 | 1u << DESC_TSS32_BUSY)

int seg_lar(struct cpu *c, uint16_t selector, bool *ok, uint32_t *out)
{
	struct desc d;
	int r = query(c, selector,
		      TYPES_TSS | 1u << DESC_LDT | 1u << DESC_CALL16 | 1u << DESC_TASK | 1u << DESC_CALL32,
		      TYPES_LONG | 1u << DESC_CALL32, &d, ok);

	if (!r && *ok)
		*out = (uint32_t)(d.low >> 32) & 0x00ffff00; /* limit bits too, as AMD documents */
	return r;
}

int seg_lsl(struct cpu *c, uint16_t selector, bool *ok, uint32_t *out)
{
	struct desc d;
	int r = query(c, selector, TYPES_TSS | 1u << DESC_LDT, TYPES_LONG, &d, ok);

	if (!r && *ok)
		*out = desc_limit(&d);
	return r;
}

int seg_verify(struct cpu *c, uint16_t selector, bool write, bool *ok)
{
	struct desc d;
	int r = query(c, selector, 0, 0, &d, ok);

	if (!r && *ok)
		*ok = write ? desc_is_writable(&d) : !(desc_type(&d) & TYPE_CODE) || desc_type(&d) & TYPE_READ;
	return r;
}
