/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests. Fast: split into pieces that lie together (in the file, in the backing file, or nowhere: zeroes) while the tables
 * are looked at, then done without any lock. Slow: one request after another; for a read that only lacks a table, load
 * it and try the fast way again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/qcow2.h"

enum where { AT_FILE, AT_BACKING, AT_ZERO };

struct piece {
	enum where where;
	uint64_t skip, length, offset; /* from the request's start; in the file or backing file */
};

struct fast {
	struct qcow2 *q;
	struct block_request *parent;
	unsigned epoch;
	_Atomic unsigned pending;
	_Atomic int result;
	unsigned npieces;
	struct block_request *sub; /* one a piece, behind the struct; then its iovecs */
};

#define PIECES_MAX 64u

static void fast_leave(struct qcow2 *q, unsigned epoch)
{
	pthread_mutex_lock(&q->map);
	if (!--q->underway[epoch])
		pthread_cond_broadcast(&q->quiet);
	pthread_mutex_unlock(&q->map);
}

static void fast_finish(struct fast *f)
{
	struct block_request *parent = f->parent;
	struct qcow2 *q = f->q;
	int result = f->result;

	fast_leave(q, f->epoch);
	free(f);
	parent->done(parent, result);
}

static void fast_done(struct block_request *r, int result)
{
	struct fast *f = r->opaque;

	if (result)
		f->result = result;
	if (atomic_fetch_sub(&f->pending, 1) == 1)
		fast_finish(f);
}

/* Under map. The pieces of a request, or 0 when it must go the slow way. */
static unsigned fast_pieces(struct qcow2 *q, const struct block_request *r, struct piece *pieces)
{
	uint64_t done = 0;
	unsigned n = 0;

	while (done < r->length) {
		uint64_t at = r->offset + done, within = at & (q->cluster_size - 1), entry;
		struct piece p = { .skip = done, .length = MIN(q->cluster_size - within, r->length - done) };
		struct piece *last = n ? &pieces[n - 1] : NULL;

		if (!l2_entry(q, at, &entry) || entry & L2_COMPRESSED || entry_is_bad(q, entry))
			return 0;
		if (r->op == BLOCK_WRITE && (!(entry & L2_COPIED) || entry & L2_ZERO || !(entry & OFFSET_MASK)))
			return 0;
		p.offset = (entry & OFFSET_MASK) + within;
		p.where = entry & L2_ZERO ? AT_ZERO : entry & OFFSET_MASK ? AT_FILE : q->backing ? AT_BACKING : AT_ZERO;
		if (p.where == AT_BACKING) {
			p.offset = at;
			if (at >= q->backing->size)
				p.where = AT_ZERO;
			else
				p.length = MIN(p.length, q->backing->size - at);
		}
		done += p.length;
		if (last && last->where == p.where && (p.where == AT_ZERO || last->offset + last->length == p.offset)) {
			last->length += p.length;
			continue;
		}
		if (n == PIECES_MAX)
			return 0;
		pieces[n++] = p;
	}
	return n;
}

static void piece_submit(struct fast *f, struct block_request *sub, enum where where)
{
	struct node *to = where == AT_FILE ? f->q->file : f->q->backing;

	if (where == AT_ZERO) {
		iov_fill(sub->iov, sub->iovcnt, 0, sub->length, 0);
		fast_done(sub, 0);
		return;
	}
	to->ops->submit(to, sub);
}

