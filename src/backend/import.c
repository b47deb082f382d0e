/* SPDX-License-Identifier: Apache-2.0 */
/* What the formats for reading share: splitting requests into blocks, and opening. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/import.h"

int import_bad(struct import *i, struct err *e, const char *what)
{
	return err_set(e, EINVAL, "%s cannot be read: %s", i->file->path, what);
}

static int read_block(struct import *i, uint64_t at, uint64_t within, uint64_t length, const struct block_request *r, uint64_t skip)
{
	uint8_t *buf;
	int e = 0;

	if (i->unpack) {
		if (!i->plain)
			i->plain = malloc(i->block);
		if (!i->plain)
			return -ENOMEM;
		if (i->plain_at != at) {
			i->plain_at = 0;
			e = i->unpack(i, at, i->plain);
		}
		if (!e) {
			i->plain_at = at;
			iov_from_buf(r->iov, r->iovcnt, skip, i->plain + within, length);
		}
		return e;
	}
	buf = malloc(length);
	if (!buf)
		return -ENOMEM;
	e = node_read(i->file, at + within, buf, length);
	if (!e)
		iov_from_buf(r->iov, r->iovcnt, skip, buf, length);
	free(buf);
	return e;
}

static int import_sync(struct node *n, struct block_request *r)
{
	struct import *i = container_of(n, struct import, n);
	int e = 0;

	if (r->op == BLOCK_FLUSH)
		return 0;
	if (r->op != BLOCK_READ)
		return -EROFS;
	pthread_mutex_lock(&i->lock);
	for (uint64_t done = 0, part; !e && done < r->length; done += part) {
		uint64_t offset = r->offset + done, within = offset % i->block, at;

		part = MIN(i->block - within, r->length - done);
		e = i->find(i, offset / i->block, &at);
		if (!e && at == IMPORT_ZERO)
			iov_fill(r->iov, r->iovcnt, done, part, 0);
		else if (!e)
			e = read_block(i, at, within, part, r, done);
	}
	pthread_mutex_unlock(&i->lock);
	return e;
}

static int import_map(struct node *n, uint64_t offset, uint64_t length, struct block_extent *out)
{
	struct import *i = container_of(n, struct import, n);
	uint64_t at;
	int e;

	pthread_mutex_lock(&i->lock);
	e = i->find(i, offset / i->block, &at);
	*out = (struct block_extent){ .length = MIN(length, i->block - offset % i->block) };
	out->zero = at == IMPORT_ZERO;
	out->allocated = !out->zero;
	out->compressed = out->allocated && i->unpack;
	out->has_host = out->allocated && !i->unpack;
	out->host = out->has_host ? at + offset % i->block : 0;
	while (!e && out->zero && out->length < length) {
		e = i->find(i, (offset + out->length) / i->block, &at);
		if (e || at != IMPORT_ZERO)
			break;
		out->length = MIN(length, out->length + i->block);
	}
	pthread_mutex_unlock(&i->lock);
	return e;
}

static void import_close(struct node *n)
{
	struct import *i = container_of(n, struct import, n);

	node_close(i->file);
	pthread_mutex_destroy(&i->lock);
	free(i->table32);
	free(i->table64);
	free(i->cached);
	free(i->plain);
	free(n->path);
	free(i);
}

static const struct node_ops import_ops = { .name = "import", .submit = node_submit_by_sync, .sync = import_sync, .map = import_map,
					    .close = import_close };

int import_open(struct node **out, struct aio *a, struct node *file, const struct blk_spec *s, struct err *e)
{
	struct import *i = calloc(1, sizeof(*i));
	int r;

	if (!i) {
		node_close(file);
		return err_set(e, ENOMEM, "no memory for a disk");
	}
	i->file = file;
	i->n = (struct node){ .ops = &import_ops, .aio = a, .read_only = true, .align = 1, .physical = 4096, .path = strdup(s->path) };
	pthread_mutex_init(&i->lock, NULL);
	if (!i->n.path)
		r = err_set(e, ENOMEM, "no memory for a disk");
	else if (!s->read_only)
		r = err_set(e, EROFS, "%s: images in the format %s can only be read; add readonly, or convert it with "
			    "'ospite image convert'", s->path, s->format);
	else
		r = !strcmp(s->format, "vdi") ? vdi_parse(i, e) : !strcmp(s->format, "vmdk") ? vmdk_parse(i, e) : vhdx_parse(i, e);
	if (!r && (!i->block || i->block % BLOCK_SECTOR || i->block > 256u << 20 || i->n.size > INT64_MAX))
		r = import_bad(i, e, "its block size is impossible");
	if (r) {
		import_close(&i->n);
		return r;
	}
	i->n.size = (i->n.size + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
	*out = &i->n;
	return 0;
}
