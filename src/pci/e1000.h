/* SPDX-License-Identifier: Apache-2.0 */
/* Intel's 82540EM network card, for systems without virtio. For the board. */
#ifndef PCI_E1000_H
#define PCI_E1000_H

#include "pci/pci.h"

struct net_link;

/* devfn -1: the next free slot. The link is the caller's and outlives the device; its MAC goes into the EEPROM. */
struct device *e1000_create(struct pci_bus *bus, struct device_env *env, unsigned instance, int devfn, struct net_link *link,
			    struct err *e);

#endif
