/* SPDX-License-Identifier: Apache-2.0 */
/* From guest offsets to table entries and back: L1, L2, making tables writable, and asking what is where. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/qcow2.h"

static uint64_t l1_index(const struct qcow2 *q, uint64_t guest)
{
	return guest >> (q->cluster_bits + q->l2_bits);
}

static uint64_t l2_index(const struct qcow2 *q, uint64_t guest)
{
	return guest >> q->cluster_bits & (BIT(q->l2_bits) - 1);
}

bool l2_entry(struct qcow2 *q, uint64_t guest, uint64_t *entry)
{
	uint64_t i = l1_index(q, guest), offset = i < q->l1_size ? q->l1[i] & OFFSET_MASK : 0;
	struct table *t;

	if (!offset) {
		*entry = 0;
		return true;
	}
	t = tables_find(&q->l2, offset);
	if (!t)
		return false;
	*entry = be64toh(((const uint64_t *)t->data)[l2_index(q, guest)]);
	return true;
}

/* An entry no correct image has. Offsets are bounded by OFFSET_MASK. */
bool entry_is_bad(const struct qcow2 *q, uint64_t entry)
{
	if (entry & L2_COMPRESSED)
		return entry & L2_COPIED || !(entry & (BIT(62 - (q->cluster_bits - 8)) - 1));
	if (q->v2 && entry & L2_ZERO)
		return true;
	return (entry & OFFSET_MASK & (q->cluster_size - 1)) || entry & ~(OFFSET_MASK | L2_COPIED | L2_ZERO);
}

static int l1_check(const struct qcow2 *q, uint64_t entry)
{
	return entry & OFFSET_MASK & (q->cluster_size - 1) || entry & ~(OFFSET_MASK | L2_COPIED) ? -EIO : 0;
}

int l2_load(struct qcow2 *q, uint64_t guest)
{
	uint64_t i = l1_index(q, guest);
	struct table *t;
	int r;

	if (i >= q->l1_size || !(q->l1[i] & OFFSET_MASK))
		return 0;
	r = l1_check(q, q->l1[i]);
	return r ? r : qcow2_table(q, &q->l2, q->l1[i] & OFFSET_MASK, false, &t);
}

static void l1_set(struct qcow2 *q, uint64_t i, uint64_t entry)
{
	pthread_mutex_lock(&q->map);
	q->l1[i] = entry;
	q->l1_dirty[i / 64] = 1;
	q->any_l1_dirty = true;
	pthread_mutex_unlock(&q->map);
}

/* A new table in place of none, or of one shared with a snapshot. */
static int l2_make(struct qcow2 *q, uint64_t i, struct table **out)
{
	uint64_t old = q->l1[i], cluster, got;
	struct table *from, *t;
	int r = clusters_alloc(q, 1, &cluster, &got);

	if (r)
		return r;
	r = qcow2_table(q, &q->l2, cluster << q->cluster_bits, true, &t);
	if (!r && old & OFFSET_MASK) {
		t->fresh = true; /* so that it stays */
		r = qcow2_table(q, &q->l2, old & OFFSET_MASK, false, &from);
		if (!r) {
			pthread_mutex_lock(&q->map);
			memcpy(t->data, from->data, q->cluster_size);
			pthread_mutex_unlock(&q->map);
		}
	}
	/* now, not at the next flush, so that a full disk is noticed by the write and not by what was written before */
	if (!r)
		r = node_write(q->file, cluster << q->cluster_bits, t->data, q->cluster_size);
	if (!r && old & OFFSET_MASK)
		r = clusters_free_later(q, (old & OFFSET_MASK) >> q->cluster_bits, 1);
	if (r) {
		table_drop(q, &q->l2, cluster << q->cluster_bits);
		(void)refcount_add(q, cluster, 1, -1);
		return r;
	}
	t->fresh = true;
	table_dirty(&q->l2, t, 0, q->cluster_size);
	l1_set(q, i, cluster << q->cluster_bits | L2_COPIED);
	*out = t;
	return 0;
}

int l2_writable(struct qcow2 *q, uint64_t guest, struct table **out)
{
	uint64_t i = l1_index(q, guest);
	int r;

	if (i >= q->l1_size)
		return -EIO;
	r = l1_check(q, q->l1[i]);
	if (!r)
		r = qcow2_begin_write(q);
	if (r)
		return r;
	if (q->l1[i] & L2_COPIED && q->l1[i] & OFFSET_MASK)
		return qcow2_table(q, &q->l2, q->l1[i] & OFFSET_MASK, false, out);
	return l2_make(q, i, out);
}

