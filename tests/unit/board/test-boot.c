/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loaders against small generated files: what a plan puts where, what state it enters with, and that
 * broken files are refused with a line that says why, before anything is planned to be written.
 */
#include <errno.h>
#include <lz4.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include "board/private.h"

#define MIB (1ull << 20)

static const struct boot_map map64 = {
	.range = { { 0, 0x9fc00, E820_RAM },
		   { 0x9fc00, 0x400, E820_RESERVED },
		   { ACPI_BASE, 0x20000, E820_RESERVED },
		   { MIB, 63 * MIB, E820_RAM } },
	.count = 4,
};

struct fixture {
	struct boot_plan plan;
	struct boot_bytes unpacked;
	struct boot_module module[2];
	struct boot_input in;
	struct err e;
	uint8_t file[65536];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->in = (struct boot_input){ .path = "k", .data = f->file, .size = 8192, .append = "one two",
				     .map = &map64 };
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	boot_plan_dispose(&f->plan);
	boot_bytes_dispose(&f->unpacked);
	free(f);
	return 0;
}

static int plan(struct fixture *f)
{
	boot_plan_dispose(&f->plan);
	boot_bytes_dispose(&f->unpacked);
	f->e = (struct err){ 0 };
	return boot_plan_kernel(&f->plan, &f->in, &f->unpacked, &f->e);
}

static void refused(struct fixture *f, const char *text)
{
	assert_true(plan(f) < 0);
	if (!strstr(f->e.text, text))
		fail_msg("'%s' is not in '%s'", text, f->e.text);
	assert_non_null(strstr(f->e.text, "kernel 'k'"));
	assert_null(strchr(f->e.text, '\n'));
}

/* What the plan will have put at a guest address. */
static const uint8_t *planned(const struct fixture *f, uint64_t at, uint64_t len)
{
	for (unsigned i = 0; i < f->plan.nchunks; i++) {
		const struct boot_chunk *c = &f->plan.chunk[i];

		if (at >= c->at && range_fits(at - c->at, len, c->len))
			return c->data + (at - c->at);
	}
	fail_msg("nothing is planned at %#llx", (unsigned long long)at);
	return NULL;
}

/* ---- ELF with a PVH note ---- */

/* 64-bit: header, two program headers, a note at 0x200, 0x1000 bytes of code at 0x1000. */
static void make_elf64(uint8_t *p, uint32_t entry)
{
	uint8_t *ph = p + 64;

	memset(p, 0, 8192);
	memcpy(p, "\177ELF\2\1\1", 7);
	put16(p + 16, 2);
	put16(p + 18, 62);
	put64(p + 24, 0x1000000);
	put64(p + 32, 64);
	put16(p + 54, 56);
	put16(p + 56, 2);
	put32(ph, 1);
	put64(ph + 8, 0x1000);
	put64(ph + 16, 0xffffffff81000000);
	put64(ph + 24, 0x1000000);
	put64(ph + 32, 0x1000);
	put64(ph + 40, 0x3000);
	ph += 56;
	put32(ph, 4);
	put64(ph + 8, 0x200);
	put64(ph + 32, 0x100);
	put64(ph + 48, 4);
	put32(p + 0x200, 4); /* another note first, name padded */
	put32(p + 0x204, 5);
	put32(p + 0x208, 6);
	memcpy(p + 0x20c, "Xen", 4);
	put32(p + 0x218, 4);
	put32(p + 0x21c, 8);
	put32(p + 0x220, 18);
	memcpy(p + 0x224, "Xen", 4);
	put64(p + 0x228, entry);
	memset(p + 0x1000, 0x90, 0x1000);
}

