/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Refcounts, free clusters, and the order in which things reach the disk. All under slow.
 *
 * A refcount block is made when the first cluster of the range it covers is needed, and is that cluster. When the refcount
 * table is full it moves to the start of the first range it did not cover, behind that range's block.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/qcow2.h"

static uint64_t rb_get(const struct qcow2 *q, const uint8_t *block, uint64_t i)
{
	switch (q->refcount_order) {
	case 3:
		return block[i];
	case 4:
		return be16toh(((const uint16_t *)block)[i]);
	case 5:
		return be32toh(((const uint32_t *)block)[i]);
	case 6:
		return be64toh(((const uint64_t *)block)[i]);
	default: {
		unsigned bits_each = 1u << q->refcount_order, per = 8 / bits_each;

		return block[i / per] >> (i % per * bits_each) & ((1u << bits_each) - 1);
	}
	}
}

static void rb_set(const struct qcow2 *q, uint8_t *block, uint64_t i, uint64_t count)
{
	switch (q->refcount_order) {
	case 3:
		block[i] = (uint8_t)count;
		break;
	case 4:
		((uint16_t *)block)[i] = htobe16((uint16_t)count);
		break;
	case 5:
		((uint32_t *)block)[i] = htobe32((uint32_t)count);
		break;
	case 6:
		((uint64_t *)block)[i] = htobe64(count);
		break;
	default: {
		unsigned bits_each = 1u << q->refcount_order, per = 8 / bits_each;
		unsigned shift = (unsigned)(i % per) * bits_each, mask = ((1u << bits_each) - 1) << shift;

		block[i / per] = (uint8_t)((block[i / per] & ~mask) | ((unsigned)count << shift & mask));
		break;
	}
	}
}

/* NULL in out: there is no block, all its clusters are free. */
static int rb_find(struct qcow2 *q, uint64_t cluster, struct table **out)
{
	uint64_t i = cluster >> q->rb_bits, offset;

	*out = NULL;
	if (i >= q->rt_entries || !q->rt[i])
		return 0;
	offset = q->rt[i];
	if (offset & (q->cluster_size - 1) || offset & ~OFFSET_MASK)
		return -EIO;
	return qcow2_table(q, &q->refcounts, offset, false, out);
}

int refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
	struct table *t;
	int r = rb_find(q, cluster, &t);

	*count = !r && t ? rb_get(q, t->data, cluster & (BIT(q->rb_bits) - 1)) : 0;
	return r;
}

static int rt_grow(struct qcow2 *q, uint64_t index);

/* The block for the range of `cluster`, which has none: the range's first cluster. */
static int rb_make(struct qcow2 *q, uint64_t index)
{
	uint64_t cluster = index << q->rb_bits, offset = cluster << q->cluster_bits, entry;
	struct table *t;
	int r;

	if (index >= q->rt_entries)
		return rt_grow(q, index);
	r = qcow2_table(q, &q->refcounts, offset, true, &t);
	if (r)
		return r;
	rb_set(q, t->data, 0, 1);
	/* on disk before anything refers to it */
	r = node_write(q->file, offset, t->data, q->cluster_size);
	if (!r)
		r = node_flush(q->file);
	entry = htobe64(offset);
	if (!r)
		r = node_write(q->file, be64toh(header_of(q)->rt_offset) + index * 8, &entry, 8);
	if (r) {
		table_drop(q, &q->refcounts, offset);
		return r;
	}
	q->rt[index] = offset;
	q->high = MAX(q->high, cluster + 1);
	return 0;
}

/* Table and first block for the range `index`, both in it. */
static int rt_grow(struct qcow2 *q, uint64_t index)
{
	uint64_t old_offset = be64toh(header_of(q)->rt_offset), old = be32toh(header_of(q)->rt_clusters);
	uint64_t bytes = cluster_up(q, MAX(q->rt_entries * 12, (index + 1) * 8)), n = bytes >> q->cluster_bits;
	uint64_t first = index << q->rb_bits, at = (first + 1) << q->cluster_bits, *table, *disk;
	uint8_t *block;
	int r = 0;

	if (bytes > RT_MAX || n + 1 > BIT(q->rb_bits))
		return -EFBIG;
	table = calloc(1, bytes);
	disk = calloc(1, bytes);
	block = calloc(1, q->cluster_size);
	if (!table || !disk || !block) {
		r = -ENOMEM;
		goto out;
	}
	memcpy(table, q->rt, q->rt_entries * 8);
	table[index] = first << q->cluster_bits;
	for (uint64_t i = 0; i < bytes / 8; i++)
		disk[i] = htobe64(table[i]);
	for (uint64_t i = 0; i <= n; i++)
		rb_set(q, block, i, 1);
	r = node_write(q->file, first << q->cluster_bits, block, q->cluster_size);
	if (!r)
		r = node_write(q->file, at, disk, bytes);
	if (!r)
		r = node_flush(q->file);
	if (r)
		goto out;
	header_of(q)->rt_offset = htobe64(at);
	header_of(q)->rt_clusters = htobe32((uint32_t)n);
	r = header_write(q);
	if (r) {
		header_of(q)->rt_offset = htobe64(old_offset);
		header_of(q)->rt_clusters = htobe32((uint32_t)old);
		goto out;
	}
	free(q->rt);
	q->rt = table;
	table = NULL;
	q->rt_entries = bytes / 8;
	q->high = MAX(q->high, first + 1 + n);
	r = clusters_free_later(q, old_offset >> q->cluster_bits, old);
out:
	free(table);
	free(disk);
	free(block);
	return r;
}

