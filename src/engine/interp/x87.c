/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87: loads, stores, arithmetic, comparisons, functions. The stack, its faults and the order of
 * things are done here; numbers come from the host's unit (x87-unit.h).
 */
#include "engine/interp/x87-private.h"

int x87_check(struct cpu *c, const struct insn *i, bool waits)
{
	if (unlikely(i->flags & INSN_LOCK))
		return cpu_raise(c, VEC_UD);
	if (unlikely(c->s.cr0 & (CR0_EM | CR0_TS)))
		return cpu_raise(c, VEC_NM);
	return waits ? x87_pending(c) : CPU_OK;
}

void x87_note(struct cpu *c, const struct insn *i)
{
	struct x86_fpu *f = &c->s.fpu;

	f->opcode = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
	f->ip = c->s.rip - i->len;
	f->cs = c->s.seg[SEG_CS].selector;
	if (i->flags & INSN_MEM) {
		f->dp = operand_offset(c, i);
		f->ds = c->s.seg[i->seg].selector;
	}
}

/* Start of a non-control instruction with `size` bytes of memory operand read into buf. */
static int begin(struct cpu *c, const struct insn *i, void *buf, unsigned size)
{
	int r = x87_check(c, i, true);

	if (!r && i->flags & INSN_MEM && buf)
		r = operand_read_parts(c, i, buf, size, MIN(size, 8u));
	if (!r)
		x87_note(c, i);
	return r;
}

/* ---- loads ---- */

/* Push what the unit loaded, unless the stack is full. */
static int push_result(struct cpu *c, struct x87_unit *u, x87_unit_fn *fn)
{
	struct x86_fpu *f = &c->s.fpu;

	if (!x87_empty(f, 7)) {
		if (x87_stack_fault(f, true))
			x87_push(f, x87_indefinite());
		return CPU_OK;
	}
	u->cw = f->cw;
	u->sw = 0;
	if (fn)
		fn(u);
	x87_flags(f, u->sw, X87_C1);
	if (!(u->sw & ~u->cw & X87_IE)) /* an unmasked denormal is loaded all the same */
		x87_push(f, u->r0);
	return CPU_OK;
}

static int load(struct cpu *c, const struct insn *i, x87_unit_fn *fn, size_t offset, unsigned size)
{
	struct x87_unit u = { 0 };
	int r = begin(c, i, (uint8_t *)&u + offset, size);

	return r ? r : push_result(c, &u, fn);
}

int x87_fld(struct cpu *c, const struct insn *i)
{
	struct x86_fpu *f = &c->s.fpu;
	struct x87_unit u = { 0 };
	int r;

	if (i->flags & INSN_MEM) {
		if (i->opcode == 0xd9)
			return load(c, i, unit_load_f, offsetof(struct x87_unit, f), 4);
		if (i->opcode == 0xdd)
			return load(c, i, unit_load_d, offsetof(struct x87_unit, d), 8);
		return load(c, i, NULL, offsetof(struct x87_unit, r0), 10);
	}
	r = begin(c, i, NULL, 0);
	if (r)
		return r;
	if (x87_empty(f, i->modrm & 7)) {
		if (x87_stack_fault(f, false))
			x87_push(f, x87_indefinite());
		return CPU_OK;
	}
	u.r0 = x87_get(f, i->modrm & 7);
	return push_result(c, &u, NULL);
}

int x87_fild(struct cpu *c, const struct insn *i)
{
	if (i->opcode == 0xdb)
		return load(c, i, unit_load_l, offsetof(struct x87_unit, l), 4);
	if (i->modrm & 0x20) /* DF /5, against DF /0 */
		return load(c, i, unit_load_q, offsetof(struct x87_unit, q), 8);
	return load(c, i, unit_load_w, offsetof(struct x87_unit, w), 2);
}

int x87_fbld(struct cpu *c, const struct insn *i)
{
	return load(c, i, unit_load_bcd, offsetof(struct x87_unit, bcd), 10);
}

int x87_constant(struct cpu *c, const struct insn *i) /* D9 E8..EE */
{
	static x87_unit_fn *const fns[8] = { unit_ld1,	 unit_ldl2t, unit_ldl2e, unit_ldpi,
					     unit_ldlg2, unit_ldln2, unit_ldz };
	x87_unit_fn *fn = fns[i->modrm & 7];

	return fn ? load(c, i, fn, 0, 0) : cpu_raise(c, VEC_UD);
}

/* ---- stores ---- */

struct store {
	x87_unit_fn *fn;
	uint8_t offset, size; /* of the result in struct x87_unit */
	bool pop, truncate;
};

