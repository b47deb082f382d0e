/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions and interrupts: stack frames of every mode, gates that refuse, faults in faults, attention. */
#include <string.h>
#include "guest.h"

#define HANDLER 0xd000u

static int raise(struct guest *g, uint8_t vector, bool has_error, uint32_t error)
{
	g->c->fault = (struct cpu_fault){ .vector = vector, .has_error = has_error, .error = error, .cr2 = 0x1234 };
	return event_deliver_fault(g->c);
}

static int soft(struct guest *g, uint8_t vector, unsigned len)
{
	g->c->s.rip += len;
	g->c->fault = (struct cpu_fault){ .vector = vector, .soft = true, .len = (uint8_t)len };
	return event_deliver_fault(g->c);
}

static void real_mode(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_real(g);
	put16(g, 13 * 4, 0x100);
	put16(g, 13 * 4 + 2, 0x200);
	s->rflags = 2 | FLAG_IF | FLAG_TF | FLAG_CF | FLAG_AC;
	assert_int_equal(raise(g, 13, true, 0x55), CPU_BOUNDARY);
	assert_int_equal(s->rip, 0x100);
	assert_int_equal(s->seg[SEG_CS].base, 0x2000);
	assert_int_equal(s->gpr[RSP], STACK0 - 6); /* no error code */
	assert_int_equal(get(g, STACK0 - 2, 2), (2 | FLAG_IF | FLAG_TF | FLAG_CF) & 0xffff);
	assert_int_equal(get(g, STACK0 - 4, 2), CODE >> 4);
	assert_int_equal(get(g, STACK0 - 6, 2), 0x10);
	assert_int_equal(s->rflags, 2 | FLAG_CF);
	assert_int_equal(seg_iret(g->c, 2), CPU_OK);
	assert_int_equal(s->rip, 0x10);
	assert_int_equal(s->gpr[RSP], STACK0);
	assert_int_equal(s->rflags, 2 | FLAG_IF | FLAG_TF | FLAG_CF);
	/* a vector beyond the table: #GP beyond it too: #DF, all too far: shutdown */
	s->idtr.limit = 3;
	assert_int_equal(soft(g, 0x80, 2), CPU_STOP);
	assert_int_equal(g->c->stop, STOP_SHUTDOWN);
}

static void protected_same_level(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	set_idt(g, 14, gate(S_CODE0, HANDLER, 14, 0, 0));
	set_idt(g, 32, gate(S_CODE0, HANDLER + 16, 15, 0, 0));
	set_idt(g, 33, gate(S_CODE0, HANDLER + 32, 6, 0, 0));
	s->rflags |= FLAG_IF | FLAG_NT | FLAG_TF;
	assert_int_equal(raise(g, VEC_PF, true, 2), CPU_BOUNDARY);
	assert_int_equal(s->rip, HANDLER);
	assert_int_equal(s->cr2, 0x1234);
	assert_int_equal(s->gpr[RSP], STACK0 - 16);
	assert_int_equal(get(g, STACK0 - 16, 4), 2);
	assert_int_equal(get(g, STACK0 - 12, 4), CODE);
	assert_int_equal(get(g, STACK0 - 8, 4), S_CODE0);
	assert_int_equal(get(g, STACK0 - 4, 4), 2 | FLAG_IF | FLAG_NT | FLAG_TF | FLAG_RF);
	assert_int_equal(s->rflags, 2);
	s->gpr[RSP] = STACK0;
	s->rflags |= FLAG_IF;
	assert_int_equal(event_deliver_interrupt(g->c, 32), CPU_BOUNDARY); /* a trap gate leaves IF */
	assert_int_equal(s->rip, HANDLER + 16);
	assert_int_equal(s->rflags, 2 | FLAG_IF);
	assert_int_equal(get(g, STACK0 - 4, 4), 2 | FLAG_IF); /* no RF: not a fault */
	s->gpr[RSP] = STACK0;
	assert_int_equal(event_deliver_interrupt(g->c, 33), CPU_BOUNDARY);
	assert_int_equal(s->gpr[RSP], STACK0 - 6); /* a 16-bit gate */
	assert_int_equal(s->rip, HANDLER + 32);
}

