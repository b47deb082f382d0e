/* SPDX-License-Identifier: Apache-2.0 */
/* VirtualBox's images: a header, one table of 32-bit block numbers, blocks. All little endian. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/import.h"

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return le32toh(v);
}

static int vdi_find(struct import *i, uint64_t index, uint64_t *at)
{
	uint32_t entry = index < i->entries ? le32toh(i->table32[index]) : 0xffffffff;

	/* all ones: nothing there; one less: zeroes */
	*at = entry >= 0xfffffffe ? IMPORT_ZERO : i->data + (uint64_t)entry * i->block;
	return 0;
}

int vdi_parse(struct import *i, struct err *e)
{
	uint8_t h[512];
	uint64_t size;
	int r = node_read(i->file, 0, h, sizeof(h));

	if (r)
		return err_set(e, -r, "cannot read %s: %s", i->file->path, strerrordesc_np(-r));
	if (get32(h + 0x40) != 0xbeda107f)
		return import_bad(i, e, "it is no VDI image");
	if (get32(h + 0x44) >> 16 != 1)
		return import_bad(i, e, "its version of VDI is not known");
	if (get32(h + 0x4c) != 1 && get32(h + 0x4c) != 2)
		return import_bad(i, e, "it is part of a chain of VDI images");
	memcpy(&size, h + 0x170, 8);
	i->n.size = le64toh(size);
	i->block = get32(h + 0x178);
	i->data = get32(h + 0x158);
	i->entries = get32(h + 0x180);
	if (get32(h + 0x17c))
		return import_bad(i, e, "its blocks have extra data");
	if (!i->block || i->entries * 4 > IMPORT_TABLE_MAX || i->n.size / i->block + (i->n.size % i->block != 0) > i->entries)
		return import_bad(i, e, "its table does not fit its size");
	i->table32 = calloc(MAX(i->entries, 1u), 4);
	if (!i->table32)
		return err_set(e, ENOMEM, "no memory for a disk's tables");
	r = node_read(i->file, get32(h + 0x154), i->table32, i->entries * 4);
	if (r)
		return err_set(e, -r, "cannot read the table of %s: %s", i->file->path, strerrordesc_np(-r));
	i->find = vdi_find;
	return 0;
}
