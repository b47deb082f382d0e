/* SPDX-License-Identifier: Apache-2.0 */
/* A disk and a CD-ROM drive on the IDE controller: programmed transfers, DMA, packets, errors, and anything at all. */
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
#include "pci/ide.h"

#define DISK_SECTORS 4096u
#define CD_SECTORS 100u
#define FN PCI_DEVFN(1, 1)
#define BM 0xc000

struct box {
	struct rig r;
	struct block *disk, *cd;
	struct device *ide;
	char path[2][40];
};

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at / 512 * 7 + at % 251);
}

static void make_file(char *path, uint64_t size)
{
	uint8_t *data = malloc(size);
	int fd;

	for (uint64_t i = 0; i < size; i++)
		data[i] = pattern(i);
	strcpy(path, "/tmp/ospite-test-ide-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
	free(data);
}

static struct block *open_file(const char *path, bool read_only)
{
	struct block_config c = { .spec = path, .read_only = read_only };
	struct block *b = NULL;
	struct err e = { 0 };

	if (block_open(&b, &c, &e))
		fail_msg("%s", e.text);
	return b;
}

static void box_open(struct box *b)
{
	struct ide_drive_config drive[4] = { 0 };
	struct irq_line irq[2];

	rig_open(&b->r);
	make_file(b->path[0], DISK_SECTORS * 512ull);
	make_file(b->path[1], CD_SECTORS * 2048ull);
	b->disk = open_file(b->path[0], false);
	b->cd = open_file(b->path[1], true);
	drive[0] = (struct ide_drive_config){ .present = true, .block = b->disk, .serial = "S1" };
	drive[2] = (struct ide_drive_config){ .present = true, .cdrom = true, .block = b->cd, .serial = "S2" };
	irq[0] = rig_line(&b->r, 14);
	irq[1] = rig_line(&b->r, 15);
	b->ide = ide_create(b->r.bus, &b->r.env, drive, irq, NULL);
	assert_non_null(b->ide);
	rig_add(&b->r, b->ide);
	rig_reset(&b->r);
	cfg_write(&b->r, FN, 0x20, BM, 4);
	cfg_write(&b->r, FN, 4, 5, 2);
}

static void box_close(struct box *b)
{
	rig_close(&b->r);
	block_close(b->disk);
	block_close(b->cd);
	unlink(b->path[0]);
	unlink(b->path[1]);
}

static void out(struct box *b, uint16_t port, uint32_t v)
{
	ports_out(b->r.env.ports, port, v, 1);
}

static uint32_t in(struct box *b, uint16_t port, unsigned size)
{
	return ports_in(b->r.env.ports, port, size);
}

/* The status once it is not busy; 2 s at most. */
static uint8_t settle(struct box *b, uint16_t base)
{
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t v = (uint8_t)in(b, (uint16_t)(base + 0x206), 1);

		if (!(v & 0x80))
			return v;
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	fail_msg("the drive stays busy");
	return 0;
}

static void command(struct box *b, uint64_t lba, unsigned count, uint8_t op)
{
	out(b, 0x1f2, count);
	out(b, 0x1f3, lba & 0xff);
	out(b, 0x1f4, lba >> 8 & 0xff);
	out(b, 0x1f5, lba >> 16 & 0xff);
	out(b, 0x1f6, 0xe0 | (lba >> 24 & 15));
	out(b, 0x1f7, op);
}

static void expect_pattern(const uint8_t *data, uint64_t at, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		if (data[i] != pattern(at + i))
			fail_msg("byte %llu is %02x", (unsigned long long)(at + i), data[i]);
}

static void read_block(struct box *b, uint16_t base, uint8_t *to, unsigned len)
{
	for (unsigned i = 0; i < len; i += 2) {
		uint16_t w = (uint16_t)in(b, base, 2);

		memcpy(to + i, &w, 2);
	}
}

static void test_identify(void **state)
{
	struct box b;
	uint16_t id[256];

	box_open(&b);
	assert_int_equal(in(&b, 0x1f7, 1), 0x50);
	assert_int_equal(in(&b, 0x1f4, 1), 0);
	assert_int_equal(in(&b, 0x174, 1), 0x14); /* packet drive's signature */
	assert_int_equal(in(&b, 0x175, 1), 0xeb);
	out(&b, 0x1f6, 0xf0); /* there is no second one */
	assert_int_equal(in(&b, 0x1f7, 1), 0);
	out(&b, 0x1f7, 0xec);
	assert_int_equal(in(&b, 0x1f7, 1), 0);
	command(&b, 0, 0, 0xec);
	assert_int_equal(b.r.level[14], 1);
	assert_int_equal(in(&b, 0x1f7, 1), 0x58);
	assert_int_equal(b.r.level[14], 0);
	read_block(&b, 0x1f0, (uint8_t *)id, 512);
	assert_int_equal(id[60] | id[61] << 16, DISK_SECTORS);
	assert_int_equal(id[10], 'S' << 8 | '1');
	assert_int_equal(in(&b, 0x1f7, 1), 0x50);
	command(&b, 0, 0, 0x77); /* no such command */
	assert_int_equal(in(&b, 0x1f7, 1), 0x51);
	assert_int_equal(in(&b, 0x1f1, 1), 4);
	rig_roundtrip(&b.r);
	box_close(&b);
}

static void test_programmed(void **state)
{
	uint8_t data[300 * 512];
	struct box b;

	box_open(&b);
	command(&b, 5, 2, 0x20);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(settle(&b, 0x1f0), 0x58);
		read_block(&b, 0x1f0, data + i * 512, 512);
	}
	assert_int_equal(settle(&b, 0x1f0), 0x50);
	expect_pattern(data, 5 * 512, 1024);
	/* 256 sectors in blocks of 16, saved in the middle */
	out(&b, 0x1f2, 16);
	out(&b, 0x1f7, 0xc6);
	command(&b, 1000, 0, 0xc4);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(settle(&b, 0x1f0), 0x58);
		read_block(&b, 0x1f0, data + i * 8192, 8192);
		if (i == 3)
			rig_roundtrip(&b.r);
	}
	assert_int_equal(settle(&b, 0x1f0), 0x50);
	expect_pattern(data, 1000 * 512, 256 * 512);
	/* write, flush, read again */
	command(&b, 7, 1, 0x30);
	assert_int_equal(settle(&b, 0x1f0), 0x58);
	for (unsigned i = 0; i < 128; i++)
		ports_out(b.r.env.ports, 0x1f0, i * 0x01010101u, 4);
	assert_int_equal(settle(&b, 0x1f0), 0x50);
	out(&b, 0x1f7, 0xe7);
	assert_int_equal(settle(&b, 0x1f0), 0x50);
	command(&b, 7, 1, 0x20);
	assert_int_equal(settle(&b, 0x1f0), 0x58);
	assert_int_equal(in(&b, 0x1f0, 4), 0);
	assert_int_equal(in(&b, 0x1f0, 4), 0x01010101);
	/* past the end; a reset in the middle of a transfer */
	command(&b, DISK_SECTORS - 1, 2, 0x20);
	assert_int_equal(settle(&b, 0x1f0), 0x51);
	assert_int_equal(in(&b, 0x1f1, 1), 0x10);
	command(&b, 0, 8, 0x20);
	out(&b, 0x3f6, 4);
	assert_int_equal(in(&b, 0x3f6, 1) & 0x80, 0x80);
	out(&b, 0x3f6, 0);
	assert_int_equal(settle(&b, 0x1f0), 0x50);
	assert_int_equal(in(&b, 0x1f1, 1), 1);
	box_close(&b);
}

