/* SPDX-License-Identifier: Apache-2.0 */
/* The options a machine is described by: one setter each, and the table that `ospite run`, `create` and vm.yaml share. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/run.h"
#include "virtio/devices.h"

#define MEMORY_MIN (2ull << 20)

#define SET_STRING(fn, field)                                                                      \
	static int fn(void *into, const char *value, struct err *e)                                \
	{                                                                                          \
		((struct run_options *)into)->field = value;                                       \
		return *value ? 0 : err_set(e, EINVAL, "needs a value");                           \
	}

int run_set_name(void *into, const char *value, struct err *e)
{
	((struct run_options *)into)->vm.name = ((struct run_options *)into)->folder_name = value;
	return *value ? 0 : err_set(e, EINVAL, "needs a value");
}
SET_STRING(set_kernel, pc.kernel)
SET_STRING(set_initrd, pc.initrd)
SET_STRING(set_firmware, pc.firmware)
SET_STRING(set_firmware_vars, pc.firmware_vars)
SET_STRING(set_debug_console, pc.debug_console)
SET_STRING(set_vnc_password, pc.vnc_password)
SET_STRING(set_vnc_tls, pc.vnc_tls)
SET_STRING(set_keyboard, pc.layout)
SET_STRING(set_log, log)
SET_STRING(set_trace, trace)
SET_STRING(set_gdb, gdb)
SET_STRING(set_save_to, save_to)
SET_STRING(set_restore, restore)
SET_STRING(set_control, control)
SET_STRING(set_root, root)
SET_STRING(set_user, user)
SET_STRING(set_template, template)
SET_STRING(set_user_data, user_data)

static int set_append(void *into, const char *value, struct err *e)
{
	((struct run_options *)into)->pc.append = value;
	return 0;
}

static int set_cpus(void *into, const char *value, struct err *e)
{
	static const char *const names[] = { "sockets", "cores", "threads" };
	struct vm_config *vm = &((struct run_options *)into)->vm;
	uint64_t n[4] = { 0 }, product; /* of the names, then the number itself */

	((struct run_options *)into)->sized = true;
	for (const char *at = value; *at;) {
		size_t len = strcspn(at, ",="), rest = strcspn(at, ",");
		unsigned k = 0;
		char number[16];
		int r;

		while (k < 3 && (strlen(names[k]) != len || strncmp(at, names[k], len)))
			k++;
		if (k < 3 ? at[len] != '=' : at != value || at[len] == '=')
			return err_set(e, EINVAL, "is not understood; write N, or N,sockets=S,cores=C,threads=T");
		snprintf(number, sizeof(number), "%.*s", (int)(k < 3 ? rest - len - 1 : rest), at + (k < 3 ? len + 1 : 0));
		r = parse_number(number, 1, MAX_CPUS, &n[k], e);
		if (r)
			return k < 3 ? err_prefix(e, "%s", names[k]) : r;
		at += rest + (at[rest] == ',');
	}
	if (!(n[0] | n[1] | n[2] | n[3]))
		return err_set(e, EINVAL, "needs a value");
	if (!n[3] || n[0] | n[1] | n[2]) {
		for (unsigned i = 0; i < 3; i++) /* what is not given: cores as many as it takes, else one */
			if (!n[i] && (i != 1 || !n[3]))
				n[i] = 1;
		if (!n[1])
			n[1] = MAX(n[3] / (n[0] * n[2]), 1u);
		product = n[0] * n[1] * n[2];
		if (product > MAX_CPUS || (n[3] && n[3] != product))
			return err_set(e, EINVAL, "%u sockets of %u cores of %u threads are %u CPUs%s", (unsigned)n[0], (unsigned)n[1],
				       (unsigned)n[2], (unsigned)product, product > MAX_CPUS ? ": too many" : "");
		n[3] = product;
		vm->cores = (unsigned)n[1];
		vm->threads = (unsigned)n[2];
	}
	vm->cpus = (unsigned)n[3];
	return 0;
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

static int set_memory_pages(void *into, const char *value, struct err *e)
{
	bool huge = !strcmp(value, "2M");

	if (!huge && strcmp(value, "usual"))
		return err_set(e, EINVAL, "is neither usual nor 2M");
	((struct run_options *)into)->vm.huge_pages = huge;
	return 0;
}

static int set_save_memory(void *into, const char *value, struct err *e)
{
	bool mapped = !strcmp(value, "mapped");

	if (!mapped && strcmp(value, "packed"))
		return err_set(e, EINVAL, "is neither packed nor mapped");
	((struct run_options *)into)->vm.save_mapped = mapped;
	return 0;
}

