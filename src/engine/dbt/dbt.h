/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's own structures: the code cache and its blocks, shared by a machine's vCPUs, and what each vCPU adds.
 *
 * Locking: dbt->lock guards every structure here but the per-vCPU ones and the generated code itself, which runs
 * without locks; links and slots are patched by single aligned stores. Memory of dead blocks is reused only
 * after every vCPU has been seen outside of translated code.
 */
#ifndef ENGINE_DBT_DBT_H
#define ENGINE_DBT_DBT_H

#include <pthread.h>
#include <time.h>
#include "engine/dbt/abi.h"
#include "engine/dbt/watch.h"
#include "engine/engine.h"
#include "engine/interp/interp.h"

#define BLOCK_INSNS 64u /* guest instructions in one block */
#define BLOCK_EXITS 24u
#define CACHE_REGIONS 8u
#define BLOCK_HASH_BITS 20
#define ALIAS_BITS 18
#define CODE_PAGES_HASH 16384u
#define SLOT_TARGETS_BITS 18
/*
 * How much of the tables above is in use: so many lowest bits of an index count. A machine that idles has some thousand blocks,
 * that would lie on as many pages; one that starts hundreds of processes has as many copies of its libraries' code, where
 * chains of three blocks, each a cache miss, made finding one a twelfth of all time. block.c goes to the next size.
 */
enum table_size { TABLES_SMALL, TABLES_USUAL, TABLES_LARGE };
struct table_masks {
	unsigned hash, alias, targets;
};
extern const struct table_masks table_masks[];
#define SMALL_JC2 0x7ffu
#define SMALL_BLOCKS 4096u   /* most of TABLES_SMALL */
#define USUAL_BLOCKS 131072u
#define JC_IDS 16u
#define JC_EMPTY 0ull /* id 0 is never in use */

/* What code is specialised for; part of a block's key. */
#define MODE_CPL 3u
#define MODE_LONG 4u    /* 64-bit code */
#define MODE_X87 8u     /* x87 and MMX instructions may run: CR0.EM and TS clear */
#define MODE_SSE 0x10u
#define MODE_AVX 0x20u
#define MODE_AVX512 0x40u
#define MODE_TSD 0x80u  /* RDTSC faults */
#define MODE_SMAP 0x200u
/* 32-bit code (no MODE_LONG): code, stack, DS and ES flat. Upper halves of RAX..RDI are zero then. */
#define MODE_COMPAT 0x400u /* of a 64-bit system: the TLB may know addresses beyond 4 GiB */
#define MODE_FS 0x800u     /* FS is a writable data segment of 4 GiB at any base */
#define MODE_GS 0x1000u
#define MODE_NONE UINT32_MAX /* not for translation: the interpreter runs it */

enum flags_state { FL_DEAD, FL_H, FL_M };

/* Host code of one guest instruction. */
struct insn_map {
	uint32_t host;         /* offset in the cache of its first byte */
	uint32_t guest : 12;   /* offset in the guest page */
	uint32_t zone : 8;     /* at host .. host + zone the state is still that before the instruction */
	uint32_t behind : 8;   /* at host + behind the only read that it makes has been checked, and S1 is its addend; 0: there is no such place */
	uint32_t flags : 2;    /* enum flags_state at `host` */
	uint32_t shadowed : 1; /* behind STI: no interrupt may be taken before it */
};
_Static_assert(sizeof(struct insn_map) == 8, "there are many");

struct block;

/* Accesses of a block that one check of the TLB covers; plan.c. */
struct run {
	uint16_t span;      /* bytes */
	uint8_t first, end; /* instructions; at end nothing is missing if all before were interpreted */
	bool write, slot;   /* slot: the addend is in hot->run[] for those that come later */
};

/* A way out of a block to a known guest address. */
struct exit {
	struct block *from;
	struct block *to;     /* linked directly (same page) */
	struct exit *next_in; /* of to->incoming */
	struct exit *next_slot, **slot_link; /* of dbt->slots_by_target */
	uint64_t target;
	uint32_t patch; /* offset of the rel32 that leads here: to `stub` while unlinked; with a slot: behind the jump through it */
	uint32_t stub;
	int32_t slot;   /* cross-page: index in hot->slot; -1 for a patched jump */
	uint8_t flags;  /* FL_H or FL_M when it is taken */
	bool self;      /* registers are swapped: only to its own block's `inner` */
};

