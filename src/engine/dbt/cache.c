/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code cache: one memfd mapped twice, writable and executable, cut into regions that are filled in turn. When
 * the last is full the oldest is emptied: nothing leads into it any more, every vCPU has been seen outside of
 * translated code since, then its room is used again.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "base/err.h"
#include "base/huge.h"
#include "engine/dbt/dbt.h"

#define TRAMPOLINES 4096u
#define POPULATE_STEP (256u << 10)
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static int map_file(struct dbt *d, size_t size)
{
	d->fd = memfd_create("ospite-code", MFD_CLOEXEC);
	if (d->fd < 0 || ftruncate(d->fd, (off_t)size))
		return -1;
	d->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);
	d->rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, d->fd, 0);
	return d->rw == MAP_FAILED || d->rx == MAP_FAILED ? -1 : 0;
}

/* perf asks its map of names only about memory that is of no file, as far as it can tell. */
static int map_unnamed(struct dbt *d, size_t size)
{
	d->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (d->rw == MAP_FAILED)
		return -1;
	d->rx = mremap(d->rw, 0, size, MREMAP_MAYMOVE); /* the same pages once more */
	return d->rx == MAP_FAILED || mprotect(d->rx, size, PROT_READ | PROT_EXEC) ? -1 : 0;
}

int dbt_cache_create(struct dbt *d, size_t size, struct err *e)
{
	uint32_t each;

	d->size = size;
	if (d->perf_map ? map_unnamed(d, size) : map_file(d, size))
		return err_errno(e, "translator: a code cache of %zu bytes", size);
	each = (uint32_t)((size - TRAMPOLINES) / CACHE_REGIONS) & ~63u;
	for (unsigned n = 0; n < CACHE_REGIONS; n++) {
		d->regions[n].start = TRAMPOLINES + n * each;
		d->regions[n].size = each;
	}
	return 0;
}

struct chunk {
	struct chunk *next;
	size_t used;
	uint8_t data[] __attribute__((aligned(64)));
};
#define CHUNK_SIZE (2u << 20)
#define CHUNK_DATA (CHUNK_SIZE - sizeof(struct chunk))

void *dbt_cache_alloc(struct dbt *d, size_t size)
{
	struct region *r = &d->regions[d->region];
	struct chunk *k = r->chunks;

	size = (size + 7) & ~7ull;
	if (!k || k->used + size > CHUNK_DATA) {
		k = r->spare;
		if (k)
			r->spare = k->next;
		else
			k = huge_alloc(CHUNK_SIZE);
		if (!k)
			return NULL;
		if (d->trimmed && !r->chunks) /* a few hundred blocks of an idle machine */
			madvise(k, CHUNK_SIZE, MADV_NOHUGEPAGE);
		k->next = r->chunks;
		k->used = 0;
		r->chunks = k;
	}
	k->used += size;
	return k->data + k->used - size;
}

void *dbt_cache_alloc_line(struct dbt *d, size_t size)
{
	struct chunk *k = d->regions[d->region].chunks;

	if (k)
		k->used = MIN((k->used + 63) & ~63ull, CHUNK_DATA);
	return dbt_cache_alloc(d, size);
}

struct cache_mark dbt_cache_mark(const struct dbt *d)
{
	struct chunk *k = d->regions[d->region].chunks;

	return (struct cache_mark){ k, k ? k->used : 0 };
}

void dbt_cache_undo(struct dbt *d, struct cache_mark m)
{
	struct region *r = &d->regions[d->region];

	while (r->chunks != m.chunk) {
		struct chunk *k = r->chunks;

		r->chunks = k->next;
		k->next = r->spare;
		r->spare = k;
	}
	if (r->chunks)
		r->chunks->used = m.used;
}

static void chunks_free(struct chunk *k)
{
	while (k) {
		struct chunk *next = k->next;

		huge_free(k, CHUNK_SIZE);
		k = next;
	}
}

static void region_free_blocks(struct dbt *d, struct region *r)
{
	for (unsigned n = 0; n < r->nblocks; n++) {
		struct block *b = r->blocks[n];

		for (unsigned k = 0; k < b->nexits; k++)
			exit_slot_detach(d, &b->exits[k]);
	}
	while (r->chunks) {
		struct chunk *k = r->chunks;

		r->chunks = k->next;
		k->next = r->spare;
		r->spare = k;
	}
	r->nblocks = 0;
	r->used = 0;
}

void dbt_cache_destroy(struct dbt *d)
{
	for (unsigned n = 0; n < CACHE_REGIONS; n++) {
		chunks_free(d->regions[n].chunks);
		chunks_free(d->regions[n].spare);
		free(d->regions[n].blocks);
	}
	if (d->rw && d->rw != MAP_FAILED)
		munmap(d->rw, d->size);
	if (d->rx && d->rx != MAP_FAILED)
		munmap(d->rx, d->size);
	if (d->fd >= 0)
		close(d->fd);
}

/*
 * A vCPU's epoch is odd while it may execute blocks or hold pointers to them, or be between a TLB check and its store;
 * it changes at points where it does neither. Wait until every other vCPU (or one) has passed such a point. The lock
 * is dropped while waiting: a vCPU may be in a helper that wants it.
 */
