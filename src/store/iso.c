/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ECMA-119 (ISO 9660) and Joliet: two volume descriptors, each with path tables and a root folder of its own, over the same files.
 * Sectors of 2048 bytes: 16 the primary descriptor, 17 Joliet's, 18 the end of them, 19 and 20 path tables (little, big endian), 21 and
 * 22 Joliet's, 23 the root folder, 24 Joliet's, then the files. Dates are left out. Numbers marked "both" are in both byte orders.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "store/iso.h"

#define SECTOR 2048u
#define PRIMARY 16u
#define PATHS 19u
#define ROOTS 23u
#define FIRST 25u
#define FOLDER 2u

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = p[1];
	p[3] = p[0];
}

static void put32le(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static void put32be(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void put32(uint8_t *p, uint32_t v)
{
	put32le(p, v);
	put32be(p + 4, v);
}

/* The record of a file or folder; how long it is. */
static size_t put_record(uint8_t *p, uint32_t sector, uint32_t size, unsigned flags, const uint8_t *name, size_t len)
{
	size_t all = (33 + len + 1) & ~(size_t)1;

	memset(p, 0, all);
	p[0] = (uint8_t)all;
	put32(p + 2, sector);
	put32(p + 10, size);
	p[25] = (uint8_t)flags;
	put16(p + 28, 1);
	p[32] = (uint8_t)len;
	memcpy(p + 33, name, len);
	return all;
}

/* Blanks to a field's end, as characters of the descriptor's kind. */
static void put_text(uint8_t *p, size_t size, const char *text, bool joliet)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < size; i++) {
		size_t at = joliet ? i / 2 : i;
		uint8_t c = at < len ? (uint8_t)text[at] : ' ';

		p[i] = joliet && !(i & 1) ? 0 : c;
	}
}

static void put_descriptor(uint8_t *p, const char *label, bool joliet, uint32_t sectors)
{
	static const uint16_t texts[][2] = { { 8, 32 }, { 190, 128 }, { 318, 128 }, { 446, 128 }, { 574, 128 }, { 702, 37 }, { 739, 37 }, { 776, 37 } };
	uint32_t paths = PATHS + 2 * joliet;

	p[0] = joliet ? 2 : 1;
	memcpy(p + 1, "CD001\1", 6);
	for (unsigned i = 0; i < ARRAY_LEN(texts); i++)
		put_text(p + texts[i][0], texts[i][1], "", joliet);
	put_text(p + 40, 32, label, joliet);
	put32(p + 80, sectors);
	if (joliet)
		memcpy(p + 88, "%/E", 3); /* UCS-2, level 3 */
	put16(p + 120, 1);
	put16(p + 124, 1);
	put16(p + 128, SECTOR);
	put32(p + 132, 10); /* the path table's size */
	put32le(p + 140, paths);
	put32be(p + 148, paths + 1);
	put_record(p + 156, ROOTS + joliet, SECTOR, FOLDER, (const uint8_t *)"", 1);
	for (unsigned at = 813; at < 881; at += 17)
		memset(p + at, '0', 16);
	p[881] = 1;
}

/* The root alone. */
static void put_paths(uint8_t *image, bool joliet)
{
	uint8_t *little = image + (PATHS + 2 * joliet) * SECTOR, *big = little + SECTOR;

	little[0] = big[0] = 1;
	put32le(little + 2, ROOTS + joliet);
	put32be(big + 2, ROOTS + joliet);
	little[6] = 1;
	big[7] = 1;
}

static size_t file_name(const char *name, bool joliet, uint8_t *out)
{
	char text[ISO_NAME + 4];
	size_t len = (size_t)snprintf(text, sizeof(text), "%s%s;1", name, joliet || strchr(name, '.') ? "" : ".");

	if (joliet) {
		for (size_t i = 0; i < len; i++) {
			out[2 * i] = 0;
			out[2 * i + 1] = (uint8_t)text[i];
		}
		return 2 * len;
	}
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)toupper((unsigned char)text[i]);
	return len;
}

static void put_folder(uint8_t *image, bool joliet, const struct iso_file *const *files, const uint32_t *sector, unsigned n)
{
	uint8_t *p = image + (ROOTS + joliet) * SECTOR, name[2 * (ISO_NAME + 4)];

	p += put_record(p, ROOTS + joliet, SECTOR, FOLDER, (const uint8_t *)"\0", 1);
	p += put_record(p, ROOTS + joliet, SECTOR, FOLDER, (const uint8_t *)"\1", 1);
	for (unsigned i = 0; i < n; i++) {
		size_t len = file_name(files[i]->name, joliet, name);

		p += put_record(p, sector[i], (uint32_t)files[i]->size, 0, name, len);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcasecmp((*(const struct iso_file *const *)a)->name, (*(const struct iso_file *const *)b)->name);
}

static int check(const char *label, const struct iso_file *files, unsigned n, struct err *e)
{
	if (n > ISO_FILES || strlen(label) > 16)
		return err_set(e, EINVAL, "a CD image has at most %u files and a label of 16 characters", ISO_FILES);
	for (unsigned i = 0; i < n; i++) {
		const char *name = files[i].name;
		size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

		if (!len || name[len] || len > ISO_NAME || strchr(name, '.') != strrchr(name, '.'))
			return err_set(e, EINVAL, "'%.60s' is no name for a file of a CD image", name);
		if (files[i].size > 1u << 30)
			return err_set(e, EFBIG, "%s: more than a gibibyte", name);
	}
	return 0;
}

int iso_make(const char *label, const struct iso_file *files, unsigned n, uint8_t **out, size_t *size, struct err *e)
{
	const struct iso_file *sorted[ISO_FILES];
	uint32_t sector[ISO_FILES], sectors = FIRST;
	uint8_t *image;
	int r = check(label, files, n, e);

	if (r)
		return r;
	for (unsigned i = 0; i < n; i++)
		sorted[i] = &files[i];
	qsort(sorted, n, sizeof(sorted[0]), by_name);
	for (unsigned i = 0; i < n; i++) {
		sector[i] = sectors;
		sectors += (uint32_t)((sorted[i]->size + SECTOR - 1) / SECTOR);
	}
	image = calloc(sectors, SECTOR);
	if (!image)
		return err_set(e, ENOMEM, "no memory for a CD image");
	for (unsigned joliet = 0; joliet < 2; joliet++) {
		put_descriptor(image + (PRIMARY + joliet) * SECTOR, label, joliet, sectors);
		put_paths(image, joliet);
		put_folder(image, joliet, sorted, sector, n);
	}
	memcpy(image + (PRIMARY + 2) * SECTOR, "\xff" "CD001\1", 7);
	for (unsigned i = 0; i < n; i++)
		if (sorted[i]->size)
			memcpy(image + (size_t)sector[i] * SECTOR, sorted[i]->data, sorted[i]->size);
	*out = image;
	*size = (size_t)sectors * SECTOR;
	return 0;
}
