/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random tables, random state, random transfers, from a fixed seed (or the one given as argument, with a count). Whatever
 * a guest does: nothing crashes, a fault leaves the CPU as it was, and the state stays one that a CPU can have.
 */
#include <stdio.h>
#include <string.h>
#include "guest.h"
#include "x86/state-desc.h"

static uint64_t seed = 20240607;
static unsigned rounds = 60000;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull >> 16;
}
static unsigned below(unsigned n)
{
	return (unsigned)(rnd() % n);
}
static bool one_in(unsigned n)
{
	return !below(n);
}

/* Addresses that lead somewhere, mostly. */
static uint64_t address(void)
{
	static const uint64_t odd[] = { 0, 0xffffffff, 0xfffff000, 0x100000000, 0x7ffffffffff8, 0x800000000000,
					0xffff800000000000, ~0ull - 7, 0x40000000 };

	return one_in(8) ? odd[below(ARRAY_LEN(odd))] : below(0x10000);
}

static uint16_t selector(void)
{
	return one_in(20) ? (uint16_t)rnd() : (uint16_t)(below(0x20) << 3 | below(4) | (one_in(8) ? 4 : 0));
}

static uint64_t random_descriptor(void)
{
	unsigned type = one_in(2) ? below(32) : (unsigned[]){ 0x1b, 0x13, 0x1f, 0x1a, 0x12, 9, 2, 12, 5, 14, 15, 11 }[below(12)];
	uint64_t d;

	if (!(type & 0x10) && (type == 12 || type == 4 || type == 5 || type == 14 || type == 15 || type == 6 || type == 7))
		d = gate(selector(), (uint32_t)address(), type, below(4), below(32));
	else
		d = descriptor(one_in(4) ? (uint32_t)address() : one_in(2) ? TSS : TSS2,
			       one_in(3) ? below(0x200) : 0xfffff, type, below(4), (uint32_t)(rnd() & 0xf) << 20);
	return one_in(16) ? d & ~BIT(47) : d;
}

static void random_tables(struct guest *g)
{
	for (unsigned i = 0; i < 32; i++) {
		if (one_in(3)) {
			put64(g, GDT + 8 * i, random_descriptor());
			put64(g, LDT + 8 * i, random_descriptor());
		}
		put64(g, IDT + 8 * below(512), one_in(2) ? random_descriptor() :
							   gate(one_in(2) ? S_CODE0 : selector(), CODE, 14, below(4), below(8)));
	}
	for (unsigned i = 0; i < 128; i += 2) {
		put16(g, TSS + i, one_in(2) ? selector() : (uint16_t)below(0x10000));
		put16(g, TSS2 + i, one_in(2) ? selector() : (uint16_t)below(0x10000));
	}
	for (unsigned i = 0; i < 64; i += 2)
		put16(g, STACK0 - 64 + i, one_in(2) ? selector() : (uint16_t)rnd());
	for (unsigned i = 0; i < 16; i++)
		put64(g, STACK3 + 8 * i, one_in(2) ? selector() : address());
}

static void random_state(struct guest *g)
{
	struct x86_state *s = &g->c->s;

	switch (below(8)) {
	case 0:
		x86_state_reset(s, true);
		enter_real(g);
		break;
	case 1:
		x86_state_reset(s, true);
		enter_v86(g, one_in(2) ? 3 : below(4));
		break;
	case 2:
	case 3:
	case 4:
		x86_state_reset(s, true);
		enter_protected(g);
		if (one_in(2))
			go_cpl(g, 3);
		break;
	default:
		x86_state_reset(s, true);
		enter_long(g);
		if (one_in(2))
			go_cpl(g, 3);
		break;
	}
	if (one_in(3)) {
		s->cr4 |= one_in(2) ? CR4_VME : 0;
		s->cr4 |= one_in(2) && s->efer & EFER_LMA ? CR4_SMAP | CR4_SMEP : 0;
	}
	s->star = rnd();
	s->sysenter_cs = one_in(3) ? 0 : selector();
	s->sysenter_eip = s->sysenter_esp = address();
	s->sfmask = rnd() & 0xffffffff;
	if (one_in(4))
		s->gpr[RSP] = address();
	if (one_in(8))
		s->seg[SEG_TR].limit = below(0x80);
	if (one_in(8))
		s->idtr.limit = (uint16_t)below(0x1000);
	if (one_in(8))
		s->gdtr.limit = (uint16_t)below(0x100);
	cpu_set_rflags(g->c, (s->rflags & FLAG_VM) | (rnd() & 0x3d7fd5) | (s->rflags & FLAG_IOPL));
	tlb_flush_all(g->c);
	tlb_select(g->c);
}