struct block {
	/* what a look-up reads, in one cache line */
	struct block *hash_next;
	uint64_t va;   /* of the first instruction */
	uint64_t page; /* guest-physical page */
	uint64_t page2; /* of the tail of an instruction that straddles, then the block's only one; else ~0 */
	uint32_t mode;
	uint32_t start, entry_m, end; /* offsets in the cache; start is the entry for flags in H */
	struct exit *incoming;
	struct block *page_next, **page_link; /* blocks of the same RAM page */
	struct block *shadow, *owner; /* straddling: what stands for us on the second page's list, and back */
	uint8_t bytes[16]; /* straddling: the instruction */
	const uint8_t *code; /* host view of the guest page */
	uint64_t ram_page;
	uint64_t serial; /* never twice the same */
	uint16_t lo, hi; /* guest bytes [lo, hi) of the page */
	uint8_t ninsns, nexits, nswaps, nruns;
	uint16_t nrelocs;
	struct {
		uint8_t guest, host;
	} swap[3]; /* swap.c */
	uint32_t inner, swap_in; /* with swaps: behind the exchange; exchanges, then goes to hot->reenter */
	bool dead;
	bool uses_fp;
	uint16_t crossings; /* how often a run lay across a page's end */
	struct insn_map *map;
	struct exit *exits;
	struct run *runs;
	uint32_t *relocs; /* clone.c */
};

/* RAM page that has blocks. */
struct code_page {
	struct code_page *next;
	uint64_t ram_page;
	struct block *blocks;
	uint64_t starts[8]; /* a bit for each 8 bytes: no block has begun there where it is 0 */
};

struct region {
	uint32_t start, used, size;
	uint32_t present; /* so much of it has been asked of the host */
	struct block **blocks; /* in order of their code */
	unsigned nblocks, room;
	struct chunk *chunks, *spare; /* memory of what describes its blocks */
};

#define DBT_COUNTERS(X) \
	X(blocks) X(copied) X(guest_insns) X(host_bytes) X(translate_ns) X(lookups) X(links) X(slow_paths) X(slow_fills) X(split_reads) \
	X(interp_helpers) X(interp_steps) X(second_chances) X(exits_indirect) X(exits_link) X(exits_boundary) X(exits_kick) \
	X(exits_fault) X(exits_lookup) X(exits_step) X(quick_faults) X(invalidated) X(evictions) X(fp_loads) X(fp_saves) X(jc_flushes) X(slot_resets) X(trims) \
	X(samples_guest_code) X(samples_helpers) X(samples_translating) X(samples_halted)

struct dbt_counters {
#define X(name) uint64_t name;
	DBT_COUNTERS(X)
#undef X
};

/* The engine's part of a machine: machine->engine_data. */
struct dbt {
	pthread_mutex_t lock;
	struct machine *machine;
	int fd;
	uint8_t *rw, *rx; /* two views of the cache */
	size_t size;
	/* trampolines at the start of the cache, offsets */
	uint32_t tramp_exit_h, tramp_exit_m, tramp_link_h, tramp_link_m, tramp_slow, tramp_indirect;
	struct region regions[CACHE_REGIONS];
	unsigned region; /* being filled */
	unsigned small_blocks, usual_blocks; /* SMALL_BLOCKS and USUAL_BLOCKS, or fewer (tests) */
	enum table_size tables;
	struct table_masks masks;
	struct block *hash[1u << BLOCK_HASH_BITS];
	struct block *alias[1u << ALIAS_BITS]; /* clone.c */
	struct code_page *pages[CODE_PAGES_HASH]; /* hashed by RAM page */
	struct code_slab *slabs; /* where they lie; block.c */
	struct exit **slot_of;   /* by slot number */
	uint32_t *slot_stub;     /* where the slot's exit has its stub */
	int32_t slot_free;     /* list through slot_next; -1: empty */
	uint32_t slots_begun;  /* those from here on have never been in use */
	int32_t *slot_next;
	struct exit *slots_by_target[1u << SLOT_TARGETS_BITS];
	bool evicting;
	bool trimmed;     /* idle.c: everything has been given back since the machine was busy last, */
	bool rested;      /* and once more what making a tick's blocks took */
	uint64_t busy_at, trimmed_at; /* here by the host's clock */
	uint64_t idle_after; /* ns */
	uint64_t drops; /* how often the lock was given up by someone who needed it held: look again */
	uint64_t protecting[MAX_CPUS]; /* RAM pages (+1) whose writers are being waited for, by vCPU */
	pthread_cond_t evicted;
	struct mem_listener listener;
	struct code_registry *decoded; /* of the interpreters for 16 and 32 bits */
	void *perf_map; /* FILE *, or NULL */
	struct tr *tr; /* workspace */
	struct insn_memo *memo;
	uint64_t serial;
	uint64_t stepwise[1024]; /* bitmap by stepwise_bit(): blocks that are not to have runs */
	struct dbt_counters counters;
	struct dbt_watch *watch; /* NULL but under engine=verify */
};

