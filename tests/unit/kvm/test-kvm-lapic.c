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
#include <sys/ioctl.h>
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
	f->m.engine_options.irqfds = *state ? ENGINE_ON : ENGINE_OFF; /* prestate: any pointer */
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

/* ---- messages by eventfds */

struct burst {
	struct fixture *f;
	unsigned to, first, vectors, times;
};

static void *burst_run(void *opaque)
{
	const struct burst *b = opaque;
	const struct apic_host *host = atomic_load(&b->f->m.apic_host);

	for (unsigned i = 0; i < b->times; i++)
		for (unsigned v = 0; v < b->vectors; v++)
			host->msi(host->opaque, 0xfee00000 | b->to << 12, b->first + v);
	return NULL;
}

/* As a device's thread sends them: only those make routes. */
static void burst(struct fixture *f, unsigned to, unsigned first, unsigned vectors, unsigned times)
{
	struct burst b = { f, to, first, vectors, times };
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, burst_run, &b), 0);
	pthread_join(t, NULL);
}

static bool requested(struct fixture *f, unsigned id, unsigned vector)
{
	engine_kvm.state_get(f->c[id]);
	return f->local[id].apic.word[0x20 + vector / 32] >> vector % 32 & 1;
}

/* Both are in KVM, and neither takes interrupts. */
static struct kvm_vm *routes_begin(struct fixture *f)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xeb, 0xfc }; /* out 0x80, al; jmp to it */

	assert_int_equal(mem_load(f->m.mem, CODE, code, sizeof(code)), 0);
	put(f, 0, CODE, ACTIVITY_RUN);
	put(f, 1, CODE, ACTIVITY_WAIT_SIPI);
	assert_int_equal(engine_kvm.run(f->c[0]), STOP_KICK);
	return f->m.engine_data;
}

/* Empty request registers, as after a reset. */
static void requests_forget(struct fixture *f, unsigned id)
{
	for (unsigned i = 0; i < 8; i++)
		f->local[id].apic.word[0x20 + i] = 0;
	f->m.apic_host->changed(f->m.apic_host->opaque, f->c[id]);
	atomic_fetch_and(&f->c[0]->attention, ~(uint32_t)ATT_CALLER);
	assert_int_equal(engine_kvm.run(f->c[0]), STOP_KICK);
}

static void message_by_eventfd(void **state)
{
	struct fixture *f = *state;
	struct kvm_vm *vm = routes_begin(f);

	assert_non_null(vm->irqfds);
	for (unsigned i = 0; i < 40; i++)
		message(f, 0, 0x61); /* a vCPU's thread */
	assert_int_equal(vm->irqfd_routes, 0);
	burst(f, 0, 0x61, 1, 20);
	assert_int_equal(vm->irqfd_routes, 1);
	assert_true(requested(f, 0, 0x61));
	assert_false(requested(f, 1, 0x61));
	requests_forget(f, 0);
	assert_false(requested(f, 0, 0x61));
	for (uint64_t was = vm->irqfd_messages; vm->irqfd_messages != was + 3;) {
		message(f, 0, 0x61); /* a vCPU's thread may use it */
		assert_true(requested(f, 0, 0x61));
		requests_forget(f, 0);
	}
	/* other data or another address is another message, at once */
	message(f, 0, 0x62);
	message(f, 1, 0x61);
	assert_true(requested(f, 0, 0x62));
	assert_false(requested(f, 0, 0x61));
	assert_true(requested(f, 1, 0x61));
	burst(f, 0, 0x62, 1, 20);
	burst(f, 1, 0x61, 1, 20);
	assert_int_equal(vm->irqfd_routes, 3);
	assert_true(requested(f, 0, 0x62));
	assert_false(requested(f, 0, 0x61));
}

/* Levels, INITs and illegal vectors are no messages for a route, however often they come. */
static void only_edges_get_routes(void **state)
{
	struct fixture *f = *state;
	struct kvm_vm *vm = routes_begin(f);

	burst(f, 0, 0xc051, 1, 40);
	burst(f, 0, 0x4500, 1, 1);
	burst(f, 1, 0x4500, 1, 40);
	burst(f, 0, 0x3, 1, 40);
	assert_int_equal(vm->irqfd_routes, 0);
	assert_int_equal(vm->irqfd_messages, 0);
}

/* More pairs than routes: the message arrives all the same, and what is not used any more makes room. */
static void routes_make_room(void **state)
{
	struct fixture *f = *state;
	struct kvm_vm *vm = routes_begin(f);
	uint64_t full;

	burst(f, 0, 0x10, 0xf0, 24);
	full = vm->irqfd_routes;
	assert_in_range(full, 64, 0xf0);
	for (unsigned v = 0x10; v < 0x100; v++)
		assert_true(requested(f, 0, v));
	for (unsigned v = 0x20; v < 0x28; v++)
		burst(f, 1, v, 1, 100);
	assert_true(vm->irqfd_routes >= full + 8);
	for (unsigned v = 0x20; v < 0x28; v++)
		assert_true(requested(f, 1, v));
	assert_false(requested(f, 1, 0x28));
}

