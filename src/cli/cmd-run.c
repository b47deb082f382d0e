/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite run: options to configuration, then one machine from start to end in this process.
 *
 * Signals: SIGTERM, SIGINT and SIGHUP are blocked in all threads and read from a signalfd on the event loop,
 * so that they end the machine as every other end does. Signals that kill restore the terminal first.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "backend/chr.h"
#include "base/log.h"
#include "base/trace.h"
#include "board/pc.h"
#include "cli/cli.h"
#include "cli/saver.h"
#include "ctl/ctl.h"
#include "vm/gdb.h"
#include "vm/save.h"
#include "vm/vm.h"

#define MEMORY_MIN (2ull << 20)
#define MODULES_MAX 32

struct run_options {
	struct vm_config vm;
	struct pc_config pc;
	struct pc_module module[MODULES_MAX];
	char *module_text[MODULES_MAX];
	char *disk_text[PC_DISKS], *port_text[PC_PORTS];
	bool append_given, stats, require_kvm, sized;
	const char *log, *trace, *gdb, *save_to, *restore, *control;
};

/* ---- options ---- */

#define SET_STRING(fn, field)                                                                      \
	static int fn(void *into, const char *value, struct err *e)                                \
	{                                                                                          \
		((struct run_options *)into)->field = value;                                       \
		return *value ? 0 : err_set(e, EINVAL, "needs a value");                           \
	}

SET_STRING(set_name, vm.name)
SET_STRING(set_kernel, pc.kernel)
SET_STRING(set_initrd, pc.initrd)
SET_STRING(set_firmware, pc.firmware)
SET_STRING(set_firmware_vars, pc.firmware_vars)
SET_STRING(set_debug_console, pc.debug_console)
SET_STRING(set_log, log)
SET_STRING(set_trace, trace)
SET_STRING(set_gdb, gdb)
SET_STRING(set_save_to, save_to)
SET_STRING(set_restore, restore)
SET_STRING(set_control, control)

static int set_append(void *into, const char *value, struct err *e)
{
	((struct run_options *)into)->pc.append = value;
	return 0;
}

static int set_cpus(void *into, const char *value, struct err *e)
{
	uint64_t n;
	int r = parse_number(value, 1, MAX_CPUS, &n, e);

	if (!r)
		((struct run_options *)into)->vm.cpus = (unsigned)n;
	((struct run_options *)into)->sized = true;
	return r;
}

static int set_memory(void *into, const char *value, struct err *e)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t size;
	int r = parse_size(value, &size, e);

	if (r)
		return r;
	if (size < MEMORY_MIN)
		return err_set(e, EINVAL, "is too little; give 2M or more");
	if (size > host)
		return err_set(e, EINVAL, "is more than this host has (%llu MiB); give less",
			       (unsigned long long)(host >> 20));
	((struct run_options *)into)->vm.memory = size & ~(GUEST_PAGE - 1);
	((struct run_options *)into)->sized = true;
	return 0;
}

static int one_of(const char *value, const char *const *names, unsigned count, const char *all,
		  struct err *e)
{
	const char *near;

	for (unsigned i = 0; i < count; i++) {
		if (!strcmp(value, names[i]))
			return 0;
	}
	near = nearest(value, names, count);
	if (near)
		return err_set(e, EINVAL, "does not exist; did you mean %s?", near);
	return err_set(e, EINVAL, "does not exist; there are %s", all);
}

static int set_engine(void *into, const char *value, struct err *e)
{
	static const char *const names[] = { "auto", "interp", "dbt", "kvm", "verify" };

	((struct run_options *)into)->vm.engine = value;
	return one_of(value, names, ARRAY_LEN(names), "auto, interp, dbt, kvm and verify", e);
}

static int set_cpu(void *into, const char *value, struct err *e)
{
	static const char *const names[] = { "v2", "v3", "host" };

	((struct run_options *)into)->vm.cpu_model = value;
	((struct run_options *)into)->sized = true;
	return one_of(value, names, ARRAY_LEN(names), "v2, v3 and host", e);
}

