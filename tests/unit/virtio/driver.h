/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's half of a virtqueue for tests (include after cmocka.h): rings in a machine's memory, split and packed. Requests are
 * made of descriptors in a table; what comes back is looked at by the test.
 */
#ifndef TEST_VIRTIO_DRIVER_H
#define TEST_VIRTIO_DRIVER_H

#include <string.h>
#include "base/err.h"
#include "mem/mem.h"
#include "virtio/queue.h"

#define RAM_SIZE (4u << 20)
#define AT_DESC 0x10000u
#define AT_DRIVER 0x20000u
#define AT_DEVICE 0x30000u
#define AT_TABLE 0x40000u
#define AT_DATA 0x100000u
#define D_NEXT 1
#define D_WRITE 2
#define D_INDIRECT 4
#define WRAP 0x8000u

struct piece {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
};

struct driver {
	struct mem *mem;
	struct virtqueue *vq;
	uint8_t *ram;
	uint16_t size;
	bool packed;
	uint16_t next;	   /* split: available index; packed: position with wrap */
	uint16_t next_id;  /* split: next free descriptor */
	uint16_t seen;	   /* of the used ring */
	unsigned interrupts, broken;
};

static inline uint16_t get16(const uint8_t *at)
{
	uint16_t v;

	memcpy(&v, at, 2);
	return v;
}

static inline void put16(uint8_t *at, uint16_t v)
{
	memcpy(at, &v, 2);
}

static void driver_interrupt(void *opaque, struct virtqueue *vq)
{
	((struct driver *)opaque)->interrupts++;
}

static void driver_broken(void *opaque, struct virtqueue *vq)
{
	((struct driver *)opaque)->broken++;
}

static inline void driver_desc(struct driver *d, uint32_t table, unsigned i, const struct piece *p, uint16_t next)
{
	uint8_t *at = d->ram + table + 16 * i;

	memcpy(at, &p->addr, 8);
	memcpy(at + 8, &p->len, 4);
	put16(at + 12, p->flags);
	put16(at + 14, next);
}

/* Makes a chain of n pieces available; NEXT is added to all but the last. Gives its id. */
static inline uint16_t driver_add(struct driver *d, const struct piece *p, unsigned n)
{
	uint16_t first = d->next_id, id = d->next_id;

	if (!d->packed) {
		for (unsigned i = 0; i < n; i++) {
			struct piece q = p[i];
			uint16_t next = (uint16_t)((id + 1) % d->size);

			if (i + 1 < n)
				q.flags |= D_NEXT;
			driver_desc(d, AT_DESC, id, &q, next);
			id = next;
		}
		d->next_id = id;
		put16(d->ram + AT_DRIVER + 4 + 2 * (d->next % d->size), first);
		d->next++;
		__atomic_store_n((uint16_t *)(void *)(d->ram + AT_DRIVER + 2), d->next, __ATOMIC_RELEASE);
		return first;
	}
	d->next_id = (uint16_t)((d->next_id + 1) % d->size);
	for (unsigned k = 0; k < n; k++) {
		/* the first slot's flags last */
		unsigned i = (k + 1) % n;
		uint16_t index = (uint16_t)((d->next & ~WRAP) + i), wrap = d->next & WRAP;
		uint8_t *at;
		uint16_t flags = p[i].flags;

		if (index >= d->size) {
			index -= d->size;
			wrap ^= WRAP;
		}
		at = d->ram + AT_DESC + 16 * index;
		if (i + 1 < n)
			flags |= D_NEXT;
		flags |= wrap ? 0x80 : 0x8000;
		memcpy(at, &p[i].addr, 8);
		memcpy(at + 8, &p[i].len, 4);
		put16(at + 12, id);
		__atomic_store_n((uint16_t *)(void *)(at + 14), flags, __ATOMIC_RELEASE);
	}
	d->next += n;
	if ((d->next & ~WRAP) >= d->size)
		d->next = (uint16_t)((d->next - d->size) ^ WRAP);
	return id;
}

/* The next used element, if there is one; `slots`: what its chain took. */
static inline bool driver_used(struct driver *d, uint16_t *id, uint32_t *len, unsigned slots)
{
	const uint8_t *at;

	if (!d->packed) {
		if (get16(d->ram + AT_DEVICE + 2) == d->seen)
			return false;
		at = d->ram + AT_DEVICE + 4 + 8 * (d->seen++ % d->size);
		*id = get16(at);
		memcpy(len, at + 4, 4);
		return true;
	}
	at = d->ram + AT_DESC + 16 * (d->seen & ~WRAP);
	if (!!(get16(at + 14) & 0x80) != !!(d->seen & WRAP) || !!(get16(at + 14) & 0x8000) != !!(d->seen & WRAP))
		return false;
	*id = get16(at + 12);
	memcpy(len, at + 8, 4);
	d->seen += slots;
	if ((d->seen & ~WRAP) >= d->size)
		d->seen = (uint16_t)((d->seen - d->size) ^ WRAP);
	return true;
}

static inline void driver_init(struct driver *d, struct mem *mem, struct virtqueue *vq, uint16_t size, bool packed)
{
	*d = (struct driver){ .mem = mem, .vq = vq, .ram = mem_ram_base(mem), .size = size, .packed = packed };
	if (packed)
		d->next = d->seen = WRAP;
	memset(d->ram + AT_DESC, 0, AT_TABLE - AT_DESC);
}

static inline void driver_open(struct driver *d, struct virtqueue *vq, uint16_t size, bool packed, bool event_idx)
{
	struct mem *mem;
	struct err e;

	mem = mem_create(RAM_SIZE, &e);
	assert_non_null(mem);
	assert_int_equal(mem_map_ram(mem, 0, 0, RAM_SIZE, "ram", &e), 0);
	vq_init(vq, mem, 0, size);
	driver_init(d, mem, vq, size, packed);
	vq->interrupt = driver_interrupt;
	vq->broken_hook = driver_broken;
	vq->opaque = d;
	vq->desc = AT_DESC;
	vq->driver = AT_DRIVER;
	vq->device = AT_DEVICE;
	vq->enabled = true;
	vq->packed = packed;
	vq->indirect = true;
	vq->event_idx = event_idx;
	assert_true(vq_start(vq));
}

static inline void driver_close(struct driver *d)
{
	vq_dispose(d->vq);
	mem_destroy(d->mem);
}

#endif
