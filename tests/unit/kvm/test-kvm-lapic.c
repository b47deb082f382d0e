/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs in KVM (irqchip=split) on two CPUs that are driven by one thread, step by step: what one CPU does while the other's
 * state is still with us. Skipped (77) where /dev/kvm or the split is missing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/err.h"
#include "base/kick.h"
#include "engine/engine.h"
#include "engine/kvm/engine.h"
#include "engine/kvm/kvm.h"
#include "x86/cpuid.h"

#define CODE 0x1000
#define RAM (16u << 20)
#define CPUS 2

struct fixture {
	struct machine m;
	struct cpu *c[CPUS];
	struct local {
		struct apic_regs apic; /* our copy */
		unsigned ends; /* of level interrupts that were told */
		uint8_t ended;
	} local[CPUS];
	struct cpuid_model cpuid;
	struct kick_thread kick;
	unsigned outs;
};

/* ---- a local APIC of ours that only keeps what it is given; ctx is struct local */

static int no_irq(void *ctx)
{
	return -1;
}
static uint64_t no_cr8(void *ctx)
{
	return 0;
}
static void set_cr8(void *ctx, uint64_t v)
{
}
static int no_msr_read(void *ctx, uint32_t index, uint64_t *value)
{
	return -1;
}
static int no_msr_write(void *ctx, uint32_t index, uint64_t value)
{
	return -1;
}
static void apic_export(void *ctx, struct apic_regs *r)
{
	*r = ((struct local *)ctx)->apic;
}
static void apic_import(void *ctx, const struct apic_regs *r)
{
	((struct local *)ctx)->apic = *r;
}
static void apic_released(void *ctx)
{
}
static bool apic_take_posted(void *ctx, uint64_t vectors[4], uint64_t level[4])
{
	return false;
}
static void apic_eoi(void *ctx, uint8_t vector)
{
	struct local *l = ctx;

	l->ends++;
	l->ended = vector;
}
static bool no_pic(void *ctx)
{
	return false;
}
static const struct cpu_bus bus = {
	.irq_pending = no_irq, .irq_take = no_irq, .cr8_read = no_cr8, .cr8_write = set_cr8, .msr_read = no_msr_read, .msr_write = no_msr_write,
	.apic_export = apic_export, .apic_import = apic_import, .apic_released = apic_released, .apic_take_posted = apic_take_posted,
	.apic_eoi = apic_eoi, .pic_pending = no_pic, .pic_take = no_irq,
};

/* Whoever writes to the port wants to come out. */
static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fixture *f = opaque;

	f->outs++;
	for (unsigned i = 0; i < CPUS; i++)
		atomic_fetch_or(&f->c[i]->attention, ATT_CALLER);
}
static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}
static const struct io_ops port_ops = { port_read, port_write, 1, 4 };

static int cpu_setup(struct fixture *f, unsigned id)
{
	struct cpu *c = aligned_alloc(64, (sizeof(struct cpu) + 63) & ~63ul);
	struct err e = { 0 };

	memset(c, 0, sizeof(*c));
	f->m.cpus[id] = f->c[id] = c;
	c->id = id;
	c->machine = &f->m;
	c->mem = f->m.mem;
	c->bus = &bus;
	c->ctx = &f->local[id];
	c->thread = &f->kick;
	f->local[id].apic.base = 0xfee00800 | (id ? 0 : 0x100);
	f->local[id].apic.word[0x02] = id << 24;
	f->local[id].apic.word[0x03] = 0x50014;
	f->local[id].apic.word[0x0e] = ~0u;
	f->local[id].apic.word[0x0f] = 0x1ff; /* on */
	for (unsigned i = 0x32; i < 0x38; i++)
		f->local[id].apic.word[i] = 0x10000;
	assert_int_equal(tlb_init(&c->tlb, &e), 0);
	x86_state_reset(&c->s, !id);
	return engine_kvm.cpu_create(c, &e);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err e = { 0 };

	f->m.mem = mem_create(RAM, &e);
	assert_non_null(f->m.mem);
	assert_int_equal(mem_map_ram(f->m.mem, 0, 0, RAM, "ram", &e), 0);
	f->m.ports = ports_create();
	assert_int_equal(ports_map(f->m.ports, 0x80, 4, &port_ops, f, "port", &e), 0);
	f->m.clock = clock_create_manual();
	f->m.cpuid = &f->cpuid;
	f->m.engine = &engine_kvm;
	f->m.engine_options.lapic = ENGINE_ON;
	f->m.ncpus = CPUS;
	assert_int_equal(cpuid_build(&f->cpuid, "host", CPUS, clock_tsc_khz(f->m.clock), &e), 0);
	assert_int_equal(kick_attach(&f->kick, &e), 0);
	if (engine_kvm.vm_attach(&f->m, &e)) {
		print_message("cannot attach: %s\n", e.text);
		return -1;
	}
	*state = f;
	return cpu_setup(f, 0) || cpu_setup(f, 1);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < CPUS; i++) {
		engine_kvm.cpu_destroy(f->c[i]);
		tlb_dispose(&f->c[i]->tlb);
	}
	engine_kvm.vm_detach(&f->m);
	kick_detach(&f->kick);
	clock_destroy(f->m.clock);
	ports_destroy(f->m.ports);
	mem_destroy(f->m.mem);
	for (unsigned i = 0; i < CPUS; i++)
		free(f->c[i]);
	free(f);
	return 0;
}

