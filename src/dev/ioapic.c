/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC with 24 pins (82093AA registers, version 0x20: with the EOI register). Wires say whether an interrupt is
 * asserted, so the polarity bits are kept but mean nothing. Remote IRR stands while a level interrupt is in service;
 * the local APICs tell when it ends. An edge that finds its pin masked is lost, as on the real part.
 *
 * The lock may be taken with a device's and a wire's held; delivery takes none.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "base/err.h"
#include "dev/pc-devices.h"

#define PINS 24
#define IOAPIC_BASE 0xfec00000ull

#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)
#define ENTRY_WRITABLE 0xff0000000001afffull /* all but remote IRR and delivery status */


struct ioapic_hw {
	uint64_t entry[PINS];
	uint32_t lines; /* asserted */
	uint8_t select, id;
};

struct ioapic {
	struct device device;
	struct ioapic_hw hw;
	struct lapic_bus *bus;
	pthread_mutex_t lock;
};

static struct lapic_msg pin_message(const struct ioapic *a, unsigned pin)
{
	uint64_t e = a->hw.entry[pin];

	return (struct lapic_msg){
		.dest = (uint32_t)(e >> 56),
		.logical = e & 0x800,
		.vector = (uint8_t)e,
		.delivery = (e >> 8) & 7,
		.level = e & ENTRY_LEVEL,
	};
}

static void pin_publish(struct ioapic *a, unsigned pin)
{
	struct lapic_msg m = pin_message(a, pin);

	lapic_bus_route(a->bus, pin, &m);
}

static void pin_deliver(struct ioapic *a, unsigned pin)
{
	uint64_t e = a->hw.entry[pin];
	struct lapic_msg m = pin_message(a, pin);

	if (e & ENTRY_MASKED || (e & ENTRY_LEVEL && e & ENTRY_REMOTE_IRR))
		return;
	/* before it is sent: the answer may come at once */
	if (m.level && m.delivery <= 1)
		a->hw.entry[pin] |= ENTRY_REMOTE_IRR;
	if (!lapic_deliver(a->bus, &m))
		a->hw.entry[pin] &= ~ENTRY_REMOTE_IRR;
}

static void ioapic_set(void *opaque, unsigned pin, int level)
{
	struct ioapic *a = opaque;
	uint32_t bit = (uint32_t)BIT(pin), was;

	pthread_mutex_lock(&a->lock);
	was = a->hw.lines;
	a->hw.lines = level ? was | bit : was & ~bit;
	if (level && (!(was & bit) || a->hw.entry[pin] & ENTRY_LEVEL))
		pin_deliver(a, pin);
	pthread_mutex_unlock(&a->lock);
}

static void pin_eoi(struct ioapic *a, unsigned pin, uint8_t vector)
{
	uint64_t *e = &a->hw.entry[pin];

	if ((uint8_t)*e != vector || !(*e & ENTRY_LEVEL) || !(*e & ENTRY_REMOTE_IRR))
		return;
	*e &= ~ENTRY_REMOTE_IRR;
	if (a->hw.lines & BIT(pin))
		pin_deliver(a, pin);
}

void ioapic_eoi(void *opaque, uint8_t vector)
{
	struct ioapic *a = container_of((struct device *)opaque, struct ioapic, device);

	pthread_mutex_lock(&a->lock);
	for (unsigned i = 0; i < PINS; i++)
		pin_eoi(a, i, vector);
	pthread_mutex_unlock(&a->lock);
}

/* ---- registers */

static uint32_t ioapic_register(const struct ioapic *a)
{
	unsigned i = a->hw.select;

	if (i == 0 || i == 2)
		return (uint32_t)a->hw.id << 24;
	if (i == 1)
		return (PINS - 1) << 16 | 0x20;
	if (i >= 0x10 && i < 0x10 + 2 * PINS)
		return (uint32_t)(a->hw.entry[(i - 0x10) / 2] >> (i & 1) * 32);
	return 0;
}

static void entry_write(struct ioapic *a, unsigned pin, unsigned high, uint32_t value)
{
	uint64_t old = a->hw.entry[pin], mask = (high ? ~0ull << 32 : 0xffffffffull) & ENTRY_WRITABLE;
	uint64_t e = (old & ~mask) | ((uint64_t)value << high * 32 & mask);

	if (!(e & ENTRY_LEVEL)) /* how Linux ends a level interrupt of parts without the EOI register */
		e &= ~ENTRY_REMOTE_IRR;
	a->hw.entry[pin] = e;
	pin_publish(a, pin);
	if (e & ENTRY_LEVEL && a->hw.lines & BIT(pin))
		pin_deliver(a, pin);
}

