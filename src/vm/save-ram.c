/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Section RAM: a header with the size, then chunks { ram_offset, raw bytes, stored bytes, data }. A chunk is a run of at most
 * CHUNK bytes of pages that are not all zero. Compression level 1: saving should run at memory speed, about.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include "base/err.h"
#include "vm/save-ram.h"

#define CHUNK (1u << 20)
#define LEVEL 1

struct ram_header {
	uint64_t size;
};
struct chunk_header {
	uint64_t ram_offset;
	uint32_t raw, stored; /* stored == raw: not compressed */
};

static bool page_is_zero(const uint8_t *p)
{
	const uint64_t *q = (const uint64_t *)p;

	for (unsigned i = 0; i < GUEST_PAGE / 8; i += 8)
		if (q[i] | q[i + 1] | q[i + 2] | q[i + 3] | q[i + 4] | q[i + 5] | q[i + 6] | q[i + 7])
			return false;
	return true;
}

static int write_chunk(struct state_writer *w, const uint8_t *ram, uint64_t at, uint32_t len, uint8_t *out,
		       ZSTD_CCtx *z, struct err *e)
{
	size_t n = ZSTD_compressCCtx(z, out, ZSTD_compressBound(CHUNK), ram + at, len, LEVEL);
	struct chunk_header h = { .ram_offset = at, .raw = len, .stored = len };
	const void *data = ram + at;
	int r;

	if (!ZSTD_isError(n) && n < len) {
		h.stored = (uint32_t)n;
		data = out;
	}
	r = state_writer_add(w, &h, sizeof(h), e);
	return r ? r : state_writer_add(w, data, h.stored, e);
}

int save_ram_write(struct mem *m, struct state_writer *w, struct err *e)
{
	const uint8_t *ram = mem_ram_base(m);
	struct ram_header h = { .size = mem_ram_size(m) };
	uint8_t *out _free_ = malloc(ZSTD_compressBound(CHUNK));
	ZSTD_CCtx *z = ZSTD_createCCtx();
	int r;

	if (!out || !z) {
		r = err_set(e, ENOMEM, "no memory to save guest memory");
		goto out;
	}
	r = state_writer_begin(w, "RAM", e);
	if (!r)
		r = state_writer_add(w, &h, sizeof(h), e);
	for (uint64_t at = 0; !r && at < h.size;) {
		uint64_t end;

		if (page_is_zero(ram + at)) {
			at += GUEST_PAGE;
			continue;
		}
		for (end = at + GUEST_PAGE; end < h.size && end - at < CHUNK && !page_is_zero(ram + end);)
			end += GUEST_PAGE;
		r = write_chunk(w, ram, at, (uint32_t)(end - at), out, z, e);
		at = end;
	}
	if (!r)
		r = state_writer_end(w, e);
out:
	ZSTD_freeCCtx(z);
	return r;
}

static int read_chunk(struct state_reader *r, uint64_t at, const struct chunk_header *h, uint8_t *ram, uint8_t *in,
		      ZSTD_DCtx *z, struct err *e)
{
	int rc;

	if (h->stored == h->raw)
		return state_reader_get(r, at, ram + h->ram_offset, h->raw, e);
	rc = state_reader_get(r, at, in, h->stored, e);
	if (rc)
		return rc;
	if (ZSTD_decompressDCtx(z, ram + h->ram_offset, h->raw, in, h->stored) != h->raw)
		return err_set(e, EINVAL, "guest memory at 0x%llx cannot be unpacked", (unsigned long long)h->ram_offset);
	return 0;
}

static int read_chunks(struct state_reader *r, uint64_t length, uint8_t *ram, uint64_t size, uint8_t *in,
		       ZSTD_DCtx *z, struct err *e)
{
	for (uint64_t at = sizeof(struct ram_header); at < length;) {
		struct chunk_header h;
		int rc = state_reader_get(r, at, &h, sizeof(h), e);

		if (rc)
			return rc;
		at += sizeof(h);
		if (!h.raw || h.raw > CHUNK || h.stored > h.raw || h.ram_offset % GUEST_PAGE || h.raw % GUEST_PAGE ||
		    !range_fits(h.ram_offset, h.raw, size) || !range_fits(at, h.stored, length))
			return err_set(e, EINVAL, "a piece of guest memory has impossible bounds");
		rc = read_chunk(r, at, &h, ram, in, z, e);
		if (rc)
			return rc;
		at += h.stored;
	}
	return 0;
}

int save_ram_read(struct mem *m, struct state_reader *r, struct err *e)
{
	uint8_t *in _free_ = malloc(CHUNK);
	ZSTD_DCtx *z = ZSTD_createDCtx();
	struct ram_header h;
	uint64_t length;
	int rc;

	if (!in || !z) {
		rc = err_set(e, ENOMEM, "no memory to load guest memory");
		goto out;
	}
	rc = state_reader_find(r, "RAM", &length, e);
	if (!rc)
		rc = state_reader_get(r, 0, &h, sizeof(h), e);
	if (!rc && h.size != mem_ram_size(m))
		rc = err_set(e, EINVAL, "saved with %llu bytes of memory, this machine has %llu",
			     (unsigned long long)h.size, (unsigned long long)mem_ram_size(m));
	if (!rc)
		rc = read_chunks(r, length, mem_ram_base(m), h.size, in, z, e);
out:
	ZSTD_freeDCtx(z);
	return rc;
}
