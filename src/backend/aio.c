/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that may block: a queue and up to POOL_MAX threads, made when there is work for them, waiting without time-out
 * when there is none (an idle disk wakes nobody). The first are made at once, so that later failure to make one
 * only costs speed.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "base/mask.h"
#include "backend/blk.h"

#define POOL_MAX 4u
#define POOL_MIN 2u /* one may wait for what another does */

struct aio {
	struct aio_ring *ring;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t work;
	struct aio_job *first, **last;
	unsigned threads, idle;
	pthread_t thread[POOL_MAX];
	bool stop;
};

static void *pool_main(void *opaque)
{
	struct aio *a = opaque;

	pthread_setname_np(pthread_self(), "block-pool");
	pthread_mutex_lock(&a->lock);
	for (;;) {
		struct aio_job *job;

		while (!a->first && !a->stop) {
			a->idle++;
			pthread_cond_wait(&a->work, &a->lock);
			a->idle--;
		}
		job = a->first;
		if (!job)
			break;
		a->first = job->next;
		if (!a->first)
			a->last = &a->first;
		pthread_mutex_unlock(&a->lock);
		job->run(job);
		pthread_mutex_lock(&a->lock);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

/* Under the lock. Signals are for the machine's own threads. */
static int pool_grow(struct aio *a)
{
	sigset_t all, old;
	int r;

	mask_fill(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&a->thread[a->threads], NULL, pool_main, a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!r)
		a->threads++;
	return -r;
}

struct aio *aio_create(bool use_ring, struct err *e)
{
	struct aio *a = calloc(1, sizeof(*a));
	int r;

	if (!a) {
		err_set(e, ENOMEM, "no memory for a disk");
		return NULL;
	}
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->work, NULL);
	a->last = &a->first;
	for (r = 0; !r && a->threads < POOL_MIN;)
		r = pool_grow(a);
	if (r) {
		err_set(e, -r, "cannot create a thread for a disk: %s", strerrordesc_np(-r));
		aio_destroy(a);
		return NULL;
	}
	if (use_ring)
		a->ring = ring_create();
	return a;
}

void aio_destroy(struct aio *a)
{
	if (!a)
		return;
	ring_destroy(a->ring);
	pthread_mutex_lock(&a->lock);
	CHECK(!a->first);
	a->stop = true;
	pthread_cond_broadcast(&a->work);
	pthread_mutex_unlock(&a->lock);
	for (unsigned i = 0; i < a->threads; i++)
		pthread_join(a->thread[i], NULL);
	pthread_cond_destroy(&a->work);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

void aio_run(struct aio *a, struct aio_job *job)
{
	pthread_mutex_lock(&a->lock);
	job->next = NULL;
	*a->last = job;
	a->last = &job->next;
	if (a->idle)
		pthread_cond_signal(&a->work);
	else if (a->threads < POOL_MAX)
		(void)pool_grow(a);
	pthread_mutex_unlock(&a->lock);
}

struct aio_ring *aio_get_ring(struct aio *a)
{
	return a->ring;
}
