/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual clock. Its one quantity is a count of ticks at `khz`: the host's TSC minus an offset while it
 * runs, a fixed value while it is paused; nanoseconds are derived from it. So a guest that compares its TSC with
 * any timer device sees them agree exactly, at the price that guest time keeps to the host's TSC and not to its
 * NTP-disciplined clock. The frequency is what CPUID says, where it says something, else what 5 ms of
 * CLOCK_MONOTONIC show (best of several readings at both ends, so good to about 1 ppm).
 *
 * Readers take no lock: (running, base) is published under a sequence count. c->lock covers the timer list
 * and the timerfd. Timers of a running clock fire on the event loop; one dispatch serves what was due when it
 * began, in order of deadline, so that a timer re-armed in the past cannot starve other sources.
 */
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>
#include "base/clock.h"
#include "base/err.h"
#include "base/evloop.h"

#define MANUAL_KHZ 2000000u /* not 10^6, so that tests notice who mixes up ns and ticks */
#define KHZ_MIN 20000u      /* keeps ns_per_tick within 64 bits */
#define KHZ_MAX 15000000u   /* the same for ticks_per_ns */
#define NS_SHIFT 58
#define TICK_SHIFT 60

struct clock {
	_Atomic uint32_t seq; /* odd while (running, base) changes */
	_Atomic bool running;
	_Atomic uint64_t base; /* running: host TSC at tick 0; paused: the tick count */
	bool manual;
	uint64_t khz, ns_per_tick, ticks_per_ns; /* fixed point */

	pthread_mutex_t lock;
	struct timer *timers;   /* sorted by deadline; equal ones in order of arming */
	uint64_t armed;         /* virtual ns the timerfd is set for; TIMER_NEVER when it is not */
	int fd;
	struct evsource *source;
};

uint64_t clock_host_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Not before loads that precede it: time read after a message from another CPU is not before its sending. */
static uint64_t host_tsc(void)
{
	_mm_lfence();
	return __rdtsc();
}

/* ---- frequency */

#define APART 5000000u /* ns: 4 ms were right to 1.2 to 1.6 millionths, 20 ms to 0.3; a start may have to wait for it */
#define TOO_FAR 2000000000u /* the host may have slept, or been moved */

struct clock_sample clock_look(void)
{
	struct clock_sample best = { 0, 0 };
	uint64_t spread = UINT64_MAX, before, after, ns;
	int i;

	for (i = 0; i < 8; i++) {
		before = host_tsc();
		ns = clock_host_now();
		after = host_tsc();
		if (after - before < spread) {
			spread = after - before;
			best = (struct clock_sample){ before + spread / 2, ns };
		}
	}
	return best;
}

static uint64_t tsc_khz_measure(const struct clock_sample *since)
{
	struct clock_sample a = since ? *since : (struct clock_sample){ 0, 0 }, b = clock_look();
	struct timespec pause = { 0 };

	if (!a.ns || b.ns < a.ns || b.ns - a.ns > TOO_FAR || b.tsc < a.tsc)
		a = b;
	if (b.ns - a.ns < APART) {
		pause.tv_nsec = (long)(APART - (b.ns - a.ns));
		nanosleep(&pause, NULL);
		b = clock_look();
	}
	if (b.ns <= a.ns || b.tsc <= a.tsc)
		return 0;
	return (uint64_t)((unsigned __int128)(b.tsc - a.tsc) * 1000000u / (b.ns - a.ns));
}

static uint64_t tsc_khz_cpuid(void)
{
	uint32_t a, b, c, d, top;

	__cpuid(0, top, b, c, d);
	if (top >= 0x15) {
		__cpuid(0x15, a, b, c, d);
		if (a && b && c)
			return (uint64_t)c * b / a / 1000;
	}
	__cpuid(1, a, b, c, d);
	if (c & (1u << 31)) { /* under a hypervisor: its timing leaf */
		__cpuid(0x40000000, top, b, c, d);
		if (top >= 0x40000010 && top < 0x40000100) {
			__cpuid(0x40000010, a, b, c, d);
			return a;
		}
	}
	return 0;
}

static void clock_set_khz(struct clock *c, uint64_t khz)
{
	c->khz = khz;
	/* rounded up, so that ns -> ticks (rounded up) -> ns gives the same again */
	c->ns_per_tick = (uint64_t)((((unsigned __int128)1000000u << NS_SHIFT) + khz - 1) / khz);
	c->ticks_per_ns = (uint64_t)(((unsigned __int128)khz << TICK_SHIFT) / 1000000u);
}

static uint64_t ticks_to_ns(const struct clock *c, uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * c->ns_per_tick) >> NS_SHIFT);
}

