/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves between registers and memory: whole, partial, to and from general and MMX registers,
 * masked, and gathers. Non-temporal ones are plain moves to us.
 */
#include "engine/interp/simd.h"

/* ---- whole registers ---- */

static int move(struct cpu *c, const struct insn *i, bool aligned, unsigned how)
{
	bool store = i->form == FORM_RM_REG;
	unsigned bytes = simd_bytes(i);
	union x86_vreg v;
	gva_t at;
	int r = simd_check(c, i, how);

	if (r)
		return r;
	if (!(i->flags & INSN_MEM)) {
		v = c->s.v[store ? i->reg : i->rm];
		simd_store(c, i, store ? i->rm : i->reg, &v, bytes);
		return CPU_OK;
	}
	r = aligned ? simd_linear_aligned(c, i, bytes, store, &at)
		    : operand_linear(c, i, bytes, store, &at);
	if (r)
		return r;
	if (store)
		return cpu_write(c, at, &c->s.v[i->reg], bytes);
	r = cpu_read(c, at, &v, bytes);
	if (!r)
		simd_store(c, i, i->reg, &v, bytes);
	return r;
}

int simd_move_aligned(struct cpu *c, const struct insn *i)
{
	return move(c, i, true, 0);
}

int simd_move_unaligned(struct cpu *c, const struct insn *i)
{
	return move(c, i, false, 0);
}

int simd_movntdqa(struct cpu *c, const struct insn *i) /* 256 bits are AVX2 */
{
	return move(c, i, true, SIMD_INT);
}

/* ---- MOVD, MOVQ in all their forms ---- */

/* Low `size` bytes into a vector register, the rest of the low 16 (VEX: of all) cleared. */
static void set_low(struct cpu *c, const struct insn *i, unsigned reg, uint64_t value)
{
	uint64_t q[2] = { value, 0 };

	simd_store(c, i, reg, q, 16);
}

/* 0F 6E and 0F 7E: between a general register or memory and the low part of a vector or MMX
 * register. */
int simd_movd(struct cpu *c, const struct insn *i)
{
	unsigned size = simd_wide(i) ? 8 : 4;
	bool mmx = i->flags & INSN_MMX;
	uint64_t value = 0;
	int r = simd_check(c, i, 0);

	if (r)
		return r;
	if (i->opcode == 0x7e) {
		value = mmx ? mmx_get(c, i->reg) : c->s.v[i->reg].q[0];
		if (i->flags & INSN_MEM) {
			r = operand_write(c, i, &value, size);
			if (r)
				return r;
		} else {
			c->s.gpr[i->rm] = size == 4 ? (uint32_t)value : value;
		}
		if (mmx)
			mmx_enter(c);
		return CPU_OK;
	}
	if (i->flags & INSN_MEM) {
		r = operand_read(c, i, &value, size);
		if (r)
			return r;
	} else {
		value = size == 4 ? (uint32_t)c->s.gpr[i->rm] : c->s.gpr[i->rm];
	}
	if (mmx)
		mmx_set(c, i->reg, value);
	else
		set_low(c, i, i->reg, value);
	return CPU_OK;
}

static int movq_mmx(struct cpu *c, const struct insn *i)
{
	bool store = i->opcode != 0x6f; /* 7F, E7 */
	uint64_t value;
	int r = CPU_OK;

	value = mmx_get(c, store ? i->reg : i->rm);
	if (i->flags & INSN_MEM)
		r = store ? operand_write(c, i, &value, 8) : operand_read(c, i, &value, 8);
	if (r)
		return r;
	mmx_enter(c);
	if (!store || !(i->flags & INSN_MEM))
		mmx_set(c, store ? i->rm : i->reg, value);
	return CPU_OK;
}

int simd_movq(struct cpu *c, const struct insn *i)
{
	uint64_t value;
	int r;

	if (i->opcode == 0x6e || (i->opcode == 0x7e && i->prefix != 0xf3))
		return simd_movd(c, i);
	r = simd_check(c, i, 0);
	if (r)
		return r;
	if (i->flags & INSN_MMX)
		return movq_mmx(c, i);
	if (i->opcode == 0xd6) {
		value = c->s.v[i->reg].q[0];
		if (i->flags & INSN_MEM)
			return operand_write(c, i, &value, 8);
		set_low(c, i, i->rm, value);
		return CPU_OK;
	}
	value = c->s.v[i->rm].q[0];
	if (i->flags & INSN_MEM) {
		r = operand_read(c, i, &value, 8);
		if (r)
			return r;
	}
	set_low(c, i, i->reg, value);
	return CPU_OK;
}

