/* SPDX-License-Identifier: Apache-2.0 */
/* MSRs, control and debug registers, XCR0: what may be written, what is refused, what follows. The paravirtual clock. */
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "guest.h"
#include "x86/pv.h"

static const struct {
	uint32_t index;
	uint64_t good, bad; /* bad 0: nothing is refused */
	bool keeps;	    /* reads back what was written */
} msrs[] = {
	{ 0x48, 1, 8, true },
	{ 0x174, 0x10, BIT(32), true },
	{ 0x175, 0xffff888000001000, 0x0000800000000000, true },
	{ 0x176, 0xffffffff81000000, 0xffff7fffffffffff, true },
	{ 0x17a, 0, 8, true },
	{ 0x200, 0xc0000006, 0xc0000002, true },
	{ 0x200, 0xc0000000, BIT(40), true },
	{ 0x201, 0xffc0000800, 0x1, true },
	{ 0x20f, 0, BIT(63), true },
	{ 0x250, 0x0606060606060606, 0x0606060606060206, true },
	{ 0x26f, 0x0505050505050505, 7, true },
	{ 0x277, 0x0007040600070406, 0x0007040600070402, true },
	{ 0x2ff, 0xc06, 0xc02, true },
	{ 0x2ff, 0x806, 0x1006, true },
	{ 0x400, ~0ull, 0, true },
	{ 0x401, 0, 1, true },
	{ 0xda0, 0, 1, true },
	{ 0xc0000081, 0x0023001000000000, 0, true },
	{ 0xc0000082, 0xffffffff81000000, BIT(47), true },
	{ 0xc0000083, 0xffffffff81000000, BIT(62), true },
	{ 0xc0000084, 0x47700, BIT(33), true },
	{ 0xc0000100, 0x7f0000001000, BIT(55), true },
	{ 0xc0000101, 0xffff888000000000, BIT(55), true },
	{ 0xc0000102, 0x7f0000001000, BIT(55), true },
	{ 0xc0000103, 5, BIT(32), true },
	{ 0x49, 1, 0, false },
	{ 0x79, 0x1000, 0, false },
	{ 0x8b, 0, 0, false },
	{ 0xc0010015, 0, 0, false },
};

static void table(void **state)
{
	struct guest *g = *state;
	uint64_t v;

	enter_long(g);
	for (unsigned i = 0; i < ARRAY_LEN(msrs); i++) {
		assert_int_not_equal(msr_write(g->c, msrs[i].index, msrs[i].good), CPU_FAULT);
		assert_int_equal(msr_read(g->c, msrs[i].index, &v), CPU_OK);
		if (msrs[i].keeps)
			assert_true(v == msrs[i].good);
		if (!msrs[i].bad)
			continue;
		assert_fault(msr_write(g->c, msrs[i].index, msrs[i].bad), g, VEC_GP, 0);
		assert_int_equal(msr_read(g->c, msrs[i].index, &v), CPU_OK);
		assert_true(v == msrs[i].good);
	}
}

/* Every row can be found: the table is searched by halves, so it must be sorted. */
static void known(void **state)
{
	static const uint32_t all[] = { 0x10, 0x11, 0x12, 0x3b, 0xfe, 0x179, 0x17b, 0x1a0, 0x1d9, 0x258, 0x403, 0x40f,
					0x4b564d00, 0x4b564d01, 0x4b564d03, 0xc0000080, 0xc0010000, 0xc0010007, 0xc0010010,
					0xc001001d, 0xc001001f, 0xc0010055, 0xc0010114, 0xc0010140, 0xc0011020,
					0xc0011029, 0xc001102d };
	static const uint32_t none[] = { 0, 0x20, 0x3a, 0xce, 0x10a, 0x309, 0x38f, 0x410, 0x480, 0x600, 0x4b564d02,
					 0x4b564d04, 0x40000000, 0xc0000104, 0xc0010117, 0xffffffff };
	struct guest *g = *state;
	uint64_t v;

	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		assert_int_equal(msr_read(g->c, all[i], &v), CPU_OK);
	for (unsigned i = 0; i < ARRAY_LEN(none); i++) {
		assert_fault(msr_read(g->c, none[i], &v), g, VEC_GP, 0);
		assert_fault(msr_write(g->c, none[i], 0), g, VEC_GP, 0);
	}
	for (uint32_t i = 0x200; i < 0x210; i++)
		assert_int_equal(msr_read(g->c, i, &v), CPU_OK);
	for (uint32_t i = 0x400; i < 0x410; i++)
		assert_int_equal(msr_read(g->c, i, &v), CPU_OK);
	assert_fault(msr_write(g->c, 0xfe, 0), g, VEC_GP, 0); /* read-only */
}

