/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio over PCI from the guest's side: a disk driven through its BAR, and as firmware may drive it that has mapped no BAR, through
 * the window in configuration space alone.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "../pci/rig.h"
#include "backend/block.h"
#include "driver.h"
#include "virtio/devices.h"

#define BAR_AT 0xd0000000u
#define DISK (1u << 20)
#define COMMON 0x0000u
#define ISR 0x1000u
#define DEVICE 0x2000u
#define NOTIFY 0x3000u

static struct rig r;
static struct block *block;
static struct virtio *v;
static struct driver d;
static unsigned devfn;
static unsigned window; /* offset of its capability; 0: the BAR is used */

static void open_disk(void)
{
	struct virtio_block_config c = { .serial = "pci", .queues = 2 };
	int fd = memfd_create("disk", 0), slot;
	char spec[64];
	struct err e;

	assert_int_equal(ftruncate(fd, DISK), 0);
	assert_int_equal(pwrite(fd, "first sector", 12, 0), 12);
	rig_open(&r);
	snprintf(spec, sizeof(spec), "file=/proc/self/fd/%d", fd);
	if (block_open(&block, &(struct block_config){ .spec = spec }, &e))
		fail_msg("%s", e.text);
	close(fd);
	c.block = block;
	v = virtio_block_create(&r.env, 0, &c, &e);
	assert_non_null(v);
	assert_int_equal(virtio_pci_attach(r.bus, v, -1, false, &slot, &e), 0);
	devfn = PCI_DEVFN((unsigned)slot, 0);
	rig_add(&r, &v->device);
	v->device.ops->resume(&v->device);
}

static void close_disk(void)
{
	rig_close(&r);
	block_close(block);
}

/* The capability of this kind: 1 common, 2 notification, 3 status, 4 device, 5 window. */
static unsigned capability(unsigned kind)
{
	unsigned at = cfg_read(&r, devfn, 0x34, 1);

	for (unsigned i = 0; at && i < 48; i++) {
		if (cfg_read(&r, devfn, at, 1) == 9 && cfg_read(&r, devfn, at + 3, 1) == kind)
			return at;
		at = cfg_read(&r, devfn, at + 1, 1);
	}
	fail_msg("no capability of kind %u", kind);
	return 0;
}

static void window_set(uint32_t at, uint32_t length)
{
	cfg_write(&r, devfn, window + 4, 4, 1);
	cfg_write(&r, devfn, window + 8, at, 4);
	cfg_write(&r, devfn, window + 12, length, 4);
}

static uint32_t in(uint32_t at, unsigned size)
{
	if (!window)
		return (uint32_t)mem_read(r.env.mem, BAR_AT + at, size);
	window_set(at, size);
	return cfg_read(&r, devfn, window + 16, size);
}

static void out(uint32_t at, uint32_t value, unsigned size)
{
	if (!window) {
		mem_write(r.env.mem, BAR_AT + at, value, size);
		return;
	}
	window_set(at, size);
	cfg_write(&r, devfn, window + 16, value, size);
}

static void queue_set_up(uint16_t size)
{
	out(COMMON + 0x16, 0, 2);
	out(COMMON + 0x18, size, 2);
	out(COMMON + 0x20, AT_DESC, 4);
	out(COMMON + 0x24, 0, 4);
	out(COMMON + 0x28, AT_DRIVER, 4);
	out(COMMON + 0x2c, 0, 4);
	out(COMMON + 0x30, AT_DEVICE, 4);
	out(COMMON + 0x34, 0, 4);
	out(COMMON + 0x1c, 1, 2);
	assert_int_equal(in(COMMON + 0x1c, 2), 1);
	driver_init(&d, r.env.mem, &v->queue[0], size, in(COMMON + 0x08, 4) == 1 && in(COMMON + 0x0c, 4) & 4);
}

static void start(uint32_t high)
{
	out(COMMON + 0x14, 0, 1);
	out(COMMON + 0x14, 3, 1);
	out(COMMON + 0x08, 0, 4);
	out(COMMON + 0x0c, 0, 4);
	out(COMMON + 0x08, 1, 4);
	out(COMMON + 0x0c, high, 4);
	out(COMMON + 0x14, 11, 1);
	assert_int_equal(in(COMMON + 0x14, 1), 11);
	queue_set_up(8);
	out(COMMON + 0x14, 15, 1);
	assert_int_equal(in(COMMON + 0x14, 1), 15);
}

/* The first sector is read; the status, or -1 when the request does not come back. */
static int read_first(bool wait)
{
	const struct piece p[3] = { { AT_DATA, 16, 0 }, { AT_DATA + 0x1000, 512, D_WRITE }, { AT_DATA + 0x8000, 1, D_WRITE } };
	uint32_t written;
	uint16_t id;

	memset(d.ram + AT_DATA, 0, 0x2000);
	d.ram[AT_DATA + 0x8000] = 0xff;
	driver_add(&d, p, 3);
	out(NOTIFY, 0, 2);
	for (unsigned i = 0; i < (wait ? 10000 : 20); i++) {
		if (driver_used(&d, &id, &written, 3)) {
			assert_memory_equal(d.ram + AT_DATA + 0x1000, "first sector", 12);
			return d.ram[AT_DATA + 0x8000];
		}
		usleep(1000);
	}
	return -1;
}