/* An entry of the table at 0x2000. */
/* Blocks by as many words as are asked for, up to a block's end and not beyond. */
static void test_many(void **state)
{
	static uint8_t data[64 * 512 + 64];
	unsigned done = 0, calls = 0;
	struct ports *ports;
	struct box b;

	box_open(&b);
	ports = b.r.env.ports;
	assert_int_equal(ports_in_many(ports, 0x1f7, 1, data, 4), 0); /* of the data port only */
	out(&b, 0x1f2, 16);
	out(&b, 0x1f7, 0xc6);
	command(&b, 1000, 64, 0xc4);
	for (unsigned size = 1; done < 64 * 512; size = size == 4 ? 1 : size * 2, calls++) {
		unsigned want = 1 + calls * 97 % 1500, n, left = 8192 - done % 8192;

		if (left == 8192)
			assert_int_equal(settle(&b, 0x1f0), 0x58);
		n = ports_in_many(ports, 0x1f0, size, data + done, want);
		assert_int_equal(n, MIN(want, MAX(left / size, 1)));
		done += MIN(n * size, left);
	}
	assert_int_equal(settle(&b, 0x1f0), 0x50);
	expect_pattern(data, 1000 * 512, 64 * 512);
	memset(data, 1, 8);
	assert_int_equal(ports_in_many(ports, 0x1f0, 4, data, 2), 1); /* nothing there */
	assert_memory_equal(data, "\0\0\0\0\1\1\1\1", 8);
	command(&b, 7, 2, 0x30);
	for (unsigned i = 0; i < 1024; i++)
		data[i] = (uint8_t)(i * 7);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(settle(&b, 0x1f0), 0x58);
		assert_int_equal(ports_out_many(ports, 0x1f0, 2, data + 512 * i, 100), 100);
		assert_int_equal(ports_out_many(ports, 0x1f0, 2, data + 512 * i + 200, 1000), 156);
	}
	assert_int_equal(settle(&b, 0x1f0), 0x50);
	command(&b, 7, 2, 0x20);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(settle(&b, 0x1f0), 0x58);
		read_block(&b, 0x1f0, data + 2048 + 512 * i, 512);
	}
	assert_memory_equal(data, data + 2048, 1024);
	box_close(&b);
}