int simd_movq2dq(struct cpu *c, const struct insn *i)
{
	int r = simd_check(c, i, 0);

	if (r)
		return r;
	mmx_enter(c);
	set_low(c, i, i->reg, mmx_get(c, i->rm));
	return CPU_OK;
}

int simd_movdq2q(struct cpu *c, const struct insn *i)
{
	int r = simd_check(c, i, 0);

	if (r)
		return r;
	mmx_set(c, i->reg, c->s.v[i->rm].q[0]);
	return CPU_OK;
}

/* ---- scalars and halves ---- */

static int move_scalar(struct cpu *c, const struct insn *i, unsigned size)
{
	bool store = i->opcode & 1; /* 11, against 10 */
	union x86_vreg v;
	uint64_t value = 0;
	int r = simd_check(c, i, 0);

	if (r)
		return r;
	if (i->flags & INSN_MEM) {
		if (store)
			return operand_write(c, i, &c->s.v[i->reg], size);
		r = operand_read(c, i, &value, size);
		if (!r)
			set_low(c, i, i->reg, value);
		return r;
	}
	v = c->s.v[i->flags & INSN_VEX ? i->vvvv : store ? i->rm : i->reg];
	memcpy(&v, &c->s.v[store ? i->reg : i->rm], size);
	simd_store(c, i, store ? i->rm : i->reg, &v, 16);
	return CPU_OK;
}

int simd_movss(struct cpu *c, const struct insn *i)
{
	return move_scalar(c, i, 4);
}

int simd_movsd(struct cpu *c, const struct insn *i)
{
	return move_scalar(c, i, 8);
}

/* MOVNTSS, MOVNTSD */
int simd_movnt_scalar(struct cpu *c, const struct insn *i)
{
	int r = simd_check(c, i, SIMD_SSE4A);

	return r ? r : operand_write(c, i, &c->s.v[i->reg], i->memsize);
}

/* MOVLPS, MOVHPS and kin: one half from memory or from half `from` of a register, or that half to
 * memory. */
static int move_half(struct cpu *c, const struct insn *i, unsigned half, unsigned from)
{
	union x86_vreg v;
	uint64_t value;
	int r = simd_check(c, i, 0);

	if (r)
		return r;
	if (i->flags & INSN_MEM) {
		if (i->opcode & 1)
			return operand_write(c, i, &c->s.v[i->reg].q[half], 8);
		r = operand_read(c, i, &value, 8);
		if (r)
			return r;
	} else {
		value = c->s.v[i->rm].q[from];
	}
	v = *simd_first(c, i);
	v.q[half] = value;
	simd_store(c, i, i->reg, &v, 16);
	return CPU_OK;
}

int simd_movlps(struct cpu *c, const struct insn *i) /* and MOVHLPS */
{
	return move_half(c, i, 0, 1);
}

int simd_movhps(struct cpu *c, const struct insn *i) /* and MOVLHPS */
{
	return move_half(c, i, 1, 0);
}

/* ---- sign bits to a general register ---- */

static int move_mask(struct cpu *c, const struct insn *i, unsigned size, unsigned how)
{
	unsigned bytes = simd_bytes(i), mask = 0;
	const int8_t *b = c->s.v[i->rm].sb;
	uint64_t q = mmx_get(c, i->rm);
	int r = simd_check(c, i, how);

	if (r)
		return r;
	if (i->flags & INSN_MMX) {
		mmx_enter(c);
		b = (const int8_t *)&q;
	}
	for (unsigned k = 0; k < bytes / size; k++)
		mask |= b[size * (k + 1) - 1] < 0 ? 1u << k : 0;
	c->s.gpr[i->reg] = mask;
	return CPU_OK;
}

int simd_pmovmskb(struct cpu *c, const struct insn *i)
{
	return move_mask(c, i, 1, SIMD_INT);
}

