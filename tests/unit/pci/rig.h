/* SPDX-License-Identifier: Apache-2.0 */
/* A bus with nothing around it: memory, ports, wires and messages that are watched. Include after cmocka.h. */
#ifndef TEST_PCI_RIG_H
#define TEST_PCI_RIG_H

#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "pci/chipset.h"
#include "pci/regs.h"
#include "../state/roundtrip.h"

#define RIG_RAM (4ull << 20)
#define RIG_WIRES 64

struct rig {
	struct device_env env;
	struct pci_bus *bus;
	struct device *devices[64];
	unsigned ndevices;
	int level[RIG_WIRES];
	unsigned edges[RIG_WIRES];
	uint64_t msi_address;
	uint32_t msi_data;
	unsigned msis;
};

static inline void rig_wire(void *opaque, unsigned pin, int level)
{
	struct rig *r = opaque;

	r->edges[pin] += level && !r->level[pin];
	r->level[pin] = level;
}

static inline struct irq_line rig_line(struct rig *r, unsigned pin)
{
	return (struct irq_line){ rig_wire, r, pin };
}

static inline void rig_msi(void *opaque, uint64_t address, uint32_t data)
{
	struct rig *r = opaque;

	r->msi_address = address;
	r->msi_data = data;
	r->msis++;
}

static inline void rig_add(void *opaque, struct device *d)
{
	struct rig *r = opaque;

	assert_true(r->ndevices < 64);
	r->devices[r->ndevices++] = d;
}

static inline void rig_open(struct rig *r)
{
	struct pci_bus_config c = { .msi = rig_msi, .add = rig_add, .opaque = r, .low_start = RIG_RAM,
				    .low_end = 0xfec00000, .assign_start = 0xc0000000, .high_start = 1ull << 32,
				    .high_end = 1ull << 36 };
	struct err e;

	memset(r, 0, sizeof(*r));
	r->env.mem = mem_create(RIG_RAM, &e);
	r->env.ports = ports_create();
	r->env.clock = clock_create_manual();
	assert_non_null(r->env.mem);
	assert_int_equal(mem_map_ram(r->env.mem, 0, 0, RIG_RAM, "ram", &e), 0);
	c.env = r->env;
	r->bus = pci_bus_create(&c, &e);
	assert_non_null(r->bus);
	rig_add(r, pci_bus_device(r->bus));
	for (unsigned n = 0; n < 4; n++)
		pci_bus_set_pirq(r->bus, n, rig_line(r, n));
}

static inline void rig_reset(struct rig *r)
{
	for (unsigned i = 0; i < r->ndevices; i++)
		if (r->devices[i]->ops->reset)
			r->devices[i]->ops->reset(r->devices[i], RESET_WARM);
}

static inline void rig_close(struct rig *r)
{
	while (r->ndevices) {
		struct device *d = r->devices[--r->ndevices];

		if (d->ops->destroy)
			d->ops->destroy(d);
	}
	clock_destroy(r->env.clock);
	ports_destroy(r->env.ports);
	mem_destroy(r->env.mem);
}

static inline void rig_roundtrip(struct rig *r)
{
	for (unsigned i = 0; i < r->ndevices; i++)
		if (r->devices[i]->ops->state)
			device_roundtrip(r->devices[i]);
}

/* Configuration by ports, as a guest does it. */
static inline uint32_t cfg_read(struct rig *r, unsigned devfn, unsigned at, unsigned size)
{
	ports_out(r->env.ports, 0xcf8, 0x80000000u | devfn << 8 | (at & 0xfc), 4);
	return ports_in(r->env.ports, (uint16_t)(0xcfc + (at & 3)), size);
}

static inline void cfg_write(struct rig *r, unsigned devfn, unsigned at, uint32_t v, unsigned size)
{
	ports_out(r->env.ports, 0xcf8, 0x80000000u | devfn << 8 | (at & 0xfc), 4);
	ports_out(r->env.ports, (uint16_t)(0xcfc + (at & 3)), v, size);
}

static inline uint32_t rig_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

#endif
