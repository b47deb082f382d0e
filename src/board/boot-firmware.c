/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A raw firmware image: ends at 4 GiB, where the reset vector is, and its last 128 KiB show below 1 MiB too until
 * shadow RAM takes their place (pci/i440fx.c). The CPU starts as after power-on.
 */
#include <errno.h>
#include <string.h>
#include "board/private.h"

#define FIRMWARE_MAX (16ull << 20)
#define LOW_WINDOW 0x20000ull

int boot_firmware_map(struct mem *mem, const char *path, uint64_t *rom_offset, uint64_t *start, struct err *e)
{
	struct boot_bytes file;
	uint64_t size, offset = 0;
	uint8_t *rom;
	int r = boot_bytes_read(&file, "firmware", path, FIRMWARE_MAX, e);

	if (r)
		return r;
	/* Whole pages, 128 KiB at least; what is missing lies in front, as the end is what counts. */
	size = MAX((file.size + GUEST_PAGE - 1) & ~(GUEST_PAGE - 1), LOW_WINDOW);
	r = mem_alloc(mem, size, &offset, e);
	if (!r) {
		rom = mem_ram_base(mem) + offset;
		memset(rom, 0xff, size - file.size);
		memcpy(rom + size - file.size, file.data, file.size);
		r = mem_map_read_only(mem, PC_HIGH_RAM - size, offset, size, "firmware", e);
	}
	*rom_offset = offset + size - LOW_WINDOW;
	*start = PC_HIGH_RAM - size;
	if (r)
		err_prefix(e, "firmware '%s'", path);
	boot_bytes_dispose(&file);
	return r;
}
