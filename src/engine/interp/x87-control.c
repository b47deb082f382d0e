/* SPDX-License-Identifier: Apache-2.0 */
/* x87: register moves and signs, the stack pointer, control and status words, environment, saving;
 * EMMS. */
#include "engine/interp/x87-private.h"
#include "engine/interp/xsave.h"

static int begin(struct cpu *c, const struct insn *i)
{
	int r = x87_check(c, i, true);

	if (!r)
		x87_note(c, i);
	return r;
}

/* ---- registers ---- */

/* FCHS, FABS: the sign alone, NaNs and unsupported formats too. */
static int sign(struct cpu *c, const struct insn *i, bool change)
{
	struct x86_fpu *f = &c->s.fpu;
	unsigned p = x87_physical(f, 0);
	int r = begin(c, i);

	if (r)
		return r;
	if (x87_empty(f, 0)) {
		if (x87_stack_fault(f, false))
			x87_set(f, 0, x87_indefinite());
		return CPU_OK;
	}
	x87_flags(f, 0, X87_C1);
	f->reg[p].exponent = change ? f->reg[p].exponent ^ 0x8000 : f->reg[p].exponent & 0x7fff;
	return CPU_OK;
}

int x87_fchs(struct cpu *c, const struct insn *i)
{
	return sign(c, i, true);
}

int x87_fabs(struct cpu *c, const struct insn *i)
{
	return sign(c, i, false);
}

int x87_fxch(struct cpu *c, const struct insn *i)
{
	struct x86_fpu *f = &c->s.fpu;
	unsigned st = i->modrm & 7;
	long double a, b;
	int r = begin(c, i);

	if (r)
		return r;
	a = x87_get(f, 0);
	b = x87_get(f, st);
	if (x87_empty(f, 0) || x87_empty(f, st)) {
		if (!x87_stack_fault(f, false))
			return CPU_OK;
		a = x87_empty(f, 0) ? x87_indefinite() : a;
		b = x87_empty(f, st) ? x87_indefinite() : b;
	} else {
		x87_flags(f, 0, X87_C1);
	}
	x87_set(f, 0, b);
	x87_set(f, st, a);
	return CPU_OK;
}

/* DA/DB C0..DF: bits 3 and 4 choose B, E, BE, U; DB negates. */
int x87_fcmov(struct cpu *c, const struct insn *i)
{
	static const uint64_t flags[4] = { FLAG_CF, FLAG_ZF, FLAG_CF | FLAG_ZF, FLAG_PF };
	struct x86_fpu *f = &c->s.fpu;
	unsigned st = i->modrm & 7;
	bool holds = (c->s.rflags & flags[i->modrm >> 3 & 3]) != 0;
	int r = begin(c, i);

	if (r)
		return r;
	if (x87_empty(f, 0) || x87_empty(f, st)) {
		if (x87_stack_fault(f, false))
			x87_set(f, 0, x87_indefinite());
		return CPU_OK;
	}
	if (holds != (i->opcode == 0xdb))
		x87_set(f, 0, x87_get(f, st));
	return CPU_OK;
}

int x87_ffree(struct cpu *c, const struct insn *i) /* and FFREEP */
{
	struct x86_fpu *f = &c->s.fpu;
	int r = begin(c, i);

	if (r)
		return r;
	x87_flags(f, 0, X87_C1);
	x87_free(f, i->modrm & 7);
	if (i->op == OP_FFREEP)
		x87_pop(f);
	return CPU_OK;
}

int x87_fincstp(struct cpu *c, const struct insn *i) /* and FDECSTP */
{
	int r = begin(c, i);

	if (r)
		return r;
	x87_move_top(&c->s.fpu, i->op == OP_FINCSTP ? 1 : 7);
	x87_flags(&c->s.fpu, 0, X87_C1);
	return CPU_OK;
}

int x87_fnop(struct cpu *c, const struct insn *i)
{
	return begin(c, i);
}

/* FENI, FDISI, FSETPM: did something on the 8087 and 80287 only. */
int x87_ignored(struct cpu *c, const struct insn *i)
{
	return x87_check(c, i, false);
}

