/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A writer for the little ACPI machine language our DSDT needs (ACPI 6.4, chapter 20). Package lengths
 * are always written in three bytes, so that a body need not be moved once its size is known.
 */
#include <string.h>
#include "board/private.h"

#define OP_NAME 0x08
#define OP_BYTE 0x0a
#define OP_WORD 0x0b
#define OP_DWORD 0x0c
#define OP_STRING 0x0d
#define OP_QWORD 0x0e
#define OP_SCOPE 0x10
#define OP_BUFFER 0x11
#define OP_PACKAGE 0x12
#define OP_METHOD 0x14
#define OP_RETURN 0xa4
#define OP_IF 0xa0
#define OP_EXT 0x5b
#define OP_EXT_REGION 0x80
#define OP_EXT_FIELD 0x81
#define OP_EXT_DEVICE 0x82

void aml_bytes(struct aml *a, const void *data, unsigned n)
{
	if (n > AML_MAX - a->len) {
		a->overflow = true;
		return;
	}
	memcpy(a->data + a->len, data, n);
	a->len += n;
}

void aml_byte(struct aml *a, uint8_t v)
{
	aml_bytes(a, &v, 1);
}

void aml_name(struct aml *a, const char *name)
{
	if (*name == '\\') {
		aml_byte(a, '\\');
		name++;
	}
	CHECK(strlen(name) == 4);
	aml_bytes(a, name, 4);
}

void aml_integer(struct aml *a, uint64_t v)
{
	uint8_t raw[8];

	put64(raw, v);
	if (v <= 1) {
		aml_byte(a, (uint8_t)v); /* ZeroOp, OneOp */
	} else if (v <= 0xff) {
		aml_byte(a, OP_BYTE);
		aml_bytes(a, raw, 1);
	} else if (v <= 0xffff) {
		aml_byte(a, OP_WORD);
		aml_bytes(a, raw, 2);
	} else if (v <= 0xffffffff) {
		aml_byte(a, OP_DWORD);
		aml_bytes(a, raw, 4);
	} else {
		aml_byte(a, OP_QWORD);
		aml_bytes(a, raw, 8);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, OP_STRING);
	aml_bytes(a, s, (unsigned)strlen(s) + 1);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* Three letters of five bits and four hexadecimal digits, stored with the high byte first. */
void aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = (uint32_t)(id[0] & 0x1f) << 26 | (uint32_t)(id[1] & 0x1f) << 21 |
		     (uint32_t)(id[2] & 0x1f) << 16 | hex_digit(id[3]) << 12 | hex_digit(id[4]) << 8 |
		     hex_digit(id[5]) << 4 | hex_digit(id[6]);
	uint8_t raw[5] = { OP_DWORD, (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };

	aml_bytes(a, raw, sizeof(raw));
}

unsigned aml_begin(struct aml *a)
{
	unsigned mark = a->len;

	aml_bytes(a, "\0\0\0", 3);
	return mark;
}

/* The length counts its own three bytes: 4 low bits beside the count of two more, then two bytes. */
void aml_end(struct aml *a, unsigned mark)
{
	unsigned len = a->len - mark;

	if (a->overflow)
		return;
	a->data[mark] = (uint8_t)(0x80 | (len & 0xf));
	a->data[mark + 1] = (uint8_t)(len >> 4);
	a->data[mark + 2] = (uint8_t)(len >> 12);
}

void aml_name_integer(struct aml *a, const char *name, uint64_t v)
{
	aml_byte(a, OP_NAME);
	aml_name(a, name);
	aml_integer(a, v);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	aml_byte(a, OP_NAME);
	aml_name(a, name);
	aml_eisaid(a, id);
}

unsigned aml_scope(struct aml *a, const char *name)
{
	unsigned mark;

	aml_byte(a, OP_SCOPE);
	mark = aml_begin(a);
	aml_name(a, name);
	return mark;
}

unsigned aml_device(struct aml *a, const char *name)
{
	unsigned mark;

	aml_byte(a, OP_EXT);
	aml_byte(a, OP_EXT_DEVICE);
	mark = aml_begin(a);
	aml_name(a, name);
	return mark;
}

unsigned aml_method(struct aml *a, const char *name, unsigned args)
{
	unsigned mark;

	aml_byte(a, OP_METHOD);
	mark = aml_begin(a);
	aml_name(a, name);
	aml_byte(a, (uint8_t)args);
	return mark;
}

void aml_region_io(struct aml *a, const char *name, uint16_t first, uint8_t count)
{
	aml_byte(a, OP_EXT);
	aml_byte(a, OP_EXT_REGION);
	aml_name(a, name);
	aml_byte(a, 1); /* I/O */
	aml_integer(a, first);
	aml_integer(a, count);
}

void aml_field32(struct aml *a, const char *region, const char *const *names, unsigned count)
{
	unsigned mark;

	aml_byte(a, OP_EXT);
	aml_byte(a, OP_EXT_FIELD);
	mark = aml_begin(a);
	aml_name(a, region);
	aml_byte(a, 0x43); /* accesses of 32 bits, the bits not written are zero */
	for (unsigned i = 0; i < count; i++) {
		aml_name(a, names[i]);
		aml_byte(a, 32);
	}
	aml_end(a, mark);
}

unsigned aml_if(struct aml *a, const char *name)
{
	unsigned mark;

	aml_byte(a, OP_IF);
	mark = aml_begin(a);
	aml_name(a, name);
	return mark;
}

void aml_return_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_RETURN);
	aml_name(a, name);
}

