/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base addresses: sizing by the usual write of all ones (the low bits are not writable), and mapping where the registers
 * say, as long as the command register lets the function decode. A memory BAR shows only inside the board's
 * windows, so that RAM, firmware and the interrupt controllers win over whatever a guest writes there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "pci/private.h"

static bool is_io(const struct pci_bar *r)
{
	return r->kind == PCI_BAR_IO;
}

static bool is_64(const struct pci_bar *r)
{
	return r->kind == PCI_BAR_MEM64 || r->kind == PCI_BAR_MEM64_PREFETCH;
}

static bool prefetches(const struct pci_bar *r)
{
	return r->kind == PCI_BAR_MEM32_PREFETCH || r->kind == PCI_BAR_MEM64_PREFETCH;
}

/* Registers of a BAR whose size is known. */
static void bar_registers(struct pci_function *f, unsigned n)
{
	const struct pci_bar *r = &f->bar[n];
	uint64_t mask = ~(r->size - 1);

	if (is_io(r)) {
		/* all 32 bits, though there are 64 Ki ports: SeaBIOS takes the size from them */
		pci_set_register(f, PCI_BAR(n), 4, 1, (uint32_t)mask & ~3u);
		f->writable[PCI_COMMAND] |= PCI_COMMAND_IO;
		return;
	}
	pci_set_register(f, PCI_BAR(n), 4, (is_64(r) ? 4u : 0) | (prefetches(r) ? 8u : 0), (uint32_t)mask & ~0xfu);
	if (is_64(r))
		pci_set_register(f, PCI_BAR(n + 1), 4, 0, (uint32_t)(mask >> 32));
	f->writable[PCI_COMMAND] |= PCI_COMMAND_MEMORY;
}

void pci_add_bar(struct pci_function *f, unsigned bar, enum pci_bar_kind kind, uint64_t size, const struct io_ops *ops,
		 void *opaque, const char *name)
{
	struct pci_bar *r = &f->bar[bar];

	CHECK(bar < PCI_BARS && size && !(size & (size - 1)) && size >= (kind == PCI_BAR_IO ? 4u : 16u));
	r->kind = kind;
	CHECK(kind != PCI_BAR_IO || size <= 256);
	CHECK(!is_64(r) || bar + 1 < PCI_BARS);
	r->size = size;
	r->ops = ops;
	r->opaque = opaque;
	r->name = name;
	bar_registers(f, bar);
}

int pci_add_ram_bar(struct pci_function *f, unsigned bar, struct mem *mem, uint64_t size, const char *name,
		    uint8_t **host, struct err *e)
{
	uint64_t offset;
	int r;

	if (size & (size - 1) || size < GUEST_PAGE)
		return err_set(e, EINVAL, "%s: %llu bytes are not a power of two of pages", name,
			       (unsigned long long)size);
	r = mem_alloc(mem, size, &offset, e);
	if (r)
		return r;
	pci_add_bar(f, bar, PCI_BAR_MEM32_PREFETCH, size, NULL, NULL, name);
	f->bar[bar].is_ram = true;
	f->bar[bar].ram_offset = offset;
	*host = mem_ram_base(mem) + offset;
	return 0;
}

int pci_add_rom(struct pci_function *f, struct mem *mem, const void *data, uint64_t size, const char *name,
		struct err *e)
{
	uint64_t whole = GUEST_PAGE, offset;
	int r;

	while (whole < size && whole < 16u << 20)
		whole <<= 1;
	if (!size || whole < size)
		return err_set(e, EINVAL, "%s: %llu bytes are no option ROM", name, (unsigned long long)size);
	r = mem_alloc(mem, whole, &offset, e);
	if (r)
		return r;
	memset(mem_ram_base(mem) + offset, 0xff, whole);
	memcpy(mem_ram_base(mem) + offset, data, size);
	f->rom = (struct pci_bar){ .kind = PCI_BAR_MEM32, .size = whole, .name = name, .is_rom = true,
				   .ram_offset = offset, .mapped_at = PCI_UNMAPPED };
	pci_set_register(f, PCI_ROM, 4, 0, ((uint32_t)~(whole - 1) & ~0x7ffu) | 1);
	f->writable[PCI_COMMAND] |= PCI_COMMAND_MEMORY;
	return 0;
}

/* ---- mapping */

static uint64_t memory_place(const struct pci_bus *b, uint64_t at, uint64_t size)
{
	const struct pci_bus_config *c = &b->config;
	bool low = at >= c->low_start && at < c->low_end && size <= c->low_end - at;
	bool high = at >= c->high_start && at < c->high_end && size <= c->high_end - at;

	return low || high ? at : PCI_UNMAPPED;
}

static uint64_t bar_place(const struct pci_bus *b, const struct pci_function *f, unsigned n)
{
	const struct pci_bar *r = &f->bar[n];
	uint8_t command = f->hw.config[PCI_COMMAND];
	uint64_t at = config32(f, PCI_BAR(n));

	if (!r->size)
		return PCI_UNMAPPED;
	if (is_io(r)) {
		at &= ~3ull;
		return command & PCI_COMMAND_IO && at && at < 0x10000 && r->size <= 0x10000 - at ? at : PCI_UNMAPPED;
	}
	at &= ~0xfull;
	if (is_64(r))
		at |= (uint64_t)config32(f, PCI_BAR(n + 1)) << 32;
	return command & PCI_COMMAND_MEMORY ? memory_place(b, at, r->size) : PCI_UNMAPPED;
}

