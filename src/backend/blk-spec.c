/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands after --disk: keys and values between commas (a comma within a value is doubled), or a plain path. A text is
 * taken for keys when it begins with a word and '=', or with "readonly,". Without format= the name's ending says it.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "backend/blk.h"

struct key {
	const char *name;
	int (*set)(struct blk_spec *s, const char *value, size_t offset, struct err *e);
	size_t offset;
};

static int set_text(char *to, size_t size, const char *value, struct err *e)
{
	if (!*value)
		return err_set(e, EINVAL, "needs a value");
	if (strlen(value) >= size)
		return err_set(e, ENAMETOOLONG, "is longer than %zu characters", size - 1);
	strcpy(to, value);
	return 0;
}

static int set_file(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	if (s->path[0])
		return err_set(e, EINVAL, "the file is given twice");
	return set_text(s->path, sizeof(s->path), value, e);
}

static int set_nbd(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	s->nbd = true;
	return set_file(s, value, offset, e);
}

static int set_format(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	static const char *const formats[] = { "raw", "qcow2", "vmdk", "vdi", "vhdx" };

	for (unsigned i = 0; i < ARRAY_LEN(formats); i++)
		if (!strcmp(value, formats[i]))
			return set_text((char *)s + offset, sizeof(s->format), value, e);
	return err_set(e, EINVAL, "is no format; there are raw, qcow2, and for reading vmdk, vdi, vhdx");
}

static int set_flag(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	bool on = !strcmp(value, "on") || !*value;

	if (!on && strcmp(value, "off"))
		return err_set(e, EINVAL, "is on or off");
	*(bool *)((char *)s + offset) = on;
	return 0;
}

/* Those that are on unless said otherwise. */
static int set_not(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	bool on = strcmp(value, "off");

	if (on && strcmp(value, "on"))
		return err_set(e, EINVAL, "is on or off");
	*(bool *)((char *)s + offset) = !on;
	return 0;
}

static int set_aio(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	if (strcmp(value, "io_uring") && strcmp(value, "threads"))
		return err_set(e, EINVAL, "is io_uring or threads");
	s->no_ring = *value == 't';
	return 0;
}

static int set_word(const char *const *words, unsigned n, const char *value, const char *list, struct err *e)
{
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(words[i], value))
			return (int)i;
	return err_set(e, EINVAL, "is one of %s", list);
}

static int set_cache(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	static const char *const words[] = { "writeback", "writethrough", "none", "unsafe" };
	int i = set_word(words, ARRAY_LEN(words), value, "writeback, writethrough, none, unsafe", e);

	if (i >= 0)
		s->cache = (enum blk_cache)i;
	return MIN(i, 0);
}

static int set_on_error(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	static const char *const words[] = { "report", "stop", "enospc" };
	int i = set_word(words, ARRAY_LEN(words), value, "report, stop, enospc", e);

	if (i >= 0)
		*(enum blk_on_error *)((char *)s + offset) = (enum blk_on_error)i;
	return MIN(i, 0);
}

static int set_number(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	static const char units[] = "kmgt";
	const char *unit;
	char *end;
	unsigned long long v;
	unsigned shift = 0;

	errno = 0;
	v = isdigit((unsigned char)*value) ? strtoull(value, &end, 10) : 0;
	if (!v || errno)
		return err_set(e, EINVAL, "is a number from 1 on, such as 500, 64k, 10M");
	unit = *end ? strchr(units, tolower((unsigned char)*end)) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (*end || v > UINT64_MAX / 1024 >> shift)
		return err_set(e, EINVAL, "is a number from 1 on, such as 500, 64k, 10M");
	*(uint64_t *)((char *)s + offset) = (uint64_t)v << shift;
	return 0;
}

static int set_backing(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	struct blk_backing *b;

	if (!strcmp(value, "header")) {
		s->backing_header = true;
		return 0;
	}
	if (!s->backing)
		s->backing = calloc(BLK_CHAIN, sizeof(*s->backing));
	if (!s->backing)
		return err_set(e, ENOMEM, "no memory");
	if (s->nbacking == BLK_CHAIN)
		return err_set(e, E2BIG, "there are more than %u", BLK_CHAIN);
	b = &s->backing[s->nbacking++];
	return set_text(b->path, sizeof(b->path), value, e);
}

static int set_backing_format(struct blk_spec *s, const char *value, size_t offset, struct err *e)
{
	struct blk_spec other = { 0 };
	int r;

	if (!s->nbacking)
		return err_set(e, EINVAL, "comes after the backing= it belongs to");
	r = set_format(&other, value, offsetof(struct blk_spec, format), e);
	if (!r)
		strcpy(s->backing[s->nbacking - 1].format, other.format);
	return r;
}

#define AT(field) offsetof(struct blk_spec, field)
#define LIMIT_KEYS(name, field) \
	{ name, set_number, AT(field.rate) }, { name "-burst", set_number, AT(field.burst) }, \
	{ name "-once", set_number, AT(field.once) }

