/* SPDX-License-Identifier: Apache-2.0 */
/* Moves between registers and memory: MOV, MOVZX, MOVSX, XCHG, LEA, CMOVcc, SETcc and their kin. */
#include "engine/interp/private.h"

INLINE int mov_rm_reg(struct cpu *c, const struct insn *i, unsigned size)
{
	rm_register_set(c, i, size, reg_operand(c, i, size));
	return CPU_OK;
}
INLINE int mov_reg_rm(struct cpu *c, const struct insn *i, unsigned size)
{
	reg_operand_set(c, i, size, rm_register(c, i, size));
	return CPU_OK;
}
INLINE int mov_reg_imm(struct cpu *c, const struct insn *i, unsigned size)
{
	reg_operand_set(c, i, size, i->imm & size_mask(size));
	return CPU_OK;
}
INLINE int mov_rm_imm(struct cpu *c, const struct insn *i, unsigned size)
{
	rm_register_set(c, i, size, i->imm & size_mask(size));
	return CPU_OK;
}
INLINE int mov_reg_mem(struct cpu *c, const struct insn *i, unsigned size)
{
	uint64_t v;
	int r = mem_load_operand(c, i, size, &v);

	if (unlikely(r))
		return r;
	reg_operand_set(c, i, size, v);
	return CPU_OK;
}
INLINE int mov_mem_reg(struct cpu *c, const struct insn *i, unsigned size)
{
	return mem_store_operand(c, i, size, reg_operand(c, i, size));
}
INLINE int mov_mem_imm(struct cpu *c, const struct insn *i, unsigned size)
{
	return mem_store_operand(c, i, size, i->imm);
}
/* The commonest addressing in 64-bit mode: a base register and a displacement, no segment base. */
INLINE bool plain_base(const struct insn *i)
{
	return i->mode == MODE_64 && i->addrsize == 8 && i->seg < SEG_FS && i->index == REG_NONE &&
	       i->base < 16;
}
INLINE int load_base(struct cpu *c, const struct insn *i, unsigned size)
{
	uint64_t v;
	int r = linear_load(c, c->s.gpr[i->base] + (uint64_t)i->disp, size, &v);

	if (unlikely(r))
		return r;
	c->s.gpr[i->reg] = v;
	return CPU_OK;
}
INLINE int store_base(struct cpu *c, const struct insn *i, unsigned size)
{
	return linear_store(c, c->s.gpr[i->base] + (uint64_t)i->disp, size, c->s.gpr[i->reg]);
}
static int load_base_4(struct cpu *c, const struct insn *i)
{
	return load_base(c, i, 4);
}
static int load_base_8(struct cpu *c, const struct insn *i)
{
	return load_base(c, i, 8);
}
static int store_base_4(struct cpu *c, const struct insn *i)
{
	return store_base(c, i, 4);
}
static int store_base_8(struct cpu *c, const struct insn *i)
{
	return store_base(c, i, 8);
}

SIZED(mov_rr, mov_rm_reg)
SIZED(mov_rR, mov_reg_rm)
SIZED(mov_ai, mov_reg_imm)
SIZED(mov_ri, mov_rm_imm)
SIZED(mov_rm, mov_reg_mem)
SIZED(mov_mr, mov_mem_reg)
SIZED(mov_mi, mov_mem_imm)

static const insn_fn mov_table[7][4] = {
	SIZED_TABLE(mov_rr), SIZED_TABLE(mov_rR), SIZED_TABLE(mov_ai), SIZED_TABLE(mov_ri),
	SIZED_TABLE(mov_rm), SIZED_TABLE(mov_mr), SIZED_TABLE(mov_mi),
};

static int mov_form_of(const struct insn *i)
{
	bool mem = i->flags & INSN_MEM;

	switch (i->form) {
	case FORM_RM_REG:
		return mem ? 5 : 0;
	case FORM_REG_RM:
		return mem ? 4 : 1;
	case FORM_REG_IMM:
		return 2;
	case FORM_RM_IMM:
		return mem ? 6 : 3;
	default:
		return -1;
	}
}