static int set_serial(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;

	if (o->pc.nserial == ARRAY_LEN(o->pc.serial))
		return err_set(e, E2BIG, "there are only four serial ports");
	if (strcmp(value, "stdio") && strcmp(value, "null") && strcmp(value, "none") &&
	    strncmp(value, "file:", 5) && strncmp(value, "socket:", 7))
		return err_set(e, EINVAL, "does not exist; write stdio, file:PATH, socket:PATH, null or none");
	for (unsigned i = 0; i < o->pc.nserial; i++) {
		if (!strcmp(value, "stdio") && o->pc.serial[i] && !strcmp(o->pc.serial[i], value))
			return err_set(e, EINVAL, "is given twice; the terminal can serve one port");
	}
	o->pc.serial[o->pc.nserial++] = strcmp(value, "none") ? value : NULL;
	return 0;
}

static int set_display(void *into, const char *value, struct err *e)
{
	static const char *const names[] = { "none", "text" };

	((struct run_options *)into)->pc.display = value;
	return one_of(value, names, ARRAY_LEN(names), "none and text", e);
}

/* The firmware Debian's packages install; the first that is there. */
static const char *usual_firmware(void)
{
	static const char *const path[] = { "/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin" };

	for (unsigned i = 0; i < ARRAY_LEN(path); i++)
		if (!access(path[i], R_OK))
			return path[i];
	return NULL;
}

/* The display adapter's BIOS, from the same package; "" when there is none: a display without text modes. */
static const char *usual_vga_bios(void)
{
	static const char *const path[] = { "/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin" };

	for (unsigned i = 0; i < ARRAY_LEN(path); i++)
		if (!access(path[i], R_OK))
			return path[i];
	return "";
}

/* Take "KEY=..." out of a disk's description: ours, not the back-end's. The value in `value`; false: not there. */
static bool disk_key(char *spec, const char *key, char *value, size_t size)
{
	size_t len = strlen(key);

	for (char *at = spec; *at;) {
		char *end = strchrnul(at, ',');

		while (*end && end[1] == ',') /* doubled: within the value */
			end = strchrnul(end + 2, ',');
		if (!strncmp(at, key, len) && at[len] == '=') {
			snprintf(value, size, "%.*s", (int)(end - at - (ptrdiff_t)len - 1), at + len + 1);
			if (*end)
				memmove(at, end + 1, strlen(end));
			else
				*(at > spec ? at - 1 : at) = 0;
			return true;
		}
		at = *end ? end + 1 : end;
	}
	return false;
}

static int disk_keys(struct pc_disk *d, char *spec, struct err *e)
{
	char value[64];
	uint64_t n;

	if (disk_key(spec, "bus", value, sizeof(value))) {
		if (!strcmp(value, "virtio"))
			d->bus = PC_DISK_VIRTIO;
		else if (strcmp(value, "ide"))
			return err_set(e, EINVAL, "bus=%s does not exist; there are ide and virtio", value);
	}
	if (disk_key(spec, "serial", value, sizeof(value))) {
		if (strlen(value) >= sizeof(d->serial) || d->bus != PC_DISK_VIRTIO)
			return err_set(e, EINVAL, "serial=%s: 20 characters at most, for bus=virtio", value);
		strcpy(d->serial, value);
	}
	if (disk_key(spec, "queues", value, sizeof(value))) {
		if (parse_number(value, 1, 16, &n, e))
			return err_prefix(e, "queues=%s", value);
		d->queues = (unsigned)n;
	}
	return 0;
}

static int disk_add(struct run_options *o, const char *value, bool cdrom, struct err *e)
{
	struct pc_disk *d = &o->pc.disk[o->pc.ndisks];
	char *spec;

	if (o->pc.ndisks == PC_DISKS)
		return err_set(e, E2BIG, "there can be %d disks", PC_DISKS);
	spec = strdup(value);
	if (!spec)
		return err_set(e, ENOMEM, "out of memory");
	o->disk_text[o->pc.ndisks] = spec;
	*d = (struct pc_disk){ .spec = spec, .cdrom = cdrom };
	if (disk_keys(d, spec, e))
		return -1;
	if (cdrom && d->bus == PC_DISK_VIRTIO)
		return err_set(e, EINVAL, "a CD-ROM drive is on bus=ide; a read-only image is --disk file=...,readonly,bus=virtio");
	if (!*spec)
		return err_set(e, EINVAL, "needs a file");
	o->pc.ndisks++;
	return 0;
}