static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ioapic *a = opaque;
	uint64_t v = 0;

	pthread_mutex_lock(&a->lock);
	if (offset == 0)
		v = a->hw.select;
	else if (offset == 0x10)
		v = ioapic_register(a);
	pthread_mutex_unlock(&a->lock);
	return v;
}

static void ioapic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ioapic *a = opaque;
	unsigned i;

	pthread_mutex_lock(&a->lock);
	i = a->hw.select;
	if (offset == 0)
		a->hw.select = (uint8_t)value;
	else if (offset == 0x10 && i == 0)
		a->hw.id = (value >> 24) & 15;
	else if (offset == 0x10 && i >= 0x10 && i < 0x10 + 2 * PINS)
		entry_write(a, (i - 0x10) / 2, i & 1, (uint32_t)value);
	else if (offset == 0x40)
		for (i = 0; i < PINS; i++)
			pin_eoi(a, i, (uint8_t)value);
	pthread_mutex_unlock(&a->lock);
}

static const struct io_ops ioapic_io = { ioapic_read, ioapic_write, 4, 4 };

/* ---- the device */

static int ioapic_check(const void *opaque, struct err *e)
{
	const struct ioapic_hw *hw = opaque;

	if (hw->lines >> PINS || hw->id > 15)
		return err_set(e, EINVAL, "ioapic: impossible id or lines");
	for (unsigned i = 0; i < PINS; i++)
		if (hw->entry[i] & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR) ||
		    (hw->entry[i] & (ENTRY_REMOTE_IRR | ENTRY_LEVEL)) == ENTRY_REMOTE_IRR)
			return err_set(e, EINVAL, "ioapic: entry %u is impossible", i);
	return 0;
}

static const struct state_field fields[] = {
	STATE_INTS(struct ioapic_hw, entry),
	STATE_INT(struct ioapic_hw, lines),
	STATE_INT(struct ioapic_hw, select),
	STATE_INT(struct ioapic_hw, id),
};

static const struct state_desc ioapic_state = {
	.name = "ioapic", .version = 1, .size = sizeof(struct ioapic_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = ioapic_check,
};

/* The wires are driven by others, who reset themselves; their state stays. */
static void ioapic_reset(struct device *d, enum reset_kind kind)
{
	struct ioapic *a = container_of(d, struct ioapic, device);

	pthread_mutex_lock(&a->lock);
	for (unsigned i = 0; i < PINS; i++)
		a->hw.entry[i] = ENTRY_MASKED;
	for (unsigned i = 0; i < PINS; i++)
		pin_publish(a, i);
	a->hw.select = a->hw.id = 0;
	pthread_mutex_unlock(&a->lock);
}

static void ioapic_loaded(struct device *d)
{
	struct ioapic *a = container_of(d, struct ioapic, device);

	pthread_mutex_lock(&a->lock);
	for (unsigned i = 0; i < PINS; i++)
		pin_publish(a, i);
	pthread_mutex_unlock(&a->lock);
}

static void ioapic_destroy(struct device *d)
{
	struct ioapic *a = container_of(d, struct ioapic, device);

	pthread_mutex_destroy(&a->lock);
	free(a);
}

static const struct device_ops ioapic_ops = {
	.state = &ioapic_state,
	.reset = ioapic_reset,
	.loaded = ioapic_loaded,
	.destroy = ioapic_destroy,
};

struct device *ioapic_create(struct device_env *env, struct lapic_bus *bus, struct err *e)
{
	struct ioapic *a = calloc(1, sizeof(*a));

	if (!a) {
		err_set(e, ENOMEM, "no memory for the IOAPIC");
		return NULL;
	}
	a->device = (struct device){ .ops = &ioapic_ops, .hw = &a->hw };
	a->bus = bus;
	pthread_mutex_init(&a->lock, NULL);
	ioapic_reset(&a->device, RESET_COLD);
	if (mem_map_io(env->mem, IOAPIC_BASE, 4096, &ioapic_io, a, "ioapic", e)) {
		ioapic_destroy(&a->device);
		return NULL;
	}
	return &a->device;
}

struct irq_line ioapic_input(struct device *d, unsigned pin)
{
	CHECK(pin < PINS);
	return (struct irq_line){ ioapic_set, container_of(d, struct ioapic, device), pin };
}
