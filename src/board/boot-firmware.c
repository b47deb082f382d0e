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

/* The CPU starts 16 bytes before the end, so images come in multiples of that and have something there. */
static bool starts_somewhere(const struct boot_bytes *file)
{
	const uint8_t *vector = file->size >= 16 ? file->data + file->size - 16 : NULL;

	return vector && file->size % 16 == 0 && !(vector[0] == 0 && vector[1] == 0) &&
	       !(vector[0] == 0xff && vector[1] == 0xff);
}

int boot_firmware_map(struct mem *mem, const char *path, uint64_t *rom_offset, uint64_t *start, struct err *e)
{
	struct boot_bytes file;
	uint64_t size, offset = 0;
	uint8_t *rom;
	int r = boot_bytes_read(&file, "firmware", path, FIRMWARE_MAX, e);

	if (r)
		return r;
	if (!starts_somewhere(&file)) {
		boot_bytes_dispose(&file);
		return err_set(e, EINVAL, "firmware '%s': is no firmware image: nothing to execute 16 bytes before its end", path);
	}
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