static int set_disk_size(void *into, const char *value, struct err *e)
{
	return parse_size(value, &((struct run_options *)into)->disk_size, e);
}

static int set_ssh_key(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;

	if (o->nssh_keys == SSH_KEYS)
		return err_set(e, E2BIG, "there can be %d files of keys", SSH_KEYS);
	o->ssh_key[o->nssh_keys++] = value;
	return *value ? 0 : err_set(e, EINVAL, "needs a file");
}

static int set_hostname(void *into, const char *value, struct err *e)
{
	size_t n = strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.");

	((struct run_options *)into)->hostname = value;
	return n && n < 254 && !value[n] && *value != '-' && *value != '.' ? 0 : err_set(e, EINVAL, "is no host name: letters, digits, '-' and '.'");
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

	const struct engine_ops *ops;
	struct engine_options options;

	((struct run_options *)into)->vm.engine = value;
	if (strchr(value, ','))
		return engine_parse(value, &ops, &options, e);
	return one_of(value, names, ARRAY_LEN(names), "auto, interp, dbt, kvm and verify", e);
}

static int set_cpu(void *into, const char *value, struct err *e)
{
	static const char *const names[] = { "v2", "v3", "v4", "host" };

	((struct run_options *)into)->vm.cpu_model = value;
	((struct run_options *)into)->sized = true;
	return one_of(value, names, ARRAY_LEN(names), "v2, v3, v4 and host", e);
}

static int set_serial(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;

	if (o->pc.nserial == ARRAY_LEN(o->pc.serial))
		return err_set(e, E2BIG, "there are only four serial ports");
	if (strcmp(value, "stdio") && strcmp(value, "null") && strcmp(value, "none") &&
	    strncmp(value, "file:", 5) && strncmp(value, "socket:", 7) &&
	    strncmp(value, "console:", 8))
		return err_set(e, EINVAL, "does not exist; write stdio, file:PATH, socket:PATH, console:PATH, null or none");
	for (unsigned i = 0; i < o->pc.nserial; i++) {
		if (!strcmp(value, "stdio") && o->pc.serial[i] && !strcmp(o->pc.serial[i], value))
			return err_set(e, EINVAL, "is given twice; the terminal can serve one port");
	}
	o->pc.serial[o->pc.nserial++] = strcmp(value, "none") ? value : NULL;
	return 0;
}

