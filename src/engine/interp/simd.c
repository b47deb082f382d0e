/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place where MMX, SSE and AVX instructions are allowed or refused, and the shape they are
 * executed in. Faults come in the processor's order: #UD, #NM, #MF, memory, #XM; nothing is written
 * before all of them are out of the way.
 */
#include "engine/interp/simd.h"
#include "engine/interp/x87.h"
#include "x86/cpuid.h"

static bool feature_offered(const struct cpu *c, const struct insn *i, unsigned how)
{
	const struct cpuid_model *m = c->machine->cpuid;
	bool ymm = i->flags & INSN_VEX && i->vl == 32;

	if (i->flags & INSN_VEX && !m->has_avx)
		return false;
	switch ((enum simd_feature)(how & SIMD_FEATURE)) {
	case SIMD_BASE:
		return !(how & SIMD_INT && ymm) || m->has_avx2;
	case SIMD_AVX2:
		return m->has_avx2;
	case SIMD_FMA:
		return m->has_fma;
	case SIMD_F16C:
		return m->has_f16c;
	case SIMD_AES:
		return m->has_aes && (!ymm || m->has_vaes);
	case SIMD_PCLMUL:
		return m->has_pclmul && (!ymm || m->has_vpclmul);
	case SIMD_SHA:
		return m->has_sha;
	case SIMD_GFNI:
		return m->has_gfni;
	case SIMD_SSE4A:
		return m->has_sse4a;
	}
	return false;
}

int simd_check(struct cpu *c, const struct insn *i, unsigned how)
{
	const uint64_t avx_state = 6; /* XCR0: SSE and AVX */

	if (unlikely(i->flags & (INSN_LOCK | INSN_EVEX)) || unlikely(!feature_offered(c, i, how)))
		return cpu_raise(c, VEC_UD);
	if (i->flags & INSN_VEX) {
		if (!(c->s.cr0 & CR0_PE) || c->s.rflags & FLAG_VM || !(c->s.cr4 & CR4_OSXSAVE) ||
		    (c->s.xcr0 & avx_state) != avx_state)
			return cpu_raise(c, VEC_UD);
	} else if (unlikely(c->s.cr0 & CR0_EM) ||
		   (!(i->flags & INSN_MMX) && unlikely(!(c->s.cr4 & CR4_OSFXSR)))) {
		return cpu_raise(c, VEC_UD);
	}
	if (unlikely(c->s.cr0 & CR0_TS))
		return cpu_raise(c, VEC_NM);
	if (i->flags & INSN_MMX)
		return x87_pending(c);
	return CPU_OK;
}

int simd_linear_aligned(struct cpu *c, const struct insn *i, unsigned size, bool write, gva_t *at)
{
	int r = operand_linear(c, i, size, write, at);

	if (r)
		return r;
	return *at & (size - 1) ? cpu_raise_error(c, VEC_GP, 0) : CPU_OK;
}

int simd_load(struct cpu *c, const struct insn *i, union x86_vreg *v, unsigned how)
{
	gva_t at;
	int r;

	if (!(i->flags & INSN_MEM)) {
		if (i->flags & INSN_MMX)
			*v = (union x86_vreg){ .q = { mmx_get(c, i->rm) } };
		else
			*v = c->s.v[i->rm];
		return CPU_OK;
	}
	if (i->memsize < 16 || i->memsize > 32)
		*v = (union x86_vreg){ 0 };
	if (i->memsize == 16 && !(i->flags & INSN_VEX) && !(how & SIMD_UNALIGNED)) {
		r = simd_linear_aligned(c, i, 16, false, &at);
		return r ? r : cpu_read(c, at, v, 16);
	}
	r = operand_linear(c, i, i->memsize, false, &at);
	return r ? r : cpu_read(c, at, v, i->memsize);
}

int fp_commit(struct cpu *c, unsigned flags)
{
	const unsigned before = MXCSR_IE | MXCSR_DE | MXCSR_ZE; /* detected before computing */
	unsigned unmasked = flags & ~(c->s.mxcsr >> MXCSR_MASK_SHIFT);

	if (likely(!unmasked)) {
		c->s.mxcsr |= flags;
		return CPU_OK;
	}
	if (unmasked & before)
		flags &= before;
	c->s.mxcsr |= flags;
	return cpu_raise(c, c->s.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}

unsigned fp_tiny(const struct cpu *c, const void *results, unsigned bytes, unsigned how)
{
	const union x86_vreg *v = results;

	if (likely(c->s.mxcsr & MXCSR_UM))
		return 0;
	for (unsigned k = 0; how & SIMD_F32 && k < bytes / 4; k++) {
		if (!(v->d[k] & 0x7f800000) && v->d[k] & 0x7fffff)
			return MXCSR_UE;
	}
	for (unsigned k = 0; how & SIMD_F64 && k < bytes / 8; k++) {
		if (!(v->q[k] & 0x7ff0000000000000) && v->q[k] & 0xfffffffffffff)
			return MXCSR_UE;
	}
	return 0;
}

int simd_op(struct cpu *c, const struct insn *i, lane_fn *fn, unsigned how)
{
	unsigned bytes = how & (SIMD_ONE4 | SIMD_ONE8) ? 16 : simd_bytes(i);
	unsigned n = how & SIMD_ONE4 ? 4 : how & SIMD_ONE8 || bytes == 8 ? 8 : 16;
	unsigned from = 16 >> (how >> SIMD_WIDEN_SHIFT & 3), to = how & SIMD_NARROW ? 8 : 16;
	unsigned flags, imm = (unsigned)i->imm & 0xff;
	union x86_vreg a, b, d;
	int r = simd_check(c, i, how);

	if (r)
		return r;
	r = simd_load(c, i, &b, how);
	if (r)
		return r;
	if (i->flags & INSN_MMX)
		a.q[0] = mmx_get(c, i->reg);
	else
		memcpy(&a, simd_first(c, i), bytes);
	if (n < 16)
		d = a;
	if (how & SIMD_FP)
		fp_enter(c);
	for (unsigned l = 0; 16 * l < bytes; l++)
		fn((union lane *)&d.b[l * to], simd_lane(&a, l), (union lane *)&b.b[l * from], n,
		   how & SIMD_IMM3 ? imm >> 3 * l : imm);
	if (how & SIMD_FP) {
		flags = fp_leave();
		flags |= fp_tiny(c, &d, n < 16 ? n : bytes * to / 16, how);
		r = fp_commit(c, flags);
		if (r)
			return r;
	}
	if (i->flags & INSN_MMX) {
		mmx_set(c, i->reg, d.q[0]);
		return CPU_OK;
	}
	if (how & SIMD_NARROW) {
		memset(&d.b[bytes / 2], 0, 16);
		bytes = 16;
	}
	simd_store(c, i, i->reg, &d, bytes);
	return CPU_OK;
}