static void protected_inner_level(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	set_idt(g, 0x80, gate(S_CODE0, HANDLER, 15, 3, 0));
	go_cpl(g, 3);
	s->rflags |= FLAG_IF;
	assert_int_equal(soft(g, 0x80, 2), CPU_BOUNDARY);
	assert_int_equal(s->cpl, 0);
	assert_int_equal(g->c->tlb.mode, TLB_SUPER_AC);
	assert_int_equal(s->seg[SEG_CS].selector, S_CODE0);
	assert_int_equal(s->seg[SEG_SS].selector, S_DATA0);
	assert_int_equal(s->gpr[RSP], STACK0 - 20);
	assert_int_equal(get(g, STACK0 - 4, 4), S_DATA3);
	assert_int_equal(get(g, STACK0 - 8, 4), STACK3);
	assert_int_equal(get(g, STACK0 - 16, 4), S_CODE3);
	assert_int_equal(get(g, STACK0 - 20, 4), CODE + 2);
	s->seg[SEG_DS] = (struct x86_segment){ 0, ~0u, S_DATA0, SEG_ATTR_P | 0x13 };
	assert_int_equal(seg_iret(g->c, 4), CPU_OK);
	assert_int_equal(s->cpl, 3);
	assert_int_equal(s->seg[SEG_DS].selector, 0); /* not for ring 3 */
	assert_int_equal(s->seg[SEG_ES].selector, S_DATA3);
	assert_int_equal(s->gpr[RSP], STACK3);
	assert_int_equal(s->rip, CODE + 2);
	assert_int_equal(s->rflags, 2 | FLAG_IF);
}

/* What becomes of an INT n whose gate is as given: #vector(error). */
static void refuses(struct guest *g, uint64_t gate_, uint8_t vector, uint32_t error)
{
	struct x86_state *s = &g->c->s, before;

	set_idt(g, 0x80, gate_);
	set_idt(g, vector, gate(S_CODE0, HANDLER, 14, 0, 0));
	before = *s;
	assert_int_equal(soft(g, 0x80, 2), CPU_BOUNDARY);
	assert_int_equal(s->rip, HANDLER);
	assert_int_equal(get(g, s->gpr[RSP], 4), error);
	assert_int_equal(get(g, s->gpr[RSP] + 4, 4), CODE); /* the INT itself */
	*s = before;
	tlb_select(g->c);
}

static void gates_refuse(void **state)
{
	struct guest *g = *state;

	enter_protected(g);
	set_descriptor(g, S_FREE, descriptor(0, 0xfffff, D_CODE, 0, FLAT32) & ~BIT(47));
	refuses(g, gate(S_CODE0, HANDLER, 15, 0, 0) & ~BIT(47), VEC_NP, 0x80 * 8 + 2);
	refuses(g, gate(S_CODE0, HANDLER, 12, 0, 0), VEC_GP, 0x80 * 8 + 2);
	refuses(g, gate(0, HANDLER, 15, 0, 0), VEC_GP, 0);
	refuses(g, gate(S_DATA0, HANDLER, 15, 0, 0), VEC_GP, S_DATA0);
	refuses(g, gate(S_CODE3, HANDLER, 15, 0, 0), VEC_GP, S_CODE3 & ~3);
	refuses(g, gate(S_FREE, HANDLER, 15, 0, 0), VEC_NP, S_FREE);
	refuses(g, gate(0x1000, HANDLER, 15, 0, 0), VEC_GP, 0x1000);
	go_cpl(g, 3);
	refuses(g, gate(S_CODE0, HANDLER, 15, 0, 0), VEC_GP, 0x80 * 8 + 2);
	put16(g, TSS + 8, 0);
	set_idt(g, 0x80, gate(S_CODE0, HANDLER, 15, 3, 0));
	assert_int_equal(soft(g, 0x80, 2), CPU_STOP); /* no stack for #TS, #DF either */
	assert_int_equal(g->c->stop, STOP_SHUTDOWN);
}

/* EXT is set for what the program did not ask for. */
static void external_bit(void **state)
{
	struct guest *g = *state;

	enter_protected(g);
	set_idt(g, VEC_NP, gate(S_CODE0, HANDLER, 14, 0, 0));
	set_idt(g, 0x30, gate(S_CODE0, HANDLER, 14, 0, 0) & ~BIT(47));
	assert_int_equal(event_deliver_interrupt(g->c, 0x30), CPU_BOUNDARY);
	assert_int_equal(get(g, g->c->s.gpr[RSP], 4), 0x30 * 8 + 3);
}

