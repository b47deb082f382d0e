/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internal snapshots: an L1 table each, whose tables and clusters are shared by count. Making, deleting and going back
 * change counts in many places; meanwhile the dirty bit is set, and the header is written once all it needs is on disk, so that a
 * crash finds either the list as it was or as it shall be, and rebuilds the counts to fit.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "backend/qcow2.h"

#define LIST_MAX (64u << 20) /* bytes; no list has nearly as many */

struct disk_snapshot {
	uint64_t l1_offset;
	uint32_t l1_size;
	uint16_t id_len, name_len;
	uint32_t seconds, nanoseconds;
	uint64_t clock;
	uint32_t vm_state, extra;
} __attribute__((packed));

void snapshots_dispose(struct qcow2 *q)
{
	for (unsigned i = 0; i < q->nsnapshots; i++) {
		free(q->snapshots[i].id);
		free(q->snapshots[i].name);
	}
	free(q->snapshots);
	q->snapshots = NULL;
	q->nsnapshots = 0;
}

static int snapshot_load(struct qcow2 *q, uint64_t *at, struct snapshot *s)
{
	struct disk_snapshot d;
	uint64_t extra[3] = { 0 }, next;
	uint32_t nextra, id, name;
	int r = node_read(q->file, *at, &d, sizeof(d));

	if (r)
		return r;
	nextra = be32toh(d.extra);
	id = be16toh(d.id_len);
	name = be16toh(d.name_len);
	if (nextra > 1024)
		return -EINVAL;
	next = *at + sizeof(d);
	r = node_read(q->file, next, extra, MIN(nextra, sizeof(extra)) & ~7u);
	next += nextra;
	*s = (struct snapshot){ .l1_offset = be64toh(d.l1_offset), .l1_size = be32toh(d.l1_size), .seconds = be32toh(d.seconds),
				.nanoseconds = be32toh(d.nanoseconds), .clock = be64toh(d.clock), .vm_state_size = be32toh(d.vm_state),
				.id = calloc(1, id + 1), .name = calloc(1, name + 1) };
	if (nextra >= 8)
		s->vm_state_size = be64toh(extra[0]);
	s->has_disk_size = nextra >= 16;
	s->disk_size = s->has_disk_size ? be64toh(extra[1]) : q->n.size;
	s->has_icount = nextra >= 24;
	s->icount = be64toh(extra[2]);
	if (!r)
		r = s->id && s->name ? node_read(q->file, next, s->id, id) : -ENOMEM;
	if (!r)
		r = node_read(q->file, next + id, s->name, name);
	if (!r && ((uint64_t)s->l1_size * 8 > L1_MAX || s->l1_offset & (q->cluster_size - 1) || s->l1_offset > OFFSET_MASK ||
		   s->disk_size > INT64_MAX))
		r = -EINVAL;
	*at = (next + id + name + 7) & ~7ull;
	return r;
}

int snapshots_load(struct qcow2 *q, struct err *e)
{
	uint32_t n = be32toh(header_of(q)->nsnapshots);
	uint64_t at = be64toh(header_of(q)->snapshots_offset);

	if (!n)
		return 0;
	if (n > SNAPSHOTS_MAX || at > OFFSET_MASK)
		return err_set(e, EINVAL, "%s: its list of snapshots is not where one can be", q->file->path);
	q->snapshots = calloc(n, sizeof(*q->snapshots));
	if (!q->snapshots)
		return err_set(e, ENOMEM, "no memory for a disk's snapshots");
	for (unsigned i = 0; i < n; i++) {
		int r = snapshot_load(q, &at, &q->snapshots[i]);

		q->nsnapshots = i + 1;
		if (at - be64toh(header_of(q)->snapshots_offset) > LIST_MAX)
			return err_set(e, EFBIG, "%s: its list of snapshots is too long", q->file->path);
		if (r)
			return err_set(e, -r, "%s: cannot read snapshot %u", q->file->path, i + 1);
	}
	return 0;
}

