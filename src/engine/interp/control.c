/* SPDX-License-Identifier: Apache-2.0 */
/* Near JMP Jcc CALL RET LOOP JRCXZ. The conditions are instantiated one by one for the loop. */
#include "engine/interp/private.h"

INLINE int jcc(struct cpu *c, const struct insn *i, unsigned cond)
{
	int r;

	if (!cond_holds(c->s.rflags, cond))
		return CPU_OK;
	r = branch_to(c, i, c->s.rip + i->imm);
	return likely(!r) ? INTERP_TAKEN : r;
}
/* clang-format off */
#define JCC(n) static int jcc_##n(struct cpu *c, const struct insn *i) { return jcc(c, i, n); }
JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7)
JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)
	/* clang-format on */

	static const insn_fn jcc_table[16] = {
		jcc_0, jcc_1, jcc_2,  jcc_3,  jcc_4,  jcc_5,  jcc_6,  jcc_7,
		jcc_8, jcc_9, jcc_10, jcc_11, jcc_12, jcc_13, jcc_14, jcc_15,
	};

static int jmp_rel_64(struct cpu *c, const struct insn *i)
{
	return branch_to(c, i, c->s.rip + i->imm);
}
static int call_rel_64(struct cpu *c, const struct insn *i)
{
	uint64_t sp = c->s.gpr[RSP] - 8, target = c->s.rip + i->imm;
	int r;

	if (unlikely(!canonical(c, target)))
		return raise_gp0(c);
	r = cpu_write(c, sp, &c->s.rip, 8);
	if (unlikely(r))
		return r;
	c->s.gpr[RSP] = sp;
	c->s.rip = target;
	return CPU_OK;
}
static int ret_64(struct cpu *c, const struct insn *i)
{
	uint64_t target;
	int r = cpu_read(c, c->s.gpr[RSP], &target, 8);

	if (unlikely(r))
		return r;
	if (unlikely(!canonical(c, target)))
		return raise_gp0(c);
	c->s.gpr[RSP] += 8 + i->imm;
	c->s.rip = target;
	return CPU_OK;
}

insn_fn control_bind(const struct insn *i)
{
	if (i->flags & INSN_COND)
		return jcc_table[i->cond];
	if (i->mode == MODE_64 && i->opsize == 8 && i->op == OP_RET)
		return ret_64;
	if (i->mode == MODE_64 && i->opsize == 8 && i->form == FORM_IMM)
		return i->op == OP_JMP ? jmp_rel_64 : call_rel_64;
	return i->op == OP_JMP ? ctl_jmp : i->op == OP_CALL ? ctl_call : ctl_ret;
}

int ctl_jcc(struct cpu *c, const struct insn *i)
{
	return jcc(c, i, i->cond);
}

static int branch_target(struct cpu *c, const struct insn *i, uint64_t *target)
{
	if (i->form == FORM_RM)
		return rm_get(c, i, i->opsize, target);
	*target = c->s.rip + i->imm;
	return CPU_OK;
}

int ctl_jmp(struct cpu *c, const struct insn *i)
{
	uint64_t target;
	int r = branch_target(c, i, &target);

	return r ? r : branch_to(c, i, target);
}

int ctl_call(struct cpu *c, const struct insn *i)
{
	uint64_t target, back = c->s.rip;
	int r = branch_target(c, i, &target);

	if (!r)
		r = branch_to(c, i, target);
	if (r)
		return r;
	r = stack_push_value(c, i, i->opsize, back);
	if (r)
		c->s.rip = back;
	return r;
}

int ctl_ret(struct cpu *c, const struct insn *i)
{
	uint64_t target, sp = c->s.gpr[RSP];
	int r = stack_load(c, i, sp, i->opsize, &target);

	if (!r)
		r = branch_to(c, i, target);
	if (r)
		return r;
	stack_pointer_set(c, stack_width(c, i), sp + i->opsize + i->imm);
	return CPU_OK;
}

int ctl_jcxz(struct cpu *c, const struct insn *i)
{
	if (c->s.gpr[RCX] & size_mask(i->addrsize))
		return CPU_OK;
	return branch_to(c, i, c->s.rip + i->imm);
}

int ctl_loop(struct cpu *c, const struct insn *i)
{
	uint64_t count = (c->s.gpr[RCX] - 1) & size_mask(i->addrsize);
	bool zf = c->s.rflags & FLAG_ZF, taken = count != 0;
	int r = CPU_OK;

	if (i->op == OP_LOOPE)
		taken = taken && zf;
	else if (i->op == OP_LOOPNE)
		taken = taken && !zf;
	if (taken)
		r = branch_to(c, i, c->s.rip + i->imm);
	if (!r)
		reg_set(c, RCX, false, i->addrsize, count);
	return r;
}
