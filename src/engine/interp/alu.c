/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NEG NOT XADD CMPXCHG*, ADCX, ADOX. The eight
 * operations are instantiated for each operand form and size; alu_bind() picks from the table, so
 * that the interpreter's loop calls straight into the right one.
 */
#include "engine/interp/private.h"

enum alu {
	ALU_ADD,
	ALU_OR,
	ALU_ADC,
	ALU_SBB,
	ALU_AND,
	ALU_SUB,
	ALU_XOR,
	ALU_CMP,
	ALU_TEST,
	ALU_INC,
	ALU_DEC,
	ALU_NEG,
	ALU_NOT,
	ALU_COUNT
};

/* a op b, both truncated to size; flags (complete arithmetic set) in *f. NOT leaves them alone. */
INLINE uint64_t alu_compute(const struct cpu *c, enum alu op, uint64_t a, uint64_t b, unsigned size,
			    uint64_t *f)
{
	uint64_t mask = size_mask(size), cf = c->s.rflags & FLAG_CF, r;

	switch (op) {
	case ALU_ADD:
		r = (a + b) & mask;
		*f = flags_add(a, b, r, 0, size);
		return r;
	case ALU_ADC:
		r = (a + b + cf) & mask;
		*f = flags_add(a, b, r, 0, size);
		return r;
	case ALU_SBB:
		r = (a - b - cf) & mask;
		*f = flags_sub(a, b, r, size);
		return r;
	case ALU_SUB:
	case ALU_CMP:
		r = (a - b) & mask;
		*f = (flags_sub(a, b, r, size) & ~FLAG_CF) | (a < b);
		return r;
	case ALU_AND:
	case ALU_TEST:
		r = a & b;
		*f = flags_szp(r, size);
		return r;
	case ALU_OR:
		r = a | b;
		*f = flags_szp(r, size);
		return r;
	case ALU_XOR:
		r = a ^ b;
		*f = flags_szp(r, size);
		return r;
	case ALU_INC:
		r = (a + 1) & mask;
		*f = (flags_add(a, 1, r, 0, size) & ~FLAG_CF) | cf;
		return r;
	case ALU_DEC:
		r = (a - 1) & mask;
		*f = (flags_sub(a, 1, r, size) & ~FLAG_CF) | cf;
		return r;
	case ALU_NEG:
		r = -a & mask;
		*f = flags_sub(0, a, r, size);
		return r;
	default: /* ALU_NOT */
		*f = c->s.rflags & FLAGS_ARITH;
		return ~a & mask;
	}
}

INLINE bool alu_writes(enum alu op)
{
	return op != ALU_CMP && op != ALU_TEST;
}
INLINE void alu_flags(struct cpu *c, enum alu op, uint64_t f)
{
	if (op != ALU_NOT)
		flags_set(c, f);
}