int refcount_add(struct qcow2 *q, uint64_t cluster, uint64_t n, int add)
{
	uint64_t limit = q->refcount_order == 6 ? UINT64_MAX : BIT(1u << q->refcount_order) - 1;

	for (; n; n--, cluster++) {
		uint64_t i = cluster & (BIT(q->rb_bits) - 1), count;
		unsigned bytes = MAX(1u << q->refcount_order, 8u) / 8;
		struct table *t;
		int r = rb_find(q, cluster, &t);

		if (r || !t)
			return r ? r : -EIO;
		count = rb_get(q, t->data, i);
		if (add < 0 ? !count : count >= limit)
			return add < 0 ? -EIO : -EOVERFLOW;
		count += (uint64_t)(int64_t)add;
		rb_set(q, t->data, i, count);
		table_dirty(&q->refcounts, t, (i << q->refcount_order) / 8, bytes);
		if (!count)
			q->free_hint = MIN(q->free_hint, cluster);
	}
	return 0;
}

/* Is it free, making its refcount block if there is none? Making one takes the range's first cluster. */
static int cluster_is_free(struct qcow2 *q, uint64_t cluster, bool *is_free)
{
	uint64_t i = cluster >> q->rb_bits, count;
	int r = 0;

	if (i >= q->rt_entries || !q->rt[i])
		r = rb_make(q, i);
	if (!r)
		r = refcount_get(q, cluster, &count);
	*is_free = !r && !count;
	return r;
}

/* The first run of free clusters, `want` at most and `least` at least; takes it. */
static int clusters_find(struct qcow2 *q, uint64_t want, uint64_t least, uint64_t *cluster, uint64_t *got)
{
	uint64_t at = MAX(q->free_hint, 1u), run = 0;
	bool first_free = true;

	while (run < want) {
		bool is_free;
		int r;

		/* nothing is in use far behind the end, unless the refcounts are nonsense */
		if ((at << q->cluster_bits) > OFFSET_MASK || at > q->high + want + BIT(q->rb_bits))
			return -EFBIG;
		r = cluster_is_free(q, at, &is_free);
		if (r)
			return r;
		if (is_free && first_free) {
			q->free_hint = at;
			first_free = false;
		}
		if (is_free)
			run++;
		else if (run >= least)
			break;
		else
			run = 0;
		at++;
	}
	*cluster = at - run;
	*got = run;
	q->high = MAX(q->high, at);
	return refcount_add(q, *cluster, run, 1);
}

int clusters_alloc(struct qcow2 *q, uint64_t want, uint64_t *cluster, uint64_t *got)
{
	int r = qcow2_begin_write(q);

	if (!r)
		r = clusters_find(q, want, 1, cluster, got);
	if (!r && q->free_hint == *cluster)
		q->free_hint += *got;
	return r;
}

int clusters_alloc_all(struct qcow2 *q, uint64_t want, uint64_t *cluster)
{
	uint64_t got;
	int r = qcow2_begin_write(q);

	return r ? r : clusters_find(q, want, want, cluster, &got);
}

int clusters_free_later(struct qcow2 *q, uint64_t cluster, uint64_t n)
{
	if (q->nfrees) {
		struct range_free *last = &q->frees[q->nfrees - 1];

		if (last->cluster + last->count == cluster) {
			last->count += n;
			return 0;
		}
	}
	if (q->nfrees == q->frees_room) {
		unsigned room = q->frees_room ? q->frees_room * 2 : 64;
		struct range_free *more = realloc(q->frees, room * sizeof(*more));

		if (!more)
			return -ENOMEM; /* they leak */
		q->frees = more;
		q->frees_room = room;
	}
	q->frees[q->nfrees++] = (struct range_free){ cluster, n };
	return 0;
}

uint64_t entry_compressed(const struct qcow2 *q, uint64_t entry, uint64_t *bytes)
{
	unsigned shift = 62 - (q->cluster_bits - 8);
	uint64_t offset = entry & (BIT(shift) - 1);
	uint64_t sectors = (entry >> shift & (BIT(q->cluster_bits - 8) - 1)) + 1;

	*bytes = sectors * 512 - (offset & 511);
	return offset;
}