static int set_display(void *into, const char *value, struct err *e)
{
	((struct run_options *)into)->pc.display = value; /* checked where it is opened */
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
	if (pc_disk_parse(d, spec, e))
		return -1;
	d->cdrom = cdrom;
	if (cdrom && d->bus != PC_DISK_IDE && d->bus != PC_DISK_AHCI)
		return err_set(e, EINVAL, "a CD-ROM drive is on bus=ide or bus=ahci; a read-only image is --disk file=...,readonly,bus=virtio");
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

	if (!r && !strcmp(o->disk_text[o->pc.ndisks - 1], "none"))
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

/* A forward of the user network: what begins with a digit or a bracket. */
static int set_forward(struct run_options *o, const char *value, struct err *e)
{
	if (o->pc.nforwards == PC_FORWARDS)
		return err_set(e, E2BIG, "there can be %d forwards", PC_FORWARDS);
	return net_parse_forward(&o->pc.forward[o->pc.nforwards++], value, e);
}

/* WHERE as for --serial. What stands before '=' is a name when it is no path. */
static int set_port(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;
	struct pc_port *p = &o->pc.port[o->pc.nports];
	const char *equals = strchr(value, '='), *colon = strpbrk(value, ":/");

	if (*value == '[' || (*value >= '0' && *value <= '9' && !(equals && (!colon || equals < colon))))
		return set_forward(o, value, e);
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

static int set_net(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;

	if (!strcmp(value, "none")) {
		o->net_none = true;
		return 0;
	}
	if (o->pc.nnets == PC_NETS)
		return err_set(e, E2BIG, "there can be %d network cards", PC_NETS);
	return net_config_parse(&o->pc.net[o->pc.nnets++], value, e);
}

/* PATH[,cid=N] */
static int set_vsock(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;
	uint64_t cid = VSOCK_CID_USUAL;
	char *comma;

	free(o->vsock_text);
	o->vsock_text = strdup(value);
	if (!o->vsock_text)
		return err_set(e, ENOMEM, "out of memory");
	comma = strchr(o->vsock_text, ',');
	if (comma) {
		*comma++ = 0;
		if (strncmp(comma, "cid=", 4))
			return err_set(e, EINVAL, "write PATH or PATH,cid=N");
		if (parse_number(comma + 4, VSOCK_CID_USUAL, UINT32_MAX - 1, &cid, e))
			return err_prefix(e, "%s", comma);
	}
	if (!o->vsock_text[0])
		return err_set(e, EINVAL, "needs a path");
	o->pc.vsock = o->vsock_text;
	o->pc.vsock_cid = (uint32_t)cid;
	return 0;
}

static int set_pmem(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;
	struct pc_pmem *p = &o->pc.pmem[o->pc.npmems];
	struct stat st;

	if (o->pc.npmems == PC_PMEMS)
		return err_set(e, E2BIG, "there can be %d files", PC_PMEMS);
	if (stat(value, &st))
		return err_errno(e, "cannot look at it");
	if (!S_ISREG(st.st_mode) || !st.st_size)
		return err_set(e, EINVAL, "is no file, or an empty one");
	p->path = value;
	p->length = (uint64_t)st.st_size;
	p->size = (p->length + PC_PMEM_ALIGN - 1) & -PC_PMEM_ALIGN;
	if (p->size > 1ull << 46)
		return err_set(e, EFBIG, "is too large");
	o->vm.files += p->size;
	o->pc.npmems++;
	return 0;
}

/* DIR[:TAG][,ro]; the tag is "share", or "share1" and so on, when not given. */
static int set_share(void *into, const char *value, struct err *e)
{
	static const char *const tags[PC_SHARES] = { "share",  "share1", "share2", "share3",
						     "share4", "share5", "share6", "share7" };
	struct run_options *o = into;
	unsigned n = o->pc.nshares;
	struct pc_share *s = &o->pc.share[n];
	char *text, *comma, *colon;

	if (n == PC_SHARES)
		return err_set(e, E2BIG, "there can be %d shared folders", PC_SHARES);
	text = o->share_text[n] = strdup(value);
	if (!text)
		return err_set(e, ENOMEM, "out of memory");
	*s = (struct pc_share){ .path = text, .tag = tags[n] };
	o->pc.nshares++;
	comma = strrchr(text, ',');
	if (comma) {
		if (strcmp(comma, ",ro"))
			return err_set(e, EINVAL, "write DIR, DIR:TAG, or either with ,ro behind it");
		*comma = 0;
		s->read_only = true;
	}
	colon = strrchr(text, ':');
	if (colon && !strchr(colon, '/')) {
		*colon = 0;
		s->tag = colon + 1;
	}
	if (!*s->tag || strlen(s->tag) > VIRTIO_FS_TAG)
		return err_set(e, EINVAL, "a tag has 1 to %d characters", VIRTIO_FS_TAG);
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(o->pc.share[i].tag, s->tag))
			return err_set(e, EINVAL, "two shared folders have the tag %s", s->tag);
	return *text ? 0 : err_set(e, EINVAL, "needs a folder");
}

static int set_input(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;

	if (!strcmp(value, "tablet"))
		o->pc.tablet = true;
	else if (!strcmp(value, "keyboard"))
		o->pc.keyboard = true;
	else
		return err_set(e, EINVAL, "does not exist; there are tablet and keyboard");
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

static int set_boot_wait(void *into, const char *value, struct err *e)
{
	uint64_t seconds;
	int r = parse_number(value, 0, 65, &seconds, e); /* the firmware counts 16 bits of milliseconds */

	if (!r)
		((struct run_options *)into)->pc.boot_wait_ms = (unsigned)seconds * 1000;
	return r;
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

/* "150%" or "150" */
static int parse_percent(const char *value, uint64_t *n, struct err *e)
{
	char text[16];

	snprintf(text, sizeof(text), "%.*s", (int)(strlen(value) - (*value && value[strlen(value) - 1] == '%')), value);
	return parse_number(text, 1, MAX_CPUS * 100, n, e);
}

int run_limit_parse(struct limits *l, const char *key, const char *value, struct err *e)
{
	uint64_t n = 0;
	int r;

	if (!strcmp(key, "memory-max")) {
		r = parse_size(value, &n, e);
		l->memory_max = r ? 0 : n;
	} else if (!strcmp(key, "cpu-quota")) {
		r = parse_percent(value, &n, e);
		l->cpu_quota = r ? 0 : (unsigned)n;
	} else {
		r = parse_number(value, 1, 10000, &n, e);
		l->cpu_weight = r ? 0 : (unsigned)n;
	}
	return r;
}

static int set_cpu_weight(void *into, const char *value, struct err *e)
{
	return run_limit_parse(&((struct run_options *)into)->limits, "cpu-weight", value, e);
}

static int set_cpu_quota(void *into, const char *value, struct err *e)
{
	return run_limit_parse(&((struct run_options *)into)->limits, "cpu-quota", value, e);
}

static int set_memory_max(void *into, const char *value, struct err *e)
{
	return run_limit_parse(&((struct run_options *)into)->limits, "memory-max", value, e);
}

SET_FLAG(set_autostart, autostart)
SET_FLAG(set_no_reboot, vm.no_reboot)
SET_FLAG(set_boot_menu, pc.boot_menu)
SET_FLAG(set_vga, vga)
static int set_view(void *into, const char *value, struct err *e)
{
	struct run_options *o = into;

	if (o->nviews == RUN_VIEWS)
		return err_set(e, E2BIG, "there can be %d folders", RUN_VIEWS);
	o->view[o->nviews++] = value;
	return *value ? 0 : err_set(e, EINVAL, "needs a folder");
}

SET_FLAG(set_rng, pc.rng)
SET_FLAG(set_seed, seed)
SET_FLAG(set_balloon, pc.balloon)
SET_FLAG(set_stats, stats)
SET_FLAG(set_no_agent, pc.no_agent)
SET_FLAG(set_unconfined, unconfined)
SET_FLAG(set_detach, detach)
SET_FLAG(set_remove, remove)
SET_FLAG(set_quiet, quiet)
SET_FLAG(set_require_kvm, require_kvm)

const struct option_def run_options[] = {
	{ "kernel", "FILE", "Linux bzImage, ELF with PVH entry, Multiboot kernel", set_kernel, OPTION_PATH | OPTION_OFTEN },
	{ "initrd", "FILE", "initial RAM disk; for Multiboot the first module", set_initrd, OPTION_PATH | OPTION_OFTEN },
	{ "append", "TEXT", "the kernel's command line, as in console=ttyS0", set_append, OPTION_OFTEN },
	{ "module", "FILE[,ARGS]", "a Multiboot module; may be repeated", set_module, OPTION_LIST | OPTION_PATH },
	{ "disk", "SPEC", "a disk image: FILE or format=qcow2,file=FILE,bus=virtio", set_disk, OPTION_LIST | OPTION_PATH | OPTION_OFTEN },
	{ "cdrom", "FILE", "a CD image; none: an empty drive", set_cdrom, OPTION_LIST | OPTION_PATH | OPTION_OFTEN },
	{ "rng", NULL, "an entropy device (virtio)", set_rng },
	{ "balloon", NULL, "memory the guest does not need goes back (virtio)", set_balloon },
	{ "net", "KIND", "a network card: user, tap:IF, switch:NAME, none [user]", set_net, OPTION_LIST | OPTION_OFTEN },
	{ "port", "[ADDR:]8080:80", "the guest's port 80; or [NAME=]WHERE: virtio console", set_port, OPTION_LIST | OPTION_OFTEN },
	{ "pmem", "FILE", "an image as memory, /dev/pmem0, only to be read", set_pmem, OPTION_LIST | OPTION_PATH },
	{ "share", "DIR[:TAG][,ro]", "a folder for the guest: mount -t virtiofs TAG [share]", set_share, OPTION_LIST | OPTION_PATH | OPTION_OFTEN },
	{ "no-agent", NULL, "without the port for the guest's agent (exec, cp)", set_no_agent },
	{ "vsock", "PATH[,cid=N]", "sockets: guest's port P is PATH_P; docs/virtio.md [3]", set_vsock, OPTION_PATH },
	{ "input", "KIND", "tablet: a pointer that VNC places exactly; keyboard", set_input, OPTION_LIST },
	{ "boot", "ORDER", "what to start: disk,cdrom,network in some order", set_boot },
	{ "firmware", "FILE", "bios, uefi or a file; not with --kernel [bios]", set_firmware, OPTION_PATH },
	{ "memory", "SIZE", "512M, 2G, ...; a bare number is MiB [1G]", set_memory, OPTION_OFTEN },
	{ "memory-pages", "KIND", "2M: the host's reserved huge pages [usual]", set_memory_pages },
	{ "cpus", "N[,...]", "virtual CPUs, 1 to 64 [1]; sockets=, cores=, threads=", set_cpus, OPTION_OFTEN },
	{ "cpu", "MODEL", "what the CPU can do: v2, v3, v4 or host [host]", set_cpu },
	{ "engine", "NAME", "auto, interp, dbt, kvm[,OPTION]: 'ospite engines' [auto]", set_engine, OPTION_OFTEN },
	{ "require-kvm", NULL, "fail unless the hardware runs the guest", set_require_kvm },
	{ "display", "WHERE", "text: in this terminal; vnc[:[ADDR:]PORT]; none [none]", set_display, OPTION_HERE | OPTION_OFTEN },
	{ "vga", NULL, "a text screen for --kernel; --display implies it", set_vga },
	{ "keyboard", "LAYOUT", "of VNC's clients and the guest: us, de, ch:fr, ... [us]", set_keyboard, OPTION_HERE },
	{ "vnc-password", "FILE", "with the password VNC clients have to give, by TLS", set_vnc_password, OPTION_PATH | OPTION_HERE },
	{ "vnc-tls", "FILE", "with certificate and key for that [a new one]", set_vnc_tls, OPTION_PATH | OPTION_HERE },
	{ "serial", "WHERE", "stdio, file:PATH, socket:PATH, null; up to 4 [stdio]", set_serial, OPTION_LIST },
	{ "firmware-vars", "FILE", "keeps what UEFI remembers; made when not there", set_firmware_vars, OPTION_PATH },
	{ "debug-console", "WHERE", "where firmware's messages go, as for --serial", set_debug_console },
	{ "boot-menu", NULL, "let the firmware ask what to start", set_boot_menu },
	{ "boot-wait", "SECONDS", "how long it asks, before it starts the first [60]", set_boot_wait },
	{ "exit-port", "PORT", "writing v there ends the VM with status (v<<1)|1", set_exit_port },
	{ "no-reboot", NULL, "end when the guest resets, instead of starting again", set_no_reboot },
	{ "user", "NAME", "root: as whom it runs, all of it [with a folder: ospite]", set_user },
	{ "cpu-weight", "N", "its share of the CPUs beside others' 100, 1 to 10000", set_cpu_weight },
	{ "cpu-quota", "PERCENT", "of one CPU, the most it may use: 150%", set_cpu_quota },
	{ "memory-max", "SIZE", "the most its process may use, guest and ours", set_memory_max },
	{ "autostart", NULL, "with a folder: 'ospite start --autostart' starts it", set_autostart },
	{ "view", "FOLDER", "its process may see this folder beside its own files", set_view, OPTION_LIST | OPTION_PATH },
	{ "unconfined", NULL, "all system calls and privileges stay: to find faults", set_unconfined },
	{ "hostname", "NAME", "first boot (NoCloud): the guest's name [the machine's]", set_hostname },
	{ "ssh-key", "FILE", "first boot: public keys that may log in", set_ssh_key, OPTION_LIST | OPTION_PATH },
	{ "user-data", "FILE", "first boot: for the guest's cloud-init", set_user_data, OPTION_PATH },
	{ "seed", NULL, "first-boot data without any of these; for 'ospite ssh'", set_seed },
	{ "template", "NAME", "what it was made of; templates in use are not removed", set_template },
	{ "disk-size", "SIZE", "of the first disk of a machine made of a template [10G]", set_disk_size, OPTION_HERE },
	{ "save-to", "FILE", "where Ctrl-A S or SIGUSR1 saves the machine, ending it", set_save_to, OPTION_HERE },
	{ "save-memory", "KIND", "packed: small files; mapped: large ones that go on at once [packed]", set_save_memory },
	{ "restore", "FILE", "go on with a saved machine, under any engine", set_restore, OPTION_HERE },
	{ "control", "PATH", "control socket: QMP for programs, docs/control.md", set_control, OPTION_HERE },
	{ "name", "NAME", "what to call the machine", run_set_name, OPTION_HERE },
	{ "log", "FILE", "messages and traces go there, not to standard error", set_log, OPTION_HERE },
	{ "trace", "LIST", "record what happens; '--trace help' lists categories", set_trace, OPTION_HERE },
	{ "gdb", "[ADDR:]PORT", "start paused, wait for gdb there [127.0.0.1]", set_gdb, OPTION_HERE },
	{ "stats", NULL, "show counters of engine and CPUs at the end", set_stats, OPTION_HERE },
	{ "detach", NULL, "in the background, with a folder: 'ospite create --help'", set_detach, OPTION_HERE },
	{ "rm", NULL, "with a folder: remove the machine at its end", set_remove, OPTION_HERE },
	{ "root", "FOLDER", "with a folder: where machines are", set_root, OPTION_HERE },
	{ "quiet", NULL, "say nothing that is no error", set_quiet, OPTION_HERE },
	{ NULL, NULL, NULL, NULL, 0 },
};
