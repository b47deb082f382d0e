/* SPDX-License-Identifier: Apache-2.0 */
/* Far JMP, CALL, RET, call gates, IRET, SYSCALL and its kin. */
#include <string.h>
#include "guest.h"

#define SEL(n) ((uint16_t)(S_FREE + 8 * (n)))
#define TARGET 0xd000u

static void real_mode(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_real(g);
	assert_int_equal(seg_far_call(g->c, 0x1000, 0x12345, 2), CPU_OK);
	assert_int_equal(s->rip, 0x2345);
	assert_int_equal(s->seg[SEG_CS].base, 0x10000);
	assert_int_equal(s->gpr[RSP], STACK0 - 4);
	assert_int_equal(get(g, STACK0 - 2, 2), CODE >> 4);
	assert_int_equal(get(g, STACK0 - 4, 2), 0x10);
	assert_int_equal(seg_far_return(g->c, 2, 6), CPU_OK);
	assert_int_equal(s->rip, 0x10);
	assert_int_equal(s->gpr[RSP], STACK0 + 6);
	assert_fault(seg_far_jump(g->c, 0x1000, 0x12345, 4), g, VEC_GP, 0); /* beyond the limit */
	s->gpr[RSP] = 1;
	assert_fault(seg_far_call(g->c, 0x1000, 0, 2), g, VEC_SS, 0);
	assert_int_equal(s->gpr[RSP], 1);
	s->gpr[RSP] = 0x12340000;
	assert_int_equal(seg_far_call(g->c, 0x1000, 0, 2), CPU_OK); /* SP wraps within 64 KiB */
	assert_int_equal(s->gpr[RSP], 0x1234fffc);
}

struct jump_case {
	uint64_t d;
	unsigned rpl;
	int vector; /* -1: goes */
};

static void jumps_check(struct guest *g, const struct jump_case *t, unsigned n)
{
	struct x86_state before = g->c->s;

	for (unsigned i = 0; i < n; i++) {
		uint16_t selector = SEL(i) | (uint16_t)t[i].rpl;

		set_descriptor(g, SEL(i), t[i].d);
		for (unsigned call = 0; call < 2; call++) {
			int r = call ? seg_far_call(g->c, selector, TARGET, 4) : seg_far_jump(g->c, selector, TARGET, 4);

			if (t[i].vector < 0) {
				assert_int_equal(r, CPU_OK);
				assert_int_equal(g->c->s.rip, TARGET);
				assert_int_equal(g->c->s.seg[SEG_CS].selector, SEL(i) | before.cpl);
				assert_int_equal(g->c->s.cpl, before.cpl);
			} else {
				assert_fault(r, g, t[i].vector, SEL(i));
				assert_memory_equal(&g->c->s, &before, sizeof(before));
			}
			g->c->s = before;
		}
	}
}

static void direct_cpl0(void **state)
{
	const struct jump_case t[] = {
		{ descriptor(0, 0xfffff, D_CODE, 0, FLAT32), 0, -1 },
		{ descriptor(0, 0xfffff, D_CODE, 0, FLAT32), 1, VEC_GP },
		{ descriptor(0, 0xfffff, D_CODE, 3, FLAT32), 0, VEC_GP },
		{ descriptor(0, 0xfffff, D_CONFORM, 0, FLAT32), 3, -1 },
		{ descriptor(0, 0xfffff, D_CONFORM, 3, FLAT32), 0, VEC_GP },
		{ descriptor(0, 0xfffff, D_DATA, 0, FLAT32), 0, VEC_GP },
		{ descriptor(0, 0xfffff, D_CODE, 0, FLAT32) & ~BIT(47), 0, VEC_NP },
		{ descriptor(0, 0xfffff, 2, 0, 0), 0, VEC_GP },
	};
	struct guest *g = *state;

	enter_protected(g);
	jumps_check(g, t, ARRAY_LEN(t));
	assert_fault(seg_far_jump(g->c, 0, TARGET, 4), g, VEC_GP, 0);
	set_descriptor(g, SEL(0), descriptor(0, 0xfff, D_CODE, 0, D_32));
	assert_fault(seg_far_jump(g->c, SEL(0), 0x1000, 4), g, VEC_GP, 0);
	assert_int_equal(seg_far_jump(g->c, SEL(0), 0x10fff, 2), CPU_OK);
	assert_int_equal(g->c->s.rip, 0xfff);
}

