/* SPDX-License-Identifier: Apache-2.0 */
/* Control, debug and extended control registers: what may be written when, and what follows from it. */
#include <stdio.h>
#include "x86/cpu-trace.h"
#include "x86/cpuid.h"
#include "x86/msr.h"
#include "x86/private.h"

#define CR0_WRITABLE (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR3_PCID 0xfffull

static int gp(struct cpu *c)
{
	return cpu_raise_error(c, VEC_GP, 0);
}

static uint64_t phys_mask(const struct cpu *c)
{
	return (1ull << c->machine->cpuid->phys_bits) - 1;
}

/* PAE paging loads its four top entries with CR3; reserved bits in a present one are #GP there. */
static bool pae_roots_valid(struct cpu *c, uint64_t cr3)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t v = mem_read(c->mem, (cr3 & 0xffffffe0) + 8 * i, 8);

		if ((v & 1) && (v & (~phys_mask(c) | 0x1e6)))
			return false;
	}
	return true;
}

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

/* Long mode is entered and left by CR0.PG when EFER.LME is set. */
static int long_mode_check(struct cpu *c, uint64_t value)
{
	if (!(c->s.cr4 & CR4_PAE) || (c->s.seg[SEG_CS].attr & SEG_ATTR_L))
		return gp(c);
	if ((c->s.seg[SEG_TR].attr & SEG_ATTR_TYPE) <= 3) /* a 16-bit TSS */
		return gp(c);
	return CPU_OK;
}

