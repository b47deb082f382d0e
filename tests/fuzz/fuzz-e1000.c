/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 82540EM: the input is a list of steps of eight bytes, register accesses, descriptors and memory, frames from the network, time, a
 * back-end that is busy. Nothing may crash, hang, or leave the guest's memory; what is sent must fit what it says.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "backend/net.h"
#include "base/err.h"
#include "pci/e1000.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM (1u << 20)
#define BAR 0xc0000000u
#define STEPS 400

struct back {
	struct net_link link;
	bool busy;
};

static enum net_result back_send(struct net_link *l, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len)
{
	struct back *b = container_of(l, struct back, link);
	uint8_t sum = 0;

	CHECK(net_wire_fits(w, len));
	for (unsigned i = 0; i < n; i++)
		for (size_t k = 0; k < iov[i].iov_len; k += 64)
			sum ^= ((const uint8_t *)iov[i].iov_base)[k];
	return b->busy || (sum == 0x77 && len == 77) ? NET_BUSY : NET_DONE;
}

static void back_ready(struct net_link *l)
{
}

static const struct net_link_ops back_ops = { .kind = "fuzz", .send = back_send, .ready = back_ready };

static void add(void *opaque, struct device *d)
{
	struct device **list = opaque;

	d->next = *list;
	*list = d;
}

/* Rings where a driver has them, so that most inputs get somewhere. */
static void rings(struct mem *m)
{
	static const uint32_t set[][2] = { { 0x3800, 0x1000 }, { 0x3808, 0x400 }, { 0x3810, 0 }, { 0x400, 0xa }, { 0x2800, 0x2000 },
					   { 0x2808, 0x400 }, { 0x2810, 0 }, { 0x2818, 60 }, { 0x100, 0x801a }, { 0xd0, 0x1ffff } };

	for (unsigned i = 0; i < ARRAY_LEN(set); i++)
		mem_write(m, BAR + set[i][0], set[i][1], 4);
}

static void step(struct device_env *env, struct device *card, struct back *b, const uint8_t *s)
{
	uint32_t v = (uint32_t)(s[4] | s[5] << 8 | s[6] << 16) | (uint32_t)s[7] << 24;
	static const struct net_wire plain;
	static uint8_t frame[16384];
	uint8_t d[16] = { 0 };
	struct iovec iov = { frame, 14 };

	switch (s[0] & 15) {
	case 0: rings(env->mem); return;
	case 1: mem_read(env->mem, BAR + (s[1] << 8 & 0x1ff00) + (s[2] & 0xfc), 4); return;
	case 2:
	case 3: mem_write(env->mem, BAR + (s[1] << 8 & 0x1ff00) + (s[2] & 0xfc), v, 4); return;
	case 4: mem_write(env->mem, BAR + 0x3818, s[1] & 63, 4); return;
	case 5: mem_write(env->mem, BAR + 0x2818, s[1] & 63, 4); return;
	case 6:
	case 7: /* half a descriptor: its address, or its words */
		memcpy(d, s + 2, 4);
		mem_dma_write(env->mem, 0x1000 + 16u * (s[1] & 63) + (s[0] & 16 ? 8 : 0), s + 2, 6);
		return;
	case 8: mem_dma_write(env->mem, 0x2000 + 16u * (s[1] & 63), s + 2, 6); return;
	case 9: mem_dma_write(env->mem, 0x3000 + (uint64_t)s[1] * 4, s + 4, 4); return;
	case 10:
		memcpy(frame, s + 2, 6);
		memcpy(frame + 12, s + 4, 4);
		iov.iov_len = 14 + (v & 0x3fff) % (sizeof(frame) - 14);
		net_deliver(&b->link, &plain, &iov, 1);
		return;
	case 11: clock_advance(env->clock, v); return;
	case 12: b->busy = s[1] & 1; net_drained(&b->link); return;
	case 13: net_set_up(&b->link, s[1] & 1); return;
	case 14: card->ops->pause(card); card->ops->loaded(card); card->ops->resume(card); return;
	default: mem_write(env->mem, BAR + 0x10, s[1], 4); return;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct device_env env = { .mem = mem_create(RAM, NULL), .ports = ports_create(), .clock = clock_create_manual() };
	struct device *devices = NULL, *card;
	struct pci_bus_config c = { .env = env, .add = add, .opaque = &devices, .low_start = RAM, .low_end = 0xfec00000,
				    .assign_start = BAR, .high_start = 1ull << 32, .high_end = 1ull << 36 };
	struct net_config config = { .machine = "fuzz" };
	struct back *b = calloc(1, sizeof(*b));
	struct pci_bus *bus;
	struct err e = { 0 };

	CHECK(env.mem && b && !mem_map_ram(env.mem, 0, 0, RAM, "ram", &e));
	bus = pci_bus_create(&c, &e);
	CHECK(bus && !net_link_init(&b->link, NULL, &back_ops, &config, NET_TAKES_CSUM | NET_TAKES_TSO4, &e));
	add(&devices, pci_bus_device(bus));
	card = e1000_create(bus, &env, 0, PCI_DEVFN(3, 0), &b->link, &e);
	CHECK(card);
	pci_bus_assign(bus, (uint8_t[4]){ 0 });
	pci_config_write(bus, PCI_DEVFN(3, 0), 4, 7, 2);
	rings(env.mem);
	for (size_t n = 0; n < STEPS && 8 * n + 8 <= size; n++)
		step(&env, card, b, data + 8 * n);
	card->ops->destroy(card);
	while (devices) {
		struct device *d = devices;

		devices = d->next;
		if (d->ops->destroy)
			d->ops->destroy(d);
	}
	net_link_dispose(&b->link);
	free(b);
	clock_destroy(env.clock);
	ports_destroy(env.ports);
	mem_destroy(env.mem);
	return 0;
}