static void direct_cpl3(void **state)
{
	const struct jump_case t[] = {
		{ descriptor(0, 0xfffff, D_CODE, 3, FLAT32), 3, -1 },
		{ descriptor(0, 0xfffff, D_CODE, 3, FLAT32), 0, -1 },
		{ descriptor(0, 0xfffff, D_CODE, 0, FLAT32), 0, VEC_GP },
		{ descriptor(0, 0xfffff, D_CONFORM, 0, FLAT32), 0, -1 },
	};
	struct guest *g = *state;

	enter_protected(g);
	go_cpl(g, 3);
	jumps_check(g, t, ARRAY_LEN(t));
}

static void gates(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s, before;

	enter_protected(g);
	set_descriptor(g, SEL(0), gate(S_CODE0, TARGET, 12, 3, 2));
	assert_int_equal(seg_far_call(g->c, SEL(0), 0x999999, 4), CPU_OK); /* same level: no parameters */
	assert_int_equal(s->rip, TARGET);
	assert_int_equal(s->gpr[RSP], STACK0 - 8);
	assert_int_equal(seg_far_return(g->c, 4, 0), CPU_OK);
	assert_int_equal(s->rip, CODE);
	go_cpl(g, 3);
	before = *s;
	put32(g, STACK3, 0x11111111);
	put32(g, STACK3 + 4, 0x22222222);
	assert_int_equal(seg_far_call(g->c, SEL(0) | 3, 0, 4), CPU_OK);
	assert_int_equal(s->cpl, 0);
	assert_int_equal(s->seg[SEG_CS].selector, S_CODE0);
	assert_int_equal(s->seg[SEG_SS].selector, S_DATA0);
	assert_int_equal(s->gpr[RSP], STACK0 - 24);
	assert_int_equal(get(g, STACK0 - 4, 4), S_DATA3);
	assert_int_equal(get(g, STACK0 - 8, 4), STACK3);
	assert_int_equal(get(g, STACK0 - 12, 4), 0x22222222);
	assert_int_equal(get(g, STACK0 - 16, 4), 0x11111111);
	assert_int_equal(get(g, STACK0 - 20, 4), S_CODE3);
	assert_int_equal(get(g, STACK0 - 24, 4), CODE);
	assert_int_equal(seg_far_return(g->c, 4, 8), CPU_OK);
	assert_int_equal(s->cpl, 3);
	assert_int_equal(s->gpr[RSP], STACK3 + 8);
	assert_int_equal(s->seg[SEG_SS].selector, S_DATA3);
	*s = before;
	tlb_select(g->c);
	assert_fault(seg_far_jump(g->c, SEL(0) | 3, 0, 4), g, VEC_GP, S_CODE0); /* JMP changes no level */
	set_descriptor(g, SEL(1), gate(S_CODE0, TARGET, 12, 0, 0));
	assert_fault(seg_far_call(g->c, SEL(1) | 3, 0, 4), g, VEC_GP, SEL(1));
	set_descriptor(g, SEL(1), gate(S_CODE0, TARGET, 12, 3, 0) & ~BIT(47));
	assert_fault(seg_far_call(g->c, SEL(1) | 3, 0, 4), g, VEC_NP, SEL(1));
	set_descriptor(g, SEL(1), gate(0, TARGET, 12, 3, 0));
	assert_fault(seg_far_call(g->c, SEL(1) | 3, 0, 4), g, VEC_GP, 0);
	set_descriptor(g, SEL(1), gate(S_DATA0, TARGET, 12, 3, 0));
	assert_fault(seg_far_call(g->c, SEL(1) | 3, 0, 4), g, VEC_GP, S_DATA0);
	put16(g, TSS + 8, S_DATA3);
	assert_fault(seg_far_call(g->c, SEL(0) | 3, 0, 4), g, VEC_TS, S_DATA3 & ~3u);
	put16(g, TSS + 8, 0);
	assert_fault(seg_far_call(g->c, SEL(0) | 3, 0, 4), g, VEC_TS, 0);
	set_descriptor(g, SEL(2), descriptor(0, 0xfffff, D_DATA, 0, FLAT32) & ~BIT(47));
	put16(g, TSS + 8, SEL(2));
	assert_fault(seg_far_call(g->c, SEL(0) | 3, 0, 4), g, VEC_SS, SEL(2));
	s->seg[SEG_TR].limit = 8;
	assert_fault(seg_far_call(g->c, SEL(0) | 3, 0, 4), g, VEC_TS, S_TSS);
}