/* Operand forms: destination, source. */
INLINE int alu_rm_reg(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	uint64_t f;
	uint64_t r = alu_compute(c, op, rm_register(c, i, size), reg_operand(c, i, size), size, &f);

	if (alu_writes(op))
		rm_register_set(c, i, size, r);
	flags_set(c, f);
	return CPU_OK;
}
INLINE int alu_reg_rm(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	uint64_t f;
	uint64_t r = alu_compute(c, op, reg_operand(c, i, size), rm_register(c, i, size), size, &f);

	if (alu_writes(op))
		reg_operand_set(c, i, size, r);
	flags_set(c, f);
	return CPU_OK;
}
INLINE int alu_rm_imm(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	uint64_t f;
	uint64_t r =
		alu_compute(c, op, rm_register(c, i, size), i->imm & size_mask(size), size, &f);

	if (alu_writes(op))
		rm_register_set(c, i, size, r);
	flags_set(c, f);
	return CPU_OK;
}
INLINE int alu_reg_imm(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	uint64_t f;
	uint64_t r =
		alu_compute(c, op, reg_operand(c, i, size), i->imm & size_mask(size), size, &f);

	if (alu_writes(op))
		reg_operand_set(c, i, size, r);
	flags_set(c, f);
	return CPU_OK;
}
INLINE int alu_reg_mem(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	uint64_t f, r, b;
	int e = mem_load_operand(c, i, size, &b);

	if (unlikely(e))
		return e;
	r = alu_compute(c, op, reg_operand(c, i, size), b, size, &f);
	if (alu_writes(op))
		reg_operand_set(c, i, size, r);
	flags_set(c, f);
	return CPU_OK;
}
INLINE int alu_mem_value(struct cpu *c, const struct insn *i, enum alu op, unsigned size,
			 uint64_t b)
{
	struct rmw m;
	uint64_t f, r;
	int e;

	if (!alu_writes(op)) {
		e = mem_load_operand(c, i, size, &m.old);
		if (unlikely(e))
			return e;
		alu_compute(c, op, m.old, b, size, &f);
		flags_set(c, f);
		return CPU_OK;
	}
	e = rmw_begin(c, i, size, &m);
	if (unlikely(e))
		return e;
	r = alu_compute(c, op, m.old, b, size, &f);
	e = rmw_end(c, &m, size, r);
	if (unlikely(e))
		return e;
	alu_flags(c, op, f);
	return CPU_OK;
}
INLINE int alu_mem_reg(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	return alu_mem_value(c, i, op, size, reg_operand(c, i, size));
}
INLINE int alu_mem_imm(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	return alu_mem_value(c, i, op, size, i->imm & size_mask(size));
}
/* One operand: INC DEC NEG NOT. */
INLINE int alu_reg(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	uint64_t f, r = alu_compute(c, op, reg_operand(c, i, size), 0, size, &f);

	reg_operand_set(c, i, size, r);
	alu_flags(c, op, f);
	return CPU_OK;
}
INLINE int alu_rm(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	uint64_t f, r = alu_compute(c, op, rm_register(c, i, size), 0, size, &f);

	rm_register_set(c, i, size, r);
	alu_flags(c, op, f);
	return CPU_OK;
}
INLINE int alu_mem(struct cpu *c, const struct insn *i, enum alu op, unsigned size)
{
	return alu_mem_value(c, i, op, size, 0);
}

enum alu_form {
	AF_RM_REG,
	AF_REG_RM,
	AF_RM_IMM,
	AF_REG_IMM,
	AF_REG_MEM,
	AF_MEM_REG,
	AF_MEM_IMM,
	AF_COUNT
};

