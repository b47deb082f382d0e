/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a confined process can still do: each attempt in a process of its own, by the thread that asked for it and by one that was
 * there before.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "vm/confine.h"

#define KILLED 1000 /* by the filter */

struct attempt {
	int (*fn)(void); /* 0 or errno */
	sem_t go, done;
	int result;
};

static void *other_thread(void *opaque)
{
	struct attempt *a = opaque;

	sem_wait(&a->go);
	a->result = a->fn();
	sem_post(&a->done);
	return NULL;
}

static int in_process(int (*fn)(void), bool by_other, const struct confine *c)
{
	struct attempt a = { .fn = fn };
	pthread_t thread;
	struct err e = { 0 };
	int status;
	pid_t pid = fork();

	if (!pid) {
		sem_init(&a.go, 0, 0);
		sem_init(&a.done, 0, 0);
		if (confine_early(c, &e) || pthread_create(&thread, NULL, other_thread, &a) || confine_late(&e))
			_exit(255);
		if (!by_other)
			_exit(fn());
		sem_post(&a.go);
		sem_wait(&a.done);
		_exit(a.result);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGSYS ? KILLED : -WTERMSIG(status);
	return WEXITSTATUS(status);
}

#define SAY(what) ((what) < 0 ? errno : 0)

static int run_program(void)
{
	return SAY(execl("/bin/true", "true", NULL));
}

static int make_process(void)
{
	return SAY(syscall(SYS_fork));
}

static int clone_process(void)
{
	return SAY(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
}

static int trace(void)
{
	return SAY(ptrace(PTRACE_TRACEME, 0, 0, 0));
}

static int new_space(void)
{
	return SAY(unshare(CLONE_NEWUSER));
}

static int mount_it(void)
{
	return SAY(mount("x", "/tmp", "tmpfs", 0, NULL));
}

static int packet_socket(void)
{
	return SAY(socket(AF_PACKET, SOCK_RAW, 0));
}

static int type_for_others(void)
{
	return SAY(ioctl(0, TIOCSTI, "x"));
}

static int kill_parent(void)
{
	return SAY(kill(getppid(), 0));
}

static int write_and_execute(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}

static int make_executable(void)
{
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? errno : SAY(mprotect(at, 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
}

static void *nothing(void *opaque)
{
	return opaque;
}

/* What devices, files and the translator need. */
static int ordinary_work(void)
{
	int memory = memfd_create("code", MFD_CLOEXEC), file = open("/dev/null", O_RDWR | O_CLOEXEC);
	pthread_t thread;

	if (memory < 0 || file < 0 || ftruncate(memory, 4096) || write(file, "x", 1) != 1)
		return errno;
	if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0) == MAP_FAILED ||
	    mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, memory, 0) == MAP_FAILED)
		return errno;
	if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
		return 254;
	return SAY(socket(AF_UNIX, SOCK_STREAM, 0)) || SAY(socket(AF_INET, SOCK_STREAM, 0)) || SAY(raise(0));
}

static int who(void)
{
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 ? 253 : getuid() || geteuid() ? (int)getuid() % 200 : 0;
}

static void test_calls(void **state)
{
	static const struct {
		int (*fn)(void);
		int expect;
	} attempts[] = {
		{ run_program, KILLED }, { make_process, KILLED }, { clone_process, EPERM }, { trace, KILLED }, { new_space, KILLED },
		{ mount_it, KILLED }, { packet_socket, EPERM }, { type_for_others, EPERM }, { kill_parent, EPERM },
		{ write_and_execute, EPERM }, { make_executable, EPERM }, { ordinary_work, 0 },
	};
	const struct confine same = { 0 };

	for (unsigned i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
		assert_int_equal(in_process(attempts[i].fn, false, &same), attempts[i].expect);
		assert_int_equal(in_process(attempts[i].fn, true, &same), attempts[i].expect);
	}
}

static void test_user(void **state)
{
	struct confine c = { 0 };
	struct err e = { 0 };

	assert_int_not_equal(confine_user(&c, "no-such-user-here", true, &e), 0);
	if (geteuid() || confine_user(&c, "nobody", false, &e))
		skip();
	assert_int_equal(in_process(who, false, &c), (int)c.uid % 200);
	assert_int_equal(in_process(who, true, &c), (int)c.uid % 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_calls), cmocka_unit_test(test_user) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
