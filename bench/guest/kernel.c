/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel does for programs: system calls, processes, faults, pipes, signals, mappings; and two threads. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "parts.h"

static uint64_t run_syscall(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < 700000; i++)
		sum += syscall(SYS_getppid) >= 0;
	return sum;
}

static uint64_t run_fork(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < 700; i++) {
		pid_t pid = fork();
		int status = 0;

		if (pid == 0)
			_exit(i & 0x7f);
		waitpid(pid, &status, 0);
		sum += (uint64_t)WEXITSTATUS(status);
	}
	return sum;
}

static int spawn_self(void)
{
	int status = 0;
	pid_t pid = vfork();

	if (pid == 0) {
		execl("/proc/self/exe", "bench", "--exit", (char *)0);
		_exit(1);
	}
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

static uint64_t run_exec(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < 250; i++)
		sum += (uint64_t)spawn_self();
	return sum;
}

static uint64_t run_faults(void)
{
	enum { SIZE = 32 << 20 };
	uint64_t sum = 0;

	for (int round = 0; round < 6; round++) {
		uint8_t *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		madvise(p, SIZE, MADV_NOHUGEPAGE);
		for (unsigned i = 0; i < SIZE; i += 4096)
			p[i] = (uint8_t)i, sum++;
		munmap(p, SIZE);
	}
	return sum;
}

static uint64_t run_mmap(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < 20000; i++) {
		uint8_t *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		p[0] = 1;
		sum += p[0];
		munmap(p, 16384);
	}
	return sum;
}

static uint64_t run_pipe(void)
{
	int to[2], from[2];
	uint64_t sum = 0;
	char c = 0;
	pid_t pid;

	if (pipe(to) || pipe(from))
		return 0;
	pid = fork();
	if (pid == 0) {
		while (read(to[0], &c, 1) == 1 && c != 'x')
			if (write(from[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	for (int i = 0; i < 20000; i++) {
		c = (char)(i & 63);
		if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
			break;
		sum += (uint64_t)c;
	}
	c = 'x';
	if (write(to[1], &c, 1) == 1)
		waitpid(pid, NULL, 0);
	for (int i = 0; i < 2; i++) {
		close(to[i]);
		close(from[i]);
	}
	return sum;
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals = signals + 1;
}

static uint64_t run_signal(void)
{
	signals = 0;
	signal(SIGUSR1, on_signal);
	for (int i = 0; i < 60000; i++)
		raise(SIGUSR1);
	return (uint64_t)signals;
}

/* Two threads that contend: one shared counter, and sums that lie in one cache line. */
struct worker {
	uint64_t rounds, sum;
	_Atomic uint64_t *shared;
};

static void *work(void *opaque)
{
	struct worker *w = opaque;
	uint64_t v = 1;

	for (uint64_t i = 0; i < w->rounds; i++) {
		v = v * 6364136223846793005ull + 1442695040888963407ull;
		w->sum += v >> 40;
		if (!(i & 1023))
			atomic_fetch_add(w->shared, 1);
	}
	return NULL;
}

static uint64_t threads(unsigned n, uint64_t rounds)
{
	_Atomic uint64_t shared = 0;
	struct worker w[2] = { { rounds, 0, &shared }, { rounds, 0, &shared } };
	pthread_t t[2];
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		pthread_create(&t[i], NULL, work, &w[i]);
	for (unsigned i = 0; i < n; i++) {
		pthread_join(t[i], NULL);
		sum += w[i].sum;
	}
	return sum + shared;
}

static uint64_t run_one_thread(void)
{
	return threads(1, 80000000);
}

static uint64_t run_two_threads(void)
{
	return threads(2, 80000000);
}

/* Two threads that share nothing: throughput of two CPUs. */
static void *work_alone(void *opaque)
{
	struct worker *w = opaque;
	uint64_t v = 1, sum = 0;

	for (uint64_t i = 0; i < w->rounds; i++) {
		v = v * 6364136223846793005ull + 1442695040888963407ull;
		sum += v >> 40;
	}
	w->sum = sum;
	return NULL;
}

static uint64_t busy(unsigned n)
{
	struct worker w[2] = { { 200000000, 0, NULL }, { 200000000, 0, NULL } };
	pthread_t t[2];
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		pthread_create(&t[i], NULL, work_alone, &w[i]);
	for (unsigned i = 0; i < n; i++) {
		pthread_join(t[i], NULL);
		sum += w[i].sum;
	}
	return sum;
}

static uint64_t run_one_busy(void)
{
	return busy(1);
}

static uint64_t run_two_busy(void)
{
	return busy(2);
}

static int two_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) >= 2;
}

const struct part parts_kernel[] = {
	{ "syscall", "kernel", run_syscall, 0 },
	{ "fork-exit", "kernel", run_fork, 0 },
	{ "fork-exec", "kernel", run_exec, 0 },
	{ "page-faults", "kernel", run_faults, 0 },
	{ "mmap", "kernel", run_mmap, 0 },
	{ "pipe", "kernel", run_pipe, 0 },
	{ "signal", "kernel", run_signal, 0 },
	{ "one-thread", "smp", run_one_thread, 0 },
	{ "two-threads", "smp", run_two_threads, two_cpus },
	{ "one-busy", "smp", run_one_busy, 0 },
	{ "two-busy", "smp", run_two_busy, two_cpus },
	{ 0 },
};
