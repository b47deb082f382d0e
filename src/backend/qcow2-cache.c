/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters of metadata in memory. Room for a fixed number; when a clean one must go it is the one not used for longest, when
 * all are dirty they are committed first. Only the part of a table that changed is written, in pieces of 4 KiB.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/qcow2.h"

#define PIECE 4096u

int tables_init(struct tables *t, unsigned n)
{
	t->n = n;
	t->all = calloc(n, sizeof(*t->all));
	t->hash = calloc(n, sizeof(*t->hash));
	return t->all && t->hash ? 0 : -ENOMEM;
}

void tables_dispose(struct tables *t)
{
	for (unsigned i = 0; t->all && i < t->n; i++)
		free(t->all[i].data);
	free(t->all);
	free(t->hash);
}

static struct table **bucket(struct tables *t, uint64_t offset)
{
	return &t->hash[((offset >> 9) * 0x9e3779b97f4a7c15ull >> 32) % t->n];
}

struct table *tables_find(struct tables *t, uint64_t offset)
{
	for (struct table *tab = *bucket(t, offset); tab; tab = tab->chain) {
		if (tab->offset == offset) {
			/* holders of map and of slow may both be here */
			__atomic_store_n(&tab->used, __atomic_add_fetch(&t->clock, 1, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
			return tab;
		}
	}
	return NULL;
}

static void table_unlink(struct tables *t, struct table *tab)
{
	struct table **p = bucket(t, tab->offset);

	while (*p != tab)
		p = &(*p)->chain;
	*p = tab->chain;
	if (tab->dirty_from != tab->dirty_to)
		t->ndirty--;
	tab->dirty_from = tab->dirty_to = 0;
	tab->fresh = false;
	tab->offset = 0;
}

/* An unused or clean one. */
static struct table *table_victim(struct tables *t)
{
	struct table *best = NULL;

	for (unsigned i = 0; i < t->n; i++) {
		struct table *tab = &t->all[i];

		if (!tab->offset)
			return tab;
		if (tab->dirty_from == tab->dirty_to && !tab->fresh && (!best || tab->used < best->used))
			best = tab;
	}
	return best;
}

int qcow2_table(struct qcow2 *q, struct tables *t, uint64_t offset, bool blank, struct table **out)
{
	struct table *tab = tables_find(t, offset);
	uint8_t *data;
	int r = 0;

	if (tab && !blank) {
		*out = tab;
		return 0;
	}
	data = aligned_alloc(4096, MAX(q->cluster_size, 4096u));
	if (!data)
		return -ENOMEM;
	if (blank)
		memset(data, 0, q->cluster_size);
	else
		r = node_read(q->file, offset, data, q->cluster_size);
	if (!r && !table_victim(t))
		r = qcow2_commit(q);
	/* writing refcounts back may have dirtied others again: then a second time writes those */
	if (!r && !table_victim(t))
		r = qcow2_commit(q);
	if (!r && !table_victim(t))
		r = -ENOMEM;
	if (r) {
		free(data);
		return r;
	}
	pthread_mutex_lock(&q->map);
	tab = tables_find(t, offset);
	if (!tab)
		tab = table_victim(t);
	if (tab->offset)
		table_unlink(t, tab);
	free(tab->data);
	tab->data = data;
	tab->offset = offset;
	tab->used = __atomic_add_fetch(&t->clock, 1, __ATOMIC_RELAXED);
	tab->chain = *bucket(t, offset);
	*bucket(t, offset) = tab;
	pthread_mutex_unlock(&q->map);
	*out = tab;
	return 0;
}

void table_drop(struct qcow2 *q, struct tables *t, uint64_t offset)
{
	struct table *tab;

	pthread_mutex_lock(&q->map);
	tab = tables_find(t, offset);
	if (tab)
		table_unlink(t, tab);
	pthread_mutex_unlock(&q->map);
}

void tables_forget(struct qcow2 *q, struct tables *t)
{
	pthread_mutex_lock(&q->map);
	for (unsigned i = 0; i < t->n; i++)
		if (t->all[i].offset)
			table_unlink(t, &t->all[i]);
	pthread_mutex_unlock(&q->map);
}

void table_dirty(struct tables *t, struct table *tab, uint64_t from, uint64_t len)
{
	if (tab->dirty_from == tab->dirty_to) {
		t->ndirty++;
		tab->dirty_from = (uint32_t)from;
		tab->dirty_to = (uint32_t)(from + len);
		return;
	}
	tab->dirty_from = MIN(tab->dirty_from, (uint32_t)from);
	tab->dirty_to = MAX(tab->dirty_to, (uint32_t)(from + len));
}

int tables_write(struct qcow2 *q, struct tables *t, bool fresh_only)
{
	for (unsigned i = 0; i < t->n && t->ndirty; i++) {
		struct table *tab = &t->all[i];
		uint32_t from = tab->dirty_from & ~(PIECE - 1), to;
		int r;

		if (!tab->offset || tab->dirty_from == tab->dirty_to || (fresh_only && !tab->fresh))
			continue;
		to = (uint32_t)MIN((tab->dirty_to + PIECE - 1) & ~(PIECE - 1), q->cluster_size);
		r = node_write(q->file, tab->offset + from, tab->data + from, to - from);
		if (r)
			return r;
		tab->dirty_from = tab->dirty_to = 0;
		t->ndirty--;
	}
	return 0;
}