static const uint8_t indefinite_f[4] = { 0, 0, 0xc0, 0xff };
static const uint8_t indefinite_d[8] = { 0, 0, 0, 0, 0, 0, 0xf8, 0xff };
static const uint8_t indefinite_integer[8] = { 0, 0, 0, 0, 0, 0, 0, 0x80 };
static const uint8_t indefinite_long[10] = {
	0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff
}; /* BCD's too */

static const uint8_t *indefinite_of(const struct store *s)
{
	switch (s->offset) {
	case offsetof(struct x87_unit, f):
		return indefinite_f;
	case offsetof(struct x87_unit, d):
		return indefinite_d;
	case offsetof(struct x87_unit, r0):
	case offsetof(struct x87_unit, bcd):
		return indefinite_long;
	default:
		return indefinite_integer + 8 - s->size;
	}
}

static int store(struct cpu *c, const struct insn *i, const struct store *s)
{
	struct x86_fpu *f = &c->s.fpu;
	struct x87_unit u = { 0 };
	const void *result = (const uint8_t *)&u + s->offset;
	gva_t at;
	int r = x87_check(c, i, true);

	if (r)
		return r;
	r = operand_linear(c, i, s->size, true, &at);
	if (!r)
		r = cpu_probe(c, at, s->size, ACCESS_WRITE);
	if (r)
		return operand_first_fault(c, i, MIN(s->size, 8u), true);
	x87_note(c, i);
	if (x87_empty(f, 0)) {
		if (!x87_stack_fault(f, false))
			return CPU_OK;
		result = indefinite_of(s);
	} else {
		u.x = u.r0 = x87_get(f, 0);
		u.cw = s->truncate ? f->cw | 0xc00 : f->cw;
		if (s->fn)
			s->fn(&u);
		if (s->truncate)
			u.sw &= ~X87_C1;
		x87_flags(f, u.sw, X87_C1);
		if (x87_store_refused(&u))
			return CPU_OK;
	}
	r = cpu_write(c, at, result, s->size);
	if (!r && s->pop)
		x87_pop(f);
	return r;
}

int x87_fst(struct cpu *c, const struct insn *i) /* and FSTP */
{
	bool pop = i->op != OP_FST;
	const struct store single = { unit_store_f, offsetof(struct x87_unit, f), 4, pop, false };
	const struct store dbl = { unit_store_d, offsetof(struct x87_unit, d), 8, pop, false };
	const struct store extended = { NULL, offsetof(struct x87_unit, r0), 10, true, false };
	struct x86_fpu *f = &c->s.fpu;
	bool empty;
	int r;

	if (i->flags & INSN_MEM)
		return store(c, i,
			     i->opcode == 0xd9	 ? &single
			     : i->opcode == 0xdd ? &dbl
						 : &extended);
	r = begin(c, i, NULL, 0);
	if (r)
		return r;
	empty = x87_empty(f, 0);
	if (empty && i->op != OP_FSTPNCE) {
		if (!x87_stack_fault(f, false))
			return CPU_OK;
		x87_set(f, i->modrm & 7, x87_indefinite());
	} else {
		x87_flags(f, 0, X87_C1);
		if (!empty) /* FSTPNCE, "no check for empty", then only pops */
			x87_set(f, i->modrm & 7, x87_get(f, 0));
	}
	if (pop)
		x87_pop(f);
	return CPU_OK;
}

int x87_fist(struct cpu *c, const struct insn *i) /* FIST, FISTP, FISTTP */
{
	bool pop = i->op != OP_FIST, truncate = i->op == OP_FISTTP;
	const struct store word = { unit_store_w, offsetof(struct x87_unit, w), 2, pop, truncate };
	const struct store dword = { unit_store_l, offsetof(struct x87_unit, l), 4, pop, truncate };
	const struct store qword = { unit_store_q, offsetof(struct x87_unit, q), 8, pop, truncate };

	if (i->opcode == 0xdb)
		return store(c, i, &dword);
	/* DF /1 /2 /3: 16 bits; DF /7 and DD /1: 64 */
	return store(c, i, i->opcode == 0xdd || (i->modrm >> 3 & 7) == 7 ? &qword : &word);
}

int x87_fbstp(struct cpu *c, const struct insn *i)
{
	const struct store bcd = { unit_store_bcd, offsetof(struct x87_unit, bcd), 10, true,
				   false };

	return store(c, i, &bcd);
}

/* ---- arithmetic: dest = dest op source; the reversed ones source op dest ---- */

struct arith {
	x87_unit_fn *ext, *single, *dbl;
};

