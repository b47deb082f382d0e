/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AHCI and IDE: the first byte chooses the controller, the rest is a list of steps of eight bytes: register accesses, command
 * lists, tables, scatter lists and packets in memory, media taken out and put in, machines that stand still. A disk and a CD-ROM drive
 * are on each. Nothing may crash, hang, leave the guest's memory or the images; a machine that stands still has nothing underway.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "backend/block.h"
#include "base/err.h"
#include "pci/ahci.h"
#include "pci/chipset.h"
#include "pci/ide.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM (1u << 20)
#define BAR 0xc0000000u
#define BUS_MASTER 0xc000
#define IDE_FN PCI_DEVFN(1, 1)
#define STEPS 300
#define LISTS 0x1000u  /* of port n: + n * 0x400 */
#define FRAMES 0x4000u /* + n * 0x100 */
#define TABLES 0x8000u /* of slot n of either port: + n * 0x100 */
#define DISK_SIZE (256u << 10)
#define CD_SIZE (64u << 10)

struct box {
	struct device_env env;
	struct device *devices, *controller;
	struct pci_bus *bus;
	struct block *disk, *cd;
	unsigned devfn;
	bool ahci, cd_in;
};

static struct block *open_disk(uint64_t size, bool read_only)
{
	int fd = memfd_create("fuzz", 0);
	char path[40];
	struct block_config c = { .spec = path, .read_only = read_only };
	struct block *b = NULL;
	struct err e = { 0 };

	CHECK(fd >= 0 && !ftruncate(fd, (off_t)size));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(!block_open(&b, &c, &e));
	close(fd);
	return b;
}

static void add(void *opaque, struct device *d)
{
	struct box *b = opaque;

	d->next = b->devices;
	b->devices = d;
}

static void no_irq(void *opaque, unsigned pin, int level)
{
}

static void no_msi(void *opaque, uint64_t address, uint32_t data)
{
}

/* ---- AHCI */

static void ahci_set(struct box *b, unsigned at, uint32_t v)
{
	mem_write(b->env.mem, BAR + at, v, 4);
}

static void ahci_up(struct box *b)
{
	ahci_set(b, 4, 0x80000002);
	for (unsigned port = 0; port < 2; port++) {
		unsigned at = 0x100 + port * 0x80;

		ahci_set(b, at, LISTS + port * 0x400);
		ahci_set(b, at + 8, FRAMES + port * 0x100);
		ahci_set(b, at + 0x30, ~0u);
		ahci_set(b, at + 0x10, ~0u);
		ahci_set(b, at + 0x14, ~0u);
		ahci_set(b, at + 0x18, 0x11);
	}
}

static void ahci_step(struct box *b, const uint8_t *s, uint32_t v)
{
	unsigned port = s[1] & 1, slot = s[1] >> 1 & 31, at = 0x100 + port * 0x80;
	uint32_t header[4] = { 5u | (s[2] & 0x60u) | (uint32_t)(s[3] & 15) << 16, 0, TABLES + slot * 0x100, 0 };
	uint8_t fis[16] = { 0x27, 0x80, s[2], s[3], s[4], s[5], 0, 0x40, 0, 0, 0, 0, s[6], s[7] };

	switch (s[0] & 15) {
	case 0: ahci_up(b); return;
	case 1: mem_read(b->env.mem, BAR + (s[1] << 8 & 0x1f00) + (s[2] & 0xfc), 4); return;
	case 2: ahci_set(b, (s[1] << 8 & 0x1f00) + (s[2] & 0xfc), v); return;
	case 3: ahci_set(b, at + (s[2] & 0x7c), v); return;
	case 4: ahci_set(b, at + 0x38, s[0] & 16 ? v : 1u << slot); return;
	case 5: /* queued: SACT first */
		ahci_set(b, at + 0x34, 1u << slot);
		ahci_set(b, at + 0x38, 1u << slot);
		return;
	case 6: mem_dma_write(b->env.mem, LISTS + port * 0x400 + slot * 32, header, sizeof(header)); return;
	case 7: mem_dma_write(b->env.mem, TABLES + slot * 0x100, fis, sizeof(fis)); return;
	case 8: /* a queued command: its tag is in the count */
		fis[2] = s[2] & 1 ? 0x61 : 0x60;
		fis[12] = (uint8_t)(slot << 3);
		mem_dma_write(b->env.mem, TABLES + slot * 0x100, fis, sizeof(fis));
		return;
	case 9: /* of the scatter list; on the last page of memory, too */
		mem_dma_write(b->env.mem, TABLES + slot * 0x100 + 0x80 + (s[3] & 7) * 16, &(uint64_t){ (v & 0xffff8) << (s[2] & 1) }, 8);
		mem_dma_write(b->env.mem, TABLES + slot * 0x100 + 0x80 + (s[3] & 7) * 16 + 12, &(uint32_t){ s[2] << 8 | s[3] }, 4);
		return;
	case 10: mem_dma_write(b->env.mem, TABLES + slot * 0x100 + 0x40 + (s[2] & 8), s + 2, 6); return;
	case 11: mem_dma_write(b->env.mem, (v & 0xffff), s + 2, 2); return;
	case 12: /* the link is reset, as a driver does it */
		ahci_set(b, at + 0x18, 0x10);
		ahci_set(b, at + 0x2c, 0x301);
		ahci_set(b, at + 0x2c, 0x300);
		ahci_set(b, at + 0x18, 0x11);
		return;
	case 13: pci_config_write(b->bus, b->devfn, s[2] & 0xfc, v, 4); return;
	default: break;
	}
}