static int cr0_write(struct cpu *c, uint64_t value)
{
	uint64_t old = c->s.cr0, changed;

	if (value >> 32 || ((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
		return gp(c);
	value = (value & CR0_WRITABLE) | CR0_ET;
	changed = old ^ value;
	if ((changed & CR0_PG) && (value & CR0_PG)) {
		if ((c->s.efer & EFER_LME) && long_mode_check(c, value))
			return CPU_FAULT;
		if (!(c->s.efer & EFER_LME) && pae_paging(value, c->s.cr4, 0) && !pae_roots_valid(c, c->s.cr3))
			return gp(c);
	}
	if ((changed & CR0_PG) && !(value & CR0_PG) && (x86_64bit(&c->s) || (c->s.cr4 & CR4_PCIDE)))
		return gp(c);
	c->s.cr0 = value;
	if (changed & CR0_PG) {
		if (!(value & CR0_PG))
			c->s.efer &= ~EFER_LMA;
		else if (c->s.efer & EFER_LME)
			c->s.efer |= EFER_LMA;
	}
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		tlb_flush_all(c);
	if ((changed & CR0_PE) && !(value & CR0_PE))
		cpu_set_cpl(c, 0);
	tlb_select(c);
	return CPU_BOUNDARY;
}

static int cr3_write(struct cpu *c, uint64_t value)
{
	bool pcid = c->s.cr4 & CR4_PCIDE, noflush = pcid && (value & BIT(63));

	if (pcid)
		value &= ~BIT(63);
	if (x86_long_mode(&c->s) ? value & ~phys_mask(c) : 0)
		return gp(c);
	if (!x86_long_mode(&c->s))
		value &= 0xffffffff;
	if (pae_paging(c->s.cr0, c->s.cr4, c->s.efer) && !pae_roots_valid(c, value))
		return gp(c);
	c->s.cr3 = value;
	tlb_switch(c, value, noflush);
	return CPU_BOUNDARY;
}

void cr3_load(struct cpu *c, uint64_t value)
{
	c->s.cr3 = value;
	tlb_switch(c, value, false);
}

static uint64_t cr4_offered(const struct cpuid_model *m)
{
	uint64_t v = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
		     CR4_OSXMMEXCPT;

	v |= m->has_umip ? CR4_UMIP : 0;
	v |= m->has_fsgsbase ? CR4_FSGSBASE : 0;
	v |= m->has_pcid ? CR4_PCIDE : 0;
	v |= m->has_xsave ? CR4_OSXSAVE : 0;
	v |= m->has_smep ? CR4_SMEP : 0;
	v |= m->has_smap ? CR4_SMAP : 0;
	return v;
}

static int cr4_write(struct cpu *c, uint64_t value)
{
	uint64_t changed = value ^ c->s.cr4;

	if (value & ~cr4_offered(c->machine->cpuid))
		return gp(c);
	if (x86_long_mode(&c->s) && !(value & CR4_PAE))
		return gp(c);
	if ((changed & value & CR4_PCIDE) && (!x86_long_mode(&c->s) || (c->s.cr3 & CR3_PCID)))
		return gp(c);
	if ((changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) && pae_paging(c->s.cr0, value, c->s.efer) &&
	    !pae_roots_valid(c, c->s.cr3))
		return gp(c);
	c->s.cr4 = value;
	if (changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP)) {
		tlb_flush_all(c);
		if (changed & CR4_PCIDE)
			tlb_switch(c, c->s.cr3, false);
	}
	tlb_select(c);
	return CPU_BOUNDARY;
}

static void trace_number(struct cpu *c, const char *kind, unsigned number, uint64_t value)
{
	char name[8];

	snprintf(name, sizeof(name), "%s%u", kind, number & 15);
	trace_control(c, name, value);
}

int cr_write(struct cpu *c, unsigned number, uint64_t value)
{
	if (cpu_traces(c, TRACE_cr))
		trace_number(c, "cr", number, value);
	switch (number) {
	case 0:
		return cr0_write(c, value);
	case 2:
		c->s.cr2 = value;
		return CPU_OK;
	case 3:
		return cr3_write(c, value);
	case 4:
		return cr4_write(c, value);
	case 8:
		if (value & ~0xfull)
			return gp(c);
		c->bus->cr8_write(c->ctx, value);
		return CPU_BOUNDARY;
	default:
		return cpu_raise(c, VEC_UD);
	}
}

int cr_read(struct cpu *c, unsigned number, uint64_t *value)
{
	switch (number) {
	case 0:
		*value = c->s.cr0;
		return CPU_OK;
	case 2:
		*value = c->s.cr2;
		return CPU_OK;
	case 3:
		*value = c->s.cr3;
		return CPU_OK;
	case 4:
		*value = c->s.cr4;
		return CPU_OK;
	case 8:
		*value = c->bus->cr8_read(c->ctx);
		return CPU_OK;
	default:
		return cpu_raise(c, VEC_UD);
	}
}

#define DR6_FIXED 0xffff0ff0ull
#define DR6_WRITABLE 0xe00full
#define DR7_FIXED 0x400ull
#define DR7_GD BIT(13)
#define DR6_BD BIT(13)

/* DR4 and DR5 are names of DR6 and DR7 unless CR4.DE takes them away; DR7.GD guards them all. */
static int dr_check(struct cpu *c, unsigned *number)
{
	if (*number == 4 || *number == 5) {
		if (c->s.cr4 & CR4_DE)
			return cpu_raise(c, VEC_UD);
		*number += 2;
	}
	if (c->s.dr[7] & DR7_GD) {
		cpu_raise(c, VEC_DB);
		c->fault.dr6 = DR6_BD;
		return CPU_FAULT;
	}
	return CPU_OK;
}

int dr_write(struct cpu *c, unsigned number, uint64_t value)
{
	if (cpu_traces(c, TRACE_cr))
		trace_number(c, "dr", number, value);
	if (dr_check(c, &number))
		return CPU_FAULT;
	if (number >= 6 && value >> 32)
		return gp(c);
	if (number == 6)
		value = (value & DR6_WRITABLE) | DR6_FIXED;
	if (number == 7)
		value = (value & 0xffff23ff) | DR7_FIXED;
	if (number != 6 && ((c->s.dr[7] | (number == 7 ? value : 0)) & 0xff))
		tlb_flush_all(c); /* pages with a breakpoint have no entries */
	c->s.dr[number] = value;
	return CPU_BOUNDARY;
}

int dr_read(struct cpu *c, unsigned number, uint64_t *value)
{
	if (dr_check(c, &number))
		return CPU_FAULT;
	*value = c->s.dr[number];
	return CPU_OK;
}

int xcr0_write(struct cpu *c, uint64_t value)
{
	if (cpu_traces(c, TRACE_cr))
		trace_control(c, "xcr0", value);
	if (!(value & 1) || (value & ~c->machine->cpuid->xcr0_allowed) || ((value & 4) && !(value & 2)) ||
	    (value & 0xe0 && (value & 0xe4) != 0xe4)) /* AVX-512's three at once, with AVX */
		return gp(c);
	c->s.xcr0 = value;
	return CPU_BOUNDARY;
}