/* MOVZX, MOVSX: the source's size by opcode. MOVSXD (63) takes four bytes, two with a 16-bit
 * operand size. */
INLINE int extend(struct cpu *c, const struct insn *i, unsigned from, unsigned size, bool sign)
{
	uint64_t v;
	int r = rm_get(c, i, from, &v);

	if (unlikely(r))
		return r;
	reg_set(c, i->reg, false, size, (sign ? sign_extend(v, from) : v) & size_mask(size));
	return CPU_OK;
}
static int movzx_1_4(struct cpu *c, const struct insn *i)
{
	return extend(c, i, 1, 4, false);
}
static int movzx_2_4(struct cpu *c, const struct insn *i)
{
	return extend(c, i, 2, 4, false);
}
static int movsx_1_4(struct cpu *c, const struct insn *i)
{
	return extend(c, i, 1, 4, true);
}
static int movsx_2_4(struct cpu *c, const struct insn *i)
{
	return extend(c, i, 2, 4, true);
}
static int movsx_1_8(struct cpu *c, const struct insn *i)
{
	return extend(c, i, 1, 8, true);
}
static int movsxd_8(struct cpu *c, const struct insn *i)
{
	return extend(c, i, 4, 8, true);
}
int mov_movzx(struct cpu *c, const struct insn *i)
{
	return i->opcode & 1 ? extend(c, i, 2, i->opsize, false)
			     : extend(c, i, 1, i->opsize, false);
}
int mov_movsx(struct cpu *c, const struct insn *i)
{
	if (i->op == OP_MOVSXD)
		return i->opsize == 2 ? extend(c, i, 2, 2, true) : extend(c, i, 4, i->opsize, true);
	return i->opcode & 1 ? extend(c, i, 2, i->opsize, true) : extend(c, i, 1, i->opsize, true);
}

INLINE int lea(struct cpu *c, const struct insn *i, unsigned size)
{
	reg_set(c, i->reg, false, size, operand_offset(c, i) & size_mask(size));
	return CPU_OK;
}
SIZED(lea, lea)
static int lea_base_disp_8(struct cpu *c, const struct insn *i)
{
	c->s.gpr[i->reg] = c->s.gpr[i->base] + (uint64_t)i->disp;
	return CPU_OK;
}

INLINE int cmov(struct cpu *c, const struct insn *i, unsigned size)
{
	uint64_t v;
	int r = rm_get(c, i, size, &v); /* memory is read, and may fault, in any case */

	if (unlikely(r))
		return r;
	if (!cond_holds(c->s.rflags, i->cond))
		v = reg_get(c, i->reg, false,
			    size); /* a 32-bit one clears the upper half all the same */
	reg_set(c, i->reg, false, size, v);
	return CPU_OK;
}
SIZED(cmov, cmov)
static const insn_fn cmov_table[4] = SIZED_TABLE(cmov);
static const insn_fn lea_table[4] = SIZED_TABLE(lea);

insn_fn mov_bind(const struct insn *i)
{
	bool low = !(i->flags & INSN_HIGH_RM);
	int form;

	switch (i->op) {
	case OP_MOV:
	case OP_MOVNTI:
		form = mov_form_of(i);
		if (form == 4 && i->opsize >= 4 && plain_base(i))
			return i->opsize == 4 ? load_base_4 : load_base_8;
		if (form == 5 && i->opsize >= 4 && plain_base(i))
			return i->opsize == 4 ? store_base_4 : store_base_8;
		return form < 0 ? far_ud : mov_table[form][size_index(i->opsize)];
	case OP_MOVZX:
		if (i->opsize == 2 || !low)
			return mov_movzx;
		return i->opcode & 1 ? movzx_2_4 : movzx_1_4; /* to 64 bits is the same */
	case OP_MOVSX:
		if (i->opsize == 8 && !(i->opcode & 1))
			return movsx_1_8;
		if (i->opsize != 4)
			return mov_movsx;
		return i->opcode & 1 ? movsx_2_4 : movsx_1_4;
	case OP_MOVSXD:
		return i->opsize == 8 ? movsxd_8 : mov_movsx;
	case OP_LEA:
		if (i->opsize == 8 && i->addrsize == 8 && i->index == REG_NONE && i->base < 16)
			return lea_base_disp_8;
		return lea_table[size_index(i->opsize)];
	default: /* CMOVcc */
		return cmov_table[size_index(i->opsize)];
	}
}