/* It is somewhere in real mode, doing `activity`; as after a restore, it is not in KVM yet. */
static void put(struct fixture *f, unsigned id, uint64_t rip, uint8_t activity)
{
	struct x86_state *s = &f->c[id]->s;

	s->seg[SEG_CS].selector = 0;
	s->seg[SEG_CS].base = 0;
	s->rip = rip;
	s->activity = activity;
	engine_kvm.state_set(f->c[id]);
}

static void message(struct fixture *f, unsigned to, uint32_t data)
{
	const struct apic_host *host = atomic_load(&f->m.apic_host);

	assert_non_null(host);
	assert_int_equal(host->msi(host->opaque, 0xfee00000 | to << 12, data), 1);
}

/*
 * The first CPU to run loads all local APICs. One that has not entered the guest yet keeps its own registers, whoever looks at it
 * then: it halted in the saved machine, which the new vCPU in KVM, that has never run, did not.
 */
static void halted_cpu_stays_as_restored(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xf4 }; /* out 0x80, al; hlt */
	struct fixture *f = *state;
	struct cpu *c = f->c[1];

	assert_int_equal(mem_load(f->m.mem, CODE, code, sizeof(code)), 0);
	put(f, 0, CODE, ACTIVITY_RUN);
	put(f, 1, CODE, ACTIVITY_HLT);
	c->s.gpr[RBX] = 0x1234;
	assert_int_equal(engine_kvm.run(f->c[0]), STOP_KICK);
	assert_int_equal(f->outs, 1);
	engine_kvm.state_get(c);
	assert_int_equal(c->s.rip, CODE);
	assert_int_equal(c->s.gpr[RBX], 0x1234);
	assert_int_equal(c->s.activity, ACTIVITY_HLT);
	assert_int_equal(f->local[1].apic.word[0x0f], 0x1ff);
}

/* But an INIT and a SIPI that came since have changed everything. */
static void startup_reaches_a_parked_cpu(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xf4 };
	struct fixture *f = *state;
	struct cpu *c = f->c[1];

	assert_int_equal(mem_load(f->m.mem, CODE, code, sizeof(code)), 0);
	put(f, 0, CODE, ACTIVITY_RUN);
	put(f, 1, CODE, ACTIVITY_HLT);
	assert_int_equal(engine_kvm.run(f->c[0]), STOP_KICK);
	message(f, 1, 0x4500);
	message(f, 1, 0x4605);
	engine_kvm.state_get(c);
	assert_int_equal(c->s.activity, ACTIVITY_RUN);
	assert_int_equal(c->s.rip, 0);
	assert_int_equal(c->s.seg[SEG_CS].base, 0x5000);
}

/* An INIT that another engine has not served yet comes before the SIPI that KVM is sent, even if its CPU runs last. */
static void startup_keeps_its_order(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xf4 };
	struct fixture *f = *state;
	struct cpu *c = f->c[1];

	assert_int_equal(mem_load(f->m.mem, CODE, code, sizeof(code)), 0);
	put(f, 0, CODE, ACTIVITY_RUN);
	put(f, 1, CODE, ACTIVITY_RUN);
	atomic_fetch_or(&c->attention, ATT_INIT);
	assert_int_equal(engine_kvm.run(f->c[0]), STOP_KICK);
	message(f, 1, 0x4605);
	kvm_lapic_cpu_leaves(c); /* it has never run */
	assert_int_equal(c->s.activity, ACTIVITY_RUN);
	assert_int_equal(c->s.rip, 0);
	assert_int_equal(c->s.seg[SEG_CS].base, 0x5000);
	assert_int_equal(atomic_load(&c->attention) & (ATT_INIT | ATT_SIPI), 0);
}

/*
 * The guest ends a level interrupt and is stopped before KVM has told of it: no register shows that it still has to, so it is asked
 * before the state is taken, or the IOAPIC would wait for that end forever.
 */