static void gates_64(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_long(g);
	set_gate64(g, GDT + SEL(0), S_CODE64, 0xffffffff80001234, 12, 3, 0);
	go_cpl(g, 3);
	assert_int_equal(seg_far_call(g->c, SEL(0) | 3, 0, 4), CPU_OK);
	assert_int_equal(s->cpl, 0);
	assert_true(s->rip == 0xffffffff80001234);
	assert_int_equal(s->seg[SEG_SS].selector, 0);
	assert_int_equal(s->gpr[RSP], STACK0 - 32);
	assert_int_equal(get(g, STACK0 - 8, 8), S_DATA3);
	assert_int_equal(get(g, STACK0 - 16, 8), STACK3);
	assert_int_equal(get(g, STACK0 - 24, 8), S_CODE64_3);
	assert_int_equal(seg_far_return(g->c, 8, 0), CPU_OK);
	assert_int_equal(s->cpl, 3);
	assert_int_equal(s->rip, CODE);
	assert_int_equal(s->gpr[RSP], STACK3);
	set_gate64(g, GDT + SEL(0), S_CODE64, 0x800000000000, 12, 3, 0);
	assert_fault(seg_far_call(g->c, SEL(0) | 3, 0, 4), g, VEC_GP, 0);
	set_gate64(g, GDT + SEL(0), S_CODE0, TARGET, 12, 3, 0); /* 32-bit code */
	assert_fault(seg_far_call(g->c, SEL(0) | 3, 0, 4), g, VEC_GP, S_CODE0);
	assert_fault(seg_far_jump(g->c, S_TSS | 3, 0, 4), g, VEC_GP, S_TSS); /* no task switches */
	/* to compatibility mode and back */
	assert_int_equal(seg_far_jump(g->c, S_CODE3, TARGET, 4), CPU_OK);
	assert_false(x86_64bit(s));
	assert_int_equal(seg_far_jump(g->c, S_CODE64_3, TARGET, 4), CPU_OK);
	assert_true(x86_64bit(s));
}

