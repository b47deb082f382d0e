/* SPDX-License-Identifier: Apache-2.0 */
/* Making images, and asking about them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backend/qcow2.h"

static struct qcow2 *qcow2_in(struct block *b)
{
	struct node *n = block_node(b);

	return strcmp(n->ops->name, "qcow2") ? NULL : qcow2_of(n);
}

/* ---- header and names, the first cluster of a qcow2 image */

static size_t put_extension(uint8_t *at, uint32_t type, const char *data, size_t n)
{
	uint32_t head[2] = { htobe32(type), htobe32((uint32_t)n) };

	memcpy(at, head, 8);
	memcpy(at + 8, data, n);
	return 8 + ((n + 7) & ~7u);
}

static int put_names(uint8_t *cluster, uint64_t cluster_size, const char *backing, const char *format, struct err *e)
{
	struct qcow2_header *h = (struct qcow2_header *)cluster;
	size_t at = be32toh(h->version) == 2 ? 72 : be32toh(h->length);

	memset(cluster + at, 0, cluster_size - at);
	h->backing_offset = 0;
	h->backing_size = 0;
	if (!backing)
		return 0;
	if (strlen(backing) > 1023 || at + 64 + strlen(backing) > cluster_size)
		return err_set(e, ENAMETOOLONG, "the backing file's name does not fit into the image's header");
	if (format)
		at += put_extension(cluster + at, EXT_BACKING_FORMAT, format, strlen(format));
	at += put_extension(cluster + at, 0, "", 0);
	memcpy(cluster + at, backing, strlen(backing));
	h->backing_offset = htobe64(at);
	h->backing_size = htobe32((uint32_t)strlen(backing));
	return 0;
}

static int write_empty_qcow2(int fd, const struct image_create *c, struct err *e)
{
	uint64_t size = c->cluster_size ? c->cluster_size : 65536;
	uint8_t *head = calloc(3, size);
	struct qcow2_header *h = (struct qcow2_header *)head;
	uint64_t entry = htobe64(2 * size);
	size_t done = 0;
	int r;

	if (!head)
		return err_set(e, ENOMEM, "no memory for an image");
	*h = (struct qcow2_header){
		.magic = htobe32(QCOW2_MAGIC), .version = htobe32(3), .cluster_bits = htobe32((uint32_t)__builtin_ctzll(size)),
		.rt_offset = htobe64(size), .rt_clusters = htobe32(1),
		.incompatible = htobe64(c->zstd ? INCOMPAT_COMPRESSION : 0), .compatible = htobe64(c->lazy_refcounts ? COMPAT_LAZY : 0),
		.refcount_order = htobe32(4), .length = htobe32(112), .compression = c->zstd,
	};
	r = put_names(head, size, c->backing, c->backing_format, e);
	memcpy(head + size, &entry, 8);
	for (unsigned i = 0; i < 3; i++)
		((uint16_t *)(head + 2 * size))[i] = htobe16(1);
	while (!r && done < 3 * size) { /* the second attempt says why the first one wrote a part only */
		ssize_t n = pwrite(fd, head + done, 3 * size - done, (off_t)done);

		if (n < 0)
			r = err_errno(e, "cannot write %s", c->path);
		done += (size_t)MAX(n, 0);
	}
	free(head);
	return r;
}

/* ---- */

static int check_create(const struct image_create *c, struct err *e)
{
	if (strcmp(c->format, "raw") && strcmp(c->format, "qcow2"))
		return err_set(e, EINVAL, "images can be made in the formats raw and qcow2, not '%.20s'", c->format);
	if (!strcmp(c->format, "raw") && (c->backing || c->cluster_size || c->lazy_refcounts || c->zstd))
		return err_set(e, EINVAL, "a raw image has no backing file, clusters or compression; use --format qcow2");
	if (!strcmp(c->format, "raw") && c->preallocation == IMAGE_METADATA)
		return err_set(e, EINVAL, "a raw image has no metadata; use --preallocation off, falloc or full");
	if (c->cluster_size && (c->cluster_size < 512 || c->cluster_size > 2u << 20 || c->cluster_size & (c->cluster_size - 1)))
		return err_set(e, EINVAL, "a cluster has a power of two of bytes from 512 to 2M");
	if (c->backing && !c->backing_format)
		return err_set(e, EINVAL, "say the backing file's format, which is never guessed: --backing-format raw|qcow2");
	if (c->backing && c->preallocation != IMAGE_SPARSE)
		return err_set(e, EINVAL, "an image with a backing file cannot be preallocated");
	return 0;
}

