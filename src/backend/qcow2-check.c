/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Count what refers to every cluster and compare with what the refcounts say. Repair: entries that lead nowhere become zeroes,
 * and all refcounts are written anew, behind the end of the file; one sector of the header switches to them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/qcow2.h"

#define CLUSTERS_MAX (1ull << 32)

struct check {
	struct qcow2 *q;
	struct image_check *out;
	uint32_t *count;
	uint64_t n;
	bool fix; /* entries that are bad are put right while walking */
	uint64_t *table; /* a cluster */
};

/* False: it lies outside the file. */
static bool count_range(struct check *c, uint64_t offset, uint64_t bytes)
{
	uint64_t first = offset >> c->q->cluster_bits, last = bytes ? (offset + bytes - 1) >> c->q->cluster_bits : first;

	if (!bytes)
		return true;
	if (last >= c->n || bytes > OFFSET_MASK)
		return false;
	for (; first <= last; first++)
		if (c->count[first] < UINT32_MAX)
			c->count[first]++;
	return true;
}

/* The entry as it should be. */
static uint64_t check_entry(struct check *c, uint64_t entry, bool active)
{
	struct qcow2 *q = c->q;
	uint64_t bytes = q->cluster_size, offset = entry & OFFSET_MASK;

	if (!entry)
		return 0;
	if (entry & L2_COMPRESSED)
		offset = entry_compressed(q, entry, &bytes);
	if (entry_is_bad(q, entry) || (offset && !count_range(c, offset, bytes))) {
		c->out->corruptions++;
		return q->v2 ? 0 : L2_ZERO;
	}
	if (active) {
		c->out->allocated += offset != 0;
		c->out->compressed += (entry & L2_COMPRESSED) != 0;
	}
	return entry;
}

static int check_l2(struct check *c, uint64_t offset, bool active)
{
	struct qcow2 *q = c->q;
	bool changed = false;
	int r = node_read(q->file, offset, c->table, q->cluster_size);

	if (r) {
		c->out->errors++;
		return 0;
	}
	for (uint64_t i = 0; i < BIT(q->l2_bits); i++) {
		uint64_t entry = be64toh(c->table[i]), want = check_entry(c, entry, active);

		if (entry != want && c->fix) {
			c->table[i] = htobe64(want);
			changed = true;
			c->out->corruptions_fixed++;
		}
	}
	return changed ? node_write(q->file, offset, c->table, q->cluster_size) : 0;
}

/* Two walks over the tables of the disk; snapshots are not counted. */
static void tell(const struct check *c, uint64_t done)
{
	if (c->out->progress)
		c->out->progress(c->out->opaque, done, 2 * c->q->l1_size);
}

static int check_l1(struct check *c, uint64_t *l1, uint64_t n, bool active)
{
	struct qcow2 *q = c->q;
	int r = 0;

	for (uint64_t i = 0; !r && i < n; i++) {
		uint64_t offset = l1[i] & OFFSET_MASK;

		if (active)
			tell(c, i);
		if (!offset)
			continue;
		if (offset & (q->cluster_size - 1) || !count_range(c, offset, q->cluster_size)) {
			c->out->corruptions++;
			if (c->fix && active) {
				l1[i] = 0;
				q->l1_dirty[i / 64] = 1;
				q->any_l1_dirty = true;
				c->out->corruptions_fixed++;
			}
			continue;
		}
		/* each disk refers to a table once */
		if (c->count[offset >> q->cluster_bits] > q->nsnapshots + 1) {
			c->out->corruptions++;
			continue;
		}
		r = check_l2(c, offset, active);
	}
	return r;
}

static int check_snapshots(struct check *c)
{
	struct qcow2 *q = c->q;
	uint64_t bytes = 0;
	int r = 0;

	for (unsigned i = 0; i < q->nsnapshots; i++)
		bytes += sizeof(uint64_t) * 5 + 24 + strlen(q->snapshots[i].id) + strlen(q->snapshots[i].name) + 8;
	if (q->nsnapshots && !count_range(c, be64toh(header_of(q)->snapshots_offset), bytes))
		c->out->corruptions++;
	for (unsigned i = 0; !r && i < q->nsnapshots; i++) {
		struct snapshot *s = &q->snapshots[i];
		uint64_t size = (uint64_t)s->l1_size * 8, *l1 = malloc(MAX(size, 8u));

		if (!l1)
			return -ENOMEM;
		if (!count_range(c, s->l1_offset, size))
			c->out->corruptions++;
		else if (node_read(q->file, s->l1_offset, l1, size))
			c->out->errors++;
		else
			r = 1;
		for (uint64_t k = 0; r == 1 && k < s->l1_size; k++)
			l1[k] = be64toh(l1[k]);
		r = r == 1 ? check_l1(c, l1, s->l1_size, false) : r;
		free(l1);
	}
	return r;
}

