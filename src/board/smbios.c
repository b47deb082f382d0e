/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System management tables (SMBIOS 2.8): what the machine is called, its processors and its memory. The firmware gets them by
 * its configuration device; kernels that start without find them at 0xf0000.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "board/private.h"

#define ANCHOR_SIZE SMBIOS_ANCHOR
#define DEVICE_MAX_MIB 32767ull /* a module's size in one word; larger ones are cut into several */
#define DIMM_MIB 16384ull

struct table {
	uint8_t *buf;
	uint32_t used, count, largest;
	bool full;
};

/* A structure of `size` bytes, zeroed; its strings follow with strings(). */
static uint8_t *structure(struct table *t, uint8_t type, uint8_t size, uint16_t handle)
{
	uint8_t *p = t->buf + t->used;

	if (size > SMBIOS_SIZE - t->used) {
		t->full = true;
		p = t->buf;
	} else {
		t->used += size;
	}
	memset(p, 0, size);
	p[0] = type;
	p[1] = size;
	put16(p + 2, handle);
	t->count++;
	return p;
}

/* The strings of the structure just made, numbered from 1; ends with NULL. */
static void strings(struct table *t, const uint8_t *start, ...)
{
	const char *text;
	va_list ap;
	bool any = false;

	va_start(ap, start);
	while ((text = va_arg(ap, const char *))) {
		size_t len = strlen(text) + 1;

		if (len + 2 > SMBIOS_SIZE - t->used) {
			t->full = true;
			break;
		}
		memcpy(t->buf + t->used, text, len);
		t->used += (uint32_t)len;
		any = true;
	}
	va_end(ap);
	if (SMBIOS_SIZE - t->used < 2) {
		t->full = true;
		return;
	}
	t->buf[t->used++] = 0;
	if (!any)
		t->buf[t->used++] = 0;
	t->largest = MAX(t->largest, (uint32_t)(t->buf + t->used - start));
}

static void about_machine(struct table *t, const struct smbios_config *c)
{
	char serial[33];
	uint8_t *p = structure(t, 0, 24, 0); /* firmware */

	p[4] = 1;
	p[5] = 2;
	put16(p + 6, 0xe800);
	p[8] = 3;
	put64(p + 10, BIT(7) | BIT(15) | BIT(16)); /* PCI, boots from CD and from what is chosen */
	p[18] = 1;				   /* ACPI */
	p[19] = (uint8_t)(0x14 | (c->uefi ? 8 : 0)); /* a virtual machine */
	p[22] = p[23] = 0xff;
	strings(t, p, "ospite", "1", "04/01/2024", NULL);

	p = structure(t, 1, 27, 0x100); /* system */
	p[4] = 1;
	p[5] = 2;
	p[6] = 3;
	p[7] = 4;
	memcpy(p + 8, c->uuid, 16);
	p[24] = 6; /* woken by the power switch */
	for (unsigned i = 0; i < 16; i++)
		snprintf(serial + 2 * i, 3, "%02x", c->uuid[i]);
	strings(t, p, "ospite", "Standard PC", "1", serial, NULL);

	p = structure(t, 3, 22, 0x300); /* enclosure: other */
	p[4] = 1;
	p[5] = 1;
	p[9] = p[10] = p[11] = 3;
	p[12] = 2;
	strings(t, p, "ospite", NULL);
}

static void about_processors(struct table *t, const struct smbios_config *c)
{
	unsigned cores = MAX(c->cores, 1u), threads = MAX(c->threads, 1u), sockets = MAX(c->cpus / (cores * threads), 1u);

	for (unsigned i = 0; i < sockets; i++) {
		uint8_t *p = structure(t, 4, 42, (uint16_t)(0x400 + i));
		char name[16];

		snprintf(name, sizeof(name), "CPU %u", i);
		p[4] = 1;
		p[5] = 3; /* central processor */
		p[6] = 1;
		p[7] = 2;
		p[24] = 0x41; /* populated, enabled */
		p[25] = 1;
		for (unsigned k = 26; k < 32; k += 2)
			put16(p + k, 0xffff); /* no cache tables */
		p[35] = p[36] = (uint8_t)cores;
		p[37] = (uint8_t)(cores * threads);
		put16(p + 38, 4); /* 64 bits */
		strings(t, p, name, "ospite", NULL);
	}
}

