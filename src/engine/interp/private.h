/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the interpreter's files share: register, operand and stack access by size, flag arithmetic,
 * binding. All inline with constant sizes after inlining; a handler is an inline body instantiated
 * by size.
 */
#ifndef ENGINE_INTERP_PRIVATE_H
#define ENGINE_INTERP_PRIVATE_H

#include "engine/interp/interp.h"
#include "engine/interp/operand.h"
#include "x86/cpuid.h"

#define INLINE static inline __attribute__((always_inline))

#define I(mnemonic, class, handler) int handler(struct cpu *c, const struct insn *i);
#include "isa/insn.def"
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I

/* Choose a specialised handler: one function per group of hot instructions. NULL: take the row's.
 */
insn_fn alu_bind(const struct insn *i);
insn_fn mov_bind(const struct insn *i);
insn_fn control_bind(const struct insn *i);
insn_fn stack_bind(const struct insn *i);
insn_fn shift_bind(const struct insn *i);

/* clang-format off */
/* Instantiate an inline body for the four operand sizes, and index them by 0..3. */
#define SIZED(name, body)                                                                          \
	static int name##_1(struct cpu *c, const struct insn *i) { return body(c, i, 1); }         \
	static int name##_2(struct cpu *c, const struct insn *i) { return body(c, i, 2); }         \
	static int name##_4(struct cpu *c, const struct insn *i) { return body(c, i, 4); }         \
	static int name##_8(struct cpu *c, const struct insn *i) { return body(c, i, 8); }
#define SIZED_OP(name, op, body)                                                                   \
	static int name##_1(struct cpu *c, const struct insn *i) { return body(c, i, op, 1); }     \
	static int name##_2(struct cpu *c, const struct insn *i) { return body(c, i, op, 2); }     \
	static int name##_4(struct cpu *c, const struct insn *i) { return body(c, i, op, 4); }     \
	static int name##_8(struct cpu *c, const struct insn *i) { return body(c, i, op, 8); }
#define SIZED_TABLE(name) { name##_1, name##_2, name##_4, name##_8 }
/* clang-format on */

INLINE unsigned size_index(unsigned size)
{
	return (unsigned)__builtin_ctz(size) & 3;
}
INLINE uint64_t size_mask(unsigned size)
{
	return ~0ull >> (64 - 8 * size);
}
INLINE uint64_t sign_extend(uint64_t v, unsigned size)
{
	switch (size) {
	case 1:
		return (uint64_t)(int8_t)v;
	case 2:
		return (uint64_t)(int16_t)v;
	case 4:
		return (uint64_t)(int32_t)v;
	default:
		return v;
	}
}

/* Registers. high: AH CH DH BH, numbered 4..7. */
INLINE uint64_t reg_get(const struct cpu *c, unsigned r, bool high, unsigned size)
{
	switch (size) {
	case 1:
		return high ? (uint8_t)(c->s.gpr[r & 3] >> 8) : (uint8_t)c->s.gpr[r];
	case 2:
		return (uint16_t)c->s.gpr[r];
	case 4:
		return (uint32_t)c->s.gpr[r];
	default:
		return c->s.gpr[r];
	}
}
INLINE void reg_set(struct cpu *c, unsigned r, bool high, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		if (high)
			c->s.gpr[r & 3] = (c->s.gpr[r & 3] & ~0xff00ull) | (uint64_t)(uint8_t)v
										   << 8;
		else
			c->s.gpr[r] = (c->s.gpr[r] & ~0xffull) | (uint8_t)v;
		break;
	case 2:
		c->s.gpr[r] = (c->s.gpr[r] & ~0xffffull) | (uint16_t)v;
		break;
	case 4:
		c->s.gpr[r] = (uint32_t)v;
		break;
	default:
		c->s.gpr[r] = v;
		break;
	}
}
INLINE uint64_t reg_operand(const struct cpu *c, const struct insn *i, unsigned size)
{
	return reg_get(c, i->reg, size == 1 && i->flags & INSN_HIGH_REG, size);
}
INLINE void reg_operand_set(struct cpu *c, const struct insn *i, unsigned size, uint64_t v)
{
	reg_set(c, i->reg, size == 1 && i->flags & INSN_HIGH_REG, size, v);
}
INLINE uint64_t rm_register(const struct cpu *c, const struct insn *i, unsigned size)
{
	return reg_get(c, i->rm, size == 1 && i->flags & INSN_HIGH_RM, size);
}
INLINE void rm_register_set(struct cpu *c, const struct insn *i, unsigned size, uint64_t v)
{
	reg_set(c, i->rm, size == 1 && i->flags & INSN_HIGH_RM, size, v);
}