static int preallocate_raw(int fd, const struct image_create *c, struct err *e)
{
	if (c->preallocation == IMAGE_SPARSE)
		return 0;
	if (c->preallocation == IMAGE_FALLOC)
		return fallocate(fd, 0, 0, (off_t)c->size) ? err_errno(e, "cannot allocate %s", c->path) : 0;
	for (uint64_t at = 0; at < c->size;) {
		static const uint8_t zeroes[65536];
		ssize_t n = pwrite(fd, zeroes, MIN(sizeof(zeroes), c->size - at), (off_t)at);

		if (n < 0)
			return err_errno(e, "cannot write %s", c->path);
		at += (uint64_t)n;
		if (c->progress)
			c->progress(c->opaque, at, c->size);
	}
	return 0;
}

/* Comma is what ends a value in a spec. */
static char *spec_of(const char *prefix, const char *path)
{
	char *out = malloc(strlen(prefix) + 2 * strlen(path) + 1), *p = out;

	if (!out)
		return NULL;
	p = stpcpy(p, prefix);
	for (; *path; path++) {
		*p++ = *path;
		if (*path == ',')
			*p++ = ',';
	}
	*p = 0;
	return out;
}

static int fill_qcow2(const struct image_create *c, uint64_t size, struct err *e)
{
	struct blk_spec s = { .format = "qcow2", .no_backing = true, .no_lock = true, .discard = true };
	struct node *top;
	struct block *b;
	struct aio *a;
	int r;

	snprintf(s.path, sizeof(s.path), "%s", c->path);
	a = aio_create(true, e);
	if (!a)
		return -ENOMEM;
	r = blk_open_node(&top, a, &s, 0, e);
	if (r) {
		aio_destroy(a);
		return r;
	}
	r = block_wrap(&b, a, top, &s, e);
	if (r)
		return r;
	r = size ? block_resize(b, size, e) : 0;
	if (!r && c->preallocation != IMAGE_SPARSE)
		r = qcow2_preallocate(qcow2_of(top), 0, size, c->preallocation, e);
	if (!r && (r = node_flush(top)))
		r = err_set(e, -r, "cannot write %s: %s", c->path, strerrordesc_np(-r));
	block_close(b);
	return r;
}

/* As the new image will find it: a relative name is meant beside the image. */
static int backing_size(const struct image_create *c, uint64_t *size, struct err *e)
{
	const char *slash = strrchr(c->path, '/');
	char path[2 * BLK_PATH], prefix[64], *spec;
	struct block_info info;
	struct block *b;
	int r;

	if (slash && c->backing[0] != '/')
		snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - c->path), c->path, c->backing);
	else
		snprintf(path, sizeof(path), "%s", c->backing);
	snprintf(prefix, sizeof(prefix), "readonly,format=%.10s,%sfile=", c->backing_format,
		 strcmp(c->backing_format, "qcow2") ? "" : "backing=header,");
	spec = spec_of(prefix, path);
	if (!spec)
		return err_set(e, ENOMEM, "no memory");
	r = block_open(&b, &(struct block_config){ .spec = spec, .read_only = true }, e);
	free(spec);
	if (r)
		return err_prefix(e, "backing file");
	block_get_info(b, &info);
	block_close(b);
	*size = info.size;
	return 0;
}

