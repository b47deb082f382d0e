/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The power goes at any instant. A file in memory records every write, cut into sectors, and every flush; then for each instant
 * the file is made as it may be found: all sectors before the last flush, and of those after it all up to the instant, or any
 * subset. The image must open, have no corruptions, and each sector must hold what it held at the guest's last
 * acknowledged flush, or something written since.
 *
 * With a number as argument: so many longer rounds instead of a few short ones.
 */
#include "exercise.h"
#include "backend/qcow2.h"

#define DISK (256u << 10)
#define SECTORS (DISK / 512)
#define FILE_MAX (8u << 20)

struct record {
	uint64_t offset; /* of a sector; ~0: a flush */
	uint8_t data[512];
};

struct memory {
	struct node n;
	uint8_t *bytes;
	struct record *log; /* NULL: not recording */
	size_t nlog, room;
};

static void memory_log(struct memory *m, uint64_t offset, const void *data)
{
	if (m->nlog == m->room) {
		m->room = m->room ? m->room * 2 : 4096;
		m->log = realloc(m->log, m->room * sizeof(*m->log));
		assert_non_null(m->log);
	}
	m->log[m->nlog].offset = offset;
	if (data)
		memcpy(m->log[m->nlog].data, data, 512);
	m->nlog++;
}

static void memory_write(struct memory *m, uint64_t offset, uint64_t length)
{
	if (!m->room)
		return;
	for (uint64_t at = offset & ~511ull; at < offset + length; at += 512)
		memory_log(m, at, m->bytes + at);
}

static int memory_sync(struct node *n, struct block_request *r)
{
	struct memory *m = container_of(n, struct memory, n);

	if (r->op == BLOCK_FLUSH) {
		if (m->room)
			memory_log(m, ~0ull, NULL);
		return 0;
	}
	assert_true(range_fits(r->offset, r->length, FILE_MAX));
	switch (r->op) {
	case BLOCK_READ:
		iov_from_buf(r->iov, r->iovcnt, 0, m->bytes + r->offset, r->length);
		return 0;
	case BLOCK_WRITE:
		iov_to_buf(r->iov, r->iovcnt, 0, m->bytes + r->offset, r->length);
		break;
	default:
		memset(m->bytes + r->offset, 0, r->length);
		break;
	}
	memory_write(m, r->offset, r->length);
	n->size = MAX(n->size, r->offset + r->length);
	return 0;
}

static void memory_submit(struct node *n, struct block_request *r)
{
	r->done(r, memory_sync(n, r));
}

static void memory_close(struct node *n)
{
}

static const struct node_ops memory_ops = { .name = "memory", .submit = memory_submit, .sync = memory_sync, .close = memory_close };

static void memory_init(struct memory *m)
{
	*m = (struct memory){ .n = { .ops = &memory_ops, .align = 1, .grows = true, .path = (char *)"memory" } };
	m->bytes = calloc(1, FILE_MAX);
}

static struct block *memory_open(struct memory *m, enum blk_cache cache)
{
	struct blk_spec s = { .format = "qcow2", .path = "memory", .discard = true, .cache = cache };
	struct err e = { 0 };
	struct node *top;
	struct block *b = NULL;

	m->n.aio = aio_create(false, &e);
	if (qcow2_open(&top, m->n.aio, &m->n, &s, 0, &e) || block_wrap(&b, m->n.aio, top, &s, &e))
		fail_msg("%s", e.text);
	return b;
}

/* ---- what the guest did: each write has a stamp of its own, all over its sectors; stamp 0 is zeroes */

struct step {
	size_t began, ended; /* log positions */
	enum block_op op;
	unsigned first, n; /* sectors */
	bool durable;      /* a flush: all before is; or a write with FUA semantics */
};

struct story {
	struct step steps[400];
	unsigned n;
};

static void stamp_fill(uint8_t *buf, unsigned sectors, uint64_t stamp)
{
	for (unsigned i = 0; i < sectors * 64; i++)
		((uint64_t *)buf)[i] = stamp;
}

static void story_tell(struct block *b, struct memory *m, struct story *t, unsigned count, unsigned *seed, bool snapshots, bool through)
{
	uint8_t *buf = malloc(DISK);
	unsigned nsnapshots = 0;
	struct err e = { 0 };

	for (t->n = 0; t->n < count; t->n++) {
		struct step *s = &t->steps[t->n];
		unsigned what = (unsigned)rand_r(seed) % 20;
		int r;

		*s = (struct step){ .began = m->nlog };
		s->n = 1 + (unsigned)rand_r(seed) % 40;
		s->first = (unsigned)rand_r(seed) % (SECTORS - s->n);
		s->op = what < 12 ? BLOCK_WRITE : what < 14 ? BLOCK_DISCARD : what < 16 ? BLOCK_WRITE_ZEROES : BLOCK_FLUSH;
		s->durable = s->op == BLOCK_FLUSH || (through && s->op != BLOCK_DISCARD);
		if (snapshots && what == 19) {
			char name[2] = { (char)('a' + nsnapshots), 0 };

			s->durable = true;
			if (nsnapshots && rand_r(seed) % 2) {
				name[0] = (char)('a' + --nsnapshots);
				r = image_snapshot_delete(b, name, &e);
			} else {
				nsnapshots++;
				r = image_snapshot_create(b, name, &e);
			}
			if (r)
				fail_msg("%s", e.text);
			s->ended = m->nlog;
			continue;
		}
		stamp_fill(buf, s->n, t->n + 1);
		r = block_sync(b, s->op, s->first * 512ull, buf, s->op == BLOCK_FLUSH ? 0 : s->n * 512ull);
		assert_int_equal(r, 0);
		s->ended = m->nlog;
	}
	free(buf);
}