static void test_pvh_state(void **state)
{
	struct fixture *f = *state;
	const uint8_t *info, *e820;
	uint8_t initrd[5000];

	make_elf64(f->file, 0x1000100);
	memset(initrd, 0x55, sizeof(initrd));
	f->module[0] = (struct boot_module){ { .data = initrd, .size = sizeof(initrd) }, "i", "" };
	f->in.modules = f->module;
	f->in.nmodules = 1;
	assert_int_equal(boot_identify(f->file, 8192), BOOT_ELF_PVH);
	assert_int_equal(plan(f), 0);
	assert_int_equal(f->plan.entry, ENTRY_PROTECTED);
	assert_int_equal(f->plan.rip, 0x1000100);
	assert_int_equal(*planned(f, 0x1000fff, 1), 0x90);
	assert_int_equal(f->plan.chunk[0].zero, 0x2000);

	info = planned(f, f->plan.rbx, 56);
	assert_int_equal(get32(info), 0x336ec578);
	assert_int_equal(get32(info + 4), 1);
	assert_int_equal(get32(info + 12), 1);
	assert_ptr_equal(f->plan.rsdp_slot, info + 32);
	assert_string_equal(planned(f, get64(info + 24), 8), "one two");
	assert_int_equal(get64(planned(f, get64(info + 16), 32) + 8), 5000);
	assert_memory_equal(planned(f, get64(planned(f, get64(info + 16), 32)), 5000), initrd, 5000);
	assert_int_equal(get32(info + 48), 4);
	e820 = planned(f, get64(info + 40), 4 * 24);
	assert_int_equal(get64(e820 + 72), MIB);
	assert_int_equal(get64(e820 + 80), 63 * MIB);
	assert_int_equal(get32(e820 + 88), E820_RAM);
}

static void test_elf_refused(void **state)
{
	struct fixture *f = *state;

	make_elf64(f->file, 0x1000100);
	f->in.size = 0x1800;
	refused(f, "cut short");
	f->in.size = 80;
	refused(f, "cut short");
	f->in.size = 8192;
	put64(f->file + 64 + 24, 0x80000000); /* outside RAM */
	refused(f, "more --memory");
	make_elf64(f->file, 0x1000100);
	put64(f->file + 64 + 40, ~0ull); /* memsz wraps */
	refused(f, "more --memory");
	make_elf64(f->file, 0x1000100);
	put64(f->file + 64 + 32, ~0ull);
	refused(f, "cut short");
	make_elf64(f->file, 0x1000100);
	put16(f->file + 18, 183);
	refused(f, "another processor");
	make_elf64(f->file, 0x1000100);
	put32(f->file + 0x220, 19); /* no PVH note */
	refused(f, "without PVH note or Multiboot header");
	make_elf64(f->file, 0x9000000); /* the entry is nowhere in it */
	refused(f, "entry");
	make_elf64(f->file, 0x1000100);
	put32(f->file + 0x204, 0xfffffff0); /* a note that runs away */
	refused(f, "without PVH note");
}

/* ---- bzImage ---- */

static void make_bzimage(uint8_t *p, uint64_t size, bool has64)
{
	memset(p, 0, size);
	p[0x1f1] = 1;
	put32(p + 0x1f4, (uint32_t)((size - 1024) / 16));
	put16(p + 0x1fe, 0xaa55);
	put16(p + 0x200, 0x6aeb);
	memcpy(p + 0x202, "HdrS", 4);
	put16(p + 0x206, 0x020f);
	p[0x211] = 1;
	put32(p + 0x22c, 0x7fffffff);
	put32(p + 0x230, 0x200000);
	p[0x234] = 1;
	put16(p + 0x236, has64 ? 3 : 0);
	put32(p + 0x238, 2047);
	put64(p + 0x258, 0x1000000);
	put32(p + 0x260, 0x300000);
	memset(p + 1024, 0xcc, size - 1024);
}

static void test_bzimage_64(void **state)
{
	struct fixture *f = *state;
	const uint8_t *bp, *pml4, *pd;

	make_bzimage(f->file, 8192, true);
	assert_int_equal(boot_identify(f->file, 8192), BOOT_BZIMAGE);
	assert_int_equal(plan(f), 0);
	assert_int_equal(f->plan.entry, ENTRY_LONG);
	assert_int_equal(f->plan.rip, 0x1000200);
	assert_int_equal(*planned(f, 0x1000000, 1), 0xcc);
	bp = planned(f, f->plan.rsi, 4096);
	assert_memory_equal(bp + 0x202, "HdrS", 4);
	assert_int_equal(bp[0x1e8], 4);
	assert_int_equal(get64(bp + 0x2d0 + 60), MIB);
	assert_int_equal(bp[0x210], 0xff);
	assert_string_equal(planned(f, get32(bp + 0x228), 8), "one two");
	assert_ptr_equal(f->plan.rsdp_slot, bp + 0x70);
	/* page tables: 3 GiB + 2 MiB maps to itself */
	pml4 = planned(f, f->plan.cr3, 8);
	pd = planned(f, (get64(planned(f, (get64(pml4) & ~0xfffull) + 24, 8)) & ~0xfffull) + 8, 8);
	assert_int_equal(get64(pd), 0xc0200083);
	assert_int_equal(get64(planned(f, f->plan.gdt + 0x10, 8)), 0x00af9b000000ffff);
}

