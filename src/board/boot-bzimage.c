/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linux bzImages, by Documentation/arch/x86/boot.rst: the 64-bit entry where the kernel has one, else the
 * 32-bit entry. Neither runs the real-mode code; boot_params is filled here instead.
 *
 * A bzImage whose payload is an ELF file with a PVH entry is better unpacked by us (boot-pvh.c does the
 * rest): the guest's own unpacker would run under our engine.
 */
#include <errno.h>
#include <string.h>
#include "board/boot-source.h"

/* The setup header, at these offsets both in the file and in boot_params. */
#define HDR_SETUP_SECTS 0x1f1
#define HDR_SYSSIZE 0x1f4
#define HDR_BOOT_FLAG 0x1fe
#define HDR_JUMP 0x200
#define HDR_MAGIC 0x202
#define HDR_VERSION 0x206
#define HDR_LOADER 0x210
#define HDR_LOADFLAGS 0x211
#define HDR_CODE32 0x214
#define HDR_RAMDISK 0x218
#define HDR_RAMDISK_SIZE 0x21c
#define HDR_CMDLINE 0x228
#define HDR_INITRD_MAX 0x22c
#define HDR_ALIGNMENT 0x230
#define HDR_RELOCATABLE 0x234
#define HDR_XLOADFLAGS 0x236
#define HDR_CMDLINE_SIZE 0x238
#define HDR_PAYLOAD 0x248
#define HDR_PAYLOAD_SIZE 0x24c
#define HDR_PREF_ADDRESS 0x258
#define HDR_INIT_SIZE 0x260
#define HDR_MIN 0x268

#define LOADED_HIGH 0x01
#define CAN_USE_HEAP 0x80
#define XLF_KERNEL_64 0x01
#define XLF_ABOVE_4G 0x02

/* Other fields of boot_params; the first is struct screen_info */
#define BP_SIZE 4096
#define BP_VIDEO_MODE 0x006
#define BP_VIDEO_COLUMNS 0x007
#define BP_VIDEO_LINES 0x00e
#define BP_VIDEO_IS_VGA 0x00f
#define BP_VIDEO_POINTS 0x010
#define BP_ACPI_RSDP 0x070
#define BP_EXT_RAMDISK 0x0c0
#define BP_EXT_RAMDISK_SIZE 0x0c4
#define BP_EXT_CMDLINE 0x0c8
#define BP_E820_COUNT 0x1e8
#define BP_E820 0x2d0
#define E820_ENTRY 20

#define LOW_MIN 0x1000
#define LOW_MAX 0x9f000
#define UNPACK_MAX (1ull << 30)

/* The header with defaults for what older versions lack. */
struct bzimage {
	uint16_t version;
	bool has64, relocatable;
	uint64_t kernel_at, kernel_size; /* the protected-mode part in the file */
	uint64_t pref_address, init_size, alignment, initrd_max;
	uint32_t cmdline_max;
	uint64_t header_end;
	uint64_t payload, payload_size; /* in the file; size 0: not told */
};

static int header_layout(struct bzimage *b, const struct boot_input *in, struct err *e)
{
	const uint8_t *d = in->data;
	uint64_t setup = d[HDR_SETUP_SECTS] ? d[HDR_SETUP_SECTS] : 4;

	b->version = get16(d + HDR_VERSION);
	if (b->version < 0x0202 || !(d[HDR_LOADFLAGS] & LOADED_HIGH))
		return err_set(e, ENOEXEC,
			       "is too old a kernel (boot protocol %u.%02u, not loaded high); give a bzImage of 2.6 or later",
			       b->version >> 8, b->version & 0xff);
	b->kernel_at = (setup + 1) * 512;
	if (b->kernel_at >= in->size)
		return err_set(e, ENOEXEC, "is cut short (its setup code alone needs %llu bytes, the file has %llu); fetch it again",
			       (unsigned long long)b->kernel_at, (unsigned long long)in->size);
	b->kernel_size = in->size - b->kernel_at;
	/* syssize is in units of 16 bytes; it was 16 bits wide before 2.04. */
	if (b->version >= 0x0204) {
		uint64_t want = (uint64_t)get32(d + HDR_SYSSIZE) * 16;

		/* The last unit may be partial. */
		if (want > b->kernel_size + 15)
			return err_set(e, ENOEXEC, "is cut short (%llu of %llu bytes); fetch it again",
				       (unsigned long long)in->size,
				       (unsigned long long)(b->kernel_at + want));
	}
	b->header_end = MIN(0x202ull + d[HDR_JUMP + 1], (uint64_t)0x290);
	return 0;
}

