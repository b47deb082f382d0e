/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: work in order, level-triggered sources, removal from both sides. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/base.h"
#include "base/err.h"
#include "base/clock.h"
#include "base/evloop.h"

static void sleep_ms(long ms)
{
	struct timespec ts = { .tv_nsec = ms * 1000000 };

	nanosleep(&ts, NULL);
}

static bool wait_for(_Atomic unsigned *n, unsigned want)
{
	int i;

	for (i = 0; i < 2000 && atomic_load(n) < want; i++)
		sleep_ms(1);
	return atomic_load(n) >= want;
}

struct order {
	_Atomic unsigned n;
	bool wrong;
	struct evloop *loop;
};
struct item {
	struct order *o;
	unsigned number;
};
static void work(void *opaque)
{
	struct item *i = opaque;

	if (atomic_load(&i->o->n) != i->number || !evloop_is_current(i->o->loop))
		i->o->wrong = true;
	atomic_fetch_add(&i->o->n, 1);
}

static void test_post(void **state)
{
	struct evloop *l = evloop_create(NULL);
	struct order o = { .loop = l };
	struct item items[1000];
	unsigned i;

	for (i = 0; i < 1000; i++) {
		items[i] = (struct item){ &o, i };
		assert_int_equal(evloop_post(l, work, &items[i]), 0);
		if (i == 500)
			assert_int_equal(evloop_start(l, NULL), 0);
	}
	assert_true(wait_for(&o.n, 1000));
	assert_false(o.wrong);
	assert_false(evloop_is_current(l));
	evloop_post(l, work, &items[0]); /* may be left over: no leak, no call after the end */
	evloop_destroy(l);
}

/* What is cancelled is not done, whether it is in the turn underway, in the next, or was about to be done. */
struct mind {
	struct evloop *l;
	_Atomic unsigned slow, n;
};

static void slowly(void *opaque)
{
	struct mind *m = opaque;

	sleep_ms(20);
	atomic_fetch_add(&m->slow, 1);
}

static void again(void *opaque)
{
	atomic_fetch_add(&((struct mind *)opaque)->n, 1);
}

static void change_it(void *opaque)
{
	struct mind *m = opaque;

	evloop_post(m->l, again, m);
	evloop_cancel(m->l, again, m);
	evloop_cancel(m->l, again, NULL);
}

static void test_cancel(void **state)
{
	struct mind m = { .l = evloop_create(NULL) }, other = m;

	evloop_cancel(m.l, again, &m);
	evloop_post(m.l, change_it, &m);
	evloop_post(m.l, again, &m);
	evloop_post(m.l, again, &other);
	evloop_post(m.l, again, &m);
	assert_int_equal(evloop_start(m.l, NULL), 0);
	assert_true(wait_for(&other.n, 1));
	evloop_post(m.l, again, &other);
	assert_true(wait_for(&other.n, 2));
	assert_int_equal(m.n, 0);
	evloop_post(m.l, slowly, &m);
	evloop_post(m.l, again, &other);
	sleep_ms(5);
	evloop_cancel(m.l, slowly, &m); /* begun, or not */
	assert_true(wait_for(&other.n, 3));
	evloop_post(m.l, again, &other);
	assert_true(wait_for(&other.n, 4));
	evloop_destroy(m.l);
	assert_true(m.slow <= 1);
}

struct watch {
	_Atomic unsigned n, inside, late;
	_Atomic bool gone;
	struct evsource *s;
	bool remove_self, drain;
	int fd;
	long stay;
};
static void watched(void *opaque, uint32_t events)
{
	struct watch *w = opaque;
	uint64_t v;

	atomic_store(&w->inside, 1);
	if (atomic_load(&w->gone))
		atomic_fetch_add(&w->late, 1);
	if (w->drain && read(w->fd, &v, sizeof(v)) < 0)
		atomic_fetch_add(&w->late, 1);
	if (w->stay)
		sleep_ms(w->stay);
	if (w->remove_self) {
		evloop_remove(w->s);
		atomic_store(&w->gone, true);
	}
	atomic_fetch_add(&w->n, 1);
	atomic_store(&w->inside, 0);
}

static void count(void *opaque)
{
	atomic_fetch_add((_Atomic unsigned *)opaque, 1);
}