static int set_disk(void *into, const char *value, struct err *e)
{
	return disk_add(into, value, false, e);
}

static int set_cdrom(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;
	int r = disk_add(o, value, true, e);

	if (!r && !strcmp(value, "none"))
		o->pc.disk[o->pc.ndisks - 1].spec = NULL;
	return r;
}

static int set_boot(void *into, const char *value, struct err *e)
{
	static const char *const names[] = { "disk", "cdrom", "network" };
	struct run_options *o = into;
	unsigned n = 0;

	for (const char *at = value; *at; n++) {
		size_t len = strcspn(at, ",");
		unsigned k = 0;

		while (k < ARRAY_LEN(names) && (strlen(names[k]) != len || strncmp(at, names[k], len)))
			k++;
		if (k == ARRAY_LEN(names) || n == ARRAY_LEN(o->pc.boot))
			return err_set(e, EINVAL, "is no boot order; write disk, cdrom and network with commas between");
		o->pc.boot[n] = (enum pc_boot_kind)(PC_BOOT_DISK + k);
		at += len + (at[len] == ',');
	}
	return n ? 0 : err_set(e, EINVAL, "needs a value");
}

/* WHERE as for --serial. What stands before '=' is a name when it is no path. */
static int set_port(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;
	struct pc_port *p = &o->pc.port[o->pc.nports];
	const char *equals = strchr(value, '='), *colon = strpbrk(value, ":/");

	if (o->pc.nports == PC_PORTS)
		return err_set(e, E2BIG, "there can be %d ports", PC_PORTS);
	p->where = value;
	if (equals && (!colon || equals < colon)) {
		if (equals == value || equals - value > 60)
			return err_set(e, EINVAL, "a port's name has 1 to 60 characters");
		o->port_text[o->pc.nports] = strndup(value, (size_t)(equals - value));
		if (!o->port_text[o->pc.nports])
			return err_set(e, ENOMEM, "out of memory");
		p->name = o->port_text[o->pc.nports];
		p->where = equals + 1;
	}
	o->pc.nports++;
	return 0;
}

static int set_module(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;
	unsigned n = o->pc.nmodules;
	char *comma;

	if (n == MODULES_MAX)
		return err_set(e, E2BIG, "more than %u modules", MODULES_MAX);
	o->module_text[n] = strdup(value);
	if (!o->module_text[n])
		return err_set(e, ENOMEM, "out of memory");
	comma = strchr(o->module_text[n], ',');
	if (comma)
		*comma++ = 0;
	o->module[n] = (struct pc_module){ o->module_text[n], comma };
	o->pc.modules = o->module;
	o->pc.nmodules++;
	return 0;
}

static int set_exit_port(void *into, const char *value, struct err *e)
{
	uint64_t port;
	int r = parse_number(value, 0, 0xffff, &port, e);

	if (!r)
		((struct run_options *)into)->pc.exit_port = (int)port;
	return r;
}

#define SET_FLAG(fn, field)                                                                        \
	static int fn(void *into, const char *value, struct err *e)                                \
	{                                                                                          \
		((struct run_options *)into)->field = true;                                        \
		return 0;                                                                          \
	}

SET_FLAG(set_no_reboot, vm.no_reboot)
SET_FLAG(set_boot_menu, pc.boot_menu)
SET_FLAG(set_rng, pc.rng)
SET_FLAG(set_balloon, pc.balloon)
SET_FLAG(set_stats, stats)
SET_FLAG(set_require_kvm, require_kvm)

