/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing and reading the saved format; docs/formats/state.md is its specification. Reading goes over foreign
 * bytes: every read is bounded by the piece it is in (struct cursor), and nothing of the caller's is changed
 * before a record has been accepted as a whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "base/err.h"
#include "state/stream.h"

#define STREAM_MAGIC "ospstate"
#define STREAM_VERSION 1u
#define STREAM_HEADER 16u
#define RECORD_MAGIC 0x31434552u
#define RECORD_HEADER 16u
#define END_NAME "end"
#define FIELDS_MAX 4096u

enum field_type { FIELD_INT, FIELD_BYTES, FIELD_TRUTH };

static uint32_t stream_crc(const uint8_t *data, size_t len)
{
	return (uint32_t)crc32_z(crc32_z(0, NULL, 0), data, len);
}

/* ---- writing */

void state_buf_dispose(struct state_buf *b)
{
	free(b->data);
	*b = (struct state_buf){ 0 };
}

static int put(struct state_buf *b, const void *data, size_t len)
{
	if (len > b->cap - b->len) {
		size_t cap = b->cap ? b->cap : 4096;
		uint8_t *grown;

		if (len > SIZE_MAX / 4 - b->len)
			return -ENOMEM;
		while (cap - b->len < len)
			cap *= 2;
		grown = realloc(b->data, cap);
		if (!grown)
			return -ENOMEM;
		b->data = grown;
		b->cap = cap;
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return 0;
}

static int put_uint(struct state_buf *b, uint64_t v, unsigned size)
{
	return put(b, &v, size); /* the host is little-endian too */
}

static int put_name(struct state_buf *b, const char *name)
{
	size_t n = strlen(name);
	int r;

	CHECK(n >= 1 && n <= 255);
	r = put_uint(b, n, 1);
	return r ? r : put(b, name, n);
}

static enum field_type field_type(const struct state_field *f)
{
	return f->raw ? FIELD_BYTES : f->truth ? FIELD_TRUTH : FIELD_INT;
}

static int put_field(struct state_buf *b, const struct state_desc *desc, const struct state_field *f,
		     const void *hw)
{
	uint64_t bytes = (uint64_t)f->size * f->count;
	int r;

	CHECK(f->raw || f->size == 1 || f->size == 2 || f->size == 4 || f->size == 8);
	CHECK(range_fits(f->offset, bytes, desc->size));
	r = put_name(b, f->name);
	r = r ? r : put_uint(b, field_type(f), 1);
	r = r ? r : put_uint(b, f->size, 2);
	r = r ? r : put_uint(b, f->count, 4);
	return r ? r : put(b, (const uint8_t *)hw + f->offset, bytes);
}

/* The record's header, to be completed by record_close. Gives where it starts in *at. */
static int record_open(struct state_buf *b, size_t *at)
{
	static const uint8_t nothing[RECORD_HEADER];
	int r = 0;

	if (!b->len) {
		r = put(b, STREAM_MAGIC, 8);
		r = r ? r : put_uint(b, STREAM_VERSION, 4);
		r = r ? r : put_uint(b, 0, 4);
	}
	*at = b->len;
	return r ? r : put(b, nothing, RECORD_HEADER);
}

static void record_close(struct state_buf *b, size_t at)
{
	uint8_t *h = b->data + at;
	uint64_t len = b->len - at - RECORD_HEADER;
	uint32_t magic = RECORD_MAGIC, crc = stream_crc(h + RECORD_HEADER, len);

	memcpy(h, &magic, 4);
	memcpy(h + 4, &crc, 4);
	memcpy(h + 8, &len, 8);
}

int state_save(struct state_buf *b, const struct state_desc *desc, unsigned instance, const void *hw,
	       struct err *e)
{
	size_t before = b->len, at;
	unsigned i;
	int r;

	CHECK(desc->nfields <= FIELDS_MAX);
	r = record_open(b, &at);
	r = r ? r : put_name(b, desc->name);
	r = r ? r : put_uint(b, instance, 4);
	r = r ? r : put_uint(b, desc->version, 2);
	r = r ? r : put_uint(b, desc->nfields, 2);
	for (i = 0; i < desc->nfields && !r; i++)
		r = put_field(b, desc, &desc->fields[i], hw);
	if (r) {
		b->len = before;
		return err_set(e, -r, "no memory to save %s.%u", desc->name, instance);
	}
	record_close(b, at);
	return 0;
}

/* ---- reading */

struct cursor {
	const uint8_t *data;
	size_t left;
};

static const uint8_t *take(struct cursor *c, uint64_t len)
{
	const uint8_t *p = c->data;

	if (len > c->left)
		return NULL;
	c->data += len;
	c->left -= len;
	return p;
}

static bool take_uint(struct cursor *c, unsigned size, uint64_t *v)
{
	const uint8_t *p = take(c, size);

	*v = 0;
	if (p)
		memcpy(v, p, size);
	return p;
}

static bool take_name(struct cursor *c, char name[256])
{
	const uint8_t *p;
	uint64_t n, i;

	if (!take_uint(c, 1, &n) || !n)
		return false;
	p = take(c, n);
	if (!p)
		return false;
	for (i = 0; i < n; i++)
		if (p[i] <= ' ' || p[i] > '~')
			return false;
	memcpy(name, p, n);
	name[n] = 0;
	return true;
}

static int malformed(struct err *e, const char *what)
{
	return err_set(e, EINVAL, "saved state is damaged: %s", what);
}

static int stream_open(const struct state_buf *b, struct cursor *c, struct err *e)
{
	const uint8_t *magic;
	uint64_t version, flags;

	*c = (struct cursor){ b->data, b->len };
	magic = take(c, 8);
	if (!magic || memcmp(magic, STREAM_MAGIC, 8))
		return err_set(e, EINVAL, "this is no saved state");
	if (!take_uint(c, 4, &version) || !take_uint(c, 4, &flags))
		return malformed(e, "it ends in its header");
	if (version != STREAM_VERSION)
		return err_set(e, EINVAL, "saved state has format %u, known is %u", (unsigned)version,
			       STREAM_VERSION);
	if (flags)
		return malformed(e, "unknown flags");
	return 0;
}

struct record {
	char name[256];
	uint64_t instance, version, nfields; /* the end record: instance is its count */
	struct cursor fields;
};

/* The next record, checksum verified. */
static int record_next(struct cursor *c, struct record *rec, struct err *e)
{
	uint64_t magic, crc, len;
	struct cursor body;

	if (!take_uint(c, 4, &magic) || !take_uint(c, 4, &crc) || !take_uint(c, 8, &len))
		return malformed(e, "it ends in a record's header");
	if (magic != RECORD_MAGIC)
		return malformed(e, "no record where one should be");
	body.left = len;
	body.data = take(c, len);
	if (!body.data)
		return malformed(e, "a record is longer than what is left");
	if (stream_crc(body.data, body.left) != crc)
		return malformed(e, "a record's checksum is wrong");
	if (!take_name(&body, rec->name) || !take_uint(&body, 4, &rec->instance))
		return malformed(e, "a record without name");
	rec->version = rec->nfields = 0;
	if (strcmp(rec->name, END_NAME)) {
		if (!take_uint(&body, 2, &rec->version) || !take_uint(&body, 2, &rec->nfields))
			return malformed(e, "a record ends in its header");
	} else if (body.left || c->left) {
		return malformed(e, "something follows its end");
	}
	rec->fields = body;
	return 0;
}

struct field {
	char name[256];
	uint64_t type, size, count;
	const uint8_t *data;
};

static int field_next(struct record *rec, struct field *f, struct err *e)
{
	struct cursor *c = &rec->fields;

	if (!take_name(c, f->name) || !take_uint(c, 1, &f->type) || !take_uint(c, 2, &f->size) ||
	    !take_uint(c, 4, &f->count))
		return err_set(e, EINVAL, "saved state is damaged: %s.%u ends in a field", rec->name,
			       (unsigned)rec->instance);
	if (f->type > FIELD_TRUTH || (f->type == FIELD_INT && (!f->size || f->size > 8 || (f->size & (f->size - 1)))) ||
	    (f->type != FIELD_INT && f->size != 1))
		return err_set(e, EINVAL, "%s.%u: field %s has an impossible type", rec->name,
			       (unsigned)rec->instance, f->name);
	f->data = take(c, f->size * f->count); /* 16 by 32 bits: cannot overflow */
	if (!f->data)
		return err_set(e, EINVAL, "saved state is damaged: %s.%u ends in field %s", rec->name,
			       (unsigned)rec->instance, f->name);
	return 0;
}

static int field_accept(const struct state_desc *desc, struct record *rec, const struct field *f, bool *seen,
			uint8_t *copy, struct err *e)
{
	const struct state_field *want;
	unsigned i;
	uint64_t k;

	for (i = 0; i < desc->nfields; i++)
		if (!strcmp(desc->fields[i].name, f->name))
			break;
	if (i == desc->nfields)
		return err_set(e, EINVAL, "%s.%u: field %s is not known here", rec->name,
			       (unsigned)rec->instance, f->name);
	want = &desc->fields[i];
	if (seen[i])
		return err_set(e, EINVAL, "%s.%u: field %s is there twice", rec->name,
			       (unsigned)rec->instance, f->name);
	seen[i] = true;
	if (f->type != field_type(want) || f->size != want->size || f->count != want->count)
		return err_set(e, EINVAL, "%s.%u: field %s is %u elements of %u bytes, not %u of %u", rec->name,
			       (unsigned)rec->instance, f->name, (unsigned)f->count, (unsigned)f->size, want->count,
			       want->size);
	for (k = 0; f->type == FIELD_TRUTH && k < f->count; k++)
		if (f->data[k] > 1)
			return err_set(e, EINVAL, "%s.%u: field %s is neither true nor false", rec->name,
				       (unsigned)rec->instance, f->name);
	memcpy(copy + want->offset, f->data, f->size * f->count);
	return 0;
}

static int record_accept(const struct state_desc *desc, struct record *rec, uint8_t *copy, struct err *e)
{
	bool *seen _free_ = calloc(desc->nfields + 1, sizeof(*seen));
	struct field f;
	uint64_t i;
	int r;

	if (!seen)
		return err_set(e, ENOMEM, "no memory to load %s.%u", rec->name, (unsigned)rec->instance);
	if (rec->version > desc->version)
		return err_set(e, EINVAL, "%s.%u was saved by a newer program: version %u, known is %u",
			       rec->name, (unsigned)rec->instance, (unsigned)rec->version, desc->version);
	for (i = 0; i < rec->nfields; i++) {
		r = field_next(rec, &f, e);
		r = r ? r : field_accept(desc, rec, &f, seen, copy, e);
		if (r)
			return r;
	}
	if (rec->fields.left)
		return err_set(e, EINVAL, "%s.%u: more than its fields", rec->name, (unsigned)rec->instance);
	for (i = 0; i < desc->nfields && rec->version == desc->version; i++)
		if (!seen[i])
			return err_set(e, EINVAL, "%s.%u: field %s is missing", rec->name,
				       (unsigned)rec->instance, desc->fields[i].name);
	return 0;
}

/* Find the only record of this kind and instance. A missing end record is for state_verify to complain about. */
static int record_find(const struct state_buf *b, const struct state_desc *desc, unsigned instance,
		       struct record *out, struct err *e)
{
	struct record rec;
	struct cursor c;
	bool found = false;
	int r = stream_open(b, &c, e);

	while (!r && c.left) {
		r = record_next(&c, &rec, e);
		if (r || strcmp(rec.name, desc->name) || rec.instance != instance)
			continue;
		if (found)
			return err_set(e, EINVAL, "saved state has %s.%u twice", desc->name, instance);
		found = true;
		*out = rec;
	}
	if (!r && !found)
		r = err_set(e, ENOENT, "saved state has no %s.%u", desc->name, instance);
	return r;
}

int state_load(const struct state_buf *b, const struct state_desc *desc, unsigned instance, void *hw,
	       struct err *e)
{
	struct record rec;
	uint8_t *copy;
	int r = record_find(b, desc, instance, &rec, e);

	if (r)
		return r;
	copy = aligned_alloc(64, (desc->size + 127u) & ~63u);
	if (!copy)
		return err_set(e, ENOMEM, "no memory to load %s.%u", desc->name, instance);
	memset(copy, 0, desc->size);
	r = record_accept(desc, &rec, copy, e);
	if (!r && desc->check) {
		r = desc->check(copy, e);
		if (r)
			err_prefix(e, "%s.%u cannot be loaded", desc->name, instance);
	}
	if (!r)
		memcpy(hw, copy, desc->size);
	free(copy);
	return r;
}

/* ---- the stream as a whole */

int state_end(struct state_buf *b, struct err *e)
{
	size_t before = b->len, at;
	struct record rec;
	struct cursor c;
	uint32_t count = 0;
	int r = 0;

	if (b->len)
		r = stream_open(b, &c, e);
	while (!r && b->len && c.left) {
		r = record_next(&c, &rec, e);
		count++;
	}
	if (r)
		return r;
	r = record_open(b, &at);
	r = r ? r : put_name(b, END_NAME);
	r = r ? r : put_uint(b, count, 4);
	if (r) {
		b->len = before;
		return err_set(e, -r, "no memory to save");
	}
	record_close(b, at);
	return 0;
}

/* Walk over everything; line may be NULL. */
static int stream_walk(const struct state_buf *b, void (*each)(void *opaque, const struct record *rec,
			const struct field *f), void *opaque, struct err *e)
{
	struct record rec;
	struct cursor c;
	struct field f;
	uint64_t count = 0, i;
	int r = stream_open(b, &c, e);

	if (r)
		return r;
	for (;; count++) {
		r = record_next(&c, &rec, e);
		if (r)
			return r;
		if (!strcmp(rec.name, END_NAME))
			break;
		for (i = 0; i < rec.nfields; i++) {
			r = field_next(&rec, &f, e);
			if (r)
				return r;
			if (each)
				each(opaque, &rec, &f);
		}
		if (rec.fields.left)
			return malformed(e, "a record has more than its fields");
	}
	return rec.instance == count ? 0 : malformed(e, "records are missing");
}

int state_verify(const struct state_buf *b, struct err *e)
{
	return stream_walk(b, NULL, NULL, e);
}

struct dump {
	void (*line)(void *opaque, const char *text);
	void *opaque;
};

static void dump_field(void *opaque, const struct record *rec, const struct field *f)
{
	struct dump *d = opaque;
	char text[700];
	uint64_t i, v;
	int n;

	if (f->type == FIELD_BYTES) {
		n = snprintf(text, sizeof(text), "%s.%u %s =", rec->name, (unsigned)rec->instance, f->name);
		for (i = 0; i < MIN(f->count, 32u); i++)
			n += snprintf(text + n, sizeof(text) - (size_t)n, " %02x", f->data[i]);
		if (f->count > 32)
			snprintf(text + n, sizeof(text) - (size_t)n, " ... (%u bytes)", (unsigned)f->count);
		d->line(d->opaque, text);
		return;
	}
	for (i = 0; i < f->count; i++) {
		v = 0;
		memcpy(&v, f->data + i * f->size, f->size);
		n = snprintf(text, sizeof(text), "%s.%u %s", rec->name, (unsigned)rec->instance, f->name);
		if (f->count > 1)
			n += snprintf(text + n, sizeof(text) - (size_t)n, "[%u]", (unsigned)i);
		snprintf(text + n, sizeof(text) - (size_t)n, " = %#" PRIx64, v);
		d->line(d->opaque, text);
	}
}

int state_dump(const struct state_buf *b, void (*line)(void *opaque, const char *text), void *opaque,
	       struct err *e)
{
	struct dump d = { line, opaque };

	return stream_walk(b, dump_field, &d, e);
}
