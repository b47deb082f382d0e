/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flat view: sorted, disjoint ranges, made from the regions in the order they were mapped, later ones over
 * earlier ones. An alias shows what lies at its target with all aliases left out, whenever that was mapped.
 *
 * Invariant: RAM and ROM ranges of the view start and end on page boundaries, so that whoever maps pages need not
 * look further. Where a region that does not keep to pages (a small BAR put over RAM by a hostile guest) leaves
 * part of a RAM page, that part becomes an IO range which reads and writes the RAM's bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "mem/private.h"

static int view_push(struct mem_view *v, const struct mem_range *r)
{
	if (v->count == v->cap) {
		unsigned cap = v->cap ? v->cap * 2 : 32;
		struct mem_range *range = reallocarray(v->range, cap, sizeof(*range));

		if (!range)
			return -ENOMEM;
		v->range = range;
		v->cap = cap;
	}
	v->range[v->count++] = *r;
	return 0;
}

/* The part of r within [start, end); it must not be empty. */
static struct mem_range range_cut(const struct mem_range *r, gpa_t start, gpa_t end)
{
	struct mem_range cut = *r;
	uint64_t skip;

	cut.start = MAX(r->start, start);
	skip = cut.start - r->start;
	cut.size = MIN(r->start + r->size, end) - cut.start;
	if (r->kind == MEM_IO) {
		cut.io_offset += skip;
	} else {
		cut.host += skip;
		cut.ram_offset += skip;
	}
	return cut;
}

/* Put r over everything in v. */
static int view_overlay(struct mem_view *v, const struct mem_range *r)
{
	gpa_t end = r->start + r->size;
	struct mem_view out = { 0 };
	struct mem_range cut;
	bool placed = false;
	unsigned i;
	int e = 0;

	for (i = 0; i < v->count && !e; i++) {
		const struct mem_range *old = &v->range[i];
		gpa_t old_end = old->start + old->size;

		if (!placed && old_end > r->start && old->start < r->start) {
			cut = range_cut(old, old->start, r->start);
			e = view_push(&out, &cut);
		}
		if (!placed && !e && old_end > r->start) {
			e = view_push(&out, r);
			placed = true;
		}
		if (e)
			break;
		if (old_end <= r->start) {
			e = view_push(&out, old);
		} else if (old_end > end) {
			cut = range_cut(old, MAX(end, old->start), old_end);
			e = view_push(&out, &cut);
		}
	}
	if (!placed && !e)
		e = view_push(&out, r);
	if (e) {
		free(out.range);
		return e;
	}
	free(v->range);
	*v = out;
	return 0;
}

static struct mem_range region_range(const struct mem *m, const struct mem_region *g)
{
	struct mem_range r = { .start = g->start, .size = g->size, .name = g->name };

	switch (g->kind) {
	case REGION_IO:
		r.kind = MEM_IO;
		r.ops = g->ops;
		r.opaque = g->opaque;
		break;
	default:
		r.kind = g->kind == REGION_ROM ? MEM_ROM : MEM_RAM;
		r.host = m->base + g->ram_offset;
		r.ram_offset = g->ram_offset;
		break;
	}
	return r;
}

static int view_alias(struct mem_view *v, const struct mem_view *plain, const struct mem_region *g)
{
	unsigned i;
	int e = 0;

	for (i = 0; i < plain->count && !e; i++) {
		const struct mem_range *r = &plain->range[i];
		struct mem_range cut;

		if (r->start >= g->target + g->size || r->start + r->size <= g->target)
			continue;
		cut = range_cut(r, g->target, g->target + g->size);
		cut.start = cut.start - g->target + g->start;
		e = view_overlay(v, &cut);
	}
	return e;
}

/* ---- RAM in pieces smaller than a page */

static uint64_t piece_read(void *opaque, uint64_t offset, unsigned size)
{
	struct mem *m = opaque;
	uint64_t value = 0;

	memcpy(&value, m->base + offset, size);
	return value;
}

static void piece_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct mem *m = opaque;

	memcpy(m->base + offset, &value, size);
	mem_written(m, offset, size);
}

static void piece_write_rom(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct io_ops piece_ops = { .read = piece_read, .write = piece_write };
static const struct io_ops piece_rom_ops = { .read = piece_read, .write = piece_write_rom };

static int view_push_piece(struct mem_view *v, struct mem *m, const struct mem_range *r)
{
	struct mem_range io = { .start = r->start, .size = r->size, .kind = MEM_IO, .opaque = m,
				.io_offset = r->ram_offset, .name = r->name };

	io.ops = r->kind == MEM_ROM ? &piece_rom_ops : &piece_ops;
	return view_push(v, &io);
}

/* Establish the invariant: cut RAM and ROM to whole pages, the rest to pieces. */
static int view_align(struct mem_view *v, struct mem *m)
{
	struct mem_view out = { 0 };
	unsigned i;
	int e = 0;

	for (i = 0; i < v->count && !e; i++) {
		const struct mem_range *r = &v->range[i];
		gpa_t end = r->start + r->size;
		gpa_t first = (r->start + GUEST_PAGE - 1) & -GUEST_PAGE, last = end & -GUEST_PAGE;
		struct mem_range cut;

		if (r->kind == MEM_IO || (first == r->start && last == end)) {
			e = view_push(&out, r);
			continue;
		}
		if (first >= last) {
			e = view_push_piece(&out, m, r);
			continue;
		}
		if (r->start < first) {
			cut = range_cut(r, r->start, first);
			e = view_push_piece(&out, m, &cut);
		}
		cut = range_cut(r, first, last);
		e = e ? e : view_push(&out, &cut);
		if (last < end && !e) {
			cut = range_cut(r, last, end);
			e = view_push_piece(&out, m, &cut);
		}
	}
	if (e) {
		free(out.range);
		return e;
	}
	free(v->range);
	*v = out;
	return 0;
}

int view_build(struct mem *m, struct mem_view *out)
{
	struct mem_view plain = { 0 }, v = { 0 };
	struct mem_range r;
	unsigned i;
	int e = 0;

	for (i = 0; i < m->nregions && !e; i++) {
		if (m->regions[i].kind == REGION_ALIAS)
			continue;
		r = region_range(m, &m->regions[i]);
		e = view_overlay(&plain, &r);
	}
	for (i = 0; i < m->nregions && !e; i++) {
		if (m->regions[i].kind == REGION_ALIAS) {
			e = view_alias(&v, &plain, &m->regions[i]);
		} else {
			r = region_range(m, &m->regions[i]);
			e = view_overlay(&v, &r);
		}
	}
	free(plain.range);
	if (!e)
		e = view_align(&v, m);
	if (e) {
		free(v.range);
		return e;
	}
	*out = v;
	return 0;
}