static void returns(void **state)
{
	static const struct {
		uint32_t cs, ss; /* as popped */
		int vector;
		uint32_t error;
	} t[] = {
		{ 0, S_DATA3, VEC_GP, 0 },
		{ S_DATA0, S_DATA3, VEC_GP, S_DATA0 },
		{ S_CODE3, 0, VEC_GP, 0 },
		{ S_CODE3, S_DATA0, VEC_GP, S_DATA0 },
		{ S_CODE3, S_CODE3, VEC_GP, S_CODE3 & ~3 },
		{ S_CODE3 & ~3, S_DATA3, VEC_GP, S_CODE3 & ~3 },
		{ 0xff8, S_DATA3, VEC_GP, 0xff8 },
		{ S_CODE3, S_DATA3, -1, 0 },
	};
	struct guest *g = *state;
	struct x86_state *s = &g->c->s, before;

	enter_protected(g);
	before = *s;
	for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
		for (unsigned iret = 0; iret < 2; iret++) {
			unsigned at = STACK0 - 32;
			int r;

			s->gpr[RSP] = at;
			put32(g, at, TARGET);
			put32(g, at + 4, t[i].cs);
			put32(g, at + 8, iret ? 0x3202 : STACK3);
			put32(g, at + 12, iret ? STACK3 : t[i].ss);
			put32(g, at + 16, t[i].ss);
			r = iret ? seg_iret(g->c, 4) : seg_far_return(g->c, 4, 0);
			if (t[i].vector >= 0) {
				assert_fault(r, g, t[i].vector, t[i].error);
				assert_int_equal(s->gpr[RSP], at);
				assert_int_equal(s->cpl, 0);
			} else {
				assert_int_equal(r, CPU_OK);
				assert_int_equal(s->cpl, 3);
				assert_int_equal(s->gpr[RSP], STACK3);
				assert_int_equal(s->rflags, iret ? 0x3202 : 2);
				/* and not inwards again */
				put32(g, STACK3, TARGET);
				put32(g, STACK3 + 4, S_CODE0);
				assert_fault(seg_far_return(g->c, 4, 0), g, VEC_GP, S_CODE0);
			}
			*s = before;
			tlb_select(g->c);
		}
	}
}

/* Which flags IRET may change, by CPL and IOPL. */
static void iret_flags(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	s->gpr[RSP] = STACK0 - 12;
	put32(g, STACK0 - 12, TARGET);
	put32(g, STACK0 - 8, S_CODE0);
	put32(g, STACK0 - 4, 0x3dffd7);
	assert_int_equal(seg_iret(g->c, 4), CPU_OK);
	assert_int_equal(s->rflags, 0x3d7fd7); /* all but VM and the reserved bit 15 */
	cpu_set_rflags(g->c, 2);
	go_cpl(g, 3);
	put32(g, STACK3, TARGET);
	put32(g, STACK3 + 4, S_CODE3);
	put32(g, STACK3 + 8, 0x3f7fd7);
	assert_int_equal(seg_iret(g->c, 4), CPU_OK);
	assert_int_equal(s->rflags, 0x254dd7); /* neither IF nor IOPL, VIF, VIP */
	cpu_set_rflags(g->c, 2 | FLAG_IOPL);
	s->gpr[RSP] = STACK3;
	put32(g, STACK3 + 8, 0x202);
	assert_int_equal(seg_iret(g->c, 4), CPU_OK);
	assert_int_equal(s->rflags, 2 | FLAG_IF | FLAG_IOPL);
	s->nmi_mask = 1;
	s->gpr[RSP] = STACK3;
	assert_int_equal(seg_iret(g->c, 4), CPU_OK);
	assert_int_equal(s->nmi_mask, 0);
}

static void iret_64(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;
	unsigned at = STACK0 - 40;

	enter_long(g);
	s->gpr[RSP] = at;
	put64(g, at, TARGET);
	put64(g, at + 8, S_CODE64);
	put64(g, at + 16, 0x202);
	put64(g, at + 24, 0x1234567890);
	put64(g, at + 32, 0); /* a null SS is good in ring 0 */
	assert_int_equal(seg_iret(g->c, 8), CPU_OK);
	assert_true(s->gpr[RSP] == 0x1234567890);
	assert_int_equal(s->seg[SEG_SS].selector, 0);
	s->gpr[RSP] = at;
	put64(g, at, 0x800000000000);
	assert_fault(seg_iret(g->c, 8), g, VEC_GP, 0);
	put64(g, at, TARGET);
	put64(g, at + 8, S_CODE64_3);
	assert_fault(seg_iret(g->c, 8), g, VEC_GP, 0); /* not in ring 3 */
	put64(g, at + 8, S_CODE3); /* to compatibility mode */
	put64(g, at + 32, S_DATA3);
	assert_int_equal(seg_iret(g->c, 8), CPU_OK);
	assert_false(x86_64bit(s));
	assert_int_equal(s->cpl, 3);
	s->cpl = 0;
	s->rflags |= FLAG_NT;
	assert_fault(seg_iret(g->c, 4), g, VEC_GP, 0);
}

