/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board's virtio devices: disks first, in the order they were given, so that their names in the guest do not hang on what
 * else there is. Each is a PCI function of its own, also for drivers from before virtio 1.0 where those know it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include "board/private.h"
#include "pci/pci.h"
#include "virtio/devices.h"

#define NUMBER_OF_SLOT 64u
#define QUEUES_USUAL 4u /* more CPUs than that share */

/* at: the slot, 0: the next free one. */
static int attach_at(struct virtio_board *b, struct virtio *v, bool transitional, unsigned at, int *slot, struct err *e)
{
	int r;

	if (!v)
		return -1;
	b->count += !at;
	b->add(b->opaque, &v->device);
	if (v->own)
		b->add(b->opaque, v->own);
	r = virtio_pci_attach(b->pci, v, at ? (int)PCI_DEVFN(at, 0) : -1, transitional, slot, e);
	return r ? err_prefix(e, "%s", v->name) : 0;
}

static int attach(struct virtio_board *b, struct virtio *v, bool transitional, int *slot, struct err *e)
{
	return attach_at(b, v, transitional, 0, slot, e);
}

/* Numbers of devices name their states: of those with a slot of their own they do not hang on what else there is. */
static unsigned number(const struct virtio_board *b, unsigned slot)
{
	return slot ? NUMBER_OF_SLOT + slot : b->count;
}

static int attach_mmio(struct virtio_board *b, struct virtio *v, struct err *e)
{
	int r;

	if (!v)
		return -1;
	b->count++;
	b->add(b->opaque, &v->device);
	if (v->own)
		b->add(b->opaque, v->own);
	r = virtio_mmio_attach(v, VIRTIO_MMIO_BASE + VIRTIO_MMIO_STEP * b->mmio, b->irq[b->mmio], e);
	b->mmio++;
	return r ? err_prefix(e, "%s", v->name) : 0;
}

unsigned pc_disks_mmio(const struct pc_config *config)
{
	unsigned n = 0;

	for (unsigned i = 0; i < config->ndisks; i++)
		n += config->disk[i].bus == PC_DISK_MMIO;
	return n;
}

/* Where something was when the machine was saved, so that what comes after it is where it was. */
static void leave_out(struct virtio_board *b, bool counted)
{
	int slot = pci_bus_free_slot(b->pci);

	if (slot > 0)
		pci_bus_reserve(b->pci, (unsigned)slot);
	b->count += counted;
}

int pc_virtio_disk(struct pc_disks *d, struct virtio_board *b, unsigned n, struct err *e)
{
	const struct pc_disk *disk = &d->disk[n];
	struct virtio_block_config c = { .block = d->drive[n].block, .serial = disk->serial };
	struct virtio *v;
	char serial[21];

	if (disk->removed)
		leave_out(b, true);
	if (disk->bus == PC_DISK_IDE || disk->bus == PC_DISK_AHCI || disk->removed)
		return 0;
	c.queues = disk->queues ? disk->queues : MIN(b->cpus, QUEUES_USUAL);
	snprintf(serial, sizeof(serial), "disk%u", n);
	if (!disk->serial[0])
		c.serial = serial;
	v = d->drive[n].virtio = virtio_block_create(b->env, number(b, disk->slot), &c, e);
	if (disk->bus == PC_DISK_MMIO)
		return attach_mmio(b, v, e);
	if (attach_at(b, v, true, disk->slot, &d->drive[n].slot, e))
		return -1;
	pc_plug_note(b->plug, (unsigned)d->drive[n].slot, false, n, &v->device, v->own);
	return 0;
}

static int disks(struct pc_disks *d, struct virtio_board *b, struct err *e)
{
	for (unsigned i = 0; i < d->count; i++)
		if (pc_virtio_disk(d, b, i, e))
			return -1;
	return 0;
}

/* Card n, whose back-end is there. */
int pc_virtio_net(struct virtio_board *b, unsigned n, unsigned slot, struct err *e)
{
	int devfn = slot ? (int)PCI_DEVFN(slot, 0) : -1, at = 0;
	struct virtio *v = NULL;
	struct device *d;

	if (b->nets->model[n] == NET_E1000) {
		at = slot ? (int)slot : pci_bus_free_slot(b->pci);
		d = pc_net_e1000(b->nets, b, slot ? NUMBER_OF_SLOT + slot : n, n, devfn, e);
		if (!d)
			return -1;
	} else {
		v = pc_net_virtio(b->nets, b, n, number(b, slot), e);
		if (attach_at(b, v, true, slot, &at, e))
			return -1;
		d = &v->device;
	}
	pc_plug_note(b->plug, (unsigned)at, true, n, d, v ? v->own : NULL);
	return 0;
}