#define WANT_FLUSH_TLB 1u
#define WANT_REVOKE_WRITES 2u
#define INSN_CACHE 512u
/* cpu->engine_data */
struct dbt_cpu {
	struct cpu *c;
	struct dbt *d;
	struct interp *interp;
	struct interp *legacy; /* for 16 and 32 bits */
	uint32_t unserved; /* attention bits that could not be served at the last boundary */
	int tid;
	void *signal_stack; /* NULL: the thread has its own */
	/* What slots and the jump cache stand for; see chain.c. */
	uint32_t mode;
	uint64_t code_id, code_changes, local_changes;
	uint64_t super_id;   /* as tlb_space.code_id, for all modes but user's */
	bool super_local;    /* the jump cache leads a supervisor to pages that are not global */
	struct {
		uint64_t code_id;
		uint64_t used;
		uint32_t mode;
		uint16_t id;
	} ids[JC_IDS];
	uint64_t ids_clock;
	uint16_t jc_ids;
	uint32_t jc2_mask; /* how much of hot->jc2 is in use; changes under dbt->lock */
	bool calling;    /* our thread is in C that looks at hot->kick before it goes on: what notifies us need not be a signal */
	bool tsc_slow;   /* the clock is not the host's TSC: no RDTSC inline */
	bool elsewhere;  /* where dbt_slow() lets the thread go on has nothing to do with the block it came from */
	bool indirect;   /* the jump cache is to learn where rip leads */
	uint32_t wanted; /* WANT_*: by other threads */
	/* slots that hold more than their stub: for targets in global pages, and others */
	int32_t *slots_global, *slots_local;
	unsigned nslots_global, nslots_local;
	struct {
		uint64_t serial, rip;
		struct insn insn;
	} insns[INSN_CACHE];
	struct dbt_counters counters;
	uint64_t idle_look, idle_from, idle_used; /* idle.c: when to look again, and since when how much time has been used */
	bool idle_settled;
	timer_t sampler; /* sample.c */
	bool sampling, translating;
	uint64_t helped[OP_COUNT]; /* instructions interpreted within blocks */
};

static inline bool mode_32bit(uint32_t mode)
{
	return !(mode & MODE_LONG);
}
static inline enum insn_mode mode_insns(uint32_t mode)
{
	return mode_32bit(mode) ? MODE_32 : MODE_64;
}

static inline struct dbt *dbt_of(const struct cpu *c)
{
	return c->machine->engine_data;
}
static inline struct dbt_cpu *dbt_cpu(const struct cpu *c)
{
	return c->engine_data;
}
/* cpu->s.gpr[] as it is in a block with swaps, to what it is everywhere else, or back. */
static inline void block_swap(struct cpu *c, const struct block *b)
{
	for (unsigned n = 0; n < b->nswaps; n++) {
		uint64_t v = c->s.gpr[b->swap[n].guest];

		c->s.gpr[b->swap[n].guest] = c->s.gpr[b->swap[n].host];
		c->s.gpr[b->swap[n].host] = v;
	}
}
/* What translated 32-bit code counts on; no architecture says what upper halves are there. */
static inline void gpr_narrow(struct cpu *c)
{
	for (unsigned n = RAX; n <= RDI; n++)
		c->s.gpr[n] = (uint32_t)c->s.gpr[n];
}
static inline const void *dbt_exec(const struct dbt *d, uint32_t offset)
{
	return d->rx + offset;
}

