/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts of a function: the wire, MSI (one 64-bit message, no masks) and MSI-X (a table and pending bits in a BAR).
 *
 * A message goes out with no lock held. f->lock covers table and pending bits: a masked vector's interrupt is remembered,
 * and sent by whoever takes the mask away.
 */
#include <errno.h>
#include <string.h>
#include "pci/private.h"

#define MSI_CONTROL 2
#define MSI_ENABLE 1
#define MSI_ADDRESS 4
#define MSI_DATA 12
#define MSI_LENGTH 14
#define MSIX_CONTROL 2
#define MSIX_ENABLE 0x8000u
#define MSIX_MASK_ALL 0x4000u
#define MSIX_LENGTH 12
#define VECTOR_MASKED 1u

struct message {
	uint64_t address;
	uint32_t data;
};

/* ---- the wire */

void pci_intx_update(struct pci_function *f)
{
	struct pci_bus *b = f->bus;
	uint8_t pin = f->hw.config[PCI_INTERRUPT_PIN];
	unsigned n = pci_pirq(f->devfn >> 3, pin);
	bool drive;

	if (!b || !pin)
		return;
	pthread_mutex_lock(&b->wire_lock);
	drive = f->hw.intx_level && !(config16(f, PCI_COMMAND) & PCI_COMMAND_INTX_OFF) && !pci_msi_enabled(f) &&
		!pci_msix_enabled(f);
	if (drive != f->driving) {
		f->driving = drive;
		b->pirq_count[n] += drive ? 1 : -1u;
		if (b->pirq_count[n] == drive) /* the first, or the last */
			irq_set(&b->pirq[n], drive);
	}
	pthread_mutex_unlock(&b->wire_lock);
}

void pci_set_intx(struct pci_function *f, int level)
{
	__atomic_store_n(&f->hw.intx_level, !!level, __ATOMIC_RELAXED);
	pci_intx_update(f);
}

/* ---- MSI */

int pci_add_msi(struct pci_function *f, unsigned vectors, struct err *e)
{
	unsigned log = 0, at;

	while (1u << log < vectors)
		log++;
	at = log <= 5 ? pci_add_capability(f, PCI_CAP_MSI, MSI_LENGTH) : 0;
	if (!at)
		return err_set(e, ENOSPC, "no room for %u message interrupts", vectors);
	f->msi_cap = at;
	pci_set_register(f, at + MSI_CONTROL, 2, 0x80 | log << 1, 0x71);
	pci_set_register(f, at + MSI_ADDRESS, 4, 0, ~3u);
	pci_set_register(f, at + MSI_ADDRESS + 4, 4, 0, ~0u);
	pci_set_register(f, at + MSI_DATA, 2, 0, 0xffff);
	return 0;
}

bool pci_msi_enabled(const struct pci_function *f)
{
	return f->msi_cap && f->hw.config[f->msi_cap + MSI_CONTROL] & MSI_ENABLE;
}

static void message_send(struct pci_function *f, const struct message *m)
{
	if (f->bus && f->bus->config.msi && f->hw.config[PCI_COMMAND] & PCI_COMMAND_MASTER)
		f->bus->config.msi(f->bus->config.opaque, m->address, m->data);
}

void pci_msi_notify(struct pci_function *f, unsigned vector)
{
	unsigned at = f->msi_cap, given;
	struct message m;

	if (!pci_msi_enabled(f))
		return;
	given = 1u << MIN(config16(f, at + MSI_CONTROL) >> 4 & 7, 5);
	m.address = config32(f, at + MSI_ADDRESS) | (uint64_t)config32(f, at + MSI_ADDRESS + 4) << 32;
	m.data = (config16(f, at + MSI_DATA) & ~(given - 1)) | (vector & (given - 1));
	message_send(f, &m);
}

/* ---- MSI-X */

