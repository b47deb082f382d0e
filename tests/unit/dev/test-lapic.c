/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs and the IOAPIC without an engine: messages, priorities, end of interrupt, IPIs, timers by the manual
 * clock, x2APIC's rules; and posting from several threads, where every vector posted must be taken and none
 * twice for one posting.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "dev/lapic-private.h"
#include "rig.h"
#include "../state/roundtrip.h"

#define CPUS 4

struct apics {
	struct rig rig;
	struct cpu *cpu[CPUS];
	struct lapic_bus *bus;
	struct lapic *lapic[CPUS];
	struct device *ioapic;
};

static const struct cpu_bus *const cb = &lapic_cpu_bus;

static int wr(struct apics *a, unsigned n, uint32_t msr, uint64_t v)
{
	return cb->msr_write(a->lapic[n], msr, v);
}

static uint64_t rd(struct apics *a, unsigned n, uint32_t msr)
{
	uint64_t v = 0xdead;

	assert_int_equal(cb->msr_read(a->lapic[n], msr, &v), 0);
	return v;
}

static uint32_t attention(struct apics *a, unsigned n)
{
	return atomic_exchange(&a->cpu[n]->attention, 0);
}

static int take(struct apics *a, unsigned n)
{
	return cb->irq_pending(a->lapic[n]) < 0 ? -1 : cb->irq_take(a->lapic[n]);
}

static struct apics *apics_open(bool x2)
{
	struct apics *a = calloc(1, sizeof(*a));
	struct err e;

	rig_open(&a->rig, 0);
	a->rig.machine.ncpus = CPUS;
	a->bus = lapic_bus_create(&a->rig.machine, a->rig.machine.clock);
	for (unsigned i = 0; i < CPUS; i++) {
		struct cpu *c = aligned_alloc(64, (sizeof(*c) + 63) & ~(size_t)63);

		memset(c, 0, sizeof(*c));
		c->id = i;
		c->machine = &a->rig.machine;
		a->rig.machine.cpus[i] = a->cpu[i] = c;
		a->lapic[i] = lapic_create(a->bus, c, &e);
		assert_non_null(a->lapic[i]);
		if (x2) {
			assert_int_equal(wr(a, i, 0x1b, rd(a, i, 0x1b) | BIT(10)), 0);
			assert_int_equal(wr(a, i, 0x80f, 0x1ff), 0);
		}
	}
	a->ioapic = ioapic_create(&a->rig.env, a->bus, &e);
	assert_non_null(a->ioapic);
	lapic_bus_set_eoi(a->bus, ioapic_eoi, a->ioapic);
	return a;
}

static void apics_close(struct apics *a)
{
	a->ioapic->ops->destroy(a->ioapic);
	for (unsigned i = 0; i < CPUS; i++) {
		lapic_device(a->lapic[i])->ops->destroy(lapic_device(a->lapic[i]));
		free(a->cpu[i]);
	}
	lapic_bus_destroy(a->bus);
	rig_close(&a->rig);
	free(a);
}

static void send(struct apics *a, unsigned n, uint8_t vector)
{
	assert_true(lapic_deliver(a->bus, &(struct lapic_msg){ .dest = n, .vector = vector }));
}

