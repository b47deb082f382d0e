/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first and only program of a test guest: checks what a user space leans on, says what it found, and
 * powers off. Static, so that it needs nothing else; built for 64 and for 32 bits.
 *
 * "selftest: N passed, N failed" is the verdict the test on the host looks for.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures; /* of the check underway */

#define EXPECT(x)                                                                                  \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			printf("selftest: %s:%d: %s does not hold (errno %d)\n", __func__,         \
			       __LINE__, #x, errno);                                               \
			failures++;                                                                \
		}                                                                                  \
	} while (0)

/* ---- processes ---- */

static void check_processes(void)
{
	int fds[2], status;
	char text[32] = "";

	EXPECT(!pipe(fds));
	for (int i = 0; i < 20; i++) {
		pid_t child = fork();

		if (!child) {
			if (i == 19)
				dprintf(fds[1], "from %d", i);
			_exit(i);
		}
		EXPECT(child > 0);
		EXPECT(waitpid(child, &status, 0) == child);
		EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == i);
	}
	EXPECT(read(fds[0], text, sizeof(text)) == 7 && !strcmp(text, "from 19"));
	close(fds[0]);
	close(fds[1]);
}

static void check_exec(void)
{
	int status;
	pid_t child = fork();

	if (!child) {
		execl("/init", "/init", "--child", (char *)NULL);
		_exit(1);
	}
	EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

/* A child that breaks page permissions dies of SIGSEGV; copy-on-write keeps the parent's page. */
static void check_memory(void)
{
	int status;
	volatile char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t child;

	EXPECT(page != MAP_FAILED);
	*page = 'p';
	child = fork();
	if (!child) {
		*page = 'c';
		mprotect((void *)page, 4096, PROT_READ);
		*page = 'x';
		_exit(0);
	}
	EXPECT(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	EXPECT(*page == 'p');
	munmap((void *)page, 4096);

	/* enough pages that some are on other gigabytes of the tables */
	for (size_t mib = 1; mib <= 32; mib *= 2) {
		size_t size = mib << 20;
		uint32_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		bool same = p != MAP_FAILED;

		for (size_t i = 0; same && i < size / 4; i += 1021)
			p[i] = (uint32_t)(i * 2654435761u);
		for (size_t i = 0; same && i < size / 4; i += 1021)
			same = p[i] == (uint32_t)(i * 2654435761u);
		EXPECT(same);
		munmap(p, size);
	}
}

/* Code written at run time, changed, run again. */
static void check_written_code(void)
{
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool right = code != MAP_FAILED;

	for (uint32_t i = 0; right && i < 200; i++) {
		code[0] = 0xb8; /* mov $i, %eax; ret */
		memcpy(code + 1, &i, 4);
		code[5] = 0xc3;
		__builtin___clear_cache((char *)code, (char *)code + 6);
		right = ((uint32_t(*)(void))code)() == i;
	}
	EXPECT(right);
	munmap(code, 4096);
}

/* ---- signals ---- */

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
	caught = caught + number;
}

static void on_fpe(int number, siginfo_t *info, void *context)
{
	_exit(info->si_code == FPE_INTDIV ? 7 : 8);
}

static void check_signals(void)
{
	struct sigaction act = { .sa_handler = on_signal };
	struct itimerval timer = { .it_interval = { 0, 2000 }, .it_value = { 0, 2000 } };
	int status;
	pid_t child;

	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGALRM, &act, NULL);
	caught = 0;
	for (int i = 0; i < 50; i++)
		kill(getpid(), SIGUSR1);
	EXPECT(caught == 50 * SIGUSR1);

	caught = 0; /* timer interrupts in the middle of arithmetic */
	setitimer(ITIMER_REAL, &timer, NULL);
	for (double x = 1; caught < 10 * SIGALRM; x += 1)
		EXPECT(sqrt(x * x) == x);
	timer = (struct itimerval){ 0 };
	setitimer(ITIMER_REAL, &timer, NULL);

	child = fork();
	if (!child) {
		struct sigaction fpe = { .sa_sigaction = on_fpe, .sa_flags = SA_SIGINFO };
		volatile int zero = 0;

		sigaction(SIGFPE, &fpe, NULL);
		zero = 100 / zero;
		_exit(zero);
	}
	EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* ---- floating point ---- */

static double series(int n)
{
	double sum = 0;

	for (int i = n; i > 0; i--)
		sum += 1.0 / ((double)i * i);
	return sum;
}

static void check_floating_point(void)
{
	volatile double third = 1.0 / 3.0;
	volatile long double lthird = 1.0L / 3.0L;
	volatile float f = 16777216.0f, g = f + 1.0f; /* stored: 32-bit code computes with 80 bits */
	volatile double one = third * 3.0;
	char text[40];

	EXPECT(one == 1.0);
	EXPECT(fabs(series(10000) - 1.6448340718480652) < 1e-12);
	EXPECT(g == f);
	EXPECT(lthird != (long double)third);
	EXPECT(fabsl(sinl(1.0L) - 0.841470984807896506652502321630298999622563060798371L) < 1e-18L);
	EXPECT(fabs(exp(1.0) - 2.718281828459045) < 1e-15);
	EXPECT(fabs(atan2(1.0, -1.0) - 2.356194490192345) < 1e-15);
	EXPECT(isnan(sqrt(-third)) && isinf(1e308 * (third * 30)));
	snprintf(text, sizeof(text), "%.17g %.3Lf", third, lthird);
	EXPECT(!strcmp(text, "0.33333333333333331 0.333"));
	EXPECT(strtod("2.2250738585072014e-308", NULL) == 0x1p-1022);
}

/* ---- vector and x87 registers across context switches ---- */

static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
	const unsigned char *b = data;

	while (size--)
		hash = (hash ^ *b++) * 0x100000001b3;
	return hash;
}

