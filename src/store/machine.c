/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One machine's folder: its lock, what state it is in, its end. The one place that decides between inactive, running,
 * suspended and crashed (paused is a running process's own affair: ask its control socket):
 *
 *	its lock is held         running (who only works on the folder holds another part of that file)
 *	there is a saved state   suspended
 *	`status` says "running"  crashed: its process died without a word
 *	else                     what `status` says; without one: inactive
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "base/file.h"
#include "store/private.h"

int store_vm_open(struct store *s, const char *name, struct store_vm *m, struct err *e)
{
	int r = store_name_check(name, e);

	if (r)
		return r;
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->lock = -1;
	m->noun = s->noun;
	m->fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (m->fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return err_set(e, ENOENT, "there is no %s '%s'; 'ospite %s' lists them", s->noun, name, s->list);
	return m->fd < 0 ? err_errno(e, "cannot open %s %s", s->noun, name) : 0;
}

void store_vm_close(struct store_vm *m)
{
	cleanup_close(&m->lock);
	cleanup_close(&m->fd);
	m->lock = m->fd = -1;
}

/*
 * Locks of the open file description: they stay with the process that start makes (fork), end with the last process that has them, and
 * can be asked about without being taken. Byte 0 is for who works on the folder, the rest for who runs the machine, who takes both.
 */
#define LOCK_WORK 1
#define LOCK_WHOLE 0

/* Does it run? 0: no (or it is us), 1: yes. */
static int lock_held(struct store_vm *m, struct err *e)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_WORK };
	int fd _close_ = -1;

	if (m->lock >= 0)
		return 0;
	fd = openat(m->fd, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_errno(e, "cannot open the lock of %s %s", m->noun, m->name);
	if (fcntl(fd, F_OFD_GETLK, &l))
		return err_errno(e, "cannot ask for the lock of %s %s", m->noun, m->name);
	return l.l_type != F_UNLCK;
}

static int lock_take(struct store_vm *m, short type, off_t len, struct err *e)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_len = len };
	int fd = file_open_or_make(m->fd, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600), r;

	if (fd < 0)
		return errno == ENOENT ? err_set(e, ENOENT, "there is no %s '%s' any more", m->noun, m->name) :
					 err_errno(e, "cannot open the lock of %s %s", m->noun, m->name);
	if (!fcntl(fd, F_OFD_SETLK, &l)) {
		m->lock = fd;
		return 0;
	}
	if (errno != EAGAIN && errno != EACCES)
		r = err_errno(e, "cannot lock %s %s", m->noun, m->name);
	else if (lock_held(m, NULL) > 0)
		r = err_set(e, EBUSY, "%s '%s' is running", m->noun, m->name);
	else
		r = err_set(e, EAGAIN, "another command works on %s '%s': try again when that has ended", m->noun, m->name);
	close(fd);
	return r;
}

int store_vm_lock(struct store_vm *m, struct err *e)
{
	return lock_take(m, F_WRLCK, LOCK_WORK, e);
}

int store_vm_lock_shared(struct store_vm *m, struct err *e)
{
	return lock_take(m, F_RDLCK, LOCK_WORK, e);
}