static void test_priorities(void **state)
{
	struct apics *a = apics_open(true);

	send(a, 0, 0x31);
	assert_int_equal(attention(a, 0), ATT_IRQ);
	send(a, 0, 0x31); /* posted already: nobody is told again */
	assert_int_equal(attention(a, 0), 0);
	send(a, 0, 0x45);
	send(a, 0, 0x44);
	assert_int_equal(rd(a, 0, 0x820 + 2), 1u << 5 | 1u << 4);
	assert_int_equal(take(a, 0), 0x45);
	assert_int_equal(rd(a, 0, 0x80a), 0x40);
	assert_int_equal(take(a, 0), -1); /* 0x44 is of the same class */
	send(a, 0, 0x50);
	assert_int_equal(take(a, 0), 0x50);
	attention(a, 0);
	wr(a, 0, 0x80b, 0); /* 0x50 ends; 0x45 is still in service */
	assert_int_equal(attention(a, 0), 0);
	assert_int_equal(take(a, 0), -1);
	wr(a, 0, 0x80b, 0); /* 0x45 ends: 0x44 may come, and the engine is told */
	assert_int_equal(attention(a, 0), ATT_IRQ);
	assert_int_equal(take(a, 0), 0x44);
	wr(a, 0, 0x80b, 0);
	cb->cr8_write(a->lapic[0], 3);
	assert_int_equal(rd(a, 0, 0x808), 0x30);
	assert_int_equal(take(a, 0), -1);
	attention(a, 0);
	cb->cr8_write(a->lapic[0], 2);
	assert_int_equal(attention(a, 0), ATT_IRQ);
	device_roundtrip(lapic_device(a->lapic[0]));
	assert_int_equal(take(a, 0), 0x31);
	assert_int_equal(take(a, 0), -1);
	/* disabled by software: nothing is accepted, LVTs mask themselves */
	wr(a, 0, 0x80f, 0xff);
	assert_false(lapic_deliver(a->bus, &(struct lapic_msg){ .dest = 0, .vector = 0x60 }));
	assert_int_equal(rd(a, 0, 0x832) & 0x10000, 0x10000);
	apics_close(a);
}

static void test_destinations(void **state)
{
	struct apics *a = apics_open(true);
	struct lapic_msg m = { .vector = 0x70, .logical = true };

	assert_int_equal(rd(a, 3, 0x80d), 8);
	m.dest = 0xa; /* cluster 0, CPUs 1 and 3 */
	assert_true(lapic_deliver(a->bus, &m));
	assert_int_equal(take(a, 0), -1);
	assert_int_equal(take(a, 1), 0x70);
	assert_int_equal(take(a, 2), -1);
	assert_int_equal(take(a, 3), 0x70);
	m.dest = 0x10001; /* cluster 1: nobody */
	assert_false(lapic_deliver(a->bus, &m));
	/* lowest priority: one at a time, everybody in turn */
	m = (struct lapic_msg){ .vector = 0x90, .delivery = 1, .logical = true, .dest = 0xf };
	for (unsigned i = 0, got = 0; i < 4; i++, got = 0) {
		assert_true(lapic_deliver(a->bus, &m));
		for (unsigned n = 0; n < CPUS; n++) {
			if (take(a, n) == 0x90) {
				got++;
				wr(a, n, 0x80b, 0);
			}
		}
		assert_int_equal(got, 1);
	}
	/* MSI: physical to 2; logical */
	assert_true(lapic_deliver_msi(a->bus, 0xfee02000, 0xa1));
	assert_int_equal(take(a, 2), 0xa1);
	assert_true(lapic_deliver_msi(a->bus, 0xfee0100c, 0xa2));
	assert_int_equal(take(a, 0), 0xa2);
	assert_false(lapic_deliver_msi(a->bus, 0xfed00000, 0xa1));
	assert_false(lapic_deliver_msi(a->bus, 0xfee09000, 0xa1)); /* there is no CPU 9 */
	apics_close(a);
}