static int bus_read(void *ctx, uint32_t index, uint64_t *value)
{
	*value = 0xfee00900;
	return index == 0x1b ? 0 : -1;
}
static int bus_write(void *ctx, uint32_t index, uint64_t value)
{
	*(uint64_t *)ctx = value;
	return index == 0x6e0 ? 0 : -1;
}

static void devices_own(void **state)
{
	static const struct cpu_bus bus = { .msr_read = bus_read, .msr_write = bus_write };
	struct guest *g = *state;
	uint64_t v, written = 0;

	g->c->bus = &bus;
	g->c->ctx = &written;
	assert_int_equal(msr_read(g->c, 0x1b, &v), CPU_OK);
	assert_int_equal(v, 0xfee00900);
	assert_fault(msr_read(g->c, 0x802, &v), g, VEC_GP, 0);
	assert_int_not_equal(msr_write(g->c, 0x6e0, 1234), CPU_FAULT);
	assert_int_equal(written, 1234);
}

static void tsc(void **state)
{
	struct guest *g = *state;
	uint64_t v;

	clock_advance(g->machine.clock, 1000000);
	assert_int_equal(msr_write(g->c, 0x10, 5000), CPU_OK);
	assert_int_equal(msr_read(g->c, 0x10, &v), CPU_OK);
	assert_int_equal(v, 5000);
	assert_int_equal(msr_read(g->c, 0x3b, &v), CPU_OK);
	assert_true(v == 5000 - clock_tsc(g->machine.clock));
	assert_int_equal(msr_write(g->c, 0x3b, v + 100), CPU_OK);
	assert_int_equal(msr_read(g->c, 0x10, &v), CPU_OK);
	assert_int_equal(v, 5100);
}

static void efer(void **state)
{
	struct guest *g = *state;
	uint64_t v;

	enter_long(g);
	assert_fault(msr_write(g->c, 0xc0000080, EFER_SCE), g, VEC_GP, 0); /* LME while paging */
	assert_fault(msr_write(g->c, 0xc0000080, EFER_SCE | EFER_LME | BIT(12)), g, VEC_GP, 0); /* no SVM */
	assert_int_not_equal(msr_write(g->c, 0xc0000080, EFER_LME), CPU_FAULT);
	assert_int_equal(msr_read(g->c, 0xc0000080, &v), CPU_OK);
	assert_int_equal(v, EFER_LME | EFER_LMA); /* LMA is not the writer's */
}

static void cr0(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;

	assert_fault(cr_write(g->c, 0, CR0_PG), g, VEC_GP, 0);
	assert_fault(cr_write(g->c, 0, CR0_PE | CR0_NW), g, VEC_GP, 0);
	assert_fault(cr_write(g->c, 0, BIT(32)), g, VEC_GP, 0);
	assert_int_equal(cr_write(g->c, 0, CR0_PE | BIT(7)), CPU_BOUNDARY);
	assert_int_equal(s->cr0, CR0_PE | CR0_ET);
	/* into long mode and out, as kernels do it */
	enter_protected(g);
	put64(g, TABLES, (TABLES + 0x1000) | 7);
	put64(g, TABLES + 0x1000, 0x87);
	s->cr3 = TABLES;
	assert_int_not_equal(msr_write(g->c, 0xc0000080, EFER_LME), CPU_FAULT);
	assert_fault(cr_write(g->c, 0, s->cr0 | CR0_PG), g, VEC_GP, 0); /* without PAE */
	assert_int_equal(cr_write(g->c, 4, CR4_PAE), CPU_BOUNDARY);
	assert_int_equal(cr_write(g->c, 0, s->cr0 | CR0_PG), CPU_BOUNDARY);
	assert_true(s->efer & EFER_LMA);
	assert_fault(cr_write(g->c, 4, 0), g, VEC_GP, 0); /* PAE is needed now */
	assert_int_equal(seg_far_jump(g->c, S_CODE64, CODE, 4), CPU_OK);
	assert_true(x86_64bit(s));
	assert_fault(cr_write(g->c, 0, s->cr0 & ~CR0_PG), g, VEC_GP, 0); /* not from 64-bit code */
	put32(g, CODE, S_CODE0);
	s->gpr[RSP] = STACK0 - 16;
	put64(g, STACK0 - 16, CODE);
	put64(g, STACK0 - 8, S_CODE0);
	assert_int_equal(seg_far_return(g->c, 8, 0), CPU_OK);
	assert_int_equal(cr_write(g->c, 0, s->cr0 & ~CR0_PG), CPU_BOUNDARY);
	assert_false(s->efer & EFER_LMA);
	assert_int_equal(cr_write(g->c, 0, s->cr0 & ~CR0_PE), CPU_BOUNDARY);
	assert_int_equal(s->cpl, 0);
}