/* Guest memory by linear address, zero-extended. */
INLINE int linear_load(struct cpu *c, gva_t at, unsigned size, uint64_t *v)
{
	uint8_t b;
	uint16_t w;
	uint32_t d;
	int r;

	switch (size) {
	case 1:
		r = cpu_read(c, at, &b, 1);
		*v = b;
		return r;
	case 2:
		r = cpu_read(c, at, &w, 2);
		*v = w;
		return r;
	case 4:
		r = cpu_read(c, at, &d, 4);
		*v = d;
		return r;
	default:
		return cpu_read(c, at, v, 8);
	}
}
INLINE int linear_store(struct cpu *c, gva_t at, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		return cpu_write(c, at, &v, 1);
	case 2:
		return cpu_write(c, at, &v, 2);
	case 4:
		return cpu_write(c, at, &v, 4);
	default:
		return cpu_write(c, at, &v, 8);
	}
}
INLINE uint64_t host_load(const void *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

/* The ModRM memory operand. */
INLINE int mem_load_operand(struct cpu *c, const struct insn *i, unsigned size, uint64_t *v)
{
	gva_t at;
	int r = operand_linear(c, i, size, false, &at);

	return unlikely(r) ? r : linear_load(c, at, size, v);
}
INLINE int mem_store_operand(struct cpu *c, const struct insn *i, unsigned size, uint64_t v)
{
	gva_t at;
	int r = operand_linear(c, i, size, true, &at);

	return unlikely(r) ? r : linear_store(c, at, size, v);
}
/* Register or memory. */
INLINE int rm_get(struct cpu *c, const struct insn *i, unsigned size, uint64_t *v)
{
	if (i->flags & INSN_MEM)
		return mem_load_operand(c, i, size, v);
	*v = rm_register(c, i, size);
	return CPU_OK;
}
INLINE int rm_set(struct cpu *c, const struct insn *i, unsigned size, uint64_t v)
{
	if (i->flags & INSN_MEM)
		return mem_store_operand(c, i, size, v);
	rm_register_set(c, i, size, v);
	return CPU_OK;
}

/*
 * Read-modify-write of memory. Its first access already needs write permission, as on the processor
 * (error code W). A change between begin and end is not atomic; locked instructions use lock_begin.
 */
struct rmw {
	gva_t at;
	void *host; /* NULL: through cpu_read and cpu_write */
	uint64_t old;
};
int rmw_begin_slow(struct cpu *c, unsigned size, struct rmw *m);
INLINE int rmw_begin(struct cpu *c, const struct insn *i, unsigned size, struct rmw *m)
{
	int r = operand_linear(c, i, size, true, &m->at);

	if (unlikely(r))
		return r;
	m->host = tlb_write_hit(c->tlb.data, m->at, size);
	if (unlikely(!m->host))
		return rmw_begin_slow(c, size, m);
	m->old = host_load(m->host, size);
	return CPU_OK;
}
INLINE int rmw_end(struct cpu *c, struct rmw *m, unsigned size, uint64_t v)
{
	if (unlikely(!m->host))
		return linear_store(c, m->at, size, v);
	memcpy(m->host, &v, size);
	return CPU_OK;
}

/*
 * LOCK: for (r = lock_begin(...); !r; ) { compute from m.old; r = lock_end(...) }: lock_end gives
 * LOCK_RETRY when another CPU was faster (m.old is then fresh), else CPU_OK or CPU_FAULT, and
 * everything is released.
 */
#define LOCK_RETRY (-1)
int lock_begin(struct cpu *c, const struct insn *i, unsigned size, struct rmw *m);
int lock_begin_at(struct cpu *c, gva_t at, unsigned size, struct rmw *m);
int lock_end(struct cpu *c, struct rmw *m, unsigned size, uint64_t v);

/* Flags. Results are given truncated to size. */
INLINE uint64_t flags_szp(uint64_t r, unsigned size)
{
	uint64_t f = (uint64_t)!__builtin_parity((uint8_t)r) << 2;

	f |= (uint64_t)(r == 0) << 6;
	return f | ((r >> (8 * size - 1)) & 1) << 7;
}
INLINE void flags_set(struct cpu *c, uint64_t arith)
{
	c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | arith;
}
/* Of `mask` only. */
INLINE void flags_set_some(struct cpu *c, uint64_t mask, uint64_t f)
{
	c->s.rflags = (c->s.rflags & ~mask) | f;
}
INLINE uint64_t flags_add(uint64_t a, uint64_t b, uint64_t r, unsigned carry, unsigned size)
{
	unsigned top = 8 * size - 1;
	uint64_t cf = ((a & b) | ((a | b) & ~r)) >> top & 1;
	uint64_t of = ((a ^ r) & (b ^ r)) >> top & 1;

	return flags_szp(r, size) | cf | of << 11 | ((a ^ b ^ r) & FLAG_AF);
}
INLINE uint64_t flags_sub(uint64_t a, uint64_t b, uint64_t r, unsigned size)
{
	unsigned top = 8 * size - 1;
	uint64_t cf = ((~a & b) | ((~a | b) & r)) >> top & 1;
	uint64_t of = ((a ^ b) & (a ^ r)) >> top & 1;

	return flags_szp(r, size) | cf | of << 11 | ((a ^ b ^ r) & FLAG_AF);
}
/* Condition code 0..15 of Jcc, SETcc, CMOVcc. */
INLINE bool cond_holds(uint64_t f, unsigned cond)
{
	bool v;

	switch (cond >> 1) {
	case 0:
		v = f & FLAG_OF;
		break;
	case 1:
		v = f & FLAG_CF;
		break;
	case 2:
		v = f & FLAG_ZF;
		break;
	case 3:
		v = f & (FLAG_CF | FLAG_ZF);
		break;
	case 4:
		v = f & FLAG_SF;
		break;
	case 5:
		v = f & FLAG_PF;
		break;
	case 6:
		v = (f >> 7 ^ f >> 11) & 1;
		break;
	default:
		v = ((f >> 7 ^ f >> 11) & 1) || f & FLAG_ZF;
		break;
	}
	return v ^ (cond & 1);
}

/* Modes */
INLINE bool cpu_protected(const struct cpu *c) /* not real, not v86 */
{
	return c->s.cr0 & CR0_PE && !(c->s.rflags & FLAG_VM);
}
INLINE bool cpu_v86(const struct cpu *c)
{
	return c->s.rflags & FLAG_VM;
}
INLINE unsigned cpu_iopl(const struct cpu *c)
{
	return (c->s.rflags & FLAG_IOPL) >> FLAG_IOPL_SHIFT;
}
INLINE bool canonical(const struct cpu *c, uint64_t at)
{
	unsigned unused = c->s.cr4 & CR4_LA57 ? 7 : 16;

	return (uint64_t)((int64_t)(at << unused) >> unused) == at;
}
INLINE int raise_gp0(struct cpu *c)
{
	return cpu_raise_error(c, VEC_GP, 0);
}
INLINE int raise_ud(struct cpu *c)
{
	return cpu_raise(c, VEC_UD);
}
/* VEX-encoded integer instructions, which the model offers with AVX: protected mode, but no need of
 * XCR0. */
INLINE int vex_check(struct cpu *c)
{
	return likely(cpu_protected(c) && c->machine->cpuid->has_avx2) ? CPU_OK : raise_ud(c);
}

/* The stack: width by SS.B, or 64 bits. */
INLINE unsigned stack_width(const struct cpu *c, const struct insn *i)
{
	if (i->mode == MODE_64)
		return 8;
	return c->s.seg[SEG_SS].attr & SEG_ATTR_DB ? 4 : 2;
}
INLINE void stack_pointer_set(struct cpu *c, unsigned width, uint64_t sp)
{
	if (width == 2)
		reg_set(c, RSP, false, 2, sp);
	else
		c->s.gpr[RSP] = sp & size_mask(width);
}
INLINE int stack_linear(struct cpu *c, const struct insn *i, uint64_t sp, unsigned size, bool write,
			gva_t *at)
{
	if (likely(i->mode == MODE_64)) {
		*at = sp;
		return CPU_OK;
	}
	return operand_segment(c, SEG_SS, sp & size_mask(stack_width(c, i)), size, write, at);
}
INLINE int stack_store(struct cpu *c, const struct insn *i, uint64_t sp, unsigned size, uint64_t v)
{
	gva_t at;
	int r = stack_linear(c, i, sp, size, true, &at);

	return unlikely(r) ? r : linear_store(c, at, size, v);
}
INLINE int stack_load(struct cpu *c, const struct insn *i, uint64_t sp, unsigned size, uint64_t *v)
{
	gva_t at;
	int r = stack_linear(c, i, sp, size, false, &at);

	return unlikely(r) ? r : linear_load(c, at, size, v);
}
INLINE int stack_push_value(struct cpu *c, const struct insn *i, unsigned size, uint64_t v)
{
	uint64_t sp = c->s.gpr[RSP] - size;
	int r = stack_store(c, i, sp, size, v);

	if (unlikely(r))
		return r;
	stack_pointer_set(c, stack_width(c, i), sp);
	return CPU_OK;
}

/* A segment register has been loaded: SS ends in a shadow; in 32-bit code the translator may be able to take over. */
INLINE bool segment_boundary(const struct insn *i, unsigned seg)
{
	return seg == SEG_SS || (i->mode == MODE_32 && seg <= SEG_DS);
}

/* Where a near branch goes: checks, then sets rip. `target` is cut to the operand size first. */
INLINE int branch_to(struct cpu *c, const struct insn *i, uint64_t target)
{
	if (likely(i->mode == MODE_64)) {
		if (unlikely(!canonical(c, target)))
			return raise_gp0(c);
	} else {
		target &= i->opsize == 2 ? 0xffff : 0xffffffff;
		if (unlikely(target > c->s.seg[SEG_CS].limit))
			return raise_gp0(c);
	}
	c->s.rip = target;
	return CPU_OK;
}

/* x86's: VMCALL and VMMCALL. */
int pv_hypercall(struct cpu *c);

/* Ports (io.c), shared with INS and OUTS: #GP unless IOPL or the TSS's bitmap permit. */
int io_permitted(struct cpu *c, uint16_t port, unsigned size);

#endif