static void test_xapic(void **state)
{
	struct apics *a = apics_open(false);
	struct mem *m = a->rig.machine.mem;
	struct lapic_msg msg = { .vector = 0x40, .logical = true };

	assert_int_equal((uint32_t)mem_read(m, 0xfee00030, 4), 0xffffffff); /* not a CPU's thread */
	for (unsigned i = 0; i < CPUS; i++) {
		lapic_thread_attach(a->lapic[i]);
		assert_int_equal(mem_read(m, 0xfee00020, 4), i << 24);
		assert_int_equal(mem_read(m, 0xfee00030, 4), 0x50014);
		mem_write(m, 0xfee000f0, 0x1ff, 4);
		mem_write(m, 0xfee000d0, 1u << (24 + i), 4);
		lapic_thread_detach(a->lapic[i]);
	}
	msg.dest = 6;
	assert_true(lapic_deliver(a->bus, &msg));
	assert_int_equal(take(a, 1), 0x40);
	assert_int_equal(take(a, 2), 0x40);
	assert_int_equal(take(a, 0), -1);
	lapic_thread_attach(a->lapic[3]);
	mem_write(m, 0xfee000e0, 0x0fffffff, 4); /* cluster model: 3 is in cluster 1, member 1 */
	mem_write(m, 0xfee000d0, 0x11000000, 4);
	msg.dest = 0x11;
	msg.vector = 0x41;
	assert_true(lapic_deliver(a->bus, &msg));
	assert_int_equal(take(a, 3), 0x41);
	/* an illegal vector: error register after a write to it, error interrupt */
	mem_write(m, 0xfee00370, 0x55, 4);
	mem_write(m, 0xfee00300, 0x00040003, 4);
	assert_int_equal(mem_read(m, 0xfee00280, 4), 0);
	mem_write(m, 0xfee00280, 0, 4);
	assert_int_equal(mem_read(m, 0xfee00280, 4), 0x20);
	assert_int_equal(take(a, 3), 0x55);
	/* x2APIC mode hides the page; out of it only by way of off, which resets */
	assert_int_equal(wr(a, 3, 0x1b, 0xfee00c00), 0);
	assert_int_equal((uint32_t)mem_read(m, 0xfee00020, 4), 0xffffffff);
	assert_int_equal(wr(a, 3, 0x1b, 0xfee00800), -1);
	assert_int_equal(wr(a, 3, 0x1b, 0xfee00000), 0);
	assert_int_equal(wr(a, 3, 0x1b, 0xfee00c00), -1);
	assert_int_equal(wr(a, 3, 0x1b, 0xfee00800), 0);
	assert_int_equal(mem_read(m, 0xfee000f0, 4), 0xff);
	lapic_thread_detach(a->lapic[3]);
	apics_close(a);
}

static void test_x2apic_faults(void **state)
{
	struct apics *a = apics_open(true);
	uint64_t v;

	assert_int_equal(wr(a, 0, 0x802, 1), -1);
	assert_int_equal(wr(a, 0, 0x80d, 1), -1);
	assert_int_equal(wr(a, 0, 0x80e, 1), -1);
	assert_int_equal(wr(a, 0, 0x80b, 1), -1);
	assert_int_equal(wr(a, 0, 0x828, 1), -1);
	assert_int_equal(wr(a, 0, 0x808, 0x100), -1);
	assert_int_equal(wr(a, 0, 0x838, 1ull << 32), -1);
	assert_int_equal(wr(a, 0, 0x832, 0x80000000), -1);
	assert_int_equal(cb->msr_read(a->lapic[0], 0x80b, &v), -1);
	assert_int_equal(cb->msr_read(a->lapic[0], 0x80e, &v), -1);
	assert_int_equal(cb->msr_read(a->lapic[0], 0x831, &v), -1);
	assert_int_equal(cb->msr_read(a->lapic[0], 0x83f, &v), -1);
	assert_int_equal(cb->msr_read(a->lapic[0], 0x8ff, &v), -1);
	apics_close(a);
}

static void test_ipis(void **state)
{
	struct apics *a = apics_open(true);

	wr(a, 0, 0x830, 2ull << 32 | 0x4500); /* INIT to 2 */
	assert_int_equal(attention(a, 2), ATT_INIT);
	wr(a, 0, 0x830, 2ull << 32 | 0x8500); /* level de-assert: nothing */
	assert_int_equal(attention(a, 2), 0);
	wr(a, 0, 0x830, 2ull << 32 | 0x4699); /* SIPI */
	assert_int_equal(attention(a, 2), ATT_SIPI);
	assert_int_equal(a->cpu[2]->sipi_vector, 0x99);
	cb->init(a->lapic[2]);
	assert_int_equal(rd(a, 2, 0x80f), 0xff);
	wr(a, 2, 0x80f, 0x1ff);
	wr(a, 0, 0x830, 0xc4400); /* NMI to all others */
	assert_int_equal(attention(a, 0), 0);
	for (unsigned i = 1; i < CPUS; i++)
		assert_int_equal(attention(a, i), ATT_NMI);
	wr(a, 1, 0x830, 0x80033); /* all */
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(take(a, i), 0x33);
	wr(a, 1, 0x83f, 0x77); /* self */
	assert_int_equal(take(a, 1), 0x77);
	wr(a, 1, 0x830, 0xffffffffull << 32 | 0x88); /* broadcast */
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(take(a, i), 0x88);
	apics_close(a);
}

