/* SPDX-License-Identifier: Apache-2.0 */
/* Data breakpoints (DR0-3) and a debugger's watchpoints. Pages with one have no TLB entries, so every access is seen here. */
#ifndef X86_WATCH_H
#define X86_WATCH_H

#include "x86/cpu.h"

/* An access has been made: note what it has hit, for the end of the instruction. */
void watch_check_slow(struct cpu *c, gva_t at, unsigned size, enum tlb_access access);
static inline void watch_check(struct cpu *c, gva_t at, unsigned size, enum tlb_access access)
{
	if (unlikely((c->s.dr[7] & 0xff) || c->debug.nwatches))
		watch_check_slow(c, at, size, access);
}

/* A port has been accessed: I/O breakpoints exist with CR4.DE. */
void watch_port_slow(struct cpu *c, uint16_t port, unsigned size);
static inline void watch_port(struct cpu *c, uint16_t port, unsigned size)
{
	if (unlikely(c->s.dr[7] & 0xff))
		watch_port_slow(c, port, size);
}

#endif
