/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine in the background: a process of its own, in its folder, with the folder's lock. It tells by a pipe that the machine runs,
 * or why it does not; the end of the pipe without a word is its death.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/file.h"
#include "base/log.h"
#include "cli/run.h"
#include "cli/seed.h"
#include "ctl/agent.h"

static void tell_ready(void *opaque)
{
	int *pipe = opaque;

	if (write(*pipe, "", 1) < 0) {
		/* whoever started us is gone: the machine runs all the same */
	}
	cleanup_close(pipe);
	*pipe = -1;
}

/* Every descriptor from 3 on but these. */
static void close_others(const int *keep, size_t n)
{
	for (unsigned from = 3;;) {
		unsigned next = UINT_MAX;

		for (size_t i = 0; i < n; i++)
			if (keep[i] >= 0 && (unsigned)keep[i] >= from)
				next = MIN(next, (unsigned)keep[i]);
		if (next > from)
			close_range(from, next - 1, 0);
		if (next == UINT_MAX)
			return;
		from = next + 1;
	}
}

/* Nothing of the terminal or of the caller stays open: a pipe of theirs would never end. */
static int detach(const struct store_vm *m, const struct store *s, int pipe, struct err *e)
{
	const int keep[] = { m->fd, m->lock, s->fd, pipe };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int log = file_open_or_make(m->fd, "log", O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK, 0600);
	struct stat st;

	if (log < 0)
		return err_errno(e, "cannot write to its log");
	if (fstat(log, &st) || !S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "its log is not a file");
	if (null < 0 || setsid() < 0 || fchdir(m->fd) || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(log, 2) < 0)
		return err_errno(e, "cannot go to the background");
	close_others(keep, ARRAY_LEN(keep));
	umask(077);
	signal(SIGINT, SIG_DFL);
	signal(SIGTSTP, SIG_IGN);
	return 0;
}

static _Noreturn void child(struct store *s, struct store_vm *m, struct run_options *o, int pipe)
{
	struct run_home home = { .store = s, .vm = m, .ready = tell_ready, .opaque = &pipe };
	struct err e = { 0 };
	char *before = NULL;
	int status = -1;

	prctl(PR_SET_NAME, m->name);
	if (detach(m, s, pipe, &e)) {
		/* what says so has two ways to the terminal: one is enough */
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
	} else {
		log_set_level(LOG_INFO);
		o->vm.name = m->name;
		home.was_suspended = o->restore != NULL;
		store_read(m->fd, "status", &before, NULL);
		status = store_vm_say_running(m, false, &e); /* so that it can be killed while it starts */
		if (!status)
			status = run_process(o, &home, &e);
		if (status < 0 && before) /* as it was */
			store_write(m->fd, "status", before, NULL);
		else if (status < 0)
			unlinkat(m->fd, "status", 0);
		free(before);
	}
	if (status < 0) {
		if (pipe >= 0 && write(pipe, e.text, strlen(e.text)) < 0) {
			/* whoever started us is gone */
		}
		status = cli_fail("%s", e.text);
	}
	run_options_dispose(o);
	_exit(status);
}

/* 0, or what the child said. */
static int hear(int pipe, struct err *e)
{
	char text[ERR_TEXT];
	size_t n = 0;
	ssize_t r = 1;

	while (n < sizeof(text) - 1 && (r = read(pipe, text + n, sizeof(text) - 1 - n)) != 0) {
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno(e, "cannot hear from the machine's process");
		n += (size_t)r;
		if (!text[0])
			return 0;
	}
	text[n] = 0;
	return err_set(e, ECHILD, "%s", n ? text : "its process died while it was starting; its log may say why");
}

/* The line to the guest's agent, unless the machine has it, or no room for it. */
static void add_agent_port(struct pc_config *pc)
{
	for (unsigned i = 0; i < pc->nports; i++)
		if (pc->port[i].name && !strcmp(pc->port[i].name, AGENT_PORT))
			return;
	if (!pc->no_agent && pc->nports < PC_PORTS)
		pc->port[pc->nports++] = (struct pc_port){ .name = AGENT_PORT, .where = "socket:agent" };
}

/*
 * A new run is made from vm.yaml, and keeps a copy of that for those who change it while it runs; what was suspended is made from
 * its copy (see cmd-set.c).
 */
static int read_text(struct store_vm *m, bool suspended, char **text, struct err *e)
{
	int r;

	if (suspended && !store_read(m->fd, "running.yaml", text, NULL)) {
		if (**text)
			return 0;
		free(*text); /* not written to its end when the host went down */
		*text = NULL;
	}
	r = store_read(m->fd, "vm.yaml", text, e);
	return r || suspended ? r : store_write_quick(m->fd, "running.yaml", *text, e);
}

int machine_start(struct store *s, struct store_vm *m, struct err *e)
{
	char *text _free_ = NULL;
	struct store_status st;
	struct run_options o;
	int pipes[2] = { -1, -1 };
	pid_t pid;
	int r;

	run_options_init(&o);
	if (access("/proc/self/fd", X_OK)) /* sockets in folders are reached through it */
		return err_set(e, ENOENT, "machine %s: /proc is not mounted here: mount -t proc proc /proc", m->name);
	r = store_vm_status(m, &st, e);
	if (!r)
		r = read_text(m, st.state == STORE_SUSPENDED, &text, e);
	if (!r)
		r = run_config_load(&o, text, e);
	add_agent_port(&o.pc);
	if (!r)
		r = seed_prepare(&o, s, m, e);
	if (!r && st.state == STORE_SUSPENDED)
		o.restore = "saved";
	if (!r && pipe2(pipes, O_CLOEXEC))
		r = err_errno(e, "cannot make a pipe");
	if (r) {
		run_options_dispose(&o);
		return err_prefix(e, "machine %s", m->name);
	}
	store_vm_tidy(m);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		close(pipes[0]);
		child(s, m, &o, pipes[1]);
	}
	cleanup_close(&pipes[1]);
	r = pid < 0 ? err_errno(e, "cannot make a process") : hear(pipes[0], e);
	if (r && pid > 0)
		waitpid(pid, NULL, 0);
	cleanup_close(&pipes[0]);
	cleanup_close(&m->lock); /* the process has it now */
	m->lock = -1;
	run_options_dispose(&o);
	return r ? err_prefix(e, "machine %s", m->name) : 0;
}