static void test_timer(void **state)
{
	struct apics *a = apics_open(true);
	struct clock *c = a->rig.machine.clock;
	uint64_t tsc;

	clock_advance(c, 12345);
	wr(a, 0, 0x83e, 3); /* divide by 16 */
	wr(a, 0, 0x832, 0xe0);
	wr(a, 0, 0x838, 1000);
	attention(a, 0);
	clock_advance(c, 15984);
	assert_int_equal(rd(a, 0, 0x839), 1);
	assert_int_equal(take(a, 0), -1);
	assert_int_equal(attention(a, 0), 0);
	assert_int_equal(lapic_timer_deadline(a->lapic[0]), 12345 + 16000);
	clock_advance(c, 16);
	assert_int_equal(attention(a, 0), ATT_IRQ); /* told by the clock */
	assert_int_equal(take(a, 0), 0xe0);
	wr(a, 0, 0x80b, 0);
	assert_int_equal(rd(a, 0, 0x839), 0);
	clock_advance(c, 100000);
	assert_int_equal(take(a, 0), -1);
	/* periodic; missed ones are one, and the phase stays */
	wr(a, 0, 0x83e, 0xb);
	wr(a, 0, 0x832, 0x200e1);
	wr(a, 0, 0x838, 1000);
	for (unsigned i = 0; i < 3; i++) {
		clock_advance(c, 1000);
		assert_int_equal(take(a, 0), 0xe1);
		wr(a, 0, 0x80b, 0);
		assert_int_equal(take(a, 0), -1);
	}
	clock_advance(c, 5300);
	assert_int_equal(take(a, 0), 0xe1);
	wr(a, 0, 0x80b, 0);
	assert_int_equal(take(a, 0), -1);
	assert_int_equal(rd(a, 0, 0x839), 700);
	device_roundtrip(lapic_device(a->lapic[0]));
	clock_advance(c, 700);
	assert_int_equal(take(a, 0), 0xe1);
	wr(a, 0, 0x80b, 0);
	/* masked: it counts, without an interrupt */
	wr(a, 0, 0x832, 0x300e1);
	clock_advance(c, 1500);
	assert_int_equal(take(a, 0), -1);
	assert_int_equal(rd(a, 0, 0x839), 500);
	assert_true(lapic_timer_deadline(a->lapic[0]) == UINT64_MAX);
	/* TSC deadline, also with the guest's TSC moved under it */
	wr(a, 0, 0x832, 0x400e2);
	assert_int_equal(rd(a, 0, 0x838), 0);
	tsc = clock_tsc(c);
	wr(a, 0, 0x6e0, tsc + 2000); /* 2 GHz: a microsecond */
	assert_int_equal(rd(a, 0, 0x6e0), tsc + 2000);
	clock_advance(c, 999);
	assert_int_equal(take(a, 0), -1);
	clock_advance(c, 1);
	assert_int_equal(take(a, 0), 0xe2);
	wr(a, 0, 0x80b, 0);
	assert_int_equal(rd(a, 0, 0x6e0), 0);
	wr(a, 0, 0x6e0, clock_tsc(c) + 1000000);
	a->cpu[0]->s.tsc_offset = 1000000;
	assert_int_equal(take(a, 0), 0xe2);
	wr(a, 0, 0x80b, 0);
	wr(a, 0, 0x6e0, 1); /* past: at once */
	assert_int_equal(take(a, 0), 0xe2);
	wr(a, 0, 0x80b, 0);
	wr(a, 0, 0x6e0, ~0ull); /* never */
	clock_advance(c, 1000000000);
	assert_int_equal(take(a, 0), -1);
	wr(a, 0, 0x832, 0xe2); /* leaving the mode disarms */
	assert_int_equal(rd(a, 0, 0x6e0), 0);
	apics_close(a);
}