int store_vm_lock_run(struct store_vm *m, struct err *e)
{
	return lock_take(m, F_WRLCK, LOCK_WHOLE, e);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int store_vm_wait(struct store_vm *m, int64_t ms, struct err *e)
{
	int64_t end = ms < 0 ? INT64_MAX : now_ms() + ms;
	int held;

	/* waiting for the lock would take it: look often at first, then every 50 ms */
	for (useconds_t nap = 1000; (held = lock_held(m, e)) > 0; nap = MIN(nap * 2, 50000u)) {
		if (now_ms() >= end)
			return err_set(e, ETIMEDOUT, "machine '%s' is still running", m->name);
		usleep(nap);
	}
	return held;
}

const char *store_state_name(enum store_state state)
{
	static const char *const names[] = { "inactive", "running", "suspended", "crashed" };

	return names[state];
}

static void status_parse(const char *text, struct store_status *st, bool *running)
{
	json_t *j = json_loads(text, 0, NULL);
	const char *state = json_string_value(json_object_get(j, "state"));
	const char *reason = json_string_value(json_object_get(j, "reason"));

	*running = state && !strcmp(state, "running");
	if (state && !strcmp(state, "crashed"))
		st->state = STORE_CRASHED;
	st->pid = (pid_t)json_integer_value(json_object_get(j, "pid"));
	st->started = json_integer_value(json_object_get(j, "started"));
	st->ended = json_integer_value(json_object_get(j, "ended"));
	st->exit_status = (int)json_integer_value(json_object_get(j, "exit-status"));
	snprintf(st->reason, sizeof(st->reason), "%s", reason ? reason : "");
	json_decref(j);
}

static void status_died(struct store_status *st)
{
	snprintf(st->reason, sizeof(st->reason), "its process died without a word (killed, or the host went down)");
	st->state = STORE_CRASHED;
	st->exit_status = 137;
}

/* Process numbers are given out again: one that runs a machine has its folder as working folder. */
static bool runs_here(const struct store_vm *m, pid_t pid)
{
	struct stat folder, cwd;
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/cwd", (int)pid);
	return pid > 1 && !fstat(m->fd, &folder) && !stat(path, &cwd) && cwd.st_ino == folder.st_ino &&
	       cwd.st_dev == folder.st_dev;
}

int store_vm_status(struct store_vm *m, struct store_status *st, struct err *e)
{
	bool said_running = false;
	char *text _free_ = NULL;
	int held = lock_held(m, e);

	memset(st, 0, sizeof(*st));
	if (held < 0)
		return held;
	if (!store_read(m->fd, "status", &text, NULL))
		status_parse(text, st, &said_running);
	if (held) {
		st->state = STORE_RUNNING;
		if (!runs_here(m, st->pid)) /* of the run before: this one has not yet said who it is */
			st->pid = 0;
		return 0;
	}
	if (said_running)
		status_died(st);
	st->pid = 0;
	if (!faccessat(m->fd, "saved", F_OK, AT_SYMLINK_NOFOLLOW)) {
		st->state = STORE_SUSPENDED;
		snprintf(st->reason, sizeof(st->reason), "suspended");
	}
	return 0;
}

#define LOOK_MS 1000

int store_vm_wait_end(struct store_vm *m, int64_t ms, struct store_status *st, struct err *e)
{
	int64_t end = ms < 0 ? INT64_MAX : now_ms() + ms;
	int last _close_ = -1, r;
	bool running = false;
	char text[4096];
	ssize_t n;

	do { /* of a temporary machine this file, open, is all there is in the end */
		cleanup_close(&last);
		last = openat(m->fd, "status", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
		r = store_vm_wait(m, MIN(MAX(end - now_ms(), (int64_t)0), (int64_t)LOOK_MS), e);
	} while (r == -ETIMEDOUT && now_ms() < end);
	if (!r)
		r = store_vm_status(m, st, e);
	if (r || last < 0 || !faccessat(m->fd, "vm.yaml", F_OK, AT_SYMLINK_NOFOLLOW))
		return r;
	n = pread(last, text, sizeof(text) - 1, 0);
	text[MAX(n, (ssize_t)0)] = 0;
	status_parse(text, st, &running);
	if (running)
		status_died(st);
	return 0;
}

bool store_vm_temporary(struct store_vm *m)
{
	return !faccessat(m->fd, "temporary", F_OK, AT_SYMLINK_NOFOLLOW);
}

/* Its folder goes next: who waits for its end has the file open (store_vm_wait_end) that is replaced otherwise. */
static void status_leave(struct store_vm *m, const char *text)
{
	int fd _close_ = openat(m->fd, "status", O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink != 1)
		return;
	if (ftruncate(fd, 0) || write(fd, text, strlen(text)) < 0)
		return; /* then they know less */
}

static int status_write(struct store_vm *m, json_t *j, bool sync, bool last, struct err *e)
{
	char *text _free_ = j ? json_dumps(j, JSON_INDENT(1)) : NULL;

	json_decref(j);
	if (!text)
		return err_set(e, ENOMEM, "no memory for the status");
	if (last && store_vm_temporary(m))
		status_leave(m, text);
	return sync ? store_write(m->fd, "status", text, e) : store_write_quick(m->fd, "status", text, e);
}

int store_vm_say_running(struct store_vm *m, bool sync, struct err *e)
{
	return status_write(m, json_pack("{s:s,s:i,s:I}", "state", "running", "pid", (int)getpid(), "started",
					 (json_int_t)time(NULL)), sync, false, e);
}

int store_vm_say_ended(struct store_vm *m, bool crashed, int exit_status, const char *reason, struct err *e)
{
	struct store_status was;

	store_vm_status(m, &was, NULL);
	return status_write(m, json_pack("{s:s,s:I,s:I,s:i,s:s}", "state", crashed ? "crashed" : "inactive", "started",
					 (json_int_t)was.started, "ended", (json_int_t)time(NULL), "exit-status",
					 exit_status, "reason", reason), true, true, e);
}

bool store_is_half(const char *name)
{
	const char *at = strstr(name, ".tmp."), *next;

	while (at && (next = strstr(at + 1, ".tmp.")))
		at = next;
	return at && at > name && at[5] && !at[5 + strspn(at + 5, "0123456789")];
}

void store_vm_tidy(struct store_vm *m)
{
	int fd = openat(m->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool alone = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB); /* else somebody may be writing vm.yaml just now */
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!d) {
		cleanup_close(&fd);
		return;
	}
	while ((entry = readdir(d))) {
		struct stat st;

		if ((alone && store_is_half(entry->d_name)) ||
		    (!fstatat(m->fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISSOCK(st.st_mode)))
			unlinkat(m->fd, entry->d_name, 0);
	}
	closedir(d);
}

/* Is the folder under this name still the one we have open? It may have been renamed or removed meanwhile. */
static int same_folder(struct store *s, struct store_vm *m, struct err *e)
{
	struct stat a, b;

	if (fstat(m->fd, &a) || fstatat(s->fd, m->name, &b, AT_SYMLINK_NOFOLLOW) || a.st_ino != b.st_ino || a.st_dev != b.st_dev)
		return err_set(e, ENOENT, "there is no %s '%s' any more", s->noun, m->name);
	return 0;
}

int store_vm_remove_locked(struct store *s, struct store_vm *m, struct err *e)
{
	char temp[STORE_NAME + 8];
	int r = same_folder(s, m, e);

	if (r)
		return r;
	snprintf(temp, sizeof(temp), ".old-%s", m->name);
	store_remove_tree(s->fd, temp);
	if (renameat(s->fd, m->name, s->fd, temp))
		return err_errno(e, "cannot remove %s %s", s->noun, m->name);
	store_remove_tree(s->fd, temp);
	if (!faccessat(s->fd, temp, F_OK, AT_SYMLINK_NOFOLLOW))
		return err_set(e, EIO, "%s %s is gone, but not all of its files: see %.200s/%s", s->noun, m->name, s->path, temp);
	return 0;
}

int store_vm_remove(struct store *s, struct store_vm *m, struct err *e)
{
	int lock _close_ = store_lock(s, e);

	return lock < 0 ? -EIO : store_vm_remove_locked(s, m, e);
}

int store_vm_rename(struct store *s, struct store_vm *m, const char *to, struct err *e)
{
	int lock _close_ = -1;
	int r = store_name_check(to, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return -EIO;
	r = same_folder(s, m, e);
	if (r)
		return r;
	if (renameat2(s->fd, m->name, s->fd, to, RENAME_NOREPLACE))
		return errno == EEXIST ? err_set(e, EEXIST, "there is a machine '%s' already", to)
				       : err_errno(e, "cannot rename machine %s", m->name);
	snprintf(m->name, sizeof(m->name), "%s", to);
	fsync(s->fd);
	return 0;
}
