/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI functions as devices see them. A model's struct embeds a `struct pci_function`: its configuration space, base
 * addresses and capabilities, saved and reset by this room as a device of its own ("pci", instance devfn).
 * The model says what it is, adds its BARs and capabilities, and is then attached to the bus.
 *
 * Locking: configuration accesses are serialised by the bus; the map of memory and ports is changed only while the
 * machine's CPUs are stopped at an instruction boundary, which the bus sees to. BAR accesses come from any vCPU
 * thread, to the model's own io_ops. Interrupts may be raised from any thread.
 */
#ifndef PCI_PCI_H
#define PCI_PCI_H

#include "dev/device.h"

struct err;
struct pci_bus;
struct pci_function;

#define PCI_DEVFN(slot, function) ((slot) << 3 | (function))
#define PCI_BARS 6

enum pci_bar_kind {
	PCI_BAR_IO,
	PCI_BAR_MEM32,
	PCI_BAR_MEM32_PREFETCH,
	PCI_BAR_MEM64,
	PCI_BAR_MEM64_PREFETCH,
};

struct pci_identity {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_code; /* 24 bits: class, subclass, interface */
	uint8_t revision;
	uint8_t pin; /* 0: no INTx, 1..4: INTA..INTD */
};

struct pci_ops {
	/*
	 * Configuration bytes [offset, +size) the guest has written, beyond what this room does itself; the new value is in
	 * hw.config. May be NULL.
	 */
	void (*config_written)(void *opaque, unsigned offset, unsigned size);
	void (*reset)(void *opaque); /* of the function through the bus; may be NULL */
};

struct pci_hw {
	uint8_t config[256];
	uint8_t msix_table[2048]; /* 128 vectors; mirrored in the BAR that holds it */
	uint8_t msix_pending[16];
	uint8_t intx_level;
};

struct pci_bar {
	enum pci_bar_kind kind;
	uint64_t size; /* a power of two; 0: not there */
	const struct io_ops *ops;
	void *opaque;
	const char *name;
	uint64_t mapped_at; /* ~0: not mapped */
	bool is_ram;
	uint64_t ram_offset;
};

struct pci_function {
	struct device dev;
	struct pci_hw hw;
	/* host side */
	struct pci_bus *bus;
	const struct pci_ops *ops;
	void *opaque;
	unsigned devfn;
	uint8_t writable[256]; /* bits of config the guest may change */
	uint8_t write_clear[256]; /* bits it clears by writing ones */
	struct pci_bar bar[PCI_BARS];
	struct pci_bar rom;
	unsigned cap_end; /* where the next capability goes */
	unsigned msi_cap, msix_cap, msix_vectors, msix_bar;
	uint32_t msix_offset, msix_pba_offset; /* within that BAR */
};

/* Building; before pci_attach. */
void pci_function_init(struct pci_function *f, const struct pci_identity *id, const struct pci_ops *ops, void *opaque);
void pci_add_bar(struct pci_function *f, unsigned bar, enum pci_bar_kind kind, uint64_t size, const struct io_ops *ops,
		 void *opaque, const char *name);
/* A BAR that is plain memory (a frame buffer): host address in *host, its pages tracked like RAM's. */
int pci_add_ram_bar(struct pci_function *f, unsigned bar, struct mem *mem, uint64_t size, const char *name,
		    uint8_t **host, struct err *e);
/* Offset of a new capability of `len` bytes (id and next pointer are filled in); 0: no room. Read-only until made writable. */
unsigned pci_add_capability(struct pci_function *f, uint8_t id, unsigned len);
int pci_add_msi(struct pci_function *f, unsigned vectors, struct err *e);
/* The vector table and pending bits occupy [offset, +vectors*16) and what follows of BAR `bar`; the bus answers there. */
int pci_add_msix(struct pci_function *f, unsigned vectors, unsigned bar, uint32_t offset, struct err *e);
int pci_add_rom(struct pci_function *f, const void *data, uint64_t size, const char *name, struct err *e);

/* devfn, or -1 for the next free slot. The function's saved state is added to the machine's devices. */
int pci_attach(struct pci_bus *bus, struct pci_function *f, int devfn, struct err *e);

/* Interrupts. With MSI-X or MSI enabled by the guest the message is sent, otherwise nothing (msi) or the wire moves (intx). */
void pci_set_intx(struct pci_function *f, int level);
bool pci_msix_enabled(const struct pci_function *f);
bool pci_msi_enabled(const struct pci_function *f);
void pci_msix_notify(struct pci_function *f, unsigned vector); /* masked: remembered as pending */
void pci_msi_notify(struct pci_function *f, unsigned vector);

/* DMA as the function does it: -EFAULT without bus mastering or outside RAM. */
int pci_dma_read(struct pci_function *f, gpa_t at, void *buf, uint64_t len);
int pci_dma_write(struct pci_function *f, gpa_t at, const void *buf, uint64_t len);

#endif
