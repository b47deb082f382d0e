/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of a card, whatever stands behind it: a token bucket for each direction. What the guest may not send yet stays in its own
 * queue (NET_BUSY), what it may not be given yet in the back-end; so nothing is lost here, and TCP sees a slow link. They hold on
 * this side of a socket to a switch, where a change counts at once: on the other side it would wait behind all that is under way.
 *
 * `lock` covers all of it and is innermost; the timer's callback calls card and back-end without it.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "backend/net.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/evloop.h"

/* The bucket holds a hundred of these, so the rate is the same; without it a fast link would have a wake-up for every frame. */
#define LEAST_WAIT 1000000u

/* Under the lock. */
static void limit_arm(struct net_throttle *t)
{
	struct itimerspec at = { 0 };
	uint64_t first = UINT64_MAX;

	for (unsigned way = 0; way < 2; way++)
		if (t->waiting[way])
			first = MIN(first, t->waiting[way]);
	if (first == UINT64_MAX)
		return;
	at.it_value.tv_sec = (time_t)(first / BUCKET_SECOND);
	at.it_value.tv_nsec = (long)(first % BUCKET_SECOND);
	timerfd_settime(t->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void limit_tick(void *opaque, uint32_t events)
{
	struct net_link *l = opaque;
	struct net_throttle *t = &l->throttle;
	uint64_t now = clock_host_now(), n;
	bool go[2];

	if (read(t->timer, &n, sizeof(n)) <= 0)
		return;
	pthread_mutex_lock(&t->lock);
	for (unsigned way = 0; way < 2; way++) {
		go[way] = t->waiting[way] && t->waiting[way] <= now;
		if (go[way])
			t->waiting[way] = 0;
	}
	limit_arm(t);
	pthread_mutex_unlock(&t->lock);
	if (go[false])
		net_drained(l);
	if (go[true])
		l->ops->ready(l);
}

void net_limit_init(struct net_throttle *t)
{
	*t = (struct net_throttle){ .timer = -1 };
	pthread_mutex_init(&t->lock, NULL);
}

void net_limit_stop(struct net_throttle *t)
{
	if (t->source)
		evloop_remove(t->source);
	t->source = NULL;
	cleanup_close(&t->timer);
}

void net_limit_dispose(struct net_throttle *t)
{
	net_limit_stop(t);
	pthread_mutex_destroy(&t->lock);
}

bool net_limit_holds_slow(struct net_throttle *t, bool rx)
{
	uint64_t now = clock_host_now(), wait;

	pthread_mutex_lock(&t->lock);
	wait = bucket_wait(&t->way[rx], now);
	if (wait && !t->waiting[rx]) {
		t->waiting[rx] = now + MAX(wait, (uint64_t)LEAST_WAIT);
		limit_arm(t);
	}
	pthread_mutex_unlock(&t->lock);
	return wait;
}

void net_limit_take_slow(struct net_throttle *t, bool rx, size_t len)
{
	pthread_mutex_lock(&t->lock);
	bucket_take(&t->way[rx], (double)len);
	pthread_mutex_unlock(&t->lock);
}

/* At the first limit: most cards never have one. */
static int limit_timer(struct net_link *l, struct err *e)
{
	struct net_throttle *t = &l->throttle;

	if (t->source)
		return 0;
	t->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (t->timer < 0)
		return err_errno(e, "cannot make a timer for the card's limits");
	t->source = evloop_add(l->loop, t->timer, EPOLLIN, limit_tick, l, e);
	if (t->source)
		return 0;
	cleanup_close(&t->timer);
	return -ENOMEM;
}

int net_set_limits(struct net_link *l, const struct net_limits *limits, struct err *e)
{
	const uint64_t rate[2] = { limits->in, limits->out };
	struct net_throttle *t = &l->throttle;
	uint64_t now = clock_host_now();
	int r;

	pthread_mutex_lock(&t->lock);
	r = rate[0] || rate[1] ? limit_timer(l, e) : 0;
	for (unsigned way = 0; way < 2 && !r; way++) {
		if (rate[way] == t->way[way].rate)
			continue;
		bucket_init(&t->way[way], rate[way], 0, 0, now);
		t->way[way].level = 0; /* who changes it back and forth gets no more than the rate */
		__atomic_store_n(&t->limited[way], rate[way] != 0, __ATOMIC_RELAXED);
		if (t->waiting[way])
			t->waiting[way] = now;
	}
	limit_arm(t);
	pthread_mutex_unlock(&t->lock);
	return r;
}

struct net_limits net_get_limits(struct net_link *l)
{
	struct net_throttle *t = &l->throttle;
	struct net_limits limits;

	pthread_mutex_lock(&t->lock);
	limits = (struct net_limits){ .in = t->way[false].rate, .out = t->way[true].rate };
	pthread_mutex_unlock(&t->lock);
	return limits;
}