static void cr3_cr4(void **state)
{
	struct guest *g = *state;
	struct x86_state *s = &g->c->s;
	uint64_t v;

	enter_long(g);
	assert_fault(cr_write(g->c, 3, BIT(45)), g, VEC_GP, 0);
	assert_fault(cr_write(g->c, 3, TABLES | BIT(63)), g, VEC_GP, 0); /* without PCIDs */
	assert_fault(cr_write(g->c, 4, CR4_PAE | CR4_LA57), g, VEC_GP, 0);
	assert_fault(cr_write(g->c, 4, CR4_PAE | BIT(22)), g, VEC_GP, 0);
	assert_fault(cr_write(g->c, 4, CR4_PAE | BIT(40)), g, VEC_GP, 0);
	assert_int_equal(cr_write(g->c, 3, TABLES | 8), CPU_BOUNDARY);
	assert_fault(cr_write(g->c, 4, CR4_PAE | CR4_PCIDE), g, VEC_GP, 0); /* the PCID must be 0 */
	assert_int_equal(cr_write(g->c, 3, TABLES), CPU_BOUNDARY);
	assert_int_equal(cr_write(g->c, 4, CR4_PAE | CR4_PCIDE), CPU_BOUNDARY);
	assert_int_equal(cr_write(g->c, 3, TABLES | 0xabc | BIT(63)), CPU_BOUNDARY);
	assert_int_equal(cr_read(g->c, 3, &v), CPU_OK);
	assert_true(v == (TABLES | 0xabc));
	s->seg[SEG_CS].attr &= ~SEG_ATTR_L;
	assert_fault(cr_write(g->c, 0, s->cr0 & ~CR0_PG), g, VEC_GP, 0); /* PCIDs are on */
	assert_fault(cr_write(g->c, 1, 0), g, VEC_UD, 0);
	assert_fault(cr_read(g->c, 7, &v), g, VEC_UD, 0);
}

static void debug_registers(void **state)
{
	struct guest *g = *state;
	uint64_t v;

	enter_long(g);
	assert_int_not_equal(dr_write(g->c, 6, 0), CPU_FAULT);
	assert_int_equal(dr_read(g->c, 6, &v), CPU_OK);
	assert_int_equal(v, 0xffff0ff0);
	assert_int_not_equal(dr_write(g->c, 7, 0xffffffff & ~BIT(13)), CPU_FAULT);
	assert_int_equal(dr_read(g->c, 5, &v), CPU_OK); /* another name of DR7 */
	assert_int_equal(v, 0xffff07ff);
	assert_fault(dr_write(g->c, 7, BIT(32)), g, VEC_GP, 0);
	g->c->s.cr4 |= CR4_DE;
	assert_fault(dr_read(g->c, 4, &v), g, VEC_UD, 0);
	assert_int_not_equal(dr_write(g->c, 7, BIT(13)), CPU_FAULT);
	assert_int_equal(dr_read(g->c, 0, &v), CPU_FAULT); /* general detect */
	assert_int_equal(g->c->fault.vector, VEC_DB);
	assert_int_equal(g->c->fault.dr6, BIT(13));
}

static void xcr0(void **state)
{
	struct guest *g = *state;

	assert_fault(xcr0_write(g->c, 0), g, VEC_GP, 0);
	assert_fault(xcr0_write(g->c, 5), g, VEC_GP, 0);
	assert_fault(xcr0_write(g->c, 1 | BIT(9)), g, VEC_GP, 0);
	assert_int_not_equal(xcr0_write(g->c, 3), CPU_FAULT);
	assert_int_equal(g->c->s.xcr0, 3);
}

/* As a guest computes it: ns = system_time + ((tsc - timestamp) << shift) * mul >> 32 */
static uint64_t pv_ns(struct guest *g, uint64_t at)
{
	uint64_t delta = cpu_tsc(g->c) - get(g, at + 8, 8), mul = get(g, at + 24, 4);
	int shift = (int8_t)get(g, at + 28, 1);

	delta = shift < 0 ? delta >> -shift : delta << shift;
	return get(g, at + 16, 8) + (uint64_t)(((unsigned __int128)delta * mul) >> 32);
}

