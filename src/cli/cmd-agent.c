/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite exec: a program in a machine, by its guest agent. The agent itself gives a program's output only at its end, so a shell
 * in the guest sends it to files of a folder of ours, which are read as they grow. Its input, if wanted, is one of these files too.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "cli/agent.h"

#define POLL_NS_MIN 4000000l
#define POLL_NS_MAX 100000000l

/* ---- the way to the agent */

int agent_link_open(struct agent_link *l, struct store *s, const char *name, const struct life_args *a, struct err *e)
{
	struct store_status st;
	int r;

	agent_init(&l->agent, -1);
	l->vm.fd = l->vm.lock = -1;
	r = store_vm_open(s, name, &l->vm, e);
	if (!r)
		r = store_vm_status(&l->vm, &st, e);
	if (!r && st.state != STORE_RUNNING)
		return err_set(e, ESRCH, "machine '%s' is %s; 'ospite start %s' starts it", name, store_state_name(st.state), name);
	if (r)
		return r;
	l->agent.folder = l->vm.fd;
	r = agent_ready(&l->agent, a->time == UINT64_MAX ? AGENT_MS : (int)MIN(a->time, (uint64_t)1000000) * 1000, e);
	return r ? err_prefix(e, "machine '%s'", name) : 0;
}

void agent_link_close(struct agent_link *l)
{
	agent_dispose(&l->agent);
	store_vm_close(&l->vm);
}

int agent_shell(struct agent *a, const char *script, const char *const *args, int ms, int *status, struct err *e)
{
	const char *argv[16] = { "/bin/sh", "-c", script, "sh" };
	unsigned n = 4;

	for (; args && *args && n < ARRAY_LEN(argv) - 1; args++)
		argv[n++] = *args;
	return agent_run(a, argv, ms, status, e);
}