/* False: nothing has been done. `now`: may done be called from here? */
static bool fast_try(struct qcow2 *q, struct block_request *r, bool now)
{
	struct piece pieces[PIECES_MAX];
	struct iovec *iov;
	struct fast *f;
	unsigned n, epoch;

	pthread_mutex_lock(&q->map);
	n = fast_pieces(q, r, pieces);
	epoch = q->epoch & 1;
	if (n)
		q->underway[epoch]++;
	pthread_mutex_unlock(&q->map);
	if (!n)
		return false;
	f = malloc(sizeof(*f) + n * sizeof(*f->sub) + (n > 1 ? n * r->iovcnt * sizeof(*iov) : 0));
	if (!f) {
		fast_leave(q, epoch);
		return false;
	}
	*f = (struct fast){ .q = q, .parent = r, .epoch = epoch, .pending = n, .npieces = n };
	f->sub = (struct block_request *)(f + 1);
	iov = (struct iovec *)(f->sub + n);
	for (unsigned i = 0; i < n; i++) {
		struct piece *p = &pieces[i];

		f->sub[i] = (struct block_request){ .op = r->op, .fua = r->fua || q->spec.cache == BLK_WRITETHROUGH, .now = now, .offset = p->offset,
						    .length = p->length, .iov = r->iov, .iovcnt = r->iovcnt, .done = fast_done,
						    .opaque = f };
		if (n > 1) {
			f->sub[i].iov = iov;
			f->sub[i].iovcnt = (unsigned)iov_slice(r->iov, r->iovcnt, p->skip, p->length, iov, r->iovcnt);
			iov += f->sub[i].iovcnt;
		}
	}
	for (unsigned i = 0; i < n; i++)
		piece_submit(f, &f->sub[i], pieces[i].where);
	return true;
}

/* ---- slow: reading */

static int read_cluster(struct qcow2 *q, uint64_t at, uint64_t length, const struct iovec *iov, unsigned n, uint64_t skip)
{
	uint64_t within = at & (q->cluster_size - 1), entry, have;
	struct iovec part[64], *use = part;
	struct block_request r = { .op = BLOCK_READ, .length = length, .iov = part };
	struct node *from = q->file;
	uint8_t *plain;
	int e = l2_load(q, at);

	if (e)
		return e;
	if (!l2_entry(q, at, &entry) || entry_is_bad(q, entry))
		return -EIO;
	if (entry & L2_COMPRESSED) {
		e = zip_read(q, entry, &plain);
		if (!e)
			iov_from_buf(iov, n, skip, plain + within, length);
		return e;
	}
	r.offset = (entry & OFFSET_MASK) + within;
	if (!(entry & (OFFSET_MASK | L2_ZERO)) && q->backing && at < q->backing->size) {
		from = q->backing;
		r.offset = at;
		have = MIN(length, from->size - at);
		iov_fill(iov, n, skip + have, length - have, 0);
		r.length = have;
	} else if (entry & L2_ZERO || !(entry & OFFSET_MASK)) {
		iov_fill(iov, n, skip, length, 0);
		return 0;
	}
	e = iov_slice(iov, n, skip, r.length, part, ARRAY_LEN(part));
	if (e == -E2BIG) {
		use = malloc(n * sizeof(*use));
		if (!use)
			return -ENOMEM;
		e = iov_slice(iov, n, skip, r.length, use, n);
		r.iov = use;
	}
	r.iovcnt = (unsigned)e;
	e = from->ops->sync(from, &r);
	if (use != part)
		free(use);
	return e;
}

int qcow2_read_slow(struct qcow2 *q, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned n, uint64_t skip)
{
	int e = 0;

	while (!e && length) {
		uint64_t part = MIN(length, q->cluster_size - (offset & (q->cluster_size - 1)));

		e = read_cluster(q, offset, part, iov, n, skip);
		offset += part;
		skip += part;
		length -= part;
	}
	return e;
}

/* ---- slow: writing */

/* How many of the clusters from `at` on may be written where they are, together; 0: the first may not. */
static uint64_t run_in_place(struct qcow2 *q, uint64_t at, uint64_t most, uint64_t *host)
{
	uint64_t n = 0;

	for (; n < most; n++) {
		uint64_t entry, offset;

		if (!l2_entry(q, at + (n << q->cluster_bits), &entry))
			break;
		offset = entry & OFFSET_MASK;
		if (entry & (L2_COMPRESSED | L2_ZERO) || !(entry & L2_COPIED) || !offset)
			break;
		if (n && offset != *host + (n << q->cluster_bits))
			break;
		if (!n)
			*host = offset;
	}
	return n;
}