/* Consoles, and lines the guest finds by name. The back-ends are the board's. */
static int ports(struct virtio_board *b, const struct pc_config *config, struct err *e)
{
	struct virtio_port_config port[VIRTIO_PORTS] = { 0 };

	for (unsigned i = 0; i < config->nports; i++) {
		struct chr_config chr = { .spec = config->port[i].where, .leave = b->leave, .opaque = b->opaque,
					  .save = config->save, .save_opaque = config->save_opaque, .goes_on = config->restoring };

		b->chr[i] = chr_open(b->env->loop, &chr, e);
		if (!b->chr[i])
			return err_prefix(e, "--port %s", chr.spec);
		port[i] = (struct virtio_port_config){ .chr = b->chr[i], .name = config->port[i].name,
						       .console = !config->port[i].name };
	}
	b->console = virtio_console_create(b->env, b->count, port, config->nports, e);
	return attach(b, b->console, true, NULL, e);
}

/* Files in the address space. What is mapped stays when the descriptor goes. */
static int pmems(struct virtio_board *b, const struct pc_config *config, struct err *e)
{
	uint64_t at = b->pmem_start;

	for (unsigned i = 0; i < config->npmems; i++) {
		const struct pc_pmem *p = &config->pmem[i];
		int fd _close_ = open(p->path, O_RDONLY | O_CLOEXEC);
		struct stat st;

		if (fd < 0 || fstat(fd, &st))
			return err_errno(e, "--pmem %s: cannot open", p->path);
		if ((uint64_t)st.st_size != p->length)
			return err_set(e, EBUSY, "--pmem %s: its size has just changed", p->path);
		if (mem_map_file(b->env->mem, at, fd, p->length, p->size, p->path, e))
			return err_prefix(e, "--pmem");
		if (attach(b, virtio_pmem_create(b->env, b->count, at, p->size, e), false, NULL, e))
			return -1;
		at += p->size;
	}
	return 0;
}

int pc_virtio(struct pc_disks *d, struct virtio_board *b, struct err *e)
{
	const struct pc_config *config = d->config;

	if (pc_disks_mmio(config) > VIRTIO_MMIO_MAX)
		return err_set(e, E2BIG, "there is room for %d disks on bus=mmio; bus=virtio takes more", VIRTIO_MMIO_MAX);
	if (disks(d, b, e))
		return -1;
	if (config->rng && attach(b, virtio_rng_create(b->env, b->count, 0, e), true, NULL, e))
		return -1;
	if (config->nports && ports(b, config, e))
		return -1;
	if (pmems(b, config, e))
		return -1;
	for (unsigned i = 0; i < config->nshares; i++) {
		const struct pc_share *s = &config->share[i];
		struct virtio_fs_config c = { .path = s->path, .tag = s->tag, .read_only = s->read_only };

		if (attach(b, virtio_fs_create(b->env, b->count, &c, e), false, NULL, e))
			return err_prefix(e, "--share");
	}
	if (config->vsock) {
		struct virtio_vsock_config c = { .path = config->vsock, .cid = config->vsock_cid };

		if (attach(b, virtio_vsock_create(b->env, b->count, &c, e), false, NULL, e))
			return err_prefix(e, "--vsock");
	}
	if (config->tablet) {
		b->tablet = virtio_input_create(b->env, b->count, VIRTIO_TABLET, e);
		if (attach(b, b->tablet, false, NULL, e))
			return -1;
	}
	if (config->keyboard) {
		b->keyboard = virtio_input_create(b->env, b->count, VIRTIO_KEYBOARD, e);
		if (attach(b, b->keyboard, false, NULL, e))
			return -1;
	}
	if (config->balloon) {
		b->balloon = virtio_balloon_create(b->env, b->count, e);
		if (attach(b, b->balloon, true, NULL, e))
			return -1;
	}
	for (unsigned i = 0; i < config->nnets; i++) {
		const struct net_config *card = &config->net[i];

		if (!pc_net_open(b->nets, config, card, i, b->env->loop, e) && !card->removed)
			return err_prefix(e, "--net");
		if (card->removed)
			leave_out(b, card->model == NET_VIRTIO);
		else if (pc_virtio_net(b, i, card->slot, e))
			return -1;
	}
	return 0;
}
