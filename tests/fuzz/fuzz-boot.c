/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer harness of all boot loaders and unpackers. The first byte chooses: 0 whatever the file is
 * recognised as, 1-4 one loader by force, 5 the unpackers alone, 6 as 0 from an open file that is read as needed. What must hold: no reads outside the file,
 * no plan outside RAM, no growth beyond the machine's memory (the sanitizers and these checks watch).
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "board/private.h"

#define MIB (1ull << 20)

static const struct boot_map map = {
	.range = { { 0, 0x9fc00, E820_RAM }, { MIB, 23 * MIB, E820_RAM } },
	.count = 2,
};

static void check_plan(const struct boot_plan *p)
{
	for (unsigned i = 0; i < p->nchunks; i++) {
		const struct boot_chunk *c = &p->chunk[i];
		bool inside = false;

		for (unsigned j = 0; j < map.count; j++) {
			const struct boot_range *r = &map.range[j];

			if (c->at >= r->start && range_fits(c->at - r->start, c->len, r->size) &&
			    range_fits(c->at - r->start, c->len + c->zero, r->size))
				inside = true;
		}
		CHECK(inside);
		/* every byte it would copy is ours to read */
		for (uint64_t at = 0; at < c->len; at += 512) {
			volatile uint8_t sink = c->data[at];

			(void)sink;
		}
		if (c->len) {
			volatile uint8_t sink = c->data[c->len - 1];

			(void)sink;
		}
	}
}

static void fuzz_unpack(const uint8_t *data, size_t size)
{
	struct boot_bytes out;
	const char *kind;

	if (size < 3 || boot_bytes_alloc(&out, get16(data), NULL))
		return;
	boot_unpack(data + 2, size - 2, &out, &kind, NULL);
	boot_bytes_dispose(&out);
}

/* A file of these bytes; whatever of it and of its payload a plan is made of is asked for. */
static int fuzz_file(struct boot_plan *plan, struct boot_input *in, struct boot_bytes *unpacked, struct err *e)
{
	int fd _close_ = memfd_create("fuzz", MFD_CLOEXEC);
	struct boot_bytes file = { 0 };
	char path[32];
	int r = -1;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (write(fd, in->data, in->size) == (ssize_t)in->size)
		r = boot_bytes_open(&file, "kernel", path, 64 * MIB, e);
	if (!r)
		r = boot_bytes_need(&file, 0, boot_identify(in->data, in->size) == BOOT_BZIMAGE ? 1024 : file.size, e);
	if (!r) {
		in->data = file.data;
		in->bytes = &file;
		r = boot_plan_kernel(plan, in, unpacked, e);
	}
	for (unsigned i = 0; i < plan->nchunks && !r && unpacked->data; i++)
		if (plan->chunk[i].data >= unpacked->data && plan->chunk[i].data < unpacked->data + unpacked->size)
			r = boot_bytes_need(unpacked, (uint64_t)(plan->chunk[i].data - unpacked->data), plan->chunk[i].len, e);
	if (!r)
		check_plan(plan);
	boot_plan_dispose(plan);
	boot_bytes_dispose(unpacked);
	boot_bytes_dispose(&file);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t ramdisk[4096];
	struct boot_module module = { { .data = (uint8_t *)ramdisk, .size = sizeof(ramdisk) }, "ramdisk", "" };
	struct boot_bytes unpacked = { 0 };
	struct boot_plan plan = { 0 };
	struct boot_input in = { .path = "fuzz", .append = "console=ttyS0", .modules = &module,
				 .nmodules = 1, .map = &map };
	struct err e;
	int r = -1;

	if (!size)
		return 0;
	in.data = data + 1;
	in.size = size - 1;
	in.vga = data[0] & 0x80;
	switch (data[0] & 0x7f) {
	case 0:
		r = boot_plan_kernel(&plan, &in, &unpacked, &e);
		break;
	case 1:
		r = boot_bzimage_plan(&plan, &in, NULL, &e);
		break;
	case 2:
		r = boot_pvh_plan(&plan, &in, &e);
		break;
	case 3:
		r = boot_multiboot_plan(&plan, &in, &e);
		break;
	case 4:
		r = boot_bzimage_unpack(&in, &unpacked, &e);
		break;
	case 5:
		fuzz_unpack(in.data, in.size);
		break;
	case 6:
		fuzz_file(&plan, &in, &unpacked, &e);
		break;
	default:
		break;
	}
	if (!r && (data[0] & 0x7f) < 4)
		check_plan(&plan);
	boot_plan_dispose(&plan);
	boot_bytes_dispose(&unpacked);
	return 0;
}