static const struct option_def run_options[] = {
	{ "kernel", "FILE", "Linux bzImage, ELF with PVH entry, Multiboot kernel", set_kernel },
	{ "initrd", "FILE", "initial RAM disk; for Multiboot the first module", set_initrd },
	{ "append", "TEXT", "the kernel's command line, as in console=ttyS0", set_append },
	{ "module", "FILE[,ARGS]", "a Multiboot module; may be repeated", set_module },
	{ "disk", "SPEC", "a disk image: FILE or format=qcow2,file=FILE,bus=virtio", set_disk },
	{ "cdrom", "FILE", "a CD image; none: an empty drive", set_cdrom },
	{ "rng", NULL, "an entropy device (virtio)", set_rng },
	{ "balloon", NULL, "memory the guest does not need goes back (virtio)", set_balloon },
	{ "port", "[NAME=]WHERE", "a virtio console (hvc0), or a line with that name", set_port },
	{ "boot", "ORDER", "what to start: disk,cdrom,network in some order", set_boot },
	{ "firmware", "FILE", "bios, uefi or a file; not with --kernel [bios]", set_firmware },
	{ "memory", "SIZE", "512M, 2G, ...; a bare number is MiB [1G]", set_memory },
	{ "cpus", "N", "virtual CPUs, 1 to 64 [1]", set_cpus },
	{ "cpu", "MODEL", "what the CPU can do: v2, v3 or host [host]", set_cpu },
	{ "engine", "NAME", "auto, interp, dbt, kvm: 'ospite engines' [auto]", set_engine },
	{ "require-kvm", NULL, "fail unless the hardware runs the guest", set_require_kvm },
	{ "display", "WHERE", "text: the screen in this terminal; none [none]", set_display },
	{ "serial", "WHERE", "stdio, file:PATH, socket:PATH, null; up to 4 [stdio]", set_serial },
	{ "firmware-vars", "FILE", "keeps what UEFI remembers; made when not there", set_firmware_vars },
	{ "debug-console", "WHERE", "where firmware's messages go, as for --serial", set_debug_console },
	{ "boot-menu", NULL, "let the firmware ask what to start", set_boot_menu },
	{ "exit-port", "PORT", "writing v there ends the VM with status (v<<1)|1", set_exit_port },
	{ "no-reboot", NULL, "end when the guest resets, instead of starting again", set_no_reboot },
	{ "save-to", "FILE", "where Ctrl-A S or SIGUSR1 saves the machine, ending it", set_save_to },
	{ "restore", "FILE", "go on with a saved machine, under any engine", set_restore },
	{ "control", "PATH", "control socket: QMP for programs, docs/control.md", set_control },
	{ "name", "NAME", "what to call the machine", set_name },
	{ "log", "FILE", "messages and traces go there, not to standard error", set_log },
	{ "trace", "LIST", "record what happens; '--trace help' lists categories", set_trace },
	{ "gdb", "[ADDR:]PORT", "start paused, wait for gdb there [127.0.0.1]", set_gdb },
	{ "stats", NULL, "show counters of engine and CPUs at the end", set_stats },
	{ NULL, NULL, NULL, NULL },
};

static int show_help(void)
{
	puts("Usage: ospite run --kernel FILE [OPTION...]     (options with '=' or a blank)");
	options_print(stdout, run_options);
	puts("Ctrl-A X ends the machine, Ctrl-A H helps. Exit status: 0 after power off,\n"
	     "reset, leaving; the exit port's; 125 our error, 126 guest crash, 128+N signal N.\n"
	     "Example: ospite run --kernel vmlinuz --initrd initrd --append console=ttyS0");
	return 0;
}

static void trace_help_line(void *opaque, const char *name, const char *help)
{
	printf("  %-8s %s\n", name, help);
}

static int show_trace_help(void)
{
	puts("Usage: --trace LIST    categories separated by commas, or all; lines go to --log FILE");
	trace_help(trace_help_line, NULL);
	return 0;
}

#define UEFI_VARS "/usr/share/OVMF/OVMF_VARS_4M.fd"

