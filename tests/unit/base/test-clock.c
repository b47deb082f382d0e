/* SPDX-License-Identifier: Apache-2.0 */
/* The clock and its timers, manual and running, and the event loop under them. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>
#include <cmocka.h>
#include "base/clock.h"
#include "base/err.h"
#include "base/evloop.h"

#define MS 1000000ull

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = { .tv_nsec = (long)ns };

	nanosleep(&ts, NULL);
}

struct tick {
	struct timer t;
	struct clock *c;
	uint64_t fired[32], period;
	_Atomic unsigned n;
	char *order, name;
};

static void tick_fire(void *opaque)
{
	struct tick *k = opaque;
	unsigned n = atomic_load(&k->n);

	if (n < 32)
		k->fired[n] = clock_now(k->c);
	if (k->order)
		k->order[0] ? (k->order[1] = k->name) : (k->order[0] = k->name);
	if (k->period)
		timer_arm(&k->t, clock_now(k->c) + k->period);
	atomic_store(&k->n, n + 1);
}

static void test_manual(void **state)
{
	struct clock *c = clock_create_manual();
	char order[3] = { 0 };
	struct tick a = { .c = c, .order = order, .name = 'a' }, b = { .c = c, .order = order, .name = 'b' };
	struct tick p = { .c = c, .period = 10 };

	timer_init(&a.t, c, tick_fire, &a);
	timer_init(&b.t, c, tick_fire, &b);
	timer_init(&p.t, c, tick_fire, &p);
	assert_int_equal(clock_now(c), 0);
	timer_arm(&a.t, 200);
	timer_arm(&b.t, 100);
	clock_advance(c, 99);
	assert_int_equal(b.n, 0);
	clock_advance(c, 1);
	assert_int_equal(b.n, 1);
	assert_int_equal(b.fired[0], 100);
	assert_int_equal(b.t.deadline, TIMER_NEVER);
	clock_advance(c, 1000);
	assert_int_equal(a.fired[0], 200); /* in its own time, not at the end of the step */
	assert_string_equal(order, "ba");
	assert_int_equal(clock_now(c), 1100);
	/* one that arms itself again within a step; equal deadlines in order of arming */
	timer_arm(&p.t, 1110);
	clock_advance(c, 100);
	assert_int_equal(p.n, 10);
	assert_int_equal(p.fired[9], 1200);
	timer_cancel(&p.t);
	clock_advance(c, 100);
	assert_int_equal(p.n, 10);
	/* re-arming replaces; a deadline in the past fires at once, at the time it is */
	timer_arm(&a.t, 5000);
	timer_arm(&a.t, 10);
	clock_advance(c, 0);
	assert_int_equal(a.n, 2);
	assert_int_equal(a.fired[1], 1300);
	timer_cancel(&a.t);
	timer_arm(&a.t, TIMER_NEVER);
	clock_advance(c, 10000);
	assert_int_equal(a.n, 2);
	clock_destroy(c);
}

static void test_conversion(void **state)
{
	static const uint64_t values[] = { 0, 1, 2, 3, 999, 1000000, 123456789012345, 1ull << 57 };
	struct clock *c = clock_create_manual();
	unsigned i;

	assert_int_equal(clock_tsc_khz(c), 2000000);
	for (i = 0; i < ARRAY_LEN(values); i++) {
		clock_set(c, values[i]);
		assert_int_equal(clock_now(c), values[i]);
		assert_int_equal(clock_tsc(c), values[i] * 2);
		assert_int_equal(clock_ns_to_tsc(c, values[i]), values[i] * 2);
		assert_int_equal(clock_tsc_to_ns(c, values[i] * 2), values[i]);
	}
	assert_int_equal(clock_tsc_to_ns(c, 3), 2); /* up */
	assert_int_equal(clock_ns_to_tsc(c, UINT64_MAX), UINT64_MAX); /* saturates */
	assert_true(clock_tsc_to_ns(c, UINT64_MAX) > UINT64_MAX / 2 - 100);
	assert_int_equal(clock_to_host(c, TIMER_NEVER), UINT64_MAX);
	clock_destroy(c);
}

