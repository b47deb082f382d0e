/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits on operations and bytes a second: token buckets (base/bucket.h), for all requests, reads, and writes. A request goes when
 * every bucket it draws from lets it. What must wait does in order,
 * reads and writes apart; a thread, made only for disks with limits, sleeps until the first may go.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <stdlib.h>
#include <time.h>
#include "base/bucket.h"
#include "base/clock.h"
#include "base/mask.h"
#include "backend/blk.h"

#define SECOND 1000000000ull

struct limiter {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool stop;
	struct bucket bucket[2][3]; /* operations, bytes; all, read, write */
	struct block_request *first[2], **last[2]; /* waiting: reads, writes */
	void (*go)(void *opaque, struct block_request *r);
	void *opaque;
};

static void limit_init(struct bucket *b, const struct blk_limit *from, uint64_t now)
{
	bucket_init(b, from->rate, from->burst, from->once, now);
}

/* Takes the tokens and gives 0, or says how long to wait. */
static uint64_t limiter_try(struct limiter *l, const struct block_request *r, uint64_t now)
{
	unsigned kind = r->op == BLOCK_READ ? 1 : 2;
	double cost[2] = { 1, r->op == BLOCK_READ || r->op == BLOCK_WRITE ? (double)r->length : 0 };
	uint64_t wait = 0;

	for (unsigned i = 0; i < 2; i++) {
		wait = MAX(wait, bucket_wait(&l->bucket[i][0], now));
		wait = MAX(wait, bucket_wait(&l->bucket[i][kind], now));
	}
	if (wait)
		return wait;
	for (unsigned i = 0; i < 2; i++) {
		bucket_take(&l->bucket[i][0], cost[i]);
		bucket_take(&l->bucket[i][kind], cost[i]);
	}
	return 0;
}

bool limiter_take(struct limiter *l, struct block_request *r)
{
	unsigned q = r->op != BLOCK_READ;
	bool taken;

	pthread_mutex_lock(&l->lock);
	taken = !l->first[q] && !limiter_try(l, r, clock_host_now());
	if (!taken) {
		r->next = NULL;
		*l->last[q] = r;
		l->last[q] = &r->next;
		pthread_cond_signal(&l->changed);
	}
	pthread_mutex_unlock(&l->lock);
	return taken;
}

/* Under the lock, which it lets go for each that may go. How long until the next may, ns. */
static uint64_t limiter_serve(struct limiter *l)
{
	uint64_t least = UINT64_MAX;

	for (unsigned q = 0; q < 2; q++) {
		while (l->first[q]) {
			struct block_request *r = l->first[q];
			uint64_t wait = limiter_try(l, r, clock_host_now());

			if (wait) {
				least = MIN(least, wait);
				break;
			}
			l->first[q] = r->next;
			if (!l->first[q])
				l->last[q] = &l->first[q];
			pthread_mutex_unlock(&l->lock);
			l->go(l->opaque, r);
			pthread_mutex_lock(&l->lock);
		}
	}
	return least;
}

static void *limiter_main(void *opaque)
{
	struct limiter *l = opaque;

	pthread_setname_np(pthread_self(), "block-limit");
	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		uint64_t wait = limiter_serve(l), until;
		struct timespec at;

		if (wait == UINT64_MAX) {
			if (!l->first[0] && !l->first[1] && !l->stop)
				pthread_cond_wait(&l->changed, &l->lock);
			continue;
		}
		until = clock_host_now() + wait;
		at = (struct timespec){ (time_t)(until / SECOND), (long)(until % SECOND) };
		pthread_cond_clockwait(&l->changed, &l->lock, CLOCK_MONOTONIC, &at);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

bool limiter_wanted(const struct block_limits *s)
{
	for (unsigned i = 0; i < 3; i++)
		if (s->iops[i].rate || s->bps[i].rate)
			return true;
	return false;
}

void limiter_set(struct limiter *l, const struct block_limits *s)
{
	uint64_t now = clock_host_now();

	pthread_mutex_lock(&l->lock);
	for (unsigned i = 0; i < 3; i++) {
		limit_init(&l->bucket[0][i], &s->iops[i], now);
		limit_init(&l->bucket[1][i], &s->bps[i], now);
	}
	pthread_cond_signal(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

struct limiter *limiter_create(const struct block_limits *s, void (*go)(void *opaque, struct block_request *r), void *opaque,
			       struct err *e)
{
	struct limiter *l = calloc(1, sizeof(*l));
	sigset_t all, old;
	int r;

	if (!l) {
		err_set(e, ENOMEM, "no memory for a disk");
		return NULL;
	}
	l->go = go;
	l->opaque = opaque;
	l->last[0] = &l->first[0];
	l->last[1] = &l->first[1];
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
	limiter_set(l, s);
	mask_fill(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&l->thread, NULL, limiter_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		err_set(e, r, "cannot create a thread for a disk's limits: %s", strerrordesc_np(r));
		free(l);
		return NULL;
	}
	return l;
}

void limiter_destroy(struct limiter *l)
{
	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->changed);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