/* "bios" and "uefi" are what Debian's packages install. */
static int firmware_find(struct pc_config *pc, struct err *e)
{
	if (pc->firmware && !strcmp(pc->firmware, "uefi")) {
		pc->firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd";
		pc->firmware_vars_initial = UEFI_VARS;
		if (access(pc->firmware, R_OK) || access(UEFI_VARS, R_OK))
			return err_set(e, ENOENT, "--firmware uefi: install the package ovmf, or give a file");
	} else if (pc->firmware && !strcmp(pc->firmware, "bios")) {
		pc->firmware = usual_firmware();
		if (!pc->firmware)
			return err_set(e, ENOENT, "--firmware bios: install the package seabios, or give a file");
	} else if (pc->firmware_vars && !access(UEFI_VARS, R_OK)) {
		pc->firmware_vars_initial = UEFI_VARS;
	}
	if (pc->firmware_vars && !pc->firmware)
		return err_set(e, EINVAL, "--firmware-vars is for --firmware");
	return 0;
}

/* What no single option can tell. */
static int options_check(struct run_options *o, struct err *e)
{
	if (o->restore && (o->sized || o->pc.nmodules))
		return err_set(e, EINVAL, "--restore takes memory, CPUs and CPU model from the file; leave these options out");
	if (!o->pc.kernel && !o->pc.firmware && !o->restore) {
		if (!o->pc.ndisks && !o->pc.boot_menu)
			return err_set(e, EINVAL,
				       "nothing to start: give --kernel, --disk, --cdrom or --firmware FILE, see 'ospite run --help'");
		o->pc.firmware = usual_firmware();
		if (!o->pc.firmware)
			return err_set(e, ENOENT,
				       "no firmware to start from disk: install the package seabios, or give --firmware FILE");
	}
	if (firmware_find(&o->pc, e))
		return -1;
	if (o->pc.kernel && o->pc.firmware)
		return err_set(e, EINVAL, "--kernel and --firmware exclude each other: give one");
	if (o->pc.firmware && (o->pc.initrd || o->pc.append || o->pc.nmodules))
		return err_set(e, EINVAL, "--initrd, --append and --module are for --kernel, not for --firmware");
	if (o->pc.firmware)
		o->pc.vga_bios = usual_vga_bios();
	if (!o->pc.nserial) /* a screen takes the terminal */
		o->pc.serial[o->pc.nserial++] = o->pc.display && !strcmp(o->pc.display, "text") ? "null" : "stdio";
	return 0;
}

/* ---- the run ---- */

struct run {
	struct run_options options;
	struct vm *vm;
	struct pc *pc;
	struct saver saver;
	struct ctl *ctl; /* --control */
	struct state_reader *saved; /* --restore */
	struct save_meta meta;
	struct evsource *signals;
	int signal_fd;
	_Atomic int signal; /* that ended us, 0 if none */
};

static void fatal_signal(int number)
{
	chr_restore_terminal();
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

static void signals_prepare(sigset_t *ends)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
	struct sigaction act = { .sa_handler = fatal_signal, .sa_flags = (int)SA_RESETHAND };

	for (unsigned i = 0; i < ARRAY_LEN(fatal); i++)
		sigaction(fatal[i], &act, NULL);
	act = (struct sigaction){ .sa_handler = stuck_alarm };
	sigaction(SIGALRM, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(ends);
	sigaddset(ends, SIGTERM);
	sigaddset(ends, SIGINT);
	sigaddset(ends, SIGHUP);
	sigaddset(ends, SIGUSR1);
	sigprocmask(SIG_BLOCK, ends, NULL); /* inherited by every thread made from here on */
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

	if (!run->options.require_kvm || !strcmp(run->vm->machine.engine->name, "kvm"))
		return 0;
	if (strcmp(run->options.vm.engine, "auto") && strcmp(run->options.vm.engine, "kvm"))
		return err_set(e, EINVAL, "--require-kvm and --engine %s exclude each other: give one",
			       run->options.vm.engine);
	if (!kvm)
		return err_set(e, ENOTSUP, "--require-kvm: this ospite is built without KVM; leave the option out");
	if (kvm->probe && kvm->probe(&why))
		return err_set(e, ENOTSUP, "--require-kvm: %.300s", why.text);
	return err_set(e, ENOTSUP, "--require-kvm: KVM is there, but slower than %s here; leave the option out",
		       run->vm->machine.engine->name);
}

static int trace_start(struct run *run, struct err *e)
{
	const struct run_options *o = &run->options;
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
				.path = run->options.control, .save_path = run->options.save_to };

	if (!c.path)
		return 0;
	run->ctl = ctl_create(&c, e);
	if (!run->ctl || ctl_start(run->ctl, e))
		return err_prefix(e, "--control");
	return 0;
}

