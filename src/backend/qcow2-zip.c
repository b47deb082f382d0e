/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed clusters: raw deflate with a window of 4 KiB, or a zstd frame. Written one behind another, several to a
 * cluster of the file, whose refcount counts them; never across two.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include "backend/qcow2.h"

static int inflate_cluster(uint8_t *out, size_t size, const uint8_t *in, size_t len)
{
	z_stream z = { .next_in = (uint8_t *)in, .avail_in = (uInt)len, .next_out = out, .avail_out = (uInt)size };
	int r;

	if (inflateInit2(&z, -12) != Z_OK)
		return -ENOMEM;
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* the end of the input is only known to the sector; what counts is a cluster of output */
	return (r == Z_STREAM_END || r == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int unzstd_cluster(uint8_t *out, size_t size, const uint8_t *in, size_t len)
{
	ZSTD_DStream *z = ZSTD_createDStream();
	ZSTD_outBuffer o = { out, size, 0 };
	ZSTD_inBuffer i = { in, len, 0 };
	size_t r = 1;

	if (!z)
		return -ENOMEM;
	while (o.pos < o.size && i.pos < i.size && r) {
		r = ZSTD_decompressStream(z, &o, &i);
		if (ZSTD_isError(r))
			break;
	}
	ZSTD_freeDStream(z);
	return o.pos == o.size ? 0 : -EIO;
}

int zip_read(struct qcow2 *q, uint64_t entry, uint8_t **plain)
{
	uint64_t bytes, offset = entry_compressed(q, entry, &bytes);
	uint8_t *in;
	int e;

	*plain = q->plain;
	if (q->plain && q->plain_entry == entry)
		return 0;
	if (!q->plain)
		*plain = q->plain = malloc(q->cluster_size);
	in = q->plain ? malloc(bytes) : NULL;
	if (!in)
		return -ENOMEM;
	q->plain_entry = 0;
	e = node_read(q->file, offset, in, bytes);
	if (!e)
		e = q->zstd_type ? unzstd_cluster(q->plain, q->cluster_size, in, bytes) :
				   inflate_cluster(q->plain, q->cluster_size, in, bytes);
	free(in);
	if (!e)
		q->plain_entry = entry;
	return e;
}

/* Less than a cluster of output in out; its length, or 0 when it does not get smaller. */
static size_t compress_cluster(struct qcow2 *q, uint8_t *out, const uint8_t *in)
{
	size_t room = q->cluster_size - 1, n = 0;
	z_stream z = { .next_in = (uint8_t *)in, .avail_in = (uInt)q->cluster_size, .next_out = out, .avail_out = (uInt)room };

	if (q->zstd_type) {
		n = ZSTD_compress(out, room, in, q->cluster_size, 3);
		return ZSTD_isError(n) ? 0 : n;
	}
	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	if (deflate(&z, Z_FINISH) == Z_STREAM_END)
		n = room - z.avail_out;
	deflateEnd(&z);
	return n;
}

/* `size` bytes within one cluster. */
static int packed_alloc(struct qcow2 *q, uint64_t size, uint64_t *offset)
{
	uint64_t within = q->packed & (q->cluster_size - 1), cluster, got;
	int e;

	if (q->packed && size <= q->cluster_size - within) {
		*offset = q->packed;
		e = refcount_add(q, q->packed >> q->cluster_bits, 1, 1);
	} else {
		e = clusters_alloc(q, 1, &cluster, &got);
		*offset = cluster << q->cluster_bits;
	}
	if (e)
		return e;
	q->packed = *offset + size;
	if (!(q->packed & (q->cluster_size - 1)))
		q->packed = 0;
	return 0;
}

int zip_write(struct qcow2 *q, uint64_t offset, const void *plain)
{
	struct iovec iov = { (void *)plain, MIN(q->cluster_size, q->n.size - offset) };
	uint8_t *out = malloc(q->cluster_size);
	uint64_t at, old, sectors;
	struct table *t;
	size_t n;
	int e;

	if (!out)
		return -ENOMEM;
	n = compress_cluster(q, out, plain);
	if (!n) {
		free(out);
		return qcow2_write_slow(q, offset, iov.iov_len, &iov, 1);
	}
	e = packed_alloc(q, n, &at);
	if (!e)
		e = node_write(q->file, at, out, n);
	if (!e)
		e = l2_load(q, offset);
	if (!e)
		e = l2_writable(q, offset, &t);
	free(out);
	if (e)
		return e;
	(void)l2_entry(q, offset, &old);
	sectors = ((at + n - 1) >> 9) - (at >> 9);
	q->plain_entry = 0;
	l2_set(q, t, offset, at | sectors << (62 - (q->cluster_bits - 8)) | L2_COMPRESSED);
	return entry_free_later(q, old);
}