int simd_movmskps(struct cpu *c, const struct insn *i)
{
	return move_mask(c, i, 4, 0);
}

int simd_movmskpd(struct cpu *c, const struct insn *i)
{
	return move_mask(c, i, 8, 0);
}

/* ---- masked stores and loads ---- */

/* Linear address of what lies k bytes into the memory operand, which itself does not wrap. */
static int part_linear(struct cpu *c, const struct insn *i, unsigned k, unsigned size, bool write,
		       gva_t *at)
{
	uint64_t ea = operand_offset(c, i) + k;

	if (i->mode != MODE_64)
		return seg_linear(c, (enum x86_seg)i->seg, ea, size, write, at);
	*at = i->seg >= SEG_FS ? ea + c->s.seg[i->seg].base : ea;
	return CPU_OK;
}

/* Bytes of MMX or XMM to DS:(R|E)DI where the mask byte's sign is set. All bytes are checked before
 * one is written. */
int simd_maskmov(struct cpu *c, const struct insn *i)
{
	unsigned bytes = simd_bytes(i);
	union x86_vreg data = c->s.v[i->reg], mask = c->s.v[i->rm];
	struct insn memory = *i;
	gva_t at[2];
	int r = simd_check(c, i, 0);

	if (r)
		return r;
	if (i->flags & INSN_MMX) {
		data.q[0] = mmx_get(c, i->reg);
		mask.q[0] = mmx_get(c, i->rm);
		mmx_enter(c); /* before the memory access, so it stands after a fault */
	}
	memory.base = RDI;
	memory.index = REG_NONE;
	/*
	 * Checked in halves of 8 bytes, what the mask leaves out too: the manuals allow either,
	 * AMD's processors do so.
	 */
	for (unsigned k = 0; !r && k < bytes; k += 8) {
		r = part_linear(c, &memory, k, 8, true, &at[k / 8]);
		if (!r)
			r = cpu_probe(c, at[k / 8], 8, ACCESS_WRITE);
	}
	for (unsigned k = 0; !r && k < bytes; k++) {
		if (mask.sb[k] < 0)
			r = cpu_write(c, at[k / 8] + k % 8, &data.b[k], 1);
	}
	return r;
}

/*
 * VMASKMOV, VPMASKMOV: elements whose mask is clear are not accessed, so cannot fault, not even for
 * the segment. A store checks all its elements before it writes one.
 */
static int mask_move(struct cpu *c, const struct insn *i, unsigned size, unsigned how)
{
	bool store = i->opcode >= 0x2e &&
		     i->opcode != 0x8c; /* VMASKMOV 2C 2D, 2E 2F; VPMASKMOV 8C, 8E */
	unsigned bytes = simd_bytes(i);
	const union x86_vreg *mask = &c->s.v[i->vvvv];
	union x86_vreg v = { 0 };
	gva_t at[8];
	int r = simd_check(c, i, how);

	for (unsigned k = 0; !r && k < bytes; k += size) {
		if (mask->sb[k + size - 1] >= 0)
			continue;
		r = part_linear(c, i, k, size, store, &at[k / size]);
		if (!r)
			r = store ? cpu_probe(c, at[k / size], size, ACCESS_WRITE)
				  : cpu_read(c, at[k / size], &v.b[k], size);
	}
	for (unsigned k = 0; !r && store && k < bytes; k += size) {
		if (mask->sb[k + size - 1] < 0)
			r = cpu_write(c, at[k / size], &c->s.v[i->reg].b[k], size);
	}
	if (!r && !store)
		simd_store(c, i, i->reg, &v, bytes);
	return r;
}

int simd_vmaskmovps(struct cpu *c, const struct insn *i)
{
	return mask_move(c, i, 4, 0);
}

int simd_vmaskmovpd(struct cpu *c, const struct insn *i)
{
	return mask_move(c, i, 8, 0);
}

int simd_vpmaskmov(struct cpu *c, const struct insn *i)
{
	return mask_move(c, i, i->op == OP_VPMASKMOVQ ? 8 : 4, SIMD_AVX2);
}

/* ---- gathers ---- */