/* How many need new clusters. All in one L2 table. */
static uint64_t run_to_allocate(struct qcow2 *q, uint64_t at, uint64_t most)
{
	uint64_t n = 1;

	for (; n < most; n++) {
		uint64_t entry;

		if (!l2_entry(q, at + (n << q->cluster_bits), &entry) ||
		    (!(entry & (L2_COMPRESSED | L2_ZERO)) && entry & L2_COPIED && entry & OFFSET_MASK))
			break;
	}
	return n;
}

struct write {
	const struct iovec *iov;
	unsigned n;
	uint64_t skip;           /* bytes of iov done */
	uint64_t offset, length; /* what is left */
};

static int write_data(struct qcow2 *q, const struct write *w, uint64_t host, uint64_t len, struct iovec head, struct iovec tail)
{
	struct iovec *iov = malloc((w->n + 2) * sizeof(*iov));
	struct block_request r = { .op = BLOCK_WRITE, .offset = host, .length = len + head.iov_len + tail.iov_len };
	unsigned n = 0;
	int e;

	if (!iov)
		return -ENOMEM;
	if (head.iov_len)
		iov[n++] = head;
	n += (unsigned)iov_slice(w->iov, w->n, w->skip, len, iov + n, w->n);
	if (tail.iov_len)
		iov[n++] = tail;
	r.iov = iov;
	r.iovcnt = n;
	e = q->file->ops->sync(q->file, &r);
	free(iov);
	return e;
}

/* Is what the guest reads there all zeroes as far as the tables know? */
static bool reads_zero(struct qcow2 *q, uint64_t at)
{
	uint64_t entry;

	if (!l2_entry(q, at, &entry) || entry & L2_COMPRESSED)
		return false;
	if (entry & L2_ZERO)
		return true;
	return !(entry & OFFSET_MASK) && (!q->backing || (at & ~(q->cluster_size - 1)) >= q->backing->size);
}

/* The part of a new cluster around what is written. Empty when it is zeroes and lies in fresh space. */
static int write_edge(struct qcow2 *q, uint64_t at, uint64_t len, bool fresh, struct iovec *out)
{
	*out = (struct iovec){ 0 };
	if (!len || (fresh && reads_zero(q, at)))
		return 0;
	*out = (struct iovec){ aligned_alloc(4096, (len + 4095) & ~4095ull), len };
	if (!out->iov_base)
		return -ENOMEM;
	return qcow2_read_slow(q, at, len, out, 1, 0);
}

/* New clusters for [first cluster of w->offset, + n); writes what of the request lies in them and links them. */
static int write_allocating(struct qcow2 *q, struct write *w, uint64_t n)
{
	uint64_t start = w->offset & ~(q->cluster_size - 1), high = q->high, cluster, got, len, from_head, rest;
	struct iovec head, tail = { 0 };
	bool fresh;
	int e = clusters_alloc(q, n, &cluster, &got);

	if (e)
		return e;
	fresh = q->file->grows && cluster >= high;
	len = MIN(w->length, (got << q->cluster_bits) - (w->offset - start));
	from_head = w->offset - start;
	rest = (got << q->cluster_bits) - from_head - len;
	e = write_edge(q, start, from_head, fresh, &head);
	if (!e)
		e = write_edge(q, w->offset + len, rest, fresh, &tail);
	if (!e)
		e = write_data(q, w, (cluster << q->cluster_bits) + from_head - head.iov_len, len, head, tail);
	free(head.iov_base);
	free(tail.iov_base);
	for (uint64_t i = 0; !e && i < got; i++) {
		uint64_t at = start + (i << q->cluster_bits), old = 0;
		struct table *t;

		e = l2_writable(q, at, &t);
		if (e) {
			/* those linked stay */
			(void)refcount_add(q, cluster + i, got - i, -1);
			return e;
		}
		(void)l2_entry(q, at, &old);
		l2_set(q, t, at, ((cluster + i) << q->cluster_bits) | L2_COPIED);
		e = entry_free_later(q, old);
		if (e)
			return e;
	}
	if (e) {
		(void)refcount_add(q, cluster, got, -1);
		return e;
	}
	w->offset += len;
	w->skip += len;
	w->length -= len;
	return 0;
}

