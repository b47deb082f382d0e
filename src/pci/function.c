/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A function's configuration space: which bits the guest may write, and what happens when it does. hw.config is the
 * truth; mappings and wires are derived from it, so that saving it is enough.
 */
#include <errno.h>
#include <string.h>
#include "pci/private.h"

void pci_set_register(struct pci_function *f, unsigned offset, unsigned size, uint32_t value, uint32_t writable)
{
	for (unsigned i = 0; i < size; i++) {
		f->hw.config[offset + i] = (uint8_t)(value >> 8 * i);
		f->writable[offset + i] = (uint8_t)(writable >> 8 * i);
	}
}

void pci_function_init(struct pci_function *f, const struct pci_identity *id, const struct pci_ops *ops, void *opaque)
{
	memset(f, 0, sizeof(*f));
	f->ops = ops;
	f->opaque = opaque;
	f->cap_end = PCI_HEADER_SIZE;
	f->msix_mapped_at = f->rom.mapped_at = PCI_UNMAPPED;
	for (unsigned i = 0; i < PCI_BARS; i++)
		f->bar[i].mapped_at = PCI_UNMAPPED;
	pthread_mutex_init(&f->lock, NULL);
	pci_set_register(f, PCI_VENDOR, 2, id->vendor, 0);
	pci_set_register(f, PCI_DEVICE, 2, id->device, 0);
	/* decoding is made writable with the first BAR of its kind */
	pci_set_register(f, PCI_COMMAND, 2, 0, PCI_COMMAND_MASTER | PCI_COMMAND_INTX_OFF | 0x140);
	pci_set_register(f, PCI_REVISION, 4, id->class_code << 8 | id->revision, 0);
	pci_set_register(f, 0x0c, 2, 0, 0xff); /* cache line size */
	pci_set_register(f, PCI_SUBSYSTEM_VENDOR, 2, id->subsystem_vendor, 0);
	pci_set_register(f, PCI_SUBSYSTEM, 2, id->subsystem, 0);
	pci_set_register(f, PCI_INTERRUPT_LINE, 2, (uint32_t)id->pin << 8, 0xff);
	f->write_clear[PCI_STATUS + 1] = 0xf9;
}

void pci_function_dispose(struct pci_function *f)
{
	if (f->bus && f->bus->function[f->devfn] == f)
		f->bus->function[f->devfn] = NULL;
	pthread_mutex_destroy(&f->lock);
}

unsigned pci_add_capability(struct pci_function *f, uint8_t id, unsigned len)
{
	unsigned at = f->cap_end;

	if (len < 2 || len > 256 - at)
		return 0;
	f->hw.config[at] = id;
	f->hw.config[at + 1] = f->hw.config[PCI_CAPABILITIES];
	f->hw.config[PCI_CAPABILITIES] = (uint8_t)at;
	f->hw.config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
	f->cap_end = (at + len + 3) & ~3u;
	return at;
}

static bool overlaps(unsigned at, unsigned size, unsigned first, unsigned count)
{
	return at < first + count && first < at + size;
}

/* A guest's write; the bus's lock is held. */
void pci_function_write(struct pci_function *f, unsigned at, uint32_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++) {
		uint8_t *c = &f->hw.config[at + i], v = (uint8_t)(value >> 8 * i), w = f->writable[at + i];

		*c = (uint8_t)(((*c & ~w) | (v & w)) & ~(v & f->write_clear[at + i]));
	}
	if (overlaps(at, size, PCI_COMMAND, 2) || (f->msi_cap && overlaps(at, size, f->msi_cap, 4)) ||
	    (f->msix_cap && overlaps(at, size, f->msix_cap, 4))) {
		pci_intx_update(f);
		pci_msix_flush(f);
	}
	if (overlaps(at, size, 0, PCI_HEADER_SIZE) && pci_bars_moved(f->bus, f))
		pci_request_mapping(f);
	if (f->ops && f->ops->config_written)
		f->ops->config_written(f->opaque, at, size);
}

void pci_function_reset(struct pci_function *f)
{
	memcpy(f->hw.config, f->initial, sizeof(f->hw.config));
	f->hw.intx_level = 0;
	pci_msix_reset(f);
	pci_intx_update(f);
	if (f->ops && f->ops->reset)
		f->ops->reset(f->opaque);
	pci_bars_remap(f->bus, f);
	if (f->ops && f->ops->mapping)
		f->ops->mapping(f->opaque);
}

/* What the guest could not have written is as it was made, whatever the stream says. */
void pci_function_loaded(struct pci_function *f)
{
	for (unsigned i = 0; i < PCI_HEADER_SIZE; i++)
		f->hw.config[i] = (uint8_t)((f->hw.config[i] & (f->writable[i] | f->write_clear[i])) |
					    (f->initial[i] & ~(f->writable[i] | f->write_clear[i])));
	f->hw.intx_level = !!f->hw.intx_level;
	pci_intx_update(f);
	pci_bars_remap(f->bus, f);
	if (f->ops && f->ops->mapping)
		f->ops->mapping(f->opaque);
}

int pci_dma_read(struct pci_function *f, gpa_t at, void *buf, uint64_t len)
{
	if (!(f->hw.config[PCI_COMMAND] & PCI_COMMAND_MASTER))
		return -EFAULT;
	return mem_dma_read(f->bus->config.env.mem, at, buf, len);
}

int pci_dma_write(struct pci_function *f, gpa_t at, const void *buf, uint64_t len)
{
	if (!(f->hw.config[PCI_COMMAND] & PCI_COMMAND_MASTER))
		return -EFAULT;
	return mem_dma_write(f->bus->config.env.mem, at, buf, len);
}

int pci_dma_map(struct pci_function *f, gpa_t at, uint64_t len, struct iovec *iov, unsigned max)
{
	if (!(f->hw.config[PCI_COMMAND] & PCI_COMMAND_MASTER))
		return -EFAULT;
	return mem_dma_map(f->bus->config.env.mem, at, len, iov, max);
}
