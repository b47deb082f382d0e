/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LZ4 payloads block by block. 53 MiB of kernel are never in memory at once: what the loader looks at (the ELF header, its notes) is
 * unpacked in its place, everything else by boot-load.c on its way into the guest's memory.
 */
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include "board/boot-source.h"

#define LZ4_LEGACY_MAGIC 0x184c2102u
#define HEAD (64u << 10)

static uint32_t block_size(const struct lz4_frame *f, unsigned n, uint64_t out_size)
{
	return (uint32_t)MIN(LZ4_BLOCK, out_size - (uint64_t)n * LZ4_BLOCK);
}

/* The frame at `at` of f->packed. */
static int lz4_list(struct lz4_frame *f, uint64_t at, uint64_t size, uint64_t out_size, struct err *e)
{
	uint64_t want = (out_size + LZ4_BLOCK - 1) / LZ4_BLOCK, end = at + size;
	const uint8_t *data = f->packed->data;

	if (want > LZ4_BLOCKS)
		return -EINVAL;
	at += 4;
	while (f->blocks < want) {
		uint32_t packed;
		int r;

		if (!range_fits(at, 4, end))
			return -EINVAL;
		r = boot_bytes_need(f->packed, at, 4, e);
		if (r)
			return r;
		packed = get32(data + at);
		at += 4;
		if (packed == LZ4_LEGACY_MAGIC)
			return 1; /* another frame follows, whose place in the output nobody tells */
		if (!packed || packed > (uint32_t)LZ4_compressBound(LZ4_BLOCK) || !range_fits(at, packed, end))
			return -EINVAL;
		f->block[f->blocks].at = at;
		f->block[f->blocks++].packed = packed;
		at += packed;
	}
	return 0;
}

static int corrupt(struct err *e)
{
	return err_set(e, EINVAL, "has a corrupt LZ4 payload; fetch or build it again");
}

int lz4_open(struct boot_bytes *out, struct boot_bytes *packed, uint64_t payload, uint64_t payload_size, struct err *e)
{
	struct boot_source *s;
	int r = payload_size < 8 ? 1 : boot_bytes_need(packed, payload, 4, e);

	if (r || get32(packed->data + payload) != LZ4_LEGACY_MAGIC)
		return r ? r : 1;
	s = calloc(1, sizeof(*s));
	if (s)
		s->frame = calloc(1, sizeof(*s->frame));
	if (!s || !s->frame) {
		free(s);
		return err_set(e, ENOMEM, "out of memory");
	}
	s->fd = -1;
	s->frame->packed = packed;
	r = lz4_list(s->frame, payload, payload_size, out->size, e);
	if (!r) {
		out->source = s;
		return 0;
	}
	free(s->frame);
	free(s);
	return r == -EINVAL ? corrupt(e) : r;
}

int lz4_unpack(struct boot_bytes *packed, uint8_t *out, uint64_t out_size)
{
	struct lz4_frame f = { .packed = packed };
	int r = lz4_list(&f, 0, packed->size, out_size, NULL);

	for (unsigned i = 0; i < f.blocks && !r; i++) {
		int want = (int)block_size(&f, i, out_size);

		if (LZ4_decompress_safe((const char *)packed->data + f.block[i].at, (char *)out + (uint64_t)i * LZ4_BLOCK,
					(int)f.block[i].packed, want) != want)
			r = -EINVAL;
	}
	return r;
}

/* The block's first `want` bytes in their place, out of its first `packed` ones. */
static int block_begin(struct boot_bytes *b, unsigned n, uint32_t want, uint32_t packed, struct err *e)
{
	struct lz4_frame *f = b->source->frame;
	uint32_t all = block_size(f, n, b->size);
	int got, r = boot_bytes_need(f->packed, f->block[n].at, packed, e);

	if (r)
		return r;
	boot_bytes_populate(b->data + (uint64_t)n * LZ4_BLOCK, want);
	got = LZ4_decompress_safe_partial((const char *)f->packed->data + f->block[n].at, (char *)b->data + (uint64_t)n * LZ4_BLOCK,
					  (int)packed, (int)want, (int)all);
	if (got < (int)want)
		return -EINVAL;
	f->block[n].there = MAX(f->block[n].there, want);
	return 0;
}

int lz4_need(struct boot_bytes *b, uint64_t at, uint64_t len, struct err *e)
{
	struct lz4_frame *f = b->source->frame;

	for (uint64_t end = at + len; at < end;) {
		unsigned n = (unsigned)(at / LZ4_BLOCK);
		uint64_t start = (uint64_t)n * LZ4_BLOCK;
		uint32_t want = (uint32_t)MIN(end - start, block_size(f, n, b->size));
		uint32_t packed = f->block[n].packed, head = MIN(packed, want / 2 + HEAD);
		int r = f->block[n].there < want ? block_begin(b, n, want, head, e) : 0;

		if (r == -EINVAL && head < packed) /* it is packed less well than that */
			r = block_begin(b, n, want, packed, e);
		if (r)
			return r == -EINVAL ? corrupt(e) : r;
		at = start + LZ4_BLOCK;
	}
	return 0;
}

void lz4_drop(struct lz4_frame *f)
{
	for (unsigned i = 0; i < f->blocks; i++)
		f->block[i].there = 0;
}

/* ---- pieces */

#define FILE_PIECE (1u << 20)

bool boot_piece(const struct boot_bytes *b, unsigned n, uint64_t *at, uint64_t *len)
{
	uint64_t size = b->source->frame ? LZ4_BLOCK : FILE_PIECE;

	*at = n * size;
	if (*at >= b->size)
		return false;
	*len = MIN(size, b->size - *at);
	return true;
}

/* As it is in the file, or in memory already. */
static int stored(struct boot_bytes *b, uint64_t at, uint64_t len, struct boot_bytes *room, uint64_t most, const uint8_t **data,
		  struct err *e)
{
	int r = 0;

	*data = b->data + at;
	if (!b->source || range_fits(at, len, b->source->have))
		return 0;
	if (!room->data) {
		r = boot_bytes_alloc(room, most, e);
		boot_bytes_populate(room->data, r ? 0 : len); /* the others are of much the same size */
	}
	*data = room->data;
	return r ? r : boot_file_read(b->source, room->data, at, len, e);
}

int boot_piece_get(const struct boot_bytes *b, unsigned n, struct boot_scratch *s, const uint8_t **data, struct err *e)
{
	struct lz4_frame *f = b->source->frame;
	uint64_t at, len;
	const uint8_t *packed;
	int r;

	if (!boot_piece(b, n, &at, &len))
		return err_set(e, EINVAL, "has no such piece");
	if (!f)
		return stored((struct boot_bytes *)b, at, len, &s->out, LZ4_BLOCK, data, e);
	*data = b->data + at;
	if (f->block[n].there == len)
		return 0;
	r = stored(f->packed, f->block[n].at, f->block[n].packed, &s->in, (uint64_t)LZ4_compressBound(LZ4_BLOCK), &packed, e);
	if (!r && !s->out.data) {
		r = boot_bytes_alloc(&s->out, LZ4_BLOCK, e);
		boot_bytes_populate(s->out.data, r ? 0 : LZ4_BLOCK);
	}
	*data = s->out.data;
	if (!r && LZ4_decompress_safe((const char *)packed, (char *)s->out.data, (int)f->block[n].packed, (int)len) != (int)len)
		r = corrupt(e);
	return r;
}
