/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about disks and the balloon, with QMP's names; what a disk's errors lead to. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backend/block.h"
#include "board/pc.h"
#include "ctl/private.h"
#include "virtio/devices.h"

/* ---- finding one */

int ctl_disk_named(struct ctl_call *call, struct pc_disk_view *d, unsigned *n, struct err *e)
{
	const char *name = json_string_value(json_object_get(call->arguments, "id"));
	struct pc *pc = call->ctl->config.pc;

	if (!name)
		name = json_string_value(json_object_get(call->arguments, "device"));
	if (!name)
		return err_set(e, EINVAL, "say which disk: \"device\" is disk0, disk1, ... in the order they were given");
	for (*n = 0; pc && pc_disk_view(pc, *n, d); ++*n)
		if (d->present && !strcmp(d->name, name))
			return 0;
	return err_set(e, ENODEV, "there is no disk '%.40s'; query-block lists them", name);
}

static int disk_named(struct ctl_call *call, struct pc_disk_view *d, unsigned *n, struct err *e)
{
	int r = ctl_disk_named(call, d, n, e);

	return r || d->block ? r : err_set(e, ENODEV, "%s has no medium", d->name);
}

/* ---- looking */

static json_t *limit_members(json_t *to, struct block *b)
{
	static const char *const suffix[3] = { "", "_rd", "_wr" };
	struct block_limits l;
	char name[32];

	block_get_limits(b, &l);
	for (unsigned kind = 0; kind < 2; kind++) {
		for (unsigned i = 0; i < 3; i++) {
			const struct blk_limit *one = kind ? &l.iops[i] : &l.bps[i];

			snprintf(name, sizeof(name), "%s%s", kind ? "iops" : "bps", suffix[i]);
			json_object_set_new(to, name, json_integer((json_int_t)one->rate));
			snprintf(name, sizeof(name), "%s%s_max", kind ? "iops" : "bps", suffix[i]);
			if (one->burst)
				json_object_set_new(to, name, json_integer((json_int_t)one->burst));
		}
	}
	return to;
}

static json_t *inserted(struct block *b)
{
	struct block_info info;

	block_get_info(b, &info);
	return limit_members(json_pack("{s:s,s:b,s:s,s:b,s:s,s:{s:s,s:s,s:I}}", "file", info.path, "ro", info.read_only, "drv",
				       info.format, "encrypted", 0, "detect_zeroes", "off", "image", "filename", info.path,
				       "format", info.format, "virtual-size", (json_int_t)info.size), b);
}

int ctl_query_block(struct ctl_call *call, struct err *e)
{
	static const char *const bus[] = { [PC_DISK_IDE] = "ide", [PC_DISK_AHCI] = "ahci", [PC_DISK_VIRTIO] = "virtio",
					   [PC_DISK_MMIO] = "mmio" };
	struct ctl *c = call->ctl;
	struct pc_disk_view d;

	call->result = json_array();
	for (unsigned n = 0; c->config.pc && pc_disk_view(c->config.pc, n, &d); n++) {
		struct block_stats stats = { 0 };
		json_t *one;

		if (!d.present)
			continue;
		one = json_pack("{s:s,s:s,s:b,s:b,s:s}", "device", d.name, "type", "unknown", "locked", 0, "removable",
					d.cdrom, "ospite-bus", bus[d.bus]);

		if (d.block) {
			block_get_stats(d.block, &stats);
			json_object_set_new(one, "inserted", inserted(d.block));
			json_object_set_new(one, "io-status", json_string(!stats.held		     ? "ok" :
									  c->disk_error[n] == ENOSPC ? "nospace" :
												       "failed"));
		}
		json_array_append_new(call->result, one);
	}
	return 0;
}

static json_t *stats_of(struct block *b)
{
	static const char *const prefix[BLOCK_OPS] = {
		[BLOCK_READ] = "rd", [BLOCK_WRITE] = "wr", [BLOCK_FLUSH] = "flush", [BLOCK_DISCARD] = "unmap",
		[BLOCK_WRITE_ZEROES] = "ospite-zeroes",
	};
	struct block_stats s;
	json_t *to = json_object();
	char name[40];

	block_get_stats(b, &s);
	for (unsigned i = 0; i < BLOCK_OPS; i++) {
		const char *p = prefix[i];

		snprintf(name, sizeof(name), "%s_operations", p);
		json_object_set_new(to, name, json_integer((json_int_t)s.op[i].requests));
		snprintf(name, sizeof(name), "%s_total_time_ns", p);
		json_object_set_new(to, name, json_integer((json_int_t)s.op[i].ns));
		snprintf(name, sizeof(name), "failed_%s_operations", p);
		json_object_set_new(to, name, json_integer((json_int_t)s.op[i].errors));
		if (i == BLOCK_FLUSH)
			continue;
		snprintf(name, sizeof(name), "%s_bytes", p);
		json_object_set_new(to, name, json_integer((json_int_t)s.op[i].bytes));
	}
	json_object_set_new(to, "ospite-underway", json_integer((json_int_t)s.underway));
	json_object_set_new(to, "ospite-throttled", json_integer((json_int_t)s.throttled));
	json_object_set_new(to, "ospite-held", json_integer((json_int_t)s.held));
	return to;
}

int ctl_query_blockstats(struct ctl_call *call, struct err *e)
{
	struct pc *pc = call->ctl->config.pc;
	struct pc_disk_view d;

	call->result = json_array();
	for (unsigned n = 0; pc && pc_disk_view(pc, n, &d); n++)
		if (d.block)
			json_array_append_new(call->result, json_pack("{s:s,s:o}", "device", d.name, "stats", stats_of(d.block)));
	return 0;
}

