/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process of one machine, from start to end.
 *
 * Signals: SIGTERM, SIGINT and SIGHUP are blocked in all threads and read from a signalfd on the event loop,
 * so that they end the machine as every other end does; those that whoever started us had ignored (nohup) stay so. Until there is
 * a machine to end, which a kernel from a pipe or a large saved memory may delay, a timer looks for them (build_alarm). Signals that
 * kill restore the terminal first.
 *
 * With a folder: the saved state goes only after everything that could still fail, and before the first instruction runs;
 * the folder's `status` is written before the machine runs and when it has ended, so whatever is killed in between is seen.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include "backend/chr.h"
#include "backend/net-client.h"
#include "base/log.h"
#include "base/trace.h"
#include "cli/net.h"
#include "cli/run-view.h"
#include "cli/run.h"
#include "cli/saver.h"
#include "ctl/ctl.h"
#include "vm/confine.h"
#include "vm/gdb.h"
#include "vm/landlock.h"
#include "vm/save.h"
#include "vm/verdict.h"

struct run {
	struct run_options *options;
	struct run_home *home; /* NULL: none */
	struct vm *vm;
	struct pc *pc;
	struct saver saver;
	struct ctl *ctl; /* --control */
	struct state_reader *saved; /* --restore */
	struct save_meta meta;
	struct confine confine;
	struct view view;
	char root[PATH_MAX];   /* where machines, networks and unpacked kernels are; "": not known */
	char kernels[PATH_MAX + 80];
	struct verdict verdict; /* of KVM; opened while we are still who may, closed before anything runs */
	int network[PC_NETS];  /* connections that keep switches from ending before we are on them */
	int port[PC_NETS];     /* of the cards, made while we are still who may; -1: given away */
	struct evsource *signals;
	int signal_fd;
	_Atomic int signal; /* that ended us, 0 if none */
};

static void fatal_signal(int number)
{
	chr_restore_terminal();
	if (number == SIGBUS && write(STDERR_FILENO, MEM_LOST, sizeof(MEM_LOST) - 1) < 0) {
		/* nobody is listening */
	}
	raise(number); /* the handler is gone (SA_RESETHAND): dies of it as it would have */
}

/* The machine did not end within STUCK_SECONDS of being told to: a vCPU does not come back from its engine. */
#define STUCK_SECONDS 10

static void stuck_alarm(int number)
{
	static const char text[] = "ospite: the machine does not end, a CPU is stuck; giving up on it\n";

	chr_restore_terminal();
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
		/* nobody is listening: nothing more can be done */
	}
	_exit(EXIT_OURS);
}

/* Blocked, so that threads made meanwhile have them blocked too: nothing else would interrupt what the machine is being made of. */
static void build_alarm(int number)
{
	sigset_t waiting, ends;

	if (sigpending(&waiting))
		return;
	ends_set(&ends);
	for (int i = 1; i < SIGRTMIN; i++)
		if (sigismember(&ends, i) == 1 && sigismember(&waiting, i) == 1) {
			chr_restore_terminal();
			_exit(128 + i);
		}
}

static void build_timer(bool on)
{
	struct sigaction act = { .sa_handler = on ? build_alarm : stuck_alarm, .sa_flags = SA_RESTART };
	struct timeval often = { .tv_usec = on ? 300000 : 0 };

	setitimer(ITIMER_REAL, &(struct itimerval){ often, often }, NULL);
	sigaction(SIGALRM, &act, NULL);
}

static void signals_prepare(sigset_t *ends)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
	struct sigaction act = { .sa_handler = fatal_signal, .sa_flags = (int)SA_RESETHAND };

	for (unsigned i = 0; i < ARRAY_LEN(fatal); i++)
		sigaction(fatal[i], &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	ends_set(ends);
	sigaddset(ends, SIGUSR1);
	sigprocmask(SIG_BLOCK, ends, NULL); /* inherited by every thread made from here on */
	build_timer(true);
}