static void test_sources(void **state)
{
	_Atomic unsigned posted = 0;
	struct evloop *l = evloop_create(NULL);
	struct watch level = { .fd = eventfd(1, EFD_NONBLOCK) }, self = { .fd = eventfd(1, 0), .remove_self = true };
	struct watch quiet = { .fd = eventfd(0, EFD_NONBLOCK), .drain = true };
	uint64_t one = 1;
	struct err e;
	unsigned n;

	assert_null(evloop_add(l, -1, EPOLLIN, watched, NULL, &e));
	assert_int_equal(e.code, EBADF);
	quiet.s = evloop_add(l, quiet.fd, EPOLLIN, watched, &quiet, NULL);
	self.s = evloop_add(l, self.fd, EPOLLIN, watched, &self, NULL);
	level.s = evloop_add(l, level.fd, 0, watched, &level, NULL);
	assert_int_equal(evloop_start(l, NULL), 0);
	assert_true(wait_for(&self.n, 1));
	assert_int_equal(level.n, 0);
	evloop_modify(level.s, EPOLLIN);
	assert_true(wait_for(&level.n, 10)); /* never drained: called again and again */
	evloop_modify(level.s, 0);
	evloop_post(l, count, &posted); /* events fetched already are through when this is called the second time */
	assert_true(wait_for(&posted, 1));
	evloop_post(l, count, &posted);
	assert_true(wait_for(&posted, 2));
	n = level.n;
	assert_int_equal(write(quiet.fd, &one, 8), 8);
	assert_true(wait_for(&quiet.n, 1));
	assert_int_equal(level.n, n);
	assert_int_equal(self.n, 1);
	assert_int_equal(quiet.n, 1);
	evloop_remove(level.s);
	evloop_destroy(l); /* with a source left */
	close(level.fd);
	close(self.fd);
	close(quiet.fd);
}

/* After evloop_remove the callback is not running and never runs again. */
struct door {
	struct evloop *loop;
	int listener, accepted;
	unsigned calls;
};

static void door_event(void *opaque, uint32_t events)
{
	struct door *d = opaque;
	int fd = evloop_accept(d->loop, d->listener);

	__atomic_fetch_add(&d->calls, 1, __ATOMIC_SEQ_CST);
	if (fd >= 0)
		__atomic_store_n(&d->accepted, fd, __ATOMIC_SEQ_CST);
}

/* Without descriptors a listener does not spin, and goes on once there are some. */
static void test_accept(void **state)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct door d = { .loop = evloop_create(NULL), .accepted = -1 };
	socklen_t len = sizeof(sa_family_t);
	int client = socket(AF_UNIX, SOCK_STREAM, 0), last;
	uint64_t from = clock_host_now();
	struct rlimit was, few;
	struct evsource *s;

	d.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(d.listener, (struct sockaddr *)&at, len), 0); /* any free abstract name */
	len = sizeof(at);
	assert_int_equal(getsockname(d.listener, (struct sockaddr *)&at, &len), 0);
	assert_int_equal(listen(d.listener, 1), 0);
	assert_int_equal(connect(client, (struct sockaddr *)&at, len), 0);
	last = dup(client); /* the lowest that is free is not below */
	close(last);
	getrlimit(RLIMIT_NOFILE, &was);
	few = (struct rlimit){ (rlim_t)last, was.rlim_max };
	setrlimit(RLIMIT_NOFILE, &few);
	s = evloop_add(d.loop, d.listener, EPOLLIN, door_event, &d, NULL);
	assert_non_null(s);
	assert_int_equal(evloop_start(d.loop, NULL), 0);
	while (!__atomic_load_n(&d.calls, __ATOMIC_SEQ_CST))
		usleep(1000);
	usleep(150000);
	assert_in_range(__atomic_load_n(&d.calls, __ATOMIC_SEQ_CST), 1, (clock_host_now() - from) / 100000000 + 2);
	assert_int_equal(d.accepted, -1);
	evloop_modify(s, EPOLLIN); /* does not wake one that rests */
	setrlimit(RLIMIT_NOFILE, &was);
	while (__atomic_load_n(&d.accepted, __ATOMIC_SEQ_CST) < 0)
		usleep(1000);
	evloop_remove(s);
	evloop_destroy(d.loop);
	close(d.accepted);
	close(d.listener);
	close(client);
}

static void test_remove(void **state)
{
	struct evloop *l = evloop_create(NULL);
	int i;

	assert_int_equal(evloop_start(l, NULL), 0);
	for (i = 0; i < 200; i++) {
		struct watch w = { .fd = eventfd(1, 0), .stay = i % 10 ? 0 : 1 };

		w.s = evloop_add(l, w.fd, EPOLLIN, watched, &w, NULL);
		assert_true(i % 2 || wait_for(&w.n, 1));
		evloop_remove(w.s);
		assert_int_equal(atomic_load(&w.inside), 0);
		atomic_store(&w.gone, true);
		assert_int_equal(w.late, 0);
		close(w.fd);
	}
	evloop_stop(l);
	evloop_destroy(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_post),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_accept),
		cmocka_unit_test(test_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
