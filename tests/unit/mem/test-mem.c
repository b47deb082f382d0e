/* SPDX-License-Identifier: Apache-2.0 */
/* The address map: overlaps, aliases, boundary values, access splitting, page flags, dirty tracking. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/err.h"
#include "mem/mem.h"

#define RAM (16ull << 20)

/* A device that remembers its accesses and answers with its offset. */
struct probe {
	uint64_t offset[16], value[16];
	unsigned size[16], n;
	bool write[16];
};

static void probe_note(struct probe *p, uint64_t offset, uint64_t value, unsigned size, bool write)
{
	assert_true(p->n < 16);
	p->offset[p->n] = offset;
	p->value[p->n] = value;
	p->size[p->n] = size;
	p->write[p->n++] = write;
}

static uint64_t probe_read(void *opaque, uint64_t offset, unsigned size)
{
	uint64_t v = 0;
	unsigned i;

	probe_note(opaque, offset, 0, size, false);
	for (i = 0; i < size; i++)
		v |= ((offset + i) & 0xff) << (8 * i);
	return v;
}

static void probe_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	probe_note(opaque, offset, value, size, true);
}

static const struct io_ops any_ops = { probe_read, probe_write, 0, 0 };
static const struct io_ops byte_ops = { probe_read, probe_write, 1, 1 };
static const struct io_ops dword_ops = { probe_read, probe_write, 4, 4 };

static struct mem *make(void)
{
	struct err e;
	struct mem *m = mem_create(RAM, &e);

	assert_non_null(m);
	assert_int_equal(mem_map_ram(m, 0, 0, RAM, "ram", &e), 0);
	return m;
}

static void check_view(struct mem *m)
{
	const struct mem_range *r;
	unsigned n, i;

	r = mem_ranges(m, &n);
	for (i = 0; i < n; i++) {
		assert_true(r[i].size > 0);
		if (i)
			assert_true(r[i - 1].start + r[i - 1].size <= r[i].start);
		if (r[i].kind != MEM_IO) {
			assert_int_equal((r[i].start | r[i].size) & 4095, 0);
			assert_ptr_equal(r[i].host, mem_ram_base(m) + r[i].ram_offset);
		}
		assert_ptr_equal(mem_find(m, r[i].start), &r[i]);
		assert_ptr_equal(mem_find(m, r[i].start + r[i].size - 1), &r[i]);
	}
}

static void test_sizes(void **state)
{
	struct err e = { 0 };

	assert_null(mem_create(0, &e));
	assert_int_equal(e.code, EINVAL);
	assert_null(mem_create(4097, &e));
	assert_int_equal(e.code, EINVAL);
	assert_null(mem_create(1ull << 50, &e));
	assert_int_equal(e.code, ENOMEM);
	assert_non_null(strstr(e.text, "the host has"));
	assert_null(mem_create(-4096ull, &e));
	assert_int_equal(e.code, ENOMEM);
}

static void test_ram(void **state)
{
	struct mem *m = make();
	uint8_t buf[8];

	mem_write(m, 0x1234, 0x1122334455667788, 8);
	assert_int_equal(mem_read(m, 0x1234, 8), 0x1122334455667788);
	assert_int_equal(mem_read(m, 0x1235, 2), 0x6677);
	assert_int_equal(mem_read(m, 0x1237, 3), 0x334455);
	assert_int_equal(*(uint16_t *)(mem_ram_ptr(m, 0x1234)), 0x7788);
	assert_null(mem_ram_ptr(m, RAM));
	assert_null(mem_find(m, UINT64_MAX));
	assert_int_equal(mem_dma_read(m, 0x1234, buf, 8), 0);
	assert_int_equal(buf[0], 0x88);
	mem_destroy(m);
}