/* In which order the stack is read, as a Zen 5 does it: it shows in CR2. */
static void stack_order(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_long(g);
	s->gpr[RSP] = 0x12345678000;
	assert_int_equal(seg_iret(g->c, 8), CPU_FAULT);
	assert_true(g->c->fault.cr2 == s->gpr[RSP] + 16); /* RFLAGS */
	assert_int_equal(seg_far_return(g->c, 8, 0), CPU_FAULT);
	assert_true(g->c->fault.cr2 == s->gpr[RSP] + 8); /* CS */
	put64(g, RAM_SIZE - 16, 0x7f0);
	put64(g, RAM_SIZE - 8, 0x7f3);
	s->gpr[RSP] = RAM_SIZE - 24;
	assert_int_equal(seg_iret(g->c, 8), CPU_FAULT); /* SS before RSP, and both before the selector is looked at */
	assert_true(g->c->fault.vector == VEC_PF && g->c->fault.cr2 == RAM_SIZE + 8);
	s->gpr[RSP] = RAM_SIZE - 16;
	assert_int_equal(seg_far_return(g->c, 8, 0x100), CPU_FAULT);
	assert_true(g->c->fault.vector == VEC_PF && g->c->fault.cr2 == RAM_SIZE + 0x108);
	put64(g, RAM_SIZE - 8, 0x7f0);
	assert_fault(seg_far_return(g->c, 8, 0x100), g, VEC_GP, 0x7f0); /* the same level */
}

/* What seg_iret_quick() takes on it does as seg_iret() does, but for RF; the rest it leaves alone. */
static void iret_quick(void **state)
{
	static const uint64_t selectors[] = { 0, 3, S_CODE0, S_CODE3, S_DATA0, S_DATA3, S_DATA3 & ~3, S_CODE64, S_CODE64 | 3, S_CODE64_3,
					      S_CODE64_3 & ~3, S_FREE, S_FREE | 3, 0x7f8, 0x10048, 0x4c };
	static const uint64_t flags[] = { 0x202, 0x10246, 0x3ad7, 0x2, 0x302, 0x4202, 0x20202, 0x250a86, ~0ull };
	static const uint64_t rips[] = { TARGET, 0xffffffff80001000, 0x800000000000, 0 };
	struct guest *g = *state;
	struct x86_state *s = &g->c->s, before, after;
	unsigned at = STACK0 - 40, done = 0;
	uint64_t word;

	enter_long(g);
	put64(g, GDT + S_CODE64, 0x00af9b000000ffff);
	put64(g, GDT + (S_CODE64_3 & ~7), 0x00affb000000ffff);
	put64(g, GDT + S_DATA0, 0x00cf93000000ffff);
	put64(g, GDT + (S_DATA3 & ~7), 0x00cff3000000ffff);
	put64(g, GDT + S_FREE, 0x00cf92000000ffff); /* not accessed */
	s->seg[SEG_ES] = s->seg[SEG_SS];
	s->rflags |= FLAG_RF | FLAG_AC;
	s->nmi_mask = 1;
	s->gpr[RSP] = at;
	tlb_select(g->c);
	before = *s;
	for (unsigned n = 0; n < 16 * 16 * 9 * 4; n++) {
		*s = before;
		tlb_select(g->c);
		put64(g, at, rips[n % 4]);
		put64(g, at + 8, selectors[n / 4 % 16]);
		put64(g, at + 16, flags[n / 1024]);
		put64(g, at + 24, 0xffffc90000001230);
		put64(g, at + 32, selectors[n / 64 % 16]);
		assert_int_equal(cpu_read(g->c, at, &word, 8), CPU_OK); /* known to the TLB */
		if (!seg_iret_quick(g->c)) {
			assert_memory_equal(s, &before, sizeof(before));
			continue;
		}
		done++;
		after = *s;
		*s = before;
		tlb_select(g->c);
		assert_int_equal(seg_iret(g->c, 8), CPU_OK);
		s->rflags &= ~FLAG_RF;
		assert_memory_equal(s, &after, sizeof(after));
	}
	assert_int_equal(done, 3 * 5 * 3); /* kernel with a stack or none, user; flags without TF, NT, VM; addresses */
}