static int header_parse(struct bzimage *b, const struct boot_input *in, struct err *e)
{
	const uint8_t *d = in->data;
	int r = header_layout(b, in, e);

	if (r)
		return r;
	b->has64 = b->version >= 0x020c && (get16(d + HDR_XLOADFLAGS) & XLF_KERNEL_64);
	b->relocatable = b->version >= 0x0205 && d[HDR_RELOCATABLE];
	b->alignment = b->version >= 0x0205 ? get32(d + HDR_ALIGNMENT) : 0;
	if (b->alignment < GUEST_PAGE || (b->alignment & (b->alignment - 1)))
		b->alignment = 0x100000;
	b->pref_address = b->version >= 0x020a ? get64(d + HDR_PREF_ADDRESS) : 0x100000;
	/* Before 2.10 nobody tells; four times the packed size was enough for all of them. */
	b->init_size = b->version >= 0x020a ? get32(d + HDR_INIT_SIZE) : b->kernel_size * 4;
	b->init_size = MAX(b->init_size, b->kernel_size);
	b->cmdline_max = b->version >= 0x0206 ? get32(d + HDR_CMDLINE_SIZE) : 255;
	b->initrd_max = b->version >= 0x0203 ? get32(d + HDR_INITRD_MAX) + 1ull : 0x38000000;
	if (b->version >= 0x0208) {
		b->payload = get32(d + HDR_PAYLOAD);
		b->payload_size = get32(d + HDR_PAYLOAD_SIZE);
		if (!range_fits(b->payload, b->payload_size, b->kernel_size))
			return err_set(e, ENOEXEC, "is cut short (its payload ends past the end of the file); fetch it again");
		b->payload += b->kernel_at;
	}
	if (strlen(in->append) > b->cmdline_max)
		return err_set(e, E2BIG, "takes a command line of %u bytes; shorten --append", b->cmdline_max);
	return 0;
}

static int header_check(struct bzimage *b, const struct boot_input *in, struct err *e)
{
	*b = (struct bzimage){ 0 };
	if (in->size < HDR_MIN + 512)
		return err_set(e, ENOEXEC, "is cut short (%llu bytes); fetch it again",
			       (unsigned long long)in->size);
	return header_parse(b, in, e);
}

static int payload_open(const struct bzimage *b, const struct boot_input *in, struct boot_bytes *out, struct err *e)
{
	const char *kind = "";
	int r = 1;

	if (in->bytes && in->cache && boot_cache_find(out, in->bytes, in->cache))
		return elf_need(out, e);
	if (in->bytes)
		r = lz4_open(out, in->bytes, b->payload, b->payload_size, e);
	if (r == 1 && in->bytes)
		r = boot_bytes_need(in->bytes, 0, in->bytes->size, e) ? -EIO : 1;
	if (r == 1)
		r = boot_unpack(in->data + b->payload, b->payload_size, out, &kind, e);
	if (!r && in->bytes && in->cache)
		boot_cache_keep(out, in->bytes, in->cache);
	return r ? r : elf_need(out, e);
}

int boot_bzimage_unpack(const struct boot_input *in, struct boot_bytes *out, struct err *e)
{
	struct bzimage b;
	struct elf_file elf;
	uint64_t size, limit = MIN(boot_map_mib(in->map) << 20, UNPACK_MAX);
	uint32_t entry;
	int r = header_check(&b, in, e);

	*out = (struct boot_bytes){ 0 };
	if (r)
		return r;
	if (b.payload_size < 8)
		return 1;
	if (in->bytes)
		r = boot_bytes_need(in->bytes, b.payload + b.payload_size - 4, 4, e);
	size = get32(in->data + b.payload + b.payload_size - 4);
	if (r || !size || size > limit)
		return r ? r : 1; /* not unpackable here: the kernel's own way will tell */
	r = boot_bytes_alloc(out, size, e);
	if (r)
		return r;
	r = payload_open(&b, in, out, e);
	if (!r && (!elf_is(out->data, out->size) || elf_parse(&elf, out->data, out->size, NULL) ||
		   !elf_pvh_entry(&elf, out->data, &entry)))
		r = 1;
	if (r)
		boot_bytes_dispose(out);
	return r;
}

