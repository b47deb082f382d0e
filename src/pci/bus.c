/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI bus 0: configuration mechanism 1 (ports 0xcf8 and 0xcfc), the functions on it, and the four wires. Every function
 * is also a device of the machine ("pci", instance devfn), which saves and resets its configuration space.
 *
 * b->lock serialises configuration accesses and the remapping that follows them; b->wire_lock is taken last.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pci/private.h"

#define ADDRESS_ENABLE BIT(31)
#define ADDRESS_WRITABLE 0x80fffffcu

/* A function as a device of the machine; outlives the model that embeds the function. */
struct slot {
	struct device device;
	struct pci_function *f;
};

/* ---- configuration accesses */

uint32_t pci_config_read(struct pci_bus *b, unsigned devfn, unsigned offset, unsigned size)
{
	struct pci_function *f;
	uint32_t v = ~0u;

	CHECK(devfn < 256 && range_fits(offset, size, 256));
	pthread_mutex_lock(&b->lock);
	f = b->function[devfn];
	if (f) {
		v = 0;
		if (f->ops && f->ops->config_read)
			f->ops->config_read(f->opaque, offset, size);
		for (unsigned i = 0; i < size; i++) {
			uint8_t byte = f->hw.config[offset + i];

			if (offset + i == PCI_STATUS && __atomic_load_n(&f->hw.intx_level, __ATOMIC_RELAXED))
				byte |= PCI_STATUS_INTX;
			v |= (uint32_t)byte << 8 * i;
		}
	}
	pthread_mutex_unlock(&b->lock);
	return v;
}

void pci_config_write(struct pci_bus *b, unsigned devfn, unsigned offset, uint32_t value, unsigned size)
{
	CHECK(devfn < 256 && range_fits(offset, size, 256));
	pthread_mutex_lock(&b->lock);
	if (b->function[devfn])
		pci_function_write(b->function[devfn], offset, value, size);
	pthread_mutex_unlock(&b->lock);
}

static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_bus *b = opaque;

	if (offset == 0 && size == 4)
		return __atomic_load_n(&b->hw.address, __ATOMIC_RELAXED);
	return b->config.other_ops ? b->config.other_ops->read(b->config.other_opaque, offset, size) : ~0ull;
}

static void address_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_bus *b = opaque;

	if (offset == 0 && size == 4)
		__atomic_store_n(&b->hw.address, (uint32_t)value & ADDRESS_WRITABLE, __ATOMIC_RELAXED);
	else if (b->config.other_ops)
		b->config.other_ops->write(b->config.other_opaque, offset, value, size);
}

/* Where the data ports lead: nowhere unless enabled and on bus 0. */
static bool data_target(const struct pci_bus *b, uint64_t offset, unsigned *devfn, unsigned *at)
{
	uint32_t address = __atomic_load_n(&b->hw.address, __ATOMIC_RELAXED);

	*devfn = address >> 8 & 0xff;
	*at = (address & 0xfc) | (unsigned)offset;
	return address & ADDRESS_ENABLE && !(address >> 16 & 0xff);
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	unsigned devfn, at;

	if (!data_target(opaque, offset, &devfn, &at) || size > 4 - offset)
		return ~0ull;
	return pci_config_read(opaque, devfn, at, size);
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	unsigned devfn, at;

	if (data_target(opaque, offset, &devfn, &at) && size <= 4 - offset)
		pci_config_write(opaque, devfn, at, (uint32_t)value, size);
}

static const struct io_ops address_io = { address_read, address_write, 1, 4 };
static const struct io_ops data_io = { data_read, data_write, 1, 4 };

/* ---- mapping */

static void bus_remap(void *opaque)
{
	struct pci_bus *b = opaque;

	pthread_mutex_lock(&b->lock);
	for (unsigned d = 0; d < 256; d++) {
		struct pci_function *f = b->function[d];

		if (!f)
			continue;
		pci_bars_remap(b, f);
		if (f->ops && f->ops->mapping)
			f->ops->mapping(f->opaque);
	}
	pthread_mutex_unlock(&b->lock);
}

void pci_request_mapping(struct pci_function *f)
{
	env_stopped(&f->bus->config.env, &f->bus->remap);
}

/* ---- functions */

static const struct state_field function_fields[] = {
	STATE_RAW(struct pci_hw, config),
	STATE_RAW(struct pci_hw, msix_table),
	STATE_RAW(struct pci_hw, msix_pending),
	STATE_INT(struct pci_hw, intx_level),
};

static const struct state_desc function_state = {
	.name = "pci", .version = 1, .size = sizeof(struct pci_hw),
	.fields = function_fields, .nfields = ARRAY_LEN(function_fields),
};

static void slot_reset(struct device *d, enum reset_kind kind)
{
	struct slot *s = container_of(d, struct slot, device);

	pci_function_reset(s->f);
}

static void slot_loaded(struct device *d)
{
	struct slot *s = container_of(d, struct slot, device);

	pci_function_loaded(s->f);
}

static void slot_destroy(struct device *d)
{
	free(container_of(d, struct slot, device));
}

static const struct device_ops slot_ops = {
	.state = &function_state,
	.reset = slot_reset,
	.loaded = slot_loaded,
	.destroy = slot_destroy,
};

static int free_slot(const struct pci_bus *b)
{
	for (unsigned slot = 2; slot < 32; slot++) {
		bool taken = b->config.reserved & BIT(slot);

		for (unsigned f = 0; f < 8; f++)
			taken |= b->function[PCI_DEVFN(slot, f)] != NULL;
		if (!taken)
			return (int)PCI_DEVFN(slot, 0);
	}
	return -1;
}

