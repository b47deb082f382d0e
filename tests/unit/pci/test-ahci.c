/* SPDX-License-Identifier: Apache-2.0 */
/* A disk and a CD-ROM drive on the AHCI controller: single and queued commands, scatter lists, packets, errors, and anything. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "rig.h"
#include "backend/block.h"
#include "pci/ahci.h"

#define DISK_SECTORS 4096u
#define CD_SECTORS 100u
#define ABAR 0xc0000000u
#define LISTS 0x10000u	/* of port n: + n * 0x1000 */
#define FRAMES 0x20000u /* the same */
#define TABLES 0x30000u /* of slot n of port m: + (m * 32 + n) * 0x200 */
#define DATA 0x100000u

enum { CLB = 0, FB = 8, IS = 0x10, IE = 0x14, CMD = 0x18, TFD = 0x20, SIG = 0x24, SSTS = 0x28, SCTL = 0x2c, SERR = 0x30, SACT = 0x34,
       CI = 0x38 };

struct box {
	struct rig r;
	struct block *disk, *cd, *other;
	struct device *ahci;
	unsigned devfn;
	char path[3][40];
};

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at / 512 * 7 + at % 251);
}

static struct block *make_file(char *path, uint64_t size, uint8_t add, bool read_only)
{
	struct block_config c = { .spec = path, .read_only = read_only };
	uint8_t *data = malloc(size);
	struct block *b = NULL;
	struct err e = { 0 };
	int fd;

