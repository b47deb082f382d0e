/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks by guest-physical page, guest-virtual address and mode (the address is in generated code as return addresses
 * and constants, so one page mapped in two places has blocks for each). All with dbt->lock held.
 */
#include <sys/mman.h>
#include "engine/dbt/dbt.h"

/* Thousands live and go together: on the heap, what lives on between them would keep their memory. */
#define SLAB_SIZE (1u << 20)
struct code_slab {
	struct code_slab *next;
	unsigned used;
	struct code_page pages[];
};
#define SLAB_PAGES ((SLAB_SIZE - sizeof(struct code_slab)) / sizeof(struct code_page))

static struct code_page *code_page_new(struct dbt *d)
{
	struct code_slab *s = d->slabs;

	if (!s || s->used == SLAB_PAGES) {
		s = mmap(NULL, SLAB_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (s == MAP_FAILED)
			return NULL;
		s->next = d->slabs;
		d->slabs = s;
	}
	return &s->pages[s->used++];
}

static unsigned block_hash(const struct dbt *d, uint64_t page, uint64_t va, uint32_t mode)
{
	uint64_t h = (va >> 12 ^ page << 7 ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

	/* those of one page lie together: 4 KiB of the table, which has a page of 4 KiB or two for little code */
	return ((unsigned)(h >> (64 - BLOCK_HASH_BITS) & ~511u) | (va >> 3 & 511)) & d->masks.hash;
}

struct block *block_find(const struct dbt *d, uint64_t page, uint64_t page2, uint64_t va, uint32_t mode)
{
	struct block *b = d->hash[block_hash(d, page, va, mode)];

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
		*p = code_page_new(d);
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

void code_pages_free(struct dbt *d)
{
	for (unsigned n = 0; n < CODE_PAGES_HASH; n++)
		d->pages[n] = NULL;
	while (d->slabs) {
		struct code_slab *s = d->slabs;

		d->slabs = s->next;
		munmap(s, SLAB_SIZE);
	}
}

const struct table_masks table_masks[] = {
	[TABLES_SMALL] = { (1u << 12) - 1, (1u << 10) - 1, (1u << 11) - 1 },
	[TABLES_USUAL] = { (1u << 18) - 1, (1u << 16) - 1, (1u << 16) - 1 },
	[TABLES_LARGE] = { (1u << BLOCK_HASH_BITS) - 1, (1u << ALIAS_BITS) - 1, (1u << SLOT_TARGETS_BITS) - 1 },
};

void blocks_size(struct dbt *d, enum table_size size)
{
	d->tables = size;
	d->masks = table_masks[size];
}

static void block_list(struct dbt *d, struct block *b)
{
	unsigned h = block_hash(d, b->page, b->va, b->mode);

	for (unsigned k = 0; k < b->nexits; k++) /* they have their slots as long as their memory */
		if (b->exits[k].slot >= 0)
			exit_slot_list(d, &b->exits[k]);
	if (b->dead)
		return;
	b->hash_next = d->hash[h];
	d->hash[h] = b;
	clone_list(d, b);
}

/* The next size, and everything entered anew, what was made last at last: 20 to 60 ns each. */
static void blocks_grow(struct dbt *d)
{
	for (unsigned n = 0; n <= d->masks.hash; n++)
		d->hash[n] = NULL;
	for (unsigned n = 0; n <= d->masks.alias; n++)
		d->alias[n] = NULL;
	for (unsigned n = 0; n <= d->masks.targets; n++)
		d->slots_by_target[n] = NULL;
	for (unsigned n = 0; n < d->machine->ncpus; n++)
		if (d->machine->cpus[n] && d->machine->cpus[n]->engine_data)
			__atomic_store_n(&dbt_cpu(d->machine->cpus[n])->jc2_mask, (1u << JC2_BITS) - 1, __ATOMIC_RELAXED);
	blocks_size(d, d->tables + 1);
	for (unsigned n = 1; n <= CACHE_REGIONS; n++) {
		struct region *r = &d->regions[(d->region + n) % CACHE_REGIONS];

		for (unsigned k = 0; k < r->nblocks; k++)
			block_list(d, r->blocks[k]);
	}
}

void blocks_fit(struct dbt *d)
{
	unsigned blocks = 0;

	for (unsigned n = 0; d->tables != TABLES_LARGE && n < CACHE_REGIONS; n++)
		blocks += d->regions[n].nblocks;
	if (blocks >= (d->tables == TABLES_SMALL ? d->small_blocks : d->usual_blocks))
		blocks_grow(d);
}

void block_insert(struct dbt *d, struct block *b, uint64_t ram_page2)
{
	unsigned h = block_hash(d, b->page, b->va, b->mode);

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
	struct block **p = &d->hash[block_hash(d, b->page, b->va, b->mode)];

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
