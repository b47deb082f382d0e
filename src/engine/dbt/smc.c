/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Written code. A page that has blocks is flagged MEM_CODE, so that no TLB lets stores to it pass inline: they come by
 * access.c, which does them and tells us. Exactly the blocks whose guest bytes were written die. The block that stores into
 * itself is left after the store (slow.c looks).
 */
#include <time.h>
#include "engine/dbt/dbt.h"

static bool protected_by(const struct dbt *d, unsigned id, uint64_t ram_page)
{
	return d->protecting[id] == ram_page + 1;
}

/* Another vCPU is waiting for the page's writers: so must we. True: the lock was dropped, the flag may be gone. */
static bool wait_for_protectors(struct dbt *d, const struct cpu *c, uint64_t ram_page)
{
	bool waited = false;

	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		while (n != c->id && protected_by(d, n, ram_page)) {
			waited = true;
			d->drops++;
			pthread_mutex_unlock(&d->lock);
			nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
			pthread_mutex_lock(&d->lock);
		}
	}
	return waited;
}

/*
 * Before code of the page is read: from now on stores to it are seen. Waits for vCPUs that may be between check and
 * store, so the lock may be dropped for a while (d->drops tells).
 */
void smc_protect(struct dbt *d, struct cpu *c, uint64_t ram_page)
{
	const uint8_t *host = mem_ram_base(c->mem) + (ram_page << 12);
	struct machine *m = d->machine;

	while (!mem_mark_code(c->mem, ram_page)) {
		if (!wait_for_protectors(d, c, ram_page))
			return;
	}
	d->protecting[c->id] = ram_page + 1;
	for (unsigned n = 0; n < m->ncpus; n++) {
		struct cpu *other = m->cpus[n];

		if (!other || !tlb_revoke_page(&other->tlb, host) || other == c || !other->engine_data)
			continue;
		quiesce_cpu(d, other);
	}
	d->protecting[c->id] = 0;
}

static void code_written(void *opaque, uint64_t ram_offset, uint64_t len)
{
	struct dbt *d = opaque;
	uint64_t page = ram_offset >> 12;
	unsigned lo = (unsigned)(ram_offset & 0xfff), hi;
	struct block *b, *next;
	bool kept = false;

	hi = (unsigned)MIN(lo + len, 4096u);
	if (!(atomic_load(&mem_page_flags(d->machine->mem)[page]) & MEM_CODE))
		return; /* only decoded by an interpreter */
	pthread_mutex_lock(&d->lock);
	for (b = block_first_on_page(d, page); b; b = next) {
		bool hit = b->lo < hi && lo < b->hi;

		next = b->page_next;
		if (!hit)
			continue;
		block_kill(d, b->owner ? b->owner : b);
		next = block_first_on_page(d, page); /* one that straddles is on the list twice if its pages are one */
	}
	/* who is about to read the page's code counts on the flag */
	for (unsigned n = 0; n < d->machine->ncpus && !kept; n++)
		kept = protected_by(d, n, page);
	if (!kept && !block_first_on_page(d, page))
		mem_unmark_code(d->machine->mem, page);
	pthread_mutex_unlock(&d->lock);
}

static void attend(struct dbt *d, uint32_t what)
{
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		struct cpu *c = d->machine->cpus[n];

		if (!c || !c->engine_data)
			continue;
		__atomic_fetch_or(&dbt_cpu(c)->wanted, what, __ATOMIC_SEQ_CST);
		cpu_notify(c, ATT_FLUSH);
	}
}

/* The map changes with the vCPUs stopped: nothing translated is trusted any more. */
static void map_changed(void *opaque)
{
	struct dbt *d = opaque;

	pthread_mutex_lock(&d->lock);
	for (unsigned n = 0; n < CACHE_REGIONS; n++) {
		for (unsigned k = 0; k < d->regions[n].nblocks; k++)
			block_kill(d, d->regions[n].blocks[k]);
	}
	attend(d, WANT_FLUSH_TLB);
	pthread_mutex_unlock(&d->lock);
}

static void writes_revoked(void *opaque)
{
	attend(opaque, WANT_REVOKE_WRITES);
}

void smc_start(struct dbt *d)
{
	d->listener = (struct mem_listener){ .map_changed = map_changed,
					     .code_written = code_written,
					     .writes_revoked = writes_revoked,
					     .opaque = d };
	mem_listen(d->machine->mem, &d->listener);
}

void smc_stop(struct dbt *d)
{
	mem_unlisten(d->machine->mem, &d->listener);
}
