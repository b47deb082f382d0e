/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoded-instruction cache of one CPU. Memory is handed out in order and never freed one by
 * one: when it is full, everything is dropped. So the instructions of a block that was dropped
 * while it runs stay valid until the next build, and need only be made to stop.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include "engine/interp/cache.h"
#include "engine/interp/private.h"

static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

struct code_cache *cache_create(unsigned ncpus)
{
	struct code_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	cache->max_insns =
		MIN(MAX(CACHE_INSNS_ALL / MAX(ncpus, 1u), CACHE_INSNS_MIN), CACHE_INSNS_MAX);
	cache->max_blocks = cache->max_insns / 4;
	cache->insns = reserve(cache->max_insns * sizeof(struct insn));
	cache->blocks = reserve(cache->max_blocks * sizeof(struct block));
	if (cache->insns && cache->blocks)
		return cache;
	cache_destroy(cache);
	return NULL;
}

void cache_destroy(struct code_cache *cache)
{
	if (!cache)
		return;
	if (cache->insns)
		munmap(cache->insns, cache->max_insns * sizeof(struct insn));
	if (cache->blocks)
		munmap(cache->blocks, cache->max_blocks * sizeof(struct block));
	free(cache);
}

/* What the rest of a dropped block executes: back to the boundary before it. */
static int exec_stale(struct cpu *c, const struct insn *i)
{
	c->s.rip -= i->len;
	return CPU_BOUNDARY;
}

static void block_kill(struct block *b)
{
	b->dead = true;
	for (unsigned n = 0; n < b->count; n++)
		b->insns[n].exec = exec_stale;
}

static void cache_clear(struct code_cache *cache)
{
	cache->flushed++;
	if (!cache->nblocks) /* a megabyte that may never have been touched */
		return;
	memset(cache->hash, 0, sizeof(cache->hash));
	memset(cache->pages, 0, sizeof(cache->pages));
}

/* May be called from a store of the instruction underway; memory is reused only by a later build.
 */
void cache_drop_all(struct code_cache *cache)
{
	for (unsigned n = 0; n < cache->nblocks; n++) {
		if (!cache->blocks[n].dead)
			block_kill(&cache->blocks[n]);
	}
	cache_clear(cache);
}

void cache_give_back(struct code_cache *cache)
{
	uintptr_t from = ((uintptr_t)cache->hash + 4095) & ~(uintptr_t)4095;
	uintptr_t to = ((uintptr_t)cache->hash + sizeof(cache->hash)) & ~(uintptr_t)4095;

	if (!cache->nblocks)
		return;
	cache_clear(cache);
	cache->nblocks = cache->ninsns = 0;
	madvise((void *)from, to - from, MADV_DONTNEED);
	madvise(cache->insns, cache->max_insns * sizeof(struct insn), MADV_DONTNEED);
	madvise(cache->blocks, cache->max_blocks * sizeof(struct block), MADV_DONTNEED);
}

static struct block **page_bucket(struct code_cache *cache, gpa_t page)
{
	return &cache->pages[(page >> 12) & (CACHE_PAGES - 1)];
}

static void hash_remove(struct code_cache *cache, struct block *b)
{
	struct block **p = &cache->hash[cache_hash(b->at, b->mode)];

	while (*p && *p != b)
		p = &(*p)->next;
	if (*p)
		*p = b->next;
}

/* A block is in one list for each of its pages; dead ones are unlinked when their list is walked.
 */
void cache_drop_page(struct code_cache *cache, gpa_t page)
{
	struct block **p = page_bucket(cache, page), *b;

	while ((b = *p)) {
		unsigned which = page_bucket(cache, b->page[0]) == page_bucket(cache, page) ? 0 : 1;

		if (!b->dead && (b->page[0] == page || b->page[1] == page)) {
			hash_remove(cache, b);
			block_kill(b);
			cache->dropped++;
		}
		if (b->dead)
			*p = b->page_next[which];
		else
			p = &b->page_next[which];
	}
}

