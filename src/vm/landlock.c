/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See landlock.h. A domain belongs to a thread; those that are there already take it on in a signal's handler, one after the other. The signal
 * is SIGSYS, which none of ours blocks (base/kick.c, base/mask.h) and nobody uses at that time: the filter of system calls comes later. Threads of
 * libraries may block it (aml's, behind the VNC server, take SIGCHLD alone): they get one that they do not block. What a
 * handler needs comes with the signal.
 *
 * Version 1 (kernels 5.13 to 5.18) is left alone: it refuses to move files between folders, and shared folders need that.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/base.h"
#include "vm/landlock.h"

/* What headers of this age may not have. */
#define FS_TRUNCATE BIT(14)  /* version 3 */
#define FS_IOCTL_DEV BIT(15) /* version 5 */
#define SCOPE_ABSTRACT_SOCKET BIT(0) /* version 6; that of signals would part our threads before Linux 6.15 */

struct ruleset_attr {
	uint64_t handled_fs, handled_net, scoped;
};

#define FS_READ ((uint64_t)LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_FILE ((uint64_t)LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define FS_ALL (BIT(14) - 1) /* of version 2 */
/* Of the flags in /proc/PID/stat. */
#define PF_IO_WORKER 0x10u
#define PF_USER_WORKER 0x4000u
#define THREAD_WAIT_US 5000000u

int landlock_version(void)
{
	long n = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return n > 0 ? (int)n : 0;
}

/* ---- the rules */

static int ruleset_make(int version, uint64_t *handled)
{
	struct ruleset_attr a = { .handled_fs = FS_ALL };
	size_t size = sizeof(a.handled_fs);

	if (version >= 3)
		a.handled_fs |= FS_TRUNCATE;
	if (version >= 5)
		a.handled_fs |= FS_IOCTL_DEV;
	if (version >= 6) {
		a.scoped = SCOPE_ABSTRACT_SOCKET;
		size = sizeof(a);
	}
	*handled = a.handled_fs;
	return (int)syscall(SYS_landlock_create_ruleset, &a, size, 0);
}

/* What is not there (any more) needs no rule. */
static int rule_add(int rules, const char *path, uint64_t access)
{
	int fd _close_ = open(path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr a = { .allowed_access = access, .parent_fd = fd };
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return 0;
	if (!S_ISDIR(st.st_mode))
		a.allowed_access &= FS_FILE;
	return a.allowed_access ? (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &a, 0) : 0;
}

static int rules_fill(const struct view *v, int rules, uint64_t handled)
{
	const uint64_t all = handled & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE;
	char own[64];
	int r;

	snprintf(own, sizeof(own), "/proc/%d", getpid());
	r = rule_add(rules, own, (FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE) & handled);
	for (unsigned i = 0; i < v->nfolders && !r; i++)
		r = rule_add(rules, v->folder[i].path, v->folder[i].write ? all : FS_READ);
	for (unsigned i = 0; i < v->nfiles && !r; i++)
		r = rule_add(rules, v->file[i], LANDLOCK_ACCESS_FS_READ_FILE);
	for (unsigned i = 0; view_extra(i) && !r; i++)
		r = rule_add(rules, view_extra(i), (view_extra_is_device(i) ? FS_FILE : (uint64_t)LANDLOCK_ACCESS_FS_READ_FILE) & handled);
	return r ? -errno : 0;
}

/* ---- the threads */

struct turn {
	int rules;
	_Atomic int result; /* 1: not yet; else 0 or -errno */
};

static int restrict_self(int rules)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_landlock_restrict_self, rules, 0))
		return -errno;
	return 0;
}

static void take_turn(int number, siginfo_t *info, void *ucontext)
{
	struct turn *t = info->si_value.sival_ptr;
	int saved = errno;

	if (info->si_code != SI_QUEUE || info->si_pid != getpid()) /* a child has ended */
		return;
	atomic_store(&t->result, restrict_self(t->rules));
	errno = saved;
}