/* cache.c */
int dbt_cache_create(struct dbt *d, size_t size, struct err *e);
void dbt_cache_destroy(struct dbt *d);
/* Memory that lives as long as the code being made, aligned to 8, or 64 bytes; NULL: none. */
void *dbt_cache_alloc(struct dbt *d, size_t size);
void *dbt_cache_alloc_line(struct dbt *d, size_t size);
/* What has been taken since goes back, where a block comes to nothing: a guest may be at such an address again and again. */
struct cache_mark {
	struct chunk *chunk;
	size_t used;
};
struct cache_mark dbt_cache_mark(const struct dbt *d);
void dbt_cache_undo(struct dbt *d, struct cache_mark m);
/* Writable room for at least `need` bytes; may evict, in which case the lock is dropped for a while. */
uint8_t *dbt_cache_room(struct dbt *d, struct cpu *c, size_t need, size_t *room);
void dbt_cache_commit(struct dbt *d, struct block *b, uint32_t end);
void quiesce_cpu(struct dbt *d, struct cpu *c);
struct block *dbt_cache_find(const struct dbt *d, uintptr_t host_pc);

bool dbt_cache_empty(struct dbt *d, struct cpu *c); /* evict everything and give its memory back; false: there is some again */

/* block.c: look-up by guest-physical address and mode, life and death */
void code_pages_free(struct dbt *d); /* there are no blocks */
void blocks_size(struct dbt *d, enum table_size size); /* there are none; so many will come */
void blocks_fit(struct dbt *d);   /* one more is coming */
struct block *block_find(const struct dbt *d, uint64_t page, uint64_t page2, uint64_t va, uint32_t mode);
void block_insert(struct dbt *d, struct block *b, uint64_t ram_page2);
void block_kill(struct dbt *d, struct block *b); /* nothing leads to it any more; memory stays */
struct code_page *code_page_of(struct dbt *d, uint64_t ram_page); /* made if it is new; NULL: no memory */
static inline bool block_may_begin(const struct code_page *p, unsigned at)
{
	return p->starts[at >> 9 & 7] >> (at >> 3 & 63) & 1;
}
struct block *block_first_on_page(struct dbt *d, uint64_t ram_page);
int block_insn_at(const struct dbt *d, const struct block *b, uintptr_t host_pc);
static inline uint64_t block_rip(const struct block *b, unsigned idx)
{
	return (b->va & ~0xfffull) | b->map[idx].guest;
}

/* translate.c. NULL: not for us (the interpreter has to run the instruction at va). Called with the lock held. */
struct tr;
struct block *translate(struct dbt *d, struct cpu *c, uint64_t va, uint64_t page, uint64_t page2, uint32_t mode);
#define NO_PAGE (~0ull)
#define MAX_INSN 15u
#define LAST_PAGE_32 0xfffff000u /* not translated: nothing there has to wrap */
static inline bool may_straddle(uint64_t va)
{
	return (va & 0xfff) > 4096 - MAX_INSN;
}

static inline unsigned stepwise_bit(uint64_t page, uint64_t va)
{
	return (unsigned)((page ^ va) * 0x9e3779b97f4a7c15ull >> 48);
}

struct block *translate_timed(struct dbt *d, struct cpu *c, uint64_t va, uint64_t page, uint64_t page2, uint32_t mode);

/* clone.c */
bool clone_block(struct dbt *d, struct block *b, size_t room);
void clone_forget(struct dbt *d, const struct block *b);
void clone_list(struct dbt *d, struct block *b); /* it may be copied, if it takes part */

/* chain.c */
void link_exit(struct dbt *d, struct cpu *c, struct exit *x, struct block *to, bool global);
void exit_unlink(struct dbt *d, struct exit *x);
void unlink_incoming(struct dbt *d, struct block *b);
void exit_slot_attach(struct dbt *d, struct exit *x);
void exit_slot_list(struct dbt *d, struct exit *x); /* into slots_by_target alone */
void exit_slot_detach(struct dbt *d, struct exit *x);
int32_t slot_take(struct dbt *d); /* negative: there is none */
void slot_give_back(struct dbt *d, int32_t slot);
void exit_unpatch(struct dbt *d, const struct exit *x); /* jumps to its stub */
void jc_insert(struct cpu *c, uint64_t rip, const void *host);
void jc_remove(struct dbt *d, uint64_t rip);
uint64_t jc_find(struct cpu *c, uint64_t rip); /* host address, for flags state M; 0: not there */
void chain_check(struct cpu *c, uint32_t mode); /* drop what mapping or mode made wrong; own thread, no lock held */
static inline unsigned jc_index(uint64_t rip)
{
	return (unsigned)rip & (JC_ENTRIES - 1);
}

