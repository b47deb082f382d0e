/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing: what a header may say is checked here, so that nothing behind it has to. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backend/qcow2.h"

#define L2_CACHE (32u << 20)
#define REFCOUNT_CACHE (4u << 20)

static int bad(struct qcow2 *q, struct err *e, const char *what)
{
	return err_set(e, EINVAL, "%s is no qcow2 image that can be used: %s", q->file->path, what);
}

static bool table_fits(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	return !(offset & (q->cluster_size - 1)) && offset <= OFFSET_MASK && bytes <= OFFSET_MASK - offset;
}

static int parse_v3(struct qcow2 *q, const struct qcow2_header *h, struct err *e)
{
	uint64_t in = be64toh(h->incompatible);

	if (q->v2) {
		q->refcount_order = 4;
		return 0;
	}
	if (in & BIT(2))
		return bad(q, e, "its data are in another file (data_file), which is not supported");
	if (in & BIT(4))
		return bad(q, e, "it has extended L2 entries, which are not supported; 'qemu-img convert' can make one without");
	if (in & ~(uint64_t)(INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_COMPRESSION))
		return bad(q, e, "it has features that are not known");
	if (in & INCOMPAT_CORRUPT && !q->n.read_only && !q->spec.check_only)
		return bad(q, e, "it is marked corrupt; 'ospite image check --repair' may help, or open it readonly");
	q->dirty = in & INCOMPAT_DIRTY;
	q->lazy = be64toh(h->compatible) & COMPAT_LAZY;
	q->refcount_order = be32toh(h->refcount_order);
	if (q->refcount_order > 6)
		return bad(q, e, "its refcounts have more than 64 bits");
	if (be32toh(h->length) < 104 || be32toh(h->length) > q->cluster_size || be32toh(h->length) % 8)
		return bad(q, e, "its header has an impossible length");
	if (in & INCOMPAT_COMPRESSION) {
		if (be32toh(h->length) < 112 || h->compression > 1)
			return bad(q, e, "its compression is neither zlib nor zstd");
		q->zstd_type = h->compression == 1;
	}
	return 0;
}