/* seg_iret_quick_32() likewise. */
static void iret_quick_32(void **state)
{
	static const uint32_t selectors[] = { 0, 3, S_CODE0, S_CODE3, S_DATA0, S_DATA3, S_DATA3 & ~3u, S_CODE0 | 3, S_CODE3 & ~3u,
					      S_FREE, S_FREE | 3, 0x7f8, 0x10000 | S_CODE0, 0x4c };
	static const uint32_t flags[] = { 0x202, 0x10246, 0x3ad7, 0x2, 0x302, 0x4202, 0x20202, 0x250a86, ~0u };
	struct guest *g = *state;
	struct x86_state *s = &g->c->s, before, after;
	unsigned at = STACK0 - 20, done = 0, outer = 0;
	uint64_t word;

	enter_protected(g);
	put64(g, GDT + S_CODE0, 0x00cf9b000000ffff);
	put64(g, GDT + (S_CODE3 & ~7), 0x00cffb000000ffff);
	put64(g, GDT + S_DATA0, 0x00cf93000000ffff);
	put64(g, GDT + (S_DATA3 & ~7), 0x00cff3000000ffff);
	put64(g, GDT + S_FREE, 0x00cf92000000ffff); /* not accessed */
	s->rflags |= FLAG_RF | FLAG_AC;
	s->nmi_mask = 1;
	s->gpr[RSP] = at;
	tlb_select(g->c);
	before = *s;
	for (unsigned n = 0; n < 14 * 14 * 9; n++) {
		uint32_t frame[] = { TARGET, selectors[n % 14], flags[n / 196], 0x12345670, selectors[n / 14 % 14] };

		*s = before;
		tlb_select(g->c);
		for (unsigned k = 0; k < 5; k++)
			put32(g, at + 4 * k, frame[k]);
		assert_int_equal(cpu_read(g->c, at, &word, 8), CPU_OK); /* known to the TLB */
		if (!seg_iret_quick_32(g->c)) {
			assert_memory_equal(s, &before, sizeof(before));
			continue;
		}
		done++;
		after = *s;
		*s = before;
		tlb_select(g->c);
		assert_int_equal(seg_iret(g->c, 4), CPU_OK);
		s->rflags &= ~FLAG_RF;
		outer += s->cpl == 3;
		assert_memory_equal(s, &after, sizeof(after));
	}
	assert_int_equal(outer, 5); /* flags without TF, NT, VM */
	assert_int_equal(done, 5 + 2 * 14 * 5); /* the kernel's code segment by two names, whatever lies above the frame */
}

