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

static bool page_is_zero(const uint8_t *p)
{
	const uint64_t *q = (const uint64_t *)p;

	for (unsigned i = 0; i < GUEST_PAGE / 8; i += 8)
		if (q[i] | q[i + 1] | q[i + 2] | q[i + 3] | q[i + 4] | q[i + 5] | q[i + 6] | q[i + 7])
			return false;
	return true;
}

static int write_chunk(struct state_writer *w, const uint8_t *ram, uint64_t at, uint32_t len, uint8_t *out,
		       ZSTD_CCtx *z, struct err *e)
{
	size_t n = ZSTD_compressCCtx(z, out, ZSTD_compressBound(CHUNK), ram + at, len, LEVEL);
	struct chunk_header h = { .ram_offset = at, .raw = len, .stored = len };
	const void *data = ram + at;
	int r;

	if (!ZSTD_isError(n) && n < len) {
		h.stored = (uint32_t)n;
		data = out;
	}
	r = state_writer_add(w, &h, sizeof(h), e);
	return r ? r : state_writer_add(w, data, h.stored, e);
}

int save_ram_write(struct mem *m, struct state_writer *w, struct err *e)
{
	const uint8_t *ram = mem_ram_base(m);
	struct ram_header h = { .size = mem_ram_size(m) };
	uint8_t *out _free_ = malloc(ZSTD_compressBound(CHUNK));
	ZSTD_CCtx *z = ZSTD_createCCtx();
	int r;

	if (!out || !z) {
		r = err_set(e, ENOMEM, "no memory to save guest memory");
		goto out;
	}
	r = state_writer_begin(w, "RAM", e);
	if (!r)
		r = state_writer_add(w, &h, sizeof(h), e);
	for (uint64_t at = 0; !r && at < h.size;) {
		uint64_t end;

		if (page_is_zero(ram + at)) {
			at += GUEST_PAGE;
			continue;
		}
		for (end = at + GUEST_PAGE; end < h.size && end - at < CHUNK && !page_is_zero(ram + end);)
			end += GUEST_PAGE;
		r = write_chunk(w, ram, at, (uint32_t)(end - at), out, z, e);
		at = end;
	}
	if (!r)
		r = state_writer_end(w, e);
out:
	ZSTD_freeCCtx(z);
	return r;
}

/* ---- reading: the list of pieces first, then several threads unpack them, each into its own place */

#define THREADS_MAX 8
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

int save_ram_read(struct mem *m, struct state_reader *r, struct err *e)
{
	struct unpack u = { .reader = r, .ram = mem_ram_base(m) };
	struct ram_header h;
	uint64_t length;
	int rc = state_reader_find(r, "RAM", &length, e);

	if (!rc)
		rc = state_reader_get(r, 0, &h, sizeof(h), e);
	if (!rc && h.size != mem_ram_size(m))
		rc = err_set(e, EINVAL, "saved with %llu bytes of memory, firmware and device memory included, this machine has %llu; "
			     "give the same --firmware, --disk and so on as before",
			     (unsigned long long)h.size, (unsigned long long)mem_ram_size(m));
	if (!rc)
		rc = list_chunks(&u, length, h.size, e);
	if (!rc)
		rc = unpack_all(&u, e);
	free(u.chunk);
	return rc;
}