static int parse_header(struct qcow2 *q, struct err *e)
{
	struct qcow2_header *h = header_of(q);
	uint64_t size, bytes;
	int r;

	if (be32toh(h->magic) != QCOW2_MAGIC)
		return bad(q, e, "the first bytes are another format's");
	q->v2 = be32toh(h->version) == 2;
	if (!q->v2 && be32toh(h->version) != 3)
		return bad(q, e, "its version is neither 2 nor 3");
	q->cluster_bits = be32toh(h->cluster_bits);
	if (q->cluster_bits < 9 || q->cluster_bits > 21)
		return bad(q, e, "its clusters are not of 512 bytes to 2 MiB");
	q->cluster_size = BIT(q->cluster_bits);
	q->l2_bits = q->cluster_bits - 3;
	q->head_len = (unsigned)MIN(q->cluster_size, HEAD_MAX);
	if (h->crypt)
		return bad(q, e, "it is encrypted, which is not supported");
	r = parse_v3(q, h, e);
	if (r)
		return r;
	q->rb_bits = q->cluster_bits + 3 - q->refcount_order;
	size = be64toh(h->size);
	if (size > INT64_MAX)
		return bad(q, e, "its disk is too large");
	q->n.size = (size + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
	q->l1_size = be32toh(h->l1_size);
	bytes = (q->n.size >> (q->cluster_bits + q->l2_bits)) + ((q->n.size & (BIT(q->cluster_bits + q->l2_bits) - 1)) != 0);
	if (q->l1_size * 8 > L1_MAX || q->l1_size < bytes)
		return bad(q, e, "its L1 table does not fit its size");
	if (!table_fits(q, be64toh(h->l1_offset), q->l1_size * 8))
		return bad(q, e, "its L1 table is not where one can be");
	q->rt_entries = (uint64_t)be32toh(h->rt_clusters) << (q->cluster_bits - 3);
	if (!q->rt_entries || q->rt_entries * 8 > MAX(RT_MAX, q->cluster_size) ||
	    !table_fits(q, be64toh(h->rt_offset), q->rt_entries * 8) || !be64toh(h->rt_offset))
		return bad(q, e, "its refcount table is not where one can be");
	return 0;
}

/* Extensions follow the header, the backing file's name follows them; all within the first cluster. */
static int parse_names(struct qcow2 *q, struct err *e)
{
	struct qcow2_header *h = header_of(q);
	uint64_t at = q->v2 ? 72 : be32toh(h->length), name = be64toh(h->backing_offset), end = name ? name : q->cluster_size;
	uint32_t len = be32toh(h->backing_size);
	uint8_t *cluster = malloc(q->cluster_size);
	int r = cluster ? node_read(q->file, 0, cluster, q->cluster_size) : -ENOMEM;

	if (r) {
		r = err_set(e, -r, "cannot read the header of %s: %s", q->file->path, strerrordesc_np(-r));
		goto out;
	}
	r = bad(q, e, "its header's extensions run over");
	if (end > q->cluster_size)
		goto out;
	while (end - at >= 8) {
		uint32_t type = be32toh(*(uint32_t *)(cluster + at)), n = be32toh(*(uint32_t *)(cluster + at + 4));

		at += 8;
		if (!type)
			break;
		if (n > end - at)
			goto out;
		if (type == EXT_BACKING_FORMAT && n < sizeof(q->backing_format))
			memcpy(q->backing_format, cluster + at, n);
		at += MIN(end - at, (n + 7ull) & ~7ull);
		if (at > end)
			goto out;
	}
	if (name) {
		r = bad(q, e, "its backing file's name is too long");
		if (len > 1023 || !range_fits(name, len, q->cluster_size))
			goto out;
		q->backing_name = strndup((char *)cluster + name, len);
	}
	r = 0;
out:
	free(cluster);
	return r;
}

static int read_tables(struct qcow2 *q, struct err *e)
{
	struct qcow2_header *h = header_of(q);
	uint64_t l1_bytes = cluster_up(q, q->l1_size * 8);
	int r = 0;

	q->l1 = calloc(1, MAX(l1_bytes, 8u));
	q->l1_dirty = calloc(1, l1_bytes / 512 + 1);
	q->rt = calloc(q->rt_entries, 8);
	if (!q->l1 || !q->l1_dirty || !q->rt ||
	    tables_init(&q->l2, (unsigned)MAX(MIN(MAX(q->spec.table_cache, 4 * q->cluster_size) >> q->cluster_bits, 65536u), 4u)) ||
	    tables_init(&q->refcounts, MAX((unsigned)(REFCOUNT_CACHE >> q->cluster_bits), 4u)))
		r = -ENOMEM;
	if (!r)
		r = node_read(q->file, be64toh(h->l1_offset), q->l1, q->l1_size * 8);
	if (!r)
		r = node_read(q->file, be64toh(h->rt_offset), q->rt, q->rt_entries * 8);
	if (r)
		return err_set(e, -r, "cannot read the tables of %s: %s", q->file->path, strerrordesc_np(-r));
	for (uint64_t i = 0; i < q->l1_size; i++)
		q->l1[i] = be64toh(q->l1[i]);
	for (uint64_t i = 0; i < q->rt_entries; i++)
		q->rt[i] = be64toh(q->rt[i]);
	return snapshots_load(q, e);
}

/* ---- backing files: those the configuration names, or the header's where the configuration says so */

static void path_beside(const char *image, const char *name, char *out, size_t size)
{
	const char *slash = strrchr(image, '/');

	if (name[0] == '/' || !slash)
		snprintf(out, size, "%s", name);
	else
		snprintf(out, size, "%.*s/%s", (int)(slash - image), image, name);
}

static int open_backing(struct qcow2 *q, const struct blk_spec *s, unsigned depth, struct err *e)
{
	struct blk_spec b = { .read_only = true, .no_lock = s->no_lock, .no_ring = s->no_ring, .cache = s->cache,
			      .backing_header = s->backing_header, .table_cache = s->table_cache, .files = s->files };
	const char *format;
	int r;

	if (s->no_backing || (!q->backing_name && !s->nbacking))
		return 0;
	if (depth >= BLK_CHAIN)
		return err_set(e, ELOOP, "%s: the chain of backing files is longer than %u", q->file->path, BLK_CHAIN);
	if (s->nbacking) {
		format = s->backing[0].format[0] ? s->backing[0].format : q->backing_format;
		snprintf(b.path, sizeof(b.path), "%s", s->backing[0].path);
		if (s->nbacking > 1) {
			b.nbacking = s->nbacking - 1;
			b.backing = s->backing + 1;
		}
	} else if (s->backing_header) {
		format = q->backing_format;
		if (strstr(q->backing_name, "://") || !strncmp(q->backing_name, "json:", 5) || !strncmp(q->backing_name, "nbd:", 4))
			return err_set(e, ENOTSUP, "%s names the backing file '%.200s'; name it with backing=PATH", q->file->path,
				       q->backing_name);
		path_beside(s->path, q->backing_name, b.path, sizeof(b.path));
	} else {
		return err_set(e, EPERM, "%s has a backing file, '%.200s'; allow it with backing=header, or name it with backing=PATH",
			       q->file->path, q->backing_name);
	}
	if (strcmp(format, "raw") && strcmp(format, "qcow2") && *format)
		return err_set(e, ENOTSUP, "%s: its backing file has the format '%.15s'; that must be raw or qcow2", q->file->path, format);
	if (!*format)
		return err_set(e, EINVAL, "%s does not say the format of its backing file, and formats are never guessed; add "
			       "backing=PATH,backing-format=...", q->file->path);
	strcpy(b.format, format);
	b.nbd = !strncmp(b.path, "nbd:", 4);
	if (b.nbd)
		memmove(b.path, b.path + 4, strlen(b.path + 4) + 1);
	r = blk_open_node(&q->backing, q->n.aio, &b, depth + 1, e);
	return r && strncmp(e->text, "backing file of ", 16) ? err_prefix(e, "backing file of %s", q->file->path) : r; /* once is enough */
}

/* ---- */

static void qcow2_dispose(struct qcow2 *q)
{
	snapshots_dispose(q);
	tables_dispose(&q->l2);
	tables_dispose(&q->refcounts);
	free(q->l1);
	free(q->l1_dirty);
	free(q->rt);
	free(q->frees);
	free(q->plain);
	free(q->backing_name);
	free(q->n.path);
	pthread_mutex_destroy(&q->slow);
	pthread_mutex_destroy(&q->map);
	pthread_cond_destroy(&q->quiet);
	node_close(q->backing);
	node_close(q->file);
	free(q);
}

static void qcow2_close(struct node *n)
{
	struct qcow2 *q = qcow2_of(n);
	int r = 0;

	pthread_mutex_lock(&q->map);
	while (q->serving || q->underway[0] || q->underway[1])
		pthread_cond_wait(&q->quiet, &q->map);
	pthread_mutex_unlock(&q->map);
	pthread_mutex_lock(&q->slow);
	if (!q->n.read_only) {
		q->all_rc = true;
		r = qcow2_commit(q); /* frees what may be freed, which changes refcounts */
		if (!r)
			r = qcow2_commit(q);
		if (!r && q->lazy && q->written)
			(void)qcow2_set_dirty(q, false);
	}
	pthread_mutex_unlock(&q->slow);
	qcow2_dispose(q);
}

static const struct node_ops qcow2_ops = {
	.name = "qcow2",
	.submit = qcow2_submit,
	.sync = qcow2_sync,
	.resize = qcow2_resize,
	.map = qcow2_map,
	.close = qcow2_close,
};

static int qcow2_load(struct qcow2 *q, const struct blk_spec *s, unsigned depth, struct err *e)
{
	struct image_check found = { 0 };
	int r = node_read(q->file, 0, q->head, 512);

	if (r)
		return err_set(e, -r, "cannot read %s: %s", q->file->path, strerrordesc_np(-r));
	r = parse_header(q, e);
	if (!r && (r = node_read(q->file, 0, q->head, q->head_len)))
		r = err_set(e, -r, "cannot read %s: %s", q->file->path, strerrordesc_np(-r));
	if (!r)
		r = parse_names(q, e);
	if (!r)
		r = read_tables(q, e);
	if (!r)
		r = open_backing(q, s, depth, e);
	if (r)
		return r;
	q->high = cluster_up(q, q->file->size) >> q->cluster_bits;
	q->n.align = q->file->align > 1 ? q->file->align : 1;
	q->n.physical = (unsigned)MAX(4096u, q->file->physical);
	q->n.discard_granularity = s->discard && !q->n.read_only ? q->cluster_size : 0;
	if (q->dirty && !q->n.read_only && !s->check_only) {
		r = qcow2_check(q, true, &found, e);
		if (r)
			return err_prefix(e, "%s was not closed and cannot be repaired", q->file->path);
	}
	return 0;
}

int qcow2_open(struct node **out, struct aio *a, struct node *file, const struct blk_spec *s, unsigned depth, struct err *e)
{
	struct qcow2 *q = aligned_alloc(4096, (sizeof(*q) + 4095) & ~4095ull);
	int r;

	if (!q) {
		node_close(file);
		return err_set(e, ENOMEM, "no memory for a disk");
	}
	memset(q, 0, sizeof(*q));
	q->n = (struct node){ .ops = &qcow2_ops, .aio = a, .read_only = file->read_only || s->read_only, .path = strdup(s->path) };
	q->file = file;
	q->spec = *s;
	q->spec.backing = NULL;
	q->spec.nbacking = 0;
	q->spec.files = NULL; /* the opener's, as long as it opens */
	if (!q->spec.table_cache)
		q->spec.table_cache = L2_CACHE;
	q->last = &q->first;
	q->job.run = qcow2_serve;
	q->free_hint = 1;
	pthread_mutex_init(&q->slow, NULL);
	pthread_mutex_init(&q->map, NULL);
	pthread_cond_init(&q->quiet, NULL);
	r = q->n.path ? qcow2_load(q, s, depth, e) : err_set(e, ENOMEM, "no memory for a disk");
	if (r) {
		qcow2_dispose(q);
		return r;
	}
	*out = &q->n;
	return 0;
}
