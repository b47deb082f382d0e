/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which code the machine's CPUs keep decoded, and who must hear of a write to it.
 *
 * A page with code is flagged MEM_DECODED, so that every store to it takes the slow way and ends in
 * code_written(). lines[] says, by 64 bytes, what of the page is kept by anyone; other writes to
 * the page cost no more than that look. A write to a kept line tells every CPU to drop all it has
 * of the page: the CPU that wrote at once (x86: the next instruction must be the new one), the
 * others at their next boundary (x86: they execute a serialising instruction first, in truth an
 * interrupt). Only when all have dropped it is the page unflagged: until then one of them may
 * write what it still has decoded itself, and must hear of that.
 *
 * Marking races with stores: a CPU may have checked its translation before the flag was set and
 * store later. So translations are revoked, and until each CPU that had one has passed a boundary
 * the page's code is not kept (code_register gives false) but decoded each time.
 *
 * Locking: `lock` covers lines[] with the pages' flags, the two lists and the CPUs' queues.
 * running, request and passed are atomics.
 */
#include <stdlib.h>
#include <string.h>
#include "engine/engine.h"
#include "engine/interp/cache.h"

#define QUEUE_PAGES 32 /* more at once: everything is dropped */
#define WAITING 16
#define DROPPING 16

struct member {
	struct cpu *cpu;
	struct code_cache *cache;
	pthread_t thread;
	_Atomic bool running;
	_Atomic uint64_t request, passed; /* boundaries asked for and passed */
	bool drop_all, flush_tlb, revoke_writes;
	unsigned queued;
	gpa_t queue[QUEUE_PAGES]; /* RAM pages */
};

struct waiting {
	uint64_t ram_page;
	uint64_t until[MAX_CPUS]; /* 0: not waiting for this CPU */
};

/* A page that was written: who has still to drop it, and what has been kept of it since. */
struct dropping {
	uint64_t ram_page;
	uint64_t until[MAX_CPUS]; /* 0: not waiting for this CPU */
	uint64_t fresh;
};

struct code_registry {
	struct machine *machine;
	struct mem_listener listener;
	pthread_mutex_t lock;
	_Atomic uint64_t *lines; /* by RAM page */
	uint64_t pages;
	unsigned nwaiting;
	struct waiting waiting[WAITING];
	unsigned ndropping;
	struct dropping dropping[DROPPING];
	struct member members[MAX_CPUS];
};

static uint64_t line_mask(unsigned from, unsigned len)
{
	unsigned first = from / 64, last = (from + len - 1) / 64;

	return bits(~0ull, 63 - first, 0) << first & bits(~0ull, MIN(last, 63u), 0);
}

static void member_alert(struct member *m)
{
	struct cpu *c = m->cpu;

	if (atomic_fetch_or(&c->attention, ATT_FLUSH) & ATT_FLUSH)
		return;
	if (atomic_load(&c->run_state) == CPU_RUNNING) /* in translated code it looks at nothing */
		c->machine->engine->kick(c);
}

/* The cache is keyed by guest-physical pages; RAM offsets become those through the map. */
static void member_drop(struct code_registry *r, struct member *m, uint64_t ram_page)
{
	unsigned count;
	const struct mem_range *range = mem_ranges(r->machine->mem, &count);
	uint64_t offset = ram_page << 12;

	for (unsigned n = 0; n < count; n++) { /* aliases: more than one may show the page */
		if (range[n].kind == MEM_IO || offset < range[n].ram_offset ||
		    offset - range[n].ram_offset >= range[n].size)
			continue;
		cache_drop_page(m->cache, range[n].start + (offset - range[n].ram_offset));
	}
}

/* The boundary after which the member has dropped the page; 0: it has now. */
static uint64_t member_post(struct code_registry *r, struct member *m, uint64_t ram_page)
{
	uint64_t until;

	if (atomic_load(&m->running) && pthread_equal(m->thread, pthread_self())) {
		member_drop(r, m, ram_page);
		return 0;
	}
	if (m->queued < QUEUE_PAGES)
		m->queue[m->queued++] = ram_page;
	else
		m->drop_all = true;
	until = atomic_fetch_add(&m->request, 1) + 1;
	member_alert(m);
	return until;
}

static bool has_passed(const struct member *m, uint64_t until)
{
	return !m->cpu || !atomic_load(&m->running) || atomic_load(&m->passed) >= until;
}