static void prd(struct box *b, unsigned n, uint32_t at, uint16_t len, bool last)
{
	mem_write(b->r.env.mem, 0x2000 + 8 * n, at, 4);
	mem_write(b->r.env.mem, 0x2004 + 8 * n, len | (last ? 0x80000000u : 0), 4);
}

static void test_dma(void **state)
{
	static uint8_t data[70000];
	struct box b;

	box_open(&b);
	ports_out(b.r.env.ports, BM + 4, 0x2000, 4);
	prd(&b, 0, 0x10000, 0, false); /* 64 KiB */
	prd(&b, 1, 0x30000, 1024, true);
	command(&b, 100, 130, 0xc8);
	out(&b, BM, 9);
	assert_int_equal(settle(&b, 0x1f0) & 0xf9, 0x50);
	assert_int_equal(in(&b, BM + 2, 1) & 7, 4);
	out(&b, BM, 0);
	mem_dma_read(b.r.env.mem, 0x10000, data, 65536);
	expect_pattern(data, 100 * 512, 65536);
	mem_dma_read(b.r.env.mem, 0x30000, data, 1024);
	expect_pattern(data, 100 * 512 + 65536, 1024);
	out(&b, BM + 2, 6);
	assert_int_equal(in(&b, BM + 2, 1) & 7, 0);
	/* to the disk, the start bit before the command */
	prd(&b, 0, 0x10002, 1024, true);
	out(&b, BM, 1);
	command(&b, 200, 2, 0xca);
	assert_int_equal(settle(&b, 0x1f0) & 0xf9, 0x50);
	out(&b, BM, 0);
	assert_int_equal(block_sync(b.disk, BLOCK_READ, 200 * 512, data, 1024), 0);
	assert_int_equal(data[0], pattern(100 * 512 + 2));
	/* a table that is too short, one that leads nowhere */
	out(&b, BM + 2, 6);
	prd(&b, 0, 0x10000, 512, true);
	command(&b, 0, 2, 0xc8);
	out(&b, BM, 9);
	assert_int_equal(settle(&b, 0x1f0) & 1, 1);
	assert_int_equal(in(&b, BM + 2, 1) & 3, 2);
	out(&b, BM, 0);
	out(&b, BM + 2, 6);
	prd(&b, 0, 0xf0000000, 512, true);
	command(&b, 0, 1, 0xca);
	out(&b, BM, 1);
	assert_int_equal(settle(&b, 0x1f0) & 1, 1);
	out(&b, BM, 0);
	rig_roundtrip(&b.r);
	box_close(&b);
}

