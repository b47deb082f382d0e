/* SPDX-License-Identifier: Apache-2.0 */
/* Task switches: by JMP, CALL, IRET, interrupts through task gates; 16-bit TSSs; faults before and after the switch. */
#include <string.h>
#include "guest.h"

#define S_OTHER 0x60u
#define S_GATE 0x68u
#define S_TSS16 0x70u
#define ENTRY 0xe000u

static void fill_tss(struct guest *g)
{
	for (unsigned i = 0; i < 104; i += 4)
		put32(g, TSS2 + i, 0);
	put32(g, TSS2 + 4, STACK1);
	put16(g, TSS2 + 8, S_DATA0);
	put32(g, TSS2 + 32, ENTRY);
	put32(g, TSS2 + 36, 2 | FLAG_CF);
	for (unsigned i = 0; i < 8; i++)
		put32(g, TSS2 + 40 + 4 * i, 0x1000 + i);
	put32(g, TSS2 + 56, STACK1);
	put16(g, TSS2 + 72, S_DATA0);
	put16(g, TSS2 + 76, S_CODE0);
	put16(g, TSS2 + 80, S_DATA0);
	put16(g, TSS2 + 84, S_DATA3);
	set_descriptor(g, S_OTHER, descriptor(TSS2, 0x67, 9, 0, 0));
	set_descriptor(g, S_GATE, gate(S_OTHER, 0, 5, 3, 0));
}

static struct guest *tasks(void **state)
{
	struct guest *g = *state;

	enter_protected(g);
	fill_tss(g);
	g->c->s.gpr[RAX] = 0xaaaa;
	return g;
}

static void jump(void **state)
{
	struct guest *g = tasks(state);
	struct x86_state *s = &g->c->s;

	s->rflags |= FLAG_NT | FLAG_IF;
	assert_int_not_equal(seg_far_jump(g->c, S_OTHER, 0, 4), CPU_FAULT);
	assert_int_equal(s->rip, ENTRY);
	assert_int_equal(s->gpr[RAX], 0x1000);
	assert_int_equal(s->gpr[RDI], 0x1007);
	assert_int_equal(s->gpr[RSP], STACK1);
	assert_int_equal(s->rflags, 2 | FLAG_CF);
	assert_int_equal(s->seg[SEG_DS].selector, S_DATA3);
	assert_int_equal(s->seg[SEG_FS].selector, 0);
	assert_int_equal(s->seg[SEG_TR].selector, S_OTHER);
	assert_int_equal(s->seg[SEG_TR].base, TSS2);
	assert_int_equal(s->seg[SEG_LDTR].selector, 0);
	assert_true(s->cr0 & CR0_TS);
	assert_int_equal(get(g, GDT + S_TSS + 5, 1), 0x89);
	assert_int_equal(get(g, GDT + S_OTHER + 5, 1), 0x8b);
	assert_int_equal(get(g, TSS + 32, 4), CODE);
	assert_int_equal(get(g, TSS + 36, 4), 2 | FLAG_NT | FLAG_IF);
	assert_int_equal(get(g, TSS + 40, 4), 0xaaaa);
	assert_int_equal(get(g, TSS + 56, 4), STACK0);
	assert_int_equal(get(g, TSS + 76, 2), S_CODE0);
	assert_fault(seg_far_jump(g->c, S_OTHER, 0, 4), g, VEC_GP, S_OTHER); /* busy */
	assert_int_not_equal(seg_far_jump(g->c, S_TSS, 0, 4), CPU_FAULT); /* and back */
	assert_int_equal(s->rip, CODE);
	assert_int_equal(s->gpr[RAX], 0xaaaa);
}

static void call_and_return(void **state)
{
	struct guest *g = tasks(state);
	struct x86_state *s = &g->c->s;

	assert_int_not_equal(seg_far_call(g->c, S_GATE, 0, 4), CPU_FAULT);
	assert_int_equal(s->rip, ENTRY);
	assert_true(s->rflags & FLAG_NT);
	assert_int_equal(get(g, TSS2, 2), S_TSS);
	assert_int_equal(get(g, GDT + S_TSS + 5, 1), 0x8b); /* both are busy */
	assert_int_equal(get(g, GDT + S_OTHER + 5, 1), 0x8b);
	assert_int_not_equal(seg_iret(g->c, 4), CPU_FAULT);
	assert_int_equal(s->rip, CODE);
	assert_int_equal(s->gpr[RSP], STACK0);
	assert_int_equal(get(g, GDT + S_OTHER + 5, 1), 0x89);
	assert_int_equal(get(g, TSS2 + 36, 4) & FLAG_NT, 0);
	assert_int_equal(s->seg[SEG_TR].selector, S_TSS);
	/* a link to a task that is not busy */
	cpu_set_rflags(g->c, 2 | FLAG_NT);
	put16(g, TSS, S_OTHER);
	assert_fault(seg_iret(g->c, 4), g, VEC_TS, S_OTHER);
}

