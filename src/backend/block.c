/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front of a disk: checks every request against the disk's bounds and rights, applies limits and the error policy, and
 * keeps statistics. While a request is underway its `done` and `opaque` are ours, the caller's are in backend[0] and [1],
 * the time of submission in backend[2].
 *
 * `lock` guards only what is held for the error policy; counters are atomics.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/import.h"
#include "backend/nbd.h"
#include "backend/qcow2.h"
#include "base/clock.h"

struct counters {
	_Atomic uint64_t requests, bytes, errors, ns;
};

struct block {
	struct node *top;
	struct aio *aio;
	struct limiter *_Atomic limiter; /* NULL: no limits so far */
	struct block_limits limits;	 /* as set last */
	char *path;
	char format[16];
	bool read_only;
	bool unheld; /* nothing is held (any more) */
	enum blk_on_error on_read_error, on_write_error;
	struct counters op[BLOCK_OPS];
	_Atomic uint64_t throttled;

	_Atomic uint64_t underway;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	void (*stopped)(void *opaque, int error, bool write);
	void *stopped_opaque;
	bool told, draining;
	struct block_request *held;
	uint64_t nheld;
};

typedef void (*done_fn)(struct block_request *r, int result);

static void request_finish(struct block *b, struct block_request *r, int result)
{
	struct counters *c = &b->op[r->op];

	atomic_fetch_add_explicit(&c->requests, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->ns, clock_host_now() - (uint64_t)(uintptr_t)r->backend[2], memory_order_relaxed);
	if (result)
		atomic_fetch_add_explicit(&c->errors, 1, memory_order_relaxed);
	else
		atomic_fetch_add_explicit(&c->bytes, r->length, memory_order_relaxed);
	r->done = (done_fn)r->backend[0];
	r->opaque = r->backend[1];
	r->done(r, result);
	/* The request may be gone. Under the lock, or block_close could free b between the count and the signal. */
	pthread_mutex_lock(&b->lock);
	atomic_fetch_sub(&b->underway, 1);
	if (b->draining)
		pthread_cond_broadcast(&b->idle);
	pthread_mutex_unlock(&b->lock);
}

/* True when the policy keeps it for block_retry. */
static bool request_hold(struct block *b, struct block_request *r, int result)
{
	bool write = r->op != BLOCK_READ, tell;
	enum blk_on_error policy = write ? b->on_write_error : b->on_read_error;

	if (policy == BLK_REPORT || (policy == BLK_ENOSPC && result != -ENOSPC))
		return false;
	pthread_mutex_lock(&b->lock);
	if (!b->stopped || b->unheld) {
		pthread_mutex_unlock(&b->lock);
		return false;
	}
	r->next = b->held;
	b->held = r;
	b->nheld++;
	if (r->held)
		r->held(r, true);
	if (b->draining)
		pthread_cond_broadcast(&b->idle);
	tell = !b->told;
	b->told = true;
	if (tell)
		b->stopped(b->stopped_opaque, -result, write);
	pthread_mutex_unlock(&b->lock);
	return true;
}

static void front_done(struct block_request *r, int result)
{
	struct block *b = r->opaque;

	if (result && request_hold(b, r, result))
		return;
	request_finish(b, r, result);
}

static void front_go(void *opaque, struct block_request *r)
{
	struct block *b = opaque;

	b->top->ops->submit(b->top, r);
}

static int request_check(struct block *b, const struct block_request *r)
{
	uint64_t iov = 0;

	if ((unsigned)r->op >= BLOCK_OPS)
		return -EINVAL;
	if (r->op == BLOCK_FLUSH)
		return 0;
	if (r->op != BLOCK_READ && b->read_only)
		return -EROFS;
	if (!range_fits(r->offset, r->length, b->top->size) || (r->offset | r->length) % BLOCK_SECTOR)
		return -EINVAL;
	if (r->op != BLOCK_READ && r->op != BLOCK_WRITE)
		return 0;
	for (unsigned i = 0; i < r->iovcnt; i++)
		if (__builtin_add_overflow(iov, r->iov[i].iov_len, &iov))
			return -EINVAL;
	return iov == r->length ? 0 : -EINVAL;
}

void block_submit(struct block *b, struct block_request *r)
{
	int bad = request_check(b, r);
	struct limiter *limiter;

	if (bad) {
		if ((unsigned)r->op < BLOCK_OPS)
			atomic_fetch_add(&b->op[r->op].errors, 1);
		r->done(r, bad);
		return;
	}
	r->backend[0] = (void *)r->done;
	r->backend[1] = r->opaque;
	r->backend[2] = (void *)(uintptr_t)clock_host_now();
	r->done = front_done;
	r->opaque = b;
	atomic_fetch_add(&b->underway, 1);
	if (!r->length && r->op != BLOCK_FLUSH) {
		request_finish(b, r, 0);
		return;
	}
	if (b->read_only && r->op == BLOCK_FLUSH) {
		request_finish(b, r, 0);
		return;
	}
	limiter = atomic_load_explicit(&b->limiter, memory_order_acquire);
	if (limiter && r->op != BLOCK_FLUSH && !limiter_take(limiter, r)) {
		atomic_fetch_add(&b->throttled, 1);
		return;
	}
	front_go(b, r);
}