static void pv_clock(void **state)
{
	struct guest *g = *state;
	const uint64_t at = 0x5000;
	time_t now = time(NULL);
	uint64_t v;

	clock_advance(g->machine.clock, 7000000000);
	assert_int_equal(msr_write(g->c, MSR_KVM_SYSTEM_TIME, at | 1), CPU_OK);
	assert_int_equal(get(g, at, 4) & 1, 0);
	assert_int_equal(get(g, at + 29, 1), 1); /* stable */
	assert_in_range(pv_ns(g, at), 7000000000 - 10, 7000000000);
	clock_advance(g->machine.clock, 3600000000000);
	assert_in_range(pv_ns(g, at), 3607000000000 - 2000, 3607000000000);
	v = get(g, at, 4);
	assert_int_equal(msr_write(g->c, 0x10, 0), CPU_OK); /* a new TSC: a new page, the same time */
	assert_int_not_equal(get(g, at, 4), v);
	assert_in_range(pv_ns(g, at), 3607000000000 - 2000, 3607000000000);
	assert_int_equal(msr_read(g->c, MSR_KVM_SYSTEM_TIME, &v), CPU_OK);
	assert_int_equal(v, at | 1);
	assert_int_equal(msr_write(g->c, MSR_KVM_WALL_CLOCK, 0x6000), CPU_OK);
	assert_in_range(get(g, 0x6004, 4), (uint64_t)now - 3609, (uint64_t)now - 3605);
	/* pages where no memory is are the guest's own fault */
	assert_int_equal(msr_write(g->c, MSR_KVM_SYSTEM_TIME, 0xfffffffff000 | 1), CPU_OK);
	assert_int_equal(msr_write(g->c, MSR_KVM_WALL_CLOCK, RAM_SIZE - 4), CPU_OK);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Share one processor of the host with somebody who spins, for so long. */
static void be_stolen_from(uint64_t ns)
{
	cpu_set_t all, one;
	uint64_t until = now_ns() + ns;
	pid_t pid;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	pid = fork();
	if (!pid) {
		alarm(5);
		for (;;)
			;
	}
	while (now_ns() < until)
		;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	sched_setaffinity(0, sizeof(all), &all);
}

static void steal_time(void **state)
{
	struct guest *g = *state;
	const uint64_t at = 0x5040;
	uint64_t v, version;

	if (access("/proc/thread-self/schedstat", R_OK))
		skip();
	assert_fault(msr_write(g->c, MSR_KVM_STEAL_TIME, at | 3), g, VEC_GP, 0);
	pv_steal_tick(g->c); /* not asked for: nothing happens */
	assert_int_equal(get(g, at, 8), 0);
	assert_int_equal(msr_write(g->c, MSR_KVM_STEAL_TIME, at | 1), CPU_OK);
	assert_int_equal(msr_read(g->c, MSR_KVM_STEAL_TIME, &v), CPU_OK);
	assert_int_equal(v, at | 1);
	be_stolen_from(60000000);
	pv_steal_tick(g->c);
	v = get(g, at, 8);
	version = get(g, at + 8, 4);
	assert_in_range(v, 1000000, 2000000000);
	assert_int_equal(version & 1, 0);
	assert_int_not_equal(version, 0);
	/* it is looked at only every few milliseconds of the machine's clock */
	be_stolen_from(60000000);
	pv_steal_tick(g->c);
	assert_int_equal(get(g, at, 8), v);
	clock_advance(g->machine.clock, PV_STEAL_PERIOD);
	pv_steal_tick(g->c);
	assert_true(get(g, at, 8) > v);
	assert_true(get(g, at + 8, 4) > version);
	/* a record where no memory is is the guest's own fault */
	assert_int_equal(msr_write(g->c, MSR_KVM_STEAL_TIME, 0xfffffffff000 | 1), CPU_OK);
	clock_advance(g->machine.clock, PV_STEAL_PERIOD);
	pv_steal_tick(g->c);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)
	const struct CMUnitTest tests[] = { T(table), T(known),		  T(devices_own), T(tsc),     T(efer), T(cr0),
					    T(cr3_cr4), T(debug_registers), T(xcr0),	  T(pv_clock), T(steal_time) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