	for (uint64_t i = 0; i < size; i++)
		data[i] = (uint8_t)(pattern(i) + add);
	strcpy(path, "/tmp/ospite-test-ahci-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
	free(data);
	if (block_open(&b, &c, &e))
		fail_msg("%s", e.text);
	return b;
}

static uint32_t reg(struct box *b, unsigned at)
{
	return (uint32_t)mem_read(b->r.env.mem, ABAR + at, 4);
}

static void set(struct box *b, unsigned at, uint32_t v)
{
	mem_write(b->r.env.mem, ABAR + at, v, 4);
}

static uint32_t preg(struct box *b, unsigned port, unsigned at)
{
	return reg(b, 0x100 + port * 0x80 + at);
}

static void pset(struct box *b, unsigned port, unsigned at, uint32_t v)
{
	set(b, 0x100 + port * 0x80 + at, v);
}

static void port_up(struct box *b, unsigned port)
{
	pset(b, port, CLB, LISTS + port * 0x1000);
	pset(b, port, FB, FRAMES + port * 0x1000);
	pset(b, port, SERR, ~0u);
	pset(b, port, IS, ~0u);
	pset(b, port, IE, ~0u);
	pset(b, port, CMD, 0x10);
	pset(b, port, CMD, 0x11);
}

/* The list stops only when what was underway has ended. */
static void port_again(struct box *b, unsigned port)
{
	pset(b, port, CMD, 0x10);
	for (unsigned i = 0; preg(b, port, CMD) >> 15 & 1; i++) {
		assert_true(i < 50000);
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	port_up(b, port);
}

static void bars_up(struct box *b)
{
	cfg_write(&b->r, b->devfn, 0x24, ABAR, 4);
	cfg_write(&b->r, b->devfn, 4, 6, 2);
	set(b, 4, 0x80000002);
	port_up(b, 0);
	port_up(b, 3);
}

static void box_open(struct box *b)
{
	struct ahci_drive_config drive[AHCI_PORTS] = { 0 };
	int slot;

	rig_open(&b->r);
	b->disk = make_file(b->path[0], DISK_SECTORS * 512ull, 0, false);
	b->cd = make_file(b->path[1], CD_SECTORS * 2048ull, 0, true);
	b->other = make_file(b->path[2], CD_SECTORS * 1024ull, 99, true);
	drive[0] = (struct ahci_drive_config){ .present = true, .block = b->disk, .serial = "S1" };
	drive[3] = (struct ahci_drive_config){ .present = true, .cdrom = true, .block = b->cd, .serial = "S2" };
	b->ahci = ahci_create(b->r.bus, &b->r.env, drive, &slot, NULL);
	assert_non_null(b->ahci);
	b->devfn = PCI_DEVFN((unsigned)slot, 0);
	rig_add(&b->r, b->ahci);
	rig_reset(&b->r);
	bars_up(b);
}

static void box_close(struct box *b)
{
	rig_close(&b->r);
	block_close(b->disk);
	block_close(b->cd);
	block_close(b->other);
	for (unsigned i = 0; i < 3; i++)
		unlink(b->path[i]);
}

/* A command in a slot, for `len` bytes at DATA + at cut into entries of `cut` bytes. */
static void prepare(struct box *b, unsigned port, unsigned slot, uint8_t op, uint64_t lba, uint16_t count, uint16_t feature,
		    const uint8_t *packet, uint32_t at, uint32_t len, uint32_t cut)
{
	uint32_t table = TABLES + (port * 32 + slot) * 0x200, n = 0;
	uint8_t fis[0x50] = { 0x27, 0x80, op, (uint8_t)feature, (uint8_t)lba, (uint8_t)(lba >> 8), (uint8_t)(lba >> 16), 0x40,
			      (uint8_t)(lba >> 24), (uint8_t)(lba >> 32), (uint8_t)(lba >> 40), (uint8_t)(feature >> 8),
			      (uint8_t)count, (uint8_t)(count >> 8) };
	uint32_t header[8] = { 5, 0, table };

	if (packet)
		memcpy(fis + 0x40, packet, 12);
	assert_int_equal(mem_dma_write(b->r.env.mem, table, fis, sizeof(fis)), 0);
	for (uint32_t done = 0; done < len; done += cut, n++) {
		uint32_t entry[4] = { DATA + at + done, 0, 0, MIN(cut, len - done) - 1 };

		assert_true(0x80 + n * 16 + 16 <= 0x200);
		assert_int_equal(mem_dma_write(b->r.env.mem, table + 0x80 + n * 16, entry, 16), 0);
	}
	header[0] |= n << 16;
	assert_int_equal(mem_dma_write(b->r.env.mem, LISTS + port * 0x1000 + slot * 32, header, 32), 0);
}

/* Until these slots are done, or the port has stopped with an error; 5 s at most. */
static void settle(struct box *b, unsigned port, uint32_t slots)
{
	for (unsigned i = 0; i < 50000; i++) {
		if (!((preg(b, port, CI) | preg(b, port, SACT)) & slots) || preg(b, port, IS) & 1u << 30)
			return;
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	fail_msg("commands %#x stay underway: CI %#x, SACT %#x", slots, preg(b, port, CI), preg(b, port, SACT));
}

static void issue(struct box *b, unsigned port, unsigned slot)
{
	pset(b, port, CI, 1u << slot);
	settle(b, port, 1u << slot);
}

static uint8_t byte(struct box *b, uint64_t at)
{
	uint8_t v;

	assert_int_equal(mem_dma_read(b->r.env.mem, at, &v, 1), 0);
	return v;
}

static void expect(struct box *b, uint32_t at, uint64_t from, uint32_t len, uint8_t add)
{
	for (uint32_t i = 0; i < len; i++)
		if (byte(b, DATA + at + i) != (uint8_t)(pattern(from + i) + add))
			fail_msg("byte %u of %u is %#x", i, len, byte(b, DATA + at + i));
}

static void test_links(void **state)
{
	struct box b;

	box_open(&b);
	assert_int_equal(cfg_read(&b.r, b.devfn, 0, 4), 0x29228086);
	assert_int_equal(cfg_read(&b.r, b.devfn, 8, 4) >> 8, 0x010601);
	assert_int_equal(reg(&b, 0xc), 0x3f);
	assert_int_equal(preg(&b, 0, SIG), 0x101);
	assert_int_equal(preg(&b, 3, SIG), 0xeb140101);
	assert_int_equal(preg(&b, 1, SIG), 0xffffffff);
	assert_int_equal(preg(&b, 0, SSTS) & 15, 3);
	assert_int_equal(preg(&b, 1, SSTS) & 15, 0);
	assert_int_equal(preg(&b, 1, TFD) & 0x7f, 0x7f);
	assert_int_equal(byte(&b, FRAMES + 0x40), 0x34); /* the disk has said who it is */
	assert_int_equal(byte(&b, FRAMES + 0x3000 + 0x46), 0xeb);
	/* the link is reset */
	pset(&b, 0, CMD, 0x10);
	pset(&b, 0, SCTL, 0x301);
	assert_int_equal(preg(&b, 0, SSTS) & 15, 0);
	pset(&b, 0, SCTL, 0x300);
	assert_int_equal(preg(&b, 0, SSTS) & 15, 3);
	assert_int_equal(preg(&b, 0, IS) & 0x40, 0x40);
	assert_int_equal(reg(&b, 8) & 1, 1);
	pset(&b, 0, SERR, ~0u);
	assert_int_equal(preg(&b, 0, IS) & 0x40, 0);
	box_close(&b);
}

/* The wire that is up; 4: none. */
static unsigned wire_up(struct box *b)
{
	unsigned n = 0;

	while (n < 4 && !b->r.level[n])
		n++;
	return n;
}

static void test_single(void **state)
{
	struct box b;
	unsigned msi;

	box_open(&b);
	prepare(&b, 0, 0, 0xec, 0, 0, 0, NULL, 0, 512, 512);
	issue(&b, 0, 0);
	assert_int_equal(byte(&b, DATA + 2 * 60) | byte(&b, DATA + 2 * 60 + 1) << 8, DISK_SECTORS);
	assert_int_equal(byte(&b, DATA + 2 * 76 + 1), 1); /* queues */
	assert_int_equal(byte(&b, DATA + 20), '1');
	assert_int_equal(byte(&b, DATA + 21), 'S');
	assert_int_equal(preg(&b, 0, IS) & 2, 2); /* by PIO */
	assert_int_not_equal(wire_up(&b), 4);
	pset(&b, 0, IS, ~0u);
	set(&b, 8, ~0u);
	assert_int_equal(wire_up(&b), 4);

	/* entries that end within sectors */
	prepare(&b, 0, 5, 0x25, 17, 9, 0, NULL, 0, 9 * 512, 514);
	issue(&b, 0, 5);
	expect(&b, 0, 17 * 512, 9 * 512, 0);
	assert_int_equal(preg(&b, 0, IS) & 1, 1);
	assert_int_equal(preg(&b, 0, TFD), 0x50);
	assert_int_equal(byte(&b, LISTS + 5 * 32 + 4) | byte(&b, LISTS + 5 * 32 + 5) << 8, 9 * 512);

	/* written, flushed, read again elsewhere; the interrupt is a message now */
	msi = cfg_read(&b.r, b.devfn, 0x34, 1);
	cfg_write(&b.r, b.devfn, msi + 4, 0xfee00000, 4);
	cfg_write(&b.r, b.devfn, msi + 2, 1, 2);
	assert_int_equal(wire_up(&b), 4);
	b.r.msis = 0;
	prepare(&b, 0, 1, 0x35, 200, 8, 0, NULL, 0, 4096, 4096);
	issue(&b, 0, 1);
	assert_true(b.r.msis >= 1);
	prepare(&b, 0, 2, 0xea, 0, 0, 0, NULL, 0, 0, 1);
	prepare(&b, 0, 3, 0x25, 200, 8, 0, NULL, 0x10000, 4096, 1024);
	pset(&b, 0, CI, 12);
	settle(&b, 0, 12);
	expect(&b, 0x10000, 17 * 512, 4096, 0);
	rig_roundtrip(&b.r);
	box_close(&b);
}

static void test_queued(void **state)
{
	struct box b;
	uint32_t all = 0;

	box_open(&b);
	for (unsigned n = 0; n < 32; n++) {
		prepare(&b, 0, n, 0x60, (n * 37) % 1000, (uint16_t)(n << 3), 16, NULL, n * 8192, 8192, 2048);
		all |= 1u << n;
	}
	pset(&b, 0, SACT, all);
	pset(&b, 0, CI, all);
	settle(&b, 0, all);
	for (unsigned n = 0; n < 32; n++)
		expect(&b, n * 8192, (n * 37) % 1000 * 512, 8192, 0);
	assert_int_equal(preg(&b, 0, IS) & 8, 8);
	pset(&b, 0, IS, ~0u);

	/* one that does not lie on the disk: the log says which */
	prepare(&b, 0, 7, 0x60, DISK_SECTORS - 3, 7 << 3, 16, NULL, 0, 8192, 8192);
	pset(&b, 0, SACT, 1 << 7);
	issue(&b, 0, 7);
	assert_int_equal(preg(&b, 0, IS) >> 30 & 1, 1);
	assert_int_equal(preg(&b, 0, SACT), 1 << 7);
	assert_int_equal(preg(&b, 0, TFD) & 0xff01, 0x1001);
	pset(&b, 0, CMD, 0x10);
	assert_int_equal(preg(&b, 0, CMD) >> 15 & 1, 0);
	assert_int_equal(preg(&b, 0, SACT) | preg(&b, 0, CI), 0);
	port_again(&b, 0);
	prepare(&b, 0, 0, 0x2f, 0x10, 1, 0, NULL, 0, 512, 512);
	issue(&b, 0, 0);
	assert_int_equal(byte(&b, DATA), 7);
	assert_int_equal(byte(&b, DATA + 3), 0x10);
	box_close(&b);
}

static void packet(struct box *b, const uint8_t bytes[12], uint32_t len)
{
	pset(b, 3, IS, ~0u);
	prepare(b, 3, 0, 0xa0, 0, 0, 1, bytes, 0, len, 4096);
	issue(b, 3, 0);
}

static void test_cdrom(void **state)
{
	static const uint8_t ready[12] = { 0 }, sense[12] = { 3, 0, 0, 0, 18 }, capacity[12] = { 0x25 },
			     read[12] = { 0x28, 0, 0, 0, 0, 5, 0, 0, 20 }, lock[12] = { 0x1e, 0, 0, 0, 1 },
			     event[12] = { 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8 };
	struct box b;

	box_open(&b);
	packet(&b, read, 20 * 2048);
	assert_int_equal(preg(&b, 3, IS) >> 30, 0);
	expect(&b, 0, 5 * 2048, 20 * 2048, 0);
	packet(&b, lock, 0);
	assert_int_equal(ahci_change_medium(b.ahci, 3, b.other, false), -EBUSY);
	packet(&b, event, 8);
	assert_int_equal(byte(&b, DATA + 4), 1); /* somebody pressed the button */
	packet(&b, ready, 0);
	assert_int_equal(preg(&b, 3, TFD), 0x40);
	assert_int_equal(ahci_change_medium(b.ahci, 3, b.other, true), 0);
	packet(&b, event, 8);
	assert_int_equal(byte(&b, DATA + 4), 2);
	packet(&b, ready, 0);
	assert_int_equal(preg(&b, 3, TFD), 0x6441); /* unit attention */
	port_again(&b, 3);
	packet(&b, sense, 18);
	assert_int_equal(byte(&b, DATA + 2), 6);
	assert_int_equal(byte(&b, DATA + 12), 0x28);
	packet(&b, capacity, 8);
	assert_int_equal(byte(&b, DATA + 3), CD_SECTORS / 2 - 1);
	packet(&b, read, 20 * 2048);
	expect(&b, 0, 5 * 2048, 20 * 2048, 99);
	assert_int_equal(ahci_change_medium(b.ahci, 0, b.other, true), -ENODEV);
	assert_int_equal(ahci_change_medium(b.ahci, 3, NULL, true), 0);
	packet(&b, ready, 0);
	port_again(&b, 3);
	packet(&b, ready, 0);
	port_again(&b, 3);
	packet(&b, sense, 18);
	assert_int_equal(byte(&b, DATA + 2), 2);
	assert_int_equal(byte(&b, DATA + 12), 0x3a);
	box_close(&b);
}

/* Too little room, no RAM, no list: errors, and the port works again after them. */
static void test_bad_lists(void **state)
{
	struct box b;
	uint32_t entry[4] = { 0xf0000000, 0, 0, 511 };

	box_open(&b);
	prepare(&b, 0, 0, 0x25, 0, 4, 0, NULL, 0, 1024, 1024);
	issue(&b, 0, 0);
	assert_int_equal(preg(&b, 0, IS) >> 30 & 1, 1);
	assert_int_equal(preg(&b, 0, CI), 1);
	port_again(&b, 0);
	prepare(&b, 0, 0, 0x25, 0, 1, 0, NULL, 0, 512, 512);
	assert_int_equal(mem_dma_write(b.r.env.mem, TABLES + 0x80, entry, 16), 0);
	issue(&b, 0, 0);
	assert_int_equal(preg(&b, 0, IS) >> 30 & 1, 1);
	port_again(&b, 0);
	pset(&b, 0, CLB, 0xf0000000);
	pset(&b, 0, CI, 1);
	assert_int_equal(preg(&b, 0, IS) >> 29 & 1, 1);
	port_again(&b, 0);
	prepare(&b, 0, 0, 0x25, 3, 1, 0, NULL, 0, 512, 512);
	issue(&b, 0, 0);
	expect(&b, 0, 3 * 512, 512, 0);
	box_close(&b);
}

/* Lists of noise, registers written at random, resets while commands are underway. */
static void test_anything(void **state)
{
	static const uint8_t ops[] = { 0x25, 0x35, 0x60, 0x61, 0xa0, 0xec, 0xea, 0x2f, 0x08, 0x90, 0xef, 0xc6, 0x20, 0x30 };
	struct box b;
	uint32_t seed = 4711;

	box_open(&b);
	for (unsigned i = 0; i < 4000; i++) {
		uint32_t r = rig_random(&seed), port = r & 1 ? 0 : 3, slot = r >> 1 & 31;
		uint8_t op = (uint8_t)(r & 64 ? ops[r % sizeof(ops)] : r >> 8), noise[12];

		for (unsigned k = 0; k < 12; k++)
			noise[k] = (uint8_t)rig_random(&seed);
		prepare(&b, port, slot, op, rig_random(&seed) % (DISK_SECTORS + 100), (uint16_t)(rig_random(&seed) & 0xff),
			(uint16_t)(r >> 16 & 31), noise, (r >> 8 & 0xff) * 512, (r >> 20 & 31) * 500, 1000 + (r >> 5 & 3) * 24);
		if (r & 0x80)
			pset(&b, port, SACT, 1u << slot);
		pset(&b, port, CI, 1u << slot);
		if (!(r & 0xf00))
			pset(&b, port, rig_random(&seed) % 32 * 4, rig_random(&seed));
		if (!(r & 0xf000))
			set(&b, rig_random(&seed) % 0x40 * 4, rig_random(&seed));
		if (!(r & 0xe0000) || preg(&b, port, IS) >> 30 & 1) {
			pset(&b, port, CMD, 0x10);
			pset(&b, port, SCTL, 0);
			port_up(&b, port);
		}
		for (unsigned k = 0; k < 4; k++)
			reg(&b, rig_random(&seed) % 0x400 & ~3u);
	}
	b.ahci->ops->pause(b.ahci);
	rig_roundtrip(&b.r);
	rig_reset(&b.r);
	bars_up(&b);
	prepare(&b, 0, 0, 0xec, 0, 0, 0, NULL, 0, 512, 512);
	issue(&b, 0, 0);
	assert_int_equal(byte(&b, DATA + 21), 'S');
	box_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_links), cmocka_unit_test(test_single),	cmocka_unit_test(test_queued),
		cmocka_unit_test(test_cdrom), cmocka_unit_test(test_bad_lists), cmocka_unit_test(test_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