static void page_link(struct code_cache *cache, struct block *b, unsigned which)
{
	struct block **p = page_bucket(cache, b->page[which]);

	b->page_next[which] = *p;
	*p = b;
}

void cache_insert(struct code_cache *cache, struct block *b)
{
	struct block **p = &cache->hash[cache_hash(b->at, b->mode)];

	b->next = *p;
	*p = b;
	page_link(cache, b, 0);
	/* two pages in one bucket: one link finds it for both */
	if (b->page[1] != PAGE_NONE &&
	    page_bucket(cache, b->page[1]) != page_bucket(cache, b->page[0]))
		page_link(cache, b, 1);
}

/* An instruction longer than 15 bytes. */
static int exec_too_long(struct cpu *c, const struct insn *i)
{
	return raise_gp0(c);
}

enum insn_status insn_prepare(struct insn *i, const uint8_t *bytes, unsigned available,
			      unsigned mode)
{
	enum insn_status status = insn_decode(i, bytes, available, (enum insn_mode)mode);

	if (status == INSN_TRUNCATED)
		return status;
	if (status == INSN_TOO_LONG) {
		i->op = OP_INVALID;
		i->class = CLASS_FAR;
		i->len = 0;
		i->exec = exec_too_long;
		return status;
	}
	interp_bind(i);
	return status;
}

static struct block *block_alloc(struct code_cache *cache, gpa_t at, unsigned mode)
{
	struct block *b;

	if (cache->nblocks == cache->max_blocks || cache->ninsns + BLOCK_MAX > cache->max_insns) {
		cache_clear(cache); /* between blocks: nothing of it is being executed */
		cache->nblocks = 0;
		cache->ninsns = 0;
	}
	b = &cache->blocks[cache->nblocks];
	*b = (struct block){ .at = at,
			     .page = { at & ~0xfffull, PAGE_NONE },
			     .insns = &cache->insns[cache->ninsns],
			     .link_offset = { LINK_NONE, LINK_NONE },
			     .mode = (uint8_t)mode };
	return b;
}

static void block_commit(struct code_cache *cache, struct block *b)
{
	cache->nblocks++;
	cache->ninsns += b->count;
	cache->built++;
	cache->decoded += b->count;
}

/* A conditional jump that is not taken goes on in its block. */
static bool ends_block(const struct insn *i)
{
	if (i->class == CLASS_BRANCH)
		return !(i->flags & INSN_COND);
	return i->class == CLASS_FAR || i->op == OP_HLT;
}

struct block *cache_build(struct code_cache *cache, gpa_t at, unsigned mode, const uint8_t *host,
			  unsigned room)
{
	struct block *b = block_alloc(cache, at, mode);

	while (b->count < BLOCK_MAX && b->bytes < room) {
		struct insn *i = &b->insns[b->count];

		if (b->count && cache_find(cache, at + b->bytes, mode))
			break; /* decoded before: go on there */
		if (insn_prepare(i, host + b->bytes, room - b->bytes, mode) == INSN_TRUNCATED)
			break;
		b->count++;
		b->bytes += i->len;
		i->slot = (uint8_t)b->count;
		if (ends_block(i))
			break;
	}
	if (!b->count)
		return NULL;
	block_commit(cache, b);
	return b;
}

struct block *cache_build_crossing(struct code_cache *cache, gpa_t at, unsigned mode,
				   const uint8_t *bytes, unsigned room, gpa_t second)
{
	struct block *b = block_alloc(cache, at, mode);

	if (insn_prepare(b->insns, bytes, 15, mode) == INSN_TRUNCATED)
		return NULL;
	b->count = 1;
	b->insns->slot = 1;
	b->bytes = b->insns->len;
	if (b->bytes > room)
		b->page[1] = second;
	block_commit(cache, b);
	return b;
}