static bool all_passed(struct code_registry *r, const uint64_t until[MAX_CPUS])
{
	for (unsigned n = 0; n < MAX_CPUS; n++) {
		if (until[n] && !has_passed(&r->members[n], until[n]))
			return false;
	}
	return true;
}

static void page_keep_lines(struct code_registry *r, uint64_t ram_page, uint64_t lines)
{
	atomic_store(&r->lines[ram_page], lines);
	if (!lines)
		mem_unmark_decoded(r->machine->mem, ram_page);
}

/* Of the pages that all have dropped, only what was decoded since is kept. */
static void settle_dropping(struct code_registry *r)
{
	for (unsigned n = 0; n < r->ndropping;) {
		struct dropping *d = &r->dropping[n];

		if (!all_passed(r, d->until)) {
			n++;
			continue;
		}
		page_keep_lines(r, d->ram_page, d->fresh);
		*d = r->dropping[--r->ndropping];
	}
}

/* The page's entry, or a new one; NULL: there is no room. */
static struct dropping *page_dropping(struct code_registry *r, uint64_t ram_page)
{
	for (unsigned n = 0; n < r->ndropping; n++) {
		if (r->dropping[n].ram_page == ram_page)
			return &r->dropping[n];
	}
	return r->ndropping < DROPPING ? &r->dropping[r->ndropping++] : NULL;
}

static void page_drop(struct code_registry *r, uint64_t ram_page)
{
	struct dropping *d, now = { .ram_page = ram_page };

	for (unsigned n = 0; n < MAX_CPUS; n++) {
		if (r->members[n].cpu)
			now.until[n] = member_post(r, &r->members[n], ram_page);
	}
	d = page_dropping(r, ram_page);
	if (d)
		*d = now; /* without room the lines stay as they are: the next write to them asks again */
	settle_dropping(r);
}

/* Any thread. */
static void code_written(void *opaque, uint64_t ram_offset, uint64_t len)
{
	struct code_registry *r = opaque;
	uint64_t page = ram_offset >> 12, mask;

	if (page >= r->pages || !len)
		return;
	mask = line_mask(ram_offset & 4095, (unsigned)MIN(len, 4096 - (ram_offset & 4095)));
	if (!(atomic_load(&r->lines[page]) & mask))
		return;
	pthread_mutex_lock(&r->lock);
	if (atomic_load(&r->lines[page]) & mask)
		page_drop(r, page);
	pthread_mutex_unlock(&r->lock);
}

static void map_changed(void *opaque)
{
	struct code_registry *r = opaque;

	pthread_mutex_lock(&r->lock);
	for (unsigned n = 0; n < MAX_CPUS; n++) {
		if (!r->members[n].cpu)
			continue;
		r->members[n].drop_all = true;
		r->members[n].flush_tlb = true;
		member_alert(&r->members[n]);
	}
	pthread_mutex_unlock(&r->lock);
}

static void writes_revoked(void *opaque)
{
	struct code_registry *r = opaque;

	pthread_mutex_lock(&r->lock);
	for (unsigned n = 0; n < MAX_CPUS; n++) {
		if (!r->members[n].cpu)
			continue;
		r->members[n].revoke_writes = true;
		member_alert(&r->members[n]);
	}
	pthread_mutex_unlock(&r->lock);
}

struct code_registry *registry_create(struct machine *machine)
{
	struct code_registry *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->machine = machine;
	r->pages = mem_ram_limit(machine->mem) >> 12;
	r->lines = calloc(r->pages + 1, sizeof(*r->lines));
	if (!r->lines) {
		free(r);
		return NULL;
	}
	pthread_mutex_init(&r->lock, NULL);
	r->listener = (struct mem_listener){ .map_changed = map_changed,
					     .code_written = code_written,
					     .writes_revoked = writes_revoked,
					     .opaque = r };
	mem_listen(machine->mem, &r->listener);
	return r;
}

void registry_destroy(struct code_registry *r)
{
	if (!r)
		return;
	mem_unlisten(r->machine->mem, &r->listener);
	for (uint64_t n = 0; n < r->pages; n++) {
		if (atomic_load_explicit(&r->lines[n], memory_order_relaxed))
			mem_unmark_decoded(r->machine->mem, n);
	}
	pthread_mutex_destroy(&r->lock);
	free(r->lines);
	free(r);
}

