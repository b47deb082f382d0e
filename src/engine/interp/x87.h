/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87 state as the handlers see it. Rules that all of them keep: fpu.tag has a bit for each
 * register in use, by physical number; ES and B of the status word always equal "an unmasked
 * exception is recorded".
 */
#ifndef ENGINE_INTERP_X87_H
#define ENGINE_INTERP_X87_H

#include "engine/interp/operand.h"

/* Status word */
#define X87_IE 0x0001u
#define X87_DE 0x0002u
#define X87_ZE 0x0004u
#define X87_OE 0x0008u
#define X87_UE 0x0010u
#define X87_PE 0x0020u
#define X87_FLAGS 0x003fu
#define X87_SF 0x0040u
#define X87_ES 0x0080u
#define X87_C0 0x0100u
#define X87_C1 0x0200u
#define X87_C2 0x0400u
#define X87_TOP 0x3800u
#define X87_TOP_SHIFT 11
#define X87_C3 0x4000u
#define X87_B 0x8000u
#define X87_CC (X87_C0 | X87_C1 | X87_C2 | X87_C3)
/* Control word */
#define X87_CW_DEFAULT 0x037fu
#define X87_CW_VALID 0x1f3fu
#define X87_CW_FIXED 0x0040u /* reads as one */

/* #MF when an unmasked exception is pending. Without CR0.NE the guest would get IRQ 13; it gets #MF
 * too. */
static inline int x87_pending(struct cpu *c)
{
	return unlikely(c->s.fpu.sw & X87_ES) ? cpu_raise(c, VEC_MF) : CPU_OK;
}

static inline void x87_update_summary(struct x86_fpu *f)
{
	f->sw = (uint16_t)(f->sw & ~(X87_ES | X87_B)) |
		(f->sw & ~f->cw & X87_FLAGS ? X87_ES | X87_B : 0);
}

static inline unsigned x87_top(const struct x86_fpu *f)
{
	return f->sw >> X87_TOP_SHIFT & 7;
}

static inline unsigned x87_physical(const struct x86_fpu *f, unsigned st)
{
	return (x87_top(f) + st) & 7;
}

static inline bool x87_empty(const struct x86_fpu *f, unsigned st)
{
	return !(f->tag >> x87_physical(f, st) & 1);
}

#endif
