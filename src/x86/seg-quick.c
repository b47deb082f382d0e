/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IRET as kernels mean it: 64-bit code to 64-bit code of the same or the user's level, or 32-bit code of a 32-bit system
 * likewise, descriptors flat and accessed, the
 * frame and the descriptor table in memory the software TLB knows. All else is seg_iret()'s. Built with general registers
 * only and calls nothing that is not, so that the guest's vector registers may stay in the host's.
 */
#include "x86/access.h"
#include "x86/private.h"
#include "x86/tlb-fill.h"

/* What an interrupt frame may set here; the rest changes how instructions are executed. */
#define FLAGS_ODD (FLAG_TF | FLAG_NT | FLAG_VM)
#define FLAGS_MERGED (FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_IF | FLAG_IOPL | FLAG_VIF | \
		      FLAG_VIP)

bool descriptor_is(struct cpu *c, uint64_t selector, uint64_t raw)
{
	enum tlb_mode mode = c->s.cr4 & CR4_SMAP ? TLB_SUPER : TLB_SUPER_AC;
	const struct tlb_table *t = c->tlb.space->table[mode];
	uint64_t at = selector & 0xfff8;
	const uint64_t *p;
	gpa_t where;

	if (selector & 4 || !at || selector > 0xffff || at + 7 > c->s.gdtr.limit)
		return false;
	p = tlb_read_hit(t, c->s.gdtr.base + at, 8);
	if (!p && tlb_fill(c, c->s.gdtr.base + at, ACCESS_READ, mode, &where) == CPU_OK)
		p = tlb_read_hit(t, c->s.gdtr.base + at, 8);
	return p && *p == (raw | (selector & 3) << RAW_DPL_SHIFT);
}

struct x86_segment flat_segment(uint64_t selector, uint16_t type)
{
	unsigned dpl = selector & 3;

	return (struct x86_segment){ .limit = 0xffffffff,
				     .selector = (uint16_t)selector,
				     .attr = (uint16_t)(SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_G | dpl << SEG_ATTR_DPL_SHIFT | type) };
}

bool seg_iret_quick(struct cpu *c)
{
	struct x86_state *s = &c->s;
	const uint64_t *frame = tlb_read_hit(c->tlb.data, s->gpr[RSP], 40);
	uint64_t rip, cs, flags, rsp, ss;

	if (!frame || s->cpl || !x86_64bit(s) || s->rflags & FLAGS_ODD || s->dr[7] & 0xff || c->debug.active)
		return false;
	/*
	 * RF, which frames of faults have, would only hold off breakpoints; nobody sees it but in the frame of an interrupt that
	 * comes before the very next instruction.
	 */
	rip = frame[0];
	cs = frame[1];
	flags = frame[2];
	rsp = frame[3];
	ss = frame[4];
	if (flags & FLAGS_ODD || !is_canonical(rip) || (cs & 3) != (ss & 3) || ((cs & 3) && (cs & 3) != 3))
		return false;
	if (!descriptor_is(c, cs, RAW_CODE64) || ((ss || cs & 3) && !descriptor_is(c, ss, RAW_DATA)))
		return false;
	s->seg[SEG_CS] = flat_segment(cs, TYPE_CODE | TYPE_READ | TYPE_ACCESSED | SEG_ATTR_L);
	s->seg[SEG_SS] = !ss ? stack_segment_null(0) : flat_segment(ss, TYPE_WRITE | TYPE_ACCESSED | SEG_ATTR_DB);
	s->rip = rip;
	s->gpr[RSP] = rsp;
	s->cpl = cs & 3;
	if (cs & 3)
		data_segments_drop(c, 3);
	s->nmi_mask = 0;
	cpu_set_rflags(c, (s->rflags & ~(FLAGS_MERGED | FLAG_RF)) | (flags & FLAGS_MERGED));
	return true;
}

bool seg_iret_quick_32(struct cpu *c)
{
	struct x86_state *s = &c->s;
	const uint32_t *frame = tlb_read_hit(c->tlb.data, s->gpr[RSP], 20);
	uint32_t rip, cs, flags, rsp = 0, ss = 0;

	if (!frame || s->cpl || x86_long_mode(s) || s->rflags & FLAGS_ODD || s->dr[7] & 0xff || c->debug.active)
		return false;
	rip = frame[0];
	cs = frame[1];
	flags = frame[2];
	if (flags & FLAGS_ODD || ((cs & 3) && (cs & 3) != 3) || !descriptor_is(c, (uint16_t)cs, RAW_CODE32))
		return false;
	if (cs & 3) {
		rsp = frame[3];
		ss = frame[4];
		if ((ss & 3) != 3 || !descriptor_is(c, (uint16_t)ss, RAW_DATA))
			return false;
	}
	s->seg[SEG_CS] = flat_segment((uint16_t)cs, TYPE_CODE | TYPE_READ | TYPE_ACCESSED | SEG_ATTR_DB);
	s->rip = rip;
	if (cs & 3) {
		s->seg[SEG_SS] = flat_segment((uint16_t)ss, TYPE_WRITE | TYPE_ACCESSED | SEG_ATTR_DB);
		s->gpr[RSP] = rsp;
		s->cpl = 3;
		data_segments_drop(c, 3);
	} else {
		s->gpr[RSP] = (uint32_t)(s->gpr[RSP] + 12);
	}
	s->nmi_mask = 0;
	cpu_set_rflags(c, (s->rflags & ~(FLAGS_MERGED | FLAG_RF)) | (flags & FLAGS_MERGED));
	return true;
}