void block_set_stopped(struct block *b, void (*stopped)(void *opaque, int error, bool write), void *opaque)
{
	pthread_mutex_lock(&b->lock);
	b->stopped = stopped;
	b->stopped_opaque = opaque;
	pthread_mutex_unlock(&b->lock);
}

static struct block_request *held_take(struct block *b)
{
	struct block_request *list;

	pthread_mutex_lock(&b->lock);
	list = b->held;
	b->held = NULL;
	b->nheld = 0;
	b->told = false;
	for (struct block_request *r = list; r; r = r->next)
		if (r->held)
			r->held(r, false);
	pthread_mutex_unlock(&b->lock);
	return list;
}

void block_set_holding(struct block *b, bool on)
{
	struct block_request *list;

	pthread_mutex_lock(&b->lock);
	b->unheld = !on;
	pthread_mutex_unlock(&b->lock);
	for (list = on ? NULL : held_take(b); list;) {
		struct block_request *r = list;

		list = r->next;
		request_finish(b, r, -EIO);
	}
}

int block_set_limits(struct block *b, const struct block_limits *limits, struct err *e)
{
	struct limiter *l = b->limiter;

	if (l) {
		limiter_set(l, limits);
	} else if (limiter_wanted(limits)) {
		l = limiter_create(limits, front_go, b, e);
		if (!l)
			return e ? -e->code : -ENOMEM;
		atomic_store_explicit(&b->limiter, l, memory_order_release);
	}
	b->limits = *limits;
	return 0;
}

void block_get_limits(struct block *b, struct block_limits *limits)
{
	*limits = b->limits;
}

void block_retry(struct block *b)
{
	struct block_request *list = held_take(b);

	while (list) {
		struct block_request *r = list;

		list = r->next;
		r->now = false;
		front_go(b, r);
	}
}

void block_drain(struct block *b)
{
	pthread_mutex_lock(&b->lock);
	/* what is held is not underway: it waits for the owner */
	b->draining = true;
	while (atomic_load(&b->underway) != b->nheld)
		pthread_cond_wait(&b->idle, &b->lock);
	b->draining = false;
	pthread_mutex_unlock(&b->lock);
}

int block_sync(struct block *b, enum block_op op, uint64_t offset, void *buf, uint64_t length)
{
	struct iovec iov = { buf, length };
	struct block_request r = { .op = op, .offset = offset, .length = length };
	int bad;

	if (op == BLOCK_READ || op == BLOCK_WRITE) {
		r.iov = &iov;
		r.iovcnt = 1;
	}
	bad = request_check(b, &r);
	if (bad || (!length && op != BLOCK_FLUSH) || (b->read_only && op == BLOCK_FLUSH))
		return bad;
	return b->top->ops->sync(b->top, &r);
}

void block_get_info(struct block *b, struct block_info *info)
{
	*info = (struct block_info){
		.size = b->top->size,
		.read_only = b->read_only,
		.logical_sector = MAX(b->top->align, BLOCK_SECTOR),
		.physical_sector = MAX(b->top->physical, MAX(b->top->align, BLOCK_SECTOR)),
		.discard_granularity = b->read_only ? 0 : b->top->discard_granularity,
		.format = b->format,
		.path = b->path,
		.holds = b->on_read_error != BLK_REPORT || b->on_write_error != BLK_REPORT,
	};
}

void block_get_stats(struct block *b, struct block_stats *stats)
{
	*stats = (struct block_stats){ .underway = b->underway, .throttled = b->throttled };
	for (unsigned i = 0; i < BLOCK_OPS; i++) {
		stats->op[i].requests = b->op[i].requests;
		stats->op[i].bytes = b->op[i].bytes;
		stats->op[i].errors = b->op[i].errors;
		stats->op[i].ns = b->op[i].ns;
	}
	pthread_mutex_lock(&b->lock);
	stats->held = b->nheld;
	pthread_mutex_unlock(&b->lock);
}

int block_resize(struct block *b, uint64_t size, struct err *e)
{
	if (b->read_only)
		return err_set(e, EROFS, "%s is open for reading only", b->path);
	if (!b->top->ops->resize)
		return err_set(e, ENOTSUP, "%s cannot be resized", b->path);
	if (!size || size % BLOCK_SECTOR || size > INT64_MAX)
		return err_set(e, EINVAL, "a disk's size is a multiple of %u bytes", BLOCK_SECTOR);
	return b->top->ops->resize(b->top, size, e);
}