/* Two vectors of four doubles that stay in registers between the yields: YMM, or pairs of XMM. */
static inline __attribute__((always_inline)) uint64_t vector_loop(int seed, bool yield)
{
	typedef double vec __attribute__((vector_size(32)));
	vec a = { seed, seed + 0.5, seed * 1.1, 3 }, b = { 1, 2, 3, seed };

	for (int i = 0; i < 3000; i++) {
		a = a * 0.75 + b / (a + 1.5);
		b = b * 0.5 + a;
		if (yield && !(i % 100))
			sched_yield();
	}
	return mix(mix(seed, &a, sizeof(a)), &b, sizeof(b));
}

__attribute__((target("sse2"))) static uint64_t vector_sse(int seed, bool yield)
{
	return vector_loop(seed, yield);
}

__attribute__((target("avx2,fma"))) static uint64_t vector_avx(int seed, bool yield)
{
	return vector_loop(seed, yield);
}

static uint64_t extended_loop(int seed, bool yield)
{
	long double x = seed + 0.25L;

	for (int i = 0; i < 300; i++) {
		x = sinl(x) * cosl(x) + expl(-x * x) + logl(2 + x * x);
		if (yield && !(i % 30))
			sched_yield();
	}
	return mix(seed, &x, 10);
}

static uint64_t compute(int seed, bool yield)
{
	uint64_t hash = extended_loop(seed, yield) ^ vector_sse(seed, yield);

	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? hash ^ vector_avx(seed, yield) : hash;
}

/* Processes that yield to each other all the time must get what one alone gets. */
static void check_switches(void)
{
	uint64_t alone[4];
	int status;

	for (int i = 0; i < 4; i++)
		alone[i] = compute(i + 1, false);
	for (int i = 0; i < 4; i++) {
		if (!fork())
			_exit(compute(i + 1, true) != alone[i]);
	}
	for (int i = 0; i < 4; i++)
		EXPECT(wait(&status) > 0 && WIFEXITED(status) && !WEXITSTATUS(status));
}

/* ---- threads ---- */

#define THREADS 4
#define ROUNDS 5000

struct shared {
	pthread_mutex_t lock;
	pthread_barrier_t barrier;
	long guarded;
	_Atomic long counted;
	_Atomic int wrong;
};

struct job {
	struct shared *shared;
	int number;
};

static void *thread_main(void *opaque)
{
	struct job *job = opaque;
	struct shared *s = job->shared;
	double mine = 0;

	for (int i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&s->lock);
		s->guarded++;
		pthread_mutex_unlock(&s->lock);
		s->counted++;
		mine += job->number * 0.5; /* in a register across switches */
		if (!(i % 500))
			sched_yield();
	}
	if (mine != job->number * 0.5 * ROUNDS)
		s->wrong++;
	pthread_barrier_wait(&s->barrier);
	if (s->counted != THREADS * ROUNDS)
		s->wrong++;
	return NULL;
}