/* With a text screen: screen_info says so. */
static void test_bzimage_screen(void **state)
{
	struct fixture *f = *state;
	const uint8_t *bp;

	make_bzimage(f->file, 8192, true);
	assert_int_equal(plan(f), 0);
	bp = planned(f, f->plan.rsi, 4096);
	assert_int_equal(bp[0x07] | bp[0x0e] | bp[0x0f], 0);
	boot_plan_dispose(&f->plan);
	f->in.vga = true;
	assert_int_equal(plan(f), 0);
	bp = planned(f, f->plan.rsi, 4096);
	assert_int_equal(bp[0x06], 3);
	assert_int_equal(bp[0x07], 80);
	assert_int_equal(bp[0x0e], 25);
	assert_int_equal(bp[0x0f], 1);
	assert_int_equal(get16(bp + 0x10), 16);
}

static void test_bzimage_32(void **state)
{
	struct fixture *f = *state;

	make_bzimage(f->file, 8192, false);
	assert_int_equal(plan(f), 0);
	assert_int_equal(f->plan.entry, ENTRY_PROTECTED);
	assert_int_equal(f->plan.rip, 0x1000000);
	assert_int_equal(f->plan.cs, 0x10);
	assert_int_equal(f->plan.ds, 0x18);
	assert_int_equal(get64(planned(f, f->plan.gdt + 0x10, 8)), 0x00cf9b000000ffff);
}

static void test_bzimage_refused(void **state)
{
	struct fixture *f = *state;
	char long_line[3000];

	make_bzimage(f->file, 8192, true);
	f->in.size = 8000;
	refused(f, "cut short");
	f->in.size = 1024;
	refused(f, "cut short");
	f->in.size = 8192;
	put32(f->file + 0x248, 0x1000);
	put32(f->file + 0x24c, 0xffffffff);
	refused(f, "cut short");
	make_bzimage(f->file, 8192, true);
	put32(f->file + 0x260, 0x70000000);
	refused(f, "more --memory");
	make_bzimage(f->file, 8192, true);
	put16(f->file + 0x206, 0x0201);
	refused(f, "too old");
	make_bzimage(f->file, 8192, true);
	memset(long_line, 'x', sizeof(long_line));
	long_line[sizeof(long_line) - 1] = 0;
	f->in.append = long_line;
	refused(f, "2047");
}

static void test_initrd_too_large(void **state)
{
	struct fixture *f = *state;

	make_bzimage(f->file, 8192, true);
	f->module[0] = (struct boot_module){ { f->file, 62 * MIB }, "ramdisk", "" };
	f->in.modules = f->module;
	f->in.nmodules = 1;
	refused(f, "and initrd 'ramdisk' (62 MiB) do not fit into 64 MiB");
}

/* ---- payloads ---- */

static uint64_t pack_lz4(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t room)
{
	int n = LZ4_compress_default((const char *)data, (char *)out + 8, (int)size, (int)room - 8);

	put32(out, 0x184c2102);
	put32(out + 4, (uint32_t)n);
	return (uint64_t)n + 8;
}

static uint64_t pack_gzip(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t room)
{
	z_stream z = { .next_in = (Bytef *)data, .avail_in = (uInt)size, .next_out = out,
		       .avail_out = (uInt)room };

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out - 4; /* its trailer is the size */
}

static uint64_t pack_xz(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t room)
{
	size_t n = 0;

	assert_int_equal(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, data, size, out, &n, room),
			 LZMA_OK);
	return n;
}

static uint64_t pack_zstd(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t room)
{
	return ZSTD_compress(out, room, data, size, 19);
}

