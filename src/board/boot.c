/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the files a user names to a boot plan: read, recognise, plan. A plan is made once, checked against the
 * machine's memory, and placed again at every reset. What was unpacked for it is given back meanwhile and unpacked again then: a
 * kernel has 54 MiB unpacked and 8 packed, resets are rare.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/log.h"
#include "board/private.h"

#define FILE_MAX (2ull << 30)

struct boot_image {
	struct boot_bytes kernel, unpacked;
	bool given_back; /* the unpacked one: its place is kept, its bytes are not there */
	const char *path;
	struct boot_module *modules;
	unsigned nmodules;
	struct boot_plan plan;
};

enum boot_kind boot_identify(const uint8_t *data, size_t size)
{
	struct elf_file elf;
	uint32_t at;

	if (size >= 0x268 && get16(data + 0x1fe) == 0xaa55 && !memcmp(data + 0x202, "HdrS", 4))
		return BOOT_BZIMAGE;
	if (elf_is(data, size) && !elf_parse(&elf, data, size, NULL) && elf_pvh_entry(&elf, data, &at))
		return BOOT_ELF_PVH;
	if (multiboot_find(data, size, &at))
		return BOOT_MULTIBOOT;
	return BOOT_UNKNOWN;
}

/* Say what an unrecognised file seems to be, so that the remedy fits. */
static int refuse_unknown(const struct boot_input *in, struct err *e)
{
	struct elf_file elf;

	if (elf_is(in->data, in->size)) {
		int r = elf_parse(&elf, in->data, in->size, e);

		return r ? r : err_set(e, ENOEXEC, "is an ELF file without PVH note or Multiboot header; give a bootable kernel");
	}
	if (in->size >= 512 && in->data[510] == 0x55 && in->data[511] == 0xaa)
		return err_set(e, ENOEXEC, "is a boot sector or a disk image; give a kernel, or a firmware with --firmware");
	return err_set(e, ENOEXEC, "is not a kernel; give a bzImage, an ELF kernel with PVH entry or a Multiboot kernel");
}

static int plan_bzimage(struct boot_plan *p, const struct boot_input *in, struct boot_bytes *unpacked,
			struct err *e)
{
	struct boot_input inner = *in;
	int r = boot_bzimage_unpack(in, unpacked, e);

	if (r < 0)
		return r;
	if (r || in->vga) /* the PVH entry knows nothing of screens */
		return boot_bzimage_plan(p, in, r ? NULL : unpacked, e);
	inner.data = unpacked->data;
	inner.size = unpacked->size;
	return boot_pvh_plan(p, &inner, e);
}

int boot_plan_kernel(struct boot_plan *p, const struct boot_input *in, struct boot_bytes *unpacked,
		     struct err *e)
{
	int r;

	switch (boot_identify(in->data, in->size)) {
	case BOOT_BZIMAGE:
		r = plan_bzimage(p, in, unpacked, e);
		break;
	case BOOT_ELF_PVH:
		r = boot_pvh_plan(p, in, e);
		break;
	case BOOT_MULTIBOOT:
		r = boot_multiboot_plan(p, in, e);
		break;
	default:
		r = refuse_unknown(in, e);
		break;
	}
	if (r && e)
		err_prefix(e, "kernel '%s'", in->path);
	return r;
}

void boot_image_close(struct boot_image *b)
{
	if (!b)
		return;
	boot_plan_dispose(&b->plan);
	for (unsigned i = 0; i < b->nmodules; i++)
		boot_bytes_dispose(&b->modules[i].bytes);
	free(b->modules);
	boot_bytes_dispose(&b->unpacked);
	boot_bytes_dispose(&b->kernel);
	free(b);
}

static void give_back(struct boot_image *b)
{
	if (b->unpacked.data)
		b->given_back = !madvise(b->unpacked.data, b->unpacked.size, MADV_DONTNEED);
}

static int read_module(struct boot_image *b, const char *what, const char *path, const char *args,
		       uint64_t limit, struct err *e)
{
	struct boot_module *m = &b->modules[b->nmodules];
	int r = boot_bytes_read(&m->bytes, what, path, limit, e);

	if (r)
		return r;
	m->path = path;
	m->args = args ? args : "";
	b->nmodules++;
	return 0;
}

static int image_open(struct boot_image *b, const struct pc_config *config, const struct boot_map *map,
		      struct err *e)
{
	uint64_t limit = MIN(boot_map_mib(map) << 20, FILE_MAX);
	struct boot_input in = { .path = config->kernel, .append = config->append ? config->append : "",
				 .map = map, .vga = config->vga_bios };
	int r = boot_bytes_read(&b->kernel, "kernel", config->kernel, limit, e);

	if (r)
		return r;
	b->modules = calloc(config->nmodules + 1, sizeof(*b->modules));
	if (!b->modules)
		return err_set(e, ENOMEM, "out of memory");
	if (config->initrd)
		r = read_module(b, "initrd", config->initrd, NULL, limit, e);
	for (unsigned i = 0; !r && i < config->nmodules; i++)
		r = read_module(b, "module", config->modules[i].path, config->modules[i].args, limit, e);
	if (r)
		return r;
	in.data = b->kernel.data;
	in.size = b->kernel.size;
	in.modules = b->modules;
	in.nmodules = b->nmodules;
	r = boot_plan_kernel(&b->plan, &in, &b->unpacked, e);
	if (r)
		return r;
	b->path = config->kernel;
	if (config->restoring) /* the first use is a reset */
		give_back(b);
	log_msg(LOG_INFO, "boot", "%s: %s, entered at %#llx", config->kernel, b->plan.how,
		(unsigned long long)b->plan.rip);
	return 0;
}

int boot_image_open(struct boot_image **out, const struct pc_config *config, const struct boot_map *map,
		    struct err *e)
{
	struct boot_image *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_set(e, ENOMEM, "out of memory");
	r = image_open(b, config, map, e);
	if (r) {
		boot_image_close(b);
		return r;
	}
	*out = b;
	return 0;
}

/* To where it was: the plan points there. */
static int unpack_again(struct boot_image *b, const struct boot_map *map, struct err *e)
{
	const struct boot_input in = { .path = b->path, .append = "", .data = b->kernel.data,
				       .size = b->kernel.size, .map = map };
	struct boot_bytes again = { 0 };
	int r = boot_bzimage_unpack(&in, &again, e);

	if (r || again.size != b->unpacked.size)
		r = r < 0 ? r : err_set(e, EIO, "kernel '%s': does not unpack as it did before", b->path);
	else if (mremap(again.data, again.size, again.size, MREMAP_MAYMOVE | MREMAP_FIXED, b->unpacked.data) == MAP_FAILED)
		r = err_errno(e, "cannot move the kernel");
	else
		return 0;
	boot_bytes_dispose(&again);
	return r;
}

int boot_image_load(struct boot_image *b, struct mem *mem, const struct boot_map *map, uint64_t acpi_rsdp,
		    struct x86_state *cpu0, struct err *e)
{
	int r = b->given_back ? unpack_again(b, map, e) : 0;

	if (!r)
		r = boot_plan_apply(&b->plan, mem, acpi_rsdp, cpu0, e);
	give_back(b);
	return r;
}
