/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Section RAM: a header with the size, then chunks { ram_offset, raw bytes, stored bytes, data }. A chunk is a run of at most
 * CHUNK bytes of pages that are not all zero. Compression level 1: saving should run at memory speed, about.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include "base/err.h"
#include "vm/save-ram.h"

#define CHUNK (1u << 20)
#define LEVEL 1

struct ram_header {
	uint64_t size;
};
struct chunk_header {
	uint64_t ram_offset;
	uint32_t raw, stored; /* stored == raw: not compressed */
};

bool save_page_is_zero(const uint8_t *p)
{
	const uint64_t *q = (const uint64_t *)p;

	for (unsigned i = 0; i < GUEST_PAGE / 8; i += 8)
		if (q[i] | q[i + 1] | q[i + 2] | q[i + 3] | q[i + 4] | q[i + 5] | q[i + 6] | q[i + 7])
			return false;
	return true;
}

/* ---- writing: a batch of pieces is packed by several threads, then written in order */

#define THREADS_MAX 8
#define BATCH 32

struct piece {
	uint64_t at;
	uint32_t len;
	size_t stored; /* len: not compressed */
	uint8_t *out;
};

struct pack {
	const uint8_t *ram;
	struct piece piece[BATCH];
	unsigned count;
	_Atomic unsigned next;
	struct pack_thread {
		struct pack *p;
		pthread_t thread;
		ZSTD_CCtx *z;
	} thread[THREADS_MAX];
	unsigned threads;
	void (*told)(void *opaque, uint64_t done, uint64_t total);
	void *opaque;
	uint64_t size;
};

static void *pack_some(void *opaque)
{
	struct pack_thread *t = opaque;
	struct pack *p = t->p;
	unsigned i;

	while ((i = atomic_fetch_add(&p->next, 1)) < p->count) {
		struct piece *c = &p->piece[i];
		size_t n = ZSTD_compressCCtx(t->z, c->out, ZSTD_compressBound(CHUNK), p->ram + c->at, c->len, LEVEL);

		c->stored = ZSTD_isError(n) || n >= c->len ? c->len : n;
	}
	return NULL;
}

/* This thread works too; the others are as many as can be had. */
static int pack_write(struct pack *p, struct state_writer *w, struct err *e)
{
	unsigned started = 1, wanted = MIN(p->threads, p->count);
	int r = 0;

	atomic_store(&p->next, 0);
	while (started < wanted && !pthread_create(&p->thread[started].thread, NULL, pack_some, &p->thread[started]))
		started++;
	pack_some(&p->thread[0]);
	for (unsigned i = 1; i < started; i++)
		pthread_join(p->thread[i].thread, NULL);
	for (unsigned i = 0; i < p->count && !r; i++) {
		const struct piece *c = &p->piece[i];
		struct chunk_header h = { .ram_offset = c->at, .raw = c->len, .stored = (uint32_t)c->stored };

		r = state_writer_add(w, &h, sizeof(h), e);
		if (!r)
			r = state_writer_add(w, c->stored == c->len ? p->ram + c->at : c->out, c->stored, e);
	}
	if (p->told && p->count)
		p->told(p->opaque, p->piece[p->count - 1].at + p->piece[p->count - 1].len, p->size);
	p->count = 0;
	return r;
}

static int pack_init(struct pack *p, const struct mem *m, struct err *e)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	p->ram = mem_ram_base(m);
	p->threads = (unsigned)MIN(MAX(cpus, 1), THREADS_MAX);
	for (unsigned i = 0; i < p->threads; i++) {
		p->thread[i].p = p;
		p->thread[i].z = ZSTD_createCCtx();
		if (!p->thread[i].z)
			return err_set(e, ENOMEM, "no memory to save guest memory");
	}
	for (unsigned i = 0; i < BATCH; i++) {
		p->piece[i].out = malloc(ZSTD_compressBound(CHUNK));
		if (!p->piece[i].out)
			return err_set(e, ENOMEM, "no memory to save guest memory");
	}
	return 0;
}

static void pack_dispose(struct pack *p)
{
	for (unsigned i = 0; i < p->threads; i++)
		ZSTD_freeCCtx(p->thread[i].z);
	for (unsigned i = 0; i < BATCH; i++)
		free(p->piece[i].out);
	free(p);
}

static int pack_range(struct pack *p, uint64_t at, uint64_t stop, struct state_writer *w, struct err *e)
{
	int r = 0;

	while (!r && at < stop) {
		uint64_t end;

		if (save_page_is_zero(p->ram + at)) {
			at += GUEST_PAGE;
			continue;
		}
		for (end = at + GUEST_PAGE; end < stop && end - at < CHUNK && !save_page_is_zero(p->ram + end);)
			end += GUEST_PAGE;
		p->piece[p->count].at = at;
		p->piece[p->count++].len = (uint32_t)(end - at);
		at = end;
		if (p->count == BATCH)
			r = pack_write(p, w, e);
	}
	return r;
}

int save_ram_write(struct mem *m, struct state_writer *w, void (*told)(void *opaque, uint64_t done, uint64_t total), void *opaque, struct err *e)
{
	struct ram_header h = { .size = mem_ram_size(m) };
	struct pack *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(e, ENOMEM, "no memory to save guest memory");
	p->told = told;
	p->opaque = opaque;
	p->size = h.size;
	r = pack_init(p, m, e);
	if (!r)
		r = state_writer_begin(w, "RAM", e);
	if (!r)
		r = state_writer_add(w, &h, sizeof(h), e);
	/* to look at a hole would fill it, with a page of zeroes each */
	for (uint64_t at = mem_next_data(m, 0); !r && at < h.size;) {
		uint64_t end = mem_data_end(m, at);

		r = pack_range(p, at, end, w, e);
		at = mem_next_data(m, end);
	}
	if (!r)
		r = pack_write(p, w, e);
	if (!r)
		r = state_writer_end(w, e);
	pack_dispose(p);
	return r;
}

