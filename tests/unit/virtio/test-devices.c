/* SPDX-License-Identifier: Apache-2.0 */
/* Devices behind MMIO as a driver sees them: negotiation, requests, hostile requests, pause, saved state in the middle of work. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "../state/roundtrip.h"
#include "backend/block.h"
#include "base/evloop.h"
#include "driver.h"
#include "virtio/block-private.h"

#define BASE 0xfec80000u
#define DISK (1u << 20)

static struct device_env env;
static struct block *block;
static struct virtio *v;
static struct driver d;
static struct evloop *loop_of_devices; /* of those made next */
static int level;
static int bell; /* where requests ring instead of writing the register; -1: nowhere */

static void wire(void *opaque, unsigned pin, int l)
{
	level = l;
}

static uint32_t in(unsigned at)
{
	return (uint32_t)mem_read(env.mem, BASE + at, 4);
}

static void out(unsigned at, uint32_t value)
{
	mem_write(env.mem, BASE + at, value, 4);
}

static void open_memory(void)
{
	struct err e;

	env = (struct device_env){ .mem = mem_create(RAM_SIZE, &e), .clock = clock_create_manual(), .loop = loop_of_devices };
	assert_non_null(env.mem);
	assert_int_equal(mem_map_ram(env.mem, 0, 0, RAM_SIZE, "ram", &e), 0);
	level = 0;
	bell = -1;
}

static void attach(struct virtio *made)
{
	struct err e;

	assert_non_null(made);
	v = made;
	assert_int_equal(virtio_mmio_attach(v, BASE, (struct irq_line){ .set = wire }, &e), 0);
	v->device.ops->resume(&v->device);
}

static void open_disk(void)
{
	struct virtio_block_config c = { .serial = "0123456789", .queues = 1 };
	int fd = memfd_create("disk", 0);
	char spec[64];
	struct err e;

	assert_int_equal(ftruncate(fd, DISK), 0);
	open_memory();
	snprintf(spec, sizeof(spec), "file=/proc/self/fd/%d", fd);
	if (block_open(&block, &(struct block_config){ .spec = spec }, &e))
		fail_msg("%s", e.text);
	close(fd);
	c.block = block;
	attach(virtio_block_create(&env, 3, &c, &e));
}

static void close_all(void)
{
	v->device.ops->destroy(&v->device);
	if (block)
		block_close(block);
	block = NULL;
	clock_destroy(env.clock);
	mem_destroy(env.mem);
}

/* With these features of the upper and lower half, and queue 0 of 8. */
static void start(uint32_t high, uint32_t low)
{
	out(0x70, 0);
	out(0x70, 3);
	out(0x24, 1);
	out(0x20, high);
	out(0x24, 0);
	out(0x20, low);
	out(0x70, 11);
	assert_int_equal(in(0x70), 11);
	out(0x30, 0);
	out(0x38, 8);
	out(0x80, AT_DESC);
	out(0x90, AT_DRIVER);
	out(0xa0, AT_DEVICE);
	out(0x44, 1);
	driver_init(&d, env.mem, &v->queue[0], 8, high & 4);
	out(0x70, 15);
	assert_int_equal(in(0x70), 15);
}

/* One disk request with `len` bytes at AT_DATA + 0x1000; its status, or -1 when it does not come back. */
static int request(uint32_t type, uint64_t sector, uint32_t len, bool to_guest)
{
	struct piece p[3] = { { AT_DATA, 16, 0 }, { AT_DATA + 0x1000, len, to_guest ? D_WRITE : 0 }, { AT_DATA + 0x8000, 1, D_WRITE } };
	uint32_t header[2] = { type, 0 }, written;
	uint16_t id;

	memcpy(d.ram + AT_DATA, header, 8);
	memcpy(d.ram + AT_DATA + 8, &sector, 8);
	d.ram[AT_DATA + 0x8000] = 0xff;
	if (!len)
		p[1] = p[2];
	driver_add(&d, p, len ? 3 : 2);
	if (bell >= 0)
		assert_int_equal(eventfd_write(bell, 1), 0);
	else
		out(0x50, 0);
	for (unsigned i = 0; i < 2000; i++) {
		if (driver_used(&d, &id, &written, len ? 3 : 2))
			return d.ram[AT_DATA + 0x8000];
		usleep(1000);
	}
	return -1;
}