/* First fault, a not-present gate for it, which fault follows: vector delivered in the end. */
static void double_faults(void **state)
{
	static const struct {
		uint8_t first;
		bool page; /* the IDT entry lies on a page that is not there: #PF instead of #NP */
		uint8_t arrives;
	} t[] = {
		{ VEC_DE, false, VEC_DF }, { VEC_TS, false, VEC_DF }, { VEC_SS, false, VEC_DF }, { VEC_GP, false, VEC_DF },
		{ VEC_PF, false, VEC_DF }, { VEC_UD, false, VEC_NP }, { VEC_NM, false, VEC_NP }, { VEC_BR, false, VEC_NP },
		{ VEC_DB, false, VEC_NP }, { VEC_AC, false, VEC_NP }, { VEC_MF, false, VEC_NP }, { VEC_XM, false, VEC_NP },
	};
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
		struct x86_state before = *s;

		set_idt(g, VEC_NP, gate(S_CODE0, HANDLER + 11, 14, 0, 0));
		set_idt(g, VEC_DF, gate(S_CODE0, HANDLER + 8, 14, 0, 0));
		set_idt(g, t[i].first, gate(S_CODE0, HANDLER, 14, 0, 0) & ~BIT(47));
		assert_int_equal(raise(g, t[i].first, false, 0), CPU_BOUNDARY);
		assert_int_equal(s->rip, HANDLER + t[i].arrives);
		assert_int_equal(get(g, s->gpr[RSP], 4), t[i].arrives == VEC_DF ? 0 : t[i].first * 8 + 3u);
		*s = before;
	}
	set_idt(g, VEC_DF, 0);
	assert_int_equal(raise(g, VEC_GP, true, 0), CPU_STOP);
	assert_int_equal(g->c->stop, STOP_SHUTDOWN);
	assert_int_equal(s->activity, ACTIVITY_SHUTDOWN);
}

static void page_fault_in_page_fault(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_long(g);
	set_gate64(g, IDT + 16 * VEC_PF, S_CODE64, HANDLER, 14, 0, 0);
	set_gate64(g, IDT + 16 * VEC_DF, S_CODE64, HANDLER + 8, 14, 0, 1);
	s->gpr[RSP] = 0x40000000; /* not mapped: pushing faults */
	assert_int_equal(raise(g, VEC_PF, true, 0), CPU_BOUNDARY);
	assert_int_equal(s->rip, HANDLER + 8);
	assert_true(s->cr2 == 0x3ffffff8);
	assert_int_equal(s->gpr[RSP], STACK1 - 48); /* IST 1 */
	assert_int_equal(get(g, STACK1 - 48, 8), 0);
	assert_int_equal(get(g, STACK1 - 16, 8), 0x40000000);
}

static void long_mode(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_long(g);
	set_gate64(g, IDT + 16 * VEC_GP, S_CODE64, 0xffffffff81000000, 14, 0, 0);
	s->gpr[RSP] = STACK0 - 4; /* is aligned first */
	assert_int_equal(raise(g, VEC_GP, true, 0x18), CPU_BOUNDARY);
	assert_true(s->rip == 0xffffffff81000000);
	assert_int_equal(s->gpr[RSP], STACK0 - 16 - 48);
	assert_int_equal(get(g, STACK0 - 16 - 8, 8), S_DATA0);
	assert_int_equal(get(g, STACK0 - 16 - 16, 8), STACK0 - 4);
	assert_int_equal(get(g, STACK0 - 16 - 32, 8), S_CODE64);
	assert_int_equal(get(g, STACK0 - 16 - 48, 8), 0x18);
	s->gpr[RSP] += 8;
	assert_int_equal(seg_iret(g->c, 8), CPU_OK);
	assert_int_equal(s->gpr[RSP], STACK0 - 4);
	assert_int_equal(s->rip, CODE);
	go_cpl(g, 3);
	s->rflags |= FLAG_IF;
	assert_int_equal(raise(g, VEC_GP, true, 0), CPU_BOUNDARY);
	assert_int_equal(s->cpl, 0);
	assert_int_equal(s->seg[SEG_SS].selector, 0);
	assert_int_equal(s->gpr[RSP], STACK0 - 48);
	s->gpr[RSP] += 8;
	assert_int_equal(seg_iret(g->c, 8), CPU_OK);
	assert_int_equal(s->cpl, 3);
	assert_int_equal(s->seg[SEG_SS].selector, S_DATA3);
	assert_int_equal(s->gpr[RSP], STACK3);
	/* a gate to a 32-bit segment, and one that is not canonical */
	set_gate64(g, IDT + 16 * 0x21, S_CODE0, HANDLER, 14, 3, 0);
	set_gate64(g, IDT + 16 * VEC_GP, S_CODE64, HANDLER, 14, 0, 0);
	assert_int_equal(soft(g, 0x21, 2), CPU_BOUNDARY);
	assert_int_equal(s->rip, HANDLER);
	assert_int_equal(get(g, s->gpr[RSP], 8), S_CODE0);
}