static uint64_t rom_place(const struct pci_bus *b, const struct pci_function *f)
{
	uint32_t v = config32(f, PCI_ROM);

	if (!f->rom.size || !(v & 1) || !(f->hw.config[PCI_COMMAND] & PCI_COMMAND_MEMORY))
		return PCI_UNMAPPED;
	return memory_place(b, v & ~0x7ffu, f->rom.size);
}

bool pci_bars_moved(const struct pci_bus *b, const struct pci_function *f)
{
	for (unsigned n = 0; n < PCI_BARS; n++)
		if (bar_place(b, f, n) != f->bar[n].mapped_at)
			return true;
	return rom_place(b, f) != f->rom.mapped_at;
}

static uint64_t nothing_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

static void nothing_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct io_ops nothing_io = { nothing_read, nothing_write, 1, 8 };

static void bar_unmap(struct pci_bus *b, struct pci_bar *r)
{
	if (r->mapped_at == PCI_UNMAPPED)
		return;
	if (is_io(r))
		ports_unmap(b->config.env.ports, (uint16_t)r->mapped_at, r->unique);
	else
		mem_unmap(b->config.env.mem, r->mapped_at, r->unique);
	r->mapped_at = PCI_UNMAPPED;
}

/* It can fail only for lack of host memory: then the BAR does not show. */
static void bar_map(struct pci_bus *b, struct pci_bar *r, uint64_t at)
{
	struct mem *m = b->config.env.mem;
	const struct io_ops *ops = r->ops ? r->ops : &nothing_io;
	int e;

	if (at == PCI_UNMAPPED)
		return;
	if (r->is_rom)
		e = mem_map_read_only(m, at, r->ram_offset, r->size, r->unique, NULL);
	else if (r->is_ram)
		e = mem_map_ram(m, at, r->ram_offset, r->size, r->unique, NULL);
	else if (is_io(r))
		e = ports_map(b->config.env.ports, (uint16_t)at, (unsigned)r->size, ops, r->opaque, r->unique, NULL);
	else
		e = mem_map_io(m, at, r->size, ops, r->opaque, r->unique, NULL);
	if (!e)
		r->mapped_at = at;
}

static void msix_remap(struct pci_bus *b, struct pci_function *f)
{
	uint64_t at = f->bar[f->msix_bar].mapped_at;

	if (f->msix_mapped_at != PCI_UNMAPPED)
		mem_unmap(b->config.env.mem, f->msix_mapped_at, f->msix_name);
	f->msix_mapped_at = PCI_UNMAPPED;
	if (at == PCI_UNMAPPED)
		return;
	at += f->msix_offset;
	if (!mem_map_io(b->config.env.mem, at, f->msix_vectors * 16 + 16, &pci_msix_io, f, f->msix_name, NULL))
		f->msix_mapped_at = at;
}

/* All CPUs are stopped. */
void pci_bars_remap(struct pci_bus *b, struct pci_function *f)
{
	bool moved[PCI_BARS];
	uint64_t to;

	for (unsigned n = 0; n < PCI_BARS; n++) {
		moved[n] = bar_place(b, f, n) != f->bar[n].mapped_at;
		if (moved[n])
			bar_unmap(b, &f->bar[n]);
	}
	for (unsigned n = 0; n < PCI_BARS; n++) {
		if (moved[n])
			bar_map(b, &f->bar[n], bar_place(b, f, n));
	}
	if (f->msix_vectors && moved[f->msix_bar])
		msix_remap(b, f);
	to = rom_place(b, f);
	if (to != f->rom.mapped_at) {
		bar_unmap(b, &f->rom);
		bar_map(b, &f->rom, to);
	}
}

/* ---- what firmware does, for kernels started without */

struct window {
	uint64_t at, end;
};

static bool window_take(struct window *w, uint64_t size, uint64_t *at)
{
	uint64_t start = (w->at + size - 1) & ~(size - 1);

	if (start < w->at || start >= w->end || size > w->end - start)
		return false;
	w->at = start + size;
	*at = start;
	return true;
}

static void register_write(struct pci_function *f, unsigned at, uint32_t value)
{
	pci_function_write(f, at, value, 4);
}

static void bar_assign(struct pci_function *f, unsigned n, struct window *io, struct window *low, struct window *high)
{
	const struct pci_bar *r = &f->bar[n];
	uint64_t at;

	if (!r->size)
		return;
	if (!window_take(is_io(r) ? io : low, MAX(r->size, is_io(r) ? 16u : 4096u), &at) &&
	    !(is_64(r) && window_take(high, r->size, &at)))
		return;
	register_write(f, PCI_BAR(n), (uint32_t)at);
	if (is_64(r))
		register_write(f, PCI_BAR(n + 1), (uint32_t)(at >> 32));
}

void pci_bus_assign(struct pci_bus *b, const uint8_t irq[4])
{
	struct window io = { 0xc000, 0x10000 }, low = { b->config.assign_start, b->config.low_end };
	struct window high = { b->config.high_start, b->config.high_end };

	pthread_mutex_lock(&b->lock);
	for (unsigned d = 0; d < 256; d++) {
		struct pci_function *f = b->function[d];
		uint8_t pin;

		if (!f)
			continue;
		for (unsigned n = 0; n < PCI_BARS; n++)
			bar_assign(f, n, &io, &low, &high);
		pin = f->hw.config[PCI_INTERRUPT_PIN];
		if (pin >= 1 && pin <= 4)
			f->hw.config[PCI_INTERRUPT_LINE] = irq[pci_pirq(d >> 3, pin)];
		f->hw.config[PCI_COMMAND] |= f->writable[PCI_COMMAND] & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
		pci_bars_remap(b, f);
		if (f->ops && f->ops->mapping)
			f->ops->mapping(f->opaque);
	}
	pthread_mutex_unlock(&b->lock);
}