/* One of the kernel's own: io_uring's, KVM's. It runs no code of ours and takes no signal. */
static bool is_worker(pid_t tid)
{
	char path[64], text[512], *at;
	unsigned long flags = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	f = fopen(path, "re");
	if (f && fgets(text, sizeof(text), f) && (at = strrchr(text, ')')) && sscanf(at, ") %*c %*d %*d %*d %*d %*d %lu", &flags) != 1)
		flags = 0;
	if (f)
		fclose(f);
	return flags & (PF_IO_WORKER | PF_USER_WORKER);
}

static const int signals[] = { SIGSYS, SIGCHLD };

/* One that the thread does not block; -1: it blocks them all. */
static int open_signal(pid_t tid)
{
	unsigned long long blocked = 0;
	char path[64], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "SigBlk: %llx", &blocked);
	if (f)
		fclose(f);
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
		if (!(blocked & BIT(signals[i] - 1)))
			return signals[i];
	return -1;
}

/* 0, also if it has ended meanwhile. */
static int thread_restrict(struct turn *t, pid_t tid)
{
	siginfo_t info = { .si_code = SI_QUEUE };
	int number = open_signal(tid);

	for (unsigned us = 0; number < 0; us += 50) { /* as glibc's are till their first function is called */
		if (us >= THREAD_WAIT_US)
			return -EBUSY;
		usleep(50);
		number = open_signal(tid);
	}
	info.si_pid = getpid();
	info.si_value.sival_ptr = t;
	atomic_store(&t->result, 1);
	if (syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, number, &info))
		return errno == ESRCH ? 0 : -errno;
	for (unsigned us = 0; atomic_load(&t->result) > 0; us += 50) {
		if (us >= THREAD_WAIT_US)
			return -ETIMEDOUT;
		if (us % 5000 == 4950 && syscall(SYS_tgkill, getpid(), tid, 0))
			return 0;
		usleep(50);
	}
	return t->result;
}

struct threads {
	pid_t *done;
	size_t n;
};

static bool is_done(const struct threads *t, pid_t tid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->done[i] == tid)
			return true;
	return false;
}

/* Those that are new in the list of threads; how many, or -errno. */
static int threads_round(struct threads *t, struct turn *turn, DIR *d)
{
	const struct dirent *entry;
	int count = 0, r;

	rewinddir(d);
	while ((entry = readdir(d))) {
		pid_t tid = (pid_t)atoi(entry->d_name);
		pid_t *more;

		if (tid <= 0 || tid == gettid() || is_done(t, tid))
			continue;
		r = is_worker(tid) ? 0 : thread_restrict(turn, tid);
		more = r ? NULL : realloc(t->done, (t->n + 1) * sizeof(*more));
		if (!more)
			return r ? r : -ENOMEM;
		t->done = more;
		t->done[t->n++] = tid;
		count++;
	}
	return count;
}

/* Threads that one without a domain makes meanwhile are found in the next round; what one with a domain makes has it. */
static int threads_restrict(int rules)
{
	struct sigaction act = { .sa_sigaction = take_turn, .sa_flags = SA_SIGINFO | SA_RESTART }, before[ARRAY_LEN(signals)];
	struct turn *turn = calloc(1, sizeof(*turn));
	struct threads t = { 0 };
	DIR *d = opendir("/proc/self/task");
	int r = turn && d ? 0 : -errno;

	sigfillset(&act.sa_mask);
	if (!r) {
		turn->rules = rules;
		for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
			sigaction(signals[i], &act, &before[i]);
		while ((r = threads_round(&t, turn, d)) > 0)
			;
		if (!r)
			r = restrict_self(rules);
		for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
			sigaction(signals[i], &before[i], NULL);
	}
	if (d)
		closedir(d);
	free(t.done);
	if (r != -ETIMEDOUT) /* else it may still be looked at */
		free(turn);
	return r;
}

int landlock_confine(const struct view *v, struct err *e)
{
	int version = landlock_version(), rules _close_ = -1, r;
	uint64_t handled;

	if (version < 2)
		return 0;
	rules = ruleset_make(version, &handled);
	r = rules < 0 ? -errno : rules_fill(v, rules, handled);
	if (!r)
		r = threads_restrict(rules);
	return r ? err_set(e, -r, "cannot restrict files (Landlock): %s; '--unconfined' does without", strerror(-r)) : 1;
}
