/* SPDX-License-Identifier: Apache-2.0 */
/* Another size, and clusters before they are needed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/qcow2.h"

static uint64_t l1_entries(const struct qcow2 *q, uint64_t size)
{
	uint64_t span = q->cluster_size << q->l2_bits;

	return size / span + (size % span != 0);
}

static int size_write(struct qcow2 *q, uint64_t size)
{
	struct qcow2_header *h = header_of(q);
	uint64_t old = h->size;
	int r = qcow2_commit(q);

	h->size = htobe64(size);
	if (!r)
		r = header_write(q);
	if (r) {
		h->size = old;
		return r;
	}
	pthread_mutex_lock(&q->map);
	q->n.size = size;
	pthread_mutex_unlock(&q->map);
	return 0;
}

static int resize_slow(struct qcow2 *q, uint64_t size)
{
	uint64_t old = q->n.size, first, last;
	int r = qcow2_begin_write(q);

	if (r)
		return r;
	if (size > old) {
		if (l1_entries(q, size) > q->l1_size)
			r = l1_switch(q, q->l1, q->l1_size, l1_entries(q, size), old);
		/* what a larger backing file has there must not show through */
		last = q->backing ? MIN(size, q->backing->size) : 0;
		if (!r && last > old) {
			/* for those the disk must be that large already: nobody else asks before we are done */
			uint64_t within = old & (q->cluster_size - 1), edge = within ? MIN(q->cluster_size - within, last - old) : 0;
			uint8_t *zero = calloc(1, q->cluster_size);
			struct iovec iov = { zero, edge };

			r = zero ? 0 : -ENOMEM;
			if (!r && edge)
				r = qcow2_write_slow(q, old, edge, &iov, 1);
			if (!r && last > old + edge)
				r = qcow2_unmap_slow(q, old + edge, cluster_up(q, last) - old - edge, true, false);
			free(zero);
		}
		return r ? r : size_write(q, size);
	}
	/* first the end, then what lies behind it: a crash between them leaves no harm */
	r = size_write(q, size);
	first = cluster_up(q, size);
	last = cluster_up(q, old);
	if (!r && first > size) {
		/* the rest of the last cluster, should the disk grow again */
		uint8_t *zero = calloc(1, q->cluster_size);
		struct iovec iov = { zero, MIN(first, old) - size };

		r = zero ? 0 : -ENOMEM;
		if (!r)
			r = qcow2_write_slow(q, size, iov.iov_len, &iov, 1);
		free(zero);
	}
	for (uint64_t at = first; !r && at < last; at += q->cluster_size) {
		uint64_t span = q->cluster_size << q->l2_bits, entry;
		struct table *t;

		if (!(q->l1[at / span] & OFFSET_MASK)) {
			at = (at / span + 1) * span - q->cluster_size;
			continue;
		}
		r = l2_load(q, at);
		if (r || !l2_entry(q, at, &entry) || !entry)
			continue;
		r = l2_writable(q, at, &t);
		if (!r) {
			l2_set(q, t, at, 0);
			r = entry_free_later(q, entry);
		}
	}
	return r ? r : qcow2_commit(q);
}

int qcow2_resize(struct node *n, uint64_t size, struct err *e)
{
	struct qcow2 *q = qcow2_of(n);
	int r;

	if (l1_entries(q, size) * 8 > L1_MAX)
		return err_set(e, EFBIG, "an image with clusters of %llu bytes cannot be that large",
			       (unsigned long long)q->cluster_size);
	if (q->nsnapshots && (q->v2 || size < n->size))
		return err_set(e, ENOTSUP, "%s has snapshots, which would lose data; delete them first", n->path);
	pthread_mutex_lock(&q->slow);
	r = resize_slow(q, size);
	pthread_mutex_unlock(&q->slow);
	return r ? err_set(e, -r, "cannot resize %s: %s", n->path, strerrordesc_np(-r)) : 0;
}

static int preallocate_slow(struct qcow2 *q, uint64_t offset, uint64_t length)
{
	uint64_t at = offset & ~(q->cluster_size - 1), end = offset + length, span = q->cluster_size << q->l2_bits;
	int r = 0;

	while (!r && at < end) {
		uint64_t most = (MIN(cluster_up(q, end), (at / span + 1) * span) - at) >> q->cluster_bits, cluster, got, entry;
		bool fresh;
		uint64_t high = q->high;

		r = l2_load(q, at);
		if (r || !l2_entry(q, at, &entry))
			break;
		if (entry) {
			at += q->cluster_size;
			continue;
		}
		r = clusters_alloc(q, most, &cluster, &got);
		fresh = !r && q->file->grows && cluster >= high;
		for (uint64_t i = 0; !r && i < got; i++, at += q->cluster_size) {
			struct table *t;

			r = l2_writable(q, at, &t);
			if (!r)
				r = l2_entry(q, at, &entry) && !entry ? 0 : -EEXIST;
			if (!r && !fresh)
				r = node_op(q->file, BLOCK_WRITE_ZEROES, (cluster + i) << q->cluster_bits, q->cluster_size, false);
			if (!r)
				l2_set(q, t, at, (cluster + i) << q->cluster_bits | L2_COPIED);
		}
	}
	return r;
}

/* Only for ranges nothing is allocated in. */
int qcow2_preallocate(struct qcow2 *q, uint64_t offset, uint64_t length, enum image_preallocation how, struct err *e)
{
	uint64_t before, after;
	int r = 0;

	pthread_mutex_lock(&q->slow);
	before = q->high << q->cluster_bits;
	if (!q->backing && how != IMAGE_SPARSE)
		r = preallocate_slow(q, offset, length);
	after = q->high << q->cluster_bits;
	if (!r && q->file->ops->resize && q->file->grows && after > q->file->size)
		r = q->file->ops->resize(q->file, after, e);
	if (!r && how == IMAGE_FALLOC && after > before)
		r = node_op(q->file, BLOCK_WRITE_ZEROES, before, after - before, false);
	if (!r && how == IMAGE_FULL) {
		uint8_t *zero = calloc(1, q->cluster_size);

		r = zero ? 0 : -ENOMEM;
		for (uint64_t at = offset; !r && at < offset + length; at += q->cluster_size) {
			struct iovec iov = { zero, MIN(q->cluster_size, offset + length - at) };

			r = qcow2_write_slow(q, at, iov.iov_len, &iov, 1);
		}
		free(zero);
	}
	if (!r)
		r = qcow2_commit(q);
	pthread_mutex_unlock(&q->slow);
	return r ? err_set(e, -r, "cannot allocate %s: %s", q->n.path, strerrordesc_np(-r)) : 0;
}
