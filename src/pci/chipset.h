/* SPDX-License-Identifier: Apache-2.0 */
/* The chipset: i440FX host bridge, PIIX3 ISA bridge, PIIX4 power management. For the board. */
#ifndef PCI_CHIPSET_H
#define PCI_CHIPSET_H

#include "pci/pci.h"

/*
 * Host bridge at 00.0. The RAM from 0xc0000 to 0xfffff is mapped by the board; the bridge hides what its PAM registers close.
 * rom_offset: RAM offset of the firmware's last 128 KiB, which show from 0xe0000 on where RAM does not; ~0: none.
 */
struct device *i440fx_create(struct pci_bus *bus, struct mem *mem, uint64_t rom_offset, struct err *e);
/* All of the shadow RAM readable and writable, as firmware-less boot wants it. All CPUs are stopped. */
void i440fx_open_shadow(struct device *d);

struct piix_config {
	/* ISA interrupt `irq` as PIRQ n drives it */
	void (*isa)(void *opaque, unsigned irq, unsigned n, int level);
	void *opaque;
	struct irq_line direct[4]; /* where PIRQ n also goes: IOAPIC pins 16 to 19 */
	/* The power management block's ports have moved to base (0: switched off). All CPUs are stopped. */
	void (*pm_moved)(void *opaque, uint16_t base);
	uint16_t pm_base; /* where it is after reset */
};
/* ISA bridge at 01.0 and power management at 01.3. */
struct device *piix_create(struct pci_bus *bus, struct device_env *env, const struct piix_config *config,
			   struct err *e);
/* The ISA interrupts PIRQ A to D lead to; 0: none. */
void piix_routing(struct device *d, uint8_t irq[4]);
uint16_t piix_pm_base(struct device *d); /* 0: switched off */
/* Route them as firmware does, before an operating system that found none. All CPUs are stopped. */
void piix_set_routing(struct device *d, const uint8_t irq[4]);

#endif