int mov_mov(struct cpu *c, const struct insn *i)
{
	return mov_bind(i)(c, i);
}
int mov_lea(struct cpu *c, const struct insn *i)
{
	return mov_bind(i)(c, i);
}
int mov_cmov(struct cpu *c, const struct insn *i)
{
	return mov_bind(i)(c, i);
}

int mov_setcc(struct cpu *c, const struct insn *i)
{
	return rm_set(c, i, 1, cond_holds(c->s.rflags, i->cond));
}

/* With memory always locked. */
int mov_xchg(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	uint64_t v = reg_get(c, i->reg, i->flags & INSN_HIGH_REG, size), old;
	struct rmw m;
	int r;

	if (!(i->flags & INSN_MEM)) {
		unsigned rm = i->rm;
		bool high = i->flags & INSN_HIGH_RM;

		if (!i->modrm_at) /* 90+r: with the accumulator */
			rm = RAX, high = false;
		old = reg_get(c, rm, high, size);
		reg_set(c, rm, high, size, v);
		reg_set(c, i->reg, i->flags & INSN_HIGH_REG, size, old);
		return CPU_OK;
	}
	r = lock_begin(c, i, size, &m);
	if (r)
		return r;
	do {
		r = lock_end(c, &m, size, v);
	} while (r == LOCK_RETRY);
	if (r)
		return r;
	reg_set(c, i->reg, i->flags & INSN_HIGH_REG, size, m.old);
	return CPU_OK;
}

static uint64_t byte_swap(uint64_t v, unsigned size)
{
	switch (size) {
	case 2:
		return __builtin_bswap16((uint16_t)v);
	case 4:
		return __builtin_bswap32((uint32_t)v);
	default:
		return __builtin_bswap64(v);
	}
}

int mov_movbe(struct cpu *c, const struct insn *i)
{
	uint64_t v;
	int r;

	if (i->form == FORM_RM_REG)
		return rm_set(c, i, i->opsize,
			      byte_swap(reg_get(c, i->reg, false, i->opsize), i->opsize));
	r = rm_get(c, i, i->opsize, &v);
	if (r)
		return r;
	reg_set(c, i->reg, false, i->opsize, byte_swap(v, i->opsize));
	return CPU_OK;
}

/* BSWAP of 16 bits is undefined; processors clear the register's low half. */
int mov_bswap(struct cpu *c, const struct insn *i)
{
	uint64_t v = reg_get(c, i->reg, false, i->opsize);

	reg_set(c, i->reg, false, i->opsize, i->opsize == 2 ? 0 : byte_swap(v, i->opsize));
	return CPU_OK;
}

int mov_xlat(struct cpu *c, const struct insn *i)
{
	uint64_t ea = c->s.gpr[RBX] + (uint8_t)c->s.gpr[RAX], v;
	gva_t at;
	int r;

	ea &= size_mask(i->addrsize);
	if (i->mode == MODE_64) {
		at = i->seg >= SEG_FS ? ea + c->s.seg[i->seg].base : ea;
	} else {
		r = seg_linear(c, (enum x86_seg)i->seg, ea, 1, false, &at);
		if (r)
			return r;
	}
	r = linear_load(c, at, 1, &v);
	if (r)
		return r;
	reg_set(c, RAX, false, 1, v);
	return CPU_OK;
}

/* CBW CWDE CDQE */
int mov_extend_acc(struct cpu *c, const struct insn *i)
{
	reg_set(c, RAX, false, i->opsize, sign_extend(c->s.gpr[RAX], i->opsize / 2));
	return CPU_OK;
}
/* CWD CDQ CQO */
int mov_extend_dx(struct cpu *c, const struct insn *i)
{
	bool negative = sign_extend(c->s.gpr[RAX], i->opsize) >> 63;

	reg_set(c, RDX, false, i->opsize, negative ? size_mask(i->opsize) : 0);
	return CPU_OK;
}
