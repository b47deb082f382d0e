/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-V's images, after Microsoft's MS-VHDX: two headers of which the newer valid one counts, a region table, metadata
 * items, and a block allocation table. An image whose log has something to replay is refused, as are differences to others.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/import.h"

#define KIB64 65536u

/* As they lie in the file: the first three fields of a GUID are little endian. */
static const uint8_t guid_bat[16] = { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 };
static const uint8_t guid_metadata[16] = { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
					   0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e };
static const uint8_t guid_parameters[16] = { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
					     0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b };
static const uint8_t guid_size[16] = { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8 };
static const uint8_t guid_sector[16] = { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f };

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return le64toh(v);
}

/* CRC-32C with the checksum's own bytes, 4 to 7, taken as zero. */
static bool checksum_fits(const uint8_t *p, size_t n)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < n; i++) {
		crc ^= i >= 4 && i < 8 ? 0 : p[i];
		for (unsigned k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc == get32(p + 4);
}

static int vhdx_find(struct import *i, uint64_t index, uint64_t *at)
{
	uint64_t k = index + index / i->per, entry = k < i->entries ? le64toh(i->table64[k]) : 0;

	switch (entry & 7) {
	case 0: /* not there */
	case 1: /* undefined */
	case 2: /* zeroes */
	case 3: /* unmapped */
		*at = IMPORT_ZERO;
		return 0;
	case 6:
		*at = entry & ~(uint64_t)0xfffff;
		return *at ? 0 : -EIO;
	default:
		return -EIO;
	}
}

static int read_header(struct import *i, uint8_t *buf, struct err *e)
{
	static const uint8_t none[16];
	uint64_t best = 0;
	bool found = false, log = false;

	for (unsigned k = 1; k <= 2; k++) {
		if (node_read(i->file, k * KIB64, buf, 4096) || memcmp(buf, "head", 4) || !checksum_fits(buf, 4096))
			continue;
		if (found && get64(buf + 8) < best)
			continue;
		found = true;
		best = get64(buf + 8);
		log = memcmp(buf + 48, none, 16);
	}
	if (!found)
		return import_bad(i, e, "neither of its headers is valid");
	return log ? import_bad(i, e, "it was not closed cleanly; open it once with the program that wrote it") : 0;
}

static int find_regions(struct import *i, uint8_t *buf, uint64_t *bat, uint64_t *bat_len, uint64_t *metadata, struct err *e)
{
	for (unsigned k = 3; k <= 4; k++) {
		uint32_t n;

		if (node_read(i->file, k * KIB64, buf, KIB64) || memcmp(buf, "regi", 4) || !checksum_fits(buf, KIB64))
			continue;
		n = MIN(get32(buf + 8), (KIB64 - 16) / 32);
		for (uint32_t j = 0; j < n; j++) {
			const uint8_t *r = buf + 16 + 32 * j;

			if (!memcmp(r, guid_bat, 16)) {
				*bat = get64(r + 16);
				*bat_len = get32(r + 24);
			} else if (!memcmp(r, guid_metadata, 16)) {
				*metadata = get64(r + 16);
			} else if (get32(r + 28) & 1) {
				return import_bad(i, e, "it needs a region that is not known");
			}
		}
		return *bat && *metadata ? 0 : import_bad(i, e, "a region is missing");
	}
	return import_bad(i, e, "neither of its region tables is valid");
}

static int read_metadata(struct import *i, uint8_t *buf, uint64_t at, uint32_t *sector, struct err *e)
{
	uint32_t n;

	if (at > INT64_MAX || node_read(i->file, at, buf, KIB64) || memcmp(buf, "metadata", 8))
		return import_bad(i, e, "its metadata are not there");
	n = MIN((uint32_t)(buf[10] | buf[11] << 8), 2047u);
	for (uint32_t k = 0; k < n; k++) {
		const uint8_t *m = buf + 32 + 32 * k;
		uint64_t where = get32(m + 16);
		uint8_t item[8];

		if (node_read(i->file, at + where, item, sizeof(item)))
			return import_bad(i, e, "its metadata are not there");
		if (!memcmp(m, guid_parameters, 16)) {
			i->block = get32(item);
			if (get32(item + 4) & 2)
				return import_bad(i, e, "it is the difference to another image");
		} else if (!memcmp(m, guid_size, 16)) {
			i->n.size = get64(item);
		} else if (!memcmp(m, guid_sector, 16)) {
			*sector = get32(item);
		}
	}
	return 0;
}

int vhdx_parse(struct import *i, struct err *e)
{
	uint64_t bat = 0, bat_len = 0, metadata = 0, blocks;
	uint8_t *buf = malloc(KIB64);
	uint32_t sector = 0;
	int r;

	if (!buf)
		return err_set(e, ENOMEM, "no memory for a disk");
	r = node_read(i->file, 0, buf, 8);
	if (r)
		r = err_set(e, -r, "cannot read %s: %s", i->file->path, strerrordesc_np(-r));
	else if (memcmp(buf, "vhdxfile", 8))
		r = import_bad(i, e, "it is no VHDX image");
	if (!r)
		r = read_header(i, buf, e);
	if (!r)
		r = find_regions(i, buf, &bat, &bat_len, &metadata, e);
	if (!r)
		r = read_metadata(i, buf, metadata, &sector, e);
	free(buf);
	if (r)
		return r;
	if ((sector != 512 && sector != 4096) || i->block < 1u << 20 || i->block > 256u << 20 || i->block & (i->block - 1) ||
	    i->n.size > 64ull << 40 || bat > INT64_MAX)
		return import_bad(i, e, "its sizes are impossible");
	i->per = (unsigned)((8388608ull * sector) / i->block);
	blocks = (i->n.size + i->block - 1) / i->block;
	i->entries = blocks + (blocks ? (blocks - 1) / i->per : 0);
	if (i->entries * 8 > IMPORT_TABLE_MAX || i->entries * 8 > bat_len)
		return import_bad(i, e, "its block table does not fit its size");
	i->table64 = calloc(MAX(i->entries, 1u), 8);
	if (!i->table64)
		return err_set(e, ENOMEM, "no memory for a disk's tables");
	r = node_read(i->file, bat, i->table64, i->entries * 8);
	if (r)
		return err_set(e, -r, "cannot read the block table of %s: %s", i->file->path, strerrordesc_np(-r));
	i->find = vhdx_find;
	return 0;
}
