/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMware's images in one file: "monolithicSparse" and "streamOptimized". A directory of tables of 32-bit sector numbers; grains
 * are plain, or a small header and a zlib stream. Images that are a text naming other files are refused: nothing is opened
 * that the user did not name.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "backend/import.h"

struct vmdk_header {
	uint32_t magic, version, flags;
	uint64_t capacity, grain, descriptor, descriptor_size;
	uint32_t per_table;
	uint64_t redundant, directory, overhead;
	uint8_t unclean, ends[4];
	uint16_t compression;
} __attribute__((packed));

#define VMDK_MAGIC 0x564d444bu
#define VMDK_ZERO_GRAIN BIT(2)
#define VMDK_COMPRESSED BIT(16)

static int vmdk_find(struct import *i, uint64_t index, uint64_t *at)
{
	uint64_t table = index / i->per, where;
	uint32_t entry;

	*at = IMPORT_ZERO;
	if (table >= i->entries || !i->table32[table])
		return 0;
	where = (uint64_t)le32toh(i->table32[table]) * 512;
	if (i->cached_at != where) {
		int r = node_read(i->file, where, i->cached, i->per * 4ull);

		i->cached_at = r ? 0 : where;
		if (r)
			return r;
	}
	entry = le32toh(i->cached[index % i->per]);
	if (entry && !(entry == 1 && i->zero_grain))
		*at = (uint64_t)entry * 512;
	return 0;
}

static int vmdk_unpack(struct import *i, uint64_t at, uint8_t *plain)
{
	struct {
		uint64_t lba;
		uint32_t size;
	} __attribute__((packed)) h;
	z_stream z = { 0 };
	uint8_t *packed;
	int r = node_read(i->file, at, &h, sizeof(h));
	uint32_t size = le32toh(h.size);

	if (r || !size || size > 2 * i->block + 4096)
		return r ? r : -EIO;
	packed = malloc(size);
	if (!packed)
		return -ENOMEM;
	r = node_read(i->file, at + sizeof(h), packed, size);
	z.next_in = packed;
	z.avail_in = size;
	z.next_out = plain;
	z.avail_out = (uInt)i->block;
	if (!r && inflateInit(&z) != Z_OK)
		r = -ENOMEM;
	if (!r) {
		int end = inflate(&z, Z_FINISH);

		/* the last grain of a disk may be short */
		if (end != Z_STREAM_END)
			r = -EIO;
		memset(z.next_out, 0, z.avail_out);
		inflateEnd(&z);
	}
	free(packed);
	return r;
}

static int check_descriptor(struct import *i, const struct vmdk_header *h, struct err *e)
{
	uint64_t size = MIN(le64toh(h->descriptor_size) * 512, 65536u), at = le64toh(h->descriptor);
	char *text, *parent;
	int r = 0;

	if (!at || !size || at > UINT64_MAX / 1024)
		return 0;
	text = calloc(1, size + 1);
	if (!text || (r = node_read(i->file, at * 512, text, size)))
		r = err_set(e, r ? -r : ENOMEM, "cannot read %s", i->file->path);
	parent = r ? NULL : strstr(text, "parentCID=");
	if (parent && strncasecmp(parent + 10, "ffffffff", 8))
		r = import_bad(i, e, "it is the difference to another image");
	free(text);
	return r;
}

int vmdk_parse(struct import *i, struct err *e)
{
	struct vmdk_header h;
	uint64_t directory, grains;
	int r = node_read(i->file, 0, &h, sizeof(h));

	if (!r && le32toh(h.magic) == VMDK_MAGIC && le64toh(h.directory) == UINT64_MAX && i->file->size > 1024)
		r = node_read(i->file, i->file->size - 1024, &h, sizeof(h)); /* a stream: the real header is at its end */
	if (r)
		return err_set(e, -r, "cannot read %s: %s", i->file->path, strerrordesc_np(-r));
	if (!memcmp(&h, "# Disk Descriptor", sizeof("# Disk Descriptor") - 1))
		return import_bad(i, e, "it is a text that names other files; convert those (the flat one is raw)");
	if (le32toh(h.magic) != VMDK_MAGIC || le32toh(h.version) < 1 || le32toh(h.version) > 3)
		return import_bad(i, e, "it is no VMDK image of versions 1 to 3");
	r = check_descriptor(i, &h, e);
	if (r)
		return r;
	i->per = le32toh(h.per_table);
	directory = le64toh(h.directory);
	i->zero_grain = le32toh(h.flags) & VMDK_ZERO_GRAIN;
	if (le64toh(h.grain) > (2u << 20) / 512 || !h.grain || le64toh(h.capacity) > INT64_MAX / 512 || !i->per || i->per > 65536 ||
	    directory > INT64_MAX / 512)
		return import_bad(i, e, "its header is impossible");
	i->block = le64toh(h.grain) * 512;
	i->n.size = le64toh(h.capacity) * 512;
	grains = (i->n.size + i->block - 1) / i->block;
	i->entries = (grains + i->per - 1) / i->per;
	if (i->entries * 4 > IMPORT_TABLE_MAX)
		return import_bad(i, e, "its directory is too large");
	if (le32toh(h.flags) & VMDK_COMPRESSED) {
		if (le16toh(h.compression) != 1)
			return import_bad(i, e, "its compression is not known");
		i->unpack = vmdk_unpack;
	}
	i->table32 = calloc(MAX(i->entries, 1u), 4);
	i->cached = calloc(i->per, 4);
	if (!i->table32 || !i->cached)
		return err_set(e, ENOMEM, "no memory for a disk's tables");
	r = node_read(i->file, directory * 512, i->table32, i->entries * 4);
	if (r)
		return err_set(e, -r, "cannot read the directory of %s: %s", i->file->path, strerrordesc_np(-r));
	i->find = vmdk_find;
	return 0;
}