/* The list as bytes, `bytes` long. */
static uint8_t *list_build(const struct qcow2 *q, const struct snapshot *list, unsigned n, uint64_t *bytes)
{
	uint64_t room = 0, at = 0;
	uint8_t *out;

	for (unsigned i = 0; i < n; i++)
		room += sizeof(struct disk_snapshot) + 24 + strlen(list[i].id) + strlen(list[i].name) + 8;
	out = calloc(1, cluster_up(q, room + 1));
	for (unsigned i = 0; out && i < n; i++) {
		const struct snapshot *s = &list[i];
		uint64_t extra[3] = { htobe64(s->vm_state_size), htobe64(s->disk_size), htobe64(s->icount) };
		uint32_t nextra = s->has_icount ? 24 : 16;
		struct disk_snapshot d = {
			.l1_offset = htobe64(s->l1_offset), .l1_size = htobe32(s->l1_size), .id_len = htobe16((uint16_t)strlen(s->id)),
			.name_len = htobe16((uint16_t)strlen(s->name)), .seconds = htobe32(s->seconds),
			.nanoseconds = htobe32(s->nanoseconds), .clock = htobe64(s->clock),
			.vm_state = htobe32((uint32_t)MIN(s->vm_state_size, UINT32_MAX)), .extra = htobe32(nextra),
		};

		memcpy(out + at, &d, sizeof(d));
		at += sizeof(d);
		memcpy(out + at, extra, nextra);
		at += nextra;
		memcpy(out + at, s->id, strlen(s->id));
		at += strlen(s->id);
		memcpy(out + at, s->name, strlen(s->name));
		at = (at + strlen(s->name) + 7) & ~7ull;
	}
	*bytes = at;
	return out;
}

/* A new list on disk, and the header refers to it. The old one's clusters become free. */
static int list_write(struct qcow2 *q, const struct snapshot *list, unsigned n)
{
	struct qcow2_header *h = header_of(q), before = *h;
	uint64_t bytes, old_bytes, cluster = 0, clusters;
	uint8_t *disk = list_build(q, list, n, &bytes), *old;
	int r = disk ? 0 : -ENOMEM;

	clusters = cluster_up(q, bytes) >> q->cluster_bits;
	if (!r && clusters)
		r = clusters_alloc_all(q, clusters, &cluster);
	if (!r && clusters)
		r = node_write(q->file, cluster << q->cluster_bits, disk, clusters << q->cluster_bits);
	free(disk);
	if (!r)
		r = qcow2_commit(q);
	if (r)
		return r;
	h->nsnapshots = htobe32(n);
	h->snapshots_offset = htobe64(cluster << q->cluster_bits);
	r = header_write(q);
	if (r) {
		*h = before;
		return r;
	}
	if (!before.nsnapshots)
		return 0;
	old = list_build(q, q->snapshots, q->nsnapshots, &old_bytes);
	free(old);
	/* its length may have differed if another program wrote it; a cluster too few is a leak the check finds */
	return clusters_free_later(q, be64toh(before.snapshots_offset) >> q->cluster_bits, cluster_up(q, MAX(old_bytes, 1u)) >> q->cluster_bits);
}

/* ---- counts of everything an L1 table refers to */

static int entries_add(struct qcow2 *q, uint64_t table_offset, int add)
{
	uint64_t *copy = malloc(q->cluster_size);
	struct table *t;
	int r = copy ? qcow2_table(q, &q->l2, table_offset, false, &t) : -ENOMEM;

	if (!r)
		memcpy(copy, t->data, q->cluster_size);
	for (uint64_t i = 0; !r && i < BIT(q->l2_bits); i++) {
		uint64_t entry = be64toh(copy[i]), bytes, offset = entry & OFFSET_MASK, n = offset != 0;

		if (entry_is_bad(q, entry)) {
			r = entry ? -EIO : 0;
			continue;
		}
		if (add < 0) {
			r = entry_free_later(q, entry);
			continue;
		}
		if (entry & L2_COMPRESSED) {
			offset = entry_compressed(q, entry, &bytes);
			n = ((offset + bytes - 1) >> q->cluster_bits) - (offset >> q->cluster_bits) + 1;
		}
		r = n ? refcount_add(q, offset >> q->cluster_bits, n, 1) : 0;
	}
	free(copy);
	return r;
}

static int l1_add(struct qcow2 *q, const uint64_t *l1, uint64_t n, int add)
{
	int r = 0;

	for (uint64_t i = 0; !r && i < n; i++) {
		uint64_t offset = l1[i] & OFFSET_MASK;

		if (!offset)
			continue;
		if (offset & (q->cluster_size - 1))
			return -EIO;
		r = entries_add(q, offset, add);
		if (!r)
			r = add < 0 ? clusters_free_later(q, offset >> q->cluster_bits, 1) :
				      refcount_add(q, offset >> q->cluster_bits, 1, 1);
	}
	return r;
}

static uint64_t copied_flag(struct qcow2 *q, uint64_t entry, int *r)
{
	uint64_t count, offset = entry & OFFSET_MASK;

	if (entry & L2_COMPRESSED || !offset || *r)
		return entry;
	*r = refcount_get(q, offset >> q->cluster_bits, &count);
	return count == 1 ? entry | L2_COPIED : entry & ~L2_COPIED;
}

