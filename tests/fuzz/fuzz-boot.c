/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer harness of all boot loaders and unpackers. The first byte chooses: 0 whatever the file is
 * recognised as, 1-4 one loader by force, 5 the unpackers alone. What must hold: no reads outside the file,
 * no plan outside RAM, no growth beyond the machine's memory (the sanitizers and these checks watch).
 */
#include <string.h>
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t ramdisk[4096];
	struct boot_module module = { { (uint8_t *)ramdisk, sizeof(ramdisk) }, "ramdisk", "" };
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
	default:
		break;
	}
	if (!r && (data[0] & 0x7f) < 4)
		check_plan(&plan);
	boot_plan_dispose(&plan);
	boot_bytes_dispose(&unpacked);
	return 0;
}
