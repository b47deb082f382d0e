/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character back-ends: files; sockets with peers that come, go and stall; standard input and output as pipes and as a
 * terminal, each in a child process whose front end sends back what it gets, a few bytes at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <utmp.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "backend/chr.h"
#include "base/base.h"
#include "base/err.h"

static void nap(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
}

/* Sends back what it gets. Takes 7 bytes at most, as a FIFO would. */
struct echo {
	struct chr *chr;
	_Atomic size_t got, drained;
	_Atomic bool closed, left;
};

static size_t echo_room(void *opaque)
{
	return ((struct echo *)opaque)->closed ? 0 : 7;
}

static void echo_input(void *opaque, const uint8_t *data, size_t n)
{
	struct echo *e = opaque;

	assert_in_range(n, 1, 7);
	e->got += n;
	while (n) {
		size_t done = chr_write(e->chr, data, n);

		data += done;
		n -= done;
		if (n)
			chr_wait(e->chr, 1000);
	}
}

static void echo_drained(void *opaque)
{
	((struct echo *)opaque)->drained++;
}

static void echo_leave(void *opaque)
{
	((struct echo *)opaque)->left = true;
}

struct bench {
	struct evloop *loop;
	struct echo echo;
};

static bool bench_open(struct bench *b, const char *spec, struct err *e)
{
	struct chr_config config = { .spec = spec, .leave = echo_leave, .opaque = &b->echo };

	memset(b, 0, sizeof(*b));
	b->loop = evloop_create(e);
	b->echo.chr = chr_open(b->loop, &config, e);
	if (!b->echo.chr) {
		evloop_destroy(b->loop);
		return false;
	}
	chr_attach(b->echo.chr, &(struct chr_front){ echo_room, echo_input, echo_drained, &b->echo });
	return !evloop_start(b->loop, e);
}

static void bench_close(struct bench *b)
{
	evloop_stop(b->loop);
	chr_close(b->echo.chr);
	evloop_destroy(b->loop);
}

static void test_specs(void **state)
{
	static const char *const bad[] = { "", "stdin", "file:", "socket:", "file:/nonexistent/x", "socket:/nonexistent/x",
					   "file:/" };
	struct bench b;
	struct err e;

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		e.text[0] = 0;
		assert_false(bench_open(&b, bad[i], &e));
		assert_true(e.text[0]);
	}
	assert_true(bench_open(&b, "null", &e));
	assert_int_equal(chr_write(b.echo.chr, (const uint8_t *)"x", 1), 1);
	bench_close(&b);
}

static void test_file(void **state)
{
	char path[] = "/tmp/test-chr-XXXXXX", spec[64], back[8] = { 0 };
	int fd = mkstemp(path);
	struct bench b;
	struct err e;

	snprintf(spec, sizeof(spec), "file:%s", path);
	assert_int_equal(write(fd, "old text", 8), 8);
	assert_true(bench_open(&b, spec, &e));
	assert_int_equal(chr_write(b.echo.chr, (const uint8_t *)"new", 3), 3);
	bench_close(&b);
	assert_int_equal(pread(fd, back, sizeof(back), 0), 3);
	assert_string_equal(back, "new");
	close(fd);
	unlink(path);
}