int qcow2_write_slow(struct qcow2 *q, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned n)
{
	struct write w = { iov, n, 0, offset, length };
	uint64_t table_span = q->cluster_size << q->l2_bits;
	int e = 0;

	while (!e && w.length) {
		uint64_t start = w.offset & ~(q->cluster_size - 1), host = 0, run, len;
		uint64_t end = MIN(w.offset + w.length, (w.offset & ~(table_span - 1)) + table_span);
		uint64_t most = (cluster_up(q, end) - start) >> q->cluster_bits, entry;

		e = l2_load(q, w.offset);
		if (e)
			break;
		if (!l2_entry(q, w.offset, &entry) || entry_is_bad(q, entry))
			return -EIO;
		run = run_in_place(q, start, most, &host);
		if (!run) {
			e = write_allocating(q, &w, run_to_allocate(q, start, most));
			continue;
		}
		len = MIN(w.length, (run << q->cluster_bits) - (w.offset - start));
		e = write_data(q, &w, host + (w.offset - start), len, (struct iovec){ 0 }, (struct iovec){ 0 });
		w.offset += len;
		w.skip += len;
		w.length -= len;
	}
	return e;
}

/* ---- slow: taking away */

int qcow2_unmap_slow(struct qcow2 *q, uint64_t offset, uint64_t length, bool zero, bool keep)
{
	for (uint64_t at = offset; at < offset + length; at += q->cluster_size) {
		bool behind = !q->backing || at >= q->backing->size; /* nothing shows through */
		uint64_t entry, new;
		struct table *t;
		int e = l2_load(q, at);

		if (e)
			return e;
		if (!l2_entry(q, at, &entry) || entry_is_bad(q, entry))
			return -EIO;
		new = q->v2 || (behind && (!zero || !entry)) ? 0 : L2_ZERO;
		if (new && keep && !(entry & L2_COMPRESSED) && entry & L2_COPIED)
			new |= entry & (OFFSET_MASK | L2_COPIED);
		if (new == entry || (!zero && entry & L2_ZERO && !(entry & OFFSET_MASK)))
			continue;
		e = l2_writable(q, at, &t);
		if (e)
			return e;
		(void)l2_entry(q, at, &entry);
		l2_set(q, t, at, new);
		if (!(new & OFFSET_MASK))
			e = entry_free_later(q, entry);
		if (!e && q->nfrees > 4096)
			e = qcow2_commit(q);
		if (e)
			return e;
	}
	return 0;
}

static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t length)
{
	uint8_t *buf;
	struct iovec iov;
	int e;

	if (!length)
		return 0;
	e = l2_load(q, offset);
	if (e || reads_zero(q, offset))
		return e;
	buf = aligned_alloc(4096, (length + 4095) & ~4095ull);
	if (!buf)
		return -ENOMEM;
	memset(buf, 0, length);
	iov = (struct iovec){ buf, length };
	e = qcow2_write_slow(q, offset, length, &iov, 1);
	free(buf);
	return e;
}

static int zero_slow(struct qcow2 *q, const struct block_request *r)
{
	uint64_t end = r->offset + r->length, first = cluster_up(q, r->offset), last = end & ~(q->cluster_size - 1);
	int e;

	if (end == q->n.size)
		last = cluster_up(q, end); /* what is behind the disk's end does not matter */
	if (first >= last) {
		uint64_t middle = MIN(first, end);

		e = zero_part(q, r->offset, middle - r->offset);
		return e ? e : zero_part(q, middle, end - middle);
	}
	e = zero_part(q, r->offset, first - r->offset);
	if (!e && q->v2 && q->backing) {
		for (uint64_t at = first; !e && at < last; at += q->cluster_size)
			e = zero_part(q, at, MIN(q->cluster_size, end - at));
	} else if (!e) {
		e = qcow2_unmap_slow(q, first, last - first, true, !r->unmap);
	}
	return e || end <= last ? e : zero_part(q, last, end - last);
}