static void syscalls(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_long(g);
	s->star = (uint64_t)0x23 << 48 | (uint64_t)S_CODE64 << 32;
	s->lstar = 0xffffffff81000000;
	s->cstar = 0xffffffff82000000;
	s->sfmask = FLAG_IF | FLAG_TF | FLAG_AC;
	go_cpl(g, 3);
	cpu_set_rflags(g->c, 2 | FLAG_IF | FLAG_AC | FLAG_CF | FLAG_RF);
	assert_int_equal(seg_syscall(g->c), CPU_OK);
	assert_true(s->rip == 0xffffffff81000000);
	assert_int_equal(s->gpr[RCX], CODE);
	assert_int_equal(s->gpr[R11], 2 | FLAG_IF | FLAG_AC | FLAG_CF);
	assert_int_equal(s->rflags, 2 | FLAG_CF);
	assert_int_equal(s->cpl, 0);
	assert_int_equal(s->seg[SEG_CS].selector, S_CODE64);
	assert_int_equal(s->seg[SEG_SS].selector, S_CODE64 + 8);
	assert_true(x86_64bit(s));
	assert_int_equal(seg_sysret(g->c, 8), CPU_OK);
	assert_int_equal(s->cpl, 3);
	assert_int_equal(s->rip, CODE);
	assert_int_equal(s->seg[SEG_CS].selector, (0x20 + 16) | 3);
	assert_int_equal(s->seg[SEG_SS].selector, (0x20 + 8) | 3);
	assert_int_equal(s->rflags, 2 | FLAG_IF | FLAG_AC | FLAG_CF);
	assert_fault(seg_sysret(g->c, 8), g, VEC_GP, 0); /* ring 3 */
	s->seg[SEG_CS].attr = (s->seg[SEG_CS].attr & ~SEG_ATTR_L) | SEG_ATTR_DB;
	assert_int_equal(seg_syscall(g->c), CPU_OK); /* from compatibility mode */
	assert_true(s->rip == 0xffffffff82000000);
	assert_int_equal(seg_sysret(g->c, 4), CPU_OK);
	assert_false(x86_64bit(s));
	assert_int_equal(s->seg[SEG_CS].selector, 0x20 | 3);
	s->efer &= ~EFER_SCE;
	assert_fault(seg_syscall(g->c), g, VEC_UD, 0);
	assert_fault(seg_sysenter(g->c), g, VEC_UD, 0);
}

static void sysenter(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_protected(g);
	go_cpl(g, 3);
	assert_fault(seg_sysenter(g->c), g, VEC_GP, 0);
	s->sysenter_cs = S_CODE0;
	s->sysenter_eip = TARGET;
	s->sysenter_esp = STACK1;
	cpu_set_rflags(g->c, 2 | FLAG_IF);
	assert_int_equal(seg_sysenter(g->c), CPU_OK);
	assert_int_equal(s->cpl, 0);
	assert_int_equal(s->rip, TARGET);
	assert_int_equal(s->gpr[RSP], STACK1);
	assert_int_equal(s->rflags, 2);
	assert_int_equal(s->seg[SEG_SS].selector, S_CODE0 + 8);
	s->gpr[RDX] = CODE;
	s->gpr[RCX] = STACK3;
	assert_int_equal(seg_sysexit(g->c, 4), CPU_OK);
	assert_int_equal(s->cpl, 3);
	assert_int_equal(s->seg[SEG_CS].selector, (S_CODE0 + 16) | 3);
	assert_int_equal(s->seg[SEG_SS].selector, (S_CODE0 + 24) | 3);
	assert_int_equal(s->gpr[RSP], STACK3);
	assert_fault(seg_sysexit(g->c, 4), g, VEC_GP, 0);
}

static void v86_iret(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	enter_v86(g, 3);
	put16(g, 0xa000, 0x100);
	put16(g, 0xa002, 0x200);
	put16(g, 0xa004, 0x3202);
	assert_int_equal(seg_iret(g->c, 2), CPU_OK);
	assert_int_equal(s->rip, 0x100);
	assert_int_equal(s->seg[SEG_CS].base, 0x2000);
	assert_int_equal(s->rflags, 2 | FLAG_VM | FLAG_IOPL | FLAG_IF);
	enter_v86(g, 0);
	assert_fault(seg_iret(g->c, 2), g, VEC_GP, 0);
	s->cr4 |= CR4_VME;
	assert_int_equal(seg_iret(g->c, 2), CPU_OK);
	assert_int_equal(s->rflags, 2 | FLAG_VM | FLAG_VIF);
	s->gpr[RSP] = 0xa000;
	s->rflags |= FLAG_VIP;
	assert_fault(seg_iret(g->c, 2), g, VEC_GP, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)
	const struct CMUnitTest tests[] = {
		T(real_mode),  T(direct_cpl0), T(direct_cpl3), T(gates),    T(gates_64), T(returns),
		T(iret_flags), T(iret_64), T(stack_order),     T(iret_quick), T(iret_quick_32), T(syscalls),    T(sysenter), T(v86_iret),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