void l2_set(struct qcow2 *q, struct table *t, uint64_t guest, uint64_t entry)
{
	uint64_t i = l2_index(q, guest);

	pthread_mutex_lock(&q->map);
	((uint64_t *)t->data)[i] = htobe64(entry);
	table_dirty(&q->l2, t, i * 8, 8);
	pthread_mutex_unlock(&q->map);
}

/*
 * Another L1 table, in new clusters, with another disk size: one sector of the header switches. `content` may be the old
 * one's.
 */
int l1_switch(struct qcow2 *q, const uint64_t *content, uint64_t n, uint64_t new_size, uint64_t disk_size)
{
	struct qcow2_header *h = header_of(q), before = *h;
	uint64_t bytes = cluster_up(q, MAX(new_size, 1u) * 8), cluster, old = q->l1_size;
	uint64_t *l1, *disk;
	uint8_t *dirty;
	int r;

	if (bytes > L1_MAX)
		return -EFBIG;
	l1 = calloc(1, bytes);
	disk = calloc(1, bytes);
	dirty = calloc(1, bytes / 512 + 1);
	r = l1 && disk && dirty ? qcow2_commit(q) : -ENOMEM;
	if (!r)
		r = clusters_alloc_all(q, bytes >> q->cluster_bits, &cluster);
	if (r)
		goto out;
	for (uint64_t i = 0; i < n; i++)
		disk[i] = htobe64(l1[i] = content[i]);
	r = node_write(q->file, cluster << q->cluster_bits, disk, bytes);
	if (!r)
		r = qcow2_commit(q);
	h->l1_offset = htobe64(cluster << q->cluster_bits);
	h->l1_size = htobe32((uint32_t)new_size);
	h->size = htobe64(disk_size);
	if (!r)
		r = header_write(q);
	if (r) {
		*h = before;
		goto out;
	}
	pthread_mutex_lock(&q->map);
	free(q->l1);
	free(q->l1_dirty);
	q->l1 = l1;
	q->l1_dirty = dirty;
	q->l1_size = new_size;
	q->n.size = disk_size;
	l1 = NULL;
	dirty = NULL;
	pthread_mutex_unlock(&q->map);
	if (be64toh(before.l1_offset))
		r = clusters_free_later(q, be64toh(before.l1_offset) >> q->cluster_bits,
					cluster_up(q, MAX(old, 1u) * 8) >> q->cluster_bits);
out:
	free(l1);
	free(disk);
	free(dirty);
	return r;
}

/* ---- what is where */

static void extent_of(const struct qcow2 *q, uint64_t entry, uint64_t at, struct block_extent *x)
{
	uint64_t within = at & (q->cluster_size - 1);

	*x = (struct block_extent){ .length = q->cluster_size - within };
	if (entry & L2_COMPRESSED) {
		x->allocated = x->compressed = true;
	} else if (entry & L2_ZERO) {
		x->allocated = x->zero = true;
	} else if (entry & OFFSET_MASK) {
		x->allocated = x->has_host = true;
		x->host = (entry & OFFSET_MASK) + within;
	}
}

static bool extent_continues(const struct block_extent *x, const struct block_extent *y)
{
	return x->allocated == y->allocated && x->zero == y->zero && x->compressed == y->compressed &&
	       x->has_host == y->has_host && (!x->has_host || x->host + x->length == y->host);
}

static int map_backing(struct qcow2 *q, uint64_t offset, struct block_extent *out)
{
	struct node *b = q->backing;
	uint64_t left = b && offset < b->size ? b->size - offset : 0;
	int r;

	if (!left) {
		out->zero = true;
		return 0;
	}
	left = MIN(left, out->length);
	if (!b->ops->map) {
		*out = (struct block_extent){ .length = left, .allocated = true, .depth = 1 };
		return 0;
	}
	r = b->ops->map(b, offset, left, out);
	out->depth++;
	return r;
}

int qcow2_map(struct node *n, uint64_t offset, uint64_t length, struct block_extent *out)
{
	struct qcow2 *q = qcow2_of(n);
	uint64_t end = offset + length, at = offset;
	int r = 0;

	*out = (struct block_extent){ 0 };
	pthread_mutex_lock(&q->slow);
	while (!r && at < end) {
		struct block_extent x;
		uint64_t entry;

		r = l2_load(q, at);
		if (r || !l2_entry(q, at, &entry))
			break;
		extent_of(q, entry, at, &x);
		x.length = MIN(x.length, end - at);
		if (at != offset && !extent_continues(out, &x))
			break;
		x.length += out->length;
		if (at == offset)
			*out = x;
		else
			out->length = x.length;
		at = offset + out->length;
	}
	if (!r && !out->allocated)
		r = map_backing(q, offset, out);
	pthread_mutex_unlock(&q->slow);
	return r;
}
