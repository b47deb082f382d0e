/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process confined by Landlock can still open: by the thread that asked for it, by two that were there before and wait with signals
 * blocked, one of them as a library's does, by one of those that come while it is done, and by a later one.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/base.h"
#include "base/mask.h"
#include "vm/landlock.h"

struct scene {
	char at[64], mine[80], read[80], file[80], other[80];
	int open_before; /* of `other` */
};

static void put(const char *folder, const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && write(fd, "text", 4) == 4);
	close(fd);
}

static void scene_make(struct scene *s)
{
	*s = (struct scene){ .at = "/tmp/landlock-XXXXXX" };
	assert_non_null(mkdtemp(s->at));
	snprintf(s->mine, sizeof(s->mine), "%s/mine", s->at);
	snprintf(s->read, sizeof(s->read), "%s/read", s->at);
	snprintf(s->other, sizeof(s->other), "%s/other", s->at);
	snprintf(s->file, sizeof(s->file), "%s/other/kernel", s->at);
	assert_int_equal(mkdir(s->mine, 0700) | mkdir(s->read, 0700) | mkdir(s->other, 0700), 0);
	put(s->mine, "a");
	put(s->read, "a");
	put(s->other, "a");
	put(s->other, "kernel");
	s->open_before = open(s->other, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int opens(int folder, const char *path, int flags)
{
	int fd = openat(folder, path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int opens_in(const char *folder, const char *name, int flags)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return opens(AT_FDCWD, path, flags);
}

static int moves(const struct scene *s, const char *to)
{
	char from[128], there[160];
	int r;

	snprintf(from, sizeof(from), "%s/a", s->mine);
	snprintf(there, sizeof(there), "%s/a2", to);
	r = rename(from, there) ? errno : 0;
	if (!r)
		rename(there, from);
	return r;
}

static int writes_null(void)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), r = fd < 0 || write(fd, "x", 1) != 1 ? 1 : 0;

	close(fd);
	return r;
}

/* 0, or the number of what is not as it should be. */
static int look(const struct scene *s)
{
	if (opens_in(s->mine, "a", O_RDWR | O_TRUNC) || opens_in(s->mine, "new", O_WRONLY | O_CREAT) || opens_in(s->mine, ".", O_RDONLY | O_DIRECTORY))
		return 1;
	if (opens_in(s->read, "a", O_RDONLY) || opens_in(s->read, "a", O_WRONLY) != EACCES || opens_in(s->read, "new", O_WRONLY | O_CREAT) != EACCES)
		return 2;
	if (opens(AT_FDCWD, s->file, O_RDONLY) || opens(AT_FDCWD, s->file, O_WRONLY) != EACCES)
		return 3;
	if (opens_in(s->other, "a", O_RDONLY) != EACCES || opens(s->open_before, "a", O_RDONLY) != EACCES ||
	    opens_in(s->mine, "../other/a", O_RDONLY) != EACCES)
		return 4;
	if (opens(AT_FDCWD, "/etc/passwd", O_RDONLY) != EACCES || opens(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY) != EACCES)
		return 5;
	if (opens(AT_FDCWD, "/etc/hosts", O_RDONLY) || opens(AT_FDCWD, "/proc/self/status", O_RDONLY) ||
	    writes_null())
		return 6;
	if (moves(s, s->mine) || !moves(s, s->other) || !moves(s, s->read))
		return 7;
	return 0;
}

struct older {
	const struct scene *scene;
	sem_t go, done;
	_Atomic bool stop;
	int result;
};

static void *older_main(void *opaque)
{
	struct older *o = opaque;

	while (sem_wait(&o->go) && errno == EINTR)
		;
	o->result = look(o->scene);
	sem_post(&o->done);
	return NULL;
}

static void *short_lived(void *opaque)
{
	return NULL;
}

/* Threads come and go all the time. */
static void *maker_main(void *opaque)
{
	struct older *o = opaque;
	pthread_t t;

	while (!atomic_load(&o->stop))
		if (!pthread_create(&t, NULL, short_lived, NULL))
			pthread_join(t, NULL);
	o->result = look(o->scene);
	return NULL;
}

static int confined(const struct scene *s)
{
	struct older waits = { .scene = s }, library = { .scene = s }, makes = { .scene = s }, later = { .scene = s };
	struct err e = { 0 };
	sigset_t mask, before;
	pthread_t a, b, c, d;
	struct view v;

	view_init(&v);
	sem_init(&waits.go, 0, 0);
	sem_init(&waits.done, 0, 0);
	sem_init(&library.go, 0, 0);
	sem_init(&library.done, 0, 0);
	sem_init(&later.go, 0, 1);
	sem_init(&later.done, 0, 0);
	if (view_add(&v, s->mine, true, true, &e) || view_add(&v, s->read, true, false, &e) || view_add_file(&v, s->file, &e))
		return 100;
	mask_fill(&mask);
	pthread_sigmask(SIG_SETMASK, &mask, &before);
	if (pthread_create(&a, NULL, older_main, &waits) || pthread_create(&b, NULL, maker_main, &makes))
		return 101;
	sigfillset(&mask);
	sigdelset(&mask, SIGCHLD);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (pthread_create(&d, NULL, older_main, &library))
		return 104;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (landlock_confine(&v, &e) != 1)
		return 102;
	atomic_store(&makes.stop, true); /* one after the other: they move the same files */
	pthread_join(b, NULL);
	sem_post(&waits.go);
	pthread_join(a, NULL);
	sem_post(&library.go);
	pthread_join(d, NULL);
	if (pthread_create(&c, NULL, older_main, &later) || pthread_join(c, NULL))
		return 103;
	view_dispose(&v, true);
	if (waits.result || library.result || makes.result || later.result)
		return 10 + waits.result + library.result + 10 * makes.result + 100 * later.result;
	return look(s);
}

static void test_all(void **state)
{
	struct scene s;
	char command[100];
	int status;
	pid_t pid;

	if (landlock_version() < 2) {
		skip(); /* this kernel has none */
		return;
	}
	scene_make(&s);
	pid = fork();
	if (!pid)
		_exit(confined(&s));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	snprintf(command, sizeof(command), "rm -r %s", s.at);
	assert_int_equal(system(command), 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_all) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
