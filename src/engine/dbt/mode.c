/* SPDX-License-Identifier: Apache-2.0 */
/* Which mode the CPU is in, as far as translated code is specialised for it. */
#include "engine/dbt/dbt.h"

uint32_t mode_of(const struct cpu *c)
{
	const struct x86_state *s = &c->s;
	uint32_t mode;

	if (!x86_64bit(s) || s->rflags & FLAG_TF || c->debug.active || (s->dr[7] & 0xff))
		return MODE_NONE;
	if (s->cpl == 3 && s->cr0 & CR0_AM && s->rflags & FLAG_AC)
		return MODE_NONE; /* alignment checks */
	mode = MODE_LONG | s->cpl;
	if (!(s->cr0 & (CR0_EM | CR0_TS))) {
		if (s->cr0 & CR0_NE)
			mode |= MODE_X87;
		if (s->cr4 & CR4_OSFXSR)
			mode |= MODE_SSE;
		if (s->cr4 & CR4_OSXSAVE && (s->xcr0 & 6) == 6)
			mode |= MODE_AVX;
		if (s->cr4 & CR4_OSXSAVE && (s->xcr0 & 0xe6) == 0xe6)
			mode |= MODE_AVX512;
	}
	if ((s->cr4 & CR4_TSD && s->cpl) || dbt_cpu(c)->tsc_slow)
		mode |= MODE_TSD;
	if (s->cr4 & CR4_SMAP)
		mode |= MODE_SMAP;
	return mode;
}