/* What is large goes through the file: to the byte, seen at once by who has it mapped, dirty as by any other write. */
static void test_load(void **state)
{
	const uint64_t len = (1 << 20) + 333, at = 0x200123;
	uint8_t *data = malloc(len), *back = malloc(len);
	uint64_t bits[RAM / 4096 / 64 + 64];
	struct mem *m = make();

	for (uint64_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 24);
	mem_write(m, at - 1, 0xee, 1);
	mem_write(m, at + len, 0xdd, 1);
	mem_dirty_start(m);
	mem_dirty_fetch(m, bits);
	assert_int_equal(mem_load(m, at, data, len), 0);
	assert_memory_equal(mem_ram_base(m) + mem_find(m, at)->ram_offset + at - mem_find(m, at)->start, data, len);
	assert_int_equal(mem_dma_read(m, at, back, len), 0);
	assert_memory_equal(back, data, len);
	assert_int_equal(mem_read(m, at - 1, 1), 0xee);
	assert_int_equal(mem_read(m, at + len, 1), 0xdd);
	assert_int_equal(mem_dirty_fetch(m, bits), (at + len - 1) / 4096 - at / 4096 + 1);
	assert_int_equal(mem_load(m, RAM - len + 1, data, len), -EFAULT);
	mem_destroy(m);
	free(data);
	free(back);
}

static void test_boundaries(void **state)
{
	struct mem *m = make();
	uint8_t buf[64] = { 0 };
	struct err e;

	/* nothing there: ones; the end of RAM: half and half */
	assert_int_equal(mem_read(m, RAM, 4), 0xffffffff);
	assert_int_equal(mem_read(m, UINT64_MAX, 1), 0xff);
	mem_write(m, UINT64_MAX - 3, 1, 4);
	mem_write(m, RAM - 2, 0xaabbccdd, 4);
	assert_int_equal(mem_read(m, RAM - 2, 4), 0xffffccdd);
	/* DMA: whole or nothing */
	memset(buf, 0x55, sizeof(buf));
	assert_int_equal(mem_dma_write(m, RAM - 63, buf, 64), -EFAULT);
	assert_int_equal(mem_read(m, RAM - 63, 1), 0);
	assert_int_equal(mem_dma_write(m, RAM - 64, buf, 64), 0);
	assert_int_equal(mem_dma_read(m, RAM - 63, buf, 64), -EFAULT);
	assert_int_equal(mem_dma_read(m, UINT64_MAX - 3, buf, 64), -EFAULT);
	assert_int_equal(mem_dma_read(m, 0, buf, UINT64_MAX), -EFAULT);
	assert_int_equal(mem_dma_write(m, 4096, buf, UINT64_MAX - 4095), -EFAULT);
	assert_int_equal(mem_dma_write(m, UINT64_MAX, buf, 0), 0);
	/* maps that cannot be */
	assert_int_equal(mem_map_ram(m, 0, 4096, RAM, "r", &e), -EINVAL);
	assert_int_equal(mem_map_ram(m, 0, -4096ull, 8192, "r", &e), -EINVAL);
	assert_int_equal(mem_map_ram(m, 1ull << 52, 0, 4096, "r", &e), -EINVAL);
	assert_int_equal(mem_map_ram(m, 17, 0, 4096, "r", &e), -EINVAL);
	assert_int_equal(mem_map_io(m, UINT64_MAX, 2, &any_ops, NULL, "io", &e), -EINVAL);
	assert_int_equal(mem_map_io(m, 0x1000, UINT64_MAX, &any_ops, NULL, "io", &e), -EINVAL);
	assert_int_equal(mem_map_io(m, 0x1000, 0, &any_ops, NULL, "io", &e), -EINVAL);
	assert_int_equal(mem_map_alias(m, 0x1000, 1ull << 52, 4096, "a", &e), -EINVAL);
	assert_int_equal(mem_map_rom(m, 0, buf, 1ull << 40, "rom", &e), -EINVAL);
	assert_int_equal(mem_unmap(m, 0, "none"), -ENOENT);
	assert_int_equal(mem_map_io(m, (1ull << 52) - 4096, 4096, &any_ops, NULL, "io", &e), 0);
	check_view(m);
	mem_destroy(m);
}