static void check_threads(void)
{
	struct shared s = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct job job[THREADS];
	pthread_t thread[THREADS];

	pthread_barrier_init(&s.barrier, NULL, THREADS);
	for (int i = 0; i < THREADS; i++) {
		job[i] = (struct job){ &s, i + 1 };
		EXPECT(!pthread_create(&thread[i], NULL, thread_main, &job[i]));
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	EXPECT(s.guarded == THREADS * ROUNDS && s.counted == THREADS * ROUNDS && !s.wrong);
}

/* Every CPU runs us when asked to. */
static void check_cpus(void)
{
	int n = get_nprocs();

	for (int i = 0; i < n; i++) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(i, &set);
		EXPECT(!sched_setaffinity(0, sizeof(set), &set));
		EXPECT(sched_getcpu() == i);
		EXPECT(fabs(series(100) - 1.63498390018489) < 1e-12);
	}
}

/* ---- files ---- */

static void check_files(void)
{
	unsigned char block[4096];
	struct stat st;
	int fd;
	bool same = true;

	mkdir("/t", 0755);
	EXPECT(!mount("tmp", "/t", "tmpfs", 0, "size=16m"));
	fd = open("/t/file", O_RDWR | O_CREAT | O_EXCL, 0640);
	EXPECT(fd >= 0);
	for (int i = 0; i < 256; i++) {
		memset(block, i, sizeof(block));
		EXPECT(write(fd, block, sizeof(block)) == sizeof(block));
	}
	EXPECT(!fstat(fd, &st) && st.st_size == 256 * 4096 && (st.st_mode & 07777) == 0640);
	for (int i = 255; i >= 0 && same; i--) {
		same = pread(fd, block, sizeof(block), i * 4096L) == sizeof(block) && block[0] == i &&
		       block[4095] == i;
	}
	EXPECT(same);
	close(fd);
	EXPECT(!rename("/t/file", "/t/other") && access("/t/file", F_OK) && !access("/t/other", F_OK));
	EXPECT(!symlink("other", "/t/link") && open("/t/link", O_RDONLY) >= 0);
	EXPECT(open("/t/none", O_RDONLY) < 0 && errno == ENOENT);
	fd = open("/t/big", O_WRONLY | O_CREAT, 0600);
	EXPECT(ftruncate(fd, 1 << 20) == 0 && !fstat(fd, &st) && st.st_size == 1 << 20);
	close(fd);
}

/* ---- time ---- */

static int64_t now_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void check_time(void)
{
	struct timespec pause = { 0, 50 * 1000 * 1000 };
	int64_t start = now_ns(CLOCK_MONOTONIC), last = start, slept;
	bool forward = true;

	EXPECT(!nanosleep(&pause, NULL));
	slept = now_ns(CLOCK_MONOTONIC) - start;
	EXPECT(slept >= 50 * 1000000ll && slept < 2000 * 1000000ll);
	for (int i = 0; i < 2000; i++) {
		int64_t t = now_ns(CLOCK_MONOTONIC);

		forward = forward && t >= last;
		last = t;
	}
	EXPECT(forward);
	EXPECT(time(NULL) > 1700000000); /* from the RTC */
}

/* ---- the run ---- */

static const struct {
	const char *name;
	void (*check)(void);
} checks[] = {
	{ "processes", check_processes },
	{ "exec", check_exec },
	{ "memory", check_memory },
	{ "written code", check_written_code },
	{ "signals", check_signals },
	{ "floating point", check_floating_point },
	{ "switches", check_switches },
	{ "threads", check_threads },
	{ "cpus", check_cpus },
	{ "files", check_files },
	{ "time", check_time },
};

int main(int argc, char **argv)
{
	int passed = 0, failed = 0;
	struct utsname u;

	if (argc > 1 && !strcmp(argv[1], "--child"))
		return 42;
	if (getpid() != 1) { /* it mounts file systems */
		fputs("selftest: is the first program of a guest, not for the host\n", stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	uname(&u);
	printf("selftest: %s %s with %d CPUs\n", u.release, u.machine, get_nprocs());
	for (unsigned i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		int64_t start = now_ns(CLOCK_MONOTONIC);

		failures = 0;
		checks[i].check();
		printf("selftest: %s %s (%d ms)\n", checks[i].name, failures ? "FAILED" : "ok",
		       (int)((now_ns(CLOCK_MONOTONIC) - start) / 1000000));
		if (failures)
			failed++;
		else
			passed++;
	}
	printf("selftest: %d passed, %d failed\n", passed, failed);
	fflush(stdout);
	reboot(RB_POWER_OFF);
	return failed != 0;
}