/* clang-format off */
#define ALU_FORMS_REG(n, op)                                                                       \
	SIZED_OP(n##_rr, op, alu_rm_reg) SIZED_OP(n##_rR, op, alu_reg_rm)                          \
	SIZED_OP(n##_ri, op, alu_rm_imm) SIZED_OP(n##_ai, op, alu_reg_imm)
#define ALU_FORMS_MEM(n, op)                                                                       \
	SIZED_OP(n##_rm, op, alu_reg_mem) SIZED_OP(n##_mr, op, alu_mem_reg)                        \
	SIZED_OP(n##_mi, op, alu_mem_imm)
#define ALU_ROW(n)                                                                                 \
	{ SIZED_TABLE(n##_rr), SIZED_TABLE(n##_rR), SIZED_TABLE(n##_ri), SIZED_TABLE(n##_ai),      \
	  SIZED_TABLE(n##_rm), SIZED_TABLE(n##_mr), SIZED_TABLE(n##_mi) }
/* clang-format on */

ALU_FORMS_REG(add, ALU_ADD)
ALU_FORMS_MEM(add, ALU_ADD)
ALU_FORMS_REG(or, ALU_OR)
ALU_FORMS_MEM(or, ALU_OR)
ALU_FORMS_REG(adc, ALU_ADC)
ALU_FORMS_MEM(adc, ALU_ADC)
ALU_FORMS_REG(sbb, ALU_SBB)
ALU_FORMS_MEM(sbb, ALU_SBB)
ALU_FORMS_REG(and, ALU_AND)
ALU_FORMS_MEM(and, ALU_AND)
ALU_FORMS_REG(sub, ALU_SUB)
ALU_FORMS_MEM(sub, ALU_SUB)
ALU_FORMS_REG(xor, ALU_XOR)
ALU_FORMS_MEM(xor, ALU_XOR)
ALU_FORMS_REG(cmp, ALU_CMP)
ALU_FORMS_MEM(cmp, ALU_CMP)
ALU_FORMS_REG(test, ALU_TEST)
ALU_FORMS_MEM(test, ALU_TEST)

static const insn_fn alu_table[][AF_COUNT][4] = {
	[ALU_ADD] = ALU_ROW(add), [ALU_OR] = ALU_ROW(or),   [ALU_ADC] = ALU_ROW(adc),
	[ALU_SBB] = ALU_ROW(sbb), [ALU_AND] = ALU_ROW(and), [ALU_SUB] = ALU_ROW(sub),
	[ALU_XOR] = ALU_ROW(xor), [ALU_CMP] = ALU_ROW(cmp), [ALU_TEST] = ALU_ROW(test),
};

/* clang-format off */
#define ALU_UNARY(n, op) SIZED_OP(n##_r, op, alu_reg) SIZED_OP(n##_e, op, alu_rm) SIZED_OP(n##_m, op, alu_mem)
#define ALU_UNARY_ROW(n) { SIZED_TABLE(n##_r), SIZED_TABLE(n##_e), SIZED_TABLE(n##_m) }
/* clang-format on */

ALU_UNARY(inc, ALU_INC)
ALU_UNARY(dec, ALU_DEC)
ALU_UNARY(neg, ALU_NEG)
ALU_UNARY(not, ALU_NOT)

static const insn_fn unary_table[][3][4] = {
	ALU_UNARY_ROW(inc),
	ALU_UNARY_ROW(dec),
	ALU_UNARY_ROW(neg),
	ALU_UNARY_ROW(not ),
};

static enum alu alu_of_op(unsigned op)
{
	switch (op) {
	case OP_ADD:
		return ALU_ADD;
	case OP_OR:
		return ALU_OR;
	case OP_ADC:
		return ALU_ADC;
	case OP_SBB:
		return ALU_SBB;
	case OP_AND:
		return ALU_AND;
	case OP_SUB:
		return ALU_SUB;
	case OP_XOR:
		return ALU_XOR;
	case OP_CMP:
		return ALU_CMP;
	case OP_TEST:
		return ALU_TEST;
	case OP_INC:
		return ALU_INC;
	case OP_DEC:
		return ALU_DEC;
	case OP_NEG:
		return ALU_NEG;
	default:
		return ALU_NOT;
	}
}

/* LOCK: the operation chosen at run time, once more in a loop. */
static int alu_locked(struct cpu *c, const struct insn *i)
{
	enum alu op = alu_of_op(i->op);
	uint64_t f = 0, r, b = 0, mask = size_mask(i->opsize);
	struct rmw m;
	int e;

	if (i->form == FORM_RM_REG)
		b = reg_get(c, i->reg, i->flags & INSN_HIGH_REG, i->opsize);
	else if (i->form == FORM_RM_IMM)
		b = i->imm & mask;
	e = lock_begin(c, i, i->opsize, &m);
	if (e)
		return e;
	do {
		switch (op) {
		case ALU_ADD:
			r = alu_compute(c, ALU_ADD, m.old, b, i->opsize, &f);
			break;
		case ALU_ADC:
			r = alu_compute(c, ALU_ADC, m.old, b, i->opsize, &f);
			break;
		case ALU_SBB:
			r = alu_compute(c, ALU_SBB, m.old, b, i->opsize, &f);
			break;
		case ALU_SUB:
			r = alu_compute(c, ALU_SUB, m.old, b, i->opsize, &f);
			break;
		default:
			r = alu_compute(c, op, m.old, b, i->opsize, &f);
			break;
		}
		e = lock_end(c, &m, i->opsize, r);
	} while (e == LOCK_RETRY);
	if (e)
		return e;
	alu_flags(c, op, f);
	return CPU_OK;
}

static int alu_form_of(const struct insn *i)
{
	bool mem = i->flags & INSN_MEM;

	switch (i->form) {
	case FORM_RM_REG:
		return mem ? AF_MEM_REG : AF_RM_REG;
	case FORM_REG_RM:
		return mem ? AF_REG_MEM : AF_REG_RM;
	case FORM_RM_IMM:
		return mem ? AF_MEM_IMM : AF_RM_IMM;
	case FORM_REG_IMM:
		return AF_REG_IMM;
	default:
		return -1;
	}
}

insn_fn alu_bind(const struct insn *i)
{
	enum alu op = alu_of_op(i->op);
	int form;

	if (i->flags & INSN_LOCK)
		return alu_locked;
	if (op >= ALU_INC) {
		form = i->form == FORM_REG ? 0 : i->flags & INSN_MEM ? 2 : 1;
		return unary_table[op - ALU_INC][form][size_index(i->opsize)];
	}
	form = alu_form_of(i);
	return form < 0 ? far_ud : alu_table[op][form][size_index(i->opsize)];
}

/* The rows' handlers: for a caller that did not bind. */
int alu_add(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_or(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_adc(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_sbb(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_and(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_sub(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_xor(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_cmp(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_test(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_inc(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_dec(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_neg(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}
int alu_not(struct cpu *c, const struct insn *i)
{
	return alu_bind(i)(c, i);
}

/* XADD: an atomic exchange-and-add with LOCK; source register gets the old value. */
int alu_xadd(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	uint64_t b = reg_get(c, i->reg, i->flags & INSN_HIGH_REG, size), r, f;
	struct rmw m = { .host = NULL };
	int e;

	if (!(i->flags & INSN_MEM)) {
		m.old = reg_get(c, i->rm, i->flags & INSN_HIGH_RM, size);
		r = alu_compute(c, ALU_ADD, m.old, b, size, &f);
		reg_set(c, i->reg, i->flags & INSN_HIGH_REG, size, m.old);
		reg_set(c, i->rm, i->flags & INSN_HIGH_RM, size, r);
		flags_set(c, f);
		return CPU_OK;
	}
	e = i->flags & INSN_LOCK ? lock_begin(c, i, size, &m) : rmw_begin(c, i, size, &m);
	if (e)
		return e;
	do {
		r = alu_compute(c, ALU_ADD, m.old, b, size, &f);
		e = i->flags & INSN_LOCK ? lock_end(c, &m, size, r) : rmw_end(c, &m, size, r);
	} while (e == LOCK_RETRY);
	if (e)
		return e;
	reg_set(c, i->reg, i->flags & INSN_HIGH_REG, size, m.old);
	flags_set(c, f);
	return CPU_OK;
}

/* CMPXCHG: memory is written in any case, with its old value when unequal. */
int alu_cmpxchg(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	bool mem = i->flags & INSN_MEM, lock = i->flags & INSN_LOCK;
	uint64_t acc = reg_get(c, RAX, false, size),
		 src = reg_get(c, i->reg, i->flags & INSN_HIGH_REG, size), f, r;
	struct rmw m = { .host = NULL };
	int e = CPU_OK;

	if (!mem)
		m.old = reg_get(c, i->rm, i->flags & INSN_HIGH_RM, size);
	else
		e = lock ? lock_begin(c, i, size, &m) : rmw_begin(c, i, size, &m);
	if (e)
		return e;
	do {
		r = m.old == acc ? src : m.old;
		if (mem)
			e = lock ? lock_end(c, &m, size, r) : rmw_end(c, &m, size, r);
	} while (e == LOCK_RETRY);
	if (e)
		return e;
	alu_compute(c, ALU_CMP, acc, m.old, size, &f);
	if (m.old != acc)
		reg_set(c, RAX, false, size, m.old);
	else if (!mem)
		reg_set(c, i->rm, i->flags & INSN_HIGH_RM, size, src);
	flags_set(c, f);
	return CPU_OK;
}

static bool pair16_exchange_if(void *p, uint64_t old[2], const uint64_t v[2])
{
	bool done;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(done), "+m"(*(char(*)[16])p), "+a"(old[0]), "+d"(old[1])
			 : "b"(v[0]), "c"(v[1])
			 : "memory");
	return done;
}

/* Sixteen bytes at once. Plain CMPXCHG16B is done locked too. */
static int cmpxchg16b(struct cpu *c, gva_t at, uint64_t want[2], const uint64_t v[2], bool *equal)
{
	uint64_t was[2];
	void *host;
	int e;

	if (at & 15)
		return raise_gp0(c);
	e = cpu_rmw(c, at, 16, &host);
	if (e)
		return e;
	if (host) {
		*equal = pair16_exchange_if(host, want, v);
		return CPU_OK;
	}
	cpu_exclusive_begin(c);
	e = cpu_read(c, at, was, 16);
	if (!e) {
		*equal = was[0] == want[0] && was[1] == want[1];
		e = cpu_write(c, at, *equal ? v : was, 16);
		memcpy(want, was, 16);
	}
	cpu_exclusive_end(c);
	return e;
}

static int cmpxchg8b(struct cpu *c, const struct insn *i, bool *equal)
{
	uint64_t want = c->s.gpr[RDX] << 32 | (uint32_t)c->s.gpr[RAX];
	uint64_t v = c->s.gpr[RCX] << 32 | (uint32_t)c->s.gpr[RBX];
	struct rmw m;
	int e = lock_begin(c, i, 8, &m);

	if (e)
		return e;
	do {
		*equal = m.old == want;
		e = lock_end(c, &m, 8, *equal ? v : m.old);
	} while (e == LOCK_RETRY);
	if (!e && !*equal) {
		c->s.gpr[RAX] = (uint32_t)m.old;
		c->s.gpr[RDX] = m.old >> 32;
	}
	return e;
}

int alu_cmpxchg_pair(struct cpu *c, const struct insn *i)
{
	uint64_t want[2] = { c->s.gpr[RAX], c->s.gpr[RDX] },
		 v[2] = { c->s.gpr[RBX], c->s.gpr[RCX] };
	bool equal = false;
	gva_t at;
	int e;

	if (i->op == OP_CMPXCHG8B) {
		e = cmpxchg8b(c, i, &equal);
	} else {
		e = operand_linear(c, i, 16, true, &at);
		if (!e)
			e = cmpxchg16b(c, at, want, v, &equal);
		if (!e && !equal) {
			c->s.gpr[RAX] = want[0];
			c->s.gpr[RDX] = want[1];
		}
	}
	if (e)
		return e;
	flags_set_some(c, FLAG_ZF, equal ? FLAG_ZF : 0);
	return CPU_OK;
}

/* ADCX and ADOX: add with one of two independent carry chains. */
static int add_chain(struct cpu *c, const struct insn *i, uint64_t flag)
{
	uint64_t a = reg_get(c, i->reg, false, i->opsize), b, mask = size_mask(i->opsize);
	unsigned __int128 sum;
	int e = rm_get(c, i, i->opsize, &b);

	if (e)
		return e;
	sum = (unsigned __int128)a + (b & mask) + !!(c->s.rflags & flag);
	reg_set(c, i->reg, false, i->opsize, (uint64_t)sum & mask);
	flags_set_some(c, flag, (uint64_t)(sum >> (8 * i->opsize)) & 1 ? flag : 0);
	return CPU_OK;
}
int alu_adcx(struct cpu *c, const struct insn *i)
{
	return add_chain(c, i, FLAG_CF);
}
int alu_adox(struct cpu *c, const struct insn *i)
{
	return add_chain(c, i, FLAG_OF);
}
