/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What engine=verify needs of memory: the list of pages written lately, word before an access to a device, a gate
 * that holds device writes off while code runs that will be executed a second time, and that second machine's memory.
 *
 * The list is fed where MEM_DIRTY is set, so it holds each page once. Any thread may add; clearing is for the owner of
 * the gate while it is closed, or before anything runs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/err.h"
#include "mem/private.h"

static int gate_init(pthread_mutex_t *gate)
{
	pthread_mutexattr_t a;
	int r = pthread_mutexattr_init(&a);

	if (r)
		return r;
	/* an instruction may make a device write to RAM on the CPU's own thread */
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	r = pthread_mutex_init(gate, &a);
	pthread_mutexattr_destroy(&a);
	return r;
}

int mem_watch(struct mem *m, void (*io)(void *opaque), void *opaque, struct err *e)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return err_set(e, ENOMEM, "no memory to watch the guest's");
	w->page = malloc(m->reserved / GUEST_PAGE * sizeof(*w->page));
	if (!w->page || gate_init(&w->gate)) {
		free(w->page);
		free(w);
		return err_set(e, ENOMEM, "no memory to watch the guest's");
	}
	w->io = io;
	w->opaque = opaque;
	mem_dirty_start(m);
	m->watch = w;
	return 0;
}

void mem_unwatch(struct mem *m)
{
	struct watch *w = m->watch;

	if (!w)
		return;
	m->watch = NULL;
	mem_dirty_stop(m);
	pthread_mutex_destroy(&w->gate);
	free(w->page);
	free(w);
}

void mem_gate(struct mem *m, bool closed)
{
	if (closed)
		pthread_mutex_lock(&m->watch->gate);
	else
		pthread_mutex_unlock(&m->watch->gate);
}

void mem_mark_dirty(struct mem *m, uint64_t ram_page)
{
	struct watch *w = m->watch;

	if (atomic_fetch_or(&m->flags[ram_page], MEM_DIRTY) & MEM_DIRTY || likely(!w))
		return;
	w->page[atomic_fetch_add(&w->count, 1)] = (uint32_t)ram_page;
}

const uint32_t *mem_watch_pages(const struct mem *m, unsigned *count)
{
	*count = atomic_load(&m->watch->count);
	return m->watch->page;
}

void mem_watch_clear(struct mem *m)
{
	struct watch *w = m->watch;

	for (unsigned n = 0; n < w->count; n++)
		atomic_fetch_and(&m->flags[w->page[n]], (uint8_t)~MEM_DIRTY);
	atomic_store(&w->count, 0);
}

struct mem *mem_shadow_create(struct mem *of, const struct io_ops *ops, void *opaque, struct err *e)
{
	uint64_t first = of->ram_size + MEM_ROM_SPACE;
	struct mem *m = mem_create_with(of->ram_size, of->reserved - first, false, e);

	if (!m)
		return NULL;
	m->used = of->used;
	if (mem_shadow_map(m, of, ops, opaque)) {
		mem_destroy(m);
		err_set(e, ENOMEM, "no memory for the address map");
		return NULL;
	}
	return m;
}

/* Those that have come since; a shared mapping that is moved with length 0 is doubled. */
static int shadow_files(struct mem *shadow, const struct mem *of)
{
	for (unsigned i = shadow->nfiles; i < of->nfiles; i++) {
		uint64_t at = of->file[i].ram_offset;

		if (mremap(of->base + at, 0, of->file[i].length, MREMAP_MAYMOVE | MREMAP_FIXED, shadow->base + at) == MAP_FAILED)
			return -ENOMEM;
		shadow->file[shadow->nfiles++] = of->file[i];
	}
	shadow->files = of->files;
	return 0;
}

int mem_shadow_map(struct mem *shadow, const struct mem *of, const struct io_ops *ops, void *opaque)
{
	struct mem_range *r = malloc((of->view.count + 1) * sizeof(*r));

	if (!r || shadow_files(shadow, of)) {
		free(r);
		return -ENOMEM;
	}
	if (of->view.count)
		memcpy(r, of->view.range, of->view.count * sizeof(*r));
	for (unsigned n = 0; n < of->view.count; n++) {
		if (r[n].kind != MEM_IO) {
			r[n].host = shadow->base + r[n].ram_offset;
			continue;
		}
		r[n].ops = ops;
		r[n].opaque = opaque;
	}
	free(shadow->view.range);
	shadow->view = (struct mem_view){ .count = of->view.count, .cap = of->view.count, .range = r };
	shadow->used = of->used;
	return 0;
}

void mem_shadow_copy(struct mem *shadow, struct mem *of)
{
	uint64_t end = of->used, at = 0, data, hole;

	while (at < end) {
		data = mem_next_data(of, at);
		/* never in use here: zero, and no more than that if it was before */
		for (uint64_t page = at; page < data; page += GUEST_PAGE) {
			page = mem_next_data(shadow, page);
			if (page < data)
				memset(shadow->base + page, 0, GUEST_PAGE);
		}
		if (data == end)
			break;
		hole = mem_data_end(of, data);
		memcpy(shadow->base + data, of->base + data, hole - data);
		at = hole;
	}
}
