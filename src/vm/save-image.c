/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Section RAMMAP and the file's image: guest memory laid out as it is, to be mapped. The section lists the pieces of the image that are in
 * use, each with its checksum; all of them are read and checked before the first is mapped. Runs of pages count as one where no more
 * than GAP of zeroes are between them, or there would be a mapping for every few pages.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "base/err.h"
#include "vm/save-ram.h"

#define PIECE (1u << 20)
#define GAP (64u << 10)
#define MAPPINGS_MAX 8000u /* the host allows a process 65530; where there are more, these runs are copied: */
#define SMALL (64u << 10)
#define THREADS_MAX 8
#define PIECES_PER_THREAD 16 /* fewer are not worth a thread */

struct image_header {
	uint64_t size;
	uint64_t pieces;
};
struct image_piece {
	uint64_t at, length; /* of RAM offsets, which are offsets in the image too */
	uint64_t hash; /* XXH3, 64 bits */
};

struct image {
	struct mem *mem;
	struct image_piece *piece;
	size_t count, cap;
	struct state_writer *writer;
	struct state_reader *reader;
	int (*work)(struct image *m, struct image_piece *p, uint8_t *buf, struct err *e);
	void (*told)(void *opaque, uint64_t done, uint64_t total); /* by the caller's thread */
	void *told_opaque;
	_Atomic size_t next;
	_Atomic bool failed;
};

struct image_thread {
	struct image *image;
	bool first; /* the caller's */
	pthread_t thread;
	int result;
	struct err error;
};

/* ---- each piece by one of several threads */

static void *work_some(void *opaque)
{
	struct image_thread *t = opaque;
	struct image *m = t->image;
	uint8_t *buf _free_ = malloc(PIECE);
	size_t n;

	if (!buf)
		t->result = err_set(&t->error, ENOMEM, "no memory to read or write guest memory");
	while (!t->result && !atomic_load(&m->failed) && (n = atomic_fetch_add(&m->next, 1)) < m->count) {
		t->result = m->work(m, &m->piece[n], buf, &t->error);
		if (t->first && m->told)
			m->told(m->told_opaque, m->piece[n].at + m->piece[n].length, mem_ram_size(m->mem));
	}
	if (t->result)
		atomic_store(&m->failed, true);
	return NULL;
}

/* This thread works too; the others are as many as can be had. */
static int work_all(struct image *m, int (*work)(struct image *m, struct image_piece *p, uint8_t *buf, struct err *e), struct err *e)
{
	struct image_thread t[THREADS_MAX] = { 0 };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned wanted = (unsigned)MIN(MIN((size_t)MAX(cpus, 1), m->count / PIECES_PER_THREAD + 1), (size_t)THREADS_MAX);
	unsigned started = 1;
	int r = 0;

	m->work = work;
	atomic_store(&m->next, 0);
	for (unsigned i = 0; i < wanted; i++)
		t[i].image = m;
	t[0].first = true;
	while (started < wanted && !pthread_create(&t[started].thread, NULL, work_some, &t[started]))
		started++;
	work_some(&t[0]);
	for (unsigned i = 0; i < started; i++) {
		if (i)
			pthread_join(t[i].thread, NULL);
		if (!r && t[i].result) {
			r = t[i].result;
			if (e)
				*e = t[i].error;
		}
	}
	return r;
}

/* ---- writing */

static int list_add(struct image *m, uint64_t at, uint64_t end, struct err *e)
{
	while (at < end) {
		uint64_t n = MIN(end - at, (uint64_t)PIECE);

		if (m->count == m->cap) {
			size_t cap = m->cap ? 2 * m->cap : 256;
			struct image_piece *more = reallocarray(m->piece, cap, sizeof(*more));

			if (!more)
				return err_set(e, ENOMEM, "no memory to save guest memory");
			m->piece = more;
			m->cap = cap;
		}
		m->piece[m->count++] = (struct image_piece){ .at = at, .length = n };
		at += n;
	}
	return 0;
}

static int list_range(struct image *m, uint64_t at, uint64_t stop, struct err *e)
{
	const uint8_t *ram = mem_ram_base(m->mem);
	uint64_t begin = stop, end = stop; /* of the run underway; none: begin is stop */
	int r = 0;

	for (; at < stop && !r; at += GUEST_PAGE) {
		if (save_page_is_zero(ram + at))
			continue;
		if (begin < stop && at - end > GAP) {
			r = list_add(m, begin, end, e);
			begin = stop;
		}
		begin = MIN(begin, at);
		end = at + GUEST_PAGE;
	}
	return r || begin == stop ? r : list_add(m, begin, end, e);
}

static int hash_one(struct image *m, struct image_piece *p, uint8_t *buf, struct err *e)
{
	p->hash = XXH3_64bits(mem_ram_base(m->mem) + p->at, p->length);
	return 0;
}

static int put_one(struct image *m, struct image_piece *p, uint8_t *buf, struct err *e)
{
	return state_writer_image_put(m->writer, p->at, mem_ram_base(m->mem) + p->at, p->length, e);
}