int agent_upload(struct agent *a, int from, const char *path, uint64_t *done, struct err *e)
{
	char chunk[AGENT_CHUNK];
	int64_t handle;
	ssize_t n = 0;
	int r = agent_open(a, path, "w", &handle, e);

	if (r)
		return r;
	while (!r && (n = read(from, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno != EINTR)
			r = err_errno(e, "cannot read");
		else if (n > 0)
			r = agent_write(a, handle, chunk, (size_t)n, e);
		*done += n > 0 ? (uint64_t)n : 0;
	}
	n = agent_close(a, handle, r ? NULL : e);
	return r ? r : (int)n;
}

static int write_all(int fd, const char *data, size_t n, struct err *e)
{
	while (n) {
		ssize_t w = write(fd, data, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return err_errno(e, "cannot write");
		data += w;
		n -= (size_t)w;
	}
	return 0;
}

int agent_download(struct agent *a, const char *path, int to, uint64_t *done, struct err *e)
{
	char chunk[AGENT_CHUNK];
	int64_t handle;
	ssize_t n = 1;
	int r = agent_open(a, path, "r", &handle, e);

	if (r)
		return r;
	while (!r && (n = agent_read(a, handle, chunk, e)) > 0) {
		r = write_all(to, chunk, (size_t)n, e);
		*done += (uint64_t)n;
	}
	if (n < 0)
		r = (int)n;
	agent_close(a, handle, NULL);
	return r;
}

/* ---- exec */

struct exec {
	struct agent *agent;
	const struct life_args *args;
	char folder[64];
	int64_t pid, out, err;
	int signals; /* SIGINT and SIGTERM are read from here */
};

/* The number of a signal that has come; 0: none has. */
static int signal_taken(const struct exec *x)
{
	struct signalfd_siginfo info;

	return read(x->signals, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

/* A nap that ends when a signal comes. */
static void doze(const struct exec *x, long *ns)
{
	struct pollfd poller = { .fd = x->signals, .events = POLLIN };

	agent_rest(x->agent);
	poll(&poller, 1, (int)(*ns / 1000000));
	*ns = MIN(*ns * 2, POLL_NS_MAX);
}

static int make_folder(struct exec *x, struct err *e)
{
	const char *args[] = { x->folder, NULL };
	uint64_t random[2];
	int status, r;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return err_errno(e, "no random numbers");
	snprintf(x->folder, sizeof(x->folder), "/tmp/.ospite-%016llx%016llx", (unsigned long long)random[0],
		 (unsigned long long)random[1]);
	r = agent_shell(x->agent, "mkdir -m 700 \"$1\" && : >\"$1/out\" && : >\"$1/err\" && : >\"$1/in\"", args, STEP_MS, &status, e);
	if (r) {
		x->folder[0] = 0;
		return r;
	}
	return status ? err_set(e, EIO, "cannot make a folder in the guest's /tmp (no room?)") : 0;
}

static void remove_folder(struct exec *x)
{
	const char *args[] = { x->folder, NULL };
	int status;

	if (x->folder[0])
		agent_shell(x->agent, "rm -rf \"$1\"", args, STEP_MS, &status, NULL);
}

/* Its own process group, so that an interrupt reaches what it has started too. */
static int start(struct exec *x, struct err *e)
{
	static const char script[] = "d=$1 n=$2; shift 2; while [ $n -gt 0 ]; do export \"$1\"; shift; n=$((n-1)); done; cd /; "
				     "exec \"$@\" <\"$d/in\" >>\"$d/out\" 2>>\"$d/err\"";
	const struct life_args *a = x->args;
	const char **argv = calloc(a->nset + a->nwords + 16, sizeof(char *));
	char count[16];
	unsigned n = 0;
	int r;

	if (!argv)
		return err_set(e, ENOMEM, "no memory");
	snprintf(count, sizeof(count), "%u", a->nset);
	argv[n++] = "/bin/sh";
	argv[n++] = "-c";
	argv[n++] = script;
	argv[n++] = "sh";
	argv[n++] = x->folder;
	argv[n++] = count;
	for (unsigned i = 0; i < a->nset; i++)
		argv[n++] = a->set[i];
	for (unsigned i = 1; i < a->nwords; i++)
		argv[n++] = a->words[i];
	r = agent_exec(x->agent, argv, false, &x->pid, e);
	free(argv);
	return r;
}

/* What has come since the last time. */
static int pass_on(struct exec *x, int64_t handle, int to, bool *any, struct err *e)
{
	char chunk[AGENT_CHUNK];
	ssize_t n;

	while ((n = agent_read(x->agent, handle, chunk, e)) > 0) {
		int r = write_all(to, chunk, (size_t)n, e);

		if (r)
			return r;
		*any = true;
		if (n < (ssize_t)sizeof(chunk)) /* the rest can wait for a look at signals */
			return 0;
	}
	return (int)n;
}

static void interrupt_guest(struct exec *x, int signal)
{
	char pid[32], number[8];
	const char *args[] = { number, pid, NULL };
	int status;

	snprintf(pid, sizeof(pid), "%lld", (long long)x->pid);
	snprintf(number, sizeof(number), "%d", signal);
	agent_shell(x->agent, "kill -$1 $2", args, STEP_MS, &status, NULL);
}

static int follow(struct exec *x, int *status, struct err *e)
{
	struct agent_status st = { 0 };
	long nap = POLL_NS_MIN;
	int r = 0;

	while (!r && !st.exited) {
		bool any = false;
		int signal = signal_taken(x);

		if (signal)
			interrupt_guest(x, signal);
		r = agent_status(x->agent, x->pid, &st, e); /* first: what is in the files after its end is all */
		if (!r)
			r = pass_on(x, x->out, STDOUT_FILENO, &any, e);
		if (!r)
			r = pass_on(x, x->err, STDERR_FILENO, &any, e);
		if (any)
			nap = POLL_NS_MIN;
		if (!r && !st.exited)
			doze(x, &nap);
	}
	if (r == -EPIPE) /* nobody reads what it writes */
		interrupt_guest(x, SIGTERM);
	*status = st.status;
	return r;
}

static int exec_shell(struct exec *x, int *status, struct err *e)
{
	char path[80];
	uint64_t done = 0;
	int r = make_folder(x, e);

	x->out = x->err = -1;
	snprintf(path, sizeof(path), "%s/in", x->folder);
	if (!r && x->args->input)
		r = agent_upload(x->agent, STDIN_FILENO, path, &done, e);
	snprintf(path, sizeof(path), "%s/out", x->folder);
	if (!r)
		r = agent_open(x->agent, path, "r", &x->out, e);
	snprintf(path, sizeof(path), "%s/err", x->folder);
	if (!r)
		r = agent_open(x->agent, path, "r", &x->err, e);
	if (!r)
		r = start(x, e);
	if (!r)
		r = follow(x, status, e);
	if (x->out >= 0)
		agent_close(x->agent, x->out, NULL);
	if (x->err >= 0)
		agent_close(x->agent, x->err, NULL);
	remove_folder(x);
	return r;
}

static int exec_direct(struct exec *x, int *status, struct err *e)
{
	const struct life_args *a = x->args;
	const char **argv = calloc(a->nwords, sizeof(char *));
	struct agent_status st = { 0 };
	long nap = POLL_NS_MIN;
	int r = argv ? 0 : err_set(e, ENOMEM, "no memory");

	for (unsigned i = 1; i < a->nwords && argv; i++)
		argv[i - 1] = a->words[i];
	if (!r)
		r = agent_exec(x->agent, argv, true, &x->pid, e);
	while (!r && !st.exited) {
		r = agent_status(x->agent, x->pid, &st, e);
		if (!r && signal_taken(x))
			r = err_set(e, EINTR, "interrupted; the program goes on in the guest");
		if (!r && !st.exited)
			doze(x, &nap);
	}
	if (!r)
		r = write_all(STDOUT_FILENO, st.out, st.out_len, e);
	if (!r)
		r = write_all(STDERR_FILENO, st.err, st.err_len, e);
	free(st.out);
	free(st.err);
	free(argv);
	*status = st.status;
	return r;
}

int life_exec(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	struct agent_link l;
	struct exec x = { .agent = &l.agent, .args = a, .signals = -1 };
	sigset_t ends;
	int status = 0, r;

	if (a->direct && (a->input || a->nset))
		return err_set(e, EINVAL, "--direct goes without a shell: leave --env and --stdin out");
	signal(SIGPIPE, SIG_IGN);
	r = agent_link_open(&l, s, a->words[0], a, e);
	if (!r) {
		sigemptyset(&ends);
		sigaddset(&ends, SIGINT);
		sigaddset(&ends, SIGTERM);
		sigprocmask(SIG_BLOCK, &ends, NULL);
		x.signals = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
		r = a->direct ? exec_direct(&x, &status, e) : exec_shell(&x, &status, e);
		if (r)
			err_prefix(e, "machine '%s'", a->words[0]);
	}
	cleanup_close(&x.signals);
	agent_link_close(&l);
	return r ? r : status;
}
