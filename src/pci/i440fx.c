/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intel 440FX host bridge (82441FX data sheet, order number 290549), as far as firmware and kernels use it: its
 * identity and the PAM registers, which open 13 pieces of the area from 0xc0000 to 1 MiB to reading and writing of the
 * RAM there. Reads that are not open find the firmware's ROM (from 0xe0000 on) or nothing; such writes vanish.
 *
 * The subsystem is the one virtual machines' firmware looks for: it then uses the firmware configuration device instead of
 * probing memory. There is no system management mode: the SMRAM register keeps what is written and does nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "pci/chipset.h"
#include "pci/private.h"

#define PAM0 0x59
#define SMRAM 0x72
#define PIECES 13
#define PAM_READ 1
#define PAM_WRITE 2
#define ROM_AREA 0xe0000ull

struct piece {
	struct i440fx *host;
	gpa_t at;
	uint64_t size;
	unsigned mode;    /* as mapped: PAM_READ | PAM_WRITE */
	bool covered;     /* something lies over the RAM */
};

struct i440fx {
	struct device device;
	struct pci_function f;
	struct mem *mem;
	uint64_t rom_offset;
	struct piece piece[PIECES];
};

/* Piece 0 is the last one, of 64 KiB; the others are of 16 KiB, two a register from 0xc0000 on. */
static unsigned piece_mode(const struct i440fx *h, unsigned n)
{
	uint8_t v = h->f.hw.config[PAM0 + (n + 1) / 2];

	return n == 0 || !(n & 1) ? v >> 4 & 3 : v & 3;
}

/* RAM that can be written but not read, or neither. The RAM offset of what lies below 640 KiB to 4 GiB is its address. */
static uint64_t piece_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct piece *p = opaque;
	const struct i440fx *h = p->host;
	uint64_t v = ~0ull;

	if (p->at >= ROM_AREA && h->rom_offset != PCI_UNMAPPED)
		memcpy(&v, mem_ram_base(h->mem) + h->rom_offset + (p->at - ROM_AREA) + offset, size);
	return v;
}

static void piece_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	const struct piece *p = opaque;

	if (p->mode != PAM_WRITE)
		return;
	memcpy(mem_ram_base(p->host->mem) + p->at + offset, &value, size);
	mem_written(p->host->mem, p->at + offset, size);
}

static const struct io_ops piece_io = { piece_read, piece_write, 1, 8 };

static void piece_map(struct i440fx *h, struct piece *p, unsigned mode)
{
	bool rom = p->at >= ROM_AREA && h->rom_offset != PCI_UNMAPPED;
	int r = 0;

	if (p->covered)
		mem_unmap(h->mem, p->at, "pam");
	p->mode = mode;
	p->covered = mode != (PAM_READ | PAM_WRITE);
	if (mode == PAM_READ)
		r = mem_map_read_only(h->mem, p->at, p->at, p->size, "pam", NULL);
	else if (!mode && rom)
		r = mem_map_read_only(h->mem, p->at, h->rom_offset + (p->at - ROM_AREA), p->size, "pam", NULL);
	else if (p->covered)
		r = mem_map_io(h->mem, p->at, p->size, &piece_io, p, "pam", NULL);
	p->covered &= !r;
}

static void host_mapping(void *opaque)
{
	struct i440fx *h = opaque;

	for (unsigned n = 0; n < PIECES; n++)
		if (piece_mode(h, n) != h->piece[n].mode)
			piece_map(h, &h->piece[n], piece_mode(h, n));
}

static void host_written(void *opaque, unsigned offset, unsigned size)
{
	struct i440fx *h = opaque;

	for (unsigned n = 0; n < PIECES; n++) {
		if (piece_mode(h, n) != h->piece[n].mode) {
			pci_request_mapping(&h->f);
			return;
		}
	}
}

static const struct pci_ops host_ops = { .config_written = host_written, .mapping = host_mapping };

void i440fx_open_shadow(struct device *d)
{
	struct i440fx *h = container_of(d, struct i440fx, device);

	h->f.hw.config[PAM0] = 0x30;
	memset(&h->f.hw.config[PAM0 + 1], 0x33, 6);
	host_mapping(h);
}

static void host_destroy(struct device *d)
{
	struct i440fx *h = container_of(d, struct i440fx, device);

	pci_function_dispose(&h->f);
	free(h);
}

static const struct device_ops device_ops = { .destroy = host_destroy };

struct device *i440fx_create(struct pci_bus *bus, struct mem *mem, uint64_t rom_offset, struct err *e)
{
	static const struct pci_identity id = { .vendor = 0x8086, .device = 0x1237, .subsystem_vendor = 0x1af4,
						.subsystem = 0x1100, .class_code = 0x060000, .revision = 2 };
	struct i440fx *h = calloc(1, sizeof(*h));

	if (!h) {
		err_set(e, ENOMEM, "no memory for the host bridge");
		return NULL;
	}
	h->device.ops = &device_ops;
	h->mem = mem;
	h->rom_offset = rom_offset;
	for (unsigned n = 0; n < PIECES; n++) {
		struct piece *p = &h->piece[n];

		p->host = h;
		p->at = n ? 0xc0000 + (n - 1) * 0x4000ull : 0xf0000;
		p->size = n ? 0x4000 : 0x10000;
		p->mode = PAM_READ | PAM_WRITE; /* nothing lies over the RAM yet */
	}
	pci_function_init(&h->f, &id, &host_ops, h);
	pci_set_register(&h->f, PCI_COMMAND, 2, 0x0006, 0);
	pci_set_register(&h->f, PAM0, 1, 0, 0x30);
	for (unsigned n = 1; n < 7; n++)
		pci_set_register(&h->f, PAM0 + n, 1, 0, 0x33);
	pci_set_register(&h->f, SMRAM, 1, 0x02, 0x78);
	if (pci_attach(bus, &h->f, PCI_DEVFN(0, 0), e)) {
		host_destroy(&h->device);
		return NULL;
	}
	return &h->device;
}
