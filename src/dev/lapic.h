/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APIC of one CPU, xAPIC and x2APIC. Registers are touched by their own CPU's thread only. Other
 * threads post: a request bitmap merged into IRR by the owner, and cpu_notify() for the rest.
 */
#ifndef DEV_LAPIC_H
#define DEV_LAPIC_H

#include "dev/device.h"
#include "x86/cpu.h"

struct lapic;
struct lapic_bus; /* all local APICs of a machine: who a destination names */

struct lapic_bus *lapic_bus_create(struct machine *m, struct clock *clock);
void lapic_bus_destroy(struct lapic_bus *b);
/* What the bus needs from the other side: EOI of level interrupts, and ExtINT of the 8259 pair. */
void lapic_bus_set_eoi(struct lapic_bus *b, void (*eoi)(void *opaque, uint8_t vector), void *opaque);
void lapic_bus_set_pic(struct lapic_bus *b, bool (*pending)(void *opaque), int (*take)(void *opaque),
		       void *opaque);
/* The 8259's output changed: tell the CPU that accepts ExtINT. Any thread. */
void lapic_bus_pic_changed(struct lapic_bus *b, int level);

struct lapic *lapic_create(struct lapic_bus *b, struct cpu *c, struct err *e);
struct device *lapic_device(struct lapic *l);

/* Deliver a message (MSI address/data, or what an IOAPIC entry says). Any thread. False: nobody accepts. */
struct lapic_msg {
	uint32_t dest;
	uint8_t vector, delivery; /* 0 fixed 1 lowest 2 SMI 4 NMI 5 INIT 6 SIPI 7 ExtINT */
	bool logical, level;
};
bool lapic_deliver(struct lapic_bus *b, const struct lapic_msg *msg);
bool lapic_deliver_msi(struct lapic_bus *b, uint64_t address, uint32_t data);

/* What a pin of the IOAPIC sends, for who has to know before it does. */
void lapic_bus_route(struct lapic_bus *b, unsigned pin, const struct lapic_msg *m);

/* struct cpu_bus callbacks; ctx is the struct lapic. */
extern const struct cpu_bus lapic_cpu_bus;

/*
 * The vCPU's thread makes itself known before it runs: accesses to the APIC page are to this one, and its
 * timer interrupts this thread. Between the two calls the lapic stays alive. After kick_attach.
 */
void lapic_thread_attach(struct lapic *l);
void lapic_thread_detach(struct lapic *l);

/*
 * Absolute host CLOCK_MONOTONIC ns of this CPU's next timer expiry, UINT64_MAX if none. For the owner's thread, about
 * to halt: it waits for it itself, so the timer seldom interrupts it until interrupts are looked for again.
 */
uint64_t lapic_timer_deadline(struct lapic *l);
void lapic_timer_woken(struct lapic *l); /* and has halted */

#endif
