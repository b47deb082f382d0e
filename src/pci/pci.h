/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI functions as devices see them. A model's struct embeds a `struct pci_function`: its configuration space, base
 * addresses and capabilities, saved and reset by this room as a device of its own ("pci", instance devfn).
 * The model says what it is, adds its BARs and capabilities, and is then attached to the bus.
 *
 * Locking: configuration accesses are serialised by the bus, callbacks included; the maps of memory and ports are
 * changed only while the machine's CPUs are stopped at an instruction boundary, which the bus sees to (env_stopped). BAR
 * accesses come from any vCPU thread, to the model's own io_ops. Interrupts may be raised from any thread, with the
 * model's own locks held: what they take here is taken last.
 */
#ifndef PCI_PCI_H
#define PCI_PCI_H

#include <pthread.h>
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
	/* The guest is about to read [offset, +size): what hw.config shows there can be made now. May be NULL. */
	void (*config_read)(void *opaque, unsigned offset, unsigned size);
	void (*reset)(void *opaque); /* of the function through the bus; may be NULL */
	/*
	 * All CPUs are stopped: mappings the function has beside its BARs follow its configuration. After every reset and load, and
	 * when pci_request_mapping asked for it. May be NULL.
	 */
	void (*mapping)(void *opaque);
};

struct pci_hw {
	uint8_t config[256];
	uint8_t msix_table[2048]; /* 128 vectors; mirrored in the BAR that holds it */
	uint8_t msix_pending[16];
	uint8_t intx_level;
};

#define PCI_MSIX_VECTORS 128

struct pci_bar {
	enum pci_bar_kind kind;
	uint64_t size; /* a power of two; 0: not there */
	const struct io_ops *ops;
	void *opaque;
	const char *name;
	uint64_t mapped_at; /* ~0: not mapped */
	bool is_ram, is_rom;
	uint64_t ram_offset;
	char unique[40]; /* the name it is mapped by */
};

struct pci_function {
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
	uint64_t msix_mapped_at;
	char msix_name[40];
	uint8_t initial[256]; /* after reset */
	pthread_mutex_t lock; /* the vector table and pending bits */
	struct device *slot; /* its saved state, on the machine's list; NULL: not attached */
	bool driving; /* the wire, at the moment; under the bus's lock for wires */
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
int pci_add_rom(struct pci_function *f, struct mem *mem, const void *data, uint64_t size, const char *name,
		struct err *e);

/* Bits of a configuration register the guest may change; `value` is what it holds after reset. */
void pci_set_register(struct pci_function *f, unsigned offset, unsigned size, uint32_t value, uint32_t writable);

/*
 * devfn, or -1 for the next free slot. The function's saved state is added to the machine's devices; the function itself
 * stays the model's, which frees it (pci_function_dispose first) whenever the machine is taken down.
 */
int pci_attach(struct pci_bus *bus, struct pci_function *f, int devfn, struct err *e);
/* Off the bus, with CPUs stopped: it is reset and shows nowhere any more, its saved state is off the machine's list. */
void pci_detach(struct pci_function *f);
void pci_function_dispose(struct pci_function *f);

/* Interrupts. With MSI-X or MSI enabled by the guest the message is sent, otherwise nothing (msi) or the wire moves (intx). */
void pci_set_intx(struct pci_function *f, int level);
bool pci_msix_enabled(const struct pci_function *f);
bool pci_msi_enabled(const struct pci_function *f);
void pci_msix_notify(struct pci_function *f, unsigned vector); /* masked: remembered as pending */
void pci_msi_notify(struct pci_function *f, unsigned vector);

/* ops->mapping is to be called as soon as the CPUs are stopped. */
void pci_request_mapping(struct pci_function *f);

/* DMA as the function does it: -EFAULT without bus mastering or outside RAM. */
int pci_dma_read(struct pci_function *f, gpa_t at, void *buf, uint64_t len);
int pci_dma_write(struct pci_function *f, gpa_t at, const void *buf, uint64_t len);
/* The guest's memory itself: mem_dma_map and what it says there. -EFAULT without bus mastering, too. */
struct iovec;
int pci_dma_map(struct pci_function *f, gpa_t at, uint64_t len, struct iovec *iov, unsigned max);

/* ---- the bus: for the board */

struct pci_bus_config {
	struct device_env env;
	void (*msi)(void *opaque, uint64_t address, uint32_t data);
	void (*add)(void *opaque, struct device *d); /* to the machine's list */
	void (*remove)(void *opaque, struct device *d); /* from it; NULL: nothing is ever detached */
	uint32_t reserved; /* slots that are only given to who asks for them */
	void *opaque;
	/* Accesses to 0xcf8..0xcfb that are not the address register's: the reset register's. May be NULL. */
	const struct io_ops *other_ops;
	void *other_opaque;
	/* Where memory BARs may show: [low_start, low_end) and [high_start, high_end). */
	uint64_t low_start, low_end, high_start, high_end;
	uint64_t assign_start; /* pci_bus_assign begins here in the low one */
};

/* Its device is the bus's: the machine's destruction ends it, after all functions if it was added before them. */
struct pci_bus *pci_bus_create(const struct pci_bus_config *config, struct err *e);
struct device *pci_bus_device(struct pci_bus *b);
void pci_bus_set_pirq(struct pci_bus *b, unsigned n, struct irq_line line); /* n: 0..3 */
/* Which of the four wires a function's pin (1..4) is on. */
static inline unsigned pci_pirq(unsigned slot, unsigned pin)
{
	return (slot + pin + 2) & 3;
}
/*
 * What firmware does for the others: give every BAR an address, switch decoding on, write interrupt lines (irq[pirq]). For
 * kernels that start without firmware; all CPUs are stopped.
 */
void pci_bus_assign(struct pci_bus *b, const uint8_t irq[4]);
/* The slot that devfn -1 would give now; -1: there is none. */
int pci_bus_free_slot(const struct pci_bus *b);
void pci_bus_reserve(struct pci_bus *b, unsigned slot); /* devfn -1 does not give it */
struct pci_function *pci_bus_function(struct pci_bus *b, unsigned devfn); /* NULL: nothing there */
/* Configuration accesses as the guest's: MMCONFIG, tests. size 1, 2, 4, within a double word. */
uint32_t pci_config_read(struct pci_bus *b, unsigned devfn, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *b, unsigned devfn, unsigned offset, uint32_t value, unsigned size);

#endif
