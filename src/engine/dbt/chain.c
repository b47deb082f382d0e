/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From block to block without C.
 *
 * Within a guest page a direct exit is a patched jump: if this page is where it was when we came here, so is the
 * target. To another page it jumps through a slot of the vCPU's own (hot->slot), because where that page leads is a matter of
 * this vCPU's address space and TLB. What leads to a global page stays until the TLB says that any page may have moved, the
 * rest until the address space changes (chain_check). An empty slot holds the address of its exit's stub.
 *
 * The jump cache is keyed by an id that stands for the mode and what fetches in it depend on: for a user the space's
 * code_id, for a supervisor an id of ours that changes with the space only if a page that is not global was met. So
 * two processes that take turns both keep theirs.
 *
 * dbt->lock is held in all of these but chain_check; others change entries of running vCPUs by single aligned stores.
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

static unsigned target_hash(const struct dbt *d, uint64_t va)
{
	/* those of one page together, see block_hash() */
	return (unsigned)(((va >> 12) * 0x9e3779b97f4a7c15ull >> (64 - SLOT_TARGETS_BITS) & ~511ull) | (va >> 3 & 511)) & d->masks.targets;
}

static void slot_reset_all(struct dbt *d, const struct exit *x)
{
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		struct cpu *c = d->machine->cpus[n];

		if (c)
			store64(&dbt_hot(c)->slot[x->slot], stub_address(d, x));
	}
}

int32_t slot_take(struct dbt *d)
{
	int32_t s = d->slot_free;

	if (s >= 0)
		d->slot_free = d->slot_next[s];
	else if (d->slots_begun < LINK_SLOTS)
		s = (int32_t)d->slots_begun++;
	return s;
}

void slot_give_back(struct dbt *d, int32_t slot)
{
	d->slot_next[slot] = d->slot_free;
	d->slot_free = slot;
}

void exit_slot_list(struct dbt *d, struct exit *x)
{
	unsigned h = target_hash(d, x->target);

	if (x->slot < 0)
		return;
	x->next_slot = d->slots_by_target[h];
	x->slot_link = &d->slots_by_target[h];
	if (x->next_slot)
		x->next_slot->slot_link = &x->next_slot;
	d->slots_by_target[h] = x;
}

void exit_slot_attach(struct dbt *d, struct exit *x)
{
	if (x->slot < 0)
		return;
	exit_slot_list(d, x);
	d->slot_of[x->slot] = x;
	d->slot_stub[x->slot] = x->stub;
	slot_reset_all(d, x);
}

void exit_slot_detach(struct dbt *d, struct exit *x)
{
	if (x->slot < 0)
		return;
	*x->slot_link = x->next_slot;
	if (x->next_slot)
		x->next_slot->slot_link = x->slot_link;
	d->slot_of[x->slot] = NULL;
	slot_give_back(d, x->slot);
	x->slot = -1;
}

static void patch(struct dbt *d, const struct exit *x, uint32_t target)
{
	int32_t rel = (int32_t)(target - (x->patch + 4));

	__atomic_store_n((int32_t *)(d->rw + x->patch), rel, __ATOMIC_RELEASE);
}

void exit_unpatch(struct dbt *d, const struct exit *x)
{
	patch(d, x, x->stub);
}

static void slots_reset(struct dbt *d, struct cpu *c, const int32_t *slots, unsigned *count)
{
	for (unsigned n = 0; n < *count; n++)
		store64(&dbt_hot(c)->slot[slots[n]], (uint64_t)(uintptr_t)(d->rx + d->slot_stub[slots[n]]));
	dbt_cpu(c)->counters.slot_resets += *count;
	*count = 0;
}

void link_exit(struct dbt *d, struct cpu *c, struct exit *x, struct block *to, bool global)
{
	uint32_t entry = x->flags == FL_H ? to->start : to->entry_m;

	if (x->from->dead || (x->self && to != x->from))
		return;
	if (x->self)
		entry = to->inner;
	d->counters.links++;
	if (x->slot >= 0) {
		struct dbt_cpu *dc = dbt_cpu(c);
		uint64_t *slot = &dbt_hot(c)->slot[x->slot];

		if (*slot == stub_address(d, x)) {
			if (dc->nslots_local >= LINK_SLOTS - 1)
				slots_reset(d, c, dc->slots_local, &dc->nslots_local);
			if (dc->nslots_global >= LINK_SLOTS - 1)
				slots_reset(d, c, dc->slots_global, &dc->nslots_global);
			if (global)
				dc->slots_global[dc->nslots_global++] = x->slot;
			else
				dc->slots_local[dc->nslots_local++] = x->slot;
		}
		store64(slot, (uint64_t)(uintptr_t)(d->rx + entry));
		return;
	}
	/* a full house: cross-page exits without a slot always go through C */
	if (x->to || (x->target ^ x->from->va) & ~0xfffull || to->page2 != NO_PAGE)
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
	exit_unpatch(d, x);
}

void unlink_incoming(struct dbt *d, struct block *b)
{
	while (b->incoming)
		exit_unlink(d, b->incoming);
	for (struct exit *x = d->slots_by_target[target_hash(d, b->va)]; x; x = x->next_slot) {
		if (x->target == b->va)
			slot_reset_all(d, x);
	}
}

/*
 * The mask becomes smaller by the CPU's own thread, which empties all of it next; and larger at any time, which leaves entries
 * where nobody looks for them any more.
 */
