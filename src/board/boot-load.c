/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan's chunks into guest memory. Whole pages of an unpacked kernel that is a file are lent. What is in memory is copied; what has
 * to be read or unpacked first comes in pieces, which two threads take as they get done, each with room for one: the bytes are in the
 * processor's cache when they are copied, and nothing of the size of a kernel is ever made (a page that is first touched costs more
 * than copying it). The CPUs are stopped.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include "board/boot-source.h"

#define ONE_IS_ENOUGH (2u << 20)

struct load {
	struct boot_chunk chunk[2 * BOOT_CHUNKS]; /* of the plan's, what is to be copied */
	unsigned nchunks;
	struct mem *mem;
	struct boot_bytes *const *sources;
	unsigned n;
	struct {
		unsigned source, piece;
	} place; /* the next piece, under the lock */
	pthread_mutex_t lock;
	atomic_bool failed;
};

struct loader {
	struct load *load;
	struct boot_scratch scratch;
	struct err error;
	int result;
};

/* Is the chunk made of this source's bytes? */
static bool is_of(const struct boot_chunk *c, const struct boot_bytes *b)
{
	return b->source && c->len && c->data >= b->data && c->data - b->data < (int64_t)b->size;
}

/* Which of [at, +len) of the source goes where: the chunk's n bytes from `skip` on. */
static uint64_t overlap(const struct boot_chunk *c, const struct boot_bytes *b, uint64_t at, uint64_t len, uint64_t *skip)
{
	uint64_t start = (uint64_t)(c->data - b->data), from = MAX(start, at), to = MIN(start + c->len, at + len);

	*skip = from - start;
	return to > from ? to - from : 0;
}

static bool is_wanted(const struct load *l, const struct boot_bytes *b, uint64_t at, uint64_t len)
{
	uint64_t skip;

	for (unsigned i = 0; i < l->nchunks; i++)
		if (is_of(&l->chunk[i], b) && overlap(&l->chunk[i], b, at, len, &skip))
			return true;
	return false;
}

/* The next piece somebody wants. */
static struct boot_bytes *take(struct load *l, unsigned *piece)
{
	struct boot_bytes *found = NULL;
	uint64_t at, len;

	pthread_mutex_lock(&l->lock);
	while (!found && l->place.source < l->n && !l->failed) {
		struct boot_bytes *b = l->sources[l->place.source];

		if (!b->source || !boot_piece(b, l->place.piece, &at, &len)) {
			l->place.source++;
			l->place.piece = 0;
			continue;
		}
		*piece = l->place.piece++;
		if (is_wanted(l, b, at, len))
			found = b;
	}
	pthread_mutex_unlock(&l->lock);
	return found;
}

static int place_piece(struct loader *t, const struct boot_bytes *b, unsigned n)
{
	const struct load *l = t->load;
	uint64_t at, len, skip;
	const uint8_t *data;
	int r = boot_piece_get(b, n, &t->scratch, &data, &t->error);

	if (r || !boot_piece(b, n, &at, &len)) {
		const struct boot_source *s = b->source->frame ? b->source->frame->packed->source : b->source;

		return r && s ? err_prefix(&t->error, "%s '%s'", s->what, s->path) : r;
	}
	for (unsigned i = 0; i < l->nchunks && !r; i++) {
		const struct boot_chunk *c = &l->chunk[i];
		uint64_t count = is_of(c, b) ? overlap(c, b, at, len, &skip) : 0;

		if (count)
			r = mem_place(l->mem, c->at + skip, data + ((uint64_t)(c->data - b->data) + skip - at), count);
	}
	return r && !t->error.text[0] ? err_set(&t->error, -r, "does not fit where it was to be placed") : r;
}

static void *load_pieces(void *opaque)
{
	struct loader *t = opaque;
	struct boot_bytes *b;
	unsigned n;

	while (!t->result && (b = take(t->load, &n)))
		t->result = place_piece(t, b, n);
	if (t->result)
		t->load->failed = true;
	boot_bytes_dispose(&t->scratch.in);
	boot_bytes_dispose(&t->scratch.out);
	return NULL;
}

