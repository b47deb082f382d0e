/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved form of x86_state, and what a state from a foreign stream must satisfy before it may be taken over:
 * everything that an engine relies on without looking again.
 */
#include <errno.h>
#include "base/err.h"
#include "x86/state-desc.h"

#define F(member) STATE_INT(struct x86_state, member)
#define A(member) STATE_INTS(struct x86_state, member)
#define R(member) STATE_RAW(struct x86_state, member)
#define SEG(i) F(seg[i].base), F(seg[i].limit), F(seg[i].selector), F(seg[i].attr)
#define ST(i) F(fpu.reg[i].mantissa), F(fpu.reg[i].exponent)

static const struct state_field fields[] = {
	A(gpr), F(rip), F(rflags),
	SEG(0), SEG(1), SEG(2), SEG(3), SEG(4), SEG(5), SEG(6), SEG(7),
	F(gdtr.base), F(gdtr.limit), F(idtr.base), F(idtr.limit),
	F(cr0), F(cr2), F(cr3), F(cr4), F(efer), F(xcr0), A(dr),
	F(cpl), F(shadow), F(nmi_mask), F(activity),
	F(star), F(lstar), F(cstar), F(sfmask), F(kernel_gs_base), F(tsc_aux),
	F(sysenter_cs), F(sysenter_esp), F(sysenter_eip),
	F(pat), F(tsc_adjust), F(misc_enable), F(spec_ctrl), F(xss), F(tsc_offset),
	F(mtrr_def_type), A(mtrr_fixed), A(mtrr_base), A(mtrr_mask),
	F(mcg_status), F(mcg_ctl), A(mc_bank[0]), A(mc_bank[1]), A(mc_bank[2]), A(mc_bank[3]),
	F(pv_clock), F(pv_wall_clock), F(pv_eoi), F(pv_steal), F(pv_async), F(pv_poll_control),
	F(mxcsr),
	ST(0), ST(1), ST(2), ST(3), ST(4), ST(5), ST(6), ST(7),
	F(fpu.cw), F(fpu.sw), F(fpu.tag), F(fpu.opcode), F(fpu.ip), F(fpu.dp), F(fpu.cs), F(fpu.ds),
	R(v), A(k),
};

#define RFLAGS_DEFINED 0x3f7fd7ull
#define CR4_DEFINED 0x1ff7fffull
#define MXCSR_DEFINED 0xffffu

static const char *wrong(const struct x86_state *s)
{
	bool lma = s->efer & EFER_LMA;

	if ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE))
		return "paging without protection";
	if ((s->cr0 >> 32) || ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)))
		return "bits of CR0";
	if (lma != ((s->efer & EFER_LME) && (s->cr0 & CR0_PG)))
		return "EFER.LMA";
	if (lma && !(s->cr4 & CR4_PAE))
		return "long mode without PAE";
	if (s->efer & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | BIT(21)))
		return "bits of EFER";
	if (s->cr4 & ~CR4_DEFINED)
		return "bits of CR4";
	if ((s->rflags & ~RFLAGS_DEFINED) || !(s->rflags & 2))
		return "bits of RFLAGS";
	if ((s->rflags & FLAG_VM) && (lma || s->cpl != 3 || !(s->cr0 & CR0_PE)))
		return "virtual-8086 mode";
	if (s->cpl > 3 || (!(s->cr0 & CR0_PE) && s->cpl))
		return "the privilege level";
	if (s->shadow & ~(SHADOW_STI | SHADOW_MOVSS))
		return "the interrupt shadow";
	if (s->nmi_mask > 1 || s->activity > ACTIVITY_SHUTDOWN)
		return "the activity state";
	if (s->mxcsr & ~MXCSR_DEFINED)
		return "bits of MXCSR";
	if ((s->xcr0 && !(s->xcr0 & 1)) || ((s->xcr0 & 4) && !(s->xcr0 & 2)) ||
	    (s->xcr0 & 0xe0 && (s->xcr0 & 0xe4) != 0xe4))
		return "XCR0";
	if (s->dr[6] >> 32 || s->dr[7] >> 32)
		return "debug registers";
	return NULL;
}

static int check(const void *hw, struct err *e)
{
	const char *what = wrong(hw);

	return what ? err_set(e, EINVAL, "a CPU state that cannot be: %s", what) : 0;
}

const struct state_desc x86_state_desc = {
	.name = "cpu",
	.version = 1,
	.size = sizeof(struct x86_state),
	.fields = fields,
	.nfields = ARRAY_LEN(fields),
	.check = check,
};