/* ---- IDE */

static void ide_out(struct box *b, unsigned channel, unsigned at, uint32_t v, unsigned size)
{
	ports_out(b->env.ports, (uint16_t)((channel ? 0x170 : 0x1f0) + at), v, size);
}

static void ide_step(struct box *b, const uint8_t *s, uint32_t v)
{
	unsigned channel = s[1] & 1;
	uint16_t base = (uint16_t)(channel ? 0x170 : 0x1f0), master = (uint16_t)(BUS_MASTER + channel * 8);
	uint64_t entry = (v & 0xffff8u) | (uint64_t)(s[2] | s[3] << 8) << 32;

	switch (s[0] & 15) {
	case 0: /* a command with all its registers */
		ide_out(b, channel, 6, 0xe0, 1);
		for (unsigned i = 1; i < 6; i++)
			ide_out(b, channel, i, s[1 + i], 1);
		ide_out(b, channel, 7, s[7], 1);
		return;
	case 1: ide_out(b, channel, s[2] & 7, s[4], 1); return;
	case 2: ports_in(b->env.ports, (uint16_t)(base + (s[2] & 7)), 1); return;
	case 3: /* data, as many words as that */
		for (unsigned i = 0; i < s[2]; i++)
			ports_in(b->env.ports, base, s[3] & 1 ? 4 : 2);
		return;
	case 4:
		for (unsigned i = 0; i < s[2]; i++)
			ide_out(b, channel, 0, v + i, s[3] & 1 ? 4 : 2);
		return;
	case 5: /* a packet */
		ide_out(b, channel, 6, 0xa0, 1);
		ide_out(b, channel, 1, s[2] & 1, 1);
		ide_out(b, channel, 4, 0, 1);
		ide_out(b, channel, 5, 8, 1);
		ide_out(b, channel, 7, 0xa0, 1);
		for (unsigned i = 0; i < 6; i++)
			ide_out(b, channel, 0, i < 3 ? s[2 + 2 * i] | s[3 + 2 * i] << 8 : 0x100, 2);
		return;
	case 6: ports_out(b->env.ports, (uint16_t)(base + 0x206), s[2], 1); return; /* its reset among them */
	case 7: ports_out(b->env.ports, (uint16_t)(master + (s[2] & 6)), v, 1u << (s[3] % 3)); return;
	case 8: /* a table, and go */
		ports_out(b->env.ports, (uint16_t)(master + 4), TABLES, 4);
		ports_out(b->env.ports, master, s[2] & 8 ? 9 : 1, 1);
		return;
	case 9: mem_dma_write(b->env.mem, TABLES + (s[1] >> 1 & 7) * 8, &entry, 8); return;
	case 10: ports_in(b->env.ports, (uint16_t)(master + (s[2] & 7)), 1u << (s[3] % 3)); return;
	case 11: mem_dma_write(b->env.mem, TABLES + (v & 0xff), s + 2, 2); return;
	case 12: ports_in(b->env.ports, (uint16_t)(base + 0x206), 1); return;
	case 13: pci_config_write(b->bus, b->devfn, s[2] & 0xfc, v, 4); return;
	default: break;
	}
}