int block_map(struct block *b, uint64_t offset, uint64_t length, struct block_extent *out)
{
	if (!length || !range_fits(offset, length, b->top->size) || (offset | length) % BLOCK_SECTOR)
		return -EINVAL;
	if (b->top->ops->map)
		return b->top->ops->map(b->top, offset, length, out);
	*out = (struct block_extent){ .length = length, .allocated = true };
	return 0;
}

struct node *block_node(struct block *b)
{
	return b->top;
}

void block_close(struct block *b)
{
	if (!b)
		return;
	block_set_holding(b, false);
	block_drain(b);
	limiter_destroy(b->limiter);
	if (!b->read_only)
		(void)node_flush(b->top);
	node_close(b->top);
	aio_destroy(b->aio);
	pthread_cond_destroy(&b->idle);
	pthread_mutex_destroy(&b->lock);
	free(b->path);
	free(b);
}

int block_wrap(struct block **out, struct aio *a, struct node *top, const struct blk_spec *s, struct err *e)
{
	struct block *b = calloc(1, sizeof(*b));

	if (b)
		b->path = strdup(s->path);
	if (!b || !b->path) {
		free(b);
		node_close(top);
		aio_destroy(a);
		return err_set(e, ENOMEM, "no memory for a disk");
	}
	b->top = top;
	b->aio = a;
	b->read_only = s->read_only || top->read_only;
	b->on_read_error = s->on_read_error;
	b->on_write_error = s->on_write_error;
	memcpy(b->format, s->format, sizeof(b->format));
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->idle, NULL);
	if (block_set_limits(b, &s->limits, e)) {
		block_close(b);
		return e ? -e->code : -ENOMEM;
	}
	*out = b;
	return 0;
}

int blk_open_store(struct node **out, struct aio *a, const struct blk_spec *s, struct err *e)
{
	if (s->nbd)
		return nbd_open(out, a, s, e);
	return file_open(out, a, s, e);
}

/*
 * Nobody said raw: an image of another format would show the guest its tables, which the guest would then write over. A guest that puts
 * these bytes on a disk of its own has to be started with format=raw.
 */
static int check_assumed(struct node *store, const struct blk_spec *s, struct err *e)
{
	char head[4] = "";

	if (!s->assumed || node_read(store, 0, head, sizeof(head)) || memcmp(head, "QFI\xfb", 4))
		return 0;
	return err_set(e, EINVAL, "%.200s holds a qcow2 image: say so with format=qcow2,file=..., or format=raw if its bytes are to be the disk", s->path);
}

int blk_open_node(struct node **out, struct aio *a, const struct blk_spec *s, unsigned depth, struct err *e)
{
	struct blk_spec under = *s;
	struct node *store;
	int r;

	/* a format sees to it itself that what it says is written through is, with its tables */
	if (strcmp(s->format, "raw") && s->cache == BLK_WRITETHROUGH)
		under.cache = BLK_WRITEBACK;
	r = blk_open_store(&store, a, &under, e);
	if (r)
		return r;
	if (!strcmp(s->format, "raw")) {
		r = check_assumed(store, s, e);
		if (r)
			node_close(store);
		else
			*out = store;
		return r;
	}
	if (!strcmp(s->format, "qcow2"))
		return qcow2_open(out, a, store, s, depth, e);
	return import_open(out, a, store, s, e);
}

static int open_as(struct block **out, const char *spec, bool read_only, bool alone, const struct block_files *files, struct err *e)
{
	struct blk_spec s;
	struct node *top;
	struct aio *a;
	int r = blk_spec_parse(&s, spec, e);

	if (r)
		return r;
	s.read_only |= read_only;
	s.no_backing = alone;
	s.files = files;
	a = aio_create(!s.no_ring, e);
	if (!a) {
		blk_spec_dispose(&s);
		return -ENOMEM;
	}
	r = blk_open_node(&top, a, &s, 0, e);
	if (r)
		aio_destroy(a);
	else
		r = block_wrap(out, a, top, &s, e);
	blk_spec_dispose(&s);
	return r;
}

int block_open(struct block **out, const struct block_config *config, struct err *e)
{
	return open_as(out, config->spec, config->read_only, false, config->files, e);
}

int block_open_alone(struct block **out, const char *spec, bool read_only, struct err *e)
{
	return open_as(out, spec, read_only, true, NULL, e);
}

int block_spec_files(const char *spec, bool read_only, int (*each)(void *opaque, const char *path, bool write, struct err *e), void *opaque,
		     struct err *e)
{
	struct blk_spec s;
	int r = blk_spec_parse(&s, spec, e);

	if (r)
		return r;
	if (!s.nbd)
		r = each(opaque, s.path, !s.read_only && !read_only, e);
	for (unsigned i = 0; i < s.nbacking && !r; i++)
		r = each(opaque, s.backing[i].path, false, e);
	blk_spec_dispose(&s);
	return r;
}