static uint8_t packet(struct box *b, const uint8_t p[12], unsigned limit)
{
	out(b, 0x176, 0xa0);
	out(b, 0x171, 0);
	out(b, 0x174, limit & 0xff);
	out(b, 0x175, limit >> 8);
	out(b, 0x177, 0xa0);
	assert_int_equal(settle(b, 0x170) & 8, 8);
	for (unsigned i = 0; i < 12; i += 2)
		ports_out(b->r.env.ports, 0x170, p[i] | p[i + 1] << 8, 2);
	return settle(b, 0x170);
}

static void test_packets(void **state)
{
	const uint8_t inquiry[12] = { 0x12, 0, 0, 0, 36 }, capacity[12] = { 0x25 }, sense[12] = { 3, 0, 0, 0, 18 };
	const uint8_t read[12] = { 0x28, 0, 0, 0, 0, 10, 0, 0, 3 }, beyond[12] = { 0x28, 0, 0, 0, 0, 99, 0, 0, 2 };
	const uint8_t toc[12] = { 0x43, 0, 0, 0, 0, 0, 0, 0, 20 }, ready[12] = { 0 }, lock[12] = { 0x1e, 0, 0, 0, 1 };
	const uint8_t eject[12] = { 0x1b, 0, 0, 0, 2 };
	uint8_t data[8192];
	struct box b;

	box_open(&b);
	assert_int_equal(packet(&b, inquiry, 0xfffe), 0x48);
	assert_int_equal(b.r.level[15], 1);
	assert_int_equal(in(&b, 0x174, 1), 36);
	read_block(&b, 0x170, data, 36);
	assert_memory_equal(data + 8, "OSPITE", 6);
	assert_int_equal(settle(&b, 0x170), 0x40);
	assert_int_equal(packet(&b, capacity, 8), 0x48);
	read_block(&b, 0x170, data, 8);
	assert_int_equal(data[3], CD_SECTORS - 1);
	assert_int_equal(data[6], 8);
	/* three sectors in blocks of 2048 */
	assert_int_equal(packet(&b, read, 2048), 0x48);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(settle(&b, 0x170), 0x48);
		read_block(&b, 0x170, data + i * 2048, 2048);
	}
	assert_int_equal(settle(&b, 0x170), 0x40);
	expect_pattern(data, 10 * 2048, 3 * 2048);
	/* errors and what is said about them */
	assert_int_equal(packet(&b, beyond, 2048), 0x41);
	assert_int_equal(packet(&b, sense, 2048), 0x48);
	read_block(&b, 0x170, data, 18);
	assert_int_equal(data[2], 5);
	assert_int_equal(data[12], 0x21);
	assert_int_equal(packet(&b, toc, 2048), 0x48);
	read_block(&b, 0x170, data, 20);
	assert_int_equal(data[14], 0xaa);
	assert_int_equal(data[19], CD_SECTORS);
	rig_roundtrip(&b.r);
	/* locked, the medium stays; taken out it is missed; another one is noticed */
	packet(&b, lock, 0);
	assert_int_equal(packet(&b, eject, 0), 0x41);
	assert_int_equal(ide_change_medium(b.ide, 2, NULL, false), -EBUSY);
	assert_int_equal(ide_change_medium(b.ide, 0, NULL, true), -ENODEV);
	assert_int_equal(ide_change_medium(b.ide, 2, NULL, true), 0);
	assert_int_equal(packet(&b, ready, 0), 0x41); /* changed */
	assert_int_equal(packet(&b, ready, 0), 0x41);
	packet(&b, sense, 2048);
	read_block(&b, 0x170, data, 18);
	assert_int_equal(data[12], 0x3a);
	assert_int_equal(ide_change_medium(b.ide, 2, b.cd, true), 0);
	assert_int_equal(packet(&b, ready, 0), 0x41);
	assert_int_equal(packet(&b, ready, 0), 0x40);
	box_close(&b);
}