int save_image_write(struct mem *mem, struct state_writer *w, void (*told)(void *opaque, uint64_t done, uint64_t total), void *opaque,
		     struct err *e)
{
	struct image m = { .mem = mem, .writer = w };
	struct image_header h = { .size = mem_ram_size(mem) };
	int r = 0;

	for (uint64_t at = mem_next_data(mem, 0); !r && at < h.size;) {
		uint64_t end = mem_data_end(mem, at);

		r = list_range(&m, at, end, e);
		at = mem_next_data(mem, end);
	}
	h.pieces = m.count;
	if (!r)
		r = work_all(&m, hash_one, e);
	if (!r)
		r = state_writer_begin(w, "RAMMAP", e);
	if (!r)
		r = state_writer_add(w, &h, sizeof(h), e);
	if (!r && m.count)
		r = state_writer_add(w, m.piece, m.count * sizeof(*m.piece), e);
	if (!r)
		r = state_writer_end(w, e);
	if (!r)
		r = state_writer_image(w, h.size, e);
	m.told = told;
	m.told_opaque = opaque;
	if (!r)
		r = work_all(&m, put_one, e);
	free(m.piece);
	return r;
}

/* ---- reading */

/* Ascending without overlap: no more of them than pages. */
static int check_list(const struct image *m, uint64_t size, struct err *e)
{
	uint64_t end = 0;

	for (size_t i = 0; i < m->count; i++) {
		const struct image_piece *p = &m->piece[i];

		if (!p->length || p->length > PIECE || (p->at | p->length) % GUEST_PAGE || p->at < end || !range_fits(p->at, p->length, size))
			return err_set(e, EINVAL, "a piece of guest memory has impossible bounds");
		end = p->at + p->length;
	}
	return 0;
}

static int read_list(struct image *m, struct err *e)
{
	uint64_t size = mem_ram_size(m->mem), length, image_at;
	struct image_header h;
	int fd, r = state_reader_find(m->reader, "RAMMAP", &length, e);

	if (!r)
		r = state_reader_get(m->reader, 0, &h, sizeof(h), e);
	if (!r)
		r = save_ram_check_size(h.size, m->mem, e);
	if (r)
		return r;
	if (state_reader_image(m->reader, &fd, &image_at) != size || h.pieces > size / GUEST_PAGE ||
	    length != sizeof(h) + h.pieces * sizeof(*m->piece))
		return err_set(e, EINVAL, "the list of guest memory does not fit to its image");
	m->count = (size_t)h.pieces;
	m->piece = calloc(m->count + 1, sizeof(*m->piece));
	if (!m->piece)
		return err_set(e, ENOMEM, "no memory to load guest memory");
	if (m->count)
		r = state_reader_get(m->reader, sizeof(h), m->piece, m->count * sizeof(*m->piece), e);
	return r ? r : check_list(m, size, e);
}

static int check_one(struct image *m, struct image_piece *p, uint8_t *buf, struct err *e)
{
	int r = state_reader_image_get(m->reader, p->at, buf, p->length, e);

	if (!r && XXH3_64bits(buf, p->length) != p->hash)
		r = err_set(e, EINVAL, "the saved machine is damaged: guest memory at 0x%llx does not match its checksum",
			    (unsigned long long)p->at);
	return r;
}

/* Of [at, end) what can be is mapped. What was copied has been checked before, but the file may have changed since: as with what is mapped. */
static int take(struct image *m, uint64_t at, uint64_t end, uint64_t small, unsigned *mappings, struct err *e)
{
	uint64_t limit = mem_lend_limit(m->mem), image_at;
	int fd, r = 0;

	state_reader_image(m->reader, &fd, &image_at);
	if (end - at > small && at < limit && *mappings < MAPPINGS_MAX) {
		uint64_t stop = MIN(end, limit);

		++*mappings;
		r = mem_lend(m->mem, at, fd, image_at + at, stop - at, e);
		at = stop;
	}
	return r || at == end ? r : state_reader_image_get(m->reader, at, mem_ram_base(m->mem) + at, end - at, e);
}

static size_t runs(const struct image *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->count; i++)
		n += !i || m->piece[i - 1].at + m->piece[i - 1].length != m->piece[i].at;
	return n;
}

static int take_all(struct image *m, struct err *e)
{
	uint64_t small = runs(m) > MAPPINGS_MAX ? SMALL : 0;
	unsigned mappings = 0;
	int r = 0;

	for (size_t i = 0; i < m->count && !r;) {
		uint64_t at = m->piece[i].at, end = at + m->piece[i].length;

		while (++i < m->count && m->piece[i].at == end)
			end += m->piece[i].length;
		r = take(m, at, end, small, &mappings, e);
	}
	return r;
}

int save_image_read(struct mem *mem, struct state_reader *reader, struct err *e)
{
	struct image m = { .mem = mem, .reader = reader };
	int r = read_list(&m, e);

	if (!r)
		r = work_all(&m, check_one, e);
	if (!r)
		r = take_all(&m, e);
	free(m.piece);
	return r;
}

bool save_image_has(struct state_reader *reader)
{
	uint64_t length;

	return !state_reader_find(reader, "RAMMAP", &length, NULL);
}