static uint64_t saturate(unsigned __int128 v)
{
	return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

/* ---- reading */

static uint64_t clock_ticks(const struct clock *c, bool *running)
{
	uint64_t base, ticks;
	uint32_t seq;

	for (;;) {
		seq = atomic_load_explicit(&c->seq, memory_order_acquire);
		*running = atomic_load_explicit(&c->running, memory_order_relaxed);
		base = atomic_load_explicit(&c->base, memory_order_relaxed);
		ticks = *running ? host_tsc() - base : base;
		_mm_lfence(); /* the counter was read before what follows */
		if (likely(!(seq & 1) && seq == atomic_load_explicit(&c->seq, memory_order_relaxed)))
			return ticks;
		_mm_pause();
	}
}

uint64_t clock_tsc(const struct clock *c)
{
	bool running;

	return clock_ticks(c, &running);
}

uint64_t clock_now(const struct clock *c)
{
	return ticks_to_ns(c, clock_tsc(c));
}

uint64_t clock_tsc_khz(const struct clock *c)
{
	return c->khz;
}

uint64_t clock_ns_to_tsc(const struct clock *c, uint64_t ns)
{
	return saturate(((unsigned __int128)ns * c->ticks_per_ns) >> TICK_SHIFT);
}

uint64_t clock_tsc_to_ns(const struct clock *c, uint64_t tsc)
{
	unsigned __int128 round = ((unsigned __int128)1 << NS_SHIFT) - 1;

	return saturate(((unsigned __int128)tsc * c->ns_per_tick + round) >> NS_SHIFT);
}

int64_t clock_tsc_host_offset(const struct clock *c)
{
	return -(int64_t)atomic_load_explicit(&c->base, memory_order_acquire);
}

/* Host time of virtual `ns` when the clock reads `now`. Times past stay past, by their distance. */
static uint64_t host_time(uint64_t ns, uint64_t now)
{
	uint64_t host = clock_host_now();

	if (ns <= now)
		return host - MIN(host, now - ns);
	return ns - now > UINT64_MAX - 1 - host ? UINT64_MAX - 1 : host + (ns - now);
}

uint64_t clock_to_host(const struct clock *c, uint64_t ns)
{
	uint64_t ticks;
	bool running;

	if (ns == TIMER_NEVER)
		return UINT64_MAX;
	if (c->manual)
		return ns;
	ticks = clock_ticks(c, &running);
	return running ? host_time(ns, ticks_to_ns(c, ticks)) : UINT64_MAX;
}

/* ---- writing */

/* From here to clock_publish readers wait, so that none has seen a later time than the one published. */
static void clock_hold(struct clock *c)
{
	atomic_store_explicit(&c->seq, atomic_load_explicit(&c->seq, memory_order_relaxed) + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

static void clock_publish(struct clock *c, bool running, uint64_t base)
{
	atomic_store_explicit(&c->running, running, memory_order_relaxed);
	atomic_store_explicit(&c->base, base, memory_order_relaxed);
	atomic_store_explicit(&c->seq, atomic_load_explicit(&c->seq, memory_order_relaxed) + 1, memory_order_release);
}

/*
 * Make the timerfd fire no later than the first deadline. One that is set too early is left alone: it finds
 * nothing due and is set again, which is cheaper than a system call for each timer cancelled or moved back.
 */
static void clock_program(struct clock *c, bool force)
{
	uint64_t deadline = c->timers ? c->timers->deadline : TIMER_NEVER, at;
	struct itimerspec when = { 0 };

	if (c->manual || !atomic_load_explicit(&c->running, memory_order_relaxed))
		return;
	if (!force && c->armed <= deadline)
		return;
	c->armed = deadline;
	if (deadline != TIMER_NEVER) {
		at = MIN(clock_to_host(c, deadline), (uint64_t)INT64_MAX);
		at = MAX(at, 1u); /* 0 would disarm */
		when.it_value.tv_sec = (time_t)(at / 1000000000u);
		when.it_value.tv_nsec = (long)(at % 1000000000u);
	}
	timerfd_settime(c->fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void clock_pause(struct clock *c)
{
	struct itimerspec never = { 0 };

	pthread_mutex_lock(&c->lock);
	if (!c->manual && atomic_load(&c->running)) {
		clock_hold(c);
		clock_publish(c, false, host_tsc() - atomic_load_explicit(&c->base, memory_order_relaxed));
		c->armed = TIMER_NEVER;
		timerfd_settime(c->fd, 0, &never, NULL);
	}
	pthread_mutex_unlock(&c->lock);
}

void clock_resume(struct clock *c)
{
	pthread_mutex_lock(&c->lock);
	if (!c->manual && !atomic_load(&c->running)) {
		clock_hold(c);
		clock_publish(c, true, host_tsc() - atomic_load_explicit(&c->base, memory_order_relaxed));
		clock_program(c, true);
	}
	pthread_mutex_unlock(&c->lock);
}

void clock_set(struct clock *c, uint64_t ns)
{
	unsigned __int128 ticks = ((unsigned __int128)ns * c->khz + 999999u) / 1000000u;

	CHECK(!atomic_load(&c->running));
	clock_hold(c);
	clock_publish(c, false, saturate(ticks));
}

/* ---- timers */

void timer_init(struct timer *t, struct clock *c, timer_fn fn, void *opaque)
{
	*t = (struct timer){ .clock = c, .fn = fn, .opaque = opaque, .deadline = TIMER_NEVER };
}

static void timer_unlink(struct timer *t)
{
	struct timer **at;

	if (t->deadline == TIMER_NEVER)
		return;
	for (at = &t->clock->timers; *at != t; at = &(*at)->next)
		CHECK(*at);
	*at = t->next;
	t->deadline = TIMER_NEVER;
}

void timer_arm(struct timer *t, uint64_t deadline)
{
	struct clock *c = t->clock;
	struct timer **at;

	pthread_mutex_lock(&c->lock);
	timer_unlink(t);
	if (deadline != TIMER_NEVER) {
		for (at = &c->timers; *at && (*at)->deadline <= deadline; at = &(*at)->next)
			;
		t->deadline = deadline;
		t->next = *at;
		*at = t;
		clock_program(c, false);
	}
	pthread_mutex_unlock(&c->lock);
}

void timer_cancel(struct timer *t)
{
	pthread_mutex_lock(&t->clock->lock);
	timer_unlink(t);
	pthread_mutex_unlock(&t->clock->lock);
}

/* Call the first timer if it is due by `now`. Lock held on entry and exit. */
static bool clock_fire(struct clock *c, uint64_t now)
{
	struct timer *t = c->timers;
	timer_fn fn;
	void *opaque;

	if (!t || t->deadline > now)
		return false;
	if (c->manual && t->deadline > clock_now(c))
		clock_set(c, t->deadline);
	timer_unlink(t);
	fn = t->fn;
	opaque = t->opaque;
	pthread_mutex_unlock(&c->lock);
	fn(opaque);
	pthread_mutex_lock(&c->lock);
	return true;
}

static void clock_expired(void *opaque, uint32_t events)
{
	struct clock *c = opaque;
	uint64_t count, now;

	if (read(c->fd, &count, sizeof(count)) < 0)
		return; /* set anew since */
	pthread_mutex_lock(&c->lock);
	c->armed = TIMER_NEVER;
	now = clock_now(c);
	while (atomic_load(&c->running) && clock_fire(c, now))
		;
	clock_program(c, true);
	pthread_mutex_unlock(&c->lock);
}

void clock_advance(struct clock *c, uint64_t ns)
{
	uint64_t until = clock_now(c) + ns;

	CHECK(c->manual);
	pthread_mutex_lock(&c->lock);
	while (clock_fire(c, until))
		;
	clock_set(c, until);
	pthread_mutex_unlock(&c->lock);
}

/* ---- making and breaking */

static struct clock *clock_alloc(void)
{
	struct clock *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	c->armed = TIMER_NEVER;
	c->fd = -1;
	return c;
}

struct clock *clock_create(struct evloop *loop, const struct clock_sample *since, struct err *e)
{
	struct clock *c = clock_alloc();
	uint64_t khz;

	if (!c) {
		err_set(e, ENOMEM, "no memory for a clock");
		return NULL;
	}
	khz = tsc_khz_cpuid();
	if (khz < KHZ_MIN || khz > KHZ_MAX)
		khz = tsc_khz_measure(since);
	if (khz < KHZ_MIN || khz > KHZ_MAX) {
		err_set(e, ENODEV, "the host's time-stamp counter cannot be used (%llu kHz)",
			(unsigned long long)khz);
		clock_destroy(c);
		return NULL;
	}
	clock_set_khz(c, khz);
	c->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->fd < 0) {
		err_errno(e, "cannot create a timer");
		clock_destroy(c);
		return NULL;
	}
	c->source = evloop_add(loop, c->fd, EPOLLIN, clock_expired, c, e);
	if (!c->source) {
		clock_destroy(c);
		return NULL;
	}
	return c;
}

struct clock *clock_create_manual(void)
{
	struct clock *c = clock_alloc();

	CHECK(c);
	c->manual = true;
	clock_set_khz(c, MANUAL_KHZ);
	return c;
}

void clock_destroy(struct clock *c)
{
	if (!c)
		return;
	evloop_remove(c->source);
	cleanup_close(&c->fd);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