/* Set or clear "this is mine alone" in the active tables, as the counts say. Shared tables are left as they are written. */
int copied_fix(struct qcow2 *q)
{
	int r = 0;

	for (uint64_t i = 0; !r && i < q->l1_size; i++) {
		uint64_t old = q->l1[i], new = copied_flag(q, old, &r);
		struct table *t;

		if (r || !(old & OFFSET_MASK))
			continue;
		if (new != old) {
			pthread_mutex_lock(&q->map);
			q->l1[i] = new;
			q->l1_dirty[i / 64] = 1;
			q->any_l1_dirty = true;
			pthread_mutex_unlock(&q->map);
		}
		for (uint64_t k = 0; !r && k < BIT(q->l2_bits); k++) {
			uint64_t entry, want;

			r = qcow2_table(q, &q->l2, old & OFFSET_MASK, false, &t);
			if (r)
				break;
			entry = be64toh(((uint64_t *)t->data)[k]);
			if (!entry)
				continue;
			want = copied_flag(q, entry, &r);
			if (!r && want != entry)
				l2_set(q, t, k << q->cluster_bits, want);
		}
	}
	return r;
}

/* ---- the three operations, under slow */

static int operation_begin(struct qcow2 *q)
{
	int r = qcow2_begin_write(q);

	q->all_rc = true;
	if (!r)
		r = qcow2_set_dirty(q, true);
	if (!r)
		r = qcow2_commit(q);
	return r;
}

static int operation_end(struct qcow2 *q, int r)
{
	/* twice: the first frees, which changes counts, which the second writes */
	if (!r)
		r = qcow2_commit(q);
	if (!r)
		r = copied_fix(q);
	if (!r)
		r = qcow2_commit(q);
	if (!r && !q->lazy)
		r = qcow2_set_dirty(q, false);
	q->all_rc = false;
	return r;
}

static int find(const struct qcow2 *q, const char *name)
{
	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < q->nsnapshots; i++)
			if (!strcmp(pass ? q->snapshots[i].id : q->snapshots[i].name, name))
				return (int)i;
	return -1;
}

static int create_slow(struct qcow2 *q, const char *name)
{
	uint64_t bytes = cluster_up(q, q->l1_size * 8), cluster, *disk = calloc(1, MAX(bytes, 8u));
	struct snapshot *list = calloc(q->nsnapshots + 1, sizeof(*list)), *s;
	unsigned long id = 0;
	struct timespec now;
	char text[24];
	int r = list && disk ? operation_begin(q) : -ENOMEM;

	if (r)
		goto out;
	for (unsigned i = 0; i < q->nsnapshots; i++) {
		list[i] = q->snapshots[i];
		id = MAX(id, strtoul(list[i].id, NULL, 10));
	}
	snprintf(text, sizeof(text), "%lu", id + 1);
	clock_gettime(CLOCK_REALTIME, &now);
	s = &list[q->nsnapshots];
	*s = (struct snapshot){ .l1_size = (uint32_t)q->l1_size, .seconds = (uint32_t)now.tv_sec,
				.nanoseconds = (uint32_t)now.tv_nsec, .disk_size = q->n.size, .has_disk_size = true,
				.id = strdup(text), .name = strdup(name) };
	r = s->id && s->name ? 0 : -ENOMEM;
	if (!r && bytes)
		r = clusters_alloc_all(q, bytes >> q->cluster_bits, &cluster);
	if (!r && bytes) {
		s->l1_offset = cluster << q->cluster_bits;
		r = l1_add(q, q->l1, q->l1_size, 1);
	}
	/* from here on nothing active may be written in place; wait for what is being written */
	if (!r)
		r = copied_fix(q);
	qcow2_quiesce(q);
	for (uint64_t i = 0; i < q->l1_size; i++)
		disk[i] = htobe64(q->l1[i] & OFFSET_MASK);
	if (!r && bytes)
		r = node_write(q->file, s->l1_offset, disk, bytes);
	if (!r)
		r = list_write(q, list, q->nsnapshots + 1);
	if (!r) {
		free(q->snapshots);
		q->snapshots = list;
		q->nsnapshots++;
		list = NULL;
	} else {
		free(s->id);
		free(s->name);
	}
	r = operation_end(q, r);
out:
	free(list);
	free(disk);
	return r;
}

static int l1_read(struct qcow2 *q, const struct snapshot *s, uint64_t **out)
{
	int r;

	*out = calloc(MAX(s->l1_size, 1u), 8);
	r = *out ? node_read(q->file, s->l1_offset, *out, (uint64_t)s->l1_size * 8) : -ENOMEM;
	for (uint64_t i = 0; !r && i < s->l1_size; i++)
		(*out)[i] = be64toh((*out)[i]) & OFFSET_MASK;
	return r;
}