static int discard_slow(struct qcow2 *q, const struct block_request *r)
{
	uint64_t end = r->offset + r->length, first = cluster_up(q, r->offset), last = end & ~(q->cluster_size - 1);

	if (end == q->n.size)
		last = cluster_up(q, end);
	if (!q->spec.discard || (q->v2 && q->backing))
		return 0;
	return first < last ? qcow2_unmap_slow(q, first, last - first, false, false) : 0;
}

static int slow_request(struct qcow2 *q, struct block_request *r)
{
	bool durable = r->fua || q->spec.cache == BLK_WRITETHROUGH;
	int e;

	switch (r->op) {
	case BLOCK_READ:
		return qcow2_read_slow(q, r->offset, r->length, r->iov, r->iovcnt, 0);
	case BLOCK_WRITE:
		e = qcow2_write_slow(q, r->offset, r->length, r->iov, r->iovcnt);
		break;
	case BLOCK_WRITE_ZEROES:
		e = zero_slow(q, r);
		break;
	case BLOCK_DISCARD:
		return discard_slow(q, r);
	default:
		return qcow2_commit(q);
	}
	return e || !durable ? e : qcow2_commit(q);
}

/* ---- queueing */

void qcow2_serve(struct aio_job *job)
{
	struct qcow2 *q = container_of(job, struct qcow2, job);

	pthread_mutex_lock(&q->map);
	while (q->first) {
		struct block_request *r = q->first;
		bool done = false;
		int e = 0;

		q->first = r->next;
		if (!q->first)
			q->last = &q->first;
		pthread_mutex_unlock(&q->map);
		pthread_mutex_lock(&q->slow);
		if (r->op == BLOCK_READ) {
			/* what was missing may be there now; the data need not hold up others, nor their `done` our lock */
			for (uint64_t at = r->offset; !e && at < r->offset + r->length; at = (at | (q->cluster_size - 1)) + 1)
				e = l2_load(q, at);
			pthread_mutex_unlock(&q->slow);
			done = !e && fast_try(q, r, true);
			pthread_mutex_lock(&q->slow);
		}
		if (!done && !e)
			e = slow_request(q, r);
		pthread_mutex_unlock(&q->slow);
		if (!done)
			r->done(r, e);
		pthread_mutex_lock(&q->map);
	}
	q->serving = false;
	pthread_cond_broadcast(&q->quiet);
	pthread_mutex_unlock(&q->map);
}

/* A flush that has only data to flush does not need the tables' lock. */
static bool is_clean(struct qcow2 *q)
{
	bool clean = false;

	if (!pthread_mutex_trylock(&q->slow)) {
		clean = !q->l2.ndirty && !q->any_l1_dirty && !q->nfrees && (q->lazy || !q->refcounts.ndirty);
		pthread_mutex_unlock(&q->slow);
	}
	return clean;
}

void qcow2_submit(struct node *n, struct block_request *r)
{
	struct qcow2 *q = qcow2_of(n);
	bool start;

	if (r->op == BLOCK_FLUSH && is_clean(q)) {
		q->file->ops->submit(q->file, r);
		return;
	}
	/* to be durable, data need their tables to be: only when those are already */
	if ((r->op == BLOCK_READ ||
	     (r->op == BLOCK_WRITE && ((!r->fua && q->spec.cache != BLK_WRITETHROUGH) || is_clean(q)))) &&
	    fast_try(q, r, r->now))
		return;
	pthread_mutex_lock(&q->map);
	r->next = NULL;
	*q->last = r;
	q->last = &r->next;
	start = !q->serving;
	q->serving = true;
	pthread_mutex_unlock(&q->map);
	if (start)
		aio_run(n->aio, &q->job);
}

int qcow2_sync(struct node *n, struct block_request *r)
{
	struct qcow2 *q = qcow2_of(n);
	int e;

	pthread_mutex_lock(&q->slow);
	e = slow_request(q, r);
	pthread_mutex_unlock(&q->slow);
	return e;
}
