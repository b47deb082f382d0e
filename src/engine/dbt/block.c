/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks by guest-physical page, guest-virtual address and mode (the address is in generated code as return addresses
 * and constants, so one page mapped in two places has blocks for each). All with dbt->lock held.
 */
#include <stdlib.h>
#include "engine/dbt/dbt.h"

static unsigned block_hash(uint64_t page, uint64_t va, uint32_t mode)
{
	uint64_t h = (va >> 12 ^ page << 7 ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

	/* those of one page lie together: 4 KiB of the table, which has a page of 4 KiB or two for little code */
	return (unsigned)(h >> (64 - BLOCK_HASH_BITS) & ~511u) | (va >> 3 & 511);
}

struct block *block_find(const struct dbt *d, uint64_t page, uint64_t page2, uint64_t va, uint32_t mode)
{
	struct block *b = d->hash[block_hash(page, va, mode)];

	while (b && (b->va != va || b->page != page || b->mode != mode || (b->page2 != NO_PAGE && b->page2 != page2)))
		b = b->hash_next;
	return b;
}

static struct code_page *code_page(struct dbt *d, uint64_t ram_page, bool create)
{
	struct code_page **p = &d->pages[ram_page & (CODE_PAGES_HASH - 1)];

	while (*p && (*p)->ram_page != ram_page)
		p = &(*p)->next;
	if (!*p && create) {
		*p = calloc(1, sizeof(**p));
		if (*p)
			(*p)->ram_page = ram_page;
	}
	return *p;
}

struct code_page *code_page_of(struct dbt *d, uint64_t ram_page)
{
	return code_page(d, ram_page, true);
}

static void page_link(struct dbt *d, struct block *b)
{
	struct code_page *p = code_page(d, b->ram_page, true);
	unsigned at = b->va & 0xfff;

	CHECK(p);
	p->starts[at >> 9] |= BIT(at >> 3 & 63);
	b->page_next = p->blocks;
	b->page_link = &p->blocks;
	if (p->blocks)
		p->blocks->page_link = &b->page_next;
	p->blocks = b;
}

static void page_unlink(struct block *b)
{
	*b->page_link = b->page_next;
	if (b->page_next)
		b->page_next->page_link = b->page_link;
}

void block_insert(struct dbt *d, struct block *b, uint64_t ram_page2)
{
	unsigned h = block_hash(b->page, b->va, b->mode);

	b->hash_next = d->hash[h];
	d->hash[h] = b;
	page_link(d, b);
	if (!b->shadow)
		return;
	b->shadow->owner = b;
	b->shadow->ram_page = ram_page2;
	page_link(d, b->shadow);
}

void block_kill(struct dbt *d, struct block *b)
{
	struct block **p = &d->hash[block_hash(b->page, b->va, b->mode)];

	if (b->dead)
		return;
	b->dead = true;
	while (*p != b)
		p = &(*p)->hash_next;
	*p = b->hash_next;
	page_unlink(b);
	if (b->shadow)
		page_unlink(b->shadow);
	clone_forget(d, b);
	unlink_incoming(d, b);
	jc_remove(d, b->va);
	d->counters.invalidated++;
}

struct block *block_first_on_page(struct dbt *d, uint64_t ram_page)
{
	struct code_page *p = code_page(d, ram_page, false);

	return p ? p->blocks : NULL;
}

/* Which instruction the host pc belongs to; -1 for the parts behind the block. */
int block_insn_at(const struct dbt *d, const struct block *b, uintptr_t host_pc)
{
	uint32_t at = (uint32_t)(host_pc - (uintptr_t)d->rx);
	int lo = 0, hi = b->ninsns;

	if (at < b->map[0].host || at >= b->map[b->ninsns].host)
		return -1;
	while (hi - lo > 1) {
		int mid = (lo + hi) / 2;

		if (b->map[mid].host <= at)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}