static void redirect(struct apics *a, unsigned pin, uint64_t entry)
{
	struct mem *m = a->rig.machine.mem;

	mem_write(m, 0xfec00000, 0x11 + 2 * pin, 4);
	mem_write(m, 0xfec00010, entry >> 32, 4);
	mem_write(m, 0xfec00000, 0x10 + 2 * pin, 4);
	mem_write(m, 0xfec00010, (uint32_t)entry, 4);
}

static uint32_t entry_low(struct apics *a, unsigned pin)
{
	mem_write(a->rig.machine.mem, 0xfec00000, 0x10 + 2 * pin, 4);
	return (uint32_t)mem_read(a->rig.machine.mem, 0xfec00010, 4);
}

/* The host's timer of a halting CPU: disarmed, unless the halt before was over before it would have fired. */
static void test_halts(void **state)
{
	struct apics *a = apics_open(true);
	struct lapic *l = a->lapic[0];

	lapic_thread_attach(l);
	for (unsigned round = 0; round < 2; round++) {
		l->armed = true;
		l->armed_at = clock_host_now() + 60000000000u;
		lapic_timer_deadline(l);
		assert_false(l->armed);
		lapic_timer_woken(l);
		l->armed = true;
		lapic_timer_deadline(l);
		assert_true(l->armed);
		lapic_timer_woken(l);
		lapic_timer_deadline(l);
		assert_true(l->armed);
		l->halt_armed = clock_host_now(); /* it fires while the CPU is halted */
		lapic_timer_woken(l);
	}
	l->armed = false; /* a halt without one says nothing */
	l->halts_short = true;
	lapic_timer_deadline(l);
	lapic_timer_woken(l);
	assert_true(l->halts_short);
	lapic_thread_detach(l);
	apics_close(a);
}

static void test_ioapic(void **state)
{
	struct apics *a = apics_open(true);
	struct mem *m = a->rig.machine.mem;
	struct irq_line edge = ioapic_input(a->ioapic, 4), level = ioapic_input(a->ioapic, 9);

	mem_write(m, 0xfec00000, 1, 4);
	assert_int_equal(mem_read(m, 0xfec00010, 4), 0x170020);
	redirect(a, 4, 1ull << 56 | 0x34);
	irq_pulse(&edge);
	assert_int_equal(take(a, 1), 0x34);
	wr(a, 1, 0x80b, 0);
	irq_set(&edge, 1);
	irq_set(&edge, 1); /* no second edge */
	assert_int_equal(take(a, 1), 0x34);
	wr(a, 1, 0x80b, 0);
	assert_int_equal(take(a, 1), -1);
	irq_set(&edge, 0);
	/* level: once until its EOI, again if it still stands */
	redirect(a, 9, 2ull << 56 | 0x8059);
	irq_set(&level, 1);
	assert_int_equal(entry_low(a, 9), 0xc059);
	assert_int_equal(take(a, 2), 0x59);
	assert_int_equal(rd(a, 2, 0x818 + 2), 1u << 25);
	irq_set(&level, 1);
	assert_int_equal(take(a, 2), -1);
	device_roundtrip(a->ioapic);
	wr(a, 2, 0x80b, 0);
	assert_int_equal(take(a, 2), 0x59);
	irq_set(&level, 0);
	wr(a, 2, 0x80b, 0);
	assert_int_equal(take(a, 2), -1);
	assert_int_equal(entry_low(a, 9), 0x8059);
	/* masked while it rises: comes when unmasked. EOI by the register, and by going through edge mode. */
	redirect(a, 9, 2ull << 56 | 0x18059);
	irq_set(&level, 1);
	assert_int_equal(take(a, 2), -1);
	redirect(a, 9, 2ull << 56 | 0x8059);
	assert_int_equal(take(a, 2), 0x59);
	irq_set(&level, 0);
	mem_write(m, 0xfec00040, 0x59, 4);
	assert_int_equal(entry_low(a, 9), 0x8059);
	irq_set(&level, 1);
	redirect(a, 9, 2ull << 56 | 0x10059);
	assert_int_equal(entry_low(a, 9), 0x10059);
	apics_close(a);
}

