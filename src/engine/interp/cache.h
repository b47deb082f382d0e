/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoded instructions by physical address. Each CPU has a cache of its own, of bounded size, which
 * only its own thread touches; a registry shared by the machine's CPUs knows which pages hold code
 * anyone keeps, and passes on what was written there.
 */
#ifndef ENGINE_INTERP_CACHE_H
#define ENGINE_INTERP_CACHE_H

#include <pthread.h>
#include "engine/interp/interp.h"

#define CACHE_INSNS_MAX (1u << 19) /* 80 bytes each, touched as needed; a compiler's code fits */
#define CACHE_INSNS_MIN (1u << 17) /* ... when there are many CPUs */
#define CACHE_INSNS_ALL (1u << 20) /* what the CPUs of a machine share out */
#define CACHE_HASH (1u << 17)
#define CACHE_PAGES (1u << 12) /* buckets of the by-page lists */
#define BLOCK_MAX 48	       /* instructions in a block: bounds the delay of an interrupt */
#define PAGE_NONE (~0ull)

/* Straight-line code within one page, or one instruction that crosses into the next. */
struct block {
	struct block *next;	    /* same hash */
	struct block *page_next[2]; /* same bucket of page[] */
	gpa_t at;
	gpa_t page[2]; /* physical pages; page[1] is PAGE_NONE unless it crosses */
	struct insn *insns;
	struct block *link[2];	 /* where it went before, in the same page; may be dead */
	uint16_t link_offset[2]; /* their offsets in the page; LINK_NONE */
	struct block *guess;	 /* where it went last in another page */
	uint16_t count, bytes;
	uint8_t mode;
	bool dead;
};
#define LINK_NONE 0xffff

struct code_registry;

struct code_cache {
	struct block *hash[CACHE_HASH];
	struct block *pages[CACHE_PAGES];
	struct block *blocks;
	struct insn *insns;
	unsigned nblocks, ninsns;
	unsigned max_blocks, max_insns;
	uint64_t built, decoded, flushed, dropped; /* counters */
};

struct code_cache *cache_create(unsigned ncpus);
void cache_destroy(struct code_cache *cache);
void cache_drop_all(struct code_cache *cache);
/* The same, and its memory goes back to the host: not while anything of it is being executed. */
void cache_give_back(struct code_cache *cache);
/* Forget what was decoded from this physical page; of a block being executed nothing more is
 * executed. */
void cache_drop_page(struct code_cache *cache, gpa_t page);

static inline unsigned cache_hash(gpa_t at, unsigned mode)
{
	return (unsigned)((at ^ at >> 15 ^ (gpa_t)mode << 9) & (CACHE_HASH - 1));
}
static inline struct block *cache_find(const struct code_cache *cache, gpa_t at, unsigned mode)
{
	struct block *b = cache->hash[cache_hash(at, mode)];

	while (b && (b->at != at || b->mode != mode))
		b = b->next;
	return b;
}
/*
 * Decode at physical address `at` (host: its bytes, `room` of them to the end of the page) and keep
 * it. second: bytes of the next page, for one crossing instruction, NULL to stop before it. NULL:
 * nothing could be decoded without the second page.
 */
struct block *cache_build(struct code_cache *cache, gpa_t at, unsigned mode, const uint8_t *host,
			  unsigned room);
struct block *cache_build_crossing(struct code_cache *cache, gpa_t at, unsigned mode,
				   const uint8_t *bytes, unsigned room, gpa_t second);
/* Make a built block findable. */
void cache_insert(struct code_cache *cache, struct block *b);

/* Decode one instruction for execution: bound, and with #UD and #GP (over 15 bytes) as handlers. */
enum insn_status insn_prepare(struct insn *i, const uint8_t *bytes, unsigned available,
			      unsigned mode);

/*
 * The registry. code_register(): code of ram_page in bytes [from, from + len) is about to be kept.
 * False: another CPU may still be storing to the page with a translation it checked before; keep
 * nothing this time.
 */
void registry_join(struct code_registry *r, struct code_cache *cache, struct cpu *c);
void registry_leave(struct code_registry *r, struct cpu *c);
bool code_register(struct code_registry *r, struct cpu *c, uint64_t ram_page,
		   const uint8_t *host_page, unsigned from, unsigned len);

#endif