/* ---- both */

static void change_medium(struct box *b, bool in, bool force)
{
	struct block *medium = in ? b->cd : NULL;
	int r = b->ahci ? ahci_change_medium(b->controller, 1, medium, force) : ide_change_medium(b->controller, 2, medium, force);

	CHECK(!r || !force);
	b->cd_in = r ? b->cd_in : in;
}

static void step(struct box *b, const uint8_t *s)
{
	uint32_t v = (uint32_t)(s[4] | s[5] << 8 | s[6] << 16) | (uint32_t)s[7] << 24;
	const struct device_ops *ops = b->controller->ops;

	switch (s[0] & 15) {
	case 14: change_medium(b, s[1] & 1, s[1] & 2); return;
	case 15:
		ops->pause(b->controller);
		block_drain(b->disk);
		if (ops->loaded)
			ops->loaded(b->controller);
		ops->resume(b->controller);
		return;
	default: b->ahci ? ahci_step(b, s, v) : ide_step(b, s, v); return;
	}
}

static void box_open(struct box *b)
{
	struct ahci_drive_config sata[AHCI_PORTS] = { { .present = true, .block = b->disk, .serial = "1" },
						      { .present = true, .cdrom = true, .block = b->cd, .serial = "2" } };
	struct ide_drive_config ata[4] = { { .present = true, .block = b->disk, .serial = "1" }, { 0 },
					   { .present = true, .cdrom = true, .block = b->cd, .serial = "2" } };
	struct irq_line irq[2] = { { .set = no_irq }, { .set = no_irq } };
	struct pci_bus_config c = { .env = b->env, .msi = no_msi, .add = add, .opaque = b, .low_start = RAM, .low_end = 0xfec00000,
				    .assign_start = BAR, .high_start = 1ull << 32, .high_end = 1ull << 36 };
	struct err e = { 0 };
	int slot = 0;

	CHECK(!mem_map_ram(b->env.mem, 0, 0, RAM, "ram", &e));
	b->bus = pci_bus_create(&c, &e);
	CHECK(b->bus);
	add(b, pci_bus_device(b->bus));
	b->controller = b->ahci ? ahci_create(b->bus, &b->env, sata, &slot, &e) : ide_create(b->bus, &b->env, ata, irq, &e);
	CHECK(b->controller);
	b->devfn = b->ahci ? PCI_DEVFN((unsigned)slot, 0) : IDE_FN;
	b->cd_in = true;
	b->controller->ops->reset(b->controller, RESET_COLD);
	b->controller->ops->resume(b->controller);
	pci_config_write(b->bus, b->devfn, b->ahci ? 0x24 : 0x20, b->ahci ? BAR : BUS_MASTER, 4);
	pci_config_write(b->bus, b->devfn, 4, 7, 2);
	if (b->ahci)
		ahci_up(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct block *disk, *cd; /* opened once: their threads cost more than all the rest */
	struct box b = { 0 };

	if (!size)
		return 0;
	if (!disk) {
		disk = open_disk(DISK_SIZE, false);
		cd = open_disk(CD_SIZE, true);
	}
	b = (struct box){ .env = { .mem = mem_create(RAM, NULL), .ports = ports_create(), .clock = clock_create_manual() },
			  .disk = disk, .cd = cd, .ahci = data[0] & 1 };
	CHECK(b.env.mem && b.env.ports && b.env.clock);
	box_open(&b);
	for (size_t n = 0; n < STEPS && 8 * n + 9 <= size; n++)
		step(&b, data + 1 + 8 * n);
	b.controller->ops->pause(b.controller);
	block_drain(disk);
	block_drain(cd);
	b.controller->ops->destroy(b.controller);
	while (b.devices) {
		struct device *d = b.devices;

		b.devices = d->next;
		if (d->ops->destroy)
			d->ops->destroy(d);
	}
	clock_destroy(b.env.clock);
	ports_destroy(b.env.ports);
	mem_destroy(b.env.mem);
	return 0;
}