/*
 * A mask element is cleared when its element has arrived; a fault therefore leaves the finished
 * elements in place, and the instruction goes on from there when it is executed again.
 */
static int gather(struct cpu *c, const struct insn *i, unsigned size, unsigned index_size)
{
	unsigned bytes = simd_bytes(i), step = MAX(size, index_size), count = bytes / step;
	union x86_vreg *d = &c->s.v[i->reg], *mask = &c->s.v[i->vvvv];
	const union x86_vreg index = c->s.v[i->index];
	struct insn element = *i;
	unsigned used = count * size;
	gva_t at;
	int r;

	if (i->reg == i->vvvv || i->reg == i->index || i->vvvv == i->index)
		return cpu_raise(c, VEC_UD);
	r = simd_check(c, i, SIMD_AVX2);
	if (r)
		return r;
	for (unsigned k = 0; k < count;
	     k++) /* the sign stands for the whole element, also after a fault */
		memset(&mask->b[k * size], mask->sb[k * size + size - 1] < 0 ? 0xff : 0, size);
	element.index = REG_NONE;
	for (unsigned k = 0; k < count; k++) {
		int64_t offset = index_size == 4 ? index.sd[k] : index.sq[k];

		if (mask->sb[k * size] >= 0)
			continue;
		element.disp = i->disp + (int64_t)((uint64_t)offset << i->scale);
		r = operand_linear(c, &element, size, false, &at);
		if (!r)
			r = cpu_read(c, at, &d->b[k * size], size);
		if (r)
			return r;
		memset(&mask->b[k * size], 0, size);
	}
	memset(&d->b[used], 0, sizeof(*d) - used);
	memset(mask, 0, sizeof(*mask));
	return CPU_OK;
}

int simd_gather_dd(struct cpu *c, const struct insn *i)
{
	return gather(c, i, 4, 4);
}

int simd_gather_dq(struct cpu *c, const struct insn *i)
{
	return gather(c, i, 8, 4);
}

int simd_gather_qd(struct cpu *c, const struct insn *i)
{
	return gather(c, i, 4, 8);
}

int simd_gather_qq(struct cpu *c, const struct insn *i)
{
	return gather(c, i, 8, 8);
}

/* ---- SSE4A bit fields ---- */

int simd_extrq(struct cpu *c, const struct insn *i)
{
	bool immediate = i->opcode == 0x78;
	unsigned dest = immediate ? i->rm : i->reg, length, at;
	uint64_t control = c->s.v[i->rm].w[0];
	int r = simd_check(c, i, SIMD_SSE4A);

	if (r)
		return r;
	length = (immediate ? (unsigned)i->imm : (unsigned)control) & 63;
	at = (immediate ? i->imm2 : (unsigned)control >> 8) & 63;
	c->s.v[dest].q[0] >>= at;
	if (length)
		c->s.v[dest].q[0] &= BIT(length) - 1;
	c->s.v[dest].q[1] = 0; /* undefined; what processors do */
	return CPU_OK;
}

int simd_insertq(struct cpu *c, const struct insn *i)
{
	bool immediate = i->opcode == 0x78;
	const union x86_vreg *b = &c->s.v[i->rm];
	unsigned length, at;
	uint64_t mask;
	int r = simd_check(c, i, SIMD_SSE4A);

	if (r)
		return r;
	length = (immediate ? (unsigned)i->imm : b->b[8]) & 63;
	at = (immediate ? i->imm2 : b->b[9]) & 63;
	mask = (length ? BIT(length) - 1 : ~0ull) << at;
	c->s.v[i->reg].q[0] = (c->s.v[i->reg].q[0] & ~mask) | (b->q[0] << at & mask);
	c->s.v[i->reg].q[1] = 0;
	return CPU_OK;
}

int simd_vzero(struct cpu *c, const struct insn *i) /* VZEROALL (VEX.256), VZEROUPPER */
{
	unsigned count = i->mode == MODE_64 ? 16 : 8;
	int r = simd_check(c, i, 0);

	for (unsigned k = 0; !r && k < count; k++) {
		if (i->op == OP_VZEROALL)
			memset(&c->s.v[k].b[0], 0, 16);
		memset(&c->s.v[k].b[16], 0, 48);
	}
	return r;
}