static void test_priority(void **state)
{
	struct mem *m = make();
	struct probe a = { 0 }, b = { 0 };
	struct err e;

	assert_int_equal(mem_map_io(m, 0xa0000, 0x20000, &any_ops, &a, "vga", &e), 0);
	assert_int_equal(mem_map_io(m, 0xb8000, 0x1000, &any_ops, &b, "text", &e), 0);
	check_view(m);
	mem_write(m, 0xb8010, 1, 1);
	assert_int_equal(b.n, 1);
	assert_int_equal(b.offset[0], 0x10);
	mem_write(m, 0xb9010, 1, 1);
	assert_int_equal(a.n, 1);
	assert_int_equal(a.offset[0], 0x19010); /* offsets go on behind what covers the middle */
	/* across the border of two devices */
	mem_write(m, 0xb7ffe, 0x44332211, 4);
	assert_int_equal(a.offset[1], 0x17ffe);
	assert_int_equal(a.value[1], 0x2211);
	assert_int_equal(b.value[1], 0x4433);
	assert_int_equal(mem_unmap(m, 0xb8000, "text"), 0);
	mem_write(m, 0xb8010, 1, 1);
	assert_int_equal(a.offset[2], 0x18010);
	assert_int_equal(mem_unmap(m, 0xa0000, "vga"), 0);
	mem_write(m, 0xa0000, 0x5a, 1);
	assert_int_equal(*mem_ram_ptr(m, 0xa0000), 0x5a);
	check_view(m);
	mem_destroy(m);
}

static void test_rom_alias(void **state)
{
	struct mem *m = make();
	uint8_t image[0x3001];
	struct err e;
	unsigned i;

	for (i = 0; i < sizeof(image); i++)
		image[i] = (uint8_t)(i >> 4);
	assert_int_equal(mem_map_rom(m, 0xfffc0000, image, sizeof(image), "bios", &e), 0);
	assert_int_equal(mem_ram_size(m), RAM + 0x4000);
	assert_int_equal(mem_map_alias(m, 0xe0000, 0xfffc1000, 0x3000, "shadow", &e), 0);
	check_view(m);
	assert_int_equal(mem_read(m, 0xe0120, 1), image[0x1120]);
	assert_int_equal(mem_read(m, 0xe2002, 2), 0xffff); /* padding */
	mem_write(m, 0xe0120, 0, 1);
	assert_int_equal(mem_read(m, 0xfffc1120, 1), image[0x1120]); /* not written */
	assert_null(mem_ram_ptr(m, 0xe0120));
	assert_int_equal(mem_dma_write(m, 0xe0120, image, 1), -EFAULT);
	assert_int_equal(mem_load(m, 0xe0120, "!", 1), 0);
	assert_int_equal(mem_read(m, 0xfffc1120, 1), '!');
	/* an alias follows its target's changes and does not see itself or others */
	assert_int_equal(mem_map_alias(m, 0xfffc0000, 0xe0000, 0x1000, "loop", &e), 0);
	check_view(m);
	assert_int_equal(mem_find(m, 0xfffc0000)->kind, MEM_RAM);
	assert_int_equal(mem_find(m, 0xfffc0000)->ram_offset, 0xe0000);
	assert_int_equal(mem_unmap(m, 0xfffc0000, "bios"), 0);
	assert_int_equal(mem_find(m, 0xe0000)->kind, MEM_RAM);
	check_view(m);
	mem_destroy(m);
}

static void test_small_io_over_ram(void **state)
{
	struct mem *m = make();
	struct probe p = { 0 };
	struct err e;

	mem_write(m, 0x5000, 0x0807060504030201, 8);
	assert_int_equal(mem_map_io(m, 0x5004, 2, &any_ops, &p, "bar", &e), 0);
	check_view(m);
	assert_null(mem_ram_ptr(m, 0x5000)); /* no whole page, no mapping */
	assert_non_null(mem_ram_ptr(m, 0x6000));
	assert_int_equal(mem_read(m, 0x5000, 8), 0x0807010004030201); /* probe: 00 01 */
	mem_write(m, 0x5000, 0, 8);
	assert_int_equal(p.n, 2);
	assert_int_equal(mem_unmap(m, 0x5004, "bar"), 0);
	assert_int_equal(mem_read(m, 0x5000, 8), 0x0000060500000000);
	mem_destroy(m);
}

