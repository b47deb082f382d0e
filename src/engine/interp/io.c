/* SPDX-License-Identifier: Apache-2.0 */
/* IN and OUT, and who may: IOPL, or the I/O permission bitmap in the TSS. */
#include "engine/interp/private.h"
#include "x86/watch.h"

#define TSS_IO_MAP 102 /* where a 32-bit (and 64-bit) TSS holds the bitmap's offset */

static bool tss_is_32(const struct cpu *c)
{
	unsigned type = c->s.seg[SEG_TR].attr & SEG_ATTR_TYPE;

	return c->s.seg[SEG_TR].attr & SEG_ATTR_P && (type == 9 || type == 11);
}

int io_permitted(struct cpu *c, uint16_t port, unsigned size)
{
	const struct x86_segment *tr = &c->s.seg[SEG_TR];
	uint16_t map = 0, bits_;
	uint32_t at;
	int r;

	if (!(c->s.cr0 & CR0_PE) || (!cpu_v86(c) && c->s.cpl <= cpu_iopl(c)))
		return CPU_OK;
	if (!tss_is_32(c) || tr->limit < TSS_IO_MAP + 1)
		return raise_gp0(c);
	r = cpu_read_system(c, tr->base + TSS_IO_MAP, &map, 2);
	if (r)
		return r;
	/* two bytes are always read, so that a range may cross a byte of the bitmap */
	at = (uint32_t)map + port / 8;
	if (at + 1 > tr->limit)
		return raise_gp0(c);
	r = cpu_read_system(c, tr->base + at, &bits_, 2);
	if (r)
		return r;
	if (bits_ >> (port & 7) & ((1u << size) - 1))
		return raise_gp0(c);
	return CPU_OK;
}

static uint16_t port_of(const struct cpu *c, const struct insn *i)
{
	return (uint16_t)(i->imm_len ? (uint8_t)i->imm : c->s.gpr[RDX]);
}

/* A device may have posted an interrupt or asked for a stop: look before going on. */
int io_in(struct cpu *c, const struct insn *i)
{
	uint16_t port = port_of(c, i);
	unsigned size = MIN(i->opsize, 4);
	int r = io_permitted(c, port, size);

	if (r)
		return r;
	reg_set(c, RAX, false, size, ports_in(c->machine->ports, port, size));
	watch_port(c, port, size);
	return CPU_BOUNDARY;
}

int io_out(struct cpu *c, const struct insn *i)
{
	uint16_t port = port_of(c, i);
	unsigned size = MIN(i->opsize, 4);
	int r = io_permitted(c, port, size);

	if (r)
		return r;
	ports_out(c->machine->ports, port, (uint32_t)c->s.gpr[RAX], size);
	watch_port(c, port, size);
	return CPU_BOUNDARY;
}
