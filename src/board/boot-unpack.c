/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacking what a bzImage holds. The output size is known beforehand (the build appends it) and bounded by
 * the caller, so a hostile stream can at most fill the buffer; anything that does not come out at exactly
 * that size is refused.
 */
#include <errno.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include "board/boot-source.h"

#define XZ_MEMORY (256ull << 20) /* dictionary: the kernel's own limit is 128 MiB */

static int unpack_lz4(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t out_size)
{
	struct boot_bytes packed = { .data = (uint8_t *)data, .size = size };

	return lz4_unpack(&packed, out, out_size);
}

static int unpack_gzip(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t out_size)
{
	z_stream z = { .next_in = (Bytef *)data, .avail_in = (uInt)size,
		       .next_out = out, .avail_out = (uInt)out_size };
	int r;

	if (inflateInit2(&z, 15 + 16) != Z_OK)
		return -ENOMEM;
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return r == Z_STREAM_END && z.total_out == out_size ? 0 : -EINVAL;
}

static int unpack_xz(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t out_size)
{
	uint64_t memory = XZ_MEMORY;
	size_t in_pos = 0, out_pos = 0;
	lzma_ret r = lzma_stream_buffer_decode(&memory, 0, NULL, data, &in_pos, size, out, &out_pos,
					       out_size);

	return r == LZMA_OK && out_pos == out_size ? 0 : -EINVAL;
}

static int unpack_zstd(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t out_size)
{
	/* What follows the frame (the size) is not part of it and would be taken for a second one. */
	size_t frame = ZSTD_findFrameCompressedSize(data, size);
	size_t n;

	if (ZSTD_isError(frame))
		return -EINVAL;
	n = ZSTD_decompress(out, out_size, data, frame);
	return !ZSTD_isError(n) && n == out_size ? 0 : -EINVAL;
}

static const struct unpacker {
	const char *kind;
	uint8_t magic[6];
	unsigned len;
	/* 0, -errno, or 1: let the kernel do it */
	int (*unpack)(const uint8_t *data, uint64_t size, uint8_t *out, uint64_t out_size);
} unpackers[] = {
	{ "LZ4", { 0x02, 0x21, 0x4c, 0x18 }, 4, unpack_lz4 },
	{ "gzip", { 0x1f, 0x8b }, 2, unpack_gzip },
	{ "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, unpack_xz },
	{ "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4, unpack_zstd },
};

int boot_unpack(const uint8_t *data, uint64_t size, struct boot_bytes *out, const char **kind,
		struct err *e)
{
	for (unsigned i = 0; i < ARRAY_LEN(unpackers); i++) {
		const struct unpacker *u = &unpackers[i];
		int r;

		if (size < u->len || memcmp(data, u->magic, u->len))
			continue;
		*kind = u->kind;
		if (size > UINT32_MAX || out->size > UINT32_MAX)
			return err_set(e, EFBIG, "has a payload over 4 GiB");
		r = u->unpack(data, size, out->data, out->size);
		return r < 0 ? err_set(e, EINVAL, "has a corrupt %s payload; fetch or build it again", u->kind) : r;
	}
	return 1;
}
