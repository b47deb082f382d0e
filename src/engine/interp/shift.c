/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shifts and rotates. Flags that the manuals leave undefined are given as AMD's processors (Zen)
 * set them: AF one after a shift, OF by its one-bit rule for every count.
 */
#include "engine/interp/private.h"

enum shift { SH_ROL, SH_ROR, SH_RCL, SH_RCR, SH_SHL, SH_SHR, SH_SAR };

#define FLAGS_ROTATE (FLAG_CF | FLAG_OF)

INLINE uint64_t top_xor(uint64_t r, unsigned width) /* the two highest bits differ */
{
	return ((r >> (width - 1)) ^ (r >> (width - 2))) & 1;
}

/* Rotate v by n (already taken modulo the width where it matters) through nothing. */
INLINE uint64_t rotate_left(uint64_t v, unsigned n, unsigned size)
{
	unsigned width = 8 * size;

	n &= width - 1;
	return n ? (v << n | v >> (width - n)) & size_mask(size) : v;
}

/* Rotate through carry: cf is in and out. n is 1..width. */
INLINE uint64_t rotate_carry_left(uint64_t v, unsigned n, unsigned size, uint64_t *cf)
{
	unsigned width = 8 * size;
	uint64_t in = *cf, r;

	*cf = v >> (width - n) & 1;
	r = n == width ? 0 : v << n;
	r |= in << (n - 1);
	if (n > 1)
		r |= v >> (width + 1 - n);
	return r & size_mask(size);
}
INLINE uint64_t rotate_carry_right(uint64_t v, unsigned n, unsigned size, uint64_t *cf)
{
	unsigned width = 8 * size;
	uint64_t in = *cf, r;

	*cf = v >> (n - 1) & 1;
	r = n == width ? 0 : v >> n;
	r |= in << (width - n);
	if (n > 1)
		r |= v << (width + 1 - n);
	return r & size_mask(size);
}

/*
 * n is the count after masking with 31 or 63, not 0. Gives the result; *f the flags to set under
 * *mask. A rotate through carry whose count is a multiple of width + 1 changes OF alone.
 */
INLINE uint64_t shift_compute(enum shift op, uint64_t v, unsigned n, unsigned size, uint64_t rflags,
			      uint64_t *f, uint64_t *mask)
{
	unsigned width = 8 * size;
	uint64_t r, cf = rflags & FLAG_CF, of;

	*mask = FLAGS_ROTATE;
	switch (op) {
	case SH_ROL:
		r = rotate_left(v, n, size);
		cf = r & 1;
		*f = cf | (cf ^ r >> (width - 1)) << 11;
		return r;
	case SH_ROR:
		r = rotate_left(v, width - (n & (width - 1)), size);
		cf = r >> (width - 1);
		*f = cf | top_xor(r, width) << 11;
		return r;
	case SH_RCL:
	case SH_RCR:
		if (size < 4)
			n %= width + 1;
		r = v;
		if (n)
			r = op == SH_RCL ? rotate_carry_left(v, n, size, &cf)
					 : rotate_carry_right(v, n, size, &cf);
		of = op == SH_RCL ? cf ^ r >> (width - 1) : top_xor(r, width);
		*f = cf | of << 11;
		return r;
	case SH_SHL:
		cf = n <= width ? v >> (width - n) & 1 : 0;
		r = size == 8 ? v << n : v << n & size_mask(size);
		of = cf ^ r >> (width - 1);
		break;
	case SH_SHR:
		cf = v >> (n - 1) & 1; /* v has no bits above its width */
		r = v >> n;
		of = top_xor(r, width);
		break;
	default:
		v = sign_extend(v, size);
		cf = v >> (n - 1) & 1;
		r = (uint64_t)((int64_t)v >> n) & size_mask(size);
		of = 0;
		break;
	}
	*mask = FLAGS_ARITH;
	*f = flags_szp(r, size) | cf | of << 11 | FLAG_AF;
	return r;
}

INLINE unsigned shift_count(const struct cpu *c, const struct insn *i, unsigned size)
{
	return (unsigned)(i->form == FORM_RM_CL ? c->s.gpr[RCX] : i->imm) & (size == 8 ? 63 : 31);
}

INLINE int shift_reg(struct cpu *c, const struct insn *i, enum shift op, unsigned size)
{
	unsigned n = shift_count(c, i, size);
	uint64_t v = rm_register(c, i, size), f, mask;

	if (n) {
		v = shift_compute(op, v, n, size, c->s.rflags, &f, &mask);
		flags_set_some(c, mask, f);
	}
	rm_register_set(c, i, size,
			v); /* the upper half of a 32-bit register is cleared by a count of 0 too */
	return CPU_OK;
}
INLINE int shift_mem(struct cpu *c, const struct insn *i, enum shift op, unsigned size)
{
	unsigned n = shift_count(c, i, size);
	uint64_t f = 0, mask = 0, r;
	struct rmw m;
	int e = rmw_begin(c, i, size, &m);

	if (unlikely(e))
		return e;
	r = n ? shift_compute(op, m.old, n, size, c->s.rflags, &f, &mask) : m.old;
	e = rmw_end(c, &m, size, r);
	if (unlikely(e))
		return e;
	flags_set_some(c, mask, f);
	return CPU_OK;
}