static void test_negotiation(void **state)
{
	open_disk();
	assert_int_equal(in(0x00), 0x74726976);
	assert_int_equal(in(0x04), 2);
	assert_int_equal(in(0x08), VIRTIO_BLOCK);
	assert_int_equal(in(0x100), DISK / 512);
	out(0x14, 1);
	assert_int_equal(in(0x10) & 1, 1);
	/* not without version 1 */
	out(0x70, 3);
	out(0x70, 11);
	assert_int_equal(in(0x70), 3);
	/* not with what was not offered */
	out(0x24, 1);
	out(0x20, 1);
	out(0x24, 0);
	out(0x20, 1u << 27);
	out(0x70, 11);
	assert_int_equal(in(0x70), 3);
	out(0x70, 15); /* so it cannot go on either */
	assert_int_equal(in(0x70) & 4, 0);
	start(1, 0);
	/* a reset forgets everything */
	out(0x70, 0);
	assert_int_equal(in(0x70), 0);
	out(0x30, 0);
	assert_int_equal(in(0x44), 0);
	out(0x30, 99); /* no such queue */
	assert_int_equal(in(0x34), 0);
	out(0x44, 1);
	close_all();
}

static void test_disk(void **state)
{
	static const uint32_t high[2] = { 1, 5 };

	for (unsigned i = 0; i < 2; i++) {
		open_disk();
		start(high[i], 1u << 9 | 1u << 14);
		memset(d.ram + AT_DATA + 0x1000, 0x5a, 4096);
		assert_int_equal(request(1, 8, 4096, false), 0);
		assert_int_equal(request(4, 0, 0, false), 0);
		memset(d.ram + AT_DATA + 0x1000, 0, 4096);
		assert_int_equal(request(0, 15, 512, true), 0);
		assert_int_equal(d.ram[AT_DATA + 0x11ff], 0x5a);
		assert_int_equal(d.ram[AT_DATA + 0x1200], 0);
		assert_int_equal(request(8, 0, 20, true), 0);
		assert_memory_equal(d.ram + AT_DATA + 0x1000, "0123456789\0\0", 12);
		assert_int_equal(level, 1);
		assert_int_equal(in(0x60), 1);
		out(0x64, 1);
		assert_int_equal(level, 0);
		/* beyond the end, wrapping, odd, unknown: errors, and the disk goes on */
		assert_int_equal(request(0, DISK / 512, 512, true), 1);
		assert_int_equal(request(1, UINT64_MAX / 512, 1024, false), 1);
		assert_int_equal(request(1, UINT64_MAX, 512, false), 1);
		assert_int_equal(request(0, 0, 511, true), 1);
		assert_int_equal(request(77, 0, 512, true), 2);
		assert_int_equal(request(0, 8, 512, true), 0);
		close_all();
	}
}

/* Doorbells do what the register does, and nothing while the machine is paused; what rang then is found when it goes on. */
static void test_doorbells(void **state)
{
	struct evloop *loop = evloop_create(NULL);
	struct io_doorbell d0[2];
	const struct mem_range *r;

	loop_of_devices = loop;
	open_disk();
	r = mem_find(env.mem, BASE);
	assert_non_null(r->ops->doorbells);
	assert_int_equal(r->ops->doorbells(r->opaque, d0, 2), 1);
	assert_int_equal(r->ops->doorbells(r->opaque, d0, 2), 1);
	assert_int_equal(d0[0].offset, 0x50);
	assert_int_equal(d0[0].size, 4);
	assert_int_equal(d0[0].value, 0);
	assert_int_equal(evloop_start(loop, NULL), 0);
	start(1, 0);
	bell = d0[0].fd;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(request(8, 0, 20, true), 0);
	assert_memory_equal(d.ram + AT_DATA + 0x1000, "0123456789\0\0", 12);
	v->device.ops->pause(&v->device);
	memset(d.ram + AT_DATA + 0x1000, 0, 20);
	driver_add(&d, (struct piece[]){ { AT_DATA, 16, 0 }, { AT_DATA + 0x1000, 20, D_WRITE }, { AT_DATA + 0x8000, 1, D_WRITE } }, 3);
	d.ram[AT_DATA + 0x8000] = 0xff;
	assert_int_equal(eventfd_write(bell, 1), 0);
	usleep(20000);
	assert_int_equal(d.ram[AT_DATA + 0x8000], 0xff);
	v->device.ops->resume(&v->device);
	for (unsigned i = 0; i < 120000 && __atomic_load_n(&d.ram[AT_DATA + 0x8000], __ATOMIC_ACQUIRE) == 0xff; i++)
		usleep(1000);
	assert_int_equal(d.ram[AT_DATA + 0x8000], 0);
	evloop_stop(loop);
	close_all();
	evloop_destroy(loop);
	loop_of_devices = NULL;
}