static struct jc2_entry *jc2_entry(struct cpu *c, uint64_t rip)
{
	uint32_t mask = __atomic_load_n(&dbt_cpu(c)->jc2_mask, __ATOMIC_RELAXED);

	return &dbt_hot(c)->jc2[(rip * 0x9e3779b97f4a7c15ull >> (64 - JC2_BITS)) & mask];
}

static uint64_t jc2_key(uint64_t rip, uint64_t id)
{
	return rip << 16 >> 16 | id << 48;
}

/* One that is pushed out of the jump cache. Should it be an old one, nobody will ask for its id. */
static void jc2_insert(struct cpu *c, uint64_t rip, uint64_t key, uint64_t host)
{
	struct jc2_entry *second = jc2_entry(c, rip);

	store64(&second->key, JC_EMPTY);
	store64(&second->host, host);
	store64(&second->key, jc2_key(rip, key & 0xffff));
}

uint64_t jc_find(struct cpu *c, uint64_t rip)
{
	struct dbt_hot *h = dbt_hot(c);
	const struct jc2_entry *second = jc2_entry(c, rip);

	if (__atomic_load_n(&h->jc_key[jc_index(rip)], __ATOMIC_ACQUIRE) == ((rip & ~0xffffull) | h->jc_id))
		return __atomic_load_n(&h->jc_host[jc_index(rip)], __ATOMIC_RELAXED);
	if ((uint64_t)((int64_t)(rip << 16) >> 16) != rip || __atomic_load_n(&second->key, __ATOMIC_ACQUIRE) != jc2_key(rip, h->jc_id))
		return 0;
	dbt_cpu(c)->counters.second_chances++;
	return __atomic_load_n(&second->host, __ATOMIC_RELAXED);
}

void jc_insert(struct cpu *c, uint64_t rip, const void *host)
{
	struct dbt_hot *h = dbt_hot(c);
	uint64_t *key = &h->jc_key[jc_index(rip)], *to = &h->jc_host[jc_index(rip)];
	uint64_t was = (*key & ~0xffffull) | (rip & 0xffff);

	if (*key != JC_EMPTY && was != rip)
		jc2_insert(c, was, *key, *to);
	store64(key, JC_EMPTY);
	store64(to, (uint64_t)(uintptr_t)host);
	store64(key, (rip & ~0xffffull) | h->jc_id);
}

void jc_remove(struct dbt *d, uint64_t rip)
{
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		struct cpu *c = d->machine->cpus[n];

		if (!c || !c->engine_data)
			continue;
		store64(&dbt_hot(c)->jc_key[jc_index(rip)], JC_EMPTY);
		store64(&jc2_entry(c, rip)->key, JC_EMPTY);
	}
}

/*
 * A number for this mode and id; all are forgotten when numbers run out. The least recently used makes room: were it the oldest, the
 * kernel's would be lost whenever user space has had its mappings changed a few times.
 */
static uint16_t jc_id_of(struct dbt_cpu *dc, uint32_t mode, uint64_t code_id)
{
	struct dbt_hot *h = dbt_hot(dc->c);
	unsigned n, victim = 0;

	for (n = 0; n < JC_IDS; n++) {
		if (dc->ids[n].id && dc->ids[n].mode == mode && dc->ids[n].code_id == code_id) {
			dc->ids[n].used = ++dc->ids_clock;
			return dc->ids[n].id;
		}
		if (dc->ids[n].used < dc->ids[victim].used)
			victim = n;
	}
	if (++dc->jc_ids == UINT16_MAX) {
		dc->jc_ids = 1;
		for (n = 0; n < JC_IDS; n++)
			dc->ids[n].id = 0;
		for (n = 0; n < JC_ENTRIES; n++)
			store64(&h->jc_key[n], JC_EMPTY);
		for (n = 0; n < 1u << JC2_BITS; n++)
			store64(&h->jc2[n].key, JC_EMPTY);
	}
	dc->ids[victim].id = dc->jc_ids;
	dc->ids[victim].mode = mode;
	dc->ids[victim].code_id = code_id;
	dc->ids[victim].used = ++dc->ids_clock;
	return dc->jc_ids;
}

void chain_check(struct cpu *c, uint32_t mode)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	struct tlb *t = &c->tlb;
	uint64_t code_id;

	if (unlikely(dc->code_changes != t->code_changes || dc->local_changes != t->local_changes)) {
		bool all = dc->code_changes != t->code_changes;

		dc->code_changes = t->code_changes;
		dc->local_changes = t->local_changes;
		pthread_mutex_lock(&dc->d->lock);
		slots_reset(dc->d, c, dc->slots_local, &dc->nslots_local);
		if (all)
			slots_reset(dc->d, c, dc->slots_global, &dc->nslots_global);
		pthread_mutex_unlock(&dc->d->lock);
		if (all || dc->super_local)
			dc->super_id++;
		dc->super_local = false;
		dc->counters.jc_flushes += all;
	}
	code_id = (mode & MODE_CPL) == 3 ? t->space->code_id << 1 : dc->super_id << 1 | 1;
	if (likely(dc->mode == mode && dc->code_id == code_id))
		return;
	dc->mode = mode;
	dc->code_id = code_id;
	dbt_hot(c)->jc_id = jc_id_of(dc, mode, code_id);
}