static void ends_are_told_before_a_stop(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xfb, 0xf4 }; /* out 0x80, al; sti; hlt */
	static const uint8_t handler[] = {
		0x66, 0xa3, 0xb0, 0x00, /* mov [0xb0], eax */
		0xe6, 0x80,		/* out 0x80, al */
		0xcf,			/* iret */
	};
	static const uint8_t vector[] = { 0x00, 0x30, 0x00, 0x00 };
	struct fixture *f = *state;
	struct cpu *c = f->c[0];

	assert_int_equal(mem_load(f->m.mem, CODE, code, sizeof(code)), 0);
	assert_int_equal(mem_load(f->m.mem, 0x3000, handler, sizeof(handler)), 0);
	assert_int_equal(mem_load(f->m.mem, 4 * 0x51, vector, sizeof(vector)), 0);
	f->m.apic_route[4] = (struct apic_route){ .address = 0xfee00000, .data = 0xc051, .level = true };
	f->m.apic_host->routes_changed(f->m.apic_host->opaque);
	c->s.gpr[RSP] = 0x8000;
	c->s.seg[SEG_DS].base = 0xfee00000;
	put(f, 1, CODE, ACTIVITY_WAIT_SIPI);
	put(f, 0, CODE, ACTIVITY_RUN);
	assert_int_equal(engine_kvm.run(c), STOP_KICK);
	message(f, 0, 0xc051);
	for (unsigned i = 1; i < 4; i++) {
		assert_int_equal(engine_kvm.run(c), STOP_KICK);
		assert_int_equal(f->outs, i + 1);
		assert_int_equal(f->local[0].ends, i);
		assert_int_equal(f->local[0].ended, 0x51);
		engine_kvm.state_get(c);
		assert_int_equal(c->s.rip, 0x3006);
		assert_int_equal(f->local[0].apic.word[0x12], 0);
		message(f, 0, 0xc051);
	}
}

static void *kick_later(void *opaque)
{
	struct fixture *f = opaque;

	while (!atomic_load((_Atomic uint8_t *)mem_ram_ptr(f->m.mem, 0x600)))
		usleep(200);
	atomic_fetch_or(&f->c[0]->attention, ATT_CALLER);
	engine_kvm.kick(f->c[0]);
	return NULL;
}

/* The guest has taken a level interrupt and does not end it. A KVM that says otherwise repeats interrupts whose line has not fallen yet. */
static void interrupts_stay_in_service(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xfb, 0xf4 }; /* out 0x80, al; sti; hlt */
	static const uint8_t handler[] = { 0x2e, 0xfe, 0x06, 0x00, 0x06, 0xeb, 0xfe }; /* inc byte [cs:0x600]; jmp $ */
	static const uint8_t vector[] = { 0x00, 0x30, 0x00, 0x00 };
	struct fixture *f = *state;
	pthread_t kicker;

	assert_int_equal(mem_load(f->m.mem, CODE, code, sizeof(code)), 0);
	assert_int_equal(mem_load(f->m.mem, 0x3000, handler, sizeof(handler)), 0);
	assert_int_equal(mem_load(f->m.mem, 4 * 0x51, vector, sizeof(vector)), 0);
	f->m.apic_route[4] = (struct apic_route){ .address = 0xfee00000, .data = 0xc051, .level = true };
	f->m.apic_host->routes_changed(f->m.apic_host->opaque);
	f->c[0]->s.gpr[RSP] = 0x8000;
	put(f, 1, CODE, ACTIVITY_WAIT_SIPI);
	put(f, 0, CODE, ACTIVITY_RUN);
	assert_int_equal(engine_kvm.run(f->c[0]), STOP_KICK);
	message(f, 0, 0xc051);
	assert_int_equal(pthread_create(&kicker, NULL, kick_later, f), 0);
	assert_int_equal(engine_kvm.run(f->c[0]), STOP_KICK);
	pthread_join(kicker, NULL);
	engine_kvm.state_get(f->c[0]);
	assert_int_equal(f->c[0]->s.rip, 0x3005);
	if (f->local[0].ends || !(f->local[0].apic.word[0x12] & 1u << 17)) {
		print_message("this KVM ends interrupts as it delivers them\n");
		skip();
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(halted_cpu_stays_as_restored, setup, teardown),
		cmocka_unit_test_setup_teardown(startup_reaches_a_parked_cpu, setup, teardown),
		cmocka_unit_test_setup_teardown(startup_keeps_its_order, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupts_stay_in_service, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_are_told_before_a_stop, setup, teardown),
	};
	struct err e;

	if (engine_kvm.probe(&e)) {
		printf("skipped: %s\n", e.text);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