static void e820_fill(uint8_t *bp, const struct boot_map *map)
{
	bp[BP_E820_COUNT] = (uint8_t)map->count;
	for (unsigned i = 0; i < map->count; i++) {
		uint8_t *entry = bp + BP_E820 + i * E820_ENTRY;

		put64(entry, map->range[i].start);
		put64(entry + 8, map->range[i].size);
		put32(entry + 16, map->range[i].type);
	}
}

/* Where the unpacker may run: at its preferred address if that is free, else anywhere aligned. */
static int place_kernel(const struct bzimage *b, const struct boot_input *in, struct boot_space *space,
			uint64_t *at, struct err *e)
{
	bool aligned = !(b->pref_address & (b->alignment - 1));

	*at = b->relocatable ? b->pref_address : 0x100000;
	if ((!b->relocatable || aligned) && *at >= 0x100000 && *at < PC_LOW_RAM_END &&
	    !boot_space_take(space, *at, b->init_size))
		return 0;
	if (b->relocatable &&
	    boot_space_low(space, b->init_size, b->alignment, 0x100000, PC_LOW_RAM_END, at))
		return 0;
	return err_set(e, ENOMEM,
		       "needs %llu MiB of RAM in one piece to unpack itself, the machine has %llu MiB; give it more --memory",
		       (unsigned long long)((b->init_size + (1 << 20) - 1) >> 20),
		       (unsigned long long)boot_map_mib(in->map));
}

/* Identity map of the first 4 GiB with 2 MiB pages: one PML4, one PDPT, four page directories. */
#define TABLES_SIZE (6 * 4096)

static void tables_fill(uint8_t *t, uint64_t at)
{
	put64(t, (at + 4096) | 3);
	for (unsigned i = 0; i < 4; i++)
		put64(t + 4096 + i * 8, (at + (2 + i) * 4096) | 3);
	for (unsigned i = 0; i < 4 * 512; i++)
		put64(t + 2 * 4096 + i * 8, ((uint64_t)i << 21) | 0x83);
}

/* The GDT both entries ask for: 0x10 code, 0x18 data. */
#define GDT_SIZE 32

static void gdt_fill(uint8_t *gdt, bool code64)
{
	put64(gdt + 0x10, code64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull);
	put64(gdt + 0x18, 0x00cf93000000ffffull);
}

/* What the real-mode code would have asked the BIOS about the text mode that vga_text_mode() sets. */
static void screen_fill(uint8_t *bp)
{
	bp[BP_VIDEO_MODE] = 3;
	bp[BP_VIDEO_COLUMNS] = 80;
	bp[BP_VIDEO_LINES] = 25;
	bp[BP_VIDEO_IS_VGA] = 1;
	put16(bp + BP_VIDEO_POINTS, 16);
}

static void params_fill(uint8_t *bp, const struct bzimage *b, const struct boot_input *in,
			uint64_t kernel, uint64_t cmdline, uint64_t initrd, uint64_t initrd_size)
{
	memcpy(bp + HDR_SETUP_SECTS, in->data + HDR_SETUP_SECTS, b->header_end - HDR_SETUP_SECTS);
	bp[HDR_LOADER] = 0xff; /* no registered id */
	bp[HDR_LOADFLAGS] = (uint8_t)(bp[HDR_LOADFLAGS] & ~CAN_USE_HEAP);
	put32(bp + HDR_CODE32, (uint32_t)kernel);
	put32(bp + HDR_CMDLINE, (uint32_t)cmdline);
	put32(bp + BP_EXT_CMDLINE, (uint32_t)(cmdline >> 32));
	put32(bp + HDR_RAMDISK, (uint32_t)initrd);
	put32(bp + HDR_RAMDISK_SIZE, (uint32_t)initrd_size);
	put32(bp + BP_EXT_RAMDISK, (uint32_t)(initrd >> 32));
	put32(bp + BP_EXT_RAMDISK_SIZE, (uint32_t)(initrd_size >> 32));
	e820_fill(bp, in->map);
	if (in->vga)
		screen_fill(bp);
}

