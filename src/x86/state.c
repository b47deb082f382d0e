/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a CPU after power-on and after INIT. */
#include <string.h>
#include "x86/state.h"

#define SIGNATURE 0x00a20f10u /* in RDX after reset: family, model, stepping, as CPUID leaf 1 says */
#define PAT_RESET 0x0007040600070406ull

static struct x86_segment data_segment(uint16_t type)
{
	return (struct x86_segment){ .limit = 0xffff, .attr = (uint16_t)(SEG_ATTR_P | type) };
}

/* What both kinds of reset set. */
static void reset_common(struct x86_state *s, bool bootstrap)
{
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[RDX] = SIGNATURE;
	s->rip = 0xfff0;
	s->rflags = 2;
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		s->seg[i] = data_segment(SEG_ATTR_S | 3);
	s->seg[SEG_CS] = data_segment(SEG_ATTR_S | 0xb);
	s->seg[SEG_CS].selector = 0xf000;
	s->seg[SEG_CS].base = 0xffff0000;
	s->seg[SEG_LDTR] = data_segment(2);
	s->seg[SEG_TR] = data_segment(0xb);
	s->gdtr = s->idtr = (struct x86_dtable){ .limit = 0xffff };
	s->cr2 = s->cr3 = s->cr4 = 0;
	s->efer = 0;
	memset(s->dr, 0, sizeof(s->dr));
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400;
	s->cpl = 0;
	s->shadow = SHADOW_NONE;
	s->nmi_mask = 0;
	s->activity = bootstrap ? ACTIVITY_RUN : ACTIVITY_WAIT_SIPI;
}

void x86_state_reset(struct x86_state *s, bool bootstrap)
{
	memset(s, 0, sizeof(*s));
	reset_common(s, bootstrap);
	s->cr0 = CR0_ET | CR0_NW | CR0_CD;
	s->xcr0 = 1;
	s->pat = PAT_RESET;
	s->misc_enable = 1; /* fast strings */
	s->mxcsr = 0x1f80;
	s->fpu.cw = 0x40;
	s->pv_poll_control = 1;
}

void x86_state_init_signal(struct x86_state *s, bool bootstrap)
{
	uint64_t kept = s->cr0 & (CR0_CD | CR0_NW);

	reset_common(s, bootstrap);
	s->cr0 = CR0_ET | kept;
}
