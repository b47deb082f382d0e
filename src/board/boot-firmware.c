/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A raw firmware image: ends at 4 GiB, where the reset vector is, and its last 128 KiB show below 1 MiB too,
 * as on every PC board. The CPU starts as after power-on; no table is built, that is the firmware's work.
 */
#include <errno.h>
#include <string.h>
#include "board/private.h"

#define FIRMWARE_MAX (16ull << 20)
#define LOW_WINDOW 0x20000ull

int boot_firmware_map(struct mem *mem, const char *path, struct err *e)
{
	struct boot_bytes file, rom = { 0 };
	uint64_t at, low;
	int r = boot_bytes_read(&file, "firmware", path, FIRMWARE_MAX, e);

	if (r)
		return r;
	/* Whole pages; what is missing lies in front, as the end is what counts. */
	r = boot_bytes_alloc(&rom, (file.size + GUEST_PAGE - 1) & ~(GUEST_PAGE - 1), e);
	if (r)
		goto out;
	memset(rom.data, 0xff, rom.size - file.size);
	memcpy(rom.data + rom.size - file.size, file.data, file.size);
	at = PC_HIGH_RAM - rom.size;
	low = MIN(rom.size, LOW_WINDOW);
	r = mem_map_rom(mem, at, rom.data, rom.size, "firmware", e);
	if (!r)
		r = mem_map_alias(mem, 0x100000 - low, PC_HIGH_RAM - low, low, "firmware-low", e);
	if (r)
		err_prefix(e, "firmware '%s'", path);
out:
	boot_bytes_dispose(&rom);
	boot_bytes_dispose(&file);
	return r;
}