void quiesce_cpu(struct dbt *d, struct cpu *c)
{
	uint32_t *epoch = &dbt_hot(c)->epoch, seen = __atomic_load_n(epoch, __ATOMIC_ACQUIRE);

	while ((seen & 1) && __atomic_load_n(epoch, __ATOMIC_ACQUIRE) == seen) {
		d->drops++;
		atomic_fetch_or(&c->attention, ATT_FLUSH); /* the interpreter's loop looks only there */
		engine_dbt.kick(c);
		pthread_mutex_unlock(&d->lock);
		nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
		pthread_mutex_lock(&d->lock);
	}
}

static void quiesce(struct dbt *d, struct cpu *self)
{
	for (unsigned n = 0; n < d->machine->ncpus; n++) {
		struct cpu *c = d->machine->cpus[n];

		if (c && c->engine_data && c != self)
			quiesce_cpu(d, c);
	}
}

static void region_evict(struct dbt *d, struct cpu *c, struct region *r)
{
	d->evicting = true;
	for (unsigned n = 0; n < r->nblocks; n++) {
		struct block *b = r->blocks[n];

		block_kill(d, b);
		for (unsigned k = 0; k < b->nexits; k++)
			exit_unlink(d, &b->exits[k]);
	}
	quiesce(d, c);
	region_free_blocks(d, r);
	d->counters.evictions++;
	d->evicting = false;
	pthread_cond_broadcast(&d->evicted);
}

/* Everything is evicted and its memory given back. */
bool dbt_cache_empty(struct dbt *d, struct cpu *c)
{
	bool empty = true;

	while (d->evicting) {
		d->drops++;
		pthread_cond_wait(&d->evicted, &d->lock);
	}
	for (unsigned n = 1; n <= CACHE_REGIONS; n++) { /* the one being filled last: meanwhile others may fill it */
		struct region *r = &d->regions[(d->region + n) % CACHE_REGIONS];

		if (r->used)
			region_evict(d, c, r);
	}
	for (unsigned n = 0; n < CACHE_REGIONS; n++) {
		struct region *r = &d->regions[n];
		uintptr_t from = ((uintptr_t)d->rw + r->start + 4095) & ~(uintptr_t)4095;
		uintptr_t to = ((uintptr_t)d->rw + r->start + r->size) & ~(uintptr_t)4095;

		if (r->used || r->nblocks) {
			empty = false;
			continue;
		}
		if (r->present && to > from)
			madvise((void *)from, to - from, MADV_REMOVE);
		r->present = 0;
		chunks_free(r->spare);
		r->spare = NULL;
		free(r->blocks);
		r->blocks = NULL;
		r->room = 0;
	}
	return empty;
}

/* In steps: two page faults for each 4 KiB of code are a tenth of what it takes to translate it. */
static void region_populate(struct dbt *d, struct region *r, size_t need)
{
	while (r->present < r->size && r->used + need > r->present) {
		uint32_t from = (r->start + r->present) & ~4095u, to = MIN(from + POPULATE_STEP, r->start + r->size);

		madvise(d->rw + from, to - from, MADV_POPULATE_WRITE); /* an older kernel: later, one by one */
		madvise(d->rx + from, to - from, MADV_POPULATE_READ);
		r->present = to - r->start;
	}
}

uint8_t *dbt_cache_room(struct dbt *d, struct cpu *c, size_t need, size_t *room)
{
	struct region *r;

	while (d->evicting) {
		d->drops++;
		pthread_cond_wait(&d->evicted, &d->lock);
	}
	r = &d->regions[d->region];
	if (r->size - r->used < need) {
		d->region = (d->region + 1) % CACHE_REGIONS;
		r = &d->regions[d->region];
		if (r->used)
			region_evict(d, c, r);
	}
	if (r->nblocks == r->room) {
		unsigned more = r->room ? r->room * 2 : 1024;
		struct block **grown = realloc(r->blocks, more * sizeof(*grown));

		if (!grown)
			return NULL;
		r->blocks = grown;
		r->room = more;
	}
	r->used = (r->used + 63) & ~63u; /* blocks are often loop heads */
	if (r->size < need || r->used > r->size - need)
		return NULL;
	region_populate(d, r, need);
	*room = r->size - r->used;
	return d->rw + r->start + r->used;
}

void dbt_cache_commit(struct dbt *d, struct block *b, uint32_t end)
{
	struct region *r = &d->regions[d->region];

	r->blocks[r->nblocks++] = b;
	r->used = end - r->start;
}

struct block *dbt_cache_find(const struct dbt *d, uintptr_t host_pc)
{
	uint32_t at = (uint32_t)(host_pc - (uintptr_t)d->rx);

	for (unsigned n = 0; n < CACHE_REGIONS; n++) {
		const struct region *r = &d->regions[n];
		unsigned lo = 0, hi = r->nblocks;

		if (!hi || at < r->start || at - r->start >= r->used)
			continue;
		while (hi - lo > 1) {
			unsigned mid = (lo + hi) / 2;

			if (r->blocks[mid]->start <= at)
				lo = mid;
			else
				hi = mid;
		}
		return at >= r->blocks[lo]->start && at < r->blocks[lo]->end ? r->blocks[lo] : NULL;
	}
	return NULL;
}
