/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw disks: random requests, several at once, against a model in memory, in every cache mode, with io_uring and with
 * threads; bounds, rights, locks, ends of files that are not whole sectors; limits; the error policy over a store
 * that fails.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include "backend/nbd.h"
#include "exercise.h"

static void test_modes(void **state)
{
	static const char *const specs[] = {
		"%s",
		"file=%s,aio=threads",
		"cache=unsafe,file=%s",
		"format=raw,file=%s,cache=writethrough",
		"format=raw,file=%s,cache=none",
		"file=%s,cache=none,aio=threads",
		"file=%s,iops=1000000,bps=10g",
	};
	struct dir d;

	dir_make(&d);
	file_make(d.path, SIZE);
	for (unsigned i = 0; i < ARRAY_LEN(specs); i++) {
		struct err e = { 0 };
		char spec[256];
		struct block *b;

		snprintf(spec, sizeof(spec), specs[i], d.path);
		if (block_open(&b, &(struct block_config){ .spec = spec }, &e)) {
			/* a file system without O_DIRECT */
			assert_non_null(strstr(e.text, "O_DIRECT"));
			continue;
		}
		exercise_model(b, i == 3 ? 200 : 1500, i + 1, NULL, 512);
		block_close(b);
	}
	dir_remove(&d);
}

static void test_specs(void **state)
{
	static const struct {
		const char *spec, *says;
	} bad[] = {
		{ "", "needs a file" },
		{ "format=raw", "needs file=" },
		{ "fromat=raw,file=x", "no key 'fromat'" },
		{ "format=qcow3,file=x", "is no format" },
		{ "file=x,cache=all", "one of writeback" },
		{ "file=x,file=y", "given twice" },
		{ "file=x,iops=0", "from 1 on" },
		{ "file=x,iops=5q", "from 1 on" },
		{ "file=x,iops-burst=5", "needs the limit" },
		{ "file=x,rerror=enospc", "reading does not fill" },
		{ "file=x,backing-format=raw", "comes after" },
		{ "file=x,backing=y", "no backing files" },
		{ "file", "No such file" },
		{ "file=x,readonly=perhaps", "on or off" },
		{ "readonly,file=/dev/null", "neither a file" },
		{ "/tmp", "Is a directory" },
		{ "file=x,cache", "needs a value" },
	};
	struct err e;
	struct block *b;
	struct blk_spec s;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		e.text[0] = 0;
		assert_true(block_open(&b, &(struct block_config){ .spec = bad[i].spec }, &e) < 0);
		if (!strstr(e.text, bad[i].says))
			fail_msg("%s: %s", bad[i].spec, e.text);
	}
	assert_int_equal(blk_spec_parse(&s, "file=a,,b,readonly,bps=10M,bps-burst=1g,discard=off", &e), 0);
	assert_string_equal(s.path, "a,b");
	assert_true(s.read_only && !s.discard);
	assert_int_equal(s.limits.bps[0].rate, 10 << 20);
	assert_int_equal(s.limits.bps[0].burst, 1 << 30);
	assert_int_equal(blk_spec_parse(&s, "/path,with=all", &e), 0);
	assert_string_equal(s.path, "/path,with=all");
	blk_spec_dispose(&s);
}