int pci_add_msix(struct pci_function *f, unsigned vectors, unsigned bar, uint32_t offset, struct err *e)
{
	unsigned at;

	if (!vectors || vectors > PCI_MSIX_VECTORS || bar >= PCI_BARS || offset % 16 || f->bar[bar].kind == PCI_BAR_IO ||
	    !range_fits(offset, vectors * 16 + 16, f->bar[bar].size))
		return err_set(e, EINVAL, "%u vectors do not fit BAR %u at %#x", vectors, bar, offset);
	at = pci_add_capability(f, PCI_CAP_MSIX, MSIX_LENGTH);
	if (!at)
		return err_set(e, ENOSPC, "no room for the vectors' capability");
	f->msix_cap = at;
	f->msix_vectors = vectors;
	f->msix_bar = bar;
	f->msix_offset = offset;
	f->msix_pba_offset = offset + vectors * 16;
	pci_set_register(f, at + MSIX_CONTROL, 2, vectors - 1, MSIX_ENABLE | MSIX_MASK_ALL);
	pci_set_register(f, at + 4, 4, offset | bar, 0);
	pci_set_register(f, at + 8, 4, f->msix_pba_offset | bar, 0);
	pci_msix_reset(f);
	return 0;
}

void pci_msix_reset(struct pci_function *f)
{
	pthread_mutex_lock(&f->lock);
	memset(f->hw.msix_table, 0, sizeof(f->hw.msix_table));
	memset(f->hw.msix_pending, 0, sizeof(f->hw.msix_pending));
	for (unsigned v = 0; v < PCI_MSIX_VECTORS; v++)
		f->hw.msix_table[v * 16 + 12] = VECTOR_MASKED;
	pthread_mutex_unlock(&f->lock);
}

bool pci_msix_enabled(const struct pci_function *f)
{
	return f->msix_cap && config16(f, f->msix_cap + MSIX_CONTROL) & MSIX_ENABLE;
}

/* May the vector be sent? The lock is held. */
static bool vector_open(const struct pci_function *f, unsigned v, struct message *m)
{
	const uint8_t *entry = &f->hw.msix_table[v * 16];

	if (config16(f, f->msix_cap + MSIX_CONTROL) & MSIX_MASK_ALL || entry[12] & VECTOR_MASKED)
		return false;
	memcpy(&m->address, entry, 8);
	memcpy(&m->data, entry + 8, 4);
	m->address &= ~3ull;
	return true;
}

void pci_msix_notify(struct pci_function *f, unsigned vector)
{
	struct message m;
	bool open;

	if (vector >= f->msix_vectors || !pci_msix_enabled(f))
		return;
	pthread_mutex_lock(&f->lock);
	open = vector_open(f, vector, &m);
	if (!open)
		f->hw.msix_pending[vector / 8] |= (uint8_t)BIT(vector % 8);
	pthread_mutex_unlock(&f->lock);
	if (open)
		message_send(f, &m);
}

void pci_msix_flush(struct pci_function *f)
{
	if (!pci_msix_enabled(f))
		return;
	for (unsigned v = 0; v < f->msix_vectors; v++) {
		struct message m;
		bool send;

		if (!(f->hw.msix_pending[v / 8] & BIT(v % 8)))
			continue;
		pthread_mutex_lock(&f->lock);
		send = f->hw.msix_pending[v / 8] & BIT(v % 8) && vector_open(f, v, &m);
		if (send)
			f->hw.msix_pending[v / 8] &= (uint8_t)~BIT(v % 8);
		pthread_mutex_unlock(&f->lock);
		if (send)
			message_send(f, &m);
	}
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_function *f = opaque;
	uint64_t v = 0, pba = f->msix_vectors * 16ull;

	pthread_mutex_lock(&f->lock);
	if (offset < pba)
		memcpy(&v, &f->hw.msix_table[offset], size);
	else if (offset - pba <= sizeof(f->hw.msix_pending) - size)
		memcpy(&v, &f->hw.msix_pending[offset - pba], size);
	pthread_mutex_unlock(&f->lock);
	return v;
}

static void msix_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_function *f = opaque;

	if (offset >= f->msix_vectors * 16ull)
		return; /* pending bits are read-only */
	pthread_mutex_lock(&f->lock);
	memcpy(&f->hw.msix_table[offset], &value, size);
	f->hw.msix_table[(offset & ~15ull) + 12] &= VECTOR_MASKED;
	memset(&f->hw.msix_table[(offset & ~15ull) + 13], 0, 3);
	pthread_mutex_unlock(&f->lock);
	pci_msix_flush(f);
}

/* Double words only: what is wider is split, what is narrower widened, with zeroes. */
const struct io_ops pci_msix_io = { msix_read, msix_write, 4, 4 };