static void test_split(void **state)
{
	struct mem *m = make();
	struct probe b = { 0 }, d = { 0 };
	struct err e;

	assert_int_equal(mem_map_io(m, 0xf0000000, 0x100, &byte_ops, &b, "b", &e), 0);
	assert_int_equal(mem_map_io(m, 0xf0001000, 0x100, &dword_ops, &d, "d", &e), 0);
	assert_int_equal(mem_read(m, 0xf0000010, 4), 0x13121110);
	assert_int_equal(b.n, 4);
	assert_int_equal(b.size[3], 1);
	/* wider than the device */
	assert_int_equal(mem_read(m, 0xf0001010, 8), 0x1716151413121110);
	assert_int_equal(d.n, 2);
	/* narrower: bytes out of the register, zeros around what is written */
	d.n = 0;
	assert_int_equal(mem_read(m, 0xf0001012, 1), 0x12);
	assert_int_equal(d.offset[0], 0x10);
	assert_int_equal(d.size[0], 4);
	mem_write(m, 0xf0001011, 0xabcd, 2);
	assert_int_equal(d.offset[1], 0x10);
	assert_int_equal(d.value[1], 0x00abcd00);
	/* across two registers */
	d.n = 0;
	mem_write(m, 0xf000101e, 0x11223344, 4);
	assert_int_equal(d.n, 2);
	assert_int_equal(d.offset[0], 0x1c);
	assert_int_equal(d.value[0], 0x33440000);
	assert_int_equal(d.offset[1], 0x20);
	assert_int_equal(d.value[1], 0x1122);
	mem_destroy(m);
}

struct heard {
	unsigned maps, revokes, codes;
	uint64_t at, len;
};
static void hear_map(void *opaque)
{
	((struct heard *)opaque)->maps++;
}
static void hear_revoke(void *opaque)
{
	((struct heard *)opaque)->revokes++;
}
static void hear_code(void *opaque, uint64_t at, uint64_t len)
{
	struct heard *h = opaque;

	h->codes++;
	h->at = at;
	h->len = len;
}

static void test_listeners(void **state)
{
	struct mem *m = make();
	struct heard h = { 0 };
	struct mem_listener l = { hear_map, hear_code, hear_revoke, &h, NULL };
	uint8_t buf[8192] = { 0 };
	struct err e;

	mem_listen(m, &l);
	assert_int_equal(mem_map_alias(m, 0x100000000, 0, 4096, "a", &e), 0);
	assert_int_equal(h.maps, 1);
	assert_true(mem_mark_code(m, 2));
	assert_false(mem_mark_code(m, 2));
	mem_write(m, 0x1ff8, 0, 8);
	assert_int_equal(h.codes, 0);
	mem_write(m, 0x1ffc, 0, 8); /* crosses into the page */
	assert_int_equal(h.codes, 1);
	assert_int_equal(h.at, 0x2000);
	assert_int_equal(h.len, 4);
	assert_int_equal(mem_dma_write(m, 0x1800, buf, sizeof(buf)), 0);
	assert_int_equal(h.codes, 2);
	assert_int_equal(h.at, 0x2000);
	assert_int_equal(h.len, 4096);
	mem_unmark_code(m, 2);
	mem_write(m, 0x2000, 0, 8);
	assert_int_equal(h.codes, 2);
	mem_unlisten(m, &l);
	assert_int_equal(mem_unmap(m, 0x100000000, "a"), 0);
	assert_int_equal(h.maps, 1);
	mem_destroy(m);
}