static void v86(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_v86(g, 3);
	set_idt(g, VEC_GP, gate(S_CODE0, HANDLER, 14, 0, 0));
	seg_load(g->c, SEG_CS, 0);
	seg_load(g->c, SEG_DS, 0x111);
	seg_load(g->c, SEG_ES, 0x222);
	seg_load(g->c, SEG_FS, 0x333);
	seg_load(g->c, SEG_GS, 0x444);
	seg_load(g->c, SEG_SS, 0x100);
	s->gpr[RSP] = 0xfff0;
	assert_int_equal(raise(g, VEC_GP, true, 0), CPU_BOUNDARY);
	assert_int_equal(s->cpl, 0);
	assert_false(s->rflags & FLAG_VM);
	assert_int_equal(s->gpr[RSP], STACK0 - 40);
	assert_int_equal(get(g, STACK0 - 4, 4), 0x444);
	assert_int_equal(get(g, STACK0 - 8, 4), 0x333);
	assert_int_equal(get(g, STACK0 - 12, 4), 0x111);
	assert_int_equal(get(g, STACK0 - 16, 4), 0x222);
	assert_int_equal(get(g, STACK0 - 20, 4), 0x100);
	assert_int_equal(get(g, STACK0 - 24, 4), 0xfff0);
	assert_true(get(g, STACK0 - 28, 4) & FLAG_VM);
	assert_int_equal(s->seg[SEG_DS].selector, 0);
	assert_int_equal(s->seg[SEG_DS].attr, 0);
	s->gpr[RSP] += 4;
	assert_int_equal(seg_iret(g->c, 4), CPU_OK);
	assert_true(s->rflags & FLAG_VM);
	assert_int_equal(s->cpl, 3);
	assert_int_equal(s->seg[SEG_GS].base, 0x4440);
	assert_int_equal(s->seg[SEG_SS].selector, 0x100);
	assert_int_equal(s->gpr[RSP], 0xfff0);
}

static void v86_redirection(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_v86(g, 0);
	s->cr4 |= CR4_VME;
	s->rflags |= FLAG_IF | FLAG_VIF;
	put16(g, TSS + 102, 0x100);
	set_idt(g, VEC_GP, gate(S_CODE0, HANDLER, 14, 0, 0));
	put16(g, 0x21 * 4, 0x50);
	put16(g, 0x21 * 4 + 2, 0x60);
	assert_int_equal(soft(g, 0x21, 2), CPU_BOUNDARY); /* bit clear: its own table */
	assert_true(s->rflags & FLAG_VM);
	assert_int_equal(s->rip, 0x50);
	assert_int_equal(s->seg[SEG_CS].base, 0x600);
	assert_int_equal(get(g, 0xa000 - 2, 2) & 0x3200, 0x3200); /* IF as VIF was, IOPL 3 */
	assert_false(s->rflags & FLAG_VIF);
	assert_true(s->rflags & FLAG_IF);
	put8(g, TSS + 0x100 - 32 + 0x21 / 8, 1 << 1); /* bit set: #GP, as IOPL is below 3 */
	assert_int_equal(soft(g, 0x21, 2), CPU_BOUNDARY);
	assert_false(s->rflags & FLAG_VM);
	assert_int_equal(s->rip, HANDLER);
}

static void debug_exceptions(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	set_idt(g, VEC_DB, gate(S_CODE0, HANDLER, 14, 0, 0));
	s->dr[7] |= BIT(13);
	g->c->data_hits = 2;
	assert_int_equal(event_debug_trap(g->c, BIT(14)), CPU_BOUNDARY);
	assert_int_equal(s->dr[6] & 0xf00f, 0x4002);
	assert_int_equal(s->dr[7] & BIT(13), 0);
	assert_int_equal(get(g, STACK0 - 4, 4) & FLAG_RF, 0);
	assert_int_equal(g->c->data_hits, 0);
}

