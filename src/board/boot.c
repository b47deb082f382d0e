/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the files a user names to a boot plan: read, recognise, plan. A plan is made once, checked against the
 * machine's memory, and placed again at every reset. Between, nothing of the files is in memory: they stay open, resets are rare. One
 * that has been written to since is planned anew then; one that has been replaced by another stays what it was.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/log.h"
#include "board/boot-source.h"

#define FILE_MAX (2ull << 30)

#define HEAD 65536 /* what tells what a kernel is, and all headers of a bzImage */

struct boot_image {
	const struct pc_config *config;
	const struct boot_map *map;
	struct boot_bytes kernel, unpacked;
	bool given_back; /* what was unpacked in one go: its place is kept, its bytes are not there */
	bool planned;
	bool started; /* files are out of reach from here on */
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

static uint64_t file_limit(const struct boot_map *map)
{
	return MIN(boot_map_mib(map) << 20, FILE_MAX);
}

static void give_back(struct boot_image *b)
{
	if (b->unpacked.data && !b->unpacked.source)
		b->given_back = !madvise(b->unpacked.data, b->unpacked.size, MADV_DONTNEED);
	boot_bytes_drop(&b->unpacked);
	boot_bytes_drop(&b->kernel);
	for (unsigned i = 0; i < b->nmodules; i++)
		boot_bytes_drop(&b->modules[i].bytes);
}

static int open_module(struct boot_image *b, const char *what, const char *path, const char *args, struct err *e)
{
	struct boot_module *m = &b->modules[b->nmodules];
	int r = boot_bytes_open(&m->bytes, what, path, file_limit(b->map), e);

	if (r)
		return r;
	m->path = path;
	m->args = args ? args : "";
	b->nmodules++;
	return 0;
}

static struct boot_input image_input(struct boot_image *b)
{
	return (struct boot_input){ .path = b->config->kernel, .append = b->config->append ? b->config->append : "", .map = b->map,
				    .vga = b->config->vga_bios, .data = b->kernel.data, .size = b->kernel.size, .bytes = &b->kernel,
				    .modules = b->modules, .nmodules = b->nmodules, .cache = b->started ? NULL : b->config->kernel_cache };
}

static int image_plan(struct boot_image *b, struct err *e)
{
	struct boot_input in = image_input(b);
	uint64_t head = boot_bytes_need(&b->kernel, 0, HEAD, e) ? 0 : MIN(HEAD, b->kernel.size);
	int r = head ? 0 : -EIO;

	boot_plan_dispose(&b->plan);
	boot_bytes_dispose(&b->unpacked);
	b->given_back = false;
	if (!r && boot_identify(b->kernel.data, head) != BOOT_BZIMAGE)
		r = boot_bytes_need(&b->kernel, 0, b->kernel.size, e);
	if (r)
		return err_prefix(e, "kernel '%s'", in.path);
	r = boot_plan_kernel(&b->plan, &in, &b->unpacked, e);
	b->planned = !r;
	if (!r)
		log_msg(LOG_INFO, "boot", "%s: %s, entered at %#llx", in.path, b->plan.how, (unsigned long long)b->plan.rip);
	return r;
}

static int image_open(struct boot_image *b, struct err *e)
{
	const struct pc_config *config = b->config;
	int r = boot_bytes_open(&b->kernel, "kernel", config->kernel, file_limit(b->map), e);

	if (r)
		return r;
	b->modules = calloc(config->nmodules + 1, sizeof(*b->modules));
	if (!b->modules)
		return err_set(e, ENOMEM, "out of memory");
	if (config->initrd)
		r = open_module(b, "initrd", config->initrd, NULL, e);
	for (unsigned i = 0; !r && i < config->nmodules; i++)
		r = open_module(b, "module", config->modules[i].path, config->modules[i].args, e);
	if (!r && !config->restoring) /* the first use would be a reset */
		r = image_plan(b, e);
	b->started = true;
	return r;
}

int boot_image_open(struct boot_image **out, const struct pc_config *config, const struct boot_map *map,
		    struct err *e)
{
	struct boot_image *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_set(e, ENOMEM, "out of memory");
	b->config = config;
	b->map = map;
	r = image_open(b, e);
	if (r) {
		boot_image_close(b);
		return r;
	}
	*out = b;
	return 0;
}

/* To where it was: the plan points there. */
static int unpack_again(struct boot_image *b, struct err *e)
{
	struct boot_input in = image_input(b);
	struct boot_bytes again = { 0 };
	int r = boot_bytes_need(&b->kernel, 0, HEAD, e);

	if (!r)
		r = boot_bzimage_unpack(&in, &again, e);
	if (r || again.size != b->unpacked.size)
		r = r < 0 ? r : err_set(e, EIO, "does not unpack as it did before");
	else if (mremap(again.data, again.size, again.size, MREMAP_MAYMOVE | MREMAP_FIXED, b->unpacked.data) == MAP_FAILED)
		r = err_errno(e, "cannot be moved");
	else
		return 0;
	boot_bytes_dispose(&again);
	return err_prefix(e, "kernel '%s'", in.path);
}

/* Whoever wrote to a file in place wanted it so; but half of a new kernel and half of an old one is nobody's wish. */
static int follow_changes(struct boot_image *b, struct err *e)
{
	struct boot_bytes *all[1 + BOOT_MODULES];
	unsigned n = 0;
	bool changed = false;
	int r = 0;

	all[n++] = &b->kernel;
	for (unsigned i = 0; i < b->nmodules && n < ARRAY_LEN(all); i++)
		all[n++] = &b->modules[i].bytes;
	for (unsigned i = 0; i < n && !r; i++) {
		if (!boot_bytes_changed(all[i]))
			continue;
		changed = true;
		log_msg(LOG_WARN, "boot", "%s '%s' has been written to since the machine started: it is started from what is in it now",
			all[i]->source->what, all[i]->source->path);
		r = boot_bytes_again(all[i], file_limit(b->map), e);
	}
	return r || (!changed && b->planned) ? r : image_plan(b, e);
}

int boot_image_load(struct boot_image *b, struct mem *mem, uint64_t acpi_rsdp, struct x86_state *cpu0, struct err *e)
{
	struct boot_bytes *sources[2 + BOOT_MODULES];
	unsigned n = 0;
	int r = follow_changes(b, e);

	sources[n++] = &b->unpacked;
	sources[n++] = &b->kernel;
	for (unsigned i = 0; i < b->nmodules && n < ARRAY_LEN(sources); i++)
		sources[n++] = &b->modules[i].bytes;
	if (!r && b->given_back)
		r = unpack_again(b, e);
	if (!r)
		r = boot_plan_apply(&b->plan, sources, n, mem, acpi_rsdp, cpu0, e);
	give_back(b);
	return r;
}
