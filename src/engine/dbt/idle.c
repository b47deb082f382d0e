/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an idle machine needs not hold: a boot leaves 50000 blocks behind, of which a guest that only takes its timer's ticks
 * executes a few hundred. When all CPUs have used less than a fiftieth of their time for a while, everything that can be made
 * again is given back to the host: translated code with what describes it, the memory of decoding, jump caches and links.
 * A tick makes again what it needs in about a millisecond; a login shell what it needs in some tens.
 *
 * Called by halted vCPUs on their own threads; the state is guarded by dbt->lock.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/huge.h"
#include "base/program.h"
#include "engine/dbt/dbt.h"
#include "isa/insn.h"

#define SECOND 1000000000ull
#define IDLE_AFTER 8000u /* ms; OSPITE_IDLE_AFTER sets it (tests) */
#define BUSY_PART 50u /* of the time: one with less is idle */

static uint64_t time_of(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

void dbt_idle_start(struct dbt *d)
{
	const char *after = getenv("OSPITE_IDLE_AFTER");

	d->idle_after = (after ? strtoul(after, NULL, 0) : IDLE_AFTER) * (SECOND / 1000);
	d->small_blocks = d->idle_after ? SMALL_BLOCKS : 64;
	d->usual_blocks = d->idle_after ? USUAL_BLOCKS : 256;
	d->busy_at = time_of(CLOCK_MONOTONIC);
}

/* Whole pages of it: zeros from now on and in small pages, or huge again as they are touched. */
static void give_back(void *at, size_t size)
{
	uintptr_t from = ((uintptr_t)at + 4095) & ~(uintptr_t)4095, to = ((uintptr_t)at + size) & ~(uintptr_t)4095;

	if (to <= from)
		return;
	madvise((void *)from, to - from, MADV_NOHUGEPAGE);
	madvise((void *)from, to - from, MADV_DONTNEED);
}

static void huge_again(void *at, size_t size)
{
	uintptr_t from = ((uintptr_t)at + 4095) & ~(uintptr_t)4095, to = ((uintptr_t)at + size) & ~(uintptr_t)4095;

	if (to > from)
		madvise((void *)from, to - from, MADV_HUGEPAGE);
}

/* What lies in huge pages; empty entries are zeros, or are not looked at. */
static void tables_each(struct dbt *d, void (*fn)(void *at, size_t size))
{
	fn(d->hash, sizeof(d->hash));
	fn(d->alias, sizeof(d->alias));
	fn(d->slots_by_target, sizeof(d->slots_by_target));
	fn(d->pages, sizeof(d->pages));
	fn(d->memo, insn_memo_size());
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		struct cpu *c = d->machine->cpus[n];

		if (c && c->engine_data && fn == huge_again)
			tlb_huge_again(&c->tlb);
		if (c && c->engine_data)
			fn(dbt_hot(c)->jc_key, offsetof(struct dbt_hot, log_left) - offsetof(struct dbt_hot, jc_key));
	}
}

/* There are no blocks any more, so that nothing of this is in use. */
static void tables_trim(struct dbt *d)
{
	code_pages_free(d);
	blocks_size(d, TABLES_SMALL);
	tables_each(d, give_back);
	huge_give_rest(d, sizeof(*d));
	huge_give_rest(d->memo, insn_memo_size());
	d->slot_free = -1;
	d->slots_begun = 0;
	give_back(d->slot_of, LINK_SLOTS * sizeof(*d->slot_of));
	give_back(d->slot_stub, LINK_SLOTS * sizeof(*d->slot_stub));
	give_back(d->slot_next, LINK_SLOTS * sizeof(*d->slot_next));
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		struct cpu *c = d->machine->cpus[n];

		if (!c || !c->engine_data)
			continue;
		give_back(dbt_hot(c) + 1, CPU_HOT_SIZE - sizeof(struct dbt_hot));
		dbt_cpu(c)->nslots_global = dbt_cpu(c)->nslots_local = 0;
		give_back(dbt_cpu(c)->slots_global, LINK_SLOTS * sizeof(int32_t));
		give_back(dbt_cpu(c)->slots_local, LINK_SLOTS * sizeof(int32_t));
		give_back(dbt_cpu(c)->insns, sizeof(dbt_cpu(c)->insns));
	}
}

/* The blocks that a tick needs are there again: what made them is in nobody's way for long. */
static void rest(struct dbt *d)
{
	give_back(d->memo, insn_memo_size());
	program_give_back();
}

static bool others_run(const struct dbt *d, const struct cpu *self)
{
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		const struct cpu *c = d->machine->cpus[n];

		if (c && c != self && atomic_load(&c->run_state) == CPU_RUNNING)
			return true;
	}
	return false;
}

/*
 * Also what lies on a page with something else: an entry that the smaller part now in use does not have would not be removed with its
 * block, and be found once all is in use again.
 */
static void jump_caches_empty(struct dbt_hot *h)
{
	char *from = (char *)h->jc_key, *to = (char *)h->slot;
	char *first = (char *)(((uintptr_t)from + 4095) & ~(uintptr_t)4095), *last = (char *)((uintptr_t)to & ~(uintptr_t)4095);

	give_back(from, (size_t)(to - from));
	memset(from, 0, (size_t)(first - from));
	memset(last, 0, (size_t)(to - last));
}

uint64_t dbt_idle(struct cpu *c)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	struct dbt *d = dc->d;
	uint64_t now = time_of(CLOCK_MONOTONIC), used;
	bool trimmed;

	if (now < dc->idle_look)
		return dc->idle_settled ? UINT64_MAX : dc->idle_look;
	used = time_of(CLOCK_THREAD_CPUTIME_ID);
	pthread_mutex_lock(&d->lock);
	if (d->idle_after && (used - dc->idle_used) * BUSY_PART > now - dc->idle_from) {
		d->busy_at = now;
		if (d->trimmed)
			tables_each(d, huge_again);
		d->trimmed = false;
	}
	if ((!d->trimmed || !d->idle_after) && now - d->busy_at >= d->idle_after && !others_run(d, c) && dbt_cache_empty(d, c)) {
		tables_trim(d);
		malloc_trim(0);
		d->trimmed = true;
		d->rested = false;
		d->trimmed_at = now;
		d->counters.trims++;
		used = time_of(CLOCK_THREAD_CPUTIME_ID);
	}
	if (d->trimmed && !d->rested && now - d->trimmed_at >= d->idle_after / 4) {
		rest(d);
		d->rested = true;
	}
	trimmed = d->trimmed;
	if (trimmed && d->tables == TABLES_SMALL)
		__atomic_store_n(&dc->jc2_mask, SMALL_JC2, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&d->lock);
	if (trimmed) { /* only its own thread may; again each time, as two ticks in a row need other parts of them */
		interp_give_back(dc->legacy);
		tlb_trim(c);
		jump_caches_empty(dbt_hot(c));
	}
	dc->idle_from = now;
	dc->idle_used = used;
	dc->idle_look = now + d->idle_after / 4;
	dc->idle_settled = trimmed;
	return trimmed ? UINT64_MAX : dc->idle_look;
}
