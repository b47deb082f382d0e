/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same guest code at another virtual address: copies of host code instead of translations.
 *
 * Code is keyed by physical page and virtual address, because the latter is in it: return addresses, operands relative to
 * RIP, exits. A program or library that is mapped elsewhere each time it is started (address-space randomisation) would be translated
 * again each time. So a block keeps a list of the places in its host code that are not the same elsewhere; with another
 * address and the same page, offset and mode it is copied and those are made right.
 *
 * Which form an instruction gets depends on how large such values are. Blocks take part whose addresses are all beyond 4 GiB and
 * below the end of the lower half: there every address is a 64-bit constant. Under engine=verify others do, too, so that small
 * test guests meet this: their 32-bit constants must stay below 2 GiB.
 *
 * d->alias[] has the block made last for each page, offset and mode (a collision loses one). dbt->lock is held in all this.
 */
#include <string.h>
#include "engine/dbt/translate.h"

#define HIGH_FROM (1ull << 33) /* any place 2 GiB away is beyond 4 GiB still, */
#define HIGH_END ((1ull << 47) - (1ull << 32)) /* or canonical */
#define LOW_END (3ull << 29)

static bool high(uint64_t va)
{
	return va >= HIGH_FROM && va < HIGH_END;
}

static bool takes_part(const struct dbt *d, uint64_t va)
{
	return high(va) || (d->watch && va < LOW_END);
}

/* The `size` bytes that end here. */
void tr_reloc(struct tr *t, enum reloc kind)
{
	uint32_t at = emit_offset(&t->e) - t->b->start;

	if (t->nrelocs == RELOCS || at > RELOC_AT)
		t->fixed = true;
	else
		t->relocs[t->nrelocs++] = (uint32_t)kind << RELOC_SHIFT | at;
}

/* MOV reg, address within this guest code or relative to it. */
void tr_emit_va(struct tr *t, unsigned reg, uint64_t v)
{
	emit_imm(&t->e, reg, v);
	if (v == (uint32_t)v)
		tr_reloc(t, RELOC_VA32);
	else if (v == (uint64_t)(int64_t)(int32_t)v)
		t->fixed = true;
	else
		tr_reloc(t, RELOC_VA64);
}

void tr_emit_block(struct tr *t, unsigned reg, uint64_t v)
{
	emit_imm(&t->e, reg, v);
	tr_reloc(t, RELOC_BLOCK);
}

void tr_jump_out(struct tr *t, uint32_t trampoline)
{
	emit_jmp_to(&t->e, t->d->rw + trampoline);
	tr_reloc(t, RELOC_OUT);
}

static struct block **alias_of(struct dbt *d, uint64_t page, uint64_t va, uint32_t mode)
{
	uint64_t h = (page ^ (va & 0xfff) ^ (uint64_t)mode << 52) * 0x9e3779b97f4a7c15ull;

	return &d->alias[h >> (64 - ALIAS_BITS) & d->masks.alias];
}

void clone_forget(struct dbt *d, const struct block *b)
{
	struct block **a = alias_of(d, b->page, b->va, b->mode);

	if (*a == b)
		*a = NULL;
}

void clone_list(struct dbt *d, struct block *b)
{
	if (b->relocs)
		*alias_of(d, b->page, b->va, b->mode) = b;
}

/* b has just been translated. */
void clone_remember(struct tr *t, struct block *b)
{
	struct dbt *d = t->d;

	if (t->fixed || b->page2 != NO_PAGE || !takes_part(d, b->va))
		return;
	b->relocs = dbt_cache_alloc(d, t->nrelocs * sizeof(*b->relocs));
	if (!b->relocs)
		return;
	memcpy(b->relocs, t->relocs, t->nrelocs * sizeof(*b->relocs));
	b->nrelocs = (uint16_t)t->nrelocs;
	*alias_of(d, b->page, b->va, b->mode) = b;
}

/* Tags and addends of the TLB follow one another; the row moves with the page. */
static void move_row(uint8_t *at, uint64_t pages)
{
	int32_t disp;
	uint32_t x;

	memcpy(&disp, at, 4);
	x = (uint32_t)(disp - OFF_READ_TAG);
	x = (x & ~(uint32_t)(TLB_ENTRIES * 8 - 1)) | ((x + (uint32_t)pages * 8) & (TLB_ENTRIES * 8 - 1));
	disp = (int32_t)x + OFF_READ_TAG;
	memcpy(at, &disp, 4);
}

static void add64(uint8_t *end, uint64_t by)
{
	uint64_t v;

	memcpy(&v, end - 8, 8);
	v += by;
	memcpy(end - 8, &v, 8);
}

static bool add32(uint8_t *end, uint64_t by)
{
	uint32_t v;
	uint64_t sum;

	memcpy(&v, end - 4, 4);
	sum = v + by;
	if (v >= 1u << 31 || sum >= 1u << 31)
		return false;
	v = (uint32_t)sum;
	memcpy(end - 4, &v, 4);
	return true;
}