int image_create(const struct image_create *c, struct err *e)
{
	bool raw = !strcmp(c->format, "raw");
	uint64_t size = c->size, from_backing = 0;
	int r = check_create(c, e), fd _close_ = -1;

	if (!r && c->backing)
		r = backing_size(c, &from_backing, e);
	if (r)
		return r;
	size = size ? (size + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1) : from_backing;
	if (strlen(c->path) >= BLK_PATH)
		return err_set(e, ENAMETOOLONG, "a file's name has at most %u characters", BLK_PATH - 1);
	fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | (c->replace ? 0 : O_EXCL), 0600);
	if (fd < 0 && errno == EEXIST)
		return err_set(e, EEXIST, "%s exists already; --force replaces it", c->path);
	if (fd < 0)
		return err_errno(e, "cannot create %s", c->path);
	if (file_in_use(fd))
		return err_set(e, EBUSY, "%s is in use by another process", c->path);
	if (ftruncate(fd, 0) || (raw && ftruncate(fd, (off_t)size))) {
		struct stat st;

		if (fstat(fd, &st) || !S_ISBLK(st.st_mode))
			r = err_errno(e, "cannot resize %s", c->path);
	}
	if (!r && raw)
		r = preallocate_raw(fd, c, e);
	else if (!r)
		r = write_empty_qcow2(fd, c, e);
	if (!r && !raw)
		r = fill_qcow2(c, size, e);
	if (!r && fsync(fd))
		r = err_errno(e, "cannot write %s", c->path);
	if (r && !c->replace)
		unlink(c->path);
	return r;
}

int image_check(struct block *b, bool repair, struct image_check *out, struct err *e)
{
	out->progress = NULL;
	return image_check_telling(b, repair, out, e);
}

int image_check_telling(struct block *b, bool repair, struct image_check *out, struct err *e)
{
	struct qcow2 *q = qcow2_in(b);
	int r;

	if (!q)
		return err_set(e, EOPNOTSUPP, "%s: only qcow2 images have something to check", block_node(b)->path);
	if (repair && q->n.read_only)
		return err_set(e, EROFS, "%s is open for reading only", q->n.path);
	pthread_mutex_lock(&q->slow);
	r = qcow2_check(q, repair, out, e);
	pthread_mutex_unlock(&q->slow);
	return r;
}

void image_get_details(struct block *b, struct image_details *d)
{
	struct qcow2 *q = qcow2_in(b);
	struct stat st;

	*d = (struct image_details){ 0 };
	if (!stat(block_node(b)->path, &st))
		d->disk_bytes = (uint64_t)st.st_blocks * 512;
	if (!q)
		return;
	d->cluster_size = q->cluster_size;
	d->version = q->v2 ? 2 : 3;
	d->refcount_bits = 1u << q->refcount_order;
	d->lazy_refcounts = q->lazy;
	d->dirty = q->dirty;
	d->corrupt = !q->v2 && be64toh(header_of(q)->incompatible) & INCOMPAT_CORRUPT;
	d->compression = q->zstd_type ? "zstd" : "zlib";
	d->backing = q->backing_name;
	d->backing_format = q->backing_format[0] ? q->backing_format : NULL;
}

int image_write_compressed(struct block *b, uint64_t offset, const void *data, uint64_t length)
{
	struct qcow2 *q = qcow2_in(b);
	uint8_t *whole;
	int r;

	if (!q)
		return -EOPNOTSUPP;
	if (q->n.read_only)
		return -EROFS;
	if (offset & (q->cluster_size - 1) || !length || length > q->cluster_size || !range_fits(offset, length, q->n.size))
		return -EINVAL;
	whole = calloc(1, q->cluster_size);
	if (!whole)
		return -ENOMEM;
	memcpy(whole, data, length);
	pthread_mutex_lock(&q->slow);
	r = zip_write(q, offset, whole);
	pthread_mutex_unlock(&q->slow);
	free(whole);
	return r;
}

int image_set_backing(struct block *b, const char *backing, const char *format, struct err *e)
{
	struct qcow2 *q = qcow2_in(b);
	uint8_t *cluster;
	int r;

	if (!q || q->n.read_only)
		return err_set(e, EOPNOTSUPP, "%s: only qcow2 images that may be written have a backing file", block_node(b)->path);
	cluster = calloc(1, q->cluster_size);
	if (!cluster)
		return err_set(e, ENOMEM, "no memory");
	pthread_mutex_lock(&q->slow);
	memcpy(cluster, q->head, q->head_len);
	r = put_names(cluster, q->cluster_size, backing, format, e);
	if (!r) {
		r = node_write(q->file, 0, cluster, q->cluster_size);
		if (!r)
			r = node_flush(q->file);
		if (r)
			err_set(e, -r, "cannot write %s: %s", q->n.path, strerrordesc_np(-r));
		else
			memcpy(q->head, cluster, q->head_len);
	}
	pthread_mutex_unlock(&q->slow);
	return r;
}