static void test_payloads(void **state)
{
	static const struct {
		const char *name;
		uint64_t (*pack)(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t room);
	} kinds[] = { { "LZ4", pack_lz4 }, { "gzip", pack_gzip }, { "xz", pack_xz }, { "zstd", pack_zstd } };
	struct fixture *f = *state;
	uint8_t elf[8192];

	make_elf64(elf, 0x1000100);
	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
		uint64_t n;

		make_bzimage(f->file, 16384, true);
		n = kinds[i].pack(elf, sizeof(elf), f->file + 1024 + 0x800, 8192);
		put32(f->file + 1024 + 0x800 + n, sizeof(elf));
		put32(f->file + 0x248, 0x800);
		put32(f->file + 0x24c, (uint32_t)n + 4);
		f->in.size = 16384;
		assert_int_equal(plan(f), 0);
		assert_int_equal(f->plan.rip, 0x1000100);
		assert_int_equal(f->unpacked.size, sizeof(elf));
		assert_memory_equal(f->unpacked.data, elf, sizeof(elf));
		f->in.vga = true; /* the PVH entry knows no screen: the ELF file's own, with boot_params */
		assert_int_equal(plan(f), 0);
		assert_int_equal(f->plan.entry, ENTRY_LONG);
		assert_int_equal(f->plan.rip, get64(elf + 24));
		assert_int_equal(planned(f, f->plan.rsi, 4096)[0x0f], 1);
		f->in.vga = false;

		put32(f->file + 1024 + 0x800 + n, sizeof(elf) - 100); /* more comes out than was told */
		if (i) /* LZ4 stops at the size; its blocks carry no other check */
			refused(f, kinds[i].name);
		put32(f->file + 1024 + 0x800 + n, sizeof(elf) + 100);
		refused(f, kinds[i].name);
		put32(f->file + 1024 + 0x800 + n, sizeof(elf));
		memset(f->file + 1024 + 0x800 + 12, 0xa5, 24);
		refused(f, kinds[i].name);
	}
}

/* A frame of three blocks, which threads share. */
static void test_lz4_blocks(void **state)
{
	const uint64_t size = 17 * MIB, block = 8 * MIB;
	uint8_t *data = malloc(size), *packed = calloc(1, 2 * size);
	uint64_t at = 4, second = 0, last = 0;
	struct boot_bytes out;
	const char *kind;
	struct err e;

	for (uint64_t i = 0; i < size; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 28);
	put32(packed, 0x184c2102);
	for (uint64_t from = 0; from < size; from += block) {
		int n = LZ4_compress_default((const char *)data + from, (char *)packed + at + 4, (int)MIN(block, size - from),
					     (int)(2 * size - at - 4));

		assert_true(n > 0);
		second = from == block ? at : second;
		last = at;
		put32(packed + at, (uint32_t)n);
		at += 4 + (uint64_t)n;
	}
	assert_int_equal(boot_bytes_alloc(&out, size, &e), 0);
	assert_int_equal(boot_unpack(packed, at, &out, &kind, &e), 0);
	assert_memory_equal(out.data, data, size);
	assert_int_equal(boot_unpack(packed, at - 1, &out, &kind, &e), -EINVAL);
	assert_int_equal(boot_unpack(packed, last, &out, &kind, &e), -EINVAL);
	memset(packed + second + 4, 0xff, 64);
	assert_int_equal(boot_unpack(packed, at, &out, &kind, &e), -EINVAL);
	put32(packed + second, 0x184c2102); /* frames one after the other are left to the kernel's own unpacker */
	assert_int_equal(boot_unpack(packed, at, &out, &kind, &e), 1);
	boot_bytes_dispose(&out);
	free(packed);
	free(data);
}

/* ---- Multiboot ---- */

static void make_multiboot_kludge(uint8_t *p)
{
	memset(p, 0, 8192);
	memset(p + 64, 0xf4, 4000);
	put32(p + 16, 0x1badb002);
	put32(p + 20, 0x10003);
	put32(p + 24, 0u - 0x1badb002 - 0x10003);
	put32(p + 28, 0x100010); /* header_addr */
	put32(p + 32, 0x100000);
	put32(p + 36, 0x101000);
	put32(p + 40, 0x103000);
	put32(p + 44, 0x100040);
}