static void test_disk_hostile(void **state)
{
	const struct piece none = { AT_DATA, 16, 0 }, small = { AT_DATA, 8, D_WRITE };

	for (unsigned i = 0; i < 2; i++) {
		open_disk();
		start(1, 0);
		driver_add(&d, i ? &none : &small, 1);
		out(0x50, 0);
		assert_int_equal(in(0x70), 15 | 64); /* needs a reset, and says so */
		assert_int_equal(in(0x60) & 2, 2);
		out(0x50, 0);
		out(0x50, 12345);
		start(1, 0);
		assert_int_equal(request(0, 0, 512, true), 0);
		close_all();
	}
}

/* Saved with requests done and one waiting; loaded into itself; the one that waited is served after the resume. */
static void test_saved(void **state)
{
	static const struct piece p[3] = { { AT_DATA, 16, 0 }, { AT_DATA + 0x1000, 512, D_WRITE }, { AT_DATA + 0x8000, 1, D_WRITE } };
	uint32_t len;
	uint16_t id;

	/* with 8 (and 3 slots each) a packed ring is at position 0 of an even round: both its positions are saved as 0 */
	for (unsigned round = 0; round < 6; round++) {
		static const unsigned done[3] = { 11, 8, 16 };
		bool packed = round & 1;

		open_disk();
		device_roundtrip(&v->device);
		start(packed ? 5 : 1, 1u << 29);
		for (unsigned i = 0; i < done[round / 2]; i++)
			assert_int_equal(request(0, i, 512, true), 0);
		v->device.ops->pause(&v->device);
		driver_add(&d, p, 3);
		device_roundtrip(&v->device);
		assert_false(driver_used(&d, &id, &len, 3));
		v->device.ops->resume(&v->device);
		for (unsigned i = 0; i < 2000 && !driver_used(&d, &id, &len, 3); i++)
			usleep(1000);
		assert_int_equal(len, 513);
		assert_int_equal(request(0, 3, 512, true), 0);
		close_all();
	}
}

static void test_balloon(void **state)
{
	const struct piece pages = { AT_DATA, 8, 0 };
	const uint32_t pfn[2] = { 0x200, 0xfffffff0 };
	struct virtio_balloon_info info;
	struct err e;

	open_memory();
	attach(virtio_balloon_create(&env, 1, &e));
	start(1, 0);
	memset(d.ram + 0x200000, 7, 8192);
	memcpy(d.ram + AT_DATA, pfn, 8);
	driver_add(&d, &pages, 1);
	out(0x50, 0);
	assert_int_equal(d.ram[0x200000], 0); /* gone back */
	assert_int_equal(d.ram[0x201000], 7);
	virtio_balloon_set(v, 1 << 20);
	assert_int_equal(in(0x100), 256);
	out(0x104, 1);
	virtio_balloon_get(v, &info);
	assert_int_equal(info.target, 1 << 20);
	assert_int_equal(info.actual, 4096);
	assert_int_equal(info.given_back, 4096);
	device_roundtrip(&v->device);
	device_roundtrip(v->own);
	close_all();
}

/* A request the error policy held when the machine was saved, as block-save.c has it. */
struct held {
	uint64_t offset, length, status;
	uint16_t queue, id, slots, pieces;
	uint8_t op, fua, unmap, unused[5];
	uint64_t at, piece;
};

static void held_load(const struct held *h, uint32_t count, uint32_t used)
{
	struct disk_hw *hw = v->own->hw;

	memcpy(hw->held, h, sizeof(*h));
	hw->count = count;
	hw->used = used;
	v->own->ops->loaded(v->own);
}