static int arith(struct cpu *c, const struct insn *i, const struct arith *a)
{
	struct x86_fpu *f = &c->s.fpu;
	struct x87_unit u = { 0 };
	bool memory = i->flags & INSN_MEM, to_st0 = memory || i->opcode == 0xd8;
	unsigned dest = to_st0 ? 0 : i->modrm & 7, source = to_st0 ? i->modrm & 7 : 0;
	x87_unit_fn *fn = a->ext;
	int r = x87_check(c, i, true);

	if (!r && memory) {
		switch (i->opcode) {
		case 0xd8:
			fn = a->single;
			r = operand_read(c, i, &u.f, 4);
			break;
		case 0xdc:
			fn = a->dbl;
			r = operand_read(c, i, &u.d, 8);
			break;
		case 0xda:
			r = operand_read(c, i, &u.l, 4);
			u.y = u.l;
			break;
		default:
			r = operand_read(c, i, &u.w, 2);
			u.y = u.w;
			break;
		}
	}
	if (r)
		return r;
	x87_note(c, i);
	if (x87_empty(f, dest) || (!memory && x87_empty(f, source))) {
		if (!x87_stack_fault(f, false))
			return CPU_OK;
		x87_set(f, dest, x87_indefinite());
	} else {
		u.cw = f->cw;
		u.x = x87_get(f, dest);
		if (!memory)
			u.y = x87_get(f, source);
		fn(&u);
		x87_flags(f, u.sw, X87_C1);
		if (x87_refused(&u))
			return CPU_OK;
		x87_set(f, dest, u.r0);
	}
	if (!memory && i->opcode == 0xde)
		x87_pop(f);
	return CPU_OK;
}

#define ARITH(name)                                                                                \
	int x87_f##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		static const struct arith a = { unit_##name, unit_##name##_f, unit_##name##_d };   \
		return arith(c, i, &a);                                                            \
	}
ARITH(add)
ARITH(mul)
ARITH(sub)
ARITH(subr)
ARITH(div)
ARITH(divr)

/* ---- comparisons ---- */

/* Into C3 C2 C0, or ZF PF CF (the I forms); the mnemonic says how many are popped. */
static int compare(struct cpu *c, const struct insn *i, bool quiet, bool to_flags, unsigned pops)
{
	const unsigned cc = X87_C0 | X87_C2 | X87_C3;
	struct x86_fpu *f = &c->s.fpu;
	struct x87_unit u = { .cw = f->cw };
	bool memory = i->flags & INSN_MEM, deliver;
	x87_unit_fn *fn = quiet ? unit_ucom : unit_com;
	unsigned other = pops == 2 ? 1 : i->modrm & 7, result = cc;
	int r = x87_check(c, i, true);

	if (!r && memory) {
		if (i->opcode == 0xd8) {
			fn = unit_com_f;
			r = operand_read(c, i, &u.f, 4);
		} else if (i->opcode == 0xdc) {
			fn = unit_com_d;
			r = operand_read(c, i, &u.d, 8);
		} else if (i->opcode == 0xda) {
			r = operand_read(c, i, &u.l, 4);
			u.y = u.l;
		} else {
			r = operand_read(c, i, &u.w, 2);
			u.y = u.w;
		}
	}
	if (r)
		return r;
	x87_note(c, i);
	if (x87_empty(f, 0) || (!memory && x87_empty(f, other))) {
		deliver = x87_stack_fault(f, false);
	} else {
		u.x = x87_get(f, 0);
		if (!memory)
			u.y = x87_get(f, other);
		fn(&u);
		x87_flags(f, u.sw, to_flags ? 0 : X87_C1); /* FCOMI leaves C1 alone on AMD */
		deliver = !x87_refused(&u);
		result = u.sw & X87_IE ? cc : u.sw & cc;
	}
	if (to_flags)
		c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (result & X87_C3 ? FLAG_ZF : 0) |
			      (result & X87_C2 ? FLAG_PF : 0) | (result & X87_C0 ? FLAG_CF : 0);
	else
		f->sw = (uint16_t)((f->sw & ~cc) | result);
	while (deliver && pops--) /* the result stands also when an exception is to be taken */
		x87_pop(f);
	return CPU_OK;
}

int x87_fcom(struct cpu *c, const struct insn *i) /* FCOM, FCOMP, FCOMPP, FICOM, FICOMP */
{
	return compare(c, i, false, false,
		       i->op == OP_FCOMPP ? 2 : i->op == OP_FCOMP || i->op == OP_FICOMP);
}

int x87_fucom(struct cpu *c, const struct insn *i) /* FUCOM, FUCOMP, FUCOMPP */
{
	return compare(c, i, true, false, i->op == OP_FUCOMPP ? 2 : i->op == OP_FUCOMP);
}

int x87_fcomi(struct cpu *c, const struct insn *i) /* FCOMI, FCOMIP */
{
	return compare(c, i, false, true, i->op == OP_FCOMIP);
}