void registry_join(struct code_registry *r, struct code_cache *cache, struct cpu *c)
{
	struct member *m = &r->members[c->id];

	pthread_mutex_lock(&r->lock);
	m->cache = cache;
	m->cpu = c;
	pthread_mutex_unlock(&r->lock);
}

void registry_leave(struct code_registry *r, struct cpu *c)
{
	pthread_mutex_lock(&r->lock);
	r->members[c->id].cpu = NULL;
	pthread_mutex_unlock(&r->lock);
}

void registry_enter(struct code_registry *r, struct cpu *c)
{
	struct member *m = &r->members[c->id];

	m->thread = pthread_self();
	atomic_store(&m->running, true);
	registry_boundary(r, c);
}

/* Passed for good: whoever waits for us sees that we do not run. */
void registry_exit(struct code_registry *r, struct cpu *c)
{
	atomic_store(&r->members[c->id].running, false);
}

void registry_boundary(struct code_registry *r, struct cpu *c)
{
	struct member *m = &r->members[c->id];

	atomic_fetch_and(&c->attention, ~(uint32_t)ATT_FLUSH);
	atomic_store(&m->passed, atomic_load(&m->request));
	pthread_mutex_lock(&r->lock);
	for (unsigned n = 0; n < m->queued; n++)
		member_drop(r, m, m->queue[n]);
	m->queued = 0;
	if (m->drop_all)
		cache_drop_all(m->cache);
	if (m->flush_tlb)
		tlb_flush_all(c);
	else if (m->revoke_writes)
		tlb_revoke_writes(c);
	m->drop_all = m->flush_tlb = m->revoke_writes = false;
	settle_dropping(r);
	pthread_mutex_unlock(&r->lock);
}

/* Is a store from before the page was marked impossible by now? Whatever has settled leaves the
 * list. */
static bool page_settled(struct code_registry *r, uint64_t ram_page)
{
	bool settled = true;

	for (unsigned n = 0; n < r->nwaiting;) {
		struct waiting *w = &r->waiting[n];

		if (all_passed(r, w->until)) {
			*w = r->waiting[--r->nwaiting];
			continue;
		}
		if (w->ram_page == ram_page)
			settled = false;
		n++;
	}
	return settled;
}

/* The page has just been flagged: take away the writable translations, and note whom to wait for.
 */
static bool page_revoke(struct code_registry *r, const struct cpu *self, uint64_t ram_page,
			const uint8_t *host_page)
{
	struct waiting *w = &r->waiting[r->nwaiting];
	bool settled = true;

	memset(w, 0, sizeof(*w));
	w->ram_page = ram_page;
	for (unsigned k = 0; k < MAX_CPUS; k++) {
		struct member *m = &r->members[k];

		if (!m->cpu)
			continue;
		/* a fence between clearing the tags and looking at `running` is in the atomics'
		 * order */
		if (!tlb_revoke_page(&m->cpu->tlb, host_page) || m->cpu == self)
			continue;
		atomic_thread_fence(memory_order_seq_cst);
		if (!atomic_load(&m->running))
			continue;
		w->until[k] = atomic_fetch_add(&m->request, 1) + 1;
		member_alert(m);
		settled = false;
	}
	if (!settled)
		r->nwaiting++;
	return settled;
}

static void page_add_lines(struct code_registry *r, uint64_t ram_page, uint64_t lines)
{
	atomic_fetch_or(&r->lines[ram_page], lines);
	for (unsigned n = 0; n < r->ndropping; n++) {
		if (r->dropping[n].ram_page == ram_page)
			r->dropping[n].fresh |= lines;
	}
}

bool code_register(struct code_registry *r, struct cpu *c, uint64_t ram_page,
		   const uint8_t *host_page, unsigned from, unsigned len)
{
	bool settled;

	if (ram_page >= r->pages)
		return true;
	pthread_mutex_lock(&r->lock);
	settled = page_settled(r, ram_page) && r->nwaiting < WAITING;
	if (settled && mem_mark_decoded(r->machine->mem, ram_page))
		settled = page_revoke(r, c, ram_page, host_page);
	if (settled)
		page_add_lines(r, ram_page, line_mask(from, MIN(len, 4096 - from)));
	pthread_mutex_unlock(&r->lock);
	return settled;
}