/* ---- posting */

#define POSTERS 3
#define ROUNDS 20000

struct poster {
	struct apics *a;
	unsigned n;
	_Atomic unsigned *seen; /* by vector: how many have been taken */
	unsigned posted;
};

/* Each poster has vectors of its own, and posts one again only when it has been taken. */
static void *post(void *opaque)
{
	struct poster *p = opaque;

	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned vector = 0x20 + p->n + POSTERS * (i % 60), round = i / 60;

		while (atomic_load(&p->seen[vector]) < round)
			sched_yield();
		send(p->a, 0, (uint8_t)vector);
		p->posted++;
	}
	return NULL;
}

static void test_posting(void **state)
{
	struct apics *a = apics_open(true);
	_Atomic unsigned seen[256] = { 0 };
	struct poster p[POSTERS];
	pthread_t thread[POSTERS];
	unsigned taken = 0, idle = 0;

	for (unsigned i = 0; i < POSTERS; i++) {
		p[i] = (struct poster){ a, i, seen, 0 };
		pthread_create(&thread[i], NULL, post, &p[i]);
	}
	/* as an engine does: look only when told */
	while (taken < POSTERS * ROUNDS && idle < 200000000) {
		int v;

		if (!(attention(a, 0) & ATT_IRQ)) {
			idle++;
			sched_yield();
			continue;
		}
		while ((v = take(a, 0)) >= 0) {
			wr(a, 0, 0x80b, 0);
			atomic_fetch_add(&seen[v], 1);
			taken++;
			idle = 0;
		}
	}
	for (unsigned i = 0; i < POSTERS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(taken, POSTERS * ROUNDS);
	assert_int_equal(take(a, 0), -1);
	apics_close(a);
}

struct heard {
	uint64_t address;
	uint32_t data;
	unsigned messages, changes, routes;
};
static int host_msi(void *opaque, uint64_t address, uint32_t data)
{
	struct heard *h = opaque;

	h->address = address;
	h->data = data;
	h->messages++;
	return 1;
}
static void host_changed(void *opaque, struct cpu *c)
{
	((struct heard *)opaque)->changes++;
}
static void host_routes(void *opaque)
{
	((struct heard *)opaque)->routes++;
}

/* Registers go to a host and come back unchanged, vectors pending and in service and the timer's rest too. */
static void test_export(void **state)
{
	struct apics *a = apics_open(true);
	struct apic_regs out, back;

	send(a, 0, 0x45);
	assert_int_equal(take(a, 0), 0x45);
	send(a, 0, 0x62);
	assert_true(lapic_deliver(a->bus, &(struct lapic_msg){ .dest = 0, .vector = 0x31, .level = true }));
	assert_int_equal(wr(a, 0, 0x808, 0x20), 0);
	assert_int_equal(wr(a, 0, 0x83e, 3), 0); /* by 16 */
	assert_int_equal(wr(a, 0, 0x832, 0x20050), 0);
	assert_int_equal(wr(a, 0, 0x838, 1000), 0);
	clock_advance(a->rig.machine.clock, 4000);
	cb->apic_export(a->lapic[0], &out);
	assert_int_equal(out.base, 0xfee00000 | 0xd00);
	assert_int_equal(out.word[0x02], 0);
	assert_int_equal(out.word[0x08], 0x20);
	assert_int_equal(out.word[0x10 + 2], 1u << 5);
	assert_int_equal(out.word[0x20 + 3], 1u << 2);
	assert_int_equal(out.word[0x20 + 1], 1u << 17);
	assert_int_equal(out.word[0x18 + 1], 1u << 17);
	assert_int_equal(out.word[0x38], 1000);
	assert_int_equal(out.word[0x39], 750);
	cb->apic_import(a->lapic[1], &(struct apic_regs){ .base = out.base & ~0x100ull }); /* the other's are overwritten first */
	cb->apic_import(a->lapic[0], &out);
	cb->apic_export(a->lapic[0], &back);
	assert_memory_equal(&out, &back, sizeof(out));
	cb->apic_released(a->lapic[0]);
	clock_advance(a->rig.machine.clock, 13000);
	assert_int_equal(take(a, 0), 0x62);
	cb->apic_import(a->lapic[0], &out);
	out.word[0x32] = 0x50; /* one-shot, and over: it may not have been heard, so it comes */
	out.word[0x39] = 0;
	memset(&out.word[0x10], 0, 24 * 4);
	cb->apic_import(a->lapic[0], &out);
	cb->apic_released(a->lapic[0]);
	assert_int_equal(take(a, 0), 0x50);
	apics_close(a);
}

/* While a host has them: messages, resets and routes are told to it; what is posted to ours is handed over; nothing is delivered. */
static void test_host(void **state)
{
	struct apics *a = apics_open(true);
	struct heard h = { 0 };
	struct apic_host host = { &h, host_msi, host_changed, host_routes };
	uint64_t vectors[4], level[4];

	send(a, 1, 0x51); /* before */
	assert_true(lapic_deliver(a->bus, &(struct lapic_msg){ .dest = 1, .vector = 0x90, .level = true }));
	atomic_store(&a->rig.machine.apic_host, &host);
	assert_int_equal(take(a, 1), -1);
	send(a, 0x102, 0x77);
	assert_int_equal(h.messages, 1);
	assert_true(h.address == 0x100fee02000);
	assert_int_equal(h.data, 0x77);
	assert_true(lapic_deliver(a->bus, &(struct lapic_msg){ .dest = 3, .vector = 0x78, .delivery = 1, .logical = true, .level = true }));
	assert_true(h.address == 0xfee0300c);
	assert_int_equal(h.data, 0xc178);
	assert_true(cb->apic_take_posted(a->lapic[1], vectors, level));
	assert_true(vectors[1] == BIT(0x11) && level[1] == 0);
	assert_true(vectors[2] == BIT(0x10) && level[2] == BIT(0x10));
	assert_false(cb->apic_take_posted(a->lapic[1], vectors, level));
	/* a level-triggered pin: its message is known before it is sent */
	mem_write(a->rig.env.mem, 0xfec00000, 0x10 + 2 * 5 + 1, 4);
	mem_write(a->rig.env.mem, 0xfec00010, 1u << 24, 4);
	mem_write(a->rig.env.mem, 0xfec00000, 0x10 + 2 * 5, 4);
	mem_write(a->rig.env.mem, 0xfec00010, 0x8061, 4);
	assert_int_equal(h.routes, 1);
	assert_true(a->rig.machine.apic_route[5].level);
	assert_true(a->rig.machine.apic_route[5].address == 0xfee01000);
	assert_int_equal(a->rig.machine.apic_route[5].data, 0xc061);
	mem_write(a->rig.env.mem, 0xfec00010, 0x18061, 4); /* masked: no matter */
	assert_int_equal(h.routes, 1);
	mem_write(a->rig.env.mem, 0xfec00010, 0x61, 4);
	assert_int_equal(h.routes, 2);
	lapic_device(a->lapic[0])->ops->reset(lapic_device(a->lapic[0]), RESET_WARM);
	assert_int_equal(h.changes, 1);
	atomic_store(&a->rig.machine.apic_host, NULL);
	apics_close(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_export), cmocka_unit_test(test_host),
		cmocka_unit_test(test_priorities), cmocka_unit_test(test_destinations),
		cmocka_unit_test(test_xapic),	   cmocka_unit_test(test_x2apic_faults),
		cmocka_unit_test(test_ipis),	   cmocka_unit_test(test_timer),
		cmocka_unit_test(test_halts),
		cmocka_unit_test(test_ioapic),	   cmocka_unit_test(test_posting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