/* One block below 640 KiB: page tables, boot_params, GDT, command line. */
#define BLOCK_PARAMS TABLES_SIZE
#define BLOCK_GDT (BLOCK_PARAMS + BP_SIZE)
#define BLOCK_CMDLINE (BLOCK_GDT + GDT_SIZE)

/* The kernel itself: packed, or where its unpacker would have put it. `at`: where it begins, *entry: where it is entered. */
static int plan_body(struct boot_plan *p, const struct bzimage *b, const struct boot_input *in, const struct boot_bytes *unpacked,
		     struct boot_space *space, uint64_t *at, struct err *e)
{
	struct boot_input inner = *in;
	struct elf_file elf;
	uint64_t end;
	int r;

	if (!unpacked) {
		r = place_kernel(b, in, space, at, e);
		p->rip = *at + (b->has64 ? 0x200 : 0);
		return r ? r : boot_plan_add(p, *at, in->data + b->kernel_at, b->kernel_size, 0, e);
	}
	inner.data = unpacked->data;
	inner.size = unpacked->size;
	r = elf_parse(&elf, inner.data, inner.size, e);
	if (!r)
		r = elf_plan_segments(&elf, &inner, p, space, &end, e);
	if (!r && (elf.is64 != b->has64 || !elf_holds(&elf, elf.entry)))
		r = err_set(e, ENOEXEC, "has its entry at %#llx, outside of what it loads; build it again",
			    (unsigned long long)elf.entry);
	*at = b->pref_address;
	p->rip = elf.entry;
	return r;
}

int boot_bzimage_plan(struct boot_plan *p, const struct boot_input *in, const struct boot_bytes *unpacked, struct err *e)
{
	uint64_t kernel, block, initrd, initrd_size, cmdsize = strlen(in->append) + 1;
	struct boot_space space;
	struct bzimage b;
	uint8_t *m;
	int r = header_check(&b, in, e);

	if (r)
		return r;
	boot_space_init(&space, in->map);
	if (!boot_space_low(&space, BLOCK_CMDLINE + cmdsize, GUEST_PAGE, LOW_MIN, LOW_MAX, &block))
		return err_set(e, ENOMEM, "leaves no room below 640 KiB for its boot data; shorten --append");
	r = plan_body(p, &b, in, unpacked, &space, &kernel, e);
	if (!r)
		r = boot_place_initrd(in, p, &space, MIN(b.initrd_max, PC_LOW_RAM_END), &initrd,
				      &initrd_size, e);
	if (r)
		return r;
	m = boot_plan_alloc(p, BLOCK_CMDLINE + cmdsize);
	if (!m)
		return err_set(e, ENOMEM, "cannot be prepared: the host is out of memory");
	tables_fill(m, block);
	params_fill(m + BLOCK_PARAMS, &b, in, kernel, block + BLOCK_CMDLINE, initrd, initrd_size);
	gdt_fill(m + BLOCK_GDT, b.has64);
	memcpy(m + BLOCK_CMDLINE, in->append, cmdsize);
	p->rsdp_slot = m + BLOCK_PARAMS + BP_ACPI_RSDP;
	r = boot_plan_add(p, block, m, BLOCK_CMDLINE + cmdsize, 0, e);
	p->entry = b.has64 ? ENTRY_LONG : ENTRY_PROTECTED;
	p->rsi = block + BLOCK_PARAMS;
	p->cr3 = b.has64 ? block : 0;
	p->gdt = block + BLOCK_GDT;
	p->gdt_limit = GDT_SIZE - 1;
	p->cs = 0x10;
	p->ds = 0x18;
	p->how = b.has64 ? "bzImage by the 64-bit boot protocol" : "bzImage by the 32-bit boot protocol";
	return r;
}