int x87_fucomi(struct cpu *c, const struct insn *i) /* FUCOMI, FUCOMIP */
{
	return compare(c, i, true, true, i->op == OP_FUCOMIP);
}

int x87_ftst(struct cpu *c, const struct insn *i)
{
	struct x86_fpu *f = &c->s.fpu;
	struct x87_unit u = { .cw = f->cw };
	int r = begin(c, i, NULL, 0);

	if (r)
		return r;
	if (x87_empty(f, 0)) {
		x87_stack_fault(f, false);
		f->sw |= X87_C0 | X87_C2 | X87_C3;
		return CPU_OK;
	}
	u.x = x87_get(f, 0);
	unit_tst(&u);
	x87_flags(f, u.sw, X87_CC);
	return CPU_OK;
}

int x87_fxam(struct cpu *c, const struct insn *i)
{
	struct x86_fpu *f = &c->s.fpu;
	struct x87_unit u = { .cw = f->cw, .x = x87_get(f, 0) };
	int r = begin(c, i, NULL, 0);

	if (r)
		return r;
	unit_xam(&u);
	if (x87_empty(f, 0))
		u.sw = (u.sw & X87_C1) | X87_C3 | X87_C0;
	x87_flags(f, u.sw & X87_CC, X87_CC);
	return CPU_OK;
}

/* ---- functions of ST(0), and of ST(0) and ST(1) ---- */

static int function(struct cpu *c, const struct insn *i, x87_unit_fn *fn, bool two, bool pop,
		    unsigned cc)
{
	struct x86_fpu *f = &c->s.fpu;
	struct x87_unit u = { .cw = f->cw };
	int r = begin(c, i, NULL, 0);

	if (r)
		return r;
	if (x87_empty(f, 0) || (two && x87_empty(f, 1))) {
		f->sw &= (uint16_t) ~(cc & X87_C2);
		if (!x87_stack_fault(f, false))
			return CPU_OK;
		u.r0 = x87_indefinite();
	} else {
		u.x = x87_get(f, 0);
		u.y = two ? x87_get(f, 1) : 0;
		fn(&u);
		/* no quotient bits in C0 and C3 without a quotient */
		x87_flags(f, u.sw, u.r0 != u.r0 || x87_refused(&u) ? cc & (X87_C1 | X87_C2) : cc);
		if (x87_refused(&u))
			return CPU_OK;
	}
	if (pop)
		x87_pop(f);
	x87_set(f, 0, u.r0);
	return CPU_OK;
}

#define FUNCTION(name, two, pop, cc)                                                               \
	int x87_f##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return function(c, i, unit_##name, two, pop, cc);                                  \
	}
FUNCTION(sqrt, false, false, X87_C1)
FUNCTION(rndint, false, false, X87_C1)
FUNCTION(2xm1, false, false, X87_C1)
FUNCTION(sin, false, false, X87_C1 | X87_C2)
FUNCTION(cos, false, false, X87_C1 | X87_C2)
FUNCTION(prem, true, false, X87_CC)
FUNCTION(prem1, true, false, X87_CC)
FUNCTION(scale, true, false, X87_C1)
FUNCTION(patan, true, true, X87_C1)
FUNCTION(yl2x, true, true, X87_C1)
FUNCTION(yl2xp1, true, true, X87_C1)

/* Functions with two results: one replaces ST(0), the other is pushed. */
static int function_push(struct cpu *c, const struct insn *i, x87_unit_fn *fn, unsigned cc)
{
	struct x86_fpu *f = &c->s.fpu;
	struct x87_unit u = { .cw = f->cw };
	int r = begin(c, i, NULL, 0);

	if (r)
		return r;
	if (x87_empty(f, 0) || !x87_empty(f, 7)) {
		f->sw &= (uint16_t) ~(cc & X87_C2);
		if (!x87_stack_fault(f, !x87_empty(f, 0)))
			return CPU_OK;
		u.r0 = u.r1 = x87_indefinite();
	} else {
		u.x = x87_get(f, 0);
		fn(&u);
		x87_flags(f, u.sw, cc);
		if (x87_refused(&u) ||
		    u.sw >> X87_TOP_SHIFT == 7) /* C2: out of range, nothing pushed */
			return CPU_OK;
	}
	x87_set(f, 0, u.r1);
	x87_push(f, u.r0);
	return CPU_OK;
}

int x87_fxtract(struct cpu *c, const struct insn *i)
{
	return function_push(c, i, unit_xtract, X87_C1);
}

int x87_fptan(struct cpu *c, const struct insn *i)
{
	return function_push(c, i, unit_ptan, X87_C1 | X87_C2);
}

int x87_fsincos(struct cpu *c, const struct insn *i)
{
	return function_push(c, i, unit_sincos, X87_C1 | X87_C2);
}