/* idle.c */
void dbt_idle_start(struct dbt *d);
uint64_t dbt_idle(struct cpu *c);

/* smc.c */
void smc_start(struct dbt *d);
void smc_stop(struct dbt *d);
void smc_protect(struct dbt *d, struct cpu *c, uint64_t ram_page);

/* mode.c */
uint32_t mode_of(const struct cpu *c);

/* entry.c: generated code's ways in and out */
void dbt_enter(struct cpu *c, const void *host);
void dbt_stub_exit_h(void);
void dbt_stub_exit_m(void);
void dbt_stub_link_h(void);
void dbt_stub_link_m(void);
void dbt_stub_indirect(void);
void dbt_stub_slow(void);
void dbt_stub_kicked(void);
void dbt_stub_return(void);
/* Between these a kick is answered at dbt_stub_kicked. */
extern const char dbt_enter_check[], dbt_enter_go[], dbt_slow_check[], dbt_slow_go[];

uint64_t dbt_indirect(struct cpu *c);

/* run.c */
enum cpu_stop dbt_run(struct cpu *c);

/* slow.c */
uint64_t dbt_slow(struct cpu *c, uint64_t ea, uint64_t param);
#define SLOW_INTERP 0u
#define SLOW_READ 1u
#define SLOW_WRITE 2u
#define SLOW_STACK 3u
#define SLOW_FP 4u
#define SLOW_FAR 6u /* the size code is an enum far_kind and the instruction's length - 2 */
#define SLOW_RUN 5u /* the size code is the run's number */
#define SLOW_READ_LOW 9u /* what looks into the low entries of the TLB only (x86/tlb.h) */
#define SLOW_WRITE_LOW 10u
#define SLOW_MASKED_LOW 11u
#define SLOW_INTERP_LOW 12u
#define SLOW_MASKED 8u /* a load that may leave out parts */
#define SLOW_QUICK 7u /* the size code is an enum quick_kind */
enum quick_kind { QUICK_XSAVE, QUICK_XRSTOR, QUICK_WRMSR, QUICK_INVLPG };
#define SLOW_PARAM(block, idx, kind, size) \
	((uint64_t)(uintptr_t)(block) | (uint64_t)(idx) << 48 | (uint64_t)(kind) << 56 | (uint64_t)(size_code(size)) << 60)
static inline unsigned size_code(unsigned size) /* of sizes that the inline check takes */
{
	return size == 10 ? 7 : (unsigned)__builtin_ctz(size);
}

/* far.c. next: the address behind the instruction; value: of FAR_CR3's operand. *resume: host address to go on at, 0: leave. False: not done. */
enum far_kind { FAR_SYSCALL, FAR_SYSRET, FAR_IRET, FAR_CR3 };
uint64_t far_go_on(struct cpu *c); /* somewhere else, perhaps in another mode: host address, or 0 to leave */
bool far_quick(struct cpu *c, enum far_kind kind, uint64_t next, uint64_t value, uint64_t *resume);

/* fpstate.c */
void fp_release(struct cpu *c); /* host's vector and x87 registers to cpu->s, and the host's own settings back */
void fp_load_vec(struct cpu *c);
void fp_load_x87(struct cpu *c);
void fp_peek_x87(struct cpu *c); /* to cpu->s, and they stay */
void fp_drop_x87(struct cpu *c); /* they are not in the host's any more, and were not worth saving */

extern const struct engine_ops engine_dbt;

/* sample.c */
void sample_start(struct dbt_cpu *dc);
void sample_stop(struct dbt_cpu *dc);

/* signals.c */
int signals_install(struct err *e);
int signals_attach(struct dbt_cpu *dc, struct err *e); /* on the vCPU's thread */
void signals_kick(struct dbt_cpu *dc);
void signals_detach(struct dbt_cpu *dc);

/* Flags: LAHF/SETO form from RFLAGS and back. */
static inline uint64_t flags_to_m(uint64_t rflags)
{
	return (rflags & 0xff) << 8 | (rflags >> 11 & 1);
}
static inline uint64_t flags_from_m(uint64_t rflags, uint64_t m)
{
	const uint64_t low = FLAGS_ARITH & 0xff;

	return (rflags & ~FLAGS_ARITH) | (m >> 8 & low) | (m & 1) << 11;
}

#endif