static int delete_slow(struct qcow2 *q, unsigned which)
{
	struct snapshot *list = calloc(q->nsnapshots, sizeof(*list)), gone = q->snapshots[which];
	uint64_t *l1 = NULL;
	unsigned n = 0;
	int r = list ? l1_read(q, &gone, &l1) : -ENOMEM;

	for (unsigned i = 0; !r && i < q->nsnapshots; i++)
		if (i != which)
			list[n++] = q->snapshots[i];
	if (!r)
		r = operation_begin(q);
	if (!r)
		r = list_write(q, list, n);
	if (r)
		goto out;
	free(q->snapshots);
	q->snapshots = list;
	q->nsnapshots = n;
	list = NULL;
	r = l1_add(q, l1, gone.l1_size, -1);
	if (!r && gone.l1_size)
		r = clusters_free_later(q, gone.l1_offset >> q->cluster_bits, cluster_up(q, (uint64_t)gone.l1_size * 8) >> q->cluster_bits);
	free(gone.id);
	free(gone.name);
	r = operation_end(q, r);
out:
	free(list);
	free(l1);
	return r;
}

static int apply_slow(struct qcow2 *q, unsigned which)
{
	const struct snapshot *s = &q->snapshots[which];
	uint64_t *l1 = NULL, *old = calloc(MAX(q->l1_size, 1u), 8), n = q->l1_size, size;
	int r = old ? l1_read(q, s, &l1) : -ENOMEM;

	if (!r)
		r = operation_begin(q);
	if (!r)
		r = l1_add(q, l1, s->l1_size, 1);
	if (r)
		goto out;
	memcpy(old, q->l1, n * 8);
	size = (s->disk_size + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
	r = l1_switch(q, l1, s->l1_size, MAX(s->l1_size, n), size);
	if (!r)
		r = l1_add(q, old, n, -1);
out:
	r = operation_end(q, r);
	free(old);
	free(l1);
	return r;
}

/* ---- from outside */

static struct qcow2 *qcow2_with_snapshots(struct block *b, bool write, struct err *e)
{
	struct node *n = block_node(b);

	if (strcmp(n->ops->name, "qcow2")) {
		err_set(e, ENOTSUP, "%s: only qcow2 images have snapshots", n->path);
		return NULL;
	}
	if (write && n->read_only) {
		err_set(e, EROFS, "%s is open for reading only", n->path);
		return NULL;
	}
	return qcow2_of(n);
}

bool image_snapshot_get(struct block *b, unsigned i, struct image_snapshot *out)
{
	struct qcow2 *q = qcow2_with_snapshots(b, false, NULL);
	struct snapshot *s;

	if (!q || i >= q->nsnapshots)
		return false;
	s = &q->snapshots[i];
	*out = (struct image_snapshot){ s->id, s->name, s->seconds, s->nanoseconds, s->disk_size, s->vm_state_size };
	return true;
}

static int finish(struct qcow2 *q, int r, const char *what, const char *name, struct err *e)
{
	pthread_mutex_unlock(&q->slow);
	return r ? err_set(e, -r, "cannot %s snapshot '%.100s' of %s: %s", what, name, q->n.path, strerrordesc_np(-r)) : 0;
}

int image_snapshot_create(struct block *b, const char *name, struct err *e)
{
	struct qcow2 *q = qcow2_with_snapshots(b, true, e);

	if (!q)
		return e ? -e->code : -ENOTSUP;
	if (!*name || strlen(name) > 255)
		return err_set(e, EINVAL, "a snapshot's name has 1 to 255 bytes");
	if (find(q, name) >= 0)
		return err_set(e, EEXIST, "%s has a snapshot '%s' already", q->n.path, name);
	if (q->nsnapshots == SNAPSHOTS_MAX)
		return err_set(e, E2BIG, "%s has %u snapshots, more do not fit", q->n.path, SNAPSHOTS_MAX);
	pthread_mutex_lock(&q->slow);
	return finish(q, create_slow(q, name), "make", name, e);
}

int image_snapshot_apply(struct block *b, const char *name, struct err *e)
{
	struct qcow2 *q = qcow2_with_snapshots(b, true, e);
	int i = q ? find(q, name) : -1;

	if (!q)
		return e ? -e->code : -ENOTSUP;
	if (i < 0)
		return err_set(e, ENOENT, "%s has no snapshot '%.100s'", q->n.path, name);
	pthread_mutex_lock(&q->slow);
	return finish(q, apply_slow(q, (unsigned)i), "go back to", name, e);
}

int image_snapshot_delete(struct block *b, const char *name, struct err *e)
{
	struct qcow2 *q = qcow2_with_snapshots(b, true, e);
	int i = q ? find(q, name) : -1;

	if (!q)
		return e ? -e->code : -ENOTSUP;
	if (i < 0)
		return err_set(e, ENOENT, "%s has no snapshot '%.100s'", q->n.path, name);
	pthread_mutex_lock(&q->slow);
	return finish(q, delete_slow(q, (unsigned)i), "delete", name, e);
}