static void signal_ready(void *opaque, uint32_t events)
{
	struct run *run = opaque;
	struct signalfd_siginfo info;

	if (read(run->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGUSR1) {
		saver_request(&run->saver);
		return;
	}
	run->signal = (int)info.ssi_signo;
	alarm(STUCK_SECONDS);
	vm_request_end(run->vm, VM_END_USER, 0, strsignal((int)info.ssi_signo));
}

static int signals_watch(struct run *run, const sigset_t *ends, struct err *e)
{
	run->signal_fd = signalfd(-1, ends, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signal_fd < 0)
		return err_errno(e, "cannot watch signals");
	run->signals = evloop_add(run->vm->loop, run->signal_fd, EPOLLIN, signal_ready, run, e);
	return run->signals ? 0 : -1;
}

/* One line that says which engine runs the guest, and why no better one does. */
static void say_engine(const struct run *run)
{
	fprintf(stderr, "ospite: engine %s (%s)\n", run->vm->machine.engine->name, run->vm->engine_why);
}

static int check_kvm(const struct run *run, struct err *e)
{
	const struct engine_ops *kvm = engine_find("kvm");
	struct err why = { 0 };

	if (!run->options->require_kvm || !strcmp(run->vm->machine.engine->name, "kvm"))
		return 0;
	if (strcmp(run->options->vm.engine, "auto") && strncmp(run->options->vm.engine, "kvm", 3))
		return err_set(e, EINVAL, "--require-kvm and --engine %s exclude each other: give one",
			       run->options->vm.engine);
	if (!kvm)
		return err_set(e, ENOTSUP, "--require-kvm: this ospite is built without KVM; leave the option out");
	if (kvm->probe && kvm->probe(&why))
		return err_set(e, ENOTSUP, "--require-kvm: %.300s", why.text);
	return err_set(e, ENOTSUP, "--require-kvm: KVM is there, but slower than %s here; leave the option out",
		       run->vm->machine.engine->name);
}

static int trace_start(struct run *run, struct err *e)
{
	const struct run_options *o = run->options;
	struct trace *t = NULL;
	int r = o->trace ? trace_create(&t, o->trace, o->log, e) : 0;

	if (r)
		return err_prefix(e, "--trace %.100s", o->trace);
	vm_set_trace(run->vm, t);
	return 0;
}

static void stats_line(void *opaque, const char *name, uint64_t value)
{
	fprintf(stderr, "ospite: stat %-24s %llu\n", name, (unsigned long long)value);
}

static int end_status(const struct run *run, enum vm_end end)
{
	const struct vm *vm = run->vm;

	switch (end) {
	case VM_END_EXIT_PORT:
		return vm->exit_status;
	case VM_END_CRASH:
		cli_fail("the guest crashed: %s", vm->end_reason);
		return EXIT_GUEST;
	case VM_END_ENGINE:
		return cli_fail("engine %s: %s", vm->machine.engine->name, vm->end_reason);
	case VM_END_USER:
		return run->signal ? 128 + run->signal : 0;
	default:
		return 0;
	}
}

static int control_open(struct run *run, struct err *e)
{
	struct ctl_config c = { .vm = run->vm, .pc = run->pc, .version = OSPITE_VERSION, .folder = AT_FDCWD,
				.path = run->options->control, .save_path = run->options->save_to, .mapped = run->view.mapped,
				.own_files = run->view.on || (!run->options->unconfined && landlock_version() >= 2) };

	if (run->home) {
		c.folder = run->home->vm->fd;
		c.path = "control";
		c.save_path = "saved";
	}
	if (!c.path && pc_disks_hold(run->pc))
		return err_set(e, EINVAL, "rerror= and werror= other than report pause the machine, and it goes on only when told so: "
					  "give --control PATH");
	if (!c.path)
		return 0;
	run->ctl = ctl_create(&c, e);
	if (!run->ctl || ctl_start(run->ctl, e))
		return err_prefix(e, "control socket %s", c.path);
	return 0;
}

/* What the machine must be built with comes from the file. */
static int restore_prepare(struct run *run, struct err *e)
{
	struct run_options *o = run->options;

	run->saved = state_reader_open(o->restore, e);
	if (!run->saved)
		return err_prefix(e, "--restore");
	if (vm_save_read_meta(run->saved, &run->meta, e))
		return err_prefix(e, "--restore %.200s", o->restore);
	o->vm.memory = run->meta.memory;
	o->vm.cpus = run->meta.cpus;
	o->vm.cpu_model = run->meta.cpu_model;
	snprintf(run->meta.cpuid.name, sizeof(run->meta.cpuid.name), "%s", run->meta.cpu_model);
	run->meta.cpuid.tsc_khz = run->meta.tsc_khz;
	o->vm.cpuid = &run->meta.cpuid;
	o->pc.restoring = true;
	return 0;
}

#define USUAL_USER "ospite" /* what packages make */

/* Not the user's, in a folder with the sticky bit: what decides how root starts the machine next time. */
static bool stays_roots(const char *name)
{
	return !strcmp(name, "vm.yaml") || !strcmp(name, "running.yaml") || !strcmp(name, "log") || !strcmp(name, "agent.lock") || !strcmp(name, "temporary") ||
	       !strcmp(name, "known_hosts") || !strcmp(name, "instance") || !strcmp(name, "ssh-port");
}

/* By descriptor: whoever has been that user before may have left links and changes names meanwhile. */
static int file_give(const struct run *run, int folder, const char *name)
{
	int fd _close_ = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return errno == ENOENT ? 0 : -1;
	if (S_ISSOCK(st.st_mode) || (S_ISREG(st.st_mode) && st.st_nlink == 1))
		return fchownat(fd, "", run->confine.uid, run->confine.gid, AT_EMPTY_PATH);
	return 0;
}

/* The folder's files go to who runs the machine. */
static int folder_give(const struct run *run, struct err *e)
{
	int fd = openat(run->home->vm->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	int r = d && !fchown(fd, 0, run->confine.gid) && !fchmod(fd, 01770) ? 0 : -1;

	while (!r && (entry = readdir(d)))
		if (entry->d_name[0] != '.' && !stays_roots(entry->d_name))
			r = file_give(run, fd, entry->d_name);
	r = r ? err_errno(e, "cannot give the folder to user %s", run->confine.name) : 0;
	if (d)
		closedir(d);
	else
		cleanup_close(&fd);
	return r;
}

/* Unpacked kernels of its machines, beside root's: what is kept is trusted by its owner only. Without the folder none are kept. */
static void kernels_give(struct run *run)
{
	size_t len = strlen(run->kernels);
	int fd _close_ = -1;

	if (!len || (size_t)snprintf(run->kernels + len, sizeof(run->kernels) - len, "-%s", run->confine.name) >= sizeof(run->kernels) - len)
		return;
	if (mkdir(run->kernels, 0700) && errno != EEXIST)
		return;
	fd = open(run->kernels, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fchown(fd, run->confine.uid, run->confine.gid))
		run->kernels[0] = 0;
}

/* As whom, and with what left of root's rights. */
static int confine_prepare(struct run *run, struct err *e)
{
	const struct run_options *o = run->options;

	if (o->user && geteuid())
		return err_set(e, EPERM, "--user %.60s: only root can run a machine as somebody else", o->user);
	if (o->unconfined || geteuid())
		return 0;
	if (o->user && confine_user(&run->confine, o->user, true, e))
		return err_prefix(e, "--user");
	if (!o->user && run->home && !o->pc.nshares) /* a shared folder's files may be anybody's */
		confine_user(&run->confine, USUAL_USER, false, NULL);
	run->confine.shares = o->pc.nshares;
	return 0;
}

static int limits_begin(const struct limits *l, struct err *e)
{
	struct cgroups groups;

	cgroups_find(&groups);
	return limits_apply(&groups, 0, l, e);
}

static int confine_begin(struct run *run, struct err *e)
{
	int r = confine_prepare(run, e);

	if (!r)
		r = limits_begin(&run->options->limits, e);
	if (!r && run->confine.uid && run->home)
		r = folder_give(run, e);
	if (!r && run->confine.uid)
		kernels_give(run);
	if (!r)
		r = run_view_begin(&run->view, run->options, run->home, run->root, e);
	return r || run->options->unconfined ? r : confine_early(&run->confine, e);
}

static int run_build(struct run *run, const sigset_t *ends, struct err *e)
{
	struct run_options *o = run->options;
	char root[PATH_MAX];
	int r;

	if (!store_root_choose(run->root[0] ? run->root : NULL, root, NULL)) /* where nothing was ever kept, nothing is now */
		verdict_open(&run->verdict, root, NULL);
	o->vm.verdict = &run->verdict;
	r = confine_begin(run, e);
	if (!r && o->restore)
		r = restore_prepare(run, e);
	if (!r)
		r = vm_create(&run->vm, &o->vm, e);
	verdict_close(&run->verdict);
	if (!r)
		r = check_kvm(run, e);
	if (!r)
		r = trace_start(run, e);
	if (!r)
		r = pc_create(&run->pc, run->vm, &o->pc, e);
	if (!r && o->gdb)
		r = gdb_start(run->vm, o->gdb, e) ? err_prefix(e, "--gdb %.100s", o->gdb) : 0;
	if (!r && run->saved && vm_load(run->vm, run->saved, &run->meta, e))
		r = err_prefix(e, "--restore %.200s", o->restore);
	build_timer(false);
	if (!r)
		r = signals_watch(run, ends, e);
	run->saver.vm = run->vm;
	if (run->vm)
		run->vm->machine.sample = o->stats;
	if (!r)
		r = control_open(run, e);
	if (r && run->confine.uid && e->code == EACCES)
		err_prefix(e, "as user %s, who runs the machine (user: in vm.yaml says another)", run->confine.name);
	return r;
}

static int confine_files(const struct run *run, struct err *e)
{
#ifdef OSPITE_SANITIZED /* they write files of their own, and look at other processes */
	return 0;
#else
	int r = landlock_confine(&run->view, e);

	return MIN(r, 0);
#endif
}

/* Nothing runs before everything is in its place; with a folder, not before the folder says so. */
static int run_start(struct run *run, struct err *e)
{
	int r = view_enter(&run->view, e);
	bool held;

	if (!r && !run->options->unconfined)
		r = confine_files(run, e);
	if (!r && !run->options->unconfined)
		r = confine_late(e);
	if (r)
		return r;
	held = run->vm->start_paused; /* for the debugger */
	run->vm->start_paused = true;
	r = vm_start(run->vm, e);
	if (!r && !run->options->quiet)
		say_engine(run);
	if (!r && run->options->gdb)
		fprintf(stderr, "ospite: waiting for the debugger: target remote :%d\n", gdb_port(run->vm));
	if (!r && !run->home && !held && vm_resume(run->vm, e) == -EBUSY)
		return 0; /* it was told to end meanwhile */
	if (r || !run->home)
		return r;
	r = store_vm_say_running(run->home->vm, run->home->was_suspended, e); /* durable before the saved state goes */
	if (!r && run->home->was_suspended && unlinkat(run->home->vm->fd, "saved", 0))
		r = err_errno(e, "cannot remove the saved state");
	if (!r)
		r = vm_resume(run->vm, e);
	if (!r && run->home->ready)
		run->home->ready(run->home->opaque);
	return r;
}

static int run_machine(struct run *run, struct err *e)
{
	struct run_options *o = run->options;
	enum vm_end end;
	sigset_t ends;
	int r;

	signals_prepare(&ends);
	r = run_build(run, &ends, e);
	if (r)
		return r;
	r = run_start(run, e);
	if (r)
		return r;
	end = vm_wait(run->vm);
	alarm(0);
	if (o->stats)
		vm_stats(run->vm, stats_line, NULL);
	chr_restore_terminal();
	return end_status(run, end);
}

/* The last thing the folder is told; then it may be wanted no more. */
static void home_leave(struct run *run, int status)
{
	static const char *const ends[] = {
		[VM_END_POWER_OFF] = "powered off", [VM_END_RESET] = "the guest reset itself",
		[VM_END_EXIT_PORT] = "the exit port was written", [VM_END_USER] = "ended",
	};
	struct run_home *h = run->home;
	enum vm_end end = run->vm->end;
	const char *reason = run->vm->end_reason;
	struct err e = { 0 };

	if ((unsigned)end < ARRAY_LEN(ends) && ends[end] && (!reason[0] || !strcmp(reason, "quit")))
		reason = ends[end];
	if (store_vm_say_ended(h->vm, end == VM_END_CRASH || end == VM_END_ENGINE, status, reason, &e))
		cli_fail("%s", e.text);
}

static void run_dispose(struct run *run)
{
	if (run->signals)
		evloop_remove(run->signals);
	if (run->signal_fd >= 0)
		close(run->signal_fd);
	if (run->vm)
		vm_destroy(run->vm);
	state_reader_close(run->saved);
}

/* A card's connection: the one brought along or made for it, or a new one if that network's switch has ended since. */
static int network_join(void *opaque, const char *network, int dialed, struct net_hello *hello, struct err *e)
{
	struct run *run = opaque;
	struct run_options *o = run->options;
	struct store networks;
	int fd = dialed, r = 0;

	for (unsigned i = 0; i < o->pc.nnets && fd < 0; i++) {
		if (o->pc.net[i].kind == NET_SWITCH && run->port[i] >= 0 && !strcmp(o->pc.net[i].argument, network)) {
			fd = run->port[i];
			run->port[i] = -1;
		}
	}
	if (fd < 0) {
		r = store_networks_open(&networks, run->root[0] ? run->root : NULL, e);
		if (!r) {
			r = fd = network_dial(&networks, network, e);
			store_close(&networks);
		}
	}
	if (r >= 0)
		r = net_client_greet(fd, hello, e);
	if (r >= 0)
		return fd;
	cleanup_close(&fd);
	return err_prefix(e, "network %s", network);
}

static void root_find(struct run *run)
{
	struct run_options *o = run->options;

	if (run->home) {
		snprintf(run->root, sizeof(run->root), "%s", run->home->store->path);
		*strrchr(run->root, '/') = 0;
	} else if (o->root) {
		snprintf(run->root, sizeof(run->root), "%s", o->root);
	}
	if (run->root[0]) {
		snprintf(run->kernels, sizeof(run->kernels), "%s/kernels", run->root);
		o->pc.kernel_cache = run->kernels;
	} else if (store_root_choose(NULL, run->root, NULL)) {
		run->root[0] = 0; /* no machine can be kept here; nor is there a network */
	}
}

/*
 * The switches this machine is to be on, started before it has memory and threads: their processes are to have nothing
 * of it; and connections to them, made before it becomes another user.
 */
static int networks_start(struct run *run, struct err *e)
{
	struct run_options *o = run->options;
	struct store networks = { .fd = -1 };
	int r = 0;

	for (unsigned i = 0; i < PC_NETS; i++)
		run->network[i] = run->port[i] = -1;
	o->pc.net_join = network_join;
	o->pc.net_join_opaque = run;
	for (unsigned i = 0; i < o->pc.nnets && !r; i++) {
		if (o->pc.net[i].kind != NET_SWITCH)
			continue;
		r = networks.fd >= 0 ? 0 : store_networks_open(&networks, run->root[0] ? run->root : NULL, e);
		if (!r)
			r = run->network[i] = network_start(&networks, o->pc.net[i].argument, e);
		if (r >= 0)
			r = run->port[i] = network_dial(&networks, o->pc.net[i].argument, e);
		r = r < 0 ? err_prefix(e, "--net switch:%s", o->pc.net[i].argument) : 0;
	}
	store_close(&networks);
	return r;
}

int run_process(struct run_options *options, struct run_home *home, struct err *e)
{
	struct run run = { .options = options, .home = home, .signal_fd = -1, .verdict = { .fd = -1 } };
	bool ran;
	int status;

	/* One heap for all threads: what is free at the end of any other stays there, however much malloc_trim is called (0.5 MiB). */
	mallopt(M_ARENA_MAX, 1);
	view_init(&run.view);
	run.saver.path = options->save_to;
	options->pc.save = options->save_to ? saver_request : NULL;
	options->pc.save_opaque = &run.saver;
	root_find(&run);
	status = networks_start(&run, e);
	if (!status)
		status = run_machine(&run, e);
	for (unsigned i = 0; i < PC_NETS; i++) {
		cleanup_close(&run.network[i]);
		cleanup_close(&run.port[i]);
	}
	ran = status >= 0;
	if (run.signals) {
		evloop_remove(run.signals);
		run.signals = NULL;
	}
	saver_join(&run.saver);
	ctl_destroy(run.ctl);
	run.ctl = NULL;
	if (ran && home) /* the devices' files are closed before anybody else may have them: the lock is kept till the end */
		home_leave(&run, status);
	view_dispose(&run.view, ran); /* of a temporary machine the folder goes now: the keeper has the lock too */
	run_dispose(&run);
	return status;
}