static void interrupt(void **state)
{
	struct guest *g = tasks(state);
	struct x86_state *s = &g->c->s;

	set_idt(g, VEC_GP, gate(S_OTHER, 0, 5, 0, 0));
	go_cpl(g, 3);
	cpu_raise_error(g->c, VEC_GP, 0x1234);
	assert_int_equal(event_deliver_fault(g->c), CPU_BOUNDARY);
	assert_int_equal(s->rip, ENTRY);
	assert_int_equal(s->cpl, 0);
	assert_int_equal(s->gpr[RSP], STACK1 - 4);
	assert_int_equal(get(g, STACK1 - 4, 4), 0x1234);
	assert_int_equal(get(g, TSS + 76, 2), S_CODE3);
}

static void before_the_switch(void **state)
{
	struct guest *g = tasks(state);
	struct x86_state before = g->c->s;

	assert_fault(seg_far_jump(g->c, S_OTHER | 3, 0, 4), g, VEC_GP, S_OTHER); /* RPL above the DPL */
	set_descriptor(g, S_OTHER, descriptor(TSS2, 0x66, 9, 0, 0));
	assert_fault(seg_far_jump(g->c, S_OTHER, 0, 4), g, VEC_TS, S_OTHER);
	set_descriptor(g, S_OTHER, descriptor(TSS2, 0x67, 9, 0, 0) & ~BIT(47));
	assert_fault(seg_far_jump(g->c, S_OTHER, 0, 4), g, VEC_NP, S_OTHER);
	set_descriptor(g, S_GATE, gate(S_OTHER, 0, 5, 3, 0) & ~BIT(47));
	assert_fault(seg_far_jump(g->c, S_GATE, 0, 4), g, VEC_NP, S_GATE);
	set_descriptor(g, S_GATE, gate(0x1000, 0, 5, 3, 0));
	assert_fault(seg_far_jump(g->c, S_GATE, 0, 4), g, VEC_GP, 0x1000);
	set_descriptor(g, S_GATE, gate(0xc, 0, 5, 3, 0)); /* a TSS in the LDT */
	assert_fault(seg_far_jump(g->c, S_GATE, 0, 4), g, VEC_GP, 0xc);
	assert_memory_equal(&before, &g->c->s, sizeof(before));
}

/* What fails in the new task is the new task's exception: it finds the handler with the new stack. */
static void after_the_switch(void **state)
{
	struct guest *g = tasks(state);
	struct x86_state *s = &g->c->s;

	set_idt(g, VEC_TS, gate(S_CODE0, 0xf000, 14, 0, 0));
	put16(g, TSS2 + 84, 0x1000); /* DS */
	assert_int_equal(seg_far_jump(g->c, S_OTHER, 0, 4), CPU_BOUNDARY);
	assert_int_equal(s->rip, 0xf000);
	assert_int_equal(s->seg[SEG_TR].selector, S_OTHER);
	assert_int_equal(s->gpr[RSP], STACK1 - 16);
	assert_int_equal(get(g, STACK1 - 16, 4), 0x1000);
	assert_int_equal(get(g, STACK1 - 12, 4), ENTRY);
}

static void narrow(void **state)
{
	struct guest *g = tasks(state);
	struct x86_state *s = &g->c->s;

	for (unsigned i = 0; i < 44; i += 2)
		put16(g, TSS2 + i, 0);
	put16(g, TSS2 + 14, ENTRY);
	put16(g, TSS2 + 16, 2);
	for (unsigned i = 0; i < 8; i++)
		put16(g, TSS2 + 18 + 2 * i, (uint16_t)(0x100 + i));
	put16(g, TSS2 + 34, S_DATA0);
	put16(g, TSS2 + 36, S_CODE0);
	put16(g, TSS2 + 38, S_DATA0);
	put16(g, TSS2 + 40, S_DATA0);
	set_descriptor(g, S_TSS16, descriptor(TSS2, 0x2b, 1, 0, 0));
	assert_int_not_equal(seg_far_call(g->c, S_TSS16, 0, 4), CPU_FAULT);
	assert_int_equal(s->rip, ENTRY);
	assert_int_equal(s->gpr[RAX] & 0xffff, 0x100);
	assert_int_equal(s->gpr[RDI] & 0xffff, 0x107);
	assert_int_equal(get(g, GDT + S_TSS16 + 5, 1), 0x83);
	s->gpr[RBX] = 0x7777;
	assert_int_not_equal(seg_iret(g->c, 2), CPU_FAULT);
	assert_int_equal(s->rip, CODE);
	assert_int_equal(get(g, TSS2 + 24, 2), 0x7777);
	assert_int_equal(get(g, GDT + S_TSS16 + 5, 1), 0x81);
}

static void with_paging(void **state)
{
	struct guest *g = tasks(state);
	struct x86_state *s = &g->c->s;

	for (unsigned n = 0; n < 2; n++)
		for (unsigned i = 0; i < 4; i++)
			put32(g, TABLES + 0x1000 * n + 4 * i, i << 22 | 0x83);
	s->cr3 = TABLES;
	s->cr4 = CR4_PSE;
	s->cr0 |= CR0_PG;
	tlb_flush_all(g->c);
	put32(g, TSS2 + 28, TABLES + 0x1000);
	assert_int_not_equal(seg_far_jump(g->c, S_OTHER, 0, 4), CPU_FAULT);
	assert_int_equal(s->cr3, TABLES + 0x1000);
	put32(g, TSS2 + 32, ENTRY);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)
	const struct CMUnitTest tests[] = { T(jump),		 T(call_and_return), T(interrupt), T(before_the_switch),
					    T(after_the_switch), T(narrow),	     T(with_paging) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
