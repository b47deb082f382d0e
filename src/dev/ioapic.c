/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O APIC: 24 pins, each with an entry that says which vector goes where. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/pc-devices.h"

#define PINS 24
#define ADDRESS 0xfec00000ull
#define VERSION (0x20 | (PINS - 1) << 16)

#define ENTRY_DELIVERY(e) ((e) >> 8 & 7)
#define ENTRY_LOGICAL BIT(11)
#define ENTRY_LOW_ACTIVE BIT(13)
#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)
#define ENTRY_WRITABLE 0xff0000000001afffull

struct ioapic_hw { /* saved */
	uint64_t entry[PINS];
	uint32_t lines; /* levels of the wires */
	uint8_t select, id;
};

struct ioapic {
	struct device device;
	struct ioapic_hw hw;
	pthread_mutex_t lock;
	struct lapic_bus *bus;
	struct mem *mem;
};

static void send(struct ioapic *io, unsigned pin)
{
	uint64_t e = io->hw.entry[pin];
	struct lapic_msg m = {
		.dest = (uint32_t)(e >> 56),
		.vector = (uint8_t)e,
		.delivery = ENTRY_DELIVERY(e),
		.logical = e & ENTRY_LOGICAL,
		.level = e & ENTRY_LEVEL,
	};

	if (lapic_deliver(io->bus, &m) && (e & ENTRY_LEVEL))
		io->hw.entry[pin] |= ENTRY_REMOTE_IRR;
}

/* A level-triggered pin that is active, unmasked and not being served. */
static void serve_level(struct ioapic *io, unsigned pin)
{
	uint64_t e = io->hw.entry[pin];

	if ((e & ENTRY_LEVEL) && !(e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) && (io->hw.lines >> pin & 1))
		send(io, pin);
}

static void line_set(void *opaque, unsigned pin, int level)
{
	struct ioapic *io = opaque;
	uint32_t bit = 1u << pin;
	bool rose;

	pthread_mutex_lock(&io->lock);
	rose = level && !(io->hw.lines & bit);
	io->hw.lines = level ? io->hw.lines | bit : io->hw.lines & ~bit;
	if (io->hw.entry[pin] & ENTRY_LEVEL)
		serve_level(io, pin);
	else if (rose && !(io->hw.entry[pin] & ENTRY_MASKED))
		send(io, pin);
	pthread_mutex_unlock(&io->lock);
}

void ioapic_eoi(void *ioapic, uint8_t vector)
{
	struct ioapic *io = container_of((struct device *)ioapic, struct ioapic, device);

	pthread_mutex_lock(&io->lock);
	for (unsigned i = 0; i < PINS; i++) {
		if ((uint8_t)io->hw.entry[i] != vector || !(io->hw.entry[i] & ENTRY_REMOTE_IRR))
			continue;
		io->hw.entry[i] &= ~ENTRY_REMOTE_IRR;
		serve_level(io, i);
	}
	pthread_mutex_unlock(&io->lock);
}

static uint32_t reg_read(const struct ioapic *io)
{
	unsigned r = io->hw.select;

	if (r == 0 || r == 2)
		return (uint32_t)io->hw.id << 24;
	if (r == 1)
		return VERSION;
	if (r >= 0x10 && r < 0x10 + 2 * PINS)
		return (uint32_t)(io->hw.entry[(r - 0x10) / 2] >> (r & 1 ? 32 : 0));
	return 0;
}

static void entry_write(struct ioapic *io, unsigned pin, bool high, uint32_t v)
{
	uint64_t old = io->hw.entry[pin], e;

	e = high ? (old & 0xffffffff) | (uint64_t)v << 32 : (old & ~0xffffffffull) | v;
	e = (e & ENTRY_WRITABLE) | (old & ENTRY_REMOTE_IRR);
	if (!(e & ENTRY_LEVEL))
		e &= ~ENTRY_REMOTE_IRR; /* switching to edge and back is how systems clear it */
	io->hw.entry[pin] = e;
	serve_level(io, pin);
}

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ioapic *io = opaque;
	uint64_t v = 0;

	pthread_mutex_lock(&io->lock);
	if (offset == 0)
		v = io->hw.select;
	else if (offset == 0x10)
		v = reg_read(io);
	pthread_mutex_unlock(&io->lock);
	return v;
}

static void page_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct ioapic *io = opaque;
	unsigned r;

	pthread_mutex_lock(&io->lock);
	r = io->hw.select;
	if (offset == 0)
		io->hw.select = (uint8_t)value;
	else if (offset == 0x10 && r == 0)
		io->hw.id = value >> 24 & 0xf;
	else if (offset == 0x10 && r >= 0x10 && r < 0x10 + 2 * PINS)
		entry_write(io, (r - 0x10) / 2, r & 1, (uint32_t)value);
	pthread_mutex_unlock(&io->lock);
}

static const struct io_ops page_ops = { page_read, page_write, 4, 4 };

static const struct state_field fields[] = {
	STATE_INTS(struct ioapic_hw, entry), STATE_INT(struct ioapic_hw, lines),
	STATE_INT(struct ioapic_hw, select), STATE_INT(struct ioapic_hw, id),
};

static int check(const void *hw, struct err *e)
{
	const struct ioapic_hw *h = hw;

	for (unsigned i = 0; i < PINS; i++)
		if (h->entry[i] & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR))
			return err_set(e, EINVAL, "ioapic: entry %u has reserved bits", i);
	return h->lines >> PINS ? err_set(e, EINVAL, "ioapic: more lines than pins") : 0;
}

static const struct state_desc desc = {
	.name = "ioapic", .version = 1, .size = sizeof(struct ioapic_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = check,
};

static void reset(struct device *d, enum reset_kind kind)
{
	struct ioapic *io = container_of(d, struct ioapic, device);

	pthread_mutex_lock(&io->lock);
	for (unsigned i = 0; i < PINS; i++)
		io->hw.entry[i] = ENTRY_MASKED;
	io->hw.select = io->hw.id = 0;
	pthread_mutex_unlock(&io->lock);
}

static void destroy(struct device *d)
{
	struct ioapic *io = container_of(d, struct ioapic, device);

	mem_unmap(io->mem, ADDRESS, "ioapic");
	pthread_mutex_destroy(&io->lock);
	free(io);
}

static const struct device_ops ops = { .state = &desc, .reset = reset, .destroy = destroy };

struct device *ioapic_create(struct device_env *env, struct lapic_bus *bus, struct err *e)
{
	struct ioapic *io = calloc(1, sizeof(*io));

	if (!io) {
		err_set(e, ENOMEM, "no memory for the I/O APIC");
		return NULL;
	}
	io->device = (struct device){ .ops = &ops, .hw = &io->hw };
	io->bus = bus;
	io->mem = env->mem;
	pthread_mutex_init(&io->lock, NULL);
	if (mem_map_io(env->mem, ADDRESS, GUEST_PAGE, &page_ops, io, "ioapic", e)) {
		pthread_mutex_destroy(&io->lock);
		free(io);
		return NULL;
	}
	reset(&io->device, RESET_COLD);
	return &io->device;
}

struct irq_line ioapic_input(struct device *ioapic, unsigned pin)
{
	return (struct irq_line){ .set = line_set, .opaque = container_of(ioapic, struct ioapic, device), .pin = pin };
}
