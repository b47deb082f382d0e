/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers for nodes: waiting for one request, and doing a waiting operation on a thread of the pool. */
#include <errno.h>
#include <stdlib.h>
#include "backend/blk.h"

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int result;
};

static void waiter_done(struct block_request *r, int result)
{
	struct waiter *w = r->opaque;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	w->result = result;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

int node_sync_by_submit(struct node *n, struct block_request *from)
{
	struct waiter w = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	struct block_request r = *from;

	r.done = waiter_done;
	r.opaque = &w;
	r.now = true;
	n->ops->submit(n, &r);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	pthread_cond_destroy(&w.cond);
	pthread_mutex_destroy(&w.lock);
	return w.result;
}

struct sync_job {
	struct aio_job job;
	struct node *node;
	struct block_request *r;
};

static void sync_job_run(struct aio_job *job)
{
	struct sync_job *s = container_of(job, struct sync_job, job);
	struct block_request *r = s->r;
	int result = s->node->ops->sync(s->node, r);

	free(s);
	r->done(r, result);
}

void node_submit_by_sync(struct node *n, struct block_request *r)
{
	struct sync_job *s = malloc(sizeof(*s));

	if (!s) {
		r->done(r, -ENOMEM);
		return;
	}
	*s = (struct sync_job){ { .run = sync_job_run }, n, r };
	aio_run(n->aio, &s->job);
}

static int node_rw(struct node *n, enum block_op op, uint64_t offset, void *buf, uint64_t length)
{
	struct iovec iov = { buf, length };
	struct block_request r = { .op = op, .offset = offset, .length = length, .iov = &iov, .iovcnt = 1 };

	return length ? n->ops->sync(n, &r) : 0;
}

int node_read(struct node *n, uint64_t offset, void *buf, uint64_t length)
{
	return node_rw(n, BLOCK_READ, offset, buf, length);
}

int node_write(struct node *n, uint64_t offset, const void *buf, uint64_t length)
{
	return node_rw(n, BLOCK_WRITE, offset, (void *)buf, length);
}

int node_flush(struct node *n)
{
	return node_op(n, BLOCK_FLUSH, 0, 0, false);
}

int node_op(struct node *n, enum block_op op, uint64_t offset, uint64_t length, bool unmap)
{
	struct block_request r = { .op = op, .offset = offset, .length = length, .unmap = unmap };

	return n->ops->sync(n, &r);
}

void node_close(struct node *n)
{
	if (n)
		n->ops->close(n);
}
