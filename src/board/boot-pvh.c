/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry by the PVH boot ABI (the Xen note PHYS32_ENTRY): flat 32-bit protected mode without paging, EBX
 * pointing to hvm_start_info version 1 with modules, command line, RSDP and memory map. The layout of the
 * structures is that of the public Xen interface arch-x86/hvm/start_info.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "board/private.h"

#define START_MAGIC 0x336ec578u
#define START_SIZE 56
#define MODULE_SIZE 32
#define MAP_ENTRY_SIZE 24

/* Offsets in the one page that holds start info, module list and memory map. */
#define MODULES_AT 64
#define MAP_AT 128

/* The usual area for boot data: above the real-mode vectors, below the EBDA. */
#define LOW_MIN 0x1000
#define LOW_MAX 0x9f000

int boot_place_initrd(const struct boot_input *in, struct boot_plan *p, struct boot_space *space,
		      uint64_t max, uint64_t *at, uint64_t *size, struct err *e)
{
	const struct boot_module *m = in->modules;

	*at = *size = 0;
	if (!in->nmodules)
		return 0;
	if (in->nmodules > 1)
		return err_set(e, EINVAL, "is a Linux kernel, which takes one --initrd and no --module; join the files into one");
	if (!boot_space_high(space, m->bytes.size, GUEST_PAGE, 0x100000, max, at))
		return err_set(e, ENOMEM,
			       "and initrd '%s' (%llu MiB) do not fit into %llu MiB together; give the machine more --memory",
			       m->path, (unsigned long long)((m->bytes.size + (1 << 20) - 1) >> 20),
			       (unsigned long long)boot_map_mib(in->map));
	*size = m->bytes.size;
	return boot_plan_add(p, *at, m->bytes.data, m->bytes.size, 0, e);
}

static void start_info_fill(uint8_t *page, uint64_t at, uint64_t cmdline, uint64_t initrd,
			    uint64_t initrd_size, const struct boot_map *map)
{
	put32(page, START_MAGIC);
	put32(page + 4, 1);
	if (initrd_size) {
		put32(page + 12, 1);
		put64(page + 16, at + MODULES_AT);
		put64(page + MODULES_AT, initrd);
		put64(page + MODULES_AT + 8, initrd_size);
	}
	put64(page + 24, cmdline);
	put64(page + 40, at + MAP_AT);
	put32(page + 48, map->count);
	for (unsigned i = 0; i < map->count; i++) {
		uint8_t *entry = page + MAP_AT + i * MAP_ENTRY_SIZE;

		put64(entry, map->range[i].start);
		put64(entry + 8, map->range[i].size);
		put32(entry + 16, map->range[i].type);
	}
}

int boot_pvh_plan(struct boot_plan *p, const struct boot_input *in, struct err *e)
{
	uint64_t end, at, cmdline, initrd, initrd_size, cmdsize = strlen(in->append) + 1;
	struct boot_space space;
	struct elf_file elf;
	uint32_t entry;
	uint8_t *page;
	int r = elf_parse(&elf, in->data, in->size, e);

	if (r)
		return r;
	if (!elf_pvh_entry(&elf, in->data, &entry))
		return err_set(e, ENOEXEC, "has no PVH entry; give a bzImage or a kernel built with CONFIG_PVH");
	boot_space_init(&space, in->map);
	r = elf_plan_segments(&elf, in, p, &space, &end, e);
	if (r)
		return r;
	if (!elf_holds(&elf, entry))
		return err_set(e, ENOEXEC, "has its PVH entry at %#x, outside of what it loads; build it again", entry);
	if (!boot_space_low(&space, GUEST_PAGE, GUEST_PAGE, LOW_MIN, LOW_MAX, &at) ||
	    !boot_space_low(&space, cmdsize, 16, LOW_MIN, LOW_MAX, &cmdline))
		return err_set(e, ENOMEM, "leaves no room below 640 KiB for its boot data; shorten --append");
	/* Linux maps the initrd through 32-bit addresses this early. */
	r = boot_place_initrd(in, p, &space, PC_LOW_RAM_END, &initrd, &initrd_size, e);
	if (r)
		return r;
	page = boot_plan_alloc(p, GUEST_PAGE);
	if (!page)
		return err_set(e, ENOMEM, "cannot be prepared: the host is out of memory");
	start_info_fill(page, at, cmdline, initrd, initrd_size, in->map);
	p->rsdp_slot = page + 32;
	r = boot_plan_add(p, at, page, GUEST_PAGE, 0, e);
	if (!r)
		r = boot_plan_add(p, cmdline, in->append, cmdsize, 0, e);
	p->entry = ENTRY_PROTECTED;
	p->rip = entry;
	p->rbx = at;
	p->cs = 0x8;
	p->ds = 0x10;
	p->how = elf.is64 ? "64-bit kernel by its PVH entry" : "32-bit kernel by its PVH entry";
	return r;
}

_Static_assert(MODULES_AT >= START_SIZE && MODULES_AT + MODULE_SIZE <= MAP_AT, "layout of the page");
_Static_assert(MAP_AT + 16 * MAP_ENTRY_SIZE <= GUEST_PAGE, "memory map fits the page");
