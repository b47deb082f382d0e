/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From block to block without C.
 *
 * Within a guest page a direct exit is a patched jump: if this page is where it was when we came here, so is the
 * target. To another page it jumps through a slot of the vCPU's own (hot->slot), because where that page leads is a matter of
 * this vCPU's address space and TLB: slots and the jump cache are emptied whenever those change (chain_flush).
 * An empty slot holds the address of its exit's stub. dbt->lock is held in all of these but chain_flush and jc_insert,
 * which touch the calling vCPU only; others change entries of running vCPUs by single aligned stores.
 */
#include "engine/dbt/dbt.h"

static void store64(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static uint64_t stub_address(const struct dbt *d, const struct exit *x)
{
	return (uint64_t)(uintptr_t)(d->rx + x->stub);
}

static unsigned target_hash(uint64_t va)
{
	return (unsigned)(va ^ va >> 12) & (SLOT_TARGETS - 1);
}

static void slot_reset_all(struct dbt *d, const struct exit *x)
{
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		struct cpu *c = d->machine->cpus[n];

		if (c)
			store64(&dbt_hot(c)->slot[x->slot], stub_address(d, x));
	}
}

void exit_slot_attach(struct dbt *d, struct exit *x)
{
	unsigned h = target_hash(x->target);

	if (x->slot < 0)
		return;
	x->next_slot = d->slots_by_target[h];
	d->slots_by_target[h] = x;
	d->slot_of[x->slot] = x;
	slot_reset_all(d, x);
}

void exit_slot_detach(struct dbt *d, struct exit *x)
{
	struct exit **p = &d->slots_by_target[target_hash(x->target)];

	if (x->slot < 0)
		return;
	while (*p != x)
		p = &(*p)->next_slot;
	*p = x->next_slot;
	d->slot_of[x->slot] = NULL;
	d->slot_next[x->slot] = d->slot_free;
	d->slot_free = x->slot;
	x->slot = -1;
}

static void patch(struct dbt *d, const struct exit *x, uint32_t target)
{
	int32_t rel = (int32_t)(target - (x->patch + 4));

	__atomic_store_n((int32_t *)(d->rw + x->patch), rel, __ATOMIC_RELEASE);
}

void link_exit(struct dbt *d, struct cpu *c, struct exit *x, struct block *to)
{
	uint32_t entry = x->flags == FL_H ? to->start : to->entry_m;

	d->counters.links++;
	if (x->slot >= 0) {
		struct dbt_cpu *dc = dbt_cpu(c);
		uint64_t *slot = &dbt_hot(c)->slot[x->slot];

		if (*slot == stub_address(d, x)) {
			if (dc->nslots_used == LINK_SLOTS)
				chain_flush(c);
			dc->slots_used[dc->nslots_used++] = x->slot;
		}
		store64(slot, (uint64_t)(uintptr_t)(d->rx + entry));
		return;
	}
	/* a full house: cross-page exits without a slot always go through C */
	if (x->to || (x->target ^ x->from->va) & ~0xfffull)
		return;
	x->to = to;
	x->next_in = to->incoming;
	to->incoming = x;
	patch(d, x, entry);
}

/* Forget where x leads. */
void exit_unlink(struct dbt *d, struct exit *x)
{
	struct exit **p;

	if (!x->to)
		return;
	for (p = &x->to->incoming; *p != x; p = &(*p)->next_in)
		;
	*p = x->next_in;
	x->to = NULL;
	patch(d, x, x->stub);
}

void unlink_incoming(struct dbt *d, struct block *b)
{
	while (b->incoming)
		exit_unlink(d, b->incoming);
	for (struct exit *x = d->slots_by_target[target_hash(b->va)]; x; x = x->next_slot) {
		if (x->target == b->va)
			slot_reset_all(d, x);
	}
}

void jc_insert(struct cpu *c, uint64_t rip, const void *host)
{
	struct dbt_hot *h = dbt_hot(c);
	struct jc_entry *j = &h->jc[jc_index(rip)];

	store64(&j->key, JC_EMPTY);
	store64(&j->host, (uint64_t)(uintptr_t)host);
	store64(&j->key, (rip & ~0xfffull) | h->jc_id);
}

void jc_remove(struct dbt *d, uint64_t rip)
{
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		struct cpu *c = d->machine->cpus[n];

		if (c)
			store64(&dbt_hot(c)->jc[jc_index(rip)].key, JC_EMPTY);
	}
}

void chain_flush(struct cpu *c)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	struct dbt_hot *h = dbt_hot(c);
	struct dbt *d = dc->d;

	dc->counters.jc_flushes++;
	dc->counters.slot_resets += dc->nslots_used;
	if (++h->jc_id == 4096) {
		h->jc_id = 1;
		for (unsigned n = 0; n < JC_ENTRIES; n++)
			h->jc[n].key = JC_EMPTY;
	}
	for (unsigned n = 0; n < dc->nslots_used; n++) {
		struct exit *x = d->slot_of[dc->slots_used[n]];

		if (x)
			store64(&h->slot[x->slot], stub_address(d, x));
	}
	dc->nslots_used = 0;
}