static void test_bounds(void **state)
{
	uint8_t buf[2048] = { 0 };
	struct block_info info;
	struct block_stats stats;
	struct block *b;
	struct dir d;
	int fd;

	dir_make(&d);
	file_make(d.path, 1000);
	fd = open(d.path, O_RDWR);
	memset(buf, 'a', 1000);
	assert_int_equal(pwrite(fd, buf, 1000, 0), 1000);
	b = open_spec("%s", d.path);
	block_get_info(b, &info);
	assert_int_equal(info.size, 1024);
	assert_string_equal(info.format, "raw");
	memset(buf, 1, sizeof(buf));
	assert_int_equal(block_sync(b, BLOCK_READ, 0, buf, 1024), 0);
	assert_int_equal(buf[999], 'a');
	assert_int_equal(buf[1000], 0);
	assert_int_equal(buf[1023], 0);
	assert_int_equal(block_sync(b, BLOCK_READ, 512, buf, 1024), -EINVAL);
	assert_int_equal(block_sync(b, BLOCK_READ, ~0ull - 511, buf, 1024), -EINVAL);
	assert_int_equal(block_sync(b, BLOCK_READ, 1, buf, 512), -EINVAL);
	assert_int_equal(block_sync(b, BLOCK_WRITE, 512, buf, 512), 0);
	assert_int_equal(block_sync(b, (enum block_op)9, 0, buf, 512), -EINVAL);
	assert_int_equal(block_resize(b, 4096, NULL), 0);
	assert_int_equal(block_sync(b, BLOCK_READ, 2048, buf, 2048), 0);
	assert_int_equal(buf[2047], 0);
	block_get_stats(b, &stats);
	assert_int_equal(stats.underway, 0);
	block_close(b);
	b = open_spec("readonly,file=%s", d.path);
	assert_int_equal(block_sync(b, BLOCK_WRITE, 0, buf, 512), -EROFS);
	assert_int_equal(block_sync(b, BLOCK_DISCARD, 0, NULL, 512), -EROFS);
	assert_int_equal(block_sync(b, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_true(block_resize(b, 8192, NULL) < 0);
	block_close(b);
	close(fd);
	dir_remove(&d);
}

static void test_locks(void **state)
{
	struct block *b, *reader, *second;
	struct err e = { 0 };
	char spec[128];
	struct dir d;

	dir_make(&d);
	file_make(d.path, SIZE);
	b = open_spec("%s", d.path);
	assert_int_equal(block_open(&second, &(struct block_config){ .spec = d.path }, &e), -EBUSY);
	assert_non_null(strstr(e.text, "in use"));
	assert_int_equal(block_open(&second, &(struct block_config){ .spec = d.path, .read_only = true }, &e), -EBUSY);
	snprintf(spec, sizeof(spec), "file=%s,lock=off", d.path);
	assert_int_equal(block_open(&second, &(struct block_config){ .spec = spec }, &e), 0);
	block_close(second);
	block_close(b);
	reader = open_spec("file=%s,readonly", d.path);
	second = open_spec("file=%s,readonly", d.path);
	assert_int_equal(block_open(&b, &(struct block_config){ .spec = d.path }, &e), -EBUSY);
	block_close(reader);
	block_close(second);
	b = open_spec("%s", d.path);
	block_close(b);
	dir_remove(&d);
}

static void test_limits(void **state)
{
	uint64_t start, ns;
	struct block_stats stats;
	struct slot slots[30] = { 0 };
	struct block *b;
	struct dir d;

	dir_make(&d);
	file_make(d.path, SIZE);
	/* ten at once, then a hundred a second: 30 take a fifth of a second */
	b = open_spec("file=%s,iops=100,iops-burst=10", d.path);
	start = clock_host_now();
	for (unsigned i = 0; i < ARRAY_LEN(slots); i++) {
		slots[i].buf = aligned_alloc(4096, 4096);
		slots[i].iov[0] = (struct iovec){ slots[i].buf, 512 };
		slots[i].r = (struct block_request){ .op = BLOCK_READ, .offset = i * 512, .length = 512, .iov = slots[i].iov,
						     .iovcnt = 1, .done = slot_done, .opaque = &slots[i] };
		block_submit(b, &slots[i].r);
	}
	block_drain(b);
	ns = clock_host_now() - start;
	assert_in_range(ns, 150000000, 2000000000);
	block_get_stats(b, &stats);
	assert_int_equal(stats.op[BLOCK_READ].requests, 30);
	assert_int_equal(stats.op[BLOCK_READ].bytes, 30 * 512);
	assert_in_range(stats.throttled, 15, 21);
	for (unsigned i = 0; i < ARRAY_LEN(slots); i++) {
		assert_int_equal(slots[i].result, 0);
		free(slots[i].buf);
	}
	block_close(b);
	dir_remove(&d);
}

/* ---- a store that fails until it is told not to */

struct failing {
	struct node n;
	_Atomic int error;
	_Atomic unsigned calls;
};

static int failing_sync(struct node *n, struct block_request *r)
{
	struct failing *f = container_of(n, struct failing, n);

	f->calls++;
	return f->error;
}

static void failing_submit(struct node *n, struct block_request *r)
{
	r->done(r, failing_sync(n, r));
}

static void failing_close(struct node *n)
{
}

static const struct node_ops failing_ops = { .name = "failing", .submit = failing_submit, .sync = failing_sync, .close = failing_close };

struct stops {
	unsigned count;
	int error;
	bool write;
};

static void on_stopped(void *opaque, int error, bool write)
{
	struct stops *s = opaque;

	s->count++;
	s->error = error;
	s->write = write;
}

static void test_policy(void **state)
{
	struct failing f = { .n = { .ops = &failing_ops, .size = SIZE }, .error = -ENOSPC };
	struct blk_spec spec = { .path = "f", .format = "raw", .on_write_error = BLK_ENOSPC };
	struct stops stops = { 0 };
	struct slot s[2] = { 0 };
	uint8_t buf[512];
	struct block_stats stats;
	struct block *b;

	f.n.aio = aio_create(true, NULL);
	assert_int_equal(block_wrap(&b, f.n.aio, &f.n, &spec, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		s[i].iov[0] = (struct iovec){ buf, 512 };
		s[i].r = (struct block_request){ .op = BLOCK_WRITE, .length = 512, .iov = s[i].iov, .iovcnt = 1, .done = slot_done,
						 .opaque = &s[i] };
	}
	/* nobody to tell: to the guest */
	block_submit(b, &s[0].r);
	assert_int_equal(s[0].state, 2);
	assert_int_equal(s[0].result, -ENOSPC);
	s[0].state = 0;
	block_set_stopped(b, on_stopped, &stops);
	for (unsigned i = 0; i < 2; i++)
		block_submit(b, &s[i].r);
	assert_int_equal(s[0].state | s[1].state, 0);
	assert_int_equal(stops.count, 1);
	assert_int_equal(stops.error, ENOSPC);
	assert_true(stops.write);
	block_drain(b);
	block_get_stats(b, &stats);
	assert_int_equal(stats.held, 2);
	block_retry(b); /* still full */
	assert_int_equal(stops.count, 2);
	f.error = 0;
	block_retry(b);
	assert_int_equal(s[0].state, 2);
	assert_int_equal(s[1].state, 2);
	assert_int_equal(s[0].result | s[1].result, 0);
	/* another error than the policy's; then one held when the disk is closed */
	f.error = -EIO;
	block_submit(b, &s[0].r);
	assert_int_equal(s[0].result, -EIO);
	f.error = -ENOSPC;
	s[1].state = 0;
	block_submit(b, &s[1].r);
	assert_int_equal(s[1].state, 0);
	block_close(b);
	assert_int_equal(s[1].state, 2);
	assert_int_equal(s[1].result, -EIO);
}

static void on_held(struct block_request *r, bool held)
{
	/* not r->opaque: it is the back-end's now */
	container_of(r, struct slot, r)->held += held ? 1 : -1;
}

/* A front end is told what is held, and gets all of it back when it must; limits come and go. */
static void test_held(void **state)
{
	struct failing f = { .n = { .ops = &failing_ops, .size = SIZE }, .error = -EIO };
	struct blk_spec spec = { .path = "f", .format = "raw", .on_write_error = BLK_STOP, .on_read_error = BLK_STOP };
	struct block_limits limits = { .bps[1] = { .rate = 1, .burst = 1 } };
	struct stops stops = { 0 };
	struct slot s[2] = { 0 };
	struct block_stats stats;
	uint8_t buf[512];
	struct block *b;

	f.n.aio = aio_create(true, NULL);
	assert_int_equal(block_wrap(&b, f.n.aio, &f.n, &spec, NULL), 0);
	block_set_stopped(b, on_stopped, &stops);
	for (unsigned i = 0; i < 2; i++) {
		s[i].iov[0] = (struct iovec){ buf, 512 };
		s[i].r = (struct block_request){ .op = BLOCK_READ, .length = 512, .iov = s[i].iov, .iovcnt = 1, .done = slot_done,
						 .opaque = &s[i], .held = on_held };
		block_submit(b, &s[i].r);
		assert_int_equal(s[i].held, 1);
	}
	assert_false(stops.write);
	block_set_holding(b, false);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(s[i].held, 0);
		assert_int_equal(s[i].result, -EIO);
		s[i].state = 0;
	}
	block_submit(b, &s[0].r); /* nothing is held now */
	assert_int_equal(s[0].state, 2);
	block_set_holding(b, true);
	s[0].state = 0;
	block_submit(b, &s[0].r);
	assert_int_equal(s[0].held, 1);
	f.error = 0;
	block_retry(b);
	assert_int_equal(s[0].held, 0);
	assert_int_equal(s[0].result, 0);
	/* one request may go, the other waits until the limit does not hold any more */
	assert_int_equal(block_set_limits(b, &limits, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		s[i].state = 0;
		block_submit(b, &s[i].r);
	}
	block_get_stats(b, &stats);
	assert_int_equal(stats.throttled, 1);
	limits = (struct block_limits){ 0 };
	assert_int_equal(block_set_limits(b, &limits, NULL), 0);
	block_drain(b);
	assert_int_equal(s[1].result, 0);
	block_close(b);
}

/* ---- network block devices: a timer that interrupts again and again, as there is one while a machine is being made */

static struct {
	_Atomic int peer;
	_Atomic unsigned ticks;
	_Atomic bool done;
} timer;

static void tick(int number)
{
	if (++timer.ticks == 300) /* it will wait for ever */
		shutdown(timer.peer, SHUT_RDWR);
}

static void ticking(bool on)
{
	struct sigaction act = { .sa_handler = tick, .sa_flags = SA_RESTART };
	struct timeval often = { .tv_usec = on ? 20000 : 0 };

	timer.ticks = on ? 0 : (unsigned)timer.ticks;
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &(struct itimerval){ often, often }, NULL);
}

static void test_silent_server(void **state)
{
	struct timeval limit = { .tv_usec = 200000 };
	int pair[2];
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	timer.peer = pair[1];
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	ticking(true);
	assert_true(nbd_read(pair[0], &c, 1) < 0);
	ticking(false);
	assert_true(timer.ticks < 300);
	close(pair[0]);
	close(pair[1]);
}

static void *late_server(void *opaque)
{
	struct pollfd p = { *(int *)opaque, POLLIN, 0 };
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	while (timer.ticks < 5)
		usleep(10000);
	while (!timer.done)
		if (poll(&p, 1, 10) > 0)
			close(accept(p.fd, NULL, NULL));
	return NULL;
}

/* A server that has no room for one more just now. */
static void test_late_server(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int listener = socket(AF_INET, SOCK_STREAM, 0), others[4], fd;
	socklen_t len = sizeof(at);
	struct nbd_address a;
	char text[64];
	struct err e = { 0 };
	pthread_t thread;

	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(listener, 0), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
	for (unsigned i = 0; i < ARRAY_LEN(others); i++) {
		others[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(others[i], (struct sockaddr *)&at, sizeof(at));
	}
	snprintf(text, sizeof(text), "tcp:127.0.0.1:%u:", ntohs(at.sin_port));
	assert_int_equal(nbd_address_parse(&a, text, &e), 0);
	timer.peer = -1;
	ticking(true);
	pthread_create(&thread, NULL, late_server, &listener);
	fd = nbd_connect(&a, &e);
	timer.done = true;
	pthread_join(thread, NULL);
	ticking(false);
	if (fd < 0)
		fail_msg("%s", e.text);
	assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(fd);
	for (unsigned i = 0; i < ARRAY_LEN(others); i++)
		close(others[i]);
	close(listener);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_specs),  cmocka_unit_test(test_bounds), cmocka_unit_test(test_modes),
		cmocka_unit_test(test_locks),  cmocka_unit_test(test_limits), cmocka_unit_test(test_policy),
		cmocka_unit_test(test_held),   cmocka_unit_test(test_silent_server), cmocka_unit_test(test_late_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