/* ---- changing */

int ctl_block_resize(struct ctl_call *call, struct err *e)
{
	json_int_t size = json_integer_value(json_object_get(call->arguments, "size"));
	struct pc_disk_view d;
	unsigned n;
	int r = disk_named(call, &d, &n, e);

	if (!r && size <= 0)
		r = err_set(e, EINVAL, "a disk's size is a multiple of %u bytes", BLOCK_SECTOR);
	return r ? r : pc_disk_resize(call->ctl->config.pc, n, (uint64_t)size, e);
}

static int limit_read(struct ctl_call *call, const char *name, uint64_t *value, struct err *e)
{
	json_int_t given = json_integer_value(json_object_get(call->arguments, name));

	if (given < 0 || given > 1000000000000000)
		return err_set(e, EINVAL, "%s must be 0 (no limit) to 10^15", name);
	*value = (uint64_t)given;
	return 0;
}

int ctl_block_set_io_throttle(struct ctl_call *call, struct err *e)
{
	static const char *const name[2][3] = { { "bps", "bps_rd", "bps_wr" }, { "iops", "iops_rd", "iops_wr" } };
	struct block_limits l = { 0 };
	struct pc_disk_view d;
	char burst[16];
	unsigned n;
	int r = disk_named(call, &d, &n, e);

	for (unsigned i = 0; i < 6 && !r; i++) {
		struct blk_limit *one = i < 3 ? &l.bps[i] : &l.iops[i - 3];

		snprintf(burst, sizeof(burst), "%s_max", name[i / 3][i % 3]);
		r = limit_read(call, name[i / 3][i % 3], &one->rate, e);
		if (!r)
			r = limit_read(call, burst, &one->burst, e);
		if (!r && one->burst && !one->rate)
			r = err_set(e, EINVAL, "%s needs the limit it belongs to", burst);
	}
	return r ? r : block_set_limits(d.block, &l, e);
}

/* ---- the balloon */

int ctl_balloon(struct ctl_call *call, struct err *e)
{
	json_int_t value = json_integer_value(json_object_get(call->arguments, "value"));

	if (!call->ctl->config.pc)
		return err_set(e, ENODEV, "the machine has no balloon");
	return pc_balloon_set(call->ctl->config.pc, value > 0 ? (uint64_t)value : 0, e);
}

int ctl_query_balloon(struct ctl_call *call, struct err *e)
{
	static const char *const stat[] = { "stat-swap-in",	   "stat-swap-out",	 "stat-major-faults",
					    "stat-minor-faults",   "stat-free-memory",	 "stat-total-memory",
					    "stat-available-memory", "stat-disk-caches", "stat-htlb-pgalloc",
					    "stat-htlb-pgfail" };
	uint64_t memory = call->ctl->config.vm->config->memory;
	struct virtio_balloon_info info;
	json_t *stats;
	int r = call->ctl->config.pc ? pc_balloon_get(call->ctl->config.pc, &info, e) :
				       err_set(e, ENODEV, "the machine has no balloon");

	if (r)
		return r;
	stats = json_object();
	for (unsigned i = 0; i < ARRAY_LEN(stat); i++)
		if (info.has[i])
			json_object_set_new(stats, stat[i], json_integer((json_int_t)info.stat[i]));
	call->result = json_pack("{s:I,s:I,s:I,s:o}", "actual", (json_int_t)(memory - MIN(info.actual, memory)), "ospite-target",
				 (json_int_t)(memory - MIN(info.target, memory)), "ospite-given-back",
				 (json_int_t)info.given_back, "ospite-stats", stats);
	return 0;
}

/* The balloon's lock is held. */
void ctl_balloon_changed(void *opaque, uint64_t given)
{
	struct ctl *c = opaque;
	uint64_t memory = c->config.vm->config->memory;

	ctl_event(c, "BALLOON_CHANGE", json_pack("{s:I}", "actual", (json_int_t)(memory - MIN(given, memory))));
}

/* ---- errors that stop the machine */

struct disk_failure {
	struct ctl *ctl;
	unsigned n;
	int error;
	bool write;
};

/* On the control's thread, where waiting for the CPUs is allowed. */
static void disk_failed(void *opaque)
{
	struct disk_failure *f = opaque;
	struct ctl *c = f->ctl;
	struct pc_disk_view d;

	if (f->n < CTL_DISKS && pc_disk_view(c->config.pc, f->n, &d) && d.present) {
		c->disk_error[f->n] = f->error;
		c->io_error = true;
		ctl_event(c, "BLOCK_IO_ERROR",
			  json_pack("{s:s,s:s,s:s,s:b,s:s}", "device", d.name, "operation", f->write ? "write" : "read", "action",
				    "stop", "nospace", f->error == ENOSPC, "reason", strerror(f->error)));
		vm_pause(c->config.vm, NULL);
	}
	free(f);
}

void ctl_disk_error(void *opaque, unsigned n, int error, bool write)
{
	struct ctl *c = opaque;
	struct disk_failure *f = malloc(sizeof(*f));

	if (!f)
		return; /* the guest waits for its request until somebody pauses the machine and lets it go on */
	*f = (struct disk_failure){ c, n, error, write };
	if (evloop_post(c->loop, disk_failed, f))
		free(f);
}