/* May sector i hold `stamp` when the log was cut at `cut`? Goes back from what began last. */
static bool may_hold(const struct story *t, size_t cut, unsigned sector, uint64_t stamp)
{
	bool settled = false; /* everything older is on disk */

	for (unsigned i = t->n; i--;) {
		const struct step *s = &t->steps[i];
		bool covers = s->op != BLOCK_FLUSH && sector >= s->first && sector - s->first < s->n;

		if (s->began > cut)
			continue;
		if (covers && s->op == BLOCK_WRITE && stamp == i + 1)
			return true;
		if (covers && s->op != BLOCK_WRITE && !stamp)
			return true;
		settled |= s->durable && s->op == BLOCK_FLUSH && s->ended <= cut;
		/* the last of the settled ones stands; a discard may have done nothing */
		if (covers && s->op != BLOCK_DISCARD && ((s->durable && s->ended <= cut) || settled))
			return false;
	}
	return !stamp;
}

static void check_instant(const struct memory *from, const struct story *t, size_t cut, unsigned *seed, bool subset, enum blk_cache cache,
			  struct memory *m, const uint8_t *start)
{
	static uint8_t back[DISK];
	struct image_check found;
	struct err e = { 0 };
	struct block *b;
	size_t last = 0;

	for (size_t i = 0; i < cut; i++)
		if (from->log[i].offset == ~0ull)
			last = i;
	memcpy(m->bytes, start, FILE_MAX);
	for (size_t i = 0; i < cut; i++)
		if (from->log[i].offset != ~0ull && (i < last || !subset || rand_r(seed) % 2))
			memcpy(m->bytes + from->log[i].offset, from->log[i].data, 512);
	m->n.size = from->n.size;
	b = memory_open(m, cache);
	if (image_check(b, false, &found, &e))
		fail_msg("cut at %zu: %s", cut, e.text);
	if (found.corruptions || found.errors)
		fail_msg("cut at %zu of %zu%s: %lu corruptions, %lu errors", cut, from->nlog, subset ? ", subset" : "", found.corruptions,
			 found.errors);
	assert_int_equal(block_sync(b, BLOCK_READ, 0, back, DISK), 0);
	for (unsigned i = 0; i < SECTORS; i++) {
		const uint64_t *w = (uint64_t *)(back + i * 512);

		for (unsigned k = 1; k < 64; k++)
			assert_int_equal(w[k], w[0]);
		if (!may_hold(t, cut, i, w[0]))
			fail_msg("cut at %zu of %zu%s: sector %u holds the data of step %lu", cut, from->nlog, subset ? ", subset" : "", i,
				 w[0] - 1);
	}
	block_close(b);
}

static void image_make(struct memory *m, uint64_t cluster_size, bool lazy)
{
	struct image_create c = { .format = "qcow2", .size = DISK, .cluster_size = cluster_size, .lazy_refcounts = lazy, .replace = true };
	struct err e = { 0 };
	struct dir d;
	int fd;

	dir_make_in(&d, true);
	c.path = d.path;
	if (image_create(&c, &e))
		fail_msg("%s", e.text);
	fd = open(d.path, O_RDONLY);
	m->n.size = (uint64_t)pread(fd, m->bytes, FILE_MAX, 0);
	close(fd);
	dir_remove(&d);
}

static void story_run(unsigned seed, unsigned count, size_t stride)
{
	static const uint64_t sizes[] = { 512, 4096, 65536 };
	bool lazy = rand_r(&seed) % 3 == 0, snapshots = rand_r(&seed) % 2;
	enum blk_cache cache = rand_r(&seed) % 4 ? BLK_WRITEBACK : BLK_WRITETHROUGH;
	uint8_t *start = malloc(FILE_MAX);
	struct story *t = calloc(1, sizeof(*t));
	struct memory m, copy;
	struct block *b;

	memory_init(&m);
	memory_init(&copy);
	image_make(&m, sizes[rand_r(&seed) % 3], lazy);
	memcpy(start, m.bytes, FILE_MAX);
	m.room = 4096;
	m.log = malloc(m.room * sizeof(*m.log));
	b = memory_open(&m, cache);
	story_tell(b, &m, t, count, &seed, snapshots, cache == BLK_WRITETHROUGH);
	block_close(b);
	for (size_t cut = 0; cut <= m.nlog; cut += 1 + (stride ? (size_t)rand_r(&seed) % stride : 0)) {
		check_instant(&m, t, cut, &seed, false, cache, &copy, start);
		check_instant(&m, t, cut, &seed, true, cache, &copy, start);
	}
	free(m.log);
	free(m.bytes);
	free(copy.bytes);
	free(start);
	free(t);
}

static unsigned rounds = 4;

static void test_instants(void **state)
{
	for (unsigned i = 0; i < rounds; i++)
		story_run(i, rounds > 4 ? 120 : 60, rounds > 4 ? 8 : 20);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_instants) };

	if (argc > 1)
		rounds = (unsigned)atoi(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