static void test_multiboot(void **state)
{
	struct fixture *f = *state;
	const uint8_t *info, *mods;
	uint8_t one[100] = { 1 }, two[5000] = { 2 };

	make_multiboot_kludge(f->file);
	f->module[0] = (struct boot_module){ { one, sizeof(one) }, "first", "" };
	f->module[1] = (struct boot_module){ { two, sizeof(two) }, "second", "a b" };
	f->in.modules = f->module;
	f->in.nmodules = 2;
	assert_int_equal(boot_identify(f->file, 8192), BOOT_MULTIBOOT);
	assert_int_equal(plan(f), 0);
	assert_int_equal(f->plan.rip, 0x100040);
	assert_int_equal(f->plan.rax, 0x2badb002);
	assert_int_equal(f->plan.chunk[0].at, 0x100000);
	assert_int_equal(f->plan.chunk[0].len, 0x1000);
	assert_int_equal(f->plan.chunk[0].zero, 0x2000);
	info = planned(f, f->plan.rbx, 128);
	assert_int_equal(get32(info) & 0x4d, 0x4d);
	assert_int_equal(get32(info + 4), 639);
	assert_int_equal(get32(info + 8), 63 * 1024);
	assert_string_equal(planned(f, get32(info + 16), 10), "k one two");
	assert_int_equal(get32(info + 20), 2);
	mods = planned(f, get32(info + 24), 32);
	assert_int_equal(get32(mods + 4) - get32(mods), 100);
	assert_true(get32(mods) >= 0x103000 && !(get32(mods) & 0xfff));
	assert_int_equal(*planned(f, get32(mods), 1), 1);
	assert_string_equal(planned(f, get32(mods + 8), 6), "first");
	assert_string_equal(planned(f, get32(mods + 24), 11), "second a b");
	assert_int_equal(get32(info + 44), 4 * 24);
	assert_int_equal(get32(planned(f, get32(info + 48), 24)), 20);
}

static void make_elf32_multiboot(uint8_t *p)
{
	uint8_t *ph = p + 52;

	memset(p, 0, 8192);
	memcpy(p, "\177ELF\1\1\1", 7);
	put16(p + 16, 2);
	put16(p + 18, 3);
	put32(p + 24, 0xc0100020);
	put32(p + 28, 52);
	put16(p + 42, 32);
	put16(p + 44, 1);
	put32(ph, 1);
	put32(ph + 4, 0x1000);
	put32(ph + 8, 0xc0100000);
	put32(ph + 12, 0x100000);
	put32(ph + 16, 0x800);
	put32(ph + 20, 0x900);
	put32(p + 0x1000, 0x1badb002);
	put32(p + 0x1008, 0u - 0x1badb002);
}

static void test_multiboot_elf(void **state)
{
	struct fixture *f = *state;

	make_elf32_multiboot(f->file);
	assert_int_equal(plan(f), 0);
	assert_int_equal(f->plan.rip, 0x100020); /* its physical place */
	assert_int_equal(f->plan.rax, 0x2badb002);
	assert_int_equal(f->plan.chunk[0].zero, 0x100);
}

static void test_multiboot_refused(void **state)
{
	struct fixture *f = *state;

	make_multiboot_kludge(f->file);
	put32(f->file + 32, 0x100011); /* load above header */
	refused(f, "before the file's start");
	make_multiboot_kludge(f->file);
	put32(f->file + 36, 0xff000000);
	refused(f, "cut short");
	make_multiboot_kludge(f->file);
	put32(f->file + 40, 0xff000000);
	refused(f, "more --memory");
	make_multiboot_kludge(f->file);
	put32(f->file + 20, 0x10013);
	put32(f->file + 24, 0u - 0x1badb002 - 0x10013);
	refused(f, "Multiboot features");
	make_multiboot_kludge(f->file);
	f->in.size = 40;
	refused(f, "cut short");
	make_multiboot_kludge(f->file);
	f->in.size = 8192;
	f->module[0] = (struct boot_module){ { f->file, 63 * MIB }, "huge", "" };
	f->in.modules = f->module;
	f->in.nmodules = 1;
	refused(f, "module 'huge' (63 MiB) do not fit");
}

static void test_unknown(void **state)
{
	struct fixture *f = *state;

	memset(f->file, 'a', 8192);
	refused(f, "is not a kernel");
	put16(f->file + 510, 0xaa55);
	refused(f, "boot sector");
	f->in.size = 1;
	refused(f, "is not a kernel");
}