/* What the machine must be built with comes from the file. */
static int restore_prepare(struct run *run, struct err *e)
{
	struct run_options *o = &run->options;

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

static int run_machine(struct run *run, struct err *e)
{
	struct run_options *o = &run->options;
	enum vm_end end;
	sigset_t ends;
	int r;

	signals_prepare(&ends);
	r = o->restore ? restore_prepare(run, e) : 0;
	if (!r)
		r = vm_create(&run->vm, &o->vm, e);
	if (!r)
		r = check_kvm(run, e);
	if (!r)
		r = trace_start(run, e);
	if (!r)
		r = pc_create(&run->pc, run->vm, &o->pc, e);
	if (!r && o->gdb)
		r = gdb_start(run->vm, o->gdb, e) ? err_prefix(e, "--gdb %.100s", o->gdb) : 0;
	if (!r)
		r = signals_watch(run, &ends, e);
	if (r)
		return r;
	if (run->saved && vm_load(run->vm, run->saved, &run->meta, e))
		return err_prefix(e, "--restore %.200s", o->restore);
	run->saver.vm = run->vm;
	if (control_open(run, e))
		return -e->code;
	run->vm->machine.sample = o->stats;
	say_engine(run);
	if (o->gdb)
		fprintf(stderr, "ospite: waiting for the debugger: target remote :%d\n", gdb_port(run->vm));
	r = vm_start(run->vm, e);
	if (r)
		return r;
	end = vm_wait(run->vm);
	alarm(0);
	if (o->stats)
		vm_stats(run->vm, stats_line, NULL);
	chr_restore_terminal();
	return end_status(run, end);
}

static void run_dispose(struct run *run)
{
	if (run->signals)
		evloop_remove(run->signals);
	if (run->signal_fd >= 0)
		close(run->signal_fd);
	saver_join(&run->saver);
	ctl_destroy(run->ctl);
	if (run->vm)
		vm_destroy(run->vm);
	state_reader_close(run->saved);
	for (unsigned i = 0; i < run->options.pc.nmodules; i++)
		free(run->options.module_text[i]);
	for (unsigned i = 0; i < PC_DISKS; i++)
		free(run->options.disk_text[i]);
	for (unsigned i = 0; i < PC_PORTS; i++)
		free(run->options.port_text[i]);
}

int cmd_run(int argc, char **argv)
{
	struct run run = {
		.options = { .vm = { .name = "vm", .cpus = 1, .memory = 1ull << 30, .engine = "auto",
				     .cpu_model = "host" },
			     .pc = { .exit_port = -1 } },
		.signal_fd = -1,
	};
	struct err e = { 0 };
	int status;

	if (options_want_help(argc, argv))
		return show_help();
	status = options_parse(run_options, &run.options, argc, argv, &e);
	if (!status && run.options.trace && !strcmp(run.options.trace, "help"))
		return show_trace_help();
	if (!status)
		status = options_check(&run.options, &e);
	if (!status && run.options.log && log_open(run.options.log))
		status = err_errno(&e, "--log %s: cannot open", run.options.log);
	log_set_level(run.options.log ? LOG_INFO : LOG_WARN);
	run.saver.path = run.options.save_to;
	run.options.pc.save = run.options.save_to ? saver_request : NULL;
	run.options.pc.save_opaque = &run.saver;
	if (!status)
		status = run_machine(&run, &e);
	run_dispose(&run);
	return status < 0 ? cli_fail("%s", e.text) : status;
}
