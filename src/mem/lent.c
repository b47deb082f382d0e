/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RAM that shows a file's bytes until it is written: a saved machine's memory, or an unpacked kernel, costs nothing per page. A lent page is
 * mapped privately, so the guest's writes are its own memory and never the file's. A page that is given back is mapped as all RAM is
 * again, where m->fd has had a hole all the time: it reads as zeroes, not as the file once more.
 *
 * One bit per page says which are lent; the lock guards these against devices that give back from several threads. Each piece
 * that is given back splits a mapping in three, of which the host allows a process 65530 (vm.max_map_count): behind SPLITS_MAX pages
 * stay as they are, which mem_dma_discard may do with any.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/err.h"
#include "mem/private.h"

#define SPLITS_MAX 20000u

struct lent {
	pthread_mutex_t lock;
	unsigned splits;
	uint64_t pages; /* bits there are */
	uint64_t bit[];
};

static bool is_lent(const struct lent *l, uint64_t page)
{
	return l && page < l->pages && l->bit[page / 64] & BIT(page % 64);
}

/* The first page from `page` on that is lent, or is not; `stop` if there is none before it. */
static uint64_t next_page(const struct lent *l, uint64_t page, uint64_t stop, bool lent)
{
	const uint64_t skip = lent ? 0 : ~0ull; /* a word without any such page */

	if (!l)
		return lent ? stop : MIN(page, stop);
	while (page < stop && is_lent(l, page) != lent)
		page += page % 64 == 0 && page < l->pages && l->bit[page / 64] == skip ? 64 : 1;
	return MIN(page, stop);
}

static int lent_create(struct mem *m, struct err *e)
{
	uint64_t pages = m->ram_size / GUEST_PAGE + 64; /* whole words */

	pages &= ~63ull;
	m->lent = calloc(1, sizeof(*m->lent) + pages / 8);
	if (!m->lent)
		return err_set(e, ENOMEM, "no memory for page flags");
	m->lent->pages = pages;
	pthread_mutex_init(&m->lent->lock, NULL);
	return 0;
}

void lent_dispose(struct mem *m)
{
	if (m->lent)
		pthread_mutex_destroy(&m->lent->lock);
	free(m->lent);
	m->lent = NULL;
}

uint64_t mem_lend_limit(const struct mem *m)
{
	return m->huge ? 0 : m->ram_size;
}

bool lent_any(const struct mem *m, uint64_t ram_offset, uint64_t len)
{
	uint64_t end = (ram_offset + len + GUEST_PAGE - 1) / GUEST_PAGE;

	return m->lent && next_page(m->lent, ram_offset / GUEST_PAGE, end, true) < end;
}

int mem_lend(struct mem *m, uint64_t ram_offset, int fd, uint64_t at, uint64_t len, struct err *e)
{
	if (m->huge)
		return err_set(e, ENOTSUP, "memory of huge pages shows no file");
	if (!len || (ram_offset | at | len) % GUEST_PAGE || !range_fits(ram_offset, len, m->ram_size))
		return err_set(e, EINVAL, "a file is lent to impossible pages");
	if (!m->lent && lent_create(m, e))
		return -ENOMEM;
	pthread_mutex_lock(&m->lent->lock);
	if (mmap(m->base + ram_offset, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)at) == MAP_FAILED) {
		pthread_mutex_unlock(&m->lent->lock);
		return err_errno(e, "cannot map a file as memory");
	}
	madvise(m->base + ram_offset, len, MADV_DONTDUMP);
	for (uint64_t page = ram_offset / GUEST_PAGE, end = page + len / GUEST_PAGE; page < end; page++)
		m->lent->bit[page / 64] |= BIT(page % 64);
	pthread_mutex_unlock(&m->lent->lock);
	return 0;
}

/* Lent pages [page, end) are m->fd's again. */
static bool take_back(struct mem *m, uint64_t page, uint64_t end)
{
	uint8_t *at = m->base + page * GUEST_PAGE;
	uint64_t len = (end - page) * GUEST_PAGE;

	if (m->lent->splits >= SPLITS_MAX ||
	    mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->fd, (off_t)(page * GUEST_PAGE)) == MAP_FAILED)
		return false;
	m->lent->splits++;
	madvise(at, len, MADV_DONTDUMP);
	for (; page < end; page++)
		m->lent->bit[page / 64] &= ~BIT(page % 64);
	return true;
}

bool lent_discard(struct mem *m, uint8_t *from, uint64_t len)
{
	uint64_t page = (uint64_t)(from - m->base) / GUEST_PAGE, end = page + len / GUEST_PAGE;
	bool any = false;

	if (!m->lent)
		return !madvise(from, len, MADV_REMOVE);
	pthread_mutex_lock(&m->lent->lock);
	while (page < end) {
		bool lent = is_lent(m->lent, page);
		uint64_t stop = next_page(m->lent, page, end, !lent);

		any |= lent ? take_back(m, page, stop) : !madvise(m->base + page * GUEST_PAGE, (stop - page) * GUEST_PAGE, MADV_REMOVE);
		page = stop;
	}
	pthread_mutex_unlock(&m->lent->lock);
	return any;
}

/* ---- what is in use */

uint64_t mem_next_data(struct mem *m, uint64_t at)
{
	off_t found = m->huge ? (off_t)at : lseek(m->fd, (off_t)at, SEEK_DATA);
	uint64_t data = found < 0 ? (errno == ENXIO ? m->used : at) : (uint64_t)found & ~(GUEST_PAGE - 1);

	data = MIN(MAX(data, at), m->used);
	return m->lent && at < m->used ? MIN(data, next_page(m->lent, at / GUEST_PAGE, (data + GUEST_PAGE - 1) / GUEST_PAGE, true) * GUEST_PAGE) : data;
}

uint64_t mem_data_end(struct mem *m, uint64_t at)
{
	while (at < m->used) {
		off_t found;

		if (is_lent(m->lent, at / GUEST_PAGE)) {
			at = next_page(m->lent, at / GUEST_PAGE, m->used / GUEST_PAGE, false) * GUEST_PAGE;
			continue;
		}
		found = m->huge ? -1 : lseek(m->fd, (off_t)at, SEEK_HOLE);
		if (found < 0)
			return m->used;
		if ((uint64_t)found <= at)
			break;
		at = ((uint64_t)found + GUEST_PAGE - 1) & ~(GUEST_PAGE - 1);
	}
	return MIN(at, m->used);
}