/* ---- attention */

static int pending_vector = -1;
static int irq_pending(void *ctx)
{
	return pending_vector;
}
static int irq_take(void *ctx)
{
	int v = pending_vector;

	pending_vector = -1;
	return v;
}

static void attention(void **state)
{
	static const struct cpu_bus bus = { .irq_pending = irq_pending, .irq_take = irq_take };
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	g->c->bus = &bus;
	set_idt(g, 0x40, gate(S_CODE0, HANDLER, 14, 0, 0));
	set_idt(g, VEC_NMI, gate(S_CODE0, HANDLER + 2, 14, 0, 0));
	pending_vector = 0x40;
	atomic_store(&g->c->attention, ATT_IRQ);
	assert_int_equal(event_attend(g->c), CPU_OK); /* IF clear */
	assert_true(event_interrupt_waiting(g->c));
	assert_int_equal(atomic_load(&g->c->attention), 0);
	s->rflags |= FLAG_IF;
	s->shadow = SHADOW_STI;
	assert_int_equal(event_attend(g->c), CPU_OK);
	s->shadow = 0;
	s->activity = ACTIVITY_HLT;
	assert_int_equal(event_attend(g->c), CPU_BOUNDARY);
	assert_int_equal(s->rip, HANDLER);
	assert_int_equal(s->activity, ACTIVITY_RUN);
	assert_int_equal(s->rflags & FLAG_IF, 0);
	/* NMI: once until IRET */
	atomic_store(&g->c->attention, ATT_NMI);
	assert_int_equal(event_attend(g->c), CPU_BOUNDARY);
	assert_int_equal(s->rip, HANDLER + 2);
	atomic_store(&g->c->attention, ATT_NMI);
	assert_int_equal(event_attend(g->c), CPU_OK);
	assert_int_equal(atomic_load(&g->c->attention), ATT_NMI);
	assert_int_equal(seg_iret(g->c, 4), CPU_OK);
	assert_int_equal(event_attend(g->c), CPU_BOUNDARY);
	/* halted with nothing to do; the caller comes first */
	s->activity = ACTIVITY_HLT;
	atomic_store(&g->c->attention, 0);
	assert_int_equal(event_attend(g->c), CPU_STOP);
	assert_int_equal(g->c->stop, STOP_HLT);
	atomic_store(&g->c->attention, ATT_CALLER);
	assert_int_equal(event_attend(g->c), CPU_STOP);
	assert_int_equal(g->c->stop, STOP_KICK);
}

static void startup(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_long(g);
	g->c->id = 1;
	s->lstar = 0x1234;
	s->mxcsr = 0x1fc0;
	g->c->sipi_vector = 0x9a;
	atomic_store(&g->c->attention, ATT_SIPI);
	assert_int_equal(event_attend(g->c), CPU_OK); /* not waiting for it */
	atomic_store(&g->c->attention, ATT_INIT);
	assert_int_equal(event_attend(g->c), CPU_BOUNDARY);
	assert_int_equal(s->activity, ACTIVITY_WAIT_SIPI);
	assert_int_equal(s->cr0 & ~(CR0_CD | CR0_NW), CR0_ET);
	assert_int_equal(s->efer, 0);
	assert_int_equal(s->lstar, 0x1234);
	assert_int_equal(s->mxcsr, 0x1fc0);
	assert_int_equal(event_attend(g->c), CPU_STOP);
	assert_int_equal(g->c->stop, STOP_HLT);
	atomic_store(&g->c->attention, ATT_SIPI);
	assert_int_equal(event_attend(g->c), CPU_BOUNDARY);
	assert_int_equal(s->seg[SEG_CS].base, 0x9a000);
	assert_int_equal(s->seg[SEG_CS].selector, 0x9a00);
	assert_int_equal(s->rip, 0);
	assert_int_equal(s->activity, ACTIVITY_RUN);
	assert_int_equal(event_attend(g->c), CPU_OK);
}