static void test_dirty(void **state)
{
	struct mem *m = make();
	struct heard h = { 0 };
	struct mem_listener l = { hear_map, hear_code, hear_revoke, &h, NULL };
	uint64_t bitmap[RAM / 4096 / 64], total = 0;
	uint8_t buf[5000] = { 0 };
	unsigned i;

	mem_listen(m, &l);
	mem_write(m, 0, 1, 1);
	assert_true(mem_page_plain_write(mem_page_flags(m)[0], mem_dirty_tracking(m)));
	mem_dirty_start(m);
	assert_int_equal(h.revokes, 1);
	assert_false(mem_page_plain_write(mem_page_flags(m)[0], mem_dirty_tracking(m)));
	assert_int_equal(mem_dirty_fetch(m, bitmap), 0);
	assert_int_equal(h.revokes, 1);
	mem_write(m, 0x3fff, 0, 2);
	mem_dma_write(m, 0x200ff0, buf, sizeof(buf));
	mem_mark_code(m, 3);
	assert_false(mem_page_plain_write(mem_page_flags(m)[3], true));
	assert_true(mem_page_plain_write(mem_page_flags(m)[4], true));
	assert_int_equal(mem_dirty_fetch(m, bitmap), 5);
	assert_int_equal(h.revokes, 2);
	for (i = 0; i < ARRAY_LEN(bitmap); i++)
		total += (uint64_t)__builtin_popcountll(bitmap[i]);
	assert_int_equal(total, 5);
	assert_int_equal(bitmap[0], BIT(3) | BIT(4));
	assert_int_equal(bitmap[0x200 / 64], 7);
	assert_int_equal(mem_page_flags(m)[3], MEM_CODE);
	assert_int_equal(mem_dirty_fetch(m, bitmap), 0);
	mem_dirty_stop(m);
	mem_write(m, 0, 1, 1);
	assert_int_equal(mem_page_flags(m)[0], 0);
	mem_destroy(m);
}

/* A file as memory: to be read only, what is behind its end is zero, a shadow has it too, and it does not count as RAM. */
static void test_file(void **state)
{
	struct mem *m = mem_create_with(8 * 4096, 4 * 4096, false, NULL), *shadow;
	int fd = memfd_create("file", 0);
	uint8_t text[8] = "a file";

	assert_non_null(m);
	assert_int_equal(mem_map_ram(m, 0, 0, 8 * 4096, "ram", NULL), 0);
	assert_int_equal(pwrite(fd, text, 6, 4090), 6);
	shadow = mem_shadow_create(m, &any_ops, NULL, NULL);
	assert_non_null(shadow);
	assert_int_equal(mem_map_file(m, 0x100000, fd, 4096, 8192, "file", NULL), 0);
	assert_int_equal(mem_map_file(m, 0x200000, fd, 4096, 4 * 4096, "too large", NULL), -EINVAL);
	close(fd);
	assert_int_equal(mem_shadow_map(shadow, m, &any_ops, NULL), 0);
	assert_int_equal(mem_ram_size(m), 8 * 4096);
	for (unsigned i = 0; i < 2; i++) {
		struct mem *of = i ? shadow : m;

		assert_int_equal(mem_read(of, 0x100000 + 4090, 4), 0x69662061);
		assert_int_equal(mem_read(of, 0x101000, 8), 0);
		assert_int_equal(mem_read(of, 0x102000, 1), 0xff);
	}
	mem_write(m, 0x100000, 1, 8);
	assert_int_equal(mem_read(m, 0x100000, 8), 0);
	assert_int_equal(mem_dma_write(m, 0x100000, text, 4), -EFAULT);
	mem_destroy(shadow);
	mem_destroy(m);
}

/* Overlays at random against a map of bytes. */
static void test_random(void **state)
{
	enum { PAGES = 32, IOS = 8 };
	static const char *const names[IOS] = { "0", "1", "2", "3", "4", "5", "6", "7" };
	struct mem *m = mem_create(PAGES * 4096, NULL);
	struct probe probes[IOS];
	unsigned seed = 1, round, i, k;
	uint64_t start[IOS], size[IOS];

	assert_non_null(m);
	assert_int_equal(mem_map_ram(m, 4096, 0, (PAGES - 1) * 4096, "ram", NULL), 0);
	for (round = 0; round < 60; round++) {
		for (i = 0; i < IOS; i++) {
			seed = seed * 1103515245 + 12345;
			start[i] = (seed >> 8) % (PAGES * 4096);
			seed = seed * 1103515245 + 12345;
			size[i] = 1 + (seed >> 8) % 9000;
			assert_int_equal(mem_map_io(m, start[i], size[i], &any_ops, &probes[i], names[i], NULL), 0);
		}
		check_view(m);
		for (k = 0; k < (PAGES + 4) * 4096; k += 61) {
			const struct mem_range *r = mem_find(m, k);

			for (i = IOS; i-- > 0;)
				if (k >= start[i] && k - start[i] < size[i])
					break;
			if (i < IOS) {
				assert_ptr_equal(r->opaque, &probes[i]);
				assert_int_equal(r->io_offset + k - r->start, k - start[i]);
			} else if (k >= 4096 && k < PAGES * 4096) {
				assert_true(r && (r->kind == MEM_RAM || r->opaque == m));
				assert_int_equal(k - 4096, k - r->start +
						 (r->kind == MEM_RAM ? r->ram_offset : r->io_offset));
			} else {
				assert_null(r);
			}
		}
		for (i = 0; i < IOS; i++)
			assert_int_equal(mem_unmap(m, start[i], names[i]), 0);
	}
	mem_destroy(m);
}