static void test_running(void **state)
{
	struct err e;
	struct evloop *l = evloop_create(&e);
	struct clock *c = clock_create(l, NULL, &e);
	struct tick p = { .c = c, .period = 2 * MS }, once = { .c = c };
	uint64_t a, b, host, before, after, tsc;
	int i;

	assert_non_null(c);
	assert_int_equal(evloop_start(l, &e), 0);
	assert_int_equal(clock_now(c), 0);
	assert_int_equal(clock_to_host(c, 5), UINT64_MAX); /* paused */
	timer_init(&p.t, c, tick_fire, &p);
	timer_init(&once.t, c, tick_fire, &once);
	timer_arm(&once.t, 20 * MS);
	timer_arm(&p.t, 2 * MS);
	sleep_ns(5 * MS);
	assert_int_equal(p.n, 0); /* paused: nothing fires */
	clock_set(c, 1 * MS);
	clock_resume(c);
	before = clock_host_now();
	a = clock_now(c);
	after = clock_host_now();
	/* the TSC can be computed from outside, between two readings */
	tsc = clock_tsc(c);
	b = __rdtsc() + (uint64_t)clock_tsc_host_offset(c);
	assert_true(b >= tsc);
	assert_true(clock_tsc(c) >= b);
	sleep_ns(30 * MS);
	host = clock_host_now();
	b = clock_now(c);
	/* as fast as CLOCK_MONOTONIC, to 0.1 %; however long the host makes us wait between two readings */
	assert_true(b - a > (host - after) - (host - after) / 1000);
	host = clock_host_now();
	assert_true(b - a < (host - before) + (host - before) / 1000);
	for (i = 0; i < 1000 && !(p.n && once.n); i++)
		sleep_ns(1 * MS);
	clock_pause(c);
	assert_true(p.n >= 1 && p.n <= clock_now(c) / (2 * MS));
	assert_int_equal(once.n, 1);
	assert_true(once.fired[0] >= 20 * MS);
	a = clock_now(c);
	assert_true(clock_tsc(c) - clock_ns_to_tsc(c, a) < 20);
	sleep_ns(5 * MS);
	assert_int_equal(clock_now(c), a);
	before = clock_host_now();
	clock_resume(c);
	b = clock_now(c);
	assert_true(b - a <= clock_host_now() - before + 1000);
	before = clock_host_now();
	host = clock_to_host(c, clock_now(c) + 100 * MS);
	assert_true(host + 1000 >= before + 100 * MS && host <= clock_host_now() + 100 * MS + 1000);
	timer_cancel(&p.t);
	evloop_stop(l);
	clock_destroy(c);
	evloop_destroy(l);
}

struct mono {
	struct clock *c;
	_Atomic bool stop;
	_Atomic unsigned back;
};
static void *mono_read(void *opaque)
{
	struct mono *m = opaque;
	uint64_t last = 0, now;

	while (!atomic_load(&m->stop)) {
		now = clock_now(m->c);
		if (now < last)
			atomic_fetch_add(&m->back, 1);
		last = now;
	}
	return NULL;
}
static void test_monotonic(void **state)
{
	struct evloop *l = evloop_create(NULL);
	struct mono m = { .c = clock_create(l, NULL, NULL) };
	pthread_t t;
	int i;

	pthread_create(&t, NULL, mono_read, &m);
	for (i = 0; i < 3000; i++) {
		clock_resume(m.c);
		clock_pause(m.c);
	}
	atomic_store(&m.stop, true);
	pthread_join(t, NULL);
	assert_int_equal(m.back, 0);
	clock_destroy(m.c);
	evloop_destroy(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manual),
		cmocka_unit_test(test_conversion),
		cmocka_unit_test(test_running),
		cmocka_unit_test(test_monotonic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
