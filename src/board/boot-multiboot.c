/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiboot 1 (specification 0.6.96): ELF kernels and those that give their own addresses (the a.out kludge),
 * entered in flat 32-bit protected mode with EAX = 0x2BADB002 and EBX pointing to the information structure.
 *
 * Modules go above the kernel, page-aligned; the structure with its strings goes below 640 KiB where the
 * kernel leaves that free, else behind the modules. A module's string, like the kernel's command line, is
 * the file's path followed by the arguments, as boot loaders do.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "board/private.h"

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u
#define SEARCH 8192

/* Header flags */
#define WANT_ALIGN 0x1u
#define WANT_MEMORY 0x2u
#define WANT_VIDEO 0x4u
#define HAS_ADDRESSES 0x10000u
#define MUST_UNDERSTAND 0xffffu

/* Information flags */
#define INFO_MEMORY 0x1u
#define INFO_CMDLINE 0x4u
#define INFO_MODULES 0x8u
#define INFO_MAP 0x40u
#define INFO_LOADER 0x200u

#define INFO_SIZE 128
#define MODULE_SIZE 16
#define MAP_ENTRY 24

static const char loader_name[] = "ospite";

bool multiboot_find(const uint8_t *data, uint64_t size, uint32_t *at)
{
	uint64_t end = MIN(size, (uint64_t)SEARCH);

	for (uint64_t i = 0; i + 12 <= end; i += 4) {
		if (get32(data + i) == HEADER_MAGIC &&
		    get32(data + i) + get32(data + i + 4) + get32(data + i + 8) == 0) {
			*at = (uint32_t)i;
			return true;
		}
	}
	return false;
}

/* The header's own addresses: load_addr 0 cannot be meant as "no end" here, only the two ends can. */
static int plan_addresses(const struct boot_input *in, uint32_t at, struct boot_plan *p,
			  struct boot_space *space, uint64_t *end, struct err *e)
{
	uint64_t header, load, load_end, bss_end, offset, len;
	int r;

	if (!range_fits(at, 32, in->size))
		return err_set(e, ENOEXEC, "is cut short (inside its Multiboot header); build it again");
	header = get32(in->data + at + 12);
	load = get32(in->data + at + 16);
	load_end = get32(in->data + at + 20);
	bss_end = get32(in->data + at + 24);
	if (header < load || header - load > at)
		return err_set(e, ENOEXEC,
			       "has a Multiboot header whose load address %#llx lies before the file's start; build it again",
			       (unsigned long long)load);
	offset = at - (header - load);
	len = load_end ? load_end - load : in->size - offset;
	if ((load_end && load_end < load) || !range_fits(offset, len, in->size))
		return err_set(e, ENOEXEC,
			       "is cut short (its Multiboot header asks for %#llx-%#llx from offset %#llx, the file has %#llx bytes); build it again",
			       (unsigned long long)load, (unsigned long long)load_end,
			       (unsigned long long)offset, (unsigned long long)in->size);
	*end = MAX(load + len, bss_end);
	r = boot_space_take(space, load, *end - load);
	if (r)
		return err_set(e, ENOMEM,
			       "needs RAM at %#llx-%#llx, which a machine of %llu MiB does not have there; give it more --memory",
			       (unsigned long long)load, (unsigned long long)*end - 1,
			       (unsigned long long)boot_map_mib(in->map));
	p->rip = get32(in->data + at + 28);
	p->how = "Multiboot kernel by its header's addresses";
	return boot_plan_add(p, load, in->data + offset, len, *end - load - len, e);
}

static int plan_kernel(const struct boot_input *in, uint32_t at, uint32_t flags, struct boot_plan *p,
		       struct boot_space *space, uint64_t *end, struct err *e)
{
	struct elf_file elf;
	int r;

	if (flags & HAS_ADDRESSES)
		return plan_addresses(in, at, p, space, end, e);
	r = elf_parse(&elf, in->data, in->size, e);
	if (!r)
		r = elf_plan_segments(&elf, in, p, space, end, e);
	if (r)
		return r;
	if (elf.entry > UINT32_MAX)
		return err_set(e, ENOEXEC, "has its entry above 4 GiB, out of reach for Multiboot; link it lower");
	p->rip = elf.entry;
	/* Kernels linked high give a virtual entry; where the segment is loaded is what counts. */
	for (unsigned i = 0; i < elf.nsegments; i++) {
		const struct elf_segment *s = &elf.segment[i];

		if (s->type == 1 && s->vaddr != s->paddr && elf.entry >= s->vaddr &&
		    elf.entry - s->vaddr < s->memsz)
			p->rip = elf.entry - s->vaddr + s->paddr;
	}
	if (!elf_holds(&elf, p->rip))
		return err_set(e, ENOEXEC, "has its entry at %#llx, outside of what it loads; build it again",
			       (unsigned long long)p->rip);
	p->how = "Multiboot kernel";
	return 0;
}

/* The information structure with everything it points to, built for address `at`. */
struct info {
	uint8_t *data;
	uint64_t at;
	uint64_t size, used;
};

static uint32_t info_take(struct info *b, uint64_t size)
{
	uint32_t at = (uint32_t)(b->at + b->used);

	b->used += (size + 3) & ~3ull;
	return at;
}

static uint8_t *info_ptr(struct info *b, uint32_t at)
{
	return b->data + (at - b->at);
}

static uint32_t info_string(struct info *b, const char *path, const char *args)
{
	uint64_t size = strlen(path) + 1 + strlen(args) + 1;
	uint32_t at = info_take(b, size);

	snprintf((char *)info_ptr(b, at), size, "%s%s%s", path, *args ? " " : "", args);
	return at;
}