unsigned aml_package(struct aml *a, uint8_t elements)
{
	unsigned mark;

	aml_byte(a, OP_PACKAGE);
	mark = aml_begin(a);
	aml_byte(a, elements);
	return mark;
}

unsigned aml_name_package(struct aml *a, const char *name, uint8_t elements)
{
	aml_byte(a, OP_NAME);
	aml_name(a, name);
	return aml_package(a, elements);
}

static void crs_bytes(struct aml_crs *c, const uint8_t *data, unsigned n)
{
	CHECK(n <= sizeof(c->data) - c->len);
	memcpy(c->data + c->len, data, n);
	c->len += n;
}

void aml_crs_io(struct aml_crs *c, uint16_t first, uint8_t count)
{
	uint8_t d[8] = { 0x47, 1, (uint8_t)first, (uint8_t)(first >> 8), (uint8_t)first,
			 (uint8_t)(first >> 8), 1, count };

	crs_bytes(c, d, sizeof(d));
}

void aml_crs_irq(struct aml_crs *c, unsigned irq)
{
	uint8_t d[3] = { 0x22, (uint8_t)BIT(irq), (uint8_t)(BIT(irq) >> 8) };

	crs_bytes(c, d, sizeof(d));
}

void aml_crs_window(struct aml_crs *c, unsigned bytes, uint8_t kind, uint8_t flags, uint64_t first, uint64_t last)
{
	const uint64_t value[5] = { 0, first, last, 0, last - first + 1 };
	uint8_t d[6 + 5 * 8] = { bytes == 2 ? 0x88 : bytes == 4 ? 0x87 : 0x8a, (uint8_t)(3 + 5 * bytes), 0, kind,
				 0x0c /* fixed at both ends, produced */, flags };

	for (unsigned i = 0; i < 5; i++)
		for (unsigned k = 0; k < bytes; k++)
			d[6 + i * bytes + k] = (uint8_t)(value[i] >> 8 * k);
	crs_bytes(c, d, 6 + 5 * bytes);
}

void aml_crs_memory(struct aml_crs *c, uint32_t first, uint32_t size)
{
	uint8_t d[12] = { 0x86, 9, 0, 1 };

	put32(d + 4, first);
	put32(d + 8, size);
	crs_bytes(c, d, sizeof(d));
}

void aml_name_crs(struct aml *a, const struct aml_crs *c)
{
	unsigned mark;

	aml_byte(a, OP_NAME);
	aml_name(a, "_CRS");
	aml_byte(a, OP_BUFFER);
	mark = aml_begin(a);
	aml_integer(a, c->len + 2ull);
	aml_bytes(a, c->data, c->len);
	aml_bytes(a, "\x79\0", 2); /* end tag; a zero checksum counts as right */
	aml_end(a, mark);
}
