/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses by address, and what every write to RAM has to leave behind: the dirty flag and word to those who
 * hold code of the page.
 *
 * The order that makes noticing written code sound: a writer stores, fences, looks at the page's flags; an
 * engine sets MEM_CODE (a locked instruction), then reads the code. Either the engine reads the new bytes or the
 * writer sees the flag and tells it.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/err.h"
#include "base/trace.h"
#include "mem/io.h"
#include "mem/private.h"

#define LOAD_BY_FILE (256u << 10)

/* Index of the first range that ends after `at`: it holds `at`, or is the next one above it. */
static unsigned view_search(const struct mem_view *v, gpa_t at)
{
	unsigned lo = 0, hi = v->count;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const struct mem_range *r = &v->range[mid];

		if (r->start + r->size <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const struct mem_range *mem_find(const struct mem *m, gpa_t at)
{
	unsigned i = view_search(&m->view, at);

	return i < m->view.count && m->view.range[i].start <= at ? &m->view.range[i] : NULL;
}

uint8_t *mem_ram_ptr(const struct mem *m, gpa_t at)
{
	pthread_rwlock_t *lock = (pthread_rwlock_t *)&m->lock;
	const struct mem_range *r;
	uint8_t *host;

	pthread_rwlock_rdlock(lock);
	r = mem_find(m, at);
	host = r && r->kind == MEM_RAM ? r->host + (at - r->start) : NULL;
	pthread_rwlock_unlock(lock);
	return host;
}

/* Copies of 1, 2, 4 and 8 aligned bytes are single accesses: ring indices and page-table entries rely on it. */
static void copy_bytes(void *to, const void *from, uint64_t len)
{
	uintptr_t low = (uintptr_t)to | (uintptr_t)from;

	if (len == 8 && !(low & 7))
		*(volatile uint64_t *)to = *(const volatile uint64_t *)from;
	else if (len == 4 && !(low & 3))
		*(volatile uint32_t *)to = *(const volatile uint32_t *)from;
	else if (len == 2 && !(low & 1))
		*(volatile uint16_t *)to = *(const volatile uint16_t *)from;
	else
		memcpy(to, from, len);
}

/* How many of `size` bytes at `at` one range (or one hole, *r NULL) covers. */
static unsigned mem_part(const struct mem *m, gpa_t at, unsigned size, const struct mem_range **r)
{
	unsigned i = view_search(&m->view, at);
	const struct mem_range *f = i < m->view.count ? &m->view.range[i] : NULL;

	*r = NULL;
	if (!f)
		return size;
	if (f->start > at)
		return (unsigned)MIN(size, f->start - at);
	*r = f;
	return (unsigned)MIN(size, f->start + f->size - at);
}

static uint64_t range_read(const struct mem *m, const struct mem_range *r, gpa_t at, unsigned size)
{
	uint64_t value = io_mask(size);

	if (unlikely(m->watch) && (!r || r->kind == MEM_IO))
		m->watch->io(m->watch->opaque);
	if (r && r->kind == MEM_IO) {
		value = io_read(r->ops, r->opaque, r->io_offset + (at - r->start), size);
	} else if (r) {
		uint64_t v = 0;

		copy_bytes(&v, r->host + (at - r->start), size);
		return v;
	}
	if (unlikely(m->trace))
		trace_mmio(m->trace, r ? r->name : NULL, false, at, size, value);
	return value;
}

static void range_write(struct mem *m, const struct mem_range *r, gpa_t at, uint64_t value, unsigned size)
{
	if (r && r->kind == MEM_RAM) {
		copy_bytes(r->host + (at - r->start), &value, size);
		mem_written(m, r->ram_offset + (at - r->start), size);
		return;
	}
	if (unlikely(m->watch))
		m->watch->io(m->watch->opaque);
	if (unlikely(m->trace))
		trace_mmio(m->trace, r ? r->name : NULL, true, at, size, value);
	if (r && r->kind == MEM_IO)
		io_write(r->ops, r->opaque, r->io_offset + (at - r->start), value, size);
}

uint64_t mem_read(struct mem *m, gpa_t at, unsigned size)
{
	uint64_t value = 0;
	unsigned done = 0, part;
	const struct mem_range *r;

	while (done < size) {
		part = mem_part(m, at + done, size - done, &r);
		value |= range_read(m, r, at + done, part) << (8 * done);
		done += part;
	}
	return value;
}

void mem_write(struct mem *m, gpa_t at, uint64_t value, unsigned size)
{
	unsigned done = 0, part;
	const struct mem_range *r;

	while (done < size) {
		part = mem_part(m, at + done, size - done, &r);
		range_write(m, r, at + done, (value >> (8 * done)) & io_mask(part), part);
		done += part;
	}
}

/* ---- DMA */

/* Is all of it RAM (or ROM, if asked for)? */
static bool dma_check(const struct mem *m, gpa_t at, uint64_t len, bool rom)
{
	unsigned i = view_search(&m->view, at);
	uint64_t n;

	for (; len; i++) {
		const struct mem_range *r = i < m->view.count ? &m->view.range[i] : NULL;

		if (!r || r->start > at || r->kind == MEM_IO || (r->kind == MEM_ROM && !rom))
			return false;
		n = MIN(len, r->start + r->size - at);
		at += n;
		len -= n;
	}
	return true;
}

static int dma_read(struct mem *m, gpa_t at, void *buf, uint64_t len)
{
	const struct mem_range *r;
	uint8_t *to = buf;
	uint64_t n;

	if (!dma_check(m, at, len, false))
		return -EFAULT;
	while (len) {
		r = mem_find(m, at);
		n = MIN(len, r->start + r->size - at);
		copy_bytes(to, r->host + (at - r->start), n);
		at += n;
		to += n;
		len -= n;
	}
	return 0;
}

/*
 * A kernel of 54 MiB is written through the file: no page of it is zeroed first, none costs a fault (18 ms in place of 34). Where the
 * file takes no writes (huge pages) it is copied as everything else is.
 */
static void load_bytes(struct mem *m, uint8_t *to, uint64_t ram_offset, const uint8_t *from, uint64_t len)
{
	while (len >= LOAD_BY_FILE && !m->huge && !lent_any(m, ram_offset, len)) {
		ssize_t n = pwrite(m->fd, from, len, (off_t)ram_offset);

		if (n <= 0)
			break;
		to += n;
		from += n;
		ram_offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	copy_bytes(to, from, len);
}

enum write_kind { WRITE_DEVICE, WRITE_LOAD, WRITE_PLACE };

static int dma_write(struct mem *m, gpa_t at, const void *buf, uint64_t len, enum write_kind kind)
{
	bool loading = kind != WRITE_DEVICE;
	const struct mem_range *r;
	const uint8_t *from = buf;
	uint64_t n;

	if (!dma_check(m, at, len, loading))
		return -EFAULT;
	if (unlikely(m->watch))
		pthread_mutex_lock(&m->watch->gate);
	while (len) {
		r = mem_find(m, at);
		n = MIN(len, r->start + r->size - at);
		if (loading)
			load_bytes(m, r->host + (at - r->start), r->ram_offset + (at - r->start), from, n);
		else
			copy_bytes(r->host + (at - r->start), from, n);
		if (kind != WRITE_PLACE)
			mem_written(m, r->ram_offset + (at - r->start), n);
		at += n;
		from += n;
		len -= n;
	}
	if (unlikely(m->watch))
		pthread_mutex_unlock(&m->watch->gate);
	return 0;
}

int mem_dma_read(struct mem *m, gpa_t at, void *buf, uint64_t len)
{
	int r;

	pthread_rwlock_rdlock(&m->lock);
	r = dma_read(m, at, buf, len);
	pthread_rwlock_unlock(&m->lock);
	return r;
}

int mem_dma_write(struct mem *m, gpa_t at, const void *buf, uint64_t len)
{
	int r;

	pthread_rwlock_rdlock(&m->lock);
	r = dma_write(m, at, buf, len, WRITE_DEVICE);
	pthread_rwlock_unlock(&m->lock);
	return r;
}

int mem_dma_map(struct mem *m, gpa_t at, uint64_t len, struct iovec *iov, unsigned max)
{
	int n = 0;

	pthread_rwlock_rdlock(&m->lock);
	if (!dma_check(m, at, len, false))
		n = -EFAULT;
	while (len && n >= 0) {
		const struct mem_range *r = mem_find(m, at);
		uint64_t part = MIN(len, r->start + r->size - at);

		if ((unsigned)n == max) {
			n = -E2BIG;
			break;
		}
		iov[n].iov_base = r->host + (at - r->start);
		iov[n++].iov_len = part;
		at += part;
		len -= part;
	}
	pthread_rwlock_unlock(&m->lock);
	return n;
}

/* Under engine=verify nobody may write while the gate is closed. */
bool mem_dma_direct(const struct mem *m)
{
	return !__atomic_load_n(&m->watch, __ATOMIC_RELAXED);
}

void mem_dma_done(struct mem *m, const void *host, uint64_t len)
{
	mem_written(m, (uint64_t)((const uint8_t *)host - m->base), len);
}

void mem_dma_store(struct mem *m, void *host, const void *data, uint64_t len)
{
	struct watch *w = m->watch;

	if (unlikely(w))
		pthread_mutex_lock(&w->gate);
	copy_bytes(host, data, len);
	mem_dma_done(m, host, len);
	if (unlikely(w))
		pthread_mutex_unlock(&w->gate);
}

void mem_dma_discard(struct mem *m, void *host, uint64_t len)
{
	uintptr_t from = ((uintptr_t)host + GUEST_PAGE - 1) & ~(uintptr_t)(GUEST_PAGE - 1);
	uintptr_t to = ((uintptr_t)host + len) & ~(uintptr_t)(GUEST_PAGE - 1);

	if (to > from && mem_dma_direct(m) && lent_discard(m, (uint8_t *)from, to - from))
		mem_dma_done(m, (void *)from, to - from);
}

int mem_load(struct mem *m, gpa_t at, const void *buf, uint64_t len)
{
	int r;

	pthread_rwlock_rdlock(&m->lock);
	r = dma_write(m, at, buf, len, WRITE_LOAD);
	pthread_rwlock_unlock(&m->lock);
	return r;
}

int mem_place(struct mem *m, gpa_t at, const void *buf, uint64_t len)
{
	int r;

	pthread_rwlock_rdlock(&m->lock);
	r = dma_write(m, at, buf, len, WRITE_PLACE);
	pthread_rwlock_unlock(&m->lock);
	return r;
}

void mem_placed(struct mem *m, gpa_t at, uint64_t len)
{
	pthread_rwlock_rdlock(&m->lock);
	while (len) {
		const struct mem_range *r = mem_find(m, at);
		uint64_t n = r ? MIN(len, r->start + r->size - at) : 0;

		if (!n || r->kind == MEM_IO)
			break; /* it was not placed either */
		mem_written(m, r->ram_offset + (at - r->start), n);
		at += n;
		len -= n;
	}
	pthread_rwlock_unlock(&m->lock);
}

/* ---- page flags */

bool mem_mark_code(struct mem *m, uint64_t ram_page)
{
	DCHECK(ram_page < m->used / GUEST_PAGE);
	return !(atomic_fetch_or(&m->flags[ram_page], MEM_CODE) & MEM_CODE);
}

void mem_unmark_code(struct mem *m, uint64_t ram_page)
{
	DCHECK(ram_page < m->used / GUEST_PAGE);
	atomic_fetch_and(&m->flags[ram_page], (uint8_t)~MEM_CODE);
}

bool mem_mark_decoded(struct mem *m, uint64_t ram_page)
{
	DCHECK(ram_page < m->used / GUEST_PAGE);
	return !(atomic_fetch_or(&m->flags[ram_page], MEM_DECODED) & MEM_DECODED);
}

void mem_unmark_decoded(struct mem *m, uint64_t ram_page)
{
	DCHECK(ram_page < m->used / GUEST_PAGE);
	atomic_fetch_and(&m->flags[ram_page], (uint8_t)~MEM_DECODED);
}

static void code_written(struct mem *m, uint64_t ram_offset, uint64_t len)
{
	struct mem_listener *l, *next;

	for (l = m->listeners; l; l = next) {
		next = l->next;
		if (l->code_written)
			l->code_written(l->opaque, ram_offset, len);
	}
}

void mem_written(struct mem *m, uint64_t ram_offset, uint64_t len)
{
	bool tracking;

	CHECK(range_fits(ram_offset, len, m->used));
	atomic_thread_fence(memory_order_seq_cst);
	tracking = atomic_load_explicit(&m->tracking, memory_order_relaxed);
	while (len) {
		uint64_t n = MIN(len, GUEST_PAGE - (ram_offset & (GUEST_PAGE - 1)));
		_Atomic uint8_t *f = &m->flags[ram_offset / GUEST_PAGE];
		uint8_t flags = atomic_load_explicit(f, memory_order_relaxed);

		if (unlikely(tracking && !(flags & MEM_DIRTY)))
			mem_mark_dirty(m, ram_offset / GUEST_PAGE);
		if (unlikely(flags & MEM_HAS_CODE))
			code_written(m, ram_offset, n);
		ram_offset += n;
		len -= n;
	}
}

/* ---- dirty tracking */

static void writes_revoked(struct mem *m)
{
	struct mem_listener *l, *next;

	for (l = m->listeners; l; l = next) {
		next = l->next;
		if (l->writes_revoked)
			l->writes_revoked(l->opaque);
	}
}

static void dirty_clear(struct mem *m)
{
	uint64_t i;

	for (i = 0; i < m->used / GUEST_PAGE; i++)
		if (atomic_load_explicit(&m->flags[i], memory_order_relaxed) & MEM_DIRTY)
			atomic_fetch_and(&m->flags[i], (uint8_t)~MEM_DIRTY);
}

static void dirty_log(struct mem *m, bool on)
{
	struct mem_listener *l, *next;

	for (l = m->listeners; l; l = next) {
		next = l->next;
		if (l->dirty_log)
			l->dirty_log(l->opaque, on);
	}
}

static void dirty_collect(struct mem *m)
{
	struct mem_listener *l, *next;

	for (l = m->listeners; l; l = next) {
		next = l->next;
		if (l->dirty_collect)
			l->dirty_collect(l->opaque);
	}
}

void mem_dirty_start(struct mem *m)
{
	dirty_clear(m);
	atomic_store(&m->tracking, true);
	dirty_log(m, true);
	writes_revoked(m);
}

void mem_dirty_stop(struct mem *m)
{
	atomic_store(&m->tracking, false);
	dirty_log(m, false);
	dirty_clear(m);
}

bool mem_dirty_tracking(const struct mem *m)
{
	return atomic_load_explicit(&m->tracking, memory_order_relaxed);
}

/*
 * A page written through a mapping made while its flag was set is written again without setting it, until the
 * listeners have dropped that mapping. So the flags go first, then the mappings, and what the caller
 * copies after that holds every write that was not flagged. A CPU that runs under a software engine drops its own at its next instruction
 * boundary: whoever copies while CPUs run has to wait until each has passed one. (Nobody does so yet.)
 */
uint64_t mem_dirty_fetch(struct mem *m, uint64_t *bitmap)
{
	uint64_t i, pages = m->used / GUEST_PAGE, count = 0;

	memset(bitmap, 0, (pages + 63) / 64 * 8);
	dirty_collect(m);
	for (i = 0; i < pages; i++) {
		if (!(atomic_load_explicit(&m->flags[i], memory_order_relaxed) & MEM_DIRTY))
			continue;
		atomic_fetch_and(&m->flags[i], (uint8_t)~MEM_DIRTY);
		bitmap[i / 64] |= BIT(i % 64);
		count++;
	}
	if (count)
		writes_revoked(m);
	return count;
}