static void map_bar(void)
{
	window = 0;
	cfg_write(&r, devfn, 0x20, BAR_AT, 4);
	cfg_write(&r, devfn, 0x24, 0, 4);
	cfg_write(&r, devfn, 4, 6, 2);
}

static void test_bar(void **state)
{
	open_disk();
	map_bar();
	for (unsigned kind = 1; kind <= 4; kind++)
		assert_int_equal(cfg_read(&r, devfn, capability(kind) + 4, 1), 4);
	start(1);
	assert_int_equal(in(DEVICE, 4), DISK / 512);
	assert_int_equal(read_first(true), 0);
	assert_int_equal(in(ISR, 1), 1);
	assert_int_equal(in(ISR, 1), 0);
	rig_roundtrip(&r);
	close_disk();
}

/* No BAR is mapped, memory decoding is off. */
static void test_window(void **state)
{
	open_disk();
	window = capability(5);
	assert_int_equal(cfg_read(&r, devfn, window + 2, 1), 20);
	start(1);
	assert_int_equal(in(DEVICE, 4), DISK / 512);
	assert_int_equal(in(DEVICE + 1, 1), DISK / 512 >> 8 & 0xff);
	assert_int_equal(read_first(true), 0);
	assert_int_equal(in(ISR, 1), 1);
	rig_roundtrip(&r);
	/* bytes one by one, each an access of its own, and the whole of it as one with its neighbour */
	window_set(DEVICE, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(cfg_read(&r, devfn, window + 16 + i, 1), DISK / 512 >> 8 * i & 0xff);
	close_disk();
}

/* A window that leads nowhere, or is not what a driver may ask for: no access, the bytes are as they were written. */
static void test_window_hostile(void **state)
{
	static const struct {
		uint8_t bar;
		uint32_t at, length;
	} bad[] = {
		{ 4, 0x4000, 4 }, { 4, 0x3ffe, 4 }, { 4, 0xfffffffc, 4 }, { 4, 0xffffffff, 1 }, { 4, 0x14, 0 },
		{ 4, 0x14, 3 },	  { 4, 0x14, 8 },   { 4, 0x14, 0xffffffff }, { 4, 0x15, 2 },	 { 5, 0x14, 1 },
		{ 0, 0x14, 1 },	  { 1, 0, 4 },	    { 255, 0x14, 1 },
	};

	open_disk();
	window = capability(5);
	out(COMMON + 0x14, 3, 1);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		cfg_write(&r, devfn, window + 4, bad[i].bar, 1);
		cfg_write(&r, devfn, window + 8, bad[i].at, 4);
		cfg_write(&r, devfn, window + 12, bad[i].length, 4);
		cfg_write(&r, devfn, window + 16, 0, 4);
		assert_int_equal(cfg_read(&r, devfn, window + 16, 4), 0);
	}
	assert_int_equal(in(COMMON + 0x14, 1), 3);
	/* a register at the end of its area, another area's bytes behind it */
	out(0x0ffe, 0xffff, 2);
	assert_int_equal(in(0x0ffc, 4), 0);
	assert_int_equal(in(COMMON + 0x14, 1), 3);
	close_disk();
}

/* One queue goes back to nothing and comes again, of another size, while the device goes on. */
static void test_queue_reset(void **state)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		open_disk();
		map_bar();
		start(packed ? 0x105 : 0x101);
		for (unsigned i = 0; i < 11; i++)
			assert_int_equal(read_first(true), 0);
		assert_int_equal(in(COMMON + 0x3a, 2), 0);
		out(COMMON + 0x3a, 2, 2); /* only 1 means something */
		assert_int_equal(in(COMMON + 0x1c, 2), 1);
		out(COMMON + 0x3a, 1, 2);
		assert_int_equal(in(COMMON + 0x3a, 2), 0);
		assert_int_equal(in(COMMON + 0x1c, 2), 0);
		assert_int_equal(in(COMMON + 0x18, 2), 256);
		assert_int_equal(in(COMMON + 0x20, 4), 0);
		assert_int_equal(in(COMMON + 0x14, 1), 15);
		assert_int_equal(read_first(false), -1);
		rig_roundtrip(&r);
		queue_set_up(32);
		for (unsigned i = 0; i < 40; i++)
			assert_int_equal(read_first(true), 0);
		assert_int_equal(in(COMMON + 0x14, 1), 15);
		/* a queue that was broken: the device's reset is what it needs */
		driver_add(&d, &(struct piece){ RAM_SIZE, 16, 0 }, 1);
		out(NOTIFY, 0, 2);
		assert_int_equal(in(COMMON + 0x14, 1), 15 | 64);
		out(COMMON + 0x3a, 1, 2);
		queue_set_up(8);
		assert_int_equal(read_first(false), -1);
		start(1);
		assert_int_equal(read_first(true), 0);
		/* not negotiated: nothing happens */
		out(COMMON + 0x3a, 1, 2);
		assert_int_equal(in(COMMON + 0x1c, 2), 1);
		assert_int_equal(read_first(true), 0);
		close_disk();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bar),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_window_hostile),
		cmocka_unit_test(test_queue_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