/* ---- reading: the list of pieces first, then several threads unpack them, each into its own place */

#define CHUNKS_PER_THREAD 16 /* fewer are not worth a thread */

struct chunk {
	uint64_t at; /* of the stored bytes, in the section */
	struct chunk_header h;
};

struct unpack {
	struct state_reader *reader;
	uint8_t *ram;
	struct chunk *chunk;
	size_t count, cap;
	_Atomic size_t next;
	_Atomic bool failed;
};

struct unpack_thread {
	struct unpack *u;
	pthread_t thread;
	int result;
	struct err error;
};

static int list_add(struct unpack *u, const struct chunk *c, struct err *e)
{
	if (u->count == u->cap) {
		size_t cap = u->cap ? 2 * u->cap : 256;
		struct chunk *more = reallocarray(u->chunk, cap, sizeof(*more));

		if (!more)
			return err_set(e, ENOMEM, "no memory to load guest memory");
		u->chunk = more;
		u->cap = cap;
	}
	u->chunk[u->count++] = *c;
	return 0;
}

/* Ascending without overlap, so that there are no more of them than pages and no two threads write to the same one. */
static int list_chunks(struct unpack *u, uint64_t length, uint64_t size, struct err *e)
{
	uint64_t end = 0;

	for (uint64_t at = sizeof(struct ram_header); at < length;) {
		struct chunk c;
		int rc = state_reader_get(u->reader, at, &c.h, sizeof(c.h), e);

		if (rc)
			return rc;
		c.at = at + sizeof(c.h);
		if (!c.h.raw || c.h.raw > CHUNK || c.h.stored > c.h.raw || c.h.ram_offset % GUEST_PAGE || c.h.raw % GUEST_PAGE ||
		    c.h.ram_offset < end || !range_fits(c.h.ram_offset, c.h.raw, size) || !range_fits(c.at, c.h.stored, length))
			return err_set(e, EINVAL, "a piece of guest memory has impossible bounds");
		rc = list_add(u, &c, e);
		if (rc)
			return rc;
		end = c.h.ram_offset + c.h.raw;
		at = c.at + c.h.stored;
	}
	return 0;
}

static int unpack_chunk(struct unpack *u, const struct chunk *c, uint8_t *in, ZSTD_DCtx *z, struct err *e)
{
	uint8_t *to = u->ram + c->h.ram_offset;
	int rc;

	if (c->h.stored == c->h.raw)
		return state_reader_get(u->reader, c->at, to, c->h.raw, e);
	rc = state_reader_get(u->reader, c->at, in, c->h.stored, e);
	if (rc)
		return rc;
	if (ZSTD_decompressDCtx(z, to, c->h.raw, in, c->h.stored) != c->h.raw)
		return err_set(e, EINVAL, "guest memory at 0x%llx cannot be unpacked", (unsigned long long)c->h.ram_offset);
	return 0;
}

static void *unpack_some(void *opaque)
{
	struct unpack_thread *t = opaque;
	struct unpack *u = t->u;
	uint8_t *in _free_ = malloc(CHUNK);
	ZSTD_DCtx *z = ZSTD_createDCtx();
	size_t n;

	if (!in || !z)
		t->result = err_set(&t->error, ENOMEM, "no memory to load guest memory");
	while (!t->result && !atomic_load(&u->failed) && (n = atomic_fetch_add(&u->next, 1)) < u->count)
		t->result = unpack_chunk(u, &u->chunk[n], in, z, &t->error);
	if (t->result)
		atomic_store(&u->failed, true);
	ZSTD_freeDCtx(z);
	return NULL;
}

/* This thread works too; the others are as many as can be had. */
static int unpack_all(struct unpack *u, struct err *e)
{
	struct unpack_thread t[THREADS_MAX] = { 0 };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned wanted = (unsigned)MIN(MIN((size_t)MAX(cpus, 1), u->count / CHUNKS_PER_THREAD + 1), (size_t)THREADS_MAX);
	unsigned started = 1;
	int rc = 0;

	for (unsigned i = 0; i < wanted; i++)
		t[i].u = u;
	while (started < wanted && !pthread_create(&t[started].thread, NULL, unpack_some, &t[started]))
		started++;
	unpack_some(&t[0]);
	for (unsigned i = 0; i < started; i++) {
		if (i)
			pthread_join(t[i].thread, NULL);
		if (!rc && t[i].result) {
			rc = t[i].result;
			if (e)
				*e = t[i].error;
		}
	}
	return rc;
}

int save_ram_check_size(uint64_t saved, const struct mem *m, struct err *e)
{
	if (saved == mem_ram_size(m))
		return 0;
	return err_set(e, EINVAL, "saved with %llu bytes of memory, firmware and device memory included, this machine has %llu; "
		       "give the same --firmware, --disk and so on as before",
		       (unsigned long long)saved, (unsigned long long)mem_ram_size(m));
}

int save_ram_read(struct mem *m, struct state_reader *r, struct err *e)
{
	struct unpack u = { .reader = r, .ram = mem_ram_base(m) };
	struct ram_header h;
	uint64_t length;
	int rc = state_reader_find(r, "RAM", &length, e);

	if (!rc)
		rc = state_reader_get(r, 0, &h, sizeof(h), e);
	if (!rc)
		rc = save_ram_check_size(h.size, m, e);
	if (!rc)
		rc = list_chunks(&u, length, h.size, e);
	if (!rc)
		rc = unpack_all(&u, e);
	free(u.chunk);
	return rc;
}