int x87_fwait(struct cpu *c, const struct insn *i)
{
	if ((c->s.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		return cpu_raise(c, VEC_NM);
	return x87_pending(c);
}

int x87_emms(struct cpu *c, const struct insn *i) /* #UD, not #NM, for CR0.EM: it is MMX */
{
	int r = CPU_OK;

	if (i->flags & INSN_LOCK || c->s.cr0 & CR0_EM)
		r = cpu_raise(c, VEC_UD);
	else if (c->s.cr0 & CR0_TS)
		r = cpu_raise(c, VEC_NM);
	else
		r = x87_pending(c);
	if (!r) {
		c->s.fpu.tag = 0;
		c->s.fpu.sw &= (uint16_t)~X87_TOP;
	}
	return r;
}

/* ---- control and status ---- */

int x87_fninit(struct cpu *c, const struct insn *i)
{
	struct x86_fpu *f = &c->s.fpu;
	int r = x87_check(c, i, false);

	if (r)
		return r;
	f->cw = X87_CW_DEFAULT; /* the registers keep their contents, but are free */
	f->sw = 0;
	f->tag = 0;
	f->opcode = 0;
	f->ip = f->dp = 0;
	f->cs = f->ds = 0;
	return CPU_OK;
}

int x87_fnclex(struct cpu *c, const struct insn *i)
{
	int r = x87_check(c, i, false);

	if (!r)
		c->s.fpu.sw &= (uint16_t) ~(X87_FLAGS | X87_SF | X87_ES | X87_B);
	return r;
}

int x87_fldcw(struct cpu *c, const struct insn *i)
{
	uint16_t cw;
	int r = x87_check(c, i, true);

	if (!r)
		r = operand_read(c, i, &cw, 2);
	if (r)
		return r;
	c->s.fpu.cw = (cw & X87_CW_VALID) | X87_CW_FIXED;
	x87_update_summary(&c->s.fpu);
	return CPU_OK;
}

int x87_fnstcw(struct cpu *c, const struct insn *i)
{
	int r = x87_check(c, i, false);

	return r ? r : operand_write(c, i, &c->s.fpu.cw, 2);
}

int x87_fnstsw(struct cpu *c, const struct insn *i)
{
	int r = x87_check(c, i, false);

	if (r)
		return r;
	if (i->flags & INSN_MEM)
		return operand_write(c, i, &c->s.fpu.sw, 2);
	c->s.gpr[RAX] = (c->s.gpr[RAX] & ~0xffffull) | c->s.fpu.sw;
	return CPU_OK;
}

/* ---- environment: 7 words of 16 or 32 bits, pointers as in real or in protected mode ---- */

static unsigned operand_size(const struct insn *i)
{
	bool prefix = memchr(i->bytes, 0x66, i->opcode_at) && !(i->rex & 8); /* REX.W wins */

	return (i->mode == MODE_16) != prefix ? 2 : 4;
}

static bool real_format(const struct cpu *c)
{
	return !(c->s.cr0 & CR0_PE) || c->s.rflags & FLAG_VM;
}

/* Two bits a register: 0 valid, 1 zero, 2 special, 3 empty. */
static uint16_t full_tags(const struct x86_fpu *f)
{
	unsigned tags = 0;

	for (unsigned k = 0; k < 8; k++) {
		unsigned e = f->reg[k].exponent & 0x7fff, kind = 2;

		if (!(f->tag >> k & 1))
			kind = 3;
		else if (!e && !f->reg[k].mantissa)
			kind = 1;
		else if (e && e != 0x7fff && f->reg[k].mantissa >> 63)
			kind = 0;
		tags |= kind << 2 * k;
	}
	return (uint16_t)tags;
}

/* Fields as 32-bit words; the 16-bit format takes their low halves but for what real mode splits
 * differently. */
static unsigned environment_pack(const struct cpu *c, unsigned size, uint8_t *image)
{
	const struct x86_fpu *f = &c->s.fpu;
	uint32_t field[7] = { 0xffff0000 | f->cw, 0xffff0000 | f->sw, 0xffff0000 | full_tags(f) };
	uint32_t ip = (uint32_t)f->ip, dp = (uint32_t)f->dp;

	if (real_format(c)) {
		ip += (uint32_t)f->cs << 4;
		dp += (uint32_t)f->ds << 4;
		field[3] = 0xffff0000 | (ip & 0xffff);
		field[4] = (ip >> 16) << 12 | f->opcode;
		field[5] = 0xffff0000 | (dp & 0xffff);
		field[6] = (dp >> 16) << 12;
	} else {
		field[3] = ip;
		field[4] = f->cs | (uint32_t)f->opcode << 16;
		field[5] = dp;
		field[6] = 0xffff0000 | f->ds;
	}
	for (unsigned k = 0; k < 7; k++)
		memcpy(image + k * size, &field[k], size);
	return 7 * size;
}

static void environment_unpack(struct cpu *c, unsigned size, const uint8_t *image)
{
	struct x86_fpu *f = &c->s.fpu;
	uint32_t field[7] = { 0 };

	for (unsigned k = 0; k < 7; k++)
		memcpy(&field[k], image + k * size, size);
	f->cw = (field[0] & X87_CW_VALID) | X87_CW_FIXED;
	f->sw = (uint16_t)field[1];
	f->tag = 0;
	for (unsigned k = 0; k < 8; k++)
		f->tag |= (field[2] >> 2 * k & 3) != 3 ? (uint8_t)(1u << k) : 0;
	if (real_format(c)) {
		f->ip = (field[3] & 0xffff) | field[4] >> 12 << 16;
		f->dp = (field[5] & 0xffff) | field[6] >> 12 << 16;
		f->opcode = field[4] & 0x7ff;
		f->cs = f->ds = 0;
	} else {
		f->ip = field[3];
		f->cs = (uint16_t)field[4];
		f->opcode = size == 4 ? field[4] >> 16 & 0x7ff : 0;
		f->dp = field[5];
		f->ds = (uint16_t)field[6];
	}
	x87_update_summary(f);
}

int x87_fnstenv(struct cpu *c, const struct insn *i)
{
	uint8_t image[28];
	unsigned size;
	int r = x87_check(c, i, false);

	if (r)
		return r;
	size = environment_pack(c, operand_size(i), image);
	r = operand_write_parts(c, i, image, size, size / 7);
	if (r)
		return r;
	c->s.fpu.cw |= X87_FLAGS;
	x87_update_summary(&c->s.fpu);
	return CPU_OK;
}

int x87_fldenv(struct cpu *c, const struct insn *i)
{
	unsigned size = operand_size(i);
	uint8_t image[28];
	int r = x87_check(c, i, true);

	if (!r)
		r = operand_read_parts(c, i, image, 7 * size, size);
	if (!r)
		environment_unpack(c, size, image);
	return r;
}

int x87_fnsave(struct cpu *c, const struct insn *i)
{
	struct x86_fpu *f = &c->s.fpu;
	uint8_t image[28 + 80];
	unsigned env, total;
	gva_t at;
	int r = x87_check(c, i, false);

	if (r)
		return r;
	env = environment_pack(c, operand_size(i), image);
	for (unsigned k = 0; k < 8; k++)
		memcpy(image + env + 10 * k, &f->reg[x87_physical(f, k)], 10);
	total = env + 80;
	r = operand_linear(c, i, total, true, &at);
	if (!r)
		r = cpu_probe(c, at, total, ACCESS_WRITE);
	if (r)
		return operand_first_fault(c, i, env / 7, true);
	r = cpu_write(c, at, image, 64);
	if (!r)
		r = cpu_write(c, at + 64, image + 64, total - 64);
	return r ? r : x87_fninit(c, i);
}

int x87_frstor(struct cpu *c, const struct insn *i)
{
	struct x86_fpu *f = &c->s.fpu;
	unsigned size = operand_size(i), env = 7 * size;
	uint8_t image[28 + 80];
	gva_t at;
	int r = x87_check(c, i, true);

	if (r)
		return r;
	r = operand_linear(c, i, env + 80, false, &at);
	if (!r)
		r = cpu_read(c, at, image, 64);
	if (!r)
		r = cpu_read(c, at + 64, image + 64, env + 80 - 64);
	if (r)
		return operand_first_fault(c, i, size, false);
	environment_unpack(c, size, image);
	for (unsigned k = 0; k < 8; k++)
		memcpy(&f->reg[x87_physical(f, k)], image + env + 10 * k, 10);
	return CPU_OK;
}