int pci_bus_free_slot(const struct pci_bus *b)
{
	int devfn = free_slot(b);

	return devfn < 0 ? -1 : devfn >> 3;
}

void pci_bus_reserve(struct pci_bus *b, unsigned slot)
{
	b->config.reserved |= (uint32_t)BIT(slot & 31);
}

static void name_bars(struct pci_function *f)
{
	for (unsigned n = 0; n < PCI_BARS; n++)
		snprintf(f->bar[n].unique, sizeof(f->bar[n].unique), "%.20s.%02x.%u.%u",
			 f->bar[n].name ? f->bar[n].name : "bar", f->devfn >> 3, f->devfn & 7, n);
	snprintf(f->rom.unique, sizeof(f->rom.unique), "rom.%02x.%u", f->devfn >> 3, f->devfn & 7);
	snprintf(f->msix_name, sizeof(f->msix_name), "msix.%02x.%u", f->devfn >> 3, f->devfn & 7);
}

int pci_attach(struct pci_bus *b, struct pci_function *f, int devfn, struct err *e)
{
	struct slot *s;

	if (devfn < 0)
		devfn = free_slot(b);
	if (devfn < 0 || devfn > 255)
		return err_set(e, ENOSPC, "there is no free PCI slot");
	if (b->function[devfn])
		return err_set(e, EBUSY, "PCI slot %02x.%d is taken", devfn >> 3, devfn & 7);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, ENOMEM, "no memory for a PCI function");
	s->f = f;
	s->device = (struct device){ .ops = &slot_ops, .instance = (unsigned)devfn, .hw = &f->hw };
	f->bus = b;
	f->slot = &s->device;
	f->devfn = (unsigned)devfn;
	/* a slot of several functions says so in its first */
	if (devfn & 7 && b->function[devfn & ~7]) {
		b->function[devfn & ~7]->hw.config[PCI_HEADER_TYPE] |= 0x80;
		b->function[devfn & ~7]->initial[PCI_HEADER_TYPE] |= 0x80;
	}
	name_bars(f);
	memcpy(f->initial, f->hw.config, sizeof(f->initial));
	pthread_mutex_lock(&b->lock);
	b->function[devfn] = f;
	pthread_mutex_unlock(&b->lock);
	b->config.add(b->config.opaque, &s->device);
	return 0;
}

void pci_detach(struct pci_function *f)
{
	struct pci_bus *b = f->bus;
	struct device *d = f->slot;

	pthread_mutex_lock(&b->lock);
	pci_function_reset(f); /* no BAR shows after that, no wire is driven */
	b->function[f->devfn] = NULL;
	f->slot = NULL;
	f->bus = NULL; /* it may outlive the bus */
	pthread_mutex_unlock(&b->lock);
	b->config.remove(b->config.opaque, d);
	slot_destroy(d);
}

struct pci_function *pci_bus_function(struct pci_bus *b, unsigned devfn)
{
	return devfn < 256 ? b->function[devfn] : NULL;
}

void pci_bus_set_pirq(struct pci_bus *b, unsigned n, struct irq_line line)
{
	b->pirq[n & 3] = line;
}

/* ---- the device */

static int bus_check(const void *hw, struct err *e)
{
	return ((const struct pci_bus_hw *)hw)->address & ~ADDRESS_WRITABLE ?
		       err_set(e, EINVAL, "pci-bus: reserved bits set") :
		       0;
}

static const struct state_field bus_fields[] = { STATE_INT(struct pci_bus_hw, address) };

static const struct state_desc bus_state = {
	.name = "pci-bus", .version = 1, .size = sizeof(struct pci_bus_hw),
	.fields = bus_fields, .nfields = ARRAY_LEN(bus_fields), .check = bus_check,
};

static void bus_reset(struct device *d, enum reset_kind kind)
{
	container_of(d, struct pci_bus, device)->hw.address = 0;
}

static void bus_destroy(struct device *d)
{
	struct pci_bus *b = container_of(d, struct pci_bus, device);

	pthread_mutex_destroy(&b->lock);
	pthread_mutex_destroy(&b->wire_lock);
	free(b);
}

static const struct device_ops bus_ops = { .state = &bus_state, .reset = bus_reset, .destroy = bus_destroy };

struct device *pci_bus_device(struct pci_bus *b)
{
	return &b->device;
}

struct pci_bus *pci_bus_create(const struct pci_bus_config *config, struct err *e)
{
	struct pci_bus *b = calloc(1, sizeof(*b));
	pthread_mutexattr_t attr;

	if (!b) {
		err_set(e, ENOMEM, "no memory for the PCI bus");
		return NULL;
	}
	b->device = (struct device){ .ops = &bus_ops, .hw = &b->hw };
	b->config = *config;
	b->remap = (struct stop_work){ .fn = bus_remap, .opaque = b };
	/* recursive: on a machine that does not run yet the remapping is done from within the access that asks for it */
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&b->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	pthread_mutex_init(&b->wire_lock, NULL);
	if (ports_map(config->env.ports, 0xcf8, 4, &address_io, b, "pci-address", e) ||
	    ports_map(config->env.ports, 0xcfc, 4, &data_io, b, "pci-data", e)) {
		bus_destroy(&b->device);
		return NULL;
	}
	return b;
}