static int walk(struct check *c)
{
	struct qcow2 *q = c->q;
	struct qcow2_header *h = header_of(q);
	int r;

	memset(c->count, 0, c->n * sizeof(*c->count));
	if (!count_range(c, 0, q->cluster_size) ||
	    !count_range(c, be64toh(h->l1_offset), cluster_up(q, q->l1_size * 8)))
		return -EINVAL;
	r = check_l1(c, q->l1, q->l1_size, true);
	return r ? r : check_snapshots(c);
}

/* What a cluster holds that the check counts but a rebuild leaves behind. */
static void count_refcounts(struct check *c)
{
	struct qcow2 *q = c->q;

	if (!count_range(c, be64toh(header_of(q)->rt_offset), q->rt_entries * 8))
		c->out->corruptions++;
	for (uint64_t i = 0; i < q->rt_entries; i++) {
		if (!q->rt[i])
			continue;
		if (q->rt[i] & (q->cluster_size - 1) || q->rt[i] & ~OFFSET_MASK || !count_range(c, q->rt[i], q->cluster_size))
			c->out->corruptions++;
	}
}

static void compare(struct check *c)
{
	struct qcow2 *q = c->q;

	for (uint64_t i = 0; i < MAX(c->n, q->rt_entries << q->rb_bits); i++) {
		uint64_t have, want = i < c->n ? c->count[i] : 0, block = i >> q->rb_bits;

		/* a range without block, or with one that is another's, is not gone through cluster by cluster */
		if (i >= c->n && (!q->rt[block] || q->rt[block] >> q->cluster_bits >= c->n ||
				  c->count[q->rt[block] >> q->cluster_bits] > 1)) {
			i |= BIT(q->rb_bits) - 1;
			continue;
		}
		if (refcount_get(q, i, &have)) {
			c->out->errors++;
			i |= BIT(q->rb_bits) - 1;
			continue;
		}
		if (have > want)
			c->out->leaks++;
		else if (have < want)
			c->out->corruptions++;
		if (have || want)
			c->out->end = (i + 1) << q->cluster_bits;
	}
}

/* "Mine alone" flags that do not fit the counts. */
static int check_copied(struct check *c, bool *wrong)
{
	struct qcow2 *q = c->q;

	*wrong = false;
	for (uint64_t i = 0; i < q->l1_size; i++) {
		uint64_t offset = q->l1[i] & OFFSET_MASK;
		int r;

		tell(c, q->l1_size + i);
		if (!offset || offset >> q->cluster_bits >= c->n)
			continue;
		if (!(q->l1[i] & L2_COPIED) != (c->count[offset >> q->cluster_bits] != 1)) {
			c->out->corruptions++;
			*wrong = true;
		}
		r = node_read(q->file, offset, c->table, q->cluster_size);
		if (r)
			return r;
		for (uint64_t k = 0; k < BIT(q->l2_bits); k++) {
			uint64_t entry = be64toh(c->table[k]), at = (entry & OFFSET_MASK) >> q->cluster_bits;

			if (entry & L2_COMPRESSED || !at || at >= c->n || !(entry & L2_COPIED) == (c->count[at] != 1))
				continue;
			c->out->corruptions++;
			*wrong = true;
		}
	}
	return 0;
}

static void put_count(const struct qcow2 *q, uint8_t *block, uint64_t i, uint64_t v)
{
	unsigned bits_each = 1u << q->refcount_order;

	if (bits_each < 8) {
		block[i * bits_each / 8] |= (uint8_t)(v << (i * bits_each % 8));
		return;
	}
	for (unsigned byte = 0; byte < bits_each / 8; byte++)
		block[i * bits_each / 8 + byte] = (uint8_t)(v >> (bits_each - 8 - 8 * byte));
}