/* Flags set by one thread while another fetches and a third marks: no page gets lost. */
struct race {
	struct mem *m;
	_Atomic bool stop;
};
static void *race_write(void *opaque)
{
	struct race *r = opaque;
	uint64_t i;

	for (i = 0; i < 200000; i++)
		mem_written(r->m, (i * 4096) % RAM, 4096);
	atomic_store(&r->stop, true);
	return NULL;
}
static void *race_mark(void *opaque)
{
	struct race *r = opaque;
	uint64_t i;

	for (i = 0; !atomic_load(&r->stop); i++) {
		mem_mark_code(r->m, i % 64);
		mem_unmark_code(r->m, i % 64);
	}
	return NULL;
}
static void test_race(void **state)
{
	struct race r = { .m = make() };
	uint64_t bitmap[RAM / 4096 / 64], seen[RAM / 4096 / 64] = { 0 };
	pthread_t w, k;
	unsigned i;

	mem_dirty_start(r.m);
	pthread_create(&w, NULL, race_write, &r);
	pthread_create(&k, NULL, race_mark, &r);
	while (!atomic_load(&r.stop)) {
		mem_dirty_fetch(r.m, bitmap);
		for (i = 0; i < ARRAY_LEN(seen); i++)
			seen[i] |= bitmap[i];
	}
	pthread_join(w, NULL);
	pthread_join(k, NULL);
	mem_dirty_fetch(r.m, bitmap);
	for (i = 0; i < ARRAY_LEN(seen); i++)
		assert_int_equal(seen[i] | bitmap[i], ~0ull);
	for (i = 0; i < RAM / 4096; i++)
		assert_int_equal(mem_page_flags(r.m)[i], 0);
	mem_destroy(r.m);
}

/* Reserved huge pages behave as other memory does, or are refused with what is to be done. */
static void test_huge(void **state)
{
	struct err e = { 0 };
	struct mem *m = mem_create_with(3u << 20, 0, true, &e);
	uint8_t big[40000];

	assert_null(m);
	assert_non_null(strstr(e.text, "multiple of 2M"));
	assert_null(mem_create_with(1ull << 35, 0, true, &e)); /* nobody has reserved so much for us */
	e = (struct err){ 0 };
	m = mem_create_with(4u << 20, 0, true, &e);
	if (!m) {
		assert_non_null(strstr(e.text, "vm.nr_hugepages=2"));
		print_message("refused: %s\n", e.text);
		return;
	}
	assert_int_equal((uintptr_t)mem_ram_base(m) % (2u << 20), 0);
	assert_int_equal(mem_map_ram(m, 0, 0, 4u << 20, "ram", &e), 0);
	memset(big, 0x5a, sizeof(big));
	assert_int_equal(mem_map_rom(m, 0xfff00000, big, sizeof(big), "rom", &e), 0);
	assert_int_equal(mem_load(m, 0x1ff000, big, sizeof(big)), 0);
	assert_int_equal(mem_read(m, 0x1ff000 + sizeof(big) - 1, 2), 0x5a);
	assert_int_equal(mem_read(m, 0xfff00000, 4), 0x5a5a5a5a);
	mem_dma_discard(m, mem_ram_base(m), 4096);
	mem_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_ram),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_boundaries),
		cmocka_unit_test(test_priority),
		cmocka_unit_test(test_rom_alias),
		cmocka_unit_test(test_small_io_over_ram),
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_listeners),
		cmocka_unit_test(test_dirty),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
