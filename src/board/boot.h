/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot without firmware. A loader parses a foreign file completely and checks it against the machine's memory
 * before it writes anything, then puts it into guest memory and fills the first CPU's state.
 */
#ifndef BOARD_BOOT_H
#define BOARD_BOOT_H

#include "base/err.h"
#include "board/pc.h"
#include "x86/state.h"

/* Where RAM is, for E820 and its kin; what ACPI wants reserved is in it. */
enum { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };
struct boot_range {
	uint64_t start, size;
	uint32_t type;
};
struct boot_map {
	struct boot_range range[16];
	unsigned count;
};

/* A kernel file, recognised and ready to be placed again at every reset. config and map outlive it. */
struct boot_image;
int boot_image_open(struct boot_image **out, const struct pc_config *config, const struct boot_map *map,
		    struct err *e);
void boot_image_close(struct boot_image *b);
/* Place it; acpi_rsdp is 0 when there are no tables. */
int boot_image_load(struct boot_image *b, struct mem *mem, uint64_t acpi_rsdp, struct x86_state *cpu0, struct err *e);

/* Recognise what a file is, without trusting it; shared with the fuzzers. */
enum boot_kind { BOOT_UNKNOWN, BOOT_BZIMAGE, BOOT_ELF_PVH, BOOT_MULTIBOOT };
enum boot_kind boot_identify(const uint8_t *data, size_t size);

#endif