static bool relocate(const struct dbt *d, struct block *b, const struct block *from)
{
	uint64_t moved = b->va - from->va, pages = moved >> 12;
	uint8_t *code = d->rw + b->start;
	uint32_t distance = b->start - from->start;

	for (unsigned n = 0; n < from->nrelocs; n++) {
		uint8_t *end = code + (from->relocs[n] & RELOC_AT);

		switch ((enum reloc)(from->relocs[n] >> RELOC_SHIFT)) {
		case RELOC_VA64:
			add64(end, moved);
			break;
		case RELOC_VA32:
			if (!add32(end, moved))
				return false;
			break;
		case RELOC_BLOCK:
			add64(end, (uint64_t)(uintptr_t)b - (uint64_t)(uintptr_t)from);
			break;
		case RELOC_EXIT:
			add64(end, (uint64_t)(uintptr_t)b->exits - (uint64_t)(uintptr_t)from->exits);
			break;
		case RELOC_ROW:
			move_row(end - 4, pages);
			break;
		case RELOC_OUT: {
			uint32_t rel;

			memcpy(&rel, end - 4, 4);
			rel -= distance;
			memcpy(end - 4, &rel, 4);
			break;
		}
		}
	}
	return true;
}

static void exits_move(struct dbt *d, struct block *b, const struct block *from)
{
	uint32_t distance = b->start - from->start;

	for (unsigned n = 0; n < b->nexits; n++) {
		struct exit *x = &b->exits[n];
		const struct exit *old = &from->exits[n];
		int32_t slot = x->slot;

		*x = (struct exit){ .from = b, .target = old->target + (b->va - from->va), .stub = old->stub + distance,
				    .patch = old->patch + distance, .slot = slot, .flags = old->flags, .self = old->self };
		if (slot >= 0) {
			int32_t disp = OFF_SLOT(slot);

			memcpy(d->rw + x->patch - 4, &disp, 4);
			exit_slot_attach(d, x);
		} else {
			exit_unpatch(d, x);
		}
	}
}

static bool slots_for(struct dbt *d, struct block *b, const struct block *from)
{
	for (unsigned n = 0; n < from->nexits; n++) {
		b->exits[n].slot = from->exits[n].slot >= 0 ? slot_take(d) : -1;
		if (from->exits[n].slot < 0 || b->exits[n].slot >= 0)
			continue;
		while (n-- > 0) {
			if (b->exits[n].slot >= 0)
				slot_give_back(d, b->exits[n].slot);
		}
		return false;
	}
	return true;
}

static bool describe(struct dbt *d, struct block *b, const struct block *from)
{
	uint32_t distance = b->start - from->start;

	b->exits = dbt_cache_alloc(d, from->nexits * sizeof(*b->exits));
	b->map = dbt_cache_alloc(d, (from->ninsns + 1u) * sizeof(*b->map));
	b->runs = from->nruns ? dbt_cache_alloc(d, from->nruns * sizeof(*b->runs)) : NULL;
	b->relocs = dbt_cache_alloc(d, from->nrelocs * sizeof(*b->relocs));
	if (!b->exits || !b->map || !b->relocs || (from->nruns && !b->runs))
		return false;
	for (unsigned n = 0; n <= from->ninsns; n++) {
		b->map[n] = from->map[n];
		b->map[n].host += distance;
	}
	if (from->nruns)
		memcpy(b->runs, from->runs, from->nruns * sizeof(*b->runs));
	memcpy(b->relocs, from->relocs, from->nrelocs * sizeof(*b->relocs));
	b->entry_m = from->entry_m + distance;
	b->end = from->end + distance;
	b->inner = from->inner + distance;
	b->swap_in = from->swap_in + distance;
	memcpy(b->swap, from->swap, sizeof(b->swap));
	b->ninsns = from->ninsns;
	b->nexits = from->nexits;
	b->nswaps = from->nswaps;
	b->nruns = from->nruns;
	b->nrelocs = from->nrelocs;
	b->lo = from->lo;
	b->hi = from->hi;
	return true;
}

/* A copy of a block of the same code at b->va, at b->start. False: there is none, or it does not fit. */
bool clone_block(struct dbt *d, struct block *b, size_t room)
{
	const struct block *from = takes_part(d, b->va) ? *alias_of(d, b->page, b->va, b->mode) : NULL;

	if (!from || from->page != b->page || from->mode != b->mode || (from->va ^ b->va) & 0xfff ||
	    high(from->va) != high(b->va) || from->ram_page != b->ram_page ||
	    from->end - from->start > room)
		return false;
	if (!describe(d, b, from) || !slots_for(d, b, from))
		return false;
	memcpy(d->rw + b->start, d->rw + from->start, from->end - from->start);
	if (!relocate(d, b, from)) {
		for (unsigned n = 0; n < b->nexits; n++) {
			if (b->exits[n].slot >= 0)
				slot_give_back(d, b->exits[n].slot);
		}
		return false;
	}
	exits_move(d, b, from);
	*alias_of(d, b->page, b->va, b->mode) = b;
	d->counters.copied++;
	return true;
}
