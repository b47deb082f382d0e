/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio devices behind the MMIO transport: the input is a list of steps of eight bytes, register writes, kicks and writes to the
 * memory the rings are in. Nothing may crash, hang, or be read or written outside the guest's memory. The disk is a memory file; what
 * the network card sends comes back to it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "backend/block.h"
#include "backend/net.h"
#include "base/err.h"
#include "virtio/devices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM (1u << 20)
#define BASE 0xfec80000u
#define DISK (1u << 16)
#define DEVICES 5
#define AREA 0x4000u

struct rig {
	struct device_env env;
	struct block *block;
	struct virtio *v[DEVICES];
	struct net_link link;
};

static enum net_result link_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	return net_deliver(l, w, iov, n);
}

static void link_sent(struct net_link *l)
{
	net_delivered(l);
}

static void link_ready(struct net_link *l)
{
}

static const struct net_link_ops link_ops = { .kind = "loop", .send = link_send, .sent = link_sent, .ready = link_ready };

static void rig_open(struct rig *r)
{
	struct virtio_block_config disk = { .serial = "fuzz", .queues = 2 };
	int fd = memfd_create("disk", 0);
	char path[64];
	struct err e;

	CHECK(fd >= 0 && !ftruncate(fd, DISK));
	snprintf(path, sizeof(path), "file=/proc/self/fd/%d,cache=unsafe", fd);
	CHECK(!block_open(&r->block, &(struct block_config){ .spec = path }, &e));
	r->env.mem = mem_create(RAM, &e);
	r->env.clock = clock_create_manual();
	CHECK(r->env.mem && !mem_map_ram(r->env.mem, 0, 0, RAM, "ram", &e));
	disk.block = r->block;
	r->v[0] = virtio_block_create(&r->env, 0, &disk, &e);
	r->v[1] = virtio_rng_create(&r->env, 1, 0, &e);
	r->v[2] = virtio_balloon_create(&r->env, 2, &e);
	CHECK(!net_link_init(&r->link, NULL, &link_ops, &(struct net_config){ 0 }, NET_TAKES_TSO4 | NET_TAKES_CSUM, &e));
	r->v[3] = virtio_net_create(&r->env, 3, &(struct virtio_net_config){ .link = &r->link, .pairs = 1 }, &e);
	r->v[4] = virtio_input_create(&r->env, 4, VIRTIO_TABLET, &e);
	for (unsigned i = 0; i < DEVICES; i++) {
		CHECK(!virtio_mmio_attach(r->v[i], BASE + i * 0x1000, (struct irq_line){ 0 }, &e));
		r->v[i]->device.ops->resume(&r->v[i]->device);
	}
}

/* A queue as a driver sets it up, so that most inputs get somewhere: areas of 16 KiB from the given place on. */
static void queue_up(struct rig *r, uint64_t base, const uint8_t *step)
{
	struct mem *m = r->env.mem;
	uint32_t at = (step[3] & 15) * AREA;

	mem_write(m, base + 0x30, step[1] & 3, 4);
	mem_write(m, base + 0x38, 1u << (step[2] & 7), 4);
	mem_write(m, base + 0x80, at, 4);
	mem_write(m, base + 0x90, at + 0x1000, 4);
	mem_write(m, base + 0xa0, at + 0x2000, 4);
	mem_write(m, base + 0x44, 1, 4);
}

static void start(struct rig *r, uint64_t base, const uint8_t *step)
{
	struct mem *m = r->env.mem;

	mem_write(m, base + 0x24, 1, 4);
	/* version 1, packed, reset of queues; cutting of datagrams */
	mem_write(m, base + 0x20, 1 | (step[1] & 1 ? 4 : 0) | (step[1] & 2 ? 0x100 : 0) |
		  (base == BASE + 0x3000 ? (uint32_t)(step[6] & 7) << 22 : 0), 4);
	mem_write(m, base + 0x24, 0, 4);
	mem_write(m, base + 0x20, (uint32_t)(step[2] & 3) << 28 | (base == BASE + 0x3000 ? (uint32_t)step[5] << 16 : 0) |
		  (uint32_t)step[3] << 8 | step[4], 4);
	mem_write(m, base + 0x70, 11, 4);
}

static void one_step(struct rig *r, const uint8_t *step)
{
	uint64_t base = BASE + (uint64_t)(step[0] >> 4) % DEVICES * 0x1000;
	struct mem *m = r->env.mem;
	uint32_t value;

	memcpy(&value, step + 4, 4);
	switch (step[0] & 7) {
	case 0: mem_write(m, base + 2 * step[1], value, 4); break;
	case 1: mem_write(m, base + 0x50, value & 7, 4); break;
	case 2: queue_up(r, base, step); break;
	case 3: start(r, base, step); break;
	case 4: mem_write(m, base + 0x70, 15, 4); break;
	case 5:
		if (step[2] & 1)
			mem_write(m, base + 0xc0, 1, 4);
		mem_read(m, base + 2 * step[1], 4); break;
	default: mem_dma_write(m, (uint64_t)step[1] * AREA / 4 + step[2] * 4u, &value, 4); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct rig r; /* made once: threads and files cost more than a run */

	if (!r.block)
		rig_open(&r);
	memset(mem_ram_base(r.env.mem), 0, 16 * AREA);
	for (size_t at = 0; at + 8 <= size && at < 8 * 512; at += 8)
		one_step(&r, data + at);
	for (unsigned i = 0; i < DEVICES; i++)
		r.v[i]->device.ops->reset(&r.v[i]->device, RESET_COLD);
	return 0;
}