static int load_sources(struct load *l, struct err *e)
{
	struct loader t[2] = { { .load = l }, { .load = l } };
	uint64_t size = 0;
	pthread_t second;
	bool two;

	for (unsigned i = 0; i < l->nchunks; i++)
		size += l->chunk[i].len;
	if (!size)
		return 0;
	two = size > ONE_IS_ENOUGH && !pthread_create(&second, NULL, load_pieces, &t[1]);
	load_pieces(&t[0]);
	if (two)
		pthread_join(second, NULL);
	for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
		if (t[i].result && e)
			*e = t[i].error;
		if (t[i].result)
			return t[i].result;
	}
	return 0;
}

/* Has guest memory show the chunk's whole pages of a file instead of copying them: those, as [*from, *to) of the chunk. */
static void lend(struct mem *mem, const struct boot_chunk *c, const struct boot_bytes *b, uint64_t *from, uint64_t *to)
{
	uint64_t first = -c->at & (GUEST_PAGE - 1), at = (uint64_t)(c->data - b->data) + first, pages;
	const struct mem_range *r;

	*from = *to = c->len;
	if (first >= c->len || at % GUEST_PAGE)
		return;
	pages = (c->len - first) & ~(GUEST_PAGE - 1);
	r = pages ? mem_find(mem, c->at + first) : NULL;
	if (!r || r->kind != MEM_RAM || !range_fits(c->at + first - r->start, pages, r->size) ||
	    !range_fits(r->ram_offset + (c->at + first - r->start), pages, mem_lend_limit(mem)) ||
	    mem_lend(mem, r->ram_offset + (c->at + first - r->start), b->source->fd, at, pages, NULL))
		return;
	*from = first;
	*to = first + pages;
}

static void load_list(struct load *l, const struct boot_plan *p)
{
	for (unsigned i = 0; i < p->nchunks; i++) {
		const struct boot_chunk *c = &p->chunk[i];
		uint64_t from = c->len, to = c->len;
		unsigned s = 0;

		while (s < l->n && !is_of(c, l->sources[s]))
			s++;
		if (s == l->n)
			continue;
		if (l->sources[s]->source->lend)
			lend(l->mem, c, l->sources[s], &from, &to);
		if (from)
			l->chunk[l->nchunks++] = (struct boot_chunk){ .at = c->at, .len = from, .data = c->data };
		if (to < c->len)
			l->chunk[l->nchunks++] = (struct boot_chunk){ .at = c->at + to, .len = c->len - to, .data = (const uint8_t *)c->data + to };
	}
}

static int load_zeroes(struct mem *mem, uint64_t at, uint64_t len)
{
	static const uint8_t zeroes[65536];

	while (len) {
		uint64_t n = MIN(len, sizeof(zeroes));
		int r = mem_load(mem, at, zeroes, n);

		if (r)
			return r;
		at += n;
		len -= n;
	}
	return 0;
}

static int load_rest(const struct load *l, const struct boot_chunk *c)
{
	bool placed = false;
	int r = 0;

	for (unsigned i = 0; i < l->n && !placed; i++)
		placed = is_of(c, l->sources[i]);
	if (placed)
		mem_placed(l->mem, c->at, c->len);
	else if (c->len)
		r = mem_load(l->mem, c->at, c->data, c->len);
	return r ? r : load_zeroes(l->mem, c->at + c->len, c->zero);
}

int boot_chunks_load(const struct boot_plan *p, struct boot_bytes *const *sources, unsigned n, struct mem *mem, struct err *e)
{
	struct load l = { .mem = mem, .sources = sources, .n = n };
	int r;

	load_list(&l, p);
	pthread_mutex_init(&l.lock, NULL);
	r = load_sources(&l, e);
	pthread_mutex_destroy(&l.lock);
	for (unsigned i = 0; i < p->nchunks && !r; i++) {
		const struct boot_chunk *c = &p->chunk[i];

		r = load_rest(&l, c);
		if (r)
			err_set(e, -r, "cannot place %llu bytes at %#llx of guest memory", (unsigned long long)(c->len + c->zero),
				(unsigned long long)c->at);
	}
	return r;
}