static void test_random(void **state)
{
	static const uint8_t ops[] = { 0x20, 0x30, 0xc4, 0xc5, 0xc8, 0xca, 0x25, 0x35, 0x24, 0x34, 0x29, 0x39, 0xec, 0xa1, 0xa0,
				       0xa0, 0xa0, 0xe7, 0xc6, 0x91, 0x90, 0x08, 0x40, 0x27, 0xf8, 0xef };
	static const uint8_t packets[] = { 0x28, 0xa8, 0xbe, 0x12, 0x03, 0x43, 0x46, 0x4a, 0x5a, 0x1a, 0x1b, 0x1e, 0x51, 0xbd };
	uint32_t seed = 77777;
	struct box b;

	box_open(&b);
	for (unsigned i = 0; i < 40000; i++) {
		uint32_t v = rig_random(&seed), k = rig_random(&seed);
		uint16_t base = k & 1 ? 0x1f0 : 0x170, port = (uint16_t)(base + (v >> 8 & 7));

		switch (k >> 4 & 15) {
		case 0:
			out(&b, (uint16_t)(base + 7), ops[(v >> 4) % ARRAY_LEN(ops)]);
			break;
		case 1:
			out(&b, (uint16_t)(base + 6), 0xe0 | (v & 0x10 && !(v & 0xf000) ? 0x10 : 0));
			break;
		case 2: /* a whole transfer, either way; packets at times */
			for (unsigned n = 0; n < (v & 0x3ff); n++)
				if (v & 0x400)
					ports_in(b.r.env.ports, base, 4);
				else
					ports_out(b.r.env.ports, base, n ? rig_random(&seed) & 0x00ff00ff : packets[v % ARRAY_LEN(packets)], 2);
			break;
		case 3:
			out(&b, (uint16_t)(BM + (v & 15)), v >> 8);
			break;
		case 4:
			mem_write(b.r.env.mem, 0x2000 + (v & 0xff8), k & 0x80000000u ? v : v & 0x8000ffff, 4);
			ports_out(b.r.env.ports, (uint16_t)(BM + (v & 8) + 4), 0x2000, 4);
			break;
		case 5:
			if (!(v & 0x1f000))
				out(&b, (uint16_t)(base + 0x206), v & 0x86);
			break;
		case 6:
			ports_in(b.r.env.ports, port, v & 0x10000 ? 4 : 1);
			break;
		default:
			out(&b, port == base + 7 ? (uint16_t)(base + 2) : port, v >> 16 & (k & 0x100 ? 0xff : 3));
			break;
		}
	}
	out(&b, 0x3f6, 4);
	out(&b, 0x3f6, 0);
	assert_int_equal(settle(&b, 0x1f0), 0x50);
	rig_roundtrip(&b.r);
	rig_reset(&b.r);
	command(&b, 0, 0, 0xec);
	assert_int_equal(in(&b, 0x1f7, 1), 0x58);
	box_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identify), cmocka_unit_test(test_programmed), cmocka_unit_test(test_many), cmocka_unit_test(test_dma),
		cmocka_unit_test(test_packets),	 cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
