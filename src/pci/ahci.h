/* SPDX-License-Identifier: Apache-2.0 */
/* An AHCI controller (as in the ICH9) with up to six disks and CD-ROM drives. For the board. */
#ifndef PCI_AHCI_H
#define PCI_AHCI_H

#include "pci/pci.h"

struct block;

#define AHCI_PORTS 6

struct ahci_drive_config {
	bool present, cdrom;
	struct block *block; /* the caller's; NULL: an empty CD-ROM drive */
	char serial[21];
};

/* slot: receives where it is on the bus. */
struct device *ahci_create(struct pci_bus *bus, struct device_env *env, const struct ahci_drive_config drive[AHCI_PORTS],
			   int *slot, struct err *e);
/* As ide_change_medium. */
int ahci_change_medium(struct device *d, unsigned port, struct block *block, bool force);

#endif
