/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the room. */
#ifndef PCI_PRIVATE_H
#define PCI_PRIVATE_H

#include "base/err.h"
#include "pci/pci.h"
#include "pci/regs.h"

struct pci_bus_hw {
	uint32_t address; /* 0xcf8 */
};

struct pci_bus {
	struct device device;
	struct pci_bus_hw hw;
	struct pci_bus_config config;
	struct pci_function *function[256];
	struct stop_work remap;
	pthread_mutex_t lock;      /* configuration space */
	pthread_mutex_t wire_lock; /* taken last: what follows */
	struct irq_line pirq[4];
	unsigned pirq_count[4]; /* functions driving it */
};

static inline uint16_t config16(const struct pci_function *f, unsigned at)
{
	return (uint16_t)(f->hw.config[at] | f->hw.config[at + 1] << 8);
}
static inline uint32_t config32(const struct pci_function *f, unsigned at)
{
	return config16(f, at) | (uint32_t)config16(f, at + 2) << 16;
}

/* bar.c: where a BAR (or the ROM) is to show by its registers; ~0: nowhere */
#define PCI_UNMAPPED UINT64_MAX
bool pci_bars_moved(const struct pci_bus *b, const struct pci_function *f);
void pci_bars_remap(struct pci_bus *b, struct pci_function *f); /* CPUs stopped */

/* function.c */
void pci_function_write(struct pci_function *f, unsigned at, uint32_t value, unsigned size);
void pci_function_reset(struct pci_function *f);
void pci_function_loaded(struct pci_function *f); /* hw has been replaced, by untrusted bytes */

/* msi.c */
extern const struct io_ops pci_msix_io;
void pci_msix_reset(struct pci_function *f);
void pci_msix_flush(struct pci_function *f); /* what is pending and no longer masked goes */
void pci_intx_update(struct pci_function *f);

#endif
