/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk image as input: the first byte chooses the format and what is done, the rest is the file, in memory. Opened as a
 * machine would and as `ospite image` does, then read, written, checked, mapped, repaired.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include "backend/import.h"
#include "backend/qcow2.h"

#define FILE_MAX (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct memory {
	struct node n;
	uint8_t *bytes;
	uint64_t have;
};

static int memory_sync(struct node *n, struct block_request *r)
{
	struct memory *m = container_of(n, struct memory, n);
	uint64_t part = r->offset < m->have ? MIN(r->length, m->have - r->offset) : 0;

	if (r->op == BLOCK_FLUSH)
		return 0;
	if (r->op == BLOCK_READ) {
		iov_from_buf(r->iov, r->iovcnt, 0, m->bytes + MIN(r->offset, m->have), part);
		iov_fill(r->iov, r->iovcnt, part, r->length - part, 0);
		return 0;
	}
	if (!range_fits(r->offset, r->length, FILE_MAX))
		return r->op == BLOCK_DISCARD ? 0 : -ENOSPC;
	if (r->offset + r->length > m->have) {
		m->bytes = realloc(m->bytes, r->offset + r->length);
		memset(m->bytes + m->have, 0, r->offset + r->length - m->have);
		m->have = r->offset + r->length;
	}
	if (r->op == BLOCK_WRITE)
		iov_to_buf(r->iov, r->iovcnt, 0, m->bytes + r->offset, r->length);
	else
		memset(m->bytes + r->offset, 0, r->length);
	return 0;
}

static void memory_submit(struct node *n, struct block_request *r)
{
	r->done(r, memory_sync(n, r));
}

static void memory_close(struct node *n)
{
}

static const struct node_ops memory_ops = { .name = "memory", .submit = memory_submit, .sync = memory_sync, .close = memory_close };

static void use(struct block *b, uint8_t what)
{
	static uint8_t buf[131072];
	struct image_details details;
	struct image_snapshot snapshot;
	struct block_extent x;
	struct block_info i;
	struct image_check c;

	block_get_info(b, &i);
	image_get_details(b, &details);
	for (unsigned k = 0; k < 4; k++) {
		uint64_t at = i.size / 3 * k / 512 * 512, n = at < i.size ? MIN(sizeof(buf), i.size - at) : 0;

		if (!n)
			continue;
		(void)block_sync(b, BLOCK_READ, at, buf, n);
		(void)block_map(b, at, n, &x);
		if (what & 4)
			(void)block_sync(b, BLOCK_WRITE, at, buf, MIN(n, 5120u));
		if (what & 8)
			(void)block_sync(b, k & 1 ? BLOCK_DISCARD : BLOCK_WRITE_ZEROES, at, NULL, n);
	}
	(void)image_snapshot_get(b, 0, &snapshot);
	if (what & 16)
		(void)image_check(b, what & 32, &c, NULL);
	if (what & 64 && image_snapshot_get(b, 0, &snapshot))
		(void)image_snapshot_apply(b, snapshot.id, NULL);
	(void)block_sync(b, BLOCK_FLUSH, 0, NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const formats[] = { "qcow2", "vmdk", "vdi", "vhdx" };
	struct blk_spec s = { .path = "fuzz", .discard = true, .no_backing = true, .table_cache = 1 << 20 };
	struct memory m = { .n = { .ops = &memory_ops, .align = 1, .grows = true, .path = (char *)"fuzz" } };
	struct err e = { 0 };
	struct node *top;
	struct block *b;
	int r;

	if (!size)
		return 0;
	strcpy(s.format, formats[data[0] & 3]);
	s.check_only = data[0] & 128;
	s.read_only = data[0] & 3;
	m.have = size - 1;
	m.bytes = malloc(m.have + 1);
	memcpy(m.bytes, data + 1, m.have);
	m.n.size = (m.have + 511) & ~511ull;
	m.n.aio = aio_create(false, &e);
	if (!m.n.aio)
		abort();
	r = data[0] & 3 ? import_open(&top, m.n.aio, &m.n, &s, &e) : qcow2_open(&top, m.n.aio, &m.n, &s, 0, &e);
	if (r) {
		if (!e.text[0])
			abort(); /* refused, and no reason given */
		aio_destroy(m.n.aio);
	} else if (!block_wrap(&b, m.n.aio, top, &s, &e)) {
		use(b, data[0]);
		block_close(b);
	}
	free(m.bytes);
	return 0;
}