int entry_free_later(struct qcow2 *q, uint64_t entry)
{
	uint64_t bytes, offset;

	if (entry & L2_COMPRESSED) {
		uint64_t first, last;

		offset = entry_compressed(q, entry, &bytes);
		first = offset >> q->cluster_bits;
		last = (offset + bytes - 1) >> q->cluster_bits;
		return clusters_free_later(q, first, last - first + 1);
	}
	offset = entry & OFFSET_MASK;
	return offset ? clusters_free_later(q, offset >> q->cluster_bits, 1) : 0;
}

/* ---- the header */

int header_write(struct qcow2 *q)
{
	int r = node_write(q->file, 0, q->head, q->head_len);

	return r ? r : node_flush(q->file);
}

int qcow2_set_dirty(struct qcow2 *q, bool on)
{
	struct qcow2_header *h = header_of(q);
	uint64_t old = h->incompatible;
	int r;

	if (q->v2 || q->dirty == on)
		return 0;
	h->incompatible = on ? old | htobe64(INCOMPAT_DIRTY) : old & ~htobe64(INCOMPAT_DIRTY);
	r = header_write(q);
	if (r)
		h->incompatible = old;
	else
		q->dirty = on;
	return r;
}

int qcow2_begin_write(struct qcow2 *q)
{
	struct qcow2_header *h = header_of(q);
	int r = 0;

	if (q->written)
		return 0;
	if (!q->v2 && h->autoclear) {
		h->autoclear = 0; /* we do not keep up what these bits vouch for */
		r = header_write(q);
	}
	if (!r && q->lazy)
		r = qcow2_set_dirty(q, true);
	q->written = !r;
	return r;
}

/* ---- the order */

void qcow2_quiesce(struct qcow2 *q)
{
	unsigned old;

	pthread_mutex_lock(&q->map);
	old = q->epoch & 1;
	q->epoch++;
	while (q->underway[old])
		pthread_cond_wait(&q->quiet, &q->map);
	pthread_mutex_unlock(&q->map);
}

/* The dirty parts of L1, which is in memory in host order. */
static int l1_write(struct qcow2 *q)
{
	uint64_t base = be64toh(header_of(q)->l1_offset), buf[64];
	uint64_t parts = (q->l1_size + 63) / 64;

	for (uint64_t p = 0; q->any_l1_dirty && p < parts; p++) {
		uint64_t n = MIN(64u, q->l1_size - p * 64);
		int r;

		if (!q->l1_dirty[p])
			continue;
		for (uint64_t i = 0; i < n; i++)
			buf[i] = htobe64(q->l1[p * 64 + i]);
		r = node_write(q->file, base + p * 512, buf, n * 8);
		if (r)
			return r;
		q->l1_dirty[p] = 0;
	}
	q->any_l1_dirty = false;
	return 0;
}

/* What nothing on disk refers to any more becomes free, and its space goes back to the host. */
static int frees_apply(struct qcow2 *q)
{
	struct range_free *list = q->frees;
	unsigned n = q->nfrees;
	int r = 0;

	if (!n)
		return 0;
	/* taken away first: making room for refcounts may commit again */
	q->frees = NULL;
	q->nfrees = q->frees_room = 0;
	q->packed = q->plain_entry = 0;
	qcow2_quiesce(q);
	for (unsigned i = 0; i < n; i++) {
		struct range_free *f = &list[i];
		uint64_t run = 0;

		for (uint64_t c = f->cluster; c < f->cluster + f->count; c++) {
			uint64_t count = 1;
			int e = refcount_add(q, c, 1, -1);

			if (!e)
				e = refcount_get(q, c, &count);
			r = r ? r : e;
			if (!e && !count) {
				table_drop(q, &q->l2, c << q->cluster_bits);
				run++;
				continue;
			}
			if (run && q->n.discard_granularity)
				(void)node_op(q->file, BLOCK_DISCARD, (c - run) << q->cluster_bits, run << q->cluster_bits, true);
			run = 0;
		}
		if (run && q->n.discard_granularity)
			(void)node_op(q->file, BLOCK_DISCARD, (f->cluster + f->count - run) << q->cluster_bits,
				      run << q->cluster_bits, true);
	}
	free(list);
	return r;
}

int qcow2_commit(struct qcow2 *q)
{
	bool changes = q->any_l1_dirty || q->l2.ndirty;
	int r = 0;

	if (!q->lazy || q->all_rc || q->refcounts.ndirty >= q->refcounts.n)
		r = tables_write(q, &q->refcounts, false);
	if (!r)
		r = tables_write(q, &q->l2, true);
	if (!r)
		r = node_flush(q->file);
	if (r || !(changes || q->nfrees))
		return r;
	r = tables_write(q, &q->l2, false);
	if (!r)
		r = l1_write(q);
	if (!r)
		r = node_flush(q->file);
	if (r)
		return r;
	for (unsigned i = 0; i < q->l2.n; i++)
		q->l2.all[i].fresh = false;
	return frees_apply(q);
}