/* Any prefix of a good file is refused or loads; it never reads past its end (the sanitizers watch). */
static void test_prefixes(void **state)
{
	struct fixture *f = *state;
	uint8_t whole[8192];

	for (unsigned kind = 0; kind < 4; kind++) {
		switch (kind) {
		case 0: make_elf64(whole, 0x1000100); break;
		case 1: make_bzimage(whole, sizeof(whole), true); break;
		case 2: make_multiboot_kludge(whole); break;
		default: make_elf32_multiboot(whole); break;
		}
		for (uint64_t n = 0; n < sizeof(whole); n += n < 1200 ? 1 : 97) {
			uint8_t *copy = malloc(n ? n : 1);

			memcpy(copy, whole, n);
			f->in.data = copy;
			f->in.size = n;
			plan(f);
			boot_plan_dispose(&f->plan);
			free(copy);
		}
	}
	f->in.data = f->file;
}

/* ---- placing a plan ---- */

static struct mem *make_mem(void)
{
	struct err e;
	struct mem *mem = mem_create(64 * MIB, &e);

	assert_non_null(mem);
	assert_int_equal(mem_map_ram(mem, 0, 0, PC_BASE_RAM_END, "base", &e), 0);
	assert_int_equal(mem_map_ram(mem, PC_BIOS_AREA, PC_BIOS_AREA, 64 * MIB - PC_BIOS_AREA, "low", &e), 0);
	return mem;
}

static void test_apply_pvh(void **state)
{
	struct fixture *f = *state;
	struct mem *mem = make_mem();
	struct x86_state s;
	uint8_t byte = 0xff;

	make_elf64(f->file, 0x1000100);
	assert_int_equal(plan(f), 0);
	mem_load(mem, 0x1001000, &byte, 1); /* left from an earlier life: .bss must be zero again */
	memset(&s, 0xa5, sizeof(s));
	assert_int_equal(boot_plan_apply(&f->plan, NULL, 0, mem, 0xe0000, &s, &f->e), 0);
	assert_int_equal(mem_read(mem, 0x1000000, 8), 0x9090909090909090);
	assert_int_equal(mem_read(mem, 0x1001000, 1), 0);
	assert_int_equal(mem_read(mem, f->plan.rbx, 4), 0x336ec578);
	assert_int_equal(mem_read(mem, f->plan.rbx + 32, 8), 0xe0000);
	/* the state the PVH ABI asks for */
	assert_int_equal(s.cr0, CR0_PE | CR0_ET);
	assert_int_equal(s.cr4, 0);
	assert_int_equal(s.efer, 0);
	assert_int_equal(s.rflags, 2);
	assert_int_equal(s.cpl, 0);
	assert_int_equal(s.rip, 0x1000100);
	assert_int_equal(s.gpr[RBX], f->plan.rbx);
	assert_int_equal(s.seg[SEG_CS].base, 0);
	assert_int_equal(s.seg[SEG_CS].limit, 0xffffffff);
	assert_int_equal(s.seg[SEG_CS].attr, SEG_ATTR_G | SEG_ATTR_DB | SEG_ATTR_P | SEG_ATTR_S | 0xb);
	assert_int_equal(s.seg[SEG_DS].attr, SEG_ATTR_G | SEG_ATTR_DB | SEG_ATTR_P | SEG_ATTR_S | 0x3);
	assert_int_equal(s.seg[SEG_TR].limit, 0x67);
	assert_int_equal(s.seg[SEG_TR].attr, SEG_ATTR_P | 0xb);
	mem_destroy(mem);
}

static void test_apply_long(void **state)
{
	struct fixture *f = *state;
	struct mem *mem = make_mem();
	struct x86_state s = { 0 };

	make_bzimage(f->file, 8192, true);
	assert_int_equal(plan(f), 0);
	assert_int_equal(boot_plan_apply(&f->plan, NULL, 0, mem, 0xe0000, &s, &f->e), 0);
	assert_int_equal(s.cr0 & (CR0_PG | CR0_PE), CR0_PG | CR0_PE);
	assert_int_equal(s.efer, EFER_LME | EFER_LMA);
	assert_int_equal(s.cr3, f->plan.cr3);
	assert_true(x86_64bit(&s));
	assert_int_equal(s.seg[SEG_CS].selector, 0x10);
	assert_int_equal(s.seg[SEG_DS].selector, 0x18);
	assert_int_equal(s.gpr[RSI], f->plan.rsi);
	assert_int_equal(mem_read(mem, s.gpr[RSI] + 0x70, 8), 0xe0000);
	assert_int_equal(mem_read(mem, s.cr3, 8) & 0xfff, 3);
	mem_destroy(mem);
}