static int peer(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(at.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

/* n bytes, or fewer at the end of file; gives up after ten seconds without any. */
static size_t read_n(int fd, char *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t r;

		if (poll(&p, 1, 10000) <= 0)
			break;
		r = read(fd, buf + done, n - done);
		if (r <= 0)
			break;
		done += (size_t)r;
	}
	return done;
}

static void test_socket(void **state)
{
	char dir[] = "/tmp/test-chr-XXXXXX", path[64], spec[80], back[64];
	struct bench b, other;
	struct stat st;
	struct err e;
	int fd, second;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(spec, sizeof(spec), "socket:%s", path);
	/* one left behind by a process that is gone */
	{
		struct sockaddr_un at = { .sun_family = AF_UNIX };

		strcpy(at.sun_path, path);
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
		close(fd);
	}
	assert_true(bench_open(&b, spec, &e));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_false(bench_open(&other, spec, &e));
	assert_int_equal(e.code, EADDRINUSE);
	assert_int_equal(chr_write(b.echo.chr, (const uint8_t *)"lost", 4), 4); /* nobody there */
	for (unsigned round = 0; round < 3; round++) {
		fd = peer(path);
		assert_int_equal(write(fd, "hello, line", 11), 11);
		assert_int_equal(read_n(fd, back, 11), 11);
		assert_memory_equal(back, "hello, line", 11);
		second = peer(path); /* one at a time */
		assert_int_equal(read_n(second, back, 1), 0);
		close(second);
		close(fd);
		nap(20);
	}
	bench_close(&b);
	assert_int_equal(stat(path, &st), -1);
	/* a file that is no socket is not touched */
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_false(bench_open(&b, spec, &e));
	assert_int_equal(e.code, EEXIST);
	unlink(path);
	rmdir(dir);
}

/* A peer that does not read: bounded, nothing lost of what was accepted, in order, and we are told when it goes on. */
static void test_stalled(void **state)
{
	char dir[] = "/tmp/test-chr-XXXXXX", path[64], spec[80];
	uint8_t block[1000];
	size_t sent = 0, n;
	struct bench b;
	struct err e;
	char *back;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(spec, sizeof(spec), "socket:%s", path);
	assert_true(bench_open(&b, spec, &e));
	fd = peer(path);
	assert_int_equal(write(fd, "x", 1), 1); /* is it connected? */
	for (unsigned i = 0; i < 1000 && !b.echo.got; i++)
		nap(5);
	do {
		for (unsigned i = 0; i < sizeof(block); i++)
			block[i] = (uint8_t)((sent + i) * 7 >> 3);
		n = chr_write(b.echo.chr, block, sizeof(block));
		sent += n;
		assert_true(sent < 4u << 20);
	} while (n == sizeof(block));
	assert_int_equal(chr_write(b.echo.chr, block, 1), 0);
	assert_int_equal(b.echo.drained, 0);
	back = malloc(sent + 1);
	assert_int_equal(read_n(fd, back, sent + 1), sent + 1);
	assert_int_equal(back[0], 'x');
	for (size_t i = 0; i < sent; i++)
		assert_int_equal((uint8_t)back[i + 1], (uint8_t)(i * 7 >> 3));
	for (unsigned i = 0; i < 1000 && !b.echo.drained; i++)
		nap(5);
	assert_int_equal(b.echo.drained, 1);
	free(back);
	close(fd);
	bench_close(&b);
	rmdir(dir);
}

/* ---- stdio, in a child */

static _Noreturn void child(bool until_left, size_t until)
{
	struct bench b;
	struct err e;

	if (!bench_open(&b, "stdio", &e))
		_exit(2);
	for (unsigned i = 0; i < 5000 && !(until_left ? b.echo.left : b.echo.got >= until); i++)
		nap(2);
	bench_close(&b);
	_exit((until_left ? b.echo.left : b.echo.got == until) ? 0 : 3);
}

/* More than all buffers hold, into a pipe that is read late and slowly. */
static void test_pipes(void **state)
{
	enum { TOTAL = 600000 };
	int in[2], out[2], status;
	char *text = malloc(TOTAL), *back = malloc(TOTAL);
	size_t got = 0, put = 0;
	pid_t pid;

	for (size_t i = 0; i < TOTAL; i++)
		text[i] = (char)(i * 31 >> 4);
	assert_int_equal(pipe(in) | pipe(out), 0);
	pid = fork();
	if (!pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		close(out[0]);
		child(false, TOTAL);
	}
	close(in[0]);
	close(out[1]);
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	nap(30);
	while (got < TOTAL) {
		struct pollfd p[2] = { { .fd = in[1], .events = put < TOTAL ? POLLOUT : 0 }, { .fd = out[0], .events = POLLIN } };
		ssize_t r;

		if (poll(p, 2, 10000) <= 0)
			break;
		if (p[0].revents & POLLOUT && put < TOTAL) {
			r = write(in[1], text + put, TOTAL - put);
			put += r > 0 ? (size_t)r : 0;
			if (put < 200000) /* the child's output backs up meanwhile */
				continue;
		}
		if (p[1].revents) {
			r = read(out[0], back + got, MIN(TOTAL - got, (size_t)5000));
			if (r <= 0)
				break;
			got += (size_t)r;
		}
	}
	close(in[1]);
	assert_int_equal(got, TOTAL);
	assert_memory_equal(text, back, TOTAL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(out[0]);
	free(text);
	free(back);
}

static void test_terminal(void **state)
{
	struct termios before, during, after;
	int master, slave, status;
	char back[256] = { 0 };
	pid_t pid;

	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	assert_int_equal(tcgetattr(slave, &before), 0);
	pid = fork();
	if (!pid) {
		if (login_tty(slave))
			_exit(4);
		child(true, 0);
	}
	do {
		nap(2);
		tcgetattr(slave, &during);
	} while (during.c_lflag & ICANON && waitpid(pid, &status, WNOHANG) == 0);
	assert_int_equal(during.c_lflag & (ICANON | ECHO | ISIG), 0);
	assert_int_equal(write(master, "ab\x03\x01\x01" "c", 6), 6);
	assert_int_equal(read_n(master, back, 5), 5);
	assert_memory_equal(back, "ab\x03\x01" "c", 5);
	assert_int_equal(write(master, "\x01h", 2), 2);
	assert_int_equal(read_n(master, back, 40), 40);
	assert_non_null(strstr(back, "Ctrl-A X"));
	assert_int_equal(write(master, "\x01x", 2), 2);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(tcgetattr(slave, &after), 0);
	assert_int_equal(after.c_lflag, before.c_lflag);
	assert_int_equal(after.c_iflag, before.c_iflag);
	close(master);
	close(slave);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_specs),	cmocka_unit_test(test_file),  cmocka_unit_test(test_socket),
		cmocka_unit_test(test_stalled), cmocka_unit_test(test_pipes), cmocka_unit_test(test_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