/* Blocks for the counts of everything below `end`, then the table, from cluster `start` on. */
static int write_counts(struct check *c, uint64_t start, uint64_t blocks, uint64_t *rt)
{
	struct qcow2 *q = c->q;
	uint8_t *block = (uint8_t *)c->table;
	uint64_t limit = q->refcount_order == 6 ? UINT64_MAX : BIT(1u << q->refcount_order) - 1;
	uint64_t end = start + blocks + (be32toh(header_of(q)->rt_clusters));

	for (uint64_t b = 0; b < blocks; b++) {
		int r;

		memset(block, 0, q->cluster_size);
		for (uint64_t i = 0; i < BIT(q->rb_bits); i++) {
			uint64_t cluster = (b << q->rb_bits) + i;
			uint64_t v = cluster < start ? (cluster < c->n ? c->count[cluster] : 0) : cluster < end;

			if (v > limit)
				return -EOVERFLOW;
			put_count(q, block, i, v);
		}
		r = node_write(q->file, (start + b) << q->cluster_bits, block, q->cluster_size);
		if (r)
			return r;
		rt[b] = (start + b) << q->cluster_bits;
	}
	return 0;
}

static int rebuild(struct check *c)
{
	struct qcow2 *q = c->q;
	struct qcow2_header *h = header_of(q), before = *h;
	uint64_t start = c->n, blocks = 0, clusters = 0, *rt, *disk;
	int r;

	for (unsigned i = 0; i < 8; i++) { /* they count themselves, so until it fits */
		blocks = (start + blocks + clusters + BIT(q->rb_bits) - 1) >> q->rb_bits;
		clusters = cluster_up(q, MAX(blocks * 8 + 64, q->rt_entries * 8)) >> q->cluster_bits;
	}
	rt = calloc(clusters, q->cluster_size);
	disk = calloc(clusters, q->cluster_size);
	h->rt_clusters = htobe32((uint32_t)clusters);
	h->rt_offset = htobe64((start + blocks) << q->cluster_bits);
	r = !rt || !disk ? -ENOMEM : clusters << q->cluster_bits > MAX(RT_MAX, q->cluster_size) ? -EFBIG : write_counts(c, start, blocks, rt);
	for (uint64_t i = 0; !r && i < clusters << (q->cluster_bits - 3); i++)
		disk[i] = htobe64(rt[i]);
	if (!r)
		r = node_write(q->file, (start + blocks) << q->cluster_bits, disk, clusters << q->cluster_bits);
	if (!r)
		r = node_flush(q->file);
	if (!r && !q->v2)
		h->incompatible &= ~htobe64(INCOMPAT_DIRTY | INCOMPAT_CORRUPT);
	if (!r)
		r = header_write(q);
	free(disk);
	if (r) {
		*h = before;
		free(rt);
		return r;
	}
	tables_forget(q, &q->refcounts);
	tables_forget(q, &q->l2);
	free(q->rt);
	q->rt = rt;
	q->rt_entries = clusters << (q->cluster_bits - 3);
	q->free_hint = 1;
	q->high = start + blocks + clusters;
	q->dirty = false;
	q->written = false; /* lazy refcounts mark it dirty again before the next change */
	return 0;
}

static int repair(struct check *c)
{
	struct qcow2 *q = c->q;
	struct image_check *out = c->out, ignore = { 0 };
	int r;

	c->fix = true;
	out->corruptions_fixed = 0;
	c->out = &ignore; /* the second walk finds the same */
	r = walk(c);
	c->out = out;
	if (!r)
		r = qcow2_commit(q); /* L1 entries */
	if (!r)
		r = rebuild(c);
	q->all_rc = true;
	if (!r)
		r = copied_fix(q);
	if (!r)
		r = qcow2_commit(q);
	q->all_rc = false;
	if (!r) {
		out->leaks_fixed = out->leaks;
		out->corruptions_fixed = out->corruptions;
	}
	return r;
}

int qcow2_check(struct qcow2 *q, bool fix, struct image_check *out, struct err *e)
{
	struct check c = { .q = q, .out = out, .n = q->high };
	bool wrong = false;
	int r = 0;

	*out = (struct image_check){ .progress = out->progress, .opaque = out->opaque, .clusters = cluster_up(q, q->n.size) >> q->cluster_bits };
	if (c.n > CLUSTERS_MAX)
		return err_set(e, EFBIG, "%s has too many clusters to check", q->n.path);
	if (!q->dirty && !q->n.read_only)
		r = qcow2_commit(q);
	c.n = q->high;
	c.count = calloc(c.n, sizeof(*c.count));
	c.table = malloc(q->cluster_size);
	if (!c.count || !c.table)
		r = -ENOMEM;
	if (!r)
		r = walk(&c);
	if (!r) {
		count_refcounts(&c);
		compare(&c);
		r = check_copied(&c, &wrong);
	}
	if (!r && fix && (q->dirty || out->leaks || out->corruptions))
		r = repair(&c);
	free(c.count);
	free(c.table);
	return r ? err_set(e, -r, "cannot %s %s: %s", fix ? "repair" : "check", q->n.path, strerrordesc_np(-r)) : 0;
}
