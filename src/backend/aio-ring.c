/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring: any thread puts requests in, under a lock; one thread waits for completions. At most RING_ENTRIES are underway,
 * so the completion queue (twice as large) never overflows; what is more is refused, and the pool does it.
 */
#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include "base/mask.h"
#include "backend/blk.h"

#define RING_ENTRIES 256u

struct ring_item {
	struct ring_item *next; /* the free list */
	struct block_request *r;
	void (*complete)(struct block_request *r, int result);
	int fd;
	bool dsync;
};

struct aio_ring {
	struct io_uring uring;
	pthread_t thread;
	pthread_mutex_t lock; /* submission queue and below */
	unsigned underway;
	struct ring_item *free;
	struct ring_item items[RING_ENTRIES];
};

static void item_prepare(struct io_uring_sqe *sqe, const struct ring_item *it)
{
	const struct block_request *r = it->r;

	switch (r->op) {
	case BLOCK_READ:
		io_uring_prep_readv(sqe, it->fd, r->iov, r->iovcnt, r->offset);
		break;
	case BLOCK_WRITE:
		io_uring_prep_writev2(sqe, it->fd, r->iov, r->iovcnt, r->offset, it->dsync ? RWF_DSYNC : 0);
		break;
	default:
		io_uring_prep_fsync(sqe, it->fd, IORING_FSYNC_DATASYNC);
		break;
	}
	io_uring_sqe_set_data(sqe, (void *)it);
}

/* The kernel may be short of memory for a moment. */
static void queue_submit(struct aio_ring *g)
{
	int r = io_uring_submit(&g->uring);

	while (r == -EINTR || r == -EAGAIN) {
		sched_yield();
		r = io_uring_submit(&g->uring);
	}
}

bool ring_submit(struct aio_ring *g, int fd, struct block_request *r, bool dsync,
		 void (*complete)(struct block_request *r, int result))
{
	struct io_uring_sqe *sqe;
	struct ring_item *it;

	if (r->iovcnt > IOV_MAX || r->length > INT_MAX)
		return false;
	pthread_mutex_lock(&g->lock);
	it = g->free;
	sqe = it ? io_uring_get_sqe(&g->uring) : NULL;
	if (!sqe) {
		pthread_mutex_unlock(&g->lock);
		return false; /* the pool takes what is too much */
	}
	g->free = it->next;
	*it = (struct ring_item){ .r = r, .complete = complete, .fd = fd, .dsync = dsync };
	item_prepare(sqe, it);
	g->underway++;
	queue_submit(g);
	pthread_mutex_unlock(&g->lock);
	return true;
}

static void *ring_main(void *opaque)
{
	struct aio_ring *g = opaque;
	struct io_uring_cqe *cqe;

	pthread_setname_np(pthread_self(), "block-ring");
	for (;;) {
		struct ring_item *it, done;
		int result, r = io_uring_wait_cqe(&g->uring, &cqe);

		if (r == -EINTR || r == -EAGAIN)
			continue;
		CHECK(!r);
		it = io_uring_cqe_get_data(cqe);
		result = cqe->res;
		io_uring_cqe_seen(&g->uring, cqe);
		if (!it)
			return NULL; /* ring_destroy's */
		pthread_mutex_lock(&g->lock);
		done = *it;
		it->next = g->free;
		g->free = it;
		g->underway--;
		pthread_mutex_unlock(&g->lock);
		done.complete(done.r, result);
	}
}

struct aio_ring *ring_create(void)
{
	struct aio_ring *g = calloc(1, sizeof(*g));
	sigset_t all, old;
	int r;

	if (!g)
		return NULL;
	if (io_uring_queue_init(RING_ENTRIES, &g->uring, 0)) {
		free(g);
		return NULL;
	}
	pthread_mutex_init(&g->lock, NULL);
	for (unsigned i = 0; i < RING_ENTRIES; i++) {
		g->items[i].next = g->free;
		g->free = &g->items[i];
	}
	mask_fill(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&g->thread, NULL, ring_main, g);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		io_uring_queue_exit(&g->uring);
		free(g);
		return NULL;
	}
	return g;
}

void ring_destroy(struct aio_ring *g)
{
	struct io_uring_sqe *sqe;

	if (!g)
		return;
	pthread_mutex_lock(&g->lock);
	CHECK(!g->underway);
	sqe = io_uring_get_sqe(&g->uring);
	CHECK(sqe);
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data(sqe, NULL);
	queue_submit(g);
	pthread_mutex_unlock(&g->lock);
	pthread_join(g->thread, NULL);
	io_uring_queue_exit(&g->uring);
	pthread_mutex_destroy(&g->lock);
	free(g);
}