static uint64_t info_size(const struct boot_input *in)
{
	uint64_t size = INFO_SIZE + sizeof(loader_name) + 3 + (uint64_t)in->map->count * MAP_ENTRY;

	size += strlen(in->path) + strlen(in->append) + 5;
	for (unsigned i = 0; i < in->nmodules; i++)
		size += MODULE_SIZE + strlen(in->modules[i].path) + strlen(in->modules[i].args) + 5;
	return size;
}

static void info_memory(struct info *b, const struct boot_map *map)
{
	uint32_t at = info_take(b, (uint64_t)map->count * MAP_ENTRY);
	uint64_t lower = 0, upper = 0;

	for (unsigned i = 0; i < map->count; i++) {
		const struct boot_range *r = &map->range[i];
		uint8_t *entry = info_ptr(b, at) + i * MAP_ENTRY;

		put32(entry, MAP_ENTRY - 4);
		put64(entry + 4, r->start);
		put64(entry + 12, r->size);
		put32(entry + 20, r->type);
		if (r->type == E820_RAM && r->start == 0)
			lower = r->size;
		if (r->type == E820_RAM && r->start == 0x100000)
			upper = r->size;
	}
	put32(b->data + 4, (uint32_t)(lower >> 10));
	put32(b->data + 8, (uint32_t)(upper >> 10));
	put32(b->data + 44, map->count * MAP_ENTRY);
	put32(b->data + 48, at);
}

static void info_fill(struct info *b, const struct boot_input *in, const uint64_t *module_at)
{
	uint32_t mods;

	info_take(b, INFO_SIZE);
	put32(b->data, INFO_MEMORY | INFO_CMDLINE | INFO_MAP | INFO_LOADER |
			       (in->nmodules ? INFO_MODULES : 0));
	info_memory(b, in->map);
	put32(b->data + 16, info_string(b, in->path, in->append));
	put32(b->data + 64, info_string(b, loader_name, ""));
	if (!in->nmodules)
		return;
	mods = info_take(b, (uint64_t)in->nmodules * MODULE_SIZE);
	put32(b->data + 20, in->nmodules);
	put32(b->data + 24, mods);
	for (unsigned i = 0; i < in->nmodules; i++) {
		const struct boot_module *m = &in->modules[i];
		uint8_t *entry = info_ptr(b, mods) + i * MODULE_SIZE;

		put32(entry, (uint32_t)module_at[i]);
		put32(entry + 4, (uint32_t)(module_at[i] + m->bytes.size));
		put32(entry + 8, info_string(b, m->path, m->args));
	}
}

static int plan_modules(const struct boot_input *in, struct boot_plan *p, struct boot_space *space,
			uint64_t end, uint64_t *at, struct err *e)
{
	if (in->nmodules > BOOT_MODULES)
		return err_set(e, E2BIG, "is given %u modules; at most %u are possible", in->nmodules,
			       BOOT_MODULES);
	for (unsigned i = 0; i < in->nmodules; i++) {
		const struct boot_module *m = &in->modules[i];
		int r;

		if (!boot_space_low(space, m->bytes.size, GUEST_PAGE, MAX(end, (uint64_t)0x100000),
				    PC_LOW_RAM_END, &at[i]))
			return err_set(e, ENOMEM,
				       "and module '%s' (%llu MiB) do not fit into %llu MiB together; give the machine more --memory",
				       m->path,
				       (unsigned long long)((m->bytes.size + (1 << 20) - 1) >> 20),
				       (unsigned long long)boot_map_mib(in->map));
		r = boot_plan_add(p, at[i], m->bytes.data, m->bytes.size, 0, e);
		if (r)
			return r;
	}
	return 0;
}

int boot_multiboot_plan(struct boot_plan *p, const struct boot_input *in, struct err *e)
{
	uint64_t end, module_at[BOOT_MODULES];
	struct info b = { .size = info_size(in) };
	struct boot_space space;
	uint32_t at, flags;
	int r;

	if (!multiboot_find(in->data, in->size, &at))
		return err_set(e, ENOEXEC, "has no Multiboot header");
	flags = get32(in->data + at + 4);
	if (flags & MUST_UNDERSTAND & ~(WANT_ALIGN | WANT_MEMORY | WANT_VIDEO))
		return err_set(e, ENOTSUP, "asks for Multiboot features that do not exist here (flags %#x); build it without",
			       flags & MUST_UNDERSTAND);
	boot_space_init(&space, in->map);
	r = plan_kernel(in, at, flags, p, &space, &end, e);
	if (!r)
		r = plan_modules(in, p, &space, end, module_at, e);
	if (r)
		return r;
	if (!boot_space_low(&space, b.size, GUEST_PAGE, 0x1000, 0x9f000, &b.at) &&
	    !boot_space_low(&space, b.size, GUEST_PAGE, MAX(end, (uint64_t)0x100000), PC_LOW_RAM_END, &b.at))
		return err_set(e, ENOMEM, "leaves no room for its boot information; give the machine more --memory");
	b.data = boot_plan_alloc(p, b.size);
	if (!b.data)
		return err_set(e, ENOMEM, "cannot be prepared: the host is out of memory");
	info_fill(&b, in, module_at);
	r = boot_plan_add(p, b.at, b.data, b.size, 0, e);
	p->entry = ENTRY_PROTECTED;
	p->rax = LOADER_MAGIC;
	p->rbx = b.at;
	p->cs = 0x8;
	p->ds = 0x10;
	return r;
}
