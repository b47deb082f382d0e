/* SPDX-License-Identifier: Apache-2.0 */
/* What can be seen and changed of a PC that runs: media, disks, cards that come and go, networks, the balloon. */
#include <errno.h>
#include <string.h>
#include "board/pc-private.h"
#include "backend/block.h"
#include "virtio/devices.h"

void pc_bring(struct pc *pc, const struct block_files *files)
{
	pc->disks.files = files;
}

int pc_change_medium(struct pc *pc, unsigned n, const char *spec, bool force, struct err *e)
{
	if (n >= pc->disks.count || !pc->disks.disk[n].cdrom)
		return err_set(e, ENODEV, "disk%u is no CD-ROM drive", n);
	return pc_disks_change(&pc->disks, &pc->disks.drive[n], spec, force, e);
}

bool pc_disk_view(struct pc *pc, unsigned n, struct pc_disk_view *out)
{
	if (n >= pc->disks.count)
		return false;
	*out = (struct pc_disk_view){ .block = pc->disks.drive[n].block, .cdrom = pc->disks.disk[n].cdrom,
				      .present = !pc->disks.drive[n].removed, .bus = pc->disks.disk[n].bus };
	pc_disk_name(&pc->disks, n, out->name);
	return true;
}

int pc_disk_resize(struct pc *pc, unsigned n, uint64_t size, struct err *e)
{
	struct pc_drive *drive = n < pc->disks.count ? &pc->disks.drive[n] : NULL;
	bool running = vm_state_now(pc->vm) == VM_RUNNING;
	struct block_stats stats;
	int r;

	if (!drive || !drive->block)
		return err_set(e, ENODEV, "there is no such disk");
	if (!drive->virtio)
		return err_set(e, ENOTSUP, "a disk on bus=ide or bus=ahci keeps its size; bus=virtio and bus=mmio can change it");
	r = vm_pause(pc->vm, e);
	if (r)
		return r;
	block_get_stats(drive->block, &stats);
	if (stats.held)
		r = err_set(e, EBUSY, "the disk has failed, and requests are still to be tried again");
	else
		r = block_resize(drive->block, size, e);
	if (!r)
		virtio_block_resized(drive->virtio);
	if (running)
		vm_resume(pc->vm, NULL);
	return r;
}

/* ---- cards that come and go */

static struct pc_plug_place plug_place(struct pc *pc)
{
	return (struct pc_plug_place){ .plug = &pc->plug, .disks = &pc->disks, .nets = &pc->nets, .virtio = &pc->virtio,
				       .vm = pc->vm, .config = pc->config };
}

int pc_plug_disk(struct pc *pc, const char *spec, struct pc_plugged *out, struct err *e)
{
	struct pc_plug_place at = plug_place(pc);

	return pc_plug_add_disk(&at, spec, out, e);
}

int pc_plug_net(struct pc *pc, const char *spec, struct pc_plugged *out, struct err *e)
{
	struct pc_plug_place at = plug_place(pc);

	return pc_plug_add_net(&at, spec, out, e);
}

int pc_unplug(struct pc *pc, const char *id, struct err *e)
{
	struct pc_plug_place at = plug_place(pc);

	return pc_plug_ask(&at, id, e);
}

void pc_on_gone(struct pc *pc, void (*fn)(void *opaque), void *opaque)
{
	pthread_mutex_lock(&pc->plug.lock);
	pc->plug.fn = fn;
	pc->plug.opaque = opaque;
	pthread_mutex_unlock(&pc->plug.lock);
}

bool pc_reap(struct pc *pc, char id[PC_ID])
{
	return pc_plug_free_one(&pc->plug, pc->vm->loop, id);
}

void pc_disks_on_error(struct pc *pc, void (*fn)(void *opaque, unsigned n, int error, bool write), void *opaque)
{
	/* while nobody is called by a lock of the back-end: either it is set before the machine runs, or taken back here */
	if (fn) {
		pc->disks.error_fn = fn;
		pc->disks.error_opaque = opaque;
	}
	for (unsigned i = 0; i < pc->disks.count; i++) {
		if (fn)
			pc_disk_watch(&pc->disks.drive[i]);
		else if (pc->disks.drive[i].block)
			block_set_stopped(pc->disks.drive[i].block, NULL, NULL);
	}
	if (!fn)
		pc->disks.error_fn = NULL;
}

bool pc_disks_hold(struct pc *pc)
{
	struct block_info info = { 0 };

	for (unsigned i = 0; i < pc->disks.count && !info.holds; i++)
		if (pc->disks.drive[i].block)
			block_get_info(pc->disks.drive[i].block, &info);
	return info.holds;
}

bool pc_net_view(struct pc *pc, unsigned n, struct pc_net_view *out)
{
	static const char *const models[] = { "virtio", "e1000" };
	struct net_link *l = n < pc->nets.count ? pc->nets.link[n] : NULL;

	*out = (struct pc_net_view){ .present = false };
	if (!l)
		return n < pc->nets.count;
	*out = (struct pc_net_view){ .present = true, .kind = l->ops->kind, .model = models[pc->nets.model[n]], .up = net_up(l) };
	pc_net_name(&pc->nets, n, out->name);
	memcpy(out->mac, net_mac(l), sizeof(out->mac));
	net_addresses(l, out->addresses, sizeof(out->addresses));
	net_get_stats(l, &out->stats);
	out->limits = net_get_limits(l);
	return true;
}

struct net_link *pc_net_named(struct pc *pc, const char *name, struct err *e)
{
	for (unsigned i = 0; i < pc->nets.count; i++) {
		char text[PC_ID];

		pc_net_name(&pc->nets, i, text);
		if (pc->nets.link[i] && !strcmp(text, name))
			return pc->nets.link[i];
	}
	err_set(e, ENODEV, "the machine has no network card %.60s", name);
	return NULL;
}

bool pc_port_open(struct pc *pc, const char *name)
{
	return pc->virtio.console && virtio_console_is_open(pc->virtio.console, name);
}

int pc_balloon_set(struct pc *pc, uint64_t memory, struct err *e)
{
	uint64_t all = pc->vm->config->memory;

	if (!pc->virtio.balloon)
		return err_set(e, ENODEV, "the machine has no balloon: start it with --balloon");
	if (!memory || memory > all)
		return err_set(e, ERANGE, "the guest can have 1 to %llu bytes", (unsigned long long)all);
	virtio_balloon_set(pc->virtio.balloon, all - memory);
	return 0;
}

void pc_balloon_on_change(struct pc *pc, void (*fn)(void *opaque, uint64_t given), void *opaque)
{
	if (pc->virtio.balloon)
		virtio_balloon_on_change(pc->virtio.balloon, fn, opaque);
}

int pc_balloon_get(struct pc *pc, struct virtio_balloon_info *info, struct err *e)
{
	if (!pc->virtio.balloon)
		return err_set(e, ENODEV, "the machine has no balloon: start it with --balloon");
	virtio_balloon_get(pc->virtio.balloon, info);
	return 0;
}