SIZED_OP(rol, SH_ROL, shift_reg)
SIZED_OP(rol_m, SH_ROL, shift_mem)
SIZED_OP(ror, SH_ROR, shift_reg)
SIZED_OP(ror_m, SH_ROR, shift_mem)
SIZED_OP(rcl, SH_RCL, shift_reg)
SIZED_OP(rcl_m, SH_RCL, shift_mem)
SIZED_OP(rcr, SH_RCR, shift_reg)
SIZED_OP(rcr_m, SH_RCR, shift_mem)
SIZED_OP(shl, SH_SHL, shift_reg)
SIZED_OP(shl_m, SH_SHL, shift_mem)
SIZED_OP(shr, SH_SHR, shift_reg)
SIZED_OP(shr_m, SH_SHR, shift_mem)
SIZED_OP(sar, SH_SAR, shift_reg)
SIZED_OP(sar_m, SH_SAR, shift_mem)

static const insn_fn shift_table[2][7][4] = {
	{ SIZED_TABLE(rol), SIZED_TABLE(ror), SIZED_TABLE(rcl), SIZED_TABLE(rcr), SIZED_TABLE(shl),
	  SIZED_TABLE(shr), SIZED_TABLE(sar) },
	{ SIZED_TABLE(rol_m), SIZED_TABLE(ror_m), SIZED_TABLE(rcl_m), SIZED_TABLE(rcr_m),
	  SIZED_TABLE(shl_m), SIZED_TABLE(shr_m), SIZED_TABLE(sar_m) },
};

insn_fn shift_bind(const struct insn *i)
{
	return shift_table[i->flags & INSN_MEM ? 1 : 0][i->op - OP_ROL][size_index(i->opsize)];
}

int shift_rol(struct cpu *c, const struct insn *i)
{
	return shift_bind(i)(c, i);
}
int shift_ror(struct cpu *c, const struct insn *i)
{
	return shift_bind(i)(c, i);
}
int shift_rcl(struct cpu *c, const struct insn *i)
{
	return shift_bind(i)(c, i);
}
int shift_rcr(struct cpu *c, const struct insn *i)
{
	return shift_bind(i)(c, i);
}
int shift_shl(struct cpu *c, const struct insn *i)
{
	return shift_bind(i)(c, i);
}
int shift_shr(struct cpu *c, const struct insn *i)
{
	return shift_bind(i)(c, i);
}
int shift_sar(struct cpu *c, const struct insn *i)
{
	return shift_bind(i)(c, i);
}

/*
 * SHLD and SHRD. With 16 bits and counts above 16 (undefined) the source is rotated, as on Zen.
 */
static uint64_t double_shift(bool left, uint64_t v, uint64_t src, unsigned n, unsigned size,
			     uint64_t *f)
{
	unsigned width = 8 * size;
	uint64_t r, cf, of;

	if (n >= width) { /* only with 16-bit operands */
		r = rotate_left(src, left ? n - width : 2 * width - n, size);
		cf = n > width ? 0 : left ? v & 1 : v >> (width - 1);
		of = left ? cf : top_xor(r, width);
	} else if (left) {
		r = (v << n | src >> (width - n)) & size_mask(size);
		cf = v >> (width - n) & 1;
		of = cf ^ r >> (width - 1);
	} else {
		r = (v >> n | src << (width - n)) & size_mask(size);
		cf = v >> (n - 1) & 1;
		of = top_xor(r, width);
	}
	*f = flags_szp(r, size) | cf | of << 11 | FLAG_AF;
	return r;
}

static int shift_double(struct cpu *c, const struct insn *i, bool left)
{
	unsigned size = i->opsize;
	unsigned n = (unsigned)(i->form == FORM_RM_REG_CL ? c->s.gpr[RCX] : i->imm) &
		     (size == 8 ? 63 : 31);
	uint64_t src = reg_get(c, i->reg, false, size), r, f = 0;
	struct rmw m = { .host = NULL };
	bool mem = i->flags & INSN_MEM;
	int e = CPU_OK;

	if (mem)
		e = rmw_begin(c, i, size, &m);
	else
		m.old = reg_get(c, i->rm, false, size);
	if (e)
		return e;
	r = n ? double_shift(left, m.old, src, n, size, &f) : m.old;
	if (mem)
		e = rmw_end(c, &m, size, r);
	else
		reg_set(c, i->rm, false, size, r);
	if (e)
		return e;
	if (n)
		flags_set(c, f);
	return CPU_OK;
}
int shift_shld(struct cpu *c, const struct insn *i)
{
	return shift_double(c, i, true);
}
int shift_shrd(struct cpu *c, const struct insn *i)
{
	return shift_double(c, i, false);
}

/* BMI2: no flags. */
static int shift_x(struct cpu *c, const struct insn *i, enum shift op, unsigned n)
{
	uint64_t v;
	int e = vex_check(c);

	if (!e)
		e = rm_get(c, i, i->opsize, &v);
	if (e)
		return e;
	n &= i->opsize == 8 ? 63 : 31;
	if (op == SH_ROR)
		v = rotate_left(v, 8u * i->opsize - n, i->opsize);
	else if (op == SH_SHL)
		v = v << n & size_mask(i->opsize);
	else if (op == SH_SHR)
		v >>= n;
	else
		v = (uint64_t)((int64_t)sign_extend(v, i->opsize) >> n) & size_mask(i->opsize);
	reg_set(c, i->reg, false, i->opsize, v);
	return CPU_OK;
}
int shift_rorx(struct cpu *c, const struct insn *i)
{
	return shift_x(c, i, SH_ROR, (unsigned)i->imm);
}
int shift_shlx(struct cpu *c, const struct insn *i)
{
	return shift_x(c, i, SH_SHL, (unsigned)c->s.gpr[i->vvvv]);
}
int shift_shrx(struct cpu *c, const struct insn *i)
{
	return shift_x(c, i, SH_SHR, (unsigned)c->s.gpr[i->vvvv]);
}
int shift_sarx(struct cpu *c, const struct insn *i)
{
	return shift_x(c, i, SH_SAR, (unsigned)c->s.gpr[i->vvvv]);
}