/* What event_fault_quick() and event_interrupt_quick() take on they do as the full form does; the rest they leave alone. */
static void quick(void **state)
{
	static const uint16_t selectors[] = { S_CODE64, S_CODE0, S_CODE64 | 3, S_CODE64_3, S_FREE, 0, 0x7f8 };
	static const uint8_t types[] = { 0xe, 0xf, 0xc, 0x5 };
	static const uint64_t offsets[] = { 0xffffffff81000010, CODE + 0x123, 0x800000000000 };
	static const uint64_t stacks[] = { STACK0, STACK1 - 0x123, 0x9010, 0x800000000010, 0x7fff00000000, 0xffffffffffffffff };
	struct guest *g = *state;
	struct x86_state *s = &g->c->s, before, after;
	static uint8_t memory[0xc000 - 0x7000], was[sizeof(memory)];
	uint8_t *ram;
	unsigned done = 0;

	enter_long(g);
	ram = mem_ram_base(g->mem);
	put64(g, GDT + S_CODE64, 0x00af9b000000ffff);
	put64(g, GDT + S_FREE, 0x00af9a000000ffff); /* not accessed */
	memcpy(was, ram + 0x7000, sizeof(was));
	before = *s;
	for (unsigned n = 0; n < 7 * 4 * 3 * 6 * 2 * 3 * 4; n++) {
		unsigned k = n, selector = k % 7, type = (k /= 7) % 4, offset = (k /= 4) % 3, stack = (k /= 3) % 6;
		unsigned user = (k /= 6) % 2, ist = (k /= 2) % 3, how = (k /= 3) % 4;
		struct cpu_fault f = { .vector = how == 1 ? VEC_UD : VEC_PF, .has_error = how != 1, .error = 7, .cr2 = 0x12345678 };
		bool took;

		for (unsigned round = 0; round < 2; round++) {
			*s = before;
			cpu_set_cpl(g->c, 0);
			memcpy(ram + 0x7000, was, sizeof(was));
			put64(g, GDT + S_FREE, 0x00af9a000000ffff);
			put64(g, TSS + 4, stacks[stack]);
			put64(g, TSS + 36 + 8, stacks[(stack + 1) % 6]);
			set_gate64(g, IDT + 16 * 14, selectors[selector], offsets[offset], types[type], 0, ist);
			set_gate64(g, IDT + 16 * 6, selectors[selector], offsets[offset], types[type], 0, ist);
			set_gate64(g, IDT + 16 * 0x31, selectors[selector], offsets[offset], types[type], 0, ist);
			put8(g, IDT + 16 * 14 + 5, get(g, IDT + 16 * 14 + 5, 1) & (n % 11 == 10 ? 0x7f : 0xff));
			s->idtr.limit = n % 13 == 12 ? 16 * 6 : 0xfff;
			if (user)
				go_cpl(g, 3);
			s->gpr[RSP] = stacks[stack];
			s->rip = 0x4321;
			cpu_set_rflags(g->c, (n & 1 ? 0x246 : 0x40a93) | (n % 17 == 16 ? FLAG_TF : n % 17 == 15 ? FLAG_NT : 0));
			after = round ? after : *s;
			g->c->fault = f;
			g->c->stop = STOP_NONE;
			if (!round) {
				took = how == 3 ? event_interrupt_quick(g->c, 0x31) : event_fault_quick(g->c);
				if (!took) {
					assert_memory_equal(s, &after, sizeof(after));
					assert_memory_equal(ram + 0x7000, was, sizeof(was));
					assert_memory_equal(&g->c->fault, &f, how == 3 ? 0 : sizeof(f));
					break;
				}
				after = *s;
				memcpy(memory, ram + 0x7000, sizeof(was));
				done++;
				continue;
			}
			assert_int_equal(how == 3 ? event_deliver_interrupt(g->c, 0x31) : event_deliver_fault(g->c), CPU_BOUNDARY);
			assert_memory_equal(s, &after, sizeof(after));
			assert_memory_equal(ram + 0x7000, memory, sizeof(was));
		}
	}
	assert_in_range(done, 200, 300);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)
	const struct CMUnitTest tests[] = {
		T(quick),
		T(real_mode),	 T(protected_same_level), T(protected_inner_level), T(gates_refuse),
		T(external_bit), T(double_faults),	  T(page_fault_in_page_fault), T(long_mode),
		T(v86),		 T(v86_redirection),	  T(debug_exceptions),	    T(attention),
		T(startup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