static const struct key keys[] = {
	{ "file", set_file, 0 },
	{ "nbd", set_nbd, 0 },
	{ "format", set_format, AT(format) },
	{ "readonly", set_flag, AT(read_only) },
	{ "cache", set_cache, 0 },
	{ "discard", set_flag, AT(discard) },
	{ "lock", set_not, AT(no_lock) },
	{ "repair", set_not, AT(check_only) },
	{ "aio", set_aio, 0 },
	{ "rerror", set_on_error, AT(on_read_error) },
	{ "werror", set_on_error, AT(on_write_error) },
	{ "backing", set_backing, 0 },
	{ "backing-format", set_backing_format, 0 },
	{ "table-cache", set_number, AT(table_cache) },
	LIMIT_KEYS("iops", limits.iops[0]),
	LIMIT_KEYS("iops-read", limits.iops[1]),
	LIMIT_KEYS("iops-write", limits.iops[2]),
	LIMIT_KEYS("bps", limits.bps[0]),
	LIMIT_KEYS("bps-read", limits.bps[1]),
	LIMIT_KEYS("bps-write", limits.bps[2]),
};

/* The next piece, with doubled commas made one. The rest, or NULL when it does not fit. */
static const char *next_piece(const char *text, char *piece, size_t size)
{
	size_t n = 0;

	for (; *text; text++) {
		if (*text == ',' && text[1] != ',')
			break;
		if (*text == ',')
			text++;
		if (n + 1 >= size)
			return NULL;
		piece[n++] = *text;
	}
	piece[n] = 0;
	return text;
}

static int spec_set(struct blk_spec *s, const char *piece, struct err *e)
{
	size_t len = strcspn(piece, "=");

	for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
		const char *value = piece[len] ? piece + len + 1 : "";
		int r;

		if (strlen(keys[i].name) != len || strncmp(keys[i].name, piece, len))
			continue;
		if (!piece[len] && keys[i].set != set_flag)
			return err_set(e, EINVAL, "'%.*s' needs a value: %.*s=...", (int)len, piece, (int)len, piece);
		r = keys[i].set(s, value, keys[i].offset, e);
		if (r)
			err_prefix(e, "%.100s", piece);
		return r;
	}
	return err_set(e, EINVAL, "a disk has no key '%.*s'; a file's name that looks like one is written file=NAME, and "
		       "commas in it are doubled", (int)MIN(len, 60u), piece);
}

static bool is_keyed(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz-");

	return n && (text[n] == '=' || (n == 8 && !strncmp(text, "readonly,", 9)));
}

/* Names say what files are, as for words on the command line; their content, which guests write, is not asked. */
static void format_by_name(struct blk_spec *s)
{
	static const char *const formats[] = { "qcow2", "vmdk", "vdi", "vhdx" };
	const char *dot = strrchr(s->path, '.');

	for (unsigned i = 0; i < ARRAY_LEN(formats) && dot && !s->nbd; i++)
		if (!strcasecmp(dot + 1, formats[i]))
			strcpy(s->format, formats[i]);
	s->assumed = !s->format[0];
	if (s->assumed)
		strcpy(s->format, "raw");
}

static int spec_check(struct blk_spec *s, struct err *e)
{
	static const char *const names[] = { "", "-read", "-write" };

	if (!s->path[0])
		return err_set(e, EINVAL, "a disk needs file=PATH or nbd=unix:PATH");
	if (!s->format[0])
		format_by_name(s);
	for (unsigned i = 0; i < 3; i++) {
		if ((!s->limits.iops[i].rate && (s->limits.iops[i].burst || s->limits.iops[i].once)) ||
		    (!s->limits.bps[i].rate && (s->limits.bps[i].burst || s->limits.bps[i].once)))
			return err_set(e, EINVAL, "a burst needs the limit it belongs to: iops%s= or bps%s=", names[i], names[i]);
	}
	if (s->on_read_error == BLK_ENOSPC)
		return err_set(e, EINVAL, "rerror=enospc: reading does not fill a disk; use report or stop");
	if (s->nbacking && strcmp(s->format, "qcow2"))
		return err_set(e, EINVAL, "format %s has no backing files", s->format);
	return 0;
}

int blk_spec_parse(struct blk_spec *s, const char *text, struct err *e)
{
	char piece[BLK_PATH + 32];
	int r = 0;

	*s = (struct blk_spec){ .discard = true };
	if (!*text)
		return err_set(e, EINVAL, "a disk needs a file");
	if (!strncmp(text, "nbd:", 4)) {
		r = set_nbd(s, text + 4, 0, e);
	} else if (!is_keyed(text)) {
		r = set_file(s, text, 0, e);
	} else {
		while (!r) {
			text = next_piece(text, piece, sizeof(piece));
			if (!text)
				r = err_set(e, ENAMETOOLONG, "part of a disk's description is longer than %u characters", BLK_PATH);
			else
				r = spec_set(s, piece, e);
			if (r || !*text)
				break;
			text++;
		}
	}
	if (!r)
		r = spec_check(s, e);
	if (r)
		blk_spec_dispose(s);
	return r;
}

void blk_spec_dispose(struct blk_spec *s)
{
	free(s->backing);
	s->backing = NULL;
	s->nbacking = 0;
}