static bool protected_mode(const struct cpu *c)
{
	return c->s.cr0 & CR0_PE && !(c->s.rflags & FLAG_VM);
}

static int transfer(struct guest *g, unsigned what)
{
	struct cpu *c = g->c;
	unsigned size = x86_64bit(&c->s) ? 8 : one_in(2) ? 4 : 2;
	uint64_t v;
	uint32_t u;
	bool ok;

	switch (what) {
	case 0:
		return seg_load(c, (enum x86_seg[]){ SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS }[below(5)], selector());
	case 1:
		return seg_far_jump(c, selector(), address(), size);
	case 2:
		return seg_far_call(c, selector(), address(), size);
	case 3:
		return seg_far_return(c, size, below(64));
	case 4:
		return seg_iret(c, size);
	case 5:
		return seg_syscall(c);
	case 6:
		return seg_sysret(c, size);
	case 7:
		return seg_sysenter(c);
	case 8:
		return seg_sysexit(c, size);
	case 9:
		return protected_mode(c) ? seg_load_tr(c, selector()) : CPU_OK;
	case 10:
		return protected_mode(c) ? seg_load_ldtr(c, selector()) : CPU_OK;
	case 11:
		return seg_lar(c, selector(), &ok, &u);
	case 12:
		return seg_lsl(c, selector(), &ok, &u);
	case 13:
		return seg_verify(c, selector(), one_in(2), &ok);
	case 14:
		return c->s.cpl ? CPU_OK : cr_write(c, (unsigned[]){ 0, 2, 3, 4 }[below(4)],
						    one_in(2) ? rnd() : c->s.cr0 ^ BIT(below(64)));
	case 15:
		return msr_write(c, (uint32_t[]){ 0xc0000080, 0xc0000100, 0x10, 0x4b564d01, 0x4b564d00, 0x2ff }[below(6)],
				 one_in(2) ? rnd() : address());
	case 16:
		return dr_write(c, below(8), one_in(2) ? rnd() : rnd() & 0xffffffff);
	case 17:
		return xcr0_write(c, below(16));
	case 18:
		return msr_read(c, (uint32_t)rnd(), &v);
	case 19:
		return event_deliver_interrupt(c, (uint8_t)rnd());
	case 20:
		return event_deliver_nmi(c);
	default:
		c->fault = (struct cpu_fault){ .vector = (uint8_t)(one_in(4) ? rnd() : below(20)),
					       .has_error = one_in(2),
					       .error = (uint32_t)rnd() & 0xffff,
					       .cr2 = rnd() };
		if (one_in(3)) {
			c->fault.soft = true;
			c->fault.has_error = false;
			c->fault.len = 2;
			c->s.rip += 2;
		}
		return event_deliver_fault(c);
	}
}

static void check(struct guest *g, unsigned round, unsigned what, int r, const struct x86_state *before)
{
	struct tlb_table *data = g->c->tlb.data;
	struct tlb_fetch *fetch = g->c->tlb.fetch;
	struct err e = { 0 };

	if (r == CPU_FAULT && memcmp(before, &g->c->s, sizeof(*before)))
		fail_msg("round %u: transfer %u faulted and changed the CPU", round, what);
	if (r == CPU_FAULT && g->c->fault.vector > 31)
		fail_msg("round %u: transfer %u raised vector %u", round, what, g->c->fault.vector);
	if (x86_state_desc.check(&g->c->s, &e))
		fail_msg("round %u: transfer %u: %s", round, what, e.text);
	tlb_select(g->c);
	if (data != g->c->tlb.data || fetch != g->c->tlb.fetch)
		fail_msg("round %u: transfer %u left the TLB in another mode", round, what);
}

static void anything(void **state)
{
	struct guest *g = *state;
	static struct x86_state before;

	for (unsigned i = 0; i < rounds; i++) {
		unsigned steps = 1 + below(4);

		if (i % 4 == 0)
			random_tables(g);
		random_state(g);
		for (unsigned k = 0; k < steps && g->c->s.activity == ACTIVITY_RUN; k++) {
			unsigned what = below(26);
			int r;

			before = g->c->s;
			r = transfer(g, what);
			check(g, i, what, r, &before);
		}
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(anything, guest_setup, guest_teardown) };

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0) | 1;
	if (argc > 2)
		rounds = (unsigned)strtoul(argv[2], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