/* ---- ACPI ---- */

static uint8_t sum(const uint8_t *p, uint32_t size)
{
	uint8_t s = 0;

	while (size--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* Every table is reachable, has its checksum, and names as many CPUs as there are. */
static void test_acpi(void **state)
{
	static uint8_t buf[ACPI_SIZE];
	const char *serial[] = { "stdio", NULL, "null" };
	struct acpi_config config = { .serial = serial, .nserial = 3 };
	uint64_t rsdp;

	for (config.cpus = 1; config.cpus <= 64; config.cpus *= 4) {
		const uint8_t *p, *xsdt;
		unsigned cpus = 0;

		assert_int_equal(acpi_build(buf, &config, &rsdp, NULL), 0);
		p = buf + (rsdp - ACPI_BASE);
		assert_memory_equal(p, "RSD PTR ", 8);
		assert_int_equal(sum(p, 20), 0);
		assert_int_equal(sum(p, 36), 0);
		xsdt = buf + (get64(p + 24) - ACPI_BASE);
		assert_memory_equal(xsdt, "XSDT", 4);
		assert_int_equal(sum(xsdt, get32(xsdt + 4)), 0);
		assert_int_equal(get32(xsdt + 4), 36 + 2 * 8);
		for (unsigned i = 0; i < 2; i++) {
			const uint8_t *t = buf + (get64(xsdt + 36 + i * 8) - ACPI_BASE);

			assert_memory_equal(t, i ? "APIC" : "FACP", 4);
			assert_int_equal(sum(t, get32(t + 4)), 0);
			if (i) {
				for (const uint8_t *q = t + 44; q < t + get32(t + 4); q += q[1])
					cpus += q[0] == 0;
			} else {
				const uint8_t *dsdt = buf + (get32(t + 40) - ACPI_BASE);

				assert_memory_equal(dsdt, "DSDT", 4);
				assert_int_equal(sum(dsdt, get32(dsdt + 4)), 0);
				assert_non_null(memmem(dsdt, get32(dsdt + 4), "COM1", 4));
				assert_null(memmem(dsdt, get32(dsdt + 4), "COM2", 4));
				assert_non_null(memmem(dsdt, get32(dsdt + 4), "COM3", 4));
			}
		}
		assert_int_equal(cpus, config.cpus);
	}
}

/* ---- space ---- */

static void test_space(void **state)
{
	struct boot_space s;
	uint64_t at;

	boot_space_init(&s, &map64);
	assert_int_equal(boot_space_take(&s, 0x9f000, 0x1000), -EFAULT); /* runs into reserved */
	assert_int_equal(boot_space_take(&s, ~0ull - 10, 100), -EFAULT);
	assert_int_equal(boot_space_take(&s, MIB, ~0ull), -EFAULT);
	assert_int_equal(boot_space_take(&s, 2 * MIB, MIB), 0);
	assert_int_equal(boot_space_take(&s, 2 * MIB + 5, 1), -EBUSY);
	assert_true(boot_space_low(&s, MIB + 1, 4096, MIB, ~0ull, &at));
	assert_int_equal(at, 3 * MIB);
	assert_true(boot_space_high(&s, MIB, 4096, 0, ~0ull, &at));
	assert_int_equal(at, 63 * MIB);
	assert_true(boot_space_high(&s, 10, 4096, 0, ~0ull, &at));
	assert_int_equal(at, 63 * MIB - 4096);
	assert_false(boot_space_high(&s, 64 * MIB, 4096, 0, ~0ull, &at));
	assert_false(boot_space_low(&s, ~0ull, 4096, 0, ~0ull, &at));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pvh_state, setup, teardown),
		cmocka_unit_test_setup_teardown(test_elf_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bzimage_64, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bzimage_32, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bzimage_screen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bzimage_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_initrd_too_large, setup, teardown),
		cmocka_unit_test_setup_teardown(test_payloads, setup, teardown),
		cmocka_unit_test(test_lz4_blocks),
		cmocka_unit_test_setup_teardown(test_multiboot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_multiboot_elf, setup, teardown),
		cmocka_unit_test_setup_teardown(test_multiboot_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_prefixes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_apply_pvh, setup, teardown),
		cmocka_unit_test_setup_teardown(test_apply_long, setup, teardown),
		cmocka_unit_test(test_acpi),
		cmocka_unit_test(test_space),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
