/* SPDX-License-Identifier: Apache-2.0 */
/* What the x87 handlers share: availability, register access, the stack's faults, committing the
 * unit's flags. */
#ifndef ENGINE_INTERP_X87_PRIVATE_H
#define ENGINE_INTERP_X87_PRIVATE_H

#include "engine/interp/simd.h"
#include "engine/interp/x87-unit.h"
#include "engine/interp/x87.h"

/* #NM for CR0.EM or TS; #MF for waiting instructions. */
int x87_check(struct cpu *c, const struct insn *i, bool waits);
/* Note instruction and operand for FSTENV and FSAVE; every non-control instruction. */
void x87_note(struct cpu *c, const struct insn *i);

static inline long double x87_get(const struct x86_fpu *f, unsigned st)
{
	long double v = 0;

	memcpy(&v, &f->reg[x87_physical(f, st)], 10);
	return v;
}

static inline void x87_set(struct x86_fpu *f, unsigned st, long double v)
{
	unsigned p = x87_physical(f, st);

	memcpy(&f->reg[p], &v, 10);
	f->tag |= (uint8_t)(1u << p);
}

static inline long double x87_indefinite(void)
{
	static const uint8_t bytes[10] = { 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff };
	long double v = 0;

	memcpy(&v, bytes, 10);
	return v;
}

static inline void x87_move_top(struct x86_fpu *f, unsigned by)
{
	f->sw = (uint16_t)((f->sw & ~X87_TOP) | ((x87_top(f) + by) << X87_TOP_SHIFT & X87_TOP));
}

static inline void x87_free(struct x86_fpu *f, unsigned st)
{
	f->tag &= (uint8_t) ~(1u << x87_physical(f, st));
}

static inline void x87_pop(struct x86_fpu *f)
{
	x87_free(f, 0);
	x87_move_top(f, 1);
}

static inline void x87_push(struct x86_fpu *f, long double v)
{
	x87_move_top(f, 7);
	x87_set(f, 0, v);
}

/* Take over exception flags and the condition bits in `cc`. */
static inline void x87_flags(struct x86_fpu *f, unsigned sw, unsigned cc)
{
	f->sw = (uint16_t)((f->sw & ~cc) | (sw & (cc | X87_FLAGS | X87_SF)));
	x87_update_summary(f);
}

/* Stack overflow or underflow. True: masked, go on with the indefinite value. */
static inline bool x87_stack_fault(struct x86_fpu *f, bool overflow)
{
	x87_flags(f, X87_IE | X87_SF | (overflow ? X87_C1 : 0), X87_C1);
	return f->cw & X87_IE;
}

/* Did what the unit raised keep a register result from being delivered? A result in memory? */
static inline bool x87_refused(const struct x87_unit *u)
{
	return u->sw & ~u->cw & (X87_IE | X87_DE | X87_ZE);
}
static inline bool x87_store_refused(const struct x87_unit *u)
{
	return u->sw & ~u->cw & (X87_IE | X87_DE | X87_ZE | X87_OE | X87_UE);
}

#endif