static void about_memory(struct table *t, const struct smbios_config *c)
{
	uint64_t mib = c->memory >> 20, left = mib;
	uint64_t low = MIN(c->memory, PC_LOW_RAM_END), high = c->memory - low;
	unsigned n = (unsigned)MIN((mib + DIMM_MIB - 1) / DIMM_MIB, 64u);
	uint8_t *p = structure(t, 16, 23, 0x1000); /* the array */

	p[4] = 1;
	p[5] = 3;
	p[6] = 6; /* corrects errors of several bits */
	put32(p + 7, mib < 0x200000 ? (uint32_t)(mib << 10) : 0x80000000u);
	put16(p + 11, 0xfffe);
	put16(p + 13, (uint16_t)n);
	put64(p + 15, mib < 0x200000 ? 0 : c->memory);
	strings(t, p, NULL);
	for (unsigned i = 0; i < n; i++) {
		uint64_t size = i + 1 == n ? MIN(left, DEVICE_MAX_MIB) : DIMM_MIB;
		char name[16];

		p = structure(t, 17, 40, (uint16_t)(0x1100 + i));
		snprintf(name, sizeof(name), "DIMM %u", i);
		put16(p + 4, 0x1000);
		put16(p + 6, 0xfffe);
		put16(p + 8, 64);
		put16(p + 10, 64);
		put16(p + 12, (uint16_t)size);
		p[14] = 9;
		p[16] = 1;
		p[18] = 7; /* RAM */
		put16(p + 19, 2);
		strings(t, p, name, NULL);
		left -= MIN(left, size);
	}
	for (unsigned i = 0; i < (high ? 2u : 1u); i++) {
		uint64_t start = i ? PC_HIGH_RAM : 0, size = i ? high : low;

		p = structure(t, 19, 31, (uint16_t)(0x1300 + i)); /* where it is */
		put32(p + 4, (uint32_t)(start >> 10));
		put32(p + 8, (uint32_t)((start + size - 1) >> 10));
		put16(p + 12, 0x1000);
		p[14] = 1;
		strings(t, p, NULL);
	}
}

static uint8_t sum(const uint8_t *p, unsigned n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *p++);
	return (uint8_t)-s;
}

int smbios_build(uint8_t *tables, uint8_t anchor[SMBIOS_ANCHOR], uint32_t *size, uint32_t at,
		 const struct smbios_config *c, struct err *e)
{
	struct table t = { .buf = tables };
	uint8_t *p;

	about_machine(&t, c);
	about_processors(&t, c);
	about_memory(&t, c);
	p = structure(&t, 32, 11, 0x2000); /* started without trouble */
	strings(&t, p, NULL);
	p = structure(&t, 127, 4, 0x7f00);
	strings(&t, p, NULL);
	if (t.full)
		return err_set(e, E2BIG, "the tables about %u CPUs do not fit", c->cpus);
	memset(anchor, 0, SMBIOS_ANCHOR);
	memcpy(anchor, "_SM_", 4);
	anchor[5] = ANCHOR_SIZE;
	anchor[6] = 2;
	anchor[7] = 8;
	put16(anchor + 8, (uint16_t)t.largest);
	memcpy(anchor + 16, "_DMI_", 5);
	put16(anchor + 22, (uint16_t)t.used);
	put32(anchor + 24, at);
	put16(anchor + 28, (uint16_t)t.count);
	anchor[30] = 0x28;
	anchor[21] = sum(anchor + 16, 15);
	anchor[4] = sum(anchor, ANCHOR_SIZE);
	*size = t.used;
	return 0;
}
