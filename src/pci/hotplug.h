/* SPDX-License-Identifier: Apache-2.0 */
/* Cards that come and go while the machine runs: what the guest's ACPI looks at and writes to. For the board. */
#ifndef PCI_HOTPLUG_H
#define PCI_HOTPLUG_H

#include "pci/pci.h"

#define PCI_HOTPLUG_PORT 0xae00
#define PCI_HOTPLUG_PORTS 0x10

struct pci_hotplug_config {
	void (*event)(void *opaque);		     /* have the guest look; any thread, no lock held */
	void (*gone)(void *opaque, unsigned slot);  /* the guest has let go; all CPUs are stopped */
	void *opaque;
};
struct device *pci_hotplug_create(struct device_env *env, const struct pci_hotplug_config *config, struct err *e);
void pci_hotplug_came(struct device *d, unsigned slot); /* there is a card now */
void pci_hotplug_ask(struct device *d, unsigned slot);  /* the card there is wanted back; again as often as one likes */
/* The machine is reset, its devices are already: cards asked back go, guest or no guest. All CPUs are stopped. */
void pci_hotplug_machine_reset(struct device *d);

#endif
