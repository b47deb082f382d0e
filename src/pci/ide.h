/* SPDX-License-Identifier: Apache-2.0 */
/* The PIIX3's IDE controller with up to four drives: disks and CD-ROM drives. For the board. */
#ifndef PCI_IDE_H
#define PCI_IDE_H

#include "pci/pci.h"

struct block;

struct ide_drive_config {
	bool present, cdrom;
	struct block *block; /* the caller's; NULL: an empty CD-ROM drive */
	char serial[21];
};

/* Function 01.1; drive[2 * channel + unit]; irq: of the two channels. */
struct device *ide_create(struct pci_bus *bus, struct device_env *env, const struct ide_drive_config drive[4],
			  const struct irq_line irq[2], struct err *e);
/*
 * Another medium for a CD-ROM drive, or none. Waits until the old one is at rest; the old one is the caller's again then. Not
 * on a vCPU's thread. -ENODEV: no such drive; -EBUSY: the guest has locked it, and `force` is not set.
 */
int ide_change_medium(struct device *d, unsigned drive, struct block *block, bool force);

#endif