/* It is done when the machine goes on; what cannot be such a request breaks its queue and does nothing else. */
static void test_held(void **state)
{
	static const struct piece p[3] = { { AT_DATA, 16, 0 }, { AT_DATA + 0x1000, 512, D_WRITE }, { AT_DATA + 0x8000, 1, D_WRITE } };
	static const struct vq_chain none;
	struct held good = { .offset = 512, .length = 512, .status = AT_DATA + 0x8000, .pieces = 1, .at = AT_DATA + 0x1000, .piece = 512 };

	for (unsigned i = 0; i < 13; i++) {
		struct vq_chain c = none;
		struct held h = good;
		uint32_t len, used = sizeof(h);
		uint16_t id;

		open_disk();
		start(i % 2 ? 5 : 1, 0);
		memset(d.ram + AT_DATA + 0x1000, 0x77, 512);
		assert_int_equal(request(1, 1, 512, false), 0);
		v->device.ops->pause(&v->device);
		driver_add(&d, p, 3);
		assert_true(vq_pop(&v->queue[0], &c)); /* the machine that was saved had taken it */
		memset(d.ram + AT_DATA + 0x1000, 0, 512);
		h.id = c.id;
		h.slots = c.slots;
		switch (i) {
		case 2: h.queue = 1; break;
		case 3: h.op = 9; break;
		case 4: h.at = RAM_SIZE; break;
		case 5: h.at = UINT64_MAX - 100; break;
		case 6: h.piece = 1024; break;
		case 7: h.status = RAM_SIZE; break;
		case 8: h.pieces = 0xffff; break;
		case 9: h.slots = 9; break;
		case 10: used -= 8; break;
		case 11: h.slots = 0; break;
		case 12: h.op = BLOCK_FLUSH; break;
		}
		held_load(&h, 1, used);
		if (i < 2) { /* saved once more before it goes on */
			struct disk_hw *hw = v->own->hw;

			assert_int_equal(v->device.ops->save_check(&v->device, NULL), 0);
			v->own->ops->saving(v->own);
			assert_int_equal(hw->count, 1);
			assert_memory_equal(hw->held, &h, sizeof(h));
		}
		v->device.ops->resume(&v->device);
		if (i < 2) {
			for (unsigned k = 0; k < 10000 && !driver_used(&d, &id, &len, 3); k++)
				usleep(1000);
			assert_int_equal(len, 513);
			assert_int_equal(d.ram[AT_DATA + 0x11ff], 0x77);
			assert_int_equal(request(0, 1, 512, true), 0);
		} else if (i > 2) {
			assert_int_equal(in(0x70) & 64, 64);
		}
		/* one that was loaded and never submitted is dropped by a reset */
		start(1, 0);
		v->device.ops->pause(&v->device);
		h = good;
		h.slots = 1;
		held_load(&h, 1, sizeof(h));
		start(1, 0);
		v->device.ops->resume(&v->device);
		assert_int_equal(request(0, 1, 512, true), 0);
		close_all();
	}
}

static void given(void *opaque, uint64_t bytes)
{
	uint64_t *told = opaque;

	told[0]++;
	told[1] = bytes;
}

/* However often the guest changes its mind, it is told once a second, and what it came to in the end. */
static void test_balloon_told(void **state)
{
	const uint64_t second = 1000000000;
	uint64_t told[2] = { 0 };
	struct err e;

	open_memory();
	attach(virtio_balloon_create(&env, 1, &e));
	start(1, 0);
	virtio_balloon_on_change(v, given, told);
	clock_resume(env.clock);
	clock_advance(env.clock, 10 * second);
	out(0x104, 3);
	clock_advance(env.clock, 1);
	assert_int_equal(told[0], 1);
	assert_int_equal(told[1], 3 * 4096);
	for (unsigned i = 0; i < 1000; i++) {
		out(0x104, i % 100);
		clock_advance(env.clock, second / 4000);
	}
	assert_int_equal(told[0], 1);
	clock_advance(env.clock, second);
	assert_int_equal(told[0], 2);
	assert_int_equal(told[1], 99 * 4096);
	out(0x104, 99);
	clock_advance(env.clock, 5 * second);
	assert_int_equal(told[0], 2);
	out(0x104, 1);
	virtio_balloon_on_change(v, NULL, NULL);
	clock_advance(env.clock, 5 * second);
	assert_int_equal(told[0], 2);
	close_all();
}

static void test_rng(void **state)
{
	const struct piece p = { AT_DATA, 64, D_WRITE };
	uint8_t zero[64] = { 0 };
	uint32_t len;
	uint16_t id;
	struct err e;

	open_memory();
	attach(virtio_rng_create(&env, 1, 0, &e));
	start(1, 0);
	driver_add(&d, &p, 1);
	out(0x50, 0);
	assert_true(driver_used(&d, &id, &len, 1));
	assert_int_equal(len, 64);
	assert_memory_not_equal(d.ram + AT_DATA, zero, 64);
	device_roundtrip(&v->device);
	close_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_negotiation), cmocka_unit_test(test_disk),    cmocka_unit_test(test_disk_hostile),
		cmocka_unit_test(test_held), cmocka_unit_test(test_saved),	    cmocka_unit_test(test_balloon), cmocka_unit_test(test_balloon_told), cmocka_unit_test(test_rng),
		cmocka_unit_test(test_doorbells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