/* What was sent is in the registers that the next engine takes over, and routes are gone. */
static void messages_leave_with_the_machine(void **state)
{
	struct fixture *f = *state;
	struct kvm_vm *vm = routes_begin(f);

	burst(f, 0, 0x61, 1, 20);
	burst(f, 1, 0x71, 1, 20);
	requests_forget(f, 0);
	requests_forget(f, 1);
	message(f, 0, 0x61);
	message(f, 1, 0x71);
	assert_int_equal(vm->irqfd_routes, 2);
	kvm_lapic_cpu_leaves(f->c[0]);
	kvm_lapic_cpu_leaves(f->c[1]);
	assert_null(atomic_load(&f->m.apic_host));
	assert_int_equal(f->local[0].apic.word[0x23], 1u << 1);
	assert_int_equal(f->local[1].apic.word[0x23], 1u << 17);
}

/* The eventfd of the only route is out of KVM's hands, with a message counted. */
static void count_pending(struct fixture *f, struct kvm_vm *vm, unsigned data)
{
	for (unsigned i = 0; i < KVM_IRQFD_ROUTES; i++) {
		struct kvm_irqfd arg = { .fd = (uint32_t)vm->irqfds->route[i].fd, .gsi = APIC_ROUTES + i, .flags = KVM_IRQFD_FLAG_DEASSIGN };

		if (vm->irqfds->route[i].bound)
			assert_int_equal(ioctl(vm->fd, KVM_IRQFD, &arg), 0);
	}
	message(f, 0, data);
}

/* What is counted while an eventfd is unbound is not lost: it goes as a message, when the machine is looked at and when it leaves. */
static void counts_are_not_lost(void **state)
{
	struct fixture *f = *state;
	struct kvm_vm *vm = routes_begin(f);

	burst(f, 0, 0x61, 1, 20);
	requests_forget(f, 0);
	count_pending(f, vm, 0x61);
	assert_true(requested(f, 0, 0x61));
	requests_forget(f, 0);
	assert_false(requested(f, 0, 0x61));
	message(f, 0, 0x61); /* bound again */
	assert_true(requested(f, 0, 0x61));
	requests_forget(f, 0);
	count_pending(f, vm, 0x61);
	kvm_lapic_cpu_leaves(f->c[0]);
	assert_int_equal(f->local[0].apic.word[0x23], 1u << 1);
	assert_int_equal(vm->irqfd_routes, 1);
}

static void *send_many(void *opaque)
{
	struct fixture *f = opaque;
	const struct apic_host *host = atomic_load(&f->m.apic_host);

	for (unsigned i = 0; i < 3000; i++)
		host->msi(host->opaque, 0xfee00000, 0x61 + i % 4);
	return NULL;
}

/* State is taken while another thread sends, routes are made and table entries of the IOAPIC change: nothing is lost or stuck. */
static void settles_under_fire(void **state)
{
	struct fixture *f = *state;
	struct kvm_vm *vm = routes_begin(f);
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, send_many, f), 0);
	for (unsigned i = 0; i < 20; i++) {
		engine_kvm.state_get(f->c[0]);
		f->m.apic_route[4] = (struct apic_route){ .address = 0xfee00000, .data = 0xc051 + i % 2, .level = true };
		f->m.apic_host->routes_changed(f->m.apic_host->opaque);
	}
	pthread_join(t, NULL);
	for (unsigned v = 0x61; v < 0x65; v++)
		assert_true(requested(f, 0, v));
	burst(f, 0, 0x61, 4, 20); /* if the table was busy whenever one was due */
	assert_int_equal(vm->irqfd_routes, 4);
	requests_forget(f, 0);
	message(f, 0, 0x64);
	assert_true(requested(f, 0, 0x64));
	assert_false(requested(f, 0, 0x63));
}

/* With local APICs of ours there is nothing that could listen to an eventfd. */
static void irqfds_need_the_split(void **state)
{
	struct fixture *f = *state;
	struct machine other = f->m;
	struct err e = { 0 };

	other.engine_options.lapic = ENGINE_OFF;
	other.engine_options.irqfds = ENGINE_ON;
	other.engine_data = NULL;
	assert_int_equal(engine_kvm.vm_attach(&other, &e), -EINVAL);
	assert_non_null(strstr(e.text, "irqchip=split"));
	assert_null(((struct kvm_vm *)f->m.engine_data)->irqfds); /* off unless asked for, without hardware */
}

int main(void)
{
	static bool with = true;
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(halted_cpu_stays_as_restored, setup, teardown),
		cmocka_unit_test_setup_teardown(startup_reaches_a_parked_cpu, setup, teardown),
		cmocka_unit_test_setup_teardown(startup_keeps_its_order, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupts_stay_in_service, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_are_told_before_a_stop, setup, teardown),
		cmocka_unit_test_prestate_setup_teardown(message_by_eventfd, setup, teardown, &with),
		cmocka_unit_test_prestate_setup_teardown(only_edges_get_routes, setup, teardown, &with),
		cmocka_unit_test_prestate_setup_teardown(routes_make_room, setup, teardown, &with),
		cmocka_unit_test_prestate_setup_teardown(messages_leave_with_the_machine, setup, teardown, &with),
		cmocka_unit_test_prestate_setup_teardown(counts_are_not_lost, setup, teardown, &with),
		cmocka_unit_test_prestate_setup_teardown(settles_under_fire, setup, teardown, &with),
		cmocka_unit_test_setup_teardown(irqfds_need_the_split, setup, teardown),
	};
	struct err e;

	if (engine_kvm.probe(&e)) {
		printf("skipped: %s\n", e.text);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
