/* SPDX-License-Identifier: Apache-2.0 */
/* Which mode the CPU is in, as far as translated code is specialised for it. */
#include "engine/dbt/dbt.h"

#define SEG_WRITABLE (SEG_ATTR_P | SEG_ATTR_S | 2u) /* data, expand-up */
#define SEG_CARE (SEG_WRITABLE | 0xcu)

static bool data_whole(const struct x86_segment *s) /* 4 GiB of it */
{
	return s->limit == 0xffffffff && (s->attr & SEG_CARE) == SEG_WRITABLE;
}

/* Flat code and data as 32-bit systems use them; MODE_NONE: something else. */
static uint32_t mode_segments(const struct x86_state *s)
{
	const struct x86_segment *cs = &s->seg[SEG_CS], *ss = &s->seg[SEG_SS];
	const uint16_t code = SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_DB | 8u;
	uint32_t mode = 0;

	if (!(s->cr0 & CR0_PE) || s->rflags & FLAG_VM || (cs->attr & code) != code || cs->limit != 0xffffffff ||
	    !data_whole(&s->seg[SEG_DS]) || !data_whole(&s->seg[SEG_ES]) || !data_whole(ss) || !(ss->attr & SEG_ATTR_DB) ||
	    (uint32_t)(cs->base | ss->base | s->seg[SEG_DS].base | s->seg[SEG_ES].base))
		return MODE_NONE;
	if (data_whole(&s->seg[SEG_FS]))
		mode |= MODE_FS;
	if (data_whole(&s->seg[SEG_GS]))
		mode |= MODE_GS;
	if (x86_long_mode(s))
		mode |= MODE_COMPAT;
	return mode;
}

uint32_t mode_of(const struct cpu *c)
{
	const struct x86_state *s = &c->s;
	uint32_t mode = MODE_LONG;

	if (s->rflags & FLAG_TF || c->debug.active || (s->dr[7] & 0xff))
		return MODE_NONE;
	if (s->cpl == 3 && s->cr0 & CR0_AM && s->rflags & FLAG_AC)
		return MODE_NONE; /* alignment checks */
	if (!x86_64bit(s))
		mode = mode_segments(s);
	if (mode == MODE_NONE)
		return mode;
	mode |= s->cpl;
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
